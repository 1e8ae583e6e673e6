"""The pipeline stepped without a clock: the objects of the live nodes, called in a fixed order.

`Pipeline` holds what policy_node and safety_node hold, and answers messages as their callbacks do.
Its time is that of the events given to it. Between two events it does what fell due in between, in
the order of time and, at the same time: a result of the model, a step of the policy, a step of the
filter. An event of the same time as a step comes before it.
"""

import time
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from statistics import median_low
from typing import TYPE_CHECKING

import numpy as np

from vla_ros.observation.joints import JointError, JointReader
from vla_ros.policy.controller import PolicyController, PolicyStep
from vla_ros.policy.policy import Chunk, Policy, PolicyError
from vla_ros.replay.columns import Record
from vla_ros.replay.decoding import JointLists
from vla_ros.replay.source import ChunkStamps, Event, Kind
from vla_ros.robot import RobotConfig
from vla_ros.safety import SafetyFilter
from vla_ros.types import Command, Frame, JointSample

if TYPE_CHECKING:
    from vla_ros.observation.observation import Observation

SECOND_NS = 1_000_000_000
LONGEST_GAP_NS = 10 * SECOND_NS
"""A longer silence of the bag is not stepped through: the pipeline would do nothing in it."""
AFTER_GAP_NS = SECOND_NS
"""What is stepped of such a silence: long enough for every timeout."""
_COMMANDS = 64
"""Commands kept to find the one that the filter followed: more than come within its timeout."""
_NEVER = 2**63


class LatencyError(ValueError):
    """A latency model is written wrongly."""


@dataclass(frozen=True, slots=True)
class Latency:
    """When the model's result is there.

    Attributes:
        name: `measured`, `zero` or `fixed`.
        fixed_ns: Latency in ns of `fixed`.
        started_ns: Of `measured`: when each chunk started in the recorded run, by the stamp of its
            observation; empty to take the wall time of each inference of this replay.

    """

    name: str
    fixed_ns: int = 0
    started_ns: Mapping[int, int] = field(default_factory=dict)

    @classmethod
    def parse(cls, text: str) -> "Latency":
        """Read `measured`, `zero` or `fixed:MS`.

        Raises:
            LatencyError: If it is none of these.

        """
        if text in ("measured", "zero"):
            return cls(text)
        name, _, number = text.partition(":")
        try:
            value = float(number)
        except ValueError:
            value = -1.0
        if name != "fixed" or not 0.0 <= value <= 1e4:  # noqa: PLR2004 - 10 s
            msg = (
                f"latency {text!r} is none of measured, zero and fixed:MS, with MS in milliseconds "
                "from 0 to 10000"
            )
            raise LatencyError(msg)
        return cls("fixed", fixed_ns=round(value * 1e6))

    def recorded(self, chunks: Iterable[ChunkStamps]) -> "Latency":
        """Return this model with the times of a recorded run."""
        return Latency(self.name, self.fixed_ns, {c.observed_ns: c.started_ns for c in chunks})

    @property
    def repeats(self) -> bool:
        """Whether it is the same on every run."""
        return self.name != "measured" or bool(self.started_ns)

    def due_ns(self, observation_ns: int, asked_ns: int, wall_s: float) -> int:
        """Return when the result of an inference is there.

        Args:
            observation_ns: Stamp of the observation.
            asked_ns: When it was given to the model.
            wall_s: Seconds that the model took.

        """
        if self.name != "measured":
            return asked_ns + self.fixed_ns
        if not self.started_ns:
            return asked_ns + round(wall_s * SECOND_NS)
        if observation_ns in self.started_ns:
            return max(asked_ns, self.started_ns[observation_ns])
        usual = median_low([at - of for of, at in self.started_ns.items()])
        return max(asked_ns, observation_ns + usual)


class _Clock:
    """A node's timer: steps at a period, or at given times."""

    def __init__(self, period_ns: int, times_ns: Sequence[int] | None) -> None:
        self._period_ns = period_ns
        self._given = None if times_ns is None else deque(times_ns)
        self.next_ns = _NEVER

    def start(self, time_ns: int, *, again: bool) -> None:
        """Begin with a step at `time_ns`, or begin `again`; then given times before it are dropped.

        The first time they are not: a node that ran before the first message stepped then, too.
        """
        if self._given is None:
            self.next_ns = time_ns
            return
        while again and self._given and self._given[0] < time_ns:
            self._given.popleft()
        self.next_ns = self._given[0] if self._given else _NEVER

    def advance(self) -> None:
        """Go on to the step after this one."""
        if self._given is None:
            self.next_ns += self._period_ns
        else:
            self._given.popleft()
            self.next_ns = self._given[0] if self._given else _NEVER

    def reset(self, now_ns: int) -> bool:
        """Have the next step a period from now; return False, doing nothing, at given times."""
        if self._given is None:
            self.next_ns = now_ns + self._period_ns
        return self._given is None

    def take(self, time_ns: int) -> bool:
        """Return whether the next given time is this one, and go on to the one after it."""
        taken = self._given is not None and self.next_ns == time_ns
        if taken:
            self.advance()
        return taken


