"""ONNX Runtime, on exactly the provider that was asked for."""

import contextlib
import ctypes
import io
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime

from vla_ros.policy.backends.backend import (
    BackendError,
    BackendOptions,
    DeviceTensor,
    Tensor,
    check_names,
    check_tensor,
    on_host,
    one_line,
)
from vla_ros.policy.manifest import BundleError, Graph
from vla_ros.policy.manifest import Tensor as TensorSpec

_PROVIDERS = {
    "cpu": "CPUExecutionProvider",
    "cuda": "CUDAExecutionProvider",
    "tensorrt": "TensorrtExecutionProvider",
}
_INSTALL = {
    "CUDAExecutionProvider": "pip uninstall onnxruntime; pip install 'onnxruntime-gpu[cuda,cudnn]' "
    "brings CUDA and cuDNN too; the driver is NVIDIA's",
    "TensorrtExecutionProvider": "pip uninstall onnxruntime; pip install "
    "'onnxruntime-gpu[cuda,cudnn]', and NVIDIA's TensorRT of the version that it names, found "
    "through LD_LIBRARY_PATH",
}
_LIBRARIES = {
    "CUDAExecutionProvider": "libonnxruntime_providers_cuda.so",
    "TensorrtExecutionProvider": "libonnxruntime_providers_tensorrt.so",
}
_TYPES = {
    "tensor(float)": "float32",
    "tensor(float16)": "float16",
    "tensor(int64)": "int64",
    "tensor(int32)": "int32",
    "tensor(uint8)": "uint8",
    "tensor(bool)": "bool",
}

