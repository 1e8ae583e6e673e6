"""Counts where recorded commands to the robot broke a bound.

A judge that shared code with the accused would share its errors: this module reads the robot file,
computes positions and checks bounds on its own, and uses neither `vla_ros.safety`, nor
`vla_ros.robot`, nor `vla_ros.kinematics`. It works on whole recordings at once, as arrays.
"""

import argparse
import json
import math
import sys
import xml.etree.ElementTree as ET
from bisect import bisect_right
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from numpy.typing import NDArray

from vla_ros.replay.bags import read_bag, stamp_ns
from vla_ros.replay.timing import latencies

Array = NDArray[np.float64]
Mask = NDArray[np.bool_]

SECOND_NS = 1_000_000_000
OUTSIDE_M = 0.002
"""How far outside the workspace the measured TCP may be found, in m: the arm follows with a lag."""
ROUNDING = 1e-9
EXAMPLES = 5


class JudgeError(ValueError):
    """A robot file, a robot description or a bag cannot be judged."""


@dataclass(frozen=True, slots=True)
class Tick:
    """One command to the robot, and what was measured when it was sent.

    Attributes:
        stamp_ns: Time of the command.
        twist: Of the TCP in the base frame, m/s and rad/s, shape (6,).
        gripper: Opening in m, None if none was sent.
        position: Joint positions in rad, in the robot file's order; None if unknown.
        frame_id: Frame of the twist; None stands for the robot's base.

    """

    stamp_ns: int
    twist: Array
    gripper: float | None
    position: Array | None
    frame_id: str | None = None


@dataclass(slots=True)
class Verdict:
    """What was found.

    Attributes:
        ticks: Commands that were judged.
        violations: Those outside at least one bound.
        by_bound: Number of commands outside each bound.
        outside_m: How far outside the workspace the measured TCP was at most, in m; 0 if never.
        examples: The first few violations, each as a line.

    """

    ticks: int = 0
    violations: int = 0
    by_bound: dict[str, int] = field(default_factory=dict)
    outside_m: float = 0.0
    examples: list[str] = field(default_factory=list)

    def add(self, other: "Verdict") -> None:
        """Add another recording's verdict to this."""
        self.ticks += other.ticks
        self.violations += other.violations
        for name, count in other.by_bound.items():
            self.by_bound[name] = self.by_bound.get(name, 0) + count
        self.outside_m = max(self.outside_m, other.outside_m)
        self.examples = [*self.examples, *other.examples][:EXAMPLES]


