"""A small drawing of a pipeline: its Mermaid flowchart, laid out in layers, as SVG without any script."""

import re
from html import escape

_NODE = re.compile(r"^(\w[\w\-]*)(\(\[|\[)(.*?)(\]\)|\])$")
_EDGE = re.compile(r"^(\w[\w\-]*)\s*-->\s*(\w[\w\-]*)$")
_ROW, _GAP, _HEIGHT, _CHARACTER, _MARGIN = 52, 56, 36, 7.0, 8


def read_mermaid(text: str) -> tuple[dict[str, tuple[list[str], bool]], list[tuple[str, str]]]:
    """Nodes, name -> (lines of its label, whether it is a parameter), and edges (from, to) of a flowchart.

    Reads what `Pipeline.mermaid` writes: one node or edge a line; anything else is left out.
    """
    nodes: dict[str, tuple[list[str], bool]] = {}
    edges: list[tuple[str, str]] = []
    for line in map(str.strip, text.splitlines()):
        if found := _EDGE.match(line):
            edges.append((found[1], found[2]))
        elif found := _NODE.match(line):
            nodes[found[1]] = (found[3].split("<br/>"), found[2] == "([")
    for name in [name for edge in edges for name in edge]:
        nodes.setdefault(name, ([name], False))
    return nodes, list(dict.fromkeys(edges))


def _layers(names: list[str], edges: list[tuple[str, str]]) -> list[list[str]]:
    """Each node one layer after its last source; sources as late as their first use; rows ordered by their neighbours."""
    level = dict.fromkeys(names, 0)
    for _ in names:  # longest path; a graph without cycles settles within as many rounds as it has nodes
        for source, target in edges:
            level[target] = min(max(level[target], level[source] + 1), len(names))
    fed = {target for _, target in edges}
    for name in names:
        uses = [level[target] for source, target in edges if source == name]
        if name not in fed and uses:
            level[name] = max(0, min(uses) - 1)
    layers = [[name for name in names if level[name] == k] for k in sorted(set(level.values()))]
    place = {name: float(i) for layer in layers for i, name in enumerate(layer)}
    for _ in range(4):
        for order, (near, far) in ((layers[1:], (0, 1)), (layers[-2::-1], (1, 0))):
            for layer in order:
                for name in layer:
                    beside = [place[edge[near]] for edge in edges if edge[far] == name]
                    if beside:
                        place[name] = sum(beside) / len(beside)
                layer.sort(key=lambda name: place[name])
                for i, name in enumerate(layer):
                    place[name] = i - (len(layer) - 1) / 2
    return layers


def draw_graph(mermaid: str) -> str:
    """The flowchart as an SVG element, or "" when there is nothing to draw. All text is escaped."""
    nodes, edges = read_mermaid(mermaid)
    if not nodes:
        return ""
    layers = _layers(list(nodes), edges)
    rows = max(len(layer) for layer in layers)
    boxes: dict[str, tuple[float, float, float]] = {}  # left, centre, width
    left = float(_MARGIN)
    for layer in layers:
        width = max(_CHARACTER * max(map(len, nodes[name][0])) + 20 for name in layer)
        for i, name in enumerate(layer):
            boxes[name] = (left, _MARGIN + _ROW * (i + (rows - len(layer)) / 2) + _HEIGHT / 2, width)
        left += width + _GAP
    total, height = left - _GAP + _MARGIN, rows * _ROW - (_ROW - _HEIGHT) + 2 * _MARGIN
    parts = [
        f'<svg class="graph" xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {total:.0f} {height:.0f}" '
        f'width="{total:.0f}" role="img" aria-label="the pipeline\'s graph">'
    ]
    for source, target in edges:
        x0, y0 = boxes[source][0] + boxes[source][2], boxes[source][1]
        x1, y1 = boxes[target][0], boxes[target][1]
        bend = max(24.0, (x1 - x0) / 2)
        curve = f"M{x0:.1f},{y0:.1f} C{x0 + bend:.1f},{y0:.1f} {x1 - bend:.1f},{y1:.1f} {x1 - 6:.1f},{y1:.1f}"
        parts.append(f'<path class="edge" d="{curve}"/>')
        parts.append(f'<path class="head" d="M{x1:.1f},{y1:.1f} l-7,-3.5 v7 z"/>')
    for name, (lines, is_parameter) in nodes.items():
        x, y, width = boxes[name]
        kind, corner = ("parameter", _HEIGHT / 2) if is_parameter else ("stage", 5)
        parts.append(
            f'<rect class="{kind}" x="{x:.1f}" y="{y - _HEIGHT / 2:.1f}" '
            f'width="{width:.1f}" height="{_HEIGHT}" rx="{corner:.0f}"/>'
        )
        for i, line in enumerate(lines[:2]):
            offset = 4 if len(lines) == 1 else (-2 if i == 0 else 11)
            kind = "name" if i == 0 else "type"
            parts.append(f'<text class="{kind}" x="{x + width / 2:.1f}" y="{y + offset:.1f}">{escape(line)}</text>')
    return "".join([*parts, "</svg>"])
