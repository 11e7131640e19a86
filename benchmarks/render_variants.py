"""The same scenes through `PathRender` and through Mitsuba, and shapes to make them of, for `benchmarks/render.py`."""

import time
from typing import Any, NamedTuple

import numpy as np
import torch

from dvc.records import Camera, Film, Mesh
from render.path_render import PathRender
from render.scene import Body, Material, Scene

SIZE, SAMPLES = 256, 16
ROULETTE = 5


class Shape(NamedTuple):
    vertices: np.ndarray
    faces: np.ndarray
    albedo: tuple[float, float, float]
    radiance: tuple[float, float, float] | None = None


class View(NamedTuple):
    """A pinhole camera that looks along -z."""

    eye: tuple[float, float, float]
    degrees: float  # field of view

    @property
    def focal(self) -> float:
        return float(SIZE / 2 / np.tan(np.radians(self.degrees) / 2))


class Ours:
    """The scene as `PathRender` takes it, with `options`; albedos and a translation carry gradient where asked for."""

    def __init__(self, shapes: list[Shape], view: View, depth: int, environment: float = 0.0, **options: Any):
        self.shapes = shapes
        self.render = PathRender(samples=SAMPLES, depth=depth, roulette_depth=min(ROULETTE, depth + 1), **options)
        rotation = torch.tensor([[[1.0, 0.0, 0.0], [0.0, -1.0, 0.0], [0.0, 0.0, -1.0]]])
        center = torch.tensor([[SIZE / 2, SIZE / 2]])
        self.camera = Camera(torch.tensor([view.eye]), rotation, torch.tensor([view.focal]), center, False)
        self.film = Film(SIZE, SIZE, 0.0, 0.0, SIZE, SIZE, 1.0)
        self.vertices = [torch.tensor(s.vertices, dtype=torch.float32)[None] for s in shapes]
        self.faces = [torch.tensor(s.faces, dtype=torch.int32) for s in shapes]
        self.albedos = [torch.tensor([s.albedo]) for s in shapes]
        self.emissions = [None if s.radiance is None else torch.tensor([s.radiance]) for s in shapes]
        self.environment = torch.full((1, 3), environment) if environment else None

    def image(self, seed: int = 0, shift: torch.Tensor | None = None) -> torch.Tensor:
        points = [v if shift is None else v + shift for v in self.vertices]
        pairs = zip(self.albedos, self.emissions, strict=True)
        materials = {str(i): Material(albedo, emission=emission) for i, (albedo, emission) in enumerate(pairs)}
        bodies = [Body(Mesh(p, f), str(i)) for i, (p, f) in enumerate(zip(points, self.faces, strict=True))]
        return self.render(Scene(bodies, materials, environment=self.environment), self.camera, self.film, seed=seed)[0]


class Mitsuba:
    """The same through Mitsuba."""

    def __init__(self, shapes: list[Shape], view: View, depth: int, environment: float = 0.0):
        import drjit
        import mitsuba

        mitsuba.set_variant("llvm_ad_rgb")
        drjit.set_thread_count(torch.get_num_threads())
        mi, self.dr, self.mi = mitsuba, drjit, mitsuba
        target = (view.eye[0], view.eye[1], view.eye[2] - 1.0)
        film = {"type": "hdrfilm", "width": SIZE, "height": SIZE, "rfilter": {"type": "box"}, "pixel_format": "rgb"}
        scene: dict[str, Any] = {
            "type": "scene",
            "sensor": {
                "type": "perspective", "fov": view.degrees, "near_clip": 1e-3, "film": {**film, "sample_border": False},
                "to_world": mi.ScalarTransform4f().look_at(origin=list(view.eye), target=list(target), up=[0, 1, 0]),
                "sampler": {"type": "independent"},
            },
        }  # fmt: skip
        for number, shape in enumerate(shapes):
            options = mi.Properties()
            options["bsdf"] = mi.load_dict({"type": "diffuse", "reflectance": {"type": "rgb", "value": list(shape.albedo)}})
            if shape.radiance is not None:
                options["emitter"] = mi.load_dict({"type": "area", "radiance": {"type": "rgb", "value": list(shape.radiance)}})
            mesh = mi.Mesh(f"mesh{number}", len(shape.vertices), len(shape.faces), props=options)
            numbers = mi.traverse(mesh)
            numbers["vertex_positions"] = mi.Float(shape.vertices.astype(np.float32).ravel())
            numbers["faces"] = mi.UInt32(shape.faces.astype(np.uint32).ravel())
            numbers.update()
            scene[f"mesh{number}"] = mesh
        if environment:
            scene["environment"] = {"type": "constant", "radiance": {"type": "rgb", "value": environment}}
        self.scene = mi.load_dict(scene)
        self.parameters = mi.traverse(self.scene)
        self.depth = depth
        limits = {"max_depth": depth, "rr_depth": min(ROULETTE, depth + 1)}
        self.path = mi.load_dict({"type": "path", **limits})
        self.replay = mi.load_dict({"type": "prb", **limits})
        self.projective = mi.load_dict({"type": "prb_projective", **limits, "sppc": SAMPLES, "sppp": SAMPLES, "sppi": 0})
        self.albedo_keys = [k for k in self.parameters.keys() if k.endswith("reflectance.value")]  # noqa: SIM118

    def image(self, seed: int = 0) -> np.ndarray:
        result = self.mi.render(self.scene, integrator=self.path, spp=SAMPLES, seed=seed)
        self.dr.eval(result)
        self.dr.sync_thread()
        return np.array(result)

    def albedo_gradient(self, seed: int) -> tuple[float, float, np.ndarray]:
        """Seconds of the image, of the gradient of mean(image^2), and the gradient (shape, 3)."""
        dr, mi = self.dr, self.mi
        begin = time.perf_counter()
        for key in self.albedo_keys:
            dr.enable_grad(self.parameters[key])
        image = mi.render(self.scene, self.parameters, integrator=self.replay, spp=SAMPLES, seed=seed, seed_grad=seed + 1000)
        loss = dr.mean(dr.square(image), axis=None)
        dr.eval(loss)
        dr.sync_thread()
        middle = time.perf_counter()
        dr.backward(loss)
        gradients = [dr.grad(self.parameters[key]) for key in self.albedo_keys]
        dr.eval(gradients)
        dr.sync_thread()
        end = time.perf_counter()
        for key in self.albedo_keys:
            dr.disable_grad(self.parameters[key])
        return middle - begin, end - middle, np.array([np.array(g).ravel() for g in gradients])

    def shift_gradient(self, weights: np.ndarray, seed: int) -> tuple[float, np.ndarray]:
        """Seconds of image and gradient together, and the gradient of sum(weights * image)."""
        dr, mi = self.dr, self.mi
        key = "mesh0.vertex_positions"
        if not hasattr(self, "start"):
            self.start, self.weights = mi.Float(self.parameters[key]), mi.TensorXf(weights)
        begin = time.perf_counter()
        shift = mi.Point3f(0.0, 0.0, 0.0)
        dr.enable_grad(shift)
        self.parameters[key] = dr.ravel(dr.unravel(mi.Point3f, self.start) + shift)
        self.parameters.update()
        image = mi.render(
            self.scene, self.parameters, integrator=self.projective, spp=SAMPLES, seed=seed, seed_grad=seed + 1000
        )
        dr.backward(dr.sum(image * self.weights, axis=None))
        gradient = dr.grad(shift)
        dr.eval(gradient)
        dr.sync_thread()
        return time.perf_counter() - begin, np.array(gradient).ravel()


