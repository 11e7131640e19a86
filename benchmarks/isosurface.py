"""Angles and time of isosurfaces: ours, scikit-image's (trimesh calls the same) and Open3D's marching cubes (bunny, 128^3).

    python benchmarks/isosurface.py

Needs the item stanford_bunny of `diffvc data`. A rival that is not installed is named and left out. Nothing is written.
"""

import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch

REPEATS = 3


def main() -> None:
    from dvc import data
    from dvc.records import Mesh
    from geometry.isosurface import extract_isosurface
    from geometry.mesh_io import read_mesh
    from geometry.mesh_quality import angle_statistics
    from geometry.mesh_to_sdf import grid_around, mesh_to_sdf
    from geometry.tetrahedra import isosurface_stuffing

    vertices, faces = read_mesh(data.find("stanford_bunny"))
    bunny = Mesh(torch.from_numpy(vertices)[None], torch.from_numpy(faces).int())
    grid = mesh_to_sdf(bunny, *grid_around(bunny, 128))
    volume = grid.values[0].numpy()

    def record(points: np.ndarray, triangles: np.ndarray) -> Mesh:
        return Mesh(torch.from_numpy(np.array(points, np.float32))[None], torch.from_numpy(np.array(triangles, np.int32)))

    def scikit() -> Mesh:
        from skimage.measure import marching_cubes

        return record(*marching_cubes(volume, 0.0)[:2])

    def trimesh() -> Mesh:
        from trimesh.voxel.ops import matrix_to_marching_cubes

        found = matrix_to_marching_cubes(volume < 0.0)  # trimesh takes occupancy only
        return record(found.vertices, found.faces)

    def open3d() -> Mesh:
        import open3d as o3d

        found = o3d.t.geometry.TriangleMesh.create_isosurfaces(o3d.core.Tensor(volume), [0.0])
        return record(found.vertex.positions.numpy(), found.triangle.indices.numpy())

    methods: dict[str, Callable[[], Mesh]] = {
        "ours, smoothing 0": lambda: extract_isosurface(grid, 0)[0],
        "ours, smoothing 10": lambda: extract_isosurface(grid)[0],
        "scikit-image": scikit,
        "trimesh (occupancy)": trimesh,
        "Open3D (VTK)": open3d,
    }
    print(f"{'method':22} {'faces':>7} {'least':>7} {'most':>7} {'< 10':>8} {'< 20':>8} {'seconds':>8}")
    histograms = {}
    for name, method in methods.items():
        try:
            mesh = method()
        except (ImportError, AttributeError) as error:
            print(f"{name:22} left out: {error}")
            continue
        seconds = []
        for _ in range(REPEATS):
            begin = time.perf_counter()
            method()
            seconds.append(time.perf_counter() - begin)
        found = angle_statistics(mesh)
        histograms[name] = found.histogram
        print(
            f"{name:22} {len(mesh.faces):7d} {found.minimum:7.3f} {found.maximum:7.2f} {found.share_under_10:8.3%} "
            f"{found.share_under_20:8.3%} {min(seconds):8.3f}"
        )
    print("\nshare of the angles in bins of 10 degrees [%]")
    for name, histogram in histograms.items():
        print(f"{name:22} " + " ".join(f"{100.0 * float(x):5.1f}" for x in histogram))
    coarse = grid._replace(values=grid.values[:, ::2, ::2, ::2].contiguous(), spacing=2.0 * grid.spacing)
    begin = time.perf_counter()
    tets = isosurface_stuffing(coarse)[0]
    spent = time.perf_counter() - begin
    dihedral = angle_statistics(tets)
    print(
        f"\nisosurface stuffing at 64^3: {len(tets.tets)} tetrahedra, dihedral angles {dihedral.minimum:.2f} to "
        f"{dihedral.maximum:.2f} degrees, {spent:.2f} s"
    )


if __name__ == "__main__":
    sys.path[0] = str(Path(__file__).resolve().parent.parent)  # this file is not the package geometry
    main()