_DEVICES = {"CUDAExecutionProvider": "cuda", "TensorrtExecutionProvider": "cuda"}
"""Where the memory is that graphs of these providers read and write."""
_MANY_CUDA_GRAPHS = {"CUDAExecutionProvider"}
"""Who tells CUDA graphs apart by a number. TensorRT's replays its only one, whatever is bound."""
_MOST_CUDA_GRAPHS = 8


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
            _load_libraries(options.provider, provider)
        asked = (provider, provider_options(provider, options))
        try:
            # Without its fallback, which prints, tries the CPU, and fails for another reason.
            session = onnxruntime.InferenceSession(
                str(file), settings, providers=[asked], enable_fallback=0
            )
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
        self._bound: BoundSession | None = None
        if provider in _DEVICES:
            self._bound = BoundSession(
                session,
                graph,
                _DEVICES[provider],
                cuda_graph=options.cuda_graph and provider in _MANY_CUDA_GRAPHS,
                fixed=options.cuda_graph and provider not in _MANY_CUDA_GRAPHS,
            )

    def run(self, inputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Return the outputs by name.

        Raises:
            BackendError: If the graph cannot be run on these inputs.

        """
        if self._session is None:
            msg = "the graph has been closed"
            raise BackendError(msg)
        try:
            if self._bound is not None:
                return self._bound.run(inputs)
            values = self._session.run(self._outputs, on_host(inputs))
        except Exception as err:  # onnxruntime's exceptions share no other base class
            raise BackendError(one_line(err)) from err
        return dict(zip(self._outputs, values, strict=True))

    def close(self) -> None:
        """Free the session's memory, on a GPU as well."""
        self._session = self._bound = None


class BoundSession:
    """A session whose inputs and outputs stay in a device's memory, at fixed places.

    Arrays are copied to places of their own; outputs of other graphs are read where they are.
    Nothing comes back to the host unless it is asked for. Addresses repeat, so CUDA graphs can be
    replayed: one is kept for each combination of them.
    """

    def __init__(
        self,
        session: Any,  # noqa: ANN401 - onnxruntime has no types
        graph: Graph,
        device: str,
        *,
        cuda_graph: bool = False,
        fixed: bool = False,
    ) -> None:
        """Reserve memory for every input and output of the manifest.

        Args:
            session: ONNX Runtime's.
            graph: What the manifest says of it.
            device: Where: cuda or cpu.
            cuda_graph: Whether to number the combinations of addresses, for CUDA graphs.
            fixed: Whether there may be one combination only: outputs of other graphs are copied
                too, through the host, for which ONNX Runtime has no other way; once each.

        """
        self._session = session
        self._graph = graph
        self._device = device
        self._binding = session.io_binding()
        self._places = self._reserve(graph.inputs)
        self._bound: dict[str, Any] = {}
        self._results: list[_Results] = [_Results(self._reserve(graph.outputs))]
        self._captured: dict[tuple[int, ...], int] | None = {} if cuda_graph else None
        self._fixed = fixed
        self._copied: dict[str, Any] = {}

    def run(self, inputs: Mapping[str, Tensor]) -> dict[str, Any]:
        """Return the outputs by name, as `DeviceTensor`s.

        Raises:
            ValueError: If an input has another name, shape or type than the manifest says.

        """
        if set(inputs) != set(self._graph.inputs):
            msg = f"the inputs are {sorted(inputs)}, not {sorted(self._graph.inputs)}"
            raise ValueError(msg)
        for name, spec in self._graph.inputs.items():
            value = inputs[name]
            if value.shape != spec.shape or value.dtype != spec.dtype:
                msg = (
                    f"the input {name!r} is {value.dtype} {list(value.shape)}, not "
                    f"{spec.type} {list(spec.shape)}"
                )
                raise ValueError(msg)
            self._bind(name, value)
        results = self._free_results()
        for name, place in results.places.items():
            self._binding.bind_ortvalue_output(name, place)
        results.runs += 1
        self._session.run_with_iobinding(self._binding, self._run_options(results))
        return {
            name: DeviceTensor(
                place,
                self._graph.outputs[name].shape,
                self._graph.outputs[name].dtype,
                partial(results.fetch, name, results.runs),
            )
            for name, place in results.places.items()
        }

    def _reserve(self, specs: Mapping[str, TensorSpec]) -> dict[str, Any]:
        make = onnxruntime.OrtValue.ortvalue_from_shape_and_type
        return {
            name: make(list(spec.shape), np.dtype(spec.dtype).type, self._device, 0)
            for name, spec in specs.items()
        }

    def _bind(self, name: str, value: Any) -> None:  # noqa: ANN401 - an array or a DeviceTensor
        place = self._places[name]
        own = value.value if isinstance(value, DeviceTensor) else None
        source = place
        if (
            isinstance(own, onnxruntime.OrtValue)
            and own.device_name() == place.device_name()
            and not self._fixed
        ):
            source = own
        elif own is None or self._copied.get(name) is not value:
            place.update_inplace(np.ascontiguousarray(value))
            self._copied[name] = value if own is not None else None
        if self._bound.get(name) is not source:
            self._binding.bind_ortvalue_input(name, source)
            self._bound[name] = source

    def _free_results(self) -> "_Results":
        """Return places for the outputs that are not what this run reads: a cache that grows."""
        read = {value.data_ptr() for value in self._bound.values()}
        for results in self._results:
            if read.isdisjoint(results.addresses):
                return results
        self._results.append(_Results(self._reserve(self._graph.outputs)))
        return self._results[-1]

    def _run_options(self, results: "_Results") -> Any:  # noqa: ANN401
        if self._captured is None:
            return None
        addresses = (
            *(self._bound[name].data_ptr() for name in self._places),
            *results.addresses,
        )
        number = self._captured.setdefault(addresses, len(self._captured) + 1)
        options = onnxruntime.RunOptions()
        # -1: not captured. Each graph holds memory, and addresses that never repeat gain nothing.
        options.add_run_config_entry(
            "gpu_graph_id", str(number if number <= _MOST_CUDA_GRAPHS else -1)
        )
        return options


class _Results:
    """Places of a run's outputs."""

    def __init__(self, places: dict[str, Any]) -> None:
        self.places = places
        self.addresses = [place.data_ptr() for place in places.values()]
        self.runs = 0
        """Runs that have written here."""

    def fetch(self, name: str, run: int) -> Tensor:
        """Return a copy of what a run has written.

        Raises:
            BackendError: If a later run has written over it.

        """
        if run != self.runs:
            msg = f"the output {name!r} is of an earlier run, and has been written over"
            raise BackendError(msg)
        return np.array(self.places[name].numpy())


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


def _load_libraries(said: str, provider: str) -> None:
    """Load CUDA and cuDNN from NVIDIA's wheels, where they are, and then the provider itself.

    Raises:
        BundleError: Naming a library that it lacks; ONNX Runtime tells that to the log alone.

    """
    load = getattr(onnxruntime, "preload_dlls", None)
    if load is not None:
        # It prints what it does not find; what matters of that is told below.
        with contextlib.redirect_stdout(io.StringIO()):
            load()
    name = _LIBRARIES.get(provider)
    library = Path(str(onnxruntime.__file__)).parent / "capi" / f"{name}"
    if name is None or not library.exists():
        return
    try:
        ctypes.CDLL(str(library))
    except OSError as err:
        # Of other errors, such as a symbol that only onnxruntime gives it, it shall tell itself.
        if "cannot open shared object" in str(err):
            msg = f"provider {said!r} cannot be loaded: {one_line(err)}: {_INSTALL[provider]}"
            raise BundleError(msg) from err


def _check_available(said: str, provider: str) -> None:
    available = onnxruntime.get_available_providers()
    if provider in available:
        return
    remedy = _INSTALL.get(provider, "use one of them, or install the onnxruntime that has it")
    msg = (
        f"provider {said!r} is not in this onnxruntime, which has {', '.join(available)}: {remedy}"
    )
    raise BundleError(msg)
