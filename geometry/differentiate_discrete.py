"""Three ways to differentiate what is discrete: smooth its domain, smooth its output, or put another operator in its place.

1. The domain: occupancy o(d) = 1 / (1 + exp(d / w)) of a signed distance d, and  softmin_t(v) = -t log sum_i exp(-v_i / t),
   with min v - t log n <= softmin_t(v) <= min v. Both are exact as w, t -> 0, and biased by a known amount before.
2. The output: F(x) = E[f(x + sigma z)], z normal, is smooth for any bounded f, and (Nesterov and Spokoiny 2017, eq. 21)
       grad F(x) = E[(f(x + sigma z) - f(x - sigma z)) / (2 sigma) z].
   The samples come in antithetic pairs +-z, which removes all even terms of f. What is left is mostly the scatter of z z^T
   around the identity; it is removed by a linear control variate: with d the difference quotient of a pair and a slope a,
       grad F = a + E[(d - a . z) z],   for every a that is independent of z.
   Pairs are dealt into two halves; each takes beta times the plain estimate of the other as its slope a, so that the result
   stays unbiased. beta = h / (h + n + 1), for h pairs and n numbers in x, is the factor that is best for a linear f.
3. A continuous operator, a trained network say: the value is that of the discrete one, the derivative that of the other.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from dvc.errors import Unsupported, UserError


def soft_occupancy(distance: Tensor, width: float) -> Tensor:
    """How much of a point is inside: 1 deep inside, 1/2 on the surface, 0 outside.

    Args: signed distance [m] of any shape, negative inside; width [m], over which the step is smeared, positive. On a grid take
        at least half the spacing: below, the sum over the nodes no longer sees the surface move.
    Gradient: complete. Volumes of a curved surface are biased by the order of (width * curvature)^2.
    Raises: UserError for a width that is not positive.

    The area of a disc on a grid, pi (r^2 + (pi width)^2 / 3), and its derivative 2 pi r, which a count of nodes does not have:

    >>> line = torch.linspace(-1.5, 1.5, 301)
    >>> x, y = torch.meshgrid(line, line, indexing="ij")
    >>> radius = torch.tensor(1.0, requires_grad=True)
    >>> area = soft_occupancy((x * x + y * y).sqrt() - radius, width=0.01).sum() * 0.01**2
    >>> area.backward()
    >>> print(f"{area.item():.3f} {radius.grad.item():.3f}")
    3.143 6.283
    """
    return torch.sigmoid(-distance / _positive("soft_occupancy.width", width))


def soft_min(values: Tensor, temperature: float, dim: int = -1) -> Tensor:
    """A smooth minimum along one axis: at most the minimum, at least the minimum - temperature * log(count).

    Args: values of any shape and unit; temperature, of the same unit, positive.
    Gradient: complete: weights that are positive and add up to one, all equal among equals.
    Raises: UserError for a temperature that is not positive.

    Two spheres as one distance, whose gradient is shared where they meet:

    >>> distances = torch.tensor([[0.2, 0.2], [0.2, 1.2]], requires_grad=True)
    >>> union = soft_min(distances, temperature=0.1)
    >>> union.sum().backward()
    >>> print([round(v, 3) for v in union.tolist()], [[round(v, 3) for v in row] for row in distances.grad.tolist()])
    [0.131, 0.2] [[0.5, 0.5], [1.0, 0.0]]
    """
    t = _positive("soft_min.temperature", temperature)
    least = values.detach().amin(dim=dim, keepdim=True)
    least = torch.where(least.isfinite(), least, 0.0)
    # of the differences to the minimum: values / t alone would lose the digits in which neighbours differ
    return least.squeeze(dim) - t * torch.logsumexp((least - values) / t, dim=dim)


def soft_max(values: Tensor, temperature: float, dim: int = -1) -> Tensor:
    """A smooth maximum along one axis: `-soft_min(-values)`, at least the maximum.

    The highest point of a polygon, which moves from corner to corner as it turns, with a derivative everywhere:

    >>> turn = torch.tensor(0.0, requires_grad=True)
    >>> corners = turn + torch.pi / 4 * torch.tensor([1.0, 3.0, 5.0, 7.0])
    >>> height = soft_max(torch.sin(corners), temperature=0.05)
    >>> height.backward()
    >>> print(f"{height.item():.3f} {turn.grad.item():.3f}")
    0.742 0.000
    """
    return -soft_min(-values, _positive("soft_max.temperature", temperature), dim)


class _Smoothed(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, function: Any, seed: int, sigma: float, pairs: int, control: bool) -> Tensor:
        ctx.save_for_backward(x)
        ctx.given = function, seed, sigma, pairs, control
        plus, minus = _evaluate(function, x, _draw(x, pairs, 2 * seed), sigma)
        return (0.5 * (plus + minus)).mean(dim=1)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple:
        (x,) = ctx.saved_tensors
        function, seed, sigma, pairs, control = ctx.given
        z = _draw(x, pairs, 2 * seed + 1)
        plus, minus = _evaluate(function, x, z, sigma)
        quotient = ((plus - minus) * (gradient / (2.0 * sigma))[:, None]).reshape(*z.shape[:2], -1).sum(dim=2)  # (world, pair)
        z = z.reshape(*z.shape[:2], -1)
        result = _with_control(quotient, z) if control else _plain(quotient, z)
        return result.reshape(x.shape), None, None, None, None, None


def smoothed(
    function: Callable[[Tensor], Tensor], x: Tensor, *, seed: int, sigma: float, pairs: int = 64, control_variate: bool = True
) -> Tensor:
    """E[f(x + sigma z)] by sampling, with an unbiased gradient for any f: a renderer, a simulator, a count.

    Args:
        function: (row, ...) -> (row, ...), each row by itself. It is called without gradient, once forward and once backward,
            with `world * 2 * pairs` rows, those of one world together.
        x: (world, ...).
        seed: not negative; change it from step to step. Value and gradient use independent samples, so that the gradient of a
            nonlinear loss of the value is not biased by sharing them.
        sigma: standard deviation of the noise, in the unit of x: the scale below which f is not resolved.
        pairs: antithetic pairs a world. The standard error of the gradient falls with the root of it.
        control_variate: remove the part of the scatter that is linear in z; it needs at least two pairs.
    Returns: (world, ...), the shape of the function's rows.
    Gradient: to x, of the smoothed function, not of f; none to what else the function depends on, nor to sigma. Second
        derivatives raise torch's error.
    Raises: UserError for a function that returns other rows or values that are not finite, sigma that is not positive, too
        few pairs; Unsupported for a sigma that asks for a gradient.

    A step, whose derivative is zero wherever it has one. Smoothed it is the normal distribution function, with the
    derivative 1 / (sigma sqrt(2 pi)) at zero, 1.995 for sigma = 0.2:

    >>> x = torch.zeros(1, 1, requires_grad=True)
    >>> value = smoothed(lambda rows: (rows[:, 0] > 0.0).float(), x, seed=0, sigma=0.2, pairs=100_000)
    >>> value.sum().backward()
    >>> print(f"{value.item():.2f}, off by {abs(x.grad.item() / 1.995 - 1.0) < 0.01}")
    0.50, off by True
    """
    if isinstance(sigma, Tensor) and sigma.requires_grad:
        raise Unsupported("smoothed.sigma: a gradient to sigma is not computed; remedy: sigma.detach()")
    sigma = _positive("smoothed.sigma", float(sigma))
    if x.dim() == 0 or x.numel() == 0 or not x.is_floating_point():
        raise UserError(f"smoothed.x: expected floating-point numbers of shape (world, ...), got {x.dtype} {tuple(x.shape)}")
    if not isinstance(pairs, int) or pairs < 1 + int(control_variate):
        raise UserError(f"smoothed.pairs: expected at least {1 + int(control_variate)}, got {pairs!r}")
    if not isinstance(seed, int) or seed < 0:
        raise UserError(f"smoothed.seed: expected an integer of at least 0, got {seed!r}")
    return _Smoothed.apply(x, function, seed, sigma, pairs, control_variate)


def replaced_gradient(discrete: Callable[..., Tensor], continuous: Callable[..., Tensor], *inputs: Tensor) -> Tensor:
    """The value of one function with the derivative of another: the hook for a learned continuous operator.

    Args: the discrete function, called without gradient; the continuous one, a `torch.nn.Module` that was trained to imitate it
        say (`learned`), called with gradient; the inputs of both.
    Gradient: that of `continuous`, to the inputs and to its weights. It is as wrong as the imitation's slope is: compare the
        descent with the discrete values.
    Raises: UserError where the two return different shapes.

    Rounding, with the derivative of a line:

    >>> x = torch.tensor([0.2, 1.7], requires_grad=True)
    >>> rounded = replaced_gradient(torch.round, lambda v: v, x)
    >>> rounded.sum().backward()
    >>> print(rounded.tolist(), x.grad.tolist())
    [0.0, 2.0] [1.0, 1.0]
    """
    with torch.no_grad():
        value = discrete(*inputs)
    stand_in = continuous(*inputs)
    if stand_in.shape != value.shape:
        shapes = f"{tuple(value.shape)} and {tuple(stand_in.shape)}"
        raise UserError(f"replaced_gradient: expected both functions to return one shape, got {shapes}")
    return value.detach() + (stand_in - stand_in.detach())


def _draw(x: Tensor, pairs: int, seed: int) -> Tensor:
    """Normal numbers (world, pair, ...), the same on every device."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(x.shape[0], pairs, *x.shape[1:], generator=generator).to(device=x.device, dtype=x.dtype)


