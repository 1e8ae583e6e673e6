"""Counts where commands to the robot, and the motion that follows from them, broke a bound.

A judge that shared code with the accused would share its errors: this module, `judge_arm` and
`judge_volumes` read the robot file, compute kinematics, dynamics and distances, and check bounds
on their own, and use neither `vla_ros.safety`, nor `vla_ros.robot`, nor `vla_ros.kinematics`. They
work on whole recordings at once, as arrays.
"""

import math
from bisect import bisect_right
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from numpy.typing import NDArray

from vla_ros.replay.bags import read_bag, stamp_ns
from vla_ros.replay.judge_arm import (
    Arm,
    Array,
    JudgeError,
    Poses,
    cross,
    smallest_singular_values,
)
from vla_ros.replay.judge_volumes import Rule, rules
from vla_ros.yaml_text import parse_yaml

__all__ = ["Judge", "JudgeError", "Recording", "Tick", "Verdict", "judge_bag"]

Mask = NDArray[np.bool_]
Stamps = NDArray[np.int64]

SECOND_NS = 1_000_000_000
ROUNDING = 1e-9
_RATES_HZ = (1.0, 10_000.0)
_BLOCK = 4096
"""Excess in a bound's own unit that double precision explains."""
JERK_ROUNDING = 1e-6
"""The same for jerk, a second difference, as a share of its bound."""
MEASURED = {"workspace": 0.002, "keep_out": 0.002, "tool_cone": 0.02, "singularity": 0.01}
"""How far beyond a bound a measured arm may be found: it follows with a lag, and noise is added.

In each bound's unit; joint positions may be out by `joint_position_error`.
"""
_INSTANT = 1e-4
"""Time in s over which an approach to a surface is a difference quotient."""
_CREEP = 1e-3
"""Slower approaches, in m/s, are those of a curved surface that is slid along."""
FOLLOWED = 0.01
"""Share by which joint motion may exceed its bounds where a twist was sent, and not it.

The filter predicts the joint motion by which the robot follows a twist; a robot that is a delay
behind stands elsewhere, and so moves its joints a little differently.
"""
EXAMPLES = 5

UNITS = {
    "finite": "",
    "frame": "",
    "linear_speed": "m/s",
    "angular_speed": "rad/s",
    "linear_acceleration": "m/s^2",
    "angular_acceleration": "rad/s^2",
    "linear_jerk": "m/s^3",
    "angular_jerk": "rad/s^3",
    "joint_position": "rad",
    "joint_speed": "rad/s",
    "joint_acceleration": "rad/s^2",
    "joint_torque": "Nm",
    "joint_torque_rate": "Nm/s",
    "workspace": "m",
    "keep_out": "m",
    "tool_cone": "rad",
    "singularity": "",
    "gripper": "m",
    "gripper_speed": "m/s",
    "stopping_time": "s",
}
"""Every bound that is judged, and its unit; for slides read m and N, for such grippers rad."""


@dataclass(frozen=True, slots=True)
class Tick:
    """One command to the robot, and what was measured when it was sent.

    Attributes:
        stamp_ns: Time of the command.
        twist: Of the TCP in the base frame, m/s and rad/s, shape (6,).
        gripper: Opening in m, None if none was sent.
        position: Joint positions in rad, in the robot file's order; None if unknown.
        frame_id: Frame of the twist; None stands for the robot's base.

    """

    stamp_ns: int
    twist: Array
    gripper: float | None
    position: Array | None
    frame_id: str | None = None


@dataclass(frozen=True, slots=True)
class Recording:
    """What was sent to an arm that follows it exactly, a delay later: T commands, n joints.

    Attributes:
        stamp_ns: Time of each command on the clock that the filter was told, shape (T,).
        twist: What was sent, as twists of the TCP in the base frame, shape (T, 6); None where joint
            velocities were.
        joint_velocity: The joint motion by which each command was followed, shape (T, n).
        position: Joint positions when the arm began to follow each command, shape (T, n).
        gripper: Opening that was sent, shape (T,); NaN where none was.
        must_rest: Where the output has to come to rest: an e-stop, silence; shape (T,).

    """

    stamp_ns: Stamps
    twist: Array | None
    joint_velocity: Array
    position: Array
    gripper: Array
    must_rest: Mask


