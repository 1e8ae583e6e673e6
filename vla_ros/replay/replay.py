"""`vla_ros replay`: a bag through the pipeline, without a clock, to figures and expectations."""

import argparse
import gc
import json
import shutil
import sys
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

from vla_ros.arguments import real, threads, whole
from vla_ros.policy.scheduler import MODES as CHUNK_MODES
from vla_ros.replay.common import ERRORS, SAFETY_HZ, ReplayError, parse_remap
from vla_ros.replay.expectations import HASH, Expectation, load, parse
from vla_ros.replay.holds import held
from vla_ros.replay.junit import write_junit
from vla_ros.replay.live import result_from_bag
from vla_ros.replay.output import write_bag
from vla_ros.replay.result import ReplayResult
from vla_ros.replay.stepping import MODES, Options, replay_bag
from vla_ros.safety import RATES_HZ
from vla_ros.safety.compile import announce

__all__ = ["Options", "ReplayError", "parse_remap", "replay_bag", "result_from_bag", "to_json"]

_TOLD = (
    *("violations", "nan_sent", "running_share", "acting_share", "unchanged_share"),
    *("changed_in_bounds", "time_to_stop_s", "fault_to_stop_s", "speed_max"),
    *("error_translation.mean", "error_rotation.mean", "error_gripper.mean"),
    *("safe_error_translation.max", "image_to_command_ms.p50", "image_to_safe_command_ms.p99"),
    *("hold_share", "instruction_changes_ignored"),
)
"""Metrics that are printed; the JSON has all."""

_HOLDS = 3
"""Reasons of being held that are printed."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's options."""
    parser.add_argument("bag", type=Path, help="the rosbag2: its folder, or a .db3 or .mcap file")
    parser.add_argument("--robot", type=Path, required=True, help="robot file with the bounds")
    parser.add_argument("--bundle", type=Path, help="policy bundle; not needed in mode safety")
    parser.add_argument(
        "--mode",
        choices=(*MODES, "live"),
        help="what is stepped: policy+safety (the default with --bundle), safety (without) from "
        "the recorded commands, policy against the recorded commands; live steps nothing and "
        "measures the recorded run itself",
    )
    latency = parser.add_mutually_exclusive_group()
    latency.add_argument(
        "--latency",
        default="zero",
        metavar="zero|fixed:MS|measured",
        help="time of an inference: none, MS milliseconds, or that of the recorded run's chunks "
        "(without any: as measured now, which does not repeat)",
    )
    latency.add_argument(
        "--inference-ms", type=float, metavar="MS", help="as --latency fixed:MS, as of vla_ros eval"
    )
    parser.add_argument("--expect", type=Path, metavar="YAML", help="file of expectations")
    parser.add_argument("--expect-hash", metavar="HEX", help="hash that the outputs must have")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write hash, metrics, outcomes")
    parser.add_argument("--junit", type=Path, metavar="FILE", help="write JUnit XML")
    parser.add_argument("--report", type=Path, metavar="FILE", help="write a report in HTML")
    parser.add_argument("--out", type=Path, metavar="BAG", help="write the outputs as a bag")
    parser.add_argument(
        "--remap",
        action="append",
        default=[],
        metavar="FROM:=TO",
        help="rename a topic of the bag; may be given again",
    )
    parser.add_argument("--instruction", help="say this at the start instead of what was recorded")
    parser.add_argument("--urdf", type=Path, help="robot description, if the bag holds none")
    parser.add_argument(
        "--store", metavar="DISTRO", help="definitions for a bag without any: humble, jazzy, ..."
    )
    parser.add_argument(
        "--rate",
        type=real(*RATES_HZ),
        default=SAFETY_HZ,
        help="rate of the filter in Hz (%(default)g)",
    )
    parser.add_argument(
        "--ticks",
        choices=("rate", "recorded"),
        default="rate",
        help="step at fixed rates, or when the recorded nodes stepped",
    )
    parser.add_argument(
        "--order",
        choices=("stamp", "received"),
        default="stamp",
        help="take messages by their stamps, or as and when they were received",
    )
    parser.add_argument("--replan-actions", type=whole(0), default=4, help="as of policy_node")
    parser.add_argument(
        "--chunk-mode", choices=CHUNK_MODES, default=CHUNK_MODES[0], help="as of policy_node"
    )
    parser.add_argument("--threads", type=threads, default=1, help="threads of an inference")


def run(args: argparse.Namespace) -> int:
    """Replay; return 0, 1 if an expectation is not met, 2 if an input is wrong."""
    bar = _Bar()
    if args.mode not in ("live", "policy"):
        announce()
    # Looking for garbage among all that was imported would take as long as a replay.
    gc.freeze()
    try:
        result = _result(args, bar.show)
        bar.clear()
        _write(args, result)
    except ERRORS as err:
        bar.clear()
        print(f"vla_ros replay: {err}", file=sys.stderr)
        return 2
    finally:
        gc.unfreeze()
    _tell(result)
    return 0 if result.passed else 1


