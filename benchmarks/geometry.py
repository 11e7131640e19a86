"""Everything of geometry that claims a speed, in one run: chamfer against cKDTree, mesh_to_sdf against Open3D.

    python benchmarks/geometry.py [chamfer] [mesh_to_sdf]

Without a name it runs both. Each prints its own table; nothing is written. Exits with 1 where one missed its requirement.
"""

import importlib
import sys
from pathlib import Path

NAMES = ("chamfer", "mesh_to_sdf")


def main(names: list[str]) -> int:
    unknown = [name for name in names if name not in NAMES]
    if unknown:
        raise SystemExit(f"geometry.py: expected names among {', '.join(NAMES)}, got {', '.join(unknown)}")
    missed = 0
    for name in names or NAMES:
        sys.argv = [name]  # what was given to this script is not for them
        missed = max(missed, importlib.import_module(f"benchmarks.{name}").main())
    return missed


if __name__ == "__main__":
    sys.path[0] = str(Path(__file__).resolve().parent.parent)  # this file is not the package geometry
    sys.exit(main(sys.argv[1:]))
