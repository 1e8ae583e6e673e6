"""Make a bundle of ONNX files: `vla_ros export onnx FILE --manifest FILE.yaml --out DIR`."""

import argparse
from pathlib import Path

from vla_ros.export import finish, given_manifest
from vla_ros.export.error import require
from vla_ros.export.graphs_original import GraphsOriginal


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments of `vla_ros export onnx`."""
    parser.add_argument(
        "source", nargs="+", metavar="FILE", help="ONNX file; prefix=FILE step=FILE where two run"
    )
    parser.add_argument("--manifest", type=Path, required=True, help="what the graph does not say")
    finish.add_arguments(parser)


def run(args: argparse.Namespace) -> int:
    """Carry out `vla_ros export onnx`."""
    require("onnx")
    from vla_ros.export.onnx_source import copy, entry  # noqa: PLC0415 - needs onnx

    content = given_manifest.read(args.manifest)
    files = given_manifest.sources(args.source, content, args.manifest)
    finish.check(args, [*files.values(), args.manifest])
    entries = [entry(name, file, content) for name, file in files.items()]

    def make() -> finish.Made:
        for file, item in zip(files.values(), entries, strict=True):
            copy(file, args.out / item["file"])
        bundle = given_manifest.write(content, entries, args.manifest, args.out)
        finish.check_runs(bundle)
        # The file itself is the model: there is something to compare only where it is converted.
        return bundle, GraphsOriginal(bundle) if args.fp16 or args.int8 else None

    return finish.finish(make, args)
