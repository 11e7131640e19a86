"""`Robot`: a tree of links whose numbers may be expressions in named parameters. It becomes a `Linkage` with gradients.

    robot = Robot(
        links={
            "upper": {"shapes": [{"kind": "capsule", "size": ["radius", "length / 2"], "position": [0, 0, "-length / 2"]}]},
            "lower": {"shapes": [{"kind": "capsule", "size": ["radius", "length / 2"], "position": [0, 0, "-length / 2"]}]},
        },
        joints={
            "shoulder": {"kind": "revolute", "parent": None, "child": "upper", "axis": [0, 1, 0]},
            "elbow": {
                "kind": "revolute", "parent": "upper", "child": "lower", "axis": [0, 1, 0], "position": [0, 0, "-length"]
            },
        },
        parameters={"length": 0.5, "radius": 0.03},
    )
    linkage = robot(length=torch.tensor([0.4, 0.5], requires_grad=True))        # two worlds

The fields are those of `physics.robot_spec`; in YAML they read the same. An expression knows + - * / **, parentheses, numbers
and names of parameters. A RobotSpec that was imported takes them by `edits`: {"joints.elbow.position": [0, 0, "-length"]}.
"""

import ast
import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from dvc.errors import UserError
from dvc.records import Bodies, Mesh, State, expand_worlds, world_count
from geometry.mass_properties import MassProperties
from geometry.mesh_io import read_mesh
from physics.articulation import COORDINATES, FAR, FREE, RATES, SPHERICAL, Linkage, Topology, check_linkage, topology, unit
from physics.link_mass import Solids, mass_of_links, matrices, with_body
from physics.robot_check import check_spec
from physics.robot_spec import ActuatorSpec, InertialSpec, JointSpec, LinkSpec, RobotSpec, ShapeSpec

LIMIT_STIFFNESS = 1.0e3  # [N m/rad] or [N/m]
LIMIT_DAMPING = 1.0e1
FRICTION_WIDTH = 1.0e-2  # [rad/s] or [m/s]
OPERATIONS: dict[type, Callable[[Any, Any], Any]] = {
    ast.Add: lambda a, b: a + b,
    ast.Sub: lambda a, b: a - b,
    ast.Mult: lambda a, b: a * b,
    ast.Div: lambda a, b: a / b,
    ast.Pow: lambda a, b: a**b,
}
Values = Mapping[str, Any]


def evaluate(text: str, values: Values, where: str) -> Any:
    """The value of an arithmetic expression in named values. Raises: UserError that names the place and what is unknown."""

    def of(node: ast.AST) -> Any:
        if isinstance(node, ast.Constant) and isinstance(node.value, (int, float)) and not isinstance(node.value, bool):
            return float(node.value)
        if isinstance(node, ast.Name):
            if node.id not in values:
                raise UserError(f"{where}: {text!r} names {node.id!r}, expected one of the parameters {', '.join(values)}")
            return values[node.id]
        if isinstance(node, ast.BinOp) and type(node.op) in OPERATIONS:
            return OPERATIONS[type(node.op)](of(node.left), of(node.right))
        if isinstance(node, ast.UnaryOp) and isinstance(node.op, (ast.USub, ast.UAdd)):
            return -of(node.operand) if isinstance(node.op, ast.USub) else of(node.operand)
        raise UserError(f"{where}: expected numbers, parameters and + - * / ** in {text!r}, got {ast.dump(node)[:40]}")

    try:
        value = of(ast.parse(text.strip(), mode="eval").body)
    except (SyntaxError, ZeroDivisionError, OverflowError):
        raise UserError(f"{where}: expected a number or an expression that has a value, got {text!r}") from None
    if isinstance(value, complex):
        raise UserError(f"{where}: expected a real number, got {value:.4g} of {text!r}")
    return value


