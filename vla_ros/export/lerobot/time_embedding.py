"""The sine and cosine of flow matching's time, in float32 alone.

lerobot computes them in float64, which ONNX Runtime has no cosine of and TensorRT not at all. In
plain float32 the fastest of them, 250 turns a unit of time, would be off by 1e-4. Here the turns
are multiplied out exactly, as a float32 and what it lacks, before whole turns are taken off.
"""

import math
from collections.abc import Iterator
from contextlib import contextmanager
from types import ModuleType
from typing import Any

import numpy as np
import torch
from torch import Tensor


def _halves(value: Any) -> tuple[Any, Any]:
    """Return float32 as the sum of two with 12 bits each (T. J. Dekker, Numer. Math. 18, 1971)."""
    scaled = value * 4097.0
    high = scaled - (scaled - value)
    return high, value - high


def time_embedding(
    time: Tensor, dimension: int, min_period: float, max_period: float, device: object = "cpu"
) -> Tensor:
    """Return sines, then cosines, of a time, float32, shape (n, dimension).

    Args:
        time: Float32, shape (n,).
        dimension: Of the result, even.
        min_period: Of the fastest pair.
        max_period: Of the slowest pair.
        device: As lerobot's own takes it; the time's is used.

    """
    del device
    # In NumPy, whose results an exporter takes as constants: in torch it would trace the way there.
    fraction = np.linspace(0.0, 1.0, dimension // 2)
    turns = 1.0 / (min_period * (max_period / min_period) ** fraction)
    near_numbers = turns.astype(np.float32)
    rest = torch.from_numpy((turns - near_numbers).astype(np.float32))
    near = torch.from_numpy(near_numbers)
    near_high, near_low = (torch.from_numpy(half) for half in _halves(near_numbers))
    moment = time[:, None]
    product = moment * near
    time_high, time_low = _halves(moment)
    # What the product lacks, exactly.
    lacking = time_low * near_low - (
        ((product - time_high * near_high) - time_low * near_high) - time_high * near_low
    )
    part = (product - torch.round(product)) + (lacking + moment * rest)
    angle = (2.0 * math.pi) * part
    return torch.cat([torch.sin(angle), torch.cos(angle)], dim=1)


@contextmanager
def in_float32(module: ModuleType) -> Iterator[None]:
    """Have one of lerobot's modules embed the time as above, within this context."""
    original = module.create_sinusoidal_pos_embedding
    module.__dict__["create_sinusoidal_pos_embedding"] = time_embedding
    try:
        yield
    finally:
        module.__dict__["create_sinusoidal_pos_embedding"] = original
