r"""Which contacts rest, and the first time at which one of the others strikes. No gradient passes through anything here.

The time of impact is a zero of the least gap over all contacts that fly (Illinois' method on its bracket). A gap that closes
and opens again within the segment is not seen.
"""

import warp as wp

from physics.articulation import link_vector
from physics.contact_law import material_vector
from physics.contact_shapes import shape_vector, touch
from physics.contacts import point_of
from physics.impulse_motion import meeting_velocity, move, place_links

FLYING, RESTING, STRIKING = wp.constant(0), wp.constant(1), wp.constant(2)
SEARCH = wp.constant(50)
SHARE = wp.constant(0)  # of a contact, its place in a material_vector; below one half it is none (as in contact_shapes.touch)
LEAST_SHARE = wp.constant(1.0e-3)  # of a substep: in less time than this nothing rests


@wp.kernel(enable_backward=False)
def begin_kernel(first: wp.array2d(dtype=float), h: float, left: wp.array2d(dtype=float), done: wp.array2d(dtype=int)):
    w = wp.tid()
    left[w, 0] = h
    done[w, 0] = 0


@wp.kernel(enable_backward=False)
def sort_kernel(
    shapes: wp.array2d(dtype=int),
    found: wp.array3d(dtype=wp.vec3i),
    count: wp.array2d(dtype=int),
    s: int,
    h: float,
    substeps: int,
    rest_speed: float,
    skin: float,
    gaps: wp.array2d(dtype=float),
    normals: wp.array2d(dtype=wp.vec3),
    arms_a: wp.array2d(dtype=wp.vec3),
    arms_b: wp.array2d(dtype=wp.vec3),
    materials: wp.array2d(dtype=material_vector),
    turning: wp.array2d(dtype=wp.vec3),
    moving: wp.array2d(dtype=wp.vec3),
    left: wp.array2d(dtype=float),
    done: wp.array2d(dtype=int),
    modes: wp.array2d(dtype=int),
    resting: wp.array3d(dtype=int),
    resting_count: wp.array2d(dtype=int),
    share: wp.array2d(dtype=float),
):
    """Which contacts fly, rest or strike at once in this segment; the share of the time left at which forces are taken."""
    w = wp.tid()
    total = int(0)
    for c in range(wp.min(count[w, s], gaps.shape[1])):
        mode = int(FLYING)
        if gaps[w, c] < skin + rest_speed * h and materials[w, c][SHARE] >= 0.5:
            a = shapes[found[w, s, c][0], 0]
            b = shapes[found[w, s, c][2], 0]
            along = wp.dot(normals[w, c], meeting_velocity(w, a, b, arms_a[w, c], arms_b[w, c], turning, moving))
            if along > -rest_speed or gaps[w, c] < -skin:
                mode = RESTING
                if done[w, s] < substeps and left[w, s] > LEAST_SHARE * h:
                    if total < resting.shape[2]:
                        resting[w, s, total] = c
                    total = total + 1
            elif gaps[w, c] < skin:
                mode = STRIKING
        modes[w, c] = mode
    resting_count[w, s] = total
    share[w, s] = wp.where(total > 0, 0.0, 0.5)


@wp.func
def least_gap(
    w: int, s: int, t: float,
    x: wp.array3d(dtype=float), v: wp.array3d(dtype=float), a: wp.array3d(dtype=float), pushed: wp.array3d(dtype=int),
    links: wp.array2d(dtype=link_vector), tree: wp.array2d(dtype=int), shape_numbers: wp.array2d(dtype=shape_vector),
    points: wp.array2d(dtype=wp.vec3), values: wp.array4d(dtype=float), frame: wp.array(dtype=wp.vec4),
    shapes: wp.array2d(dtype=int), found: wp.array3d(dtype=wp.vec3i), contacts: int, modes: wp.array2d(dtype=int),
    trial: wp.array3d(dtype=float), trial_rates: wp.array3d(dtype=float), turns: wp.array2d(dtype=wp.quat),
    places: wp.array2d(dtype=wp.vec3), turning: wp.array2d(dtype=wp.vec3), moving: wp.array2d(dtype=wp.vec3),
):  # fmt: skip
    """(least gap of the contacts that fly at the time t, its contact)."""
    move(w, s, 0, t, x, v, a, pushed, tree, trial, trial_rates)
    place_links(w, trial, trial_rates, links, tree, 0, 0, turns, places, turning, moving)
    least = float(1.0e9)
    which = int(-1)
    for c in range(contacts):
        if modes[w, c] == FLYING:
            i = found[w, s, c][0]
            k = found[w, s, c][1]
            j = found[w, s, c][2]
            gap, _n, _arm_a, _arm_b = touch(
                shape_numbers[w, i], shape_numbers[w, j], shapes[i, 1], shapes[j, 1], k,
                point_of(shapes[i, 1], points, w, shapes[i, 2] + k),
                turns[w, shapes[i, 0]], turns[w, shapes[j, 0]], places[w, shapes[i, 0]], places[w, shapes[j, 0]],
                values, frame[0], w,
            )  # fmt: skip
            if gap < least:
                least = gap
                which = c
    return least, which


