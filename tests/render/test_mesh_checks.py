"""render/mesh_checks.py: faces that are there twice, edges of three faces: rendered where no gradient needs their edges."""

import pytest
import torch
from torch import Tensor

from dvc.errors import Unsupported, UserError
from dvc.records import Mesh
from render.mesh_checks import twin_faces
from render.path_render import PathRender
from render.scene import Body, Material, Scene
from tests.render.ray_scenes import film, perspective, quad, row

PANEL = quad((0, 0, 0), (0.8, 0, 0), (0, 0.8, 0))
CAMERA = perspective((0, -3, 2), (0, 0, 0), 40, 6)
FIN = torch.tensor([[0, 1, 2], [0, 2, 3], [0, 2, 4]], dtype=torch.int32)  # three faces at one edge
FIN_POINTS = torch.cat([PANEL.vertices, torch.tensor([[[0.0, 0.0, 0.5]]])], dim=1)


def faces(*rows: tuple) -> Tensor:
    return torch.tensor(rows, dtype=torch.int32)


DOUBLED = faces((0, 1, 2), (0, 2, 3), (2, 0, 1))
TURNED = faces((0, 1, 2), (0, 2, 3), (2, 1, 0))


def shown(points: Tensor, triangles: Tensor, **material) -> Tensor:
    scene = Scene([Body(Mesh(points, triangles), "m")], {"m": Material(**material)}, environment=row(1, 1, 1))
    return PathRender(samples=16, depth=2)(scene, CAMERA, film(6))


def test_pictures_of_what_has_no_edges() -> None:
    """Duplicate faces make the same picture; a colour's gradient needs no edges, that of geometry names what is wrong."""
    plain = shown(PANEL.vertices, PANEL.faces)
    assert torch.allclose(shown(PANEL.vertices, DOUBLED), plain, atol=1e-5)
    albedo = torch.tensor([[0.5, 0.5, 0.5]], requires_grad=True)
    shown(PANEL.vertices, DOUBLED, albedo=albedo).sum().backward()
    assert float(albedo.grad.min()) > 0.0
    assert float(shown(FIN_POINTS, FIN, two_sided=True).sum()) > 0.0
    with pytest.raises(UserError, match=r"faces: expected each face once .*got face 0 again as face 2; remedy: .*duplicate"):
        shown(PANEL.vertices.clone().requires_grad_(), DOUBLED)
    with pytest.raises(Unsupported, match=r"edge \(0, 2\): expected at most two faces, got 3.*want a gradient"):
        shown(FIN_POINTS.clone().requires_grad_(), FIN)


def test_flat_faces_are_part_of_no_picture_and_have_no_edges() -> None:
    bent = torch.cat([PANEL.faces, faces((0, 1, 1))])
    assert torch.allclose(shown(PANEL.vertices, bent), shown(PANEL.vertices, PANEL.faces), atol=1e-5)
    with pytest.raises(UserError, match="three different vertices"):
        shown(PANEL.vertices.clone().requires_grad_(), bent)


def test_twins_that_change_the_picture_are_refused() -> None:
    for twin in (DOUBLED, TURNED):
        with pytest.raises(
            UserError, match=r"bodies\[0\].mesh.faces: expected each face of a lamp once, got face 0 again as face 2"
        ):
            shown(PANEL.vertices, twin, emission=(1.0, 1.0, 1.0))
    with pytest.raises(UserError, match=r"turned round: which one is seen would be chance; remedy: .*two_sided=True"):
        shown(PANEL.vertices, TURNED)
    both = shown(PANEL.vertices, TURNED, two_sided=True)
    assert torch.allclose(both, shown(PANEL.vertices, PANEL.faces, two_sided=True), atol=1e-5)


def test_twins_are_found_in_any_order() -> None:
    assert twin_faces(PANEL.faces) == (None, None)
    assert twin_faces(faces((3, 4, 5), (0, 1, 2), (5, 3, 4), (1, 0, 2))) == ((0, 2), (1, 3))
    changed = PANEL.faces.clone()
    assert twin_faces(changed) == (None, None)
    changed[1] = changed[0]
    assert twin_faces(changed) == ((0, 1), None)
    assert twin_faces(faces((0, 1, 1), (0, 1, 1))) == (None, None)  # of no area


def test_all_faces_are_looked_at_before_a_body_is_called_flat() -> None:
    """The faces that are looked at first are flat; one of the others is not."""
    points = torch.cat([torch.linspace(0, 1, 5000)[:, None] * torch.tensor([1.0, 0.0, 0.0]), torch.tensor([[0.0, 1.0, 0.0]])])[
        None
    ]
    first = torch.arange(4998)
    triangles = torch.stack([first, first + 1, first + 2], dim=1).int()
    with pytest.raises(UserError, match="expected a face with an area"):
        shown(points, triangles)
    triangles[1, 2] = 5000
    shown(points, triangles)
