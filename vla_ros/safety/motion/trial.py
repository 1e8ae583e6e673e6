"""A tick in the parts between which the program is asked: see `limiter`."""

import math

import numpy as np

from vla_ros.safety.motion import (
    algebra,
    chain,
    dynamics,
    guard,
    joints,
    places,
    predictor,
    shaping,
    singular,
)
from vla_ros.safety.motion.acting import ACCELERATION, JERK, PART, PLACES, SINGULARITY, SPEED, act
from vla_ros.safety.motion.compiled import Integers, Records, State, compiled
from vla_ros.safety.motion.joints import EXACT
from vla_ros.safety.motion.plan import shares
from vla_ros.types import Array

_JOINTS_WEIGHT = 0.01
"""Weight of the joints' own motion in what is nearest to a twist, against 1 of the twist's."""
_NO_BOUND = 1e30
_JERK_CUBE = 1.0 / math.sqrt(3.0)
"""The program's cube in the ball of the jerk's bound."""

_SHARES = (1.0, 0.5)
"""Parts of the way from the present plan to the program's motion that are tried."""

SENT, BLIND, TRY = -1, -2, -3
"""What is answered where there is no program to solve: a motion was sent, or none could be, or
there is one to try."""


@compiled
def tick(
    record: Records,
    ring: Array,
    links: Array,
    surfaces: Array,
    points: Array,
    rows: Array,
    slopes: Array,
    indices: Integers,
    acting: Array,
    metric: Array,
    gain: Array,
    matrix: Array,
    low: Array,
    high: Array,
    h: float,
    age: float,
) -> int:
    """Take a tick of `h` s, up to the program where the target is not to be had.

    Args:
        record: The limiter's record, with the target and, if any came, the position `seen`.
        ring: As in `predictor`.
        links: As in `chain`.
        surfaces: As in `places.Places`, like the next four.
        points: Likewise.
        rows: Likewise.
        slopes: Likewise.
        indices: Likewise.
        acting: Amounts of what acts: which bounds a trial that fails exceeds is noted in it.
        metric: Of `program.Program`, like the next four: set where there is one to solve.
        gain: Likewise.
        matrix: Likewise.
        low: Likewise.
        high: Likewise.
        h: In s.
        age: Of the position, s; less than 0 for none.

    Returns:
        SENT or BLIND; else how many rows the program has, whose solution `settle` takes.

    """
    found = begin(record, ring, links, surfaces, points, rows, slopes, indices, acting, h, age)
    if found != TRY:
        return found
    return attempt(
        record, links, rows, slopes, indices, acting, metric, gain, matrix, low, high
    )  # fmt: skip


@compiled
def begin(
    record: Records,
    ring: Array,
    links: Array,
    surfaces: Array,
    points: Array,
    rows: Array,
    slopes: Array,
    indices: Integers,
    acting: Array,
    h: float,
    age: float,
) -> int:
    """Bring the rows to where the arm is, and shape the target: the first step of `tick`.

    Returns:
        SENT, if the present plan goes on, or BLIND; else TRY: there is a trial.

    """
    s = record[0]
    predictor.advance(s, ring, h)
    if age >= 0.0:
        predictor.correct(s, ring, age, h)
    if not s.known:
        return BLIND
    s.h, s.between = h, (h + s.last_tick) / 2.0
    n = s.joints
    chain.set_frames(links, s.position, s.turns, s.places)
    chain.set_jacobian(links, s.turns, s.places, s.jacobian, s.tcp, s.rotation)
    algebra.apply(s.jacobian, s.velocity, s.twist_before, 6, n)
    s.speed = algebra.norm(s.velocity, n)
    s.error_most = 0.0
    for i in range(n):
        s.error_most = max(s.error_most, s.error[i])
        s.place_before[i] = s.position[i] - h * s.velocity[i]
    places.update(s, surfaces, points, rows, slopes, indices)
    singular.begin(s)
    joints.update(s)
    p, r = shares(s.plan_time, s.ramp, s.rate, s.since + h, s.ramp)
    for i in range(n):
        s.kept[i] = p * s.start[i] + r * s.start_acceleration[i]
    if s.target_kind == shaping.NO_TARGET or age < 0.0 or not shaping.shape(s, acting):
        _follow_plan(s, links)
        return SENT
    _set_change(s)
    before_turns, before_places = np.empty((n, 3, 3)), np.empty((n, 3))
    # The torque before, by what is known now of where the arm is: what was learnt since is no
    # change of torque.
    chain.set_frames(links, s.place_before, before_turns, before_places)
    dynamics.torque(links, before_turns, before_places, s.velocity, s.acceleration, s.torque)
    dynamics.mass(links, s.turns, s.places, s.mass)
    return TRY


