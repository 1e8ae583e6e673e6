"""Programs of torch.export as graphs."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from vla_ros.export import given_manifest
from vla_ros.export.error import ExportError
from vla_ros.export.torch_graph import TorchGraph
from vla_ros.policy.backends.torch_file import check_program


class Program:
    """Runs a graph in torch, as a backend does."""

    def __init__(self, graph: TorchGraph) -> None:
        """Run `graph`."""
        self._graph = graph

    def run(self, inputs: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
        """Return the outputs by name."""
        return self._graph.run(inputs)

    def close(self) -> None:
        """Nothing is held."""


def read_program(name: str, file: Path, content: Mapping[str, Any]) -> TorchGraph:
    """Return a program as a graph; its inputs are named as the arguments that it was exported with.

    Args:
        name: Of the graph.
        file: What `torch.export.save` wrote.
        content: The manifest, which names the outputs.

    Raises:
        BundleError: If the file is no such program, or holds code.
        ExportError: If torch cannot load it, or the manifest names other outputs.

    """
    check_program(file)
    try:
        program = torch.export.load(str(file))
    except Exception as err:  # torch raises what its reader happens to stumble over
        msg = (
            f"{file}: torch {torch.__version__} cannot load it: {' '.join(str(err).split())[:200]}"
        )
        raise ExportError(msg) from err
    wanted = set(program.graph_signature.user_inputs)
    examples = {
        node.name: _example(node, file)
        for node in program.graph.nodes
        if node.op == "placeholder" and node.name in wanted
    }
    outputs = given_manifest.output_names(content, name)
    count = len(program.graph_signature.user_outputs)
    if len(outputs) != count:
        msg = (
            f"{file}: gives {count} outputs, but the manifest names {len(outputs)} for graph "
            f"{name!r}: {', '.join(outputs)}"
        )
        raise ExportError(msg)
    return TorchGraph(name, program.module(), examples, tuple(outputs), program)


def _example(node: Any, file: Path) -> torch.Tensor:  # noqa: ANN401 - torch.fx.Node
    """Return zeros of an input's shape; an open first axis is the batch, 1."""
    value = node.meta["val"]
    shape = []
    for axis, length in enumerate(value.shape):
        if isinstance(length, int):
            shape.append(length)
        elif axis == 0:
            shape.append(1)
        else:
            msg = f"{file}: {node.name}: the length of axis {axis} is open: export it with one"
            raise ExportError(msg)
    if value.dtype.is_floating_point:
        generator = np.random.default_rng(0)
        numbers = torch.from_numpy(generator.random(shape, np.float32))
        return numbers.to(value.dtype)
    return torch.zeros(shape, dtype=value.dtype)
