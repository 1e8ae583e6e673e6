"""What is believed of commands and joint states: only what is well formed and in time.

Inputs come from other processes, so every check here answers a refusal, and none raises.
"""

import math
import operator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from vla_ros.robot import RobotConfig
from vla_ros.safety.limits import Vector, norm

SECOND_NS = 1_000_000_000
_INT64 = 2**63
_TWIST_SIZE = 6


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why an input is not used: the check's name and by how much it failed, and a line."""

    name: str
    amount: float
    text: str


@dataclass(frozen=True, slots=True)
class AcceptedCommand:
    """A command that passed every check.

    Attributes:
        stamp_ns: Its stamp.
        accepted_ns: When it came.
        linear: Desired velocity of the TCP, m/s.
        angular: Desired angular velocity, rad/s.

    """

    stamp_ns: int
    accepted_ns: int
    linear: Vector
    angular: Vector


@dataclass(frozen=True, slots=True)
class AcceptedJoints:
    """A joint sample that passed every check; lists in the robot file's order."""

    stamp_ns: int
    position: list[float]
    velocity: list[float]
    effort: list[float]
    gripper: float | None


class CommandInput:
    """Keeps the newest acceptable command. `accepted` is None as long as there is none."""

    def __init__(self, robot: RobotConfig) -> None:
        """Take frame, ages and plausible speeds from the robot file."""
        bounds = robot.bounds
        self.accepted: AcceptedCommand | None = None
        self._frame = robot.base_frame
        self._max_age_ns = round(bounds.command_max_age * SECOND_NS)
        self._max_future_ns = round(bounds.stamp_max_future * SECOND_NS)
        self._max_linear = bounds.command_max_linear_speed
        self._max_angular = bounds.command_max_angular_speed
        self._newest_ns: int | None = None
        self._last: object = None

    def offer(self, command: Any, now_ns: int) -> Refusal | None:  # noqa: ANN401
        """Take the command if it is acceptable and newer than the last.

        The same command may be offered again, as a caller does that runs faster than its source: it
        is used until it times out, but refreshes nothing.
        """
        if command is self._last:
            return None
        self._last = command
        stamp = integer(attribute(command, "stamp_ns"))
        values = numbers(attribute(command, "twist"))
        if stamp is None or values is None or len(values) != _TWIST_SIZE:
            text = "the command does not hold 6 finite numbers and a stamp"
            return Refusal("command_finite", 1.0, text)
        frame = attribute(command, "frame_id")
        # type() and not isinstance(), which asks the object.
        if type(frame) is not str or frame != self._frame:
            shown = frame[:40] if type(frame) is str else type(frame)
            text = f"the command's frame is {shown!r}, not {self._frame!r}"
            return Refusal("command_frame", 1.0, text)
        if stamp == self._newest_ns:
            return None
        linear: Vector = (values[0], values[1], values[2])
        angular: Vector = (values[3], values[4], values[5])
        refusal = self._refuse_stamp(stamp, now_ns) or self._refuse_size(linear, angular)
        if refusal is None:
            self._newest_ns = stamp
            self.accepted = AcceptedCommand(stamp, now_ns, linear, angular)
        return refusal

    def forget(self, now_ns: int) -> None:
        """Drop the command; only one stamped after `now_ns` will do."""
        self.accepted = None
        self._newest_ns = now_ns

    def age_ns(self, now_ns: int) -> int | None:
        """Return how long ago the command was accepted, None if there is none."""
        return None if self.accepted is None else now_ns - self.accepted.accepted_ns

    def rewind(self, now_ns: int) -> None:
        """Follow a clock that was set back, so that nothing stays fresh beyond its timeout."""
        if self.accepted is not None and self.accepted.accepted_ns > now_ns:
            self.accepted = replace(self.accepted, accepted_ns=now_ns)
        self._newest_ns = None

    def _refuse_stamp(self, stamp: int, now_ns: int) -> Refusal | None:
        age_ns = now_ns - stamp
        if age_ns > self._max_age_ns:
            age = age_ns / SECOND_NS
            return Refusal("command_max_age", age, f"the command is {age:.3f} s old")
        if -age_ns > self._max_future_ns:
            lead = -age_ns / SECOND_NS
            text = f"the command's stamp is {lead:.3f} s in the future: check the clocks"
            return Refusal("stamp_max_future", lead, text)
        if self._newest_ns is not None and stamp < self._newest_ns:
            back = (self._newest_ns - stamp) / SECOND_NS
            text = f"the command is stamped {back:.3f} s before the last one or the reset"
            return Refusal("command_order", back, text)
        return None

    def _refuse_size(self, linear: Vector, angular: Vector) -> Refusal | None:
        speed, turn = norm(linear), norm(angular)
        if speed > self._max_linear:
            text = f"the command is for {speed:.3g} m/s, which is no plausible speed"
            return Refusal("command_max_linear_speed", speed - self._max_linear, text)
        if turn > self._max_angular:
            text = f"the command is for {turn:.3g} rad/s, which is no plausible speed"
            return Refusal("command_max_angular_speed", turn - self._max_angular, text)
        return None


