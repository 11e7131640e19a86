r"""Time stepping with impacts at their time of impact.

A body is a state vector x with x' = rate(x, p); p holds its parameters. One substep of length h is a Runge-Kutta step
of fourth order. Where the gap to the wall, g(x), changes sign inside it, the substep is cut at the root h*:

    x- = advance(x, h*),  x+ = impact(x-),  x(h) = advance(x+, h - h*)

The root is searched without gradient; the attached replay then takes one Newton step of its own,
h* <- h* - g(x-) / g'(x-), whose value is zero and whose derivative is that of the time of impact (implicit function
theorem). So a ball that bounces without gravity has dz/dz0 = -e, sign included.

A body that would meet the wall twice in one substep, or meets it slower than `REST_SPEED`, rests: it is put on the wall
and its normal velocity is removed; the tangential one is kept. A body that starts behind the wall moves freely until it
has come out (a start with a wrong guess still has a gradient). What the gradient leaves out: the switches themselves
(grazing, the number of impacts), and a wall that is left and met again within one substep.
"""

import functools
from typing import Any, NamedTuple

import warp as wp

REST_SPEED = wp.constant(1.0e-3)  # [m/s]
SKIN = wp.constant(1.0e-4)  # [m], behind the wall by less than this counts as touching
FREE, IMPACT, REST, IMPACT_REST = 0, 1, 2, 3
ROOT_ITERATIONS = 24


class Kernels(NamedTuple):
    """The pair of kernels of one kind of body."""

    find: Any
    replay: Any


@functools.cache
def impact_kernels(
    state_type: Any,
    rate: wp.Function,
    renormalise: wp.Function,
    gap: wp.Function,
    gap_rate: wp.Function,
    impact: wp.Function,
    rest: wp.Function,
    parameter_type: Any,
) -> Kernels:
    """Kernels that step one kind of body.

    `rate(x, p)`, `renormalise(x)`, `gap(x, p)` [m], `gap_rate(x, p)` [m/s], `impact(x, p)` and `rest(x, p)` are Warp
    functions over the state vector type and the parameter vector type.
    """

    @wp.func
    def advance(x: state_type, p: parameter_type, h: float):
        k1 = rate(x, p)
        k2 = rate(x + k1 * (0.5 * h), p)
        k3 = rate(x + k2 * (0.5 * h), p)
        k4 = rate(x + k3 * h, p)
        return renormalise(x + (k1 + k2 * 2.0 + k3 * 2.0 + k4) * (h / 6.0))

    @wp.func
    def root(x: state_type, p: parameter_type, h: float):
        """Bracketed secant search (Illinois) for gap(advance(x, s)) = 0 in [0, h]."""
        low = float(0.0)
        high = float(h)
        gap_low = wp.max(gap(x, p), 0.0)
        gap_high = gap(advance(x, p, h), p)
        middle = float(0.0)
        for _ in range(ROOT_ITERATIONS):
            span = gap_low - gap_high
            middle = 0.5 * (low + high)
            if span > 1.0e-12:
                middle = low + (high - low) * gap_low / span
            gap_middle = gap(advance(x, p, middle), p)
            if gap_middle >= 0.0:
                low = middle
                gap_low = gap_middle
                gap_high = 0.5 * gap_high
            else:
                high = middle
                gap_high = gap_middle
                gap_low = 0.5 * gap_low
        return middle

    @wp.func
    def time_of_impact(x: state_type, p: parameter_type, hit: float):
        """The detached root with the derivative of the attached one: one Newton step whose value is zero."""
        near = advance(x, p, hit)
        slope = gap_rate(near, p)
        attached = float(hit)
        if slope < -1.0e-6:
            attached = hit - gap(near, p) / slope
        return attached

    @wp.kernel(module="unique", enable_backward=False)
    def find(
        initial: wp.array(dtype=state_type),
        parameters: wp.array(dtype=parameter_type),
        h: float,
        steps: int,
        mode: wp.array2d(dtype=int),
        time: wp.array2d(dtype=float),
    ):
        w = wp.tid()
        x = initial[w]
        p = parameters[w]
        for s in range(steps):
            m = int(FREE)
            hit = float(-1.0)
            ahead = advance(x, p, h)
            if gap(ahead, p) < 0.0 and gap(x, p) > -SKIN:
                hit = root(x, p, h)
                before = advance(x, p, hit)
                m = 2
                if -gap_rate(before, p) > REST_SPEED:
                    m = 1
                    ahead = advance(impact(before, p), p, h - hit)
                    if gap(ahead, p) < 0.0:
                        m = 3
                if m >= 2:
                    ahead = rest(ahead, p)
            mode[w, s] = m
            time[w, s] = hit
            x = ahead

    @wp.func
    def replay_substep(x: state_type, p: parameter_type, h: float, m: int, hit: float):
        y = advance(x, p, h)
        if m == 1 or m == 3:
            elapsed = time_of_impact(x, p, hit)
            y = advance(impact(advance(x, p, elapsed), p), p, h - elapsed)
        if m >= 2:
            y = rest(y, p)
        return y

    @wp.kernel(module="unique")
    def replay(
        initial: wp.array(dtype=state_type),
        parameters: wp.array(dtype=parameter_type),
        mode: wp.array2d(dtype=int),
        time: wp.array2d(dtype=float),
        h: float,
        steps: int,
        states: wp.array2d(dtype=state_type),
        at_wall: wp.array2d(dtype=state_type),
        fraction: wp.array2d(dtype=float),
        speed: wp.array2d(dtype=float),
    ):
        w = wp.tid()
        states[w, 0] = initial[w]
        for s in range(steps):
            m = mode[w, s]
            states[w, s + 1] = replay_substep(states[w, s], parameters[w], h, m, time[w, s])
            fraction[w, s] = -1.0
            if m == 1 or m == 3:
                elapsed = time_of_impact(states[w, s], parameters[w], time[w, s])
                before = advance(states[w, s], parameters[w], elapsed)
                at_wall[w, s] = before
                # Newton's step may leave the interval by rounding, and -1 means that there is no impact
                fraction[w, s] = wp.clamp(elapsed / h, 0.0, 1.0)
                speed[w, s] = -gap_rate(before, parameters[w])

    return Kernels(find, replay)
