r"""A path tracer to learn from and to check `PathRender` against: plain torch, double precision, every ray against everything.

    L = E + sum over lights of f_l L_l + f L' / p                                 (Kajiya 1986, "The rendering equation")

At every vertex point lights and directions are summed, and one point of one lamp (faces that emit) is sampled; the environment,
and balls and planes that emit, are met by the directions that materials sample with density p. Nothing is found in both ways,
so nothing is weighted.

The gradient is torch's, through all of it, in the parametrisation of `render.path_adjoint`: film points, directions of bounces
in world axes and the places of points on their lamp are fixed, densities are detached; what is hit is found without gradient
and the point is computed again with it. The two must agree in expectation, number by number. As the formulas here are those of
the papers and no code is shared with the kernels (records and the checks of their packing are), a slip on one side shows. Left
out are all terms of moving boundaries (silhouettes, shadows): compare with `PathRender(boundary_samples=0)`.
"""

import math
from collections.abc import Callable
from math import inf, pi
from typing import NamedTuple

import torch
from torch import Tensor, nn

from dvc.errors import Unsupported
from dvc.records import Camera, Film
from render.camera_projection import pack_camera
from render.film_checks import check_film
from render.scene import Scene, SdfBody
from render.scene_checks import check_given
from render.scene_packing import pack_scene
from render.simple_scene import World, camera_rays, gather, plain
from render.value_checks import whole_number

NEAR = 1.0e-8  # rays begin so far from where they start [m]
SHADOW_END = 1.0 - 1.0e-6  # of the distance to a light: the light itself does not block
FIRST_CORNER = (1.0, 0.0, 0.0)  # barycentric weights for balls, which have neither texture nor vertex values


class Surface(NamedTuple):
    """Where rays have met things: (ray, ...)."""

    thing: Tensor
    point: Tensor
    normal: Tensor  # unit, of the front
    weights: Tensor  # barycentric, (ray, 3)
    material: Tensor
    albedo: Tensor  # (ray, 3)
    alpha: Tensor


def dot(a: Tensor, b: Tensor) -> Tensor:
    return (a * b).sum(dim=-1)


def unit(v: Tensor) -> Tensor:
    return v / v.norm(dim=-1, keepdim=True)


@torch.no_grad()
def closest(world: World, o: Tensor, d: Tensor, near: float = NEAR) -> tuple[Tensor, Tensor]:
    """The first thing beyond `near` along each ray and its distance, infinite where there is none."""
    a, b, c = world.corners.unbind(1)
    moment = torch.linalg.cross(d, o)
    # six times the volume of the tetrahedron of an edge and the ray's segment: positive where the ray passes on its left
    volumes = [d @ torch.linalg.cross(p, q).T + moment @ (p - q).T for p, q in ((a, b), (b, c), (c, a))]
    left, right = (torch.stack([side * v >= 0.0 for v in volumes]).all(dim=0) for side in (1.0, -1.0))
    n = torch.linalg.cross(b - a, c - a)
    at_face = torch.where(left | right | world.endless, (dot(n, a) - o @ n.T) / (d @ n.T), inf)
    to_center = world.centers - o[:, None]
    middle = dot(to_center, d[:, None])
    half = torch.sqrt(world.radii**2 - dot(to_center, to_center) + middle**2)  # NaN where it passes by: nothing is met
    at_ball = torch.where(middle - half > near, middle - half, middle + half)
    distances = torch.cat([at_face, at_ball], dim=1)
    distance, thing = torch.where(distances > near, distances, inf).min(dim=1)
    return thing, distance


def surface(world: World, thing: Tensor, distance: Tensor, o: Tensor, d: Tensor) -> Surface:
    """What the rays o + t d have met at a distance, with gradient."""
    point, normal, weights = torch.zeros_like(o), torch.zeros_like(o), o.new_tensor(FIRST_CORNER).repeat(len(o), 1)
    on_face = thing < len(world.corners)
    a, b, c = world.corners[thing[on_face]].unbind(1)
    n = torch.linalg.cross(b - a, c - a)
    x = o[on_face] + d[on_face] * (dot(n, a - o[on_face]) / dot(n, d[on_face]))[:, None]
    areas = [dot(n, torch.linalg.cross(q - x, r - x)) for q, r in ((b, c), (c, a), (a, b))]
    weights = weights.index_put((on_face,), torch.stack(areas, dim=1) / dot(n, n)[:, None])
    point, normal = point.index_put((on_face,), x), normal.index_put((on_face,), unit(n))
    on_ball = ~on_face
    center, radius = (part[thing[on_ball] - len(world.corners)] for part in (world.centers, world.radii))
    start, along = o[on_ball], d[on_ball]
    middle = dot(center - start, along)
    half = torch.sqrt(radius**2 - dot(center - start, center - start) + middle**2)
    x = start + along * (middle + half * torch.sign(distance[on_ball] - middle.detach()))[:, None]
    point, normal = point.index_put((on_ball,), x), normal.index_put((on_ball,), unit(x - center))
    material = world.material[thing]
    albedo, alpha = (parameter(world, slot, thing, weights) for slot in (0, 1))
    return Surface(thing, point, normal, weights, material, albedo, alpha[:, 0])


