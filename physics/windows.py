r"""How a horizon of frames is cut: into calls of a step op, and into windows at whose borders the gradient stops.

With a window of W frames the state that frame W j begins with is the constant s_j as far as derivatives go, so that the
derivative of the state x_k in a parameter p is taken over the frames of its own window only, W j < k <= W (j + 1):

    truncated dx_k/dp = sum_{W j < i <= k} Phi(k, i) df_i/dp          full: sum_{0 < i <= k} Phi(k, i) df_i/dp

with x_i = f_i(x_{i-1}, p) and Phi(k, i) = dx_k/dx_i (truncated backpropagation through time; Williams and Peng 1990). What is
left out is every effect that reaches x_k through the state at a window's beginning: the gradient is biased, also in its sign
where that part is the larger one, and the initial state has a gradient from the first window alone. In turn no product Phi
is longer than W frames, so that it cannot explode (Metz et al. 2021). Values are the same. Finite differences do not see the
cut: they measure the full derivative.
"""

from collections.abc import Iterator

from torch import Tensor

from dvc.errors import UserError


def check_window(name: str, window: int | None) -> None:
    """Raises: UserError for a window that is no whole number from 1."""
    if window is not None and not (type(window) is int and window >= 1):
        raise UserError(f"{name}: expected a number of frames from 1, or None for the full gradient, got {window!r}")


def calls(frame_count: int, chunk: int, window: int | None = None) -> Iterator[tuple[int, int]]:
    """First frame and number of frames of each call of a step op: at most `chunk` frames, none across a window's border.

    A window that is longer than a chunk is divided evenly, so that all its calls share one trace.
    """
    if window is not None:
        chunk = -(-window // -(-window // chunk))
    done = 0
    while done < frame_count:
        left = frame_count if window is None else min(frame_count, done - done % window + window)
        frames = min(chunk, left - done)
        yield done, frames
        done += frames


def carried(first: int, window: int | None, *state: Tensor) -> tuple[Tensor, ...]:
    """The state that the call at frame `first` begins with: without its past where a window begins."""
    begins = window is not None and first > 0 and first % window == 0
    return tuple(t.detach() for t in state) if begins else state
