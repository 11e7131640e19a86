"""Imports point one way: experiments -> physics | render | learned -> geometry -> dvc -> torch, warp."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
STAGES = {"physics", "render", "learned"}
ALLOWED = {
    "dvc": set(),
    "geometry": {"dvc"},
    **{stage: {"geometry", "dvc"} for stage in STAGES},
    "experiments": {*STAGES, "geometry", "dvc"},
    "configs": set(),
}
OURS = set(ALLOWED)
FILES = [path for package in sorted(ALLOWED) for path in sorted((ROOT / package).rglob("*.py"))]


def names(tree: ast.AST) -> Iterator[str]:
    """Everything that is imported below a node, by its full name; relative imports stay inside their package."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
            yield node.module


def at_import(body: list[ast.stmt]) -> Iterator[str]:
    """What is imported when a module is: everything outside functions and `if TYPE_CHECKING`."""
    for node in body:
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            continue
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            continue
        inner = [child for child in ast.iter_child_nodes(node) if isinstance(child, (ast.stmt, ast.excepthandler))]
        statements = [s for child in inner for s in (child.body if isinstance(child, ast.excepthandler) else [child])]
        yield from at_import(statements) if statements else names(node)


def forbidden(path: Path, tree: ast.Module) -> list[str]:
    """The imports of a file that point the wrong way."""
    package = path.relative_to(ROOT).parts[0]
    faults = []
    for name in names(tree):
        top = name.split(".")[0]
        if top in OURS and top != package and top not in ALLOWED[package]:
            faults.append(f"{path.relative_to(ROOT)} imports {name}: {package} may import {sorted(ALLOWED[package])}")
        if top == "hydra" and not (package == "dvc" and (path.name == "cli.py" or path.name.startswith("cli_"))):
            faults.append(f"{path.relative_to(ROOT)} imports {name}: only dvc/cli.py and dvc/cli_*.py may")
    faults += [
        f"{path.relative_to(ROOT)} imports {name} at module level: it takes seconds and needs system libraries"
        for name in at_import(tree.body)
        if name.split(".")[0] == "open3d"
    ]
    return faults


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_imports_point_one_way(path: Path) -> None:
    faults = forbidden(path, ast.parse(path.read_text(encoding="utf-8")))
    assert not faults, "\n".join(faults)


@pytest.mark.parametrize(
    ("place", "source", "wrong"),
    [
        ("dvc/pipeline.py", "def f():\n    import physics.swing", True),
        ("physics/a.py", "from render import camera", True),
        ("physics/a.py", "from geometry.mesh import x\nfrom dvc import Pipeline", False),
        ("geometry/a.py", "import learned.mlp", True),
        ("experiments/a.py", "import render, physics, learned, geometry, dvc", False),
        ("experiments/a.py", "from hydra.utils import instantiate", True),
        ("dvc/cli_hydra.py", "def f():\n    import hydra", False),
        ("dvc/clip.py", "import hydra", True),
        ("geometry/mesh_io.py", "import open3d", True),
        ("geometry/mesh_io.py", "try:\n    import open3d\nexcept ImportError:\n    pass", True),
        ("geometry/mesh_io.py", "if 1:\n    from open3d import io", True),
        ("geometry/mesh_io.py", "class A:\n    import open3d.t", True),
        ("geometry/mesh_io.py", "class A:\n    def f(self):\n        import open3d", False),
    ],
)
def test_the_test_sees_it(place: str, source: str, wrong: bool) -> None:
    assert bool(forbidden(ROOT / place, ast.parse(source))) == wrong
