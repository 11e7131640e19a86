"""`Pipeline`: named stages and explicit wiring, checked when it is built.

A stage is any `torch.nn.Module`. The wiring says, for each stage, which value feeds which argument of its `forward`:
the name of another stage ("radius"), a field of a record that it returns ("camera.focal"), or a value that varies from
call to call ("$horizon"). The same graph is written in Python and in YAML (Hydra's `_target_`).
"""

import difflib
import inspect
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from dvc.errors import UserError
from dvc.parameter import Parameter


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """The nearest known name, and all of them."""
    known = sorted(known)
    near = difflib.get_close_matches(name, known, n=1)
    hint = f"; did you mean {near[0]!r}?" if near else ""
    return f"{hint}; known names: {', '.join(known)}"


def _forward_arguments(stage: nn.Module) -> tuple[dict[str, bool], bool]:
    """Argument names of a stage's forward -> whether required; and whether it takes any keyword."""
    arguments, open_ended = {}, False
    for name, item in inspect.signature(stage.forward).parameters.items():
        if item.kind is inspect.Parameter.VAR_KEYWORD:
            open_ended = True
        elif item.kind is not inspect.Parameter.VAR_POSITIONAL:
            arguments[name] = item.default is inspect.Parameter.empty
    return arguments, open_ended


