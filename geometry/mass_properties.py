"""Mass, centre of mass and inertia of a solid, computed from its shape and density inside the graph.

Sphere:  m = 4/3 pi r^3 rho,  I = 2/5 m r^2.    Box, half extents h:  m = 8 h_x h_y h_z rho,  I_xx = m/3 (h_y^2 + h_z^2).
Meshes of triangles and of tetrahedra and distances have files of their own: mass_of_mesh, mass_of_tetrahedra, mass_of_sdf.
"""

import warp as wp
from torch import Tensor, nn

from dvc.errors import UserError
from dvc.records import Bodies, BoxShape, Mesh, SdfGrid, SphereShape, TetMesh, expand_worlds, world_count
from dvc.warp_op import scratch, warp_op
from geometry.mass_of_mesh import mass_of_mesh
from geometry.mass_of_sdf import mass_of_grid
from geometry.mass_of_tetrahedra import mass_of_tetrahedra
from geometry.mesh_topology import mesh_topology, require_indices, require_outward


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


class MassProperties(nn.Module):
    """Mass properties of a solid of one density.

    Forward: shape: SphereShape, BoxShape, a closed Mesh, a TetMesh or an SdfGrid; density [kg/m^3] (world,); offset [m]
        (world, 3), where the shape's origin sits in the body's frame (default: at its origin) -> Bodies, the inertia about the
        centre of mass. Lists of shapes: geometry.mass_of_sdf.SdfMass, which is told their box.
    Gradient: complete, to the shape's sizes, vertices or grid values, density and offset.
    Raises: UserError for an open mesh, one with its faces turned inwards, or another kind of shape.
    """

    def forward(
        self, shape: SphereShape | BoxShape | Mesh | TetMesh | SdfGrid, density: Tensor, offset: Tensor | None = None
    ) -> Bodies:
        offset = density.new_zeros(1, 3) if offset is None else offset
        if isinstance(shape, SdfGrid):
            bodies = mass_of_grid(shape, density)
            worlds = world_count(bodies.mass, offset)
            mass, center, inertia = (expand_worlds(t, worlds) for t in bodies)
            return Bodies(mass, center + offset, inertia)
        if isinstance(shape, SphereShape):
            size, op = shape.radius, sphere_bodies
        elif isinstance(shape, BoxShape):
            size, op = shape.half_extents, box_bodies
        elif isinstance(shape, (Mesh, TetMesh)):
            size = shape.vertices
        else:
            kinds = "SphereShape, BoxShape, Mesh, TetMesh or SdfGrid"
            raise UserError(f"MassProperties.shape: expected {kinds}, got {type(shape).__name__}")
        if isinstance(shape, Mesh):
            require_indices("MassProperties", shape.faces, shape.vertices)
            border = mesh_topology(shape.faces).border_count
            if border:
                raise UserError(f"MassProperties: expected a closed mesh, got {border} border edges; remedy: close the holes")
            require_outward("MassProperties", shape.vertices, shape.faces)
        worlds = world_count(size, density, offset)
        size, density, offset = (expand_worlds(t, worlds) for t in (size, density, offset))
        if isinstance(shape, Mesh):
            bodies = mass_of_mesh(Mesh(size, shape.faces), density, offset)
            # require_outward looks at the first vertices of `faces` only; these may have been mirrored or lost since
            if not bool((bodies.mass.detach() * density.detach().sign() >= 0.0).all()):
                raise UserError(
                    f"MassProperties: expected finite vertices that enclose a positive volume, got masses down to "
                    f"{float(bodies.mass.detach().min()):.6g} kg; remedy: check the vertices, and the winding of the faces"
                )
            return bodies
        if isinstance(shape, TetMesh):
            return mass_of_tetrahedra(TetMesh(size, shape.tets), density, offset)
        return Bodies(*op(size, density, offset))


def volume(shape: SphereShape | BoxShape | Mesh | TetMesh | SdfGrid) -> Tensor:
    """Volume of a solid [m^3], (world,). Gradient and errors: see `MassProperties`."""
    return MassProperties()(shape, shape[0].new_ones(1)).mass
