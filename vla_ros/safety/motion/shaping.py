"""From what is asked for to the velocity to head for now, by the bounds on what is sent."""

import math

import numpy as np

from vla_ros.safety.motion import algebra, guard, joints, places
from vla_ros.safety.motion.acting import (
    ACCELERATION,
    JOINT_ACCELERATION,
    JOINT_SPEED,
    JOINTS,
    PART,
    SPEED,
    act,
)
from vla_ros.safety.motion.compiled import State, compiled
from vla_ros.safety.motion.joints import EXACT
from vla_ros.types import Array

NO_TARGET, TWIST, JOINT_VELOCITY, POSE = range(4)
"""Kinds of target: 6 numbers, n, or position and quaternion (7)."""

_SAME = 1e-9
"""Relative: a twist that the arm can follow but for this is sent as it is."""
_SPARE_BEND = 1.2
"""The bend of the path at a tick is that of the tick before times this, at most, nearly always."""
_FREEDOMS = 6
"""Numbers of a twist: arms of more joints are redundant, arms of less cannot follow every twist."""
_SMALL_ANGLE = 1e-6


@compiled
def most_speed(s: State, part: int) -> float:
    """Return the speed to head for at most: what can be braked from where the path bends so."""
    bend = algebra.norm(s.bend[3 * part : 3 * part + 3], 3)
    return float(
        min(s.guard_speed[part], (s.guard_acceleration[part] - _SPARE_BEND * bend) / s.rate)
    )


@compiled
def shape(s: State, acting: Array) -> bool:
    """Set `trial` and its twist to what is nearest to the target, by what is sent alone.

    Returns:
        Whether there is such a motion.

    """
    if s.twists:
        return _shape_twist(s, acting)
    _shape_joints(s, acting)
    return True


@compiled
def _wish(s: State, out: Array) -> None:
    """Set `out` (6,) to the twist that is asked for."""
    if s.target_kind == TWIST:
        for i in range(6):
            out[i] = s.target[i]
    elif s.target_kind == JOINT_VELOCITY:
        algebra.apply(s.jacobian, s.target, out, 6, s.joints)
    else:
        _twist_to(s, out)


@compiled
def _twist_to(s: State, out: Array) -> None:
    """Set `out` to the twist towards a pose: proportional, and slow enough to stop there."""
    turn = np.empty(3)
    _rotvec_to(s, turn)
    for part in range(2):
        way = np.empty(3)
        for i in range(3):
            way[i] = s.target[i] - s.tcp[i] if part == 0 else turn[i]
        far = algebra.norm(way, 3)
        # Half of the acceleration is left for what the other part takes of the joints.
        speed = min(far / s.slow_way, math.sqrt(s.guard_acceleration[part] * far))
        speed = min(speed, s.guard_speed[part])
        factor = speed / far if far > 0.0 else 0.0
        for i in range(3):
            out[3 * part + i] = factor * way[i]


@compiled
def _rotvec_to(s: State, out: Array) -> None:
    """Set `out` (3,) to the rotation vector from the TCP's rotation to the target's, base frame."""
    x, y, z, w = s.target[3], s.target[4], s.target[5], s.target[6]
    size = math.sqrt(x * x + y * y + z * z + w * w)
    x, y, z, w = x / size, y / size, z / size, w / size
    wanted = np.empty((3, 3))
    wanted[0, 0], wanted[0, 1], wanted[0, 2] = (
        1 - 2 * (y * y + z * z),
        2 * (x * y - z * w),
        2 * (x * z + y * w),
    )
    wanted[1, 0], wanted[1, 1], wanted[1, 2] = (
        2 * (x * y + z * w),
        1 - 2 * (x * x + z * z),
        2 * (y * z - x * w),
    )
    wanted[2, 0], wanted[2, 1], wanted[2, 2] = (
        2 * (x * z - y * w),
        2 * (y * z + x * w),
        1 - 2 * (x * x + y * y),
    )
    between = np.zeros((3, 3))
    for i in range(3):
        for j in range(3):
            for k in range(3):
                between[i, j] += wanted[i, k] * s.rotation[j, k]
    a = (between[2, 1] - between[1, 2]) / 2.0
    b = (between[0, 2] - between[2, 0]) / 2.0
    c = (between[1, 0] - between[0, 1]) / 2.0
    sine = math.sqrt(a * a + b * b + c * c)
    cosine = (between[0, 0] + between[1, 1] + between[2, 2] - 1.0) / 2.0
    angle = math.atan2(sine, cosine)
    if sine > _SMALL_ANGLE or cosine > 0.0:
        factor = angle / sine if sine > _SMALL_ANGLE else 1.0
        out[0], out[1], out[2] = factor * a, factor * b, factor * c
        return
    # Half a turn: the axis is in the symmetric part, (1 + R) / 2 = a a^T; either sense will do.
    longest = 0
    for i in range(1, 3):
        if between[i, i] > between[longest, longest]:
            longest = i
    size = math.sqrt(max((1.0 + between[longest, longest]) / 2.0, _SMALL_ANGLE))
    for i in range(3):
        symmetric = (between[i, longest] + between[longest, i]) / 4.0
        out[i] = angle * (size if i == longest else symmetric / size)


