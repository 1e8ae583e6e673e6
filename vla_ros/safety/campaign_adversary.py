"""What a campaign does to the filter: wishes, faults of what comes in, and faults of time.

An adversary acts in phases of some tenths of a second, drawn for each arm by itself: a wish (random
walk, saturated steps, circles, a push by the gradient of one bound, back and forth in its
direction), the kind of command by which it is said, the way in which the joint states lie, and
faults. All wishes are arrays over the K arms; Python objects are made only where the filter asks
for them. n is the number of joints.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vla_ros.replay.judge import Judge
from vla_ros.safety.campaign_plant import Plants
from vla_ros.types import AnyCommand, Array, Command, JointVelocityCommand, PoseCommand

Indices = NDArray[np.int64]

REFRESHED = 8
"""Ticks between two gradients."""
PATTERNS = ("walk", "saturate", "push", "push", "push", "bang", "bang", "circle", "still")
KINDS = ("twist", "twist", "twist", "joints", "pose", "delta")
LIES = ("none", "constant", "random", "worst", "flip")
FAULTS = (
    "none", "none", "none", "none", "bits", "nan", "stamp", "frame", "silent", "mute", "blind",
    "broken",
    "gripper", "stop", "estop",
)  # fmt: skip
_STEP = 1e-5
"""Joint step in rad, or m, of the gradients' differences."""
_LOUD = 8.0
"""Greatest wish as a multiple of the speed bounds; more is refused as implausible."""


@dataclass(frozen=True, slots=True)
class Limits:
    """What the adversary knows of the robot: numbers as they stand in the robot file."""

    base_frame: str
    tcp_frame: str
    linear_speed: float
    angular_speed: float
    joint_speed: Array
    joint_torque: Array
    joint_position_error: float
    gripper_min: float
    gripper_max: float
    has_gripper: bool


def margins(judge: Judge, limits: Limits, angles: Array) -> Array:
    """Return what is left to every bound of a resting arm, shape (T, bounds).

    Places as the judge sees them, and the torques that gravity takes.
    """
    still = np.zeros_like(angles)
    held = judge.arm.torques(angles, still, still)
    rooms = judge.rooms(angles)
    columns = [
        rooms["workspace"], rooms["keep_out"], rooms["joint_position"], rooms["tool_cone"],
        rooms["singularity"], limits.joint_torque - held, limits.joint_torque + held,
    ]  # fmt: skip
    return np.concatenate(columns, axis=1)


def groups(judge: Judge) -> dict[str, Indices]:
    """Return the columns of `margins` that belong to each bound, of those that there are."""
    joints = len(judge.joints)
    sizes = {
        "workspace": sum(rule.bound == "workspace" for rule in judge.rules),
        "keep_out": sum(rule.bound == "keep_out" for rule in judge.rules),
        "joint_position": 2 * joints,
        "tool_cone": 1,
        "singularity": 1,
        "joint_torque": 2 * joints,
    }
    ends = np.cumsum(list(sizes.values()))
    found = {n: np.arange(end - s, end) for (n, s), end in zip(sizes.items(), ends, strict=True)}
    return {name: columns for name, columns in found.items() if len(columns)}


