"""Actions that lead to places, begun late: from where the arm has got to meanwhile.

A chunk's velocities lead from where the arm was at the observation. When the chunk arrives, other
actions have been executed since. Of actions that are motions of their own that is as it should be.
Of actions that lead to places, to poses or joint positions, what those others did differently is to
be made up for, or the arm would keep the distance from its targets for ever.
"""

import numpy as np

from vla_ros.policy.rotations import matrix_from_rotation_vector, rotation_vector_from_matrix
from vla_ros.types import Array


def caught_up_twists(
    twists: Array, executed: Array, first: int, period_s: float, over: int
) -> Array:
    """Return the twists from action `first` on that lead to where all of `twists` would have led.

    The distance to the chunk's path shrinks evenly over some actions, and is 0 after them: exactly,
    in position and in rotation.

    Args:
        twists: Of the whole chunk, in the base frame, m/s and rad/s, shape (n, 6).
        executed: Of the actions executed since the observation, shape (m, 6).
        first: Index of the first action that is not past.
        period_s: Time of one action.
        over: Actions over which the distance is made up for, at least 1.

    Returns:
        Shape (n - first, 6).

    """
    ends, turns = _path(twists * period_s)
    own, own_turn = (x[-1] for x in _path(executed * period_s))
    left = _left(len(twists) - first, over)
    apart, apart_turn = own - ends[first], rotation_vector_from_matrix(own_turn @ turns[first].T)
    positions = ends[first:] + left[:, None] * apart
    rotations = matrix_from_rotation_vector(left[:, None] * apart_turn) @ turns[first:]
    steps = rotations[1:] @ np.swapaxes(rotations[:-1], -1, -2)
    moves = np.hstack([np.diff(positions, axis=0), rotation_vector_from_matrix(steps)])
    return np.asarray(moves / period_s)


def caught_up_joints(joints: Array, executed: Array, first: int, over: int) -> Array:
    """Return the joints' speeds from action `first` on, as `caught_up_twists` does of twists.

    Args:
        joints: Of the whole chunk, rad/s, shape (n, dof).
        executed: Of the actions executed since the observation, shape (m, dof).
        first: Index of the first action that is not past.
        over: Actions over which the distance is made up for, at least 1.

    Returns:
        Shape (n - first, dof).

    """
    start = np.zeros((1, joints.shape[1]))
    path = np.vstack([start, np.cumsum(joints, axis=0)])
    apart = executed.sum(axis=0) - path[first]
    left = _left(len(joints) - first, over)
    return np.diff(path[first:] + left[:, None] * apart, axis=0)


def _left(count: int, over: int) -> Array:
    """Return the share of the distance that is left before the first action and after each."""
    return np.clip(1.0 - np.arange(count + 1) / over, 0.0, 1.0)


def _path(moves: Array) -> tuple[Array, Array]:
    """Return where moves lead, (n + 1, 3) and (n + 1, 3, 3), from the origin on."""
    positions = np.vstack([np.zeros((1, 3)), np.cumsum(moves[:, :3], axis=0)])
    rotations = [np.eye(3)]
    for turn in matrix_from_rotation_vector(moves[:, 3:]):
        rotations.append(turn @ rotations[-1])
    return positions, np.array(rotations)
