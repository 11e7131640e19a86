r"""Points on the rims of a cylinder, where it touches: the deepest of each rim, and a ring that it can stand on.

With m the other's outward normal at the middle of a cap, in the cylinder's frame, and its tilt t = |m_xy|, the point of the rim
that is deepest in a flat neighbour is

    y = (-R m_xy / t, +-L)

It turns about the cylinder as that rolls, so it is smooth in the pose but for an upright one (t = 0), which has no deepest
point: there RING points, fixed in each rim, take over. Shares of the stiffness: of the deepest point a smooth step of t from
STANDING to LYING, of a ring's point the rest. Against anything but a half space the rims are rounded by INSET of the least
extent.
"""

import warp as wp

from physics.contact_edges import smooth_step

RING = wp.constant(8)
RIM_POINTS = wp.constant(18)  # two deepest, two rings
STANDING, LYING = wp.constant(0.05), wp.constant(0.15)


@wp.func
def rim_end(size: wp.vec4, k: int):
    """z of the rim that point k is on."""
    upper = (k >= 2 and (k - 2) >= RING) or k == 1
    return wp.where(upper, size[0], -size[0])


@wp.func
def rim_point(size: wp.vec4, k: int, m: wp.vec3, rounding: float):
    """(point, share); k: 0, 1 the deepest of the lower and of the upper rim, then the two rings."""
    square = m[0] * m[0] + m[1] * m[1]
    tilt = float(0.0)
    x = float(1.0)
    y = float(0.0)
    if square > 1.0e-8:
        tilt = wp.sqrt(square)
        x = -m[0] / tilt
        y = -m[1] / tilt
    share = smooth_step((tilt - STANDING) / (LYING - STANDING))
    if k >= 2:
        angle = 2.0 * wp.pi * float((k - 2) % RING) / float(RING)
        x = wp.cos(angle)
        y = wp.sin(angle)
        share = 1.0 - share
    r = size[1] - rounding
    z = rim_end(size, k)
    return wp.vec3(x * r, y * r, z * (1.0 - rounding / size[0])), share
