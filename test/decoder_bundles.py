"""Tiny bundles of every decoder, of graphs whose outputs are known in closed form."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from bundles import write_tokenizer
from vla_ros.policy.bundle import Bundle, write_manifest
from vla_ros.policy.manifest import ACTION_NAMES

SIZE = 8
"""Height and width of the image."""
STATE = ("tcp.position.x", "gripper.opening")

_TYPES = {
    "float32": TensorProto.FLOAT,
    "float16": TensorProto.FLOAT16,
    "int64": TensorProto.INT64,
    "uint8": TensorProto.UINT8,
    "bool": TensorProto.BOOL,
}


def write_onnx(
    file: Path,
    nodes: list[Any],
    inputs: dict[str, Any],
    outputs: dict[str, Any],
    constants: dict[str, Any],
) -> None:
    """Write a graph; inputs and outputs as in a manifest, each with a shape and a type."""

    def infos(tensors):
        return [
            helper.make_tensor_value_info(n, _TYPES[t["type"]], t["shape"])
            for n, t in tensors.items()
        ]

    graph = helper.make_graph(
        nodes,
        "tiny",
        infos(inputs),
        infos(outputs),
        [numpy_helper.from_array(np.asarray(v), n) for n, v in constants.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.checker.check_model(model)
    onnx.save(model, str(file))


def tensor(shape: list[int], kind: str = "float32") -> dict[str, Any]:
    """Return a manifest's entry of an input or output."""
    return {"shape": shape, "type": kind}


def manifest(*, chunk: int = 4, history: int = 1, state_size: int = 3, **sections: Any) -> Any:
    """Return the manifest's content, but for graphs and decoder, which are among `sections`.

    The actions are the usual seven, not normalised; the width of the graphs' output is 8.
    """
    return {
        "schema_version": 2,
        "name": "tiny",
        "history": {"steps": history, "period_s": 0.1 if history > 1 else None},
        "cameras": [
            {
                "name": "front",
                "input": "observation.images.front",
                "size": [SIZE, SIZE],
                "source_aspect": 1.0,
                "crop": [0.0, 0.0, 1.0, 1.0],
                "layout": "nchw",
                "scale": 1 / 255,
                "mean": [0.0] * 3,
                "std": [1.0] * 3,
            }
        ],
        "state": {
            "names": list(STATE),
            "normalisation": {"type": "min_max", "min": [0.0, 0.0], "max": [1.0, 0.08]},
            "size": state_size,
        },
        "instruction": {
            "tokenizer": "tokenizer.json",
            "length": 5,
            "mask_input": "mask",
            "suffix": " cube",
        },
        "action": {
            "type": "twist",
            "frame": "base",
            "rotation": "rotation_vector",
            "rate_hz": 10.0,
            "chunk": chunk,
            "names": list(ACTION_NAMES),
            "normalisation": {"type": "identity"},
            "size": 8,
            "gripper": {"open_m": 1.0, "closed_m": 0.0, "mode": "continuous"},
        },
        "source": {},
        **sections,
    }


def observed(history: int = 1) -> dict[str, Any]:
    """Return the observation's inputs, as the graph `prefix` takes them."""
    moments = [] if history == 1 else [history]
    return {
        "observation.images.front": tensor([1, *moments, 3, SIZE, SIZE]),
        "state": tensor([1, *moments, 3]),
        "tokens": tensor([1, 5], "int64"),
        "mask": tensor([1, 5], "bool"),
    }


def write_prefix(file: Path, history: int = 1) -> dict[str, Any]:
    """Write the graph `prefix` and return its entry.

    Its output `context` (1, 1, 1) is the mean of the image, over all moments, plus a tenth of the
    sum of the state, plus a hundredth of the sum of the tokens that are no padding.
    """
    inputs, outputs = observed(history), {"context": tensor([1, 1, 1])}
    nodes = [
        helper.make_node("ReduceMean", ["observation.images.front"], ["image"], keepdims=0),
        helper.make_node("ReduceSum", ["state"], ["total"], keepdims=0),
        helper.make_node("Mul", ["total", "tenth"], ["tenths"]),
        helper.make_node("Cast", ["tokens"], ["words"], to=TensorProto.FLOAT),
        helper.make_node("Cast", ["mask"], ["kept"], to=TensorProto.FLOAT),
        helper.make_node("Mul", ["words", "kept"], ["said"]),
        helper.make_node("ReduceSum", ["said"], ["sum"], keepdims=0),
        helper.make_node("Mul", ["sum", "hundredth"], ["hundredths"]),
        helper.make_node("Sum", ["image", "tenths", "hundredths"], ["all"]),
        helper.make_node("Reshape", ["all", "cube"], ["context"]),
    ]
    constants = {
        "tenth": np.float32(0.1),
        "hundredth": np.float32(0.01),
        "cube": np.array([1, 1, 1], np.int64),
    }
    write_onnx(file, nodes, inputs, outputs, constants)
    return {"name": "prefix", "file": file.name, "inputs": inputs, "outputs": outputs}


