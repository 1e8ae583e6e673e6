"""The volumes and tool points of a robot file, and the names of their parameters.

The lists `bounds.workspace`, `bounds.keep_out`, `bounds.workspace_points` and
`bounds.keep_out_points` name them; `volumes.<name>.` and `points.<name>.` hold their numbers, as
polygons do in Nav2's collision monitor. A ROS parameter file has no lists of lists.
"""

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from vla_ros.parameters import Key, ParameterKind, RobotConfigError, convert, unknown
from vla_ros.volumes import (
    INSIDE,
    KEEP_OUT,
    TCP_POINT,
    Box,
    Capsule,
    Cylinder,
    HalfSpace,
    Sphere,
    ToolPoint,
    Volume,
)

_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_]*")
_NUMBER, _NUMBERS = ParameterKind.NUMBER, ParameterKind.NUMBERS
_VOLUME_KEYS: dict[str, Key] = {
    "shape": Key(ParameterKind.TEXT, "box, sphere, cylinder, half_space or capsule"),
    "center": Key(_NUMBERS, "Middle, base frame", "m", length=3),
    "rpy": Key(_NUMBERS, "Turn of a box about the base's fixed x, y, z", "rad", length=3),
    "size": Key(_NUMBERS, "Edges of a box", "m", length=3, least=0.0),
    "radius": Key(_NUMBER, "Radius", "m", least=0.0),
    "inner_radius": Key(_NUMBER, "Inner radius of a shell", "m", least=0.0, optional=True),
    "axis": Key(_NUMBERS, "Direction of a cylinder, base frame", "-", length=3),
    "normal": Key(_NUMBERS, "Outward direction of a half_space, of length 1", "-", length=3),
    "offset": Key(_NUMBER, "Inside: normal . x <= offset", "m"),
    "from": Key(_NUMBERS, "One end of a capsule's middle line, base frame", "m", length=3),
    "to": Key(_NUMBERS, "The other end", "m", length=3),
}
_SHAPES: dict[str, tuple[type[Volume], tuple[str, ...]]] = {
    "box": (Box, ("center", "rpy", "size")),
    "sphere": (Sphere, ("center", "radius", "inner_radius")),
    "cylinder": (Cylinder, ("center", "axis", "radius", "inner_radius")),
    "half_space": (HalfSpace, ("normal", "offset")),
    "capsule": (Capsule, ("from", "to", "radius")),
}
_FIELDS = {"from": "start", "to": "end"}
"""Keys whose name is Python's or unclear in code."""
_POINT_KEYS: dict[str, Key] = {
    "position": Key(_NUMBERS, "Middle, TCP frame", "m", length=3),
    "radius": Key(_NUMBER, "Radius", "m", least=0.0, or_equal=True),
}
_LISTS: dict[str, tuple[str, tuple[type[Volume], ...]]] = {
    "bounds.workspace": ("volumes", INSIDE),
    "bounds.keep_out": ("volumes", KEEP_OUT),
    "bounds.workspace_points": ("points", ()),
    "bounds.keep_out_points": ("points", ()),
}
"""For each list of names: the section that they are in, and the shapes that it takes."""
_UNIT_TOLERANCE = 1e-3
"""A direction may miss length 1 by this: three decimals."""


def dynamic_parameters(values: Mapping[str, Any]) -> Mapping[str, Key]:
    """Return the parameters of the volumes and points that `values` names.

    Args:
        values: The values of `parameters()` as they are given, not yet validated.

    """
    found: dict[str, Key] = {}
    for key, (section, _) in _LISTS.items():
        kinds = _VOLUME_KEYS if section == "volumes" else _POINT_KEYS
        names = values.get(key)
        if not isinstance(names, Iterable) or isinstance(names, (str, bytes)):
            continue
        for name in names:
            if isinstance(name, str) and _NAME.fullmatch(name):
                found |= {f"{section}.{name}.{last}": kind for last, kind in kinds.items()}
    return found


def volumes_and_points(
    given: Mapping[str, Any], values: Mapping[str, Any], source: str
) -> dict[str, tuple[Volume, ...] | tuple[ToolPoint, ...]]:
    """Return the volumes and points that the lists of names stand for, by their parameter.

    Args:
        given: Every parameter that is given, by its name.
        values: The lists, empty where left out.
        source: Where they are from, for errors.

    Raises:
        RobotConfigError: If one is missing, unused or wrong.

    """
    known = dynamic_parameters(values)
    sections = {section for section, _ in _LISTS.values()}
    for name in given:
        parts = [*name.split("."), ""]
        if parts[0] in sections and name not in known:
            if any(other.startswith(f"{parts[0]}.{parts[1]}.") for other in known):
                raise unknown(name, known, source)
            lists = " nor ".join(f"'{key}'" for key in _LISTS if _LISTS[key][0] == parts[0])
            msg = f"{source}: {name!r} is given, but {parts[1]!r} is neither in {lists}"
            raise RobotConfigError(msg)
    found: dict[str, Any] = {}
    for key, (section, shapes) in _LISTS.items():
        names = values[key]
        for i, name in enumerate(names):
            if not _NAME.fullmatch(name):
                msg = f"{source}: '{key}[{i}]' is {name!r}, but must be letters, digits and _"
                raise RobotConfigError(msg)
            if name in names[:i]:
                msg = f"{source}: {key!r} names {name!r} twice"
                raise RobotConfigError(msg)
        if section == "points":
            found[key] = tuple(_point(name, given, source) for name in names or ("tcp",))
        else:
            found[key] = tuple(_volume(name, key, shapes, given, source) for name in names)
    return found


