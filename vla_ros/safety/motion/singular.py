"""Rows that keep away from singularities of the TCP's Jacobian.

Its least singular value s, with lengths in characteristic lengths, is to stay over the bound. As s
costs as much as much of the rest, it is worked out only where it may matter: no singular value
changes by more than the Jacobian does, which is `Study.turning` per rad of joint motion, and s is
at least 1 / |P|, P being the inverse that twists are followed by.

Near the bound, the slope of the two least values makes rows for the program; the plan's end is
checked exactly. Between its ends s is lower than at both by at most s'' l^2 / 8, with l the length
of the plan's way: the least of many values |J^T w| is lowest where one of them is, and s'' is at
most |J''| + |J'|^2 / s, with |J''| at most `turning` and |J'| l what the Jacobian changes by. Where
the arm is too near already, it may come no nearer.
"""

import math

import numpy as np

from vla_ros.safety.motion import algebra, chain
from vla_ros.safety.motion.compiled import State, compiled
from vla_ros.types import Array

BAND = 5e-4
"""Distance from the bound that motion aims to keep on top."""
_LEAST = 0.01
_ROUNDING = 1e-12
_LEAST_VALUE = 1e-6
"""Right vectors of lesser singular values are not worked out: they are not known any better."""
_LEAST_DAMPING = 1e-12


@compiled
def begin(s: State) -> None:
    """Begin a tick where the Jacobian is: a lower bound of the value, by those before."""
    square = 0.0
    for i in range(s.joints):
        square += (s.position[i] - s.singular_from[i]) ** 2
    s.singular_value = s.singular_there - s.turning * math.sqrt(square)
    s.singular_exact = 0
    inverse_norm = _invert(s, _LEAST_DAMPING)
    s.singular_value = max(s.singular_value, 1.0 / inverse_norm)
    s.damped = 0
    if s.singular_value < s.singular_bound:
        work_out(s)
        if s.singular_value < s.singular_bound:
            s.damped = 1
            _invert(s, _LEAST_DAMPING + s.singular_bound**2 - s.singular_value**2)


@compiled
def _squares(s: State, jacobian: Array) -> Array:
    """Return the matrix of which the singular values' squares are the eigenvalues."""
    return algebra.squares(scaled(s, jacobian), 6, s.joints)


@compiled
def scaled(s: State, jacobian: Array) -> Array:
    """Return a Jacobian with lengths in characteristic lengths, (6, n)."""
    result = np.empty((6, s.joints))
    for i in range(6):
        weight = 1.0 / s.length if i < 3 else 1.0  # noqa: PLR2004 - the linear part
        for j in range(s.joints):
            result[i, j] = weight * jacobian[i, j]
    return result


@compiled
def _invert(s: State, damping: float) -> float:
    """Set `inverse` to P: damped least squares; return its norm, with lengths as in `scaled`."""
    n = s.joints
    a = scaled(s, s.jacobian)
    square = algebra.squares(a, 6, n)
    for i in range(len(square)):
        square[i, i] += damping
    wide = n >= 6  # noqa: PLR2004 - numbers of a twist
    right = a if wide else np.ascontiguousarray(a.T)
    algebra.solve(square, right)
    total = 0.0
    for i in range(n):
        for j in range(6):
            value = right[j, i] if wide else right[i, j]
            total += value * value
            s.inverse[i, j] = value / s.length if j < 3 else value  # noqa: PLR2004
    return math.sqrt(total)


@compiled
def work_out(s: State) -> None:
    """Find the two least singular values themselves, and how they change."""
    if s.singular_exact:
        return
    s.singular_exact = 1
    n = s.joints
    a = scaled(s, s.jacobian)
    values = algebra.squares(a, 6, n)
    vectors = np.eye(len(values))
    algebra.eigen(values, vectors)
    left, right, slope = np.empty(6), np.empty(n), np.empty(n)
    first, second = _two_least(values)
    for row, index in ((0, first), (1, second)):
        value = math.sqrt(max(0.0, values[index, index]))
        _set_vectors(a, vectors[:, index], max(value, _LEAST_VALUE), left, right)
        for i in range(3):
            left[i] /= s.length
        chain.slope_of_singular_value(s, left, right, slope)
        for j in range(n):
            s.singular_slopes[row, j] = -slope[j]
        s.singular_rooms[row] = value - s.singular_bound - s.turning * s.error_size
        if row == 0:
            s.singular_value = s.singular_there = value
    for i in range(n):
        s.singular_from[i] = s.position[i]


@compiled
def _two_least(values: Array) -> tuple[int, int]:
    """Return which two of a diagonal are least, the least first."""
    first, second = (0, 1) if values[0, 0] <= values[1, 1] else (1, 0)
    for i in range(2, len(values)):
        if values[i, i] < values[first, first]:
            first, second = i, first
        elif values[i, i] < values[second, second]:
            second = i
    return first, second


