"""Search trees that outlive a call: the trees of faces seen before are refitted to where the vertices are now.

An optimisation renders the same faces again and again, and a gradient casts rays into what its image has just been made of.
Trees are lent to one user at a time and come back when it is through. They are told by their faces and instances, number by
number; nothing has to be declared. A refit keeps the shape of a tree, so among faces that a ray meets at the very same place,
on a shared edge, another one may be named than by a tree that is built anew (`render.wide_bvh_build` says when that happens).
"""

import threading
from dataclasses import dataclass

import torch
import warp as wp

from render.wide_bvh import NODE_SIZE, ROW_SIZE
from render.wide_bvh_build import ForestHolder, build_forest, refit_forest

MOST_KEPT = 4
MOST_BYTES = 1 << 29  # of all trees that are kept together

_kept: list["KeptForest"] = []  # that nobody uses, the latest one last
_lock = threading.Lock()


@dataclass
class KeptForest:
    holder: ForestHolder
    vertices: wp.array  # a copy of what the trees fit now

    @property
    def size(self) -> int:
        """Bytes."""
        return 4 * (self.holder.node_count * NODE_SIZE + self.holder.row_count * ROW_SIZE + 3 * self.vertices.size)


def _same(a: wp.array, b: wp.array) -> bool:
    if a.device != b.device or a.shape != b.shape:
        return False
    return a.size == 0 or torch.equal(wp.to_torch(a, requires_grad=False), wp.to_torch(b, requires_grad=False))


def borrow_forest(vertices: wp.array, faces: wp.array, face_instance: wp.array, instance_count: int) -> KeptForest:
    """Trees as `build_forest` makes them for the same arguments, from those that were given back where the faces agree."""
    found = None
    with _lock:
        for kept in reversed(_kept):
            holder = kept.holder
            if (
                holder.instance_count == instance_count and kept.vertices.shape == vertices.shape
                and _same(holder.faces, faces) and _same(holder.face_instance, face_instance)
            ):  # fmt: skip
                found = kept
                break
        if found is not None:
            _kept.remove(found)
    if found is None:
        own, owner = (wp.clone(array, requires_grad=False) if array.size else array for array in (faces, face_instance))
        return KeptForest(build_forest(vertices, own, owner, instance_count), wp.clone(vertices, requires_grad=False))
    if not _same(found.vertices, vertices):
        refit_forest(found.holder, vertices)
        wp.copy(found.vertices, vertices)
    return found


def give_back(kept: KeptForest) -> None:
    """For the next one; the oldest are let go."""
    with _lock:
        _kept.append(kept)
        while len(_kept) > MOST_KEPT or sum(k.size for k in _kept) > MOST_BYTES:
            _kept.pop(0)


def forget_forests() -> None:
    """Lets all trees go that nobody uses."""
    with _lock:
        _kept.clear()
