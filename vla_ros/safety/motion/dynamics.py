"""Dynamics of the chain from base to TCP, where compiled functions need them.

A link's ten inertial parameters, as columns 16 to 25 of its joint's row of `chain`, are its mass m,
its first moment h = m c (3) and its inertia I (xx, xy, xz, yy, yz, zz), all about the origin of the
joint's frame and along its axes, where it turns with the joint. A force f at the origin and a
moment t about it then move it by

    f = m a + w' x h + w x (w x h),        t = I w' + w x I w + h x a,

with a the acceleration of the origin (the two recursions below: Featherstone, "Rigid Body Dynamics
Algorithms", 2008, chapters 5 and 6). Gravity is an acceleration of the base upwards. Pinocchio,
which reads the parameters from the URDF, does the same; calling it costs more than the work does.
That acceleration, 9.81 m/s^2 along what is up in the base frame, is in columns 12 to 14 of the
TCP's row, which has no axis.
"""

import numpy as np

from vla_ros.safety.motion import chain
from vla_ros.safety.motion.compiled import compiled
from vla_ros.types import Array

UP = 12
"""In the TCP's row: the acceleration of the base that feels like gravity, m/s^2."""
MASS, FIRST_MOMENT, INERTIA = chain.COLUMNS - 10, chain.COLUMNS - 9, chain.COLUMNS - 6


@compiled
def _inward(r: Array, x: float, y: float, z: float) -> tuple[float, float, float]:
    """Return r^T (x, y, z): from the frame before to a joint's own."""
    return (
        r[0, 0] * x + r[1, 0] * y + r[2, 0] * z,
        r[0, 1] * x + r[1, 1] * y + r[2, 1] * z,
        r[0, 2] * x + r[1, 2] * y + r[2, 2] * z,
    )


@compiled
def _outward(r: Array, x: float, y: float, z: float) -> tuple[float, float, float]:
    """Return r (x, y, z): from a joint's own frame to the one before."""
    return (
        r[0, 0] * x + r[0, 1] * y + r[0, 2] * z,
        r[1, 0] * x + r[1, 1] * y + r[1, 2] * z,
        r[2, 0] * x + r[2, 1] * y + r[2, 2] * z,
    )


@compiled
def _cross(
    a: float, b: float, c: float, x: float, y: float, z: float
) -> tuple[float, float, float]:
    return b * z - c * y, c * x - a * z, a * y - b * x


@compiled
def torque(
    links: Array, turns: Array, places: Array, velocity: Array, acceleration: Array, out: Array
) -> None:
    """Set the joints' torques of a motion: inverse dynamics, by recursive Newton-Euler.

    Args:
        links: As in `chain`, (n + 1, chain.COLUMNS).
        turns: Of `chain.set_frames`.
        places: Of `chain.set_frames`.
        velocity: Of the joints, rad/s, (n,) or more.
        acceleration: Of the joints, rad/s^2, (n,) or more.
        out: The torques, Nm, (n,) or more.

    """
    n = links.shape[0] - 1
    force, moment = np.empty((n, 3)), np.empty((n, 3))
    # Of the frame: how it turns (w), how that changes (d), and its origin's acceleration (a).
    wx = wy = wz = dx = dy = dz = 0.0
    ax, ay, az = links[n, UP], links[n, UP + 1], links[n, UP + 2]
    for i in range(n):
        row, r = links[i], turns[i]
        px, py, pz = places[i, 0], places[i, 1], places[i, 2]
        ux, uy, uz = _cross(wx, wy, wz, px, py, pz)
        sx, sy, sz = _cross(wx, wy, wz, ux, uy, uz)
        tx, ty, tz = _cross(dx, dy, dz, px, py, pz)
        ax, ay, az = _inward(r, ax + sx + tx, ay + sy + ty, az + sz + tz)
        wx, wy, wz = _inward(r, wx, wy, wz)
        dx, dy, dz = _inward(r, dx, dy, dz)
        v, c = velocity[i], acceleration[i]
        ux, uy, uz = _cross(wx, wy, wz, row[12], row[13], row[14])
        if row[15] != 0.0:
            ax += 2.0 * v * ux + c * row[12]
            ay += 2.0 * v * uy + c * row[13]
            az += 2.0 * v * uz + c * row[14]
        else:
            dx, dy, dz = (
                dx + v * ux + c * row[12],
                dy + v * uy + c * row[13],
                dz + v * uz + c * row[14],
            )
            wx, wy, wz = wx + v * row[12], wy + v * row[13], wz + v * row[14]
        m, hx, hy, hz = row[MASS], row[FIRST_MOMENT], row[FIRST_MOMENT + 1], row[FIRST_MOMENT + 2]
        ux, uy, uz = _cross(wx, wy, wz, hx, hy, hz)
        sx, sy, sz = _cross(wx, wy, wz, ux, uy, uz)
        tx, ty, tz = _cross(dx, dy, dz, hx, hy, hz)
        force[i, 0], force[i, 1] = m * ax + sx + tx, m * ay + sy + ty
        force[i, 2] = m * az + sz + tz
        ux, uy, uz = _inertia(row, wx, wy, wz)
        sx, sy, sz = _cross(wx, wy, wz, ux, uy, uz)
        tx, ty, tz = _inertia(row, dx, dy, dz)
        ux, uy, uz = _cross(hx, hy, hz, ax, ay, az)
        moment[i, 0], moment[i, 1], moment[i, 2] = tx + sx + ux, ty + sy + uy, tz + sz + uz
    fx = fy = fz = tx = ty = tz = 0.0
    for back in range(n):
        i = n - 1 - back
        row, r = links[i], turns[i]
        fx, fy, fz = fx + force[i, 0], fy + force[i, 1], fz + force[i, 2]
        tx, ty, tz = tx + moment[i, 0], ty + moment[i, 1], tz + moment[i, 2]
        out[i] = _along(row, fx, fy, fz, tx, ty, tz)
        fx, fy, fz, tx, ty, tz = _carry(r, places[i], fx, fy, fz, tx, ty, tz)


