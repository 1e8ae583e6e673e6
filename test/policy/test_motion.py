"""Twists and joint speeds of every kind of action lead to what was asked for, and no other way."""

import itertools
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from panda_arm import HOME, panda_urdf

from vla_ros.kinematics import SerialChain, rotation_from_rotvec
from vla_ros.observation.observation import Observation
from vla_ros.policy.manifest import ROTATION_NAMES, Action
from vla_ros.policy.motion import (
    Motion,
    MotionError,
    check_joint_names,
    from_motion,
    opening,
    to_motion,
)
from vla_ros.policy.rotations import (
    RotationError,
    matrix_from_rotation_vector,
    matrix_to,
)
from vla_ros.types import JointSample

JOINTS = tuple(f"panda_joint{i}" for i in range(1, 8))
SHUFFLED = (*JOINTS[3:], *JOINTS[:3])
RATE = 20.0
GRIPPER = {"open_m": 0.08, "closed_m": 0.02, "mode": "continuous"}
CHAIN = SerialChain.from_urdf(panda_urdf(), "panda_link0", "panda_hand_tcp", JOINTS)
KINDS = ("rotation_vector", "quaternion", "rotation_6d")

seeds = st.integers(0, 2**32 - 1)


def action(kind, *, rotation=None, gripper=True, **changes):
    cartesian = kind in {"delta_pose", "twist", "pose"}
    names = ("x", "y", "z", *ROTATION_NAMES[rotation]) if cartesian else SHUFFLED
    values = {
        "type": kind,
        "rotation": rotation,
        "rate_hz": RATE,
        "chunk": 5,
        "names": (*names, "gripper") if gripper else names,
        "normalisation": {"type": "identity"},
        "gripper": GRIPPER if gripper else None,
    }
    return Action.model_validate(values | changes)


def observation(joints=HOME):
    joints = np.array(joints)
    position, rotation = CHAIN.pose(joints)
    sample = JointSample(0, joints, np.zeros(7), None, 0.04)
    return Observation(0, {}, sample, JOINTS, position, rotation, "go")


def integrate(twists, seen):
    """Return the poses after each of the twists: positions (n, 3) and rotations (n, 3, 3)."""
    position, rotation = seen.tcp_position, seen.tcp_rotation
    positions, rotations = [], []
    for twist in twists / RATE:
        position = position + twist[:3]
        rotation = rotation_from_rotvec(twist[3:]) @ rotation
        positions.append(position)
        rotations.append(rotation)
    return np.array(positions), np.array(rotations)


def poses(rng, size=0.5):
    """Return 5 moves (5, 3) and turns (5, 3, 3)."""
    turns = rng.uniform(-size, size, (5, 3))
    return rng.uniform(-size, size, (5, 3)), matrix_from_rotation_vector(turns)


def with_gripper(*columns):
    fractions = np.array([[0.0], [0.25], [0.5], [1.0], [1.5]])
    return np.hstack([*columns, fractions])


@pytest.mark.parametrize("rotation", KINDS)
@given(seeds)
def test_absolute_poses_are_reached(rotation, seed):
    seen = observation()
    positions, rotations = poses(np.random.default_rng(seed))
    spec = action("pose", rotation=rotation, frame="base")
    motion = to_motion(with_gripper(positions, matrix_to(rotations, rotation)), spec, seen, None)
    reached = integrate(motion.twists, seen)
    np.testing.assert_allclose(reached[0], positions, atol=1e-12)
    np.testing.assert_allclose(reached[1], rotations, atol=1e-7)
    np.testing.assert_allclose(motion.gripper, [0.02, 0.035, 0.05, 0.08, 0.08])
    assert motion.joints is None


