"""What a model's numbers mean on a robot: no checkpoint says it, so whoever exports does.

By flags, by a small YAML file (`--meaning`), or both, of which the flags win:

    rate_hz: 30
    robot: so101                  # a shipped robot, or a robot file: names its joints
    action: {type: joint_position, gripper: {open_m: 1.7, closed_m: 0.0, mode: continuous}}
    units: {angles: deg, gripper: [0, 100]}      # of the checkpoint; the gripper: closed, open
    state: {names: [joint.position.shoulder_pan, ...]}
    cameras: {front: {source_aspect: 1.333, crop: [0, 0, 1, 1]}}
"""

import argparse
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from numpy.typing import NDArray

from vla_ros.export.error import ExportError
from vla_ros.observation.state import JOINT_PREFIX
from vla_ros.paths import share
from vla_ros.policy.manifest import GRIPPER_NAME, POSITION_NAMES, ROTATION_NAMES
from vla_ros.types import Array
from vla_ros.yaml_text import parse_yaml

ACTION_TYPES = (
    "delta_pose",
    "twist",
    "pose",
    "joint_position",
    "joint_velocity",
    "joint_delta",
)
_CARTESIAN = ACTION_TYPES[:3]
_RELATIVE = ("delta_pose", "joint_delta")
_OPENING = "gripper.opening"
_KEYS = {
    "": ("name", "rate_hz", "robot", "action", "units", "state", "cameras"),
    "action": ("type", "frame", "rotation", "reference", "names", "gripper"),
    "units": ("angles", "gripper"),
    "state": ("names",),
}
_CAMERA_KEYS = ("source_aspect", "crop")


@dataclass(frozen=True, slots=True)
class Units:
    """A model's numbers: `scale * value + offset` of each value in a manifest's units.

    Attributes:
        scale: Of each entry, positive.
        offset: Of each entry.

    """

    scale: tuple[float, ...]
    offset: tuple[float, ...]

    @property
    def is_plain(self) -> bool:
        """Whether both are the same."""
        return set(self.scale) <= {1.0} and set(self.offset) <= {0.0}

    def to_model(self, values: Array) -> Array:
        """Return the model's numbers of values in a manifest's units, shape (..., n) both."""
        return np.asarray(values * np.asarray(self.scale) + np.asarray(self.offset))

    def from_model(self, numbers: NDArray[Any]) -> Array:
        """Return the values in a manifest's units of the model's numbers, shape (..., n) both."""
        return np.asarray((numbers - np.asarray(self.offset)) / np.asarray(self.scale), np.float64)

    def convert(self, normalisation: Mapping[str, Any], *, inverse: bool) -> dict[str, Any]:
        """Return a normalisation of values in a manifest's units for one of the model's numbers.

        Args:
            normalisation: As a manifest has it, of the model's numbers.
            inverse: Whether it is used to denormalise, where LeRobot adds no eps.

        """
        if self.is_plain:
            return dict(normalisation)
        scale = np.asarray(self.scale)
        kind = normalisation["type"]
        if kind == "identity":
            mean, std = self.from_model(np.zeros(len(scale))), 1.0 / scale
        elif kind == "mean_std":
            spread = np.asarray(normalisation["std"]) + (0.0 if inverse else normalisation["eps"])
            mean, std = self.from_model(np.asarray(normalisation["mean"])), spread / scale
        else:
            bounds = {
                k: self.from_model(np.asarray(v)).tolist()
                for k, v in normalisation.items()
                if k != "type"
            }
            return {"type": kind, **bounds}
        # A deviation of 0 is never divided by: what is denormalised is multiplied.
        eps = normalisation.get("eps", 0.0) if inverse else 0.0
        return {"type": "mean_std", "mean": mean.tolist(), "std": std.tolist(), "eps": eps}