@compiled
def _inertia(row: Array, x: float, y: float, z: float) -> tuple[float, float, float]:
    """Return I (x, y, z) of a link."""
    xx, xy, xz = row[INERTIA], row[INERTIA + 1], row[INERTIA + 2]
    yy, yz, zz = row[INERTIA + 3], row[INERTIA + 4], row[INERTIA + 5]
    return xx * x + xy * y + xz * z, xy * x + yy * y + yz * z, xz * x + yz * y + zz * z


@compiled
def _along(row: Array, fx: float, fy: float, fz: float, tx: float, ty: float, tz: float) -> float:
    """Return what a joint has to bear of a force and a moment: a force where it slides."""
    if row[15] != 0.0:
        return float(row[12] * fx + row[13] * fy + row[14] * fz)
    return float(row[12] * tx + row[13] * ty + row[14] * tz)


@compiled
def _carry(
    r: Array, place: Array, fx: float, fy: float, fz: float, tx: float, ty: float, tz: float
) -> tuple[float, float, float, float, float, float]:
    """Return a force and a moment in the frame before, about its origin."""
    fx, fy, fz = _outward(r, fx, fy, fz)
    tx, ty, tz = _outward(r, tx, ty, tz)
    ux, uy, uz = _cross(place[0], place[1], place[2], fx, fy, fz)
    return fx, fy, fz, tx + ux, ty + uy, tz + uz


@compiled
def mass(links: Array, turns: Array, places: Array, out: Array) -> None:
    """Set the joint-space inertia, by composite bodies.

    Args:
        links: As in `chain`, (n + 1, chain.COLUMNS).
        turns: Of `chain.set_frames`.
        places: Of `chain.set_frames`.
        out: The inertia M, (n, n) or more.

    """
    n = links.shape[0] - 1
    # All beyond a joint, as one body: the parameters of `links`.
    body = np.zeros(chain.COLUMNS)
    for back in range(n):
        i = n - 1 - back
        row = links[i]
        for k in range(MASS, chain.COLUMNS):
            body[k] += row[k]
        a, b, c = row[12], row[13], row[14]
        hx, hy, hz = body[FIRST_MOMENT], body[FIRST_MOMENT + 1], body[FIRST_MOMENT + 2]
        if row[15] != 0.0:
            m = body[MASS]
            fx, fy, fz = m * a, m * b, m * c
            tx, ty, tz = _cross(hx, hy, hz, a, b, c)
        else:
            fx, fy, fz = _cross(a, b, c, hx, hy, hz)
            tx, ty, tz = _inertia(body, a, b, c)
        out[i, i] = _along(row, fx, fy, fz, tx, ty, tz)
        for below in range(i):
            j = i - 1 - below
            fx, fy, fz, tx, ty, tz = _carry(turns[j + 1], places[j + 1], fx, fy, fz, tx, ty, tz)
            out[i, j] = out[j, i] = _along(links[j], fx, fy, fz, tx, ty, tz)
        if i > 0:
            _move_body(body, turns[i], places[i])


@compiled
def _move_body(body: Array, r: Array, place: Array) -> None:
    """Bring a body's parameters to the frame before."""
    m, p, q, s = body[MASS], place[0], place[1], place[2]
    hx, hy, hz = _outward(r, body[FIRST_MOMENT], body[FIRST_MOMENT + 1], body[FIRST_MOMENT + 2])
    # I' = r I r^T - ([rh][p] + [p][rh]) - m [p][p], with [x] the matrix of the cross product.
    columns = np.empty((3, 3))
    for k in range(3):
        x, y, z = _inertia(body, r[k, 0], r[k, 1], r[k, 2])
        columns[0, k], columns[1, k], columns[2, k] = _outward(r, x, y, z)
    both = 2.0 * (hx * p + hy * q + hz * s) + m * (p * p + q * q + s * s)
    body[INERTIA] = columns[0, 0] + both - 2.0 * hx * p - m * p * p
    body[INERTIA + 1] = columns[0, 1] - hx * q - p * hy - m * p * q
    body[INERTIA + 2] = columns[0, 2] - hx * s - p * hz - m * p * s
    body[INERTIA + 3] = columns[1, 1] + both - 2.0 * hy * q - m * q * q
    body[INERTIA + 4] = columns[1, 2] - hy * s - q * hz - m * q * s
    body[INERTIA + 5] = columns[2, 2] + both - 2.0 * hz * s - m * s * s
    body[FIRST_MOMENT], body[FIRST_MOMENT + 1] = hx + m * p, hy + m * q
    body[FIRST_MOMENT + 2] = hz + m * s
