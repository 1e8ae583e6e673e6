"""Measure a policy over many episodes: `vla_ros eval`.

The same policy controller and safety filter as in the nodes, but in simulated time and in one
process, as fast as the machine can. Cameras' ticks, the policy's ticks and the delay from exposure
to chunk are simulated. What is sent to the robot is judged by code that shares nothing with the
filter.
"""

import argparse
import json
import math
import multiprocessing
import os
import random
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from vla_ros.arguments import positive, real, whole
from vla_ros.learn.episodes import SceneVariation
from vla_ros.learn.instructions import held_out, held_out_no_target, no_target
from vla_ros.learn.rig import PERIOD_NS, SAFETY_HZ, START_NS, Rig
from vla_ros.observation.image import fit_image
from vla_ros.paths import share
from vla_ros.policy.bundle import Bundle
from vla_ros.policy.controller import PolicyController
from vla_ros.policy.policy import Chunk, Policy
from vla_ros.policy.scheduler import MODES as CHUNK_MODES
from vla_ros.replay.judge import Judge
from vla_ros.robot import RobotConfig
from vla_ros.safety import SafetyDecision, SafetyState
from vla_ros.safety.compile import ensure_compiled
from vla_ros.sim.panda import CUBES, PandaSim, urdf
from vla_ros.sim.task import PickTask, target_for
from vla_ros.types import Array, Command, Frame

CAMERA_HZ = 30
TEMPLATE = "pick up the {colour} cube"
DEFAULT_LATENCY_MS = 36.0
"""From exposure to a chunk, as measured with the nodes as processes on two cores."""

STILL_SPEED = 0.02
"""An arm whose joints are all slower (rad/s) is still."""

_SECOND_NS = 1_000_000_000

Report = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Conditions:
    """How episodes are run.

    Attributes:
        template: The instruction, with `{colour}`.
        held_out: Draw the instruction from the phrasings never used in training instead.
        no_target: Draw an instruction that names no cube of the scene. An episode lasts until one
            is lifted or the time is over.
        shuffle: Draw the goal, by which success is judged, apart from the instruction.
        vary_scene: Vary light, colours and cameras as in training.
        latency_s: From a frame's exposure to the chunk predicted from it; half of it passes before
            the frame arrives.
        inference_s: Of the model alone, in place of its half of `latency_s`.
        time_limit_s: An episode without success ends then.
        replan_actions: See `PolicyController`.
        chunk_mode: Likewise.
        filtered: Whether commands pass the safety filter.

    """

    template: str = TEMPLATE
    held_out: bool = False
    no_target: bool = False
    shuffle: bool = False
    vary_scene: bool = False
    latency_s: float = DEFAULT_LATENCY_MS / 1e3
    inference_s: float | None = None
    time_limit_s: float = 15.0
    replan_actions: int = 4
    chunk_mode: str = CHUNK_MODES[0]
    filtered: bool = True


@dataclass(frozen=True, slots=True)
class Episode:
    """What came of one episode.

    Attributes:
        seed: The scene.
        instruction: What the policy was told.
        said: Colour that the instruction names, or None.
        goal: Colour by which success is judged; `said`, unless they were drawn apart.
        success: Whether the goal's cube was lifted, and no other; without a goal, whether no cube
            was lifted and the arm is still in the end.
        obeyed: Whether the said cube was lifted, and no other.
        wrong: Whether a cube that was not said was lifted.
        seconds: Simulated time until then.
        drift_m: Distance of the hand in the end from where it started, if no colour is said.
        violations: Commands to the robot outside a bound.
        broken: Number of those by bound.
        ticks: Commands to the robot.
        stop: Reason of the filter's protective stop, which nobody resets; empty without one.
        holds: Policy ticks without an action, after the first action.
        seam_step: Largest step of the commanded velocity where a chunk takes over from another
            without a hold: of the linear part in m/s, and of the angular part in rad/s.
        inner_step: Largest step inside a chunk as the model gave it, likewise.

    """

    seed: int
    instruction: str
    said: str | None
    goal: str | None
    success: bool
    obeyed: bool
    wrong: bool
    seconds: float
    drift_m: float | None
    violations: int
    broken: dict[str, int]
    ticks: int
    stop: str
    holds: int
    seam_step: tuple[float, float]
    inner_step: tuple[float, float]


