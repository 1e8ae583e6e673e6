"""`vla_ros triton`: write a bundle's graphs as a model repository of Triton Inference Server."""

import argparse
import re
import shutil
from pathlib import Path
from typing import Any

from vla_ros.arguments import threads
from vla_ros.policy.backends.triton import TYPES
from vla_ros.policy.bundle import Bundle, BundleError, write_manifest
from vla_ros.policy.manifest import Graph, Manifest, Tensor
from vla_ros.policy.onnx_file import read_onnx

_TYPES = {**TYPES, "string": "STRING"}
_TENSORRT = """optimization {
  execution_accelerators {
    gpu_execution_accelerator [ { name: "tensorrt" } ]
  }
}
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments to its parser."""
    parser.add_argument("folder", type=Path, metavar="DIR", help="the bundle's folder")
    parser.add_argument(
        "--out", type=Path, required=True, metavar="REPOSITORY", help="the repository's folder"
    )
    parser.add_argument("--provider", default="cuda", choices=("cpu", "cuda", "tensorrt"))
    parser.add_argument(
        "--threads", type=threads, default=1, help="threads of an inference on the CPU"
    )
    parser.add_argument(
        "--client", type=Path, metavar="OUT", help="also write the bundle that robots use with it"
    )


def run(args: argparse.Namespace) -> int:
    """Write the repository, and say how to start the server; return the exit code.

    Raises:
        BundleError: If the bundle cannot be used, or a graph of it is not ONNX.

    """
    bundle = Bundle.load(args.folder)
    for graph in bundle.manifest.graphs:
        folder = write_model(bundle, graph, args.out, provider=args.provider, threads=args.threads)
        print(f"{folder}: graph {graph.name!r}")
    if args.client is not None:
        args.client.mkdir(parents=True, exist_ok=True)
        instruction = bundle.manifest.instruction
        if instruction is not None and instruction.tokenizer is not None:
            target = args.client / instruction.tokenizer
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(bundle.file(instruction.tokenizer), target)
        write_manifest(args.client, client_manifest(bundle.manifest))
        print(f"{args.client}: for policy_node with the parameter 'server'")
    gpus = "" if args.provider == "cpu" else "--gpus all "
    print(
        "start the server, of a Triton with the onnxruntime backend:\n"
        f"  tritonserver --model-repository={args.out.resolve()}\n"
        "or in NVIDIA's container, RELEASE being its newest:\n"
        f"  docker run --rm {gpus}-p8001:8001 -v {args.out.resolve()}:/models:ro "
        "nvcr.io/nvidia/tritonserver:RELEASE-py3 tritonserver --model-repository=/models"
    )
    return 0


def model_name(manifest: Manifest, graph: Graph) -> str:
    """Return a graph's name on the server, of letters that are safe in a folder's name."""
    base = re.sub(r"[^A-Za-z0-9_-]+", "_", manifest.name)
    return base if len(manifest.graphs) == 1 else f"{base}_{graph.name}"


def write_model(
    bundle: Bundle, graph: Graph, repository: Path, *, provider: str, threads: int
) -> Path:
    """Write one graph into a repository; return its folder there.

    Raises:
        BundleError: If it is not ONNX.

    """
    if graph.backend != "onnx" or graph.file is None:
        msg = f"{bundle.path}: graph {graph.name!r} is of backend {graph.backend}: only ONNX graphs"
        raise BundleError(msg)
    name = model_name(bundle.manifest, graph)
    folder = repository / name
    version = folder / "1"
    version.mkdir(parents=True, exist_ok=True)
    source = bundle.file(graph.file)
    shutil.copy2(source, version / "model.onnx")
    for weights in read_onnx(source).external:
        target = version / weights
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(source.parent / weights, target)
    config = model_config(name, graph, provider=provider, threads=threads)
    (folder / "config.pbtxt").write_text(config, encoding="utf-8")
    return folder


def model_config(name: str, graph: Graph, *, provider: str, threads: int) -> str:
    """Return the `config.pbtxt` of a graph, a ModelConfig in Protocol Buffers' text format."""
    kind = "KIND_CPU" if provider == "cpu" else "KIND_GPU"
    return (
        f'name: "{name}"\n'
        'backend: "onnxruntime"\n'
        # The shapes below are whole: the manifest's include the batch axis, which is 1.
        "max_batch_size: 0\n"
        f"{_tensors('input', graph.inputs)}"
        f"{_tensors('output', graph.outputs)}"
        f"instance_group [ {{ count: 1 kind: {kind} }} ]\n"
        f'parameters {{ key: "intra_op_thread_count" value {{ string_value: "{threads}" }} }}\n'
        f"{_TENSORRT if provider == 'tensorrt' else ''}"
    )


def client_manifest(manifest: Manifest) -> dict[str, Any]:
    """Return the manifest of the bundle that a robot uses with the server: all but the graphs."""
    content = manifest.model_dump(mode="json", exclude={"files"})
    for graph, said in zip(manifest.graphs, content["graphs"], strict=True):
        said |= {"backend": "triton", "file": None, "model": model_name(manifest, graph)}
    return content


def _tensors(side: str, tensors: dict[str, Tensor]) -> str:
    entries = [
        f'  {{ name: "{name}" data_type: TYPE_{_TYPES[spec.type]} dims: {list(spec.shape)} }}'
        for name, spec in tensors.items()
    ]
    return f"{side} [\n" + ",\n".join(entries) + "\n]\n"
