"""What a robot is made of, before it becomes tensors: links with shapes, joints with limits, actuators.

Plain frozen dataclasses in SI units (m, kg, s, rad), axes right-handed and z up, quaternions (x, y, z, w). Importers
(`physics.robot_import`) and settings in YAML both end here; `physics.articulation` turns it into tensors with gradients.
"""

from dataclasses import dataclass

Vector = tuple[float, float, float]
Quaternion = tuple[float, float, float, float]
ORIGIN: Vector = (0.0, 0.0, 0.0)
UPRIGHT: Quaternion = (0.0, 0.0, 0.0, 1.0)
JOINT_KINDS = ("fixed", "free", "revolute", "prismatic", "spherical")
SHAPE_KINDS = ("sphere", "capsule", "box", "rounded_box", "ellipsoid", "cylinder", "plane", "mesh")
ACTUATOR_KINDS = ("torque", "position", "velocity")


@dataclass(frozen=True)
class ShapeSpec:
    """A solid in its link's frame.

    size [m]: sphere (radius,); capsule and cylinder (radius, half length), axis z; box (half extents); rounded_box
    (half extents, radius of the edges inside them); ellipsoid (semi-axes); plane (), normal z; mesh (scale x, y, z).
    """

    kind: str
    size: tuple[float, ...] = ()
    position: Vector = ORIGIN
    rotation: Quaternion = UPRIGHT
    density: float = 1000.0  # [kg/m^3]; counts where the link has no inertial of its own
    collides: bool = True
    massive: bool = True  # counts for the link's mass
    friction: float | None = None
    file: str | None = None  # of a mesh
    # Two shapes may touch where a bit of one's category is set in the other's mask, one way round or both.
    category: int = 1
    mask: int = 1


@dataclass(frozen=True)
class InertialSpec:
    """Mass properties that are given, in the link's frame; inertia about the centre of mass."""

    mass: float
    center_of_mass: Vector = ORIGIN
    inertia: tuple[Vector, Vector, Vector] = (ORIGIN, ORIGIN, ORIGIN)


@dataclass(frozen=True)
class LinkSpec:
    """A rigid body. Without `inertial` its mass properties come from its shapes and their densities."""

    name: str
    shapes: tuple[ShapeSpec, ...] = ()
    inertial: InertialSpec | None = None


@dataclass(frozen=True)
class JointSpec:
    """How `child` moves in the frame of `parent` (None: the world). The child's frame is at (position, rotation) in it where
    the joint's coordinates are zero; `axis` is in that frame. A free or spherical joint has no axis."""

    name: str
    kind: str
    parent: str | None
    child: str
    position: Vector = ORIGIN
    rotation: Quaternion = UPRIGHT
    axis: Vector = (0.0, 0.0, 1.0)
    lower: float | None = None  # [rad] or [m]
    upper: float | None = None
    damping: float = 0.0  # viscous, [N m s/rad] or [N s/m]
    friction: float = 0.0  # dry, [N m] or [N]
    armature: float = 0.0  # [kg m^2] or [kg]
    stiffness: float = 0.0  # spring towards `rest`, [N m/rad] or [N/m]
    rest: float = 0.0
    start: float = 0.0  # coordinate to begin with


@dataclass(frozen=True)
class ActuatorSpec:
    """What drives a joint. torque: gear * control; position: kp (control - q) - kd q'; velocity: kd (control - q')."""

    name: str
    joint: str
    kind: str = "torque"
    gear: float = 1.0
    kp: float = 0.0
    kd: float = 0.0
    lower: float | None = None  # of the control
    upper: float | None = None
    limit: float | None = None  # largest torque [N m] or force [N]


@dataclass(frozen=True)
class RobotSpec:
    """A tree of links. `not_understood` lists what an importer met and left out, a line each."""

    name: str
    links: tuple[LinkSpec, ...]
    joints: tuple[JointSpec, ...]
    actuators: tuple[ActuatorSpec, ...] = ()
    ground: tuple[ShapeSpec, ...] = ()  # shapes of the world itself
    gravity: Vector = (0.0, 0.0, -9.81)
    not_understood: tuple[str, ...] = ()
