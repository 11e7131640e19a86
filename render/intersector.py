"""The swappable pair of functions that everything else casts rays with: closest hit and any hit of one instance.

Two pairs: 8-wide trees of our own (`render.wide_bvh`), and Warp's meshes, which are slower and there to check against.
"""

import itertools
import weakref

import warp as wp

from render.forest_cache import borrow_forest, give_back
from render.wide_bvh import Forest, TreeHit, any_in_tree, closest_in_tree


@wp.struct
class Intersector:
    forest: Forest
    meshes: wp.array2d(dtype=wp.uint64)  # (world, instance), of the second pair; 0: no faces
    first_faces: wp.array(dtype=int)  # (instance,), of the second pair
    instances: int
    use_meshes: int


@wp.func
def closest_in_instance(tracer: Intersector, world: int, instance: int, o: wp.vec3, d: wp.vec3, t_max: float):
    hit = TreeHit()
    hit.face = -1
    if tracer.use_meshes != 0:
        mesh = tracer.meshes[world, instance]
        if mesh != wp.uint64(0):
            length = wp.length(d)
            query = wp.mesh_query_ray(mesh, o, d / length, t_max * length)
            if query.result:
                hit.t = query.t / length
                hit.face = query.face + tracer.first_faces[instance]
                hit.u = query.v
                hit.v = 1.0 - query.u - query.v
    else:
        root = tracer.forest.roots[world, instance]
        if root >= 0:
            hit = closest_in_tree(tracer.forest, root, o, d, t_max)
    return hit


@wp.func
def any_in_instance(tracer: Intersector, world: int, instance: int, o: wp.vec3, d: wp.vec3, t_max: float):
    result = bool(False)
    if tracer.use_meshes != 0:
        mesh = tracer.meshes[world, instance]
        if mesh != wp.uint64(0):
            length = wp.length(d)
            result = wp.mesh_query_ray_anyhit(mesh, o, d / length, t_max * length)
    else:
        root = tracer.forest.roots[world, instance]
        if root >= 0:
            result = any_in_tree(tracer.forest, root, o, d, t_max)
    return result


class Tracers:
    """The search trees of a scene for given vertices; `tracer` is what kernels take. Keep it as long as it is used."""

    def __init__(
        self, vertices: wp.array, faces: wp.array, face_table: wp.array, instances: int, tree_faces: int, meshes: bool = False
    ):
        """`tree_faces`: how many of the faces, which are ordered by instance, are in trees; the others are planes."""
        self.tracer = Intersector()
        self.tracer.instances, self.tracer.use_meshes = instances, int(meshes)
        own = faces[:tree_faces] if tree_faces else wp.empty((0, 3), dtype=int, device=vertices.device)  # 0:0 is refused
        instance_of = wp.empty(0, dtype=int, device=vertices.device)
        if tree_faces:
            instance_of = face_table[:tree_faces, 0].contiguous()
        if not meshes:
            kept = borrow_forest(vertices, own, instance_of, instances)
            weakref.finalize(self, give_back, kept).atexit = False
            self.tracer.forest = kept.holder.forest
            return
        owner = instance_of.numpy()
        first = [int((owner < i).sum()) for i in range(instances + 1)]
        self.meshes: list[wp.Mesh] = []
        ids = []
        with wp.ScopedDevice(vertices.device):
            for world in range(vertices.shape[0]):
                points = wp.clone(vertices[world], requires_grad=False)
                for low, high in itertools.pairwise(first):
                    if high > low:
                        self.meshes.append(wp.Mesh(points=points, indices=faces[low:high].contiguous().flatten()))
                    ids.append(self.meshes[-1].id if high > low else 0)
            self.tracer.meshes = wp.array(ids, dtype=wp.uint64).reshape((vertices.shape[0], instances))
            self.tracer.first_faces = wp.array(first[:-1], dtype=int)
