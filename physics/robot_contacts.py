"""The shapes of a robot's description as shapes that touch.

Sphere, capsule, cylinder, box, rounded box, ellipsoid, and planes of the world; a mesh that collides raises Unsupported (it
may be given as points: `Shape("points", ...)`). Sizes are numbers: those with gradient go to
`ContactScene.numbers(size=...)`.
"""

from dvc.errors import Unsupported, UserError
from physics.articulation import Topology
from physics.contact_scene import Shape
from physics.robot_spec import RobotSpec, ShapeSpec


def _touching(shape: ShapeSpec, link: int, where: str) -> Shape:
    kind, size = shape.kind, tuple(shape.size)
    if kind == "plane" and link < 0:
        kind, size = "half_space", ()
    elif kind in ("capsule", "cylinder"):
        size = (size[1], size[0])
    elif kind in ("sphere", "box", "rounded_box", "ellipsoid"):
        pass
    else:
        raise Unsupported(
            f"{where}: a {shape.kind} that collides has no contact; remedy: a capsule or box in its place, its points, or "
            "collides: false"
        )
    return Shape(kind, link, size, shape.position, shape.rotation, 0, shape.category, shape.mask)


def robot_shapes(spec: RobotSpec, tree: Topology) -> tuple[tuple[Shape, ...], tuple[float | None, ...]]:
    """(shapes, friction of each where the description has it): those of the world first, then link by link in the tree's order.

    Raises: Unsupported, naming the link, for a shape that collides and has no contact; UserError where spec and tree differ.
    """
    by_name = {link.name: link for link in spec.links}
    missing = [name for name in tree.links if name not in by_name]
    if missing:
        raise UserError(f"robot {spec.name!r}: expected the links of its tree, got none named {missing[0]!r}")
    owners = [(-1, "the world", shape) for shape in spec.ground]
    owners += [(i, f"link {name!r}", shape) for i, name in enumerate(tree.links) for shape in by_name[name].shapes]
    given = [(link, where, shape) for link, where, shape in owners if shape.collides]
    shapes = tuple(_touching(shape, link, f"robot {spec.name!r}: {where}") for link, where, shape in given)
    return shapes, tuple(shape.friction for _, _, shape in given)
