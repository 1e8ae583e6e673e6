"""An adversary drives the filter for millions of ticks; a judge counts what it broke.

The arms of a campaign follow exactly what the filter sends, up to `reaction_delay` late, and are
measured with errors up to `joint_position_error`. So a bound that the true motion breaks was broken
by the filter. The judge (`vla_ros.replay.judge`) shares no code with it.
"""

import argparse
import json
import math
import multiprocessing
import signal
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vla_ros import robots
from vla_ros.arguments import real, whole
from vla_ros.paths import share
from vla_ros.replay.judge import (
    SECOND_NS,
    UNITS,
    Judge,
    Recording,
    Verdict,
    read_parameters,
)
from vla_ros.robot import RobotConfig
from vla_ros.safety import RATES_HZ
from vla_ros.safety.campaign_adversary import Adversary, Limits, limits_of, margins
from vla_ros.safety.campaign_plant import Plants
from vla_ros.safety.compile import ensure_compiled
from vla_ros.safety.decision import SafetyDecision
from vla_ros.safety.filter import SafetyFilter
from vla_ros.safety.motion.limiter import Output
from vla_ros.types import Array, JointSample

RATE_HZ = 100.0
ARMS = 64
TICKS = 600
"""Arms that are driven at once, and ticks of each before the next ones start."""
START_NS = 1_000_000_000_000
REFUSED_HOLD = 0.02
"""The campaign's `refused_command_hold`, in s: attacks that end in stillness test little."""
CLOCKS = ("regular", "regular", "jitter", "late", "jumps", "paused")
_CANDIDATES = 8192
_GLITCH_SPACING = 0.3
"""Least time between two faults of time, in s: each uses up some of the reaction delay."""
_HELD = 0.95
"""Share of the torque bounds that gravity may take where an arm starts."""

_JUDGED_AS = {
    "workspace_min": "workspace",
    "workspace_max": "workspace",
    "joint_position_min": "joint_position",
    "joint_position_max": "joint_position",
    "tool_cone_angle": "tool_cone",
    "singularity_distance": "singularity",
    "gripper_min": "gripper",
    "gripper_max": "gripper",
    "command_timeout": "stopping_time",
    "joint_state_timeout": "stopping_time",
    "stop": "stopping_time",
    "estop": "stopping_time",
    "command_finite": "finite",
    "gripper_finite": "finite",
}
"""The judge's bound for keys of the robot file, and for checks, by which the filter tells."""

FilterMaker = Callable[[], SafetyFilter]


@dataclass(slots=True)
class Outcome:
    """What a campaign found.

    Attributes:
        verdict: Of all that was judged.
        acted: Ticks at which the filter said that a bound acted, by its name.
        states: Ticks in each state of the filter.
        driven: Ticks that were driven.

    """

    verdict: Verdict = field(default_factory=Verdict)
    acted: dict[str, int] = field(default_factory=dict)
    states: dict[str, int] = field(default_factory=dict)
    driven: int = 0

    def add(self, other: "Outcome") -> None:
        """Add another outcome."""
        self.verdict.add(other.verdict)
        self.driven += other.driven
        for mine, more in ((self.acted, other.acted), (self.states, other.states)):
            for name, count in more.items():
                mine[name] = mine.get(name, 0) + count

    def report(self) -> dict[str, Any]:
        """Return it for JSON."""
        told = self.verdict.report()
        bounds = told.pop("bounds")
        for name, bound in bounds.items():
            bound["acted"] = self.acted.get(name, 0)
        told.pop("by_bound")
        return {
            "ticks": self.driven,
            "violations": told["violations"],
            "bounds": bounds,
            "acted": dict(sorted(self.acted.items())),
            "states": dict(sorted(self.states.items())),
            "examples": told["examples"],
        }


