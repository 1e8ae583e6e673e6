"""What a run leaves behind, kept as columns of numbers: hours of it fit into little memory."""

from array import array
from collections.abc import Iterator, Mapping, Sequence

import numpy as np

from vla_ros.kinematics import SerialChain
from vla_ros.observation.joints import JointError
from vla_ros.policy.controller import PolicyStep
from vla_ros.replay.result import Chunks, Commands, Instruction, Joints, Stamps, Ticks
from vla_ros.replay.source import Event, Kind
from vla_ros.robot import RobotConfig
from vla_ros.safety import SafetyDecision
from vla_ros.types import Array, Command, JointSample

_NO_TWIST = np.full(6, np.nan)
_NAN = float("nan")
_TWIST = 6
_FIRST = 1024


class CommandColumns:
    """A stream of commands in the making."""

    def __init__(self) -> None:
        """Start empty."""
        self._stamps = array("q")
        self._grippers = array("d")
        self._twists = _Rows(_TWIST)
        self._holds: list[str] = []

    def add(self, stamp_ns: int, twist: Array, gripper: float | None, hold: str = "") -> None:
        """Append a command; without a gripper the last opening stays in force."""
        self._stamps.append(stamp_ns)
        self._twists.add(twist)
        if gripper is None:
            gripper = self._grippers[-1] if self._grippers else np.nan
        self._grippers.append(gripper)
        self._holds.append(hold)

    def commands(self) -> Commands:
        """Return what was added."""
        return Commands(
            stamp_ns=_integers(self._stamps),
            twist=self._twists.array(),
            gripper=_floats(self._grippers),
            hold=tuple(self._holds),
        )


class TickColumns:
    """Steps of the filter in the making."""

    def __init__(self) -> None:
        """Start empty."""
        self._stamps = array("q")
        self._desired, self._safe = _Rows(_TWIST), _Rows(_TWIST)
        self._grippers = array("d")
        self._used = array("q")
        self._states: list[str] = []
        self._reasons: list[str] = []
        self._acting: dict[str, tuple[array[int], array[float]]] = {}
        self._sample = array("q")

    def add(
        self,
        *,
        stamp_ns: int,
        desired: Array | None,
        safe: Array,
        gripper_desired: float | None,
        gripper: float | None,
        command_stamp_ns: int | None,
        state: str,
        reason: str,
        acting: Sequence[tuple[str, float]],
        sample: int,
    ) -> None:
        """Append a step; `sample` is the number of the joint sample that it knew, -1 for none."""
        if acting:
            row = len(self._stamps)
            for name, amount in acting:
                rows, amounts = self._acting.setdefault(name, (array("q"), array("d")))
                rows.append(row)
                amounts.append(amount)
        self._stamps.append(stamp_ns)
        self._desired.add(_NO_TWIST if desired is None else desired)
        self._safe.add(safe)
        self._grippers.append(_NAN if gripper_desired is None else gripper_desired)
        self._grippers.append(_NAN if gripper is None else gripper)
        self._used.append(-1 if command_stamp_ns is None else command_stamp_ns)
        self._states.append(state)
        self._reasons.append(reason)
        self._sample.append(sample)

    def __len__(self) -> int:
        """Return the number of steps."""
        return len(self._stamps)

    def ticks(self, joints: Joints) -> Ticks:
        """Return what was added, `joints` being the samples that it was numbered by."""
        count = len(self._stamps)
        acting = {
            name: (_integers(rows), _floats(amounts))
            for name, (rows, amounts) in sorted(self._acting.items())
        }
        grippers = _floats(self._grippers).reshape(-1, 2)
        sample = _integers(self._sample)
        position: Array = np.full((count, joints.position.shape[1]), np.nan)
        position[sample >= 0] = joints.position[sample[sample >= 0]]
        return Ticks(
            stamp_ns=_integers(self._stamps),
            desired=self._desired.array(),
            safe=self._safe.array(),
            gripper_desired=grippers[:, 0],
            gripper=grippers[:, 1],
            command_stamp_ns=_integers(self._used),
            state=tuple(self._states),
            reason=tuple(self._reasons),
            acting=_Sparse(acting, count),
            joint_position=position,
        )


