"""What runs a graph: ONNX Runtime, on exactly the provider that was asked for."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import onnxruntime
from numpy.typing import NDArray

from vla_ros.policy.bundle import Bundle
from vla_ros.policy.manifest import BundleError, Graph
from vla_ros.policy.manifest import Tensor as TensorSpec

Tensor = NDArray[Any]

_TYPES = {
    "tensor(float)": "float32",
    "tensor(float16)": "float16",
    "tensor(int64)": "int64",
    "tensor(int32)": "int32",
    "tensor(uint8)": "uint8",
    "tensor(bool)": "bool",
}


class BackendError(RuntimeError):
    """A graph that was opened could not be run."""


class Backend(Protocol):
    """Runs one graph."""

    def run(self, inputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Return the outputs by name.

        Raises:
            BackendError: If the graph cannot be run on these inputs.

        """
        ...

    def close(self) -> None:
        """Let go of what runs it."""
        ...


@dataclass(frozen=True, slots=True)
class BackendOptions:
    """How graphs are run.

    Attributes:
        provider: What runs ONNX graphs: cpu, cuda or tensorrt, or ONNX Runtime's own name of it.
        threads: Threads of one inference.

    """

    provider: str = "cpu"
    threads: int = 1


_PROVIDERS = {
    "cpu": "CPUExecutionProvider",
    "cuda": "CUDAExecutionProvider",
    "tensorrt": "TensorrtExecutionProvider",
}


def open_backend(bundle: Bundle, graph: Graph, options: BackendOptions) -> Backend:
    """Return what runs a graph of a bundle.

    Raises:
        BundleError: If it cannot be run.

    """
    if graph.backend != "onnx" or graph.file is None:
        msg = f"the bundle {bundle.path}: graph {graph.name!r}: backend {graph.backend} is not here"
        raise BundleError(msg)
    return OnnxBackend(
        bundle.file(graph.file),
        graph,
        threads=options.threads,
        provider=_PROVIDERS.get(options.provider, options.provider),
    )


class OnnxBackend:
    """ONNX Runtime."""

    def __init__(
        self,
        file: Path,
        graph: Graph,
        *,
        threads: int = 1,
        provider: str = "CPUExecutionProvider",
    ) -> None:
        """Open the graph and check it against the manifest.

        Args:
            file: The ONNX file.
            graph: What the manifest says of it.
            threads: Threads of one inference. More than one helps a large model on idle cores only.
            provider: ONNX Runtime's execution provider. It runs every node or this raises.

        Raises:
            BundleError: If the file is no ONNX graph, its inputs and outputs are not the
                manifest's, or the provider cannot run it.

        """
        if provider not in onnxruntime.get_available_providers():
            msg = (
                f"provider {provider!r} is not in this onnxruntime, which has "
                f"{', '.join(onnxruntime.get_available_providers())}: install the one that has it"
            )
            raise BundleError(msg)
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
        options.log_severity_level = 3  # Errors: they come as exceptions too.
        # Threads that spin between inferences would take a core from the nodes beside.
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        if provider != "CPUExecutionProvider":
            # Without this, nodes that the provider lacks, or all of them, run on the CPU unnoticed.
            options.add_session_config_entry("session.disable_cpu_ep_fallback", "1")
        try:
            session = onnxruntime.InferenceSession(str(file), options, providers=[provider])
        except Exception as err:  # its exceptions share no other base class
            msg = f"{file}: {provider} cannot run it: {' '.join(str(err).split())}"
            raise BundleError(msg) from err
        if provider not in session.get_providers():
            msg = f"{file}: {provider} was asked for, but {session.get_providers()} would run it"
            raise BundleError(msg)
        self._session = session
        self._outputs = list(graph.outputs)
        _check("inputs", session.get_inputs(), graph.inputs, file)
        _check("outputs", session.get_outputs(), graph.outputs, file)

    def run(self, inputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Return the outputs by name.

        Raises:
            BackendError: If the graph cannot be run on these inputs.

        """
        try:
            values = self._session.run(self._outputs, dict(inputs))
        except Exception as err:  # onnxruntime's exceptions share no other base class
            raise BackendError(" ".join(str(err).split())) from err
        return dict(zip(self._outputs, values, strict=True))

    def close(self) -> None:
        """Do nothing: the session goes with this object."""


def _check(
    side: str,
    nodes: list[onnxruntime.NodeArg],
    expected: Mapping[str, TensorSpec],
    file: Path,
) -> None:
    actual = {node.name: node for node in nodes}
    # A graph may give more than the manifest uses, but takes no less than it is fed.
    if not set(expected) <= set(actual) or (side == "inputs" and len(expected) < len(actual)):
        msg = (
            f"{file}: its {side} are {sorted(actual)}, but graphs[0].{side} in the manifest names "
            f"{sorted(expected)}"
        )
        raise BundleError(msg)
    for name, spec in expected.items():
        key = f"graphs[0].{side}.{name}"
        kind = _TYPES.get(actual[name].type, actual[name].type)
        if kind != spec.type:
            msg = f"{file}: {key}: the graph's type is {kind}, but the manifest says {spec.type}"
            raise BundleError(msg)
        own = actual[name].shape
        # A symbolic axis (a name, or None) takes any length.
        fits = [a == b or not isinstance(a, int) for a, b in zip(own, spec.shape, strict=False)]
        if len(own) != len(spec.shape) or not all(fits):
            said = list(spec.shape)
            msg = f"{file}: {key}: the graph's shape is {own}, but the manifest says {said}"
            raise BundleError(msg)