@dataclass(slots=True)
class Verdict:
    """What was found.

    Attributes:
        ticks: Commands that were judged.
        violations: Those outside at least one bound.
        by_bound: Number of commands outside each bound that was judged.
        margins: Smallest margin to each, in its unit (UNITS); negative if it was broken. Rounding,
            and what is granted to measured arms, count as margin.
        outside_m: How far outside the workspace the TCP was at most, in m; 0 if never.
        examples: The first few violations, each as a line.
        broken_ns: Stamps of the commands outside each bound that was broken; of one recording, they
            are not added up.

    """

    ticks: int = 0
    violations: int = 0
    by_bound: dict[str, int] = field(default_factory=dict)
    margins: dict[str, float] = field(default_factory=dict)
    outside_m: float = 0.0
    examples: list[str] = field(default_factory=list)
    broken_ns: dict[str, list[int]] = field(default_factory=dict)

    def add(self, other: "Verdict") -> None:
        """Add another recording's verdict to this."""
        self.ticks += other.ticks
        self.violations += other.violations
        for name, count in other.by_bound.items():
            self.by_bound[name] = self.by_bound.get(name, 0) + count
        for name, margin in other.margins.items():
            self.margins[name] = min(self.margins.get(name, math.inf), margin)
        self.outside_m = max(self.outside_m, other.outside_m)
        self.examples = [*self.examples, *other.examples][:EXAMPLES]

    def report(self) -> dict[str, Any]:
        """Return it for JSON."""
        bounds = {
            name: {
                "violations": count,
                "smallest_margin": _finite_or_none(self.margins.get(name, math.inf)),
                "unit": UNITS[name],
            }
            for name, count in self.by_bound.items()
        }
        return {
            "ticks": self.ticks,
            "violations": self.violations,
            "by_bound": self.by_bound,
            "bounds": bounds,
            "outside_m": self.outside_m,
            "examples": self.examples,
        }


