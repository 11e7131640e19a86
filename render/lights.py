r"""Light that a point of a surface receives straight from lamps, point lights, directions and the environment.

A lamp's light is an integral over the lamp: its point y stays fixed on its triangle while the scene moves,

    f(x, y) L_e(y) cos(n_y) / |x - y|^2  A,        A the area of the triangle, per unit of its barycentric area times 2

(Veach 1997, eq. 8.7), whether y was chosen as a light's point or met by a ray that the material had sampled; both are weighted
by the power heuristic. Weights and densities are detached; `light_value` is what is differentiated. The environment's
directions stay fixed.
"""

import warp as wp

from render.bsdf import bsdf_cos
from render.environment import add_sky_gradient, has_panorama, panorama_density, sample_panorama, sky_radiance
from render.gradient_sink import Sink, deposit
from render.placing import corner
from render.reversible import calls_gradients, reversible
from render.scene_data import (
    DIRECTIONAL,
    ENVIRONMENT,
    FACE,
    LAMP,
    POINT,
    Moment,
    SceneNumbers,
    SceneTables,
    light_vector,
)
from render.surface import add_corner_gradients, add_emission_gradient, emission_of

TINY = wp.constant(1.0e-20)


@wp.struct
class LightSample:
    kind: int  # -1: none
    index: int  # lamp face or light
    u: float  # barycentric, on a lamp
    v: float
    direction: wp.vec3  # unit, towards the light
    distance: float
    weight: float  # 1 / density of light_value's measure; without that of multiple importance sampling
    density: float  # solid angle, 0 where the material cannot find the light by chance
    a: wp.vec3  # what light_value takes: corners of the lamp, position or direction of the light
    b: wp.vec3
    c: wp.vec3
    radiance: wp.vec3  # emission, intensity, irradiance or radiance


@reversible
@wp.func
def light_value(
    light: int, kind: int, two_sided: int, schlick: int, albedo: wp.vec3, alpha: float, n: wp.vec3, x: wp.vec3, wi: wp.vec3,
    a: wp.vec3, b: wp.vec3, c: wp.vec3, u: float, v: float, radiance: wp.vec3,
):  # fmt: skip
    """Radiance that x sends along wi for a sample of a light, times the sample's density."""
    value = wp.vec3(0.0, 0.0, 0.0)
    if light == LAMP:
        to_light = a * (1.0 - u - v) + b * u + c * v - x
        raw = wp.cross(b - a, c - a)
        squared = wp.dot(to_light, to_light)
        distance = wp.sqrt(squared)
        wo = to_light / distance
        facing = -wp.dot(raw, wo)  # twice the area times the cosine
        if facing > 0.0:
            f = bsdf_cos(kind, two_sided, schlick, albedo, alpha, n, wi, wo)
            value = wp.cw_mul(f, radiance) * (0.5 * facing / squared)
    elif light == POINT:
        to_light = a - x
        squared = wp.dot(to_light, to_light)
        f = bsdf_cos(kind, two_sided, schlick, albedo, alpha, n, wi, to_light / wp.sqrt(squared))
        value = wp.cw_mul(f, radiance) / squared
    elif light == DIRECTIONAL:
        f = bsdf_cos(kind, two_sided, schlick, albedo, alpha, n, wi, -a / wp.length(a))
        value = wp.cw_mul(f, radiance)
    else:
        f = bsdf_cos(kind, two_sided, schlick, albedo, alpha, n, wi, a)
        value = wp.cw_mul(f, radiance)
    return value


@reversible
@wp.func
def light_value_along(
    light: int, kind: int, two_sided: int, schlick: int, albedo: wp.vec3, alpha: float, n: wp.vec3, x: wp.vec3, wi: wp.vec3,
    a: wp.vec3, b: wp.vec3, c: wp.vec3, u: float, v: float, radiance: wp.vec3, weight: wp.vec3,
):  # fmt: skip
    return wp.dot(weight, light_value(light, kind, two_sided, schlick, albedo, alpha, n, x, wi, a, b, c, u, v, radiance))