class Judge:
    """Judges commands to one robot."""

    def __init__(self, robot_file: str | Path, urdf: str, rate_hz: float = 100.0) -> None:
        """Read the bounds and the kinematics.

        Args:
            robot_file: The robot file.
            urdf: The text of the robot's description.
            rate_hz: Rate of the commands.

        Raises:
            JudgeError: If either lacks something.

        """
        parameters = _read_parameters(robot_file)
        try:
            robot, self._bounds = parameters["robot"], parameters["bounds"]
            self._frame = str(robot["base_frame"])
            self._arm = _Arm(urdf, self._frame, str(robot["tcp_frame"]), list(robot["joints"]))
            self._longest_s = 1.5 / rate_hz
            self._judge([], 0.0, from_rest=True)
        except KeyError as err:
            msg = f"robot file {robot_file} has no {err.args[0]!r}"
            raise JudgeError(msg) from err

    def ticks(self, ticks: Sequence[Tick]) -> Verdict:
        """Judge one episode, in the order in which its commands were sent, the first from rest.

        The positions are those that the filter saw.
        """
        return self._judge(ticks, 0.0, from_rest=True)

    def recorded(self, ticks: Sequence[Tick], position_age: float) -> Verdict:
        """Judge a recording, which may have begun in motion.

        Args:
            ticks: The commands, with the newest positions measured before each.
            position_age: Age in s up to which the filter may have seen older ones.

        """
        return self._judge(ticks, position_age, from_rest=False)

    def _judge(self, ticks: Sequence[Tick], position_age: float, *, from_rest: bool) -> Verdict:
        bounds = self._bounds
        count = len(ticks)
        raw = np.array([t.twist for t in ticks], dtype=np.float64).reshape(count, 6)
        finite: Mask = np.asarray(np.isfinite(raw).all(axis=1))
        twists = np.where(finite[:, None], raw, 0.0)
        before = np.vstack([np.zeros((1, 6)), twists])[:-1]
        stamps = np.array([t.stamp_ns for t in ticks], dtype=np.int64)
        seconds = np.diff(stamps, prepend=stamps[:1]) / SECOND_NS
        seconds = np.clip(seconds, 0.0, self._longest_s)
        if count and not from_rest:
            before[0] = twists[0]

        linear, angular = _norms(twists[:, :3]), _norms(twists[:, 3:])
        jump, spin = _norms((twists - before)[:, :3]), _norms((twists - before)[:, 3:])
        grips = np.array([bounds["gripper_min"] if t.gripper is None else t.gripper for t in ticks])
        workspace, outside = self._workspace(ticks, twists, before, seconds, position_age)
        broken: dict[str, Mask] = {
            "finite": ~finite,
            "frame": np.array([t.frame_id not in (None, self._frame) for t in ticks], dtype=bool),
            "linear_speed": linear > bounds["linear_speed"] + ROUNDING,
            "angular_speed": angular > bounds["angular_speed"] + ROUNDING,
            "linear_acceleration": jump > bounds["linear_acceleration"] * seconds + ROUNDING,
            "angular_acceleration": spin > bounds["angular_acceleration"] * seconds + ROUNDING,
            "workspace": workspace,
            # Written so that NaN is outside.
            "gripper": ~(
                (grips >= bounds["gripper_min"] - ROUNDING)
                & (grips <= bounds["gripper_max"] + ROUNDING)
            ),
        }
        anywhere = np.logical_or.reduce(list(broken.values()))
        examples = []
        for i in np.flatnonzero(anywhere)[:EXAMPLES]:
            names = ", ".join(name for name, mask in broken.items() if mask[i])
            time = (stamps[i] - stamps[0]) / SECOND_NS
            examples.append(f"tick {i} at {time:.3f} s: {names}; twist {raw[i].tolist()}")
        return Verdict(
            ticks=count,
            violations=int(anywhere.sum()),
            by_bound={name: int(mask.sum()) for name, mask in broken.items()},
            outside_m=outside,
            examples=examples,
        )

    def _workspace(
        self,
        ticks: Sequence[Tick],
        twists: Array,
        before: Array,
        seconds: Array,
        position_age: float,
    ) -> tuple[Mask, float]:
        """Return where a command comes too fast toward a face, and how far outside the TCP was.

        Too fast is what cannot stop in the room left, v T + v^2 / (2 b), or goes out where there is
        none; but a command that brakes with all of b, the deceleration of one axis, is never at
        fault: the arm may have been pushed, or the position come late. Where the position is
        unknown, there is no room.
        """
        bounds = self._bounds
        unknown = np.full(len(self._arm.joints), np.nan)
        angles = np.array([unknown if t.position is None else t.position for t in ticks])
        tips = self._arm.positions(angles.reshape(len(ticks), len(self._arm.joints)))
        braking = bounds["linear_acceleration"] / math.sqrt(3.0)
        delay = max(0.0, bounds["reaction_delay"] - position_age)
        slack = OUTSIDE_M if position_age > 0.0 else ROUNDING

        fault = np.zeros(len(ticks), dtype=bool)
        outside = 0.0
        for sign, corner in ((1.0, bounds["workspace_max"]), (-1.0, bounds["workspace_min"])):
            room = sign * (np.asarray(corner, dtype=np.float64) - tips)
            outside = max(outside, float(-np.nanmin(room, initial=0.0)))
            toward, earlier = sign * twists[:, :3], sign * before[:, :3]
            way = toward * delay + toward**2 / (2.0 * braking)
            little = (way > np.where(room > 0.0, room, 0.0) + slack) | (room < -OUTSIDE_M)
            too_fast = (toward > ROUNDING) & little
            brakes = toward <= earlier - braking * seconds[:, None] + ROUNDING
            fault |= (too_fast & ~brakes).any(axis=1)
        return fault, outside