@compiled
def _set_vectors(a: Array, vector: Array, value: float, left: Array, right: Array) -> None:
    """Set the singular vectors of A (6, n) from the eigenvector of `algebra.squares`."""
    n = len(right)
    if n >= 6:  # noqa: PLR2004 - numbers of a twist
        for i in range(6):
            left[i] = vector[i]
        for j in range(n):
            total = 0.0
            for i in range(6):
                total += vector[i] * a[i, j]
            right[j] = total / value
        return
    for j in range(n):
        right[j] = vector[j]
    for i in range(6):
        total = 0.0
        for j in range(n):
            total += a[i, j] * vector[j]
        left[i] = total / value


@compiled
def smallest(s: State, jacobian: Array) -> float:
    """Return the least singular value of a Jacobian, lengths as in `scaled`."""
    values = _squares(s, jacobian)
    algebra.eigen(values, np.empty((0, 0)))
    least = values[0, 0]
    for i in range(1, len(values)):
        least = min(least, values[i, i])
    return math.sqrt(max(0.0, least))


@compiled
def far(s: State, speed: float, growth: float) -> bool:
    """Return whether no plan can lead to the bound, whatever its direction.

    Args:
        s: The limiter's record.
        speed: Norm of the joint velocity that it begins with, rad/s.
        growth: Norm of the joint acceleration, rad/s^2.

    """
    if s.singular_bound <= 0.0:
        return True
    way = s.slow_way * speed + s.slow_way_of_acceleration * growth + s.error_size
    least = s.singular_bound + BAND + s.turning * way
    if s.singular_value >= least:
        return True
    if not s.singular_exact and algebra.all_over(_squares(s, s.jacobian), least * least):
        s.singular_value = least
        return True
    work_out(s)
    return bool(s.singular_value >= least)


@compiled
def holds(s: State, links: Array, aim: bool) -> bool:  # noqa: FBT001 - compiled
    """Return whether the plan that begins with a trial keeps the bound; after `far` did not.

    Args:
        s: The limiter's record, with `trial` and `trial_change`.
        links: The chain.
        aim: Whether to keep the band as well, and the slower approach.

    """
    back = True
    for row in range(2):
        speed = growth = 0.0
        for i in range(s.joints):
            speed += s.singular_slopes[row, i] * s.trial[i]
            growth += s.singular_slopes[row, i] * s.trial_change[i]
        slow = s.slow_way * speed + s.slow_way_of_acceleration * growth
        if aim and slow > max(s.singular_rooms[row] - BAND, 0.0) + _ROUNDING:
            return False
        if s.singular_rooms[row] <= 0.0:
            back = back and speed + way_back(s, row) <= _ROUNDING
    ahead = np.empty((6, s.joints))
    lost = ahead_of_plan(s, links, s.trial_change, ahead)
    if s.singular_rooms[0] > 0.0:
        least = s.singular_bound + s.turning * s.error_size + lost
        if algebra.all_over(_squares(s, ahead), least * least):
            return True
    end = smallest(s, ahead)
    if s.singular_rooms[0] <= 0.0:
        return bool(back and end >= s.singular_value - _ROUNDING)
    return bool(end >= s.singular_value)


@compiled
def way_back(s: State, row: int) -> float:
    """Return how fast a value is to rise with a trial where the arm is, or may be, too near.

    By as much as its slope may differ at the true posture, s'' times the error; but the way
    straight back is always free.
    """
    size = algebra.norm(s.trial, s.joints)
    steepest = algebra.norm(s.singular_slopes[row], s.joints)
    second = s.turning + s.turning**2 / max(s.singular_value, _LEAST)
    return float(min(second * s.error_size, steepest / 2.0) * size)


@compiled
def ahead_of_plan(s: State, links: Array, change: Array, ahead: Array) -> float:
    """Set `ahead` (6, n) to the Jacobian where the plan of `trial` ends.

    Args:
        s: The limiter's record.
        links: The chain.
        change: Joint acceleration that it begins with, rad/s^2, (n,).
        ahead: Set.

    Returns:
        By how much the least singular value may be lower on the way than at both ends, if that
        there is not under the bound.

    """
    n = s.joints
    place, tcp, rotation = np.empty(n), np.empty(3), np.empty((3, 3))
    square = 0.0
    for i in range(n):
        way = s.way * s.trial[i] + s.way_of_acceleration * change[i]
        square += way * way
        place[i] = s.position[i] + way
    chain.jacobian_at(links, place, ahead, tcp, rotation)
    turned = 0.0
    for i in range(6):
        weight = 1.0 / s.length if i < 3 else 1.0  # noqa: PLR2004
        for j in range(n):
            turned += (weight * (ahead[i, j] - s.jacobian[i, j])) ** 2
    size = max(min(s.singular_bound, s.singular_value), _LEAST)
    return float((turned / size + s.turning * square) / 8.0)


@compiled
def excess(s: State) -> float:
    """Return by how much a trial exceeds the bound, as a singular value."""
    if not s.singular_exact or s.singular_bound <= 0.0:
        return 0.0
    most = 0.0
    for row in range(2):
        slow = 0.0
        for i in range(s.joints):
            slow += s.singular_slopes[row, i] * (
                s.slow_way * s.trial[i] + s.slow_way_of_acceleration * s.trial_change[i]
            )
        most = max(most, slow - max(s.singular_rooms[row] - BAND, 0.0))
    return most