@compiled
def attempt(
    record: Records,
    links: Array,
    rows: Array,
    slopes: Array,
    indices: Integers,
    acting: Array,
    metric: Array,
    gain: Array,
    matrix: Array,
    low: Array,
    high: Array,
) -> int:
    """Send the trial if its plan keeps every bound, with its band to spare: the rest of `tick`.

    Returns:
        SENT, or how many rows the program has that is to be solved else.

    """
    s = record[0]
    if _certify(s, links, rows, indices, True):
        return SENT
    _tell(s, rows, indices, acting)
    return _assemble(s, links, rows, slopes, metric, gain, matrix, low, high)


@compiled
def _set_change(s: State) -> None:
    for i in range(s.joints):
        s.trial_change[i] = (s.trial[i] - s.velocity[i]) / s.h


@compiled
def _certify(s: State, links: Array, rows: Array, indices: Integers, aim: bool) -> bool:  # noqa: FBT001
    """Send a trial if its plan keeps every bound, with `aim` their bands as well."""
    dynamics.torque(links, s.turns, s.places, s.trial, s.trial_change, s.trial_torque)
    chain.bend(s, s.trial, s.trial_bend)
    algebra.apply(s.jacobian, s.trial_change, s.trial_turned, 6, s.joints)
    algebra.apply(s.jacobian, s.trial, s.trial_moved, 6, s.joints)
    s.failed, s.failure = -1, 0.0
    if not joints.holds(s, aim):
        return False
    if not (_tcp_holds(s, 0) and _tcp_holds(s, 1)):
        return False
    row, over = places.worst(s, rows, aim)
    if over > 0.0:
        s.failed, s.failure = PLACES + indices[row], over
        return False
    speed, growth = algebra.norm(s.trial, s.joints), algebra.norm(s.trial_change, s.joints)
    if not singular.far(s, speed, growth) and not singular.holds(s, links, aim):
        s.failed, s.failure = SINGULARITY, abs(s.singular_value - s.singular_bound)
        return False
    _send(s)
    return True


@compiled
def _tcp_holds(s: State, part: int) -> bool:
    """Return whether speed, acceleration and jerk of the TCP keep their bounds in the plan.

    With w = J a (`trial_turned`) and b = dJ/dt u, the TCP's acceleration is w + b at first and
    -k (v + w tr / 2) + b' then, with b' at most b.
    """
    k, ramp, half, first = s.rate, s.ramp, s.ramp / 2.0, 3 * part
    bend = braking = turn = speed = peak = acceleration = jerk = 0.0
    for i in range(first, first + 3):
        v, w, b = s.trial_twist[i], s.trial_turned[i], s.trial_bend[i]
        bend += b * b
        braking += (k * (v + half * w)) ** 2
        turn += (k * (v + half * w) + w) ** 2
        speed += v * v
        peak += (v + half * (w + b)) ** 2
        acceleration += (w + b) ** 2
        jerk += (w + b - s.twist_acceleration[i]) ** 2
    bend, braking = math.sqrt(bend), math.sqrt(braking)
    most = s.guard_acceleration[part]
    if not braking + bend <= most:
        return _fail(s, PART * part + ACCELERATION, braking + bend - most)
    # The path's bend changes with the speed: by 3 b k a second, at most.
    changing = max(math.sqrt(turn), braking) / ramp + 3.0 * k * bend
    if not changing <= s.guard_jerk[part]:
        return _fail(s, PART * part + JERK, changing - s.guard_jerk[part])
    if s.twists:
        # Held by the guard.
        return True
    over = math.sqrt(max(speed, peak)) - (s.guard_speed[part] * EXACT - s.tcp_spread[part])
    if not over <= 0.0:
        return _fail(s, PART * part + SPEED, over)
    # At the true posture the same joint motion moves the TCP otherwise.
    off = s.sway[part] * s.error_most
    size, growth = algebra.norm(s.trial, s.joints), algebra.norm(s.trial_change, s.joints)
    over = math.sqrt(acceleration) + off * (growth + size * size) - most
    if not over <= 0.0:
        return _fail(s, PART * part + ACCELERATION, over)
    change = 2.0 * size * growth * s.h
    for i in range(s.joints):
        change += abs(s.trial_change[i] - s.acceleration[i])
    over = (math.sqrt(jerk) + off * change) / s.between - s.guard_jerk[part]
    return bool(over <= 0.0) or _fail(s, PART * part + JERK, over)


