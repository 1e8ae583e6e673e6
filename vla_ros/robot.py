"""The robot file: which robot this is, and every bound that its motion must keep.

One ROS parameter file a robot (`config/robots/<robot>.yaml`), read by nodes as parameters and by
everything else with `RobotConfig.load`; both are validated here, in the same way. No bound has a
default: a bound that nobody chose protects nobody.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

import yaml

from vla_ros.bounds import Bounds, keys
from vla_ros.contradictions import contradictions
from vla_ros.kinematics import SerialChain
from vla_ros.parameters import (
    Key,
    ParameterKind,
    RobotConfigError,
    Tighter,
    convert,
    unknown,
)
from vla_ros.robot_volumes import direction, dynamic_parameters, volumes_and_points
from vla_ros.yaml_text import parse_yaml

__all__ = [
    "Bounds",
    "Key",
    "ParameterKind",
    "RobotConfig",
    "RobotConfigError",
    "dynamic_parameters",
    "parameters",
]


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
            content = parse_yaml(Path(path).read_text(encoding="utf-8"))
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
        flat = _flatten(parameters)
        for name, value in flat.items():
            if isinstance(value, list) and {type(v) for v in value} == {int, float}:
                msg = (
                    f"{path}: {name!r} mixes whole numbers with others, {value}, which ROS 2 does "
                    "not read: write each with a decimal point"
                )
                raise RobotConfigError(msg)
        return cls.from_parameters(flat, str(path))

    @classmethod
    def from_parameters(cls, parameters: Mapping[str, Any], source: str) -> "RobotConfig":
        """Build from flat dotted names (`bounds.linear_speed`), as a node's parameters are.

        Names outside `robot.`, `bounds.`, `volumes.` and `points.` belong to others and are left
        alone.

        Args:
            parameters: Value by name. None counts as missing.
            source: Where they are from, for errors: the file, or the node.

        Raises:
            RobotConfigError: If a parameter is missing, unknown, or wrong.

        """
        given = {name: value for name, value in parameters.items() if value is not None}
        for name in given:
            if name.split(".")[0] in {"robot", "bounds"} and name not in _KEYS:
                raise unknown(name, _KEYS, source)
        values = {name: _value(name, key, given, source) for name, key in _KEYS.items()}
        for name in ("bounds.tool_axis", "bounds.tool_cone_axis"):
            values[name] = direction(name, values[name], source)
        values |= volumes_and_points(given, values, source)
        config = cls(
            **{f.name: values[f"robot.{f.name}"] for f in fields(cls) if f.name != "bounds"},
            bounds=Bounds(**{f.name: values[f"bounds.{f.name}"] for f in fields(Bounds)}),
        )
        _check(config, source)
        return config

    def tightened(self, name: str, value: Any) -> "RobotConfig":  # noqa: ANN401
        """Return this robot with one bound made tighter; the file alone can loosen it.

        Which way is tighter is said by each line of `Bounds`. What describes the robot rather than
        bounds it (delay, payload, frames) cannot be changed.

        Args:
            name: `linear_speed` or `bounds.linear_speed`.
            value: A number, or all of the list's. May be what it is already.

        Raises:
            RobotConfigError: If there is no such bound, or `value` would loosen it, is not of its
                type, or contradicts another bound.

        """
        source = f"robot {self.name!r}"
        name = name if name.startswith("bounds.") else f"bounds.{name}"
        if name not in _KEYS:
            raise unknown(name, _KEYS, source)
        key, field = _KEYS[name], name.removeprefix("bounds.")
        if key.tighter is Tighter.NEVER:
            msg = f"{source}: {name!r} cannot be changed while it runs: change the robot file"
            raise RobotConfigError(msg)
        old, new = getattr(self.bounds, field), convert(name, key.kind, value, source)
        olds, news = (v if isinstance(v, tuple) else (v,) for v in (old, new))
        if len(news) != len(olds):
            msg = f"{source}: {name!r} is {list(news)}, but must have {len(olds)} numbers"
            raise RobotConfigError(msg)
        if not all(_is_tighter(key.tighter, o, n) for o, n in zip(olds, news, strict=True)):
            shown = list(old) if isinstance(old, tuple) else old
            msg = (
                f"{source}: {name!r} can only be tightened while it runs, to {key.tighter.value} "
                f"{shown}, but is to be {value!r}: change the robot file to loosen it"
            )
            raise RobotConfigError(msg)
        config = replace(self, bounds=replace(self.bounds, **{field: new}))
        _check(config, source)
        return config

    def slowed(self, scale: float) -> "RobotConfig":
        """Return this robot with its speeds (TCP, joints, gripper) multiplied by `scale`.

        Always scale the robot of the file, not one that was slowed before. Accelerations stay, so
        that braking stays as hard.

        Args:
            scale: Over 0, at most 1.

        Raises:
            RobotConfigError: If `scale` is not in that range, or leaves less than counts as rest.

        """
        source = f"robot {self.name!r}"
        scale = convert("speed_scale", ParameterKind.NUMBER, scale, source)
        if not 0.0 < scale <= 1.0:
            msg = f"{source}: 'speed_scale' is {scale}, but must be over 0 and at most 1"
            raise RobotConfigError(msg)
        bounds = self.bounds
        config = replace(
            self,
            bounds=replace(
                bounds,
                linear_speed=bounds.linear_speed * scale,
                angular_speed=bounds.angular_speed * scale,
                joint_speed=tuple(speed * scale for speed in bounds.joint_speed),
                gripper_speed=bounds.gripper_speed * scale,
            ),
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


def parameters() -> Mapping[str, Key]:
    """Return each parameter that every robot file may hold, by its dotted name.

    Volumes and points add their own: `dynamic_parameters`.
    """
    return dict(_KEYS)


_KEYS: dict[str, Key] = {
    "robot.name": Key(ParameterKind.TEXT, "Name of the robot"),
    "robot.base_frame": Key(ParameterKind.TEXT, "Link in whose frame commands are expressed"),
    "robot.tcp_frame": Key(ParameterKind.TEXT, "Link that is commanded, the tool centre point"),
    "robot.joints": Key(ParameterKind.TEXTS, "Moving joints from base to TCP"),
    "robot.gripper_joints": Key(
        ParameterKind.TEXTS, "Finger joints; leave out without a gripper", optional=True
    ),
    **{f"bounds.{name}": key for name, key in keys().items()},
}


def _flatten(tree: Mapping[Any, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in tree.items():
        if isinstance(value, dict):
            flat.update(_flatten(value, f"{prefix}{key}."))
        else:
            flat[f"{prefix}{key}"] = value
    return flat


def _value(name: str, key: Key, given: Mapping[str, Any], source: str) -> Any:  # noqa: ANN401
    """Return the value of a parameter that every robot file may hold."""
    without_gripper = key.gripper and "robot.gripper_joints" not in given
    if name in given:
        if without_gripper:
            msg = f"{source}: {name!r} is set, but 'robot.gripper_joints' is missing"
            raise RobotConfigError(msg)
        return convert(name, key.kind, given[name], source)
    if key.optional:
        return ()
    if without_gripper:
        return 0.0
    section, last = name.split(".")
    msg = f"{source}: {name!r} is missing: set {last!r} under {section!r} there"
    raise RobotConfigError(msg)


def _is_tighter(rule: Tighter, old: float, new: float) -> bool:
    """Return whether `new` is as tight as `old`, or tighter."""
    if rule is Tighter.HIGHER:
        return new >= old
    if rule is Tighter.LOWER_OR_ON:
        return old == 0.0 or 0.0 < new <= old
    return new <= old


def _check(config: RobotConfig, source: str) -> None:
    """Refuse values that contradict each other, or under which the arm could not stop."""
    for label, names in (("joints", config.joints), ("gripper_joints", config.gripper_joints)):
        if len(set(names)) != len(names):
            msg = f"{source}: 'robot.{label}' names a joint twice: {list(names)}"
            raise RobotConfigError(msg)
    both = sorted(set(config.joints) & set(config.gripper_joints))
    if both:
        msg = f"{source}: 'robot.gripper_joints' names {both}, which 'robot.joints' does too"
        raise RobotConfigError(msg)
    found = contradictions(config.bounds, len(config.joints), gripper=bool(config.gripper_joints))
    for key, why in found:
        value = getattr(config.bounds, key)
        shown = [getattr(v, "name", v) for v in value] if isinstance(value, tuple) else value
        msg = f"{source}: 'bounds.{key}' is {shown}, but {why}"
        raise RobotConfigError(msg)
