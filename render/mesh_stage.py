"""`MeshRender`: the stage that renders a moving rigid mesh over a background plate."""

import torch
from torch import Tensor, nn

from dvc.errors import UserError
from dvc.records import Camera, Film, Mesh, Shutter
from geometry.mesh_topology import mesh_topology, require_outward
from render.camera import require_undistorted
from render.mesh_render import render_mesh


class MeshRender(nn.Module):
    """Renders one rigid triangle mesh, moving during the exposure, over a background plate.

    Arguments:
        samples: rays a film pixel, each at its own place and time.
        edge_samples: samples an edge and view for the boundary gradient; its noise falls with their square root.
        side_offset: how far outside an edge the ray behind it looks, as a fraction of a film pixel or of the projected edge,
            whichever is shorter.
    Forward:
        mesh: vertices (mesh, vertex, 3); view v uses mesh `v // (view / mesh)`.
        positions [m] (view, node, 3) and orientations (view, node, 4), any length, of the mesh's frame at equidistant nodes
            around the middle of the view's frame; node i is at `(i - (node - 1) / 2) * node_interval`. One node: no motion.
            Times outside the nodes extend the first or last interval.
        camera, shutter: one row for all views, one a view, or one a world (views are ordered world by world).
        background: the plate (row, column, 3), one value a film pixel. film: see `dvc.records.Film`.
        color (., 3), light (., 3) towards the light in world axes, ambient (.) in [0, 1]; 1 makes the body emissive.
        frame_interval, node_interval [s]. seed: int, or int32 tensor (1,) or (view,).
    Returns: images (view, row, column, 3); each pixel a box filter one film pixel wide.
    Gradient: to every tensor argument but the seed, with silhouettes, borders and creases; noise independent of the image's.
        Not covered: shadows, other objects in front, a mesh that cuts through itself, a camera inside a closed mesh, and
        where the plate ends (it stays fixed to the film).
    Raises: UserError for shapes that do not fit; Unsupported for a camera with distortion or two focal lengths, and (in
        backward) for a motion on the film faster than the readout.
    """

    def __init__(self, samples: int = 16, edge_samples: int = 4, *, side_offset: float = 0.01):
        super().__init__()
        for name, value in (("samples", samples), ("edge_samples", edge_samples)):
            if int(value) < 1:
                raise UserError(f"MeshRender.{name}: expected at least 1, got {value}")
        if not 0.0 < side_offset <= 0.5:
            raise UserError(f"MeshRender.side_offset: expected a fraction in (0, 0.5], got {side_offset}")
        self.samples, self.edge_samples, self.side_offset = int(samples), int(edge_samples), float(side_offset)

    def forward(
        self,
        mesh: Mesh,
        positions: Tensor,
        orientations: Tensor,
        camera: Camera,
        shutter: Shutter,
        background: Tensor,
        film: Film,
        color: Tensor,
        light: Tensor,
        ambient: Tensor,
        frame_interval: float = 1.0,
        node_interval: float = 1.0,
        seed: int | Tensor = 0,
    ) -> Tensor:
        require_undistorted("MeshRender.camera", camera)
        views = positions.shape[0]
        self._check(mesh, positions, orientations, background, film, frame_interval, node_interval)
        if not isinstance(seed, Tensor):
            seed = torch.tensor([int(seed)], dtype=torch.int32, device=positions.device)
        fields = {
            "camera.position": camera.position, "camera.rotation": camera.rotation, "camera.focal": camera.focal,
            "camera.center": camera.center, "shutter.exposure": shutter.exposure, "shutter.readout": shutter.readout,
            "color": color, "light": light, "ambient": ambient, "seed": seed,
        }  # fmt: skip
        require_outward("MeshRender.mesh", mesh.vertices, mesh.faces)
        topology = mesh_topology(mesh.faces)
        return render_mesh(
            mesh.vertices, positions, orientations, *(_per_view(n, t, views) for n, t in fields.items()),
            background, mesh.faces, topology.edges,
            frame=(float(film.width), float(film.height)), origin=(float(film.left), float(film.top)), scale=float(film.scale),
            intervals=(float(frame_interval), float(node_interval)), orthographic=bool(camera.orthographic),
            samples=self.samples, edge_samples=self.edge_samples, side_offset=self.side_offset,
            closed=topology.border_count == 0,
        )  # fmt: skip

    @staticmethod
    def _check(
        mesh: Mesh,
        positions: Tensor,
        orientations: Tensor,
        plate: Tensor,
        film: Film,
        frame_interval: float,
        node_interval: float,
    ) -> None:
        if positions.dim() != 3 or positions.shape[2] != 3:
            raise UserError(f"MeshRender.positions: expected shape (view, node, 3), got {tuple(positions.shape)}")
        expected = (*positions.shape[:2], 4)
        if tuple(orientations.shape) != expected:
            raise UserError(f"MeshRender.orientations: expected shape {expected}, got {tuple(orientations.shape)}")
        if tuple(plate.shape) != (film.rows, film.columns, 3):
            raise UserError(
                f"MeshRender.background: expected shape {(film.rows, film.columns, 3)}, got {tuple(plate.shape)}; "
                "remedy: resample the plate to the film"
            )
        if mesh.vertices.dim() != 3 or positions.shape[0] % mesh.vertices.shape[0]:
            raise UserError(
                f"MeshRender.mesh: expected a number of meshes that divides {positions.shape[0]} views, "
                f"got vertices of shape {tuple(mesh.vertices.shape)}"
            )
        for name, value in (("frame_interval", frame_interval), ("node_interval", node_interval)):
            if not float(value) > 0.0:
                raise UserError(f"MeshRender.{name}: expected a positive number of seconds, got {value}")


def _per_view(name: str, tensor: Tensor, views: int) -> Tensor:
    """One row a view from one for all, one a view, or one a world."""
    rows = tensor.shape[0] if tensor.dim() else 0
    if rows == 0 or views % rows:
        raise UserError(
            f"MeshRender.{name}: expected a leading axis that divides {views} views, got shape {tuple(tensor.shape)}"
        )
    return tensor if rows == views else tensor.repeat_interleave(views // rows, dim=0)
