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