def _plain(value: Any) -> Any:
    """Containers of Hydra, tuples and dataclasses as dicts and lists."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {field.name: _plain(getattr(value, field.name)) for field in dataclasses.fields(value)}
    if isinstance(value, Mapping) or hasattr(value, "items"):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, (str, int, float, Tensor)) or value is None:
        return value
    return [_plain(item) for item in value]


def _named(value: Any) -> dict[str, dict]:
    """{name: fields}, from such a mapping or from a list of specs."""
    plain = _plain(value)
    if isinstance(plain, list):
        if not all(isinstance(item, dict) and "name" in item for item in plain):
            raise UserError(f"Robot: expected a name for each link, joint and actuator in a list, got {str(plain)[:80]}")
        if len({item["name"] for item in plain}) < len(plain):
            raise UserError(f"Robot: expected names that differ, got {', '.join(repr(item['name']) for item in plain)}")
        return {item["name"]: {key: v for key, v in item.items() if key != "name"} for item in plain}
    if not isinstance(plain, dict) or not all(isinstance(fields or {}, dict) for fields in plain.values()):
        raise UserError(f"Robot: expected links, joints and actuators as mappings from names to fields, got {str(plain)[:80]}")
    return {name: dict(fields or {}) for name, fields in plain.items()}


class Robot(nn.Module):
    """A robot with named parameters.

    Arguments:
        links, joints, actuators: {name: fields of LinkSpec, JointSpec, ActuatorSpec}; `spec`: a RobotSpec in their place.
        parameters: {name: default value}. edits: {"joints.NAME.field": value} (a dot and a number into a list) over a spec.
        limit_stiffness, limit_damping, friction_width: of all joints, see `Linkage`; numbers or expressions.
    Forward: parameters by name, tensors (world,) or () or numbers; the others have their defaults -> Linkage. A mass from
        shapes and densities is computed anew in each call.
    Gradient: complete, to every parameter.
    Raises: UserError, one line that names link or joint: at the defaults whatever `physics.robot_check.check_spec` refuses,
        in a call whatever `check_linkage` does; a mesh that is open or inside out; a field or parameter that is not known.
    """

    def __init__(
        self,
        links: Any = None,
        joints: Any = None,
        actuators: Any = None,
        *,
        spec: RobotSpec | None = None,
        parameters: Mapping[str, float] | None = None,
        edits: Mapping[str, Any] | None = None,
        name: str = "robot",
        limit_stiffness: float | str = LIMIT_STIFFNESS,
        limit_damping: float | str = LIMIT_DAMPING,
        friction_width: float | str = FRICTION_WIDTH,
    ):
        super().__init__()
        if (spec is None) == (links is None):
            raise UserError("Robot: expected either links and joints, or spec, got " + ("neither" if spec is None else "both"))
        if spec is not None:
            links, joints, actuators, name = spec.links, spec.joints, spec.actuators, spec.name
        self.fields = {"links": _named(links), "joints": _named(joints or {}), "actuators": _named(actuators or {})}
        self.parameters_by_name = {}
        for key, value in dict(parameters or {}).items():
            if not isinstance(value, (int, float)):
                raise UserError(f"Robot.parameters: {key!r}: expected a number, its default, got {value!r}")
            self.parameters_by_name[str(key)] = float(value)
        for path, value in dict(edits or {}).items():
            self._edit(path, _plain(value))
        self.limits = (limit_stiffness, limit_damping, friction_width)
        self.spec = self._spec(name)
        check_spec(self.spec)
        self.topology: Topology = topology(self.spec)
        self._meshes = self._read_meshes()

    def extra_repr(self) -> str:
        return f"{self.topology.name!r}, {len(self.topology.links)} links, parameters {', '.join(self.parameters_by_name)}"

    def _edit(self, path: str, value: Any) -> None:
        *way, last = path.split(".")
        place: Any = self.fields
        for depth, step in enumerate((*way, last)):
            known = list(place) if isinstance(place, dict) else [str(n) for n in range(len(place))]
            is_new_field = depth == len(way) >= 2 and isinstance(place, dict)
            if step not in known and not is_new_field:
                raise UserError(f"Robot.edits: {path!r}: expected one of {', '.join(known)} in place of {step!r}")
            if depth < len(way):
                place = place[step] if isinstance(place, dict) else place[int(step)]
                if not isinstance(place, (dict, list)):
                    raise UserError(f"Robot.edits: {path!r}: {step!r} has no fields, it is {place!r}")
        place[last if isinstance(place, dict) else int(last)] = value

    def _spec(self, name: str) -> RobotSpec:
        """The description at the defaults, which is what is checked."""

        def numbers(value: Any, where: str) -> Any:
            """Expressions evaluated, lists as tuples."""
            if isinstance(value, dict):
                return {key: numbers(item, f"{where}.{key}") for key, item in value.items()}
            if isinstance(value, list):
                return tuple(numbers(item, where) for item in value)
            if isinstance(value, str) and where.rsplit(".", 1)[-1] not in ("kind", "parent", "child", "joint", "file"):
                return float(evaluate(value, self.parameters_by_name, where))
            return value

        def made(kind: Any, where: str, fields: dict) -> Any:
            known = [field.name for field in dataclasses.fields(kind)]
            unknown = [key for key in fields if key not in known]
            if unknown:
                raise UserError(f"{where}: expected fields among {', '.join(known)}, got {unknown[0]!r}")
            try:
                return kind(**fields)
            except TypeError as error:
                raise UserError(f"{where}: {str(error).split(') ')[-1]}") from None

        links = []
        for link, fields in self.fields["links"].items():
            values = numbers(fields, f"link {link!r}")
            shapes = tuple(made(ShapeSpec, f"link {link!r}", shape) for shape in values.get("shapes", ()))
            given = values.get("inertial")
            inertial = None if given is None else made(InertialSpec, f"link {link!r}", given)
            links.append(made(LinkSpec, f"link {link!r}", values | {"name": link, "shapes": shapes, "inertial": inertial}))
        joints, actuators = (
            tuple(
                made(kind, f"{noun} {key!r}", numbers(fields, f"{noun} {key!r}") | {"name": key})
                for key, fields in self.fields[noun + "s"].items()
            )
            for noun, kind in (("joint", JointSpec), ("actuator", ActuatorSpec))
        )
        return RobotSpec(name, tuple(links), joints, actuators)

    def _read_meshes(self) -> dict[str, Mesh]:
        meshes = {}
        for link in self.spec.links:
            for shape in link.shapes if link.inertial is None else ():
                if shape.kind == "mesh" and shape.massive and shape.file is not None:
                    vertices, faces = read_mesh(shape.file)
                    meshes[shape.file] = Mesh(torch.from_numpy(vertices)[None], torch.from_numpy(faces).int())
        return meshes

    def forward(self, **parameters: Tensor) -> Linkage:
        unknown = [name for name in parameters if name not in self.parameters_by_name]
        if unknown:
            raise UserError(f"Robot: expected parameters among {', '.join(self.parameters_by_name)}, got {unknown[0]!r}")
        for name, value in parameters.items():
            if isinstance(value, Tensor) and (value.dim() > 1 or not value.numel()):
                raise UserError(f"Robot: {name}: expected a number, () or (world,), got the shape {tuple(value.shape)}")
            if not isinstance(value, (Tensor, int, float)):
                raise UserError(f"Robot: {name}: expected a tensor or a number, got {type(value).__name__}")
        tensors = [value for value in parameters.values() if isinstance(value, Tensor)]
        world_count(*(value.reshape(-1) for value in tensors))
        device = tensors[0].device if tensors else torch.device("cpu")
        reader = _Reader({**self.parameters_by_name, **parameters}, device)
        tree = self.topology
        links = [self.fields["links"][name] for name in tree.links]
        joints = [self.fields["joints"][name] for name in tree.joints]
        drives = [self.fields["actuators"][name] for name in tree.actuators]
        per_rate = [joint for joint, kind in zip(joints, tree.kinds, strict=True) for _ in range(RATES[kind])]
        constant = [{"value": value} for value in self.limits]
        each = lambda items, key, default: reader.stack([item.get(key, default) for item in items], (key,))  # noqa: E731
        none = lambda value, far: far if value is None else value  # noqa: E731
        mass, center, inertia = self._masses(reader, links)
        linkage = Linkage(
            mass,
            center,
            inertia,
            each(joints, "position", [0.0, 0.0, 0.0]),
            each(joints, "rotation", [0.0, 0.0, 0.0, 1.0]),
            each(joints, "axis", [0.0, 0.0, 1.0]),
            each(joints, "stiffness", 0.0),
            each(joints, "rest", 0.0),
            reader.stack([none(joint.get("lower"), -FAR) for joint in joints], ("lower",)),
            reader.stack([none(joint.get("upper"), FAR) for joint in joints], ("upper",)),
            each(constant[:1] * len(joints), "value", 0.0),
            each(constant[1:2] * len(joints), "value", 0.0),
            each(per_rate, "armature", 0.0),
            each(per_rate, "damping", 0.0),
            each(per_rate, "friction", 0.0),
            each(constant[2:] * len(per_rate), "value", 0.0),
            each(drives, "gear", 1.0),
            each(drives, "kp", 0.0),
            each(drives, "kd", 0.0),
            reader.stack([none(drive.get("lower"), -FAR) for drive in drives], ("lower",)),
            reader.stack([none(drive.get("upper"), FAR) for drive in drives], ("upper",)),
            reader.stack([none(drive.get("limit"), FAR) for drive in drives], ("limit",)),
        )
        check_linkage(tree, linkage)
        return linkage

    def _masses(self, reader: "_Reader", links: Sequence[dict]) -> tuple[Tensor, Tensor, Tensor]:
        groups: dict[str, list[tuple[int, dict]]] = {}
        for number, link in enumerate(links):
            for shape in link.get("shapes") or () if link.get("inertial") is None else ():
                if shape.get("massive", True) and shape["kind"] != "plane":
                    groups.setdefault(shape["kind"], []).append((number, shape))
        names = self.topology.links
        solids = []
        for kind, members in groups.items():
            shapes = [shape for _, shape in members]
            if kind == "mesh":
                continue
            sizes = reader.stack([shape["size"] for shape in shapes], ("size",))
            self._check_sizes(kind, sizes, [number for number, _ in members])
            solids.append(
                Solids(
                    kind,
                    sizes,
                    reader.stack([shape.get("position", [0.0, 0.0, 0.0]) for shape in shapes], ("position",)),
                    reader.stack([shape.get("rotation", [0.0, 0.0, 0.0, 1.0]) for shape in shapes], ("rotation",)),
                    reader.stack([shape.get("density", 1000.0) for shape in shapes], ("density",)),
                    torch.tensor([number for number, _ in members], device=reader.device),
                )
            )
        given = [(number, link["inertial"]) for number, link in enumerate(links) if link.get("inertial") is not None]
        count = len(links)
        if solids:
            mass, center, inertia = mass_of_links(solids, count)
        else:
            new = torch.zeros(1, count, device=reader.device)
            mass, center, inertia = new, new[..., None].expand(1, count, 3), new[..., None, None].expand(1, count, 3, 3)
        for number, shape in groups.get("mesh", ()):
            mass, center, inertia = with_body(mass, center, inertia, number, self._mesh_body(reader, names[number], shape))
        if given:
            owner = torch.tensor([number for number, _ in given], device=reader.device)
            parts = [
                reader.stack([item["mass"] for _, item in given], ("mass",)),
                reader.stack([item.get("center_of_mass", [0.0, 0.0, 0.0]) for _, item in given], ("center_of_mass",)),
                reader.stack(
                    [[v for row in item.get("inertia", [[0.0] * 3] * 3) for v in row] for _, item in given], ("inertia",)
                ),
            ]
            worlds = max(mass.shape[0], *(part.shape[0] for part in parts))
            parts = [expand_worlds(part, worlds) for part in parts]
            mass, center, inertia = (expand_worlds(t, worlds) for t in (mass, center, inertia))
            mass = mass.index_copy(1, owner, parts[0])
            center = center.index_copy(1, owner, parts[1])
            inertia = inertia.index_copy(1, owner, parts[2].unflatten(-1, (3, 3)))
        return mass, center, inertia

    def _mesh_body(self, reader: "_Reader", name: str, shape: dict) -> Bodies:
        mesh = self._meshes[shape["file"]]
        scale, place, turn = (
            reader.stack([shape.get(key) or default], (key,))[:, 0]
            for key, default in (("size", [1.0] * 3), ("position", [0.0] * 3), ("rotation", [0.0, 0.0, 0.0, 1.0]))
        )
        vertices = (mesh.vertices.to(reader.device) * scale[:, None]) @ matrices(unit(turn)).mT + place[:, None]
        density = reader.stack([shape.get("density", 1000.0)], ("density",))[:, 0]
        try:
            return MassProperties()(Mesh(vertices, mesh.faces.to(reader.device)), density)
        except UserError as error:
            raise UserError(f"link {name!r}: mesh {shape['file']!r}: {error}") from None

    def _check_sizes(self, kind: str, sizes: Tensor, numbers: list[int]) -> None:
        """A capsule may have no length, an edge no radius; every other size is above zero."""
        least = sizes.detach().amin(0)
        positive = least[:, :1] if kind == "capsule" else least[:, :3]
        bad = ~((positive > 0.0).all(1) & (least >= 0.0).all(1))
        if kind == "rounded_box":
            bad = bad | (sizes[..., 3] > sizes[..., :3].amin(-1)).any(0)
        if bool(bad.any()):
            first = int(bad.nonzero()[0])
            values = ", ".join(f"{value:.4g}" for value in least[first].tolist())
            raise UserError(
                f"link {self.topology.links[numbers[first]]!r}: a {kind} of size ({values}) m has no volume; "
                "expected sizes above zero"
            )

    def start(self, worlds: int = 1) -> State:
        """At rest, with the coordinates `start` of the joints; quaternions are no rotation."""
        coordinates: list[float] = []
        for name, kind in zip(self.topology.joints, self.topology.kinds, strict=True):
            joint = next(j for j in self.spec.joints if j.name == name)
            ball = [0.0, 0.0, 0.0, 1.0]
            coordinates += {FREE: [0.0] * 3 + ball, SPHERICAL: ball}.get(kind, [joint.start] * COORDINATES[kind])
        return State(torch.tensor([coordinates]).repeat(worlds, 1), torch.zeros(worlds, self.topology.rate_count))


class _Reader:
    """Numbers and expressions of many items, stacked to tensors."""

    def __init__(self, values: Values, device: torch.device):
        self.values, self.device = values, device
        self.worlds = max([v.shape[0] for v in values.values() if isinstance(v, Tensor) and v.dim()], default=1)

    def stack(self, items: Sequence[Any], where: tuple[str, ...]) -> Tensor:
        """(world, item) of numbers or (world, item, n) of lists; the world axis is 1 where no parameter occurs."""
        rows = [item if isinstance(item, (list, tuple)) else [item] for item in items]
        flat = [self._value(value, where[0]) for row in rows for value in row]
        shape = (len(items), len(rows[0])) if rows and isinstance(items[0], (list, tuple)) else (len(items),)
        if not any(isinstance(value, Tensor) for value in flat):
            return torch.tensor(flat, dtype=torch.float32, device=self.device).reshape(1, *shape)
        columns = [
            value.to(self.device).reshape(-1) if isinstance(value, Tensor) else torch.tensor([value], device=self.device)
            for value in flat
        ]
        return torch.stack([column.expand(self.worlds) for column in columns], dim=1).reshape(self.worlds, *shape)

    def _value(self, value: Any, where: str) -> Any:
        if isinstance(value, str):
            return evaluate(value, self.values, where)
        return value if isinstance(value, Tensor) else float(value)
