"""Kinematics of the chain from base to TCP, where compiled functions need them.

The chain is an array (n + 1, 26), a row a joint and one for the TCP: the fixed rotation (9, row by
row) and translation (3) from the frame before, the joint's axis (3), 1 where it slides, and what it
moves (10, see `dynamics`, also of what the TCP's row holds in place of an axis).

The changes of the Jacobian follow from itself. Its column i is what joint i makes of the TCP's
velocity, (v_i, w_i). A joint j before i carries it along: w_j x v_i, w_j x w_i; a joint j from i on
moves the TCP under it: w_i x v_j, 0.
"""

import math

import numpy as np

from vla_ros.safety.motion.compiled import State, compiled
from vla_ros.types import Array

COLUMNS = 26


@compiled
def set_frames(chain: Array, position: Array, turns: Array, places: Array) -> None:
    """Set where each joint's frame is in the frame of the joint before it.

    Args:
        chain: As the module says, (n + 1, COLUMNS).
        position: Of the joints, rad, (n,) or more.
        turns: Rotation from each frame to the one before, (n, 3, 3) or more.
        places: Origin of each frame in the one before, m, (n, 3) or more.

    """
    for i in range(chain.shape[0] - 1):
        row = chain[i]
        slides = row[15] != 0.0
        fixed = row[:9].reshape((3, 3))
        for k in range(3):
            places[i, k] = row[9 + k]
            if slides:
                along = fixed[k, 0] * row[12] + fixed[k, 1] * row[13] + fixed[k, 2] * row[14]
                places[i, k] += position[i] * along
        angle = 0.0 if slides else position[i]
        _turn(fixed, row[12], row[13], row[14], angle, turns[i])


@compiled
def set_jacobian(
    chain: Array, turns: Array, places: Array, out: Array, tcp: Array, rotation: Array
) -> None:
    """Set the TCP's Jacobian and pose, in the base frame.

    Args:
        chain: As the module says, (n + 1, COLUMNS).
        turns: Of `set_frames`.
        places: Of `set_frames`.
        out: The Jacobian, linear above angular, (6, n) or more.
        tcp: Position of the TCP in m, (3,).
        rotation: From TCP frame to base frame, (3, 3).

    """
    n = chain.shape[0] - 1
    for i in range(3):
        tcp[i] = 0.0
        for j in range(3):
            rotation[i, j] = 1.0 if i == j else 0.0
    for joint in range(n):
        row = chain[joint]
        _step(places[joint], turns[joint], tcp, rotation)
        slides = row[15] != 0.0
        # Of a joint that turns, first its place; that becomes its lever below.
        for i in range(3):
            axis = rotation[i, 0] * row[12] + rotation[i, 1] * row[13] + rotation[i, 2] * row[14]
            out[i, joint] = axis if slides else tcp[i]
            out[3 + i, joint] = 0.0 if slides else axis
    last = chain[n]
    _step(last[9:12], last[:9].reshape((3, 3)), tcp, rotation)
    for joint in range(n):
        if chain[joint, 15] == 0.0:
            p, q, r = tcp[0] - out[0, joint], tcp[1] - out[1, joint], tcp[2] - out[2, joint]
            a, b, c = out[3, joint], out[4, joint], out[5, joint]
            out[0, joint], out[1, joint] = b * r - c * q, c * p - a * r
            out[2, joint] = a * q - b * p


@compiled
def jacobian_at(chain: Array, position: Array, out: Array, tcp: Array, rotation: Array) -> None:
    """Set the TCP's Jacobian and pose at a position (n,), as `set_jacobian` does."""
    n = chain.shape[0] - 1
    turns, places = np.empty((n, 3, 3)), np.empty((n, 3))
    set_frames(chain, position, turns, places)
    set_jacobian(chain, turns, places, out, tcp, rotation)