class JointInput:
    """Keeps the newest acceptable joint sample, and watches its efforts."""

    def __init__(self, robot: RobotConfig) -> None:
        """Take joints and effort bounds from the robot file."""
        bounds = robot.bounds
        self.accepted: AcceptedJoints | None = None
        self.overload: str = ""
        """The joint that is over its effort bound now, and by how much, as a line."""
        self.excess = 0.0
        self.tripped = False
        """Whether the last `effort_samples` samples were all over an effort bound."""
        self._names = robot.joints
        self._effort = bounds.effort
        self._samples = bounds.effort_samples
        self._max_future_ns = round(bounds.stamp_max_future * SECOND_NS)
        self._newest_ns: int | None = None
        self._over = 0
        self._last: object = None

    def offer(self, sample: Any, now_ns: int) -> Refusal | None:  # noqa: ANN401
        """Take the sample if it is acceptable and newer than the last; it may be offered again."""
        if sample is self._last:
            return None
        self._last = sample
        joints = self._read(sample)
        if isinstance(joints, Refusal):
            return joints
        lead_ns = joints.stamp_ns - now_ns
        if lead_ns > self._max_future_ns:
            lead = lead_ns / SECOND_NS
            text = f"the joint states are stamped {lead:.3f} s in the future: check the clocks"
            return Refusal("stamp_max_future", lead, text)
        back_ns = -1 if self._newest_ns is None else self._newest_ns - joints.stamp_ns
        if back_ns > 0:
            back = back_ns / SECOND_NS
            text = f"the joint states are stamped {back:.3f} s before the last ones"
            return Refusal("joint_states_order", back, text)
        if back_ns < 0:
            self._newest_ns = joints.stamp_ns
            self.accepted = joints
            self._watch(joints.effort)
        return None

    def age_ns(self, now_ns: int) -> int | None:
        """Return the age of the joint states, None if there are none; never negative."""
        return None if self.accepted is None else max(0, now_ns - self.accepted.stamp_ns)

    def rewind(self, now_ns: int) -> None:
        """Follow a clock that was set back, so that nothing stays fresh beyond its timeout."""
        if self.accepted is not None and self.accepted.stamp_ns > now_ns:
            self.accepted = replace(self.accepted, stamp_ns=now_ns)
        self._newest_ns = None

    def _read(self, sample: object) -> AcceptedJoints | Refusal:
        count = len(self._names)
        stamp = integer(attribute(sample, "stamp_ns"))
        position = numbers(attribute(sample, "position"))
        velocity = numbers(attribute(sample, "velocity"))
        if stamp is None or position is None or velocity is None:
            text = "the joint states do not hold finite positions and velocities, and a stamp"
        elif len(position) != count or len(velocity) != count:
            text = f"the joint states do not hold {count} positions and velocities"
        elif not self._samples:
            return AcceptedJoints(stamp, position, velocity, [], _opening(sample))
        else:
            effort = numbers(attribute(sample, "effort"))
            if effort is not None and len(effort) == count:
                return AcceptedJoints(stamp, position, velocity, effort, _opening(sample))
            text = f"the joint states do not hold {count} finite efforts, which bounds.effort needs"
        return Refusal("joint_states_malformed", 1.0, text)

    def _watch(self, efforts: list[float]) -> None:
        """Count consecutive samples in which any joint's effort is over its bound."""
        self.overload, self.excess = "", 0.0
        for name, effort, bound in zip(self._names, efforts, self._effort, strict=False):
            if abs(effort) - bound > self.excess:
                self.excess = abs(effort) - bound
                self.overload = f"{name} measures {effort:.1f} Nm, over its bound of {bound:.1f} Nm"
        self._over = self._over + 1 if self.excess > 0.0 else 0
        self.tripped = self._over >= self._samples > 0


def attribute(thing: object, name: str) -> Any:  # noqa: ANN401
    """Return an attribute of any object, None where there is none."""
    try:
        return getattr(thing, name)
    except Exception:  # noqa: BLE001 - any object can come in, and a property can raise anything
        return None


def integer(value: Any) -> int | None:  # noqa: ANN401
    """Return a time that fits ROS's 64 bits, else None."""
    if type(value) is not int:
        try:
            value = int(operator.index(value))
        except Exception:  # noqa: BLE001 - any object can come in, and __index__ can raise anything
            return None
    return value if -_INT64 <= value < _INT64 else None


def numbers(values: Any) -> list[float] | None:  # noqa: ANN401
    """Return `values` as finite floats, else None."""
    try:
        # An array's own conversion is several times as fast as taking its elements one by one.
        items = values.tolist() if type(values) is np.ndarray else values
        floats = [float(item) for item in items]
    except Exception:  # noqa: BLE001 - any object can come in, and its iterator can raise anything
        return None
    return floats if all(map(math.isfinite, floats)) else None


def _opening(sample: object) -> float | None:
    opening = numbers((attribute(sample, "gripper"),))
    return None if opening is None else opening[0]
