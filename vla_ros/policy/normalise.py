"""Between a robot's units and the numbers that a model was trained on.

The formulas are those of LeRobot 0.4.4 (lerobot/processor/normalize_processor.py), in double
precision. Where two statistics that are to be divided by their difference are equal, it divides by
1e-8 instead, so that a value equal to them becomes -1 and nothing becomes infinite; and what
`mean_std` adds to the deviation when it divides, it leaves out when it multiplies.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from vla_ros.policy.manifest import Identity, MeanStd, MinMax, Normalisation, Quantiles
from vla_ros.types import Array

_EPS = 1e-8


def normalise(values: NDArray[np.floating[Any]], spec: Normalisation) -> Array:
    """Return what a model takes for values in a robot's units.

    Args:
        values: Shape (..., n).
        spec: Of n entries, the manifest's.

    Returns:
        float64, shape (..., n).

    """
    x = np.asarray(values, np.float64)
    if isinstance(spec, Identity):
        return x
    if isinstance(spec, MeanStd):
        return np.asarray((x - np.asarray(spec.mean)) / (np.asarray(spec.std) + spec.eps))
    low, span = _range(spec)
    return np.asarray(2.0 * (x - low) / span - 1.0)


def denormalise(values: NDArray[np.floating[Any]], spec: Normalisation) -> Array:
    """Return the values in a robot's units of what a model gives: the inverse of `normalise`.

    Args:
        values: Shape (..., n).
        spec: Of n entries, the manifest's.

    Returns:
        float64, shape (..., n).

    """
    x = np.asarray(values, np.float64)
    if isinstance(spec, Identity):
        return x
    if isinstance(spec, MeanStd):
        return np.asarray(x * np.asarray(spec.std) + np.asarray(spec.mean))
    low, span = _range(spec)
    return np.asarray((x + 1.0) / 2.0 * span + low)


def _range(spec: MinMax | Quantiles) -> tuple[Array, Array]:
    """Return what becomes -1, and how far above it lies what becomes 1."""
    ends = (spec.min, spec.max) if isinstance(spec, MinMax) else (spec.low, spec.high)
    low, high = np.asarray(ends, np.float64)
    return low, np.where(high == low, _EPS, high - low)
