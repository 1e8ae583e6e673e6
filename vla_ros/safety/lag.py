"""`vla_ros safety lag`: delay and tracking error of an arm, measured in a recorded run.

The filter takes the arm to be where it was measured, plus what was sent in the `reaction_delay`
before. So this is what is measured here: the delay with which that comes true best, and by how much
it then is off.
"""

import argparse
import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from vla_ros.robot import RobotConfig
from vla_ros.safety.explain import robot_file
from vla_ros.types import Array

SECOND_NS = 1_000_000_000
_LONGEST = 0.4
"""Longest delay that is looked for, s."""
_STEP = 0.001
_HELD = 0.2
"""What was sent holds for no longer than this, s: then the arm stops by itself."""
_MOVING = 0.05
"""Share of the greatest speed over which the arm counts as moving."""
_LEAST_MOVING = 1.0
"""Seconds of motion that are needed."""
_GENEROUS = 1.2
"""What is measured once is not the worst that can be: the factor for advice."""


class LagError(ValueError):
    """A run does not show the arm's delay."""


@dataclass(frozen=True, slots=True)
class Lag:
    """How an arm follows what is sent to it.

    Attributes:
        delay: From sending to measured motion, s.
        error: 99th percentile of the distance between foretold and measured place, m.
        worst: The greatest, m.
        speed: The greatest speed sent, m/s: lag grows with it.
        moving: Seconds in motion.

    """

    delay: float
    error: float
    worst: float
    speed: float
    moving: float


def measure(
    sent_ns: NDArray[np.int64], sent: Array, measured_ns: NDArray[np.int64], places: Array
) -> Lag:
    """Return the delay under which what was sent tells best where the arm will be.

    Args:
        sent_ns: When each velocity was sent, ns, increasing, shape (n,).
        sent: Velocity of the TCP in the base frame, m/s, shape (n, 3).
        measured_ns: When each place was measured, ns, increasing, shape (m,).
        places: Position of the TCP, m, shape (m, 3).

    Raises:
        LagError: If the arm hardly moved, or too little was recorded.

    """
    if len(sent_ns) < 2 or len(measured_ns) < 2:  # noqa: PLR2004 - from one to another
        msg = "the run has no sent commands, or no joint states"
        raise LagError(msg)
    start = min(sent_ns[0], measured_ns[0])
    times, seen = (np.asarray(t - start, np.float64) / SECOND_NS for t in (sent_ns, measured_ns))
    held = np.minimum(np.diff(times), _HELD)
    way = np.concatenate([np.zeros((1, 3)), np.cumsum(sent[:-1] * held[:, np.newaxis], axis=0)])
    speeds = np.linalg.norm(sent, axis=1)
    fast = speeds > _MOVING * speeds.max()
    moving = float(held[fast[:-1]].sum())
    if moving < _LEAST_MOVING:
        msg = (
            f"the arm was told to move for {moving:.1f} s, but {_LEAST_MOVING:g} s are needed to "
            "tell its delay: record a longer run, with starts and stops"
        )
        raise LagError(msg)
    # From one sample to the one a fixed time on, so that slow drift of other causes stays out.
    inside = (seen >= times[0] + _LONGEST) & (seen + _LONGEST <= min(times[-1], seen[-1]))
    begin = seen[inside]
    moved = _at(begin + _HELD, seen, places) - places[inside]
    delays = np.arange(0.0, _LONGEST, _STEP)
    errors = [
        float(
            np.mean((_at(begin + _HELD - d, times, way) - _at(begin - d, times, way) - moved) ** 2)
        )
        for d in delays
    ]
    delay = float(delays[int(np.argmin(errors))])
    foretold = _at(begin, times, way) - _at(begin - delay, times, way)
    off = np.linalg.norm(places[inside] + foretold - _at(begin + delay, seen, places), axis=1)
    return Lag(
        delay=delay,
        error=float(np.percentile(off, 99)),
        worst=float(off.max()),
        speed=float(speeds.max()),
        moving=moving,
    )


def _at(when: Array, times: Array, values: Array) -> Array:
    """Return `values` (n, 3) at other times, linear in between."""
    return np.stack([np.interp(when, times, column) for column in values.T], axis=1)


def advice(lag: Lag, robot: RobotConfig) -> tuple[bool, list[str]]:
    """Return whether a robot file covers what was measured, and what to do, one line each."""
    bounds = robot.bounds
    # The error grows with the speed.
    error = lag.worst * max(1.0, bounds.linear_speed / lag.speed)
    covered, lines = True, []
    for name, measured in (("reaction_delay", lag.delay), ("tracking_error", error)):
        value = getattr(bounds, name)
        needed = math.ceil(1e3 * _GENEROUS * measured) / 1e3
        if measured > value:
            covered = False
            lines.append(f"{name} of {value:g} is TOO SMALL: set {needed:g} or more")
        else:
            lines.append(f"{name} of {value:g} covers it; {needed:g} would")
    if lag.speed < bounds.linear_speed / 2.0:
        lines.append(
            f"the run was slow: up to {lag.speed:.3f} of {bounds.linear_speed:g} m/s. Repeat it "
            "faster before you trust these figures"
        )
    return covered, lines


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments to its parser."""
    parser.add_argument("bag", help="a recorded run with safe_command and joint_states")
    parser.add_argument("--urdf", type=Path, help="robot description, if the bag holds none")
    parser.add_argument(
        "--remap", action="append", default=[], metavar="FROM:=TO", help="names of the bag's topics"
    )
    parser.add_argument(
        "--robot", required=True, help="its robot file, or the name of a shipped one"
    )


def run(args: argparse.Namespace) -> int:
    """Print delay and tracking error of a recorded run; return 1 if the robot file is too tight.

    Raises:
        LagError: If the run does not show them.

    """
    # Reading bags takes libraries that the filter itself does without.
    from vla_ros.replay.common import parse_remap  # noqa: PLC0415
    from vla_ros.replay.live import result_from_bag  # noqa: PLC0415

    path = robot_file(args.robot)
    robot = RobotConfig.load(path)
    result = result_from_bag(args.bag, path, urdf=args.urdf, remap=parse_remap(args.remap))
    if result.ticks is None:
        msg = f"bag {args.bag} has no safe_command"
        raise LagError(msg)
    try:
        lag = measure(
            result.ticks.stamp_ns,
            result.ticks.safe[:, :3],
            result.joints.stamp_ns,
            result.joints.tcp,
        )
    except LagError as err:
        msg = f"bag {args.bag}: {err}"
        raise LagError(msg) from err
    print(
        f"{lag.moving:.1f} s of motion, up to {lag.speed:.3f} m/s\n"
        f"delay: {1e3 * lag.delay:.0f} ms from a sent command to measured motion\n"
        f"tracking error: {1e3 * lag.error:.1f} mm in 99 %, {1e3 * lag.worst:.1f} mm at worst"
    )
    covered, lines = advice(lag, robot)
    print("\n".join(lines))
    return 0 if covered else 1
