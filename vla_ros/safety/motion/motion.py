"""What may be sent, and why."""

from collections.abc import Callable
from dataclasses import dataclass, field

Vector = tuple[float, float, float]


@dataclass(slots=True)
class Motion:
    """The motion that may be sent at one tick.

    Attributes:
        linear: Velocity of the TCP in m/s, base frame.
        angular: Angular velocity of the TCP in rad/s.
        joint_velocity: The joint velocities that make it, in rad/s, one a joint.
        acting: Bounds that changed what was asked for, and by how much, in the bound's unit.
        at_rest: Whether nothing moves: all of the above is 0.
        certified: Whether a new plan was verified at this tick; otherwise an older one goes on.

    """

    linear: Vector
    angular: Vector
    joint_velocity: tuple[float, ...]
    acting: dict[str, float]
    at_rest: bool
    certified: bool
    _measure: Callable[[], dict[str, float]] = field(repr=False)

    @property
    def margins(self) -> dict[str, float]:
        """Return the distance left to each bound, in its unit: worked out when asked for."""
        return self._measure()