@dataclass(slots=True)
class _Clocks:
    """Time of each arm: what passes, and what its filter is told.

    Attributes:
        kind: How each clock behaves.
        now_ns: What the filters are told at this tick.
        seconds: True time from this tick to the next.
        jumped: Whether the told time did not go on by `seconds` since the last tick.

    """

    kind: NDArray[np.str_]
    now_ns: NDArray[np.int64]
    seconds: Array
    jumped: NDArray[np.bool_]
    _quiet: Array
    _offset_ns: NDArray[np.int64]
    _true_s: Array

    @classmethod
    def begin(cls, rng: np.random.Generator, count: int, period: float) -> "_Clocks":
        return cls(
            kind=rng.choice(CLOCKS, count),
            now_ns=np.full(count, START_NS, dtype=np.int64),
            seconds=np.full(count, period),
            jumped=np.zeros(count, dtype=bool),
            _quiet=np.zeros(count),
            _offset_ns=np.full(count, START_NS, dtype=np.int64),
            _true_s=np.zeros(count),
        )

    def advance(self, rng: np.random.Generator, period: float) -> None:
        """Go on to the next tick, and draw how long it lasts."""
        count = len(self.kind)
        self._true_s += self.seconds
        self.jumped[:] = False
        self._quiet += self.seconds
        glitch = (self._quiet > _GLITCH_SPACING) & (rng.random(count) < 0.05)  # noqa: PLR2004
        self._quiet[glitch] = 0.0
        for i in np.flatnonzero(glitch & (self.kind == "jumps")):
            jump = rng.choice((10.0, 1.0, 0.1, 0.02, -1e-9, -0.01, -0.05, -1.0, -1e4))
            self._offset_ns[i] += round(jump * SECOND_NS)
            self.jumped[i] = True
        self.seconds = np.full(count, period)
        jitter = self.kind == "jitter"
        drawn = rng.choice((0.3, 0.7, 1.0, 1.0, 1.3, 1.5), count) * period
        self.seconds = np.where(jitter, drawn, self.seconds)
        self.seconds[glitch & (self.kind == "late")] = 2.5 * period
        # A simulation that is paused: neither time nor arm goes on, but the filter is asked.
        self.seconds[(self.kind == "paused") & (rng.random(count) < 0.3)] = 0.0  # noqa: PLR2004
        self.now_ns = self._offset_ns + np.round(self._true_s * SECOND_NS).astype(np.int64)

    def delays(self, rng: np.random.Generator, reaction: float, period: float) -> Array:
        """Draw after what time each arm follows, (K,): late ticks and jumps use up delay."""
        spare = {"late": 1.5 * period, "jumps": 1.5 * period}
        most = np.array([reaction - spare.get(str(kind), 0.0) for kind in self.kind])
        share = rng.choice((0.0, 1.0, 1.0, rng.random()), len(most))
        return np.asarray(share * np.maximum(most, 0.0))


