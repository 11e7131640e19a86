"""Mass, centre of mass and inertia of a link's solids, in float64, for importers and checks (no gradient).

Solids of uniform density: closed forms; parts are joined by the parallel-axis theorem, I = sum R_i I_i R_i^T + m_i
(d_i . d_i 1 - d_i d_i^T). A capsule is a cylinder and two half balls, each with its centre 3 r / 8 beyond the cylinder's end.
"""

import math

import numpy as np
from scipy.spatial.transform import Rotation

from physics.robot_spec import InertialSpec, LinkSpec, ShapeSpec


def volume(shape: ShapeSpec) -> float | None:
    """[m^3]; zero for a plane, None for a mesh, whose file would have to be read."""
    size = shape.size
    match shape.kind:
        case "sphere":
            return 4.0 / 3.0 * math.pi * size[0] ** 3
        case "capsule":
            return math.pi * size[0] ** 2 * (2.0 * size[1] + 4.0 / 3.0 * size[0])
        case "cylinder":
            return 2.0 * math.pi * size[0] ** 2 * size[1]
        case "box":
            return 8.0 * math.prod(size)
        case "ellipsoid":
            return 4.0 / 3.0 * math.pi * math.prod(size)
        case "rounded_box":
            r = size[3]
            a, b, c = (extent - r for extent in size[:3])
            faces = 8.0 * r * (a * b + b * c + c * a)
            return 8.0 * a * b * c + faces + 2.0 * math.pi * r**2 * (a + b + c) + 4.0 / 3.0 * math.pi * r**3
        case "plane":
            return 0.0
    return None


def moments_per_mass(shape: ShapeSpec) -> np.ndarray | None:
    """Principal moments about the shape's centre for a mass of 1 kg [m^2], (3,); None without a closed form."""
    size = shape.size
    match shape.kind:
        case "sphere":
            return np.full(3, 0.4 * size[0] ** 2)
        case "box":
            x, y, z = np.square(size)
            return np.array([y + z, x + z, x + y]) / 3.0
        case "ellipsoid":
            x, y, z = np.square(size)
            return np.array([y + z, x + z, x + y]) / 5.0
        case "cylinder":
            r, h = size
            across = r**2 / 4.0 + h**2 / 3.0
            return np.array([across, across, r**2 / 2.0])
        case "capsule":
            r, h = size
            balls = 2.0 * r / (3.0 * h + 2.0 * r)  # share of the two half balls
            across = (1.0 - balls) * (r**2 / 4.0 + h**2 / 3.0) + balls * (0.4 * r**2 + h**2 + 0.75 * r * h)
            return np.array([across, across, (1.0 - balls) * r**2 / 2.0 + balls * 0.4 * r**2])
    return None


def inertial_of_shapes(shapes: tuple[ShapeSpec, ...]) -> InertialSpec | None:
    """Mass properties of the massive ones among shapes; None where one of them has no closed form."""
    parts = []
    for shape in (shape for shape in shapes if shape.massive and shape.density != 0.0):
        size, moments = volume(shape), moments_per_mass(shape)
        if size is None or moments is None:
            return None
        turn = Rotation.from_quat(shape.rotation).as_matrix()
        mass = shape.density * size
        parts.append((mass, np.array(shape.position), mass * (turn * moments) @ turn.T))
    mass = sum(part[0] for part in parts)
    if mass == 0.0:
        return InertialSpec(0.0)
    center = np.sum([m * c for m, c, _ in parts], axis=0) / mass
    return inertial(mass, center, np.sum([about(m, c - center, i) for m, c, i in parts], axis=0))


def inertial_of_link(link: LinkSpec) -> InertialSpec | None:
    """What is given, or what the shapes have; None where neither is known without reading a mesh."""
    return link.inertial if link.inertial is not None else inertial_of_shapes(link.shapes)


def about(mass: float, offset: np.ndarray, inertia: np.ndarray) -> np.ndarray:
    """Inertia about a point from which the centre of mass is at `offset`."""
    return inertia + mass * (offset @ offset * np.eye(3) - np.outer(offset, offset))


def inertial(mass: float, center: np.ndarray, inertia: np.ndarray) -> InertialSpec:
    """An InertialSpec of plain floats."""
    x, y, z = (tuple(float(entry) for entry in row) for row in inertia)
    return InertialSpec(float(mass), vector(center), (x, y, z))  # type: ignore[arg-type]


def vector(values: np.ndarray) -> tuple[float, float, float]:
    """Three plain floats."""
    x, y, z = (float(value) + 0.0 for value in values)
    return x, y, z


def quaternion(rotation: Rotation) -> tuple[float, float, float, float]:
    """(x, y, z, w), w not negative, of plain floats."""
    values = rotation.as_quat()
    x, y, z, w = (float(value) + 0.0 for value in (-values if values[3] < 0.0 else values))
    return x, y, z, w
