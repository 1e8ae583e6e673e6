"""What is believed of commands and joint states: only what is well formed and in time.

Inputs come from other processes, so every check here answers a refusal, and none raises.
"""

import math
import operator
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from vla_ros.robot import RobotConfig
from vla_ros.safety.motion.algebra import NOT_FINITE, TOO_LARGE, check, least_margin
from vla_ros.safety.motion.targets import JointVelocityTarget, PoseTarget, Target, TwistTarget
from vla_ros.types import Array, JointVelocityCommand, PoseCommand, aged

SECOND_NS = 1_000_000_000
_INT64 = 2**63
_FLOAT = np.dtype(np.float64)
_NO_EFFORT: Array = np.zeros(0)
_EFFORTS = "efforts, which bounds.effort needs (where none are measured, set effort_samples to 0)"
_EFFORT = 2
"""Which of a sample's vectors the efforts are, in the order in which they are checked."""
_QUEUED_NS = SECOND_NS
"""How long commands may lie about while a node is busy with its start, and be nobody's fault."""
_ABSURD = 1e4
"""No position in rad, speed in rad/s or torque in Nm is over this; arithmetic may suffer."""
_UNIT = 1e-2
"""How far the norm of a quaternion may be from 1: what is further off is no rounding."""


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why an input is not used: the check's name and by how much it failed, and a line."""

    name: str
    amount: float
    text: str


class AcceptedCommand(NamedTuple):
    """A command that passed every check.

    Attributes:
        stamp_ns: Its stamp.
        accepted_ns: When it came.
        target: What it asks for.
        delta: Whether its pose is relative, as `PoseCommand.delta` says.

    """

    stamp_ns: int
    accepted_ns: int
    target: Target
    delta: bool


class AcceptedJoints(NamedTuple):
    """A joint sample that passed every check; (n,) each, in the robot file's order.

    `effort` is empty where no efforts are supervised.
    """

    stamp_ns: int
    position: Array
    velocity: Array
    effort: Array
    gripper: float | None
    gripper_effort: float | None


