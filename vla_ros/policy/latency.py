"""How long the model takes, from what it took: so that the next chunk is asked for in time."""

from collections import deque

import numpy as np

KEPT = 100
"""Inferences that are looked back on."""
_RECENT = 20
_AT_MOST, _USUAL = 99.0, 75.0
"""Percentiles."""


class Latency:
    """Time from asking for a chunk to having it, over the last inferences.

    The first inference of a process is often the slowest by far: caches are cold, kernels are
    chosen, clocks are low. It is what is known until there is another one, and then forgotten.
    """

    def __init__(self) -> None:
        """Know nothing yet."""
        self._taken_ns: deque[int] = deque(maxlen=KEPT)
        self._warm = False

    def add(self, taken_ns: int) -> None:
        """Take what an inference took, in ns."""
        if len(self._taken_ns) == 1 and not self._warm:
            self._warm = True
            self._taken_ns.clear()
        self._taken_ns.append(taken_ns)

    @property
    def usual_ns(self) -> int | None:
        """What three of four of the last inferences stayed below; None before the first.

        One that hung for once does not count in it.
        """
        if not self._taken_ns:
            return None
        return int(np.percentile(list(self._taken_ns)[-_RECENT:], _USUAL))

    @property
    def expected_ns(self) -> int | None:
        """What an inference takes at most, but for one in a hundred; None before the first."""
        if not self._taken_ns:
            return None
        return int(np.percentile(list(self._taken_ns), _AT_MOST))
