"""How long the model takes, from what it took: so that the next chunk is asked for in time."""

from collections import deque
from collections.abc import Sequence

KEPT = 100
"""Inferences that are looked back on."""

_AT_MOST = 0.99
_RECENT, _USUAL = 20, 0.75


class Latency:
    """Time from asking for a chunk to having it, over the last inferences.

    The first inference of a process is often the slowest by far: caches are cold, kernels are
    chosen, clocks are low. It is what is known until there is another one, and then forgotten.

    Attributes:
        expected_ns: What an inference takes at most, but for one in a hundred of the last `KEPT`;
            None before the first.
        usual_ns: What three of four of the last 20 stayed below, in which one that took far too
            long does not count; likewise.

    """

    def __init__(self) -> None:
        """Know nothing yet."""
        self.expected_ns: int | None = None
        self.usual_ns: int | None = None
        self._taken_ns: deque[int] = deque(maxlen=KEPT)
        self._warm = False

    def add(self, taken_ns: int) -> None:
        """Take what an inference took, in ns."""
        if len(self._taken_ns) == 1 and not self._warm:
            self._warm = True
            self._taken_ns.clear()
        self._taken_ns.append(taken_ns)
        taken = list(self._taken_ns)
        self.expected_ns = _percentile(taken, _AT_MOST)
        self.usual_ns = _percentile(taken[-_RECENT:], _USUAL)


def _percentile(values: Sequence[int], share: float) -> int:
    """Return what `share` of the values stay below, in between linearly, as numpy does.

    In plain Python, for it is done between a chunk's arrival and its first command: of 100 values
    it takes a tenth of numpy's time.
    """
    ordered = sorted(values)
    at = share * (len(ordered) - 1)
    below = int(at)
    above = min(below + 1, len(ordered) - 1)
    return int(ordered[below] + (at - below) * (ordered[above] - ordered[below]))
