"""Real-time chunking: a flow is guided to go on with what is left of the running chunk.

K. Black, M. Y. Galliker, S. Levine, Real-Time Execution of Action Chunking Flow Policies, 2025,
arXiv:2506.07339, eq. 2 to 4. As in LeRobot, the estimate of the actions is differentiated with the
velocity held fixed, so that its Jacobian is the identity and no gradient of the model is needed.
"""

import numpy as np
from numpy.typing import NDArray

from vla_ros.policy.prefix import Prefix

Floats = NDArray[np.float32]


class Guidance:
    """Draws the actions of a flow to those of a prefix."""

    def __init__(self, prefix: Prefix, shape: tuple[int, ...]) -> None:
        """Lay the prefix out in a sample's shape.

        Args:
            prefix: What to go on with. What is longer than the sample is cut off; columns that
                it lacks are those that a model is padded with, and are drawn to 0.
            shape: Of the sample, (1, n, size).

        """
        _, count, size = shape
        count = min(count, len(prefix.actions))
        width = min(size, prefix.actions.shape[1])
        self._target = np.zeros(shape, np.float32)
        self._target[0, :count, :width] = prefix.actions[:count, :width]
        self._weights = np.zeros((1, shape[1], 1), np.float32)
        self._weights[0, :count, 0] = prefix.weights[:count]
        self._beta = prefix.beta

    def pull(self, estimate: Floats, progress: float) -> Floats:
        """Return what to add to the velocity from noise to actions, in the sample's shape.

        Args:
            estimate: Of the actions, as the velocity now leads to them.
            progress: The paper's tau: 0 is noise, 1 the actions.

        """
        left = 1.0 - progress
        spread = left**2 / (progress**2 + left**2)  # r^2 in the paper
        strength = self._beta
        if progress * spread > 0.0:
            strength = min(strength, left / (progress * spread))
        error = (self._target - estimate) * self._weights
        return np.asarray(np.float32(strength) * error, np.float32)
