"""Rows for the joints: position, speed, acceleration, torque and torque rate, now and in the plan.

With u the velocity before, h the length of the tick, a the joint acceleration of this tick, u' =
u + h a the velocity to send, M the inertia, and a plan (`plan`) that brakes with
a1 = -k (u' + a tr / 2), these are to hold, in either direction:

    acceleration          a <= A
    speed, and its peak   u' + a tr / 2 <= V
    deceleration          -a1 <= A - |d|
    position              way u' + way_of_acceleration a <= room, and of the first swing (`plan`
                          says why these three)
    torque                T <= tau
    its rate              T - (the torque before) <= (rate - c / 2) * time between
    torque of the plan    -M a1 - g <= tau - c way
    its rates             M (a - a1) / tr <= rate - c;  -M a1 / tr <= rate - c

T is the torque of the tick, by inverse dynamics; d is the joint acceleration by which a redundant
arm that follows a twist turns its idle motion, 0 otherwise. g are gravity, Coriolis and centrifugal
torques now; c is how fast gravity and inertia may change along the plan's way (from bounds on their
slopes, `model`). What they may differ by as the posture is not known exactly is taken from tau.
Where twists are sent, a posture that differs makes other joint motion of them: a share of the
bounds is kept for that.

For the program all are bounds on a, and on M a: with T = M a + g and u' = u + h a, each row is
solved for that (`bounds`).
"""

import math

from vla_ros.safety.motion.acting import (
    JOINT_ACCELERATION,
    JOINT_SPEED,
    POSITION_MAX,
    POSITION_MIN,
    TORQUE,
    TORQUE_RATE,
    act,
)
from vla_ros.safety.motion.compiled import State, compiled
from vla_ros.types import Array

POSITION_BAND = 1e-3
"""Distance in rad from the ends of the joints' ranges that motion aims to keep on top."""
TORQUE_BAND = 0.01
"""Share of torque and torque rate that motion aims to keep free."""
DRIFT = 0.5
"""Share of c that is kept from the torque rate of a tick: ticks of uneven length take the arm
elsewhere than it was to be."""
EXACT = 1.0 - 1e-9
"""Share of speed and acceleration that is used: what is left is for rounding."""

_HARDER, _KEPT = 0.7, 0.3
"""How much of all braking there is, and of the present plan's, is for the ends of the ranges."""
_MOST_RESERVE = 0.25
_LEAST_SINGULAR = 0.01

_A, _V, _BRAKE, _UP, _DOWN, _FIRST, _T, _T_RATE, _T_PLAN, _RATE_ON, _RATE_OFF, _SLOW = range(12)
_ABOVE = (
    JOINT_ACCELERATION,
    JOINT_SPEED,
    JOINT_ACCELERATION,
    POSITION_MAX,
    POSITION_MAX,
    POSITION_MAX,
    TORQUE,
    TORQUE_RATE,
    TORQUE,
    TORQUE_RATE,
    TORQUE_RATE,
    POSITION_MAX,
)
"""Which bound each row is of, by the index of `state`."""


