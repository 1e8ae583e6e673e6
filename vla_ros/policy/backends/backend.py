"""The protocol of all backends, their settings, and what they check alike."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Protocol

import numpy as np
from numpy.typing import DTypeLike, NDArray

from vla_ros.policy.manifest import BundleError, Graph
from vla_ros.policy.manifest import Tensor as TensorSpec

Tensor = NDArray[Any]
Shape = tuple[int | None, ...]

WARM_UP_S = 60.0
"""Longest time of the first call to a server, on which it may compile or read weights."""


class BackendError(RuntimeError):
    """A graph that was opened could not be run."""


class DeviceTensor:
    """An output that stays on its device until somebody asks for it as an array.

    Given to another graph on the same device, it is not copied at all.

    Attributes:
        value: The device's own object.
        shape: Length of each axis.
        dtype: Type of each entry.

    """

    def __init__(
        self,
        value: Any,  # noqa: ANN401 - onnxruntime's, or torch's
        shape: tuple[int, ...],
        dtype: DTypeLike,
        fetch: Callable[[], Tensor],
    ) -> None:
        """`fetch` returns a copy in the host's memory."""
        self.value = value
        self.shape = shape
        self.dtype = np.dtype(dtype)
        self._fetch = fetch

    def __array__(self, dtype: DTypeLike = None, copy: bool | None = None) -> Tensor:  # noqa: FBT001
        """Return a copy in the host's memory: what np.asarray calls."""
        if copy is False:
            msg = "a tensor on a device cannot be an array without a copy"
            raise ValueError(msg)
        return self._fetch().astype(self.dtype if dtype is None else dtype, copy=False)


class Backend(Protocol):
    """Runs one graph. Not for use from two threads at a time."""

    def run(self, inputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Return the outputs by name.

        Outputs may be `DeviceTensor`s, for which np.asarray holds until the graph is run again; any
        backend takes those of any other.

        Raises:
            BackendError: If the graph cannot be run on these inputs, or not in time. The next call
                starts afresh: a connection that was lost is made again.

        """
        ...

    def close(self) -> None:
        """Let go of what runs it: memory, a connection."""
        ...


@dataclass(frozen=True, slots=True)
class BackendOptions:
    """How graphs are run. What a backend has no use for, it does not look at.

    Attributes:
        provider: What runs graphs of backend onnx and torch here: cpu, cuda or tensorrt (of onnx
            alone), or ONNX Runtime's own name of it.
        threads: Threads of one inference on the CPU.
        precision: `fp16` has TensorRT compute in half precision; None: in the graph's own.
        server: Of backend openpi and triton: `host:port`, or for openpi a ws:// or wss:// URL.
        timeout_s: Of backend openpi and triton: longest time of one call, connecting included, s.
            The first call, on which servers compile, may take `WARM_UP_S`.
        cache_dir: Where TensorRT keeps the engines that it builds; None: nowhere, they are built at
            every start, which takes minutes.
        cuda_graph: Whether CUDA replays the whole inference as one launch, of a static graph.
        trust_code: Whether a torch file may bring machine code, as AOTInductor's do. It runs with
            all rights of this process: only for files from hands that you trust.

    """

    provider: str = "cpu"
    threads: int = 1
    precision: Literal["fp16"] | None = None
    server: str = ""
    timeout_s: float = 5.0
    cache_dir: Path | None = None
    cuda_graph: bool = False
    trust_code: bool = False


def check_tensor(where: str, spec: TensorSpec, kind: str, shape: Shape) -> None:
    """Check one input or output of a model against the manifest.

    Args:
        where: The file or server, and the key, for errors.
        spec: What the manifest says.
        kind: The model's own type, as the manifest names types.
        shape: The model's own shape; an axis of None takes any length.

    Raises:
        BundleError: If they differ.

    """
    if kind != spec.type:
        msg = f"{where}: the model's type is {kind}, but the manifest says {spec.type}"
        raise BundleError(msg)
    fits = [own in {None, said} for own, said in zip(shape, spec.shape, strict=False)]
    if len(shape) != len(spec.shape) or not all(fits):
        own = ["any" if axis is None else axis for axis in shape]
        msg = f"{where}: the model's shape is {own}, but the manifest says {list(spec.shape)}"
        raise BundleError(msg)


def check_names(where: str, graph: Graph, inputs: set[str], outputs: set[str]) -> None:
    """Check that a model takes the manifest's inputs, and gives its outputs, others perhaps too.

    Raises:
        BundleError: If not.

    """
    if inputs != set(graph.inputs):
        msg = (
            f"{where}: graph {graph.name!r}: the model's inputs are {sorted(inputs)}, but the "
            f"manifest's {sorted(graph.inputs)}"
        )
        raise BundleError(msg)
    if missing := set(graph.outputs) - outputs:
        msg = (
            f"{where}: graph {graph.name!r}: the model has no output {min(missing)!r}; it "
            f"has {sorted(outputs)}"
        )
        raise BundleError(msg)


def check_result(graph: Graph, outputs: Mapping[str, Tensor]) -> None:
    """Check what came from elsewhere before it is decoded.

    Raises:
        BackendError: If an output has another shape or type than the manifest says.

    """
    for name, spec in graph.outputs.items():
        output = outputs[name]
        if output.shape != spec.shape or output.dtype != spec.dtype:
            msg = (
                f"output {name!r} is {output.dtype} {list(output.shape)}, but the manifest says "
                f"{spec.type} {list(spec.shape)}"
            )
            raise BackendError(msg)


def on_host(inputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return inputs as arrays, whatever device they are on."""
    return {name: np.asarray(value) for name, value in inputs.items()}


def one_line(err: BaseException) -> str:
    """Return an error's message as one line."""
    return " ".join(str(err).split()) or type(err).__name__
