"""The robot file: which robot this is, and every bound that its motion must keep.

One ROS parameter file a robot (`config/robots/<robot>.yaml`), read by nodes as parameters and by
everything else with `RobotConfig.load`; both are validated here, in the same way. No bound has a
default: a bound that nobody chose protects nobody.
"""

import difflib
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from enum import Enum
from pathlib import Path
from typing import Any

import yaml

from vla_ros.kinematics import SerialChain


class RobotConfigError(ValueError):
    """The robot file is missing a key, or holds one that is wrong. The message names both."""


class ParameterKind(Enum):
    """Type of a parameter of the robot file."""

    TEXT = "a string"
    TEXTS = "a list of strings"
    NUMBER = "a number"
    NUMBERS = "a list of numbers"
    COUNT = "a whole number"


@dataclass(frozen=True, slots=True)
class Bounds:
    """What the motion of the robot must keep, in SI units. `parameters()` describes each.

    Attributes:
        linear_speed: Greatest speed of the TCP in m/s.
        angular_speed: Greatest angular speed of the TCP in rad/s.
        linear_acceleration: Greatest acceleration of the TCP in m/s^2, also used to brake.
        angular_acceleration: Greatest angular acceleration of the TCP in rad/s^2.
        workspace_min: Lower corner of the box that the TCP stays in, base frame, m.
        workspace_max: Upper corner of that box.
        reaction_delay: Time in s that passes before a command shows in the measured position.
        gripper_min: Smallest opening between the fingers in m; 0 without a gripper.
        gripper_max: Greatest opening between the fingers in m; 0 without a gripper.
        effort: Greatest measured effort of each joint in Nm (N for slides), in the joints' order.
        effort_samples: Consecutive samples over `effort` that stop the arm; 0 supervises none.
        command_timeout: Time in s without an acceptable command after which the arm is stopped.
        refused_command_hold: Time in s without motion after a command was refused.
        command_max_age: Greatest age in s of a command on arrival.
        stamp_max_future: How far in s a command or joint sample may be stamped ahead.
        command_max_linear_speed: A command faster than this, in m/s, is refused, not scaled.
        command_max_angular_speed: The same for the angular speed, in rad/s.
        joint_state_timeout: Greatest age in s of the joint states that motion is allowed with.
        rest_joint_speed: Joint speed in rad/s under which the arm counts as still, for a reset.

    """

    linear_speed: float
    angular_speed: float
    linear_acceleration: float
    angular_acceleration: float
    workspace_min: tuple[float, float, float]
    workspace_max: tuple[float, float, float]
    reaction_delay: float
    gripper_min: float
    gripper_max: float
    effort: tuple[float, ...]
    effort_samples: int
    command_timeout: float
    refused_command_hold: float
    command_max_age: float
    stamp_max_future: float
    command_max_linear_speed: float
    command_max_angular_speed: float
    joint_state_timeout: float
    rest_joint_speed: float


