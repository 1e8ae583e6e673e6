"""From a graph of a manifest to what runs it."""

from vla_ros.policy.backends.backend import Backend, BackendOptions
from vla_ros.policy.bundle import Bundle
from vla_ros.policy.manifest import Graph


def open_backend(bundle: Bundle, graph: Graph, options: BackendOptions) -> Backend:
    """Return what runs a graph of a bundle, checked against the manifest.

    Raises:
        BundleError: If it cannot be run as asked: it says what to install, start or correct.

    """
    # Each imports what the others do not need: torch, gRPC.
    if graph.backend == "torch":
        from vla_ros.policy.backends.torch_program import TorchBackend  # noqa: PLC0415

        return TorchBackend(bundle.file(graph.file or ""), graph, options)
    if graph.backend == "openpi":
        from vla_ros.policy.backends.openpi import OpenpiBackend  # noqa: PLC0415

        return OpenpiBackend(graph, options)
    if graph.backend == "triton":
        from vla_ros.policy.backends.triton import TritonBackend  # noqa: PLC0415

        return TritonBackend(graph, options)
    from vla_ros.policy.backends.onnx import OnnxBackend  # noqa: PLC0415

    return OnnxBackend(bundle.file(graph.file or ""), graph, options)