class Campaign:
    """Drives filters of one robot, and judges what they send.

    Attributes:
        judge: Of this robot.
        robot: What the filters are told: the file, with the changes of `campaign_robot`.
        bounds: The file's section, as the judge reads it.
        limits: What the adversary knows.
        rate_hz: Rate of the filters.
        ticks: Ticks of each arm in a batch.
        focus: The only bound that arms are pushed against, if not empty.

    """

    def __init__(
        self,
        robot_file: Path,
        urdf: str,
        *,
        seed: int = 0,
        output: Output = "twist",
        rate_hz: float = RATE_HZ,
        arms: int = ARMS,
        ticks: int = TICKS,
        make: FilterMaker | None = None,
        focus: str = "",
    ) -> None:
        """Read the robot.

        Args:
            robot_file: The robot file.
            urdf: The robot's description.
            seed: Of all that is drawn.
            output: What the filter sends: `twist` or `joint_velocity`.
            rate_hz: Rate of the filter.
            arms: How many arms are driven at once.
            ticks: Ticks of each arm in a batch.
            make: Makes a filter; by default one with the bounds of the file.
            focus: The only bound that arms are pushed against (`groups`), if not empty.

        Raises:
            JudgeError: If file or description lack something.
            RobotConfigError: If the filter cannot use the file.

        """
        self.judge = Judge(robot_file, urdf, rate_hz)
        parameters = read_parameters(robot_file)
        self.robot = campaign_robot(robot_file)
        self.bounds = parameters["bounds"]
        self.limits: Limits = limits_of(parameters)
        self._seed, self._output, self.focus = seed, output, focus
        self.rate_hz, self._arms, self.ticks = rate_hz, arms, ticks
        robot = self.robot
        self._make = make or (lambda: SafetyFilter(robot, urdf, rate_hz, output=output))
        self._starts = self._candidates()

    def run(self, ticks: int) -> Iterator[Outcome]:
        """Drive at least `ticks` ticks; yield the outcome of each batch."""
        for number, arms in enumerate(self.batches(ticks)):
            yield self.batch(number, arms)

    def batches(self, ticks: int) -> list[int]:
        """Return the number of arms of each batch that makes up `ticks` ticks."""
        arms = math.ceil(ticks / self.ticks)
        whole, rest = divmod(arms, self._arms)
        return [self._arms] * whole + [rest] * (rest > 0)

    def batch(self, number: int, arms: int | None = None) -> Outcome:
        """Drive and judge one batch, which depends on the seed and its number alone."""
        count = self._arms if arms is None else arms
        rng = np.random.default_rng([self._seed, number])
        drive = _Drive(self, rng, count)
        for _ in range(self.ticks):
            drive.step()
        outcome = drive.judged(f"seed {self._seed} batch {number}")
        outcome.driven = count * self.ticks
        return outcome

    def _candidates(self) -> Array:
        """Return where arms may start: random places that the motors can hold, (N, n)."""
        rng = np.random.default_rng([self._seed, 2**31])
        low = np.array(self.bounds["joint_position_min"])
        high = np.array(self.bounds["joint_position_max"])
        angles = rng.uniform(low, high, (_CANDIDATES, len(low)))
        still = np.zeros_like(angles)
        share = np.abs(self.judge.arm.torques(angles, still, still)) / self.limits.joint_torque
        held = angles[(share < _HELD).all(axis=1)]
        if not len(held):
            msg = "bounds.joint_torque is too low to hold the arm anywhere"
            raise ValueError(msg)
        return held

    def starts(self, rng: np.random.Generator, count: int) -> Array:
        """Draw where arms start: inside of all bounds, on one of them, or anywhere, (K, n).

        Places on a bound are found by bisection between two places, one inside and one outside.
        """
        places = self._starts
        size = 2 * len(self.judge.joints)
        left = margins(self.judge, self.limits, places)[:, :-size].min(axis=1)
        inside, outside = places[left > 0.0], places[left <= 0.0]
        anywhere = places[rng.integers(len(places), size=count)]
        if not len(inside):
            return anywhere
        good = inside[rng.integers(len(inside), size=count)]
        bad = outside[rng.integers(len(outside), size=count)] if len(outside) else good
        low, high = good.copy(), bad
        for _ in range(12):
            middle = (low + high) / 2.0
            fits = margins(self.judge, self.limits, middle).min(axis=1) > 0.0
            low = np.where(fits[:, None], middle, low)
            high = np.where(fits[:, None], high, middle)
        kind = rng.choice(4, count, p=(0.35, 0.35, 0.15, 0.15))[:, None]
        # A little outside: half a degree further.
        further = high + 0.01 * np.sign(high - low)
        ends = (
            np.array(self.bounds["joint_position_min"]),
            np.array(self.bounds["joint_position_max"]),
        )
        further = np.clip(further, *ends)
        drawn = np.select([kind == 0, kind == 1, kind == 2], [good, low, further], anywhere)  # noqa: PLR2004
        still = np.zeros_like(drawn)
        share = np.abs(self.judge.arm.torques(drawn, still, still)) / self.limits.joint_torque
        held: Array = share.max(axis=1, keepdims=True)
        return np.where(held < _HELD, drawn, good)

    def new_filters(self, count: int) -> list[SafetyFilter]:
        """Return filters that have seen nothing yet."""
        return [self._make() for _ in range(count)]

    @property
    def sends_twists(self) -> bool:
        """Whether twists are sent, or joint velocities."""
        return self._output == "twist"


