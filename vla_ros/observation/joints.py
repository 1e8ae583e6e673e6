"""Measured joints: from a message's lists to the robot's order, and to the time of an image."""

import math
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import reduce
from operator import add, itemgetter

import numpy as np

from vla_ros.robot import RobotConfig
from vla_ros.types import Array, JointSample

_HISTORY = 256
"""Samples kept: over 2 s at 100 Hz, 0.25 s at 1 kHz, longer than a frame may be old."""
_GRIPPER_NS = 1_000_000_000
"""How far in time an opening may be that came in a message of its own: some report at 10 Hz."""
_SPEED_NS = 50_000_000
"""Time over which positions are compared for a speed, so that stamps some ms off, or a step of an
encoder, make little of it."""
_LAYOUTS = 16
"""Lists of names that are remembered: those of a robot's drivers."""


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


@dataclass(frozen=True, slots=True)
class _Layout:
    """Where a robot's joints are in lists of some names: indices in the robot's order.

    Attributes:
        names: The names.
        arm: The arm's joints; empty where it has none of them.
        fingers: The gripper's, likewise.
        pick: Takes both's positions, and the arm's velocities and efforts, out of the three lists,
            one behind the other.

    """

    names: tuple[str, ...]
    arm: list[int]
    fingers: list[int]
    pick: Callable[[tuple[float, ...]], tuple[float, ...]]


