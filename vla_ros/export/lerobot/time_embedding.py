"""The sine and cosine of flow matching's time, in float32 alone.

lerobot computes them in float64, which ONNX Runtime has no cosine of and TensorRT not at all. In
plain float32 the fastest of them, 250 turns a unit of time, would be off by 1e-4. Here the turns
are multiplied out exactly, as a float32 and what it lacks, before whole turns are taken off.
"""

import math
from collections.abc import Iterator
from contextlib import contextmanager
from types import ModuleType

import torch
from torch import Tensor

_SPLITTER = 4097.0
"""Splits a float32 into two halves of 12 bits (T. J. Dekker, Numer. Math. 18, 1971)."""


def _halves(value: Tensor) -> tuple[Tensor, Tensor]:
    scaled = _SPLITTER * value
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
    fraction = torch.linspace(0.0, 1.0, dimension // 2, dtype=torch.float64)
    turns = 1.0 / (min_period * (max_period / min_period) ** fraction)
    near = turns.to(torch.float32)
    rest = (turns - near.to(torch.float64)).to(torch.float32)
    moment = time[:, None]
    product = moment * near[None]
    time_high, time_low = _halves(moment)
    near_high, near_low = _halves(near[None])
    # What the product lacks, exactly.
    lacking = time_low * near_low - (
        ((product - time_high * near_high) - time_low * near_high) - time_high * near_low
    )
    part = (product - torch.round(product)) + (lacking + moment * rest[None])
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
