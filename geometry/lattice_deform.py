"""Free-form deformation: a mesh follows the control points of a lattice around it.

Sederberg and Parry, "Free-form deformation of solid geometric models", 1986. With s, t, u the point's coordinates in the
lattice's box, in [0, 1], and b_i the basis of each axis, the control points at rest being the lattice's own nodes,

    x' = x + sum_ijk b_i(s) b_j(t) b_k(u) d_ijk,        d = displacement of each control point.

Bases: Bernstein polynomials of degree n - 1 (every control point moves everything), or uniform cubic B-splines over n - 3 cells
(a control point moves what is within two cells; C2). Both reproduce linear functions, so that displacements which are linear
in the rest positions of the control points (`LatticeDeform.nodes`) move the mesh linearly. A point outside the box moves as the
nearest point of the box does.
"""

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor, nn

from dvc.errors import UserError
from dvc.records import Mesh, expand_worlds, world_count


def bernstein(s: Tensor, count: int) -> Tensor:
    """Bernstein polynomials of degree count - 1 at s (...) -> (..., count), by de Casteljau's recurrence."""
    one = torch.ones_like(s)[..., None]
    basis, s = one, s[..., None]
    for _ in range(count - 1):
        zero = torch.zeros_like(one)
        basis = torch.cat([basis * (1.0 - s), zero], dim=-1) + torch.cat([zero, basis * s], dim=-1)
    return basis


def cubic_bspline(s: Tensor, count: int) -> Tensor:
    """Uniform cubic B-splines over count - 3 cells of [0, 1] at s (...) -> (..., count); four of them are not zero."""
    at = s * (count - 3)
    cell = at.detach().floor().clamp(0, count - 4)
    f = at - cell
    g = 1.0 - f
    weights = [g**3, 3.0 * f**3 - 6.0 * f**2 + 4.0, 3.0 * g**3 - 6.0 * g**2 + 4.0, f**3]
    index = cell.long()[..., None] + torch.arange(4, device=s.device)
    return torch.zeros(*s.shape, count, dtype=s.dtype, device=s.device).scatter(-1, index, torch.stack(weights, -1) / 6.0)


class LatticeDeform(nn.Module):
    """A mesh moved by the control points of a box-shaped lattice.

    Arguments: lower, upper: corners of the box [m]; counts: control points along x, y, z (Bernstein: from 2 to 16; B-spline:
        from 4); basis: "bernstein" or "bspline".
    Forward: mesh: Mesh (world, vertex, 3); displacements of the control points [m] (world, nx, ny, nz, 3) -> Mesh with the same
        faces. Zero displacements leave it as it is.
    Gradient: complete, to displacements and vertices, the basis included. On the faces of the box, beyond which it goes on
        constantly, that to vertices has a jump.
    Raises: UserError for wrong arguments and displacements of another shape.
    """

    lower: Tensor
    extent: Tensor

    def __init__(
        self,
        lower: Sequence[float],
        upper: Sequence[float],
        counts: Sequence[int] = (4, 4, 4),
        basis: Literal["bernstein", "bspline"] = "bernstein",
    ):
        super().__init__()
        if len(lower) != 3 or len(upper) != 3 or not all(0.0 < b - a < float("inf") for a, b in zip(lower, upper)):
            raise UserError(f"LatticeDeform: expected a lower corner below the upper one, got {list(lower)} and {list(upper)}")
        if basis not in ("bernstein", "bspline"):
            raise UserError(f"LatticeDeform.basis: expected 'bernstein' or 'bspline', got {basis!r}")
        least, most = (2, 16) if basis == "bernstein" else (4, 1024)
        if len(counts) != 3 or not all(least <= int(n) <= most for n in counts):
            raise UserError(f"LatticeDeform.counts: expected three numbers from {least} to {most}, got {list(counts)}")
        self.counts, self.basis = tuple(int(n) for n in counts), basis
        self.register_buffer("lower", torch.tensor([float(a) for a in lower]), persistent=False)
        self.register_buffer("extent", torch.tensor([float(b) - float(a) for a, b in zip(lower, upper)]), persistent=False)

    @property
    def nodes(self) -> Tensor:
        """Rest positions of the control points [m], (nx, ny, nz, 3); of a B-spline the outer ones lie outside the box."""
        if self.basis == "bernstein":
            axes = [torch.linspace(0.0, 1.0, n) for n in self.counts]
        else:
            axes = [(torch.arange(n) - 1.0) / (n - 3) for n in self.counts]
        unit = torch.stack(torch.meshgrid(*axes, indexing="ij"), dim=-1).to(self.lower.device)
        return self.lower + self.extent * unit

    def forward(self, mesh: Mesh, displacements: Tensor) -> Mesh:
        if displacements.dim() != 5 or displacements.shape[1:] != (*self.counts, 3):
            expected = ", ".join(str(n) for n in (*self.counts, 3))
            raise UserError(
                f"LatticeDeform.displacements: expected shape (world, {expected}), got {tuple(displacements.shape)}"
            )
        worlds = world_count(mesh.vertices, displacements)
        function = bernstein if self.basis == "bernstein" else cubic_bspline
        s = ((mesh.vertices - self.lower) / self.extent).clamp(0.0, 1.0)
        along = [expand_worlds(function(s[..., axis], n), worlds) for axis, n in enumerate(self.counts)]
        d = expand_worlds(displacements, worlds)
        # one axis at a time: the largest array is (world, vertex, ny, nz, 3)
        moved = (along[0] @ d.flatten(2)).unflatten(2, (self.counts[1], self.counts[2], 3))
        moved = torch.einsum("wvj,wvjkc->wvkc", along[1], moved)
        return Mesh(mesh.vertices + torch.einsum("wvk,wvkc->wvc", along[2], moved), mesh.faces)
