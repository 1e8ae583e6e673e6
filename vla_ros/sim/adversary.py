"""The filter in a closed loop with the simulated arm, driven by an adversary.

`vla_ros safety closed-loop`: unlike the campaign's plant, which follows exactly what is sent, the
arm of the simulator moves late, has inertia and servos, and is measured with noise. What is counted
is what the arm really did, read from the simulator and not from the filter.
"""

import argparse
import json
import multiprocessing
import os
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from vla_ros.arguments import positive, whole
from vla_ros.paths import share
from vla_ros.robot import RobotConfig
from vla_ros.safety import SafetyFilter, SafetyState
from vla_ros.safety.compile import ensure_compiled
from vla_ros.safety.motion.limiter import Output
from vla_ros.sim.panda import STEP_NS, PandaSim, urdf
from vla_ros.types import Array, Command

RATE_HZ = 100
PERIOD_NS = 1_000_000_000 // RATE_HZ
STEPS_PER_PERIOD = PERIOD_NS // STEP_NS
START_NS = 1_000_000_000
# What is leant on, and slipped off, takes torque: nothing that a filter of commands could prevent
# where what leans there is no point that it watches (a forearm on the table, anything on a cube).
ASIDE = ((-0.9, 0.0, -0.38), (-0.9, 0.2, -0.38), (-0.9, -0.2, -0.38))

Wish = Callable[[float], Array]
"""The twist (6,) that is commanded at a time in s."""


@dataclass(slots=True)
class Outcome:
    """What the arm did; worst over the episodes.

    Attributes:
        episodes: Episodes run.
        ticks: Steps of the filter.
        outside_m: How far outside the workspace the measured TCP was, m.
        speed_share: Measured joint speed over its bound, as a share of it.
        effort_share: Measured motor torque over `effort`, likewise: `joint_torque` bounds what is
            planned, and what the servos add to it is what lies between the two.
        violations: Ticks with the TCP outside by more than `tracking_error`, or over a bound.
        by_bound: Those for each.
        stops: Protective stops.
        acted: Ticks at which a bound acted.

    """

    episodes: int = 0
    ticks: int = 0
    outside_m: float = 0.0
    speed_share: float = 0.0
    effort_share: float = 0.0
    violations: int = 0
    by_bound: dict[str, int] = field(
        default_factory=lambda: {"workspace": 0, "joint_speed": 0, "effort": 0}
    )
    stops: int = 0
    acted: dict[str, int] = field(default_factory=dict)

    def add(self, other: "Outcome") -> None:
        """Add other episodes."""
        for name in ("episodes", "ticks", "violations", "stops"):
            setattr(self, name, getattr(self, name) + getattr(other, name))
        for name in ("outside_m", "speed_share", "effort_share"):
            setattr(self, name, max(getattr(self, name), getattr(other, name)))
        for counts, more in ((self.by_bound, other.by_bound), (self.acted, other.acted)):
            for name, count in more.items():
                counts[name] = counts.get(name, 0) + count

    def report(self) -> dict[str, Any]:
        """Return the figures for JSON."""
        return {
            "episodes": self.episodes,
            "ticks": self.ticks,
            "violations": self.violations,
            "by_bound": self.by_bound,
            "outside_mm": round(1e3 * self.outside_m, 3),
            "joint_speed_share": round(self.speed_share, 4),
            "effort_share": round(self.effort_share, 4),
            "protective_stops": self.stops,
            "acted": dict(sorted(self.acted.items())),
        }


def walk(rng: np.random.Generator, bound: Array) -> Wish:
    """Return a random walk, up to 3 times the speed bounds."""
    twist = np.zeros(6)

    def wish(_time: float) -> Array:
        twist[:] = np.clip(twist + rng.normal(0.0, 0.25, 6) * bound, -3.0 * bound, 3.0 * bound)
        return twist.copy()

    return wish