@dataclass(frozen=True, slots=True)
class Meaning:
    """What an export must be told.

    Attributes:
        name: Of the bundle.
        action: The manifest's section, without what the model says: chunk, normalisation, size.
        action_units: The model's, of each entry of an action.
        state_names: Entries of the state.
        state_units: The model's, of each entry of the state.
        cameras: What differs from the whole image, by camera: `source_aspect`, `crop`.

    """

    name: str
    action: Mapping[str, Any]
    action_units: Units
    state_names: tuple[str, ...]
    state_units: Units
    cameras: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class _Robot:
    name: str
    joints: tuple[str, ...]
    has_gripper: bool
    gripper: tuple[float, float] | None


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the flags."""
    group = parser.add_argument_group("what the model's numbers mean (no checkpoint says it)")
    group.add_argument("--meaning", type=Path, help="YAML file with any of what follows")
    group.add_argument("--name", help="name of the bundle (default: the folder's)")
    group.add_argument("--robot", help="a shipped robot (panda, so101, ur5e) or a robot file")
    group.add_argument("--rate", type=float, metavar="HZ", help="actions a second: the data's fps")
    group.add_argument("--action", choices=ACTION_TYPES, help="what an action is")
    group.add_argument("--frame", choices=["base", "tool"], help="of a Cartesian action")
    group.add_argument("--rotation", choices=[k for k in ROTATION_NAMES if k], help="of such a one")
    group.add_argument(
        "--reference",
        choices=["observation", "previous"],
        help="what delta_pose and joint_delta are relative to",
    )
    group.add_argument(
        "--joints", help="entries of a joint action, with commas (else: the robot's)"
    )
    group.add_argument("--state", help="entries of the state, with commas (else: the robot's)")
    group.add_argument("--degrees", action="store_true", help="the model's joint angles are in deg")
    group.add_argument(
        "--gripper-values",
        type=float,
        nargs=2,
        metavar=("CLOSED", "OPEN"),
        help="the model's numbers of a closed and an open gripper (default: 0 1 in actions)",
    )
    group.add_argument("--gripper-open", type=float, metavar="M", help="opening when open")
    group.add_argument("--gripper-closed", type=float, metavar="M", help="opening when closed")
    group.add_argument("--gripper-mode", choices=["binary", "continuous"])


def read_meaning(
    args: argparse.Namespace, *, state_size: int, action_size: int, source: str
) -> Meaning:
    """Return what the flags and the file say.

    Args:
        args: The flags.
        state_size: Entries of the model's state, 0 without one.
        action_size: Entries of the model's actions.
        source: What is exported, for errors.

    Raises:
        ExportError: Naming all that is missing at once.

    """
    given = _read_file(args.meaning) if args.meaning else {}
    action, units = dict(given.get("action") or {}), dict(given.get("units") or {})
    _flags(args, given, action, units)
    missing: list[str] = []
    robot = _read_robot(str(given["robot"])) if given.get("robot") else None
    kind, rate = action.get("type"), given.get("rate_hz")
    if kind is None:
        missing.append(f"--action ({', '.join(ACTION_TYPES)})")
    elif kind not in ACTION_TYPES:
        msg = f"action.type: is {kind!r}; there are {', '.join(ACTION_TYPES)}"
        raise ExportError(msg)
    if rate is not None and not (isinstance(rate, int | float) and 0.0 < rate < math.inf):
        msg = f"--rate: is {rate!r}; actions a second, more than 0"
        raise ExportError(msg)
    if rate is None:
        missing.append("--rate (the fps of the data that it was trained on)")
    if kind in _RELATIVE and action.get("reference") is None:
        missing.append("--reference (what an action is relative to)")
    if kind in _CARTESIAN and action.get("frame") is None:
        missing.append("--frame (in which an action is written)")
    names = _action_names(action, robot, action_size, missing)
    gripper = _gripper(action, robot, missing) if GRIPPER_NAME in names else None
    state_names = _state_names(given, robot, state_size, missing)
    if missing:
        msg = f"{source} does not say, so give: {'; '.join(missing)}"
        raise ExportError(msg)
    for key, found, size in (("action", names, action_size), ("state", state_names, state_size)):
        if len(found) != size:
            msg = (
                f"{source}: its {key} has {size} entries, but {len(found)} are named: "
                f"{', '.join(found)}"
            )
            raise ExportError(msg)
    section = {
        "type": kind,
        "frame": action.get("frame"),
        "rotation": action.get("rotation"),
        "reference": action.get("reference"),
        "rate_hz": float(given["rate_hz"]),
        "names": list(names),
        "gripper": gripper,
    }
    # One that is only measured has no open and closed to scale by.
    opening = (gripper["closed_m"], gripper["open_m"]) if gripper else None
    return Meaning(
        name=str(given.get("name") or args.out.name),
        action=section,
        action_units=_units(names, units, None if kind in _CARTESIAN else opening, action=True),
        state_names=state_names,
        state_units=_units(state_names, units, opening, action=False),
        cameras={name: camera or {} for name, camera in (given.get("cameras") or {}).items()},
    )


def _flags(
    args: argparse.Namespace,
    given: dict[str, Any],
    action: dict[str, Any],
    units: dict[str, Any],
) -> None:
    """Put the flags over what the file says."""
    given |= _present(name=args.name, robot=args.robot, rate_hz=args.rate)
    action |= _present(
        type=args.action,
        frame=args.frame,
        rotation=args.rotation,
        reference=args.reference,
        names=None if args.joints is None else args.joints.split(","),
    )
    if args.state is not None:
        given["state"] = {"names": args.state.split(",")}
    units |= _present(angles="deg" if args.degrees else None, gripper=args.gripper_values)
    gripper = dict(action.get("gripper") or {}) | _present(
        open_m=args.gripper_open, closed_m=args.gripper_closed, mode=args.gripper_mode
    )
    if gripper:
        action["gripper"] = gripper


def _present(**values: Any) -> dict[str, Any]:  # noqa: ANN401 - of flags
    return {key: value for key, value in values.items() if value is not None}


def _action_names(
    action: Mapping[str, Any], robot: _Robot | None, size: int, missing: list[str]
) -> tuple[str, ...]:
    kind = action.get("type")
    if kind is None:
        return ()
    if kind in _CARTESIAN:
        names = (*POSITION_NAMES, *ROTATION_NAMES.get(action.get("rotation"), ()))
        if size == len(names) + 1 or action.get("gripper"):
            names = (*names, GRIPPER_NAME)
        return names
    if action.get("names"):
        return tuple(str(name) for name in action["names"])
    if robot is None:
        missing.append("--robot or --joints (whose joints an action moves)")
        return ()
    return (*robot.joints, GRIPPER_NAME) if size > len(robot.joints) else robot.joints


def _gripper(
    action: Mapping[str, Any], robot: _Robot | None, missing: list[str]
) -> dict[str, Any] | None:
    given = dict(action.get("gripper") or {})
    if robot is not None and robot.gripper is not None:
        given.setdefault("closed_m", robot.gripper[0])
        given.setdefault("open_m", robot.gripper[1])
    given.setdefault("closed_m", 0.0)
    given.setdefault("mode", "continuous")
    if "open_m" not in given:
        missing.append("--gripper-open (the opening of an open gripper, in m)")
        return None
    for key in ("closed_m", "open_m"):
        if not isinstance(given[key], int | float):
            msg = f"action.gripper.{key}: is {given[key]!r}, but must be a number"
            raise ExportError(msg)
    if given["closed_m"] >= given["open_m"]:
        msg = (
            f"the gripper's opening is {given['closed_m']} closed and {given['open_m']} open: "
            "--gripper-open must be the greater"
        )
        raise ExportError(msg)
    return given


def _state_names(
    given: Mapping[str, Any], robot: _Robot | None, size: int, missing: list[str]
) -> tuple[str, ...]:
    if size == 0:
        return ()
    names = (given.get("state") or {}).get("names")
    if names:
        return tuple(str(name) for name in names)
    if robot is None:
        missing.append("--robot or --state (what the state's entries are)")
        return ()
    joints = tuple(JOINT_PREFIX + joint for joint in robot.joints)
    return (*joints, _OPENING) if size > len(joints) and robot.has_gripper else joints


def _units(
    names: Sequence[str],
    units: Mapping[str, Any],
    opening: tuple[float, float] | None,
    *,
    action: bool,
) -> Units:
    """Return the model's units of each entry."""
    angles = units.get("angles", "rad")
    if angles not in {"rad", "deg"}:
        msg = f"units.angles: is {angles!r}, but must be rad or deg"
        raise ExportError(msg)
    factor = 180.0 / math.pi if angles == "deg" else 1.0
    scale, offset = [], []
    for name in names:
        gain, shift = 1.0, 0.0
        if name in {GRIPPER_NAME, _OPENING}:
            gain, shift = _gripper_units(units.get("gripper"), opening, action=action)
        elif name.startswith(JOINT_PREFIX) or (action and name not in POSITION_NAMES):
            gain = factor
        scale.append(gain)
        offset.append(shift)
    return Units(tuple(scale), tuple(offset))


