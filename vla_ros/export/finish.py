"""What every exporter does with a finished bundle: compare it, convert it, time it, report."""

import argparse
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from vla_ros.export import latency, parity
from vla_ros.export.error import ExportError, require
from vla_ros.export.graphs_original import GraphsOriginal
from vla_ros.policy.bundle import MANIFEST, Bundle

PRECISIONS = ("fp16", "int8")

Report = Callable[[str], None]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare what all exporters take."""
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="the new bundle")
    parser.add_argument("--fp16", action="store_true", help="write DIR_fp16 too, in float16")
    parser.add_argument("--int8", action="store_true", help="write DIR_int8 too, weights in int8")
    parser.add_argument("--dry-run", action="store_true", help="time a chunk, by threads")
    parser.add_argument(
        "--observations", type=int, default=3, help="random observations to compare (default: 3)"
    )


def start(folder: Path) -> None:
    """Make the bundle's folder, taking away an earlier export.

    Raises:
        ExportError: If it holds something else.

    """
    if folder.exists():
        found = {path.name for path in folder.iterdir()} if folder.is_dir() else {folder.name}
        if found and not found & {MANIFEST, parity.REPORT}:
            msg = f"--out {folder}: is there and holds no bundle: name a new folder"
            raise ExportError(msg)
        shutil.rmtree(folder)
    folder.mkdir(parents=True)


def check_runs(bundle: Bundle) -> None:
    """Run a bundle once.

    Raises:
        ExportError: If what it gives is not finite; its manifest is taken away then.

    """
    original = GraphsOriginal(bundle)
    prepared = original.prepare(parity.random_observation(bundle.manifest, 0, bundle))
    if not np.isfinite(original.decode(prepared, [])).all():
        (bundle.path / MANIFEST).unlink()
        msg = f"{bundle.path}: its actions are not finite on a random observation"
        raise ExportError(msg)


def finish(
    bundle: Bundle, original: parity.Original | None, args: argparse.Namespace, report: Report
) -> int:
    """Compare, convert and time a bundle as the flags say; return the exit code.

    A bundle that is off its original by more than `parity.LIMIT` loses its manifest, so that
    nothing runs it, and the code is 1.
    """
    bundles = {"fp32": bundle}
    comparisons: dict[str, parity.Parity] = {}
    if original is not None:
        comparisons["fp32"] = parity.compare(bundle, original, args.observations)
    is_off = "fp32" in comparisons and not comparisons["fp32"].end_to_end <= parity.LIMIT
    wanted = [p for p in PRECISIONS if getattr(args, p) and not is_off]
    for precision in wanted:
        folder = variant_folder(bundle.path, precision)
        start(folder)
        require("onnx")
        from vla_ros.export.precision import convert  # noqa: PLC0415 - needs onnx

        bundles[precision] = convert(bundle, precision, folder)
        if original is not None:
            comparison = parity.compare(bundles[precision], original, args.observations)
            comparisons[precision] = comparison
    for variant in bundles.values():
        report(f"{variant.path}: {_size_mb(variant.path):.1f} MB")
    latencies = {}
    if args.dry_run and not is_off:
        latencies = {
            name: {n: latency.milliseconds(b, n) for n in latency.thread_counts()}
            for name, b in bundles.items()
        }
    for name, variant in bundles.items():
        parity.write_report(variant.path, _content(name, comparisons, latencies, args))
    if comparisons:
        report(parity.table(comparisons))
    if latencies:
        report(latency.table(latencies))
    if is_off:
        (bundle.path / MANIFEST).unlink()
        report(
            f"{bundle.path}: is {comparisons['fp32'].end_to_end:.1e} off the model, more than "
            f"{parity.LIMIT:.0e}: its {MANIFEST} is taken away again; {parity.REPORT} says where"
        )
        return 1
    return 0


def variant_folder(folder: Path, precision: str) -> Path:
    """Return where a bundle's variant of another precision goes."""
    return folder.with_name(f"{folder.name}_{precision}")


def _content(
    name: str,
    comparisons: dict[str, parity.Parity],
    latencies: dict[str, dict[int, latency.Latency]],
    args: argparse.Namespace,
) -> dict[str, Any]:
    """Return what `parity.json` says of one variant."""
    content: dict[str, Any] = {"precision": name, "limit_fp32": parity.LIMIT}
    if name in comparisons:
        found = comparisons[name]
        content |= {
            "observations": args.observations,
            "greatest_difference": found.stages,
            "greatest_value": found.range,
        }
    if name in latencies:
        content["ms_a_chunk_by_threads"] = {str(n): t for n, t in latencies[name].items()}
    return content


def _size_mb(folder: Path) -> float:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file()) / 1e6