def steps(rng: np.random.Generator, bound: Array, least: float, most: float) -> Wish:
    """Return saturated twists in random directions, a new one after `least` to `most` s."""
    until, twist = -1.0, np.zeros(6)

    def wish(now: float) -> Array:
        nonlocal until, twist
        if now >= until:
            until = now + rng.uniform(least, most)
            twist = 4.0 * bound * rng.choice([-1.0, -0.3, 0.0, 0.3, 1.0], 6)
        return twist

    return wish


def push(rng: np.random.Generator, bound: Array) -> Wish:
    """Return a push in one direction for seconds, trembling, then in the opposite one."""
    direction = rng.normal(size=3)
    direction /= np.linalg.norm(direction)
    turn = rng.normal(0.0, 0.3, 3)

    def wish(now: float) -> Array:
        sign = 1.0 if now % 6.0 < 4.0 else -1.0  # noqa: PLR2004 - two thirds outward
        linear = sign * direction + rng.normal(0.0, 0.2, 3)
        return np.concatenate([3.0 * linear, turn]) * bound

    return wish


def faulty(rng: np.random.Generator, bound: Array) -> Wish:
    """Return saturated twists that now and then are not finite, or absurdly fast."""
    sound = steps(rng, bound, 0.1, 0.8)

    def wish(now: float) -> Array:
        twist = sound(now).copy()
        if rng.random() < 0.01:  # noqa: PLR2004 - once a second
            twist[rng.integers(6)] = rng.choice([np.nan, np.inf, -np.inf, 1e300, 60.0])
        return twist

    return wish


def wishes(rng: np.random.Generator, kind: int, bound: Array) -> Wish:
    """Return the adversary of an episode: the kinds take turns."""
    kinds: tuple[Callable[[], Wish], ...] = (
        lambda: walk(rng, bound),
        lambda: steps(rng, bound, 0.2, 1.5),
        lambda: push(rng, bound),
        lambda: steps(rng, bound, 0.01, 0.06),
        lambda: faulty(rng, bound),
    )
    return kinds[kind % len(kinds)]()


class ClosedLoop:
    """The simulated arm behind a filter.

    Attributes:
        judged: The bounds that the arm is held against: those of the filter, unless replaced.

    """

    def __init__(self, robot: RobotConfig, sim: PandaSim, *, output: Output = "twist") -> None:
        """Connect `sim` to filters with the bounds of `robot`.

        Args:
            robot: The Panda.
            sim: The simulator.
            output: What the arm is sent: `twist` or `joint_velocity`.

        """
        self._robot, self._sim, self._output = robot, sim, output
        for touches in ("geom_contype", "geom_conaffinity"):
            getattr(sim.model, touches)[sim.model.geom("table").id] = 0
        self.judged = bounds = robot.bounds
        self._bound = np.repeat([bounds.linear_speed, bounds.angular_speed], 3)
        self._low, self._high = np.array(bounds.workspace_min), np.array(bounds.workspace_max)

    def run(self, seed: int, seconds: float) -> Outcome:
        """Run one episode."""
        rng = np.random.default_rng([seed, 29])
        sim, bounds = self._sim, self._robot.bounds
        sim.reset(seed)
        sim.put_cubes(ASIDE)
        safety = SafetyFilter(self._robot, urdf(), RATE_HZ, output=self._output)
        wish = wishes(rng, seed, self._bound)
        outcome = Outcome(episodes=1)
        now = START_NS
        for tick in range(round(seconds * RATE_HZ)):
            joints = sim.joint_sample(now)
            noise = rng.uniform(-1.0, 1.0, 7) * bounds.joint_position_error
            joints = replace(joints, position=joints.position + noise)
            command = None
            if rng.random() > 0.02:  # noqa: PLR2004 - a lost message in fifty
                twist = wish(tick / RATE_HZ)
                command = Command(now, self._robot.base_frame, twist, rng.uniform(-0.05, 0.15))
            decision = safety.step(now, command, joints)
            if decision.state is SafetyState.PROTECTIVE_STOP:
                outcome.stops += safety.reset(now)[0]
            for acting in decision.acting:
                outcome.acted[acting.name] = outcome.acted.get(acting.name, 0) + 1
            if self._output == "twist":
                sim.set_twist(decision.twist)
            else:
                sim.set_joint_velocity(decision.joint_velocity)
            if decision.gripper is not None:
                sim.set_gripper(decision.gripper)
            now += PERIOD_NS
            for _ in range(STEPS_PER_PERIOD):
                sim.advance(STEP_NS * 1e-9)
                self._look(outcome)
            outcome.ticks += 1
        return outcome

    def _look(self, outcome: Outcome) -> None:
        """Hold what the arm does at this physics step against the bounds."""
        sim, bounds = self._sim, self.judged
        place = sim.tcp_pose()[0]
        outside = float(max((self._low - place).max(), (place - self._high).max()))
        speed = float(np.max(np.abs(sim.data.qvel[:7]) / bounds.joint_speed))
        effort = float(np.max(np.abs(sim.data.qfrc_actuator[:7]) / bounds.effort))
        outcome.outside_m = max(outcome.outside_m, outside)
        outcome.speed_share = max(outcome.speed_share, speed)
        outcome.effort_share = max(outcome.effort_share, effort)
        broken = {
            "workspace": outside > bounds.tracking_error,
            "joint_speed": speed > 1.0,
            "effort": effort > 1.0,
        }
        for name, is_broken in broken.items():
            outcome.by_bound[name] += is_broken
        outcome.violations += any(broken.values())


