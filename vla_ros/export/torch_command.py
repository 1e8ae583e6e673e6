"""Export torch.export programs: `vla_ros export torch FILE.pt2 --manifest FILE.yaml --out DIR`.

They become ONNX, which runs without torch, or with `--backend torch` stay what they are.
"""

import argparse
import shutil
from pathlib import Path

from vla_ros.export import finish, given_manifest
from vla_ros.export.error import ExportError, require
from vla_ros.export.graphs_original import GraphsOriginal


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments of `vla_ros export torch`."""
    parser.add_argument(
        "source", nargs="+", metavar="FILE", help=".pt2 file; prefix=FILE step=FILE where two run"
    )
    parser.add_argument("--manifest", type=Path, required=True, help="what the graph does not say")
    parser.add_argument("--backend", choices=["onnx", "torch"], default="onnx")
    finish.add_arguments(parser)


def run(args: argparse.Namespace) -> int:
    """Carry out `vla_ros export torch`."""
    require("torch", "onnx", "onnxscript")
    from vla_ros.export.torch_graph import write_onnx  # noqa: PLC0415 - needs torch
    from vla_ros.export.torch_source import Program, read_program  # noqa: PLC0415

    content = given_manifest.read(args.manifest)
    files = given_manifest.sources(args.source, content, args.manifest)
    finish.check(args, [*files.values(), args.manifest])
    if args.backend == "torch" and (args.fp16 or args.int8):
        msg = "--fp16 and --int8 convert ONNX graphs: leave out --backend torch"
        raise ExportError(msg)
    graphs = {name: read_program(name, file, content) for name, file in files.items()}
    entries = []
    for name, graph in graphs.items():
        entry = {**graph.entry(), "backend": args.backend}
        entries.append({**entry, "file": f"{name}.{'pt2' if args.backend == 'torch' else 'onnx'}"})

    def make() -> finish.Made:
        for name, graph in graphs.items():
            if args.backend == "torch":
                shutil.copyfile(files[name], args.out / f"{name}.pt2")
            else:
                write_onnx(graph, args.out)
        bundle = given_manifest.write(content, entries, args.manifest, args.out)
        programs = {name: Program(graph) for name, graph in graphs.items()}
        return bundle, GraphsOriginal(bundle, programs)

    return finish.finish(make, args)