@calls_gradients
@wp.func
def add_light_gradient(
    scene: SceneNumbers, tables: SceneTables, sink: Sink, view: int, world: int, moment: Moment, light: int, index: int,
    u: float, v: float, direction: wp.vec3, ga: wp.vec3, gb: wp.vec3, gc: wp.vec3, g_radiance: wp.vec3,
):  # fmt: skip
    """Adds the gradients of what `light_value` takes of a light, as `fill_light` gave it; returns that of the blend."""
    at_blend = float(0.0)
    if light == LAMP:
        at_blend = add_corner_gradients(scene, tables, sink, view, world, moment, FACE, index, ga, gb, gc)
        if wp.dot(g_radiance, g_radiance) != 0.0:  # which NaN is, too
            _uv = add_emission_gradient(scene, tables, sink, world, tables.face_table[index, 1], FACE, index, u, v, g_radiance)
    elif light == ENVIRONMENT:
        _d = add_sky_gradient(scene, tables, sink, world, direction, g_radiance)
    else:
        row = light_vector(ga[0], ga[1], ga[2], g_radiance[0], g_radiance[1], g_radiance[2])
        deposit(sink, sink.numbers.lights, world, index, row)
    return at_blend


@wp.func
def group_count(tables: SceneTables):
    """Kinds of light among which one is chosen: all lamps together, each light, the environment."""
    return wp.where(tables.lamps.shape[0] > 0, 1, 0) + tables.light_kinds.shape[0] + tables.has_environment


@wp.func
def choose_lamp(tables: SceneTables, world: int, u: float):
    """Index into `lamps`."""
    low = int(0)
    high = int(tables.lamps.shape[0] - 1)
    while low < high:
        middle = (low + high) // 2
        if tables.lamp_cdf[world, middle] > u:
            high = middle
        else:
            low = middle + 1
    return low


@wp.func
def lamp_share(tables: SceneTables, world: int, lamp: int):
    """Probability of one lamp face."""
    share = tables.lamp_cdf[world, lamp]
    if lamp > 0:
        share -= tables.lamp_cdf[world, lamp - 1]
    return share


@wp.func
def fill_light(
    scene: SceneNumbers, tables: SceneTables, view: int, world: int, moment: Moment, kind: int, index: int, u: float, v: float,
    direction: wp.vec3,
):  # fmt: skip
    """The numbers of a light sample of which kind, index and place are known; without distance, weight and density."""
    sample = LightSample()
    sample.kind = kind
    sample.index = index
    sample.u = u
    sample.v = v
    if kind == LAMP:
        sample.a = corner(scene, tables, view, world, moment, index, 0)
        sample.b = corner(scene, tables, view, world, moment, index, 1)
        sample.c = corner(scene, tables, view, world, moment, index, 2)
        sample.radiance = emission_of(scene, tables, world, tables.face_table[index, 1], 0, index, u, v)
    elif kind == ENVIRONMENT:
        sample.a = direction
        sample.radiance = sky_radiance(scene, tables, world, direction)
    else:
        numbers = scene.lights[world, index]
        sample.a = wp.vec3(numbers[0], numbers[1], numbers[2])
        sample.radiance = wp.vec3(numbers[3], numbers[4], numbers[5])
    return sample


@wp.func
def tangent_frame(n: wp.vec3, x: float, y: float, z: float):
    """x t + y s + z n of an orthonormal basis about n (Duff et al. 2017)."""
    sign = wp.where(n[2] >= 0.0, 1.0, -1.0)
    a = -1.0 / (sign + n[2])
    b = n[0] * n[1] * a
    t = wp.vec3(1.0 + sign * n[0] * n[0] * a, sign * b, -sign * n[0])
    s = wp.vec3(b, sign + n[1] * n[1] * a, -n[1])
    return t * x + s * y + n * z


@wp.func
def environment_density(tables: SceneTables, world: int, n: wp.vec3, direction: wp.vec3):
    """Solid-angle density with which `sample_light` chooses a direction of the environment; n: the normal on the side looked
    at."""
    cosine = wp.dot(n, direction)
    density = float(0.0)
    if cosine > 0.0 and tables.has_environment != 0:
        density = cosine / wp.PI
        if has_panorama(tables):
            density = panorama_density(tables, world, direction)
        density = density / float(wp.max(1, group_count(tables)))
    return density


