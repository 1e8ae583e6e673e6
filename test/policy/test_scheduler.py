"""Actions follow each other as predicted: none skipped, none repeated, no jump at a seam."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from vla_ros.policy.policy import Chunk
from vla_ros.policy.scheduler import ChunkScheduler

PERIOD = 33_333_333


def chunk(stamp_ns, base=0.0, count=16):
    """Return a chunk whose action i is base + i in all entries, with the opening i / 100."""
    values = base + np.arange(count, dtype=float)
    return Chunk(stamp_ns, PERIOD, np.repeat(values[:, None], 6, axis=1), values / 100, "go")


def taken(scheduler, ticks):
    """Take an action at each of `ticks` and return their values, None where there was none."""
    actions = [scheduler.take(tick) for tick in ticks]
    return [None if a is None else float(a.twist[0]) for a in actions]


def test_the_first_chunk_starts_at_0_however_late_it_is():
    """An estimate of the delay would skip actions from standstill."""
    s = ChunkScheduler(4)
    assert s.wants_chunk
    assert s.start(chunk(stamp_ns=0))
    assert taken(s, [10 * PERIOD, 11 * PERIOD]) == [0, 1]


def test_a_chunk_is_executed_once_and_then_nothing():
    s = ChunkScheduler(4)
    s.start(chunk(0))
    assert taken(s, range(1, 19)) == [*range(16), None, None]
    assert s.empty


def test_the_next_chunk_is_wanted_after_replan_actions():
    s = ChunkScheduler(4)
    s.start(chunk(0))
    wants = []
    for tick in range(1, 7):
        s.take(tick)
        wants.append(s.wants_chunk)
    assert wants == [False, False, False, True, True, True]


def test_a_later_chunk_starts_at_the_number_of_actions_executed_since_its_observation():
    s = ChunkScheduler(4, blend_actions=0)
    s.start(chunk(0))
    taken(s, [100, 200, 300, 400, 500])
    # Observed at 250: the actions of 300, 400 and 500 have been executed since.
    assert s.start(chunk(250, base=1000.0))
    assert taken(s, [600, 700]) == [1003, 1004]


def test_an_action_executed_at_the_time_of_the_observation_counts_as_before_it():
    s = ChunkScheduler(4, blend_actions=0)
    s.start(chunk(0))
    taken(s, [100, 200])
    s.start(chunk(200, base=1000.0))
    assert taken(s, [300]) == [1000]


def test_pauses_do_not_count_as_execution():
    """After a hold the next chunk starts at its first action, not where the clock would have it."""
    s = ChunkScheduler(4, blend_actions=0)
    s.start(chunk(0, count=2))
    assert taken(s, [1, 2, 3, 4, 5]) == [0, 1, None, None, None]
    s.start(chunk(2, base=1000.0))
    assert taken(s, [6]) == [1000]


def test_a_chunk_whose_actions_are_all_past_changes_nothing():
    s = ChunkScheduler(4)
    s.start(chunk(0))
    taken(s, [10, 20, 30, 40])
    assert not s.start(chunk(5, base=1000.0, count=4))
    assert taken(s, [50]) == [4]


def test_the_seam_is_blended_linearly():
    s = ChunkScheduler(4, blend_actions=3)
    s.start(chunk(0))
    taken(s, [1, 2, 3, 4])
    s.start(chunk(4, base=100.0))
    # The old chunk has 4, 5, 6 left; the new one starts with 100, 101, 102.
    expected = [4 + 96 / 4, 5 + 96 / 2, 6 + 96 * 3 / 4, 103, 104]
    assert taken(s, [5, 6, 7, 8, 9]) == pytest.approx(expected)


def test_the_gripper_is_not_blended():
    s = ChunkScheduler(1)
    s.start(chunk(0))
    s.take(1)
    s.start(chunk(1, base=100.0))
    assert s.take(2).gripper == 1.0


def test_blending_stops_where_the_old_chunk_ends():
    s = ChunkScheduler(1, blend_actions=3)
    s.start(chunk(0, count=2))
    s.take(1)
    s.start(chunk(1, base=100.0))
    assert taken(s, [2, 3]) == pytest.approx([1 + 99 / 4, 101])


def test_remaining_is_what_will_be_taken():
    s = ChunkScheduler(4)
    s.start(chunk(0))
    taken(s, [1, 2, 3, 4])
    s.start(chunk(2, base=50.0))
    remaining = s.remaining()[:, 0].tolist()
    assert len(remaining) == 14
    assert taken(s, range(5, 19)) == remaining


def test_clear_forgets_everything():
    s = ChunkScheduler(4)
    s.start(chunk(0))
    taken(s, [1, 2, 3])
    s.clear()
    assert taken(s, [4]) == [None]
    s.start(chunk(0))
    assert taken(s, [5]) == [0]


@given(
    latencies=st.lists(st.integers(0, 8), min_size=1, max_size=10),
    replan=st.integers(1, 8),
)
def test_with_a_perfect_model_every_instant_gets_its_action_whatever_the_latency(latencies, replan):
    """Chunks that agree with each other are executed as one: no action twice, none left out.

    The observation made at tick k predicts the actions k, k + 1, ...; its chunk comes some ticks
    later. Whatever the latency, tick k must execute action k, as long as there are chunks.
    """
    s = ChunkScheduler(replan)
    waiting = list(latencies)
    s.start(chunk(-1, base=0.0, count=20))
    due = None
    for tick in range(100):
        if due is not None and due[0] <= tick:
            assert s.start(due[1])
            due = None
        if due is None and s.wants_chunk and waiting:
            # Observed just before this tick's action is executed.
            due = (tick + waiting.pop(0), chunk(2 * tick - 1, base=float(tick), count=20))
            if due[0] <= tick:
                assert s.start(due[1])
                due = None
        action = s.take(2 * tick)
        if action is None:
            break
        np.testing.assert_allclose(action.twist, tick)


def test_a_model_without_a_gripper_leaves_it_as_it_is():
    s = ChunkScheduler(4)
    s.start(replace(chunk(0), gripper=None))
    assert [s.take(tick).gripper for tick in range(1, 4)] == [None, None, None]


def towards(stamp_ns, gap):
    """Return an anchored chunk whose first action closes a gap and whose others stand still."""
    twists = np.zeros((16, 6))
    twists[0] = gap / (PERIOD / 1e9)
    return Chunk(stamp_ns, PERIOD, twists, np.zeros(16), "go", anchored=True)


def test_late_chunks_that_lead_to_places_arrive_there():
    """Though the first action, which alone closes the gap, is past each time."""
    s, gap, now = ChunkScheduler(4), 1.0, 0
    s.start(towards(0, 0.0))
    for _ in range(12):
        stamp = now
        arriving = towards(stamp, gap)
        for tick in range(4):
            now += PERIOD
            if tick == 2:  # two actions late
                s.start(arriving)
            gap -= s.take(now).twist[0] * (PERIOD / 1e9)
    assert abs(gap) < 0.02


def test_late_chunks_of_motions_do_not_make_up_for_others():
    s = ChunkScheduler(4, blend_actions=0)
    s.start(chunk(0))
    taken(s, [100, 200])
    s.start(replace(towards(50, 1.0), anchored=False))
    assert taken(s, [300, 400, 500]) == [0, 0, 0]
