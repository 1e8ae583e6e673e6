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
from collections.abc import Sequence

import numpy as np
import pinocchio as pin

from vla_ros.safety.motion.algebra import norm
from vla_ros.types import Array

_WORLD_AXES = pin.ReferenceFrame.LOCAL_WORLD_ALIGNED
_LONGEST_GAP_NS = 200_000_000
"""After a longer gap between two samples the observer starts anew: it saw nothing of it."""
_DAMPING = 1e-4
"""Added to J J^T, in m^2: where the arm is singular, the force is underestimated, not endless."""

_MOST_FORCE = 0.5 / math.sqrt(_DAMPING)
"""Greatest force that explains a torque of size 1, in N / Nm."""


class MomentumObserver:
    """External torque of each joint, and the force at the TCP that would explain it.

    Attributes:
        torque: Estimated external torque of each joint, Nm, shape (n,); changed in place.

    """

    torque: Array

    def __init__(self, model: pin.Model, tcp: int, time_constant: float) -> None:
        """Start without an estimate.

        Args:
            model: Dynamics of the arm with its payload; one degree of freedom a joint, in the order
                of the samples.
            tcp: Index of the TCP's frame in it.
            time_constant: Of the filter, s, > 0.

        """
        self._model = model
        self._data = model.createData()
        self._tcp = tcp
        self.set_time_constant(time_constant)
        self._stamp_ns: int | None = None
        self._position: Array = np.zeros(model.nv)
        self._velocity: Array = np.zeros(model.nv)
        self.torque = np.zeros(model.nv)

    def set_time_constant(self, time_constant: float) -> None:
        """Change the filter's time constant, in s, > 0."""
        self._gain = 1.0 / time_constant

    def add(
        self,
        stamp_ns: int,
        position: Sequence[float] | Array,
        velocity: Sequence[float] | Array,
        effort: Sequence[float] | Array,
    ) -> None:
        """Take a sample that is newer than the last one; its arrays are kept, not copied.

        Args:
            stamp_ns: Time of measurement.
            position: Of the joints, rad, (n,).
            velocity: rad/s, (n,).
            effort: Of the motors, gravity's share included, Nm, (n,).

        """
        q, v = np.asarray(position), np.asarray(velocity)
        last_ns, before = self._stamp_ns, self._velocity
        self._stamp_ns, self._position, self._velocity = stamp_ns, q, v
        if last_ns is None or not 0 < stamp_ns - last_ns <= _LONGEST_GAP_NS:
            self.torque = np.zeros(self._model.nv)
            return
        seconds = (stamp_ns - last_ns) * 1e-9
        acceleration = v - before
        acceleration /= seconds
        missing = pin.rnea(self._model, self._data, q, v, acceleration)
        missing -= effort
        missing -= self.torque
        # Implicit in r, so that no interval between samples makes it unstable.
        missing *= self._gain * seconds / (1.0 + self._gain * seconds)
        self.torque += missing

    def most_contact_force(self) -> float:
        """Return a bound on `contact_force` that costs next to nothing, N.

        Of a singular value s of J_p, s / (s^2 + damping) of the torque becomes force: that is most
        where s^2 is the damping, 1 / (2 s).
        """
        return _MOST_FORCE * norm(self.torque, len(self.torque))

    def contact_force(self) -> float:
        """Return the size of the pure force at the TCP that explains the torque best, N.

        Least squares of J_p^T f = r, with the TCP's Jacobian J_p of positions (3, n).
        """
        jacobian = pin.computeFrameJacobian(
            self._model, self._data, self._position, self._tcp, _WORLD_AXES
        )[:3]
        (a, b, c), (_, d, e), (_, _, f) = jacobian.dot(jacobian.T).tolist()
        x, y, z = jacobian.dot(self.torque).tolist()
        a, d, f = a + _DAMPING, d + _DAMPING, f + _DAMPING
        # Cramer's rule on floats takes a fifth of the time of numpy.linalg.solve.
        dd, de, dc = d * f - e * e, c * e - b * f, b * e - c * d
        determinant = a * dd + b * de + c * dc
        fx = dd * x + de * y + dc * z
        fy = de * x + (a * f - c * c) * y + (b * c - a * e) * z
        fz = dc * x + (b * c - a * e) * y + (a * d - b * b) * z
        return math.hypot(fx, fy, fz) / float(determinant)
