"""What a hit shows: its point, its normal, its material after texture and vertex lookup; and the way back of their gradients.

A parameter is the product of the material's constant, its texture at the point's uv, and the interpolated vertex value.
"""

import warp as wp

from render.gradient_sink import Sink, deposit, deposit_texture
from render.hits import barycentric, hit_normal, hit_point
from render.placing import add_pose_gradient, add_vertex_gradient, corner, to_world
from render.reversible import calls_gradients, reversible
from render.scene_data import (
    ALBEDO,
    ALPHA,
    EMISSION,
    FACE,
    PLANE,
    SDF,
    SPHERE,
    Hit,
    Moment,
    SceneNumbers,
    SceneTables,
    material_vector,
)
from render.sdf_hits import pull_sdf_hit, sdf_at, sdf_ray, to_world_axes
from render.textures import lookup


@wp.struct
class Surface:
    position: wp.vec3
    normal: wp.vec3
    a: wp.vec3  # corners of the face; or centre, radius and side of the sphere, as hits.hit_point takes them
    b: wp.vec3
    c: wp.vec3
    material: int
    kind: int  # of the material
    two_sided: int
    schlick: int
    albedo: wp.vec3
    alpha: float


@wp.func
def is_modulated(tables: SceneTables, material: int, slot: int):
    """Whether a parameter has a texture or vertex values."""
    return tables.material_table[material, 3 + slot] >= 0 or ((tables.material_table[material, 6] >> slot) & 1) == 1


@wp.func(inline=False)
def modulation(
    scene: SceneNumbers, tables: SceneTables, world: int, material: int, slot: int, kind: int, index: int, u: float, v: float
):
    """Texture times vertex value of one parameter at a hit; 1 where it has neither."""
    value = wp.vec3(1.0, 1.0, 1.0)
    if kind == FACE or kind == PLANE:
        texture = tables.material_table[material, 3 + slot]
        if texture >= 0:
            uv = tables.corner_uv[index, 0] * (1.0 - u - v) + tables.corner_uv[index, 1] * u + tables.corner_uv[index, 2] * v
            value = lookup(tables.textures, scene.texels, world, texture, uv)
        if ((tables.material_table[material, 6] >> slot) & 1) == 1:
            value = wp.cw_mul(
                value,
                scene.vertex_values[world, slot, tables.faces[index, 0]] * (1.0 - u - v)
                + scene.vertex_values[world, slot, tables.faces[index, 1]] * u
                + scene.vertex_values[world, slot, tables.faces[index, 2]] * v,
            )
    return value


@wp.func(inline=False)
def round_surface(
    scene: SceneNumbers, tables: SceneTables, view: int, world: int, moment: Moment, hit: Hit, o: wp.vec3, d: wp.vec3
):
    """Shape, normal and material at a hit of a sphere or SDF, without what the material is."""
    s = Surface()
    s.position = o + d * hit.t
    if hit.kind == SDF:
        s.material = tables.sdf_table[1]
        at = sdf_at(scene, tables, world, sdf_ray(scene, tables, view, moment, s.position, 1))
        s.normal = to_world_axes(scene, tables, view, moment, wp.normalize(wp.vec3(at[1], at[2], at[3])))
    else:
        ball = scene.spheres[world, hit.index]
        s.a = to_world(scene, view, moment, tables.sphere_table[hit.index, 0], wp.vec3(ball[0], ball[1], ball[2]))
        s.b = wp.vec3(ball[3], 0.0, 0.0)
        s.c = wp.vec3(hit.u, 0.0, 0.0)
        s.material = tables.sphere_table[hit.index, 1]
        s.normal = hit_normal(hit.kind, s.position, s.a, s.b, s.c)
        s.position = s.position - s.normal * (wp.dot(s.normal, s.position - s.a) - s.b[0])
    return s