class Judge:
    """Judges commands to one robot."""

    def __init__(self, robot_file: str | Path, urdf: str, rate_hz: float = 100.0) -> None:
        """Read the bounds, the kinematics and the masses.

        Args:
            robot_file: The robot file.
            urdf: The text of the robot's description.
            rate_hz: Rate of the commands.

        Raises:
            JudgeError: If either lacks something.

        """
        if not _RATES_HZ[0] <= rate_hz <= _RATES_HZ[1]:
            msg = f"a rate of {rate_hz} Hz is not from {_RATES_HZ[0]:g} to {_RATES_HZ[1]:g} Hz"
            raise JudgeError(msg)
        parameters = read_parameters(robot_file)
        try:
            robot, bounds = parameters["robot"], parameters["bounds"]
            self._bounds: Mapping[str, Any] = bounds
            self._frame = str(robot["base_frame"])
            self.joints = tuple(robot["joints"])
            self.arm = Arm(
                urdf,
                self._frame,
                str(robot["tcp_frame"]),
                self.joints,
                payload_mass=float(bounds["payload_mass"]),
                payload_centre=bounds["payload_com"],
            )
            self.rules: list[Rule] = rules(parameters)
            self._longest_s = 1.5 / rate_hz
            self._has_gripper = bool(robot.get("gripper_joints"))
            # A robot file that lacks a bound is found out here, and not in the middle.
            self.ticks([Tick(0, np.zeros(6), None, np.zeros(len(self.joints)))])
            still = np.zeros((1, len(self.joints)))
            none = np.full(1, np.nan)
            self.recording(
                Recording(np.zeros(1, np.int64), None, still, still, none, np.zeros(1, bool))
            )
        except KeyError as err:
            msg = f"robot file {robot_file} has no {err.args[0]!r}"
            raise JudgeError(msg) from err

    def ticks(self, ticks: Sequence[Tick]) -> Verdict:
        """Judge one episode, in the order in which its commands were sent, the first from rest.

        The positions are those that the filter saw.
        """
        return self._ticks(ticks, 0.0, from_rest=True)

    def steps(self, stamps: Stamps, twists: Array, grippers: Array, positions: Array) -> Verdict:
        """Judge one episode as `ticks` does, given as arrays of T commands.

        Args:
            stamps: Time of each, shape (T,).
            twists: What was sent, shape (T, 6).
            grippers: Opening that was sent, shape (T,); NaN where none was.
            positions: Joint positions, shape (T, n); NaN where they are unknown.

        """
        framed = np.ones(len(stamps), dtype=bool)
        return self._steps(stamps, twists, grippers, positions, framed, 0.0, from_rest=True)

    def recorded(self, ticks: Sequence[Tick], position_age: float) -> Verdict:
        """Judge a recording, which may have begun in motion.

        Args:
            ticks: The commands, with the newest positions measured before each.
            position_age: Age in s up to which the filter may have seen older ones.

        """
        return self._ticks(ticks, position_age, from_rest=False)

    def recording(self, recording: Recording) -> Verdict:
        """Judge the commands to an arm that follows exactly, from rest, and its motion.

        Where twists are sent and the arm is nearer to a singularity than allowed (it can only have
        started there), the bounds of joints are not judged: what joint motion an arm makes of a
        twist there changes by as much as itself within the sensors' error.
        """
        stamps = recording.stamp_ns
        seconds = self._seconds(stamps)
        positions, speeds = recording.position, recording.joint_velocity
        poses = self.arm.poses(positions)
        jacobians = self.arm.jacobian(positions, poses)
        share = 1.0
        if recording.twist is not None:
            share += FOLLOWED
        margins: dict[str, Array] = {}
        finite: Mask = np.asarray(np.isfinite(speeds).all(axis=1))
        if recording.twist is not None:
            finite &= np.isfinite(recording.twist).all(axis=1)
            margins |= self._sent_margins(recording.twist, seconds, from_rest=True)
        else:
            margins |= self._followed_margins(positions, speeds, seconds, jacobians)
        margins["finite"] = np.where(finite, 1.0, -1.0)
        joint_margins = self._joint_margins(positions, speeds, seconds, poses, share)
        singular = self._singular_values(jacobians)
        places = self._place_margins(positions, poses, singular, measured=False)
        if recording.twist is not None:
            joint_margins["joint_position"] = places["joint_position"]
            known = singular >= self._number("singularity_distance")
            ends = [0, *(np.flatnonzero(np.diff(known)) + 1), len(known)]
            for begin, end in pairwise(ends):
                part = slice(begin, end)
                if known[part].all():
                    joint_margins["joint_position"][part] = self._range_margins(positions[part])
                else:
                    for margin in joint_margins.values():
                        margin[part] = np.inf
        margins |= {**places, **joint_margins}
        margins |= self._gripper_margins(recording.gripper, seconds)
        sent = speeds if recording.twist is None else recording.twist
        margins["stopping_time"] = self._rest_margins(sent, seconds, recording.must_rest)
        return self._verdict(margins, stamps, sent, positions, poses)

    def _ticks(self, ticks: Sequence[Tick], position_age: float, *, from_rest: bool) -> Verdict:
        count = len(ticks)
        raw = np.array([t.twist for t in ticks], dtype=np.float64).reshape(count, 6)
        stamps = np.array([t.stamp_ns for t in ticks], dtype=np.int64)
        unknown = np.full(len(self.joints), np.nan)
        positions = np.array([unknown if t.position is None else t.position for t in ticks])
        positions = positions.reshape(count, len(self.joints))
        frames = np.array([t.frame_id in (None, self._frame) for t in ticks], dtype=bool)
        # None is no command to the gripper, NaN one that is wrong.
        grips = np.array([np.nan if t.gripper is None else _or_infinite(t.gripper) for t in ticks])
        return self._steps(stamps, raw, grips, positions, frames, position_age, from_rest=from_rest)

    def _steps(
        self,
        stamps: Stamps,
        raw: Array,
        grips: Array,
        positions: Array,
        frames: Mask,
        position_age: float,
        *,
        from_rest: bool,
    ) -> Verdict:
        finite: Mask = np.asarray(np.isfinite(raw).all(axis=1))
        twists = raw if finite.all() else np.where(finite[:, None], raw, 0.0)
        seconds = self._seconds(stamps)
        known: Mask = np.asarray(np.isfinite(positions).all(axis=1))
        # An arm that nobody knows of is somewhere all the same, and nowhere that can be told.
        somewhere, singular = self._tool(np.where(known[:, None], positions, 0.0))
        singular = np.where(known, singular, np.nan)
        poses = replace(somewhere, tip=np.where(known[:, None], somewhere.tip, np.nan))
        margins = {
            "finite": np.where(finite, 1.0, -1.0),
            "frame": np.where(frames, 1.0, -1.0),
            **self._sent_margins(twists, seconds, from_rest=from_rest),
            **self._place_margins(positions, poses, singular, measured=True),
            # A recorded opening has no stamp: it was received up to a tick earlier or later.
            **self._gripper_margins(grips, seconds + (0.0 if from_rest else self._longest_s)),
        }
        # An arm that leans on something may be pushed out: what counts is what it was told.
        reckless = self._reckless(
            twists, seconds, somewhere, known, position_age, from_rest=from_rest
        )
        for bound, mask in reckless.items():
            room = margins[bound]
            margins[bound] = np.where(mask, np.minimum(room, -ROUNDING), np.maximum(room, 0.0))
        return self._verdict(margins, stamps, raw, positions, poses)

    def _seconds(self, stamps: Stamps) -> Array:
        """Return the time for which each command may differ from the one before, shape (T,)."""
        seconds = np.diff(stamps, prepend=stamps[:1]) / SECOND_NS
        return np.asarray(np.clip(seconds, 0.0, self._longest_s))

    def _sent_margins(self, twists: Array, seconds: Array, *, from_rest: bool) -> dict[str, Array]:
        """Return the margins to speed, acceleration and jerk of the TCP as they are sent."""
        margins = {}
        for name, part in (("linear", twists[:, :3]), ("angular", twists[:, 3:])):
            speed = self._number(f"{name}_speed")
            margins[f"{name}_speed"] = speed + ROUNDING - _norms(part)
            change = _changes(part, from_rest=from_rest)
            margins[f"{name}_acceleration"] = _rate_margins(
                _norms(change), seconds, self._number(f"{name}_acceleration")
            )
            margins[f"{name}_jerk"] = _second_margins(
                change, seconds, self._number(f"{name}_jerk"), from_rest=from_rest
            )
        return margins

    def _followed_margins(
        self, positions: Array, speeds: Array, seconds: Array, jacobians: Array
    ) -> dict[str, Array]:
        """Return the same margins where joint velocities are sent: of the TCP that they move.

        The acceleration is J a + dJ/dt u; changes of u count over the filter's own time.
        """
        twists = _moved(jacobians, speeds)
        counted = seconds > 0.0
        changes = np.zeros_like(speeds)
        changes[counted] = _changes(speeds, from_rest=True)[counted] / seconds[counted, None]
        turning = self.arm.jacobian_rate(positions, speeds)
        accelerations = _moved(jacobians, changes) + _moved(turning, speeds)
        margins = {}
        for name, part in (("linear", slice(0, 3)), ("angular", slice(3, 6))):
            margins[f"{name}_speed"] = (
                self._number(f"{name}_speed") + ROUNDING - _norms(twists[:, part])
            )
            margins[f"{name}_acceleration"] = _where(
                counted,
                self._number(f"{name}_acceleration") + ROUNDING - _norms(accelerations[:, part]),
            )
            margins[f"{name}_jerk"] = _jerk_margins(
                accelerations[:, part], seconds, self._number(f"{name}_jerk")
            )
        return margins

    def _joint_margins(
        self, positions: Array, speeds: Array, seconds: Array, poses: Poses, share: float
    ) -> dict[str, Array]:
        """Return the margins to speed, acceleration, torque and torque rate of the joints."""
        counted = seconds > 0.0
        accelerations = np.zeros_like(speeds)
        changes = _changes(speeds, from_rest=True)
        accelerations[counted] = changes[counted] / seconds[counted, None]
        torques = self.arm.torques(positions, speeds, accelerations, poses)
        rates = np.zeros_like(torques)
        at = np.flatnonzero(counted)[1:]
        earlier = np.flatnonzero(counted)[:-1]
        between = (seconds[at] + seconds[earlier]) / 2.0
        rates[at] = (torques[at] - torques[earlier]) / between[:, None]
        margins = {"joint_speed": self._least(share, "joint_speed", speeds)}
        for name, values in (
            ("joint_acceleration", accelerations),
            ("joint_torque", torques),
            ("joint_torque_rate", rates),
        ):
            margins[name] = _where(counted, self._least(share, name, values))
        return margins

    def _least(self, share: float, name: str, values: Array) -> Array:
        """Return the smallest margin over the joints, shape (T,)."""
        bound = np.asarray(self._bounds[name], dtype=np.float64) * share
        return np.asarray((bound * (1.0 + ROUNDING) - np.abs(values)).min(axis=1))

    def _place_margins(
        self, positions: Array, poses: Poses, singular: Array, *, measured: bool
    ) -> dict[str, Array]:
        """Return the margins of where the arm is: joint ranges, volumes, cone, singularity.

        Outside a bound the arm may stay and come back, but not go further out: there the margin is
        to the farthest in that it has been, less what the filter cannot see (`slack`).
        """
        sensor, tracking = self._number("joint_position_error"), self._number("tracking_error")
        # What an arm can turn unseen.
        spread = sensor * math.sqrt(len(self.joints))
        slack = {
            "joint_position": sensor,
            "workspace": tracking,
            "keep_out": tracking,
            "tool_cone": spread,
            "singularity": spread,
        }
        granted = MEASURED | {"joint_position": sensor} if measured else {}
        margins = {}
        for name, rooms in self._rooms(positions, poses, singular):
            if not measured and name in ("workspace", "keep_out"):
                # An arm that follows exactly keeps all of the distance that others may need.
                rooms -= tracking  # noqa: PLW2901 - nobody else has them
            margins[name] = _inward(rooms, slack[name], granted.get(name, 0.0))
        return margins

    def _range_margins(self, positions: Array) -> Array:
        """Return the margins to the joints' ranges of a part of a recording, begun there."""
        low = np.asarray(self._bounds["joint_position_min"], dtype=np.float64)
        high = np.asarray(self._bounds["joint_position_max"], dtype=np.float64)
        room = np.concatenate([positions - low, high - positions], axis=1)
        return _inward(room, self._number("joint_position_error"), 0.0)

    def rooms(self, positions: Array) -> dict[str, Array]:
        """Return how far joint positions (T, n) are inside of each bound on where the arm is.

        Each value holds (T, k) distances in its unit, negative outside: `joint_position` two
        for each joint, lower ends first, `workspace` and `keep_out` one for each pair of a volume
        and a point, `tool_cone` and `singularity` one.
        """
        return dict(self._rooms(positions, *self._tool(positions)))

    def _rooms(
        self, positions: Array, poses: Poses, singular: Array
    ) -> Iterator[tuple[str, Array]]:
        """Yield what `rooms` returns, one after the other: all at once they take much memory."""
        low = np.asarray(self._bounds["joint_position_min"], dtype=np.float64)
        high = np.asarray(self._bounds["joint_position_max"], dtype=np.float64)
        yield "joint_position", np.concatenate([positions - low, high - positions], axis=1)
        yield "tool_cone", self._cone_margins(poses)[:, None]
        yield "singularity", (singular - self._number("singularity_distance"))[:, None]
        for bound in ("workspace", "keep_out"):
            found = [rule.room(poses) for rule in self.rules if rule.bound == bound]
            yield bound, np.stack(found, axis=1) if found else np.zeros((len(positions), 0))

    def _cone_margins(self, poses: Poses) -> Array:
        """Return the angle left between the tool's axis and the surface of its cone, (T,)."""
        bounds = self._bounds
        tool = poses.rotation @ _unit(bounds["tool_axis"])
        axis = _unit(bounds["tool_cone_axis"])
        # The angle between unit vectors that is exact at 0 and at pi alike (Kahan).
        angle = 2.0 * np.arctan2(_norms(tool - axis), _norms(tool + axis))
        left = self._number("tool_cone_angle") - angle
        # Where nothing is known, only the position says so.
        return np.where(np.isnan(poses.tip[:, 0]), np.nan, left)

    def _tool(self, positions: Array) -> tuple[Poses, Array]:
        """Return the tool's poses and the least singular values at joint positions (T, n).

        A block at a time, as what they are made of takes many times their memory.
        """
        count = len(positions)
        tips, rotations, values = np.empty((count, 3)), np.empty((count, 3, 3)), np.empty(count)
        for begin in range(0, count, _BLOCK):
            part = slice(begin, begin + _BLOCK)
            poses = self.arm.poses(positions[part])
            tips[part], rotations[part] = poses.tip, poses.rotation
            values[part] = self._singular_values(self.arm.jacobian(positions[part], poses))
        return Poses(tips, rotations, [], [], []), values

    def _singular_values(self, jacobians: Array) -> Array:
        return smallest_singular_values(jacobians, self._number("characteristic_length"))

    def _gripper_margins(self, grips: Array, seconds: Array) -> dict[str, Array]:
        """Return the margins of the openings that were sent; NaN stands for none."""
        if not self._has_gripper:
            return {"gripper": np.where(np.isnan(grips), 1.0, -1.0)}
        bounds = self._bounds
        low, high = self._number("gripper_min"), self._number("gripper_max")
        room = np.minimum(grips - low, high - grips) + ROUNDING
        known = np.isfinite(grips)
        change = np.zeros(len(grips))
        change[1:] = np.where(
            known[1:] & known[:-1], np.abs(np.diff(np.where(known, grips, 0.0))), 0.0
        )
        speed = float(bounds["gripper_speed"])
        return {
            "gripper": np.where(np.isnan(grips), np.inf, room),
            "gripper_speed": _rate_margins(change, seconds, speed),
        }

    def _rest_margins(self, sent: Array, seconds: Array, must_rest: Mask) -> Array:
        """Return the time left to come to rest where that is asked for, (T,).

        Counted in the filter's own time, from the end of the period in which it was first asked.
        """
        total = np.cumsum(seconds)
        starts = must_rest & ~np.concatenate([[False], must_rest[:-1]])
        begun = np.maximum.accumulate(np.where(starts, total, -np.inf))
        left = self._number("stopping_time") + self._longest_s - (total - begun)
        moving = np.abs(sent).max(axis=1, initial=0.0) > 1e-6  # noqa: PLR2004 - not rounding
        return np.where(must_rest & moving, left + ROUNDING, np.inf)

    def _reckless(
        self,
        twists: Array,
        seconds: Array,
        poses: Poses,
        known: Mask,
        position_age: float,
        *,
        from_rest: bool,
    ) -> dict[str, Mask]:
        """Return where a command moves a point toward a surface that it cannot stop before.

        Those are commands that neither brake nor leave room for the way of the reaction delay and
        v^2 / (2 a), with all of the acceleration bound: what no filter could stop. The same holds
        where the position is not `known`, whatever its pose, for any motion. Needed where the
        motion that followed is not known, or not known exactly.
        """
        before = np.vstack([twists[:1] * (0.0 if from_rest else 1.0), twists])[:-1]
        delay = max(0.0, self._number("reaction_delay") - position_age)
        slack = MEASURED["workspace"] if position_age > 0.0 else ROUNDING
        braking = self._number("linear_acceleration")
        fade = 1.0 - seconds / (8.0 * self._number("stopping_time"))

        speed, earlier = _norms(twists[:, :3]), _norms(before[:, :3])
        blind = ~known & (speed > ROUNDING) & (speed > earlier * fade)
        masks = {"workspace": blind, "keep_out": np.zeros(len(twists), dtype=bool)}
        for rule in self.rules:
            room, toward, was = _approach(rule, poses, twists, before)
            steady = toward.copy()
            for ago in range(1, math.ceil(1.5 * delay / self._longest_s) + 1):
                steady[ago:] = np.minimum(steady[ago:], toward[:-ago])
            way = np.maximum(steady, 0.0) * delay + toward**2 / (2.0 * braking)
            fast = (toward > _CREEP) & ((way > np.maximum(room, 0.0) + slack) | (room < -slack))
            masks[rule.bound] = masks[rule.bound] | (known & fast & (toward > was * fade))
        return masks

    def _verdict(
        self,
        margins: Mapping[str, Array],
        stamps: Stamps,
        sent: Array,
        positions: Array,
        poses: Poses,
    ) -> Verdict:
        # Written so that NaN is outside.
        broken = {name: ~(margin >= 0.0) for name, margin in margins.items()}
        anywhere = np.logical_or.reduce(list(broken.values()))
        examples = []
        for i in np.flatnonzero(anywhere)[:EXAMPLES]:
            names = ", ".join(
                f"{name} ({margins[name][i]:.3g} {UNITS[name]})".replace(" )", ")")
                for name, mask in broken.items()
                if mask[i]
            )
            time = (stamps[i] - stamps[0]) / SECOND_NS
            examples.append(
                f"tick {i} at {time:.3f} s: {names}; sent {np.round(sent[i], 4).tolist()} "
                f"at {np.round(positions[i], 4).tolist()}"
            )
        box = self.rules[0].room(poses)
        return Verdict(
            ticks=len(stamps),
            violations=int(anywhere.sum()),
            by_bound={name: int(mask.sum()) for name, mask in broken.items()},
            margins={
                name: float(np.min(np.where(np.isnan(margin), -np.inf, margin)))
                for name, margin in margins.items()
                if len(margin)
            },
            outside_m=max(0.0, float(-np.nanmin(box, initial=0.0))),
            examples=examples,
            broken_ns={name: stamps[mask].tolist() for name, mask in broken.items() if mask.any()},
        )

    def _number(self, name: str) -> float:
        return float(self._bounds[name])


