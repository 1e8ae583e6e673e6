"""From actions in a manifest's units to motion: twists of the TCP, gripper and joint speeds.

Every kind of action ends as constant velocities, one an action, each for one period. Carried out
from where the arm was at the observation, they lead to what was asked for at the end of each
period, exactly, not to first order. Targets (poses and joint positions) are to be reached at the
end of their action's period. `frame: tool` means the axes of the TCP at the observation, for all of
a chunk: that is the frame that the model saw.
"""

from dataclasses import dataclass

import numpy as np

from vla_ros.kinematics import SerialChain
from vla_ros.observation.observation import Observation
from vla_ros.policy.manifest import GRIPPER_NAME, ROTATION_NAMES, Action, Gripper
from vla_ros.policy.rotations import matrix_from, matrix_to, rotation_vector_from_matrix
from vla_ros.types import Array


class MotionError(ValueError):
    """Actions that this robot cannot carry out."""


@dataclass(frozen=True, slots=True)
class Motion:
    """What the actions of a chunk do.

    Attributes:
        twists: Velocity of the TCP in the base frame during each action: linear in m/s, angular in
            rad/s, shape (n, 6).
        gripper: Opening in m commanded with each action, shape (n,); None where the model moves no
            gripper.
        joints: Speeds of the joints during each action, in the robot's order, rad/s, shape (n,
            dof); None where the actions are of the TCP.

    """

    twists: Array
    gripper: Array | None
    joints: Array | None


def check_joint_names(action: Action, joints: tuple[str, ...]) -> None:
    """Check that the actions are of a robot's joints, if they are of joints at all.

    Args:
        action: The manifest's.
        joints: The robot's.

    Raises:
        MotionError: Naming the joints that differ.

    """
    if action.is_cartesian:
        return
    names = _joint_names(action)
    if sorted(names) != sorted(joints):
        wrong = sorted(set(names) ^ set(joints))
        msg = (
            f"action.names: must be this robot's joints, {', '.join(joints)}, in any order; "
            f"{', '.join(wrong)} differ"
        )
        raise MotionError(msg)


def leads_to_places(action: Action) -> bool:
    """Return whether actions lead to places rather than being motions of their own.

    Then what was executed otherwise since the observation is to be made up for, see
    `vla_ros.policy.catch_up`.
    """
    return action.type in {"pose", "joint_position"} or action.reference == "observation"


def to_motion(
    actions: Array, action: Action, observation: Observation, chain: SerialChain | None
) -> Motion:
    """Return what actions do.

    Args:
        actions: Denormalised, shape (n, k), entries `action.names`.
        action: The manifest's.
        observation: What they were predicted from.
        chain: The robot's kinematics; actions of joints alone need it.

    Raises:
        MotionError: If actions of joints are for another robot, or there is no `chain`.
        RotationError: If the numbers of a rotation stand for none.

    """
    gripper = None if action.gripper is None else opening(actions[:, -1], action.gripper)
    if action.is_cartesian:
        return Motion(_cartesian(actions, action, observation), gripper, None)
    targets, speeds = _joint_motion(actions, action, observation)
    if chain is None:
        msg = "actions of joints need the robot's kinematics, and there is no robot_description yet"
        raise MotionError(msg)
    positions, rotations = chain.poses(np.vstack([observation.joints.position, targets]))
    twists = np.hstack([np.diff(positions, axis=0), _turns(rotations)]) * action.rate_hz
    return Motion(twists, gripper, speeds)


def from_motion(motion: Motion, action: Action, observation: Observation) -> Array:
    """Return the actions that do what `motion` does, from another observation on.

    The inverse of `to_motion`, for a chunk to go on with another's motion: what was predicted from
    one observation is written as if it were predicted from the next.

    Args:
        motion: Of n actions.
        action: The manifest's.
        observation: From whose moment on it is carried out.

    Returns:
        Actions in the manifest's units, shape (n, k).

    Raises:
        MotionError: If actions are of joints and `motion` is not, or for another robot.

    """
    if action.is_cartesian:
        columns = [_cartesian_actions(motion.twists, action, observation)]
    else:
        columns = [_joint_actions(motion.joints, action, observation)]
    if action.gripper is not None:
        span = action.gripper.open_m - action.gripper.closed_m
        gripper = np.zeros(len(motion.twists)) if motion.gripper is None else motion.gripper
        columns.append(((gripper - action.gripper.closed_m) / span)[:, None])
    return np.hstack(columns)


def opening(fraction: Array, gripper: Gripper) -> Array:
    """Return the opening in m of each open fraction, shape (n,) both."""
    if gripper.mode == "binary":
        return np.where(fraction >= gripper.threshold, gripper.open_m, gripper.closed_m)
    span = gripper.open_m - gripper.closed_m
    return gripper.closed_m + span * np.clip(fraction, 0.0, 1.0)


