"""What all decoders are: they run a bundle's graphs until there is a chunk of actions."""

from collections.abc import Mapping
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from vla_ros.policy.backends import Backend
from vla_ros.policy.manifest import Graph
from vla_ros.policy.prefix import Prefix

Floats = NDArray[np.float32]
Tensors = Mapping[str, NDArray[Any]]


class DecodingError(RuntimeError):
    """What the graphs gave stands for no actions."""


class Decoder(Protocol):
    """Runs graphs until there is a chunk."""

    @property
    def takes_prefix(self) -> bool:
        """Whether `decode` goes on with a prefix; where not, it does not look at it."""
        ...

    def decode(
        self,
        graphs: Mapping[str, Backend],
        inputs: Tensors,
        *,
        stamp_ns: int,
        prefix: Prefix | None = None,
    ) -> Floats:
        """Return normalised actions, float32, shape (chunk, width of an action).

        Args:
            graphs: What runs each of the manifest's graphs, by its name.
            inputs: The observation's, by name; each graph is given those that it takes.
            stamp_ns: The observation's stamp: with the decoder's seed, all that noise comes from.
            prefix: What is left of the running chunk, to go on with.

        Raises:
            BackendError: If a graph cannot be run.
            DecodingError: If what it gives stands for no actions.

        """
        ...


def run_graph(graphs: Mapping[str, Backend], graph: Graph, values: Tensors) -> Tensors:
    """Run a graph on those of `values` that it takes, in its types; return its outputs by name.

    What is no numpy array is passed on untouched: a cache that a backend keeps on its device, which
    is many times larger than all else that goes between graphs.
    """
    inputs = {}
    for name, tensor in graph.inputs.items():
        value = values[name]
        is_array = isinstance(value, np.ndarray)
        inputs[name] = value.astype(tensor.dtype, copy=False) if is_array else value
    return graphs[graph.name].run(inputs)


def as_input(graph: Graph, name: str, value: object) -> NDArray[Any]:
    """Return a value, or one number for every entry, in the shape and type of a graph's input."""
    tensor = graph.inputs[name]
    array = np.asarray(value)
    if array.ndim == 0:
        return np.full(tensor.shape, array, tensor.dtype)
    return np.ascontiguousarray(array.reshape(tensor.shape), tensor.dtype)


def as_floats(outputs: Tensors, name: str, shape: tuple[int, ...]) -> Floats:
    """Return an output as float32.

    Raises:
        DecodingError: If it has another shape.

    """
    value = np.asarray(outputs[name], np.float32)
    if value.shape != shape:
        msg = f"the model's output {name!r} has the shape {value.shape}, not {shape}"
        raise DecodingError(msg)
    return value
