"""Values of a robot file that contradict each other, or under which the arm could not stop."""

import math
from collections.abc import Iterator

import numpy as np

from vla_ros.bounds import Bounds, keys
from vla_ros.parameters import ParameterKind
from vla_ros.types import Array
from vla_ros.volumes import Volume

_RESOLUTION = 1e-3
"""Rooms narrower than this, in m, are not looked for."""
_ROUNDING = 1e-9
"""Relative: what follows from decimal numbers is compared with this much grace."""


def contradictions(bounds: Bounds, joints: int, *, gripper: bool) -> Iterator[tuple[str, str]]:
    """Yield the key of each wrong bound, and what is wrong with it; the first is the cause.

    Args:
        bounds: Of the right types, and finite.
        joints: Number of the robot's joints.
        gripper: Whether it has one.

    """
    for name, key in keys().items():
        value = getattr(bounds, name)
        if key.kind is ParameterKind.NUMBERS and len(value) != (key.length or joints):
            yield name, f"must have {key.length or f'{joints} (one a joint)'} numbers"
        if key.least is not None and (gripper or not key.gripper):
            lowest = min(value, default=math.inf) if isinstance(value, tuple) else value
            if lowest < key.least or (lowest == key.least and not key.or_equal):
                word = "must not be less than" if key.or_equal else "must be greater than"
                yield name, f"{word} {key.least:g}"
    yield from _stop_contradictions(bounds)
    yield from _joint_contradictions(bounds)
    yield from _place_contradictions(bounds)
    yield from _supervision_contradictions(bounds)
    if gripper and bounds.gripper_min >= bounds.gripper_max:
        yield "gripper_min", f"'bounds.gripper_max' is {bounds.gripper_max}, which is not greater"


def _stop_contradictions(bounds: Bounds) -> Iterator[tuple[str, str]]:
    """Yield what a plan of `stopping_time` with two ramps of `stopping_ramp` cannot do.

    Braking holds v / (stopping_time - stopping_ramp) between the ramps; the first ramp may lead
    from the greatest acceleration to the greatest braking.
    """
    if bounds.stopping_time <= 2.0 * bounds.stopping_ramp:
        yield "stopping_time", "must be greater than twice 'bounds.stopping_ramp'"
        return
    braking_time = bounds.stopping_time - bounds.stopping_ramp
    for kind in ("linear", "angular"):
        acceleration = getattr(bounds, f"{kind}_acceleration")
        needed = getattr(bounds, f"{kind}_speed") / braking_time
        if needed > acceleration * (1.0 + _ROUNDING):
            why = (
                f"stopping from it in stopping_time takes {needed:.4g}, more than "
                f"'bounds.{kind}_acceleration' of {acceleration:g}: lower the speed, or raise the "
                "acceleration or the stopping_time"
            )
            yield f"{kind}_speed", why
        needed = 2.0 * acceleration / bounds.stopping_ramp
        if needed > getattr(bounds, f"{kind}_jerk") * (1.0 + _ROUNDING):
            why = (
                f"turning 'bounds.{kind}_acceleration' into braking in stopping_ramp takes "
                f"{needed:.4g}: raise the jerk, or lower the acceleration"
            )
            yield f"{kind}_jerk", why


def _joint_contradictions(bounds: Bounds) -> Iterator[tuple[str, str]]:
    braking_time = bounds.stopping_time - bounds.stopping_ramp
    for index in range(len(bounds.joint_speed)):
        speed, acceleration = bounds.joint_speed[index], bounds.joint_acceleration[index]
        needed = speed / braking_time
        if needed > acceleration * (1.0 + _ROUNDING):
            why = (
                f"stopping joint {index + 1} from {speed:g} in stopping_time takes {needed:.4g}, "
                f"more than its joint_acceleration of {acceleration:g}"
            )
            yield "joint_speed", why
        room = bounds.joint_position_max[index] - bounds.joint_position_min[index]
        if room <= 2.0 * bounds.joint_position_error:
            why = (
                f"'bounds.joint_position_max' of joint {index + 1} is not greater by more than "
                "twice joint_position_error"
            )
            yield "joint_position_min", why
    if bounds.rest_joint_speed >= min(bounds.joint_speed):
        yield "rest_joint_speed", "that is not less than the slowest of 'bounds.joint_speed'"


