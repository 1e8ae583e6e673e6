"""The data that passes between the parts: frames, joint samples and commands.

Times are integer nanoseconds of the ROS clock of the machine that stamped them.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
ImageArray = NDArray[np.uint8]
_UNSTAMPED_NS = 10**18
"""Only what is stamped 0 is so old, 31 years, by a clock that runs."""


def aged(age_ns: int, told: str) -> str:
    """Return what is told of the age of a message, or, where it is stamped 0, that."""
    return "stamped 0, which is no time" if age_ns > _UNSTAMPED_NS else told


@dataclass(frozen=True, slots=True)
class Frame:
    """One camera image.

    Attributes:
        camera: Name of the camera, as in the bundle's manifest.
        stamp_ns: Time of exposure.
        image: RGB, uint8, shape (height, width, 3).

    """

    camera: str
    stamp_ns: int
    image: ImageArray


@dataclass(frozen=True, slots=True)
class JointSample:
    """Measured state of the arm's joints, in the order of the robot file, and of the gripper.

    Attributes:
        stamp_ns: Time of measurement.
        position: Joint angles in rad, shape (n,).
        velocity: Joint speeds in rad/s, shape (n,).
        effort: Joint torques in Nm, shape (n,), or None where the robot measures none.
        gripper: Opening between the fingers in m, or None where there is no gripper.
        gripper_effort: Effort of the finger that is driven to close the hardest, N (Nm where it
            turns): closing is negative. None where none is measured.

    """

    stamp_ns: int
    position: Array
    velocity: Array
    effort: Array | None
    gripper: float | None
    gripper_effort: float | None = None


@dataclass(frozen=True, slots=True)
class Command:
    """A desired motion of the tool centre point (TCP).

    Attributes:
        stamp_ns: Time at which its sender published it.
        frame_id: Frame in which the twist is expressed.
        twist: Linear velocity in m/s and angular velocity in rad/s of the TCP, shape (6,).
        gripper: Desired opening between the fingers in m, or None to leave it as it is.

    """

    stamp_ns: int
    frame_id: str
    twist: Array
    gripper: float | None


@dataclass(frozen=True, slots=True)
class PoseCommand:
    """A pose that the TCP is to go to.

    Attributes:
        stamp_ns: Time at which its sender published it.
        frame_id: The base frame, or for a delta the frame of the TCP.
        position: In m, shape (3,).
        quaternion: Unit quaternion x, y, z, w, shape (4,).
        delta: Whether the pose is relative: to where the delta before it was to lead, or for the
            first one, to where the TCP is when it arrives.
        gripper: Desired opening between the fingers in m, or None to leave it as it is.

    """

    stamp_ns: int
    frame_id: str
    position: Array
    quaternion: Array
    delta: bool = False
    gripper: float | None = None


@dataclass(frozen=True, slots=True)
class JointVelocityCommand:
    """Desired speeds of the arm's joints.

    Attributes:
        stamp_ns: Time at which its sender published it.
        velocity: In rad/s, in the order of the robot file, shape (n,).
        gripper: Desired opening between the fingers in m, or None to leave it as it is.

    """

    stamp_ns: int
    velocity: Array
    gripper: float | None = None


AnyCommand = Command | PoseCommand | JointVelocityCommand
