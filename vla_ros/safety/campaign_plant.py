"""The arms of a campaign: each follows exactly what it is sent, a delay later; many at once.

Kinematics are the judge's, so that nothing of the filter's own model decides where the arms are.
K is the number of arms, n that of their joints.
"""

import numpy as np
from numpy.typing import NDArray

from vla_ros.replay.judge_arm import Arm
from vla_ros.types import Array

Indices = NDArray[np.int64]


class Plants:
    """K arms with a velocity interface and a delay.

    A command that is sent at t is followed from t + delay on, until the next one is. So where an
    arm begins to follow a command depends on all commands before it and not on the delay, which
    decides when it gets there, and with it what is measured.

    Twists are followed by damped least squares on the joint positions of the moment, as a robot's
    own Cartesian velocity interface does: u = J^T (J J^T + l^2 I)^-1 v in units of the
    characteristic length, damped only where the smallest singular value s is less than `singular`:
    l^2 = singular^2 - s^2. The joint velocity holds until the next command.

    Attributes:
        path: Joint positions where each command begins to be followed, shape (T + 1, K, n).
        followed: Joint velocities by which it is, shape (T, K, n).
        jacobian: At the newest of those places, shape (K, 6, n).

    """

    def __init__(
        self,
        arm: Arm,
        start: Array,
        delay: Array,
        *,
        ticks: int,
        twist: bool,
        singular: float,
        length: float,
    ) -> None:
        """Start at rest.

        Args:
            arm: The judge's kinematics.
            start: Where the arms start, shape (K, n).
            delay: Time in s after which each arm follows a command, shape (K,).
            ticks: How many commands there will be, T.
            twist: Whether twists are sent, or joint velocities.
            singular: Singular value under which least squares are damped.
            length: Characteristic length, in m.

        """
        self._arm, self._twist, self._singular = arm, twist, singular
        self._scale = np.array([1.0 / length] * 3 + [1.0] * 3)
        self._delay = delay
        count, joints = start.shape
        self._rows = np.arange(count)
        self._times = np.zeros((ticks + 1, count))
        self.path = np.zeros((ticks + 1, count, joints))
        self.path[0] = start
        self.followed = np.zeros((ticks, count, joints))
        self.jacobian: Array = arm.jacobian(start)
        self._tick = 0
        self._at: Indices = np.zeros(count, dtype=np.int64)

    def follow(self, sent: Array, seconds: Array) -> None:
        """Take a tick's commands, (K, 6) or (K, n); the next ones come `seconds` (K,) later."""
        tick = self._tick
        place = self.path[tick]
        velocity = self._joint_velocity(sent) if self._twist else sent
        self.followed[tick] = velocity
        self.path[tick + 1] = place + velocity * seconds[:, None]
        self._times[tick + 1] = self._times[tick] + seconds
        self.jacobian = self._arm.jacobian(self.path[tick + 1])
        self._tick += 1

    def measured(self, age: Array) -> tuple[Array, Array]:
        """Return joint positions and velocities (K, n) as they were `age` (K,) seconds ago."""
        now = self._times[self._tick] - self._delay - age
        at = self._at
        while True:
            following = np.minimum(at + 1, self._tick)
            ahead = (self._times[following, self._rows] <= now) & (following > at)
            if not ahead.any():
                break
            at = at + ahead
        # Ages differ from tick to tick: keep the place before, and look again from there.
        self._at = np.maximum(at - 3, 0)
        since = np.maximum(now - self._times[at, self._rows], 0.0)
        last = len(self.followed) - 1
        moving = (now >= 0.0) & (at < self._tick)
        velocity = self.followed[np.minimum(at, last), self._rows] * moving[:, None]
        return self.path[at, self._rows] + velocity * since[:, None], velocity

    @property
    def position(self) -> Array:
        """Joint positions now, shape (K, n)."""
        return self.measured(np.zeros(len(self._rows)))[0]

    def _joint_velocity(self, twists: Array) -> Array:
        # A command that is not finite is the judge's business: the arm stands still.
        twists = np.where(np.isfinite(twists), twists, 0.0)
        scaled = self.jacobian * self._scale[:, None]
        turned = np.swapaxes(scaled, 1, 2)
        wanted = twists * self._scale
        if scaled.shape[2] >= scaled.shape[1]:
            squares, axes = np.linalg.eigh(scaled @ turned)
            parts = np.swapaxes(axes, 1, 2) @ wanted[:, :, None]
            solved = turned @ (axes @ (parts / self._damped(squares)[:, :, None]))
        else:
            squares, axes = np.linalg.eigh(turned @ scaled)
            parts = np.swapaxes(axes, 1, 2) @ (turned @ wanted[:, :, None])
            solved = axes @ (parts / self._damped(squares)[:, :, None])
        return np.asarray(solved[:, :, 0])

    def _damped(self, squares: Array) -> Array:
        least = self._singular**2
        return np.asarray(squares + np.maximum(least - squares[:, :1], 0.0) + 1e-12)
