"""How chunks take over from each other, by mode and by what an inference takes.

Runs the shipped model at 30 Hz on the simulated robot with inferences that take 0 to 500 ms, in
simulated time: the figures do not depend on the machine. Prints a table, and puts it in the place
of the one in docs/chunks.md with --write.

    python bench/chunks.py --episodes 100 --write
"""

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from vla_ros.learn.evaluate import Conditions, evaluate, summary
from vla_ros.paths import share
from vla_ros.policy.scheduler import MODES

PAGE = Path(__file__).parents[1] / "docs" / "chunks.md"
BEGIN, END = "<!-- bench/chunks.py -->\n", "<!-- end -->\n"
INFERENCE_MS = (0, 50, 150, 300, 500)
HEADER = "| mode | inference | success | pauses | seam | s to lift |\n|---|---|---|---|---|---|"


def row(mode: str, inference_ms: int, seeds: range, *, workers: int, replan_actions: int) -> str:
    """Return a line of the table."""
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
    # Where the arm rests between chunks there is no seam.
    seam = "-" if mode == "synchronous" else format(figures["seam_ratio"], ".2f")
    return (
        f"| {mode} | {inference_ms} ms | {figures['success_rate']:.0%} "
        f"| {figures['policy_holds'] / len(episodes):.1f} | {seam} "
        f"| {'-' if seconds is None else format(seconds, '.1f')} |"
    )


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0])
    parser.add_argument("--episodes", type=int, default=10)
    parser.add_argument("--seed", type=int, default=1000, help="seed of the first episode")
    parser.add_argument("--modes", nargs="+", choices=MODES, default=MODES)
    parser.add_argument("--inference-ms", nargs="+", type=int, default=INFERENCE_MS)
    parser.add_argument("--replan-actions", type=int, default=4)
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--write", action="store_true", help="also into docs/chunks.md")
    args = parser.parse_args(arguments)
    seeds = range(args.seed, args.seed + args.episodes)
    lines = [
        f"{args.episodes} episodes a line, `replan_actions` {args.replan_actions}:",
        "",
        HEADER,
    ]
    print("\n".join(lines))
    for mode in args.modes:
        for inference_ms in args.inference_ms:
            workers, replan_actions = args.workers, args.replan_actions
            line = row(mode, inference_ms, seeds, workers=workers, replan_actions=replan_actions)
            print(line, flush=True)
            lines.append(line)
    if args.write:
        before, rest = PAGE.read_text(encoding="utf-8").split(BEGIN)
        after = rest.split(END)[1]
        table = "\n".join(["", *lines, "", ""])
        PAGE.write_text(before + BEGIN + table + END + after, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
