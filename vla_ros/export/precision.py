"""A bundle again, with its ONNX graphs in float16, or their weights in int8."""

import logging
import shutil
from pathlib import Path
from typing import Any

import onnx

from vla_ros.export.error import ExportError
from vla_ros.policy.bundle import MANIFEST, Bundle, write_manifest
from vla_ros.yaml_text import parse_yaml

INLINE_BYTES = 1_800_000_000
"""Weights beyond this go into a file of their own: protobuf's limit is 2 GB."""


def convert(bundle: Bundle, precision: str, folder: Path) -> Bundle:
    """Write a bundle whose graphs are converted; the inputs and outputs keep their types.

    Args:
        bundle: In float32.
        precision: `fp16`: weights and arithmetic in half precision, which GPUs do faster and CPUs
            slower. `int8`: the weights of matrix products, quantised dynamically: a quarter of the
            size, and faster on CPUs.
        folder: Of the new bundle.

    Raises:
        ExportError: If a graph cannot be converted.

    """
    folder.mkdir(parents=True, exist_ok=True)
    content = parse_yaml(bundle.file(MANIFEST).read_text(encoding="utf-8"))
    if not isinstance(content, dict):
        raise TypeError(content)
    for graph in content["graphs"]:
        if graph["backend"] != "onnx":
            msg = f"graph {graph['name']!r}: only ONNX graphs are converted, not {graph['backend']}"
            raise ExportError(msg)
        name = f"{Path(graph['file']).stem}.onnx"
        try:
            _CONVERTERS[precision](bundle.file(graph["file"]), folder / name)
        except Exception as err:  # onnx's and ONNX Runtime's exceptions share no other base class
            msg = f"graph {graph['name']!r} cannot be converted to {precision}: {err}"
            raise ExportError(" ".join(msg.split())[:500]) from err
        graph["file"] = name
    instruction = content.get("instruction")
    if instruction and instruction.get("tokenizer"):
        shutil.copyfile(bundle.file(instruction["tokenizer"]), folder / instruction["tokenizer"])
    del content["files"]
    content["source"]["precision"] = precision
    return write_manifest(folder, content)


def _to_fp16(source: Path, target: Path) -> None:
    from onnxruntime.transformers.float16 import convert_float_to_float16  # noqa: PLC0415 - slow

    model = _load(source)
    angles = _angles(model)
    model = convert_float_to_float16(model, keep_io_types=True, node_block_list=angles)
    _keep_whole(model, set(angles))
    _save(model, target)


def _keep_whole(model: Any, whole_nodes: set[str]) -> None:  # noqa: ANN401 - onnx.ModelProto
    """Feed the nodes that stay in float32 what they get from each other and from inputs as it is.

    The converter casts it to float16 and back: a time of 0.9 would be 1e-4 off by then, which at
    250 turns a unit of time is a tenth of a radian.
    """
    is_float = {
        v.name: v.type.tensor_type.elem_type == onnx.TensorProto.FLOAT for v in model.graph.input
    }
    whole = {name for name, floats in is_float.items() if floats}
    whole |= {o for node in model.graph.node if node.name in whole_nodes for o in node.output}
    casts = {
        n.output[0]: (n.input[0], n.attribute[0].i) for n in model.graph.node if n.op_type == "Cast"
    }
    direct = {}
    for output, (source, kind) in casts.items():
        first, halved = casts.get(source, ("", 0))
        halves = halved == onnx.TensorProto.FLOAT16 and first in whole
        if kind == onnx.TensorProto.FLOAT and halves:
            direct[output] = first
    for node in model.graph.node:
        for index, name in enumerate(node.input):
            if name in direct:
                node.input[index] = direct[name]


def _angles(model: Any) -> list[str]:  # noqa: ANN401 - onnx.ModelProto
    """Return the names of the nodes that sines and cosines come from.

    A position or a time of some hundred radians has no digit after the point in float16.
    """
    makers = {output: node for node in model.graph.node for output in node.output}
    waiting = [node for node in model.graph.node if node.op_type in {"Sin", "Cos"}]
    found: dict[str, Any] = {}
    while waiting:
        node = waiting.pop()
        if node.name not in found:
            found[node.name] = node
            waiting += [makers[name] for name in node.input if name in makers]
    return list(found)


def _to_int8(source: Path, target: Path) -> None:
    from onnxruntime.quantization import QuantType, quantize_dynamic  # noqa: PLC0415 - slow

    model = _load(source)
    root = logging.getLogger()
    level = root.level
    root.setLevel(logging.ERROR)  # It recommends a pre-processing that does nothing here.
    try:
        quantize_dynamic(
            model,
            str(target),
            weight_type=QuantType.QInt8,
            per_channel=True,
            op_types_to_quantize=["MatMul", "Gemm"],
            use_external_data_format=model.ByteSize() > INLINE_BYTES,
        )
    finally:
        root.setLevel(level)


def _load(source: Path) -> Any:  # noqa: ANN401 - onnx.ModelProto
    model = onnx.load(str(source))
    # torch's exporter notes shapes that contradict what these converters infer.
    del model.graph.value_info[:]
    return model


def _save(model: Any, target: Path) -> None:  # noqa: ANN401
    size = sum(len(t.raw_data) for t in model.graph.initializer)
    data = target.name + ".data"
    (target.parent / data).unlink(missing_ok=True)
    onnx.save(model, str(target), save_as_external_data=size > INLINE_BYTES, location=data)


_CONVERTERS = {"fp16": _to_fp16, "int8": _to_int8}