@compiled
def _shape_twist(s: State, acting: Array) -> bool:
    _wish(s, s.trial_twist)
    for part in range(2):
        _slow_part(s, part, s.trial_twist[3 * part : 3 * part + 3], acting)
    _slow_joints(s, acting)
    for part in range(2):
        if not _shape_part(s, part, s.trial_twist[3 * part : 3 * part + 3], acting):
            return False
    algebra.apply(s.inverse, s.trial_twist, s.trial, s.joints, 6)
    off = _lost(s, s.trial_twist)
    if off > 0.0:
        # The arm cannot follow it: what it makes of it is sent, which damping would do twice.
        act(s, acting, JOINTS, off)
        return bool(s.damped) or bring_inside(s)
    return True


@compiled
def _slow_part(s: State, part: int, wish: Array, acting: Array) -> None:
    """Slow one part of a twist (3,) to the speed to head for at most, if it may not be sent."""
    size, most = algebra.norm(wish, 3), most_speed(s, part)
    if size <= most or guard.holds(s, part, wish, s.h):
        return
    # Rounded down, so that the bound holds exactly.
    factor = most / size * (1.0 - 1e-12)
    for i in range(3):
        wish[i] *= factor
    act(s, acting, PART * part + SPEED, size * abs(1.0 - factor))


@compiled
def _slow_joints(s: State, acting: Array) -> None:
    """Slow a twist as a whole to what the joints can keep up.

    The program would take the excess from the one joint that is too fast. That turns the TCP aside:
    coming down on something, it would come down beside it.
    """
    algebra.apply(s.inverse, s.trial_twist, s.trial, s.joints, 6)
    share = joints.share_kept_up(s, s.trial, acting)
    for i in range(6):
        s.trial_twist[i] *= share


@compiled
def _shape_part(s: State, part: int, wish: Array, acting: Array) -> bool:
    """Make of one part of a twist (3,) what may be sent; return whether that starts a plan."""
    if guard.holds(s, part, wish, s.h):
        return True
    wanted = np.empty(3)
    for i in range(3):
        wanted[i] = wish[i]
    _approach(s, part, wish)
    # Where it does not: the next point of the guard's plan, with which no new plan could begin.
    found = guard.nearest(s, part, wish, s.h)
    for i in range(3):
        wanted[i] -= wish[i]
    act(s, acting, PART * part + ACCELERATION, algebra.norm(wanted, 3))
    return bool(found)


@compiled
def _approach(s: State, part: int, wish: Array) -> None:
    """Make of `wish` (3,) the velocity to head for, so that the acceleration is gone there.

    With e left to go, an acceleration a that falls by j h a tick takes about a^2 / (2 j) + a h / 2
    to fade: the greatest a with which that is no more than e.
    """
    x, jerk, h = s.guard_velocity[part], s.guard_jerk[part], s.h
    square = 0.0
    for i in range(3):
        square += (wish[i] - x[i]) ** 2
    size = math.sqrt(square)
    if size == 0.0:
        return
    half = jerk * h / 2.0
    fastest = math.sqrt(half * half + 2.0 * jerk * size) - half
    share = min(1.0, min(fastest, s.guard_acceleration[part]) * h / size)
    for i in range(3):
        wish[i] = x[i] + share * (wish[i] - x[i])


@compiled
def _lost(s: State, twist: Array) -> float:
    """Return what of a twist the trial does not follow; 0 where that is rounding."""
    if s.joints >= _FREEDOMS and s.singular_value >= s.singular_bound > 0.0:
        return 0.0
    off = 0.0
    for i in range(6):
        made = -twist[i]
        for j in range(s.joints):
            made += s.jacobian[i, j] * s.trial[j]
        off = max(off, abs(made))
    return off if off > _SAME * (s.guard_speed[0] + s.guard_speed[1]) else 0.0


