"""What the arm is asked to do."""

from dataclasses import dataclass

Vector = tuple[float, float, float]


@dataclass(frozen=True, slots=True)
class TwistTarget:
    """A velocity of the TCP, in the base frame.

    Attributes:
        linear: In m/s.
        angular: In rad/s.

    """

    linear: Vector
    angular: Vector


@dataclass(frozen=True, slots=True)
class PoseTarget:
    """A pose of the TCP to go to and rest at, in the base frame.

    Attributes:
        position: In m.
        quaternion: Unit quaternion x, y, z, w.

    """

    position: Vector
    quaternion: tuple[float, float, float, float]


@dataclass(frozen=True, slots=True)
class JointVelocityTarget:
    """Velocities of the joints.

    Attributes:
        velocities: In rad/s (m/s of slides), one a joint, in the order of the robot file.

    """

    velocities: tuple[float, ...]


Target = TwistTarget | PoseTarget | JointVelocityTarget