def _evaluate(function: Callable[[Tensor], Tensor], x: Tensor, z: Tensor, sigma: float) -> tuple[Tensor, Tensor]:
    """f(x + sigma z) and f(x - sigma z), (world, pair, ...)."""
    rows = torch.cat([x[:, None] + sigma * z, x[:, None] - sigma * z], dim=1).flatten(0, 1)
    with torch.no_grad():
        values = function(rows)
    if not isinstance(values, Tensor) or values.dim() == 0 or values.shape[0] != rows.shape[0]:
        got = tuple(values.shape) if isinstance(values, Tensor) else type(values).__name__
        raise UserError(f"smoothed.function: expected {rows.shape[0]} rows, one for each of its input, got {got}")
    values = values.to(x.dtype)
    bad = ~torch.isfinite(values).flatten(1).all(dim=1) if values.dim() > 1 else ~torch.isfinite(values)
    if bool(bad.any()):
        raise UserError(
            f"smoothed.function: expected finite values, got {int(bad.sum())} rows of {rows.shape[0]} that are not; "
            "remedy: a smaller sigma, or a function that is defined around x"
        )
    plus, minus = values.reshape(x.shape[0], 2, z.shape[1], *values.shape[1:]).unbind(dim=1)
    return plus, minus


def _plain(quotient: Tensor, z: Tensor) -> Tensor:
    """Mean of d z: quotient (world, pair), z (world, pair, n) -> (world, n)."""
    return (quotient[..., None] * z).mean(dim=1)


def _with_control(quotient: Tensor, z: Tensor) -> Tensor:
    """The same mean, each half of the pairs with the slope that the other half gives as control variate."""
    pairs, size = z.shape[1], z.shape[2]
    half = pairs // 2
    parts = [(quotient[:, :half], z[:, :half]), (quotient[:, half:], z[:, half:])]
    slopes = [_plain(d, part) * (part.shape[1] / (part.shape[1] + size + 1.0)) for d, part in parts]
    total = torch.zeros_like(slopes[0])
    for (d, part), slope in zip(parts, reversed(slopes)):
        rest = d - (part * slope[:, None]).sum(dim=2)
        total = total + (slope + _plain(rest, part)) * (part.shape[1] / pairs)
    return total


def _positive(name: str, value: float) -> float:
    if not value > 0.0 or value == float("inf"):
        raise UserError(f"{name}: expected a positive number, got {value!r}")
    return value
