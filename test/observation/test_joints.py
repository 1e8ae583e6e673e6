"""Joint states in any order become the robot's joints, at the time of an image."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from robots import panda

from vla_ros.observation.joints import JointError, JointHistory, JointReader
from vla_ros.types import JointSample

ROBOT = panda()
NAMES = [*ROBOT.joints, *ROBOT.gripper_joints, "another_joint"]
POSITION = [0.1 * (i + 1) for i in range(7)] + [0.01, 0.02, 99.0]
VELOCITY = [float(i) for i in range(10)]
EFFORT = [float(-i) for i in range(10)]


@given(st.permutations(range(10)))
def test_any_order_and_extra_joints(order):
    def shuffle(values):
        return [values[i] for i in order]

    sample = JointReader(ROBOT).read(
        5, shuffle(NAMES), shuffle(POSITION), shuffle(VELOCITY), shuffle(EFFORT)
    )
    assert sample.stamp_ns == 5
    np.testing.assert_allclose(sample.position, POSITION[:7])
    np.testing.assert_allclose(sample.velocity, VELOCITY[:7])
    np.testing.assert_allclose(sample.effort, EFFORT[:7])
    assert sample.gripper == pytest.approx(0.03)
    assert sample.gripper_effort == -8.0


@pytest.mark.parametrize(("fingers", "seen"), [([-3.0, 5.0], -3.0), ([math.nan] * 2, None)])
def test_the_finger_that_closes_the_hardest_counts(fingers, seen):
    """Drivers that measure no effort of the fingers fill in NaN, which must not stop the arm."""
    sample = JointReader(ROBOT).read(0, NAMES, POSITION, VELOCITY, [*EFFORT[:7], *fingers, 0.0])
    assert sample.gripper_effort == seen


def test_the_order_may_change_between_messages():
    reader = JointReader(ROBOT)
    reader.read(0, NAMES, POSITION, VELOCITY)
    sample = reader.read(1, NAMES[::-1], POSITION[::-1], VELOCITY[::-1])
    np.testing.assert_allclose(sample.position, POSITION[:7])


def test_effort_may_be_absent():
    assert JointReader(ROBOT).read(0, NAMES, POSITION, VELOCITY, []).effort is None


@pytest.mark.parametrize("none", [[], [math.nan] * 10])
def test_what_the_driver_does_not_measure_is_no_fault(none):
    """An empty list, or what ros2_control makes of an interface that is not there."""
    reader = JointReader(ROBOT)
    assert reader.read(0, NAMES, POSITION, VELOCITY, none).effort is None
    still = reader.read(0, NAMES, POSITION, none, none)
    np.testing.assert_array_equal(still.velocity, np.zeros(7))
    moved = [p + 0.02 * (i + 1) for i, p in enumerate(POSITION)]
    sample = reader.read(100_000_000, NAMES, moved, none, none)
    np.testing.assert_allclose(sample.velocity, 0.2 * np.arange(1, 8))


def test_stamps_that_jitter_make_no_speeds_of_their_own():
    """0.5 rad/s at 100 Hz, stamped up to 4 ms late: the mean of 50 ms is off by a tenth at most."""
    reader = JointReader(ROBOT)
    for k in range(100):
        late_ns = (0, 4_000_000, 1_000_000)[k % 3]
        position = [0.005 * k] * 10
        sample = reader.read(k * 10_000_000 + late_ns, NAMES, position, [])
        if k > 5:
            np.testing.assert_allclose(sample.velocity, 0.5, rtol=0.1)


def test_after_the_clock_was_set_back_speeds_begin_anew():
    reader = JointReader(ROBOT)
    reader.read(500_000_000, NAMES, POSITION, [])
    sample = reader.read(0, NAMES, [9.0] * 10, [])
    np.testing.assert_array_equal(sample.velocity, np.zeros(7))


def test_efforts_without_velocities_are_refused_where_efforts_are_supervised():
    """An external torque is what efforts leave over after the motion, which is then not known."""
    assert ROBOT.bounds.effort_samples
    with pytest.raises(JointError, match=r"efforts without velocities.*effort_samples to 0"):
        JointReader(ROBOT).read(0, NAMES, POSITION, [], EFFORT)


ARM, FINGERS = slice(0, 7), slice(7, 9)


def test_the_gripper_may_come_in_messages_of_its_own():
    """As of an arm and a gripper with a driver each, on one topic."""
    reader = JointReader(ROBOT)
    arm = [values[ARM] for values in (NAMES, POSITION, VELOCITY, EFFORT)]
    with pytest.raises(JointError, match="no joint 'panda_finger_joint1'"):
        reader.read(0, *arm)
    fingers = [values[FINGERS] for values in (NAMES, POSITION, VELOCITY, EFFORT)]
    assert reader.read(10, *fingers) is None
    sample = reader.read(20, *arm)
    assert sample.stamp_ns == 20
    np.testing.assert_allclose(sample.position, POSITION[:7])
    assert (sample.gripper, sample.gripper_effort) == (pytest.approx(0.03), -8.0)
    assert reader.read(30, NAMES[7:9], [0.0, 0.001], []) is None
    sample = reader.read(1_000_000_030, *arm)
    assert (sample.gripper, sample.gripper_effort) == (0.001, None)
    with pytest.raises(JointError, match="no joint 'panda_finger_joint1'"):
        reader.read(1_000_000_031, *arm)


def test_an_opening_of_before_the_clock_was_set_back_is_none_of_now():
    """Else a gripper that reports no more would be believed until the old time comes round."""
    reader = JointReader(ROBOT)
    arm = [values[ARM] for values in (NAMES, POSITION, VELOCITY, EFFORT)]
    reader.read(10**12, NAMES[7:9], [0.01, 0.02], [])
    with pytest.raises(JointError, match="no joint 'panda_finger_joint1'"):
        reader.read(0, *arm)
    assert reader.read(10**12 - 1_000_000_000, *arm).gripper == pytest.approx(0.03)


def test_messages_of_other_machines_are_passed_over_once_the_robots_own_came():
    reader = JointReader(ROBOT)
    wheels = (["left_wheel", "right_wheel"], [1.0, 2.0], [0.0, 0.0])
    with pytest.raises(JointError, match=r"no joint 'panda_joint1'.*left_wheel"):
        reader.read(0, *wheels)
    reader.read(0, NAMES, POSITION, VELOCITY)
    assert reader.read(1, *wheels) is None
    assert reader.read(2, NAMES, POSITION, VELOCITY).stamp_ns == 2


def test_half_an_arm_or_half_a_gripper_is_not_enough():
    reader = JointReader(ROBOT)
    reader.read(0, NAMES, POSITION, VELOCITY)
    with pytest.raises(JointError, match="no joint 'panda_joint4'"):
        reader.read(1, NAMES[:3], POSITION[:3], VELOCITY[:3])
    with pytest.raises(JointError, match="no joint 'panda_finger_joint2'"):
        reader.read(1, NAMES[:8], POSITION[:8], VELOCITY[:8])


def test_a_missing_joint_is_named():
    with pytest.raises(JointError, match=r"no joint 'panda_joint3'.*'panda'"):
        JointReader(ROBOT).read(0, [n for n in NAMES if n != "panda_joint3"], [0.0] * 9, [0.0] * 9)


@pytest.mark.parametrize("what", ["position", "velocity", "effort"])
@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
def test_values_that_are_not_finite_are_refused(what, value):
    lists = {"position": list(POSITION), "velocity": list(VELOCITY), "effort": list(EFFORT)}
    lists[what][2] = value
    with pytest.raises(JointError, match=f"{what} of 'panda_joint3'"):
        JointReader(ROBOT).read(0, NAMES, **lists)


def test_values_of_other_joints_do_not_matter():
    JointReader(ROBOT).read(0, NAMES, [*POSITION[:-1], float("nan")], VELOCITY)


def test_lists_of_another_length_are_refused():
    with pytest.raises(JointError, match="9 values of velocity for 10 joints"):
        JointReader(ROBOT).read(0, NAMES, POSITION, VELOCITY[:-1])


def sample_at(stamp_ns, value):
    return JointSample(stamp_ns, np.full(7, value), np.full(7, -value), None, value / 100)


def test_history_interpolates_between_samples():
    history = JointHistory()
    assert history.add(sample_at(0, 0.0))
    assert history.add(sample_at(10, 1.0))
    middle = history.at(4, 0)
    assert middle.stamp_ns == 4
    np.testing.assert_allclose(middle.position, 0.4)
    np.testing.assert_allclose(middle.velocity, -0.4)
    assert middle.gripper == pytest.approx(0.004)
    np.testing.assert_allclose(history.at(10, 0).position, 1.0)


def test_history_takes_the_nearest_sample_outside_its_span_within_the_tolerance():
    history = JointHistory()
    history.add(sample_at(100, 1.0))
    history.add(sample_at(110, 2.0))
    assert history.at(115, 5).stamp_ns == 110
    assert history.at(116, 5) is None
    assert history.at(95, 5).stamp_ns == 100
    assert history.at(94, 5) is None
    assert JointHistory().at(0, 100) is None


def test_history_drops_what_is_not_newer():
    history = JointHistory()
    history.add(sample_at(10, 1.0))
    assert not history.add(sample_at(10, 2.0))
    assert not history.add(sample_at(9, 2.0))
    np.testing.assert_allclose(history.newest.position, 1.0)