def judge_bag(
    bag: str | Path, robot_file: str | Path, urdf: str | None = None, rate_hz: float = 100.0
) -> Verdict:
    """Judge `/safe_command` and `/safe_gripper_command` in a rosbag2.

    Args:
        bag: Its folder.
        robot_file: The robot file.
        urdf: Text of the robot's description, if the bag's `/robot_description` is not to be used.
        rate_hz: Rate of the commands.

    Raises:
        JudgeError: If the bag lacks a topic, or the robot file or description something.
        BagError: If the bag cannot be read.

    """
    topics = ("/safe_command", "/safe_gripper_command", "/joint_states", "/robot_description")
    messages: dict[str, list[tuple[int, Any]]] = {topic: [] for topic in topics}
    for topic, time_ns, message in read_bag(bag, topics):
        messages[topic].append((time_ns, message))
    if urdf is None:
        if not messages["/robot_description"]:
            msg = f"bag {bag} has no /robot_description: name a URDF"
            raise JudgeError(msg)
        urdf = str(messages["/robot_description"][-1][1].data)
    for topic in ("/safe_command", "/joint_states"):
        if not messages[topic]:
            msg = f"bag {bag} has no messages on {topic}"
            raise JudgeError(msg)
    parameters = read_parameters(robot_file)
    judge = Judge(robot_file, urdf, rate_hz)

    joints = list(parameters["robot"]["joints"])
    measured = _Latest(
        (stamp_ns(m.header.stamp), np.asarray(m.position)[[m.name.index(j) for j in joints]])
        for _, m in messages["/joint_states"]
        if set(joints) <= set(m.name) and len(m.position) == len(m.name)
    )
    grippers = _Latest((time_ns, m.data) for time_ns, m in messages["/safe_gripper_command"])
    # The filter may not yet have seen the newest joint states: allow it two of its periods.
    position_age = 2.0 / rate_hz
    oldest_ns = int((parameters["bounds"]["joint_state_timeout"] + position_age) * SECOND_NS)
    ticks = []
    for time_ns, message in messages["/safe_command"]:
        v, w = message.twist.linear, message.twist.angular
        stamp = stamp_ns(message.header.stamp)
        ticks.append(
            Tick(
                stamp_ns=stamp,
                twist=np.array([v.x, v.y, v.z, w.x, w.y, w.z]),
                gripper=grippers.at(time_ns),
                position=measured.at(stamp, oldest_ns),
                frame_id=message.header.frame_id,
            )
        )
    return judge.recorded(ticks, position_age)


