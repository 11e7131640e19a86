r"""A surface whose signed distances on a grid are unknowns, held in coordinates in which descent moves it smoothly.

    values = (1 + lambda L)^-1 u,      dE/du = (1 + lambda L)^-1 dE/dvalues

with L the grid's Laplacian (7 points, no flux through the rim): large steps (Nicolet, Jacobson and Jakob 2021, eq. 10) on a
grid in place of a mesh. The discrete cosine transform diagonalises L, its eigenvalues are sum over axes of 2 - 2 cos(pi k / n).

An image knows the surface only: the gradient reaches the nodes of cut cells, and (1 + lambda L)^-1 carries it about
sqrt(lambda) cells off the surface. `redistance` makes the values distances again between steps. Unlike a mesh's, the
topology is free to change.
"""

import math
from typing import Any

import torch
from torch import Tensor, nn

from dvc.errors import Unsupported, UserError
from dvc.records import Mesh, SdfGrid
from geometry.isosurface import extract_isosurface
from geometry.redistance import redistance


class FreeGrid(nn.Module):
    """The zero set of a grid whose values all move.

    Arguments: grid: values [m] (1, nx, ny, nz), negative inside; smoothness: lambda [cells^2], from 0; relaxation: of the
        mesh's vertices (`geometry.isosurface`).
    Forward: () -> Mesh of one world; its faces change as the surface moves. The unknowns `u` [m] (1, nx, ny, nz) are weights of
        the pipeline. `grid()` are the values.
    Gradient: that of `extract_isosurface`, to u.
    Raises: Unsupported for several worlds; UserError for a wrong smoothness, and where the surface has vanished.
    """

    def __init__(self, grid: SdfGrid, smoothness: float = 4.0, relaxation: int = 10):
        super().__init__()
        if grid.values.dim() != 4 or grid.values.shape[0] != 1:
            raise Unsupported(f"FreeGrid.grid: expected values of one world (1, nx, ny, nz), got {tuple(grid.values.shape)}")
        if not 0.0 <= smoothness < math.inf:
            raise UserError(f"FreeGrid.smoothness: expected a finite number from 0, got {smoothness}")
        self.origin, self.spacing, self.relaxation = grid.origin, float(grid.spacing), int(relaxation)
        parts = [2.0 - 2.0 * torch.cos(math.pi * torch.arange(n, dtype=torch.float64) / n) for n in grid.values.shape[1:]]
        eigenvalues = parts[0][:, None, None] + parts[1][:, None] + parts[2]
        self.factors = (1.0 / (1.0 + float(smoothness) * eigenvalues)).float().numpy()
        self.u = nn.Parameter(self._to_parameters(grid.values))

    def grid(self) -> SdfGrid:
        return SdfGrid(_Cosines.apply(self.u, self.factors), self.origin, self.spacing)

    def forward(self) -> Mesh:
        return extract_isosurface(self.grid(), self.relaxation, border="close")[0]

    @torch.no_grad()
    def redistance(self) -> None:
        """Make the values signed distances to the surface as it is."""
        self.u.copy_(self._to_parameters(redistance(self.grid()).values))

    def _to_parameters(self, values: Tensor) -> Tensor:
        return _Cosines.apply(values.detach(), 1.0 / self.factors)


class _Cosines(torch.autograd.Function):
    """Multiplication with factors in the basis of cosines, a symmetric map: its adjoint is itself."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, factors: Any) -> Tensor:
        from scipy.fft import dctn, idctn

        ctx.factors = factors
        spectrum = dctn(x.detach().cpu().numpy(), axes=(1, 2, 3), norm="ortho") * factors
        return torch.from_numpy(idctn(spectrum, axes=(1, 2, 3), norm="ortho")).to(x)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple:  # type: ignore[override]
        return _Cosines.apply(gradient, ctx.factors), None