class JointReader:
    """Picks a robot's joints out of joint states, in whatever order and company they come.

    The gripper's may come in messages of their own, as from a driver of its own: its last opening
    then goes with the arm's joints, if it is no older than a second. Messages with none of the
    robot's joints are passed over once its own have come. Of velocities or efforts that are not
    measured, a list is empty or NaN in all of the arm's joints, as ros2_control has it: such
    velocities are made of the positions, as means over 50 ms (0 at first).
    """

    def __init__(self, robot: RobotConfig) -> None:
        """Take the joints and gripper joints of `robot`."""
        self._robot = robot
        self._layouts: dict[tuple[str, ...], _Layout] = {}
        self._gripper: tuple[int, float, float | None] | None = None
        self._past: deque[tuple[int, Array]] = deque()

    def read(
        self,
        stamp_ns: int,
        names: Sequence[str],
        position: Sequence[float],
        velocity: Sequence[float],
        effort: Sequence[float] = (),
    ) -> JointSample | None:
        """Return the robot's joints, in the order of the robot file; None without the arm's.

        Args:
            stamp_ns: Time of measurement.
            names: Names of the joints in the lists that follow.
            position: In rad, or m for slides.
            velocity: In rad/s or m/s; empty where none is measured.
            effort: In Nm or N; likewise.

        Raises:
            JointError: If a joint of the robot is missing, a list has another length than `names`,
                or a value of the robot's is not finite.

        """
        layout = self._layouts.get(tuple(names)) or self._find(tuple(names))
        count = len(layout.arm)
        if not count:
            if not layout.fingers:
                return None
            fingers = self._take("position", position, layout, layout.fingers)
            self._gripper = stamp_ns, reduce(add, fingers), _closing(effort, layout)
            return None
        if len(position) == len(velocity) == len(effort) == len(layout.names):
            # All at once: an array of few numbers costs no more than one of one.
            taken = layout.pick((*position, *velocity, *effort))
            if math.isfinite(sum(taken)):
                every = np.array(taken, np.float64)
                return JointSample(
                    stamp_ns,
                    every[:count],
                    every[-2 * count : -count],
                    every[-count:],
                    *self._opening(stamp_ns, taken[count : -2 * count], effort, layout),
                )
        taken = self._take("position", position, layout, layout.arm + layout.fingers)
        positions = np.array(taken[:count], np.float64)
        speeds = self._measured("velocity", velocity, layout)
        efforts = self._measured("effort", effort, layout)
        if speeds is None:
            if efforts is not None and self._robot.bounds.effort_samples:
                msg = (
                    "joint_states has efforts without velocities, by which a push is told from a "
                    "motion: have the driver measure them, or set bounds.effort_samples to 0"
                )
                raise JointError(msg)
            speeds = self._speeds(stamp_ns, positions)
        return JointSample(
            stamp_ns,
            positions,
            speeds,
            efforts,
            *self._opening(stamp_ns, taken[count:], effort, layout),
        )

    def _opening(
        self, stamp_ns: int, fingers: tuple[float, ...], effort: Sequence[float], layout: _Layout
    ) -> tuple[float | None, float | None]:
        """Return the gripper's opening in m and its effort that closes, None where there is none.

        Raises:
            JointError: If neither the message nor one shortly before it has the gripper's joints.

        """
        if fingers:
            return float(reduce(add, fingers)), _closing(effort, layout)
        if not self._robot.gripper_joints:
            return None, None
        if self._gripper is None or abs(stamp_ns - self._gripper[0]) > _GRIPPER_NS:
            raise self._missing(self._robot.gripper_joints[0], layout.names)
        return self._gripper[1:]

    def _speeds(self, stamp_ns: int, positions: Array) -> Array:
        """Return the mean speeds of the last `_SPEED_NS`, rad/s."""
        past = self._past
        if past and stamp_ns <= past[-1][0]:
            past.clear()
        while len(past) > 1 and stamp_ns - past[1][0] >= _SPEED_NS:
            past.popleft()
        past.append((stamp_ns, positions))
        first_ns, first = past[0]
        return (positions - first) / (max(stamp_ns - first_ns, 1) / 1e9)

    def _find(self, names: tuple[str, ...]) -> _Layout:
        """Return the layout of lists of these names, and keep it."""
        robot, there = self._robot, set(names)
        with_fingers = not there.isdisjoint(robot.gripper_joints)
        fingers = self._indices(robot.gripper_joints, names) if with_fingers else []
        arm: list[int] = []
        known = with_fingers or any(layout.arm for layout in self._layouts.values())
        if not (known and there.isdisjoint(robot.joints)):
            arm = self._indices(robot.joints, names)
        size = len(names)
        pick: Callable[[tuple[float, ...]], tuple[float, ...]] = tuple
        if arm:
            pick = itemgetter(
                *arm, *fingers, *(size + i for i in arm), *(2 * size + i for i in arm)
            )
        if len(self._layouts) >= _LAYOUTS:
            self._layouts.clear()
        self._layouts[names] = layout = _Layout(names, arm, fingers, pick)
        return layout

    def _indices(self, joints: Sequence[str], names: tuple[str, ...]) -> list[int]:
        for joint in joints:
            if joint not in names:
                raise self._missing(joint, names)
        return [names.index(joint) for joint in joints]

    def _missing(self, joint: str, names: tuple[str, ...]) -> JointError:
        return JointError(
            f"joint_states has no joint {joint!r}, which the robot file of {self._robot.name!r} "
            f"names; it has {', '.join(names) or 'none'}: use the robot file of this robot"
        )

    def _measured(self, what: str, values: Sequence[float], layout: _Layout) -> Array | None:
        """Return the arm's values, None where there are none: an empty list, or NaN throughout."""
        whole = len(values) == len(layout.names)
        if not len(values) or (whole and all(math.isnan(values[index]) for index in layout.arm)):
            return None
        return np.array(self._take(what, values, layout, layout.arm), np.float64)

    @staticmethod
    def _take(
        what: str, values: Sequence[float], layout: _Layout, indices: list[int]
    ) -> tuple[float, ...]:
        names = layout.names
        if len(values) != len(names):
            msg = f"joint_states has {len(values)} values of {what} for {len(names)} joints"
            raise JointError(msg)
        taken = tuple([values[index] for index in indices])
        # What is not finite makes the sum so; so does the sum of values that are absurd.
        if not math.isfinite(sum(taken)) and not all(map(math.isfinite, taken)):
            joint = next(names[index] for index in indices if not math.isfinite(values[index]))
            msg = f"the {what} of {joint!r} in joint_states is not finite"
            raise JointError(msg)
        return taken


def _closing(effort: Sequence[float], layout: _Layout) -> float | None:
    """Return the effort of the finger that closes the hardest, None where none is measured."""
    if not layout.fingers or len(effort) != len(layout.names):
        return None
    least = min([float(effort[index]) for index in layout.fingers])
    # Drivers that know the arm's efforts alone fill in NaN for the fingers.
    return least if math.isfinite(least) else None


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