def judge_bag(
    bag: str | Path, robot_file: str | Path, urdf: str | None = None, rate_hz: float = 100.0
) -> Verdict:
    """Judge `/safe_command` and `/safe_gripper_command` in a rosbag2.

    Args:
        bag: Its folder.
        robot_file: The robot file.
        urdf: Text of the robot's description, if the bag's `/robot_description` is not to be used.
        rate_hz: Rate of the commands.

    Raises:
        JudgeError: If the bag lacks a topic, or the robot file or description something.
        BagError: If the bag cannot be read.

    """
    topics = ("/safe_command", "/safe_gripper_command", "/joint_states", "/robot_description")
    messages: dict[str, list[tuple[int, Any]]] = {topic: [] for topic in topics}
    for topic, time_ns, message in read_bag(bag, topics):
        messages[topic].append((time_ns, message))
    if urdf is None:
        if not messages["/robot_description"]:
            msg = f"bag {bag} has no /robot_description: name a URDF"
            raise JudgeError(msg)
        urdf = str(messages["/robot_description"][-1][1].data)
    for topic in ("/safe_command", "/joint_states"):
        if not messages[topic]:
            msg = f"bag {bag} has no messages on {topic}"
            raise JudgeError(msg)
    parameters = _read_parameters(robot_file)
    judge = Judge(robot_file, urdf, rate_hz)

    joints = list(parameters["robot"]["joints"])
    measured = _Latest(
        (stamp_ns(m.header.stamp), np.asarray(m.position)[[m.name.index(j) for j in joints]])
        for _, m in messages["/joint_states"]
        if set(joints) <= set(m.name) and len(m.position) == len(m.name)
    )
    grippers = _Latest((time_ns, m.data) for time_ns, m in messages["/safe_gripper_command"])
    # The filter may not yet have seen the newest joint states: allow it two of its periods.
    position_age = 2.0 / rate_hz
    oldest_ns = int((parameters["bounds"]["joint_state_timeout"] + position_age) * SECOND_NS)
    ticks = []
    for time_ns, message in messages["/safe_command"]:
        v, w = message.twist.linear, message.twist.angular
        stamp = stamp_ns(message.header.stamp)
        ticks.append(
            Tick(
                stamp_ns=stamp,
                twist=np.array([v.x, v.y, v.z, w.x, w.y, w.z]),
                gripper=grippers.at(time_ns),
                position=measured.at(stamp, oldest_ns),
                frame_id=message.header.frame_id,
            )
        )
    return judge.recorded(ticks, position_age)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's options."""
    parser.add_argument("bag", type=Path, help="folder of the rosbag2")
    parser.add_argument("--robot", type=Path, required=True, help="robot file with the bounds")
    parser.add_argument("--urdf", type=Path, help="robot description, if the bag holds none")
    parser.add_argument("--rate", type=float, default=100.0, help="rate of /safe_command in Hz")


def run(args: argparse.Namespace) -> int:
    """Judge a bag, write verdict and timing as JSON; return 0 if no bound was broken."""
    urdf = None if args.urdf is None else args.urdf.read_text(encoding="utf-8")
    verdict = judge_bag(args.bag, args.robot, urdf, args.rate)
    timing = latencies(args.bag).percentiles()
    sys.stdout.write(json.dumps({**asdict(verdict), **timing}, indent=2) + "\n")
    return 0 if verdict.violations == 0 else 1


class _Latest:
    """Values by time, to look up the newest one not after a time."""

    def __init__(self, values: Iterable[tuple[int, Any]]) -> None:
        pairs = sorted(values, key=lambda pair: pair[0])
        self._times = [time for time, _ in pairs]
        self._values = [value for _, value in pairs]

    def at(self, time_ns: int, oldest_ns: int | None = None) -> Any:  # noqa: ANN401
        index = bisect_right(self._times, time_ns) - 1
        if index < 0 or (oldest_ns is not None and time_ns - self._times[index] > oldest_ns):
            return None
        return self._values[index]