class Evaluation:
    """Runs episodes with one bundle and one robot file."""

    def __init__(self, bundle: Path, robot_file: Path, sim: PandaSim) -> None:
        """Load the bundle and connect `sim` to a safety filter.

        Raises:
            BundleError: If the bundle cannot be used.
            RobotConfigError: If the robot file cannot be used.

        """
        self._bundle = Bundle.load(bundle)
        robot = RobotConfig.load(robot_file)
        self.rig = Rig(robot, sim)
        self._policy = Policy(self._bundle, chain=self.rig.chain)
        self._variation = SceneVariation(self.rig)
        self._judge = Judge(robot_file, urdf(), SAFETY_HZ)

    def run(self, seed: int, conditions: Conditions) -> Episode:
        """Run the episode of a seed."""
        rng = random.Random(seed)  # noqa: S311 - no secret
        said = None if conditions.no_target else target_for(seed)
        goal = rng.choice(CUBES) if conditions.shuffle else said
        instruction = _instruction(rng, said, conditions)
        self._variation.restore()
        if conditions.vary_scene:
            self._variation.vary(np.random.default_rng([seed, 11]))
        rig = self.rig
        rig.reset(seed, filtered=conditions.filtered)
        for_goal, for_said = PickTask(rig.sim, goal or ""), PickTask(rig.sim, said or "")
        start = rig.sim.tcp_pose()[0]
        runner = _Runner(self._bundle, self._policy, rig, conditions, rng)
        runner.controller.set_instruction(instruction)
        end_ns = START_NS + round(conditions.time_limit_s * _SECOND_NS)
        while rig.now_ns < end_ns and not (for_goal.success or for_said.success):
            if said is None and for_said.wrong_lifted:
                break
            runner.advance(rig.now_ns + PERIOD_NS)
            for_goal.update()
            for_said.update()
        still = bool(np.abs(rig.joints().velocity).max() < STILL_SPEED)
        verdict = self._judge.ticks(rig.ticks)
        return Episode(
            seed=seed,
            instruction=instruction,
            said=said,
            goal=goal,
            success=for_goal.success if goal else still and not for_said.wrong_lifted,
            obeyed=for_said.success,
            wrong=for_said.wrong_lifted,
            seconds=(rig.now_ns - START_NS) / _SECOND_NS,
            drift_m=None if said else float(np.linalg.norm(rig.sim.tcp_pose()[0] - start)),
            violations=verdict.violations,
            broken={name: count for name, count in verdict.by_bound.items() if count},
            ticks=verdict.ticks,
            stop=_stop(rig.decision),
            holds=runner.holds,
            seam_step=_pair(runner.seam_step),
            inner_step=_pair(runner.inner_step),
        )


def _stop(decision: SafetyDecision | None) -> str:
    if decision is None or decision.state is not SafetyState.PROTECTIVE_STOP:
        return ""
    return decision.reason


def _instruction(rng: random.Random, said: str | None, conditions: Conditions) -> str:
    if said is None:
        return held_out_no_target(rng) if conditions.held_out else no_target(rng)
    return held_out(rng, said) if conditions.held_out else conditions.template.format(colour=said)


