"""Principal moments and axes, and gradients where moments are equal."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from dvc.errors import UserError
from dvc.gradient_check import certified, format_table, gradient_check
from geometry.principal_axes import principal_axes
from geometry.sdf_shapes import rotate


def turned(moments: list[float], quaternion: list[float]) -> tuple[torch.Tensor, torch.Tensor]:
    q = torch.tensor(quaternion) / torch.tensor(quaternion).norm()
    axes = torch.stack([rotate(q, e) for e in torch.eye(3)], dim=1)
    return (axes @ torch.diag(torch.tensor(moments)) @ axes.T)[None], axes


def test_a_turned_box():
    inertia, axes = turned([1.0, 2.0, 4.0], [0.1, -0.3, 0.2, 0.9])
    found = principal_axes(inertia)
    assert torch.allclose(found.moments[0], torch.tensor([1.0, 2.0, 4.0]), rtol=1e-6)
    assert torch.allclose((found.axes[0] * axes).sum(0).abs(), torch.ones(3), atol=1e-6)
    assert float(torch.linalg.det(found.axes[0])) == pytest.approx(1.0, rel=1e-6)
    assert bool((found.axes[0, :, :2].gather(0, found.axes[0, :, :2].abs().argmax(0, keepdim=True)) > 0).all())


def test_gradient_at_several_steps():
    inertia = torch.cat([turned([1.0, 2.0, 4.0], [0.1, -0.3, 0.2, 0.9])[0], turned([3.0, 3.5, 6.0], [0.5, 0.3, 0.2, 0.1])[0]])
    rows = gradient_check(principal_axes, [inertia.requires_grad_()], ["inertia"])
    assert certified(rows) and not rows[0].note, format_table(rows)


def test_equal_moments_keep_what_is_defined():
    """Of a top with two equal moments the third axis turns; the sum of the equal moments and the axis have exact gradients."""
    inertia = torch.diag(torch.tensor([2.0, 2.0, 5.0]))[None].requires_grad_()
    found = principal_axes(inertia)
    (of_axis,) = torch.autograd.grad(found.axes[0, 0, 2], inertia, retain_graph=True)
    sign = float(found.axes[0, 2, 2].detach().sign())
    assert float(of_axis[0, 0, 2] + of_axis[0, 2, 0]) == pytest.approx(sign / 3.0, rel=1e-5)  # 1 / (5 - 2)
    (of_sum,) = torch.autograd.grad(found.moments[0, :2].sum(), inertia)
    assert torch.allclose(of_sum[0], torch.diag(torch.tensor([1.0, 1.0, 0.0])), atol=1e-6)


@settings(max_examples=300, deadline=None)
@given(
    seed=st.integers(0, 2**31 - 1),
    kind=st.sampled_from(["ball", "top", "rod", "zero", "nearly", "random"]),
    exponent=st.integers(-12, 8),
)
def test_always_finite_and_orthonormal(seed, kind, exponent):
    """Four worlds a case."""
    g = torch.Generator().manual_seed(seed)
    base = {"ball": [1.0, 1, 1], "top": [2.0, 2, 3], "rod": [0.0, 1, 1], "zero": [0.0, 0, 0], "nearly": [1, 1 + 1e-7, 2]}
    axes = torch.linalg.qr(torch.randn(4, 3, 3, generator=g))[0]
    moments = torch.rand(4, 3, generator=g) if kind == "random" else torch.tensor(base[kind]).repeat(4, 1)
    inertia = 10.0**exponent * axes @ torch.diag_embed(moments) @ axes.mT
    if seed % 2:
        inertia = 10.0**exponent * torch.diag_embed(moments)
    inertia.requires_grad_()
    found = principal_axes(inertia)
    (gradient,) = torch.autograd.grad(found.moments.sum() + (found.axes * torch.randn(4, 3, 3, generator=g)).sum(), inertia)
    assert torch.isfinite(gradient).all() and torch.isfinite(found.moments).all()
    assert torch.allclose(found.axes.mT @ found.axes, torch.eye(3).expand(4, 3, 3), atol=1e-5)
    back = found.axes @ torch.diag_embed(found.moments) @ found.axes.mT
    assert torch.allclose(back, inertia, atol=2e-6 * 10.0**exponent * 3)
    assert bool((found.moments.diff(dim=1) >= 0).all())


def test_wrong_input():
    with pytest.raises(UserError, match=r"expected shape .world, 3, 3"):
        principal_axes(torch.zeros(3, 3))
    with pytest.raises(UserError, match="finite tensors"):
        principal_axes(torch.full((1, 3, 3), float("nan")))
