"""Rays per second of the wide trees, Warp's meshes and Mitsuba's llvm variant, in one run on the same rays and threads.

    DIFFVC_DATA=... python -m benchmarks.rays [--scenes box,cornell,sphere,bunny,million] [--threads 1,2] [--clock wall]

Scenes are closed rooms seen from inside: a box (12 faces), with two boxes in it (36), with a sphere (5132), with the Stanford
bunny (69463), with the bunny's faces split in sixteen and shaken (1111228). Rays: `primary`, from a camera through a grid of
pixels; `diffuse`, cosine-distributed from where those hit, in the same order. Queries: `closest` (t, face, barycentrics) and
`any` (`shadow`: from the same points to points just below the ceiling, as to a lamp).
Ours and Warp's run in tiles that threads pick up; Mitsuba traces with `coherent` on and off, and the faster counts. Variants
take turns, and each one's fastest time counts. Mitsuba needs `pip install mitsuba` and libLLVM; it is left out otherwise.
`--clock cpu` counts processor seconds of all threads instead of seconds: for a machine that is busy.
Prints a table; the last two columns are how much faster the wide trees are. Writes nothing.
"""

import argparse
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

if __name__ == "__main__":
    sys.path[0] = str(Path(__file__).resolve().parent.parent)  # geometry.py of this folder is not the package geometry

import numpy as np
import warp as wp

from dvc import data
from geometry.mesh import box_mesh, icosphere
from geometry.mesh_io import read_mesh
from render.wide_bvh import Forest, any_in_tree, closest_in_tree
from render.wide_bvh_build import build_forest, refit_forest

TILE = 1 << 14
FAR = 1e6
CEILING = 0.98  # where shadow rays end


@wp.struct
class Rays:
    origins: wp.array(dtype=wp.vec3)
    directions: wp.array(dtype=wp.vec3)
    t_max: float


@wp.struct
class Hits:
    t: wp.array(dtype=float)
    face: wp.array(dtype=int)
    uv: wp.array(dtype=wp.vec2)


@wp.kernel(enable_backward=False, module="unique")
def closest_in_forest(forest: Forest, rays: Rays, first: int, hits: Hits):
    i = first + wp.tid()
    hit = closest_in_tree(forest, forest.roots[0, 0], rays.origins[i], rays.directions[i], rays.t_max)
    hits.t[i] = hit.t
    hits.face[i] = hit.face
    hits.uv[i] = wp.vec2(hit.u, hit.v)


@wp.kernel(enable_backward=False, module="unique")
def any_in_forest(forest: Forest, rays: Rays, first: int, hits: Hits):
    i = first + wp.tid()
    hits.face[i] = int(any_in_tree(forest, forest.roots[0, 0], rays.origins[i], rays.directions[i], rays.t_max))


@wp.kernel(enable_backward=False, module="unique")
def closest_in_mesh(mesh: wp.uint64, rays: Rays, first: int, hits: Hits):
    i = first + wp.tid()
    hit = wp.mesh_query_ray(mesh, rays.origins[i], rays.directions[i], rays.t_max)
    hits.t[i] = hit.t
    hits.face[i] = wp.where(hit.result, hit.face, -1)
    hits.uv[i] = wp.vec2(hit.u, hit.v)


@wp.kernel(enable_backward=False, module="unique")
def any_in_mesh(mesh: wp.uint64, rays: Rays, first: int, hits: Hits):
    i = first + wp.tid()
    hits.face[i] = int(wp.mesh_query_ray_anyhit(mesh, rays.origins[i], rays.directions[i], rays.t_max))


def turned(
    vertices: np.ndarray, scale: tuple[float, float, float], angle: float, shift: tuple[float, float, float]
) -> np.ndarray:
    c, s = np.cos(angle), np.sin(angle)
    return (vertices * np.array(scale)) @ np.array([[c, 0, s], [0, 1, 0], [-s, 0, c]]).T + np.array(shift)


