"""Mass, centre of mass and inertia of a solid, computed from its shape and density inside the graph.

Sphere:  m = 4/3 pi r^3 rho,  I = 2/5 m r^2.    Box, half extents h:  m = 8 h_x h_y h_z rho,  I_xx = m/3 (h_y^2 + h_z^2).
Mesh: by the divergence theorem the solid is a signed sum of tetrahedra (o, a, b, c), one a face, for any point o:

    volume V = a . (b x c) / 6,   integral of x = V (a + b + c) / 4,
    integral of x x^T = V (a a^T + b b^T + c c^T + s s^T) / 20   with s = a + b + c.

o is the first vertex, which keeps float32 sums accurate for a mesh far from its origin. With C the second moment about the
centre of mass, I = rho (tr(C) 1 - C).
"""

import warp as wp
from torch import Tensor, nn

from dvc.errors import UserError
from dvc.records import Bodies, BoxShape, Mesh, SphereShape, expand_worlds, world_count
from dvc.warp_op import scratch, warp_op
from geometry.mesh_topology import mesh_topology, require_outward

moments_vector = wp.types.vector(length=10, dtype=float)
# layout: 0 volume, 1-3 first moment x y z, 4-9 second moment xx yy zz yz zx xy


@wp.kernel
def sphere_kernel(
    radius: wp.array(dtype=float),
    density: wp.array(dtype=float),
    offset: wp.array(dtype=wp.vec3),
    mass: wp.array(dtype=float),
    center_of_mass: wp.array(dtype=wp.vec3),
    inertia: wp.array(dtype=wp.mat33),
):
    world = wp.tid()
    r = radius[world]
    m = 4.0 / 3.0 * wp.pi * r * r * r * density[world]
    i = 0.4 * m * r * r
    mass[world] = m
    center_of_mass[world] = offset[world]
    inertia[world] = wp.mat33(i, 0.0, 0.0, 0.0, i, 0.0, 0.0, 0.0, i)


@wp.kernel
def box_kernel(
    half_extents: wp.array(dtype=wp.vec3),
    density: wp.array(dtype=float),
    offset: wp.array(dtype=wp.vec3),
    mass: wp.array(dtype=float),
    center_of_mass: wp.array(dtype=wp.vec3),
    inertia: wp.array(dtype=wp.mat33),
):
    world = wp.tid()
    h = half_extents[world]
    m = 8.0 * h[0] * h[1] * h[2] * density[world]
    x = h[0] * h[0]
    y = h[1] * h[1]
    z = h[2] * h[2]
    t = m / 3.0
    mass[world] = m
    center_of_mass[world] = offset[world]
    inertia[world] = wp.mat33(t * (y + z), 0.0, 0.0, 0.0, t * (z + x), 0.0, 0.0, 0.0, t * (x + y))


@wp.kernel
def moments_kernel(
    vertices: wp.array2d(dtype=wp.vec3),
    faces: wp.array2d(dtype=int),
    moments: wp.array(dtype=moments_vector),
):
    world, face = wp.tid()
    o = vertices[world, 0]
    a = vertices[world, faces[face, 0]] - o
    b = vertices[world, faces[face, 1]] - o
    c = vertices[world, faces[face, 2]] - o
    v = wp.dot(a, wp.cross(b, c)) / 6.0
    s = a + b + c
    m = v / 20.0 * (wp.outer(a, a) + wp.outer(b, b) + wp.outer(c, c) + wp.outer(s, s))
    w = v / 4.0
    row = moments_vector(v, w * s[0], w * s[1], w * s[2], m[0, 0], m[1, 1], m[2, 2], m[1, 2], m[2, 0], m[0, 1])
    wp.atomic_add(moments, world, row)