class _Latest:
    """Values by time, to look up the newest one not after a time."""

    def __init__(self, values: Iterable[tuple[int, Any]]) -> None:
        pairs = sorted(values, key=lambda pair: pair[0])
        self._times = [time for time, _ in pairs]
        self._values = [value for _, value in pairs]

    def at(self, time_ns: int, oldest_ns: int | None = None) -> Any:  # noqa: ANN401
        index = bisect_right(self._times, time_ns) - 1
        if index < 0 or (oldest_ns is not None and time_ns - self._times[index] > oldest_ns):
            return None
        return self._values[index]


def _approach(rule: Rule, poses: Poses, twists: Array, before: Array) -> tuple[Array, Array, Array]:
    """Return a point's room, and how fast each of two twists takes of it; (T,) each."""
    room, toward, was = np.empty((3, len(twists)))
    for begin in range(0, len(twists), _BLOCK):
        part = slice(begin, begin + _BLOCK)
        tool = Poses(poses.tip[part], poses.rotation[part], [], [], [])
        arm = tool.rotation @ rule.position
        room[part] = rule.room(tool)
        for speed, of in ((toward, twists), (was, before)):
            # Beyond 1e6 it is beyond all bounds anyway, and so without overflow.
            v = np.clip(of[part], -1e6, 1e6)
            moved = rule.room(tool, (v[:, :3] + cross(v[:, 3:], arm)) * _INSTANT)
            speed[part] = (room[part] - moved) / _INSTANT
    return room, toward, was


