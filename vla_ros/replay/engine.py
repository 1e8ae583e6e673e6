"""The nodes stepped without a clock: their objects, called in a fixed order.

`PolicySide` and `SafetySide` hold what policy_node and safety_node hold, and answer messages as
their callbacks do. Messages come to the first and, along with its commands, go on to the second,
from which nothing comes back. The time is that of the messages. What falls due between two of them
is done in the order of time and, at the same time: a result of the model, a step of the policy, a
step of the filter. A message of the same time as a step comes before it.
"""

import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from statistics import median_low
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from vla_ros.observation.joints import JointError, JointReader
from vla_ros.policy.controller import PolicyController
from vla_ros.policy.policy import Chunk, Policy, PolicyError
from vla_ros.policy.tokens import InstructionError
from vla_ros.replay.columns import Record
from vla_ros.replay.source import ChunkStamps, Event, Kind
from vla_ros.replay.stopwatch import Stopwatch
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
        # A node that ran before the first message stepped then, too.
        self.next_ns = self._given[0] if self._given else _NEVER

    def start(self, time_ns: int) -> None:
        """Begin with a step at `time_ns`; at given times, with the first that is not before it."""
        if self._given is None:
            self.next_ns = time_ns
            return
        while self._given and self._given[0] < time_ns:
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


class End(NamedTuple):
    """There is nothing more; what falls due before this time is still to be done."""

    time_ns: int


class Sent(NamedTuple):
    """A command of the policy on its way to the filter.

    Attributes:
        time_ns: When it is sent, in the order of all messages; its stamp may be 1 ns later.
        command: The command.
        gripper: The opening that goes with it, in m, or None.

    """

    time_ns: int
    command: Command
    gripper: float | None


Item = Event | Sent | End
"""What comes to the filter."""


def read_joints(events: Iterable[Event], reader: JointReader) -> Iterator[Event]:
    """Yield events; those of joint states hold what `JointReader` says of them, or its error."""
    for event in events:
        if event.kind is Kind.JOINTS:
            value: JointSample | JointError | None
            try:
                value = reader.read(*event.value)
            except JointError as err:
                value = err
            yield event.holding(value)
        else:
            yield event


class _Side:
    """A node's time: that of its messages, between which it does what falls due.

    Attributes:
        clock: Its timer.
        gaps: Silences of the bag that were not stepped through: from, to.
        loading: The time that it took to load what the robot's description says.

    """

    def __init__(self, period_ns: int, ticks_ns: Sequence[int] | None) -> None:
        """Step every period, or at given times."""
        self.clock = _Clock(period_ns, ticks_ns)
        self.gaps: list[tuple[int, int]] = []
        self.loading = Stopwatch()
        self._now_ns: int | None = None

    def advance(self, time_ns: int) -> None:
        """Do what falls due before `time_ns`, which is then the time."""
        now_ns = self._now_ns
        if now_ns is None:
            if self.clock.next_ns == _NEVER:
                self.clock.start(time_ns)
            self._due(time_ns)
        elif time_ns - now_ns > LONGEST_GAP_NS:
            self.gaps.append((now_ns, time_ns))
            self._due(now_ns + AFTER_GAP_NS)
            self.clock.start(time_ns)
        else:
            self._due(time_ns)
        self._now_ns = time_ns if now_ns is None else max(now_ns, time_ns)

    def _due(self, until_ns: int) -> None:
        """Do what falls due before a time."""
        raise NotImplementedError


