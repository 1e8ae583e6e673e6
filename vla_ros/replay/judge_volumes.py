"""The judge's own volumes: how far points of the tool are inside of, or outside of, each.

Like all of the judge, written apart from the safety filter. Metres, in the base frame.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from vla_ros.replay.judge_arm import Array, JudgeError, Poses


@dataclass(frozen=True, slots=True)
class Rule:
    """A point of the tool that is to stay inside of a volume, or outside.

    Attributes:
        bound: `workspace` or `keep_out`.
        volume: Its name; `box` for the box of `workspace_min` and `workspace_max`.
        shape: The volume's parameters by name, `shape` among them.
        point: Name of the point.
        position: The point in the TCP frame, shape (3,).
        radius: Of the ball about the point.

    """

    bound: str
    volume: str
    shape: Mapping[str, Any]
    point: str
    position: Array
    radius: float

    def room(self, poses: Poses, moved: Array | None = None) -> Array:
        """Return how far the ball is on the right side of the surface, shape (T,).

        Args:
            poses: Of the tool.
            moved: By how much the point is elsewhere, shape (T, 3).

        """
        points = poses.tip + poses.rotation @ self.position
        if moved is not None:
            points = points + moved
        distance = outside(self.shape, points)
        return (-distance if self.bound == "workspace" else distance) - self.radius


def rules(parameters: Mapping[str, Any]) -> list[Rule]:
    """Return every pair of a volume and a point that the robot file's parameters ask for.

    Raises:
        JudgeError: If a volume or a point is named that is not there.

    """
    bounds = parameters["bounds"]
    volumes = {**parameters.get("volumes", {}), **bounds.get("volumes", {})}
    points = {**parameters.get("points", {}), **bounds.get("points", {})}
    points.setdefault("tcp", {"position": [0.0, 0.0, 0.0], "radius": 0.0})
    low = np.array(bounds["workspace_min"], dtype=np.float64)
    high = np.array(bounds["workspace_max"], dtype=np.float64)
    box = {"shape": "box", "center": (low + high) / 2.0, "rpy": [0.0] * 3, "size": high - low}
    found = [Rule("workspace", "box", box, "tcp", np.zeros(3), 0.0)]
    for bound in ("workspace", "keep_out"):
        for volume in bounds.get(bound, []):
            for point in bounds.get(f"{bound}_points", ["tcp"]):
                if volume not in volumes or point not in points:
                    missing = point if volume in volumes else volume
                    msg = f"the robot file names {missing!r}, but does not describe it"
                    raise JudgeError(msg)
                position = np.array(points[point]["position"], dtype=np.float64)
                radius = float(points[point].get("radius", 0.0))
                found.append(Rule(bound, volume, volumes[volume], point, position, radius))
    return found


def outside(shape: Mapping[str, Any], points: Array) -> Array:
    """Return how far points (T, 3) are outside of a volume, shape (T,); negative inside.

    Args:
        shape: `shape` and its numbers: box (center, rpy, size), sphere and cylinder without ends
            (center, radius, axis of the cylinder, inner_radius if hollow), half_space (normal,
            offset), capsule (from, to, radius).
        points: Where to measure.

    Raises:
        JudgeError: If the shape is unknown.

    """
    kind = shape["shape"]
    if kind == "half_space":
        normal = _vector(shape["normal"])
        size = math.sqrt(float(normal @ normal))
        return np.asarray((points @ normal - float(shape["offset"])) / size)
    if kind == "box":
        local = (points - _vector(shape["center"])) @ _rotation(shape["rpy"])
        return _outside_box(local, _vector(shape["size"]) / 2.0)
    if kind in {"sphere", "cylinder"}:
        ray = points - _vector(shape["center"])
        if kind == "cylinder":
            axis = _vector(shape["axis"])
            axis = axis / math.sqrt(float(axis @ axis))
            ray = ray - (ray @ axis)[:, None] * axis
        reach = _lengths(ray)
        beyond: Array = reach - float(shape["radius"])
        hole = float(shape.get("inner_radius", 0.0))
        return np.maximum(beyond, hole - reach) if hole > 0.0 else beyond
    if kind == "capsule":
        start, along = _vector(shape["from"]), _vector(shape["to"]) - _vector(shape["from"])
        square = float(along @ along)
        share = np.zeros(len(points))
        if square > 0.0:
            share[:] = np.clip((points - start) @ along / square, 0.0, 1.0)
        return _lengths(points - start - share[:, None] * along) - float(shape["radius"])
    msg = f"the robot file has a volume of the shape {kind!r}, which cannot be judged"
    raise JudgeError(msg)


def _outside_box(local: Array, half: Array) -> Array:
    over = np.abs(local) - half
    beyond = _lengths(np.maximum(over, 0.0))
    return np.where(beyond > 0.0, beyond, over.max(axis=1))


def _rotation(rpy: Sequence[float]) -> Array:
    """Return the rotation matrix of roll, pitch and yaw about fixed axes, as in a URDF."""
    (sr, sp, sy), (cr, cp, cy) = np.sin(rpy), np.cos(rpy)
    return np.array(
        [
            [cy * cp, cy * sp * sr - sy * cr, cy * sp * cr + sy * sr],
            [sy * cp, sy * sp * sr + cy * cr, sy * sp * cr - cy * sr],
            [-sp, cp * sr, cp * cr],
        ]
    )


def _lengths(vectors: Array) -> Array:
    return np.asarray(np.sqrt((vectors * vectors).sum(axis=1)))


def _vector(values: Sequence[float]) -> Array:
    return np.array(values, dtype=np.float64)
