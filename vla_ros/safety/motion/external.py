"""The arithmetic of `observer.MomentumObserver`, which says what it is."""

import math

import numpy as np

from vla_ros.safety.motion import algebra, chain, dynamics
from vla_ros.safety.motion.compiled import compiled
from vla_ros.types import Array

DAMPING = 1e-4
"""Added to J J^T, in m^2: where the arm is singular, the force is underestimated, not endless."""


@compiled
def update(
    links: Array,
    position: Array,
    velocity: Array,
    before: Array,
    effort: Array,
    seconds: float,
    gain: float,
    torque: Array,
) -> float:
    """Bring the estimate `torque` (n,) to a sample, `seconds` after that of the velocity before.

    Returns:
        Its size.

    """
    n = len(torque)
    turns, places = np.empty((n, 3, 3)), np.empty((n, 3))
    acceleration, needed = np.empty(n), np.empty(n)
    for i in range(n):
        acceleration[i] = (velocity[i] - before[i]) / seconds
    chain.set_frames(links, position, turns, places)
    dynamics.torque(links, turns, places, velocity, acceleration, needed)
    # Implicit in r, so that no interval between samples makes it unstable.
    share = gain * seconds / (1.0 + gain * seconds)
    for i in range(n):
        torque[i] += share * (needed[i] - effort[i] - torque[i])
    return float(algebra.norm(torque, n))


@compiled
def force(links: Array, position: Array, torque: Array) -> float:
    """Return the size of the pure force at the TCP that explains a torque (n,) best, N."""
    n = len(torque)
    jacobian, place, rotation = np.empty((6, n)), np.empty(3), np.empty((3, 3))
    chain.jacobian_at(links, position, jacobian, place, rotation)
    square, pushed = np.zeros((3, 3)), np.zeros((3, 1))
    for i in range(3):
        square[i, i] = DAMPING
        for k in range(n):
            pushed[i, 0] += jacobian[i, k] * torque[k]
            for j in range(3):
                square[i, j] += jacobian[i, k] * jacobian[j, k]
    algebra.solve(square, pushed)
    return math.sqrt(pushed[0, 0] ** 2 + pushed[1, 0] ** 2 + pushed[2, 0] ** 2)
