r"""A ray-traced sphere over a background plate, with motion blur, readout skew and an analytic silhouette.

A film pixel is the plate plus the mean over exposure samples of `coverage * (radiance - plate)`. For the ray d through
the pixel at the sample's own time, with C the sphere's centre seen from the camera and r its radius,

    F(x) = |C x d|^2 - r^2 |d|^2        (pinhole; < 0 inside the silhouette)

is exactly quadratic in the pixel x, so the signed distance s to the silhouette along grad F is a root of a quadratic.
The pixel filter is the pixel's own square convolved with a Gaussian lens of standard deviation l, so that a film pixel is the
exact mean of the finer pixels inside it. Across a locally straight edge with normal e it is two boxes, of half-widths
a = |e_x| / 2 and b = |e_y| / 2, and the Gaussian; what lies inside is a second difference of H, the Gaussian integrated
three times, H(t) = ((t^2 + l^2) Phi(t / l) + t l phi(t / l)) / 2:

    coverage = [H(t + a + b) - H(t + a - b) - H(t - a + b) + H(t - a - b)] / (4 a b),     t = -(s + w^2 / 2R),

with the first correction for the edge's own curvature 1/R; w^2 = l^2 + 1/12 is the filter's variance. The lens is widened by
the way d across the edge during the sample's share of the exposure, l^2 + d^2 / 12 (not where times are random: their mean
over seeds is the blur). What a pixel sees of the sphere is shaded once, at its filtered middle and with its filtered normal,
where a Gaussian of variance w^2 stands for the filter. Visibility is thus integrated over the film analytically, and the
picture is a smooth function of every parameter: its tape gradient holds the silhouette term and the interior term together,
without edge samples and without noise.

Left out, here and in the gradient: spheres smaller than about two film pixels (the edge is no longer locally straight),
the change of filter width by readout skew (a few per cent of it), and what other objects hide.
"""

import warp as wp

PIXEL_VARIANCE = wp.constant(1.0 / 12.0)  # of a pixel that averages over its square [film px^2]
LEAST_LENS = wp.constant(0.03)  # [film px]; a sharper one cannot be told apart
LEAST_SLANT = wp.constant(1.0e-3)  # keeps the second difference above rounding where the edge runs along an axis
RIM = wp.constant(2.0e-3)  # floor of the squared sine at the rim that bounds the normal's derivative
LEAST_COVERAGE = wp.constant(1.0e-3)  # below it, where a pixel is shaded no longer matters

vec6 = wp.types.vector(length=6, dtype=float)


@wp.func
def centre_at(
    nodes: wp.array2d(dtype=wp.vec3),
    fraction: wp.array2d(dtype=float),
    impact: wp.array2d(dtype=wp.vec3),
    v: int,
    count: int,
    s: float,
):
    """Position at node coordinate s: linear between nodes and through the impact inside an interval."""
    i = wp.clamp(int(s), 0, count - 2)
    a = s - float(i)
    f = fraction[v, i]
    p = nodes[v, i] * (1.0 - a) + nodes[v, i + 1] * a
    if f >= 0.0:
        if a < f:
            b = a / wp.max(f, 1.0e-4)
            p = nodes[v, i] * (1.0 - b) + impact[v, i] * b
        else:
            b = (1.0 - a) / wp.max(1.0 - f, 1.0e-4)
            p = impact[v, i] * b + nodes[v, i + 1] * (1.0 - b)
    return p


@wp.func
def sample_node(
    pixel: wp.vec2,
    u: float,
    exposure: float,
    readout: wp.vec2,
    frame_size: wp.vec2,
    frame_nodes: float,
    interval: float,
    middle: float,
):
    """Node coordinate of a sample: readout [s] skews by the position on the frame, exposure spreads over the frame."""
    late = readout[0] * (pixel[0] / frame_size[0] - 0.5) + readout[1] * (pixel[1] / frame_size[1] - 0.5)
    return middle + late / interval + exposure * frame_nodes * u


@wp.func
def thrice_integrated(t: float, lens: float):
    """H(t)."""
    z = t / lens
    phi = 0.39894228 * wp.exp(-0.5 * z * z)
    return 0.5 * ((t * t + lens * lens) * 0.5 * (1.0 + wp.erf(z * 0.70710678)) + t * lens * phi)


@wp.func
def edge_coverage(t: float, e: wp.vec2, lens: float):
    """Share of the pixel filter on the inside of a straight edge that lies t film pixels outwards of the pixel's middle."""
    a = 0.5 * wp.sqrt(e[0] * e[0] + LEAST_SLANT)
    b = 0.5 * wp.sqrt(e[1] * e[1] + LEAST_SLANT)
    reach = a + b + 4.0 * lens
    if t >= reach:
        return float(1.0)
    if t <= -reach:
        return float(0.0)
    upper = thrice_integrated(t + a + b, lens) - thrice_integrated(t + a - b, lens)
    lower = thrice_integrated(t - a + b, lens) - thrice_integrated(t - a - b, lens)
    return wp.clamp((upper - lower) / (4.0 * a * b), 0.0, 1.0)


@wp.func
def drift_on_film(C: wp.vec3, drift: wp.vec3, focal: float, step: float, orthographic: int):
    """Way of a point of the scene on the film [film pixels] as it moves by `drift`; both seen from the camera."""
    if orthographic != 0:
        return wp.vec2(drift[0], drift[1]) * (focal / step)
    depth = wp.max(C[2], 1.0e-6)
    way = wp.vec2(drift[0] - C[0] * drift[2] / depth, drift[1] - C[1] * drift[2] / depth)
    return way * (focal / (depth * step))