class PolicySide:
    """policy_node without its clock and its thread."""

    def __init__(
        self,
        controller: PolicyController,
        policy: Policy,
        record: Record,
        *,
        period_ns: int,
        latency: Latency,
        ticks_ns: Sequence[int] | None = None,
        send: Callable[[int, PolicyStep], None] | None = None,
        timer: Callable[[], float] = time.perf_counter,
    ) -> None:
        """Start.

        Args:
            controller: The policy's loop.
            policy: The model.
            record: Where the commands go.
            period_ns: Time of one action.
            latency: When results are there.
            ticks_ns: When to command, instead of every period.
            send: Called with every command.
            timer: Seconds of the wall clock, for the time that inference takes.

        """
        self._controller = controller
        self._policy = policy
        self._record = record
        self._period_ns = period_ns
        self._latency = latency
        self._send = send
        self._timer = timer
        self._description = ""
        self._last_ns = 0
        self._pending: tuple[int, Observation, Chunk | str] | None = None
        self.clock = _Clock(period_ns, ticks_ns)

    @property
    def result_ns(self) -> int:
        """When the result of the inference that is running is there."""
        return _NEVER if self._pending is None else self._pending[0]

    def receive(self, event: Event) -> None:
        """Do what policy_node does with a message."""
        if event.kind is Kind.FRAME:
            frame: Frame = event.value
            if self._controller.add_frame(frame):
                self._infer_if_due(event.time_ns)
        elif event.kind is Kind.DESCRIPTION:
            if event.value != self._description:
                self._description = event.value
                with self._record.loading:
                    chain = self._controller.robot.chain(event.value)
                    self._policy.set_chain(chain)
                    self._controller.set_chain(chain)
        elif event.kind is Kind.INSTRUCTION:
            text = event.value.strip()
            if text != self._controller.instruction:
                self._controller.set_instruction(text)
                self._tick_now(event.time_ns)
                self._infer_if_due(event.time_ns)

    def joints(self, sample: JointSample) -> None:
        """Take a joint sample."""
        self._controller.add_joints(sample)

    def collect(self, now_ns: int) -> None:
        """Take the model's result, as policy_node does when its thread has it."""
        if self._pending is None:
            return
        _, observation, outcome = self._pending
        self._pending = None
        if isinstance(outcome, str):
            self._record.refuse("the model", outcome)
            self._controller.fail(observation, outcome)
        elif self._controller.accept(outcome, now_ns):
            self._tick_now(now_ns)
        elif now_ns - self._last_ns < self._period_ns // 4:
            self.clock.reset(now_ns)

    def tick(self, now_ns: int) -> None:
        """Command what is due now."""
        step = self._controller.tick(now_ns)
        self._last_ns = now_ns
        self._record.add_command(now_ns, step)
        if self._send is not None:
            self._send(now_ns, step)

    def _tick_now(self, now_ns: int) -> None:
        # The filter takes two commands of one stamp for one, and no two have one live.
        at_ns = max(now_ns, self._last_ns + 1)
        if self.clock.reset(now_ns) or self.clock.take(at_ns):
            self.tick(at_ns)

    def _infer_if_due(self, now_ns: int) -> None:
        observation = self._controller.due_observation(now_ns)
        if observation is None:
            return
        begin = self._timer()
        outcome: Chunk | str
        try:
            outcome = self._policy.infer(observation, self._controller.prefix)
        except PolicyError as err:
            outcome = str(err)
        wall_s = self._timer() - begin
        self._record.inference_s.append(wall_s)
        due_ns = self._latency.due_ns(observation.stamp_ns, now_ns, wall_s)
        self._pending = (due_ns, observation, outcome)


class SafetySide:
    """safety_node without its clock."""

    def __init__(
        self,
        safety: SafetyFilter,
        record: Record,
        *,
        rate_hz: float,
        ticks_ns: Sequence[int] | None = None,
        timer: Callable[[], float] = time.perf_counter,
    ) -> None:
        """Start.

        Args:
            safety: The filter.
            record: Where its decisions go.
            rate_hz: Rate of its steps.
            ticks_ns: When to step, instead of at that rate.
            timer: Seconds of the wall clock, for the time that the filter takes.

        """
        self._timer = timer
        self._filter = safety
        self._record = record
        self._commands: deque[Command] = deque(maxlen=_COMMANDS)
        self._gripper: float | None = None
        self._description = ""
        self.clock = _Clock(round(SECOND_NS / rate_hz), ticks_ns)

    def receive(self, event: Event) -> None:
        """Do what safety_node does with a message."""
        if event.kind is Kind.COMMAND:
            self.command(event.value, event.time_ns)
        elif event.kind is Kind.GRIPPER:
            self.gripper(event.value)
        elif event.kind is Kind.DESCRIPTION:
            if event.value != self._description:
                self._description = event.value
                with self._record.loading:
                    first = self._filter.set_robot_description(event.value)
                if first:
                    self._filter.forget(event.time_ns)
        elif event.kind is Kind.INSTRUCTION:
            self._filter.instruct(event.value, event.time_ns)
        elif event.kind is Kind.ESTOP:
            self._filter.estop(event.value, event.time_ns)

    def command(self, command: Command, now_ns: int) -> None:
        """Take a command."""
        self._commands.append(command)
        begin = self._timer()
        self._filter.receive(command, now_ns)
        self._record.filter_s += self._timer() - begin

    def gripper(self, opening: float) -> None:
        """Take a desired opening."""
        self._gripper = opening
        self._filter.receive_gripper(opening)

    def joints(self, sample: JointSample, now_ns: int) -> None:
        """Take a joint sample."""
        begin = self._timer()
        self._filter.receive_joints(sample, now_ns)
        self._record.filter_s += self._timer() - begin

    def refuse(self, reason: str, now_ns: int) -> None:
        """Take the news that joint states could not be read."""
        self._filter.refuse("joint_states_malformed", reason, now_ns)

    def tick(self, now_ns: int) -> None:
        """Send what may be sent now."""
        begin = self._timer()
        decision = self._filter.step(now_ns, None, None)
        self._record.filter_s += self._timer() - begin
        used = decision.command_stamp_ns
        desired = None
        if used is not None:
            for command in reversed(self._commands):
                if command.stamp_ns == used:
                    desired = command
                    break
        self._record.add_step(decision, desired, self._gripper)


