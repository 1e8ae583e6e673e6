"""torch: exported programs (torch.export), and packages that AOTInductor compiled."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from vla_ros.policy.backends.backend import (
    BackendError,
    BackendOptions,
    DeviceTensor,
    Tensor,
    check_names,
    check_result,
    check_tensor,
    one_line,
)
from vla_ros.policy.manifest import BundleError, Graph

_MISSING = "backend torch needs torch 2.9 or newer: pip install 'vla_ros[torch]'"


class TorchBackend:
    """A .pt2 file in this process.

    The inputs' names are those of the exported `forward`; of a compiled package, which keeps no
    names, the manifest's order counts. The outputs are the manifest's in its order, or where
    `forward` returns a dict, by its keys.
    """

    def __init__(self, file: Path, graph: Graph, options: BackendOptions) -> None:
        """Open the file and check it against the manifest.

        Args:
            file: Of `torch.export.save` or `torch._inductor.aoti_compile_and_package`.
            graph: What the manifest says of it.
            options: `provider` cpu or cuda, `threads` (of the whole process), `trust_code`.

        Raises:
            BundleError: If torch is missing, the file is none of these, holds code, or takes other
                inputs than the manifest says.

        """
        try:
            import torch  # noqa: PLC0415
        except ImportError as err:
            raise BundleError(_MISSING) from err
        device = {"CPUExecutionProvider": "cpu", "CUDAExecutionProvider": "cuda"}.get(
            options.provider, options.provider
        )
        if device not in {"cpu", "cuda"}:
            msg = f"{file}: backend torch has the providers cpu and cuda, not {options.provider!r}"
            raise BundleError(msg)
        if device == "cuda" and not torch.cuda.is_available():
            msg = f"{file}: provider cuda: this torch ({torch.__version__}) sees no GPU: install "
            msg += "the torch of this machine's CUDA, or use provider cpu"
            raise BundleError(msg)
        self._torch: Any = torch
        self._file = file
        self._graph = graph
        self._device = device
        self._on_device = device != "cpu"
        torch.set_num_threads(options.threads)
        from vla_ros.policy.backends.torch_file import check_program, is_compiled  # noqa: PLC0415

        if is_compiled(file):
            if not options.trust_code:
                msg = (
                    f"{file}: is machine code (AOTInductor): set trust_code if it comes from hands "
                    "that you trust, or give the exported program itself"
                )
                raise BundleError(msg)
            self._call = self._open_compiled()
        else:
            check_program(file)
            self._call = self._open_program()

    def run(self, inputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Return the outputs by name.

        Raises:
            BackendError: If the graph cannot be run on these inputs.

        """
        torch = self._torch
        if self._call is None:
            msg = "the graph has been closed"
            raise BackendError(msg)
        try:
            with torch.inference_mode():
                tensors = {name: self._tensor(inputs[name]) for name in self._graph.inputs}
                outputs = self._named(self._call(tensors))
        except BackendError:
            raise
        except Exception as err:  # torch's exceptions share no other base class
            raise BackendError(one_line(err)) from err
        check_result(self._graph, outputs)
        return outputs

    def close(self) -> None:
        """Free the graph's memory, on a GPU as well."""
        self._call = None

    def _open_program(self) -> Any:  # noqa: ANN401 - torch is not installed for type checking
        torch = self._torch
        try:
            program = torch.export.load(str(self._file))
            if self._device == "cuda":
                from torch.export.passes import move_to_device_pass  # noqa: PLC0415

                program = move_to_device_pass(program, "cuda")
            names = program.graph_signature.user_inputs
            values = {node.name: node.meta.get("val") for node in program.graph.nodes}
            spec = program.call_spec.in_spec
            # The guards would be strings of code from the file; the manifest's shapes replace them.
            module = program.module(check_guards=False)
        except Exception as err:  # torch's exceptions share no other base class
            msg = f"{self._file}: torch {torch.__version__} cannot open it: {one_line(err)}"
            raise BundleError(msg) from err
        check_names(str(self._file), self._graph, set(map(str, names)), set(self._graph.outputs))
        for name, said in self._graph.inputs.items():
            own = values[name]
            shape = tuple(axis if isinstance(axis, int) else None for axis in own.shape)
            check_tensor(f"{self._file}: {name}", said, str(own.dtype).split(".")[-1], shape)
        from torch.utils import _pytree as pytree  # noqa: PLC0415

        def call(tensors: Mapping[str, Any]) -> Any:  # noqa: ANN401
            args, kwargs = pytree.tree_unflatten([tensors[name] for name in names], spec)
            return module(*args, **kwargs)

        return call

    def _open_compiled(self) -> Any:  # noqa: ANN401
        torch = self._torch
        try:
            model = torch._inductor.aoti_load_package(str(self._file))  # noqa: SLF001
        except Exception as err:
            msg = f"{self._file}: torch {torch.__version__} cannot open it: {one_line(err)}"
            raise BundleError(msg) from err
        return lambda tensors: model(*(tensors[name] for name in self._graph.inputs))

    def _named(self, result: Any) -> dict[str, Tensor]:  # noqa: ANN401
        names = list(self._graph.outputs)
        if isinstance(result, Mapping):
            found = {name: result[name] for name in names if name in result}
        else:
            values = list(result) if isinstance(result, list | tuple) else [result]
            found = dict(zip(names, values, strict=False))
        if len(found) < len(names):
            msg = f"{self._file}: the model gives no output {min(set(names) - set(found))!r}"
            raise BackendError(msg)
        return {name: self._output(value.detach()) for name, value in found.items()}

    def _tensor(self, value: Any) -> Any:  # noqa: ANN401 - an array or a DeviceTensor, to torch's
        if isinstance(value, DeviceTensor) and isinstance(value.value, self._torch.Tensor):
            return value.value
        # torch has no read-only tensors, and says so of each array that is one.
        return self._torch.tensor(np.asarray(value), device=self._device)

    def _output(self, value: Any) -> Any:  # noqa: ANN401
        if not self._on_device:
            return np.asarray(value.cpu().numpy())
        kind = str(value.dtype).split(".")[-1]
        return DeviceTensor(value, tuple(value.shape), kind, lambda: value.cpu().numpy())