class CommandInput:
    """Keeps the newest acceptable command. `accepted` is None as long as there is none."""

    def __init__(self, robot: RobotConfig) -> None:
        """Take frames, ages and plausible speeds from the robot file."""
        self.accepted: AcceptedCommand | None = None
        self._base_frame = robot.base_frame
        self._tcp_frame = robot.tcp_frame
        self._joints = len(robot.joints)
        self._newest_ns: int | None = None
        self._forgot_ns: int | None = None
        self._last: object = None
        self.tighten(robot)

    def tighten(self, robot: RobotConfig) -> None:
        """Use the bounds of `robot` from now on."""
        bounds = robot.bounds
        self._max_age_ns = round(bounds.command_max_age * SECOND_NS)
        self._max_future_ns = round(bounds.stamp_max_future * SECOND_NS)
        self._max_linear = bounds.command_max_linear_speed
        self._max_angular = bounds.command_max_angular_speed

    def offer(self, command: Any, now_ns: int) -> Refusal | None:  # noqa: ANN401
        """Take the command if it is acceptable and newer than the last.

        The same command may be offered again, as a caller does that runs faster than its source: it
        is used until it times out, but refreshes nothing.
        """
        if command is self._last:
            return None
        self._last = command
        delta = False
        # type() and not isinstance(), which asks the object.
        if type(command) is JointVelocityCommand:
            target = self._read_joint_velocity(command)
        elif type(command) is PoseCommand:
            delta = command.delta is True
            target = self._read_pose(command, delta=delta)
        else:
            target = self._read_twist(command)
        if isinstance(target, Refusal):
            return target
        stamp = integer(attribute(command, "stamp_ns"))
        if stamp is None:
            return _not_finite("its numbers")
        if stamp == self._newest_ns:
            return None
        refusal = self._refuse_stamp(stamp, now_ns) or self._refuse_size(target)
        if refusal is None:
            self._newest_ns = stamp
            self.accepted = AcceptedCommand(stamp, now_ns, target, delta)
        return refusal

    def forget(self, now_ns: int) -> None:
        """Drop the command; only one stamped after `now_ns` will do."""
        self.accepted = None
        self._newest_ns = self._forgot_ns = now_ns

    def age_ns(self, now_ns: int) -> int | None:
        """Return how long ago the command was accepted, None if there is none."""
        return None if self.accepted is None else now_ns - self.accepted.accepted_ns

    def rewind(self, now_ns: int) -> None:
        """Follow a clock that was set back, so that nothing stays fresh beyond its timeout."""
        if self.accepted is not None and self.accepted.accepted_ns > now_ns:
            self.accepted = self.accepted._replace(accepted_ns=now_ns)
        self._newest_ns = self._forgot_ns = None

    def _read_twist(self, command: object) -> Target | Refusal:
        values = _list(command, "twist", 6)
        if values is None:
            return _not_finite("6 finite numbers")
        refusal = self._refuse_frame(command, self._base_frame)
        if refusal is not None:
            return refusal
        x, y, z, a, b, c = values
        return TwistTarget((x, y, z), (a, b, c))

    def _read_pose(self, command: PoseCommand, *, delta: bool) -> Target | Refusal:
        position, quaternion = _list(command, "position", 3), _list(command, "quaternion", 4)
        if position is None or quaternion is None:
            return _not_finite("a finite position and quaternion")
        refusal = self._refuse_frame(command, self._tcp_frame if delta else self._base_frame)
        if refusal is not None:
            return refusal
        norm = math.hypot(*quaternion)
        if abs(norm - 1.0) > _UNIT:
            text = f"the command's quaternion has the norm {norm:.3g}, not 1"
            return Refusal("command_quaternion", abs(norm - 1.0), text)
        x, y, z, w = (q / norm for q in quaternion)
        return PoseTarget((position[0], position[1], position[2]), (x, y, z, w))

    def _read_joint_velocity(self, command: JointVelocityCommand) -> Target | Refusal:
        values = _list(command, "velocity", self._joints)
        if values is None:
            return _not_finite(f"{self._joints} finite numbers")
        return JointVelocityTarget(tuple(values))

    def _refuse_frame(self, command: object, wanted: str) -> Refusal | None:
        frame = attribute(command, "frame_id")
        if type(frame) is str and frame == wanted:
            return None
        shown = frame[:40] if type(frame) is str else type(frame)
        text = f"the command's frame is {shown!r}, not {wanted!r}"
        return Refusal("command_frame", 1.0, text)

    def _refuse_stamp(self, stamp: int, now_ns: int) -> Refusal | None:
        if self._forgot_ns is not None and 0 < self._forgot_ns - stamp <= _QUEUED_NS:
            # Not too old: what was sent a little before a reset may well have waited for it.
            return _late_command(self._forgot_ns - stamp, "the start or the reset")
        age_ns = now_ns - stamp
        if age_ns > self._max_age_ns:
            age = age_ns / SECOND_NS
            text = f"the command is {aged(age_ns, f'{age:.3f} s old')}"
            return Refusal("command_max_age", age, text)
        if -age_ns > self._max_future_ns:
            lead = -age_ns / SECOND_NS
            text = f"the command's stamp is {lead:.3f} s in the future: check the clocks"
            return Refusal("stamp_max_future", lead, text)
        if self._newest_ns is not None and stamp < self._newest_ns:
            return _late_command(self._newest_ns - stamp, "the last one")
        return None

    def _refuse_size(self, target: Target) -> Refusal | None:
        """Return why the speeds are not plausible; those of joints are held to the angular one."""
        if isinstance(target, PoseTarget):
            return None
        speed = turn = 0.0
        if isinstance(target, TwistTarget):
            speed, turn = math.hypot(*target.linear), math.hypot(*target.angular)
        else:
            turn = max(map(abs, target.velocities))
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
        self.accepted: AcceptedJoints | None = None
        self.overload: str = ""
        """The joint that is over its effort bound now, and by how much, as a line."""
        self.margin = math.inf
        """What is left to its effort bound of the joint that has least, Nm."""
        self.tripped = False
        """Whether the last `effort_samples` samples were all over an effort bound."""
        self._names = robot.joints
        self._newest_ns: int | None = None
        self._over = 0
        self._last: object = None
        self.tighten(robot)

    def tighten(self, robot: RobotConfig) -> None:
        """Use the bounds of `robot` from now on."""
        self._effort: Array = np.array(robot.bounds.effort)
        self._samples = robot.bounds.effort_samples
        self._max_future_ns = round(robot.bounds.stamp_max_future * SECOND_NS)

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

    @property
    def closing(self) -> float:
        """Force by which the fingers are driven together, N; 0 where it is not measured."""
        joints = self.accepted
        if joints is None or joints.gripper_effort is None:
            return 0.0
        return -joints.gripper_effort

    def age_ns(self, now_ns: int) -> int | None:
        """Return the age of the joint states, None if there are none; never negative."""
        return None if self.accepted is None else max(0, now_ns - self.accepted.stamp_ns)

    def rewind(self, now_ns: int) -> None:
        """Follow a clock that was set back, so that nothing stays fresh beyond its timeout."""
        if self.accepted is not None and self.accepted.stamp_ns > now_ns:
            self.accepted = self.accepted._replace(stamp_ns=now_ns)
        self._newest_ns = None

    def _read(self, sample: object) -> AcceptedJoints | Refusal:
        count = len(self._names)
        stamp = integer(attribute(sample, "stamp_ns"))
        position = _vector(sample, "position", count)
        velocity = _vector(sample, "velocity", count)
        effort = _vector(sample, "effort", count) if self._samples else _NO_EFFORT
        if stamp is None or position is None or velocity is None:
            return _malformed(f"do not hold {count} finite positions and speeds, and a stamp")
        if effort is None:
            return _malformed(f"do not hold {count} finite {_EFFORTS}")
        found, which = check(position, velocity, effort, _ABSURD)
        if found == NOT_FINITE:
            what = "positions and speeds, and a stamp"
            if which == _EFFORT:
                what = _EFFORTS
            return _malformed(f"do not hold {count} finite {what}")
        if found == TOO_LARGE:
            return _malformed(f"hold a value over {_ABSURD:g}, which no joint measures")
        opening, closing = _number(sample, "gripper"), _number(sample, "gripper_effort")
        return AcceptedJoints(stamp, position, velocity, effort, opening, closing)

    def _watch(self, efforts: Array) -> None:
        """Count consecutive samples in which any joint's effort is over its bound."""
        index, self.margin = least_margin(self._effort, efforts)
        self.overload = ""
        if self.margin < 0.0:
            self.overload = (
                f"{self._names[index]} measures {efforts[index]:.1f} Nm, over its bound of "
                f"{self._effort[index]:.1f} Nm"
            )
        self._over = self._over + 1 if self.margin < 0.0 else 0
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
        if type(values) is np.ndarray and values.dtype == _FLOAT and values.ndim == 1:
            floats: list[float] = values.tolist()
        else:
            floats = [float(item) for item in values]
    except Exception:  # noqa: BLE001 - any object can come in, and its iterator can raise anything
        return None
    # A sum is finite only if each of its floats is, and takes a third of the time to make. As
    # it may overflow all the same, its word counts only where it is finite.
    if math.isfinite(sum(floats)) or all(map(math.isfinite, floats)):
        return floats
    return None