@wp.func
def sample_light(
    scene: SceneNumbers, tables: SceneTables, view: int, world: int, moment: Moment, x: wp.vec3, n: wp.vec3, u0: float,
    u1: float, u2: float,
):  # fmt: skip
    """One light sample for a point x; n: the normal on the side that is looked at."""
    groups = group_count(tables)
    sample = LightSample()
    sample.kind = -1
    if groups == 0:
        return sample
    place = u0 * float(groups)
    group = wp.min(int(place), groups - 1)
    rest = place - float(group)
    has_lamps = wp.where(tables.lamps.shape[0] > 0, 1, 0)
    if group < has_lamps:
        lamp = choose_lamp(tables, world, rest)
        root = wp.sqrt(u1)
        sample = fill_light(
            scene, tables, view, world, moment, LAMP, tables.lamps[lamp], root * (1.0 - u2), root * u2, wp.vec3()
        )
        to_light = sample.a * (1.0 - sample.u - sample.v) + sample.b * sample.u + sample.c * sample.v - x
        sample.distance = wp.length(to_light)
        sample.direction = to_light * (1.0 / wp.max(sample.distance, TINY))
        facing = -0.5 * wp.dot(wp.cross(sample.b - sample.a, sample.c - sample.a), sample.direction)
        if facing <= 0.0 or sample.distance <= 0.0:
            sample.kind = -1
            return sample
        share = lamp_share(tables, world, lamp) / float(groups)
        sample.weight = 1.0 / share
        sample.density = share * sample.distance * sample.distance / facing
    elif group < has_lamps + tables.light_kinds.shape[0]:
        index = group - has_lamps
        kind = tables.light_kinds[index]
        sample = fill_light(scene, tables, view, world, moment, kind, index, 0.0, 0.0, wp.vec3())
        if kind == POINT:
            to_light = sample.a - x
            sample.distance = wp.length(to_light)
            sample.direction = to_light / wp.max(sample.distance, TINY)
        else:
            sample.distance = 1.0e30
            sample.direction = -wp.normalize(sample.a)
        sample.weight = float(groups)
        sample.density = 0.0
    else:
        direction = wp.vec3(0.0, 0.0, 0.0)
        if has_panorama(tables):
            direction = sample_panorama(tables, world, u1, u2)
            if wp.dot(direction, n) <= 0.0:
                return sample
        else:
            radius = wp.sqrt(u1)
            angle = 2.0 * wp.PI * u2
            cosine = wp.sqrt(wp.max(0.0, 1.0 - u1))
            direction = tangent_frame(n, radius * wp.cos(angle), radius * wp.sin(angle), cosine)
        sample = fill_light(scene, tables, view, world, moment, ENVIRONMENT, 0, 0.0, 0.0, direction)
        sample.direction = direction
        sample.distance = 1.0e30
        sample.density = environment_density(tables, world, n, direction)
        sample.weight = 1.0 / wp.max(sample.density, TINY)
    return sample


@wp.func
def light_share(sample: LightSample):
    """`light_value` times `weight` of a light sample is `bsdf_cos` times radiance times this."""
    share = sample.weight
    if sample.density > 0.0:
        share = 1.0 / sample.density
    elif sample.kind == POINT:
        share = sample.weight / wp.max(sample.distance * sample.distance, TINY)
    return share


@wp.func
def lamp_density(tables: SceneTables, world: int, face: int, direction: wp.vec3, distance: float, raw: wp.vec3):
    """Solid-angle density with which `sample_light` would have chosen the point that a ray met on a lamp face; `raw` is the
    cross product of its edges."""
    low = int(0)
    high = int(tables.lamps.shape[0] - 1)
    while low < high:  # lamps are in the order of faces
        middle = (low + high) // 2
        if tables.lamps[middle] >= face:
            high = middle
        else:
            low = middle + 1
    facing = -0.5 * wp.dot(raw, direction)
    density = float(0.0)
    if facing > 0.0 and tables.lamps.shape[0] > 0:
        if tables.lamps[low] == face:
            density = lamp_share(tables, world, low) / float(group_count(tables)) * distance * distance / facing
    return density


@wp.func
def heuristic(own: float, other: float):
    """Power heuristic with exponent 2; 1 where the other cannot sample."""
    return own * own / wp.max(own * own + other * other, TINY)