def run_seeds(seeds: Sequence[int], robot_file: Path, seconds: float, output: Output) -> Outcome:
    """Run the episodes of `seeds`, one after the other."""
    total = Outcome()
    with PandaSim(cameras={}) as sim:
        loop = ClosedLoop(RobotConfig.load(robot_file), sim, output=output)
        for seed in seeds:
            total.add(loop.run(seed, seconds))
    return total


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's options."""
    parser.add_argument("--episodes", type=whole(1), default=500, help="how many (default 500)")
    parser.add_argument(
        "--seconds", type=positive, default=10.0, help="length of each (default 10)"
    )
    parser.add_argument("--seed", type=whole(0), default=0, help="seed of the first")
    parser.add_argument("--robot", type=Path, help="robot file; the Panda's by default")
    parser.add_argument("--output", choices=("twist", "joint_velocity"), default="twist")
    parser.add_argument("--workers", type=whole(1), default=os.cpu_count() or 1, help="processes")
    parser.add_argument("--json", type=Path, help="write the figures there")


def run(args: argparse.Namespace) -> int:
    """Run the episodes; return 0 if the arm kept every bound, else 1."""
    robot_file = args.robot or share() / "config" / "robots" / "panda.yaml"
    robot = RobotConfig.load(robot_file)
    robot.check_joints(PandaSim.joint_names + robot.gripper_joints, "the simulated Panda")
    ensure_compiled()
    began = time.monotonic()
    total = Outcome()
    seeds = range(args.seed, args.seed + args.episodes)
    for part in _parts(seeds, args, robot_file):
        total.add(part)
        if sys.stderr.isatty():
            sys.stderr.write(f"\r{total.episodes} of {args.episodes} episodes")
    if sys.stderr.isatty():
        sys.stderr.write("\n")
    report = {
        "robot": robot.name,
        "output": args.output,
        "seed": args.seed,
        **total.report(),
        "tracking_error_mm": 1e3 * robot.bounds.tracking_error,
        "seconds": round(time.monotonic() - began, 1),
    }
    for name, value in report.items():
        sys.stdout.write(f"  {name:<20}{value}\n")
    if args.json:
        args.json.write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")
    return 0 if total.violations == 0 else 1


def _parts(seeds: range, args: argparse.Namespace, robot_file: Path) -> Iterator[Outcome]:
    size = 5
    jobs = [
        (seeds[i : i + size], robot_file, args.seconds, args.output)
        for i in range(0, len(seeds), size)
    ]
    if args.workers == 1 or len(jobs) == 1:
        yield from (run_seeds(*job) for job in jobs)
        return
    with multiprocessing.get_context("spawn").Pool(min(args.workers, len(jobs))) as pool:
        yield from pool.imap_unordered(_job, jobs)


def _job(job: tuple[Sequence[int], Path, float, Output]) -> Outcome:
    return run_seeds(*job)
