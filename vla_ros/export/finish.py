"""What every exporter does with a finished bundle: compare it, convert it, time it, report."""

import argparse
import contextlib
import shutil
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from vla_ros.arguments import whole
from vla_ros.export import latency, parity
from vla_ros.export.error import ExportError, require
from vla_ros.export.graphs_original import GraphsOriginal
from vla_ros.policy.bundle import MANIFEST, Bundle
from vla_ros.yaml_text import parse_yaml

PRECISIONS = ("fp16", "int8")

Made = tuple[Bundle, parity.Original | None]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare what all exporters take."""
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="the new bundle")
    parser.add_argument("--fp16", action="store_true", help="write DIR_fp16 too, in float16")
    parser.add_argument("--int8", action="store_true", help="write DIR_int8 too, weights in int8")
    parser.add_argument("--dry-run", action="store_true", help="time a chunk, by threads")
    parser.add_argument(
        "--observations",
        type=whole(1),
        default=3,
        help="random observations to compare (default: 3)",
    )


def check(args: argparse.Namespace, sources: Sequence[Path]) -> None:
    """Check the flags before anything is loaded or written.

    Args:
        args: The flags.
        sources: Files and folders that are read.

    Raises:
        ExportError: If a flag is at fault, or a folder to be written holds something else than an
            earlier export.

    """
    if not args.out.name or (args.out.exists() and not args.out.is_dir()):
        msg = f"--out {args.out}: is no name of a new folder"
        raise ExportError(msg)
    for source in sources:
        if source.resolve().is_relative_to(args.out.resolve()):
            msg = f"--out {args.out}: {source} lies in it: name another folder"
            raise ExportError(msg)
    variants = [variant_folder(args.out, p) for p in PRECISIONS if getattr(args, p)]
    for folder in (args.out, *variants):
        others = sorted(_files(folder) - _exported(folder))
        if others:
            msg = f"--out {folder}: holds {others[0]}, which no export wrote: name another folder"
            raise ExportError(msg)
    if variants:
        require("onnx")


def _files(folder: Path) -> set[str]:
    return {p.relative_to(folder).as_posix() for p in folder.rglob("*") if not p.is_dir()}


def _exported(folder: Path) -> set[str]:
    """Return the names of the files that an earlier export may have left."""
    files: object = None
    with contextlib.suppress(OSError, ValueError, yaml.YAMLError):
        content = parse_yaml((folder / MANIFEST).read_text(encoding="utf-8"))
        files = content.get("files") if isinstance(content, dict) else None
    return {MANIFEST, parity.REPORT, *(files if isinstance(files, dict) else ())}


@contextlib.contextmanager
def _new(folder: Path) -> Iterator[None]:
    """Have an empty folder, in place of an earlier export, which comes back if this one fails."""
    earlier = folder.with_name(f".{folder.name}.earlier")
    if earlier.exists():
        shutil.rmtree(earlier)
    if folder.exists():
        folder.rename(earlier)
    folder.mkdir(parents=True)
    try:
        yield
    except BaseException:
        shutil.rmtree(folder)
        if earlier.exists():
            earlier.rename(folder)
        raise
    if earlier.exists():
        shutil.rmtree(earlier)


def check_runs(bundle: Bundle) -> None:
    """Run a bundle once.

    Raises:
        ExportError: If what it gives is not finite.

    """
    original = GraphsOriginal(bundle)
    prepared = original.prepare(parity.random_observation(bundle.manifest, 0, bundle))
    if not np.isfinite(original.decode(prepared, [])).all():
        msg = f"{bundle.path}: its actions are not finite on a random observation"
        raise ExportError(msg)


def finish(make: Callable[[], Made], args: argparse.Namespace) -> int:
    """Make a bundle, compare, convert and time it as the flags say; return the exit code.

    Of a bundle that is off its original by more than `parity.LIMIT` only `parity.json` is left, and
    the code is 1. One that cannot be made leaves what was there before.

    Args:
        make: Writes the bundle into `args.out`, an empty folder; returns it, and its original if
            there is something to compare.
        args: The flags, which `check` has seen.

    """
    comparisons: dict[str, parity.Parity] = {}
    with _new(args.out):
        bundle, original = make()
        bundles = {"fp32": bundle}
        if original is not None:
            comparisons["fp32"] = parity.compare(bundle, original, args.observations)
            if not comparisons["fp32"].end_to_end <= parity.LIMIT:
                return _refuse(bundle, comparisons["fp32"], args)
    for precision in PRECISIONS:
        if getattr(args, precision):
            bundles[precision], found = _variant(bundle, precision, original, args)
            comparisons |= {} if found is None else {precision: found}
    for variant in bundles.values():
        _report(f"{variant.path}: {_size_mb(variant.path):.1f} MB")
    latencies = {}
    if args.dry_run:
        latencies = {
            name: {n: latency.milliseconds(b, n) for n in latency.thread_counts()}
            for name, b in bundles.items()
        }
    for name, variant in bundles.items():
        parity.write_report(variant.path, _content(name, comparisons, latencies, args))
    if comparisons:
        _report(parity.table(comparisons))
    if latencies:
        _report(latency.table(latencies))
    return 0


def _variant(
    bundle: Bundle, precision: str, original: parity.Original | None, args: argparse.Namespace
) -> tuple[Bundle, parity.Parity | None]:
    """Write a bundle again in another precision; return it, and how far it is off."""
    from vla_ros.export.precision import convert  # noqa: PLC0415 - needs onnx

    folder = variant_folder(args.out, precision)
    with _new(folder):
        variant = convert(bundle, precision, folder)
        if original is None:
            return variant, None
        return variant, parity.compare(variant, original, args.observations)


def _refuse(bundle: Bundle, found: parity.Parity, args: argparse.Namespace) -> int:
    """Leave only the report of a bundle that is another model; return the exit code."""
    shutil.rmtree(bundle.path)
    bundle.path.mkdir()
    comparisons = {"fp32": found}
    file = parity.write_report(bundle.path, _content("fp32", comparisons, {}, args))
    _report(parity.table(comparisons))
    _report(
        f"{bundle.path}: is {found.end_to_end:.1e} off the model, more than {parity.LIMIT:.0e}: "
        f"the bundle is taken away again; {file} says where it differs"
    )
    return 1


def variant_folder(folder: Path, precision: str) -> Path:
    """Return where a bundle's variant of another precision goes."""
    return folder.with_name(f"{folder.name}_{precision}")


def _report(text: str) -> None:
    print(text, flush=True)


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
