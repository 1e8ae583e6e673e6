"""A tiny bundle whose outputs are known, for tests that need a model but not a trained one."""

from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers

from vla_ros.policy.bundle import Bundle, write_manifest
from vla_ros.policy.manifest import ACTION_NAMES, SCHEMA_VERSION

STATE_NAMES = (
    *(f"tcp.position.{axis}" for axis in "xyz"),
    *(f"tcp.rotation.r{row}{column}" for column in (1, 2) for row in (1, 2, 3)),
    "gripper.opening",
    *(f"joint.position.panda_joint{i}" for i in range(1, 8)),
)
WORDS = ("<pad>", "<unk>", "pick", "up", "the", "red", "green", "blue", "cube")
CHUNK = 16


def mean_std(mean: list[float], std: list[float]) -> dict[str, Any]:
    """Return a normalisation that divides by exactly `std`."""
    return {"type": "mean_std", "mean": mean, "std": std, "eps": 0.0}


def manifest(chunk: int = CHUNK) -> dict[str, Any]:
    """Return the manifest's content without `files`."""
    state = len(STATE_NAMES)
    return {
        "schema_version": SCHEMA_VERSION,
        "name": "tiny",
        "cameras": [
            {
                "name": "front",
                "size": [96, 96],
                "source_aspect": 1.0,
                "crop": [44 / 160, 32 / 160, 140 / 160, 128 / 160],
                "layout": "nchw",
                "scale": 1 / 255,
                "mean": [0.5, 0.5, 0.5],
                "std": [0.25, 0.25, 0.25],
            },
            {
                "name": "wrist",
                "size": [80, 96],
                "source_aspect": 1.0,
                "crop": [0.0, 0.0, 80 / 96, 1.0],
                "layout": "nchw",
                "scale": 1 / 255,
                "mean": [0.5, 0.5, 0.5],
                "std": [0.25, 0.25, 0.25],
            },
        ],
        "state": {
            "names": list(STATE_NAMES),
            "normalisation": mean_std([0.0] * state, [1.0] * state),
        },
        "instruction": {"tokenizer": "tokenizer.json", "length": 16},
        "graphs": [
            {
                "name": "policy",
                "file": "policy.onnx",
                "inputs": {
                    "front": [1, 3, 96, 96],
                    "wrist": [1, 3, 80, 96],
                    "state": [1, state],
                    "tokens": [1, 16],
                },
                "outputs": {"actions": [1, chunk, 7]},
            }
        ],
        "decoder": {"type": "direct"},
        "action": {
            "type": "delta_pose",
            "frame": "tool",
            "rotation": "rotation_vector",
            "reference": "previous",
            "rate_hz": 30.0,
            "chunk": chunk,
            "names": list(ACTION_NAMES),
            "normalisation": mean_std([0.0] * 7, [0.001] * 6 + [1.0]),
            "gripper": {"open_m": 0.08, "closed_m": 0.0, "mode": "binary", "threshold": 0.5},
        },
        "source": {"made by": "test/bundles.py"},
    }


def write_tokenizer(file: Path) -> None:
    """Write a tokenizer of words, as a trained bundle has it."""
    tokenizer = Tokenizer(models.WordLevel({w: i for i, w in enumerate(WORDS)}, unk_token="<unk>"))
    tokenizer.normalizer = normalizers.Sequence(
        [normalizers.Lowercase(), normalizers.Replace(".", ""), normalizers.Replace(",", "")]
    )
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer.enable_padding(pad_id=0, pad_token="<pad>", length=16)
    tokenizer.save(str(file))


