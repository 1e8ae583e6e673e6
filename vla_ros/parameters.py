"""What a parameter of a robot file is, and its value as Python's types."""

import difflib
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import Enum
from typing import Any


class RobotConfigError(ValueError):
    """The robot file is missing a key, or holds one that is wrong. The message names both."""


class ParameterKind(Enum):
    """Type of a parameter of the robot file."""

    TEXT = "a string"
    TEXTS = "a list of strings"
    NUMBER = "a number"
    NUMBERS = "a list of numbers"
    COUNT = "a whole number"


class Tighter(Enum):
    """Which values of a bound are tighter than the present one."""

    LOWER = "at most"
    HIGHER = "at least"
    LOWER_OR_ON = "at most, and over 0 unless it is 0"
    NEVER = "none: it describes the robot, or the plan that stops it"


class Where(Enum):
    """Where a bound acts."""

    MOTION = "Motion: every command that is sent keeps it"
    PLAN = "Stopping: every command is sent with a plan to come to rest"
    PLACE = "Place and direction of the tool: kept until that rest, too"
    GRIPPER = "Gripper, in m and N, or in rad and Nm where its joint turns"
    STOP = "Measured torque: too much is a protective stop"
    INPUT = "What comes in: refused, or the arm stops"
    MODEL = "Payload in the model of the arm"


@dataclass(frozen=True, slots=True)
class Key:
    """What is to be known of one parameter of the robot file.

    Attributes:
        kind: Its type.
        text: What it means, in one line.
        unit: Its unit; of a slide's joint, m instead of rad and N instead of Nm.
        where: Who makes it hold.
        tighter: Which values are tighter.
        least: What it must be greater than; None without one.
        or_equal: Whether it may also be equal to `least`.
        length: Numbers in the list; 0 for one a joint.
        gripper: Whether only a robot with a gripper has it.
        optional: Whether it may be left out.

    """

    kind: ParameterKind
    text: str
    unit: str = ""
    where: Where = Where.MODEL
    tighter: Tighter = Tighter.NEVER
    least: float | None = None
    or_equal: bool = False
    length: int = 0
    gripper: bool = False
    optional: bool = False


_TYPES: dict[ParameterKind, tuple[type[Any], ...]] = {
    ParameterKind.TEXT: (str,),
    ParameterKind.NUMBER: (int, float),
    ParameterKind.COUNT: (int,),
}
_ITEM_KINDS = {
    ParameterKind.TEXTS: ParameterKind.TEXT,
    ParameterKind.NUMBERS: ParameterKind.NUMBER,
}


def convert(name: str, kind: ParameterKind, value: Any, source: str) -> Any:  # noqa: ANN401
    """Return `value` as its kind's Python type, lists as tuples.

    Args:
        name: Name of the parameter, for errors.
        kind: What it must be.
        value: As YAML or rclpy give it.
        source: Where it is from, for errors.

    Raises:
        RobotConfigError: If it is something else, empty, or not finite.

    """
    item = _ITEM_KINDS.get(kind)
    if item is not None:
        # Nodes hand over array.array, which isinstance does not count as a Sequence.
        if isinstance(value, (str, bytes, Mapping)) or not hasattr(value, "__iter__"):
            raise _wrong_kind(name, kind, value, source)
        items = tuple(convert(f"{name}[{i}]", item, v, source) for i, v in enumerate(value))
        if not items:
            msg = f"{source}: {name!r} is empty, which ROS 2 does not read: leave out what may be"
            raise RobotConfigError(msg)
        return items
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


def unknown(name: str, known: Iterable[str], source: str) -> RobotConfigError:
    """Return the error of a name that is none of `known`, with the one that may be meant."""
    close = difflib.get_close_matches(name, list(known), n=1)
    hint = f"did you mean {close[0]!r}?" if close else "see config/robots/panda.yaml"
    return RobotConfigError(f"{source}: {name!r} is unknown: {hint}")


def _wrong_kind(name: str, kind: ParameterKind, value: object, source: str) -> RobotConfigError:
    return RobotConfigError(f"{source}: {name!r} must be {kind.value}, but is {value!r}")


def _float(value: Any) -> float:  # noqa: ANN401
    try:
        return float(value)
    except OverflowError:  # a whole number of more than 308 digits
        return math.inf