@compiled
def update(s: State) -> None:
    """Work out what the rows are bounded by, where the arm is now."""
    n = s.joints
    reserve = 0.0
    if s.twists:
        # A twist is followed by other joint velocities where the joints are elsewhere: by a share
        # d s / s of them, with s the least singular value, which changes by about the joints' way.
        # That is how far they may be off, and the way of a tick that comes late.
        way = s.error_size + s.speed * s.period
        reserve = min(_MOST_RESERVE, way / max(s.singular_value, _LEAST_SINGULAR))
        _set_idle(s)
    # How fast the plan moves at most, and what gravity and inertia change by with that.
    fastest = 0.0
    for i in range(n):
        fastest += s.most_acceleration[i] * s.most_acceleration[i]
    change_size = math.sqrt(fastest)
    fastest = s.speed + s.h * change_size
    far = True
    for i in range(n):
        change = (s.drift_change[i] + s.rate * fastest * s.mass_change[i]) * fastest
        torque = s.most_torque[i]
        torque -= s.error_size * (s.drift_change[i] + change_size * s.mass_change[i])
        rate = (1.0 - 2.0 * reserve) * s.most_torque_rate[i]
        acceleration = (1.0 - 2.0 * reserve) * s.most_acceleration[i]
        s.most[_A, i] = acceleration
        s.most[_V, i] = (1.0 - reserve) * s.most_speed[i]
        s.most[_BRAKE, i] = acceleration - s.idle[i]
        s.most[_T, i] = torque
        s.most[_T_RATE, i] = s.between * (rate - DRIFT * change)
        s.most[_T_PLAN, i] = torque - s.way * change
        s.most[_RATE_ON, i] = s.most[_RATE_OFF, i] = rate - change
        for row in (_A, _V, _BRAKE, _T, _T_RATE, _T_PLAN, _RATE_ON, _RATE_OFF):
            s.least[row, i] = -s.most[row, i]
        # On the way the idle motion turns on; all of it counts against the room.
        lost = s.way * s.speed * reserve + s.way * s.way / 2.0 * s.idle[i]
        above = s.position_high[i] - s.position[i] - s.error[i]
        below = s.position[i] - s.position_low[i] - s.error[i]
        for row in (_UP, _DOWN, _FIRST):
            s.most[row, i] = max(above, 0.0) - lost
            s.least[row, i] = lost - max(below, 0.0)
        # Twice: what is lost changes from tick to tick.
        s.most[_SLOW, i] = max(above - POSITION_BAND, 0.0) - 2.0 * lost
        s.least[_SLOW, i] = 2.0 * lost - max(below - POSITION_BAND, 0.0)
        farthest = s.slow_way * s.most_speed[i]
        farthest += (s.slow_way_of_acceleration + s.way * s.way) * s.most_acceleration[i]
        farthest += 2.0 * lost + POSITION_BAND
        far = far and above > farthest and below > farthest
    s.far = far


@compiled
def _set_idle(s: State) -> None:
    """Set `idle` to what a redundant arm loses of its joint velocity in a tick, rad/s^2."""
    n = s.joints
    if n <= 6:  # noqa: PLR2004 - numbers of a twist
        return
    for i in range(n):
        followed = 0.0
        for j in range(6):
            followed += s.inverse[i, j] * s.twist_before[j]
        s.idle[i] = abs(s.velocity[i] - followed) / s.h


@compiled
def share_kept_up(s: State, velocities: Array, acting: Array) -> float:
    """Return the greatest share of joint velocities (n,), at most 1, that can be kept up.

    That is: as a steady motion they are within the bounds on speed, and their plan within those on
    deceleration. What is over that is noted, in rad/s.
    """
    share = 1.0
    for i in range(s.joints):
        speed = abs(velocities[i])
        most = max(min(s.most[_V, i], s.most[_BRAKE, i] / s.rate), 0.0)
        if speed > most:
            share = min(share, most / speed)
            act(s, acting, JOINT_SPEED + i, speed - most)
    return share


@compiled
def holds(s: State, aim: bool) -> bool:  # noqa: FBT001 - compiled
    """Return whether a trial keeps all rows.

    Args:
        s: The limiter's record, with `trial`, `trial_change` and `trial_torque`.
        aim: Whether to keep the bands as well, and the slower approach to the ranges' ends.

    """
    n, k, half = s.joints, s.rate, s.ramp / 2.0
    values = s.values
    kept = True
    turn = 0.0
    for i in range(n):
        turn += (s.trial_change[i] - s.acceleration[i]) ** 2
    loose = s.error_size * math.sqrt(turn)
    for i in range(n):
        u, a, torque = s.trial[i], s.trial_change[i], s.trial_torque[i]
        moving = load = 0.0
        for j in range(n):
            moving += s.mass[i, j] * s.trial[j]
            load += s.mass[i, j] * s.trial_change[j]
        braking = k * (moving + half * load)
        values[_A, i] = a
        values[_V, i] = u + half * a
        values[_BRAKE, i] = k * (u + half * a)
        values[_UP, i] = s.way * u + (s.way_of_acceleration + s.rise) * a
        values[_DOWN, i] = s.way * u + (s.way_of_acceleration - s.bend_less) * a
        values[_FIRST, i] = s.first_way * u
        values[_T, i] = torque
        # At the true posture another inertia resists the change of acceleration.
        change = torque - s.torque[i]
        values[_T_RATE, i] = change + math.copysign(loose * s.mass_change[i], change)
        # The torque without acceleration, now: T - M a.
        values[_T_PLAN, i] = braking - (torque - load)
        values[_RATE_ON, i] = (braking + load) / s.ramp
        values[_RATE_OFF, i] = braking / s.ramp
        values[_SLOW, i] = s.slow_way * u + s.slow_way_of_acceleration * a
        for row in range(_SLOW + 1 if aim else _SLOW):
            value = values[row, i]
            # Written so that NaN is none.
            kept = kept and s.least[row, i] <= value <= s.most[row, i]
    return kept


