"""Normalisations are LeRobot's, and each is undone by its inverse."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from vla_ros.policy.manifest import Identity, MeanStd, MinMax, Quantiles
from vla_ros.policy.normalise import denormalise, normalise

MEAN_STD = MeanStd(type="mean_std", mean=(1.0, -2.0, 3.0), std=(0.5, 4.0, 1e-3))
MIN_MAX = MinMax(type="min_max", min=(-1.0, 0.0, 2.0), max=(1.0, 10.0, 2.5))
QUANTILES = Quantiles(type="quantiles", low=(-1.0, 0.0, 2.0), high=(1.0, 10.0, 2.5))
SPECS = (Identity(type="identity"), MEAN_STD.model_copy(update={"eps": 0.0}), MIN_MAX, QUANTILES)

reals = st.floats(-1e3, 1e3)
rows = st.lists(st.tuples(reals, reals, reals), min_size=1, max_size=4).map(np.array)


@pytest.mark.parametrize("spec", SPECS, ids=lambda spec: spec.type)
@given(rows)
def test_the_inverse_undoes_it(spec, values):
    there = normalise(values, spec)
    assert (there.dtype, there.shape) == (np.float64, values.shape)
    np.testing.assert_allclose(denormalise(there, spec), values, rtol=1e-12, atol=1e-9)


def test_known_values():
    values = np.array([[2.0, 2.0, 3.0]])
    np.testing.assert_array_equal(normalise(values, Identity(type="identity")), values)
    np.testing.assert_allclose(normalise(values, MEAN_STD), [[2.0, 1.0, 0.0]], rtol=1e-7)
    for spec in (MIN_MAX, QUANTILES):
        np.testing.assert_allclose(normalise(values, spec), [[2.0, -0.6, 3.0]])
        np.testing.assert_allclose(denormalise(np.array([-1.0, 0.0, 1.0]), spec), [-1.0, 5.0, 2.5])
    np.testing.assert_array_equal(denormalise(np.array([2.0, 1.0, 0.0]), MEAN_STD), [2.0, 2.0, 3.0])


def test_eps_is_added_when_dividing_alone():
    spec = MeanStd(type="mean_std", mean=(1.0,), std=(0.0,), eps=0.5)
    assert normalise(np.array([2.0]), spec) == [2.0]
    assert denormalise(np.array([2.0]), spec) == [1.0]


@pytest.mark.parametrize(
    "spec",
    [
        MinMax(type="min_max", min=(3.0,), max=(3.0,)),
        Quantiles(type="quantiles", low=(3.0,), high=(3.0,)),
    ],
    ids=lambda spec: spec.type,
)
def test_a_constant_entry_becomes_minus_one_and_comes_back(spec):
    """LeRobot divides by 1e-8 where the range is 0."""
    assert normalise(np.array([3.0]), spec) == [-1.0]
    assert normalise(np.array([3.0 + 1e-8]), spec) == pytest.approx([1.0], abs=1e-6)
    assert denormalise(np.array([-1.0]), spec) == [3.0]
    assert denormalise(np.array([1.0]), spec) == pytest.approx([3.0])


def test_single_precision_in_gives_double_out():
    values = np.array([0.1, 0.2, 0.3], np.float32)
    for spec in SPECS:
        assert denormalise(values, spec).dtype == np.float64