@wp.func
def surface_of(
    scene: SceneNumbers, tables: SceneTables, view: int, world: int, moment: Moment, hit: Hit, o: wp.vec3, d: wp.vec3
):
    """The surface at the hit of the ray o + t d."""
    s = Surface()
    if hit.kind == SDF or hit.kind == SPHERE:
        s = round_surface(scene, tables, view, world, moment, hit, o, d)
    else:
        s.a = corner(scene, tables, view, world, moment, hit.index, 0)
        s.b = corner(scene, tables, view, world, moment, hit.index, 1)
        s.c = corner(scene, tables, view, world, moment, hit.index, 2)
        s.material = tables.face_table[hit.index, 1]
        raw = wp.cross(s.b - s.a, s.c - s.a)
        s.normal = raw * (1.0 / wp.length(raw))
        # back onto the surface: a long ray's end is rounded by more than new rays start beside it
        end = o + d * hit.t
        s.position = end - s.normal * wp.dot(s.normal, end - s.a)
    numbers = scene.materials[world, s.material]
    s.kind = tables.material_table[s.material, 0]
    s.two_sided = tables.material_table[s.material, 1]
    s.schlick = tables.material_table[s.material, 2]
    s.albedo = wp.vec3(numbers[0], numbers[1], numbers[2])
    s.alpha = numbers[3]
    if is_modulated(tables, s.material, ALBEDO):
        s.albedo = wp.cw_mul(s.albedo, modulation(scene, tables, world, s.material, ALBEDO, hit.kind, hit.index, hit.u, hit.v))
    if is_modulated(tables, s.material, ALPHA):
        s.alpha *= modulation(scene, tables, world, s.material, ALPHA, hit.kind, hit.index, hit.u, hit.v)[0]
    return s


@wp.func
def emits(tables: SceneTables, material: int):
    return tables.material_table[material, 7] != 0


@wp.func
def emission_of(scene: SceneNumbers, tables: SceneTables, world: int, material: int, kind: int, index: int, u: float, v: float):
    """Radiance that a surface emits on its front side."""
    numbers = scene.materials[world, material]
    value = wp.vec3(numbers[4], numbers[5], numbers[6])
    if is_modulated(tables, material, EMISSION):
        value = wp.cw_mul(value, modulation(scene, tables, world, material, EMISSION, kind, index, u, v))
    return value


@reversible
@wp.func
def barycentric_along(p: wp.vec3, a: wp.vec3, b: wp.vec3, c: wp.vec3, weight: wp.vec2):
    return wp.dot(weight, barycentric(p, a, b, c))


@reversible
@wp.func
def hit_point_along(kind: int, o: wp.vec3, d: wp.vec3, a: wp.vec3, b: wp.vec3, c: wp.vec3, weight: wp.vec3):
    return wp.dot(weight, hit_point(kind, o, d, a, b, c))


@reversible
@wp.func
def hit_normal_along(kind: int, x: wp.vec3, a: wp.vec3, b: wp.vec3, c: wp.vec3, weight: wp.vec3):
    return wp.dot(weight, hit_normal(kind, x, a, b, c))