def _changes(values: Array, *, from_rest: bool) -> Array:
    """Return each row less the one before; the first less rest, or nothing."""
    changes = np.diff(values, axis=0, prepend=values[:1])
    if from_rest:
        changes[:1] = values[:1]
    return changes


def _where(counted: Mask, margins: Array) -> Array:
    return np.where(counted, margins, np.inf)


def _rate_margins(changes: Array, seconds: Array, bound: float) -> Array:
    """Return the margins of changes (T,) over times (T,) to a rate; no time allows no change."""
    left = bound * seconds + ROUNDING - changes
    counted = seconds > 0.0
    rates = left / np.where(counted, seconds, 1.0)
    return np.where(counted, rates, np.where(left >= 0.0, np.inf, left))


def _second_margins(changes: Array, seconds: Array, bound: float, *, from_rest: bool) -> Array:
    """Return the margins of the changes (T, 3) of velocity to a jerk; not of ticks without time.

    The accelerations of two ticks are their mean times apart. Where the recording begins in motion,
    its first acceleration is unknown.
    """
    counted = seconds > 0.0
    accelerations = np.zeros_like(changes)
    accelerations[counted] = changes[counted] / seconds[counted, None]
    margins = _jerk_margins(accelerations, seconds, bound)
    if not from_rest:
        margins[: int(np.argmax(np.cumsum(counted) >= 2)) + 1] = np.inf  # noqa: PLR2004
    return margins


