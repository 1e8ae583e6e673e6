"""What the filter answers at each step."""

from dataclasses import dataclass
from enum import Enum

from vla_ros.types import Array


class SafetyState(Enum):
    """State of the filter. The last three are latched: they end with a reset only."""

    STARTING = "STARTING"
    """No joint states or no robot_description yet: zero output."""
    HOLDING = "HOLDING"
    """No acceptable command, or stale joint states: braking or still; goes on by itself."""
    RUNNING = "RUNNING"
    """The command is passed on, within the bounds."""
    STOPPED = "STOPPED"
    """Stopped by request."""
    PROTECTIVE_STOP = "PROTECTIVE_STOP"
    """Stopped by a measured effort over its bound."""
    EMERGENCY_STOP = "EMERGENCY_STOP"
    """Stopped by the e-stop."""


@dataclass(frozen=True, slots=True)
class Acting:
    """A bound that changed or refused something since the last step.

    Attributes:
        name: The bound, by its key in the robot file, or the check that refused an input
            (`command_frame`, `command_finite`, `command_order`, `joint_states_malformed`,
            `joint_states_order`, `gripper_finite`), or `workspace`.
        amount: By how much, in the bound's unit: what was taken from a motion, or how far an input
            was over. 1.0 for a refusal that has no size.

    """

    name: str
    amount: float


@dataclass(frozen=True, slots=True)
class SafetyDecision:
    """What may be sent to the robot now, and why.

    Attributes:
        stamp_ns: Time of the step.
        twist: Twist of the TCP in the base frame, m/s and rad/s, shape (6,).
        gripper: Opening between the fingers in m, or None as long as it was never measured.
        state: State of the filter.
        acting: Bounds that acted.
        reason: One line: why the arm holds, or what was refused; empty when all is well.
        command_stamp_ns: Stamp of the command that is followed, None if none is.

    """

    stamp_ns: int
    twist: Array
    gripper: float | None
    state: SafetyState
    acting: tuple[Acting, ...]
    reason: str
    command_stamp_ns: int | None
