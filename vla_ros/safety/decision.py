"""What the filter answers at each step."""

from collections.abc import Callable
from dataclasses import dataclass, field
from enum import Enum
from typing import NamedTuple

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
    """Stopped by a measured effort, or a torque or force from outside, over its bound."""
    EMERGENCY_STOP = "EMERGENCY_STOP"
    """Stopped by the e-stop, or its silence."""


class Acting(NamedTuple):
    """A bound that changed or refused something since the last step.

    Attributes:
        name: The bound, by its key in the robot file, or the check that refused an input,
            or holds the arm (`command_frame`, `command_finite`, `command_quaternion`,
            `command_order`, `command_joints`, `command_publishers`, `joint_states_malformed`,
            `joint_states_order`, `joint_states_frozen`, `gripper_finite`, `require_approval`,
            `speed_scale`, `robot_description`, `stop`, `estop`). Of a bound on each joint, with the
            joint's name: `joint_speed.<joint>`.
        amount: By how much, in the bound's unit: what was taken from a motion, or how far an input
            was over. 1.0 for a refusal that has no size.

    """

    name: str
    amount: float


@dataclass(slots=True)
class SafetyDecision:
    """What may be sent to the robot now, and why.

    Attributes:
        stamp_ns: Time of the step.
        twist: Twist of the TCP in the base frame, m/s and rad/s, shape (6,).
        joint_velocity: The joint velocities that make it, rad/s, shape (n,).
        gripper: Opening between the fingers in m, or None as long as it was never measured.
        state: State of the filter.
        acting: Bounds that acted.
        reason: One line: why the arm holds, or what was refused; empty when all is well.
        command_stamp_ns: Stamp of the command that is followed, None if none is.

    """

    stamp_ns: int
    twist: Array
    joint_velocity: Array
    gripper: float | None
    state: SafetyState
    acting: tuple[Acting, ...]
    reason: str
    command_stamp_ns: int | None
    _measure: Callable[[], dict[str, float]] = field(repr=False, compare=False)

    @property
    def margins(self) -> dict[str, float]:
        """Return what is left to each bound, in its unit, below 0 where it is over.

        Worked out when asked for, which must be before the filter's next step.
        """
        return self._measure()