def split(vertices: np.ndarray, faces: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Each face in four."""
    sides = np.sort(faces[:, [[0, 1], [1, 2], [2, 0]]].reshape(-1, 2), axis=1)
    pairs, index = np.unique(sides, axis=0, return_inverse=True)
    ab, bc, ca = (len(vertices) + index.reshape(-1, 3)).T
    a, b, c = faces.T
    parts = ((a, ab, ca), (b, bc, ab), (c, ca, bc), (ab, bc, ca))
    return np.concatenate([vertices, vertices[pairs].mean(axis=1)]), np.concatenate([np.stack(t, axis=1) for t in parts])


def scene(name: str) -> tuple[np.ndarray, np.ndarray]:
    """Vertices and faces of a room, [-1, 1]^3, and what is in it."""
    room, faces = box_mesh()
    parts = [(room, faces)]
    if name == "cornell":
        parts += [(turned(room, (0.3, 0.6, 0.3), 0.3, (-0.35, -0.39, 0.3)), faces)]
        parts += [(turned(room, (0.3, 0.3, 0.3), -0.3, (0.35, -0.69, -0.3)), faces)]
    elif name == "sphere":
        v, f = icosphere(4)
        parts += [(0.6 * v, f)]
    elif name in ("bunny", "million"):
        v, f = read_mesh(data.find("stanford_bunny"))[:2]
        v, f = np.asarray(v, float), np.asarray(f)
        v = 1.4 * (v - (v.min(0) + v.max(0)) / 2) / np.ptp(v, axis=0).max()
        if name == "million":
            v, f = split(*split(v, f))
            v = v + 2e-4 * np.random.default_rng(0).normal(size=v.shape)
        parts += [(v, f)]
    elif name != "box":
        raise SystemExit(f"--scenes: expected box, cornell, sphere, bunny or million, got {name}")
    first = np.cumsum([0] + [len(v) for v, _ in parts])
    joined = np.concatenate([f + n for (_, f), n in zip(parts, first)])
    return np.concatenate([v for v, _ in parts]).astype(np.float32), joined.astype(np.int32)


def pack(origins: np.ndarray, directions: np.ndarray, t_max: float) -> Rays:
    rays = Rays()
    rays.origins = wp.array(np.ascontiguousarray(origins, np.float32), dtype=wp.vec3)
    rays.directions = wp.array(np.ascontiguousarray(directions, np.float32), dtype=wp.vec3)
    rays.t_max = t_max
    return rays


def shoot(pool: ThreadPoolExecutor, kernel: wp.Kernel, tree: object, rays: Rays, hits: Hits) -> None:
    count = len(rays.origins)

    def tile(first: int) -> None:
        wp.launch(kernel, min(TILE, count - first), [tree, rays, first, hits])

    list(pool.map(tile, range(0, count, TILE)))


def ray_sets(vertices: np.ndarray, faces: np.ndarray, tree: Forest, hits: Hits, count: int) -> dict[str, Rays]:
    side = int(count**0.5)
    y, x = (np.mgrid[0:side, 0:side].reshape(2, -1) + 0.5) / side * 2 - 1
    eye = np.tile([0.02, 0.01, -0.97], (side * side, 1))
    ahead = np.stack([0.9 * x, 0.9 * y, np.ones_like(x)], axis=1)
    ahead /= np.linalg.norm(ahead, axis=1, keepdims=True)
    sets = {"primary": pack(eye, ahead, FAR)}
    wp.launch(closest_in_forest, len(eye), [tree, sets["primary"], 0, hits])
    t, face = hits.t.numpy()[: len(eye)], hits.face.numpy()[: len(eye)]
    a, b, c = (vertices[faces[face, k]].astype(float) for k in range(3))
    normal = np.cross(b - a, c - a)
    normal /= np.linalg.norm(normal, axis=1, keepdims=True)
    normal *= -np.sign((normal * ahead).sum(axis=1, keepdims=True))
    start = eye + ahead * t[:, None] + 1e-4 * normal
    rng = np.random.default_rng(0)
    away = rng.normal(size=start.shape)
    away = normal + away / np.linalg.norm(away, axis=1, keepdims=True)
    sets["diffuse"] = pack(start, away / np.linalg.norm(away, axis=1, keepdims=True), FAR)
    lamp = np.stack([rng.uniform(-0.3, 0.3, len(x)), np.full(len(x), CEILING), rng.uniform(-0.3, 0.3, len(x))], axis=1)
    sets["shadow"] = pack(start, lamp - start, 1.0)
    return sets


class Mitsuba:
    """The same rays through Mitsuba's llvm variant."""

    def __init__(self) -> None:
        import drjit
        import mitsuba

        mitsuba.set_variant("llvm_ad_rgb")
        self.dr, self.mi = drjit, mitsuba
        drjit.eval(mitsuba.Float(drjit.arange(mitsuba.UInt32, 4)) + 1)

    def load(self, vertices: np.ndarray, faces: np.ndarray) -> Any:
        mesh = self.mi.Mesh("mesh", len(vertices), len(faces))
        parameters = self.mi.traverse(mesh)
        parameters["vertex_positions"] = self.mi.Float(vertices.ravel())
        parameters["faces"] = self.mi.UInt32(faces.ravel().astype(np.uint32))
        parameters.update()
        return self.mi.load_dict({"type": "scene", "mesh": mesh})

    def query(self, scene: Any, rays: Rays, closest: bool, coherent: bool) -> Callable[[], None]:
        mi, dr = self.mi, self.dr
        o, d = (x.numpy().T.copy() for x in (rays.origins, rays.directions))
        ray = mi.Ray3f(mi.Point3f(o), mi.Vector3f(d), mi.Float(rays.t_max), mi.Float(0), [])
        dr.eval(ray)

        def run() -> None:
            if closest:
                hit = scene.ray_intersect_preliminary(ray, coherent=coherent)
                dr.eval(hit.t, hit.prim_index, hit.prim_uv)
            else:
                dr.eval(scene.ray_test(ray, coherent=coherent))
            dr.sync_thread()

        return run


def fastest(variants: dict[str, Callable[[], None]], repeats: int, clock: Callable[[], float]) -> dict[str, float]:
    """The least time of each; they take turns."""
    times = dict.fromkeys(variants, float("inf"))
    for turn in range(repeats + 1):
        for name, run in variants.items():
            begin = clock()
            run()
            if turn:  # the first one compiles
                times[name] = min(times[name], clock() - begin)
    return times


def timed(function: Callable, *arguments: object) -> tuple[float, Any]:
    begin = time.perf_counter()
    result = function(*arguments)
    return time.perf_counter() - begin, result


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("--scenes", default="box,cornell,sphere,bunny,million")
    parser.add_argument("--rays", type=int, default=1 << 20)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--threads", default="1,2")
    parser.add_argument("--clock", choices=["wall", "cpu"], default="wall")
    arguments = parser.parse_args()
    clock = time.perf_counter if arguments.clock == "wall" else time.process_time
    wp.config.log_level = wp.LOG_WARNING
    try:
        mitsuba: Mitsuba | None = Mitsuba()
    except Exception as error:  # not installed, or without libLLVM
        print(f"without Mitsuba: {error}")
        mitsuba = None
    hits = Hits()
    hits.t, hits.face = wp.zeros(arguments.rays, dtype=float), wp.zeros(arguments.rays, dtype=int)
    hits.uv = wp.zeros(arguments.rays, dtype=wp.vec2)
    print("millions of rays a second; the last columns: wide trees over wp.Mesh, over Mitsuba")
    for name in arguments.scenes.split(","):
        vertices, faces = scene(name)
        v, f = wp.array(vertices[None], dtype=wp.vec3), wp.array(faces, dtype=int)
        owner = wp.zeros(len(faces), dtype=int)
        build_forest(v, f, owner, 1)  # compiles
        build, holder = timed(build_forest, v, f, owner, 1)
        refit = min(timed(refit_forest, holder, v)[0] for _ in range(3))
        build_mesh, mesh = timed(lambda v, f: wp.Mesh(points=wp.array(v, dtype=wp.vec3), indices=f.flatten()), vertices, f)
        build_theirs, theirs = timed(mitsuba.load, vertices, faces) if mitsuba else (float("nan"), None)
        print(f"{name}: {len(faces)} faces; built in {build:.3f} s (wp.Mesh {build_mesh:.3f}, Mitsuba {build_theirs:.3f}), "
              f"refitted in {1e3 * refit:.2f} ms; {holder.node_count} nodes, {holder.row_count} rows")  # fmt: skip
        for kind, rays in ray_sets(vertices, faces, holder.forest, hits, arguments.rays).items():
            closest = kind != "shadow"
            ours, warps = (closest_in_forest, closest_in_mesh) if closest else (any_in_forest, any_in_mesh)
            for threads in map(int, arguments.threads.split(",")):
                with ThreadPoolExecutor(threads) as pool:
                    variants: dict[str, Callable[[], None]] = {
                        "wide": partial(shoot, pool, ours, holder.forest, rays, hits),
                        "mesh": partial(shoot, pool, warps, mesh.id, rays, hits),
                    }
                    if mitsuba:
                        mitsuba.dr.set_thread_count(threads)
                        for coherent in (False, True):
                            variants[f"mitsuba {coherent}"] = mitsuba.query(theirs, rays, closest, coherent)
                    times = fastest(variants, arguments.repeats, clock)
                count = len(rays.origins) / 1e6
                wide, warp = times["wide"], times["mesh"]
                peer = min([t for k, t in times.items() if k.startswith("mitsuba")], default=float("nan"))
                rates = f"wide {count / wide:6.2f}  wp.Mesh {count / warp:6.2f}  Mitsuba {count / peer:6.2f}"
                query = "closest" if closest else "any"
                print(f"  {kind:8s} {query:8s}{threads} threads: {rates}  | {warp / wide:5.2f} {peer / wide:5.2f}", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