def rectangles(rows: list[tuple[np.ndarray, np.ndarray, np.ndarray]]) -> tuple[np.ndarray, np.ndarray]:
    """Two triangles for each (centre, half side, half side)."""
    points = [c + i * a + j * b for c, a, b in rows for i, j in ((-1, -1), (1, -1), (1, 1), (-1, 1))]
    faces = [[4 * k + i for i in corner] for k in range(len(rows)) for corner in ((0, 1, 2), (0, 2, 3))]
    return np.array(points, dtype=float), np.array(faces)


def block(center: tuple, x: tuple, y: tuple, z: tuple) -> list[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    c, x, y, z = (np.array(v, dtype=float) for v in (center, x, y, z))
    return [(c + s * n, a, s * b) for n, a, b in ((x, y, z), (y, z, x), (z, x, y)) for s in (1.0, -1.0)]


def cornell_box() -> list[Shape]:
    """The room [-1, 1]^3, open to the camera, two blocks, and a lamp under the ceiling: 36 triangles."""
    x, y, z = np.eye(3)
    white, green, red = (0.885809, 0.698859, 0.666422), (0.105421, 0.37798, 0.076425), (0.570068, 0.0430135, 0.0443706)
    room = [(-z, x, y), (y, x, z), (-y, x, -z)]
    low = block((0.335, -0.7, 0.38), (0.286891, 0.0, -0.0877115), (0.0, 0.3, 0.0), (0.0877115, 0.0, 0.286891))
    high = block((-0.33, -0.4, -0.28), (0.28491, 0.0, 0.0939491), (0.0, 0.61, 0.0), (-0.0939491, 0.0, 0.28491))
    lamp = [(np.array([0.0, 0.99, 0.01]), 0.23 * x, 0.19 * z)]
    return [
        Shape(*rectangles(room), white), Shape(*rectangles([(x, z, y)]), green), Shape(*rectangles([(-x, -z, y)]), red),
        Shape(*rectangles(low), white), Shape(*rectangles(high), white),
        Shape(*rectangles(lamp), (0.0, 0.0, 0.0), (18.387, 13.9873, 6.75357)),
    ]  # fmt: skip


BOX_VIEW = View((0.0, 0.0, 3.9), 39.3077)


def bumpy_torus(rows: int, columns: int) -> tuple[np.ndarray, np.ndarray]:
    """2 * rows * columns triangles."""
    i, j = (g.ravel() for g in np.mgrid[0:rows, 0:columns])
    p, q = 2 * np.pi * i / rows, 2 * np.pi * j / columns
    thick = 0.25 + 0.02 * np.sin(9 * q + 5 * p) + 0.01 * np.sin(31 * q) * np.sin(17 * p)
    ring = 0.55 + thick * np.cos(p)
    around = np.stack([ring * np.cos(q), ring * np.sin(q), thick * np.sin(p)], axis=1)
    tilt = np.array([[1.0, 0.0, 0.0], [0.0, 0.8, -0.6], [0.0, 0.6, 0.8]])
    here, below = i * columns + j, (i + 1) % rows * columns + j
    right, across = i * columns + (j + 1) % columns, (i + 1) % rows * columns + (j + 1) % columns
    return around @ tilt.T, np.concatenate([np.stack([here, right, across], axis=1), np.stack([here, across, below], axis=1)])