class _Drive:
    """K arms from start to end."""

    def __init__(self, campaign: Campaign, rng: np.random.Generator, count: int) -> None:
        self._campaign, self._rng, self._count = campaign, rng, count
        bounds, ticks = campaign.bounds, campaign.ticks
        self._period = 1.0 / campaign.rate_hz
        self._filters = campaign.new_filters(count)
        self._clocks = _Clocks.begin(rng, count, self._period)
        self._delay = self._clocks.delays(rng, float(bounds["reaction_delay"]), self._period)
        self._plants = Plants(
            campaign.judge.arm,
            campaign.starts(rng, count),
            self._delay,
            ticks=ticks,
            twist=campaign.sends_twists,
            singular=float(bounds["singularity_distance"]),
            length=float(bounds["characteristic_length"]),
        )
        self._adversary = Adversary(campaign.judge, campaign.limits, rng, count, campaign.focus)
        size = 6 if campaign.sends_twists else len(campaign.judge.joints)
        self._sent = np.zeros((ticks, count, size))
        self._stamps = np.zeros((ticks, count), dtype=np.int64)
        self._grips = np.full((ticks, count), np.nan)
        self._must_rest = np.zeros((ticks, count), dtype=bool)
        self._latched = np.zeros(count, dtype=bool)
        self._command_silence: Array = np.full(count, np.inf)
        self._joint_silence: Array = np.full(count, np.inf)
        self._opening = np.full(count, float(bounds.get("gripper_max", 0.0)))
        self._latency = rng.choice((0.0, 0.3, 0.9), count)
        self._skips = rng.choice((0.0, 0.0, 0.5), count)
        self._acted: dict[str, int] = {}
        self._states: dict[str, int] = {}
        self._tick = 0

    def step(self) -> None:
        """Make one tick of every arm."""
        campaign, rng, tick, clocks = self._campaign, self._rng, self._tick, self._clocks
        bounds = campaign.bounds
        last_seconds = clocks.seconds.copy()
        if tick:
            clocks.advance(rng, self._period)
        counted = np.minimum(last_seconds, 1.5 * self._period) if tick else np.zeros(self._count)
        adversary, plants = self._adversary, self._plants
        adversary.think(plants)

        # Samples are up to a tick old; over a jump of time their stamps would be, too.
        age = np.where(clocks.jumped, 0.0, self._latency * last_seconds * (tick > 0))
        position, velocity = plants.measured(age)
        measured = position + adversary.errors()
        stamps = clocks.now_ns - np.round(age * SECOND_NS).astype(np.int64)
        chance = rng.random(self._count)
        self._command_silence = np.where(clocks.jumped, 0.0, self._command_silence + counted)
        self._joint_silence = np.where(clocks.jumped, 0.0, self._joint_silence + counted)
        sends_twists, sent = campaign.sends_twists, self._sent[tick]
        for i, safety in enumerate(self._filters):
            now, fault = int(clocks.now_ns[i]), adversary.fault[i]
            command = adversary.command(i, now)
            joints = None
            if fault != "blind" and chance[i] >= self._skips[i]:
                joints = self._sample(i, int(stamps[i]), measured[i], velocity[i])
            self._events(i, safety, fault, float(chance[i]), now)
            if command is not None:
                self._command_silence[i] = 0.0
            if joints is not None:
                self._joint_silence[i] = 0.0
            decision = safety.step(now, command, joints)
            sent[i] = decision.twist if sends_twists else decision.joint_velocity
            self._note(i, decision)
        self._stamps[tick] = clocks.now_ns
        self._must_rest[tick] = (
            self._latched
            | (self._command_silence > float(bounds["command_timeout"]))
            | (self._joint_silence > float(bounds["joint_state_timeout"]))
        )
        plants.follow(sent, clocks.seconds)
        self._tick += 1

    def _sample(self, i: int, stamp_ns: int, position: Array, velocity: Array) -> JointSample:
        opening = float(self._opening[i]) if self._campaign.limits.has_gripper else None
        if self._adversary.fault[i] == "broken" and self._rng.random() < 0.3:  # noqa: PLR2004
            position = position.copy()
            broken = self._rng.integers(4)
            if broken == 0:
                position[self._rng.integers(len(position))] = np.nan
            elif broken == 1:
                position = position[:-1]
            elif broken == 2:  # noqa: PLR2004 - one of four
                velocity = np.full_like(velocity, np.inf)
            else:
                stamp_ns += int(self._rng.choice((-(10**9), 10**12)))
        return JointSample(stamp_ns, position, velocity, None, opening)

    def _events(self, i: int, safety: SafetyFilter, fault: str, chance: float, now: int) -> None:
        """Stop arm `i` while the phase says so; reset it when the phase is over."""
        if fault in {"stop", "estop"}:
            if not self._latched[i] and chance < 0.2:  # noqa: PLR2004 - some ticks into the phase
                self._latched[i] = True
                if fault == "stop":
                    safety.stop(now)
                else:
                    safety.estop(True, now)
        elif self._latched[i]:
            safety.estop(False, now)
            if safety.reset(now)[0]:
                self._latched[i] = False
                self._command_silence[i] = 0.0

    def _note(self, i: int, decision: SafetyDecision) -> None:
        grip = decision.gripper
        if grip is not None:
            self._grips[self._tick, i] = grip if math.isfinite(grip) else math.inf
            self._opening[i] = grip
        # `joint_speed.elbow` counts as `joint_speed`, and `workspace_min` for `workspace`, too.
        keys = {acting.name.partition(".")[0] for acting in decision.acting}
        acted = self._acted
        for name in keys | {_JUDGED_AS.get(key, key) for key in keys}:
            acted[name] = acted.get(name, 0) + 1
        state = decision.state.name
        self._states[state] = self._states.get(state, 0) + 1

    def judged(self, where: str) -> Outcome:
        """Judge what was driven."""
        outcome = Outcome(acted=self._acted, states=self._states)
        plants, judge, end = self._plants, self._campaign.judge, self._tick
        for i in range(self._count):
            sent = self._sent[:end, i]
            verdict = judge.recording(
                Recording(
                    stamp_ns=self._stamps[:end, i],
                    twist=sent if self._campaign.sends_twists else None,
                    joint_velocity=plants.followed[:end, i],
                    position=plants.path[:end, i],
                    gripper=self._grips[:end, i],
                    must_rest=self._must_rest[:end, i],
                )
            )
            verdict.examples = [
                f"{where} arm {i} ({self._clocks.kind[i]}, {self._delay[i]:.3f} s late): {line}"
                for line in verdict.examples
            ]
            outcome.verdict.add(verdict)
        return outcome


