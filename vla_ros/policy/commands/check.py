"""`vla_ros bundle check`: load a bundle, open its graphs, and run each once.

Exit code 0: all of it is good. 1: it cannot be used. 2: no fault was found, but a graph could not
be tried here, or was not to be.
"""

import argparse
import importlib.util
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tokenizers import Tokenizer

from vla_ros.arguments import positive, threads
from vla_ros.policy.backends import BackendError, BackendOptions, open_backend
from vla_ros.policy.bundle import Bundle, BundleError, Limits
from vla_ros.policy.manifest import Graph, Instruction, Tensor

GOOD, BAD, UNTRIED = 0, 1, 2


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments to its parser."""
    parser.description = __doc__
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    add_folder(parser)
    parser.add_argument(
        "--provider", default="cpu", help="what runs ONNX graphs: cpu, cuda or tensorrt"
    )
    parser.add_argument("--threads", type=threads, default=1, help="threads of one inference")
    parser.add_argument(
        "--server", default="", help="host:port, or URL, of graphs of backend triton or openpi"
    )
    parser.add_argument(
        "--no-run", action="store_true", help="open no graph: nothing of the bundle is run"
    )


def add_folder(parser: argparse.ArgumentParser) -> None:
    """Add the bundle's folder, and how large it may be."""
    parser.add_argument("folder", type=Path, metavar="DIR", help="the bundle's folder")
    parser.add_argument(
        "--max-gb",
        type=positive,
        default=Limits().total_bytes / 1e9,
        help="refuse a bundle whose files take more (%(default)g)",
    )


def load(args: argparse.Namespace) -> Bundle:
    """Load the bundle that the arguments of `add_folder` name.

    Raises:
        BundleError: If it cannot be used.

    """
    return Bundle.load(args.folder, Limits(total_bytes=round(args.max_gb * 1e9)))


def run(args: argparse.Namespace) -> int:
    """Check the bundle; print a line for each part, faults to stderr; return the exit code.

    Raises:
        BundleError: If it does not even load.

    """
    bundle = load(args)
    manifest = bundle.manifest
    size = sum(bundle.file(name).stat().st_size for name in manifest.files)
    print(f"manifest: schema {manifest.schema_version}, {manifest.name!r}")
    print(f"files: {len(manifest.files)}, {size / 1e6:.1f} MB, each with the SHA-256 that is said")
    settings: dict[str, Any] = {"provider": args.provider, "threads": args.threads}
    if args.server:
        settings["server"] = args.server
    options = BackendOptions(**settings)
    code = GOOD
    try:
        if manifest.instruction is not None:
            print(f"instruction: {_check_instruction(bundle, manifest.instruction)}")
    except BundleError as err:
        print(f"instruction: {err}", file=sys.stderr)
        code = BAD
    for index, graph in enumerate(manifest.graphs):
        title = f"graphs[{index}] {graph.name!r} ({graph.backend})"
        obstacle = "--no-run" if args.no_run else _obstacle(graph, args.server)
        if obstacle:
            print(f"{title}: not tried: {obstacle}")
            code = code or UNTRIED
            continue
        try:
            print(f"{title}: {_try(bundle, graph, options)}")
        except (BundleError, BackendError) as err:
            print(f"{title}: {' '.join(str(err).split())}", file=sys.stderr)
            code = BAD
    verdicts = {
        GOOD: "good",
        BAD: "cannot be used",
        UNTRIED: "no fault was found, but not every graph was tried",
    }
    print(f"{bundle.path}: {verdicts[code]}", file=sys.stderr if code == BAD else sys.stdout)
    return code


def _check_instruction(bundle: Bundle, instruction: Instruction) -> str:
    if instruction.tokenizer is None:
        return "the text itself"
    key = f"instruction.tokenizer: {instruction.tokenizer}"
    try:
        tokenizer = Tokenizer.from_file(str(bundle.file(instruction.tokenizer)))
    except Exception as err:  # its exceptions share no other base class
        msg = f"{key}: is no tokenizer: {' '.join(str(err).split())}"
        raise BundleError(msg) from err
    for name, token in (
        ("pad_token", instruction.pad_token),
        ("unknown_token", instruction.unknown_token),
    ):
        if token is not None and tokenizer.token_to_id(token) is None:
            msg = f"instruction.{name}: {instruction.tokenizer} has no token {token!r}"
            raise BundleError(msg)
    words = tokenizer.get_vocab_size()
    return f"{instruction.tokenizer}, {words} tokens, padded to {instruction.length}"


def _obstacle(graph: Graph, server: str) -> str:
    """Return why a graph cannot be tried on this machine, or nothing."""
    if graph.backend == "torch" and importlib.util.find_spec("torch") is None:
        return "torch is not installed: pip install torch"
    if graph.backend in {"triton", "openpi"} and not server:
        return "it runs on a server: name it with --server"
    return ""


def _try(bundle: Bundle, graph: Graph, options: BackendOptions) -> str:
    """Open a graph and run it once.

    Raises:
        BundleError: If it cannot be opened, or its outputs are not the manifest's.
        BackendError: If it cannot be run.

    """
    backend = open_backend(bundle, graph, options)
    try:
        begin = time.perf_counter()
        outputs = backend.run({name: _blank(tensor) for name, tensor in graph.inputs.items()})
        seconds = time.perf_counter() - begin
    finally:
        backend.close()
    said = []
    for name, tensor in graph.outputs.items():
        output = outputs[name]
        if output.shape != tensor.shape:
            msg = (
                f"outputs.{name}: has the shape {list(output.shape)} when it is run, but the "
                f"manifest says {list(tensor.shape)}"
            )
            raise BundleError(msg)
        finite = output.dtype.kind not in "fc" or bool(np.isfinite(output).all())
        said.append(
            f"{name} {tensor.type} {list(tensor.shape)}{'' if finite else ', not all finite'}"
        )
    return f"runs on zeros in {1e3 * seconds:.1f} ms: {'; '.join(said)}"


def _blank(tensor: Tensor) -> NDArray[Any]:
    """Return zeros; of a mask, which may hide everything, true; of text, nothing."""
    if tensor.type == "string":
        return np.full(tensor.shape, "", object)
    if tensor.type == "bool":
        return np.ones(tensor.shape, np.bool_)
    return np.zeros(tensor.shape, tensor.dtype)
