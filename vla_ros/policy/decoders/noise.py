"""The random numbers of decoders: of an observation alone, so that a chunk can be had again."""

import numpy as np
from numpy.typing import NDArray


def generator(seed: int, stamp_ns: int) -> np.random.Generator:
    """Return the generator of the noise for one observation.

    Args:
        seed: The decoder's.
        stamp_ns: The observation's. Of a negative one, which no clock of ROS gives, the sign is
            lost.

    """
    return np.random.Generator(np.random.PCG64([seed, abs(stamp_ns)]))


def normal(rng: np.random.Generator, shape: tuple[int, ...]) -> NDArray[np.float32]:
    """Return standard normal numbers, float32."""
    return rng.standard_normal(shape).astype(np.float32)