@compiled
def bring_inside(s: State) -> bool:
    """Move `trial` toward the plan until the guard holds its twist, and set that.

    Returns:
        Whether there is such a motion; where joint velocities are sent, always.

    """
    n, h = s.joints, s.h
    algebra.apply(s.jacobian, s.trial, s.trial_twist, 6, n)
    if not s.twists:
        return True
    end = s.trial_twist
    if guard.holds(s, 0, end[:3], h) and guard.holds(s, 1, end[3:], h):
        return True
    begin, start = np.empty(6), np.empty(n)
    algebra.apply(s.jacobian, s.kept, begin, 6, n)
    algebra.apply(s.inverse, begin, start, n, 6)
    algebra.apply(s.jacobian, start, begin, 6, n)
    share = share_inside(s, begin, end)
    if not share > 0.0:
        return False
    for i in range(n):
        s.trial[i] = start[i] + share * (s.trial[i] - start[i])
    algebra.apply(s.jacobian, s.trial, end, 6, n)
    return guard.holds(s, 0, end[:3], h) and guard.holds(s, 1, end[3:], h)


@compiled
def share_inside(s: State, begin: Array, end: Array) -> float:
    """Return the share of the way between two twists (6,) that ends where both guards hold it."""
    return min(
        guard.share_inside(s, 0, (begin[0], begin[1], begin[2]), (end[0], end[1], end[2]), s.h),
        guard.share_inside(s, 1, (begin[3], begin[4], begin[5]), (end[3], end[4], end[5]), s.h),
    )


@compiled
def _shape_joints(s: State, acting: Array) -> None:
    n = s.joints
    s.wants_twist = s.target_kind != JOINT_VELOCITY
    if s.wants_twist:
        _wish(s, s.trial_twist)
        algebra.apply(s.inverse, s.trial_twist, s.trial, n, 6)
        act(s, acting, JOINTS, _lost(s, s.trial_twist))
    else:
        for i in range(n):
            s.trial[i] = s.target[i]
    excess = 1.0
    for i in range(n):
        excess = max(excess, abs(s.trial[i]) / s.most_speed[i])
        act(s, acting, JOINT_SPEED + i, abs(s.trial[i]) - s.most_speed[i])
    _shorten(s, 1.0 / excess)
    places.set_spread(s, s.trial)
    algebra.apply(s.jacobian, s.trial, s.trial_twist, 6, n)
    for part in range(2):
        size = algebra.norm(s.trial_twist[3 * part : 3 * part + 3], 3) + s.tcp_spread[part]
        most = most_speed(s, part) * EXACT
        if size > most:
            act(s, acting, PART * part + SPEED, size - most)
            _shorten(s, most / size)
            for i in range(6):
                s.trial_twist[i] *= most / size
    places.set_spread(s, s.velocity)
    _approach_joints(s, acting)
    algebra.apply(s.jacobian, s.trial, s.trial_twist, 6, n)


@compiled
def _shorten(s: State, factor: float) -> None:
    for i in range(s.joints):
        s.trial[i] *= factor


@compiled
def _approach_joints(s: State, acting: Array) -> None:
    """Head for `trial` so that the acceleration is gone there, unless it can be met as it is."""
    n, h = s.joints, s.h
    met = True
    for i in range(n):
        change = (s.trial[i] - s.velocity[i]) / h
        jerk = s.most_acceleration[i] / s.ramp
        met = met and abs(change - s.acceleration[i]) <= jerk * s.between
        met = met and abs(change) <= s.most_acceleration[i]
    if met:
        return
    change, most = np.empty(n), np.empty(n)
    alike = 1.0
    for i in range(n):
        change[i] = (s.trial[i] - s.velocity[i]) / h
        amount = abs(change[i])
        jerk = s.most_acceleration[i] / s.ramp
        half = jerk * h / 2.0
        # sqrt(half^2 + x) - half, without a difference that rounding would leave at 0.
        x = 2.0 * jerk * h * amount
        most[i] = min(x / (math.sqrt(half * half + x) + half), s.most_acceleration[i])
        if amount > most[i]:
            alike = min(alike, most[i] / amount)
            act(s, acting, JOINT_ACCELERATION + i, amount - most[i])
    if not s.wants_twist:
        alike = 1.0
    # Toward a twist all joints alike: each by itself would turn the way to it elsewhere, and for
    # ever where a bound holds the arm back from it.
    for i in range(n):
        s.trial[i] = s.velocity[i] + h * min(max(alike * change[i], -most[i]), most[i])
