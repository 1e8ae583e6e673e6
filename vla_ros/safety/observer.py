"""Torque that the outside puts on the joints, from measured efforts and speeds alone.

The generalised-momentum observer of De Luca et al., "Collision detection and safe reaction with the
DLR-III lightweight manipulator arm", IROS 2006, eqs. 14 to 17. With the momentum p = M(q) v, the
motors' torque tau and the external one tau_ext,

    p' = tau + C(q, v)^T v - g(q) + tau_ext,        r = K (p - integral(tau + C^T v - g + r) dt),

so that r' = K (tau_ext - r): the external torque through a first-order filter with the time
constant 1 / K. As M' = C + C^T, the integral of p' - C^T v over the interval between two samples is
M (v - v_last) + (C v) dt but for its square: so one inverse dynamics, with (v - v_last) / dt in the
place of the acceleration, gives all of r's change, and is never used without the filter's integral:

    r_k - r_(k-1) = K dt (M (v_k - v_(k-1)) / dt + C v + g - tau - r_k).

What it cannot know it counts as external: friction, what the URDF's masses are wrong by, and the
sensors' noise, of which about M times that of the speeds, times K, gets through.
"""

import math

import numpy as np

from vla_ros.safety.motion import external
from vla_ros.types import Array

_LONGEST_GAP_NS = 200_000_000
"""After a longer gap between two samples the observer starts anew: it saw nothing of it."""
_MOST_FORCE = 0.5 / math.sqrt(external.DAMPING)
"""Greatest force that explains a torque of size 1, in N / Nm."""


class MomentumObserver:
    """External torque of each joint, and the force at the TCP that would explain it.

    Attributes:
        torque: Estimated external torque of each joint, Nm, shape (n,); changed in place.

    """

    torque: Array

    def __init__(self, links: Array, time_constant: float) -> None:
        """Start without an estimate.

        Args:
            links: The arm with its payload, `model.ArmModel.links`.
            time_constant: Of the filter, s, > 0.

        """
        self._links = links
        n = len(links) - 1
        self.set_time_constant(time_constant)
        self._stamp_ns: int | None = None
        self._position: Array = np.zeros(n)
        self._velocity: Array = np.zeros(n)
        self.torque = np.zeros(n)
        self._size = 0.0  # of the torque

    def set_time_constant(self, time_constant: float) -> None:
        """Change the filter's time constant, in s, > 0."""
        self._gain = 1.0 / time_constant

    def add(self, stamp_ns: int, position: Array, velocity: Array, effort: Array) -> None:
        """Take a sample that is newer than the last one; its arrays are kept, not copied.

        Args:
            stamp_ns: Time of measurement.
            position: Of the joints, rad, (n,).
            velocity: rad/s, (n,).
            effort: Of the motors, gravity's share included, Nm, (n,).

        """
        last_ns, before = self._stamp_ns, self._velocity
        self._stamp_ns, self._position, self._velocity = stamp_ns, position, velocity
        if last_ns is None or not 0 < stamp_ns - last_ns <= _LONGEST_GAP_NS:
            self.torque[:] = self._size = 0.0
            return
        seconds = (stamp_ns - last_ns) * 1e-9
        self._size = external.update(
            self._links, position, velocity, before, effort, seconds, self._gain, self.torque
        )

    def most_contact_force(self) -> float:
        """Return a bound on `contact_force` that costs next to nothing, N.

        Of a singular value s of J_p, s / (s^2 + damping) of the torque becomes force: that is most
        where s^2 is the damping, 1 / (2 s).
        """
        return _MOST_FORCE * self._size

    def contact_force(self) -> float:
        """Return the size of the pure force at the TCP that explains the torque best, N.

        Least squares of J_p^T f = r, with the TCP's Jacobian J_p of positions (3, n).
        """
        return float(external.force(self._links, self._position, self.torque))