class Pipeline(nn.Module):
    """A directed graph of stages.

    Arguments:
        stages: name -> module. A `Parameter` is a stage without inputs; its name here is its name everywhere.
        wiring: stage -> {argument: source}; a source is "stage", "stage.field" or "$context_value".
    Call: `pipeline(["loss", "camera.focal"], context={"horizon": 20})` computes what those outputs need, nothing else, and
        returns a dict by output name. `raw={"length": tensor}` replaces the unbounded values of parameters for this call
        (one world a row): how directional derivatives and random starts are evaluated without touching the modules.
    Raises: UserError for an unknown name (with the nearest one), a missing argument or a cycle, when it is built.
    """

    def __init__(self, stages: Mapping[str, nn.Module], wiring: Mapping[str, Mapping[str, str]] | None = None):
        super().__init__()
        for name, stage in stages.items():
            if not isinstance(stage, nn.Module):
                raise UserError(f"stage {name!r}: expected a torch.nn.Module, got {type(stage).__name__}")
            if "." in name or name.startswith("$"):
                raise UserError(f"stage {name!r}: expected a name without '.' and '$'")
            if hasattr(nn.ModuleDict(), name):
                raise UserError(f"stage {name!r}: the name is taken by torch; remedy: another name, {name}_ for instance")
        self.stages = nn.ModuleDict(dict(stages))
        self.wiring = {name: dict(inputs) for name, inputs in (wiring or {}).items()}
        self.order = self._check()

    # -- construction -------------------------------------------------------------------------------------------------
    def _check(self) -> list[str]:
        for name, inputs in self.wiring.items():
            if name not in self.stages:
                raise UserError(f"wiring: no stage {name!r}{did_you_mean(name, self.stages.keys())}")
            arguments, open_ended = _forward_arguments(self.stages[name])
            for argument, source in inputs.items():
                if argument not in arguments and not open_ended:
                    raise UserError(f"wiring of {name!r}: no argument {argument!r}{did_you_mean(argument, arguments)}")
                if not isinstance(source, str):
                    raise UserError(
                        f"wiring of {name!r}.{argument}: expected 'stage', 'stage.field' or '$context', got {source!r}; "
                        "remedy: a constant is a Parameter with `fixed: true`, or an argument of the stage's constructor"
                    )
                first = source.split(".")[0]
                if not source.startswith("$") and first not in self.stages:
                    hint = did_you_mean(first, self.stages.keys())
                    raise UserError(f"wiring of {name!r}.{argument}: no stage {first!r}{hint}")
        for name, stage in self.stages.items():
            arguments, _ = _forward_arguments(stage)
            missing = [a for a, required in arguments.items() if required and a not in self.wiring.get(name, {})]
            if missing:
                raise UserError(f"stage {name!r}: argument {missing[0]!r} is not wired; remedy: add wiring.{name}.{missing[0]}")
        return self._sorted()

    def sources(self, stage: str) -> list[str]:
        """The stages that feed a stage."""
        wired = self.wiring.get(stage, {}).values()
        return list(dict.fromkeys(s.split(".")[0] for s in wired if not s.startswith("$")))

    def _sorted(self) -> list[str]:
        order: list[str] = []
        state: dict[str, int] = {}

        def visit(name: str, path: tuple[str, ...]) -> None:
            if state.get(name) == 2:
                return
            if state.get(name) == 1:
                raise UserError(f"wiring: expected no cycle, got {' -> '.join((*path, name))}")
            state[name] = 1
            for source in self.sources(name):
                visit(source, (*path, name))
            state[name] = 2
            order.append(name)

        for name in self.stages:
            visit(name, ())
        return order

    # -- evaluation ---------------------------------------------------------------------------------------------------
    def needed(self, outputs: Iterable[str]) -> list[str]:
        """The stages that the outputs need, in order of evaluation."""
        wanted: set[str] = set()
        queue = [output.split(".")[0] for output in outputs]
        while queue:
            name = queue.pop()
            if name not in self.stages:
                raise UserError(f"output: no stage {name!r}{did_you_mean(name, self.stages.keys())}")
            if name not in wanted:
                wanted.add(name)
                queue.extend(self.sources(name))
        return [name for name in self.order if name in wanted]

    @staticmethod
    def _lookup(source: str, values: Mapping[str, Any]) -> Any:
        stage, *fields = source.split(".")
        value = values[stage]
        for field in fields:
            if isinstance(value, Mapping) and field in value:
                value = value[field]
            elif field in getattr(value, "_fields", ()):
                value = getattr(value, field)
            else:
                known = value.keys() if isinstance(value, Mapping) else getattr(value, "_fields", ())
                raise UserError(f"{source!r}: {stage!r} returns no field {field!r}{did_you_mean(field, map(str, known))}")
        return value

    def forward(
        self,
        outputs: Sequence[str] | None = None,
        *,
        context: Mapping[str, Any] | None = None,
        raw: Mapping[str, Tensor] | None = None,
    ) -> dict[str, Any]:
        context, raw = context or {}, raw or {}
        for name in raw:
            if not isinstance(dict(self.stages.items()).get(name), Parameter):
                parameters = [n for n, stage in self.stages.items() if isinstance(stage, Parameter)]
                raise UserError(f"raw: no parameter {name!r}{did_you_mean(name, parameters)}")
        names = list(outputs) if outputs is not None else list(self.stages)
        values: dict[str, Any] = {}
        for name in self.needed(names):
            stage = self.stages[name]
            if name in raw:
                values[name] = stage.to_value(raw[name])  # type: ignore[operator,union-attr]
                continue
            arguments = {}
            for argument, source in self.wiring.get(name, {}).items():
                if source.startswith("$"):
                    if source[1:] not in context:
                        raise UserError(
                            f"stage {name!r}: context value {source!r} was not given{did_you_mean(source[1:], context)}"
                        )
                    arguments[argument] = context[source[1:]]
                else:
                    arguments[argument] = self._lookup(source, values)
            try:
                values[name] = stage(**arguments)
            except Exception as error:  # Python prints notes below the traceback; dvc.cli_errors, before the message
                error.__notes__ = [f"stage {name!r}", *getattr(error, "__notes__", ())]  # type: ignore[attr-defined]
                raise
        return {name: self._lookup(name, values) for name in names}

    # -- parameters ---------------------------------------------------------------------------------------------------
    def declared(self) -> dict[str, Parameter]:
        """The named unknowns that are optimised, in the order of declaration."""
        return {n: s for n, s in self.stages.items() if isinstance(s, Parameter) and not s.fixed}

    def weights(self) -> dict[str, nn.Parameter]:
        """The trainable weights of learned stages: everything that is not a declared `Parameter`."""
        return {
            f"{name}.{key}": weight
            for name, stage in self.stages.items()
            if not isinstance(stage, Parameter)
            for key, weight in stage.named_parameters()
            if weight.requires_grad
        }

    @torch.no_grad()
    def set_values(self, values: Mapping[str, Tensor]) -> None:
        """Set declared parameters, physical units, (world, *shape)."""
        for name, value in values.items():
            if name not in self.stages:
                raise UserError(f"values: no stage {name!r}{did_you_mean(name, self.stages.keys())}")
            stage = self.stages[name]
            if not isinstance(stage, Parameter):
                raise UserError(f"{name!r}: expected a Parameter, got {type(stage).__name__}")
            try:
                stage.set_worlds(value)
            except UserError as error:
                raise UserError(f"{name!r}: {error}") from error

    # -- description --------------------------------------------------------------------------------------------------
    def describe(self) -> str:
        """The graph as a table: stage, what it is, what feeds it."""
        rows = [("stage", "is", "inputs")]
        for name in self.order:
            stage = self.stages[name]
            if isinstance(stage, Parameter):
                low = "-inf" if stage.lower is None else f"{stage.lower.tolist()}"
                high = "inf" if stage.upper is None else f"{stage.upper.tolist()}"
                kind = "fixed" if stage.fixed else f"({low}, {high})"
                rows.append((name, f"Parameter {kind} [{stage.unit or '1'}]", ""))
            else:
                rows.append((name, type(stage).__name__, ", ".join(f"{a}={s}" for a, s in self.wiring.get(name, {}).items())))
        widths = [max(len(row[i]) for row in rows) for i in range(2)]
        return "\n".join(f"{a:<{widths[0]}}  {b:<{widths[1]}}  {c}".rstrip() for a, b, c in rows)

    def mermaid(self) -> str:
        """The graph as a Mermaid flowchart."""
        lines = ["flowchart LR"]
        for name in self.order:
            stage = self.stages[name]
            shape = f"([{name}])" if isinstance(stage, Parameter) else f"[{name}<br/>{type(stage).__name__}]"
            lines.append(f"  {name}{shape}")
        for name in self.order:
            lines += [f"  {source} --> {name}" for source in self.sources(name)]
        return "\n".join(lines)