def write_step(
    file: Path,
    nodes: list[Any],
    inputs: dict[str, Any],
    outputs: dict[str, Any],
    constants: dict[str, Any],
) -> dict[str, Any]:
    """Write the graph `step` and return its entry."""
    write_onnx(file, nodes, inputs, outputs, constants)
    return {"name": "step", "file": file.name, "inputs": inputs, "outputs": outputs}


def make_flow(
    folder: Path,
    *,
    direction: str = "one_to_zero",
    steps: int = 5,
    decay: bool = False,
    dtype: str = "float32",
    change: Callable[[dict[str, Any]], None] | None = None,
) -> Bundle:
    """Write a flow that leads straight to `ramp(4) + context`, or one whose velocity is the sample.

    Args:
        folder: Where to.
        direction: The decoder's.
        steps: The decoder's.
        decay: Whether the velocity is the sample itself, whose flow is known in closed form too.
        dtype: Type of the inputs `noise` and `time`.
        change: Of the manifest's content, before it is written.

    """
    folder.mkdir(parents=True, exist_ok=True)
    write_tokenizer(folder / "tokenizer.json")
    # The noise's place in a straight line to the actions a: x = t n + (1 - t) a, so that the
    # velocity n - a is (x - a) / t; with time the other way round, (a - x) / (1 - t).
    nodes = [
        helper.make_node("Cast", ["x_t"], ["x"], to=TensorProto.FLOAT),
        helper.make_node("Cast", ["t"], ["time"], to=TensorProto.FLOAT),
        helper.make_node("Add", ["ramp", "kv.context"], ["a"]),
        helper.make_node("Sub", ["x", "a"], ["away"]),
        helper.make_node("Sub", ["one", "time"], ["rest"]),
        helper.make_node("Neg", ["away"], ["back"]),
    ]
    backward = direction == "one_to_zero"
    over = ["away", "time"] if backward else ["back", "rest"]
    nodes.append(helper.make_node("Div", over, ["straight"]))
    nodes.append(helper.make_node("Identity", ["x" if decay else "straight"], ["v"]))
    graphs = [
        write_prefix(folder / "prefix.onnx"),
        write_step(
            folder / "step.onnx",
            nodes,
            {
                "x_t": tensor([1, 4, 8], dtype),
                "t": tensor([1], dtype),
                "kv.context": tensor([1, 1, 1]),
            },
            {"v": tensor([1, 4, 8])},
            {"ramp": ramp(4), "one": np.float32(1.0)},
        ),
    ]
    decoder = {
        "type": "flow",
        "steps": steps,
        "noise": "x_t",
        "time": "t",
        "output": "v",
        "cache": {"context": "kv.context"},
        "direction": direction,
        "seed": 3,
    }
    content = manifest(graphs=graphs, decoder=decoder)
    if change is not None:
        change(content)
    return write_manifest(folder, content)


def make_diffusion(
    folder: Path, *, knows: bool = True, history: int = 2, **settings: Any
) -> Bundle:
    """Write a diffusion of 6 actions, of which 4 from the second on are used.

    Args:
        folder: Where to.
        knows: Whether the model predicts the sample, `ramp(6) + context`; else it predicts half
            the noisy sample plus a ten-thousandth of the time step as the noise.
        history: Moments of an observation.
        settings: Of the decoder, in place of the usual ones.

    """
    folder.mkdir(parents=True, exist_ok=True)
    write_tokenizer(folder / "tokenizer.json")
    if knows:
        nodes = [helper.make_node("Add", ["ramp", "context"], ["prediction"])]
    else:
        nodes = [
            helper.make_node("Cast", ["timestep"], ["time"], to=TensorProto.FLOAT),
            helper.make_node("Mul", ["time", "little"], ["late"]),
            helper.make_node("Mul", ["sample", "half"], ["halved"]),
            helper.make_node("Sum", ["halved", "late"], ["prediction"]),
        ]
    graphs = [
        write_prefix(folder / "prefix.onnx", history),
        write_step(
            folder / "step.onnx",
            nodes,
            {
                "sample": tensor([1, 6, 8]),
                "timestep": tensor([1], "int64"),
                "context": tensor([1, 1, 1]),
            },
            {"prediction": tensor([1, 6, 8])},
            {
                "ramp": ramp(6),
                "half": np.float32(0.5),
                "little": np.float32(1e-4),
            },
        ),
    ]
    decoder = {
        "type": "diffusion",
        "scheduler": "ddim",
        "steps": 5,
        "train_steps": 50,
        "betas": "squaredcos_cap_v2",
        "prediction": "sample" if knows else "epsilon",
        "clip": None,
        "horizon": 6,
        "start": 1,
        "cache": {"context": "context"},
        **settings,
    }
    return write_manifest(folder, manifest(history=history, graphs=graphs, decoder=decoder))