class _Runner:
    """The policy's side of an episode: what the node does with messages, a timer and a thread."""

    def __init__(
        self,
        bundle: Bundle,
        policy: Policy,
        rig: Rig,
        conditions: Conditions,
        rng: random.Random,
    ) -> None:
        self.controller = PolicyController(
            bundle,
            rig.robot,
            rig.chain,
            replan_actions=conditions.replan_actions,
            chunk_mode=conditions.chunk_mode,
        )
        self.holds = 0
        self.seam_step: Array = np.zeros(2)
        self.inner_step: Array = np.zeros(2)
        self._sent: Array | None = None
        self._policy, self._rig, self._bundle = policy, rig, bundle
        self._transport_ns = round(conditions.latency_s / 2 * _SECOND_NS)
        inference_s = conditions.inference_s
        self._inference_ns = (
            self._transport_ns if inference_s is None else round(inference_s * _SECOND_NS)
        )
        self._camera_ns = _SECOND_NS // CAMERA_HZ
        self._moved = False
        # On a robot nobody aligns these either.
        self._next_frame_ns = START_NS + rng.randrange(self._camera_ns)
        self._next_tick_ns = START_NS + rng.randrange(bundle.period_ns)
        self._next_joints_ns = START_NS
        self._last_tick_ns = 0
        self._frames: list[tuple[int, list[Frame]]] = []
        self._chunk: tuple[int, Chunk] | None = None

    def advance(self, until_ns: int) -> None:
        """Let everything happen that is due before `until_ns`, in order."""
        while (due_ns := self._next_ns()) < until_ns:
            self._rig.advance_to(due_ns)
            self._happen(due_ns)
        self._rig.advance_to(until_ns)

    def _next_ns(self) -> int:
        times = [self._next_frame_ns, self._next_tick_ns, self._next_joints_ns]
        times += [arrival for arrival, _ in self._frames]
        if self._chunk is not None:
            times.append(self._chunk[0])
        return min(times)

    def _happen(self, now_ns: int) -> None:
        controller, rig = self.controller, self._rig
        if self._next_joints_ns <= now_ns:
            controller.add_joints(rig.joints())
            self._next_joints_ns += PERIOD_NS
        if self._next_frame_ns <= now_ns:
            frames = [
                Frame(c.name, now_ns, fit_image(rig.sim.render(c.name), c.image))
                for c in self._bundle.manifest.cameras
            ]
            self._frames.append((now_ns + self._transport_ns, frames))
            self._next_frame_ns += self._camera_ns
        if self._frames and self._frames[0][0] <= now_ns:
            for frame in self._frames.pop(0)[1]:
                controller.add_frame(frame)
        if self._chunk is not None and self._chunk[0] <= now_ns:
            if controller.accept(self._chunk[1], now_ns):
                self._next_tick_ns = now_ns
            elif now_ns - self._last_tick_ns < self._bundle.period_ns // 4:
                # As the node does: ticks move to just after results.
                self._next_tick_ns = now_ns + self._bundle.period_ns
            self._chunk = None
        if self._next_tick_ns <= now_ns:
            self._tick(now_ns)
        observation = controller.due_observation(now_ns)
        if observation is not None:
            chunk = self._policy.infer(observation, controller.prefix)
            self._chunk = (now_ns + max(self._inference_ns, 1), chunk)
            steps = np.diff(chunk.twists, axis=0)
            self.inner_step = np.maximum(self.inner_step, _sizes(steps).max(axis=0, initial=0.0))

    def _tick(self, now_ns: int) -> None:
        step = self.controller.tick(now_ns)
        self._last_tick_ns = now_ns
        self._moved = self._moved or step.hold is None
        self.holds += self._moved and step.hold is not None
        if step.plan is not None and self._sent is not None:
            self.seam_step = np.maximum(self.seam_step, _sizes(step.twist - self._sent))
        self._sent = step.twist if step.hold is None else None
        base = self._rig.robot.base_frame
        self._rig.desired = Command(now_ns, base, step.twist, step.gripper)
        self._next_tick_ns = now_ns + self._bundle.period_ns


def _sizes(twists: Array) -> Array:
    """Return the sizes of the linear and the angular part of each, (..., 6) to (..., 2)."""
    return np.asarray(np.linalg.norm(twists.reshape(*twists.shape[:-1], 2, 3), axis=-1))


