"""Large steps in inverse geometry: a parametrisation of vertices in which gradient descent moves a mesh smoothly.

Nicolet, Jacobson and Jakob, "Large steps in inverse rendering of geometry", 2021. With the combinatorial Laplacian L,

    u = (I + lambda L) x   (eq. 10),        x = (I + lambda L)^-1 u,        dE/du = (I + lambda L)^-1 dE/dx:

descent runs on u. A gradient at one vertex moves its neighbourhood, the step may be large, and the mesh does not tangle.
The matrix depends on the faces only; it is factorised once (SuperLU, float64, CPU) or solved by conjugate gradients with
Jacobi's preconditioner (any device). The matrix is symmetric, so that the adjoint is the same solve, to the same accuracy.

`AdamUniform` is the paper's optimiser (algorithm 1): Adam whose second moment is one number, the largest, a world, so that
the step keeps the direction of the smoothed gradient.
"""

import warnings
from collections.abc import Callable, Iterable
from typing import Any, Literal

import numpy as np
import torch
from scipy import sparse
from scipy.sparse.linalg import splu
from torch import Tensor, nn

from dvc.errors import UserError
from geometry.laplacian import combinatorial_matrix

RELATIVE_RESIDUAL = 1e-6  # at which conjugate gradients end
MOST_ITERATIONS = 2000


class LargeSteps(nn.Module):
    """x = (I + lambda L)^-1 u for every world.

    Arguments: faces int32 (face, 3); vertex_count; smoothness: lambda, from 0 (u is x; the paper uses 10 to 50, more is
        smoother); solver: "direct" (sparse factors on the host, exact to float32; a tensor on a GPU is copied there and back),
        "cg" (on the tensor's own device, to a relative residual of 1e-6) or none: direct on the CPU, else cg.
    Forward: u [m] (world, vertex, 3) -> vertices of the same shape. `to_parameters` is the inverse.
    Gradient: complete, to u; exact to the solver's accuracy; differentiable any number of times. None to the matrix.
    Raises: UserError for wrong arguments, a u of another shape, and where conjugate gradients do not converge.
    """

    def __init__(
        self, faces: Tensor, vertex_count: int, smoothness: float = 19.0, solver: Literal["direct", "cg"] | None = None
    ):
        super().__init__()
        if not 0.0 <= smoothness < float("inf"):
            raise UserError(f"LargeSteps.smoothness: expected a finite number from 0, got {smoothness}")
        if solver not in (None, "direct", "cg"):
            raise UserError(f"LargeSteps.solver: expected 'direct', 'cg' or none, got {solver!r}")
        laplacian = combinatorial_matrix(faces, vertex_count)
        self.matrix = (sparse.identity(vertex_count, format="csr") + float(smoothness) * laplacian).tocsr()
        self.vertex_count, self.smoothness, self.solver = int(vertex_count), float(smoothness), solver
        self._factors: Any = None
        self._on_device: dict[torch.device, tuple[Tensor, Tensor]] = {}

    def __getstate__(self) -> dict:
        """For copies and pickles: factors are made anew where they are needed."""
        return {**self.__dict__, "_factors": None, "_on_device": {}}

    def to_parameters(self, vertices: Tensor) -> Tensor:
        """u of vertices (world, vertex, 3), in float32; differentiable."""
        self._check("to_parameters", vertices)
        return _Multiply.apply(vertices, self._multiply)

    def forward(self, u: Tensor) -> Tensor:
        self._check("forward", u)
        direct = self.solver == "direct" or (self.solver is None and u.device.type == "cpu")
        return _Multiply.apply(u, self._solve_direct if direct else self._solve_cg)

    def _check(self, name: str, value: Tensor) -> None:
        if value.dim() != 3 or value.shape[1:] != (self.vertex_count, 3):
            raise UserError(f"LargeSteps.{name}: expected shape (world, {self.vertex_count}, 3), got {tuple(value.shape)}")

    def _multiply(self, x: Tensor) -> Tensor:
        rows = _to_columns(x).detach().cpu().double().numpy()
        return _to_worlds(torch.from_numpy(self.matrix @ rows).to(x), x.shape)

    def _solve_direct(self, u: Tensor) -> Tensor:
        if self._factors is None:
            options = {"SymmetricMode": True}
            self._factors = splu(self.matrix.tocsc(), permc_spec="MMD_AT_PLUS_A", diag_pivot_thresh=0.0, options=options)
        rows = _to_columns(u).detach().cpu().double().numpy()
        return _to_worlds(torch.from_numpy(self._factors.solve(np.asfortranarray(rows))).to(u), u.shape)

    def _solve_cg(self, u: Tensor) -> Tensor:
        if u.device not in self._on_device:
            m = self.matrix.tocsr()
            rows, columns, data = (torch.from_numpy(np.asarray(x)) for x in (m.indptr, m.indices, m.data.astype(np.float32)))
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # torch announces that its sparse tensors are in beta
                matrix = torch.sparse_csr_tensor(rows, columns, data, size=m.shape, device=u.device, check_invariants=False)
            inverse = torch.from_numpy((1.0 / m.diagonal()).astype(np.float32)).to(u.device)[:, None]
            self._on_device[u.device] = matrix, inverse
        columns = _to_columns(u.detach())
        return _to_worlds(_conjugate_gradients(*self._on_device[u.device], columns), u.shape)


