import pytest
import torch

from dvc.errors import UserError
from dvc.records import Mesh, TetMesh
from geometry.laplacian import cotangent_laplacian, cotangents, vertex_areas
from geometry.mass_of_tetrahedra import tet_volumes
from geometry.mass_properties import MassProperties
from geometry.mesh_energies import bending_energy, dihedral_angles, edge_length_energy, edge_lengths
from geometry.mesh_normals import face_areas, face_normals, vertex_normals
from geometry.self_intersections import self_intersection_count

OF_FACES = [
    face_normals, face_areas, vertex_normals, cotangents, cotangent_laplacian, vertex_areas, edge_lengths, dihedral_angles,
    bending_energy, lambda mesh: edge_length_energy(mesh, torch.ones(1)), self_intersection_count,
]  # fmt: skip


@pytest.mark.parametrize("number", [4, -1])
@pytest.mark.parametrize("function", OF_FACES)
def test_faces_of_vertices_that_do_not_exist_are_refused(function, number):
    faces = torch.tensor([[0, 1, number]], dtype=torch.int32)
    with pytest.raises(UserError, match=r"vertex numbers in 0\.\.3"):
        function(Mesh(torch.rand(1, 4, 3), faces))
    faces[0, 2] = 3  # what was remembered of the tensor ends with the change
    function(Mesh(torch.rand(1, 4, 3), faces))


@pytest.mark.parametrize("function", [tet_volumes, lambda mesh: MassProperties()(mesh, torch.ones(1))])
def test_tetrahedra_of_vertices_that_do_not_exist_are_refused(function):
    with pytest.raises(UserError, match=r"vertex numbers in 0\.\.3"):
        function(TetMesh(torch.rand(1, 4, 3), torch.tensor([[0, 1, 2, 4]], dtype=torch.int32)))