@compiled
def _step(there: Array, turn: Array, place: Array, rotation: Array) -> None:
    """Go from a frame to one that is at `there` in it, turned by `turn`."""
    for i in range(3):
        a, b, c = rotation[i, 0], rotation[i, 1], rotation[i, 2]
        place[i] += a * there[0] + b * there[1] + c * there[2]
        rotation[i, 0] = a * turn[0, 0] + b * turn[1, 0] + c * turn[2, 0]
        rotation[i, 1] = a * turn[0, 1] + b * turn[1, 1] + c * turn[2, 1]
        rotation[i, 2] = a * turn[0, 2] + b * turn[1, 2] + c * turn[2, 2]


@compiled
def _turn(frame: Array, a: float, b: float, c: float, angle: float, out: Array) -> None:
    """Set `out` to `frame` times the rotation by `angle` about the unit axis (a, b, c)."""
    s, k = math.sin(angle), math.cos(angle)
    u = 1.0 - k
    r00, r01, r02 = a * a * u + k, a * b * u - c * s, a * c * u + b * s
    r10, r11, r12 = a * b * u + c * s, b * b * u + k, b * c * u - a * s
    r20, r21, r22 = a * c * u - b * s, b * c * u + a * s, c * c * u + k
    for i in range(3):
        x, y, z = frame[i, 0], frame[i, 1], frame[i, 2]
        out[i, 0] = x * r00 + y * r10 + z * r20
        out[i, 1] = x * r01 + y * r11 + z * r21
        out[i, 2] = x * r02 + y * r12 + z * r22


@compiled
def bend(s: State, velocity: Array, out: Array) -> None:
    """Set `out` (6,) to dJ/dt u: the TCP's acceleration without joint acceleration."""
    n, jacobian = s.joints, s.jacobian
    # What the joints from i on make of the TCP's velocity; how joints before i turn it.
    p = q = r = a = b = c = 0.0
    for i in range(n):
        p += velocity[i] * jacobian[0, i]
        q += velocity[i] * jacobian[1, i]
        r += velocity[i] * jacobian[2, i]
    for i in range(6):
        out[i] = 0.0
    for i in range(n):
        u = velocity[i]
        vx, vy, vz = jacobian[0, i], jacobian[1, i], jacobian[2, i]
        wx, wy, wz = jacobian[3, i], jacobian[4, i], jacobian[5, i]
        out[0] += u * (b * vz - c * vy + wy * r - wz * q)
        out[1] += u * (c * vx - a * vz + wz * p - wx * r)
        out[2] += u * (a * vy - b * vx + wx * q - wy * p)
        out[3] += u * (b * wz - c * wy)
        out[4] += u * (c * wx - a * wz)
        out[5] += u * (a * wy - b * wx)
        a, b, c = a + u * wx, b + u * wy, c + u * wz
        p, q, r = p - u * vx, q - u * vy, r - u * vz


@compiled
def slope_of_singular_value(s: State, left: Array, right: Array, out: Array) -> None:
    """Set `out` to d sigma / d q of sigma = left . J right.

    Args:
        s: The limiter's record.
        left: Left singular vector, its linear part divided by the characteristic length, (6,).
        right: Right singular vector, (n,).
        out: (n,) or more.

    """
    n, jacobian = s.joints, s.jacobian
    # Sums over the joints up to k of right w; over those after k of right v and right w.
    upto, after_v, after_w = np.zeros(3), np.zeros(3), np.zeros(3)
    for i in range(n):
        for x in range(3):
            after_v[x] += right[i] * jacobian[x, i]
            after_w[x] += right[i] * jacobian[3 + x, i]
    for k in range(n):
        for x in range(3):
            upto[x] += right[k] * jacobian[3 + x, k]
            after_v[x] -= right[k] * jacobian[x, k]
            after_w[x] -= right[k] * jacobian[3 + x, k]
        total = 0.0
        for x in range(3):
            y, z = (x + 1) % 3, (x + 2) % 3
            wy, wz = jacobian[3 + y, k], jacobian[3 + z, k]
            total += left[x] * (wy * after_v[z] - wz * after_v[y])
            total += left[x] * (upto[y] * jacobian[z, k] - upto[z] * jacobian[y, k])
            total += left[3 + x] * (wy * after_w[z] - wz * after_w[y])
        out[k] = total