def _to_columns(x: Tensor) -> Tensor:
    """(world, vertex, 3) -> (vertex, world * 3): the right-hand sides of one solve."""
    return x.permute(1, 0, 2).reshape(x.shape[1], -1)


def _to_worlds(columns: Tensor, shape: torch.Size) -> Tensor:
    return columns.reshape(shape[1], shape[0], 3).permute(1, 0, 2).contiguous()


def _conjugate_gradients(matrix: Tensor, inverse_diagonal: Tensor, b: Tensor) -> Tensor:
    """Solve for every column of b at once; each has its own step lengths, and stays once it is solved."""
    if not bool(torch.isfinite(b).all()):
        raise UserError("LargeSteps: conjugate gradients: expected finite numbers in u or its gradient, got others")
    limit = (RELATIVE_RESIDUAL * b.norm(dim=0)) ** 2
    x = torch.zeros_like(b)
    r = b.clone()
    z = inverse_diagonal * r
    p = z.clone()
    rz = (r * z).sum(0)
    for iteration in range(MOST_ITERATIONS):
        open_columns = (r * r).sum(0) > limit
        if iteration % 8 == 0 and not bool(open_columns.any()):
            return x
        ap = matrix @ p
        curvature = (p * ap).sum(0)
        alpha = torch.where(open_columns & (curvature > 0), rz / curvature.clamp_min(1e-37), 0.0)
        x = x + alpha * p
        r = r - alpha * ap
        z = inverse_diagonal * r
        new = (r * z).sum(0)
        p = z + torch.where(rz > 0, new / rz.clamp_min(1e-37), 0.0) * p
        rz = new
    left = float(((r * r).sum(0) / (b * b).sum(0).clamp_min(1e-37)).max().sqrt())
    raise UserError(
        f"LargeSteps: conjugate gradients: expected a relative residual of {RELATIVE_RESIDUAL:g} within "
        f"{MOST_ITERATIONS} steps, got {left:.3g}; remedy: solver='direct', or less smoothness"
    )


class _Multiply(torch.autograd.Function):
    """A symmetric linear map: its adjoint is itself."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, apply: Callable[[Tensor], Tensor]) -> Tensor:
        ctx.map = apply
        return apply(x)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple:  # type: ignore[override]
        return _Multiply.apply(gradient, ctx.map), None


class AdamUniform(torch.optim.Optimizer):
    """Adam with one second moment a world: the largest over all its vertices and coordinates (Nicolet et al. 2021, alg. 1).

    Arguments: parameters with a leading world axis; lr: length of a first step, in the parameters' unit; betas; eps: added
        to the root of the second moment, in the gradient's unit.
    """

    def __init__(
        self, parameters: Iterable[Tensor], lr: float = 1e-2, betas: tuple[float, float] = (0.9, 0.999), eps: float = 1e-30
    ):
        if lr <= 0.0 or not all(0.0 <= beta < 1.0 for beta in betas) or eps < 0.0:
            raise UserError(f"AdamUniform: expected lr > 0, betas in [0, 1) and eps >= 0, got {lr}, {betas} and {eps}")
        super().__init__(parameters, {"lr": lr, "betas": betas, "eps": eps})

    @torch.no_grad()
    def step(self, closure: Callable | None = None) -> Any:  # type: ignore[override]
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            first, second = group["betas"]
            for x in group["params"]:
                if x.grad is None:
                    continue
                state = self.state[x]
                if not state:
                    state.update(step=0, mean=torch.zeros_like(x), square=torch.zeros_like(x))
                state["step"] += 1
                state["mean"].lerp_(x.grad, 1.0 - first)
                state["square"].mul_(second).addcmul_(x.grad, x.grad, value=1.0 - second)
                largest = state["square"].flatten(1).amax(1) if x.dim() > 1 else state["square"]
                scale = (largest / (1.0 - second ** state["step"])).sqrt() + group["eps"]
                scale = scale.reshape(-1, *[1] * (x.dim() - 1))
                x.sub_(group["lr"] / (1.0 - first ** state["step"]) * state["mean"] / scale)
        return loss