class PolicySide(_Side):
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
        send_in: str | None = None,
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
            send_in: Frame of the commands that go to a filter; None if they go to none.
            timer: Seconds of the wall clock, for the time that inference takes.

        """
        super().__init__(period_ns, ticks_ns)
        self._controller = controller
        self._policy = policy
        self._record = record
        self._period_ns = period_ns
        self._latency = latency
        self._send_in = send_in
        self._sent: list[Sent] = []
        self._timer = timer
        self._description = ""
        self._last_ns = 0
        self._pending: tuple[int, Observation, Chunk | str] | None = None

    def through(self, events: Iterable[Event | End]) -> Iterator[Item]:
        """Yield events, of those that `read_joints` made, each after the commands sent up to it."""
        for event in events:
            self.advance(event.time_ns)
            if type(event) is Event:
                self._receive(event)
            if self._sent:
                yield from self._sent
                self._sent.clear()
            yield event

    def unknown_words(self, instructions: Iterable[str]) -> list[str]:
        """Return the words of instructions that the model has never seen, as policy_node warns."""
        words: dict[str, None] = {}
        for text in instructions:
            # One that is too long is refused with every observation.
            with suppress(InstructionError):
                words |= dict.fromkeys(self._policy.unknown_words(text))
        return list(words)

    def _receive(self, event: Event) -> None:
        """Do what policy_node does with a message."""
        if event.kind is Kind.JOINTS:
            if type(event.value) is JointSample:
                self._controller.add_joints(event.value)
        elif event.kind is Kind.FRAME:
            frame: Frame = event.value
            if self._controller.add_frame(frame):
                self._infer_if_due(event.time_ns)
        elif event.kind is Kind.DESCRIPTION:
            if event.value != self._description:
                self._description = event.value
                with self.loading:
                    chain = self._controller.robot.chain(event.value)
                    self._policy.set_chain(chain)
                    self._controller.set_chain(chain)
        elif event.kind is Kind.INSTRUCTION:
            text = event.value.strip()
            if text != self._controller.instruction:
                self._controller.set_instruction(text)
                self._tick_now(event.time_ns)
                self._infer_if_due(event.time_ns)

    def _due(self, until_ns: int) -> None:
        clock = self.clock
        while True:
            if self._pending is not None and self._pending[0] <= clock.next_ns:
                now_ns, observation, outcome = self._pending
                if now_ns >= until_ns:
                    return
                self._pending = None
                self._collect(now_ns, observation, outcome)
            elif (next_ns := clock.next_ns) < until_ns:
                clock.advance()
                self._tick(next_ns, next_ns)
            else:
                return

    def _collect(self, now_ns: int, observation: "Observation", outcome: Chunk | str) -> None:
        """Take the model's result, as policy_node does when its thread has it."""
        if isinstance(outcome, str):
            self._record.refuse("the model", outcome)
            self._controller.fail(observation, outcome)
        elif self._controller.accept(outcome, now_ns):
            self._tick_now(now_ns)
        elif now_ns - self._last_ns < self._period_ns // 4:
            self.clock.reset(now_ns)

    def _tick(self, now_ns: int, stamp_ns: int) -> None:
        """Command what is due now."""
        step = self._controller.tick(stamp_ns)
        self._last_ns = stamp_ns
        self._record.add_command(stamp_ns, step)
        if self._send_in is not None:
            command = Command(stamp_ns, self._send_in, np.asarray(step.twist, np.float64), None)
            self._sent.append(Sent(now_ns, command, step.gripper))

    def _tick_now(self, now_ns: int) -> None:
        # The filter takes two commands of one stamp for one, and no two have one live.
        stamp_ns = max(now_ns, self._last_ns + 1)
        if self.clock.reset(now_ns) or self.clock.take(stamp_ns):
            self._tick(now_ns, stamp_ns)

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


class SafetySide(_Side):
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
        super().__init__(round(SECOND_NS / rate_hz), ticks_ns)
        self._timer = timer
        self._filter = safety
        self._record = record
        self._commands: deque[Command] = deque(maxlen=_COMMANDS)
        self._gripper: float | None = None
        self._description = ""

    def take(self, item: Item) -> None:
        """Do what falls due before it, and what safety_node does with it."""
        if type(item) is Sent:
            # Part of what its message brought about: time goes by from message to message.
            self._due(item.time_ns)
            self._command(item.command, item.command.stamp_ns)
            if item.gripper is not None:
                self._open(item.gripper)
            return
        self.advance(item.time_ns)
        if type(item) is Event:
            self._receive(item)

    def _receive(self, event: Event) -> None:
        if event.kind is Kind.JOINTS:
            self._joints(event.value, event.time_ns)
        elif event.kind is Kind.COMMAND:
            self._command(event.value, event.time_ns)
        elif event.kind is Kind.GRIPPER:
            self._open(event.value)
        elif event.kind is Kind.DESCRIPTION:
            if event.value != self._description:
                self._description = event.value
                with self.loading:
                    first = self._filter.set_robot_description(event.value)
                if first:
                    self._filter.forget(event.time_ns)
        elif event.kind is Kind.INSTRUCTION:
            self._filter.instruct(event.value, event.time_ns)
        elif event.kind is Kind.ESTOP:
            self._filter.estop(event.value, event.time_ns)

    def _command(self, command: Command, now_ns: int) -> None:
        self._commands.append(command)
        begin = self._timer()
        self._filter.receive(command, now_ns)
        self._record.filter_s += self._timer() - begin

    def _open(self, opening: float) -> None:
        self._gripper = opening
        self._filter.receive_gripper(opening)

    def _joints(self, sample: JointSample | JointError | None, now_ns: int) -> None:
        begin = self._timer()
        if isinstance(sample, JointError):
            self._filter.refuse("joint_states_malformed", str(sample), now_ns)
        elif sample is not None:
            self._filter.receive_joints(sample, now_ns)
        self._record.filter_s += self._timer() - begin

    def _due(self, until_ns: int) -> None:
        clock = self.clock
        while (next_ns := clock.next_ns) < until_ns:
            clock.advance()
            self._tick(next_ns)

    def _tick(self, now_ns: int) -> None:
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
