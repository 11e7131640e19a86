"""Materials in double precision, written as in the papers, and kernels that call `render.bsdf` on many directions at once."""

import numpy as np
import warp as wp

from render.bsdf import CONDUCTOR, bsdf_cos, bsdf_pdf, bsdf_sample
from render.reversible import reversible

Array = np.ndarray


def unit(v: Array) -> Array:
    return v / np.linalg.norm(v, axis=-1, keepdims=True)


def dot(a: Array, b: Array) -> Array:
    return np.sum(a * b, axis=-1)


def twin_masking(alpha: Array, cosine: Array) -> Array:
    c = np.maximum(cosine, 1e-12)
    return 2.0 / (1.0 + np.sqrt(1.0 + alpha**2 * (1.0 - c**2) / c**2))


def twin_distribution(alpha: Array, cosine: Array) -> Array:
    return alpha**2 / (np.pi * (cosine**2 * (alpha**2 - 1.0) + 1.0) ** 2)


def twin_cos(kind: int, two_sided: int, schlick: int, albedo: Array, alpha: Array, n: Array, wi: Array, wo: Array) -> Array:
    """f |cos_o| (., 3)."""
    n, wi, wo = unit(n), unit(wi), unit(wo)
    side = np.where(dot(n, wi) > 0, 1.0, -1.0 if two_sided else 0.0)
    cos_i, cos_o = side * dot(n, wi), side * dot(n, wo)
    lit = (cos_i > 0) & (cos_o > 0)
    if kind == CONDUCTOR:
        h = unit(wi + wo)
        reflectance = albedo + (1.0 - albedo) * (1.0 - dot(wi, h)[..., None]) ** 5 if schlick else albedo
        g = twin_masking(alpha, cos_i) * twin_masking(alpha, cos_o)
        scalar = twin_distribution(alpha, dot(n, h)) * g / (4.0 * np.where(lit, cos_i, 1.0))
    else:
        reflectance, scalar = albedo, cos_o / np.pi
    return np.where(lit[..., None], reflectance * scalar[..., None], 0.0)


def twin_pdf(kind: int, alpha: Array, n: Array, wi: Array, wo: Array) -> Array:
    """Density of sampled wo above the surface, wi above it, by the chain of densities of Heitz 2018."""
    n, wi, wo = unit(n), unit(wi), unit(wo)
    cos_i, cos_o = dot(n, wi), dot(n, wo)
    if kind == CONDUCTOR:
        h = unit(wi + wo)
        visible = twin_masking(alpha, cos_i) * dot(wi, h) * twin_distribution(alpha, dot(n, h)) / cos_i
        return np.where(cos_o > 0, visible / (4.0 * dot(wi, h)), 0.0)
    return np.maximum(cos_o, 0.0) / np.pi


def direction(cosine: Array, angle: Array) -> Array:
    """About the z axis."""
    cosine, angle = np.broadcast_arrays(cosine, angle)
    sine = np.sqrt(np.maximum(1.0 - cosine**2, 0.0))
    return np.stack([sine * np.cos(angle), sine * np.sin(angle), cosine], -1)


def frame(n: Array) -> Array:
    """Rotation (3, 3) whose last column is n."""
    helper = np.eye(3)[np.argmin(np.abs(n))]
    x = unit(np.cross(helper, n))
    return np.stack([x, np.cross(n, x), n], -1)


@wp.kernel(enable_backward=False)
def evaluate_kernel(
    kind: int, two_sided: int, schlick: int, albedo: wp.vec3, alphas: wp.array(dtype=float), ns: wp.array(dtype=wp.vec3),
    wis: wp.array(dtype=wp.vec3), wos: wp.array(dtype=wp.vec3), values: wp.array(dtype=wp.vec3), pdfs: wp.array(dtype=float),
):  # fmt: skip
    i = wp.tid()
    a = i % alphas.shape[0]
    k = i % ns.shape[0]
    j = i % wis.shape[0]
    values[i] = bsdf_cos(kind, two_sided, schlick, albedo, alphas[a], ns[k], wis[j], wos[i])
    pdfs[i] = bsdf_pdf(kind, two_sided, schlick, albedo, alphas[a], ns[k], wis[j], wos[i])