def _pair(values: Array) -> tuple[float, float]:
    return float(values[0]), float(values[1])


def _run_seeds(
    seeds: Sequence[int], bundle: Path, robot_file: Path, conditions: Conditions
) -> list[Episode]:
    """Run episodes, in a process of their own."""
    with PandaSim() as sim:
        evaluation = Evaluation(bundle, robot_file, sim)
        return [evaluation.run(seed, conditions) for seed in seeds]


def _batches(
    seeds: range, job: Callable[[Sequence[int]], list[Episode]], workers: int
) -> Iterator[list[Episode]]:
    # Several batches a worker, so that a slow one does not leave the others idle.
    size = max(1, min(10, math.ceil(len(seeds) / workers)))
    parts = [seeds[i : i + size] for i in range(0, len(seeds), size)]
    if workers == 1:
        yield from map(job, parts)
        return
    # Not forked: GL contexts do not survive a fork.
    with multiprocessing.get_context("spawn").Pool(min(workers, len(parts))) as pool:
        yield from pool.imap(job, parts)


def evaluate(
    bundle: Path,
    robot_file: Path,
    seeds: range,
    conditions: Conditions,
    *,
    workers: int,
    report: Report,
) -> list[Episode]:
    """Run the episodes of `seeds`.

    Args:
        bundle: The bundle's folder.
        robot_file: The robot file.
        seeds: One scene each.
        conditions: How.
        workers: Processes.
        report: Takes lines for people.

    Raises:
        ValueError: If the bundle or the robot file cannot be used.

    """
    Bundle.load(bundle)
    RobotConfig.load(robot_file)
    if conditions.filtered:
        ensure_compiled()
    job = partial(_run_seeds, bundle=bundle, robot_file=robot_file, conditions=conditions)
    episodes: list[Episode] = []
    for batch in _batches(seeds, job, workers):
        episodes += batch
        good = sum(e.success for e in episodes)
        wrong = sum(e.wrong for e in episodes)
        violations = sum(e.violations for e in episodes)
        report(
            f"{len(episodes)}/{len(seeds)} episodes: {good} successes, {wrong} wrong cubes, "
            f"{violations} violations"
        )
    return episodes


def summary(episodes: Sequence[Episode]) -> dict[str, Any]:
    """Return the figures of episodes, by name."""
    count = len(episodes)
    seconds = [e.seconds for e in episodes if e.obeyed]
    drift = [e.drift_m for e in episodes if e.drift_m is not None]
    broken: dict[str, int] = {}
    for episode in episodes:
        for name, number in episode.broken.items():
            broken[name] = broken.get(name, 0) + number
    return {
        "success_rate": sum(e.success for e in episodes) / count,
        "wrong_cube_rate": sum(e.wrong for e in episodes) / count,
        "violations": sum(e.violations for e in episodes),
        "episodes": count,
        "said_cube_rate": sum(e.obeyed for e in episodes) / count,
        "by_colour": {
            colour: {
                "episodes": sum(e.said == colour for e in episodes),
                "lifted": sum(e.said == colour and e.obeyed for e in episodes),
            }
            for colour in CUBES
        },
        "drift_m_max": max(drift, default=None),
        "seconds_mean": float(np.mean(seconds)) if seconds else None,
        "seconds_max": max(seconds, default=None),
        "violations_by_bound": broken,
        "safe_commands": sum(e.ticks for e in episodes),
        "policy_holds": sum(e.holds for e in episodes),
        "seam_ratio": seam_ratio(episodes),
        "failed_seeds": [e.seed for e in episodes if not e.success],
        "stops": {str(e.seed): e.stop for e in episodes if e.stop},
    }


