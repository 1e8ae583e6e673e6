"""Periods are even, and begin soon after the results that they wait for."""

from collections import deque

import numpy as np
import pytest

from vla_ros.policy.pace import Pace

PERIOD = 33_333_333
MS = 1_000_000


def run(result_ns, periods=600, *, every=4, late_ns=0, taken_ns=6 * MS):
    """Return when periods began, and what each result waited.

    Args:
        result_ns: Gives when the result for period number n comes, by an ideal clock of the camera.
        periods: How many.
        every: Periods from one result to the next.
        late_ns: By how much the loop wakes too late, at most.
        taken_ns: How long before a result it was asked for.

    """
    random = np.random.default_rng(0)
    pace = Pace(PERIOD)
    due = pace.begin(0)
    begun, results = [0], []
    arrivals = [result_ns(n) for n in range(1, periods, every)]
    asked = deque(t - taken_ns for t in arrivals)
    arrivals = deque(arrivals)
    while len(begun) <= periods:
        if asked and asked[0] <= min([due, *list(arrivals)[:1]]):
            pace.asked(asked.popleft())
        elif arrivals and arrivals[0] <= due:
            now = arrivals.popleft()
            results.append(now)
            if pace.arrived(now):
                begun.append(now)
                due = pace.next(now)
        else:
            now = due + round(random.uniform(0, late_ns)) if late_ns else due
            until = pace.hold(now)
            if until is None:
                begun.append(now)
                due = pace.next(now)
            else:
                due = until
            assert due > now
    begun = np.array(begun)
    waits = [begun[begun >= r].min() - r for r in results if r < begun[-1]]
    return begun, np.array(waits)


@pytest.mark.parametrize("phase_ms", [0.2, 3.0, 8.0, 12.0, 20.0, 33.0])
def test_periods_begin_with_results_that_come_at_their_rate(phase_ms):
    random = np.random.default_rng(1)
    jitter = random.normal(0.0, 0.6 * MS, 2000)
    begun, waits = run(lambda n: n * PERIOD + round(phase_ms * MS + jitter[n]))
    periods = np.diff(begun) / MS
    assert np.abs(periods - PERIOD / MS).max() <= PERIOD / MS * (1 / 128 + 1 / 12) + 1e-6
    assert periods[100:].std() < 0.6
    settled = waits[len(waits) // 2 :] / MS
    assert settled.max() == 0.0
    assert periods.mean() == pytest.approx(PERIOD / MS, rel=2e-3)


def test_even_periods_wait_for_nothing():
    pace = Pace(PERIOD, even=True)
    due = pace.begin(0)
    for _ in range(20):
        pace.asked(due - 6 * MS)
        assert pace.hold(due) is None
        assert not pace.arrived(due - MS)
        last, due = due, pace.next(due)
        assert abs(due - last - PERIOD) <= PERIOD / 128 + 1


def test_the_window_is_within_what_a_report_calls_the_budget():
    assert Pace(PERIOD).window_ns < PERIOD / 10


def test_a_result_that_is_late_once_moves_it_little():
    offsets = np.full(2000, 5.0)
    offsets[301] = 12.0
    begun, waits = run(lambda n: n * PERIOD + round(offsets[n] * MS))
    assert np.median(waits[-20:]) == 0.0
    assert np.sort(waits)[-2] < 0.1 * MS or (waits[20:] > MS).sum() == 1
    later = begun[320:] % PERIOD
    assert (later < 6.5 * MS).all()


def test_a_result_that_never_comes_holds_nothing_up():
    pace = Pace(PERIOD)
    due = pace.begin(0)
    for _ in range(8):
        pace.asked(due - 6 * MS)
        pace.arrived(due)
        due = pace.next(due)
    pace.asked(due - 6 * MS)
    until = pace.hold(due)
    assert until == due + pace.window_ns
    assert pace.hold(until) is None
    due = pace.next(until)
    for _ in range(3):
        assert pace.hold(due) is None
        due = pace.next(due)
    assert (due - until) % PERIOD == pytest.approx(PERIOD - pace.window_ns, abs=PERIOD / 32)


def test_a_camera_whose_clock_drifts_is_followed():
    begun, waits = run(lambda n: round(n * PERIOD * (1 + 5e-5)) + 5 * MS, periods=3000)
    assert np.median(waits[100:]) == 0.0
    assert np.diff(begun).std() < 0.3 * MS


@pytest.mark.parametrize("period", [20 * MS, 35 * MS, 50 * MS, 66_666_666])
def test_with_a_camera_of_another_rate_the_rate_holds(period):
    begun, _ = run(lambda n: n * period, every=1)
    assert np.diff(begun).mean() == pytest.approx(PERIOD, rel=2e-3)
    assert np.diff(begun).std() < 0.3 * MS


def test_waking_late_does_not_add_up():
    begun, _ = run(lambda n: 10**15 + n, late_ns=3 * MS)
    assert (begun - PERIOD * np.arange(len(begun)) <= 3 * MS).all()


@pytest.mark.filterwarnings("error")
def test_a_beginning_forgets_the_results_before_it():
    pace = Pace(PERIOD)
    pace.begin(0)
    pace.arrived(5 * MS)
    due = pace.begin(6 * MS)
    assert pace.next(due) == due + PERIOD


@pytest.mark.parametrize("jump", [-(10**12), 5 * PERIOD, 10**12])
def test_a_clock_that_jumps_begins_anew(jump):
    pace = Pace(PERIOD)
    due = pace.begin(10**13)
    assert pace.next(due + jump) == due + jump + PERIOD


def test_a_period_that_was_missed_is_left_out():
    pace = Pace(PERIOD)
    due = pace.begin(0)
    assert pace.next(due + PERIOD) == 3 * PERIOD