@compiled
def _fail(s: State, index: int, amount: float) -> bool:
    s.failed, s.failure = index, amount
    return False


@compiled
def _send(s: State) -> None:
    """Send a trial whose plan was verified."""
    h, n = s.h, s.joints
    if s.twists:
        guard.send(s, 0, s.trial_twist[:3], h, True)
        guard.send(s, 1, s.trial_twist[3:], h, True)
    for i in range(n):
        s.start[i] = s.velocity[i] = s.trial[i]
        s.start_acceleration[i] = s.acceleration[i] = s.trial_change[i]
        s.torque[i] = s.trial_torque[i]
    for i in range(6):
        s.twist[i] = s.trial_twist[i]
        s.bend[i] = s.trial_bend[i]
        s.twist_acceleration[i] = s.trial_turned[i] + s.trial_bend[i]
    s.since = 0.0
    s.last_tick = h


@compiled
def _follow_plan(s: State, links: Array) -> None:
    """Send the next point of the present plan."""
    h, n = s.h, s.joints
    s.since += h
    still = s.since >= s.plan_time
    for i in range(n):
        still = still and s.velocity[i] == 0.0
    if still:
        for i in range(n):
            s.start[i] = s.start_acceleration[i] = 0.0
    for i in range(n):
        s.trial[i] = s.kept[i]
    algebra.apply(s.jacobian, s.trial, s.twist, 6, n)
    if s.twists:
        if s.damped:
            _follow_guard(s)
        else:
            left = max(0.0, s.ramp - s.since)
            guard.follow(s, 0, s.twist[:3], h, left)
            guard.follow(s, 1, s.twist[3:], h, left)
        algebra.apply(s.inverse, s.twist, s.trial, n, 6)
    for i in range(n):
        s.acceleration[i] = (s.trial[i] - s.velocity[i]) / h
        s.velocity[i] = s.trial[i]
    chain.bend(s, s.velocity, s.bend)
    algebra.apply(s.jacobian, s.acceleration, s.twist_acceleration, 6, n)
    for i in range(6):
        s.twist_acceleration[i] += s.bend[i]
    dynamics.torque(links, s.turns, s.places, s.velocity, s.acceleration, s.torque)
    s.last_tick = h


@compiled
def _set_guards_next(s: State, out: Array) -> None:
    """Set `out` (6,) to the next twist of the guards' own plans.

    Where twists are followed with damping, P J u is not u: the plan is one of twists w there, and
    of the joint velocities P w.
    """
    for part in range(2):
        x, y, z = guard.fallback(s, part, s.h)
        out[3 * part], out[3 * part + 1], out[3 * part + 2] = x, y, z


@compiled
def _follow_guard(s: State) -> None:
    """Send the next twist of the guards' own plans."""
    _set_guards_next(s, s.twist)
    guard.send(s, 0, s.twist[:3], s.h, False)
    guard.send(s, 1, s.twist[3:], s.h, False)


@compiled
def _tell(s: State, rows: Array, indices: Integers, acting: Array) -> None:
    """Note which bounds a trial exceeds, and by how much; at least the one that refused it."""
    if s.failed >= 0:
        act(s, acting, s.failed, s.failure)
    joints.excess(s, acting)
    places.excess(s, rows, indices, acting)
    act(s, acting, SINGULARITY, singular.excess(s))


# --- the program: min |x - wish| in a metric, within low <= (x, A x) <= high --------------------


