"""The last line: what is sent as a twist keeps speed, acceleration and jerk, whatever came before.

Closed formulas for the linear part (0) and the angular part (1) of a twist, each by itself. They
know nothing of the model or of the program, and so nothing that is wrong in those can get past
them.

Let x be the last sent velocity, b its acceleration over the g seconds before, and h the seconds
since. A velocity y may be sent that lies in four balls:

1. |y| <= V;
2. |y - x| <= A h;
3. |y - x - h b| <= j h (h + g) / 2;
4. |y + (y - x) / h * tr / 2| <= V: a plan that starts with y and (y - x) / h keeps V (`plan`).

Such a y starts a new plan. If there is none, the next point of the old plan is sent: that lies in
the first three, as `plan` shows. So `nearest` always has an answer, and by induction every bound is
kept for ever.

The points of a plan itself need not lie in the fourth: on the first ramp, with c seconds of it
left, the plan turns back sooner than a new one would. Whoever follows a plan of his own (`follow`)
may go on with such a y, if what is left of a plan keeps all bounds: with b now the mean of the tick
that ends with y, the acceleration half a tick ago, it goes on linearly to a1 within f = c + h / 2
and so is e = a1 + (b - a1) c / f at y. Coming to rest fixes
a1 (1 + k c h / (4 f)) = -k (y + b c^2 / (2 f)), and it is to hold that

5. |y + e c / 2| <= V, so that |a1| <= k V <= A;
6. |b - a1| <= j f.

Where y is a plan's, b is its acceleration half a tick ago, and this is that plan up to its ramp's
end, and one that ends up to half a tick later from there.

Where V is lowered in motion, the plan that goes on is one of the V before (`guard_kept_speed`),
until a new one has begun.
"""

import math

from vla_ros.safety.motion.compiled import Records, State, compiled
from vla_ros.safety.motion.plan import shares
from vla_ros.types import Array

_INSIDE = 1.0 - 1e-12
"""Share of a radius that is used: what is left is for rounding."""


@compiled
def tighten(record: Records, part: int, speed: float, acceleration: float, jerk: float) -> None:
    """Set the bounds of a part: V, A and j; the plan that goes on keeps the V before.

    At rest, or where V is not lowered, they hold at once.
    """
    s = record[0]
    kept = 0.0
    for i in range(3):
        kept += abs(s.guard_velocity[part, i]) + abs(s.guard_start[part, i])
    s.guard_kept_speed[part] = speed if kept == 0.0 else max(speed, s.guard_kept_speed[part])
    s.guard_speed[part] = speed
    s.guard_acceleration[part] = acceleration
    s.guard_jerk[part] = jerk


@compiled
def holds(s: State, part: int, y: Array, h: float) -> bool:
    """Return whether `y` (3,) may be sent `h` s after the last, and starts a plan."""
    if not steady(s, part, y, h, s.guard_speed[part]):
        return False
    x, lead = s.guard_velocity[part], s.ramp / (2.0 * h)
    peak = 0.0
    for i in range(3):
        peak += (y[i] + lead * (y[i] - x[i])) ** 2
    speed = s.guard_speed[part] * _INSIDE
    return bool(peak <= speed * speed)


@compiled
def steady(s: State, part: int, y: Array, h: float, speed: float) -> bool:
    """Return whether `y` (3,) lies in the first three balls, the first of the radius `speed`."""
    x, b = s.guard_velocity[part], s.guard_change[part]
    size = change = turn = 0.0
    for i in range(3):
        size += y[i] * y[i]
        step = y[i] - x[i]
        change += step * step
        turn += (step - h * b[i]) ** 2
    most = speed * _INSIDE
    most_change = s.guard_acceleration[part] * h * _INSIDE
    most_turn = s.guard_jerk[part] * h * (h + s.guard_tick[part]) / 2.0 * _INSIDE
    return size <= most * most and change <= most_change**2 and turn <= most_turn**2


@compiled
def follow(s: State, part: int, y: Array, h: float, left: float) -> None:
    """Send the next point of the caller's plan, or what is nearest to it; write it into `y`.

    Args:
        s: The limiter's record.
        part: 0 or 1.
        y: The point, (3,).
        h: Time since the last, s, > 0.
        left: What is left of the first ramp of that plan, s; 0 if it is over.

    """
    if holds(s, part, y, h):
        send(s, part, y, h, True)
        return
    if steady(s, part, y, h, s.guard_kept_speed[part]):
        rest, kept = rest_of_plan(s, part, y, h, left)
        if kept:
            speed = s.guard_kept_speed[part]
            send(s, part, y, h, True)
            s.guard_kept_speed[part] = speed
            s.guard_start_change[part, 0] = rest[0]
            s.guard_start_change[part, 1] = rest[1]
            s.guard_start_change[part, 2] = rest[2]
            s.guard_ramp[part] = left
            return
    new_plan = nearest(s, part, y, h)
    send(s, part, y, h, new_plan)