def _list(thing: object, name: str, count: int) -> list[float] | None:
    """Return an attribute as `count` finite floats, else None."""
    values = numbers(attribute(thing, name))
    return values if values is not None and len(values) == count else None


def _vector(thing: object, name: str, count: int) -> Array | None:
    """Return a copy of an attribute as floats (count,), else None."""
    values = attribute(thing, name)
    if type(values) is np.ndarray and values.dtype == _FLOAT and values.shape == (count,):
        return np.array(values)
    floats = numbers(values)
    return np.array(floats) if floats is not None and len(floats) == count else None


def _number(thing: object, name: str) -> float | None:
    """Return an attribute as a finite float, else None."""
    value = attribute(thing, name)
    if value is None or (type(value) is float and math.isfinite(value)):
        return value
    values = numbers((value,))
    return None if values is None else values[0]


def _late_command(back_ns: int, event: str) -> Refusal:
    back = back_ns / SECOND_NS
    return Refusal("command_order", back, f"the command is stamped {back:.3f} s before {event}")


def _malformed(what: str) -> Refusal:
    return Refusal("joint_states_malformed", 1.0, f"the joint states {what}")


def _not_finite(what: str) -> Refusal:
    return Refusal("command_finite", 1.0, f"the command does not hold {what} and a stamp")