def _jerk_margins(accelerations: Array, seconds: Array, bound: float) -> Array:
    at = np.flatnonzero(seconds > 0.0)
    margins = np.full(len(seconds), np.inf)
    if not len(at):
        return margins
    periods = seconds[at]
    between = (periods + np.concatenate([periods[:1], periods[:-1]])) / 2.0
    jerks = _norms(_changes(accelerations[at], from_rest=True)) / between
    # Speeds are exact to 1e-16, accelerations over a short period to less.
    rounding = JERK_ROUNDING * bound + 1e-15 / (periods * between)
    margins[at] = bound + rounding - jerks
    return margins


def _inward(rooms: Array, slack: float, granted: float) -> Array:
    """Return the least over the rooms (T, k), each against the farthest in that it was; (T,).

    Args:
        rooms: Distances to surfaces, negative outside; NaN where unknown.
        slack: How far a command may lead out again from the farthest in, of what was outside.
        granted: How far outside a measured one may be found.

    """
    left: Array = np.full(len(rooms), np.inf)
    for room in rooms.T:
        floor = np.maximum.accumulate(np.where(np.isnan(room), -np.inf, room)) - slack
        # Before anything is known, nothing was farther in.
        floor = np.where(np.isfinite(floor), np.minimum(0.0, floor), 0.0)
        left = np.fmin(left, room - floor)
    return np.asarray(left + granted + ROUNDING)