def campaign_robot(robot_file: Path) -> RobotConfig:
    """Return the robot with what a campaign changes: nothing that bounds motion.

    A refused command holds the arm for a moment only, and nothing is supervised that the campaign
    does not simulate: motor torques.
    """
    robot = RobotConfig.load(robot_file)
    quick = replace(robot.bounds, refused_command_hold=REFUSED_HOLD, effort_samples=0)
    return replace(robot, bounds=quick)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's options."""
    parser.add_argument("--ticks", type=whole(1), default=100_000, help="how many (default 100000)")
    parser.add_argument("--seed", type=whole(0), default=0, help="of all that is drawn")
    parser.add_argument("--robot", required=True, help="robot file, or the name of a shipped one")
    parser.add_argument("--urdf", type=Path, help="robot description; needed for your own robot")
    parser.add_argument("--output", choices=("twist", "joint_velocity"), default="twist")
    parser.add_argument("--rate", type=real(*RATES_HZ), default=RATE_HZ, help="of the filter, Hz")
    parser.add_argument(
        "--workers", type=whole(1), default=1, help="processes, a core each (default 1)"
    )
    parser.add_argument("--json", type=Path, help="write the figures there")


def run(args: argparse.Namespace) -> int:
    """Run a campaign; return 0 if no bound was broken, else 1.

    Raises:
        ValueError: If an option is out of range, or there is no such robot.

    """
    made_of = (*find_robot(args.robot, args.urdf), args.seed, args.output, args.rate)
    ensure_compiled()
    campaign = _new_campaign(*made_of)
    total, began = Outcome(), time.monotonic()
    try:
        for outcome in _outcomes(campaign, args.ticks, args.workers, made_of):
            total.add(outcome)
            if sys.stderr.isatty():
                sys.stderr.write(
                    f"\r{total.driven} of {args.ticks} ticks, {total.verdict.violations} violations"
                )
    except KeyboardInterrupt:
        sys.stderr.write("\ninterrupted: these are the figures so far\n")
    seconds = time.monotonic() - began
    report = {
        "robot": campaign.robot.name,
        "output": args.output,
        "rate_hz": args.rate,
        "seed": args.seed,
        **total.report(),
        "seconds": round(seconds, 1),
        "ticks_per_second": round(total.driven / max(seconds, 1e-9), 1),
    }
    _tell(report)
    if args.json:
        args.json.write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")
    return 0 if total.verdict.violations == 0 else 1


