"""What replays and recorded live runs have in common: what is kept, judged and measured."""

import hashlib
from array import array
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

import vla_ros
from vla_ros import robots
from vla_ros.kinematics import KinematicsError
from vla_ros.policy.bundle import BundleError, sha256
from vla_ros.replay.bags import Bag, BagError
from vla_ros.replay.columns import CommandColumns
from vla_ros.replay.decoding import COMPRESSED, IMAGE
from vla_ros.replay.engine import LatencyError
from vla_ros.replay.expectations import Expectation, ExpectationError, check
from vla_ros.replay.holds import never_moved
from vla_ros.replay.judge import Judge, JudgeError, Verdict, read_parameters
from vla_ros.replay.metrics import compute
from vla_ros.replay.recording import RecordingError
from vla_ros.replay.result import Commands, ReplayResult, Stamps, Ticks
from vla_ros.replay.source import TOPICS, Event, Kind
from vla_ros.robot import RobotConfig, RobotConfigError
from vla_ros.types import Array

SAFETY_HZ = 100.0


class ReplayError(ValueError):
    """A bag cannot be replayed as asked: it lacks a topic, or an option another."""


ERRORS = (
    OSError,
    BagError,
    BundleError,
    ExpectationError,
    JudgeError,
    KinematicsError,
    LatencyError,
    RecordingError,
    ReplayError,
    RobotConfigError,
)
"""What can be wrong with the inputs of a replay."""


def parse_remap(rules: Sequence[str], where: str = "--remap") -> dict[str, str]:
    """Read rules as `ros2 bag play --remap` has them, `from:=to`.

    Raises:
        ReplayError: If one is none, naming `where` it is from.

    """
    remap = {}
    for rule in rules:
        old, sign, new = str(rule).partition(":=")
        if not (sign and old and new):
            msg = f"{where} {rule}: must be FROM:=TO, as in /camera/image:=/front/image_raw"
            raise ReplayError(msg)
        remap[f"/{old.lstrip('/')}"] = f"/{new.lstrip('/')}"
    return remap


def remap_of(robot_file: str | Path) -> dict[str, str]:
    """Return the names of topics that a robot file gives for bags: its list `replay.remap`.

    Raises:
        ReplayError: If that is no list of rules.
        JudgeError: If the file cannot be read.

    """
    section = read_parameters(robot_file).get("replay")
    rules = section.get("remap", []) if isinstance(section, dict) else []
    if not isinstance(rules, list):
        msg = f"{robot_file}: 'replay.remap' must be a list of rules FROM:=TO"
        raise ReplayError(msg)
    return parse_remap(rules, f"{robot_file}: 'replay.remap'")


def digest(*streams: Commands | Ticks | None) -> str:
    """Return the SHA-256 of output commands: of stamps, twists and openings, one after the other.

    Little-endian 64-bit numbers; every NaN is the same NaN, and zero has no sign.
    """
    total = hashlib.sha256()
    for stream in streams:
        if stream is None:
            continue
        twist = stream.twist if isinstance(stream, Commands) else stream.safe
        total.update(np.ascontiguousarray(stream.stamp_ns, "<i8").tobytes())
        for values in (twist, stream.gripper):
            plain = np.where(np.isnan(values), np.nan, values) + 0.0
            total.update(np.ascontiguousarray(plain, "<f8").tobytes())
    return total.hexdigest()


class MessageTimes:
    """Times of the messages of each topic."""

    def __init__(self) -> None:
        self._times: defaultdict[str, array[int]] = defaultdict(lambda: array("q"))

    def add(self, topic: str, time_ns: int) -> None:
        """Note a message."""
        self._times[topic].append(time_ns)

    def arrays(self) -> dict[str, Stamps]:
        """Return the times by topic, without its first slash."""
        return {
            topic.lstrip("/"): np.frombuffer(times, np.int64)
            for topic, times in sorted(self._times.items())
        }