def _moved(jacobians: Array, speeds: Array) -> Array:
    return np.asarray((jacobians @ speeds[:, :, None])[:, :, 0])


def _norms(vectors: Array) -> Array:
    """Return the norms of the rows, without overflow."""
    largest = np.abs(vectors).max(axis=1, initial=0.0)
    scale = np.where(largest > 0.0, largest, 1.0)
    return np.asarray(scale * np.sqrt(((vectors / scale[:, None]) ** 2).sum(axis=1)))


def _unit(vector: Sequence[float]) -> Array:
    values = np.array(vector, dtype=np.float64)
    return np.asarray(values / math.sqrt(float(values @ values)))


def _or_infinite(value: float) -> float:
    return value if math.isfinite(value) else math.inf


def _finite_or_none(value: float) -> float | None:
    return value if math.isfinite(value) else None


def read_parameters(robot_file: str | Path) -> Mapping[str, Any]:
    """Return the parameters of a robot file as they are written there.

    Raises:
        JudgeError: If it is no ROS parameter file.

    """
    try:
        content = parse_yaml(Path(robot_file).read_text(encoding="utf-8"))
        parameters = content["/**"]["ros__parameters"]
    except (OSError, yaml.YAMLError, KeyError, TypeError) as err:
        msg = f"robot file {robot_file} cannot be read: {err}"
        raise JudgeError(msg) from err
    if not isinstance(parameters, dict):
        msg = f"robot file {robot_file} holds no parameters"
        raise JudgeError(msg)
    return parameters
