"""ONNX Runtime, on exactly the provider that was asked for."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime

from vla_ros.policy.backends.backend import (
    BackendError,
    BackendOptions,
    Tensor,
    check_names,
    check_tensor,
    one_line,
)
from vla_ros.policy.manifest import BundleError, Graph

_PROVIDERS = {
    "cpu": "CPUExecutionProvider",
    "cuda": "CUDAExecutionProvider",
    "tensorrt": "TensorrtExecutionProvider",
}
_INSTALL = {
    "CUDAExecutionProvider": "pip uninstall onnxruntime; pip install onnxruntime-gpu, and NVIDIA's "
    "CUDA and cuDNN of the versions that it names",
    "TensorrtExecutionProvider": "pip uninstall onnxruntime; pip install onnxruntime-gpu, and "
    "NVIDIA's CUDA, cuDNN and TensorRT of the versions that it names",
}
_TYPES = {
    "tensor(float)": "float32",
    "tensor(float16)": "float16",
    "tensor(int64)": "int64",
    "tensor(int32)": "int32",
    "tensor(uint8)": "uint8",
    "tensor(bool)": "bool",
}


class OnnxBackend:
    """An ONNX graph in this process."""

    def __init__(self, file: Path, graph: Graph, options: BackendOptions) -> None:
        """Open the graph and check it against the manifest.

        Args:
            file: The ONNX file. Half precision and int8 are properties of the file.
            graph: What the manifest says of it.
            options: `provider` runs every node or this raises.

        Raises:
            BundleError: If the file is no ONNX graph, its inputs and outputs are not the
                manifest's, or the provider cannot run it.

        """
        provider = _PROVIDERS.get(options.provider, options.provider)
        _check_available(options.provider, provider)
        settings = onnxruntime.SessionOptions()
        settings.intra_op_num_threads = options.threads
        settings.inter_op_num_threads = 1
        settings.log_severity_level = 3  # Errors: they come as exceptions too.
        # Threads that spin between inferences would take a core from the nodes beside.
        settings.add_session_config_entry("session.intra_op.allow_spinning", "0")
        if provider != _PROVIDERS["cpu"]:
            # Without this, nodes that the provider lacks, or all of them, run on the CPU unnoticed.
            settings.add_session_config_entry("session.disable_cpu_ep_fallback", "1")
        asked = (provider, provider_options(provider, options))
        try:
            session = onnxruntime.InferenceSession(str(file), settings, providers=[asked])
        except Exception as err:  # its exceptions share no other base class
            hint = f": {_INSTALL[provider]}" if provider in _INSTALL else ""
            msg = f"{file}: {provider} cannot run it: {one_line(err)}{hint}"
            raise BundleError(msg) from err
        if provider not in session.get_providers():
            found = ", ".join(session.get_providers())
            msg = f"{file}: {provider} was asked for, but {found} would run it"
            if provider in _INSTALL:
                msg += f": {_INSTALL[provider]}"
            raise BundleError(msg)
        session.disable_fallback()  # Else an error in motion opens it again on the CPU.
        inputs = {node.name: node for node in session.get_inputs()}
        outputs = {node.name: node for node in session.get_outputs()}
        check_names(str(file), graph, set(inputs), set(outputs))
        for specs, nodes in ((graph.inputs, inputs), (graph.outputs, outputs)):
            for name, spec in specs.items():
                node = nodes[name]
                # A symbolic axis (a name, or None) takes any length.
                shape = tuple(axis if isinstance(axis, int) else None for axis in node.shape)
                check_tensor(f"{file}: {name}", spec, _TYPES.get(node.type, node.type), shape)
        self._outputs = list(graph.outputs)
        self._session: Any = session
        self._on_device: OnDevice | None = None
        if provider in _INSTALL:
            self._on_device = OnDevice(session, graph, "cuda")

    def run(self, inputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Return the outputs by name.

        Raises:
            BackendError: If the graph cannot be run on these inputs.

        """
        if self._session is None:
            msg = "the graph has been closed"
            raise BackendError(msg)
        try:
            if self._on_device is not None:
                return self._on_device.run(inputs)
            values = self._session.run(self._outputs, dict(inputs))
        except Exception as err:  # onnxruntime's exceptions share no other base class
            raise BackendError(one_line(err)) from err
        return dict(zip(self._outputs, values, strict=True))

    def close(self) -> None:
        """Free the session's memory, on a GPU as well."""
        self._session = self._on_device = None


