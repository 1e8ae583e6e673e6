"""What may be sent, and why."""

from collections.abc import Callable
from dataclasses import dataclass, field

from vla_ros.types import Array


@dataclass(slots=True)
class Motion:
    """The motion that may be sent at one tick.

    Attributes:
        twist: Velocity of the TCP in the base frame, m/s and rad/s, (6,).
        joint_velocity: The joint velocities that make it, rad/s, (n,).
        acting: Bounds that changed what was asked for, and by how much, in the bound's unit.

    """

    twist: Array
    joint_velocity: Array
    acting: dict[str, float]
    _measure: Callable[[], dict[str, float]] = field(repr=False)

    @property
    def at_rest(self) -> bool:
        """Whether nothing moves."""
        return not (self.twist.any() or self.joint_velocity.any())

    @property
    def margins(self) -> dict[str, float]:
        """Return the distance left to each bound, in its unit: worked out when asked for."""
        return self._measure()
