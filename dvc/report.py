"""`report.html`: one file that shows a run, opened anywhere, without a network.

Images and videos are embedded, and the page's own content policy forbids it to load anything. It is built from the files
of the run's directory alone, so that it can be built again from a copy of them.
"""

import base64
import csv
from collections.abc import Sequence
from html import escape
from pathlib import Path

from dvc.atomic_file import write_file
from dvc.errors import UserError
from dvc.graph_drawing import draw_graph
from dvc.plots import read_metrics
from dvc.result import Result, number_text

_VIDEO_BYTES_AT_MOST = 64 << 20
_TABLE_ROWS_AT_MOST = 40
_TITLES = {
    "overlay": "The clip and the model",
    "loss": "Loss over steps",
    "parameters": "Parameters over steps (dashed: bounds)",
    "angles": "Angle over time",
}
_STYLE = """
:root { color-scheme: light; --ink: #1f2328; --soft: #59636e; --line: #d8dee4; --blue: #0b6bcb;
  --good: #1a7f37; --bad: #c2410c; }
* { box-sizing: border-box; }
body { margin: 0; background: #fff; color: var(--ink);
  font: 16px/1.55 system-ui, "Segoe UI", "Helvetica Neue", "DejaVu Sans", sans-serif; }
main { max-width: 60rem; margin: 0 auto; padding: 2.5rem 1.5rem 4rem; }
h1 { font-size: 1.75rem; line-height: 1.25; margin: 0 0 .5rem; font-weight: 650; text-wrap: balance; }
h2 { font-size: 1.1rem; margin: 2.5rem 0 .75rem; font-weight: 650; }
.name { color: var(--soft); margin: 0 0 .4rem; font-size: .9rem; letter-spacing: .02em; }
.meta, .verdict { color: var(--soft); margin: 0; }
.verdict b.pass { color: var(--good); } .verdict b.fail { color: var(--bad); }
table { border-collapse: collapse; width: 100%; font-variant-numeric: tabular-nums; }
th { text-align: left; font-weight: 600; color: var(--soft); font-size: .85rem; }
th, td { padding: .4rem .75rem .4rem 0; border-bottom: 1px solid var(--line); vertical-align: top; }
td:first-child { font-weight: 550; }
.mark { display: inline-block; padding: 0 .5em; border-radius: 1em; font-size: .8rem; font-weight: 600; }
.pass.mark { background: #dafbe1; color: var(--good); } .fail.mark { background: #ffebe0; color: var(--bad); }
.weak.mark { background: #fff3c4; color: #7a5200; }
.weak-note { color: var(--soft); font-size: .9rem; margin: .5rem 0 0; }
figure { margin: 0 0 1.5rem; } figcaption { color: var(--soft); font-size: .9rem; margin-top: .35rem; }
img, video { display: block; max-width: 100%; max-height: 42rem; height: auto; } video { background: #000; border-radius: 4px; }
pre { background: #f6f8fa; padding: .9rem 1rem; overflow-x: auto; border-radius: 4px;
  font: .8rem/1.5 ui-monospace, "DejaVu Sans Mono", Menlo, Consolas, monospace; }
details { margin: .6rem 0; } summary { cursor: pointer; color: var(--blue); }
.scroll { overflow-x: auto; }
svg.graph { display: block; max-width: 100%; height: auto; margin: .5rem 0 1rem; }
.graph .edge { fill: none; stroke: #8a94a0; stroke-width: 1.2; } .graph .head { fill: #8a94a0; }
.graph rect { stroke: #8a94a0; fill: #fff; } .graph rect.parameter { fill: #eef4fb; stroke: var(--blue); }
.graph text { text-anchor: middle; fill: var(--ink); font-size: 12px; } .graph text.type { fill: var(--soft); font-size: 10px; }
"""


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace") if path.exists() else ""
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror or error}") from error


def _embedded(path: Path, kind: str) -> str:
    try:
        return f"data:{kind};base64,{base64.b64encode(path.read_bytes()).decode()}"
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror or error}") from error


def _html_table(header: tuple[str, ...], rows: Sequence[tuple[str, ...]]) -> str:
    """A table; cells are HTML already."""
    head = "".join(f"<th>{cell}</th>" for cell in header)
    body = "".join("<tr>" + "".join(f"<td>{cell}</td>" for cell in row) + "</tr>" for row in rows)
    return f'<div class="scroll"><table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>'


def _details(title: str, content: str) -> str:
    return f"<details><summary>{escape(title)}</summary>{content}</details>" if content else ""


def _pre(text: str) -> str:
    return f"<pre>{escape(text.rstrip())}</pre>" if text.strip() else ""


def _head(result: Result, directory: Path, rows: list) -> str:
    judged = [metric.passed for metric in result.metrics.values() if metric.passed is not None]
    verdict = ""
    if judged:
        failed = judged.count(False)
        kind, word = ("fail", f"{failed} of {len(judged)} failed") if failed else ("pass", f"all {len(judged)} passed")
        verdict = f'<p class="verdict">Metrics: <b class="{kind}">{word}</b></p>'
    meta = ""
    if rows:
        loss = rows[-1].get("loss")
        meta = f"<p class='meta'>{len(rows)} steps, last loss {number_text(loss) if loss is not None else 'not finite'}</p>"
    return f'<p class="name">{escape(directory.name)}</p><h1>{escape(result.claim)}</h1>{verdict}{meta}'