def parameter(world: World, slot: int, thing: Tensor, weights: Tensor) -> Tensor:
    """Albedo, alpha or emission: constant times vertex value times texture, (ray, 3)."""
    material = world.material[thing]
    value = world.numbers[slot, material] * (weights[:, :, None] * world.factors[slot, thing]).sum(dim=1)
    uv = (weights[:, :, None] * world.uv[thing]).sum(dim=1)
    for of_slot, number, image, wrap in world.textures:
        if of_slot == slot:
            here = material == number
            value = value.index_put((here,), value[here] * texture_value(image, wrap, uv[here]))
    return value


def texture_value(image: Tensor, wrap: str, uv: Tensor) -> Tensor:
    """Bilinear between texel centres; uv (0, 0) is the bottom left corner of the image, whose row 0 is at the top."""

    def texel(index: Tensor, size: int) -> Tensor:
        if wrap == "repeat":
            return torch.remainder(index, size)
        if wrap == "mirror":
            index = torch.remainder(index, 2 * size)
            return torch.minimum(index, 2 * size - 1 - index)
        return index.clamp(0, size - 1)

    height, width = image.shape[:2]
    value = torch.zeros_like(uv[:, :1])
    x, y = uv[:, 0] * width - 0.5, (1.0 - uv[:, 1]) * height - 0.5
    left, above = torch.floor(x.detach()), torch.floor(y.detach())
    for column in (left, left + 1.0):
        for row in (above, above + 1.0):
            share = (1.0 - (x - column).abs()) * (1.0 - (y - row).abs())
            value = value + share[:, None] * image[texel(row, height).long(), texel(column, width).long()]
    return value


def facets(alpha: Tensor, cosine: Tensor) -> Tensor:
    """GGX, D(h) [1/sr] (Walter et al. 2007, eq. 33)."""
    return alpha**2 / (pi * (cosine**2 * (alpha**2 - 1.0) + 1.0) ** 2)


def masking(alpha: Tensor, cosine: Tensor) -> Tensor:
    """G1 (Walter et al. 2007, eq. 34)."""
    return 2.0 / (1.0 + torch.sqrt(1.0 + alpha**2 * (1.0 - cosine**2) / cosine**2))


def facing(s: Surface, wi: Tensor) -> Tensor:
    """The normal on the side of wi, which points away from the surface."""
    return torch.where((dot(s.normal, wi) > 0.0)[:, None], s.normal, -s.normal)


def reflects(world: World, s: Surface, wi: Tensor, wo: Tensor) -> Tensor:
    """Whether light from wo can go to wi: both are on one side, the front or that of a two-sided material."""
    return ((dot(s.normal, wi) > 0.0) | world.two_sided[s.material]) & (dot(facing(s, wi), wo) > 0.0)


def bsdf_cos(world: World, s: Surface, wi: Tensor, wo: Tensor) -> Tensor:
    """f cos_o (ray, 3)."""
    n, h, lit = facing(s, wi), unit(wi + wo), reflects(world, s, wi, wo)
    cos_i, cos_o, cos_h = (torch.where(lit, dot(n, v), 1.0) for v in (wi, wo, h))
    fresnel = s.albedo + (1.0 - s.albedo) * (1.0 - dot(wi, h)[:, None]) ** 5  # Schlick 1994, eq. 15
    reflectance = torch.where(world.schlick[s.material][:, None], fresnel, s.albedo)
    mirror = facets(s.alpha, cos_h) * masking(s.alpha, cos_i) * masking(s.alpha, cos_o) / (4.0 * cos_i)
    value = torch.where(world.conductor[s.material][:, None], reflectance * mirror[:, None], s.albedo * (cos_o / pi)[:, None])
    return torch.where(lit[:, None], value, 0.0)