@pytest.mark.parametrize(("rotation", "frame"), list(itertools.product(KINDS, ("base", "tool"))))
@given(seeds)
def test_poses_relative_to_the_observation_are_reached(rotation, frame, seed):
    seen = observation()
    moves, turns = poses(np.random.default_rng(seed))
    spec = action("delta_pose", rotation=rotation, frame=frame, reference="observation")
    motion = to_motion(with_gripper(moves, matrix_to(turns, rotation)), spec, seen, None)
    positions, rotations = integrate(motion.twists, seen)
    tool = seen.tcp_rotation
    for move, turn, position, reached in zip(moves, turns, positions, rotations, strict=True):
        along = tool @ move if frame == "tool" else move
        np.testing.assert_allclose(position, seen.tcp_position + along, atol=1e-12)
        expected = tool @ turn if frame == "tool" else turn @ tool
        np.testing.assert_allclose(reached, expected, atol=1e-7)


@pytest.mark.parametrize(("rotation", "frame"), list(itertools.product(KINDS, ("base", "tool"))))
@given(seeds)
def test_displacements_follow_one_another(rotation, frame, seed):
    """Each begins where the one before ended, along the axes of the observation's frame."""
    seen = observation()
    moves, turns = poses(np.random.default_rng(seed))
    spec = action("delta_pose", rotation=rotation, frame=frame, reference="previous")
    motion = to_motion(with_gripper(moves, matrix_to(turns, rotation)), spec, seen, None)
    positions, rotations = integrate(motion.twists, seen)
    axes = seen.tcp_rotation if frame == "tool" else np.eye(3)
    position, reached = seen.tcp_position, seen.tcp_rotation
    for index in range(5):
        position = position + axes @ moves[index]
        reached = axes @ turns[index] @ axes.T @ reached
        np.testing.assert_allclose(positions[index], position, atol=1e-12)
        np.testing.assert_allclose(rotations[index], reached, atol=1e-7)


@pytest.mark.parametrize("frame", ["base", "tool"])
def test_twists_are_velocities_in_their_frame(frame):
    seen = observation()
    values = np.random.default_rng(0).normal(size=(5, 6))
    spec = action("twist", rotation="rotation_vector", frame=frame)
    twists = to_motion(with_gripper(values), spec, seen, None).twists
    axes = seen.tcp_rotation if frame == "tool" else np.eye(3)
    np.testing.assert_allclose(twists[:, :3], values[:, :3] @ axes.T)
    np.testing.assert_allclose(twists[:, 3:], values[:, 3:] @ axes.T)


@pytest.mark.parametrize(
    "changes",
    [
        {"kind": "twist", "frame": "tool"},
        {"kind": "pose", "frame": "base"},
        {"kind": "delta_pose", "frame": "tool", "reference": "previous"},
        {"kind": "delta_pose", "frame": "base", "reference": "observation"},
    ],
    ids=lambda changes: "-".join(changes.values()),
)
def test_without_a_rotation_the_tool_does_not_turn(changes):
    spec = action(**changes, gripper=False)
    motion = to_motion(np.random.default_rng(0).normal(size=(5, 3)), spec, observation(), None)
    np.testing.assert_allclose(motion.twists[:, 3:], 0.0, atol=1e-12)
    assert np.abs(motion.twists[:, :3]).min() > 0.0
    assert motion.gripper is None


def test_a_straight_line_is_a_constant_velocity():
    seen = observation()
    steps = np.arange(1, 6)[:, None]
    positions = seen.tcp_position + steps * [0.01, 0.0, -0.02]
    turned = matrix_from_rotation_vector(steps * [0.0, 0.0, 0.1]) @ seen.tcp_rotation
    spec = action("pose", rotation="quaternion", frame="base", gripper=False)
    values = np.hstack([positions, matrix_to(turned, "quaternion")])
    twists = to_motion(values, spec, seen, None).twists
    expected = [0.01 * RATE, 0.0, -0.02 * RATE, 0.0, 0.0, 0.1 * RATE]
    np.testing.assert_allclose(twists, np.tile(expected, (5, 1)), atol=1e-12)


JOINT_KINDS = [
    ("joint_position", None),
    ("joint_velocity", None),
    ("joint_delta", "observation"),
    ("joint_delta", "previous"),
]