class Pipeline:
    """Both sides, and what falls due between messages."""

    def __init__(
        self,
        robot: RobotConfig,
        record: Record,
        *,
        policy: PolicySide | None,
        safety: SafetySide | None,
    ) -> None:
        """Join the sides that a replay has; either may be missing."""
        self._reader = JointReader(robot)
        self._record = record
        self._policy = policy
        self._safety = safety
        self._now_ns: int | None = None

    def run(self, events: Iterable[Event], *, tail_ns: int = 0) -> Record:
        """Step through all events, and for `tail_ns` after the last one; return the record."""
        for event in events:
            self.advance(event.time_ns)
            self.receive(event)
        if self._now_ns is not None:
            self.advance(self._now_ns + tail_ns + 1)
        return self._record

    def receive(self, event: Event) -> None:
        """Hand a message to both sides."""
        if event.kind is Kind.JOINTS:
            self._receive_joints(event.value, event.time_ns)
            return
        if event.kind is Kind.INSTRUCTION:
            self._record.add_instruction(event.time_ns, event.value)
        if self._policy is not None:
            self._policy.receive(event)
        if self._safety is not None:
            self._safety.receive(event)

    def _receive_joints(self, lists: JointLists, now_ns: int) -> None:
        try:
            sample = self._reader.read(*lists)
        except JointError as err:
            self._record.refuse("joint_states", str(err))
            if self._safety is not None:
                self._safety.refuse(str(err), now_ns)
            return
        self._record.add_joints(sample)
        if self._policy is not None:
            self._policy.joints(sample)
        if self._safety is not None:
            self._safety.joints(sample, now_ns)

    def advance(self, time_ns: int) -> None:
        """Do what falls due before `time_ns`, which is then the time."""
        now_ns = self._now_ns
        if now_ns is None:
            self._start(time_ns, again=False)
            self._due(time_ns)
        elif time_ns - now_ns > LONGEST_GAP_NS:
            self._record.gaps.append((now_ns, time_ns))
            self._due(now_ns + AFTER_GAP_NS)
            self._start(time_ns, again=True)
        else:
            self._due(time_ns)
        self._now_ns = time_ns if now_ns is None else max(now_ns, time_ns)

    def _start(self, time_ns: int, *, again: bool) -> None:
        for side in (self._policy, self._safety):
            if side is not None:
                side.clock.start(time_ns, again=again)

    def _due(self, until_ns: int) -> None:
        policy, safety = self._policy, self._safety
        if policy is None and safety is not None:
            # The same as below, for the mode that is to be fast.
            clock = safety.clock
            while (next_ns := clock.next_ns) < until_ns:
                clock.advance()
                safety.tick(next_ns)
            return
        while True:
            result_ns = _NEVER if policy is None else policy.result_ns
            policy_ns = _NEVER if policy is None else policy.clock.next_ns
            safety_ns = _NEVER if safety is None else safety.clock.next_ns
            next_ns = min(result_ns, policy_ns, safety_ns)
            if next_ns >= until_ns:
                return
            if policy is not None and next_ns == result_ns:
                policy.collect(next_ns)
            elif policy is not None and next_ns == policy_ns:
                policy.clock.advance()
                policy.tick(next_ns)
            elif safety is not None:
                safety.clock.advance()
                safety.tick(next_ns)


def send_to(safety: SafetySide, frame_id: str) -> Callable[[int, PolicyStep], None]:
    """Return what hands the policy's commands to the filter, as the topics between them do."""

    def send(now_ns: int, step: PolicyStep) -> None:
        safety.command(Command(now_ns, frame_id, np.asarray(step.twist, np.float64), None), now_ns)
        if step.gripper is not None:
            safety.gripper(step.gripper)

    return send
