"""Volumes that points of the tool stay inside of, or out of, and those points.

All volumes are fixed in the robot's base frame and in metres. `distance` is exact and signed, and
changes by no more than the point moves, which is what makes checks by sampling sound.
"""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from vla_ros.kinematics import rotation_from_rpy
from vla_ros.types import Array

Vector = tuple[float, float, float]


@dataclass(frozen=True, slots=True)
class Box:
    """A box, edges `size`, turned by `rpy` about the base's fixed x, y, z as in a URDF."""

    shape: ClassVar[str] = "box"
    name: str
    center: Vector
    rpy: Vector
    size: Vector

    @property
    def rotation(self) -> Array:
        """Return the rotation matrix (3, 3) from the box's axes to the base's."""
        return rotation_from_rpy(self.rpy)

    def distance(self, points: Array) -> Array:
        """Return the distance of `points` (m, 3) from the surface, negative inside, shape (m,)."""
        local = np.abs((points - np.array(self.center)) @ self.rotation)
        beyond = local - np.array(self.size) / 2.0
        outside: Array = np.linalg.norm(np.maximum(beyond, 0.0), axis=1)
        inside: Array = np.minimum(beyond.max(axis=1), 0.0)
        return outside + inside


@dataclass(frozen=True, slots=True)
class Sphere:
    """A ball, or a shell with an `inner_radius` over 0."""

    shape: ClassVar[str] = "sphere"
    name: str
    center: Vector
    radius: float
    inner_radius: float = 0.0

    def distance(self, points: Array) -> Array:
        """Return the distance of `points` (m, 3) from the surface, negative inside, shape (m,)."""
        return _shell(np.linalg.norm(points - np.array(self.center), axis=1), self)


@dataclass(frozen=True, slots=True)
class Cylinder:
    """A cylinder without ends about the line through `center` along `axis`, or a tube.

    A tube has an `inner_radius` over 0. `axis` has length 1. Half-spaces make ends.
    """

    shape: ClassVar[str] = "cylinder"
    name: str
    center: Vector
    axis: Vector
    radius: float
    inner_radius: float = 0.0

    def distance(self, points: Array) -> Array:
        """Return the distance of `points` (m, 3) from the surface, negative inside, shape (m,)."""
        offset = points - np.array(self.center)
        axis = np.array(self.axis)
        return _shell(np.linalg.norm(offset - np.outer(offset @ axis, axis), axis=1), self)


@dataclass(frozen=True, slots=True)
class HalfSpace:
    """Everything where normal . x <= offset; `normal` has length 1 and points outward."""

    shape: ClassVar[str] = "half_space"
    name: str
    normal: Vector
    offset: float

    def distance(self, points: Array) -> Array:
        """Return the distance of `points` (m, 3) from the plane, negative inside, shape (m,)."""
        result: Array = points @ np.array(self.normal) - self.offset
        return result


@dataclass(frozen=True, slots=True)
class Capsule:
    """All that is within `radius` of the segment between `start` and `end` (`from` and `to`)."""

    shape: ClassVar[str] = "capsule"
    name: str
    start: Vector
    end: Vector
    radius: float

    def distance(self, points: Array) -> Array:
        """Return the distance of `points` (m, 3) from the surface, negative inside, shape (m,)."""
        offset = points - np.array(self.start)
        along = np.array(self.end) - np.array(self.start)
        share = np.clip(offset @ along / max(float(along @ along), 1e-12), 0.0, 1.0)
        result: Array = np.linalg.norm(offset - np.outer(share, along), axis=1) - self.radius
        return result


Volume = Box | Sphere | Cylinder | HalfSpace | Capsule
INSIDE = (Box, Sphere, Cylinder, HalfSpace)
"""The shapes that a point can be told to stay inside of."""
KEEP_OUT = (Box, Sphere, Capsule)
"""The shapes that a point can be told to stay out of."""


@dataclass(frozen=True, slots=True)
class ToolPoint:
    """A ball fixed to the tool: `position` of its centre in the TCP frame and `radius`, in m."""

    name: str
    position: Vector
    radius: float


TCP_POINT = ToolPoint("tcp", (0.0, 0.0, 0.0), 0.0)
"""The tool centre point itself, which every robot file may name."""


def _shell(distance_to_middle: Array, shell: Sphere | Cylinder) -> Array:
    outer = distance_to_middle - shell.radius
    if shell.inner_radius <= 0.0:
        return outer
    return np.maximum(outer, shell.inner_radius - distance_to_middle)