def joint_values(kind, reference, path):
    """Return the actions, in the robot's order, that lead along joint positions (6, 7)."""
    moves = np.diff(path, axis=0)
    return {
        ("joint_position", None): path[1:],
        ("joint_velocity", None): moves * RATE,
        ("joint_delta", "observation"): path[1:] - path[0],
        ("joint_delta", "previous"): moves,
    }[kind, reference]


@pytest.mark.parametrize(("kind", "reference"), JOINT_KINDS)
@given(seeds)
def test_joint_actions_lead_along_the_same_path(kind, reference, seed):
    """The speeds are of the joints in the robot's order; the twists lead through the same poses."""
    rng = np.random.default_rng(seed)
    path = np.array(HOME) + np.vstack([np.zeros(7), np.cumsum(rng.uniform(-0.1, 0.1, (5, 7)), 0)])
    values = joint_values(kind, reference, path)
    shuffled = values[:, [JOINTS.index(name) for name in SHUFFLED]]
    seen = observation()
    motion = to_motion(with_gripper(shuffled), action(kind, reference=reference), seen, CHAIN)
    np.testing.assert_allclose(motion.joints, np.diff(path, axis=0) * RATE, atol=1e-12)
    positions, rotations = integrate(motion.twists, seen)
    for joints, position, rotation in zip(path[1:], positions, rotations, strict=True):
        expected = CHAIN.pose(joints)
        np.testing.assert_allclose(position, expected[0], atol=1e-12)
        np.testing.assert_allclose(rotation, expected[1], atol=1e-7)
    np.testing.assert_allclose(motion.gripper, [0.02, 0.035, 0.05, 0.08, 0.08])


def test_twists_of_joints_are_those_of_the_jacobian_where_they_move_little():
    speeds = np.random.default_rng(0).uniform(-1e-4, 1e-4, (1, 7))
    spec = action("joint_velocity", gripper=False, names=JOINTS)
    motion = to_motion(speeds, spec, observation(), CHAIN)
    np.testing.assert_allclose(
        motion.twists[0], CHAIN.jacobian(np.array(HOME)) @ speeds[0], atol=1e-9
    )


def test_many_postures_at_once_are_those_one_by_one():
    angles = np.random.default_rng(0).uniform(-2.0, 2.0, (6, 7))
    positions, rotations = CHAIN.poses(angles)
    for row, position, rotation in zip(angles, positions, rotations, strict=True):
        expected = CHAIN.pose(row)
        np.testing.assert_allclose(position, expected[0], atol=1e-14)
        np.testing.assert_allclose(rotation, expected[1], atol=1e-14)


def test_joint_actions_without_kinematics_are_refused():
    spec = action("joint_velocity", gripper=False)
    with pytest.raises(MotionError, match="robot_description"):
        to_motion(np.zeros((5, 7)), spec, observation(), None)


def test_joints_of_another_robot_are_refused():
    other = action("joint_position", gripper=False, names=("elbow", *JOINTS[1:]))
    with pytest.raises(MotionError, match=r"action\.names: .*elbow, panda_joint1 differ"):
        check_joint_names(other, JOINTS)
    with pytest.raises(MotionError, match="elbow, panda_joint1 differ"):
        to_motion(np.zeros((5, 7)), other, observation(), CHAIN)
    check_joint_names(action("joint_position"), JOINTS)
    check_joint_names(action("twist", frame="base"), JOINTS)


def test_numbers_that_are_no_rotation_are_refused():
    spec = action("pose", rotation="quaternion", frame="base", gripper=False)
    with pytest.raises(RotationError, match="quaternion is 0"):
        to_motion(np.zeros((5, 7)), spec, observation(), None)


