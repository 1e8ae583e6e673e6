"""From a commanded twist of the TCP to joint motion, as a robot's velocity interface does it."""

import numpy as np

from vla_ros.kinematics import rotation_from_rotvec, rotvec_from_rotation
from vla_ros.sim.mujoco_gl import mujoco
from vla_ros.types import Array

# Joint speed limits of the Panda in rad/s (Franka Control Interface documentation, "Robot and
# interface specifications").
JOINT_SPEED = np.array([2.175, 2.175, 2.175, 2.175, 2.61, 2.61, 2.61])
# Joint acceleration limits in rad/s2. Above the real robot's 7.5 to 20, so that a command that
# vanishes at full speed leaves the arm still within 0.1 s.
JOINT_ACCELERATION = np.array([20.0, 20.0, 20.0, 20.0, 40.0, 40.0, 40.0])
# Distance kept from the ends of the joints' ranges, rad.
RANGE_MARGIN = 0.02
# Least squares are damped, by up to DAMPING, where the Jacobian's smallest singular value is under
# SINGULAR: towards the ends of its reach the arm slows down and stops. Over the table it is over
# 0.1.
SINGULAR = 0.08
DAMPING = 0.08
# Pull of the pose reference, 1/s, and of the posture in the null space, 1/s.
POSE_GAIN = 10.0
POSTURE_GAIN = 0.5
# The posture moves fully only at TCP speeds of at least these, m/s and rad/s, and not at all at
# rest: a commanded zero means a still arm.
POSTURE_SPEEDS = (0.05, 0.25)


class TwistFollower:
    """Integrates commanded twists into a trajectory of joint positions.

    Least squares, damped near singularities (Maciejewski and Klein 1988), on the commanded
    configuration, never the measured one, so that servo errors do not feed back. The twist is
    integrated into a pose reference, whose error is fed back: the orientation does not drift. Where
    the arm cannot follow, the reference slips to where the arm is, so nothing winds up.

    Attributes:
        position: Commanded joint angles in rad, shape (7,).
        velocity: Commanded joint speeds in rad/s, shape (7,).

    """

    def __init__(self, model: "mujoco.MjModel", site: str, posture: Array) -> None:
        """Move `site` of `model` with its first seven joints, tending to `posture` (7,)."""
        self._model = model
        self._data = mujoco.MjData(model)
        self._site = model.site(site).id
        self._posture = posture
        self._low = model.jnt_range[:7, 0] + RANGE_MARGIN
        self._high = model.jnt_range[:7, 1] - RANGE_MARGIN
        self._jacobian = np.zeros((6, model.nv))
        self._twist: Array = np.zeros(6)
        self._reference: tuple[Array, Array] | None = None
        self.position: Array = posture.copy()
        self.velocity: Array = np.zeros(7)

    def reset(self, position: Array) -> None:
        """Start at rest at `position`, joint angles in rad, shape (7,)."""
        self.position = position.copy()
        self.velocity = np.zeros(7)
        self._twist = np.zeros(6)
        self._reference = None

    def step(self, twist: Array, period: float) -> None:
        """Advance `position` and `velocity` by `period` seconds, towards `twist`.

        The speed changes linearly over the period, and reaches its new value at the period's end.

        Args:
            twist: Linear (m/s) and angular (rad/s) velocity of the site in the world frame,
                shape (6,).
            period: In s.

        """
        place, rotation, jacobian = self._kinematics()
        if self._reference is None:
            self._reference = (place, rotation)
        error = np.concatenate(
            [self._reference[0] - place, rotvec_from_rotation(self._reference[1] @ rotation.T)]
        )
        moving = (np.linalg.norm(twist[:3]), np.linalg.norm(twist[3:])) / np.array(POSTURE_SPEEDS)
        pull = POSTURE_GAIN * min(1.0, float(moving.sum()))
        posture = pull * (self._posture - self.position)
        speed, slowed = self._joint_speed(jacobian, twist + POSE_GAIN * error, posture)

        moved = self._move(speed, period)
        if slowed or not moved:
            self._reference = None
        else:
            mean = 0.5 * (self._twist + twist)
            self._reference = (
                self._reference[0] + mean[:3] * period,
                rotation_from_rotvec(mean[3:] * period) @ self._reference[1],
            )
        self._twist = twist.copy()

    def step_joints(self, velocity: Array, period: float) -> None:
        """Advance by `period` seconds, towards joint speeds (7,) in rad/s, as `step` does."""
        self._move(np.clip(velocity, -JOINT_SPEED, JOINT_SPEED), period)
        self._twist = np.zeros(6)
        self._reference = None

    def _move(self, speed: Array, period: float) -> bool:
        """Go on to `speed` (7,) by `period` s; return whether the joints could."""
        change = speed - self.velocity
        excess = float(np.max(np.abs(change) / JOINT_ACCELERATION)) / period
        if excess > 1.0:
            speed = self.velocity + change / excess
        position = self.position + 0.5 * period * (self.velocity + speed)
        bounded = np.clip(position, self._low, self._high)
        free = excess <= 1.0 and np.array_equal(bounded, position)
        self.position, self.velocity = bounded, speed
        return free

    def _kinematics(self) -> tuple[Array, Array, Array]:
        model, data = self._model, self._data
        data.qpos[:7] = self.position
        mujoco.mj_kinematics(model, data)
        mujoco.mj_comPos(model, data)
        mujoco.mj_jacSite(model, data, self._jacobian[:3], self._jacobian[3:], self._site)
        place = data.site_xpos[self._site].copy()
        rotation = data.site_xmat[self._site].reshape(3, 3).copy()
        return place, rotation, self._jacobian[:, :7]

    def _joint_speed(self, jacobian: Array, wanted: Array, posture: Array) -> tuple[Array, bool]:
        """Return joint speeds for the twist `wanted` (6,), with `posture` (7,) in the null space.

        Also whether they fall short of it: near a singularity, or slowed down, as a whole and so
        without a change of direction, to what the joints can do and can stop in their ranges.
        """
        squares, axes = np.linalg.eigh(jacobian @ jacobian.T)
        damping = DAMPING**2 * max(0.0, 1.0 - squares[0] / SINGULAR**2)
        scaled = (axes.T @ (wanted - jacobian @ posture)) / (squares + damping)
        speed = jacobian.T @ (axes @ scaled) + posture

        room = np.where(speed > 0.0, self._high - self.position, self.position - self._low)
        # v^2 = 2 a s with half of the least acceleration: the rest is for the delay of a tick.
        limit = np.minimum(JOINT_SPEED, np.sqrt(JOINT_ACCELERATION.min() * np.maximum(room, 0.0)))
        excess = max(1.0, float(np.max(np.abs(speed) / np.maximum(limit, 1e-9))))
        return speed / excess, damping > 0.0 or excess > 1.0
