"""The state of the filter: latched stops, and what holds the arm still for the time being.

Who asks for a hold (silence, a refused command, two commanders, a missing approval, the filter's
own lateness) is told by name; the first in the order of `Supervisor.assess` counts.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from vla_ros.robot import RobotConfig
from vla_ros.safety.decision import SafetyState
from vla_ros.safety.inputs import SECOND_NS, Refusal
from vla_ros.types import aged

_REFUSAL_SHOWN_NS = SECOND_NS
"""How long a refused input stays in the reason; `acting` names it at its own step only."""
_SEVERITY = (SafetyState.STOPPED, SafetyState.PROTECTIVE_STOP, SafetyState.EMERGENCY_STOP)
_SHOWN = 60
"""Characters of an instruction that are shown."""


@dataclass(frozen=True, slots=True)
class Assessment:
    """The state, and why.

    Attributes:
        state: The state.
        reason: Why the arm is not moving, or what was refused lately; empty when all is well.
        cause: Name of the check that holds the arm; empty where none does, or nothing is wrong yet.
        amount: By how much it does, in its unit.

    """

    state: SafetyState
    reason: str = ""
    cause: str = ""
    amount: float = 1.0


_RUNNING = Assessment(SafetyState.RUNNING)


class Supervisor:
    """Follows events and the ages of the inputs. It has no clock: times come in, in ns.

    Attributes:
        paused: Whether the arm is to hold still because its speed is scaled to nothing.

    """

    def __init__(self, robot: RobotConfig, rate_hz: float, *, require_approval: bool) -> None:
        """Start without a latch; without an approval, where one is required.

        Args:
            robot: Timeouts.
            rate_hz: Rate at which steps are due.
            require_approval: Whether each new instruction holds the arm until it is approved.

        """
        self._period_ns = round(SECOND_NS / rate_hz)
        self._require_approval = require_approval
        self._approved = False
        self._instruction = ""
        self._latch: Assessment | None = None
        self._condemned = ""
        self.paused = False
        self._estop_engaged = False
        self._estop_heard_ns: int | None = None
        self._publishers: tuple[str, ...] = ()
        self._refusal: Refusal | None = None
        self._refusal_ns = 0
        self._hold: Assessment | None = None
        self._hold_ns = 0
        self.tighten(robot)

    def tighten(self, robot: RobotConfig) -> None:
        """Use the timeouts of `robot` from now on."""
        bounds = robot.bounds
        self._command_timeout_ns = round(bounds.command_timeout * SECOND_NS)
        self._joint_timeout_ns = round(bounds.joint_state_timeout * SECOND_NS)
        self._distrust_ns = round(bounds.refused_command_hold * SECOND_NS)
        self._heartbeat_ns = round(bounds.estop_heartbeat * SECOND_NS)
        self._overrun_ns = round(bounds.overrun_time * SECOND_NS)

    @property
    def latched(self) -> bool:
        """Whether a stop is latched."""
        return self._latch is not None

    def latch(self, state: SafetyState, reason: str, cause: str) -> None:
        """Latch a stop; a lesser one does not replace a graver one."""
        if self._latch is None or _SEVERITY.index(state) > _SEVERITY.index(self._latch.state):
            self._latch = Assessment(state, reason, cause)

    def condemn(self, reason: str) -> None:
        """Latch a protective stop that no reset ends."""
        self._condemned = reason
        self.latch(SafetyState.PROTECTIVE_STOP, reason, "robot_description")

    def estop(self, now_ns: int, *, engaged: bool) -> None:
        """Take the state of the e-stop, which is its heartbeat too."""
        self._estop_heard_ns = now_ns
        self._estop_engaged = engaged
        if engaged:
            self.latch(SafetyState.EMERGENCY_STOP, "the e-stop was engaged", "estop")

    def publishers(self, names: Sequence[str]) -> None:
        """Take the names of the nodes that publish commands now; more than one hold the arm."""
        self._publishers = tuple(names)

    def instruct(self, text: str) -> bool:
        """Take the instruction that the policy follows; return whether it needs an approval."""
        if text == self._instruction:
            return False
        self._instruction, self._approved = text, False
        return self._require_approval

    def approve(self) -> tuple[bool, str]:
        """Let the present instruction be followed; return whether that was needed, and a line."""
        shown = _quoted(self._instruction)
        if not self._require_approval:
            return False, "no approval is required: the parameter require_approval is false"
        if self._approved:
            return False, f"approved before: {shown}"
        self._approved = True
        return True, f"approved: {shown}"

    def late(self, gap_ns: int, now_ns: int) -> None:
        """Take the time between two steps; one that comes too late is a fault, and holds."""
        over_ns = gap_ns - self._period_ns - self._overrun_ns
        if over_ns > 0:
            seconds = (gap_ns - self._period_ns) / SECOND_NS
            text = f"the filter itself ran {seconds:.3f} s late: the machine is too busy"
            self._hold_for(Assessment(SafetyState.HOLDING, text, "overrun_time", seconds), now_ns)

    def refuse(self, refusal: Refusal, now_ns: int, *, hold: bool) -> None:
        """Take what was refused, to tell it, and to hold the arm if its sender is not trusted."""
        self._refusal, self._refusal_ns = refusal, now_ns
        if hold:
            text = "a command was refused"
            cause = "refused_command_hold"
            self._hold_for(Assessment(SafetyState.HOLDING, text, cause), now_ns)

    def rewind(self, now_ns: int) -> None:
        """Follow a clock that was set back, so that nothing stays fresh beyond its timeout."""
        if self._estop_heard_ns is not None:
            self._estop_heard_ns = min(self._estop_heard_ns, now_ns)

    def assess(
        self, now_ns: int, *, described: bool, joint_age_ns: int | None, command_age_ns: int | None
    ) -> Assessment:
        """Return the state at a step.

        Args:
            now_ns: Its time.
            described: Whether the robot's description is known.
            joint_age_ns: Age of the joint states, None if there are none.
            command_age_ns: How long ago the last acceptable command came, None if none did.

        """
        self._check_heartbeat(now_ns)
        if self._latch is not None:
            return self._latch
        found = (
            self._starting(described=described, joint_age_ns=joint_age_ns)
            or self._check_joints(joint_age_ns)
            or self._check_sources(now_ns)
            or self._check_command(command_age_ns)
            or _RUNNING
        )
        if self._refusal is None or abs(now_ns - self._refusal_ns) > _REFUSAL_SHOWN_NS:
            return found
        reason = f"{found.reason}; refused: {self._refusal.text}".removeprefix("; ")
        return Assessment(found.state, reason, found.cause, found.amount)

    def why_no_reset(self, now_ns: int) -> str:
        """Return what forbids a reset now, or an empty line; the arm itself is not looked at."""
        if self._condemned:
            return self._condemned
        if self._estop_engaged:
            return "the e-stop is still engaged"
        silence_ns = self._silence_ns(now_ns)
        if silence_ns is not None and silence_ns > self._heartbeat_ns:
            return f"the e-stop has been silent for {silence_ns / SECOND_NS:.2f} s"
        return ""

    def reset(self) -> None:
        """End the latch and the holds; an approval ends too, where one is required."""
        self._latch = self._hold = self._refusal = None
        self._approved = False

    def _hold_for(self, why: Assessment, now_ns: int) -> None:
        """Hold the arm for `refused_command_hold`."""
        self._hold, self._hold_ns = why, now_ns

    def _silence_ns(self, now_ns: int) -> int | None:
        """Return how long the e-stop has been silent, None if no heartbeat is expected of it."""
        if not self._heartbeat_ns or self._estop_heard_ns is None:
            return None
        return now_ns - self._estop_heard_ns

    def _check_heartbeat(self, now_ns: int) -> None:
        silence_ns = self._silence_ns(now_ns)
        if silence_ns is not None and silence_ns > self._heartbeat_ns:
            text = f"no message on estop for {silence_ns / SECOND_NS:.2f} s"
            self.latch(SafetyState.EMERGENCY_STOP, text, "estop_heartbeat")

    def _starting(self, *, described: bool, joint_age_ns: int | None) -> Assessment | None:
        """Return what has never come yet, or None."""
        if not described:
            return Assessment(SafetyState.STARTING, "waiting for robot_description")
        if joint_age_ns is None:
            return Assessment(SafetyState.STARTING, "waiting for joint states")
        if self._heartbeat_ns and self._estop_heard_ns is None:
            return Assessment(SafetyState.STARTING, "waiting for a first message on estop")
        return None

    def _check_joints(self, age_ns: int | None) -> Assessment | None:
        if age_ns is None or age_ns <= self._joint_timeout_ns:
            return None
        age = age_ns / SECOND_NS
        text = f"the joint states are {aged(age_ns, f'{age:.2f} s old')}"
        return Assessment(SafetyState.HOLDING, text, "joint_state_timeout", age)

    def _check_sources(self, now_ns: int) -> Assessment | None:
        """Return why whoever commands is not followed, or None."""
        if len(self._publishers) > 1:
            names = ", ".join(self._publishers)
            text = f"{len(self._publishers)} publishers on command: {names}; one is to command"
            amount = float(len(self._publishers) - 1)
            return Assessment(SafetyState.HOLDING, text, "command_publishers", amount)
        if self._hold is not None and abs(now_ns - self._hold_ns) <= self._distrust_ns:
            return self._hold
        if self.paused:
            text = "the speed is scaled to 0"
            return Assessment(SafetyState.HOLDING, text, "speed_scale")
        if self._require_approval and not self._approved:
            text = f"waiting for ~/approve of the instruction {_quoted(self._instruction)}"
            return Assessment(SafetyState.HOLDING, text, "require_approval")
        return None

    def _check_command(self, age_ns: int | None) -> Assessment | None:
        if age_ns is None:
            return Assessment(SafetyState.HOLDING, "waiting for a command")
        if age_ns <= self._command_timeout_ns:
            return None
        age = age_ns / SECOND_NS
        text = f"no acceptable command for {age:.2f} s"
        return Assessment(SafetyState.HOLDING, text, "command_timeout", age)


def _quoted(text: str) -> str:
    return repr(text if len(text) <= _SHOWN else f"{text[:_SHOWN]}...")