def make_action_tokens(
    folder: Path, *, descending: bool = False, bins: int = 16, prompt: int = 1
) -> Bundle:
    """Write a language model whose next token depends on all before: see `spoken`.

    Args:
        folder: Where to.
        descending: Whether bins are counted down from token 40, or up from token 20.
        bins: Bins of an entry.
        prompt: The last of how many tokens of the prompt gives the first logits.

    """
    folder.mkdir(parents=True, exist_ok=True)
    write_tokenizer(folder / "tokenizer.json")
    vocabulary, first = 64, 40 if descending else 20
    inputs = observed()
    said = [
        helper.make_node("ReduceSum", ["tokens"], ["sum"], keepdims=0),
        helper.make_node("Reshape", ["sum", "one_one"], ["history"]),
        helper.make_node("Identity", ["history"], ["total"]),
    ]
    logits = [
        helper.make_node("Mod", ["total", "bins"], ["bin"]),
        helper.make_node("Mul", ["bin", "sign"], ["signed"]),
        helper.make_node("Add", ["signed", "first"], ["next"]),
        helper.make_node("OneHot", ["next", "depth", "values"], ["logits"]),
    ]
    constants = {
        "one_one": np.array([1, 1], np.int64),
        "bins": np.int64(bins),
        "sign": np.int64(-1 if descending else 1),
        "first": np.int64(first),
        "depth": np.int64(vocabulary),
        "values": np.array([-1.0, 3.0], np.float32),
    }
    outputs = {
        "logits": tensor([1, prompt, vocabulary]),
        "history": tensor([1, 1], "int64"),
    }
    prefix_nodes = [*said, *logits]
    if prompt > 1:
        # Logits of earlier places, which are to be passed over.
        prefix_nodes[-1] = helper.make_node("OneHot", ["next", "depth", "values"], ["last"])
        prefix_nodes.append(helper.make_node("Concat", ["before", "last"], ["logits"], axis=1))
        before = np.zeros((1, prompt - 1, vocabulary), np.float32)
        before[..., first] = 9.0
        constants["before"] = before
    write_onnx(folder / "prefix.onnx", prefix_nodes, inputs, outputs, constants)
    constants.pop("before", None)
    step_nodes = [
        helper.make_node("Add", ["past", "token"], ["sum"]),
        helper.make_node("Add", ["sum", "position"], ["present"]),
        helper.make_node("Identity", ["present"], ["total"]),
        *logits,
    ]
    step = write_step(
        folder / "step.onnx",
        step_nodes,
        {
            "token": tensor([1, 1], "int64"),
            "position": tensor([1], "int64"),
            "past": tensor([1, 1], "int64"),
        },
        {"logits": tensor([1, 1, vocabulary]), "present": tensor([1, 1], "int64")},
        {name: value for name, value in constants.items() if name != "one_one"},
    )
    prefix = {"name": "prefix", "file": "prefix.onnx", "inputs": inputs, "outputs": outputs}
    decoder = {
        "type": "action_tokens",
        "bins": bins,
        "first_token": first,
        "descending": descending,
        "cache": {"history": "past"},
        "new_cache": {"present": "past"},
    }
    return write_manifest(folder, manifest(graphs=[prefix, step], decoder=decoder))


def spoken(prompt_sum: int, count: int, *, bins: int, first: int, descending: bool) -> list[int]:
    """Return the bins that the model of `make_action_tokens` names."""
    past, result = prompt_sum, []
    for index in range(count):
        result.append(past % bins)
        token = first - result[-1] if descending else first + result[-1]
        past += token + index
    return result


def ramp(count: int) -> np.ndarray:
    """Return `(10 row + column) / 100`, float32, shape (1, count, 8)."""
    rows, columns = np.arange(count)[:, None], np.arange(8)[None]
    return ((10 * rows + columns) / 100).astype(np.float32)[None]
