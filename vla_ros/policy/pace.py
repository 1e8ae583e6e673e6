"""When a loop's next period begins: evenly, and soon after the results that it waits for."""

from collections import deque

_MARGIN = 1 / 40
"""Share of a period by which a result should come before the period that executes it."""

_STEP = 1 / 32
"""Share of a period by which it may be longer or shorter than asked for."""

_WINDOW = 32
"""Results from whose times the phase is chosen: a few seconds of chunks."""


class Pace:
    """Gives the times at which periods begin.

    A result that comes just after a period has begun waits for all of it, and where cameras and
    commands have the same rate, so does every result after it. Hence the phase moves, by a small
    step each period, to where the last results would have waited least on average: the periods
    stay even. Where results come at any time (cameras of another rate), no phase is better than
    another, and it stays.

    All times are in ns of one clock.
    """

    def __init__(self, period_ns: int) -> None:
        """Start without a time: `begin` sets it."""
        self._period_ns = period_ns
        self._step_ns = round(_STEP * period_ns)
        self._margin_ns = round(_MARGIN * period_ns)
        self._due_ns: int | None = None
        self._offsets: deque[int] = deque(maxlen=_WINDOW)  # of results, to a period's beginning
        self._error_ns = 0  # by which periods should begin later

    @property
    def margin_ns(self) -> int:
        """How long before a period a result should come."""
        return self._margin_ns

    def begin(self, now_ns: int, *, after_result: bool = False) -> int:
        """Begin a period now, whenever the last one was; return the time of the next.

        Args:
            now_ns: The time.
            after_result: Whether it begins for a result: the next ones come as much later, and the
                phase leaves them the margin.

        """
        self._offsets.clear()
        self._error_ns = 0
        self._due_ns = now_ns + self._period_ns + (self._margin_ns if after_result else 0)
        return self._due_ns

    def next(self, now_ns: int) -> int:
        """Return when the period after the one that begins now begins: after `now_ns`."""
        due_ns = self._due_ns
        if due_ns is None or not -self._period_ns <= due_ns - now_ns <= self._period_ns:
            return self.begin(now_ns)  # so late that the phase is lost, or another clock
        shift_ns = max(-self._step_ns, min(self._error_ns, self._step_ns))
        self._error_ns -= shift_ns
        self._offsets = deque((o - shift_ns for o in self._offsets), _WINDOW)
        due_ns += self._period_ns + shift_ns
        if due_ns <= now_ns:
            due_ns += self._period_ns
        self._due_ns = due_ns
        return due_ns

    def arrived(self, now_ns: int) -> None:
        """Take the time of a result."""
        if self._due_ns is None:
            return
        self._offsets.append(now_ns - self._due_ns)
        self._error_ns = self._choose()

    def _choose(self) -> int:
        """Return by how much periods should begin later, or earlier where it is negative."""
        period_ns = self._period_ns

        def wait_ns(phase: int) -> float:
            return sum((phase - o) % period_ns for o in self._offsets) / len(self._offsets)

        # Half a period is what a result waits if any phase is as good as another.
        best, least_ns = 0, period_ns / 4
        for offset in self._offsets:
            phase = offset + self._margin_ns
            if (waits := wait_ns(phase)) < least_ns:
                best, least_ns = phase, waits
        if wait_ns(0) - least_ns < self._margin_ns / 2:
            return 0  # not worth an uneven period
        half = period_ns // 2
        return (best + half) % period_ns - half
