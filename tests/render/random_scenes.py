"""Random small scenes of everything that `render.scene` declares, each number of which moves along a random direction.

    scene = random_scene(17)
    images = scene.render(samples=128)(**scene.build(torch.zeros(4, len(scene.names))), **scene.call, seed=0)

`build` takes t (world, name): every tensor is its value plus t times its direction, in units in which `steps` are small against
the scene. Bodies lie in slots of their own, above a floor, under the lights; positions and turns are random, so that nothing is
edge-on and no surfaces cut through each other. What gradients leave out by design is not drawn: balls and SDFs stand still, as
all else does, in scenes in which outlines of theirs are seen by way of other surfaces (only what does not move is compared
there), planes do not turn where their horizon is lit or seen, an SDF does not emit.
"""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor

from dvc.records import Camera, Film, Mesh, SdfGrid, Shutter
from render.camera import look_at
from render.path_render import PathRender
from render.scene import (
    CONDUCTOR,
    DIFFUSE,
    Ball,
    Body,
    DirectionalLight,
    Material,
    Plane,
    PointLight,
    Poses,
    Scene,
    SdfBody,
    Texture,
)
from render.textures import WRAPS
from tests.render.random_shapes import MESHES, QUAD, REACH, Draw, Number, rectangle, shape_of, turned

PIXELS, FINE = 8, 4  # film pixels a side; so many times as many where the outline of an SDF has a band of a quarter pixel
FRAME = 32.0  # pixels of the full frame, a side
SLOTS = ((-0.5, -0.5), (-0.5, 0.5), (0.5, -0.5), (0.5, 0.5))  # [m]
SDF_NODES = 13