def _place_contradictions(bounds: Bounds) -> Iterator[tuple[str, str]]:
    needed = bounds.stopping_distance + 2.0 * bounds.tracking_error
    for axis, low, high in zip("xyz", bounds.workspace_min, bounds.workspace_max, strict=True):
        if low >= high:
            yield "workspace_min", f"'bounds.workspace_max' is not greater in {axis}"
        if needed > high - low:
            why = (
                f"stopping from it takes {needed:.3f} m (reaction_delay, stopping_time, "
                f"tracking_error), more than the workspace's {high - low:.3f} m in {axis}: lower "
                "it or stop sooner"
            )
            yield "linear_speed", why
    if bounds.tool_cone_angle > math.pi + _ROUNDING:
        yield "tool_cone_angle", f"must not be over pi ({math.pi:.4f})"
    if not _has_room(bounds):
        why = (
            "with workspace_min, workspace_max, keep_out and tracking_error it leaves the TCP no "
            "place to be"
        )
        yield "workspace", why


def _supervision_contradictions(bounds: Bounds) -> Iterator[tuple[str, str]]:
    for key in ("linear_speed", "angular_speed"):
        if getattr(bounds, f"command_max_{key}") < getattr(bounds, key):
            yield f"command_max_{key}", f"that is less than 'bounds.{key}'"
    if bounds.effort_samples:
        for index, (stop, motion) in enumerate(
            zip(bounds.effort, bounds.joint_torque, strict=True)
        ):
            if stop < motion:
                why = (
                    f"for joint {index + 1} that is less than 'bounds.joint_torque' of {motion:g}: "
                    "motion that is allowed would stop the arm"
                )
                yield "effort", why


def _has_room(bounds: Bounds) -> bool:
    """Return whether the TCP has a place in its box and the volumes, with `tracking_error` to each.

    Searches by halving: as no distance changes by more than the point moves, a cell whose middle
    misses by more than its half diagonal holds no place.
    """
    limits = _tcp_limits(bounds)
    if not limits:
        return True
    low, high = np.array(bounds.workspace_min), np.array(bounds.workspace_max)
    half = (high - low) / 2.0 - bounds.tracking_error
    middles = ((low + high) / 2.0)[np.newaxis]
    corners = np.array([[x, y, z] for x in (-1, 1) for y in (-1, 1) for z in (-1, 1)])
    while len(middles):
        misses = _misses(limits, middles)
        if misses.min() <= 0.0:
            return True
        reach = float(np.linalg.norm(half))
        if reach < _RESOLUTION:
            return False
        half = half / 2.0
        left = middles[misses <= reach]
        middles = (left[:, np.newaxis] + corners * half).reshape(-1, 3)
    return False


def _tcp_limits(bounds: Bounds) -> list[tuple[Volume, float, float]]:
    """Return (volume, sign, margin) of all that bounds the TCP: sign * distance + margin <= 0."""
    margin = bounds.tracking_error
    inside = [p.radius for p in bounds.workspace_points if p.position == (0.0, 0.0, 0.0)]
    outside = [p.radius for p in bounds.keep_out_points if p.position == (0.0, 0.0, 0.0)]
    return [
        *((v, 1.0, margin + max(inside)) for v in bounds.workspace if inside),
        *((v, -1.0, margin + max(outside)) for v in bounds.keep_out if outside),
    ]


def _misses(limits: list[tuple[Volume, float, float]], points: Array) -> Array:
    """Return by how much each of `points` (m, 3) misses the limit that it misses most."""
    worst: Array = np.max([s * v.distance(points) + m for v, s, m in limits], axis=0)
    return worst
