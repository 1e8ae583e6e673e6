"""Distances of the tool's points to the surfaces that bound them, and which way they grow.

A surface is a row of numbers: its kind, the point of the tool that it bounds, and its figures.
`room` gives the room that a point has, and its gradient. Where a volume is convex and to be stayed
out of, or its surface flat, moving by y leaves at least room + gradient . y: the plane through the
nearest point of the surface parts the volume from the point. Inside of a sphere or a cylinder the
surface curves towards the point; then up to |y|^2 / (2 r) less is left, r being the point's
distance to the middle.
"""

import math

import numpy as np

from vla_ros.safety.motion.compiled import compiled
from vla_ros.types import Array
from vla_ros.volumes import Box, Capsule, Cylinder, HalfSpace, Sphere, Volume

Vector = tuple[float, float, float]

PLANE, ROUND, CAPSULE, BOX = range(4)
"""The side of a plane where gradient . x >= offset: gradient, offset. Inside (sign -1) or outside
(1) of a sphere, or of a cylinder where the axis is not 0: centre, axis, radius, sign. Outside of a
capsule, or of a sphere where both ends are the same: start, the way to the end, its square, radius.
Outside of a box: centre, three axes, half sizes."""
KIND, POINT, FIGURES = 0, 1, 2
COLUMNS = FIGURES + 15

_TINY = 1e-9
_LEAST_RADIUS = 1e-3


def row(kind: int, *figures: float) -> Array:
    """Return a surface's row, of the point 0."""
    result = np.zeros(COLUMNS)
    result[KIND] = kind
    result[FIGURES : FIGURES + len(figures)] = figures
    return result


def inside_box(low: Vector, high: Vector) -> list[tuple[str, Array]]:
    """Return the six faces of the box between two corners, each with its bound's name."""
    faces: list[tuple[str, Array]] = []
    for axis, letter in enumerate("xyz"):
        unit = np.eye(3)[axis]
        faces.append((f"workspace_min.{letter}", row(PLANE, *unit, low[axis])))
        faces.append((f"workspace_max.{letter}", row(PLANE, *-unit, -high[axis])))
    return faces


def inside(volume: Volume) -> list[Array]:
    """Return the surfaces that hold a point inside of a volume."""
    if isinstance(volume, HalfSpace):
        return [row(PLANE, *-np.array(volume.normal), -volume.offset)]
    if isinstance(volume, Box):
        faces = []
        for axis, size in zip(volume.rotation.T, volume.size, strict=True):
            middle = float(axis @ np.array(volume.center))
            faces.append(row(PLANE, *axis, middle - size / 2.0))
            faces.append(row(PLANE, *-axis, -middle - size / 2.0))
        return faces
    if isinstance(volume, Sphere | Cylinder):
        axis = volume.axis if isinstance(volume, Cylinder) else (0.0, 0.0, 0.0)
        shell = [row(ROUND, *volume.center, *axis, volume.radius, -1.0)]
        if volume.inner_radius > 0.0:
            shell.append(row(ROUND, *volume.center, *axis, volume.inner_radius, 1.0))
        return shell
    msg = f"volume {volume.name!r}: a point cannot be kept inside of a {volume.shape}"
    raise ValueError(msg)


def outside(volume: Volume) -> Array:
    """Return the surface that holds a point outside of a volume."""
    if isinstance(volume, Box):
        return row(BOX, *volume.center, *volume.rotation.T.ravel(), *np.array(volume.size) / 2.0)
    if isinstance(volume, Sphere):
        return row(CAPSULE, *volume.center, 0.0, 0.0, 0.0, 0.0, volume.radius)
    if isinstance(volume, Capsule):
        along = np.array(volume.end) - np.array(volume.start)
        return row(CAPSULE, *volume.start, *along, float(along @ along), volume.radius)
    msg = f"volume {volume.name!r}: a point cannot be kept out of a {volume.shape}"
    raise ValueError(msg)


@compiled
def room(surface: Array, x: float, y: float, z: float, gradient: Array) -> tuple[float, float]:
    """Return the room at a point and the surface's curvature toward it.

    Args:
        surface: Its row.
        x: Of the point, m, base frame.
        y: Likewise.
        z: Likewise.
        gradient: Set to the room's gradient, (3,).

    Returns:
        The room in m, negative on the wrong side, and the curvature 1 / r in 1/m.

    """
    kind, f = surface[KIND], surface[FIGURES:]
    if kind == PLANE:
        gradient[0], gradient[1], gradient[2] = f[0], f[1], f[2]
        return f[0] * x + f[1] * y + f[2] * z - f[3], 0.0
    x, y, z = x - f[0], y - f[1], z - f[2]
    if kind == BOX:
        return _room_of_box(f, x, y, z, gradient), 0.0
    a, b, c = f[3], f[4], f[5]
    along = a * x + b * y + c * z
    if kind == CAPSULE:
        along = min(1.0, max(0.0, along / f[6])) if f[6] > 0.0 else 0.0
    x, y, z = x - along * a, y - along * b, z - along * c
    far = math.sqrt(x * x + y * y + z * z)
    radius = f[7] if kind == CAPSULE else f[6]
    sign = 1.0 if kind == CAPSULE else f[7]
    if far < _TINY:
        _set_across(a, b, c, gradient)
    else:
        gradient[0], gradient[1], gradient[2] = sign * x / far, sign * y / far, sign * z / far
    curvature = 1.0 / max(far, _LEAST_RADIUS) if sign < 0.0 else 0.0
    return sign * (far - radius), curvature


@compiled
def _room_of_box(f: Array, x: float, y: float, z: float, gradient: Array) -> float:
    nearest, far, farthest = 0, 0.0, -math.inf
    for i in range(3):
        local = f[3 + 3 * i] * x + f[4 + 3 * i] * y + f[5 + 3 * i] * z
        over = abs(local) - f[12 + i]
        far += max(over, 0.0) ** 2
        if over > farthest:
            nearest, farthest = i, over
    far = math.sqrt(far)
    for j in range(3):
        gradient[j] = 0.0
    for i in range(3):
        local = f[3 + 3 * i] * x + f[4 + 3 * i] * y + f[5 + 3 * i] * z
        over = abs(local) - f[12 + i]
        if far > _TINY:
            part = math.copysign(max(over, 0.0) / far, local)
        else:
            # Inside, or on it: the way out is through the nearest face.
            part = math.copysign(1.0, local) if i == nearest else 0.0
        for j in range(3):
            gradient[j] += part * f[3 + 3 * i + j]
    return far if far > _TINY else farthest


@compiled
def _set_across(a: float, b: float, c: float, gradient: Array) -> None:
    """Set a direction across an axis: at the very middle every one is as good."""
    if a == b == c == 0.0:
        x, y, z = 0.0, 0.0, 1.0
    elif abs(c) < max(abs(a), abs(b)):
        x, y, z = b, -a, 0.0
    else:
        x, y, z = 0.0, c, -b
    size = math.sqrt(x * x + y * y + z * z)
    gradient[0], gradient[1], gradient[2] = x / size, y / size, z / size
