"""The small quadratic program: of what a linear set of rows allows, what is nearest to a wish."""

import daqp
import numpy as np

from vla_ros.types import Array

_SOFT = 8
"""DAQP's mark of a row that may be exceeded, at a price, where there is no other way."""
_NONE: Array = np.zeros(0)
_MOST_STEPS = 200
"""Far more than DAQP takes with as few variables; a bound on time."""


class Program:
    """min (x - wish) H (x - wish) / 2 within low <= (x, A x) <= high, the last rows of A soft.

    Attributes:
        metric: H, positive definite, shape (m, m); to be filled, like all of these.
        gain: -H wish, shape (m,).
        matrix: A, shape (r, m).
        low: Shape (m + r,).
        high: Likewise.

    """

    def __init__(self, size: int, hard: int, rows: int) -> None:
        """Make room.

        Args:
            size: m.
            hard: Number of rows of A that are not soft; they come first.
            rows: The most rows of A.

        """
        self.metric: Array = np.zeros((size, size))
        self.gain: Array = np.zeros(size)
        self.matrix: Array = np.zeros((rows, size))
        self.low: Array = np.zeros(size + rows)
        self.high: Array = np.zeros(size + rows)
        self._sense = np.zeros(size + rows, dtype=np.intc)
        self._sense[size + hard :] = _SOFT

    def solve(self, rows: int) -> Array:
        """Return x (m,), or an empty array where DAQP finds none.

        Args:
            rows: How many rows of A count.

        """
        count = len(self.gain) + rows
        x, _, flag, _ = daqp.solve(
            self.metric,
            self.gain,
            self.matrix[:rows],
            self.high[:count],
            self.low[:count],
            # DAQP writes into it.
            self._sense[:count].copy(),
            iter_limit=_MOST_STEPS,
        )
        return x if flag > 0 else _NONE
