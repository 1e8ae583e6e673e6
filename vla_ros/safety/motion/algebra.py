"""Small linear algebra, where a library's call would cost more than the work: 6 x 6 at most."""

import math

import numpy as np

from vla_ros.safety.motion.compiled import compiled
from vla_ros.types import Array

_LEAST_PIVOT = 1e-15
_SWEEPS = 12
"""Far more than Jacobi's method takes for matrices of 6 rows: 4 to 6."""
_EVEN = 1e-24
"""Share of the squares that may be off the diagonal: values are off by 1e-12 of the greatest."""
FINE, NOT_FINITE, TOO_LARGE = range(3)


@compiled
def norm(vector: Array, count: int) -> float:
    """Return the norm of the first `count` of a vector."""
    square = 0.0
    for i in range(count):
        square += vector[i] * vector[i]
    return math.sqrt(square)


@compiled
def apply(matrix: Array, vector: Array, out: Array, rows: int, columns: int) -> None:
    """Set `out` (rows) to the matrix (rows, columns) times the vector (columns)."""
    for i in range(rows):
        total = 0.0
        for j in range(columns):
            total += matrix[i, j] * vector[j]
        out[i] = total


@compiled
def solve(square: Array, right: Array) -> None:
    """Make of `right` (m, k) the solution of square x = right, by Cholesky's method.

    Args:
        square: Symmetric and positive definite, (m, m); changed.
        right: Changed.

    """
    m, columns = right.shape
    for j in range(m):
        for i in range(j, m):
            total = square[i, j]
            for k in range(j):
                total -= square[i, k] * square[j, k]
            if i == j:
                square[j, j] = math.sqrt(max(total, _LEAST_PIVOT))
            else:
                square[i, j] = total / square[j, j]
    for c in range(columns):
        for i in range(m):
            total = right[i, c]
            for k in range(i):
                total -= square[i, k] * right[k, c]
            right[i, c] = total / square[i, i]
        for back in range(m):
            i = m - 1 - back
            total = right[i, c]
            for k in range(i + 1, m):
                total -= square[k, i] * right[k, c]
            right[i, c] = total / square[i, i]


@compiled
def all_over(square: Array, least: float) -> bool:
    """Return whether all eigenvalues of a symmetric matrix (m, m) are over `least`; changes it.

    That is where Cholesky's method finds square - least positive definite: a twentieth of the cost
    of the eigenvalues.
    """
    m = len(square)
    for j in range(m):
        for i in range(j, m):
            total = square[i, j]
            if i == j:
                total -= least
            for k in range(j):
                total -= square[i, k] * square[j, k]
            if i == j:
                if not total > 0.0:
                    return False
                square[j, j] = math.sqrt(total)
            else:
                square[i, j] = total / square[j, j]
    return True


@compiled
def eigen(matrix: Array, vectors: Array) -> None:
    """Turn a symmetric matrix (m, m) into its diagonal of eigenvalues, by Jacobi's method.

    Args:
        matrix: Changed: its diagonal becomes the eigenvalues, in no order.
        vectors: The identity, which becomes the eigenvectors as columns; empty for none.

    """
    m = matrix.shape[0]
    for _ in range(_SWEEPS):
        off = total = 0.0
        for i in range(m):
            total += matrix[i, i] * matrix[i, i]
            for j in range(i):
                off += matrix[i, j] * matrix[i, j]
        if off <= _EVEN * total:
            return
        for p in range(m - 1):
            for q in range(p + 1, m):
                if matrix[p, q] != 0.0:
                    _rotate(matrix, vectors, p, q)


@compiled
def _rotate(matrix: Array, vectors: Array, p: int, q: int) -> None:
    """Turn rows and columns p and q so that the entry between them becomes 0."""
    theta = (matrix[q, q] - matrix[p, p]) / (2.0 * matrix[p, q])
    t = 1.0 / (abs(theta) + math.sqrt(theta * theta + 1.0))
    if theta < 0.0:
        t = -t
    c = 1.0 / math.sqrt(t * t + 1.0)
    s = t * c
    for k in range(matrix.shape[0]):
        a, b = matrix[k, p], matrix[k, q]
        matrix[k, p], matrix[k, q] = c * a - s * b, s * a + c * b
    for k in range(matrix.shape[0]):
        a, b = matrix[p, k], matrix[q, k]
        matrix[p, k], matrix[q, k] = c * a - s * b, s * a + c * b
    for k in range(vectors.shape[0]):
        a, b = vectors[k, p], vectors[k, q]
        vectors[k, p], vectors[k, q] = c * a - s * b, s * a + c * b


@compiled
def squares(matrix: Array, rows: int, columns: int) -> Array:
    """Return A A^T of a matrix A (rows, columns), or A^T A where that is smaller."""
    wide = columns >= rows
    m = rows if wide else columns
    result = np.zeros((m, m))
    for i in range(m):
        for j in range(i + 1):
            total = 0.0
            if wide:
                for k in range(columns):
                    total += matrix[i, k] * matrix[j, k]
            else:
                for k in range(rows):
                    total += matrix[k, i] * matrix[k, j]
            result[i, j] = result[j, i] = total
    return result


@compiled
def check(a: Array, b: Array, c: Array, most: float) -> tuple[int, int]:
    """Return whether all of three vectors is FINE, or something is NOT_FINITE or over `most`.

    Returns:
        Which of those, and in which of the three, from 0 on, that is.

    """
    found, where = FINE, 0
    for k, vector in enumerate((a, b, c)):
        for i in range(len(vector)):
            if not math.isfinite(vector[i]):
                return NOT_FINITE, k
            if abs(vector[i]) > most:
                found, where = TOO_LARGE, k
    return found, where


@compiled
def least_margin(bounds: Array, values: Array) -> tuple[int, float]:
    """Return which entry is nearest to its bound on |value|, and what is left of it."""
    which, least = 0, math.inf
    for i in range(len(values)):
        left = bounds[i] - abs(values[i])
        if left < least:
            which, least = i, left
    return which, least