def _new_campaign(
    robot_file: Path, urdf: str, seed: int, output: Output, rate_hz: float
) -> Campaign:
    return Campaign(
        robot_file, urdf, seed=seed, output=output, rate_hz=rate_hz, arms=ARMS, ticks=TICKS
    )


_Made = tuple[Path, str, int, Output, float]
_of_worker: list[Campaign] = []
"""The campaign of a worker process."""


def _outcomes(campaign: Campaign, ticks: int, workers: int, made_of: _Made) -> Iterator[Outcome]:
    """Yield the outcomes of all batches, from this process or from several others."""
    if workers == 1:
        yield from campaign.run(ticks)
        return
    jobs = list(enumerate(campaign.batches(ticks)))
    # A new interpreter each: forked ones share locks of libraries that started threads.
    context = multiprocessing.get_context("spawn")
    with context.Pool(workers, initializer=_begin_worker, initargs=made_of) as pool:
        yield from pool.imap(_work, jobs)


def _begin_worker(*made_of: Any) -> None:  # noqa: ANN401 - those of _new_campaign
    # An interrupt from the keyboard is for the process that reports.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    _of_worker.append(_new_campaign(*made_of))


def _work(job: tuple[int, int]) -> Outcome:
    return _of_worker[0].batch(*job)


def find_robot(robot: str, urdf: Path | None) -> tuple[Path, str]:
    """Return a robot file and its description.

    Args:
        robot: A file, or the name of a shipped robot.
        urdf: The description's file; by default the one shipped for the robot of that name.

    Raises:
        ValueError: If there is none.

    """
    given = Path(robot)
    robot_file = given if given.exists() else share() / "config" / "robots" / f"{robot}.yaml"
    if not robot_file.exists():
        names = sorted(p.stem for p in (share() / "config" / "robots").glob("*.yaml"))
        msg = f"--robot {robot}: there is no such file, and shipped are {names}"
        raise ValueError(msg)
    if urdf is not None:
        return robot_file, urdf.read_text(encoding="utf-8")
    name = str(read_parameters(robot_file)["robot"]["name"])
    if name not in robots.names():
        msg = f"--robot {robot}: no description of {name!r} is shipped: name one with --urdf"
        raise ValueError(msg)
    return robot_file, robots.urdf(name)


def _tell(report: dict[str, Any]) -> None:
    out = sys.stdout.write
    out(
        f"{report['robot']}, {report['output']}: {report['ticks']} ticks in {report['seconds']} s\n"
    )
    out(f"  {'bound':<22}{'violations':>11}{'smallest margin':>18} {'unit':<8}{'acted':>9}\n")
    for name, bound in report["bounds"].items():
        margin = bound["smallest_margin"]
        shown = "-" if margin is None else f"{margin:.6g}"
        unit = UNITS[name]
        out(f"  {name:<22}{bound['violations']:>11}{shown:>18} {unit:<8}{bound['acted']:>9}\n")
    out(f"violations: {report['violations']}\n")
    for line in report["examples"]:
        out(f"  {line}\n")
