"""The guidance is that of the paper on real-time chunking, as LeRobot computes it."""

import numpy as np
import pytest

from vla_ros.policy.decoders.guidance import Guidance
from vla_ros.policy.prefix import Prefix

SHAPE = (1, 10, 4)
WEIGHTS = np.array([1.0, 1.0, 0.8, 0.4, 0.2, 0.0])


def prefix(beta=10.0, width=4, count=6):
    left = np.random.default_rng(1).normal(size=(count, width))
    return Prefix(left, 2, np.resize(WEIGHTS, count), beta)


@pytest.mark.parametrize("time", [1.0, 0.9, 0.5, 0.1])
def test_the_guided_velocity_is_lerobots(time):
    """`RTCProcessor.denoise_step` of LeRobot 0.4.4, written out; its time goes from 1 to 0."""
    rng = np.random.default_rng(0)
    x, v = rng.normal(size=(2, *SHAPE)).astype(np.float32)
    given = prefix()
    padded, weights = np.zeros(SHAPE), np.zeros((1, 10, 1))
    padded[0, :6], weights[0, :6, 0] = given.actions, WEIGHTS
    tau = 1.0 - time
    error = (padded - (x - time * v)) * weights
    inverse = ((1.0 - tau) ** 2 + tau**2) / (1.0 - tau) ** 2
    strength = 10.0 if tau == 0.0 else min(10.0, (1.0 - tau) / tau * inverse)
    pull = Guidance(given, SHAPE).pull(x - np.float32(time) * v, tau)
    np.testing.assert_allclose(v - pull, v - strength * error, rtol=1e-5, atol=1e-5)


def test_the_bound_bounds_and_the_end_pulls_no_more():
    estimate = np.zeros(SHAPE, np.float32)
    given = prefix(beta=2.0)
    guidance = Guidance(given, SHAPE)
    at_start = guidance.pull(estimate, 0.0)
    np.testing.assert_allclose(at_start[0, :6], 2.0 * WEIGHTS[:, None] * given.actions, rtol=1e-6)
    np.testing.assert_array_equal(at_start[0, 6:], 0.0)
    # tau = 1/2: (1 - tau) / (tau r^2) = 2, which is the bound; beyond it grows.
    np.testing.assert_allclose(guidance.pull(estimate, 0.5), at_start, rtol=1e-6)
    weak = Guidance(prefix(beta=1e6), SHAPE).pull(estimate, 0.5)
    np.testing.assert_allclose(weak, at_start, rtol=1e-6)


@pytest.mark.parametrize(("count", "width"), [(14, 4), (3, 4), (6, 3), (6, 7)])
def test_any_length_and_width_is_taken(count, width):
    """What is too long is cut off; columns that a model is padded with are drawn to 0."""
    given = prefix(count=count, width=width)
    pull = Guidance(given, SHAPE).pull(np.ones(SHAPE, np.float32), 0.0)
    rows, columns = min(count, 10), min(width, 4)
    weights = given.weights[:rows, None]
    expected = np.zeros(SHAPE)
    expected[0, :rows] = -10.0 * weights
    expected[0, :rows, :columns] += 10.0 * weights * given.actions[:rows, :columns]
    np.testing.assert_allclose(pull, expected, rtol=1e-6, atol=1e-6)
