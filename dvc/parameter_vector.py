"""The declared parameters of a pipeline as one vector of unbounded numbers, a row a world."""

from collections.abc import Iterable, Mapping

import torch
from torch import Tensor

from dvc.errors import UserError
from dvc.pipeline import Pipeline


class ParameterVector:
    """Flat view of declared parameters.

    Arguments: pipeline; names: which ones, in this order (default: all).
    `names`, `labels` (one a number: "color[1]" for elements of vectors), `slices`, `size`.
    """

    def __init__(self, pipeline: Pipeline, names: Iterable[str] | None = None):
        declared = pipeline.declared()
        self.names = list(declared) if names is None else list(names)
        unknown = [n for n in self.names if n not in declared]
        if unknown:
            raise UserError(f"parameters: no declared parameter {unknown[0]!r}; declared: {', '.join(declared)}")
        self.parameters = {name: declared[name] for name in self.names}
        self.slices: dict[str, slice] = {}
        self.labels: list[str] = []
        at = 0
        for name, parameter in self.parameters.items():
            self.slices[name] = slice(at, at + parameter.size)
            at += parameter.size
            self.labels += [name] if parameter.size == 1 else [f"{name}[{i}]" for i in range(parameter.size)]
        self.size = at

    def gather(self) -> Tensor:
        """Current unbounded values, detached, (world, size)."""
        worlds = max((p.raw.shape[0] for p in self.parameters.values()), default=1)
        parts = [p.raw.detach().reshape(p.raw.shape[0], -1).expand(worlds, -1) for p in self.parameters.values()]
        return torch.cat(parts, dim=1).clone() if parts else torch.zeros(1, 0)

    def split(self, vector: Tensor) -> dict[str, Tensor]:
        """(world, size) -> name -> (world, *shape), sharing memory and gradient."""
        return {n: vector[:, self.slices[n]].reshape(-1, *p.shape) for n, p in self.parameters.items()}

    def values(self, vector: Tensor) -> dict[str, Tensor]:
        """(world, size) -> name -> physical values (world, *shape)."""
        return {n: self.parameters[n].to_value(raw) for n, raw in self.split(vector).items()}

    def join(self, raw: Mapping[str, Tensor]) -> Tensor:
        """The inverse of `split`."""
        return torch.cat([raw[n].reshape(raw[n].shape[0], -1) for n in self.names], dim=1)

    @torch.no_grad()
    def scatter(self, vector: Tensor) -> None:
        """Write unbounded values back into the parameters."""
        for name, raw in self.split(vector).items():
            self.parameters[name].raw = torch.nn.Parameter(raw.detach().clone())

    def sample(self, worlds: int, generator: torch.Generator) -> Tensor:
        """Random starts: each parameter uniform in its `explore` box, else its first guess. (world, size), unbounded."""
        return self.join({n: p.to_raw(p.sample(worlds, generator)) for n, p in self.parameters.items()})