@wp.kernel
def mesh_kernel(
    moments: wp.array(dtype=moments_vector),
    vertices: wp.array2d(dtype=wp.vec3),
    density: wp.array(dtype=float),
    offset: wp.array(dtype=wp.vec3),
    mass: wp.array(dtype=float),
    center_of_mass: wp.array(dtype=wp.vec3),
    inertia: wp.array(dtype=wp.mat33),
):
    world = wp.tid()
    m = moments[world]
    v = m[0]
    c = wp.vec3(m[1], m[2], m[3]) / v
    rho = density[world]
    xx = rho * (m[4] - v * c[0] * c[0])
    yy = rho * (m[5] - v * c[1] * c[1])
    zz = rho * (m[6] - v * c[2] * c[2])
    yz = rho * (m[7] - v * c[1] * c[2])
    zx = rho * (m[8] - v * c[2] * c[0])
    xy = rho * (m[9] - v * c[0] * c[1])
    mass[world] = rho * v
    center_of_mass[world] = offset[world] + vertices[world, 0] + c
    inertia[world] = wp.mat33(yy + zz, -xy, -zx, -xy, zz + xx, -yz, -zx, -yz, xx + yy)


def _outputs(worlds: int) -> Bodies:
    return Bodies(scratch((worlds,), float), scratch((worlds,), wp.vec3), scratch((worlds,), wp.mat33))


@warp_op
def sphere_bodies(radius: wp.array(dtype=float), density: wp.array(dtype=float), offset: wp.array(dtype=wp.vec3)):
    """radius (world,), density (world,), offset (world, 3) -> Bodies."""
    bodies = _outputs(radius.shape[0])
    wp.launch(sphere_kernel, radius.shape[0], inputs=[radius, density, offset], outputs=list(bodies))
    return bodies


@warp_op
def box_bodies(half_extents: wp.array(dtype=wp.vec3), density: wp.array(dtype=float), offset: wp.array(dtype=wp.vec3)):
    """half_extents (world, 3), density (world,), offset (world, 3) -> Bodies."""
    bodies = _outputs(half_extents.shape[0])
    wp.launch(box_kernel, half_extents.shape[0], inputs=[half_extents, density, offset], outputs=list(bodies))
    return bodies


@warp_op(shared=("faces",))
def mesh_bodies(
    vertices: wp.array2d(dtype=wp.vec3),
    faces: wp.array2d(dtype=int),
    density: wp.array(dtype=float),
    offset: wp.array(dtype=wp.vec3),
):
    """vertices (world, vertex, 3), faces (face, 3), density (world,), offset (world, 3) -> Bodies."""
    worlds = vertices.shape[0]
    moments = scratch((worlds,), moments_vector)
    bodies = _outputs(worlds)
    wp.launch(moments_kernel, (worlds, faces.shape[0]), inputs=[vertices, faces], outputs=[moments])
    wp.launch(mesh_kernel, worlds, inputs=[moments, vertices, density, offset], outputs=list(bodies))
    return bodies


class MassProperties(nn.Module):
    """Mass properties of a solid of one density.

    Forward: shape: SphereShape, BoxShape or a closed Mesh; density [kg/m^3] (world,); offset [m] (world, 3), where the
        shape's origin sits in the body's frame (default: at its origin) -> Bodies, the inertia about the centre of mass.
    Gradient: complete, to the shape's sizes or vertices, density and offset.
    Raises: UserError for an open mesh, one with its faces turned inwards, or another kind of shape.
    """

    def forward(self, shape: SphereShape | BoxShape | Mesh, density: Tensor, offset: Tensor | None = None) -> Bodies:
        offset = density.new_zeros(1, 3) if offset is None else offset
        if isinstance(shape, SphereShape):
            size, op = shape.radius, sphere_bodies
        elif isinstance(shape, BoxShape):
            size, op = shape.half_extents, box_bodies
        elif isinstance(shape, Mesh):
            border = mesh_topology(shape.faces).border_count
            if border:
                raise UserError(f"MassProperties: expected a closed mesh, got {border} border edges; remedy: close the holes")
            require_outward("MassProperties", shape.vertices, shape.faces)
            size = shape.vertices
        else:
            raise UserError(f"MassProperties.shape: expected SphereShape, BoxShape or Mesh, got {type(shape).__name__}")
        worlds = world_count(size, density, offset)
        size, density, offset = (expand_worlds(t, worlds) for t in (size, density, offset))
        if isinstance(shape, Mesh):
            return Bodies(*mesh_bodies(size, shape.faces, density, offset))
        return Bodies(*op(size, density, offset))
