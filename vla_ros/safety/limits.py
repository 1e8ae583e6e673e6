"""The bounds on motion, as closed formulas on floats: at three numbers a vector, numpy is slower.

Why the linear output always keeps every bound, tick after tick (`step_linear`):

Let v be the last sent velocity, a the acceleration bound, dt the time since, r = a dt. Each axis
may use b = a / sqrt(3) of it, so that all three together stay within a. For an axis at a distance d
to its upper and e to its lower face, and the delay T, the allowed speeds are [lo, hi] with

    hi = the greatest u with u T + u^2 / (2 b) <= d, and 0 where d <= 0;    -lo the same for e.

So lo <= 0 <= hi: outside a face, motion further out is refused and motion back in is allowed.

1. `must` is v with each axis moved toward [lo, hi] by at most b dt. Hence |must - v| <= r: there is
   always an admissible output, and none of the following can fail.
2. `target` is the desired velocity, scaled to the speed bound, each axis clipped to [lo, hi]. As 0
   lies in [lo, hi], clipping only shortens, and |target| keeps the speed bound. For the same reason
   |must| <= |v|.
3. The output is must + s (target - must), with the greatest s in [0, 1] for which it stays within r
   of v; s = 0 does. Lying between `must` and `target`, it keeps the speed bound, and each axis is
   either in [lo, hi] or brakes toward it with all of b.
4. Can it stop in time? Let u <= hi, that is u T + u^2 / (2 b) <= d, and let the axis come no more
   than u dt closer to its face within dt. Then braking to u - b dt keeps the inequality there:

       (u - b dt) T + (u - b dt)^2 / (2 b)  =  u T + u^2 / (2 b) - u dt - b dt (T - dt / 2)
                                            <= d - u dt    if  T >= dt / 2,

   which the filter checks when it is built. So what step 1 asks for is never more than the
   deceleration that the bound leaves to it, and by induction the TCP stops before the face. A real
   arm moves late, and covers up to u T' more, with T' its lag: the delay T in the robot file is to
   be at least the measured lag and half a period. The age of the joint states is added to T; it
   grows by dt where the position stays, which is the same inequality.
"""

import math

Vector = tuple[float, float, float]
Interval = tuple[float, float]

ZERO: Vector = (0.0, 0.0, 0.0)
STANDSTILL: tuple[Interval, Interval, Interval] = ((0.0, 0.0), (0.0, 0.0), (0.0, 0.0))
"""The allowed speeds where the position is unknown."""


def norm(vector: Vector) -> float:
    """Return the Euclidean norm, without overflow."""
    return math.hypot(vector[0], vector[1], vector[2])


def distance(a: Vector, b: Vector) -> float:
    """Return the Euclidean norm of a - b."""
    return math.hypot(a[0] - b[0], a[1] - b[1], a[2] - b[2])


def scale_to(vector: Vector, bound: float) -> Vector:
    """Return the vector, shortened to the norm `bound` where longer; its direction is kept."""
    length = norm(vector)
    if length <= bound:
        return vector
    factor = bound / length
    return vector[0] * factor, vector[1] * factor, vector[2] * factor


def approach_speed(room: float, delay: float, braking: float) -> float:
    """Return the greatest speed u with u delay + u^2 / (2 braking) <= room, in m/s; 0 without room.

    The root is written without a difference of near-equal numbers, which would lose small rooms.

    Args:
        room: Distance left in m.
        delay: Time in s that passes at full speed before braking shows, > 0.
        braking: Deceleration in m/s^2, > 0.

    """
    if room <= 0.0:
        return 0.0
    return 2.0 * room / (delay + math.sqrt(delay * delay + 2.0 * room / braking))


def allowed_speeds(
    position: Vector, low: Vector, high: Vector, delay: float, braking: float
) -> tuple[Interval, Interval, Interval]:
    """Return for each axis the interval of speeds from which the TCP stops inside [low, high].

    Args:
        position: Of the TCP, in m, in the frame of the box.
        low: Lower corner of the box in m.
        high: Upper corner.
        delay: As in `approach_speed`.
        braking: Deceleration of each axis in m/s^2.

    """
    x, y, z = position
    return (
        (-approach_speed(x - low[0], delay, braking), approach_speed(high[0] - x, delay, braking)),
        (-approach_speed(y - low[1], delay, braking), approach_speed(high[1] - y, delay, braking)),
        (-approach_speed(z - low[2], delay, braking), approach_speed(high[2] - z, delay, braking)),
    )


def clip(vector: Vector, allowed: tuple[Interval, Interval, Interval]) -> Vector:
    """Return the vector with each axis clipped to its interval."""
    (xl, xh), (yl, yh), (zl, zh) = allowed
    x, y, z = vector
    return (
        xl if x < xl else min(x, xh),
        yl if y < yl else min(y, yh),
        zl if z < zl else min(z, zh),
    )


def step_linear(
    previous: Vector,
    target: Vector,
    allowed: tuple[Interval, Interval, Interval],
    change: float,
) -> Vector:
    """Return the velocity nearest to `target` that may follow `previous` (the module says why).

    Args:
        previous: Velocity that was sent last, m/s.
        target: Desired velocity, within the speed bound and `allowed`, m/s.
        allowed: Interval of each axis, each containing 0.
        change: Greatest norm of the change in m/s: acceleration bound times time.

    """
    share = change / math.sqrt(3.0)
    nearest = clip(previous, allowed)
    must = (
        _toward(previous[0], nearest[0], share),
        _toward(previous[1], nearest[1], share),
        _toward(previous[2], nearest[2], share),
    )
    if distance(target, previous) <= change:
        # All of the way: and where `must` has not reached its interval, the target is further off.
        return target
    dx, dy, dz = must[0] - previous[0], must[1] - previous[1], must[2] - previous[2]
    ex, ey, ez = target[0] - must[0], target[1] - must[1], target[2] - must[2]
    # |d + s e| = change, solved for s in the form that subtracts no near-equal numbers.
    ee = ex * ex + ey * ey + ez * ez
    de = dx * ex + dy * ey + dz * ez
    left = max(0.0, change * change - (dx * dx + dy * dy + dz * dz))
    root = math.sqrt(de * de + ee * left)
    if de > 0.0:
        s = left / (de + root)
    elif ee > 0.0:
        s = (root - de) / ee
    else:
        return must
    s = min(1.0, s)
    return must[0] + s * ex, must[1] + s * ey, must[2] + s * ez


def step_angular(previous: Vector, target: Vector, change: float) -> Vector:
    """Return the angular velocity on the way from `previous` to `target`, `change` at most away.

    Being between two vectors within the speed bound, it keeps that too.
    """
    length = distance(target, previous)
    if length <= change:
        return target
    s = change / length
    return (
        previous[0] + s * (target[0] - previous[0]),
        previous[1] + s * (target[1] - previous[1]),
        previous[2] + s * (target[2] - previous[2]),
    )


def _toward(value: float, goal: float, step: float) -> float:
    if goal > value:
        return min(goal, value + step)
    return max(goal, value - step)
