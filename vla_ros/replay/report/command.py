"""`vla_ros report`: the report of a recorded run, nothing stepped again."""

import argparse
import json
import sys
from pathlib import Path

from vla_ros.replay.common import ERRORS, parse_remap
from vla_ros.replay.live import result_from_bag
from vla_ros.replay.report.page import write_report


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's options."""
    parser.add_argument(
        "recording",
        type=Path,
        metavar="BAG_OR_RUN",
        help="a rosbag2 of a run, or a folder that `vla_ros demo` left",
    )
    parser.add_argument("--robot", type=Path, required=True, help="robot file with the bounds")
    parser.add_argument(
        "-o", "--output", type=Path, help="HTML file; report.html in the run's folder by default"
    )
    parser.add_argument("--urdf", type=Path, help="robot description, if the bag holds none")
    parser.add_argument(
        "--remap",
        action="append",
        default=[],
        metavar="FROM:=TO",
        help="rename a topic of the bag; may be given again",
    )


def run(args: argparse.Namespace) -> int:
    """Write the report, tell where; return 0, or 2 if an input is wrong."""
    try:
        bag, task = find_run(args.recording)
        target = (
            args.output or (args.recording if bag != args.recording else Path()) / "report.html"
        )
        remap = parse_remap(args.remap)
        result = result_from_bag(bag, args.robot, urdf=args.urdf, remap=remap)
        size = write_report(result, target, task=task)
    except ERRORS as err:
        sys.stderr.write(f"vla_ros report: {err}\n")
        return 2
    sys.stdout.write(f"{target} ({size / 1e6:.2f} MB)\n")
    return 0


def find_run(run: Path) -> tuple[Path, tuple[bool, str] | None]:
    """Return the bag of a run, and how its task ended where its folder says so."""
    if not (run / "bag").is_dir():
        return run, None
    try:
        summary = json.loads((run / "summary.json").read_text(encoding="utf-8"))
        return run / "bag", how_it_ended(summary)
    except (OSError, ValueError, KeyError, TypeError):
        # A run that was cut short has none, or half of one: its bag says the rest.
        return run / "bag", None


def how_it_ended(summary: dict[str, object]) -> tuple[bool, str]:
    """Return whether the task of a summary was done, and a few words on it."""
    done = bool(summary["success"])
    words = str(summary["reason"])
    return done, f"{words} after {float(str(summary['seconds'])):.1f} s" if done else words