@wp.func(inline=False)
def add_modulated_gradient(
    scene: SceneNumbers, tables: SceneTables, sink: Sink, world: int, material: int, slot: int, kind: int, index: int,
    u: float, v: float, constant: wp.vec3, g: wp.vec3,
):  # fmt: skip
    """`add_parameter_gradient` where there is a texture or are vertex values."""
    at_constant = g
    at_u = float(0.0)
    at_v = float(0.0)
    if kind == FACE or kind == PLANE:
        texture = tables.material_table[material, 3 + slot]
        has_values = ((tables.material_table[material, 6] >> slot) & 1) == 1
        if texture >= 0 or has_values:
            uv0 = tables.corner_uv[index, 0]
            uv1 = tables.corner_uv[index, 1]
            uv2 = tables.corner_uv[index, 2]
            uv = uv0 * (1.0 - u - v) + uv1 * u + uv2 * v
            i0 = tables.faces[index, 0]
            i1 = tables.faces[index, 1]
            i2 = tables.faces[index, 2]
            from_texture = wp.vec3(1.0, 1.0, 1.0)
            from_vertices = wp.vec3(1.0, 1.0, 1.0)
            if texture >= 0:
                from_texture = lookup(tables.textures, scene.texels, world, texture, uv)
            if has_values:
                from_vertices = (
                    scene.vertex_values[world, slot, i0] * (1.0 - u - v)
                    + scene.vertex_values[world, slot, i1] * u
                    + scene.vertex_values[world, slot, i2] * v
                )
            at_constant = wp.cw_mul(g, wp.cw_mul(from_texture, from_vertices))
            if texture >= 0:
                at_texture = wp.cw_mul(g, wp.cw_mul(constant, from_vertices))
                at_uv = deposit_texture(scene, tables, sink, world, texture, uv, at_texture)
                at_u += wp.dot(at_uv, uv1 - uv0)
                at_v += wp.dot(at_uv, uv2 - uv0)
            if has_values:
                at_values = wp.cw_mul(g, wp.cw_mul(constant, from_texture))
                deposit(sink, sink.numbers.vertex_values, world, slot, i0, at_values * (1.0 - u - v))
                deposit(sink, sink.numbers.vertex_values, world, slot, i1, at_values * u)
                deposit(sink, sink.numbers.vertex_values, world, slot, i2, at_values * v)
                first = scene.vertex_values[world, slot, i0]
                at_u += wp.dot(at_values, scene.vertex_values[world, slot, i1] - first)
                at_v += wp.dot(at_values, scene.vertex_values[world, slot, i2] - first)
    return at_constant, wp.vec2(at_u, at_v)


@wp.func
def add_parameter_gradient(
    scene: SceneNumbers, tables: SceneTables, sink: Sink, world: int, material: int, slot: int, kind: int, index: int,
    u: float, v: float, constant: wp.vec3, g: wp.vec3,
):  # fmt: skip
    """Adds the gradient g of a parameter's value to its texture and vertex values; returns those of its constant and (u, v)."""
    at_constant = g
    at_uv = wp.vec2(0.0, 0.0)
    if is_modulated(tables, material, slot):
        at_constant, at_uv = add_modulated_gradient(scene, tables, sink, world, material, slot, kind, index, u, v, constant, g)
    return at_constant, at_uv


@wp.func
def add_emission_gradient(
    scene: SceneNumbers, tables: SceneTables, sink: Sink, world: int, material: int, kind: int, index: int, u: float,
    v: float, g: wp.vec3,
):  # fmt: skip
    """Adds the gradient of emitted radiance; returns that of (u, v)."""
    numbers = scene.materials[world, material]
    constant = wp.vec3(numbers[4], numbers[5], numbers[6])
    at_constant, at_uv = add_parameter_gradient(scene, tables, sink, world, material, EMISSION, kind, index, u, v, constant, g)
    add_material(sink, world, material, wp.vec3(0.0, 0.0, 0.0), 0.0, at_constant)
    return at_uv


@wp.func
def add_material(sink: Sink, world: int, material: int, albedo: wp.vec3, alpha: float, emission: wp.vec3):
    row = material_vector(albedo[0], albedo[1], albedo[2], alpha, emission[0], emission[1], emission[2])
    deposit(sink, sink.numbers.materials, world, material, row)


@wp.func
def add_reflectance_gradient(
    scene: SceneNumbers,
    tables: SceneTables,
    sink: Sink,
    world: int,
    hit: Hit,
    material: int,
    at_albedo: wp.vec3,
    at_alpha: float,
):
    """Adds the gradients of albedo and roughness at a hit; returns that of (u, v)."""
    numbers = scene.materials[world, material]
    albedo, uv_of_albedo = add_parameter_gradient(
        scene, tables, sink, world, material, ALBEDO, hit.kind, hit.index, hit.u, hit.v,
        wp.vec3(numbers[0], numbers[1], numbers[2]), at_albedo,
    )  # fmt: skip
    alpha, uv_of_alpha = add_parameter_gradient(
        scene, tables, sink, world, material, ALPHA, hit.kind, hit.index, hit.u, hit.v, wp.vec3(numbers[3], 0.0, 0.0),
        wp.vec3(at_alpha, 0.0, 0.0),
    )  # fmt: skip
    add_material(sink, world, material, albedo, alpha[0], wp.vec3(0.0, 0.0, 0.0))
    return uv_of_albedo + uv_of_alpha