@torch.no_grad()
def sample_direction(world: World, s: Surface, wi: Tensor, u: Tensor, uniform: bool) -> tuple[Tensor, Tensor]:
    """wo and its density [1/sr]: over the sphere, or by cosine (diffuse), or mirrored at a facet (Walter et al. 35)."""
    n = facing(s, wi)
    axis = torch.where(n[:, :1].abs() < 0.5, n.new_tensor([1.0, 0.0, 0.0]), n.new_tensor([0.0, 1.0, 0.0]))
    tangent = unit(torch.linalg.cross(n, axis))
    conductor = world.conductor[s.material]

    def about(up: Tensor, cosine: Tensor) -> Tensor:
        sine, angle = torch.sqrt(1.0 - cosine**2), 2.0 * pi * u[:, 1]
        across = tangent * (sine * angle.cos())[:, None] + torch.linalg.cross(n, tangent) * (sine * angle.sin())[:, None]
        return across + up * cosine[:, None]

    if uniform:  # in world axes: what is drawn does not depend on the scene
        cosine, sine, angle = 1.0 - 2.0 * u[:, 0], 2.0 * torch.sqrt(u[:, 0] * (1.0 - u[:, 0])), 2.0 * pi * u[:, 1]
        return torch.stack([sine * angle.cos(), sine * angle.sin(), cosine], dim=1), torch.full_like(cosine, 0.25 / pi)
    cos_h = torch.sqrt((1.0 - u[:, 0]) / (1.0 + (s.alpha**2 - 1.0) * u[:, 0]))
    h = about(n, cos_h)
    mirrored = 2.0 * dot(wi, h)[:, None] * h - wi
    cos_o = torch.sqrt(1.0 - u[:, 0])
    wo = torch.where(conductor[:, None], mirrored, about(n, cos_o))
    return wo, torch.where(conductor, facets(s.alpha, cos_h) * cos_h / (4.0 * dot(wi, h)), cos_o / pi)


def light(world: World, s: Surface, wi: Tensor, u: Tensor) -> Tensor:
    """Radiance (ray, 3) sent along wi of what arrives straight from all lights and from one point of one lamp."""
    start, total = s.point.detach(), torch.zeros_like(s.point)
    for is_point, place, power in world.lights:
        to_light = place - s.point if is_point else -place.expand_as(s.point)
        distance = to_light.norm(dim=1)
        wo = to_light / distance[:, None]
        reach = distance.detach() * SHADOW_END if is_point else inf
        seen = closest(world, start, wo.detach())[1] >= reach
        value = bsdf_cos(world, s, wi, wo) * power / (distance**2 if is_point else torch.ones_like(distance))[:, None]
        total = total + torch.where(seen[:, None], value, 0.0)
    if len(world.lamps):
        lamp = world.lamps[(u[:, 0] * len(world.lamps)).long()]
        root = torch.sqrt(u[:, 1])
        weights = torch.stack([1.0 - root, root * (1.0 - u[:, 2]), root * u[:, 2]], dim=1)
        a, b, c = world.corners[lamp].unbind(1)
        to_light = (weights[:, :, None] * world.corners[lamp]).sum(dim=1) - s.point
        distance = to_light.norm(dim=1)
        wo = to_light / distance[:, None]
        area_cos = -0.5 * dot(torch.linalg.cross(b - a, c - a), wo)
        value = bsdf_cos(world, s, wi, wo) * parameter(world, 2, lamp, weights)
        value = value * (area_cos / distance**2 * len(world.lamps))[:, None]
        seen = (closest(world, start, wo.detach())[1] >= distance.detach() * SHADOW_END) & (area_cos > 0.0)
        total = total + torch.where(seen[:, None], value, 0.0)
    return total


def sky(world: World, d: Tensor) -> Tensor:
    """Radiance from beyond everything along d, (ray, 3): latitude and longitude, z up, +x in the middle, +y to its left."""
    if world.panorama is None:
        return world.environment.expand(len(d), 3)
    rows, columns = world.panorama.shape[:2]
    d = unit(d)
    x = (0.5 - torch.atan2(d[:, 1], d[:, 0]) / (2.0 * math.pi)) * columns - 0.5
    y = (torch.acos(d[:, 2].clamp(-1.0, 1.0)) / math.pi * rows - 0.5).clamp(0.0, rows - 1.0)
    i, j = x.detach().floor(), y.detach().floor().clamp(max=rows - 2.0)
    a, b = (x - i)[:, None], (y - j)[:, None]
    i, j = i.long(), j.long()
    upper, lower = (
        world.panorama[row, i % columns] * (1.0 - a) + world.panorama[row, (i + 1) % columns] * a for row in (j, j + 1)
    )
    return world.environment * (upper * (1.0 - b) + lower * b)


