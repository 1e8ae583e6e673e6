"""A recorded live run as a result: its own messages, nothing stepped."""

import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from vla_ros.observation.joints import JointReader
from vla_ros.replay.bags import Bag, open_bag
from vla_ros.replay.columns import CommandColumns, Record, TickColumns, chunks
from vla_ros.replay.common import (
    MessageTimes,
    RecordedCommands,
    ReplayError,
    finish,
    image_topics,
    need,
    packaged_urdf,
    remap_of,
    used_remap,
    versions,
)
from vla_ros.replay.engine import read_joints
from vla_ros.replay.expectations import Expectation
from vla_ros.replay.judge import JudgeError, judge_bag
from vla_ros.replay.result import Commands, Joints, ReplayResult, Ticks
from vla_ros.replay.source import TOPICS, ChunkStamps, Event, Kind, Source, Status
from vla_ros.robot import RobotConfig


def result_from_bag(
    bag: str | Path,
    robot_file: str | Path,
    *,
    urdf: Path | None = None,
    remap: Mapping[str, str] | None = None,
    expectations: Sequence[Expectation] = (),
) -> ReplayResult:
    """Return a recorded live run (`make demo`, say) as a result; nothing is stepped.

    The filter's steps are `/safe_command` with `/safety_node/status`.

    Raises:
        ReplayError: If the bag has no joint states.
        BagError: If it cannot be read; and the others of `ERRORS`, for what is wrong with an input.

    """
    robot = RobotConfig.load(robot_file)
    begin = time.perf_counter()
    with open_bag(bag, remap={**remap_of(robot_file), **(remap or {})}) as opened:
        source = Source(opened)
        need(opened, Kind.JOINTS, "which say where the arm was")
        live = _Live(opened, source, robot, Path(robot_file), urdf)
        live.read()
        return live.result(tuple(expectations), time.perf_counter() - begin)


class _Live:
    """A recorded live run."""

    def __init__(
        self, bag: Bag, source: Source, robot: RobotConfig, robot_file: Path, urdf: Path | None
    ) -> None:
        self._bag = bag
        self._source = source
        self._robot = robot
        self._robot_file = robot_file
        self._urdf = None if urdf is None else urdf.read_text(encoding="utf-8")
        self._stamps = MessageTimes()
        self._asked, self._sent = RecordedCommands(), RecordedCommands()
        self._record = Record(robot)
        self._chunks: list[ChunkStamps] = []
        self._statuses: dict[int, Status] = {}
        self._start_ns = self._end_ns = 0

    def read(self) -> None:
        first = None
        events = self._source.events(set(Kind) - {Kind.FRAME})
        for event in read_joints(events, JointReader(self._robot)):
            if first is None:
                self._start_ns = first = event.time_ns
            self._end_ns = max(self._end_ns, event.time_ns)
            self._stamps.add(TOPICS[event.kind][0], event.time_ns)
            self._take(event)

    def _take(self, event: Event) -> None:
        kind, value = event.kind, event.value
        if kind in (Kind.JOINTS, Kind.INSTRUCTION):
            self._record.add_input(event)
        elif kind is Kind.DESCRIPTION:
            self._urdf = self._urdf or value
        elif kind in (Kind.COMMAND, Kind.GRIPPER):
            self._asked.take(event)
        elif kind in (Kind.SAFE, Kind.SAFE_GRIPPER):
            self._sent.take(event)
        elif kind is Kind.CHUNK:
            self._chunks.append(value)
        elif kind is Kind.STATUS:
            self._statuses[value.stamp_ns] = value

    def result(self, expectations: tuple[Expectation, ...], wall_s: float) -> ReplayResult:
        urdf = self._urdf or packaged_urdf(self._robot, self._bag.path)
        if not len(self._record.samples):
            reason = self._record.refused.get("joint_states", (0, "no joint states"))[1]
            msg = f"bag {self._bag.path}: {reason}"
            raise ReplayError(msg)
        joints = self._record.samples.joints(self._robot.chain(urdf))
        commands = _with_holds(self._asked.commands() or CommandColumns().commands())
        sent = self._sent.commands()
        ticks = None if sent is None else self._ticks(sent, commands, joints)
        rows = [(c.observed_ns, c.started_ns, c.actions) for c in self._chunks if c.actions]
        result = ReplayResult(
            bag=self._bag.path,
            robot=self._robot,
            robot_file=self._robot_file,
            mode="live",
            latency="recorded",
            start_ns=self._start_ns,
            end_ns=self._end_ns,
            instructions=tuple(self._record.instructions),
            cameras=image_topics(self._bag),
            ticks=ticks,
            commands=commands,
            recorded=None,
            recorded_safe=None,
            joints=joints,
            chunks=chunks(rows) if rows else None,
            inference_ms=np.zeros(0),
            hash="",
            versions=versions(self._robot_file, urdf),
            urdf=urdf,
            remap=used_remap(self._bag),
            wall_s=wall_s,
        )
        warnings = [*self._bag.warnings, *self._source.warnings]
        verdict = None
        if ticks is not None:
            try:
                verdict = judge_bag(self._bag.path, self._robot_file, urdf)
            except JudgeError as err:
                warnings.append(f"not judged: {err}")
        return finish(result, verdict, self._stamps, warnings, expectations)

    def _ticks(self, sent: Commands, asked: Commands, joints: Joints) -> Ticks:
        columns = TickColumns()
        row_of = {int(stamp): i for i, stamp in enumerate(asked.stamp_ns)}
        openings = self._asked.at(sent.stamp_ns)
        sample_of = np.searchsorted(joints.stamp_ns, sent.stamp_ns, side="right") - 1
        for i, stamp in enumerate(sent.stamp_ns.tolist()):
            status = self._statuses.get(stamp)
            used = None if status is None else status.command_stamp_ns
            row = None if used is None else row_of.get(used)
            columns.add(
                stamp_ns=stamp,
                desired=None if row is None else asked.twist[row],
                safe=sent.twist[i],
                gripper_desired=float(openings[i]),
                gripper=float(sent.gripper[i]),
                command_stamp_ns=used,
                state="" if status is None else status.state,
                reason="" if status is None else status.reason,
                acting=() if status is None else tuple(status.acting.items()),
                sample=int(sample_of[i]),
            )
        return columns.ticks(joints)


def _with_holds(commands: Commands) -> Commands:
    """Return the recorded commands with their holds: the policy commands zero only in a hold."""
    still = (commands.twist == 0.0).all(axis=1)
    return replace(commands, hold=tuple("zero command" if s else "" for s in still.tolist()))
