"""A torch module that becomes one graph of a bundle."""

import logging
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from numpy.typing import NDArray

from vla_ros.export.precision import INLINE_BYTES

OPSET = 18

_TYPES = {
    torch.float32: "float32",
    torch.float16: "float16",
    torch.int64: "int64",
    torch.int32: "int32",
    torch.uint8: "uint8",
    torch.bool: "bool",
}


@dataclass(frozen=True, slots=True)
class TorchGraph:
    """One graph, still in torch.

    Attributes:
        name: As decoders name it: `policy`, or `prefix` and `step`.
        module: Takes the inputs in their order; returns a tensor, or a tuple of them.
        inputs: An example of each input, with the batch axis, by its name.
        outputs: Names of the outputs, in their order.
        program: The module as a `torch.export.ExportedProgram`, where it came as one.

    """

    name: str
    module: torch.nn.Module
    inputs: Mapping[str, torch.Tensor]
    outputs: tuple[str, ...]
    program: Any = None

    @property
    def file(self) -> str:
        """Name of the ONNX file."""
        return f"{self.name}.onnx"

    def run(self, inputs: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
        """Return the outputs by name, computed in torch."""
        tensors = [torch.from_numpy(np.ascontiguousarray(inputs[name])) for name in self.inputs]
        with torch.no_grad():
            values = self.module(*tensors)
        values = values if isinstance(values, tuple) else (values,)
        return {n: v.numpy() for n, v in zip(self.outputs, values, strict=True)}

    def entry(self) -> dict[str, Any]:
        """Return the graph's entry of the manifest."""
        with torch.no_grad():
            values = self.module(*self.inputs.values())
        values = values if isinstance(values, tuple) else (values,)
        return {
            "name": self.name,
            "file": self.file,
            "inputs": {name: _tensor(value) for name, value in self.inputs.items()},
            "outputs": {n: _tensor(v) for n, v in zip(self.outputs, values, strict=True)},
        }


def _tensor(value: torch.Tensor) -> dict[str, Any]:
    return {"shape": list(value.shape), "type": _TYPES[value.dtype]}


def write_onnx(graph: TorchGraph, folder: Path) -> list[Path]:
    """Write the graph as an ONNX file into `folder`; return the files written.

    All shapes are fixed at those of the example. Weights are inside the file as long as they fit.

    Raises:
        RuntimeError: If torch cannot express the module in ONNX.

    """
    path = folder / graph.file
    data = path.with_name(path.name + ".data")
    data.unlink(missing_ok=True)
    loggers = [logging.getLogger(name) for name in ("torch.onnx", "onnxscript", "onnx_ir")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings(), torch.no_grad():
            warnings.simplefilter("ignore")
            program = torch.onnx.export(
                graph.program or graph.module.eval(),
                () if graph.program else tuple(graph.inputs.values()),
                input_names=list(graph.inputs),
                output_names=list(graph.outputs),
                opset_version=OPSET,
                dynamo=True,
                verbose=False,
            )
            size = sum(v.nbytes for v in _initializers(program))
            program.save(str(path), external_data=size > INLINE_BYTES)
    except torch.onnx.OnnxExporterError as err:
        msg = f"graph {graph.name!r} cannot be written as ONNX: {' '.join(str(err).split())[:400]}"
        raise RuntimeError(msg) from err
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
    _check_inputs(path, graph)
    return [path, data] if data.exists() else [path]


def _initializers(program: Any) -> list[Any]:  # noqa: ANN401 - torch.onnx.ONNXProgram
    values = program.model.graph.initializers.values()
    return [value.const_value for value in values if value.const_value is not None]


def _check_inputs(path: Path, graph: TorchGraph) -> None:
    """Fail where the module never uses one of its inputs: a bundle would feed it in vain."""
    model = onnx.load(str(path), load_external_data=False)
    used = {name for node in model.graph.node for name in node.input}
    for name in graph.inputs:
        if name not in used:
            msg = f"graph {graph.name!r} does not use its input {name!r}"
            raise RuntimeError(msg)
