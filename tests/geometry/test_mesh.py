import numpy as np
import pytest
import torch

from dvc.errors import Unsupported, UserError
from geometry.mesh import BoxMesh, SphereMesh, TriangleMesh, box_mesh, icosphere
from geometry.mesh_topology import mesh_topology

TETRAHEDRON = "v 0 0 0\nv 1 0 0\nv 0 1 0\nv 0 0 1  # apex\nf 1 3 2\nf 1/1 2/2 4/4\nf -3//1 -2//1 -1//1\nf 3 1 4\n"


def write(folder, text, name="mesh.obj"):
    path = folder / name
    path.write_text(text)
    return path


def test_obj_with_slashes_negative_numbers_and_comments(tmp_path):
    mesh = TriangleMesh(write(tmp_path, TETRAHEDRON))(torch.tensor([2.0, 3.0]), torch.tensor([[0.0, 0.0, 1.0]]))
    assert mesh.vertices.shape == (2, 4, 3)
    assert mesh.vertices[1, 3].tolist() == [0.0, 0.0, 4.0]
    assert mesh.faces.tolist() == [[0, 2, 1], [0, 1, 3], [1, 2, 3], [2, 0, 3]]
    assert mesh_topology(mesh.faces).border_count == 0


def test_obj_polygons_become_fans(tmp_path):
    mesh = TriangleMesh(write(tmp_path, "v 0 0 0\nv 1 0 0\nv 1 1 0\nv 0 1 0\nf 1 2 3 4\n"))(torch.ones(1))
    assert mesh.faces.tolist() == [[0, 1, 2], [0, 2, 3]]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "expected vertices and faces, got 0 and 0"),
        ("v 0 0\n", "line 1: expected numbers"),
        ("v 0 0 0\nv 1 0 0\nv 0 1 0\nf 1 2 x\n", "line 4: expected numbers"),
        ("v nan 0 0\nv 1 0 0\nv 0 1 0\nf 1 2 3\n", "expected finite vertices"),
        ("v 0 0 0\nv 1 0 0\nv 0 1 0\nf 1 2 9\n", r"expected vertex numbers in 0..2"),
        ("v 0 0 0\nv 1 0 0\nv 2 0 0\nf 1 2 3\n", "expected faces with an area"),
        ("v 0 0 0\nv 1 0 0\nv 0 1 0\nf 1 2 2\n", "expected faces with an area"),
    ],
)
def test_bad_file_is_one_clear_line(tmp_path, text, words):
    with pytest.raises(UserError, match=words) as caught:
        TriangleMesh(write(tmp_path, text))
    assert "\n" not in str(caught.value)


def test_missing_file_is_named(tmp_path):
    with pytest.raises(UserError, match="expected a file, found none"):
        TriangleMesh(tmp_path / "none.obj")


def test_exactly_one_source():
    with pytest.raises(UserError, match="either a path, or vertices and faces"):
        TriangleMesh()


def test_topology_of_a_cube():
    topology = mesh_topology(torch.from_numpy(box_mesh()[1]))
    assert topology.edges.shape == (18, 6)
    assert topology.border_count == 0
    faces = box_mesh()[1]
    for start, end, face0, face1, opposite0, opposite1 in topology.edges.tolist():
        assert sorted((start, end, opposite0)) == sorted(faces[face0])
        assert sorted((start, end, opposite1)) == sorted(faces[face1])


def test_topology_follows_an_edited_faces_tensor():
    faces = torch.from_numpy(box_mesh()[1].copy())
    mesh_topology(faces)
    faces[0] = torch.tensor([0, 1, 3])[[1, 2, 0]]
    assert mesh_topology(faces).border_count == 0
    with pytest.raises(UserError, match="wound alike"):
        faces[0] = torch.tensor([3, 1, 0])
        mesh_topology(faces)


def test_edge_of_three_faces_is_refused():
    with pytest.raises(Unsupported, match="at most two faces, got 3"):
        mesh_topology(torch.tensor([[0, 1, 2], [1, 0, 3], [0, 1, 4]], dtype=torch.int32))


@pytest.mark.parametrize("subdivisions", [0, 1, 3])
def test_icosphere_is_closed_and_round(subdivisions):
    vertices, faces = icosphere(subdivisions)
    assert len(faces) == 20 * 4**subdivisions
    assert np.allclose(np.linalg.norm(vertices, axis=1), 1.0, atol=1e-6)
    assert mesh_topology(torch.from_numpy(faces)).border_count == 0
    normals = np.cross(vertices[faces[:, 1]] - vertices[faces[:, 0]], vertices[faces[:, 2]] - vertices[faces[:, 0]])
    assert (np.einsum("fi,fi->f", normals, vertices[faces].mean(axis=1)) > 0).all()


@pytest.mark.parametrize(
    ("stage", "inputs"),
    [
        (SphereMesh(1), [torch.tensor([0.3, 0.5])]),
        (BoxMesh(), [torch.rand(2, 3) + 0.1]),
        (TriangleMesh(vertices=box_mesh()[0], faces=box_mesh()[1]), [torch.tensor([0.5, 2.0]), torch.rand(2, 3)]),
    ],
)
def test_gradient_of_every_argument(stage, inputs):
    """Vertices are linear in every argument: one difference is exact to rounding."""
    for index in range(len(inputs)):
        values = [value.clone().requires_grad_(i == index) for i, value in enumerate(inputs)]
        weight = torch.randn(stage(*values).vertices.shape)
        (stage(*values).vertices * weight).sum().backward()
        moved = [value.detach() + 0.5 * (i == index) * torch.ones_like(value) for i, value in enumerate(inputs)]
        change = ((stage(*moved).vertices - stage(*inputs).vertices) * weight).sum()
        assert float(values[index].grad.sum()) * 0.5 == pytest.approx(float(change), rel=1e-4, abs=1e-4)