def _cartesian(actions: Array, action: Action, observation: Observation) -> Array:
    """Return the twists (n, 6) of actions of the TCP."""
    tool = observation.tcp_rotation
    moves = actions[:, :3]
    turns = actions[:, 3 : 3 + len(ROTATION_NAMES[action.rotation])]
    if action.type == "twist" or action.reference == "previous":
        if action.rotation is None:
            turns = np.zeros_like(moves)
        elif action.rotation != "rotation_vector":
            turns = rotation_vector_from_matrix(matrix_from(turns, action.rotation))
        if action.type != "twist":
            moves, turns = moves * action.rate_hz, turns * action.rate_hz
        if action.frame == "tool":
            moves, turns = moves @ tool.T, turns @ tool.T
        return np.hstack([moves, turns])
    positions, rotations = moves, np.broadcast_to(tool, (len(actions), 3, 3))
    if action.rotation is not None:
        rotations = matrix_from(turns, action.rotation)
    if action.type == "delta_pose":
        in_tool = action.frame == "tool"
        positions = observation.tcp_position + (moves @ tool.T if in_tool else moves)
        if action.rotation is not None:
            rotations = tool @ rotations if in_tool else rotations @ tool
    positions = np.vstack([observation.tcp_position, positions])
    rotations = np.concatenate([tool[None], rotations])
    return np.hstack([np.diff(positions, axis=0), _turns(rotations)]) * action.rate_hz


def _cartesian_actions(twists: Array, action: Action, observation: Observation) -> Array:
    """Return the actions of the TCP, without the gripper's entry: `_cartesian` the other way."""
    tool = observation.tcp_rotation
    if action.type == "twist" or action.reference == "previous":
        moves, turns = twists[:, :3], twists[:, 3:]
        if action.frame == "tool":
            moves, turns = moves @ tool, turns @ tool
        if action.type != "twist":
            moves, turns = moves / action.rate_hz, turns / action.rate_hz
        if action.rotation is None:
            return moves
        if action.rotation != "rotation_vector":
            turns = matrix_to(matrix_from(turns, "rotation_vector"), action.rotation)
        return np.hstack([moves, turns])
    positions = observation.tcp_position + np.cumsum(twists[:, :3], axis=0) / action.rate_hz
    turns = matrix_from(twists[:, 3:] / action.rate_hz, "rotation_vector")
    path = [tool]
    for turn in turns:
        path.append(turn @ path[-1])
    rotations: Array = np.array(path[1:])
    if action.type == "delta_pose":
        positions = positions - observation.tcp_position
        if action.frame == "tool":
            positions, rotations = positions @ tool, tool.T @ rotations
        else:
            rotations = rotations @ tool.T
    if action.rotation is None:
        return positions
    return np.hstack([positions, matrix_to(rotations, action.rotation)])


def _joint_names(action: Action) -> tuple[str, ...]:
    return tuple(name for name in action.names if action.gripper is None or name != GRIPPER_NAME)


def _columns(action: Action, observation: Observation) -> list[int]:
    """Return where each of the robot's joints stands among the action's entries."""
    check_joint_names(action, observation.joint_names)
    names = _joint_names(action)
    return [names.index(joint) for joint in observation.joint_names]


def _joint_motion(actions: Array, action: Action, observation: Observation) -> tuple[Array, Array]:
    """Return where the joints are after each action, and how fast they get there, (n, dof) both."""
    values = actions[:, _columns(action, observation)]
    start = observation.joints.position
    if action.type == "joint_velocity":
        return start + np.cumsum(values, axis=0) / action.rate_hz, values
    if action.reference == "previous":
        return start + np.cumsum(values, axis=0), values * action.rate_hz
    targets = values if action.type == "joint_position" else start + values
    return targets, np.diff(np.vstack([start, targets]), axis=0) * action.rate_hz


def _joint_actions(joints: Array | None, action: Action, observation: Observation) -> Array:
    """Return the actions of joints, without the gripper's entry: `_joint_motion` the other way."""
    if joints is None:
        msg = "the motion is of the TCP, but the actions are of joints"
        raise MotionError(msg)
    start = observation.joints.position
    if action.type == "joint_velocity":
        values = joints
    elif action.reference == "previous":
        values = joints / action.rate_hz
    else:
        values = np.cumsum(joints, axis=0) / action.rate_hz
        values = values + start if action.type == "joint_position" else values
    actions = np.empty_like(values)
    actions[:, _columns(action, observation)] = values
    return actions


def _turns(rotations: Array) -> Array:
    """Return the rotation vectors in the base frame from each rotation to the next, (n, 3)."""
    return rotation_vector_from_matrix(rotations[1:] @ np.swapaxes(rotations[:-1], -1, -2))
