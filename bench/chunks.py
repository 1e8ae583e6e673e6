"""How chunks take over from each other, by mode and by what an inference takes.

Runs the shipped model at 30 Hz on the simulated robot with inferences that take 0 to 500 ms, in
simulated time: the figures do not depend on the machine. Prints the table of docs/chunks.md.

    python bench/chunks.py --episodes 100
"""

import argparse
import os
import sys
from collections.abc import Sequence

from vla_ros.learn.evaluate import Conditions, evaluate, summary
from vla_ros.paths import share
from vla_ros.policy.scheduler import MODES

INFERENCE_MS = (0, 50, 150, 300, 500)
HEADER = "| mode | inference | success | pauses | seam | s to lift |\n|---|---|---|---|---|---|"


def row(
    mode: str, inference_ms: int, seeds: range, *, workers: int, replan_actions: int
) -> tuple[str, dict[str, float]]:
    """Return a line of the table, and its figures."""
    conditions = Conditions(
        chunk_mode=mode, inference_s=inference_ms / 1e3, replan_actions=replan_actions
    )
    episodes = evaluate(
        share() / "bundles" / "panda_pick",
        share() / "config" / "robots" / "panda.yaml",
        seeds,
        conditions,
        workers=workers,
        report=lambda _: None,
    )
    figures = summary(episodes)
    seconds = figures["seconds_mean"]
    line = (
        f"| {mode} | {inference_ms} ms | {figures['success_rate']:.0%} "
        f"| {figures['policy_holds'] / len(episodes):.1f} | {figures['seam_ratio']:.2f} "
        f"| {'-' if seconds is None else format(seconds, '.1f')} |"
    )
    return line, {
        "success_rate": figures["success_rate"],
        "pauses": figures["policy_holds"],
        "seam_ratio": figures["seam_ratio"],
        "violations": figures["violations"],
    }


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0])
    parser.add_argument("--episodes", type=int, default=10)
    parser.add_argument("--seed", type=int, default=1000, help="seed of the first episode")
    parser.add_argument("--modes", nargs="+", choices=MODES, default=MODES)
    parser.add_argument("--inference-ms", nargs="+", type=int, default=INFERENCE_MS)
    parser.add_argument("--replan-actions", type=int, default=4)
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 1)
    args = parser.parse_args(arguments)
    seeds = range(args.seed, args.seed + args.episodes)
    print(HEADER)
    for mode in args.modes:
        for inference_ms in args.inference_ms:
            line, _ = row(
                mode,
                inference_ms,
                seeds,
                workers=args.workers,
                replan_actions=args.replan_actions,
            )
            print(line, flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
