"""Random scenes: the gradient of every declared number against central differences, in standard errors.

    python -m benchmarks.random_scenes out=FOLDER [scenes=300] [first=0] [seconds=10] [samples=128]

Each scene of `tests.render.random_scenes` is compared until its errors are small or its seconds are up; what is beyond three
standard errors is looked at again with other seeds, 16 times the samples and an eighth of the step. Rows are kept in
FOLDER/comparisons.jsonl and again.jsonl, one a line, and a run goes on where the last one was stopped. Prints a table at the
end, which `scenes=0` prints alone.
"""

import json
import sys
import time
import warnings
from pathlib import Path
from typing import Any

if __name__ == "__main__":
    sys.path[0] = str(Path(__file__).resolve().parent.parent)

from dvc.errors import Unsupported
from tests.render.random_scenes import random_scene
from tests.render.scene_derivatives import LIMIT, Comparison, compare_scene, recheck

NOT_BEYOND = {"z": 0.0}


def kind_of(name: str) -> str:
    """ "box 0.vertices" -> "vertices"; cameras, shutters, lights whole."""
    body, _, number = name.partition(".")
    return name if body in ("camera", "shutter", "point", "beam") else number or body


def record(row: Comparison) -> dict[str, Any]:
    return {**row._asdict(), "z": row.z, "settled": row.settled, "small": row.small_error, "cancelling": row.cancelling,
            "silent": row.silent}  # fmt: skip


def read(file: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []


def run(first: int, scenes: int, seconds: float, samples: int, file: Path) -> None:
    done = {line["scene"] for line in read(file)}
    for seed in range(first, first + scenes):
        if seed in done:
            continue
        begin = time.monotonic()
        scene = random_scene(seed)
        lines: list[dict[str, Any]] = []
        try:
            lines += [record(row) for row in compare_scene(scene, samples, 10, seconds=seconds)]
        except Unsupported as error:
            lines.append({"scene": seed, "name": "", "refused": str(error)})
        with file.open("a") as out:
            out.writelines(json.dumps(line) + "\n" for line in lines)
        beyond = [line["name"] for line in lines if abs(line.get("z", 0.0)) > LIMIT]
        print(f"{seed}: {len(lines)} numbers, {time.monotonic() - begin:.0f} s, {beyond} | {scene.words}", flush=True)


def review(seconds: float, samples: int, file: Path, reviewed: Path) -> None:
    """Looks again at what is beyond three standard errors."""
    done = {(line["scene"], line["name"]) for line in read(reviewed)}
    for line in read(file):
        if "refused" in line or line["silent"] or abs(line["z"]) <= LIMIT or (line["scene"], line["name"]) in done:
            continue
        row = Comparison(**{name: line[name] for name in Comparison._fields})
        again = record(recheck(random_scene(row.scene), row, samples, seconds, 0.125))
        with reviewed.open("a") as out:
            out.write(json.dumps(again) + "\n")
        print(f"{row.scene} {row.name}: z {row.z:.1f}, again {again['z']:.1f}", flush=True)


def table(file: Path, reviewed: Path) -> str:
    lines = read(file)
    again = {(line["scene"], line["name"]): line for line in read(reviewed)}
    refused = [line for line in lines if "refused" in line]
    counted = [line for line in lines if "refused" not in line and not line["silent"]]
    text = [
        f"{len({line['scene'] for line in lines})} scenes, {len(refused)} refused, {len(counted)} comparisons "
        f"({len(lines) - len(refused) - len(counted)} of nothing)",
        f"{'':24s}{'count':>7s}{'z < 3':>8s}{'again':>7s}{'z^2':>7s}{'error < 3 %':>13s}{'of a quarter of the scale':>27s}",
    ]
    kinds = sorted({kind_of(line["name"]) for line in counted})
    for kind in [*kinds, "all"]:
        own = [line for line in counted if kind in ("all", kind_of(line["name"]))]
        inside = sum(abs(line["z"]) < LIMIT for line in own) / len(own)
        twice = sum(abs(again.get((line["scene"], line["name"]), NOT_BEYOND)["z"]) > LIMIT for line in own)
        squares = sum(min(abs(line["z"]), 10.0) ** 2 for line in own) / len(own)
        small, settled = (sum(line[key] for line in own) / len(own) for key in ("small", "settled"))
        text.append(f"{kind:24s}{len(own):7d}{inside:8.1%}{twice:7d}{squares:7.2f}{small:13.1%}{settled:27.1%}")
    text.append("beyond three standard errors twice (scene, number, reverse mode, differences, z):")
    for row in again.values():
        if abs(row["z"]) > LIMIT:
            text.append(
                f"  {row['scene']:4d} {row['name']:28s} {row['found']:11.4g} +- {row['found_error']:7.2g}   "
                f"{row['expected']:11.4g} +- {row['expected_error']:7.2g}   {row['z']:6.1f}"
            )
    return "\n".join(text)


def main(arguments: list[str]) -> None:
    given = dict(argument.split("=", 1) for argument in arguments)
    folder = Path(given["out"])
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / "comparisons.jsonl"
    warnings.filterwarnings("ignore", message="PathRender: the gradient leaves out")
    warnings.filterwarnings("ignore", message="PathRender: view")
    options = {"first": 0, "scenes": 300, "samples": 128} | {k: int(v) for k, v in given.items() if k not in ("out", "seconds")}
    seconds = float(given.get("seconds", 10.0))
    run(options["first"], options["scenes"], seconds, options["samples"], file)
    review(4.0 * seconds, options["samples"], file, folder / "again.jsonl")
    print(table(file, folder / "again.jsonl"))


if __name__ == "__main__":
    main(sys.argv[1:])
