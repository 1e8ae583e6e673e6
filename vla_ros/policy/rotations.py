"""Rotations as models write them, many at once: rotation vector, quaternion, 6D, matrix.

All functions take any leading axes and return the same ones. A rotation matrix turns coordinates in
the turned frame to those in the frame that it is turned in.
"""

from typing import Literal

import numpy as np

from vla_ros.types import Array

RotationKind = Literal["rotation_vector", "quaternion", "rotation_6d"]

ROTATION_SIZES: dict[str, int] = {"rotation_vector": 3, "quaternion": 4, "rotation_6d": 6}
"""Numbers of each kind."""

# Below this, a length is none: what it should give a direction to has no direction.
_NO_LENGTH = 1e-9
# Below this angle in rad, sin(a) / a is 1 and (1 - cos(a)) / a^2 is 1/2 to double precision.
_SMALL_ANGLE = 1e-8


class RotationError(ValueError):
    """Numbers that stand for no rotation."""


def matrix_from(values: Array, kind: RotationKind) -> Array:
    """Return the matrices (..., 3, 3) of rotations of a kind.

    Args:
        values: Shape (..., ROTATION_SIZES[kind]).
        kind: What they are.

    Raises:
        RotationError: If a quaternion is 0, or the two vectors of a 6D rotation span no plane.

    """
    if kind == "rotation_vector":
        return matrix_from_rotation_vector(values)
    if kind == "quaternion":
        return matrix_from_quaternion(values)
    return matrix_from_rotation_6d(values)


def matrix_to(matrix: Array, kind: RotationKind) -> Array:
    """Return matrices (..., 3, 3) as rotations of a kind, shape (..., ROTATION_SIZES[kind])."""
    if kind == "rotation_vector":
        return rotation_vector_from_matrix(matrix)
    if kind == "quaternion":
        return quaternion_from_matrix(matrix)
    return rotation_6d_from_matrix(matrix)


def matrix_from_rotation_vector(vector: Array) -> Array:
    """Return the matrices (..., 3, 3) of rotation vectors (..., 3): axis times angle, in rad.

    Rodrigues' formula: R = I + sin(a)/a K + (1 - cos(a))/a^2 K^2, K the vector's cross-product
    matrix; (1 - cos(a))/a^2 is taken as 2 (sin(a/2)/a)^2, which loses no digits at small angles.
    """
    vector = np.asarray(vector, np.float64)
    angle = np.linalg.norm(vector, axis=-1)[..., None, None]
    safe = np.where(angle < _SMALL_ANGLE, 1.0, angle)
    sine = np.where(angle < _SMALL_ANGLE, 1.0, np.sin(angle) / safe)
    versine = np.where(angle < _SMALL_ANGLE, 0.5, 2.0 * (np.sin(angle / 2.0) / safe) ** 2)
    cross = _cross_matrix(vector)
    return np.asarray(np.eye(3) + sine * cross + versine * (cross @ cross), np.float64)


def rotation_vector_from_matrix(matrix: Array) -> Array:
    """Return the rotation vectors (..., 3) of matrices (..., 3, 3), of angles from 0 to pi rad."""
    quaternion = quaternion_from_matrix(matrix)
    vector, w = quaternion[..., :3], quaternion[..., 3:]
    sine = np.linalg.norm(vector, axis=-1, keepdims=True)
    # With s = sin(a/2), the vector is s times the axis, and a = 2 atan2(s, w); a/s goes to 2.
    small = sine < _SMALL_ANGLE
    scale = np.where(small, 2.0, 2.0 * np.arctan2(sine, w) / np.where(small, 1.0, sine))
    return np.asarray(scale * vector, np.float64)