def _result(args: argparse.Namespace, progress: Callable[[float], None]) -> ReplayResult:
    remap = parse_remap(args.remap)
    expectations: tuple[Expectation, ...] = ()
    if args.expect is not None:
        expectations = load(args.expect)
    if args.expect_hash is not None:
        expectations += parse({HASH: {"equals": args.expect_hash}}, "--expect-hash")
    if args.mode == "live":
        return result_from_bag(
            args.bag, args.robot, urdf=args.urdf, remap=remap, expectations=expectations
        )
    options = Options(
        mode=args.mode or ("safety" if args.bundle is None else "policy+safety"),
        latency=args.latency if args.inference_ms is None else f"fixed:{args.inference_ms!r}",
        rate_hz=args.rate,
        replan_actions=args.replan_actions,
        chunk_mode=args.chunk_mode,
        threads=args.threads,
        recorded_ticks=args.ticks == "recorded",
        received=args.order == "received",
        instruction=args.instruction,
        remap=remap,
        store=args.store,
        urdf=args.urdf,
    )
    return replay_bag(
        args.bag,
        args.robot,
        args.bundle,
        options=options,
        expectations=expectations,
        progress=progress,
    )


def to_json(result: ReplayResult) -> dict[str, Any]:
    """Return what is written with `--json`: the same on every run, as long as the latency is."""
    return {
        "bag": str(result.bag),
        "mode": result.mode,
        "latency": result.latency,
        "hash": result.hash or None,
        "violations": result.violations,
        "violations_by_bound": dict(result.violations_by_bound),
        "metrics": {name: metric.value for name, metric in result.metrics.items()},
        "passed": result.passed,
        "expectations": [asdict(outcome) for outcome in result.expectations],
        "warnings": list(result.warnings),
        "versions": dict(result.versions),
    }


def _write(args: argparse.Namespace, result: ReplayResult) -> None:
    if args.json is not None:
        args.json.parent.mkdir(parents=True, exist_ok=True)
        text = json.dumps(to_json(result), indent=2, allow_nan=False)
        args.json.write_text(text + "\n", encoding="utf-8")
    if args.junit is not None:
        write_junit(result, args.junit)
    if args.out is not None:
        write_bag(result, args.out)
    if args.report is not None:
        # Imported late: it is not needed for a verdict.
        from vla_ros.replay.report import write_report  # noqa: PLC0415

        write_report(result, args.report)


def _tell(result: ReplayResult) -> None:
    """Print warnings, the most asked-for figures and the outcomes."""
    for warning in result.warnings:
        print(f"warning: {warning}", file=sys.stderr)
    speed = result.speed()
    print(
        f"{result.bag}: {result.duration_s:.2f} s in {result.wall_s:.3f} s "
        f"({speed.get('times_real_time', 0.0):.0f} times real time), mode {result.mode}, "
        f"latency {result.latency}"
    )
    if result.mode != "live" and speed:
        print(
            f"  {len(result.inference_ms)} inferences took {speed['model_share']:.0%} of that, "
            f"{0 if result.ticks is None else len(result.ticks)} steps of the filter "
            f"{speed['filter_share']:.0%}, the rest {speed['rest_share']:.0%}; "
            f"loading took {result.loading_s:.3f} s before"
        )
    for name in _TOLD:
        metric = result.metrics.get(name)
        if metric is not None and metric.value is not None:
            unit = "" if metric.unit == "1" else f" {metric.unit}"
            print(f"  {name:<32}{metric.value:.6g}{unit}")
    for part in held(result):
        for count, why in part.reasons[:_HOLDS]:
            by = f"held still by the {part.by}"
            print(f"  {by:<32}{count / part.steps:.3g} of its steps, {why}")
    if result.hash:
        print(f"  {'hash':<32}{result.hash}")
    for outcome in result.expectations:
        if outcome.passed:
            shown = "" if outcome.value is None else f" (it is {outcome.value:.6g})"
            print(f"passed  {outcome.metric}: {outcome.expected}{shown}")
        else:
            print(f"FAILED  {outcome.message}")


class _Bar:
    """A progress bar on the terminal; nothing where there is none."""

    def __init__(self) -> None:
        self._terminal = sys.stderr.isatty()

    def show(self, share: float) -> None:
        """Draw the share that is done."""
        if self._terminal:
            width = max(10, shutil.get_terminal_size().columns - 12)
            done = round(share * width)
            bar = f"[{'#' * done}{'.' * (width - done)}]"
            print(f"\r{bar} {100 * share:3.0f} %", end="", file=sys.stderr, flush=True)

    def clear(self) -> None:
        """Remove the bar."""
        if self._terminal:
            blank = " " * (shutil.get_terminal_size().columns - 1)
            print(f"\r{blank}\r", end="", file=sys.stderr, flush=True)