@dataclass(frozen=True, slots=True)
class RobotConfig:
    """A robot: names, frames and bounds.

    Attributes:
        name: Name of the robot.
        base_frame: Link in whose frame commands are expressed.
        tcp_frame: Link whose motion is commanded, the tool centre point.
        joints: Moving joints from base to TCP.
        gripper_joints: Joints of the fingers, whose positions add up to the opening; may be empty.
        bounds: What the motion must keep.

    """

    name: str
    base_frame: str
    tcp_frame: str
    joints: tuple[str, ...]
    gripper_joints: tuple[str, ...]
    bounds: Bounds

    @classmethod
    def load(cls, path: str | Path) -> "RobotConfig":
        """Read a ROS parameter file (`/**: ros__parameters:`).

        Raises:
            RobotConfigError: If the file cannot be read, or a key is missing or wrong.

        """
        try:
            content = yaml.safe_load(Path(path).read_text(encoding="utf-8"))
        except OSError as err:
            msg = f"robot file {path}: {err.strerror}"
            raise RobotConfigError(msg) from err
        except (yaml.YAMLError, UnicodeDecodeError) as err:
            msg = f"robot file {path} is not YAML: {' '.join(str(err).split())}"
            raise RobotConfigError(msg) from err
        section = content.get("/**") if isinstance(content, dict) else None
        parameters = section.get("ros__parameters") if isinstance(section, dict) else None
        if not isinstance(parameters, dict):
            msg = f"robot file {path}: has no section '/**: ros__parameters:'"
            raise RobotConfigError(msg)
        return cls.from_parameters(_flatten(parameters), str(path))

    @classmethod
    def from_parameters(cls, parameters: Mapping[str, Any], source: str) -> "RobotConfig":
        """Build from flat dotted names (`bounds.linear_speed`), as a node's parameters are.

        Names outside `robot.` and `bounds.` belong to others and are left alone.

        Args:
            parameters: Value by name. None counts as missing.
            source: Where they are from, for errors: the file, or the node.

        Raises:
            RobotConfigError: If a parameter is missing, unknown, or wrong.

        """
        given = {name: value for name, value in parameters.items() if value is not None}
        known = {name: kind for name, (kind, _) in _PARAMETERS.items()}
        for name in given:
            if name.split(".")[0] in {"robot", "bounds"} and name not in known:
                close = difflib.get_close_matches(name, known, n=1)
                hint = f"did you mean {close[0]!r}?" if close else "see config/robots/panda.yaml"
                msg = f"{source}: {name!r} is unknown: {hint}"
                raise RobotConfigError(msg)
        if "robot.gripper_joints" not in given:
            for name in ("bounds.gripper_min", "bounds.gripper_max"):
                if name in given:
                    msg = f"{source}: {name!r} is set, but 'robot.gripper_joints' is missing"
                    raise RobotConfigError(msg)
                given[name] = 0.0
            given["robot.gripper_joints"] = []

        values: dict[str, Any] = {}
        for name, kind in known.items():
            if name not in given:
                section, key = name.split(".")
                msg = f"{source}: {name!r} is missing: set {key!r} under {section!r} there"
                raise RobotConfigError(msg)
            values[name] = _convert(name, kind, given[name], source)
        config = cls(
            **{f.name: values[f"robot.{f.name}"] for f in fields(cls) if f.name != "bounds"},
            bounds=Bounds(**{f.name: values[f"bounds.{f.name}"] for f in fields(Bounds)}),
        )
        _check(config, source)
        return config

    def chain(self, urdf: str) -> SerialChain:
        """Return the kinematics from the base to the TCP, by the text of the robot's URDF.

        Raises:
            vla_ros.kinematics.KinematicsError: If the URDF is not this robot's.

        """
        return SerialChain.from_urdf(urdf, self.base_frame, self.tcp_frame, self.joints)

    def check_joints(self, names: Sequence[str], where: str = "joint_states") -> None:
        """Check that all joints of this robot are among `names`.

        Args:
            names: Joints of the robot that is connected.
            where: Where these names were found, for the error.

        Raises:
            RobotConfigError: If one is missing: the file is that of another robot.

        """
        missing = [joint for joint in (*self.joints, *self.gripper_joints) if joint not in names]
        if missing:
            msg = (
                f"the robot file of {self.name!r} is for other joints: {where} has {list(names)}, "
                f"which lacks {missing}: use the file of this robot"
            )
            raise RobotConfigError(msg)


def parameters() -> Mapping[str, tuple[ParameterKind, str]]:
    """Return kind and description of every parameter of a robot file, by its dotted name."""
    return dict(_PARAMETERS)