@compiled
def excess(s: State, acting: Array) -> None:
    """Note by how much the last trial of `holds` exceeds its bounds, in their units."""
    for row in range(_SLOW + 1):
        for i in range(s.joints):
            above, below = s.values[row, i] - s.most[row, i], s.least[row, i] - s.values[row, i]
            amount = max(above, below)
            if row == _T_RATE:
                amount /= s.between
            index = _ABOVE[row]
            if index == POSITION_MAX and below > above:
                index = POSITION_MIN
            act(s, acting, index + i, amount)


@compiled
def bounds(s: State, change: Array, low: Array, high: Array) -> None:
    """Set what a and M a may be at least and at most, each (2 n,), bands kept.

    Relaxed to what the present plan does next, so that there always is a solution.

    Args:
        s: The limiter's record, with the `values` of a trial.
        change: That plan's a, (n,).
        low: Changed.
        high: Changed.

    """
    n, h, k, half = s.joints, s.h, s.rate, s.ramp / 2.0
    for i in range(n):
        moving = load = kept_load = 0.0
        for j in range(n):
            moving += s.mass[i, j] * s.velocity[j]
            load += s.mass[i, j] * s.trial_change[j]
            kept_load += s.mass[i, j] * change[j]
        u, drift = s.velocity[i], s.trial_torque[i] - load
        least, most = -math.inf, math.inf
        # What each row is without a, and what a adds to it.
        for row, fixed, weight in (
            (_A, 0.0, 1.0),
            (_V, u, half + h),
            (_BRAKE, k * u, k * (half + h)),
        ):
            least = max(least, (s.least[row, i] - fixed) / weight)
            most = min(most, (s.most[row, i] - fixed) / weight)
        least, most = min(least, change[i]), max(most, change[i])
        if not s.far:
            lower, upper = _range_bounds(s, i, u)
            # Towards the end of a range it brakes harder than the present plan, where it has to;
            # but not with all that there is, which would leave nothing for the rest.
            most = min(most, max(upper, _HARDER * least + _KEPT * change[i]))
            least = max(least, min(lower, _HARDER * most + _KEPT * change[i]))
            least = min(least, most)
        low[i], high[i] = least, most
        least, most = -math.inf, math.inf
        for row, fixed, weight in (
            (_T, drift, 1.0),
            (_T_RATE, drift - s.torque[i], 1.0),
            (_T_PLAN, k * moving - drift, k * (half + h)),
            (_RATE_ON, k * moving / s.ramp, (1.0 + k * (half + h)) / s.ramp),
            (_RATE_OFF, k * moving / s.ramp, k * (half + h) / s.ramp),
        ):
            least = max(least, (s.least[row, i] - fixed) / weight)
            most = min(most, (s.most[row, i] - fixed) / weight)
        band = TORQUE_BAND * min(s.most_torque[i], s.most_torque_rate[i] * s.between)
        low[n + i], high[n + i] = min(least + band, kept_load), max(most - band, kept_load)


@compiled
def _range_bounds(s: State, i: int, u: float) -> tuple[float, float]:
    """Return what joint i's acceleration may be at least and at most, for the ends of its range."""
    h = s.h
    least, most = -math.inf, math.inf
    for row, weight_of_speed, weight in (
        (_UP, s.way, s.way_of_acceleration + s.rise),
        (_DOWN, s.way, s.way_of_acceleration - s.bend_less),
        (_FIRST, s.first_way, 0.0),
        (_SLOW, s.slow_way, s.slow_way_of_acceleration),
    ):
        fixed, gain = weight_of_speed * u, weight + h * weight_of_speed
        least = max(least, (s.least[row, i] - fixed) / gain)
        most = min(most, (s.most[row, i] - fixed) / gain)
    return least, most