def seam_ratio(episodes: Sequence[Episode]) -> float:
    """Return the largest step at a seam of all episodes, in largest steps inside a chunk."""
    seams = np.array([e.seam_step for e in episodes]).max(axis=0)
    inner = np.array([e.inner_step for e in episodes]).max(axis=0)
    return float((seams / np.maximum(inner, 1e-9)).max())


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments of `vla_ros eval`."""
    parser.add_argument("--episodes", type=whole(1), default=100)
    parser.add_argument("--seed", type=whole(0), default=1000, help="seed of the first episode")
    parser.add_argument("--json", type=Path, default=None, help="file for the figures")
    parser.add_argument("--bundle", type=Path, default=None, help="default: the package's")
    parser.add_argument("--robot", type=Path, default=None, help="robot file (default: panda)")
    parser.add_argument("--instruction", default=TEMPLATE, help="template with {colour}")
    parser.add_argument(
        "--held-out", action="store_true", help="phrasings that were never used in training"
    )
    parser.add_argument(
        "--no-target",
        action="store_true",
        help="instructions that name no cube: success is to hold still until the time limit",
    )
    parser.add_argument(
        "--shuffle-instruction",
        action="store_true",
        help="draw the goal apart from the instruction: success shows what is done unasked",
    )
    parser.add_argument("--vary-scene", action="store_true", help="vary light, colours and cameras")
    parser.add_argument(
        "--latency-ms", type=real(0.0), default=DEFAULT_LATENCY_MS, help="from exposure to chunk"
    )
    parser.add_argument(
        "--inference-ms", type=real(0.0), help="of the model alone (default: half of --latency-ms)"
    )
    parser.add_argument(
        "--replan-actions",
        type=whole(0),
        default=4,
        help="as of policy_node; 0: as late as will do",
    )
    parser.add_argument(
        "--chunk-mode", choices=CHUNK_MODES, default=CHUNK_MODES[0], help="as of policy_node"
    )
    parser.add_argument("--time-limit", type=positive, default=15.0, help="of an episode, in s")
    parser.add_argument(
        "--without-filter",
        action="store_true",
        help="send the policy's commands as they are: what the safety filter costs in success",
    )
    parser.add_argument("--workers", type=whole(1), default=os.cpu_count() or 1)


def _conditions(args: argparse.Namespace) -> Conditions:
    if "{colour}" not in args.instruction:
        msg = f"--instruction {args.instruction!r} has no {{colour}}, by which episodes are judged"
        raise ValueError(msg)
    if args.no_target and args.shuffle_instruction:
        msg = "--no-target has no goal that --shuffle-instruction could draw: give one of them"
        raise ValueError(msg)
    inference_ms = args.inference_ms
    return Conditions(
        template=args.instruction,
        held_out=args.held_out,
        no_target=args.no_target,
        shuffle=args.shuffle_instruction,
        vary_scene=args.vary_scene,
        latency_s=args.latency_ms / 1e3,
        inference_s=None if inference_ms is None else inference_ms / 1e3,
        time_limit_s=args.time_limit,
        replan_actions=args.replan_actions,
        chunk_mode=args.chunk_mode,
        filtered=not args.without_filter,
    )


def run(args: argparse.Namespace) -> int:
    """Carry out `vla_ros eval`."""
    conditions = _conditions(args)
    bundle = args.bundle or share() / "bundles" / "panda_pick"
    robot_file = args.robot or share() / "config" / "robots" / "panda.yaml"
    seeds = range(args.seed, args.seed + args.episodes)
    report = partial(print, flush=True)
    started = time.monotonic()
    episodes = evaluate(bundle, robot_file, seeds, conditions, workers=args.workers, report=report)
    figures = summary(episodes) | {
        "seed": args.seed,
        "conditions": asdict(conditions),
        "wall_seconds": round(time.monotonic() - started, 1),
    }
    if args.json is not None:
        args.json.parent.mkdir(parents=True, exist_ok=True)
        details = {"details": [asdict(episode) for episode in episodes]}
        args.json.write_text(json.dumps(figures | details, indent=2) + "\n", encoding="utf-8")
    report(json.dumps(figures, indent=2))
    return 0