_PARAMETERS: dict[str, tuple[ParameterKind, str]] = {
    "robot.name": (ParameterKind.TEXT, "Name of the robot"),
    "robot.base_frame": (ParameterKind.TEXT, "Link in whose frame commands are expressed"),
    "robot.tcp_frame": (ParameterKind.TEXT, "Link that is commanded, the tool centre point"),
    "robot.joints": (ParameterKind.TEXTS, "Moving joints from base to TCP"),
    "robot.gripper_joints": (ParameterKind.TEXTS, "Finger joints; leave out without a gripper"),
    "bounds.linear_speed": (ParameterKind.NUMBER, "Greatest TCP speed, m/s"),
    "bounds.angular_speed": (ParameterKind.NUMBER, "Greatest TCP angular speed, rad/s"),
    "bounds.linear_acceleration": (ParameterKind.NUMBER, "Greatest TCP acceleration, m/s^2"),
    "bounds.angular_acceleration": (
        ParameterKind.NUMBER,
        "Greatest TCP angular acceleration, rad/s^2",
    ),
    "bounds.workspace_min": (ParameterKind.NUMBERS, "Lower corner of the TCP's box, m"),
    "bounds.workspace_max": (ParameterKind.NUMBERS, "Upper corner of the TCP's box, m"),
    "bounds.reaction_delay": (
        ParameterKind.NUMBER,
        "Time until a command shows in the measured position, s",
    ),
    "bounds.gripper_min": (ParameterKind.NUMBER, "Smallest opening, m"),
    "bounds.gripper_max": (ParameterKind.NUMBER, "Greatest opening, m"),
    "bounds.effort": (ParameterKind.NUMBERS, "Greatest measured effort of each joint, Nm"),
    "bounds.effort_samples": (
        ParameterKind.COUNT,
        "Consecutive samples over the effort bound that stop the arm; 0: effort is not supervised",
    ),
    "bounds.command_timeout": (ParameterKind.NUMBER, "Stop after this time without command, s"),
    "bounds.refused_command_hold": (ParameterKind.NUMBER, "Stillness after a refused command, s"),
    "bounds.command_max_age": (ParameterKind.NUMBER, "Greatest age of a command on arrival, s"),
    "bounds.stamp_max_future": (ParameterKind.NUMBER, "Greatest lead of a stamp, s"),
    "bounds.command_max_linear_speed": (ParameterKind.NUMBER, "Refuse faster commands, m/s"),
    "bounds.command_max_angular_speed": (ParameterKind.NUMBER, "Refuse faster commands, rad/s"),
    "bounds.joint_state_timeout": (ParameterKind.NUMBER, "Greatest age of joint states, s"),
    "bounds.rest_joint_speed": (ParameterKind.NUMBER, "Slower joints count as still, rad/s"),
}
_TYPES: dict[ParameterKind, tuple[type[Any], ...]] = {
    ParameterKind.TEXT: (str,),
    ParameterKind.NUMBER: (int, float),
    ParameterKind.COUNT: (int,),
}
_ITEM_KINDS = {
    ParameterKind.TEXTS: ParameterKind.TEXT,
    ParameterKind.NUMBERS: ParameterKind.NUMBER,
}
_POSITIVE = (
    "linear_speed",
    "angular_speed",
    "linear_acceleration",
    "angular_acceleration",
    "reaction_delay",
    "command_timeout",
    "refused_command_hold",
    "command_max_age",
    "stamp_max_future",
    "command_max_linear_speed",
    "command_max_angular_speed",
    "joint_state_timeout",
    "rest_joint_speed",
)


