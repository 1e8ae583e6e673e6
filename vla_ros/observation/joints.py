"""Measured joints: from a message's lists to the robot's order, and to the time of an image."""

import math
from collections import deque
from collections.abc import Callable, Sequence
from functools import reduce
from operator import add, itemgetter

import numpy as np

from vla_ros.robot import RobotConfig
from vla_ros.types import Array, JointSample

_HISTORY = 256
"""Samples kept: over 2 s at 100 Hz, 0.25 s at 1 kHz, longer than a frame may be old."""


class JointError(ValueError):
    """A joint state lacks what the robot file names, or holds what is no measurement."""


def in_order(
    joints: Sequence[str], names: Sequence[str], values: Sequence[float], what: str
) -> list[float]:
    """Return one value for each of `joints`, from lists in another order.

    Raises:
        JointError: If `names` are not exactly these joints, or `values` has another length.

    """
    if sorted(names) != sorted(joints) or len(values) != len(names):
        msg = (
            f"{what} has {len(values)} values for the joints {', '.join(names) or 'none'}: it is "
            f"to have one for each of {', '.join(joints)}"
        )
        raise JointError(msg)
    by_name = dict(zip(names, values, strict=True))
    return [by_name[joint] for joint in joints]


class JointReader:
    """Picks a robot's joints out of joint states, in whatever order and company they come."""

    def __init__(self, robot: RobotConfig) -> None:
        """Take the joints and gripper joints of `robot`."""
        self._robot = robot
        self._names: tuple[str, ...] = ()
        self._arm: list[int] = []
        self._fingers: list[int] = []
        self._pick: Callable[[tuple[float, ...]], tuple[float, ...]] = tuple

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
            size, arm = len(self._names), self._arm
            self._pick = itemgetter(
                *arm, *self._fingers, *(size + i for i in arm), *(2 * size + i for i in arm)
            )
        count = len(self._arm)
        if len(position) == len(velocity) == len(effort) == len(names):
            # All at once: an array of few numbers costs no more than one of one.
            taken = self._pick((*position, *velocity, *effort))
            if math.isfinite(sum(taken)):
                every = np.array(taken, np.float64)
                fingers = taken[count : -2 * count]
                return JointSample(
                    stamp_ns,
                    every[:count],
                    every[-2 * count : -count],
                    every[-count:],
                    float(reduce(add, fingers)) if fingers else None,
                    self._closing(effort),
                )
        positions = self._take("position", position, self._arm + self._fingers)
        return JointSample(
            stamp_ns=stamp_ns,
            position=positions[:count],
            velocity=self._take("velocity", velocity, self._arm),
            effort=self._take("effort", effort, self._arm) if len(effort) else None,
            gripper=reduce(add, positions[count:].tolist()) if self._fingers else None,
            gripper_effort=self._closing(effort),
        )

    def _closing(self, effort: Sequence[float]) -> float | None:
        """Return the effort of the finger that closes the hardest, None where none is measured."""
        if not self._fingers or not len(effort):
            return None
        least = min([float(effort[index]) for index in self._fingers])
        # Drivers that know the arm's efforts alone fill in NaN for the fingers.
        return least if math.isfinite(least) else None

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
        taken = [values[index] for index in indices]
        # What is not finite makes the sum so; so does the sum of values that are absurd.
        if not math.isfinite(sum(taken)) and not all(map(math.isfinite, taken)):
            joint = next(
                self._names[index] for index in indices if not math.isfinite(values[index])
            )
            msg = f"the {what} of {joint!r} in joint_states is not finite"
            raise JointError(msg)
        return np.array(taken, np.float64)


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

    def knows(self, stamp_ns: int, tolerance_ns: int) -> bool:
        """Return whether `at` would return a sample."""
        if not self._samples:
            return False
        first_ns, last_ns = self._samples[0].stamp_ns, self._samples[-1].stamp_ns
        return first_ns - tolerance_ns <= stamp_ns <= last_ns + tolerance_ns

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
    gripper_effort = None
    if before.gripper_effort is not None and after.gripper_effort is not None:
        change = after.gripper_effort - before.gripper_effort
        gripper_effort = before.gripper_effort + change * share
    return JointSample(
        stamp_ns=stamp_ns,
        position=mix(before.position, after.position),
        velocity=mix(before.velocity, after.velocity),
        effort=effort,
        gripper=gripper,
        gripper_effort=gripper_effort,
    )