class _Arm:
    """Positions of the TCP for many joint positions at once, by products of 4x4 matrices."""

    def __init__(self, urdf: str, base: str, tip: str, joints: Sequence[str]) -> None:
        self.joints = list(joints)
        try:
            nodes = list(ET.fromstring(urdf).iter("joint"))  # noqa: S314 - from our own bag
        except ET.ParseError as err:
            msg = f"the robot description is no URDF: {err}"
            raise JudgeError(msg) from err
        above = {child.get("link"): n for n in nodes if (child := n.find("child")) is not None}
        self._path: list[ET.Element] = []
        link: str | None = tip
        while link != base:
            if link not in above:
                msg = f"the robot description has no way from {base!r} to {tip!r}"
                raise JudgeError(msg)
            self._path.insert(0, above[link])
            moving = above[link].get("type") != "fixed"
            if moving and above[link].get("name") not in self.joints:
                msg = f"the robot file lacks joint {above[link].get('name')!r} of the description"
                raise JudgeError(msg)
            parent = above[link].find("parent")
            link = None if parent is None else parent.get("link")

    def positions(self, angles: Array) -> Array:
        """Return the TCP's positions (n, 3) in m for joint positions (n, joints); NaN for NaN."""
        pose = np.tile(np.eye(4), (len(angles), 1, 1))
        for node in self._path:
            origin = node.find("origin")
            fixed = np.eye(4)
            fixed[:3, 3] = _numbers(origin, "xyz", "0 0 0")
            roll, pitch, yaw = _numbers(origin, "rpy", "0 0 0")
            turns = (
                _turns(axis, np.array([angle]))
                for axis, angle in zip(np.eye(3)[::-1], (yaw, pitch, roll), strict=True)
            )
            for turn in turns:
                fixed = fixed @ turn[0]
            pose = pose @ fixed
            if node.get("type") == "fixed":
                continue
            axis = _numbers(node.find("axis"), "xyz", "1 0 0")
            axis = axis / np.linalg.norm(axis)
            values = angles[:, self.joints.index(node.get("name", ""))]
            if node.get("type") == "prismatic":
                moved = np.tile(np.eye(4), (len(values), 1, 1))
                moved[:, :3, 3] = values[:, None] * axis
            else:
                moved = _turns(axis, values)
            pose = pose @ moved
        return pose[:, :3, 3]


def _turns(axis: Array, angles: Array) -> Array:
    """Return rotations by `angles` (n,) about the unit vector `axis`, shape (n, 4, 4).

    From quaternions (cos a/2, axis sin a/2), as in Siciliano et al., Robotics, equation 2.34.
    """
    w = np.cos(angles / 2.0)
    x, y, z = axis[:, None] * np.sin(angles / 2.0)
    zero, one = np.zeros_like(w), np.ones_like(w)
    rows = [
        [2 * (w * w + x * x) - 1, 2 * (x * y - w * z), 2 * (x * z + w * y), zero],
        [2 * (x * y + w * z), 2 * (w * w + y * y) - 1, 2 * (y * z - w * x), zero],
        [2 * (x * z - w * y), 2 * (y * z + w * x), 2 * (w * w + z * z) - 1, zero],
        [zero, zero, zero, one],
    ]
    return np.moveaxis(np.array(rows), 2, 0)


def _numbers(node: ET.Element | None, key: str, default: str) -> Array:
    text = default if node is None else node.get(key, default)
    return np.array([float(word) for word in text.split()])


def _norms(vectors: Array) -> Array:
    """Return the norms of the rows, without overflow."""
    largest = np.abs(vectors).max(axis=1, initial=0.0)
    scale = np.where(largest > 0.0, largest, 1.0)
    return np.asarray(scale * np.sqrt(((vectors / scale[:, None]) ** 2).sum(axis=1)))


def _read_parameters(robot_file: str | Path) -> Mapping[str, Any]:
    try:
        content = yaml.safe_load(Path(robot_file).read_text(encoding="utf-8"))
        parameters = content["/**"]["ros__parameters"]
    except (OSError, yaml.YAMLError, KeyError, TypeError) as err:
        msg = f"robot file {robot_file} cannot be read: {err}"
        raise JudgeError(msg) from err
    if not isinstance(parameters, dict):
        msg = f"robot file {robot_file} holds no parameters"
        raise JudgeError(msg)
    return parameters
