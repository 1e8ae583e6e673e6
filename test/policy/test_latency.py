"""The next chunk is asked for by what inferences took, but not by what the first one took."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from vla_ros.policy.latency import KEPT, Latency

MS = 1_000_000


def test_nothing_is_known_before_the_first():
    assert Latency().expected_ns is None


def test_the_first_counts_until_there_is_another():
    latency = Latency()
    latency.add(900 * MS)
    assert latency.expected_ns == 900 * MS
    latency.add(50 * MS)
    assert latency.expected_ns == 50 * MS
    latency.add(52 * MS)
    assert latency.expected_ns == pytest.approx(52 * MS, rel=0.01)


def test_it_is_what_all_but_one_in_a_hundred_stay_below():
    latency = Latency()
    for taken in range(KEPT + 1):
        latency.add(taken * MS)
    assert latency.expected_ns == pytest.approx(99 * MS, rel=0.01)


def test_what_is_long_past_is_forgotten():
    latency = Latency()
    for taken in [500] * KEPT + [50] * KEPT:
        latency.add(taken * MS)
    assert latency.expected_ns == 50 * MS


def test_one_that_took_far_too_long_is_expected_again_but_not_usual():
    """It makes the next chunks be asked for earlier, but does not slow the arm."""
    latency = Latency()
    for taken in [50] * 10 + [3000] + [50] * 10:
        latency.add(taken * MS)
    assert latency.usual_ns == 50 * MS
    assert latency.expected_ns > 1000 * MS


@given(taken=st.lists(st.integers(0, 10**11), min_size=2, max_size=2 * KEPT))
def test_the_percentiles_are_numpys(taken):
    latency = Latency()
    latency.add(0)  # the first, which is forgotten
    for value in taken:
        latency.add(value)
    known = taken[-KEPT:]
    assert latency.expected_ns == pytest.approx(np.percentile(known, 99), abs=1)
    assert latency.usual_ns == pytest.approx(np.percentile(known[-20:], 75), abs=1)