@wp.kernel(enable_backward=False)
def search_kernel(
    x: wp.array3d(dtype=float),
    v: wp.array3d(dtype=float),
    a: wp.array3d(dtype=float),
    pushed: wp.array3d(dtype=int),
    links: wp.array2d(dtype=link_vector),
    tree: wp.array2d(dtype=int),
    shape_numbers: wp.array2d(dtype=shape_vector),
    points: wp.array2d(dtype=wp.vec3),
    values: wp.array4d(dtype=float),
    frame: wp.array(dtype=wp.vec4),
    shapes: wp.array2d(dtype=int),
    found: wp.array3d(dtype=wp.vec3i),
    count: wp.array2d(dtype=int),
    modes: wp.array2d(dtype=int),
    left: wp.array2d(dtype=float),
    s: int,
    substeps: int,
    fresh: int,
    done: wp.array2d(dtype=int),
    trial: wp.array3d(dtype=float),
    trial_rates: wp.array3d(dtype=float),
    turns: wp.array2d(dtype=wp.quat),
    places: wp.array2d(dtype=wp.vec3),
    turning: wp.array2d(dtype=wp.vec3),
    moving: wp.array2d(dtype=wp.vec3),
    hit: wp.array2d(dtype=int),
    time: wp.array2d(dtype=float),
):
    """The contact that strikes first within the time left (-1: none) and when, after the start of the segment [s]."""
    w = wp.tid()
    which = int(-1)
    t = float(0.0)
    if done[w, s] < substeps:
        contacts = wp.min(count[w, s], modes.shape[1])
        flying = int(0)
        for c in range(contacts):
            if modes[w, c] == STRIKING:
                which = c
            if modes[w, c] == FLYING:
                flying = 1
        if which < 0 and flying == 1:
            high = left[w, s]
            gap_high, struck = least_gap(
                w, s, high, x, v, a, pushed, links, tree, shape_numbers, points, values, frame, shapes, found, contacts, modes,
                trial, trial_rates, turns, places, turning, moving,
            )  # fmt: skip
            if gap_high < 0.0:
                low = float(0.0)
                gap_low, _nearest = least_gap(
                    w, s, low, x, v, a, pushed, links, tree, shape_numbers, points, values, frame, shapes, found, contacts,
                    modes, trial, trial_rates, turns, places, turning, moving,
                )  # fmt: skip
                gap_low = wp.max(gap_low, 0.0)
                which = struck
                sharp = int(0)
                for step in range(SEARCH):
                    if sharp == 0 and high - low > 1.0e-7 * left[w, s]:
                        t = 0.5 * (low + high)
                        if step % 3 < 2 and gap_low < 1.0e3 * wp.abs(gap_high):
                            t = low + (high - low) * gap_low / (gap_low - gap_high)
                        gap, closest = least_gap(
                            w, s, t, x, v, a, pushed, links, tree, shape_numbers, points, values, frame, shapes, found,
                            contacts, modes, trial, trial_rates, turns, places, turning, moving,
                        )  # fmt: skip
                        if wp.abs(gap) < 2.0e-8:
                            sharp = 1
                            which = closest
                        elif gap > 0.0:
                            low = t
                            gap_low = gap
                            gap_high = 0.5 * gap_high
                        else:
                            high = t
                            which = closest
                            gap_high = gap
                            gap_low = 0.5 * gap_low
                if sharp == 0:
                    t = high  # where a gap jumps (the share of an edge), behind the jump
    hit[w, s] = which
    time[w, s] = t
    after = done[w, s]
    if which < 0 and after < substeps:
        after = after + 1
    if fresh == 1:
        after = 0
    done[w, s + 1] = after


@wp.kernel(enable_backward=False)
def impact_count_kernel(
    hit: wp.array2d(dtype=int), done: wp.array2d(dtype=int), first: int, last: int, frame: int, substeps: int,
    impacts: wp.array2d(dtype=int),
):  # fmt: skip
    """Impacts in the frame of nodes first to last; one more than there is room for where the frame was not ended."""
    w = wp.tid()
    total = int(0)
    for s in range(first, last):
        if hit[w, s] >= 0:
            total = total + 1
    ended = done[w, last - 1]
    if hit[w, last - 1] < 0:
        ended = ended + 1
    if ended < substeps:
        total = last - first - substeps + 1
    impacts[w, frame] = total
