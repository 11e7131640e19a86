r"""Rough conductor: microfacets with the GGX distribution of slopes, isotropic, single scattering.

    f cos_o = F D(h) G1(wi) G1(wo) / (4 cos_i),        h = (wi + wo) / |wi + wo|
    D(h)    = alpha^2 / (pi (cos_h^2 (alpha^2 - 1) + 1)^2)                       (Walter et al. 2007, eq. 33)
    G1(v)   = 2 / (1 + sqrt(1 + alpha^2 tan_v^2)), separable                     (Walter et al. 2007, eq. 34)
    F       = albedo, or albedo + (1 - albedo) (1 - wi.h)^5                      (Schlick 1994, eq. 15)

and sampling of the normals that wi sees (Heitz 2018), with density D(h) G1(wi) / (4 cos_i) in wo. With s_v = sqrt(alpha^2 +
(1 - alpha^2) cos_v^2), which never vanishes, G1(v) = 2 cos_v / (cos_v + s_v); so

    f cos_o = F D(h) cos_o / ((cos_i + s_i) (cos_o + s_o)),        density = D(h) / (2 (cos_i + s_i)),

which have no division by a cosine. D is written for m = wi + wo without its length, with the sine of h from a cross product:
k = |m|^2 / (alpha^2 (n.m)^2 + |n x m|^2), D = alpha^2 k^2 / pi, which keeps its digits for small alpha.

All directions are unit vectors that point away from the surface, n on the side of wi. Gradients are right for motions that keep
directions on the unit sphere; the part along a vector itself has no meaning.
"""

import warp as wp

from render.reversible import reversible

LEAST_ALPHA = wp.constant(1.0e-3)  # below it the rounding of directions (6e-8) shows; a gradient to a smaller alpha is zero
LEAST_DENOMINATOR = wp.constant(1.0e-20)  # reached only where wi and wo are opposite and both grazing
INVERSE_PI = wp.constant(0.3183098861837907)
TWO_PI = wp.constant(6.283185307179586)


@reversible
@wp.func
def half_vector_density(alpha: float, n: wp.vec3, wi: wp.vec3, wo: wp.vec3):
    """D of the half vector of wi and wo [1/sr]; alpha at least LEAST_ALPHA."""
    m = wi + wo
    along = wp.dot(n, m)
    across = wp.cross(n, m)
    denominator = wp.max(alpha * alpha * along * along + wp.dot(across, across), LEAST_DENOMINATOR)
    k = wp.dot(m, m) / denominator
    return alpha * alpha * k * k * INVERSE_PI


@reversible
@wp.func
def masking_root(alpha: float, cosine: float):
    """s_v: G1(v) = 2 cos_v / (cos_v + s_v)."""
    return wp.sqrt(alpha * alpha + (1.0 - alpha * alpha) * cosine * cosine)


@reversible
@wp.func
def schlick_reflectance(albedo: wp.vec3, wi: wp.vec3, wo: wp.vec3):
    """Fresnel reflectance at the half vector, whose cosine with wi is |wi + wo| / 2."""
    m = wi + wo
    cosine = 0.5 * wp.sqrt(wp.max(wp.dot(m, m), LEAST_DENOMINATOR))
    x = wp.max(1.0 - cosine, 0.0)
    weight = x * x * x * x * x
    return albedo * (1.0 - weight) + wp.vec3(weight, weight, weight)


@reversible
@wp.func(inline=False)
def ggx_cos(schlick: int, albedo: wp.vec3, roughness: float, n: wp.vec3, wi: wp.vec3, wo: wp.vec3):
    """f * cos_o for wi and wo above the surface."""
    alpha = wp.max(roughness, LEAST_ALPHA)
    cos_i = wp.dot(n, wi)
    cos_o = wp.dot(n, wo)
    reflectance = albedo
    if schlick != 0:
        reflectance = schlick_reflectance(albedo, wi, wo)
    masking = cos_o / ((cos_i + masking_root(alpha, cos_i)) * (cos_o + masking_root(alpha, cos_o)))
    return reflectance * (half_vector_density(alpha, n, wi, wo) * masking)


@wp.func(inline=False)
def ggx_pdf(roughness: float, n: wp.vec3, wi: wp.vec3, wo: wp.vec3):
    """Density of `ggx_sample` [1/sr] for wi and wo above the surface."""
    alpha = wp.max(roughness, LEAST_ALPHA)
    cos_i = wp.dot(n, wi)
    return half_vector_density(alpha, n, wi, wo) / (2.0 * (cos_i + masking_root(alpha, cos_i)))


@wp.func
def tangent_of(n: wp.vec3):
    """A unit vector perpendicular to n (Duff et al. 2017); the other one is n x tangent."""
    sign = wp.where(n[2] >= 0.0, 1.0, -1.0)
    a = -1.0 / (sign + n[2])
    return wp.vec3(1.0 + sign * n[0] * n[0] * a, sign * n[0] * n[1] * a, -sign * n[0])


@wp.func(inline=False)
def ggx_sample(roughness: float, n: wp.vec3, wi: wp.vec3, u1: float, u2: float):
    """wi reflected at a visible normal (Heitz 2018, listing 1); below the surface: the light is lost to another facet."""
    alpha = wp.max(roughness, LEAST_ALPHA)
    tangent = tangent_of(n)
    bitangent = wp.cross(n, tangent)
    view = wp.vec3(wp.dot(wi, tangent), wp.dot(wi, bitangent), wp.max(wp.dot(wi, n), 0.0))

    # 1. stretched so that alpha is 1: the visible normals are those of a hemisphere
    stretched = wp.normalize(wp.vec3(alpha * view[0], alpha * view[1], view[2]))
    squared = stretched[0] * stretched[0] + stretched[1] * stretched[1]
    first = wp.vec3(1.0, 0.0, 0.0)
    if squared > LEAST_DENOMINATOR:
        first = wp.vec3(-stretched[1], stretched[0], 0.0) / wp.sqrt(squared)
    second = wp.cross(stretched, first)

    # 2. a point of its projection: a half disk, and one squeezed by the cosine
    radius = wp.sqrt(u1)
    angle = TWO_PI * u2
    x = radius * wp.cos(angle)
    blend = 0.5 * (1.0 + stretched[2])
    y = (1.0 - blend) * wp.sqrt(wp.max(1.0 - x * x, 0.0)) + blend * radius * wp.sin(angle)
    normal = first * x + second * y + stretched * wp.sqrt(wp.max(1.0 - x * x - y * y, 0.0))

    # 3. back, and reflect
    h = wp.normalize(wp.vec3(alpha * normal[0], alpha * normal[1], wp.max(normal[2], 0.0)))
    wo = h * (2.0 * wp.dot(view, h)) - view
    return wp.normalize(tangent * wo[0] + bitangent * wo[1] + n * wo[2])
