"""The report: complete, self-contained, escaped, built again elsewhere; wrong directories refused."""

import re
import shutil
from html.parser import HTMLParser

import numpy as np
import pytest

from dvc.errors import UserError
from dvc.graph_drawing import draw_graph, read_mermaid
from dvc.plots import plot_strip, plot_time, read_metrics
from dvc.recorder import Recorder
from dvc.report import build_report
from dvc.result import Estimate, Metric, Result

NASTY = "<script>alert('x')</script> & \"more\""
MERMAID = (
    "flowchart LR\n  length([length])\n  swing[swing<br/>Swing]\n  loss[loss<br/>Loss]\n  length --> swing\n  swing --> loss\n"
)


class Page(HTMLParser):
    """Tags with their attributes, the text, and whether every tag is closed."""

    VOID = ("meta", "img", "br", "rect", "path")

    def __init__(self, text: str):
        super().__init__()
        self.tags: list[tuple[str, dict]] = []
        self.text, self.open = "", []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        assert not self.open or self.open.pop() == tag

    def handle_data(self, data):
        self.text += data


@pytest.fixture(scope="module")
def run_dir(tmp_path_factory):
    """A finished run whose every text is hostile."""
    directory = tmp_path_factory.mktemp("report") / "run"
    run = Recorder(directory, {"name": NASTY}, wandb="disabled", show_progress=False)
    for step in range(1, 30):
        run.step(step, 1.0 / step, "explore" if step < 9 else "descend", {"length": 0.5 + 1 / step, NASTY: 1.0, "$x_{y$": 2.0})
    run.note(NASTY)
    run.save_video("overlay", np.zeros((4, 32, 48, 3), np.uint8), 25)
    run.save_table("strikes", ["strike", NASTY], [[k, NASTY] for k in range(60)])
    parameters = {NASTY: Estimate(0.5, 0.4, 0.6, NASTY, True), "length": Estimate(0.571, 0.559, 0.583, "m")}
    run.finish(
        Result(f"Claim {NASTY}", parameters, {"error": Metric(0.5, NASTY, NASTY, False), "count": Metric(3, "", 3, True)})
    )
    build_report(directory, f"stage {NASTY}", MERMAID + f"  evil[{NASTY}]\n")
    return directory


def test_it_holds_everything_and_loads_nothing(run_dir):
    text = (run_dir / "report.html").read_text()
    page = Page(text)
    assert not page.open
    assert not [tag for tag, _ in page.tags if tag in ("script", "link", "iframe", "object", "embed", "base")]
    sources = [attributes[key] for _, attributes in page.tags for key in ("src", "href", "poster", "data") if key in attributes]
    assert len(sources) == 3 and all(source.startswith("data:") for source in sources)
    assert sum(source.startswith("data:video/mp4;base64,") for source in sources) == 1
    assert not re.search(r"url\(|@import|javascript:|\son\w+=", re.sub(r"base64,[^\"]*", "", text).replace("&lt;", ""))
    policy = next(a["content"] for tag, a in page.tags if tag == "meta" and "http-equiv" in a)
    assert policy.startswith("default-src 'none'")
    for part in (
        f"Claim {NASTY}",
        "0.571 ± 0.012",
        "weak",
        "FAIL",
        "1 of 2 failed",
        f"stage {NASTY}",
        f"name: {NASTY}"[:20],
        "20 more rows",
    ):
        assert part in page.text


def test_claim_comes_first(run_dir):
    text = Page((run_dir / "report.html").read_text().partition("<body>")[2]).text
    order = [text.index(word) for word in ("Claim", "Recovered parameters", "expected", "Video", "Plots", "Tables", "Pipeline")]
    assert order == sorted(order)


def test_it_is_built_again_from_a_copy(run_dir, tmp_path):
    copy = tmp_path / "elsewhere"
    shutil.copytree(run_dir, copy)
    (copy / "report.html").unlink()
    shutil.rmtree(copy / "checkpoints", ignore_errors=True)
    (copy / "pipeline.mmd").write_text(MERMAID)
    (copy / "pipeline.txt").write_text("stage table")
    page = build_report(copy).read_text()
    assert "stage table" in page and "<svg" in page and "length --&gt; swing" in page


def test_only_a_result_is_needed(tmp_path):
    Result("Just this").write(tmp_path / "result.json")
    assert "Just this" in build_report(tmp_path).read_text()


@pytest.mark.parametrize(
    ("kind", "words"),
    [
        ("missing", "does not exist"),
        ("file", "is a file"),
        ("empty", "is not the directory of a run"),
        ("unfinished", "has not finished"),
        ("half a result", "cannot read .*result.json"),
        ("bad metrics", "line 1"),
    ],
)
def test_a_wrong_directory_is_one_line(tmp_path, kind, words):
    directory = tmp_path / "run"
    if kind == "file":
        directory.write_text("")
    elif kind != "missing":
        directory.mkdir()
    if kind in ("unfinished", "bad metrics"):
        (directory / "metrics.jsonl").write_text("{nonsense}\n{}\n")
    if kind == "half a result":
        (directory / "result.json").write_text('{"claim": "c", "par')
    if kind == "bad metrics":
        Result("c").write(directory / "result.json")
    with pytest.raises(UserError, match=words) as caught:
        build_report(directory)
    assert "\n" not in str(caught.value) and str(directory) in str(caught.value)


def test_a_last_line_that_was_cut_off_is_left_out(tmp_path):
    path = tmp_path / "metrics.jsonl"
    path.write_text('{"step": 1, "loss": 1.0}\n{"step": 2, "lo')
    assert read_metrics(path) == [{"step": 1, "loss": 1.0}]


def test_the_drawing_puts_each_stage_right_of_its_sources():
    nodes, edges = read_mermaid(MERMAID)
    assert nodes == {"length": (["length"], True), "swing": (["swing", "Swing"], False), "loss": (["loss", "Loss"], False)}
    assert edges == [("length", "swing"), ("swing", "loss")]
    left = [float(x) for x in re.findall(r'<rect class="\w+" x="([\d.]+)"', draw_graph(MERMAID))]
    assert len(left) == 3 and left == sorted(left) and len(set(left)) == 3
    assert draw_graph("") == "" and draw_graph("flowchart LR\n  a --> b\n  b --> a\n").startswith("<svg")


def test_plots_over_time_and_strips(tmp_path):
    time = np.linspace(0, 1, 20)
    plot_time(tmp_path / "t.png", time, np.stack([time, -time], 1), observed=np.stack([time, time], 1), strikes=np.array([0.5]))
    with pytest.raises(UserError, match="observed: expected 20 samples"):
        plot_time(tmp_path / "u.png", time, time, observed=time[:5])
    frames = np.zeros((9, 8, 12, 3), np.uint8)
    plot_strip(tmp_path / "s.png", {"observed": frames, "residual": np.zeros((9, 8, 12)) - 0.5})
    for name in ("t.png", "s.png"):
        assert (tmp_path / name).read_bytes().startswith(b"\x89PNG")
    assert not (tmp_path / "u.png").exists()


def test_losses_that_are_zero_or_missing_are_plotted(tmp_path):
    run = Recorder(tmp_path, {}, wandb="disabled", show_progress=False)
    for step, loss in enumerate([1.0, 0.0, float("nan"), -1.0], start=1):
        run.step(step, loss, "descend", {"length": float("nan")})
    run.finish(Result("c"))
    assert (tmp_path / "loss.png").exists()
