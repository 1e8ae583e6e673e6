"""What an ONNX file says of itself."""

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import onnx
from onnx.external_data_helper import uses_external_data

from vla_ros.export import given_manifest
from vla_ros.export.error import ExportError

_TYPES = {
    onnx.TensorProto.FLOAT: "float32",
    onnx.TensorProto.FLOAT16: "float16",
    onnx.TensorProto.INT64: "int64",
    onnx.TensorProto.INT32: "int32",
    onnx.TensorProto.UINT8: "uint8",
    onnx.TensorProto.BOOL: "bool",
}


def entry(name: str, file: Path, content: Mapping[str, Any]) -> dict[str, Any]:
    """Return a graph's entry of the manifest.

    Args:
        name: Of the graph.
        file: The ONNX file.
        content: The manifest, which says the length of an axis that the file leaves open.

    Raises:
        ExportError: If the file is no ONNX graph, or leaves open more than that.

    """
    try:
        model = onnx.load(str(file), load_external_data=False)
    except Exception as err:  # protobuf's exceptions are its own
        msg = f"{file}: is no ONNX file: {' '.join(str(err).split())[:200]}"
        raise ExportError(msg) from err
    weights = {tensor.name for tensor in model.graph.initializer}
    inputs = [value for value in model.graph.input if value.name not in weights]
    if not inputs or not model.graph.output:
        msg = f"{file}: is no ONNX graph: it has no inputs or no outputs"
        raise ExportError(msg)
    sides = {"inputs": inputs, "outputs": list(model.graph.output)}
    return {
        "name": name,
        "backend": "onnx",
        "file": f"{name}.onnx",
        **{
            side: {
                value.name: _tensor(
                    value, given_manifest.given_tensor(content, name, side, value.name), file
                )
                for value in values
            }
            for side, values in sides.items()
        },
    }


def _tensor(value: Any, given: list[int] | None, file: Path) -> dict[str, Any]:  # noqa: ANN401
    """Return shape and type; an open first axis is the batch, 1, others must be given."""
    tensor = value.type.tensor_type
    if tensor.elem_type not in _TYPES:
        kind = onnx.TensorProto.DataType.Name(tensor.elem_type)
        msg = f"{file}: {value.name}: type {kind}: a bundle has {', '.join(_TYPES.values())}"
        raise ExportError(msg)
    shape = []
    for axis, dimension in enumerate(tensor.shape.dim):
        if dimension.HasField("dim_value"):
            shape.append(int(dimension.dim_value))
        elif given is not None and axis < len(given):
            shape.append(int(given[axis]))
        elif axis == 0:
            shape.append(1)
        else:
            msg = (
                f"{file}: {value.name}: the length of axis {axis} is open "
                f"({dimension.dim_param or 'unnamed'}): give the shape in the manifest's 'graphs'"
            )
            raise ExportError(msg)
    return {"shape": shape, "type": _TYPES[tensor.elem_type]}


def copy(source: Path, target: Path) -> None:
    """Copy an ONNX file, and what its weights lie in."""
    model = onnx.load(str(source), load_external_data=False)
    locations = {
        item.value
        for tensor in model.graph.initializer
        if uses_external_data(tensor)
        for item in tensor.external_data
        if item.key == "location"
    }
    for location in sorted(locations):
        data = (source.parent / location).resolve()
        if not data.is_relative_to(source.parent.resolve()) or not data.is_file():
            msg = f"{source}: its weights are in {location!r}, which is not beside it"
            raise ExportError(msg)
        (target.parent / location).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(data, target.parent / location)
    shutil.copyfile(source, target)