@compiled
def _assemble(
    s: State,
    links: Array,
    rows: Array,
    slopes: Array,
    metric: Array,
    gain: Array,
    matrix: Array,
    low: Array,
    high: Array,
) -> int:
    """Write down the program for the motion nearest to a trial that the rows allow.

    The rows of joints and torques are relaxed to what the present plan does next, and those of
    places are soft, so that there always is a solution; it is verified afterwards. x is how fast
    the twist changes where twists are sent, and otherwise the joint acceleration.

    Args:
        s: The limiter's record, with `trial`, its twist and change, and the model.
        links: As in `chain`.
        rows: As in `places.Places`.
        slopes: Likewise.
        metric: Set to H, (m, m).
        gain: Set to -H wish, (m,).
        matrix: Set to A, (r, m) or more.
        low: Set to the bounds of x and of A x, (m + r,) or more.
        high: Likewise.

    Returns:
        r, the number of rows.

    """
    if s.twists:
        count = _assemble_twist(s, metric, gain, matrix, low, high)
    else:
        count = _assemble_joints(s, metric, gain, matrix, low, high)
    n, size = s.joints, len(gain)
    if not s.twists:
        count = _add_speed_cuts(s, matrix, low, high, size, count)
    row = np.empty(n)
    for k in range(s.rows):
        most = places.program_room(s, rows[k], slopes[k])
        _add_row(s, slopes[k], most, matrix, low, high, size, count)
        count += 1
    speed, growth = algebra.norm(s.trial, n), algebra.norm(s.trial_change, n)
    if not singular.far(s, speed, growth):
        lost = 2.0 * singular.ahead_of_plan(s, links, np.zeros(n), np.empty((6, n)))
        for k in range(2):
            for i in range(n):
                row[i] = s.singular_slopes[k, i]
            most = max(s.singular_rooms[k] - singular.BAND - lost, 0.0)
            if s.singular_rooms[k] <= 0.0:
                most -= s.slow_way * singular.way_back(s, k)
            for i in range(n):
                most -= s.slow_way * row[i] * s.velocity[i]
            most /= s.slow_way * s.h + s.slow_way_of_acceleration
            _add_row(s, row, most, matrix, low, high, size, count)
            count += 1
    return count


@compiled
def _add_row(
    s: State,
    slope: Array,
    most: float,
    matrix: Array,
    low: Array,
    high: Array,
    size: int,
    count: int,
) -> None:
    """Add the row slope . a <= most, with a the joint acceleration."""
    if not s.twists:
        for j in range(size):
            matrix[count, j] = slope[j]
    else:
        # a = P x + drift.
        for j in range(size):
            total = 0.0
            for i in range(s.joints):
                total += slope[i] * s.inverse[i, j]
            matrix[count, j] = total
        for i in range(s.joints):
            most -= slope[i] * s.drift[i]
    low[size + count], high[size + count] = -_NO_BOUND, most


@compiled
def _assemble_twist(
    s: State, metric: Array, gain: Array, matrix: Array, low: Array, high: Array
) -> int:
    n, h = s.joints, s.h
    kept, followed = np.empty(n), np.empty(6)
    if s.damped:
        _set_guards_next(s, followed)
        algebra.apply(s.inverse, followed, kept, n, 6)
    else:
        algebra.apply(s.jacobian, s.kept, followed, 6, n)
        algebra.apply(s.inverse, followed, kept, n, 6)
        algebra.apply(s.jacobian, kept, followed, 6, n)
    before = np.empty(6)
    for i in range(6):
        part, j = i // 3, i % 3
        before[i] = s.guard_velocity[part, j]
        weight = 1.0 / s.length if part == 0 else 1.0
        metric[i, :] = 0.0
        metric[i, i] = weight * weight
        gain[i] = -weight * weight * (s.trial_twist[i] - before[i]) / h
        kept_change = (followed[i] - before[i]) / h
        turn = s.between * s.guard_jerk[part] * _JERK_CUBE
        low[i] = min(s.guard_change[part, j] - turn, kept_change)
        high[i] = max(s.guard_change[part, j] + turn, kept_change)
    algebra.apply(s.inverse, before, s.drift, n, 6)
    for i in range(n):
        s.drift[i] = (s.drift[i] - s.velocity[i]) / h
        kept[i] = (kept[i] - s.velocity[i]) / h
    joints.bounds(s, kept, low[6:], high[6:])
    for i in range(n):
        load = 0.0
        for j in range(n):
            load += s.mass[i, j] * s.drift[j]
        for j in range(6):
            matrix[i, j] = s.inverse[i, j]
            total = 0.0
            for k in range(n):
                total += s.mass[i, k] * s.inverse[k, j]
            matrix[n + i, j] = total
        low[6 + i] -= s.drift[i]
        high[6 + i] -= s.drift[i]
        low[6 + n + i] -= load
        high[6 + n + i] -= load
    return int(2 * n)


