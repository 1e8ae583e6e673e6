"""What a recorded run says in figures, and `vla_ros judge`, which prints them."""

import argparse
import json
import sys
from pathlib import Path

from vla_ros.arguments import real
from vla_ros.policy.cadence import CadenceReport, parse
from vla_ros.replay.bags import BagError, read_bag
from vla_ros.replay.judge import JudgeError, judge_bag
from vla_ros.replay.timing import latencies
from vla_ros.safety import RATES_HZ


def measure(
    bag: Path, robot_file: Path, urdf: str | None = None, rate_hz: float = 100.0
) -> dict[str, object]:
    """Return verdict and timing of a bag, ready for JSON.

    Args:
        bag: The bag.
        robot_file: The robot file.
        urdf: Text of the robot's description, if the bag's is not to be used.
        rate_hz: Rate of `/safe_command`.

    Returns:
        What `Verdict.report` says (`violations`, `ticks`, `by_bound`, ...); `image_to_command_ms`
        and `image_to_safe_command_ms`, each with `p50` and `p99`; `policy_hz` and `safe_command_hz`
        (mean rates of the messages) and `chunk_hz` (of inferences that were executed).

    Raises:
        BagError: If the bag cannot be read.
        JudgeError: If it holds too little to judge, or the robot file is wrong.

    """
    timing = latencies(bag).percentiles()
    return {**judge_bag(bag, robot_file, urdf, rate_hz).report(), **timing}


def summarise(bag: Path, robot_file: Path) -> dict[str, object]:
    """Return the figures of `measure` as a run's summary has them.

    `by_bound` is `violations_by_bound` there, and `cadence` what `CadenceReport.as_dict` says, or
    None where no node reported it. Of a bag that cannot be judged `problem` says why,
    `violations` is None, and the timing is there as far as the bag can be read.
    """
    try:
        figures = measure(bag, robot_file)
    except (BagError, JudgeError) as err:
        told = {"violations": None, **_timing(bag), "problem": str(err)}
        return told | {"cadence": _cadence(bag)}
    chosen = {
        "violations": figures["violations"],
        "violations_by_bound": figures["by_bound"],
        "ticks": figures["ticks"],
    }
    timing = {key: _rounded(figures[key]) for key in _TIMING}
    return chosen | timing | {"cadence": _cadence(bag)}


def cadence(bag: Path) -> CadenceReport | None:
    """Return what the nodes last reported of their cadence, or None if none did.

    Raises:
        BagError: If the bag cannot be read.

    """
    last: dict[str, CadenceReport] = {}
    for _, _, message in read_bag(bag, ["/diagnostics"]):
        for status in message.status:
            report = parse({pair.key: pair.value for pair in status.values})
            if report is not None:
                last[status.name] = report
    if not last:
        return None
    first, *others = last.values()
    for other in others:
        first = first.joined(other)
    return first


def _cadence(bag: Path) -> dict[str, object] | None:
    try:
        report = cadence(bag)
    except (BagError, ValueError):  # a bag that cannot be read, or of another version
        return None
    return None if report is None else report.as_dict()


_TIMING = (
    *("image_to_command_ms", "image_to_safe_command_ms"),
    *("policy_hz", "chunk_hz", "safe_command_hz"),
)


def _timing(bag: Path) -> dict[str, object]:
    try:
        timing = latencies(bag).percentiles()
    except BagError:
        return {}
    return {key: _rounded(value) for key, value in timing.items()}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's options."""
    parser.add_argument("bag", type=Path, help="folder of the rosbag2")
    parser.add_argument("--robot", type=Path, required=True, help="robot file with the bounds")
    parser.add_argument("--urdf", type=Path, help="robot description, if the bag holds none")
    parser.add_argument(
        "--rate", type=real(*RATES_HZ), default=100.0, help="rate of /safe_command in Hz"
    )


def run(args: argparse.Namespace) -> int:
    """Judge a bag, write verdict and timing as JSON; return 0 if no bound was broken."""
    urdf = None if args.urdf is None else args.urdf.read_text(encoding="utf-8")
    figures = measure(args.bag, args.robot, urdf, args.rate)
    sys.stdout.write(json.dumps(figures, indent=2) + "\n")
    return 0 if figures["violations"] == 0 else 1


def _rounded(value: object) -> object:
    if isinstance(value, dict):
        return {key: _rounded(item) for key, item in value.items()}
    return round(value, 3) if isinstance(value, float) else value