def _parameters(result: Result) -> str:
    if not result.parameters:
        return ""
    rows = []
    for name, value, unit, weak in result.parameter_rows():
        mark = '<span class="weak mark">weak</span>' if weak else ""
        rows.append((escape(name), escape(value), escape(unit), mark))
    note = ""
    if any(estimate.weak for estimate in result.parameters.values()):
        note = '<p class="weak-note">weak: the data hardly determine it; its value rests on the prior or the bounds.</p>'
    return f"<h2>Recovered parameters</h2>{_html_table(('parameter', 'value', 'unit', ''), rows)}{note}"


def _metrics(result: Result) -> str:
    if not result.metrics:
        return ""
    rows = []
    for name, value, expected, verdict in result.metric_rows():
        mark = verdict if verdict == "-" else f'<span class="{verdict.lower()} mark">{verdict}</span>'
        rows.append((escape(name), escape(value), escape(expected), mark))
    return f"<h2>Metrics</h2>{_html_table(('metric', 'value', 'expected', ''), rows)}"


def _title(path: Path) -> str:
    return escape(_TITLES.get(path.stem, path.stem.replace("_", " ")))


def _videos(directory: Path) -> str:
    parts = []
    for path in sorted(directory.glob("*.mp4"), key=lambda path: (path.stem != "overlay", path.name)):
        if path.stat().st_size > _VIDEO_BYTES_AT_MOST:
            size = f"{path.stat().st_size >> 20} MiB"
            parts.append(f"<p>{escape(path.name)} is too long to be embedded ({size}); it lies beside this page.</p>")
            continue
        player = f'<video controls loop muted playsinline src="{_embedded(path, "video/mp4")}"></video>'
        parts.append(f"<figure>{player}<figcaption>{_title(path)}</figcaption></figure>")
    return f"<h2>Video</h2>{''.join(parts)}" if parts else ""


def _images(directory: Path) -> str:
    order = ["angles", "loss", "parameters"]
    paths = sorted(directory.glob("*.png"), key=lambda path: (order.index(path.stem) if path.stem in order else -1, path.name))
    parts = [
        f'<figure><img src="{_embedded(path, "image/png")}" alt="{_title(path)}">'
        f"<figcaption>{_title(path)}</figcaption></figure>"
        for path in paths
    ]
    return f"<h2>Plots</h2>{''.join(parts)}" if parts else ""


def _tables(directory: Path) -> str:
    parts = []
    for path in sorted(directory.glob("*.csv")):
        rows = list(csv.reader(_read(path).splitlines()))
        if not rows:
            continue
        body = [tuple(map(escape, row)) for row in rows[1 : _TABLE_ROWS_AT_MOST + 1]]
        more = len(rows) - 1 - len(body)
        rest = f"<p class='meta'>{more} more rows in {escape(path.name)}</p>" if more > 0 else ""
        parts.append(_details(path.stem.replace("_", " "), _html_table(tuple(map(escape, rows[0])), body) + rest))
    return f"<h2>Tables</h2>{''.join(parts)}" if parts else ""


def _pipeline(table: str, mermaid: str) -> str:
    if not table.strip() and not mermaid.strip():
        return ""
    return f"<h2>Pipeline</h2>{draw_graph(mermaid)}{_pre(table)}{_details('The graph as Mermaid text', _pre(mermaid))}"


def build_report(run_dir: Path | str, pipeline_table: str | None = None, mermaid: str | None = None) -> Path:
    """Write `report.html` into a run's directory, from the files there.

    Arguments:
        run_dir: needs `result.json`; `metrics.jsonl`, `config.yaml`, `run.log`, `pipeline.txt`, `pipeline.mmd`, and all
            `*.mp4`, `*.png` and `*.csv` are shown where they exist.
        pipeline_table, mermaid: used in place of the two pipeline files.
    Raises: UserError when the directory is missing, holds no finished run, or holds a damaged file.
    """
    directory = Path(run_dir).absolute()
    if not directory.is_dir():
        problem = "is a file; expected" if directory.exists() else "does not exist; expected"
        raise UserError(f"{directory} {problem} the directory of a run")
    if not (directory / "result.json").exists():
        if (directory / "metrics.jsonl").exists():
            raise UserError(f"{directory}: the run has not finished (no result.json); remedy: resume it and let it finish")
        raise UserError(f"{directory} is not the directory of a run (no result.json)")
    result = Result.read(directory / "result.json")
    rows = read_metrics(directory / "metrics.jsonl") if (directory / "metrics.jsonl").exists() else []
    table = pipeline_table if pipeline_table is not None else _read(directory / "pipeline.txt")
    graph = mermaid if mermaid is not None else _read(directory / "pipeline.mmd")
    body = [
        _head(result, directory, rows),
        _parameters(result),
        _metrics(result),
        _videos(directory),
        _images(directory),
        _tables(directory),
        _pipeline(table, graph),
        "<h2>Run</h2>",
        _details("Settings (config.yaml)", _pre(_read(directory / "config.yaml"))),
        _details("Notes (run.log)", _pre(_read(directory / "run.log"))),
    ]
    page = (
        '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta http-equiv="Content-Security-Policy" content="default-src \'none\'; img-src data:; media-src data:; '
        "style-src 'unsafe-inline'\">"
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{escape(result.claim)}</title><style>{_STYLE}</style></head>\n<body><main>\n"
        + "\n".join(part for part in body if part)
        + "\n</main></body></html>\n"
    )
    return write_file(directory / "report.html", page)