@wp.kernel(enable_backward=False)
def sample_kernel(
    kind: int, two_sided: int, alpha: float, n: wp.vec3, wi: wp.vec3, u: wp.array(dtype=wp.vec2), wos: wp.array(dtype=wp.vec3)
):  # fmt: skip
    i = wp.tid()
    wos[i] = bsdf_sample(kind, two_sided, 0, wp.vec3(1.0, 1.0, 1.0), alpha, n, wi, u[i][0], u[i][1])


@reversible
@wp.func
def weighted_cos(
    kind: int, two_sided: int, schlick: int, albedo: wp.vec3, alpha: float, n: wp.vec3, wi: wp.vec3, wo: wp.vec3,
    weight: wp.vec3,
):  # fmt: skip
    return wp.dot(weight, bsdf_cos(kind, two_sided, schlick, albedo, alpha, n, wi, wo))


@wp.kernel(enable_backward=False)
def gradient_kernel(
    kind: int, two_sided: int, schlick: int, albedos: wp.array(dtype=wp.vec3), alphas: wp.array(dtype=float),
    ns: wp.array(dtype=wp.vec3), wis: wp.array(dtype=wp.vec3), wos: wp.array(dtype=wp.vec3), weights: wp.array(dtype=wp.vec3),
    values: wp.array(dtype=float), by_albedo: wp.array(dtype=wp.vec3), by_alpha: wp.array(dtype=float),
    by_n: wp.array(dtype=wp.vec3), by_wi: wp.array(dtype=wp.vec3), by_wo: wp.array(dtype=wp.vec3),
):  # fmt: skip
    # the forward call comes first, as in a renderer: the reverse must be there all the same
    i = wp.tid()
    values[i] = weighted_cos(kind, two_sided, schlick, albedos[i], alphas[i], ns[i], wis[i], wos[i], weights[i])
    _k, _t, _s, ga, gr, gn, gi, go, _w = wp.grad(weighted_cos)(
        kind, two_sided, schlick, albedos[i], alphas[i], ns[i], wis[i], wos[i], weights[i]
    )
    by_albedo[i] = ga
    by_alpha[i] = gr
    by_n[i] = gn
    by_wi[i] = gi
    by_wo[i] = go


def vectors(values: Array) -> wp.array:
    return wp.array(np.ascontiguousarray(values, np.float32).reshape(-1, 3), dtype=wp.vec3, device="cpu")


def floats(values: Array | float) -> wp.array:
    return wp.array(np.ascontiguousarray(np.atleast_1d(values), np.float32).reshape(-1), dtype=float, device="cpu")


def evaluate(
    kind: int, wi: Array, wo: Array, *, alpha: Array | float = 0.5, n: Array = (0.0, 0.0, 1.0), two_sided: int = 0,
    schlick: int = 0, albedo: Array = (1.0, 1.0, 1.0),
) -> tuple[Array, Array]:  # fmt: skip
    """Values (., 3) and densities (.,) of the kernels; rows of alpha, n, wi are repeated."""
    count = wo.reshape(-1, 3).shape[0]
    values, pdfs = wp.zeros(count, dtype=wp.vec3, device="cpu"), wp.zeros(count, dtype=float, device="cpu")
    inputs = [int(kind), two_sided, schlick, wp.vec3(*albedo), floats(alpha), vectors(np.asarray(n)), vectors(wi), vectors(wo)]
    wp.launch(evaluate_kernel, count, inputs=inputs, outputs=[values, pdfs], device="cpu")
    return values.numpy().astype(float), pdfs.numpy().astype(float)


def sample(
    kind: int, wi: Array, count: int, seed: int, *, alpha: float = 0.5, n: Array = (0.0, 0.0, 1.0), two_sided: int = 0
) -> Array:
    """Sampled directions (count, 3)."""
    u = np.random.default_rng(seed).random((count, 2), dtype=np.float32)
    wos = wp.zeros(count, dtype=wp.vec3, device="cpu")
    inputs = [int(kind), two_sided, float(alpha), wp.vec3(*n), wp.vec3(*wi), wp.array(u, dtype=wp.vec2, device="cpu")]
    wp.launch(sample_kernel, count, inputs=inputs, outputs=[wos], device="cpu")
    return wos.numpy().astype(float)


