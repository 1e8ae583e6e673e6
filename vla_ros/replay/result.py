"""What a replay, or a recorded live run, came to: arrays to judge, to measure and to draw.

A `ReplayResult` is made by `vla_ros.replay.replay.replay_bag` (a bag stepped through the pipeline)
or by `vla_ros.replay.replay.result_from_bag` (a live run as recorded, nothing stepped). Metrics,
expectations, the JSON, JUnit and the report all read this and nothing else; only the pictures are
fetched from the bag again, by the topics in `cameras`.

Times are integer nanoseconds of the bag's own stamps; `seconds()` turns them into seconds from the
bag's start. In arrays of floats NaN stands for "there was none".
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from vla_ros.robot import RobotConfig
from vla_ros.types import Array

Stamps = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Commands:
    """A stream of commands, one row for each message, in time order.

    Attributes:
        stamp_ns: Stamp of each command, shape (n,).
        twist: Of the TCP in the base frame, m/s and rad/s, shape (n, 6).
        gripper: Opening in m that was in force with it, shape (n,); NaN before the first.
        hold: Why the policy held still, per command; empty strings where it moved, and everywhere
            in streams that do not say.

    """

    stamp_ns: Stamps
    twist: Array
    gripper: Array
    hold: tuple[str, ...] = ()

    def __len__(self) -> int:
        """Return the number of commands."""
        return len(self.stamp_ns)


@dataclass(frozen=True, slots=True)
class Ticks:
    """The filter's steps, one row for each, in the order in which they were made.

    Attributes:
        stamp_ns: Time of the step, shape (n,).
        desired: The twist that was followed, m/s and rad/s, shape (n, 6); NaN where none was.
        safe: The twist that was sent, shape (n, 6).
        gripper_desired: Opening that was asked for, m, shape (n,); NaN before the first.
        gripper: Opening that was sent, m, shape (n,); NaN before the first.
        command_stamp_ns: Stamp of the command that was followed, shape (n,); -1 where none was.
        state: State of the filter (`RUNNING`, `HOLDING`, ...), n names.
        reason: Why the arm was held, or what was refused; n lines, mostly empty.
        acting: For each bound that ever acted, by how much at each step, in the bound's unit,
            shape (n,); 0 where it did not act.
        joint_position: Joint positions that the filter had seen by then, rad, shape (n, joints).

    """

    stamp_ns: Stamps
    desired: Array
    safe: Array
    gripper_desired: Array
    gripper: Array
    command_stamp_ns: Stamps
    state: tuple[str, ...]
    reason: tuple[str, ...]
    acting: Mapping[str, Array]
    joint_position: Array

    def __len__(self) -> int:
        """Return the number of steps."""
        return len(self.stamp_ns)


@dataclass(frozen=True, slots=True)
class Joints:
    """Measured joint states, one row for each message, in the robot file's order of joints.

    Attributes:
        stamp_ns: Time of measurement, shape (m,).
        position: In rad, shape (m, joints).
        velocity: In rad/s, shape (m, joints).
        effort: In Nm, shape (m, joints); all NaN where the robot measures none.
        gripper: Measured opening in m, shape (m,); NaN without a gripper.
        tcp: Position of the TCP in the base frame by forward kinematics, m, shape (m, 3).

    """

    stamp_ns: Stamps
    position: Array
    velocity: Array
    effort: Array
    gripper: Array
    tcp: Array

    def __len__(self) -> int:
        """Return the number of samples."""
        return len(self.stamp_ns)


@dataclass(frozen=True, slots=True)
class Chunks:
    """Chunks of actions that were executed, one row for each.

    Attributes:
        observed_ns: Stamp of the observation (its oldest image), shape (c,).
        started_ns: Stamp of the first command from it, shape (c,).
        actions: Number of actions that were still to be executed then, shape (c,).

    """

    observed_ns: Stamps
    started_ns: Stamps
    actions: Stamps

    def __len__(self) -> int:
        """Return the number of chunks."""
        return len(self.observed_ns)


@dataclass(frozen=True, slots=True)
class Instruction:
    """What the robot was told, and when."""

    stamp_ns: int
    text: str


@dataclass(frozen=True, slots=True)
class Series:
    """The values that a metric was computed from, to say when it was broken and to show them.

    Attributes:
        stamp_ns: Time of each value, shape (n,), not decreasing.
        values: The values, in the metric's unit unless the metric is a share or a count: then each
            is 1 where it counted and 0 where it did not. Shape (n,).

    """

    stamp_ns: Stamps
    values: Array | NDArray[np.int8]


@dataclass(frozen=True, slots=True)
class Metric:
    """One figure of a run.

    Attributes:
        value: The figure; None where the run holds nothing to compute it from.
        unit: Its unit, `1` for shares and counts.
        text: What it is, one line.
        series: What it was computed from, where that has a time.
        notes: More lines to show where an expectation of it is not met.

    """

    value: float | None
    unit: str
    text: str
    series: Series | None = None
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Outcome:
    """One expectation, and whether it held.

    Attributes:
        metric: Name of the metric.
        expected: The condition as written, `max 0.3` or `near 0.02 within 0.01`.
        value: The metric's value.
        unit: Its unit.
        passed: Whether it held.
        at_s: When it was first broken, in seconds from the bag's start; None if it held, or if the
            metric has no time.
        message: Readable lines: what was expected, what came, when, and the values around it;
            empty if it held.

    """

    metric: str
    expected: str
    value: float | None
    unit: str
    passed: bool
    at_s: float | None = None
    message: str = ""


@dataclass(frozen=True, slots=True)
class ReplayResult:
    """Everything that came of one run.

    Attributes:
        bag: The bag.
        robot: The robot, with its bounds (workspace, efforts, speeds).
        robot_file: Where it was read from.
        mode: `policy+safety`, `safety`, `policy`, or `live` for a recorded run that was not
            stepped.
        latency: The model of the inference's latency, as given: `measured`, `zero`, `fixed:80`;
            `recorded` for a live run.
        start_ns: Time of the bag's first message, where second 0 is.
        end_ns: Time of its last message.
        instructions: What the robot was told, in time order.
        cameras: Topic of the pictures of each camera of the bundle that the bag has, by camera; of
            every image topic where no bundle is known.
        ticks: The filter's steps; None in mode `policy`.
        commands: What the policy commanded; in mode `safety` the recorded commands.
        recorded: The commands in the bag, where they are not `commands`; None if it has none.
        recorded_safe: The filter's output in the bag, to compare with; None if it has none.
        joints: Measured joint states.
        chunks: Chunks that were executed; None in mode `safety`.
        inference_ms: Wall time of each inference of this replay, shape (k,). It differs from run
            to run, and enters no metric, no hash and no expectation.
        hash: SHA-256 of the output commands, as 64 hexadecimal digits; empty for a live run, and
            where the latency was measured in this run, which never repeats.
        violations: Ticks outside a bound, by the independent judge; None where it could not judge.
        violations_by_bound: Number of ticks outside each bound.
        metrics: Figures by name, documented in docs/replay.md.
        expectations: Outcomes, in the file's order; empty without a file.
        warnings: What was survived (damage, a missing topic) or is to be known, one line each.
        versions: What was replayed with what: `vla_ros`, `robot_sha256`, `urdf_sha256`, `bundle`,
            `bundle_sha256`, `onnxruntime`.
        urdf: Text of the robot's description.
        remap: New names of the bag's topics that were used, by those in the bag.
        loading_s: Seconds that it took to load robot and bundle and to make the models of filter
            and judge, once for a replay however long the bag is. It differs from run to run, as do
        wall_s: seconds that all else took: reading the bag, stepping, judging, measuring; and
        filter_s: the filter's part of that.

    """

    bag: Path
    robot: RobotConfig
    robot_file: Path
    mode: str
    latency: str
    start_ns: int
    end_ns: int
    instructions: tuple[Instruction, ...]
    cameras: Mapping[str, str]
    ticks: Ticks | None
    commands: Commands
    recorded: Commands | None
    recorded_safe: Commands | None
    joints: Joints
    chunks: Chunks | None
    inference_ms: Array
    hash: str
    violations: int | None = None
    violations_by_bound: Mapping[str, int] = field(default_factory=dict)
    metrics: Mapping[str, Metric] = field(default_factory=dict)
    expectations: tuple[Outcome, ...] = ()
    warnings: tuple[str, ...] = ()
    versions: Mapping[str, str] = field(default_factory=dict)
    urdf: str = ""
    remap: Mapping[str, str] = field(default_factory=dict)
    loading_s: float = 0.0
    wall_s: float = 0.0
    filter_s: float = 0.0

    @property
    def duration_s(self) -> float:
        """Seconds from the bag's first message to its last."""
        return (self.end_ns - self.start_ns) / 1e9

    @property
    def passed(self) -> bool:
        """Whether every expectation held."""
        return all(outcome.passed for outcome in self.expectations)

    def speed(self) -> dict[str, float]:
        """Return how fast this run was, and whose time that was; it differs from run to run.

        `times_real_time` and the shares of `model`, `filter` and `rest` are of `wall_s`. `rest` is
        all that is neither: reading, decoding, the policy's loop, judging and measuring.
        """
        if self.wall_s <= 0.0:
            return {}
        model, own = float(self.inference_ms.sum()) / 1e3 / self.wall_s, self.filter_s / self.wall_s
        return {
            "loading_s": self.loading_s,
            "wall_s": self.wall_s,
            "times_real_time": self.duration_s / self.wall_s,
            "model_share": model,
            "filter_share": own,
            "rest_share": 1.0 - model - own,
        }

    def seconds(self, stamp_ns: Stamps) -> Array:
        """Return times in seconds from the bag's start, the same shape."""
        return np.asarray((stamp_ns - self.start_ns) / 1e9, np.float64)
