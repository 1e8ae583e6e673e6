"""Export a trained policy to a bundle: `vla_ros learn export`.

The ONNX graph is compared with the network that it came from, and timed on one core.
"""

import argparse
import time
import warnings
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import torch
from numpy.typing import NDArray

from vla_ros.learn.instructions import TOKENS, build_tokenizer, vocabulary
from vla_ros.learn.interface import (
    ACTION_MEAN,
    ACTION_STD,
    CAMERAS,
    CHUNK,
    IMAGE_MEAN,
    IMAGE_SCALE,
    IMAGE_STD,
    RATE_HZ,
    STATE_NAMES,
)
from vla_ros.learn.model import PickPolicy
from vla_ros.paths import share
from vla_ros.policy.bundle import Bundle, write_manifest
from vla_ros.policy.manifest import ACTION_NAMES, SCHEMA_VERSION
from vla_ros.sim.panda import MAX_OPENING

OPSET = 17
GREATEST_DIFFERENCE = 1e-4
SLOWEST_S = 0.015
GRAPH_FILE = "policy.onnx"
TOKENIZER_FILE = "tokenizer.json"

Arrays = dict[str, NDArray[Any]]
Report = Callable[[str], None]


def export_graph(net: PickPolicy, path: Path) -> None:
    """Write the network as one ONNX file with the inputs and output that the manifest names."""
    inputs = {name: torch.from_numpy(array) for name, array in random_inputs(0).items()}
    net = net.to(memory_format=torch.contiguous_format).eval()
    with warnings.catch_warnings():
        # torch recommends its newer exporter; the older one writes this opset's plain operators.
        warnings.simplefilter("ignore")
        torch.onnx.export(
            net,
            tuple(inputs.values()),
            str(path),
            input_names=list(inputs),
            output_names=["actions"],
            opset_version=OPSET,
            dynamo=False,
        )


def random_inputs(seed: int) -> Arrays:
    """Return inputs of the graph, by name, in its order: noise, and words of the vocabulary."""
    rng = np.random.default_rng(seed)
    inputs: Arrays = {
        name: rng.normal(0.0, 0.5, (1, 3, *spec.size)).astype(np.float32)
        for name, spec in CAMERAS.items()
    }
    inputs["state"] = rng.normal(0.0, 1.0, (1, len(STATE_NAMES))).astype(np.float32)
    tokens = rng.integers(1, len(vocabulary()), (1, TOKENS))
    tokens[:, rng.integers(2, TOKENS) :] = 0
    inputs["tokens"] = tokens
    return inputs


def _session(path: Path) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])


def difference(net: PickPolicy, path: Path, samples: int = 20) -> float:
    """Return the greatest difference between a network and its ONNX graph, in normalised units."""
    session = _session(path)
    net.eval()
    worst = 0.0
    for seed in range(samples):
        inputs = random_inputs(seed)
        with torch.no_grad():
            expected = net(*(torch.from_numpy(array) for array in inputs.values())).numpy()
        worst = max(worst, float(np.abs(session.run(None, inputs)[0] - expected).max()))
    return worst


def seconds_per_inference(path: Path, runs: int = 100) -> float:
    """Return the median time of the graph on one core."""
    session, inputs = _session(path), random_inputs(0)
    times = []
    for _ in range(runs):
        started = time.perf_counter()
        session.run(None, inputs)
        times.append(time.perf_counter() - started)
    return float(np.median(times))


def _floats(values: Any) -> list[float]:  # noqa: ANN401
    return [float(f"{float(value):.9g}") for value in values]


def _mean_std(mean: Any, std: Any) -> dict[str, Any]:  # noqa: ANN401
    """Return the manifest's entry of `(x - mean) / std`, as the training normalises."""
    return {"type": "mean_std", "mean": _floats(mean), "std": _floats(std), "eps": 0.0}


def _commands(checkpoint: dict[str, Any]) -> list[str]:
    """Return the commands that make this bundle again."""
    data, recipe = checkpoint["data"], checkpoint["recipe"]
    options = {
        "generate": f"--episodes {data['episodes']} --seed {data['seed']}",
        "train": (
            f"--steps {recipe['steps']} --batch {recipe['batch']} --seed {recipe['seed']} "
            f"--threads {checkpoint['threads']}"
        ),
        "export": "",
    }
    return [f"vla_ros learn {name} {words}".strip() for name, words in options.items()]