@compiled
def _assemble_joints(
    s: State, metric: Array, gain: Array, matrix: Array, low: Array, high: Array
) -> int:
    n, h = s.joints, s.h
    kept, turned = np.empty(n), np.empty(6)
    for i in range(n):
        kept[i] = (s.kept[i] - s.velocity[i]) / h
    both_low, both_high = np.empty(2 * n), np.empty(2 * n)
    joints.bounds(s, kept, both_low, both_high)
    _set_metric(s, metric)
    for i in range(n):
        total = 0.0
        for j in range(n):
            total -= metric[i, j] * (s.trial[j] - s.velocity[j]) / h
            matrix[i, j] = s.mass[i, j]
        gain[i] = total
        low[i], high[i] = both_low[i], both_high[i]
        low[n + i], high[n + i] = both_low[n + i], both_high[n + i]
    algebra.apply(s.jacobian, kept, turned, 6, n)
    for i in range(6):
        turn = s.between * s.guard_jerk[i // 3] * _JERK_CUBE
        around = s.twist_acceleration[i] - s.bend[i]
        for j in range(n):
            matrix[n + i, j] = s.jacobian[i, j]
        low[2 * n + i] = min(around - turn, turned[i])
        high[2 * n + i] = max(around + turn, turned[i])
    return int(n + 6)


@compiled
def _set_metric(s: State, metric: Array) -> None:
    """Set H: what was asked for is a motion of the joints, or nearest is what moves the TCP so."""
    n = s.joints
    for i in range(n):
        for j in range(n):
            total = 0.0
            if s.wants_twist:
                for k in range(6):
                    weight = 1.0 / (s.length * s.length) if k < 3 else 1.0  # noqa: PLR2004
                    total += weight * s.jacobian[k, i] * s.jacobian[k, j]
            if i == j:
                total += _JOINTS_WEIGHT if s.wants_twist else 1.0
            metric[i, j] = total


@compiled
def _add_speed_cuts(s: State, matrix: Array, low: Array, high: Array, size: int, count: int) -> int:
    """Add the tangent planes of the TCP's speed, which is round, where it is going."""
    n, now = s.joints, s.twist_before
    lead = s.h + s.ramp / 2.0
    for part in range(2):
        first = 3 * part
        speed = algebra.norm(s.trial_twist[first : first + 3], 3)
        if speed <= 0.5 * s.guard_speed[part]:
            continue
        most = 0.999 * shaping.most_speed(s, part) - s.tcp_spread[part]
        for j in range(n):
            matrix[count, j] = 0.0
        for i in range(first, first + 3):
            along = s.trial_twist[i] / speed
            most -= along * now[i]
            for j in range(n):
                matrix[count, j] += along * s.jacobian[i, j]
        low[size + count], high[size + count] = -_NO_BOUND, most / lead
        count += 1
    return count


@compiled
def settle(record: Records, links: Array, rows: Array, indices: Integers, x: Array) -> None:
    """Send the program's solution x, or something between it and the present plan, or that.

    Args:
        record: The limiter's record.
        links: As in `chain`.
        rows: As in `places.Places`.
        indices: Likewise.
        x: As in `_assemble`, (m,); empty where there is no solution.

    """
    s = record[0]
    sent = False
    if len(x) > 0:
        _propose(s, x)
        for share in _SHARES:
            sent = sent or (_blend(s, share) and _certify(s, links, rows, indices, False))
    if not sent:
        _follow_plan(s, links)


@compiled
def _propose(s: State, x: Array) -> None:
    """Take the program's solution: `found` becomes the joint velocity that it makes."""
    n = s.joints
    if not s.twists:
        for i in range(n):
            s.found[i] = s.velocity[i] + s.h * x[i]
        return
    for i in range(6):
        s.found_twist[i] = s.guard_velocity[i // 3, i % 3] + s.h * x[i]
    algebra.apply(s.inverse, s.found_twist, s.found, n, 6)


@compiled
def _blend(s: State, share: float) -> bool:
    """Make a trial of a share of the way from the next point of the plan to `found`.

    Returns:
        Whether the guard holds it, or something between.

    """
    if s.twists and s.damped:
        if not _blend_twist(s, share):
            return False
    else:
        for i in range(s.joints):
            s.trial[i] = s.kept[i] + share * (s.found[i] - s.kept[i])
        if not shaping.bring_inside(s):
            return False
    _set_change(s)
    return True


@compiled
def _blend_twist(s: State, share: float) -> bool:
    """Make a trial of a share of the way from the guards' next twist to `found_twist`."""
    kept, end = np.empty(6), s.trial_twist
    _set_guards_next(s, kept)
    for i in range(6):
        end[i] = kept[i] + share * (s.found_twist[i] - kept[i])
    inside = shaping.share_inside(s, kept, end)
    if not inside > 0.0:
        return False
    for i in range(6):
        end[i] = kept[i] + inside * (end[i] - kept[i])
    algebra.apply(s.inverse, end, s.trial, s.joints, 6)
    return guard.holds(s, 0, end[:3], s.h) and guard.holds(s, 1, end[3:], s.h)
