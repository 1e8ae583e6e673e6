"""What runs a bundle's graphs: here (ONNX Runtime, torch) or on a server (openpi, Triton)."""

from vla_ros.policy.backends.backend import (
    Backend,
    BackendError,
    BackendOptions,
    DeviceTensor,
    Tensor,
)
from vla_ros.policy.backends.opening import open_backend

__all__ = ["Backend", "BackendError", "BackendOptions", "DeviceTensor", "Tensor", "open_backend"]