def direction(name: str, value: tuple[float, ...], source: str) -> tuple[float, ...]:
    """Return `value` with length 1, which it must have nearly.

    Raises:
        RobotConfigError: If it is no list of three numbers of length 1.

    """
    length = math.hypot(*value)
    if len(value) != 3 or abs(length - 1.0) > _UNIT_TOLERANCE:  # noqa: PLR2004 - x, y, z
        msg = f"{source}: {name!r} is {list(value)}, but must be 3 numbers, a direction of length 1"
        raise RobotConfigError(msg)
    return tuple(part / length for part in value)


def _point(name: str, given: Mapping[str, Any], source: str) -> ToolPoint:
    if name == TCP_POINT.name:
        if any(other.startswith("points.tcp.") for other in given):
            msg = f"{source}: 'points.tcp' is given, but 'tcp' is the TCP itself: use another name"
            raise RobotConfigError(msg)
        return TCP_POINT
    parts = _parts(f"points.{name}", _POINT_KEYS, tuple(_POINT_KEYS), given, source)
    return ToolPoint(name, **parts)


def _volume(
    name: str,
    where: str,
    shapes: tuple[type[Volume], ...],
    given: Mapping[str, Any],
    source: str,
) -> Volume:
    prefix = f"volumes.{name}"
    shape = _parts(prefix, _VOLUME_KEYS, ("shape",), given, source)["shape"]
    if shape not in _SHAPES:
        msg = f"{source}: '{prefix}.shape' is {shape!r}, but must be one of {list(_SHAPES)}"
        raise RobotConfigError(msg)
    kind, wanted = _SHAPES[shape]
    if kind not in shapes:
        msg = (
            f"{source}: '{prefix}.shape' is {shape!r}, which {where!r} does not take: it takes "
            f"{[s.shape for s in shapes]}"
        )
        raise RobotConfigError(msg)
    for key in _VOLUME_KEYS:
        if f"{prefix}.{key}" in given and key not in (*wanted, "shape"):
            msg = f"{source}: '{prefix}.{key}' is given, but a {shape} has {list(wanted)} alone"
            raise RobotConfigError(msg)
    parts = _parts(prefix, _VOLUME_KEYS, wanted, given, source)
    for key in ("axis", "normal"):
        if key in parts:
            parts[key] = direction(f"{prefix}.{key}", parts[key], source)
    if parts.get("inner_radius", 0.0) >= parts.get("radius", math.inf):
        msg = f"{source}: '{prefix}.inner_radius' is not less than '{prefix}.radius'"
        raise RobotConfigError(msg)
    if "inner_radius" in parts and where == "bounds.keep_out":
        msg = f"{source}: '{prefix}.inner_radius' is given, but what is kept out of is solid"
        raise RobotConfigError(msg)
    return kind(name=name, **{_FIELDS.get(key, key): value for key, value in parts.items()})


def _parts(
    prefix: str,
    kinds: Mapping[str, Key],
    wanted: Sequence[str],
    given: Mapping[str, Any],
    source: str,
) -> dict[str, Any]:
    """Return the values of a volume or point, by their last name."""
    parts: dict[str, Any] = {}
    for last in wanted:
        name, key = f"{prefix}.{last}", kinds[last]
        if name not in given:
            if key.optional:
                continue
            msg = f"{source}: {name!r} is missing: set {last!r} under {prefix!r} there"
            raise RobotConfigError(msg)
        value = convert(name, key.kind, given[name], source)
        if key.kind is _NUMBERS and len(value) != key.length:
            msg = f"{source}: {name!r} is {list(value)}, but must have {key.length} numbers"
            raise RobotConfigError(msg)
        if key.least is not None:
            lowest = min(value) if isinstance(value, tuple) else value
            if lowest < key.least or (lowest == key.least and not key.or_equal):
                word = "must not be less than" if key.or_equal else "must be greater than"
                msg = f"{source}: {name!r} is {value}, but {word} {key.least:g}"
                raise RobotConfigError(msg)
        parts[last] = value
    return parts
