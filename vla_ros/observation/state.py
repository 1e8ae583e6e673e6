"""The robot's state as the vector of numbers that a model takes."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from vla_ros.types import Array, JointSample

JOINT_PREFIX = "joint.position."

_FIXED_NAMES = (
    *(f"tcp.position.{axis}" for axis in "xyz"),
    *(f"tcp.rotation.r{row}{column}" for column in (1, 2) for row in (1, 2, 3)),
    "gripper.opening",
)


class StateError(ValueError):
    """A state vector names what the robot does not have."""


def state_names(joint_names: Sequence[str]) -> tuple[str, ...]:
    """Return the names of all that a state vector may hold, in the usual order.

    `tcp.position.{x,y,z}` in m and `tcp.rotation.{r11,r21,r31,r12,r22,r32}`, the first two columns
    of the rotation matrix (continuous, unlike angles: Zhou et al., CVPR 2019), both in the base
    frame; `gripper.opening` in m; `joint.position.<joint>` in rad.
    """
    return (*_FIXED_NAMES, *(JOINT_PREFIX + joint for joint in joint_names))


def check_state_names(names: Sequence[str], joint_names: Sequence[str], *, gripper: bool) -> None:
    """Check that a robot can give every entry of a state vector.

    Args:
        names: The state vector's entries.
        joint_names: The robot's joints.
        gripper: Whether it has a gripper whose opening is measured.

    Raises:
        StateError: Naming the first entry that it cannot give.

    """
    known = state_names(joint_names)
    for index, name in enumerate(names):
        if name not in known:
            msg = f"state.names[{index}]: {name!r} is none of this robot's: {', '.join(known)}"
            raise StateError(msg)
        if name == "gripper.opening" and not gripper:
            msg = f"state.names[{index}]: {name!r} needs robot.gripper_joints, which is empty"
            raise StateError(msg)


def state_vector(
    names: Sequence[str],
    joints: JointSample,
    tcp_position: Array,
    tcp_rotation: Array,
    *,
    joint_names: Sequence[str],
) -> NDArray[np.float32]:
    """Return the values of `names`, float32, shape (len(names),), not normalised.

    Args:
        names: Entries, see `state_names`.
        joints: The measured joints.
        tcp_position: Of the TCP in the base frame, m, shape (3,).
        tcp_rotation: Of the TCP in the base frame, shape (3, 3).
        joint_names: Names of `joints.position`, in its order (`RobotConfig.joints`).

    Raises:
        StateError: If an entry is unknown, or the gripper's opening is asked for and not measured.

    """
    opening = 0.0 if joints.gripper is None else joints.gripper
    values = np.concatenate(
        [tcp_position, tcp_rotation[:, 0], tcp_rotation[:, 1], [opening], joints.position]
    )
    check_state_names(names, joint_names, gripper=joints.gripper is not None)
    known = {name: index for index, name in enumerate(state_names(joint_names))}
    return values[[known[name] for name in names]].astype(np.float32)
