"""The small linear algebra: numpy's answers, also where a matrix is hard to invert."""

import numpy as np
import pytest

from vla_ros.safety.motion import algebra

SIZES = (1, 2, 5, 6)
EPSILON = float(np.finfo(float).eps)
OFF = 1e-12
"""Share of a matrix that may be left off the diagonal where its eigenvalues are exact already."""


def turned(values, seed=0):
    """Return a symmetric matrix of these eigenvalues, in directions of no meaning."""
    m = len(values)
    base, _ = np.linalg.qr(np.random.default_rng(seed).normal(size=(m, m)))
    matrix = base @ np.diag(values) @ base.T
    return (matrix + matrix.T) / 2.0


def spectra():
    rng = np.random.default_rng(1)
    for m in SIZES:
        yield rng.uniform(0.1, 10.0, m)
        yield 10.0 ** np.linspace(0.0, -12.0, m)  # near-singular
        yield np.full(m, 3.0)  # all the same
        yield np.concatenate([np.full(m - m // 2, 1.0), np.full(m // 2, 1e-6)])  # in two lots
        yield 1.0 + 1e-9 * np.arange(m)  # nearly the same
        yield 10.0 ** np.linspace(8.0, 6.0, m)  # large


SPECTRA = list(spectra())


@pytest.mark.parametrize("values", SPECTRA)
@pytest.mark.parametrize("columns", [1, 7])
def test_solve_is_numpys(values, columns):
    """To within what rounding makes of a matrix of that condition."""
    for seed in range(10):
        square = turned(values, seed)
        expected = np.random.default_rng(seed).normal(size=(len(values), columns))
        right = square @ expected
        wanted = np.linalg.solve(square, right)
        found = right.copy()
        algebra.solve(square.copy(), found)
        condition = values.max() / values.min()
        most = 100.0 * EPSILON * condition * np.abs(expected).max() * len(values)
        assert np.abs(found - wanted).max() <= most
        # Backward stable: the right side is met to rounding, whatever the condition.
        size = values.max() * np.abs(found).max()
        assert np.abs(square @ found - right).max() <= 100.0 * EPSILON * size * len(values)


def test_solve_takes_a_singular_matrix_for_one_that_is_nearly_so():
    """It answers with numbers: the damping that its callers add is what keeps them small."""
    right = np.ones((3, 1))
    algebra.solve(np.outer([1.0, 2.0, 3.0], [1.0, 2.0, 3.0]), right)
    assert np.isfinite(right).all()


@pytest.mark.parametrize("values", [*SPECTRA, np.zeros(6), np.array([2.0, 0.0, 0.0, 1.0])])
def test_eigenvalues_and_vectors_are_numpys(values):
    m = len(values)
    for seed in range(10):
        matrix = turned(values, seed)
        found, vectors, bare = matrix.copy(), np.eye(m), matrix.copy()
        algebra.eigen(found, vectors)
        algebra.eigen(bare, np.empty((0, 0)))
        diagonal = np.diag(found)
        most = 20.0 * EPSILON * max(np.abs(values).max(), 1e-300)
        assert np.sort(diagonal) == pytest.approx(np.linalg.eigvalsh(matrix), abs=most, rel=0.0)
        assert np.diag(bare).tolist() == diagonal.tolist()
        assert vectors.T @ vectors == pytest.approx(np.eye(m), abs=100.0 * EPSILON)
        # Vectors of their own values, to what is left off the diagonal; where values repeat, any
        # of their space are.
        rest = matrix @ vectors - vectors * diagonal
        assert np.abs(rest).max() <= 2.0 * OFF * np.linalg.norm(matrix) + 10.0 * most


def test_eigen_leaves_a_diagonal_as_it_is():
    matrix, vectors = np.diag([3.0, -1.0, 2.0]), np.eye(3)
    algebra.eigen(matrix, vectors)
    assert np.diag(matrix).tolist() == [3.0, -1.0, 2.0]
    assert vectors.tolist() == np.eye(3).tolist()


@pytest.mark.parametrize(("rows", "columns"), [(6, 7), (6, 6), (6, 5), (6, 1)])
def test_squares_are_of_the_smaller_side_and_of_the_filled_part(rows, columns):
    matrix = np.random.default_rng(2).normal(size=(rows, columns + 2))
    part = matrix[:, :columns]
    expected = part @ part.T if columns >= rows else part.T @ part
    assert algebra.squares(matrix, rows, columns) == pytest.approx(expected, abs=1e-14)


def test_products_and_norms_are_of_the_filled_part():
    rng = np.random.default_rng(3)
    matrix, vector, out = rng.normal(size=(6, 8)), rng.normal(size=8), np.full(8, 7.0)
    algebra.apply(matrix, vector, out, 4, 5)
    assert out[:4] == pytest.approx(matrix[:4, :5] @ vector[:5])
    assert out[4:].tolist() == [7.0] * 4
    assert algebra.norm(vector, 3) == pytest.approx(np.linalg.norm(vector[:3]))
    assert algebra.norm(vector, 0) == 0.0


@pytest.mark.parametrize(
    ("values", "answer"),
    [
        ([1.0, -2.0], algebra.FINE),
        ([1.0, -2.1], algebra.TOO_LARGE),
        ([3.0, np.nan], algebra.NOT_FINITE),
        ([-np.inf, 0.0], algebra.NOT_FINITE),
        ([], algebra.FINE),
    ],
)
def test_numbers_that_do_not_count_are_told_apart(values, answer):
    for place in range(3):
        vectors = [np.zeros(2), np.zeros(2), np.zeros(2)]
        vectors[place] = np.array(values)
        found, where = algebra.check(*vectors, 2.0)
        assert found == answer
        assert where == place or answer == algebra.FINE


def test_the_least_margin_is_of_the_size_whatever_the_sign():
    bounds = np.array([1.0, 2.0, 3.0])
    assert algebra.least_margin(bounds, np.array([0.5, -1.9, 1.0])) == (1, pytest.approx(0.1))
    assert algebra.least_margin(bounds, np.array([0.5, 0.0, -3.5])) == (2, -0.5)