class JointColumns:
    """Joint samples in the making."""

    def __init__(self, robot: RobotConfig) -> None:
        """Start empty."""
        count = len(robot.joints)
        self._stamps = array("q")
        self._position, self._velocity, self._effort = _Rows(count), _Rows(count), _Rows(count)
        self._grippers = array("d")
        self._no_effort = np.full(count, np.nan)

    def __len__(self) -> int:
        """Return the number of samples."""
        return len(self._stamps)

    def add(self, sample: JointSample) -> None:
        """Append a sample."""
        self._stamps.append(sample.stamp_ns)
        self._position.add(sample.position)
        self._velocity.add(sample.velocity)
        self._effort.add(self._no_effort if sample.effort is None else sample.effort)
        self._grippers.append(_NAN if sample.gripper is None else sample.gripper)

    def joints(self, chain: SerialChain) -> Joints:
        """Return what was added, and where the TCP was by `chain`."""
        position = self._position.array()
        return Joints(
            stamp_ns=_integers(self._stamps),
            position=position,
            velocity=self._velocity.array(),
            effort=self._effort.array(),
            gripper=_floats(self._grippers),
            tcp=chain.positions(position),
        )


class Record:
    """What came out of a pipeline, in order, and what of its inputs belongs to the result."""

    def __init__(self, robot: RobotConfig) -> None:
        """Start empty."""
        self.policy = CommandColumns()
        self.steps = TickColumns()
        self.samples = JointColumns(robot)
        self.inference_s: list[float] = []
        self.filter_s = 0.0
        self.instructions: list[Instruction] = []
        self.refused: dict[str, tuple[int, str]] = {}
        self._chunks: list[tuple[int, int, int]] = []

    def add_command(self, now_ns: int, step: PolicyStep) -> None:
        """Append a command of the policy."""
        hold = "" if step.hold is None else str(step.hold)
        self.policy.add(now_ns, step.twist, step.gripper, hold)
        if step.plan is not None:
            self._chunks.append((step.plan.stamp_ns, now_ns, len(step.plan.twists)))

    def add_step(
        self, decision: SafetyDecision, desired: Command | None, gripper_desired: float | None
    ) -> None:
        """Append a step of the filter, and the command and the opening that it was asked for."""
        self.steps.add(
            stamp_ns=decision.stamp_ns,
            desired=None if desired is None else desired.twist,
            safe=decision.twist,
            gripper_desired=gripper_desired,
            gripper=decision.gripper,
            command_stamp_ns=decision.command_stamp_ns,
            state=decision.state.value,
            reason=decision.reason,
            acting=decision.acting,
            sample=len(self.samples) - 1,
        )

    def add_input(self, event: Event) -> None:
        """Append joint states, as `engine.read_joints` made them, or an instruction."""
        if event.kind is Kind.INSTRUCTION:
            self.instructions.append(Instruction(event.time_ns, event.value))
        elif event.kind is Kind.JOINTS:
            if isinstance(event.value, JointError):
                self.refuse("joint_states", str(event.value))
            elif event.value is not None:
                self.samples.add(event.value)

    def refuse(self, what: str, reason: str) -> None:
        """Count an input that could not be used."""
        count, first = self.refused.get(what, (0, reason))
        self.refused[what] = (count + 1, first)

    def chunks(self) -> Chunks:
        """Return the chunks that were started."""
        return chunks(self._chunks)


def chunks(rows: Sequence[tuple[int, int, int]]) -> Chunks:
    """Return chunks from rows of observed, started and actions."""
    table = np.array(rows, np.int64).reshape(-1, 3)
    return Chunks(table[:, 0].copy(), table[:, 1].copy(), table[:, 2].copy())


class _Sparse(Mapping[str, Array]):
    """Columns that are mostly zero, each made when it is asked for: one takes little, all much."""

    def __init__(self, columns: dict[str, tuple[Stamps, Array]], count: int) -> None:
        self._columns, self._count = columns, count

    def __getitem__(self, name: str) -> Array:
        rows, values = self._columns[name]
        column: Array = np.zeros(self._count)
        column[rows] = values
        return column

    def __iter__(self) -> Iterator[str]:
        return iter(self._columns)

    def __len__(self) -> int:
        return len(self._columns)


class _Rows:
    """Rows of one width in the making, in one array that grows in its place."""

    def __init__(self, width: int) -> None:
        self._rows: Array = np.empty((_FIRST, width))
        self._count = 0

    def add(self, row: Array) -> None:
        """Append a row."""
        if self._count == len(self._rows):
            # By an eighth, as memory is taken for all of it. No view is given away before the end.
            rows = self._count + max(_FIRST, self._count // 8)
            self._rows.resize((rows, self._rows.shape[1]), refcheck=False)
        self._rows[self._count] = row
        self._count += 1

    def array(self) -> Array:
        """Return all rows, shape (rows, width), in the same memory: nothing may be added then."""
        self._rows.resize((self._count, self._rows.shape[1]), refcheck=False)
        return self._rows


def _integers(values: "array[int]") -> Stamps:
    return np.frombuffer(values, np.int64) if values else np.zeros(0, np.int64)


def _floats(values: "array[float]") -> Array:
    return np.frombuffer(values, np.float64) if values else np.zeros(0)
