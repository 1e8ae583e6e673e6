"""Every way to write a rotation stands for the same rotation, and nothing that is none passes."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from vla_ros.kinematics import rotation_from_rotvec
from vla_ros.policy.rotations import (
    ROTATION_SIZES,
    RotationError,
    matrix_from,
    matrix_from_quaternion,
    matrix_from_rotation_6d,
    matrix_from_rotation_vector,
    matrix_to,
    quaternion_from_matrix,
    rotation_vector_from_matrix,
)

unit = st.floats(-1.0, 1.0)
vectors = st.tuples(unit, unit, unit).filter(lambda v: math.hypot(*v) > 1e-3).map(np.array)
# Angles up to pi, and near 0 and pi, where formulas lose their digits.
angles = st.one_of(
    st.floats(0.0, math.pi),
    st.floats(-12.0, -1.0).map(lambda power: 10.0**power),
    st.floats(-12.0, -1.0).map(lambda power: math.pi - 10.0**power),
)


@st.composite
def rotation_vectors(draw):
    axis = draw(vectors)
    return axis / np.linalg.norm(axis) * draw(angles)


@given(st.lists(rotation_vectors(), min_size=1, max_size=4))
def test_matrices_are_rotations_and_those_of_the_scalar_formula(vectors):
    matrices = matrix_from_rotation_vector(np.array(vectors))
    products = matrices @ np.swapaxes(matrices, -1, -2)
    np.testing.assert_allclose(products, np.broadcast_to(np.eye(3), products.shape), atol=1e-14)
    np.testing.assert_allclose(np.linalg.det(matrices), 1.0, atol=1e-14)
    expected = [rotation_from_rotvec(vector) for vector in vectors]
    np.testing.assert_allclose(matrices, expected, atol=1e-12)


@given(rotation_vectors())
def test_a_rotation_vector_comes_back(vector):
    back = rotation_vector_from_matrix(matrix_from_rotation_vector(vector))
    # At pi, both directions of the axis are the same rotation.
    error = min(np.abs(back - vector).max(), np.abs(back + vector).max())
    near_pi = np.linalg.norm(vector) > math.pi - 1e-6
    assert (error if near_pi else np.abs(back - vector).max()) < 1e-7


@pytest.mark.parametrize("kind", ROTATION_SIZES)
@given(rotation_vectors())
def test_each_kind_gives_the_matrix_back(kind, vector):
    matrix = matrix_from_rotation_vector(np.array([[vector, -vector]]))
    values = matrix_to(matrix, kind)
    assert values.shape == (1, 2, ROTATION_SIZES[kind])
    np.testing.assert_allclose(matrix_from(values, kind), matrix, atol=1e-12)


@given(rotation_vectors(), st.floats(0.01, 100.0), st.sampled_from([-1.0, 1.0]))
def test_a_quaternions_length_and_sign_do_not_matter(vector, length, sign):
    matrix = matrix_from_rotation_vector(vector)
    quaternion = quaternion_from_matrix(matrix)
    assert abs(np.linalg.norm(quaternion) - 1.0) < 1e-14
    assert quaternion[3] >= 0.0
    scaled = matrix_from_quaternion(sign * length * quaternion)
    np.testing.assert_allclose(scaled, matrix, atol=1e-12)


@given(rotation_vectors(), st.floats(0.1, 10.0), st.floats(0.1, 10.0), st.floats(-3.0, 3.0))
def test_6d_keeps_the_first_columns_direction_and_the_plane(vector, a, b, lean):
    matrix = matrix_from_rotation_vector(vector)
    first, second = matrix[:, 0], matrix[:, 1]
    values = np.concatenate([a * first, b * second + lean * first])
    np.testing.assert_allclose(matrix_from_rotation_6d(values), matrix, atol=1e-10)


def test_known_rotations():
    quarter = np.array([[0.0, -1.0, 0.0], [1.0, 0.0, 0.0], [0.0, 0.0, 1.0]])  # about z
    half = math.sqrt(0.5)
    np.testing.assert_allclose(
        matrix_from(np.array([0, 0, math.pi / 2]), "rotation_vector"), quarter, atol=1e-15
    )
    np.testing.assert_allclose(
        matrix_from(np.array([0, 0, half, half]), "quaternion"), quarter, atol=1e-15
    )
    np.testing.assert_allclose(
        matrix_from(np.array([0, 2, 0, -3, 1, 0]), "rotation_6d"), quarter, atol=1e-15
    )
    np.testing.assert_array_equal(rotation_vector_from_matrix(np.eye(3)), np.zeros(3))


@pytest.mark.parametrize(
    ("kind", "values"),
    [
        ("quaternion", [0.0, 0.0, 0.0, 0.0]),
        ("rotation_6d", [0.0, 0.0, 0.0, 1.0, 0.0, 0.0]),
        ("rotation_6d", [1.0, 0.0, 0.0, -2.0, 0.0, 0.0]),
    ],
)
def test_what_is_no_rotation_is_refused(kind, values):
    with pytest.raises(RotationError, match=r"no rotation|no plane"):
        matrix_from(np.array([values]), kind)