@wp.func
def film_coverage(F: float, gradient: wp.vec2, curvature: wp.vec3, blur: float, drift: wp.vec2):
    """Filtered inside-ness from F, its gradient and its second derivatives (xx, xy, yy), all a film pixel.

    blur: of the lens; drift: the way during the sample's share of the exposure: it widens the lens across the edge.

    Returns it and the moments of what is inside, a truncated normal distribution across the edge: the way (x, y) from the
    pixel's middle to its mean [film pixels], and how much the mean of F exceeds F there.
    """
    slope = wp.sqrt(wp.dot(gradient, gradient) + 1.0e-20)
    e = gradient / slope
    across = wp.dot(e, drift)
    lens = wp.sqrt(blur * blur + across * across / 12.0)
    second = 0.5 * (curvature[0] * e[0] * e[0] + 2.0 * curvature[1] * e[0] * e[1] + curvature[2] * e[1] * e[1])
    root = wp.sqrt(wp.max(slope * slope - 4.0 * F * second, 0.01 * slope * slope))
    distance = 2.0 * F / (slope + root)
    along = 0.5 * (curvature[0] + curvature[2]) - second
    bend = 2.0 * along / root  # 1 / R at the edge: the derivative along the edge twice over that across it
    width = wp.sqrt(PIXEL_VARIANCE + lens * lens)
    z = distance / width + 0.5 * width * bend
    coverage = edge_coverage(-width * z, e, lens)
    inwards = 0.39894228 * wp.exp(-0.5 * z * z) / wp.max(coverage, LEAST_COVERAGE)
    spread = width * width * (second * (1.0 + inwards * (z - inwards)) + along)
    return wp.vec4(coverage, -width * inwards * e[0], -width * inwards * e[1], spread)


@wp.func
def radiance(normal: wp.vec3, color: wp.vec3, cap_color: wp.vec3, cap_axis: wp.vec3, light: wp.vec3, ambient: float):
    """Diffuse shading; the albedo blends from `color` to `cap_color` towards the pole `cap_axis`."""
    t = 0.5 * (1.0 + wp.dot(normal, cap_axis))
    albedo = color + (cap_color - color) * (t * t)
    return albedo * (ambient + (1.0 - ambient) * wp.max(wp.dot(normal, light), 0.0))


@wp.func
def pinhole_silhouette(C: wp.vec3, r: float, d: wp.vec3, h: float):
    """F, its gradient and its second derivatives a film pixel of h, for the ray d: (F, x, y, xx, xy, yy)."""
    m = wp.dot(C, C) - r * r
    cd = wp.dot(C, d)
    across = wp.cross(C, d)
    F = wp.dot(across, across) - r * r * wp.dot(d, d)
    return vec6(
        F,
        2.0 * h * (m * d[0] - cd * C[0]),
        2.0 * h * (m * d[1] - cd * C[1]),
        2.0 * h * h * (m - C[0] * C[0]),
        -2.0 * h * h * C[0] * C[1],
        2.0 * h * h * (m - C[1] * C[1]),
    )


@wp.func
def pinhole_normal(C: wp.vec3, r: float, a: wp.vec3, spread: float):
    """Normal in the camera's axes where the ray a meets the sphere; spread: how much the mean of F exceeds F there."""
    aa = wp.dot(a, a)
    from_axis = wp.cross(C, a)
    t = (wp.dot(C, a) - wp.sqrt(wp.max(r * r * aa - wp.dot(from_axis, from_axis) - spread, RIM * r * r * aa))) / aa
    return (a * t - C) / r


@wp.func
def sphere_sample(
    pixel: wp.vec2,
    centre: wp.vec3,
    r: float,
    rotation: wp.mat33,
    focal: float,
    principal: wp.vec2,
    orthographic: int,
    step: float,
    lens: float,
    drift: wp.vec2,
    color: wp.vec3,
    cap_color: wp.vec3,
    cap_axis: wp.vec3,
    light: wp.vec3,
    ambient: float,
):
    """(coverage * radiance, coverage) of one sample; `centre` relative to the camera, world axes; `step`: full pixels;
    `lens`: standard deviation of the lens blur, `drift`: way during the sample's share of the exposure, in film pixels."""
    C = rotation * centre
    h = step / focal
    x = (pixel[0] - principal[0]) / focal
    y = (pixel[1] - principal[1]) / focal
    if orthographic != 0:
        x = x - C[0]
        y = y - C[1]
        f = vec6(x * x + y * y - r * r, 2.0 * h * x, 2.0 * h * y, 2.0 * h * h, 0.0, 2.0 * h * h)
    else:
        f = pinhole_silhouette(C, r, wp.vec3(x, y, 1.0), h)
    inside = film_coverage(f[0], wp.vec2(f[1], f[2]), wp.vec3(f[3], f[4], f[5]), lens, drift)
    coverage = inside[0]
    x = x + h * inside[1]
    y = y + h * inside[2]
    if orthographic != 0:
        normal = wp.vec3(x, y, -wp.sqrt(wp.max(r * r - x * x - y * y - inside[3], RIM * r * r))) / r
    else:
        normal = pinhole_normal(C, r, wp.vec3(x, y, 1.0), inside[3])
        if C[0] * x + C[1] * y + C[2] <= 0.0:  # F is the cone in both directions
            coverage = 0.0
    seen = radiance(wp.transpose(rotation) * normal, color, cap_color, cap_axis, light, ambient) * coverage
    return wp.vec4(seen[0], seen[1], seen[2], coverage)


@wp.func
def stratum(seed: int, k: int, samples: int):
    """k-th exposure sample in [-1/2, 1/2]: the middle of its stratum, or, with a seed above 0, a random point of it."""
    offset = float(0.5)
    if seed > 0:
        offset = wp.randf(wp.rand_init(seed, k))
    return (float(k) + offset) / float(samples) - 0.5