class RecordedCommands:
    """A recorded stream of commands, with the openings that go with it."""

    def __init__(self) -> None:
        self._columns = CommandColumns()
        self._opened_ns = array("q")
        self._openings = array("d")

    def take(self, event: Event) -> None:
        """Take a command or an opening."""
        if event.kind in (Kind.COMMAND, Kind.SAFE):
            self._columns.add(event.value.stamp_ns, event.value.twist, None)
        else:
            self._opened_ns.append(event.time_ns)
            self._openings.append(event.value)

    def commands(self) -> Commands | None:
        """Return the stream, None if it is empty.

        The opening of a command is the newest that came before the next command.
        """
        commands = self._columns.commands()
        if not len(commands):
            return None
        until = np.append(commands.stamp_ns[1:], np.iinfo(np.int64).max)
        return replace(commands, hold=(), gripper=newest(self._opened_ns, self._openings, until))

    def at(self, stamps: Stamps) -> Array:
        """Return the opening in force at times."""
        return newest(self._opened_ns, self._openings, stamps + 1)


def newest(times: Sequence[int], values: Sequence[float], until: Stamps) -> Array:
    """Return the newest value before each time in `until`, NaN where there is none."""
    order = np.argsort(np.array(times, np.int64), kind="stable")
    at = np.searchsorted(np.array(times, np.int64)[order], until, side="left")
    padded = np.concatenate([[np.nan], np.array(values, np.float64)[order]])
    return padded[at]


def judge_ticks(judge: Judge, ticks: Ticks) -> Verdict:
    """Judge a replay's steps, by the joint positions that the filter saw."""
    return judge.steps(ticks.stamp_ns, ticks.safe, ticks.gripper, ticks.joint_position)


def finish(
    result: ReplayResult,
    verdict: Verdict | None,
    stamps: MessageTimes,
    warnings: Sequence[str],
    expectations: tuple[Expectation, ...],
) -> ReplayResult:
    """Return the result with its metrics, and what they were expected to be."""
    result = replace(
        result,
        violations=None if verdict is None else verdict.violations,
        violations_by_bound={} if verdict is None else dict(verdict.by_bound),
        metrics=compute(result, verdict, stamps.arrays()),
        warnings=tuple(dict.fromkeys([*warnings, *never_moved(result)])),
    )
    return replace(result, expectations=check(result, expectations))


def packaged_urdf(robot: RobotConfig, bag: Path) -> str:
    """Return the description that the package has of a robot.

    Raises:
        ReplayError: If it has none, and so has the bag.

    """
    if robot.name not in robots.names():
        msg = (
            f"bag {bag} has no /robot_description, and the package has no description of "
            f"{robot.name!r}: name its URDF with --urdf"
        )
        raise ReplayError(msg)
    return robots.urdf(robot.name)


def versions(robot_file: Path, urdf: str) -> dict[str, str]:
    """Return what a result depends on: this package, the robot file and the description."""
    return {
        "vla_ros": vla_ros.__version__,
        "robot_sha256": sha256(robot_file),
        "urdf_sha256": hashlib.sha256(urdf.encode()).hexdigest(),
    }


def need(bag: Bag, kind: Kind, why: str) -> None:
    """Check that a bag has messages of a kind.

    Raises:
        ReplayError: If not, saying `why` they are needed and what there is.

    """
    name, msgtype = TOPICS[kind]
    topic = bag.topics.get(name)
    if topic is None or not topic.count:
        msg = (
            f"bag {bag.path} has no messages on {name} ({msgtype}), {why}; it has "
            f"{topic_names(bag)}: rename one with --remap from:={name}"
        )
        raise ReplayError(msg)
    if topic.msgtype != msgtype:
        msg = f"bag {bag.path} has {name}, {why}, as {topic.msgtype}: it is to be {msgtype}"
        raise ReplayError(msg)


def topic_names(bag: Bag) -> str:
    """Return the topics that have messages, for people."""
    return ", ".join(sorted(n for n, t in bag.topics.items() if t.count)) or "no messages"


def image_topics(bag: Bag) -> dict[str, str]:
    """Return the image topics of a bag by a short name of each."""
    found: dict[str, str] = {}
    for name, topic in sorted(bag.topics.items()):
        if topic.msgtype in (IMAGE, COMPRESSED) and topic.count:
            words = [w for w in name.split("/") if w not in ("", "observation", "compressed")]
            short = "/".join(w for w in words if not w.startswith("image"))
            found.setdefault(short or name, name)
    return found


def used_remap(bag: Bag) -> dict[str, str]:
    """Return the new names that were given."""
    return {t.recorded_name: name for name, t in bag.topics.items() if t.recorded_name != name}
