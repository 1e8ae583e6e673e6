"""Latencies are joined by stamps, not by when the recorder heard of them."""

import math

from vla_ros.replay.timing import join

MS = 1_000_000


def test_an_image_is_followed_to_the_robot():
    timing = join(
        chunks=[(100 * MS, 130 * MS), (233 * MS, 263 * MS)],
        commands=[130 * MS, 163 * MS, 196 * MS, 230 * MS, 263 * MS],
        safe_commands=[t * MS for t in range(100, 300, 10)],
        followed=[(130 * MS, 140 * MS), (130 * MS, 150 * MS), (263 * MS, 270 * MS)],
    )
    assert timing.image_to_command_ms == [30.0, 30.0]
    assert timing.image_to_safe_command_ms == [40.0, 37.0]
    assert math.isclose(timing.safe_command_hz, 100.0)
    assert math.isclose(timing.policy_hz, 4 / 0.133)


def test_a_command_overtaken_by_a_newer_one_counts_with_that():
    timing = join([(0, 30 * MS)], [30 * MS, 33 * MS], [40 * MS], [(33 * MS, 40 * MS)])
    assert timing.image_to_safe_command_ms == [40.0]


def test_what_never_reached_the_robot_is_left_out():
    timing = join([(0, 30 * MS), (60 * MS, 90 * MS)], [30 * MS], [], [])
    assert timing.image_to_command_ms == timing.image_to_safe_command_ms == []
    assert timing.safe_command_hz == 0.0