class OnDevice:
    """A session whose inputs and outputs stay at fixed places of a device's memory.

    CUDA graphs need that; and what does not change between calls, such as the cache that the steps
    of a decoder are given, is copied to the device once.
    """

    def __init__(self, session: Any, graph: Graph, device: str) -> None:  # noqa: ANN401
        """Reserve memory for every input and output of the manifest, on `device` (cuda or cpu)."""
        make = onnxruntime.OrtValue.ortvalue_from_shape_and_type
        self._session = session
        self._binding = session.io_binding()
        self._inputs: dict[str, Any] = {}
        self._outputs: dict[str, Any] = {}
        self._shapes = {name: spec.shape for name, spec in graph.inputs.items()}
        self._types = {name: np.dtype(spec.dtype) for name, spec in graph.inputs.items()}
        self._last: dict[str, Tensor] = {}
        for name, spec in graph.inputs.items():
            self._inputs[name] = make(list(spec.shape), np.dtype(spec.dtype).type, device, 0)
            self._binding.bind_ortvalue_input(name, self._inputs[name])
        for name, spec in graph.outputs.items():
            self._outputs[name] = make(list(spec.shape), np.dtype(spec.dtype).type, device, 0)
            self._binding.bind_ortvalue_output(name, self._outputs[name])

    def run(self, inputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Return the outputs by name, read-only.

        Raises:
            ValueError: If an input has another name, shape or type than the manifest says.

        """
        if set(inputs) != set(self._inputs):
            msg = f"the inputs are {sorted(inputs)}, not {sorted(self._inputs)}"
            raise ValueError(msg)
        for name, value in inputs.items():
            if value.shape != self._shapes[name] or value.dtype != self._types[name]:
                msg = (
                    f"the input {name!r} is {value.dtype} {list(value.shape)}, not "
                    f"{self._types[name]} {list(self._shapes[name])}"
                )
                raise ValueError(msg)
            if self._last.get(name) is value:
                continue
            self._inputs[name].update_inplace(np.ascontiguousarray(value))
            self._last.pop(name, None)
            # An array of this class's own cannot have changed when it is given again.
            if not value.flags.writeable and value.base is None:
                self._last[name] = value
        self._session.run_with_iobinding(self._binding)
        outputs = {}
        for name, value in self._outputs.items():
            array = np.array(value.numpy())
            array.flags.writeable = False
            outputs[name] = array
        return outputs


def provider_options(provider: str, options: BackendOptions) -> dict[str, str]:
    """Return ONNX Runtime's settings of a provider.

    Raises:
        BundleError: If something is asked of a provider that it does not have.

    """
    tensorrt = provider == _PROVIDERS["tensorrt"]
    if options.precision is not None and not tensorrt:
        msg = (
            f"precision {options.precision} is TensorRT's alone: use provider tensorrt, or export "
            "the graph in that precision"
        )
        raise BundleError(msg)
    if options.cuda_graph and provider not in _INSTALL:
        msg = "cuda_graph needs provider cuda or tensorrt"
        raise BundleError(msg)
    if provider == _PROVIDERS["cuda"]:
        return {"enable_cuda_graph": "1"} if options.cuda_graph else {}
    if not tensorrt:
        return {}
    settings = {
        "trt_fp16_enable": str(options.precision == "fp16"),
        "trt_cuda_graph_enable": str(options.cuda_graph),
    }
    if options.cache_dir is not None:
        options.cache_dir.mkdir(parents=True, exist_ok=True)
        settings |= {
            "trt_engine_cache_enable": "True",
            "trt_engine_cache_path": str(options.cache_dir),
            "trt_timing_cache_enable": "True",
            "trt_timing_cache_path": str(options.cache_dir),
        }
    return settings


def _check_available(said: str, provider: str) -> None:
    available = onnxruntime.get_available_providers()
    if provider in available:
        return
    remedy = _INSTALL.get(provider, "use one of them, or install the onnxruntime that has it")
    msg = (
        f"provider {said!r} is not in this onnxruntime, which has {', '.join(available)}: {remedy}"
    )
    raise BundleError(msg)
