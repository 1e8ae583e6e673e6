"""A model on a Triton Inference Server, or any other that speaks KServe's protocol 2 over gRPC."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from vla_ros.policy.backends.backend import (
    WARM_UP_S,
    BackendError,
    BackendOptions,
    Tensor,
    check_names,
    check_result,
    check_tensor,
    on_host,
    one_line,
)
from vla_ros.policy.manifest import BundleError, Graph

TYPES = {
    "float32": "FP32",
    "float16": "FP16",
    "int64": "INT64",
    "int32": "INT32",
    "uint8": "UINT8",
    "bool": "BOOL",
    "string": "BYTES",
}
"""The protocol's names of the manifest's types."""

_MISSING = "backend triton needs tritonclient: pip install 'vla_ros[triton]'"
# gRPC waits up to two minutes before it looks again for a server that was away.
_CHANNEL = [
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.min_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 1000),
    ("grpc.max_send_message_length", -1),
    ("grpc.max_receive_message_length", -1),
]


class TritonBackend:
    """A graph that a server runs under the manifest's `model`."""

    def __init__(self, graph: Graph, options: BackendOptions) -> None:
        """Connect, and check the model's inputs and outputs against the manifest.

        Args:
            graph: What the manifest says of it.
            options: `server` and `timeout_s`.

        Raises:
            BundleError: If the server is away, has no such model, or one of other inputs, outputs,
                shapes or types.

        """
        try:
            from tritonclient import grpc  # noqa: PLC0415
        except ImportError as err:
            raise BundleError(_MISSING) from err
        if not options.server:
            msg = f"graph {graph.name!r}: backend triton needs a server: set 'server' to host:port"
            raise BundleError(msg)
        self._grpc: Any = grpc
        self._graph = graph
        self._model = graph.model or ""
        self._where = f"{options.server}: model {self._model!r}"
        self._timeout_s = options.timeout_s
        self._first = True
        self._client: Any = grpc.InferenceServerClient(options.server, channel_args=_CHANNEL)
        try:
            self._check(options.server)
        except BundleError:
            self.close()
            raise
        self._outputs = [grpc.InferRequestedOutput(name) for name in graph.outputs]

    def run(self, inputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Return the outputs by name.

        Raises:
            BackendError: If the server is away, does not answer in time, or refuses the inputs. The
                next call connects again if need be.

        """
        if self._client is None:
            msg = f"{self._where}: the connection has been closed"
            raise BackendError(msg)
        tensors = []
        for name, value in on_host(inputs).items():
            kind = TYPES["string" if value.dtype == object else value.dtype.name]
            tensor = self._grpc.InferInput(name, list(value.shape), kind)
            tensor.set_data_from_numpy(value)
            tensors.append(tensor)
        limit_s = max(self._timeout_s, WARM_UP_S) if self._first else self._timeout_s
        try:
            result = self._client.infer(
                self._model, tensors, outputs=self._outputs, client_timeout=limit_s
            )
        except Exception as err:  # gRPC's exceptions share no other base class
            msg = f"{self._where}: {_reason(err, limit_s)}"
            raise BackendError(msg) from err
        self._first = False
        outputs: dict[str, Tensor] = {}
        for name in self._graph.outputs:
            value = result.as_numpy(name)
            if value is None:
                msg = f"{self._where}: the answer has no output {name!r}"
                raise BackendError(msg)
            outputs[name] = np.asarray(value)
        try:
            check_result(self._graph, outputs)
        except BackendError as err:
            msg = f"{self._where}: {err}"
            raise BackendError(msg) from err
        return outputs

    def close(self) -> None:
        """Close the connection."""
        client, self._client = self._client, None
        if client is not None:
            client.close()

    def _check(self, server: str) -> None:
        limit_s = self._timeout_s
        try:
            if not self._client.is_model_ready(self._model, client_timeout=limit_s):
                msg = f"{self._where}: is not there, or not ready: {self._models()}"
                raise BundleError(msg)
            said = self._client.get_model_metadata(self._model, client_timeout=limit_s)
        except self._grpc.InferenceServerException as err:
            reason = _reason(err, limit_s)
            msg = (
                f"graph {self._graph.name!r}: no Triton answers at {server}: {reason}: start the "
                "server, or correct 'server' (the port of gRPC, usually 8001)"
            )
            raise BundleError(msg) from err
        inputs = {tensor.name: tensor for tensor in said.inputs}
        outputs = {tensor.name: tensor for tensor in said.outputs}
        check_names(self._where, self._graph, set(inputs), set(outputs))
        names = {theirs: ours for ours, theirs in TYPES.items()}
        for specs, found in ((self._graph.inputs, inputs), (self._graph.outputs, outputs)):
            for name, spec in specs.items():
                tensor = found[name]
                shape = tuple(None if axis < 0 else axis for axis in tensor.shape)
                kind = names.get(tensor.datatype, tensor.datatype)
                check_tensor(f"{self._where}: {name}", spec, kind, shape)

    def _models(self) -> str:
        """Return in words which models the server has, as far as it tells."""
        try:
            index = self._client.get_model_repository_index(client_timeout=self._timeout_s)
        except self._grpc.InferenceServerException:
            return "load it there (vla_ros triton writes it for a server)"
        names = sorted(f"{model.name} ({model.state or 'not loaded'})" for model in index.models)
        return f"the server has {', '.join(names) or 'no models'}"


def _reason(err: Exception, limit_s: float) -> str:
    """Return what went wrong, in one line."""
    status = str(getattr(err, "status", lambda: "")())
    if "DEADLINE_EXCEEDED" in status:
        return f"has not answered within {limit_s:g} s"
    if "UNAVAILABLE" in status:
        return f"cannot be reached: {one_line(err)}"
    return one_line(err)
