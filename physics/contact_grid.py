r"""The distance of an SDF grid as the target of a contact, with gradient to the place and to the grid's values.

Tricubic, as `geometry.sdf_grid.sample_sdf(..., "cubic")`, whose taps it uses: with the weights w of the taps,

    s(u) = sum w_i(u) w_j(v) w_k(t) V_ijk,     ds/dV_ijk = w_i w_j w_k,     d(grad s)/dV_ijk = grad (w_i w_j w_k),

and beyond the grid's box the extension of `sample_sdf`. A normal must have unit length, which the interpolant's gradient has
not quite: it is divided by its length, attached.
"""

import warp as wp

from geometry.sdf_grid import axis_weights, cell_of, grid_hessian, grid_sample


@wp.func
def grid_value(values: wp.array4d(dtype=float), w: int, u: wp.vec3) -> wp.vec4:
    return grid_sample(values, w, u, 1)


@wp.func_grad(grid_value)
def adj_grid_value(values: wp.array4d(dtype=float), w: int, u: wp.vec3, adj_ret: wp.vec4):
    g = adj_ret[0]
    h = wp.vec3(adj_ret[1], adj_ret[2], adj_ret[3])
    s = grid_sample(values, w, u, 1)
    wp.adjoint[u] += wp.vec3(s[1], s[2], s[3]) * g + grid_hessian(values, w, u, 1) * h
    nx = values.shape[1]
    ny = values.shape[2]
    nz = values.shape[3]
    x0 = axis_weights(u[0], nx, 1, 0)
    y0 = axis_weights(u[1], ny, 1, 0)
    z0 = axis_weights(u[2], nz, 1, 0)
    x1 = axis_weights(u[0], nx, 1, 1)
    y1 = axis_weights(u[1], ny, 1, 1)
    z1 = axis_weights(u[2], nz, 1, 1)
    i = cell_of(u[0], nx) - 1
    j = cell_of(u[1], ny) - 1
    k = cell_of(u[2], nz) - 1
    for a in range(4):
        for b in range(4):
            flat = g * x0[a] * y0[b] + h[0] * x1[a] * y0[b] + h[1] * x0[a] * y1[b]
            for c in range(4):
                share = flat * z0[c] + h[2] * x0[a] * y0[b] * z1[c]
                if share != 0.0:
                    wp.atomic_add(
                        wp.adjoint[values], w, wp.clamp(i + a, 0, nx - 1), wp.clamp(j + b, 0, ny - 1),
                        wp.clamp(k + c, 0, nz - 1), share,
                    )  # fmt: skip


@wp.func
def grid_distance(values: wp.array4d(dtype=float), frame: wp.vec4, w: int, p: wp.vec3):
    """(distance, unit direction of its gradient); frame: place of the first node and spacing."""
    u = (p - wp.vec3(frame[0], frame[1], frame[2])) / frame[3]
    top = wp.vec3(float(values.shape[1] - 1), float(values.shape[2] - 1), float(values.shape[3] - 1))
    c = wp.vec3(wp.clamp(u[0], 0.0, top[0]), wp.clamp(u[1], 0.0, top[1]), wp.clamp(u[2], 0.0, top[2]))
    inside = grid_value(values, w, c)
    d = inside[0]
    g = wp.vec3(inside[1], inside[2], inside[3]) / frame[3]
    out = (u - c) * frame[3]
    square = wp.dot(out, out)
    if square > 1.0e-16:
        g = wp.vec3(wp.where(out[0] != 0.0, 0.0, g[0]), wp.where(out[1] != 0.0, 0.0, g[1]), wp.where(out[2] != 0.0, 0.0, g[2]))
        if d >= 0.0:
            root = wp.sqrt(d * d + square)
            g = (g * d + out) / root
            d = root
        else:
            e = wp.sqrt(square)
            g = g + out / e
            d = d + e
    steep = wp.dot(g, g)
    if steep > 1.0e-12:
        g = g / wp.sqrt(steep)
    return wp.vec4(d, g[0], g[1], g[2])