@wp.func
def add_surface_gradient(
    scene: SceneNumbers, tables: SceneTables, sink: Sink, view: int, world: int, moment: Moment, hit: Hit, s: Surface,
    o: wp.vec3, d: wp.vec3, at_position: wp.vec3, at_normal: wp.vec3, at_albedo: wp.vec3, at_alpha: float, at_uv: wp.vec2,
):  # fmt: skip
    """Pulls gradients at a hit back to material, geometry, pose; returns those of the ray's origin, direction, and the blend.

    `at_uv` is what (u, v) has received already, from the emission.
    """
    uv_bar = at_uv + add_reflectance_gradient(scene, tables, sink, world, hit, s.material, at_albedo, at_alpha)
    if hit.kind == SDF:
        o_bar, d_bar, at_blend = pull_sdf_hit(scene, tables, sink, view, world, moment, hit.t, o, d, at_position, at_normal)
        return o_bar, d_bar, at_blend
    x_bar = at_position
    a_bar = wp.vec3(0.0, 0.0, 0.0)
    b_bar = wp.vec3(0.0, 0.0, 0.0)
    c_bar = wp.vec3(0.0, 0.0, 0.0)
    if (hit.kind == FACE or hit.kind == PLANE) and (uv_bar[0] != 0.0 or uv_bar[1] != 0.0):
        gx, ga, gb, gc, _uv_weight = wp.grad(barycentric_along)(s.position, s.a, s.b, s.c, uv_bar)
        x_bar += gx
        a_bar += ga
        b_bar += gb
        c_bar += gc
    if wp.dot(at_normal, at_normal) > 0.0:
        _k, gx, ga, gb, gc, _w = wp.grad(hit_normal_along)(hit.kind, s.position, s.a, s.b, s.c, at_normal)
        x_bar += gx
        a_bar += ga
        b_bar += gb
        c_bar += gc
    _k, o_bar, d_bar, ga, gb, gc, _w = wp.grad(hit_point_along)(hit.kind, o, d, s.a, s.b, s.c, x_bar)
    a_bar += ga
    b_bar += gb
    c_bar += gc
    at_blend = add_corner_gradients(scene, tables, sink, view, world, moment, hit.kind, hit.index, a_bar, b_bar, c_bar)
    return o_bar, d_bar, at_blend


@calls_gradients
@wp.func
def add_corner_gradients(
    scene: SceneNumbers, tables: SceneTables, sink: Sink, view: int, world: int, moment: Moment, kind: int, index: int,
    a_bar: wp.vec3, b_bar: wp.vec3, c_bar: wp.vec3,
):  # fmt: skip
    """Gradients at the world corners of a face, or at centre and (b_bar[0]) radius of a sphere; returns that of the blend."""
    at_blend = float(0.0)
    if kind == SPHERE:
        ball = scene.spheres[world, index]
        local, at_blend = add_pose_gradient(
            scene, sink, view, moment, tables.sphere_table[index, 0], wp.vec3(ball[0], ball[1], ball[2]), a_bar
        )
        deposit(sink, sink.numbers.spheres, world, index, wp.vec4(local[0], local[1], local[2], b_bar[0]))
    else:
        instance = tables.face_table[index, 0]
        at_blend = add_vertex_gradient(scene, tables, sink, view, world, moment, instance, tables.faces[index, 0], a_bar)
        at_blend += add_vertex_gradient(scene, tables, sink, view, world, moment, instance, tables.faces[index, 1], b_bar)
        at_blend += add_vertex_gradient(scene, tables, sink, view, world, moment, instance, tables.faces[index, 2], c_bar)
    return at_blend
