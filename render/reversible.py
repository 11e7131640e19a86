"""`@reversible`: a Warp function whose reverse exists in every module that uses it.

Warp 1.19 writes the reverse of a function only if a kernel with a backward pass, or `wp.grad` itself, was seen to need it when
the function was first met. A function that forward code has called before is left with an empty reverse, and `wp.grad` of
anything that calls it is silently zero. The mark makes the reverse part of the function; it costs its compilation.
"""

from typing import Any


def reversible(function: Any) -> Any:
    """Mark a `@wp.func` (write it above `@wp.func`); the functions that it calls need the mark, too."""
    if not hasattr(function.adj, "force_adjoint_codegen"):  # not a part of Warp's public interface
        raise RuntimeError("reversible: this version of Warp keeps no `force_adjoint_codegen`; remedy: Warp 1.19")
    function.adj.force_adjoint_codegen = True
    return function


def calls_gradients(function: Any) -> Any:
    """Mark a `@wp.func` that calls functions which use `wp.grad`: Warp writes those behind all others, and it with them."""
    if not hasattr(function.adj, "uses_grad_call"):  # not a part of Warp's public interface
        raise RuntimeError("calls_gradients: this version of Warp keeps no `uses_grad_call`; remedy: Warp 1.19")
    function.adj.uses_grad_call = True
    return function