def _gripper_units(
    values: Any,  # noqa: ANN401 - a file's
    opening: tuple[float, float] | None,
    *,
    action: bool,
) -> tuple[float, float]:
    """Return scale and offset: of the open fraction in actions, of the opening in states."""
    if values is None:
        return 1.0, 0.0
    numbers = isinstance(values, list | tuple) and all(isinstance(v, int | float) for v in values)
    if not numbers or len(values) != 2:  # noqa: PLR2004 - closed, open
        msg = f"units.gripper: is {values!r}, but must be two numbers: closed, open"
        raise ExportError(msg)
    closed, opened = (float(value) for value in values)
    if closed >= opened:
        msg = f"units.gripper: closed, {closed}, must be less than open, {opened}"
        raise ExportError(msg)
    if action:
        return opened - closed, closed
    if opening is None:
        msg = "units.gripper: the state's gripper needs --gripper-open, which is missing"
        raise ExportError(msg)
    scale = (opened - closed) / (opening[1] - opening[0])
    return scale, closed - scale * opening[0]


def _read_file(file: Path) -> dict[str, Any]:
    try:
        content = parse_yaml(file.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as err:
        msg = f"{file}: cannot be read: {' '.join(str(err).split())}"
        raise ExportError(msg) from err
    if not isinstance(content, dict):
        msg = f"{file}: must be a mapping with keys among {', '.join(_KEYS[''])}"
        raise ExportError(msg)
    _check(file, "", content, _KEYS[""])
    for section in ("action", "units", "state"):
        _check(file, section, content.get(section), _KEYS[section])
    action, state = content.get("action") or {}, content.get("state") or {}
    _check(file, "action.gripper", action.get("gripper"))
    for where, names in (
        ("action.names", action.get("names")),
        ("state.names", state.get("names")),
    ):
        if names is not None and not isinstance(names, list):
            msg = f"{file}: {where}: is {names!r}, but must be a list"
            raise ExportError(msg)
    _check(file, "cameras", content.get("cameras"))
    for name, camera in (content.get("cameras") or {}).items():
        _check(file, f"cameras.{name}", camera, _CAMERA_KEYS)
    return content


def _check(file: Path, where: str, part: object, known: Sequence[str] | None = None) -> None:
    """Check that a part of the file, if it is there, is a mapping with no key but those known."""
    if part is None:
        return
    if not isinstance(part, dict):
        msg = f"{file}: {where}: is {part!r}, but must be a mapping"
        raise ExportError(msg)
    for key in part:
        if known is not None and key not in known:
            at = f"{where}.{key}" if where else key
            msg = f"{file}: {at}: is unknown; there are {', '.join(known)}"
            raise ExportError(msg)


def _read_robot(given: str) -> _Robot:
    """Read a robot's names, without all else that `RobotConfig` checks."""
    file = Path(given)
    if not file.is_file():
        file = share() / "config" / "robots" / f"{given}.yaml"
    try:
        content = parse_yaml(file.read_text(encoding="utf-8"))
        parameters = content["/**"]["ros__parameters"]
        robot, bounds = parameters["robot"], parameters["bounds"]
        joints = tuple(str(joint) for joint in robot["joints"])
        has_gripper = bool(robot.get("gripper_joints"))
        span = (float(bounds["gripper_min"]), float(bounds["gripper_max"])) if has_gripper else None
    except OSError as err:
        names = sorted(path.stem for path in (share() / "config" / "robots").glob("*.yaml"))
        msg = (
            f"--robot {given}: there is no such file, nor a robot of that name; there are "
            f"{', '.join(names)}"
        )
        raise ExportError(msg) from err
    except (yaml.YAMLError, KeyError, TypeError, ValueError) as err:
        msg = f"{file}: is no robot file: {' '.join(str(err).split())}"
        raise ExportError(msg) from err
    return _Robot(str(robot.get("name", given)), joints, has_gripper, span)