def gradients(
    kind: int, two_sided: int, schlick: int, albedo: Array, alpha: Array, n: Array, wi: Array, wo: Array, weight: Array
) -> dict[str, Array]:
    """weight . bsdf_cos and its gradients, each (count,) or (count, 3)."""
    count = wo.shape[0]
    names = {"value": float, "albedo": wp.vec3, "alpha": float, "n": wp.vec3, "wi": wp.vec3, "wo": wp.vec3}
    outputs = {name: wp.zeros(count, dtype=kind_of, device="cpu") for name, kind_of in names.items()}
    inputs = [vectors(albedo), floats(alpha), vectors(n), vectors(wi), vectors(wo), vectors(weight)]
    wp.launch(
        gradient_kernel, count, inputs=[int(kind), two_sided, schlick, *inputs], outputs=[*outputs.values()], device="cpu"
    )
    return {name: a.numpy().astype(float) for name, a in outputs.items()}


def slope_bins(alpha: float, rings: int, sectors: int, fine: int) -> tuple[Array, Array]:
    """Half vectors (rings, sectors, fine^2, 3) and their solid angles: Gauss points in bins that resolve lobes of any alpha.

    tan^2 = alpha^2 (1 - r^2) / r^2 with r uniform in (0, 1): 1 - r^2 is the share of D cos inside; the heavy tail of slopes,
    which decides at grazing angles, is smooth in r.
    """
    nodes, weights = np.polynomial.legendre.leggauss(fine)
    r = (np.arange(rings)[:, None] + 0.5 + 0.5 * nodes) / rings
    phi = (np.arange(sectors)[:, None] + 0.5 + 0.5 * nodes) * (2.0 * np.pi / sectors)
    stretch = alpha**2 + (1.0 - alpha**2) * r**2  # cos = r / sqrt(stretch), d cos / d r = alpha^2 / stretch^(3/2)
    h = direction((r / np.sqrt(stretch))[:, None, :, None], phi[None, :, None, :])
    area = (alpha**2 / stretch**1.5 * weights / (2 * rings))[:, None, :, None] * (weights * np.pi / sectors)
    h, area = np.broadcast_arrays(h, area[..., None])
    return h.reshape(rings, sectors, fine * fine, 3), area[..., 0].reshape(rings, sectors, fine * fine)


def bin_of(alpha: float, h: Array, rings: int, sectors: int) -> Array:
    """Flat index of the bin of half vectors (., 3)."""
    tan_squared = (h[:, 0] ** 2 + h[:, 1] ** 2) / np.maximum(h[:, 2] ** 2, 1e-300)
    r = alpha / np.sqrt(alpha**2 + tan_squared)
    ring = np.minimum((r * rings).astype(int), rings - 1)
    sector = np.floor(np.arctan2(h[:, 1], h[:, 0]) % (2.0 * np.pi) / (2.0 * np.pi) * sectors).astype(int) % sectors
    return ring * sectors + sector


def mirrored(wi: Array, h: Array) -> tuple[Array, Array]:
    """wo of half vectors, and d omega_o / d omega_h = 4 wi.h; zero where wi does not see the facet."""
    c = dot(wi, h)
    return 2.0 * c[..., None] * h - wi, 4.0 * np.maximum(c, 0.0)


def scattered(alpha: float, count: int, seed: int) -> tuple[Array, Array]:
    """Pairs of directions above the surface whose half vectors follow D, rounded to single precision."""
    rng = np.random.default_rng(seed)
    wi = direction(rng.uniform(0.01, 1.0, count), rng.uniform(0, 2 * np.pi, count)).astype(np.float32).astype(float)
    s = rng.random(count)
    h = direction(1.0 / np.sqrt(1.0 + alpha**2 * s / (1.0 - s)), rng.uniform(0, 2 * np.pi, count))
    wo, _ = mirrored(wi, h)
    good = wo[:, 2] > 0.0
    return wi[good], wo[good].astype(np.float32).astype(float)
