"""When a loop's next period begins: evenly, and with the results that it waits for."""

from collections import deque
from statistics import median_low

import numpy as np
from numpy.typing import NDArray

_WINDOW = 1 / 12
"""Share of a period by which it may begin earlier or later to begin with a result: 2.8 ms at 30 Hz.
What is called over budget in a cadence report, a tenth, is more."""

_STEP = 1 / 128
"""Share of a period by which it may be longer or shorter than asked for, to move the phase."""

_KEPT = 64
"""Results from whose times the phase is chosen: some seconds of chunks, in which one of fifty that
comes late shows."""
_ENOUGH = 4
_USUAL = 0.9
"""Share of them that must come within the window of a period's beginning for it to wait for one."""
_WORTH = 1 / 16
"""Share of a period that a result must wait less on average for the phase to move, where it will
wait anyhow."""


class Pace:
    """Gives the times at which periods begin.

    A result that comes just after a period has begun waits for all of it, and where cameras and
    commands have the same rate, so does every result after it. Hence the phase moves, by a small
    step each period, to where results usually come; a period whose result comes a little earlier or
    later than that begins with it, and the next ones where they would have begun. Where results
    come at any time (cameras of another rate), no phase is better than another: periods stay even.

    All times are in ns of one clock.
    """

    def __init__(self, period_ns: int, *, even: bool = False) -> None:
        """Start without a time: `begin` sets it.

        Args:
            period_ns: Of the loop.
            even: Whether no period waits for a result or begins early with one: those that come
                after its beginning wait for the next.

        """
        self._even = even
        self._period_ns = period_ns
        self._step_ns = round(_STEP * period_ns)
        self._window_ns = round(_WINDOW * period_ns)
        self._due_ns: int | None = None
        self._offsets: deque[int] = deque(maxlen=_KEPT)  # of results, to a period's beginning
        self._error_ns = 0  # by which periods should begin later
        self._unchosen = False  # whether a result has come since the phase was chosen
        self._follows = False  # whether results usually come with a period's beginning
        self._asked_ns: int | None = None
        self._taken_ns: deque[int] = deque(maxlen=_KEPT)  # from question to result
        self._held = False

    @property
    def window_ns(self) -> int:
        """By how much a period may begin earlier or later than an even one."""
        return self._window_ns

    def begin(self, now_ns: int) -> int:
        """Begin a period now, whenever the last one was; return the time of the next."""
        self._offsets.clear()
        self._error_ns = 0
        self._follows = self._held = self._unchosen = False
        self._due_ns = now_ns + self._period_ns
        return self._due_ns

    def next(self, now_ns: int) -> int:
        """Return when the period after the one that begins now begins: after `now_ns`."""
        due_ns = self._due_ns
        if due_ns is None or not -self._period_ns <= due_ns - now_ns <= self._period_ns:
            return self.begin(now_ns)  # so late that the phase is lost, or another clock
        if self._unchosen:
            # Here, and not while a result waits for it.
            self._choose()
        shift_ns = max(-self._step_ns, min(self._error_ns, self._step_ns))
        self._error_ns -= shift_ns
        self._offsets = deque((o - shift_ns for o in self._offsets), _KEPT)
        due_ns += self._period_ns + shift_ns
        if due_ns <= now_ns:
            due_ns += self._period_ns
        self._due_ns = due_ns
        self._held = False
        return due_ns

    def asked(self, now_ns: int) -> None:
        """Take the time at which the next result was asked for."""
        self._asked_ns = now_ns

    def arrived(self, now_ns: int) -> bool:
        """Take the time of a result; return whether the next period is to begin with it, now."""
        if self._asked_ns is not None:
            self._taken_ns.append(now_ns - self._asked_ns)
            self._asked_ns = None
        if self._due_ns is None:
            return False
        offset_ns = now_ns - self._due_ns
        self._offsets.append(offset_ns)
        self._unchosen = True
        return self._follows and offset_ns >= -self._window_ns

    def hold(self, now_ns: int) -> int | None:
        """Return until when a period that is due now is to wait for its result, None if not at all.

        It does once, for a result that will usually be there within the window.
        """
        if not self._follows or self._held or self._asked_ns is None or self._due_ns is None:
            return None
        latest_ns = self._due_ns + self._window_ns
        if now_ns >= latest_ns or not self._taken_ns:
            return None
        expected_ns = self._asked_ns + median_low(self._taken_ns)
        # One that should have been there long ago may never come.
        if not now_ns - self._window_ns // 2 <= expected_ns <= latest_ns:
            return None
        self._held = True
        return latest_ns

    def _choose(self) -> None:
        """Choose the phase in which the last results would have waited least.

        Those within the window do not wait, and count a little as far as they are off.
        """
        offsets = np.array(self._offsets)
        phases = np.append(0, offsets)
        away = self._away_ns(offsets - phases[:, None])
        near = np.abs(away) <= self._window_ns
        costs = np.where(near, np.abs(away) / 4, away % self._period_ns).mean(axis=1)
        best = int(costs.argmin())
        usual = near.mean(axis=1) >= _USUAL
        worth_ns = self._window_ns / 64 if usual[best] else _WORTH * self._period_ns
        # Half a period is what a result waits if any phase is as good as another.
        if costs[best] >= self._period_ns / 4 or costs[0] - costs[best] < worth_ns:
            best = 0
        self._error_ns = -int(self._away_ns(phases[best]))
        self._follows = not self._even and len(offsets) >= _ENOUGH and bool(usual[0])
        self._unchosen = False

    def _away_ns(self, offsets_ns: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return how long after results the nearest periods begin, less than 0 for before them."""
        half = self._period_ns // 2
        return (half - offsets_ns) % self._period_ns - half