class Adversary:
    """Drives K filters at once."""

    def __init__(
        self, judge: Judge, limits: Limits, rng: np.random.Generator, count: int, focus: str = ""
    ) -> None:
        """Begin with new phases.

        Args:
            judge: Its kinematics tell the directions that are worst.
            limits: Of the robot.
            rng: Where everything is drawn from.
            count: Number of arms, K.
            focus: The only bound to push against, if not empty: a key of `groups`.

        """
        self._judge, self._limits, self._rng, self._count = judge, limits, rng, count
        self._joints = len(judge.joints)
        every = groups(judge)
        self._groups = [every[focus]] if focus else list(every.values())
        self._tick = 0
        self._bounds = np.array([limits.linear_speed] * 3 + [limits.angular_speed] * 3)
        count_joints = (count, self._joints)
        self._pattern = np.full(count, "still", dtype="<U10")
        self._kind = np.full(count, "twist", dtype="<U10")
        self.lie = np.full(count, "none", dtype="<U10")
        self.fault = np.full(count, "none", dtype="<U10")
        self._left = np.zeros(count, dtype=np.int64)
        self._column = np.zeros(count, dtype=np.int64)
        self._loud = np.ones(count)
        self._half = np.ones(count, dtype=np.int64)
        self._sign: Array = np.ones(count)
        self._twist = np.zeros((count, 6))
        self._other = np.zeros((count, 6))
        self._speeds = np.zeros(count_joints)
        self._worst: Array = np.zeros(count_joints)
        self._constant = np.zeros(count_joints)
        self._wish: Array = np.zeros((count, 6))
        self._wish_joints: Array = np.zeros(count_joints)
        self._goal: Array = np.zeros((count, 3))
        self._turn: Array = np.zeros((count, 4))
        self._grip = np.full(count, np.nan)
        self._room: Array = np.zeros((count, 0))

    def think(self, plants: Plants) -> None:
        """Choose what is wished at this tick; the arms' true state is known to the adversary."""
        rng, limits = self._rng, self._limits
        if self._tick % REFRESHED == 0:
            self._worst = self._gradients(plants.position)
        self._left -= 1
        for i in np.flatnonzero(self._left < 0):
            self._draw(int(i))

        phase = self._left // self._half
        self._sign = np.where((self._pattern == "bang") & (phase % 2 == 1), -1.0, 1.0)
        self._twist += rng.normal(0.0, 0.15, self._twist.shape) * (self._pattern == "walk")[:, None]
        np.clip(self._twist, -1.0, 1.0, out=self._twist)
        circling = self._pattern == "circle"
        angle = self._tick / np.maximum(self._half, 2) * np.pi
        circle = np.cos(angle)[:, None] * self._twist + np.sin(angle)[:, None] * self._other
        twist: Array = np.where(circling[:, None], circle, self._twist)
        speeds: Array = self._speeds

        led = (self._pattern == "push") | (self._pattern == "bang")
        toward = (plants.jacobian @ self._worst[:, :, None])[:, :, 0] / self._bounds
        aside = 0.3 * self._other * (self._half % 3 == 0)[:, None]
        largest = np.abs(toward).max(axis=1, keepdims=True)
        led_twist: Array = toward / np.maximum(largest, 1e-9) + aside
        twist = np.where(led[:, None], led_twist, twist)
        speeds = np.where(led[:, None], self._worst / limits.joint_speed, speeds)

        loud = (self._loud * self._sign * (self._pattern != "still"))[:, None]
        self._wish = twist * self._bounds * loud
        self._wish_joints = speeds * limits.joint_speed * loud
        if self._tick % REFRESHED == 0:
            self._set_goals(plants)
        self._tick += 1

    def _draw(self, i: int) -> None:
        """Begin a new phase of arm `i`."""
        rng = self._rng
        self._left[i] = rng.integers(5, 100)
        self._pattern[i] = rng.choice(PATTERNS)
        self._kind[i] = rng.choice(KINDS)
        self.lie[i] = rng.choice(LIES)
        self.fault[i] = rng.choice(FAULTS)
        group = self._groups[rng.integers(len(self._groups))]
        nearest = group[np.argmin(self._room[i, group])]
        self._column[i] = nearest if rng.random() < 0.7 else rng.choice(group)  # noqa: PLR2004
        self._loud[i] = rng.choice((0.1, 0.5, 1.0, 1.0, 2.0, _LOUD))
        self._half[i] = rng.integers(1, 25)
        twist = rng.choice((-1.0, -0.3, 0.0, 0.3, 1.0), 6) if rng.random() < 0.5 else (  # noqa: PLR2004
            rng.uniform(-1.0, 1.0, 6)
        )  # fmt: skip
        self._twist[i] = twist
        self._other[i] = rng.uniform(-1.0, 1.0, 6)
        self._speeds[i] = rng.uniform(-1.0, 1.0, self._joints)
        self._constant[i] = rng.choice((-1.0, 1.0), self._joints)
        low, high = self._limits.gripper_min, self._limits.gripper_max
        self._grip[i] = rng.choice((np.nan, low, high, rng.uniform(low, high)))

    def _gradients(self, positions: Array) -> Array:
        """Return the joint directions that use up each arm's chosen margin fastest, (K, n).

        Of length 1 in the joint that moves most, relative to its speed bound.
        """
        count, joints = positions.shape
        steps = np.concatenate([np.zeros((1, joints)), _STEP * np.eye(joints)])
        asked = (positions[:, None, :] + steps).reshape(-1, joints)
        every = margins(self._judge, self._limits, asked).reshape(count, joints + 1, -1)
        self._room = every[:, 0]
        left: Array = every[np.arange(count), :, self._column]
        slope = (left[:, :1] - left[:, 1:]) * self._limits.joint_speed**2
        share = np.abs(slope / self._limits.joint_speed).max(axis=1, keepdims=True)
        return np.asarray(slope / np.maximum(share, 1e-12))

    def _set_goals(self, plants: Plants) -> None:
        """Place the goals of pose commands: where the wished joint motion would lead."""
        poses = self._judge.arm.poses(plants.position + 0.2 * self._wish_joints)
        goal, turn = poses.tip, poses.rotation
        delta = (self._kind == "delta")[:, None]
        now = self._judge.arm.poses(plants.position)
        back = np.swapaxes(now.rotation, 1, 2)
        away = (back @ (goal - now.tip)[:, :, None])[:, :, 0]
        self._goal = np.where(delta, away, goal)
        self._turn = quaternions(np.where(delta[:, :, None], back @ turn, turn))

    def command(self, i: int, now_ns: int) -> AnyCommand | None:
        """Return what arm `i` is asked for at this tick, if anything."""
        rng, kind = self._rng, str(self._kind[i])
        # Faulty is half of what is sent in such a phase.
        fault = str(self.fault[i]) if self.fault[i] == "none" or rng.random() < 0.5 else "none"  # noqa: PLR2004
        if fault == "silent" or self.fault[i] == "mute":
            return None
        grip = None if np.isnan(self._grip[i]) else float(self._grip[i])
        if fault == "gripper":
            grip = float(rng.choice((np.nan, np.inf, -1.0, 2.0, 1e300)))
        if fault == "stamp":
            now_ns += int(rng.choice((-(10**15), -(10**8), -1, 10**6, 10**8, 10**18)))
        frame = self._limits.tcp_frame if kind == "delta" else self._limits.base_frame
        if fault == "frame":
            frame = "map"
        if kind in {"pose", "delta"}:
            goal, turn = self._goal[i].copy(), self._turn[i].copy()
            self._spoil(fault, goal if rng.random() < 0.5 else turn)  # noqa: PLR2004
            return PoseCommand(now_ns, frame, goal, turn, kind == "delta", grip)
        values = self._wish_joints[i].copy() if kind == "joints" else self._wish[i].copy()
        self._spoil(fault, values)
        if kind == "joints":
            return JointVelocityCommand(now_ns, values, grip)
        return Command(now_ns, frame, values, grip)

    def _spoil(self, fault: str, values: Array) -> None:
        """Put a number that is wrong in the place of one of `values`, if that is the fault."""
        if fault == "bits":
            flip_bit(values, self._rng)
        elif fault == "nan":
            wrong = self._rng.choice((np.nan, np.inf, -np.inf, 1e300, -1e18))
            values[self._rng.integers(len(values))] = wrong

    def errors(self) -> Array:
        """Return by how much the joint states lie, within the sensors' error, (K, n)."""
        rng, size = self._rng, self._limits.joint_position_error
        lie = self.lie[:, None]
        worst = -np.sign(self._worst)
        random = rng.uniform(-1.0, 1.0, self._constant.shape)
        share = np.where(lie == "constant", self._constant, 0.0)
        share = np.where(lie == "random", random, share)
        share = np.where(lie == "worst", worst, share)
        share = np.where(lie == "flip", self._constant * (1.0 if self._tick % 2 else -1.0), share)
        return np.asarray(size * share)