def test_a_gripper_opens_from_the_threshold_on_or_part_of_the_way():
    fractions = np.array([-0.5, 0.39, 0.4, 1.5])
    binary = action("twist", frame="base", gripper=True).gripper.model_copy(
        update={"mode": "binary", "threshold": 0.4}
    )
    np.testing.assert_array_equal(opening(fractions, binary), [0.02, 0.02, 0.08, 0.08])
    continuous = binary.model_copy(update={"mode": "continuous"})
    np.testing.assert_allclose(opening(fractions, continuous), [0.02, 0.0434, 0.044, 0.08])


CARTESIAN = (
    [("twist", "rotation_vector", frame, None) for frame in ("base", "tool")]
    + [
        ("delta_pose", rotation, frame, reference)
        for rotation in (None, *KINDS)
        for frame in ("base", "tool")
        for reference in ("observation", "previous")
    ]
    + [("pose", rotation, "base", None) for rotation in (None, *KINDS)]
)


@pytest.mark.parametrize(("kind", "rotation", "frame", "reference"), CARTESIAN)
@settings(max_examples=20)
@given(seeds)
def test_motion_can_be_written_as_actions_of_another_observation(
    kind, rotation, frame, reference, seed
):
    """Whatever the new observation, the actions written for it make the motion that there was."""
    rng = np.random.default_rng(seed)
    spec = action(kind, rotation=rotation, frame=frame, reference=reference)
    old, new = observation(), observation(rng.uniform(-1.0, 1.0, 7))
    fractions = rng.uniform(0.0, 1.0, (5, 1))
    twists = rng.uniform(-2.0, 2.0, (5, 6))
    if rotation is None:
        twists[:, 3:] = 0.0
    gripper = opening(fractions[:, 0], spec.gripper)
    before = from_motion(Motion(twists, gripper, None), spec, old)
    actions = from_motion(to_motion(before, spec, old, None), spec, new)
    motion = to_motion(actions, spec, new, None)
    np.testing.assert_allclose(motion.twists, twists, atol=1e-6)
    np.testing.assert_allclose(actions[:, -1:], fractions, atol=1e-12)


@pytest.mark.parametrize(("kind", "reference"), JOINT_KINDS)
@given(seeds)
def test_joint_motion_can_be_written_as_actions_of_another_observation(kind, reference, seed):
    rng = np.random.default_rng(seed)
    path = np.array(HOME) + np.vstack([np.zeros(7), np.cumsum(rng.uniform(-0.1, 0.1, (5, 7)), 0)])
    spec = action(kind, reference=reference)
    values = joint_values(kind, reference, path)[:, [JOINTS.index(name) for name in SHUFFLED]]
    motion = to_motion(with_gripper(values), spec, observation(), CHAIN)
    later = observation(np.array(HOME) + 0.1)
    again = to_motion(from_motion(motion, spec, later), spec, later, CHAIN)
    np.testing.assert_allclose(again.joints, motion.joints, atol=1e-9)
    np.testing.assert_allclose(again.gripper, motion.gripper, atol=1e-12)


def test_motion_of_the_tcp_is_no_action_of_joints():
    spec = action("joint_velocity", gripper=False)
    motion = to_motion(
        np.zeros((5, 6)),
        action("twist", rotation="rotation_vector", frame="base", gripper=False),
        observation(),
        None,
    )
    with pytest.raises(MotionError, match="of the TCP"):
        from_motion(motion, spec, observation())


def test_angles_near_half_a_turn_keep_their_way():
    """A target half a turn away is reached, whichever way round."""
    seen = observation()
    turn = rotation_from_rotvec(np.array([0.0, 0.0, math.pi - 1e-9]))
    spec = action("delta_pose", rotation="quaternion", frame="base", reference="observation")
    values = np.hstack([np.zeros(3), matrix_to(turn, "quaternion"), 1.0])[None]
    twists = to_motion(values, spec, seen, None).twists
    _, reached = integrate(twists, seen)
    np.testing.assert_allclose(reached[0], turn @ seen.tcp_rotation, atol=1e-7)
    assert np.linalg.norm(twists[0, 3:]) == pytest.approx(math.pi * RATE)