def manifest(checkpoint: dict[str, Any]) -> dict[str, Any]:
    """Return the manifest of a checkpoint, but for the hashes of its files."""
    inputs = {name: list(array.shape) for name, array in random_inputs(0).items()}
    return {
        "schema_version": SCHEMA_VERSION,
        "name": "panda_pick",
        "cameras": [
            {
                "name": name,
                "size": list(spec.size),
                "source_aspect": spec.source_aspect,
                "crop": _floats(spec.crop),
                "layout": "nchw",
                "scale": IMAGE_SCALE,
                "mean": list(IMAGE_MEAN),
                "std": list(IMAGE_STD),
            }
            for name, spec in CAMERAS.items()
        ],
        "state": {
            "names": list(STATE_NAMES),
            "normalisation": _mean_std(checkpoint["state_mean"], checkpoint["state_std"]),
        },
        "instruction": {"tokenizer": TOKENIZER_FILE, "length": TOKENS},
        "graphs": [
            {
                "name": "policy",
                "file": GRAPH_FILE,
                "inputs": inputs,
                "outputs": {"actions": [1, CHUNK, len(ACTION_NAMES)]},
            }
        ],
        "decoder": {"type": "direct"},
        "action": {
            "type": "delta_pose",
            "frame": "tool",
            "rotation": "rotation_vector",
            "reference": "previous",
            "rate_hz": float(RATE_HZ),
            "chunk": CHUNK,
            "names": list(ACTION_NAMES),
            "normalisation": _mean_std(ACTION_MEAN, ACTION_STD),
            "gripper": {
                "open_m": MAX_OPENING,
                "closed_m": 0.0,
                "mode": "binary",
                "threshold": 0.5,
            },
        },
        "source": {
            "commands": _commands(checkpoint),
            "task": "pick up the cube that is named, of three; simulated Panda",
            "demonstrations": checkpoint["data"],
            "recipe": checkpoint["recipe"],
            "threads": checkpoint["threads"],
            "validation_loss": {k: round(v, 4) for k, v in checkpoint["validation"].items()},
            "torch": str(torch.__version__),
        },
    }


def export(checkpoint_file: Path, output: Path, report: Report) -> Bundle:
    """Write the bundle of a finished training.

    Args:
        checkpoint_file: What `vla_ros learn train` wrote.
        output: The bundle's folder; files of an earlier export are replaced.
        report: Takes lines for people.

    Raises:
        ValueError: If the training is unfinished.
        RuntimeError: If the graph computes something else than the network, or is too slow.

    """
    checkpoint = torch.load(checkpoint_file, weights_only=True)
    steps = checkpoint["recipe"]["steps"]
    if checkpoint["step"] < steps:
        msg = (
            f"{checkpoint_file} is at step {checkpoint['step']} of {steps}; "
            "run: vla_ros learn train (it continues)"
        )
        raise ValueError(msg)
    net = PickPolicy(len(vocabulary()))
    net.load_state_dict(checkpoint["average"])
    output.mkdir(parents=True, exist_ok=True)
    graph = output / GRAPH_FILE
    export_graph(net, graph)
    off = difference(net, graph)
    if not off <= GREATEST_DIFFERENCE:
        msg = f"{graph} is {off:.1e} off the network, more than {GREATEST_DIFFERENCE}"
        raise RuntimeError(msg)
    seconds = seconds_per_inference(graph)
    if seconds > SLOWEST_S:
        msg = f"{graph} takes {1e3 * seconds:.1f} ms, more than {1e3 * SLOWEST_S:.0f} ms"
        raise RuntimeError(msg)
    build_tokenizer().save(str(output / TOKENIZER_FILE))
    bundle = write_manifest(output, manifest(checkpoint))
    size = sum(file.stat().st_size for file in output.iterdir()) / 1e6
    report(
        f"{output}: {size:.1f} MB, {off:.1e} off the network, {1e3 * seconds:.1f} ms on one core"
    )
    return bundle


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments of `vla_ros learn export`."""
    default = Path("runs/learn/training/checkpoint.pt")
    parser.add_argument("--checkpoint", type=Path, default=default)
    parser.add_argument(
        "--output", type=Path, default=None, help="folder (default: the package's bundle)"
    )


def run(args: argparse.Namespace) -> int:
    """Carry out `vla_ros learn export`."""
    output = args.output or share() / "bundles" / "panda_pick"
    export(args.checkpoint, output, partial(print, flush=True))
    return 0