def matrix_from_quaternion(quaternion: Array) -> Array:
    """Return the matrices (..., 3, 3) of quaternions (..., 4): x, y, z, w, of any length but 0.

    Raises:
        RotationError: If one is 0.

    """
    quaternion = np.asarray(quaternion, np.float64)
    length = np.linalg.norm(quaternion, axis=-1, keepdims=True)
    if (length < _NO_LENGTH).any():
        msg = "a quaternion is 0, which is no rotation"
        raise RotationError(msg)
    x, y, z, w = np.moveaxis(quaternion / length, -1, 0)
    rows = [
        [1.0 - 2.0 * (y * y + z * z), 2.0 * (x * y - z * w), 2.0 * (x * z + y * w)],
        [2.0 * (x * y + z * w), 1.0 - 2.0 * (x * x + z * z), 2.0 * (y * z - x * w)],
        [2.0 * (x * z - y * w), 2.0 * (y * z + x * w), 1.0 - 2.0 * (x * x + y * y)],
    ]
    return np.stack([np.stack(row, axis=-1) for row in rows], axis=-2)


def quaternion_from_matrix(matrix: Array) -> Array:
    """Return the unit quaternions (..., 4), x, y, z, w, w >= 0, of matrices (..., 3, 3).

    Shepperd's method: of the four ways to divide, the one by the largest entry, so that no case
    loses precision (S. W. Shepperd, Quaternion from rotation matrix, JGCD 1978).
    """
    r = np.asarray(matrix, np.float64)
    xx, yy, zz = r[..., 0, 0], r[..., 1, 1], r[..., 2, 2]
    xy, xz, yz = (r[..., i, j] + r[..., j, i] for i, j in ((0, 1), (0, 2), (1, 2)))
    wx, wy, wz = (r[..., i, j] - r[..., j, i] for i, j in ((2, 1), (0, 2), (1, 0)))
    # Row k is 4 q_k times the quaternion q.
    ways = np.stack(
        [
            np.stack([1.0 + xx - yy - zz, xy, xz, wx], axis=-1),
            np.stack([xy, 1.0 - xx + yy - zz, yz, wy], axis=-1),
            np.stack([xz, yz, 1.0 - xx - yy + zz, wz], axis=-1),
            np.stack([wx, wy, wz, 1.0 + xx + yy + zz], axis=-1),
        ],
        axis=-2,
    )
    largest = np.argmax(np.diagonal(ways, axis1=-2, axis2=-1), axis=-1)
    chosen = np.take_along_axis(ways, largest[..., None, None], axis=-2)[..., 0, :]
    chosen = chosen / np.linalg.norm(chosen, axis=-1, keepdims=True)
    return np.asarray(np.where(chosen[..., 3:] < 0.0, -chosen, chosen), np.float64)


def matrix_from_rotation_6d(values: Array) -> Array:
    """Return the matrices (..., 3, 3) of 6D rotations (..., 6): the first column, then the second.

    The columns are made orthonormal by Gram and Schmidt, the first one's direction kept (Zhou et
    al., On the Continuity of Rotation Representations in Neural Networks, CVPR 2019, eq. 15).

    Raises:
        RotationError: If a column is 0, or the two are parallel.

    """
    values = np.asarray(values, np.float64)
    first = _unit(values[..., :3])
    second = values[..., 3:]
    second = _unit(second - np.sum(first * second, axis=-1, keepdims=True) * first)
    return np.stack([first, second, np.cross(first, second)], axis=-1)


def rotation_6d_from_matrix(matrix: Array) -> Array:
    """Return the 6D rotations (..., 6) of matrices (..., 3, 3): their first two columns."""
    matrix = np.asarray(matrix, np.float64)
    return np.concatenate([matrix[..., 0], matrix[..., 1]], axis=-1)


def _cross_matrix(vector: Array) -> Array:
    x, y, z = np.moveaxis(vector, -1, 0)
    zero = np.zeros_like(x)
    rows = [[zero, -z, y], [z, zero, -x], [-y, x, zero]]
    return np.stack([np.stack(row, axis=-1) for row in rows], axis=-2)


def _unit(vector: Array) -> Array:
    length = np.linalg.norm(vector, axis=-1, keepdims=True)
    if (length < _NO_LENGTH).any():
        msg = "the two vectors of a 6D rotation span no plane"
        raise RotationError(msg)
    return np.asarray(vector / length, np.float64)
