"""Record demonstrations of the scripted expert: `vla_ros learn generate`.

Episode n depends on the seed n alone, so the data do not depend on the number of workers, and an
interrupted generation continues with the shards that are missing.
"""

import argparse
import json
import multiprocessing
import os
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path

from vla_ros.arguments import whole
from vla_ros.learn.dataset import DESCRIPTION, shard_path, write_shard
from vla_ros.learn.episodes import SceneVariation, record
from vla_ros.learn.rig import Rig
from vla_ros.paths import share
from vla_ros.robot import RobotConfig
from vla_ros.safety.compile import ensure_compiled
from vla_ros.sim.panda import PandaSim

Report = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Plan:
    """Which episodes to record.

    Attributes:
        episodes: How many.
        seed: Seed of the first; the others follow. Evaluation starts at 1000: stay away from there.
        per_shard: Episodes in a shard.

    """

    episodes: int
    seed: int
    per_shard: int

    @property
    def shards(self) -> int:
        """Number of shards."""
        return -(-self.episodes // self.per_shard)

    def seeds(self, shard: int) -> range:
        """Return the seeds of a shard."""
        first = shard * self.per_shard
        return range(self.seed + first, self.seed + min(first + self.per_shard, self.episodes))


@dataclass(frozen=True, slots=True)
class _Result:
    recorded: int
    failed: int
    observations: int


def _record_shard(shard: int, plan: Plan, output: Path, robot_file: Path) -> _Result:
    """Record one shard, in a process of its own."""
    with PandaSim() as sim:
        rig = Rig(RobotConfig.load(robot_file), sim)
        variation = SceneVariation(rig)
        found = [record(rig, variation, seed) for seed in plan.seeds(shard)]
    episodes = [episode for episode in found if episode is not None]
    if not episodes:
        msg = f"the expert failed in all episodes {plan.seeds(shard)}: the simulator is broken"
        raise RuntimeError(msg)
    observations = write_shard(shard_path(output, shard), episodes)
    return _Result(len(episodes), len(found) - len(episodes), observations)


def _prepare(plan: Plan, output: Path) -> list[int]:
    """Write, or check, the description of the data, and return the shards still missing."""
    description = asdict(plan) | {"shards": plan.shards}
    path = output / DESCRIPTION
    output.mkdir(parents=True, exist_ok=True)
    if path.exists():
        present = json.loads(path.read_text(encoding="utf-8"))
        if present != description:
            msg = f"{output} holds other data ({present}); remove it, or give another --output"
            raise ValueError(msg)
    else:
        partial_path = path.with_suffix(".partial")
        partial_path.write_text(json.dumps(description, indent=2) + "\n", encoding="utf-8")
        partial_path.replace(path)
    return [i for i in range(plan.shards) if not shard_path(output, i).exists()]


def _results(missing: list[int], job: Callable[[int], _Result], workers: int) -> Iterator[_Result]:
    if workers == 1:
        yield from map(job, missing)
        return
    # Not forked: GL contexts do not survive a fork.
    with multiprocessing.get_context("spawn").Pool(min(workers, len(missing))) as pool:
        yield from pool.imap_unordered(job, missing)


def generate(plan: Plan, output: Path, robot_file: Path, workers: int, report: Report) -> None:
    """Record what is missing of a plan.

    Args:
        plan: Which episodes.
        output: Folder to write to.
        robot_file: Bounds that the safety filter keeps.
        workers: Processes.
        report: Takes lines for people.

    Raises:
        ValueError: If `output` holds data of another plan.

    """
    missing = _prepare(plan, output)
    if len(missing) < plan.shards:
        report(f"continuing: {plan.shards - len(missing)} of {plan.shards} shards are there")
    if not missing:
        return
    RobotConfig.load(robot_file)
    ensure_compiled()
    started, observations, recorded, failed = time.monotonic(), 0, 0, 0
    job = partial(_record_shard, plan=plan, output=output, robot_file=robot_file)
    for done, result in enumerate(_results(missing, job, workers), start=1):
        observations += result.observations
        recorded += result.recorded
        failed += result.failed
        elapsed = time.monotonic() - started
        left = elapsed / done * (len(missing) - done)
        report(
            f"shard {done}/{len(missing)}: {recorded} episodes, {failed} failed, "
            f"{observations} observations, {elapsed:.0f} s, {left / 60:.1f} min left"
        )


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments of `vla_ros learn generate`."""
    parser.add_argument("--episodes", type=whole(1), default=1800)
    parser.add_argument("--seed", type=whole(0), default=100_000, help="seed of the first episode")
    parser.add_argument("--output", type=Path, default=Path("runs/learn/demonstrations"))
    parser.add_argument("--robot", type=Path, default=None, help="robot file (default: panda)")
    parser.add_argument("--workers", type=whole(1), default=os.cpu_count() or 1)
    parser.add_argument("--episodes-per-shard", type=whole(1), default=25)


def run(args: argparse.Namespace) -> int:
    """Carry out `vla_ros learn generate`."""
    robot_file = args.robot or share() / "config" / "robots" / "panda.yaml"
    plan = Plan(args.episodes, args.seed, args.episodes_per_shard)
    generate(plan, args.output, robot_file, args.workers, partial(print, flush=True))
    return 0