def write_graph(file: Path, actions: np.ndarray, *, when_dark: str = "") -> None:
    """Write a graph whose output is `actions` (1, n, 7), plus the third token's id on its y.

    All inputs take part: their means enter with the factor 0. A front image that is black
    everywhere (-2 after normalisation) makes the output not a number with `when_dark` "nan", half
    as many actions as there should be with "short", and late by a second or more with "slow".
    """
    inputs = {
        "front": ([1, 3, 96, 96], TensorProto.FLOAT),
        "wrist": ([1, 3, 80, 96], TensorProto.FLOAT),
        "state": ([1, len(STATE_NAMES)], TensorProto.FLOAT),
        "tokens": ([1, 16], TensorProto.INT64),
    }
    nodes = [helper.make_node("Cast", ["tokens"], ["words"], to=TensorProto.FLOAT)]
    total = "base"
    for name in ("front", "wrist", "state"):
        nodes += [
            helper.make_node("ReduceMean", [name], [f"{name}_mean"], keepdims=0),
            helper.make_node("Mul", [f"{name}_mean", "zero"], [f"{name}_zero"]),
            helper.make_node("Add", [total, f"{name}_zero"], [f"{name}_sum"]),
        ]
        total = f"{name}_sum"
    nodes += [
        helper.make_node("Gather", ["words", "colour_at"], ["colour"], axis=1),
        helper.make_node("Mul", ["colour", "on_y"], ["colour_y"]),
        helper.make_node("Add", [total, "colour_y"], ["sum"]),
    ]
    nodes += [
        helper.make_node("Add", ["front_mean", "two"], ["brightness"]),
        helper.make_node("Clip", ["brightness", "floor"], ["bright"]),
        helper.make_node("Sub", ["bright", "floor"], ["light"]),
        helper.make_node("Equal", ["light", "none"], ["dark"]),
    ]
    if when_dark == "nan":
        nodes += [
            helper.make_node("Div", ["light", "light"], ["one"]),
            helper.make_node("Mul", ["sum", "one"], ["actions"]),
        ]
    elif when_dark == "short":
        nodes += [
            helper.make_node("Where", ["dark", "half", "all"], ["end"]),
            helper.make_node("Slice", ["sum", "begin", "end", "axis"], ["actions"]),
        ]
    elif when_dark == "slow":
        body = helper.make_graph(
            [
                helper.make_node("MatMul", ["x", "eye"], ["y"]),
                helper.make_node("Identity", ["go"], ["go_on"]),
            ],
            "round",
            [
                helper.make_tensor_value_info("round", TensorProto.INT64, []),
                helper.make_tensor_value_info("go", TensorProto.BOOL, []),
                helper.make_tensor_value_info("x", TensorProto.FLOAT, [128, 128]),
            ],
            [
                helper.make_tensor_value_info("go_on", TensorProto.BOOL, []),
                helper.make_tensor_value_info("y", TensorProto.FLOAT, [128, 128]),
            ],
        )
        nodes += [
            helper.make_node("Where", ["dark", "many", "zero_rounds"], ["rounds"]),
            helper.make_node("Loop", ["rounds", "", "eye"], ["turned"], body=body),
            helper.make_node("ReduceMean", ["turned"], ["turned_mean"], keepdims=0),
            helper.make_node("Mul", ["turned_mean", "zero"], ["turned_zero"]),
            helper.make_node("Add", ["sum", "turned_zero"], ["actions"]),
        ]
    else:
        nodes.append(helper.make_node("Identity", ["sum"], ["actions"]))
    constants = {
        "base": actions.astype(np.float32),
        "zero": np.float32(0.0),
        "two": np.float32(2.0),
        "floor": np.float32(1e-3),
        "none": np.float32(0.0),
        "begin": np.array([0]),
        "half": np.array([actions.shape[1] // 2]),
        "all": np.array([actions.shape[1]]),
        "axis": np.array([1]),
        "many": np.int64(60_000),
        "zero_rounds": np.int64(0),
        "eye": np.eye(128, dtype=np.float32),
        "colour_at": np.int64(3),
        "on_y": np.eye(7, dtype=np.float32)[1],
    }
    used = {name for node in nodes for name in node.input}
    shape = [1, None if when_dark == "short" else actions.shape[1], 7]
    graph = helper.make_graph(
        nodes,
        "tiny",
        [helper.make_tensor_value_info(n, t, shape) for n, (shape, t) in inputs.items()],
        [helper.make_tensor_value_info("actions", TensorProto.FLOAT, shape)],
        [numpy_helper.from_array(np.asarray(v), n) for n, v in constants.items() if n in used],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.checker.check_model(model)
    onnx.save(model, str(file))


def forward_actions(chunk: int = CHUNK) -> np.ndarray:
    """Return normalised actions: action i moves i + 1 mm along the tool's x, gripper open."""
    actions = np.zeros((1, chunk, 7))
    actions[0, :, 0] = np.arange(1, chunk + 1)
    actions[0, :, 6] = 1.0
    return actions


def make_bundle(folder: Path, actions: np.ndarray | None = None, *, when_dark: str = "") -> Bundle:
    """Write the tiny bundle into `folder` and load it."""
    folder.mkdir(parents=True, exist_ok=True)
    actions = forward_actions() if actions is None else actions
    write_graph(folder / "policy.onnx", actions, when_dark=when_dark)
    write_tokenizer(folder / "tokenizer.json")
    return write_manifest(folder, manifest(actions.shape[1]))
