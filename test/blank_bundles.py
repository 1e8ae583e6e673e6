"""Bundles of every decoder, with graphs that give zeros: for tests of the format."""

import copy
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from bundles import mean_std, write_tokenizer
from vla_ros.policy.bundle import Bundle, write_manifest
from vla_ros.policy.manifest import Graph, parse_manifest

_ONNX_TYPES = {
    "float32": TensorProto.FLOAT,
    "float16": TensorProto.FLOAT16,
    "int64": TensorProto.INT64,
    "int32": TensorProto.INT32,
    "uint8": TensorProto.UINT8,
    "bool": TensorProto.BOOL,
}

_CAMERA = {
    "name": "front",
    "size": [4, 6],
    "source_aspect": 1.5,
    "crop": [0.0, 0.0, 1.0, 1.0],
    "layout": "nchw",
    "scale": 1 / 255,
    "mean": [0.5, 0.5, 0.5],
    "std": [0.25, 0.25, 0.25],
}
_OBSERVED = {"front": [1, 3, 4, 6], "state": [1, 2], "tokens": [1, 8]}
_CACHE = {"keys": {"shape": [2, 1, 5, 4]}}

_COMMON: dict[str, Any] = {
    "schema_version": 2,
    "name": "blank",
    "cameras": [_CAMERA],
    "state": {
        "names": ["tcp.position.x", "gripper.opening"],
        "normalisation": mean_std([0.0, 0.04], [0.1, 0.02]),
    },
    "instruction": {"tokenizer": "tokenizer.json", "length": 8},
    "action": {
        "type": "delta_pose",
        "frame": "tool",
        "rotation": None,
        "reference": "previous",
        "rate_hz": 10.0,
        "chunk": 3,
        "names": ["x", "y", "z", "gripper"],
        "normalisation": {"type": "quantiles", "low": [-1.0] * 4, "high": [1.0] * 4},
        "gripper": {"open_m": 0.08, "closed_m": 0.0, "mode": "continuous"},
    },
    "source": {"made by": "test/blank_bundles.py"},
}


def _prefix(**outputs: Any) -> dict[str, Any]:
    return {"name": "prefix", "file": "prefix.onnx", "inputs": _OBSERVED, "outputs": outputs}


_DECODERS: dict[str, dict[str, Any]] = {
    "direct": {
        "decoder": {"type": "direct"},
        "graphs": [
            {
                "name": "policy",
                "file": "policy.onnx",
                "inputs": _OBSERVED,
                "outputs": {"actions": [1, 3, 4]},
            }
        ],
    },
    "flow": {
        "decoder": {
            "type": "flow",
            "steps": 4,
            "cache": {"keys": "past/keys"},
            "direction": "one_to_zero",
        },
        "graphs": [
            _prefix(**_CACHE),
            {
                "name": "step",
                "file": "step.onnx",
                "inputs": {
                    "noise": [1, 3, 4],
                    "time": [1],
                    "past/keys": _CACHE["keys"],
                    "state": [1, 2],
                },
                "outputs": {"velocity": [1, 3, 4]},
            },
        ],
    },
    "diffusion": {
        "decoder": {
            "type": "diffusion",
            "scheduler": "ddim",
            "steps": 5,
            "train_steps": 100,
            "betas": "squaredcos_cap_v2",
            "prediction": "epsilon",
            "clip": 1.0,
            "horizon": 5,
            "start": 1,
            "cache": {"keys": "keys"},
        },
        "graphs": [
            _prefix(**_CACHE),
            {
                "name": "step",
                "file": "step.onnx",
                "inputs": {
                    "sample": [1, 5, 4],
                    "timestep": {"shape": [1], "type": "int64"},
                    "keys": _CACHE["keys"],
                },
                "outputs": {"prediction": [1, 5, 4]},
            },
        ],
    },
    "action_tokens": {
        "decoder": {
            "type": "action_tokens",
            "bins": 16,
            "first_token": 40,
            "cache": {"keys": "keys"},
            "new_cache": {"new_keys": "keys"},
        },
        "graphs": [
            _prefix(logits=[1, 60], **_CACHE),
            {
                "name": "step",
                "file": "step.onnx",
                "inputs": {"token": [1, 1], "position": [1], "keys": _CACHE["keys"]},
                "outputs": {"logits": [1, 60], "new_keys": _CACHE["keys"]},
            },
        ],
    },
}

DECODERS = tuple(_DECODERS)


def content(decoder: str) -> dict[str, Any]:
    """Return a manifest of that decoder, without `files`."""
    return copy.deepcopy({**_COMMON, **_DECODERS[decoder]})


def write_bundle(folder: Path, data: dict[str, Any]) -> Bundle:
    """Write the files that a manifest names, its graphs giving zeros; then the manifest."""
    folder.mkdir(parents=True, exist_ok=True)
    for graph in parse_manifest({**data, "files": hashes(data)}, folder).graphs:
        write_zeros(folder, graph)
    if data.get("instruction"):
        write_tokenizer(folder / data["instruction"]["tokenizer"])
    return write_manifest(folder, data)


def hashes(data: dict[str, Any]) -> dict[str, str]:
    """Return an entry for each file that a manifest's content names."""
    names = [graph["file"] for graph in data["graphs"]]
    if data.get("instruction"):
        names.append(data["instruction"]["tokenizer"])
    return dict.fromkeys(names, "0" * 64)


def write_zeros(folder: Path, graph: Graph) -> None:
    """Write an ONNX graph with the inputs and outputs that the manifest says, all outputs zero."""
    constants, nodes = [], []
    for index, (name, tensor) in enumerate(graph.outputs.items()):
        constants.append(numpy_helper.from_array(np.zeros(tensor.shape, tensor.dtype), f"c{index}"))
        nodes.append(helper.make_node("Identity", [f"c{index}"], [name]))
    values = [
        [
            helper.make_tensor_value_info(name, _ONNX_TYPES[tensor.type], list(tensor.shape))
            for name, tensor in side.items()
        ]
        for side in (graph.inputs, graph.outputs)
    ]
    proto = helper.make_graph(nodes, graph.name, *values, constants)
    model = helper.make_model(proto, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.save(model, str(folder / str(graph.file)))
