"""Solids of primitives as stages, described by nested settings whose numbers may be inputs.

    shape:
      _target_: geometry.sdf_stage.SdfShapes
      solid:
        smooth_union:
          - {ellipsoid: [torso], rotation: [0, 0, 0, 1]}
          - {capsule: [arm_length, 0.03], position: shoulder, scale: size}
        radius: fillet

A solid is a mapping with one kind of primitive and the list of its sizes (vectors count as one), or one operation and the list
of solids that it joins; besides it may have `scale`, `rotation` (quaternion x, y, z, w) and `position`, done in this order, and
smooth operations have a `radius`. A string in the place of a number or vector is the name of an input of the stage.
"""

from collections.abc import Callable, Mapping
from typing import Any

from torch import Tensor, nn

from dvc.errors import UserError
from geometry import sdf_blend, sdf_shapes
from geometry.sdf_evaluate import sdf_value_and_normal
from geometry.sdf_shapes import KINDS, ShapeList, moved, scaled

SHARP: dict[str, Callable] = {name: getattr(sdf_blend, name) for name in sdf_blend.OPERATIONS}
SMOOTH: dict[str, Callable] = {f"smooth_{name}": getattr(sdf_blend, f"smooth_{name}") for name in sdf_blend.OPERATIONS}
POSE = ("scale", "rotation", "position")


class SdfShapes(nn.Module):
    """A solid whose sizes, poses and blend radii are inputs.

    Arguments: solid: the nested settings, see above.
    Forward: one tensor for each name in the settings, numbers of shape (world,), vectors (world, 3), quaternions (world, 4) ->
        ShapeList.
    Raises: UserError for an unknown kind or setting, and for a name that is missing or not used.
    """

    def __init__(self, solid: Mapping[str, Any]):
        super().__init__()
        self.names: list[str] = []
        self.solid = self._checked(solid)

    def _checked(self, solid: Any) -> dict[str, Any]:
        known = [*KINDS, *SHARP, *SMOOTH]
        if not isinstance(solid, Mapping):
            raise UserError(f"solid: expected a mapping with one of {', '.join(known)}, got {solid!r}")
        heads = [key for key in solid if key in known]
        if len(heads) != 1:
            raise UserError(
                f"solid: expected one of {', '.join(known)}, got the settings {', '.join(map(str, solid)) or 'none'}"
            )
        head = heads[0]
        allowed = {head, *POSE, *(("radius",) if head in SMOOTH else ())}
        for key in solid:
            if key not in allowed:
                raise UserError(f"solid {head}: no setting {key!r}; known settings: {', '.join(sorted(allowed - {head}))}")
        if head in SMOOTH and "radius" not in solid:
            raise UserError(f"solid {head}: expected a radius, got none")
        items = solid[head]
        if isinstance(items, (str, int, float)):
            raise UserError(f"solid {head}: expected a list, got {items!r}")
        items = list(items or [])
        checked = {head: items if head in KINDS else [self._checked(item) for item in items]}
        if head not in KINDS and not items:
            raise UserError(f"solid {head}: expected at least one solid, got none")
        checked |= {key: value if isinstance(value, (str, int, float)) else list(value)
                    for key, value in solid.items() if key != head}  # fmt: skip
        for value in [*(items if head in KINDS else []), *(v for key, v in checked.items() if key != head)]:
            if isinstance(value, str) and value not in self.names:
                self.names.append(value)
        return checked

    def forward(self, **inputs: Tensor) -> ShapeList:
        if set(inputs) != set(self.names):
            got = ", ".join(sorted(inputs)) or "none"
            raise UserError(f"SdfShapes: expected the inputs {', '.join(sorted(self.names)) or 'none'}, got {got}")
        return self._built(self.solid, inputs)

    def _built(self, solid: dict[str, Any], inputs: Mapping[str, Tensor]) -> ShapeList:
        def value(item: Any) -> Any:
            return inputs[item] if isinstance(item, str) else item

        head = next(iter(solid))
        if head in KINDS:
            constructor = getattr(sdf_shapes, head)
            try:
                shape = constructor(*[value(item) for item in solid[head]])
            except TypeError as error:
                sizes = ", ".join(KINDS[head]) or "none"
                raise UserError(f"solid {head}: expected the sizes {sizes}, got {solid[head]}") from error
        else:
            parts = [self._built(part, inputs) for part in solid[head]]
            shape = SHARP[head](*parts) if head in SHARP else SMOOTH[head](*parts, radius=value(solid["radius"]))
        if "scale" in solid:
            shape = scaled(shape, value(solid["scale"]))
        if "rotation" in solid or "position" in solid:
            rotation = value(solid["rotation"]) if "rotation" in solid else None
            shape = moved(shape, value(solid.get("position", (0.0, 0.0, 0.0))), rotation)
        return shape


class SdfDistance(nn.Module):
    """Distances and normals of a solid at points.

    Forward: shape: ShapeList; points [m] (world, point, 3) -> {"distance": [m] (world, point), "normal": (world, point, 3)}.
    """

    def forward(self, shape: ShapeList, points: Tensor) -> dict[str, Tensor]:
        distance, normal = sdf_value_and_normal(shape, points)
        return {"distance": distance, "normal": normal}