def flip_bit(values: Array, rng: np.random.Generator) -> None:
    """Flip one bit of one of the numbers, in place."""
    bits = values.view(np.uint64)
    bits[rng.integers(len(values))] ^= np.uint64(1) << np.uint64(rng.integers(64))


def quaternions(rotations: Array) -> Array:
    """Return the quaternions (K, 4), x y z w, of rotations (K, 3, 3).

    The eigenvector of the largest eigenvalue of a symmetric matrix (Bar-Itzhack 2000), which needs
    no cases.
    """
    r = rotations
    square = np.empty((len(r), 4, 4))
    trace = r[:, 0, 0] + r[:, 1, 1] + r[:, 2, 2]
    square[:, :3, :3] = r + np.swapaxes(r, 1, 2) - trace[:, None, None] * np.eye(3)
    rest = np.stack([r[:, 2, 1] - r[:, 1, 2], r[:, 0, 2] - r[:, 2, 0], r[:, 1, 0] - r[:, 0, 1]], 1)
    square[:, :3, 3] = square[:, 3, :3] = rest
    square[:, 3, 3] = trace
    return np.asarray(np.linalg.eigh(square)[1][:, :, 3])


def limits_of(parameters: Mapping[str, Any]) -> Limits:
    """Return the adversary's numbers from the parameters of a robot file."""
    robot, bounds = parameters["robot"], parameters["bounds"]
    return Limits(
        base_frame=robot["base_frame"],
        tcp_frame=robot["tcp_frame"],
        linear_speed=bounds["linear_speed"],
        angular_speed=bounds["angular_speed"],
        joint_speed=np.array(bounds["joint_speed"]),
        joint_torque=np.array(bounds["joint_torque"]),
        joint_position_error=bounds["joint_position_error"],
        gripper_min=bounds.get("gripper_min", 0.0),
        gripper_max=bounds.get("gripper_max", 0.0),
        has_gripper=bool(robot.get("gripper_joints")),
    )
