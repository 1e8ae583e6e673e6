"""Frames and joints of one moment, and the faults that forbid to act on them."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from vla_ros.observation.aligner import Aligner, AlignerConfig
from vla_ros.types import Frame, JointSample

MS = 1_000_000
CONFIG = AlignerConfig(
    max_frame_age_ns=100 * MS,
    max_joint_age_ns=100 * MS,
    max_skew_ns=20 * MS,
    frozen_motion=0.02,
)
_random = np.random.default_rng(0)


def frame(camera, ms, value=None):
    pixels = _random.integers(0, 256, (4, 4, 3), np.uint8)
    if value is not None:
        pixels = np.full((4, 4, 3), value, np.uint8)
    return Frame(camera, ms * MS, pixels)


def joints(ms, angle=0.0):
    return JointSample(ms * MS, np.array([angle, 0.0]), np.zeros(2), None, 0.04)


def aligner(*cameras):
    return Aligner(cameras or ("front", "wrist"), CONFIG)


def test_the_newest_moment_that_all_cameras_show():
    a = aligner()
    a.add_joints(joints(0, 0.0))
    a.add_joints(joints(100, 1.0))
    first = {c: frame(c, 33) for c in ("front", "wrist")}
    second = {c: frame(c, 66) for c in ("front", "wrist")}
    assert a.moment() is None
    a.add_frame(first["front"])
    assert a.moment() is None
    a.add_frame(first["wrist"])
    assert a.moment().stamp_ns == 33 * MS
    # One camera's next frame alone makes no new moment: its partner is a period older.
    a.add_frame(second["front"])
    moment = a.moment()
    assert moment.stamp_ns == 33 * MS
    assert moment.images["front"] is first["front"].image
    a.add_frame(second["wrist"])
    moment = a.moment()
    assert moment.stamp_ns == 66 * MS
    assert moment.images["front"] is second["front"].image
    assert moment.joints.position[0] == pytest.approx(0.66)
    assert moment.joints.stamp_ns == 66 * MS


def test_the_stamp_is_the_oldest_frames():
    a = aligner()
    a.add_joints(joints(50))
    a.add_frame(frame("front", 50))
    a.add_frame(frame("wrist", 40))
    assert a.moment().stamp_ns == 40 * MS


def test_frames_too_far_apart_make_no_moment():
    a = aligner()
    a.add_joints(joints(50))
    a.add_frame(frame("front", 50))
    a.add_frame(frame("wrist", 29))
    assert a.moment() is None
    a.add_frame(frame("wrist", 31))
    assert a.moment() is not None


def test_a_slow_camera_is_paired_with_the_nearest_frame_of_a_fast_one():
    a = aligner()
    a.add_joints(joints(100))
    fronts = {ms: frame("front", ms) for ms in (60, 80, 100, 120)}
    for image in fronts.values():
        a.add_frame(image)
    a.add_frame(frame("wrist", 83))
    moment = a.moment()
    assert moment.images["front"] is fronts[80].image
    assert moment.stamp_ns == 80 * MS


def test_no_moment_without_joints_of_that_time():
    a = aligner("front")
    a.add_joints(joints(0))
    a.add_frame(frame("front", 101))
    assert a.moment() is None


def test_duplicates_and_frames_out_of_order_are_counted_and_dropped():
    a = aligner("front")
    a.add_joints(joints(0))
    kept = frame("front", 20)
    assert a.add_frame(kept)
    assert not a.add_frame(frame("front", 20))
    assert not a.add_frame(frame("front", 10))
    assert not a.add_frame(frame("front", 5))
    assert a.counts() == {"front duplicate frames": 1, "front out-of-order frames": 2}
    assert a.moment().images["front"] is kept.image


@given(st.lists(st.integers(0, 30), max_size=30))
def test_in_whatever_order_frames_come_the_newest_is_shown(stamps):
    a = Aligner(["front"], CONFIG)
    a.add_joints(joints(15))
    accepted = [s for s in stamps if a.add_frame(frame("front", s))]
    assert accepted == sorted(set(accepted))
    assert sum(a.counts().values()) == len(stamps) - len(accepted)
    if stamps:
        assert a.moment().stamp_ns == max(stamps) * MS


def test_what_is_missing_is_named():
    a = aligner()
    assert str(a.fault(0)) == "waiting for joint states"
    a.add_joints(joints(0))
    assert str(a.fault(0)) == "waiting for camera front"
    a.add_frame(frame("front", 0))
    assert str(a.fault(0)) == "waiting for camera wrist"
    a.add_frame(frame("wrist", 0))
    assert a.fault(0) is None


def test_what_its_sender_does_not_stamp_is_not_told_as_decades_old():
    a = aligner()
    a.add_joints(joints(0))
    said = str(a.fault(1_795_240_811 * 1000 * MS))
    assert said == "stale joint states: stamped 0, which is no time"


def test_what_is_stale_is_named_with_its_age_and_limit():
    a = aligner()
    for camera in ("front", "wrist"):
        a.add_frame(frame(camera, 0))
    a.add_joints(joints(0))
    assert a.fault(100 * MS) is None
    assert str(a.fault(130 * MS)) == "stale joint states: 130 ms old, limit 100 ms"
    a.add_joints(joints(130))
    a.add_frame(frame("wrist", 130))
    assert str(a.fault(130 * MS)) == "stale camera front: 130 ms old, limit 100 ms"
    a.add_frame(frame("front", 130))
    assert a.fault(130 * MS) is None


def test_a_camera_whose_pixels_stay_while_the_arm_moves_is_frozen():
    a = aligner("front")
    for step in range(5):
        a.add_joints(joints(33 * step, 0.006 * step))
        a.add_frame(frame("front", 33 * step, value=7))
    # 0.024 rad since the first frame.
    fault = a.fault(33 * 4 * MS)
    assert fault.cause == "frozen camera front"
    assert "0.024 rad" in fault.detail


def test_a_frozen_camera_stays_frozen_until_its_pixels_change():
    a = aligner("front")
    for step in range(3):
        a.add_joints(joints(33 * step, 0.02 * step))
        a.add_frame(frame("front", 33 * step, value=7))
    a.add_joints(joints(99, 0.04))  # the arm rests now
    a.add_frame(frame("front", 99, value=7))
    assert a.fault(99 * MS).cause == "frozen camera front"
    a.add_joints(joints(132, 0.04))
    a.add_frame(frame("front", 132, value=8))
    assert a.fault(132 * MS) is None


def test_a_camera_frozen_from_before_the_first_joint_state_is_found_too():
    a = aligner("front")
    a.add_frame(frame("front", 0, value=7))
    for step in range(1, 5):
        a.add_joints(joints(200 + 33 * step, 0.01 * step))
        a.add_frame(frame("front", 200 + 33 * step, value=7))
    assert a.fault(332 * MS).cause == "frozen camera front"


def test_equal_frames_of_an_arm_at_rest_are_normal():
    a = aligner("front")
    for step in range(100):
        a.add_joints(joints(33 * step, 0.0001 * (step % 2)))
        a.add_frame(frame("front", 33 * step, value=7))
        assert a.fault(33 * step * MS) is None


def test_changing_pixels_of_a_moving_arm_are_normal():
    a = aligner("front")
    for step in range(100):
        a.add_joints(joints(33 * step, 0.01 * step))
        a.add_frame(frame("front", 33 * step, value=step))
        assert a.fault(33 * step * MS) is None


def test_a_clock_set_back_is_named_and_then_forgotten():
    """A simulation that starts again must not wait for its old time to come round."""
    a = aligner("front")
    a.add_joints(joints(5000))
    a.add_frame(frame("front", 5000))
    assert a.fault(5000 * MS) is None
    assert a.fault(10 * MS).cause == "joint states ahead of the clock"
    a.add_joints(joints(10))
    assert a.fault(10 * MS).cause == "waiting for camera front"
    a.add_frame(frame("front", 10))
    assert a.fault(10 * MS) is None
    assert a.moment().stamp_ns == 10 * MS


def test_a_camera_with_a_fast_clock_is_named():
    a = aligner("front")
    a.add_joints(joints(0))
    a.add_frame(frame("front", 50))
    assert a.fault(0) is None
    a.add_frame(frame("front", 3000))
    fault = a.fault(0)
    assert str(fault) == "camera front ahead of the clock: 3000 ms: synchronise the clocks"


def test_an_unknown_camera_is_an_error():
    with pytest.raises(KeyError):
        aligner("front").add_frame(frame("rear", 0))


def remembering(earlier=2, period_ms=100, cameras=("front",)):
    return Aligner(cameras, CONFIG, earlier=earlier, period_ns=period_ms * MS)


def history_ms(a):
    return [moment.stamp_ns // MS for moment in a.history(a.moment())]


def test_history_is_the_moments_nearest_to_a_period_back_each():
    a = remembering()
    for ms in range(0, 1001, 33):
        a.add_joints(joints(ms, ms / 1000))
        a.add_frame(frame("front", ms))
    newest = a.moment()
    assert newest.stamp_ns == 990 * MS
    # 790 lies between 759 and 792, 890 between 858 and 891.
    assert history_ms(a) == [792, 891]
    assert [moment.joints.position[0] for moment in a.history(newest)] == [0.792, 0.891]
    assert len(a._moments) <= 8  # no more than the time that it looks back


def test_at_the_start_the_oldest_moment_is_repeated():
    a = remembering()
    a.add_joints(joints(0))
    a.add_frame(frame("front", 0))
    assert history_ms(a) == [0, 0]
    a.add_joints(joints(100))
    a.add_frame(frame("front", 100))
    assert history_ms(a) == [0, 0]
    a.add_joints(joints(200))
    a.add_frame(frame("front", 200))
    assert history_ms(a) == [0, 100]


def test_after_a_gap_nothing_from_before_it_is_shown():
    a = remembering()
    for ms in (0, 100, 200, 3000):
        a.add_joints(joints(ms))
        a.add_frame(frame("front", ms))
    assert history_ms(a) == [3000, 3000]


def test_a_late_frame_and_a_set_back_clock_are_not_remembered():
    a = remembering()
    for ms in (1000, 1100, 1050, 1200):
        a.add_joints(joints(ms))
        a.add_frame(frame("front", ms))
    assert history_ms(a) == [1000, 1100]
    a.fault(0)  # the clock went back: all that is stamped ahead of it is forgotten
    for ms in (0, 100):
        a.add_joints(joints(ms))
        a.add_frame(frame("front", ms))
    assert history_ms(a) == [0, 0]


def test_moments_of_history_hold_the_frames_of_all_cameras():
    a = remembering(earlier=1, cameras=("front", "wrist"))
    shown = {}
    for ms in (0, 100, 200):
        a.add_joints(joints(ms))
        for camera in ("front", "wrist"):
            shown[camera, ms] = frame(camera, ms + (5 if camera == "wrist" else 0))
            a.add_frame(shown[camera, ms])
    (moment,) = a.history(a.moment())
    assert moment.stamp_ns == 100 * MS
    assert moment.images["front"] is shown["front", 100].image
    assert moment.images["wrist"] is shown["wrist", 100].image


def test_without_history_nothing_is_remembered():
    a = aligner("front")
    a.add_joints(joints(0))
    a.add_frame(frame("front", 0))
    assert a.history(a.moment()) == ()
    assert not a._moments