def radiance(
    world: World, o: Tensor, d: Tensor, depth: int, near: float, uniform: bool, draw: Callable[[int, int], Tensor]
) -> Tensor:
    """Radiance against the rays o + t d, t > near, (ray, 3)."""
    total, throughput, ray = torch.zeros_like(o), torch.ones_like(o), torch.arange(len(o), device=o.device)
    for vertex in range(depth):
        u = draw(len(total), 5)
        thing, distance = closest(world, o.detach(), d.detach(), near if vertex == 0 else NEAR)
        met = torch.isfinite(distance)
        total = total.index_add(0, ray[~met], throughput[~met] * sky(world, d[~met]))
        ray, throughput, o, d, thing, distance = (part[met] for part in (ray, throughput, o, d, thing, distance))
        s = surface(world, thing, distance, o, d)
        shines = dot(s.normal, d) < 0.0
        if vertex > 0:
            shines = shines & ~torch.isin(thing, world.lamps)  # whose light has been sampled
        emission = parameter(world, 2, thing, s.weights)
        total = total.index_add(0, ray, throughput * torch.where(shines[:, None], emission, 0.0))
        if vertex == depth - 1:
            break
        total = total.index_add(0, ray, throughput * light(world, s, -d, u[ray, :3]))
        wo, density = sample_direction(world, s, -d, u[ray, 3:], uniform)
        throughput = throughput * bsdf_cos(world, s, -d, wo) / density[:, None]
        go = reflects(world, s, -d, wo)  # a black material, too: what arrives is its albedo's derivative
        ray, throughput, o, d = ray[go], throughput[go], s.point[go], wo[go]
    return total


class SimplePathRender(nn.Module):
    """Renders small scenes slowly, to check `PathRender`: nothing but torch, time and memory grow with rays times faces.

    Arguments:
        samples: paths a film pixel; its filter is the pixel's own square.
        depth: 1 shows emission only, 2 adds direct light, 3 one bounce, and so on.
        uniform_directions: draw bounces evenly over the sphere in place of by the material: noisier, but nothing that is drawn
            depends on the scene, so that differences between images of one seed have the gradient as their limit.
    forward: scene; camera; film: as `PathRender`; seed: an int.
    Returns: images, linear radiance, (view, row, column, 3), float64.
    Gradient: to all tensors, unbiased but for boundaries of visibility, which are left out; its random numbers are the image's
        own, so that of a loss that is not linear in the image it is biased.
    Raises: UserError as `PathRender`; Unsupported for SDFs, poses, and cameras that move.
    """

    def __init__(self, samples: int = 16, depth: int = 2, *, uniform_directions: bool = False):
        super().__init__()
        self.samples = whole_number("SimplePathRender.samples", samples, 1)
        self.depth = whole_number("SimplePathRender.depth", depth, 1)
        self.uniform_directions = bool(uniform_directions)

    def forward(self, scene: Scene, camera: Camera, film: Film, seed: int = 0) -> Tensor:
        check_film(film)
        film = film._replace(rows=int(film.rows), columns=int(film.columns))
        seed = whole_number("SimplePathRender.seed", seed, -(2**31))
        scene, camera, *_ = check_given(scene, camera, None, None, torch.float64)
        for number, body in enumerate(scene.bodies):
            if isinstance(body, SdfBody) or getattr(body, "poses", None) is not None:
                raise Unsupported(f"SimplePathRender: Scene.bodies[{number}] is an SDF or has poses; remedy: PathRender")
        if camera.position.dim() != 2:
            raise Unsupported("SimplePathRender: camera.position has a frame axis; remedy: one row a view")
        single = check_given(plain(scene), plain(camera), None, None)
        views = pack_scene(single, film).views
        pack_camera(single.camera, views, film)
        device = camera.position.device
        generator = torch.Generator(device).manual_seed(int(seed))

        def draw(*shape: int) -> Tensor:
            return torch.rand(*shape, generator=generator, dtype=torch.float64, device=device)

        images = []
        for view in range(views):
            world = gather(scene, view, views, device)
            o, d = camera_rays(camera, film, draw(film.rows, film.columns, self.samples, 2), view, views)
            near = -inf if camera.orthographic else NEAR  # without perspective all that is on the line is seen
            light_of = radiance(world, o, d, self.depth, near, self.uniform_directions, draw)
            images.append(light_of.reshape(film.rows, film.columns, self.samples, 3).mean(dim=2))
        return torch.stack(images)
