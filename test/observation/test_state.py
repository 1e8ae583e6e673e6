"""The state vector holds what its names say, and refuses names that the robot cannot fill."""

import numpy as np
import pytest

from vla_ros.observation.state import StateError, check_state_names, state_names, state_vector
from vla_ros.types import JointSample

JOINTS = ("a", "b")
ROTATION = np.arange(9.0).reshape(3, 3)
SAMPLE = JointSample(0, np.array([10.0, 11.0]), np.zeros(2), None, 0.05)


def vector(names, sample=SAMPLE):
    return state_vector(names, sample, np.array([1.0, 2.0, 3.0]), ROTATION, joint_names=JOINTS)


def test_all_names_in_their_order():
    values = vector(state_names(JOINTS))
    expected = [1, 2, 3, 0, 3, 6, 1, 4, 7, 0.05, 10, 11]
    np.testing.assert_allclose(values, np.float32(expected))
    assert values.dtype == np.float32


def test_names_choose_and_order_the_values():
    names = ["joint.position.b", "gripper.opening", "tcp.rotation.r32", "tcp.position.z"]
    np.testing.assert_allclose(vector(names), np.float32([11, 0.05, 7, 3]))


def test_unknown_names_are_refused_with_their_index():
    with pytest.raises(StateError, match=r"state\.names\[1\]: 'joint\.position\.c'"):
        check_state_names(["tcp.position.x", "joint.position.c"], JOINTS, gripper=True)


def test_the_opening_needs_a_gripper():
    with pytest.raises(StateError, match="gripper_joints"):
        check_state_names(["gripper.opening"], JOINTS, gripper=False)
    no_gripper = JointSample(0, np.zeros(2), np.zeros(2), None, None)
    with pytest.raises(StateError, match=r"gripper\.opening"):
        vector(["gripper.opening"], no_gripper)
    np.testing.assert_allclose(vector(["joint.position.a"], no_gripper), [0])
