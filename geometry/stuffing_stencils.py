"""The part of each lattice tetrahedron that is inside: the stencils of isosurface stuffing (Labelle and Shewchuk 2007, fig. 3).

Every lattice point is inside (+), outside (-) or on the surface (0). A tetrahedron is turned, by an even permutation, so that
its + come first and its - last; each edge from + to - has a cut point. What is left is a tetrahedron, a pyramid (++0-), or a
prism (++--, +++-). Where a face of the lattice has two + (p, q) and one - (m), the left quadrilateral is split by a diagonal
that both tetrahedra of the face must choose alike, so it is chosen from the face alone:

    one of pm, qm is a long edge:   from the end of the short one, to the cut of the long one
    both are short:                 the shorter diagonal; where equal, from the point of the smaller number

These choices never run in a circle around a prism, so that it can be split into three without a new point.
"""

import itertools

import numpy as np
from numpy.typing import NDArray

Ints = NDArray[np.int64]


def _is_even(p: tuple[int, ...]) -> bool:
    return sum(p[i] > p[j] for i in range(len(p)) for j in range(i + 1, len(p))) % 2 == 0


def _turns() -> Ints:
    """For each of 81 sign patterns (digits 0: +, 1: 0, 2: -) an even permutation that sorts it."""
    turns = []
    for pattern in itertools.product(range(3), repeat=4):
        turns.append(
            next(p for p in itertools.permutations(range(4)) if _is_even(p) and [pattern[i] for i in p] == sorted(pattern))
        )
    return np.array(turns)


TURNS = _turns()


class Cuts:
    """Cut points, numbered from `first`, by the edges (low, high) that carry them; places of all points for comparison."""

    def __init__(self, low: Ints, high: Ints, places: NDArray[np.float64], cut_places: NDArray[np.float64], corner_count: int):
        self.first, self.corner_count = len(places), corner_count
        keys = low * self.first + high
        self.order = np.argsort(keys)
        self.keys = keys[self.order]
        self.places = np.concatenate([places, cut_places])

    def __call__(self, p: Ints, q: Ints) -> Ints:
        key = np.minimum(p, q) * self.first + np.maximum(p, q)
        return self.first + self.order[np.searchsorted(self.keys, key)]

    def from_first(self, p: Ints, q: Ints, m: Ints) -> NDArray[np.bool_]:
        """Is the quadrilateral of the face p+, q+, m- split from p (to the cut of qm)? Otherwise from q."""
        odd = [x >= self.corner_count for x in (p, q, m)]
        a, b = np.minimum(p, q), np.maximum(p, q)
        one = ((self.places[a] - self.places[self(b, m)]) ** 2).sum(axis=1)
        two = ((self.places[b] - self.places[self(a, m)]) ** 2).sum(axis=1)
        shorter = np.where(p == a, one <= two, two < one)
        return np.where(odd[0] == odd[1], shorter, odd[1] == odd[2])


def fill(tets: Ints, sign: Ints, cuts: Cuts) -> Ints:
    """Tetrahedra (tet, 4) of the inside: lattice tetrahedra, positively oriented, in; lattice points and cut points out."""
    digit = 1 - sign[tets]
    tets = tets[(digit == 0).any(axis=1)]
    digit = 1 - sign[tets]
    turned = np.take_along_axis(tets, TURNS[digit @ np.array([27, 9, 3, 1])], axis=1)
    plus, minus = (digit == 0).sum(axis=1), (digit == 2).sum(axis=1)

    def of(number_plus: int, number_minus: int) -> list[Ints]:
        return list(turned[(plus == number_plus) & (minus == number_minus)].T)

    out = [turned[minus == 0]]
    v = of(1, 3)
    out.append(np.stack([v[0], cuts(v[0], v[1]), cuts(v[0], v[2]), cuts(v[0], v[3])], axis=1))
    v = of(1, 2)
    out.append(np.stack([v[0], v[1], cuts(v[0], v[2]), cuts(v[0], v[3])], axis=1))
    v = of(1, 1)
    out.append(np.stack([v[0], v[1], v[2], cuts(v[0], v[3])], axis=1))
    v = of(2, 1)
    first, c0, c1 = cuts.from_first(v[0], v[1], v[3]), cuts(v[0], v[3]), cuts(v[1], v[3])
    out.append(np.stack([v[0], v[1], v[2], np.where(first, c1, c0)], axis=1))
    out.append(np.stack([np.where(first, v[0], c0), np.where(first, c1, v[1]), v[2], np.where(first, c0, c1)], axis=1))
    v = of(2, 2)
    near = [v[0], cuts(v[0], v[2]), cuts(v[0], v[3])]
    far = [v[1], cuts(v[1], v[2]), cuts(v[1], v[3])]
    with_2, with_3 = cuts.from_first(v[0], v[1], v[2]), cuts.from_first(v[0], v[1], v[3])
    x = cuts.places
    shorter = ((x[near[1]] - x[far[2]]) ** 2).sum(axis=1) <= ((x[near[2]] - x[far[1]]) ** 2).sum(axis=1)
    out += _prism(near, far, with_2, with_3, np.where(with_2 == with_3, shorter, ~with_2))  # the third lies on the surface
    v = of(3, 1)
    pairs = [cuts.from_first(v[i], v[j], v[3]) for i, j in ((0, 1), (0, 2), (1, 2))]
    out += _prism(v[:3], [cuts(v[i], v[3]) for i in range(3)], *pairs)
    return np.concatenate(out)


def _prism(a: list[Ints], b: list[Ints], *before: NDArray[np.bool_]) -> list[Ints]:
    """Prism of the triangles a and b; before: for the pairs ij = 01, 02, 12, is the side split along a_i b_j (or a_j b_i)?"""
    out = []
    for i, j, k in itertools.permutations(range(3)):
        of_pair = [(i, j, k).index(m) < (i, j, k).index(n) for m, n in ((0, 1), (0, 2), (1, 2))]
        chosen = np.logical_and.reduce([given == wanted for given, wanted in zip(before, of_pair)])
        (ai, aj, ak), (bi, bj, bk) = ([side[m][chosen] for m in (i, j, k)] for side in (a, b))
        three = [[ai, aj, ak, bk], [ai, aj, bk, bj], [ai, bi, bj, bk]]
        if not _is_even((i, j, k)):
            three = [[t[1], t[0], t[2], t[3]] for t in three]
        out += [np.stack(t, axis=1) for t in three]
    return out