class RandomScene(NamedTuple):
    seed: int
    words: str  # what is in it
    names: list[str]  # of the numbers that move: what it is of, a full stop, what it is
    steps: Tensor  # for differences, (name,)
    build: Callable[[Tensor], dict[str, Any]]
    film: Film
    weights: Tensor  # of the pixels, (row, column, 3), positive, their sum 1
    depth: int
    filter: tuple[str, float | None]
    node_interval: float

    @property
    def call(self) -> dict[str, Any]:
        return {"film": self.film, "node_interval": self.node_interval}

    def render(self, samples: int, boundary_samples: int | tuple[int, int, int] | None = None) -> PathRender:
        """samples: paths a pixel of a film of 8 x 8; fewer where there are more pixels."""
        samples = max(1, samples * PIXELS**2 // (self.film.rows * self.film.columns))
        return PathRender(
            samples, self.depth, pixel_filter=self.filter[0], filter_size=self.filter[1], boundary_samples=boundary_samples
        )


class _Maker:
    """Draws the parts of one scene."""

    def __init__(self, draw: Draw, depth: int, nodes: int):
        self.draw, self.depth, self.nodes = draw, depth, nodes
        self.materials: dict[str, Callable[[Tensor], Material]] = {}
        self.bodies: list[Callable[[Tensor], Any]] = []
        self.words: list[str] = []

    def material(self, label: str, textured: bool, glow: float) -> dict[str, bool]:
        """A random material of that name; says what of it is textured. glow: radiance, 0: it does not emit."""
        draw = self.draw
        kind = CONDUCTOR if self.depth > 1 and draw.chance(0.35) else DIFFUSE
        two_sided, schlick = draw.chance(0.5), kind == CONDUCTOR and draw.chance(0.4)
        albedo = alpha = emission = None
        if self.depth > 1:
            albedo = draw.shine(f"{label}.albedo", draw.uniform(0.3, 0.8, 3))
        if kind == CONDUCTOR:
            alpha = draw.add(f"{label}.alpha", draw.uniform(0.25, 0.6), draw.normal(), 0.006, False)
        if glow > 0.0:
            emission = draw.shine(f"{label}.emission", draw.uniform(0.5, 1.0, 3) * glow)
        textures: dict[str, tuple[Number, str]] = {}
        for slot, used in (("albedo", albedo), ("alpha", alpha), ("emission", emission)):
            if textured and used is not None and draw.chance(0.4):
                size = (*draw.rng.integers(2, 5, 2), 1 if slot == "alpha" else 3)
                image = draw.shine(f"{label}.{slot} texels", draw.uniform(0.5, 1.2, *size))
                textures[slot] = (image, draw.choose(WRAPS))

        def made(t: Tensor) -> Material:
            images = {f"{slot}_texture": Texture(image(t), wrap) for slot, (image, wrap) in textures.items()}
            return Material(
                albedo(t) if albedo else (0.0, 0.0, 0.0), kind, alpha(t) if alpha else 0.3, emission(t) if emission else None,
                two_sided, schlick, **images,
            )  # fmt: skip

        self.materials[label] = made
        self.words.append(f"{label}: {kind}{' schlick' * schlick}{' two-sided' * two_sided}{' glows' * (glow > 0)}")
        return {"texture": bool(textures), "albedo": albedo is not None, "alpha": alpha is not None, "emission": glow > 0.0}

    def poses(self, label: str, center: Tensor) -> Callable[[Tensor], Poses]:
        draw = self.draw
        places = (
            center + draw.normal(1, 3) * 0.02 + torch.linspace(-1.0, 1.0, self.nodes)[:, None] * draw.uniform(-0.06, 0.06, 1, 3)
        )
        turns = torch.tensor([0.0, 0.0, 0.0, 1.0]) + draw.normal(1, 4) * 0.5
        turns = turns / turns.norm() + 0.08 * draw.normal(self.nodes, 4)
        turns = turns / turns.norm(dim=1, keepdim=True)
        position = draw.add(f"{label}.positions", places, draw.normal(1, 3) + 0.5 * draw.normal(self.nodes, 3), 0.04, True)
        orientation = draw.add(f"{label}.orientations", turns, draw.normal(1, 4) + 0.5 * draw.normal(self.nodes, 4), 0.04, True)
        return lambda t: Poses(position(t), orientation(t))

    def mesh(self, label: str, points: Tensor, faces: Tensor, center: Tensor, glow: float, moves: bool) -> None:
        draw = self.draw
        parts = self.material(label, True, glow)
        poses = self.poses(label, center) if moves else None
        base = points if moves else points + center
        vertices = draw.add(f"{label}.vertices", base, draw.normal(1, 3) + 0.5 * draw.normal(*base.shape), 0.04, True)
        uv = None
        if parts["texture"]:
            if draw.chance(0.5):  # a seam along every edge
                uv = draw.uniform(-0.3, 1.4, len(faces), 3, 2)
            else:
                uv = (points @ draw.normal(3, 2) * 1.5 + draw.uniform(0.0, 1.0, 2))[faces.long()]
        values: dict[str, Number] = {}
        for slot in ("albedo", "alpha", "emission"):
            if parts[slot] and draw.chance(0.25):
                shape = (len(points),) if slot == "alpha" else (len(points), 3)
                values[f"vertex_{slot}"] = draw.shine(f"{label}.vertex {slot}", draw.uniform(0.6, 1.2, *shape))
        self.bodies.append(
            lambda t: Body(
                Mesh(vertices(t), faces), label, uv, poses(t) if poses else None, **{k: v(t) for k, v in values.items()}
            )
        )

    def ball(self, label: str, center: Tensor, glow: float, moves: bool) -> None:
        draw = self.draw
        self.material(label, False, glow)
        poses = self.poses(label, center) if moves else None
        middle = draw.add(f"{label}.center", draw.normal(3) * 0.02 + (0.0 if moves else center), draw.normal(3), 0.03, True)
        radius = draw.add(f"{label}.radius", draw.uniform(0.2, REACH - 0.06), torch.ones(()), 0.03, True)
        self.bodies.append(lambda t: Ball(middle(t), radius(t), label, poses(t) if poses else None))

    def sdf(self, label: str, center: Tensor, moves: bool) -> None:
        draw = self.draw
        self.material(label, False, 0.0)
        poses = self.poses(label, center) if moves else None
        spacing = 2.3 * REACH / (SDF_NODES - 1)
        axis = (torch.arange(SDF_NODES) - 0.5 * (SDF_NODES - 1)) * spacing
        nodes = torch.stack(torch.meshgrid(axis, axis, axis, indexing="ij"), dim=-1)
        radii = draw.uniform(0.2, REACH - 0.06, 3)
        in_its_axes = nodes @ turned(draw)
        distance = ((in_its_axes / radii).norm(dim=-1) - 1.0) * radii.min()
        wave = torch.sin(nodes @ draw.normal(3) * 5.0 + draw.number(0.0, 6.0))
        values = draw.add(f"{label}.sdf", distance + 0.01 * wave, draw.choose((1.0, -1.0)) + wave, 0.01, True)
        origin = torch.full((3,), -0.5 * (SDF_NODES - 1) * spacing) + (0.0 if moves else center)
        self.bodies.append(lambda t: SdfBody(SdfGrid(values(t), origin, spacing), label, poses(t) if poses else None))

    def plane(self, label: str, may_turn: bool) -> None:
        draw = self.draw
        self.material(label, True, 0.0)
        corners = torch.tensor([[0.0, 0, 0], [1.1, 0.1, 0], [-0.1, 0.9, 0]]) + draw.normal(1, 3) * 0.02
        way = draw.normal(1, 3).expand(3, 3) + (0.3 * draw.normal(3, 3) if may_turn else 0.0)
        place = draw.add(f"{label}.corners", corners, way, 0.04, True)
        self.bodies.append(lambda t: Plane(place(t), label))


def _camera(draw: Draw, orthographic: bool, steep: bool) -> tuple[Callable[[Tensor], Camera], Tensor, Film, bool]:
    """Camera, its horizontal direction, and a film of 8 x 8 pixels."""
    azimuth, elevation = (
        draw.number(0.0, 2.0 * math.pi),
        math.radians(draw.number(45.0, 65.0) if steep else draw.number(15.0, 65.0)),
    )
    away = torch.tensor([math.cos(azimuth) * math.cos(elevation), math.sin(azimuth) * math.cos(elevation), math.sin(elevation)])
    target = draw.uniform(-0.1, 0.1, 3) + torch.tensor([0.0, 0.0, 0.45])
    eye = target + away * draw.number(3.0, 3.6)
    up = torch.tensor([0.0, 0.0, 1.0]) + 0.2 * draw.normal(3)
    facing = look_at(eye[None], target[None], up[None])[0]
    focal = FRAME / draw.number(2.2, 2.8) if orthographic else 0.5 * FRAME / math.tan(math.radians(draw.number(36.0, 46.0)) / 2)
    crop = draw.number(0.85, 1.0)
    left, top = (draw.number(0.0, FRAME * (1.0 - crop)) for _ in range(2))
    film = Film(int(FRAME), int(FRAME), left, top, PIXELS, PIXELS, PIXELS / (FRAME * crop))
    position = draw.add("camera.position", eye, draw.normal(3), 0.04, True)
    axis = draw.normal(3)
    turn = draw.add("camera.turn", torch.zeros(()), torch.ones(()), 0.01, True)
    focals = torch.full((2,) if draw.chance(0.4) else (), focal)
    lengths = draw.add("camera.focal", focals, draw.normal(*focals.shape), 0.02 * focal, True)
    middle = draw.add("camera.center", torch.full((2,), 0.5 * FRAME) + draw.normal(2), draw.normal(2), 0.1 / film.scale, True)
    lens = None
    if not orthographic and draw.chance(0.5):
        size = torch.tensor([1.0, 1.0, 0.2, 0.2, 1.0])
        lens = draw.add("camera.distortion", 0.05 * draw.normal(5) * size, draw.normal(5) * size, 0.08, True)
    a, b, c = (axis / axis.norm()).tolist()
    cross = torch.tensor([[0.0, -c, b], [c, 0.0, -a], [-b, a, 0.0]])

    def made(t: Tensor) -> Camera:
        angle = turn(t)[:, None, None]
        rotation = (torch.eye(3) + torch.sin(angle) * cross + (1.0 - torch.cos(angle)) * (cross @ cross)) @ facing
        return Camera(position(t), rotation, lengths(t), middle(t), orthographic, lens(t) if lens else None)

    return made, away, film, lens is not None


def _lights(make: _Maker, glowing: bool, ball_glows: bool) -> tuple[list[Callable[[Tensor], Any]], Number | None]:
    """Lamps among the bodies; point and directional lights, environment."""
    draw = make.draw
    lamp, point, beam, sky = (draw.chance(share) for share in (0.6, 0.3, 0.3, 0.35))
    if make.depth == 1:
        lamp, point, beam = draw.chance(0.3), False, False
    elif not (lamp or point or beam or glowing or (sky and not ball_glows)):
        lamp = True
    if lamp:
        center = torch.cat([draw.uniform(-0.6, 0.6, 2), draw.uniform(2.0, 2.4, 1)])
        shape = (
            rectangle(draw, torch.tensor([0.0, 0.0, 0.4]) - center + 0.2 * draw.normal(3), draw.uniform(0.2, 0.4, 2)),
            QUAD,
        )
        if draw.chance(0.25):
            shape = shape_of(draw, "ball of 20 faces")
        make.mesh("lamp", *shape, center, draw.number(10.0, 20.0), draw.chance(0.2))
    lights: list[Callable[[Tensor], Any]] = []
    if point:
        place = draw.add(
            "point.position", torch.cat([draw.uniform(-1, 1, 2), draw.uniform(2.9, 3.3, 1)]), draw.normal(3), 0.03, True
        )
        power = draw.shine("point.intensity", draw.uniform(8.0, 20.0, 3))
        lights.append(lambda t: PointLight(place(t), power(t)))
    if beam:
        way = draw.add("beam.direction", torch.cat([draw.uniform(-0.6, 0.6, 2), -torch.ones(1)]), draw.normal(3), 0.03, True)
        flux = draw.shine("beam.irradiance", draw.uniform(1.0, 3.0, 3))
        lights.append(lambda t: DirectionalLight(way(t), flux(t)))
    make.words.append(
        "lights: " + ", ".join(w for w, on in zip(("lamp", "point", "beam", "sky"), (lamp, point, beam, sky)) if on)
    )
    return lights, draw.shine("sky", draw.uniform(0.2, 0.6, 3)) if sky else None


def random_scene(seed: int, simple: bool = False) -> RandomScene:
    """The scene of that number. simple: one mesh, a floor, direct light."""
    draw = Draw(seed)
    depth = 2 if simple else draw.choose((1, 2, 2, 2, 2, 3, 3, 4))
    nodes = draw.choose((2, 3))
    make = _Maker(draw, depth, nodes)
    kinds = [draw.choose(MESHES) for _ in range(1 if simple else draw.choose((1, 2, 2, 3)))]
    if not simple:
        kinds += ["ball"] * draw.chance(0.3) + ["sdf"] * draw.chance(0.15)
    kinds = kinds[-len(SLOTS) :]
    moves = [not simple and draw.chance(0.35) for _ in kinds]
    glows = [depth == 1 or (not simple and kind not in ("triangles", "ball", "sdf") and draw.chance(0.12)) for kind in kinds]
    if "ball" in kinds and depth == 2 and "sdf" not in kinds:
        glows = [g or (kind == "ball" and draw.chance(0.2)) for g, kind in zip(glows, kinds)]
    glows = [g and kind != "sdf" for g, kind in zip(glows, kinds)]
    endless = not simple and depth > 1 and draw.chance(0.25)
    camera, away, film, _ = _camera(draw, not simple and draw.chance(0.3), endless)
    slots = draw.rng.permutation(len(SLOTS))
    for number, (kind, moving, glowing) in enumerate(zip(kinds, moves, glows)):
        center = torch.cat([torch.tensor(SLOTS[slots[number]]) + draw.uniform(-0.1, 0.1, 2), draw.uniform(0.52, 0.85, 1)])
        label, glow = f"{kind} {number}", (draw.number(1.0, 3.0) if glowing else 0.0)
        make.words.append(f"[{label}{' moves' * moving}]")
        if kind == "ball":
            make.ball(label, center, glow, moving)
        elif kind == "sdf":
            make.sdf(label, center, moving)
        else:
            make.mesh(label, *shape_of(draw, kind), center, glow, moving)
    meshes_glow = any(g for g, kind in zip(glows, kinds) if kind != "ball")
    lights, sky = _lights(make, meshes_glow, any(glows) and not meshes_glow)
    if depth > 1:
        if endless:
            make.plane("plane", sky is None and depth == 2)
        else:
            up = torch.tensor([0.0, 0.0, 1.0]) + 0.02 * draw.normal(3)
            make.mesh("floor", rectangle(draw, up, torch.tensor([0.95, 0.95])), QUAD, torch.zeros(3), 0.0, False)
        if not simple and draw.chance(0.3):
            back = -away * torch.tensor([1.0, 1.0, 0.0])
            back = back / back.norm()
            wall = rectangle(draw, -back + 0.05 * draw.normal(3), torch.tensor([0.7, 0.7]))
            make.mesh("wall", wall, QUAD, back * 1.6 + torch.tensor([0.0, 0.0, 1.2]), 0.0, False)
    shutter: Callable[[Tensor], Shutter] | None = None
    if any(moves) or (lights and draw.chance(0.1)):
        opened = draw.add("shutter.exposure", draw.uniform(0.4, 0.8), torch.ones(()), 0.1, True)
        skew = draw.add("shutter.readout", draw.normal(2) * (0.1 if draw.chance(0.5) else 0.0), draw.normal(2), 0.06, True)
        shutter = lambda t: Shutter(opened(t), skew(t))  # noqa: E731
    fine = FINE if "sdf" in kinds else 1
    film = film._replace(columns=film.columns * fine, rows=film.rows * fine, scale=film.scale * fine)
    plate = None
    if not simple and draw.chance(0.12):
        plate = draw.shine("plate", draw.uniform(0.1, 0.6, film.rows, film.columns, 3))
    weights = draw.uniform(0.3, 1.3, PIXELS, PIXELS, 3).repeat_interleave(fine, 0).repeat_interleave(fine, 1)
    filter_kind = "box" if simple else draw.choose(("box", "tent", "gaussian"))
    size = None if simple or draw.chance(0.6) else draw.number(0.4, 1.0)
    _choose(draw, depth, kinds, any(moves))

    def build(t: Tensor) -> dict[str, Any]:
        materials = {name: made(t) for name, made in make.materials.items()}
        scene = Scene([body(t) for body in make.bodies], materials, [light(t) for light in lights], sky(t) if sky else None)
        given = {"scene": scene, "camera": camera(t), "shutter": shutter(t) if shutter else None}
        return {**given, "plate": plate(t)} if plate else given

    kept = sorted(draw.columns, key=draw.columns.__getitem__)
    words = f"depth {depth}, {'moving, ' * any(moves)}{filter_kind}, {'plate, ' * (plate is not None)}" + " ".join(make.words)
    return RandomScene(
        seed, words, [draw.names[i] for i in kept], torch.tensor([draw.steps[i] for i in kept]), build, film,
        weights / weights.sum(), depth, (filter_kind, size), 1.0 / (nodes - 1),
    )  # fmt: skip


def _choose(draw: Draw, depth: int, kinds: list[str], moves: bool) -> None:
    """Which numbers are compared: all, but for what gradients leave out by design, and times where nothing moves."""
    indirect = depth >= 3 and ("ball" in kinds or "sdf" in kinds)
    for index, name in enumerate(draw.names):
        if (indirect and draw.moving[index]) or (name.startswith("shutter") and not moves):
            continue
        draw.columns[index] = len(draw.columns)