def _flatten(tree: Mapping[Any, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in tree.items():
        if isinstance(value, dict):
            flat.update(_flatten(value, f"{prefix}{key}."))
        else:
            flat[f"{prefix}{key}"] = value
    return flat


def _convert(name: str, kind: ParameterKind, value: Any, source: str) -> Any:  # noqa: ANN401
    """Return `value` as its kind's Python type, lists as tuples."""
    item = _ITEM_KINDS.get(kind)
    if item is not None:
        # Nodes hand over array.array, which isinstance does not count as a Sequence.
        if isinstance(value, (str, bytes, Mapping)) or not hasattr(value, "__iter__"):
            raise _wrong_kind(name, kind, value, source)
        return tuple(_convert(f"{name}[{i}]", item, v, source) for i, v in enumerate(value))
    if isinstance(value, bool) or not isinstance(value, _TYPES[kind]):
        raise _wrong_kind(name, kind, value, source)
    if kind is ParameterKind.NUMBER:
        value = _float(value)
        if not math.isfinite(value):
            msg = f"{source}: {name!r} is {value}, but must be finite"
            raise RobotConfigError(msg)
    if not value and kind is ParameterKind.TEXT:
        msg = f"{source}: {name!r} is empty"
        raise RobotConfigError(msg)
    return value


def _wrong_kind(name: str, kind: ParameterKind, value: object, source: str) -> RobotConfigError:
    return RobotConfigError(f"{source}: {name!r} must be {kind.value}, but is {value!r}")


def _float(value: Any) -> float:  # noqa: ANN401
    try:
        return float(value)
    except OverflowError:  # a whole number of more than 308 digits
        return math.inf


def _check(config: RobotConfig, source: str) -> None:
    """Refuse values that contradict each other, or under which the arm could not stop."""
    for label, names in (("joints", config.joints), ("gripper_joints", config.gripper_joints)):
        if len(set(names)) != len(names):
            msg = f"{source}: 'robot.{label}' names a joint twice: {list(names)}"
            raise RobotConfigError(msg)
    if not config.joints:
        msg = f"{source}: 'robot.joints' is empty"
        raise RobotConfigError(msg)
    for key, why in _contradictions(config):
        value = getattr(config.bounds, key)
        shown = list(value) if isinstance(value, tuple) else value
        msg = f"{source}: 'bounds.{key}' is {shown}, but {why}"
        raise RobotConfigError(msg)


def _contradictions(config: RobotConfig) -> Iterator[tuple[str, str]]:
    """Yield the key of each wrong bound, and what is wrong with it; the first is the cause."""
    bounds = config.bounds
    yield from ((k, "must be greater than 0") for k in _POSITIVE if getattr(bounds, k) <= 0.0)
    lengths = {"workspace_min": 3, "workspace_max": 3, "effort": len(config.joints)}
    for key, length in lengths.items():
        if len(getattr(bounds, key)) != length:
            yield key, f"must have {length} numbers"
    if min(bounds.effort, default=0.0) <= 0.0:
        yield "effort", "must be greater than 0"
    not_negative = ("effort_samples", "gripper_min")
    yield from ((k, "must not be negative") for k in not_negative if getattr(bounds, k) < 0)
    if config.gripper_joints and bounds.gripper_min >= bounds.gripper_max:
        yield "gripper_min", f"'bounds.gripper_max' is {bounds.gripper_max}, which is not greater"
    for key in ("linear_speed", "angular_speed"):
        if getattr(bounds, f"command_max_{key}") < getattr(bounds, key):
            yield f"command_max_{key}", f"that is less than 'bounds.{key}'"
    yield from _workspace_contradictions(bounds)


def _workspace_contradictions(bounds: Bounds) -> Iterator[tuple[str, str]]:
    # The acceleration that is left for each axis when all three brake at once (safety/filter.py).
    braking = bounds.linear_acceleration / math.sqrt(3.0)
    stop = bounds.linear_speed * bounds.reaction_delay + bounds.linear_speed**2 / (2.0 * braking)
    for axis, low, high in zip("xyz", bounds.workspace_min, bounds.workspace_max, strict=False):
        if low >= high:
            yield "workspace_min", f"'bounds.workspace_max' is not greater in {axis}"
        if stop > high - low:
            why = (
                f"stopping from it takes {stop:.3f} m (reaction_delay, linear_acceleration), more "
                f"than the workspace's {high - low:.3f} m in {axis}: lower it or brake harder"
            )
            yield "linear_speed", why
