"""A chunk begun late ends where all of it would have ended, however the arm moved meanwhile."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from vla_ros.kinematics import rotation_from_rotvec
from vla_ros.policy.catch_up import caught_up_joints, caught_up_twists

PERIOD = 0.05


def end(twists):
    position, rotation = np.zeros(3), np.eye(3)
    for twist in twists * PERIOD:
        position = position + twist[:3]
        rotation = rotation_from_rotvec(twist[3:]) @ rotation
    return position, rotation


@given(st.integers(0, 2**32 - 1), st.integers(0, 9), st.integers(0, 9), st.integers(1, 12))
def test_twists_lead_to_the_same_place(seed, first, executed, over):
    rng = np.random.default_rng(seed)
    twists, others = rng.uniform(-1.0, 1.0, (10, 6)), rng.uniform(-1.0, 1.0, (executed, 6))
    rest = caught_up_twists(twists, others, first, PERIOD, over)
    assert rest.shape == (10 - first, 6)
    for count in range(10 - first + 1):
        position, rotation = end(np.vstack([others, rest[:count]]))
        expected, turned = end(twists[: first + count])
        start = np.linalg.norm(end(others)[0] - end(twists[:first])[0])
        left = max(1.0 - count / over, 0.0)
        np.testing.assert_allclose(np.linalg.norm(position - expected), left * start, atol=1e-9)
        if left == 0.0:
            np.testing.assert_allclose(rotation, turned, atol=1e-7)


def test_where_the_arm_did_as_the_chunk_says_nothing_changes():
    twists = np.random.default_rng(0).uniform(-1.0, 1.0, (8, 6))
    rest = caught_up_twists(twists, twists[:3], 3, PERIOD, 4)
    np.testing.assert_allclose(rest, twists[3:], atol=1e-9)
    np.testing.assert_allclose(caught_up_joints(twists, twists[:3], 3, 4), twists[3:], atol=1e-12)


@pytest.mark.parametrize("over", [1, 3, 20])
def test_joints_lead_to_the_same_place(over):
    rng = np.random.default_rng(1)
    joints, others = rng.uniform(-1.0, 1.0, (8, 7)), rng.uniform(-1.0, 1.0, (2, 7))
    rest = caught_up_joints(joints, others, 2, over)
    apart = others.sum(axis=0) - joints[:2].sum(axis=0)
    left = max(1.0 - 6 / over, 0.0)
    np.testing.assert_allclose(
        others.sum(axis=0) + rest.sum(axis=0), joints.sum(axis=0) + left * apart, atol=1e-12
    )
