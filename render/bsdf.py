r"""What a surface does with light: value, density and sampling of the materials, chosen by `kind`.

    DIFFUSE     f = albedo / pi, sampled with density cos_o / pi
    CONDUCTOR   microfacets, see `render.ggx`; albedo is the specular reflectance

Directions are unit vectors in world axes that point away from the surface: wi to the viewer, wo to the light; n is the unit
geometric normal of the front side. A surface that is not two-sided is black from behind; light from the other side than wi's is
never reflected.

`bsdf_cos` is differentiable in albedo, alpha, n, wi and wo (`wp.grad` of it or of what calls it). Left out: the jump where wi
passes through the plane of the surface, which is a boundary of visibility, and alpha below `ggx.LEAST_ALPHA`, whose gradient is
zero. `bsdf_pdf` and `bsdf_sample` are used detached.
"""

import warp as wp

from render.ggx import INVERSE_PI, TWO_PI, ggx_cos, ggx_pdf, ggx_sample, tangent_of
from render.reversible import reversible

DIFFUSE, CONDUCTOR = wp.constant(0), wp.constant(1)  # kinds


@wp.struct
class Material:
    """What a point of a surface is made of, after texture lookup."""

    kind: int
    two_sided: int  # the back side behaves as the front
    schlick: int  # conductor: Fresnel by Schlick's approximation with `albedo` at normal incidence; 0: albedo at every angle
    albedo: wp.vec3  # diffuse or specular reflectance
    alpha: float  # GGX roughness


@reversible
@wp.func
def side_of(two_sided: int, n: wp.vec3, wi: wp.vec3):
    """1: wi sees the front; -1: it sees a back that behaves as the front; 0: black."""
    cosine = wp.dot(n, wi)
    side = float(0.0)
    if cosine > 0.0:
        side = 1.0
    elif cosine < 0.0 and two_sided != 0:
        side = -1.0
    return side


@reversible
@wp.func
def bsdf_cos(
    kind: int, two_sided: int, schlick: int, albedo: wp.vec3, alpha: float, n: wp.vec3, wi: wp.vec3, wo: wp.vec3
):  # fmt: skip
    """f |cos(n, wo)| [1/sr]."""
    value = wp.vec3(0.0, 0.0, 0.0)
    side = side_of(two_sided, n, wi)
    cos_o = side * wp.dot(n, wo)
    if cos_o > 0.0:  # so side is not 0
        if kind == CONDUCTOR:
            value = ggx_cos(schlick, albedo, alpha, n * side, wi, wo)
        else:
            value = albedo * (cos_o * INVERSE_PI)
    return value


@reversible
@wp.func
def bsdf_along(
    kind: int, two_sided: int, schlick: int, albedo: wp.vec3, alpha: float, n: wp.vec3, wi: wp.vec3, wo: wp.vec3,
    weight: wp.vec3,
):  # fmt: skip
    return wp.dot(weight, bsdf_cos(kind, two_sided, schlick, albedo, alpha, n, wi, wo))


@wp.func
def bsdf_pdf(
    kind: int, two_sided: int, schlick: int, albedo: wp.vec3, alpha: float, n: wp.vec3, wi: wp.vec3, wo: wp.vec3
):  # fmt: skip
    """Density of `bsdf_sample` in solid angle [1/sr] where light is reflected; its integral lacks what is absorbed."""
    density = float(0.0)
    side = side_of(two_sided, n, wi)
    cos_o = side * wp.dot(n, wo)
    if cos_o > 0.0:
        if kind == CONDUCTOR:
            density = ggx_pdf(alpha, n * side, wi, wo)
        else:
            density = cos_o * INVERSE_PI
    return density


@wp.func
def bsdf_sample(
    kind: int, two_sided: int, schlick: int, albedo: wp.vec3, alpha: float, n: wp.vec3, wi: wp.vec3, u1: float, u2: float
):  # fmt: skip
    """wo for u1, u2 in [0, 1); where `bsdf_pdf` of it is zero (below the surface, black side) the sample is absorbed."""
    up = n
    if wp.dot(n, wi) < 0.0:
        up = -n
    wo = up
    if kind == CONDUCTOR:
        wo = ggx_sample(alpha, up, wi, u1, u2)
    else:
        tangent = tangent_of(up)
        radius = wp.sqrt(u1)
        angle = TWO_PI * u2
        flat = tangent * (radius * wp.cos(angle)) + wp.cross(up, tangent) * (radius * wp.sin(angle))
        wo = flat + up * wp.sqrt(wp.max(1.0 - u1, 0.0))  # of length 1 as it is
    return wo