@compiled
def rest_of_plan(
    s: State, part: int, y: Array, h: float, left: float
) -> tuple[tuple[float, float, float], bool]:
    """Return the acceleration e at `y`, and whether what is left of a plan keeps the bounds."""
    rate, x = s.rate, s.guard_velocity[part]
    fade = left + h / 2.0
    share = left / fade
    size = -rate / (1.0 + rate * share * h / 4.0)
    peak = turn = 0.0
    ex = ey = ez = 0.0
    for i in range(3):
        b = (y[i] - x[i]) / h
        a1 = size * (y[i] + b * share * left / 2.0)
        e = a1 + (b - a1) * share
        peak += (y[i] + e * left / 2.0) ** 2
        turn += (b - a1) ** 2
        if i == 0:
            ex = e
        elif i == 1:
            ey = e
        else:
            ez = e
    most = s.guard_kept_speed[part] * _INSIDE
    kept = peak <= most * most and turn <= (s.guard_jerk[part] * fade * _INSIDE) ** 2
    return (ex, ey, ez), kept


@compiled
def fallback(s: State, part: int, h: float) -> tuple[float, float, float]:
    """Return the next point of the plan, `h` s on."""
    p, r = shares(s.plan_time, s.ramp, s.rate, s.guard_since[part] + h, s.guard_ramp[part])
    x, a = s.guard_start[part], s.guard_start_change[part]
    return p * x[0] + r * a[0], p * x[1] + r * a[1], p * x[2] + r * a[2]


@compiled
def nearest(s: State, part: int, y: Array, h: float) -> bool:
    """Make of `y` (3,) what may be sent `h` > 0 s after the last; return whether it starts a plan.

    `y` itself if it may be; else the point farthest along the way to it from the next of the plan.
    """
    if holds(s, part, y, h):
        return True
    x0, x1, x2 = fallback(s, part, h)
    share = share_inside(s, part, (x0, x1, x2), (y[0], y[1], y[2]), h)
    if share > 0.0:
        y[0], y[1], y[2] = (
            x0 + share * (y[0] - x0),
            x1 + share * (y[1] - x1),
            x2 + share * (y[2] - x2),
        )
        if holds(s, part, y, h):
            return True
    y[0], y[1], y[2] = x0, x1, x2
    return False


@compiled
def share_inside(
    s: State,
    part: int,
    start: tuple[float, float, float],
    end: tuple[float, float, float],
    h: float,
) -> float:
    """Return the share of the way from `start` to `end` at which it leaves the first of the balls.

    A little less, for rounding; -1 where it is nowhere in one of them. Where `start` is in all
    four, so is the point at that share; otherwise that is for `holds` to say.
    """
    x, a = s.guard_velocity[part], s.guard_change[part]
    speed, change = s.guard_speed[part], s.guard_acceleration[part] * h
    lead = s.ramp / (2.0 * h)
    middle = lead / (1.0 + lead)
    turn = s.guard_jerk[part] * h * (h + s.guard_tick[part]) / 2.0
    share = min(1.0, share_in_ball(start, end, 0.0, 0.0, 0.0, speed))
    share = min(share, share_in_ball(start, end, x[0], x[1], x[2], change))
    bx, by, bz = x[0] + h * a[0], x[1] + h * a[1], x[2] + h * a[2]
    share = min(share, share_in_ball(start, end, bx, by, bz, turn))
    mx, my, mz = middle * x[0], middle * x[1], middle * x[2]
    share = min(share, share_in_ball(start, end, mx, my, mz, speed / (1.0 + lead)))
    return share * _INSIDE if share < 1.0 else share


@compiled
def share_in_ball(
    start: tuple[float, float, float],
    end: tuple[float, float, float],
    x: float,
    y: float,
    z: float,
    radius: float,
) -> float:
    """Return the greatest share of the way from `start` to `end` that ends in a ball; -1 if none.

    |d + s e| = radius is solved for s in the form that subtracts no near-equal numbers.
    """
    radius *= _INSIDE
    dx, dy, dz = start[0] - x, start[1] - y, start[2] - z
    ex, ey, ez = end[0] - start[0], end[1] - start[1], end[2] - start[2]
    de = dx * ex + dy * ey + dz * ez
    ee = ex * ex + ey * ey + ez * ez
    left = radius * radius - (dx * dx + dy * dy + dz * dz)
    root = de * de + ee * left
    # Written so that NaN is none; a start outside has to head for the ball.
    if not (root >= 0.0 and (left >= 0.0 or de < 0.0)):
        return -1.0
    if ee == 0.0:
        return 1.0
    root = math.sqrt(root)
    return min(1.0, left / (de + root) if de > 0.0 else (root - de) / ee)


@compiled
def send(s: State, part: int, y: Array, h: float, new_plan: bool) -> None:  # noqa: FBT001
    """Record that `y` (3,) is sent, `h` > 0 s after the last."""
    for i in range(3):
        s.guard_change[part, i] = (y[i] - s.guard_velocity[part, i]) / h
        s.guard_velocity[part, i] = y[i]
    s.guard_tick[part] = h
    if new_plan:
        for i in range(3):
            s.guard_start[part, i] = y[i]
            s.guard_start_change[part, i] = s.guard_change[part, i]
        s.guard_since[part] = 0.0
        s.guard_ramp[part] = s.ramp
        s.guard_kept_speed[part] = s.guard_speed[part]
    else:
        s.guard_since[part] += h
