"""Measured joints: from a message's lists to the robot's order, and to the time of an image."""

from collections import deque
from collections.abc import Sequence

import numpy as np

from vla_ros.robot import RobotConfig
from vla_ros.types import Array, JointSample

_HISTORY = 256
"""Samples kept: over 2 s at 100 Hz, 0.25 s at 1 kHz, longer than a frame may be old."""


class JointError(ValueError):
    """A joint state lacks what the robot file names, or holds what is no measurement."""


class JointReader:
    """Picks a robot's joints out of joint states, in whatever order and company they come."""

    def __init__(self, robot: RobotConfig) -> None:
        """Take the joints and gripper joints of `robot`."""
        self._robot = robot
        self._names: tuple[str, ...] = ()
        self._arm: list[int] = []
        self._fingers: list[int] = []

    def read(
        self,
        stamp_ns: int,
        names: Sequence[str],
        position: Sequence[float],
        velocity: Sequence[float],
        effort: Sequence[float] = (),
    ) -> JointSample:
        """Return the robot's joints, in the order of the robot file.

        Args:
            stamp_ns: Time of measurement.
            names: Names of the joints in the lists that follow.
            position: In rad, or m for slides.
            velocity: In rad/s or m/s.
            effort: In Nm or N; empty where none is measured.

        Raises:
            JointError: If a joint of the robot is missing, a list has another length than `names`,
                or a value of the robot's is not finite.

        """
        if tuple(names) != self._names:
            self._arm = [self._find(joint, names) for joint in self._robot.joints]
            self._fingers = [self._find(joint, names) for joint in self._robot.gripper_joints]
            self._names = tuple(names)
        positions = self._take("position", position, self._arm + self._fingers)
        count = len(self._arm)
        return JointSample(
            stamp_ns=stamp_ns,
            position=positions[:count],
            velocity=self._take("velocity", velocity, self._arm),
            effort=self._take("effort", effort, self._arm) if len(effort) else None,
            gripper=float(positions[count:].sum()) if self._fingers else None,
        )

    def _find(self, joint: str, names: Sequence[str]) -> int:
        if joint in names:
            return list(names).index(joint)
        msg = (
            f"joint_states has no joint {joint!r}, which the robot file of {self._robot.name!r} "
            f"names; it has {', '.join(names) or 'none'}: use the robot file of this robot"
        )
        raise JointError(msg)

    def _take(self, what: str, values: Sequence[float], indices: list[int]) -> Array:
        if len(values) != len(self._names):
            msg = f"joint_states has {len(values)} values of {what} for {len(self._names)} joints"
            raise JointError(msg)
        taken = np.array([values[index] for index in indices], np.float64)
        if not np.isfinite(taken).all():
            joint = self._names[indices[int(np.argmin(np.isfinite(taken)))]]
            msg = f"the {what} of {joint!r} in joint_states is not finite"
            raise JointError(msg)
        return taken


class JointHistory:
    """The newest joint samples, to look up where the joints were when an image was taken."""

    def __init__(self) -> None:
        """Start empty."""
        self._samples: deque[JointSample] = deque(maxlen=_HISTORY)

    @property
    def newest(self) -> JointSample | None:
        """The newest sample."""
        return self._samples[-1] if self._samples else None

    def add(self, sample: JointSample) -> bool:
        """Keep a sample, and return True; drop one that is not newer than the newest."""
        if self._samples and sample.stamp_ns <= self._samples[-1].stamp_ns:
            return False
        self._samples.append(sample)
        return True

    def clear(self) -> None:
        """Forget all."""
        self._samples.clear()

    def at(self, stamp_ns: int, tolerance_ns: int) -> JointSample | None:
        """Return the joints at a time: interpolated between two samples, or the nearest one.

        Args:
            stamp_ns: The time.
            tolerance_ns: How far the nearest sample may lie, before the oldest or after the newest.

        Returns:
            The sample, stamped `stamp_ns` where it is interpolated, or None if none is near enough.

        """
        after: JointSample | None = None
        for sample in reversed(self._samples):
            if sample.stamp_ns <= stamp_ns:
                if after is not None:
                    return _between(sample, after, stamp_ns)
                return sample if stamp_ns - sample.stamp_ns <= tolerance_ns else None
            after = sample
        if after is not None and after.stamp_ns - stamp_ns <= tolerance_ns:
            return after
        return None


def _between(before: JointSample, after: JointSample, stamp_ns: int) -> JointSample:
    share = (stamp_ns - before.stamp_ns) / (after.stamp_ns - before.stamp_ns)

    def mix(a: Array, b: Array) -> Array:
        return np.asarray(a + (b - a) * share, np.float64)

    gripper = None
    if before.gripper is not None and after.gripper is not None:
        gripper = before.gripper + (after.gripper - before.gripper) * share
    effort = None
    if before.effort is not None and after.effort is not None:
        effort = mix(before.effort, after.effort)
    return JointSample(
        stamp_ns=stamp_ns,
        position=mix(before.position, after.position),
        velocity=mix(before.velocity, after.velocity),
        effort=effort,
        gripper=gripper,
    )
