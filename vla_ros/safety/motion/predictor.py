"""Where the joints will be when all that was sent has been done, and how sure that is.

A robot follows what it is sent a delay later, by at most T = `reaction_delay`. Let S(t) be the
integral of what was sent up to t. Then a position measured at t is

    q(t) = o + S(t - d) + e,    0 <= d <= T,    |e| <= E = `joint_position_error`,

with an unknown origin o that does not change as long as the robot does what it is sent, and
o + S(t) is where it comes to with everything sent up to t. Each measured position so says of o:

    q(t) - E - max S <= o <= q(t) + E - min S,    over the last T seconds,

for each joint, and o lies in all of these intervals. Their intersection is kept, and an estimate
that moves only where it must, so that the sensor's noise does not show in it. At rest the interval
is 2 E wide; it does not grow when the arm then moves: neither the unknown delay nor the way during
it is kept in reserve.

What moves o widens the intersection:

- the time that passed is not known (the caller cut a long gap short, or its clock stood still): by
  what the last velocity does within a period;
- ticks of uneven length: a robot that is some ticks late follows each command for the length of
  another tick. With ticks that differ from the period P by r P, that adds up to r P times the
  velocity's change at each tick, and r T times the velocity for what is not yet followed; r is the
  greatest lately, or what the ticks within T differ by in sum, over T, where that is less.

Where twists are sent, the robot makes joint velocities of them at its own posture, off by a share
(`_astray`): what is not measured yet is off by it, and o has moved by it on the way lately. How
long ago that may be is a choice (`_MEMORY`): to allow for all of the way would keep the arm from
sliding along bounds, and what went astray earlier shows in the positions measured since.

A robot that does something else (slips, is pushed, turns a redundancy in its own way) empties the
intersection: it is begun anew at the end of the newest interval that is nearest to the estimate.
"""

import math

from vla_ros.safety.motion.compiled import Records, State, compiled
from vla_ros.types import Array

_SETTLING = 0.02
"""Speed in rad/s with which the estimate is corrected in motion, so that this does not show in it.

Until it has settled `error` is larger.
"""
_CATCHING_UP = 10.0
"""Share of what it is off by that the estimate is corrected by in a second, where that is more: of
arms that turn a redundancy in their own way, which would leave it ever further behind."""
_STILL = 1e-9
"""Way in rad within the reaction delay up to which the arm is at rest."""
_LEAST_VALUE = 0.01
_MEMORY = 0.05
"""Time in s for which the way of twists counts as not yet told by measured positions."""
_EVEN = 1e-3
"""Share of a period by which even ticks may differ: rounding of stamps."""


def ring_size(delay: float, age: float, period: float) -> int:
    """Return how many sums are kept: of the reaction delay before the oldest position of use.

    Args:
        delay: `reaction_delay`, s.
        age: Greatest age of a measured position, s.
        period: Between two ticks, s.

    """
    return math.ceil((delay + age) / period) + 4


@compiled
def lose_time(record: Records) -> None:
    """Take note that the robot may have followed what was sent last for up to a period more."""
    s = record[0]
    for i in range(s.joints):
        s.lost[i] += abs(s.velocity[i]) * s.period
    s.has_lost = 1


@compiled
def advance(s: State, ring: Array, h: float) -> None:
    """Take note that `velocity` was sent for `h` > 0 s.

    Args:
        s: The limiter's record.
        ring: The sums S of the last ticks, and their times in the last column, (m, n + 1).
        h: In s.

    """
    n = s.joints
    now = ring[s.ring_at, n] + h
    s.ring_at += 1
    if s.ring_at == ring.shape[0]:
        s.ring_at = 0
    row = ring[s.ring_at]
    for i in range(n):
        s.total[i] += h * s.velocity[i]
        row[i] = s.total[i]
        s.position[i] = s.origin[i] + s.total[i]
    row[n] = now
    s.ring_count = min(s.ring_count + 1, ring.shape[0] - 1)
    _go(s, h)
    uneven = abs(h / s.period - 1.0)
    if uneven > _EVEN or s.unevenness > 0.0:
        _widen(s, uneven, h)


@compiled
def _widen(s: State, uneven: float, h: float) -> None:
    """Allow for ticks of uneven length."""
    # The unevenness is forgotten some reaction delays after the last uneven tick. One uneven tick
    # in many is little of the reaction delay.
    fade = 1.0 - min(1.0, h / (4.0 * s.delay))
    s.uneven_most = max(min(uneven, 1.0), s.uneven_most * fade)
    s.uneven_time = s.uneven_time * fade + uneven * s.period
    rate = min(s.uneven_most, s.uneven_time / s.delay)
    for i in range(s.joints):
        size = abs(s.velocity[i])
        s.fastest[i] = max(s.fastest[i] * fade, size) if s.has_spread else size
    if s.uneven_most < _EVEN:
        s.unevenness = s.uneven_most = s.uneven_time = 0.0
        s.has_spread = 0
        return
    s.unevenness, s.has_spread = rate, 1
    for i in range(s.joints):
        s.spread[i] = rate * s.delay * s.fastest[i]


@compiled
def correct(s: State, ring: Array, age: float, h: float) -> None:
    """Hold the estimate against the position `seen`.

    Args:
        s: The limiter's record.
        ring: As in `advance`.
        age: Time in s since it was measured.
        h: Time in s since the last correction.

    """
    n = s.joints
    new = s.has_measured == 0
    for i in range(n):
        new = new or s.seen[i] != s.measured[i]
    if not new:
        # Nothing new; and its age may be wrong where the clock went back since.
        return
    s.has_measured = 1
    newest, oldest = _window(s, ring, age)
    moves, settled, size, square = 0.0, True, 0.0, 0.0
    for i in range(n):
        s.measured[i] = s.seen[i]
        low, high = _extremes(s, ring, newest, oldest, i)
        if not s.known:
            s.origin[i] = s.seen[i] - (high + low) / 2.0
        if s.has_lost:
            s.below[i] += s.lost[i]
            s.above[i] += s.lost[i]
            s.lost[i] = 0.0
        if s.unevenness > 0.0:
            loose = s.unevenness * s.period / s.delay * (high - low)
            s.below[i] += loose
            s.above[i] += loose
        # Of the newest interval: estimate - low, and high - estimate.
        away = s.seen[i] - s.origin[i]
        below, above = high - away + s.sensor_error, away - low + s.sensor_error
        s.below[i], s.above[i] = _met(s.below[i], s.above[i], below, above, 2.0 * s.sensor_error)
        moves = max(moves, high - low)
        square += (high - low) ** 2
        settled = settled and s.below[i] >= 0.0 and s.above[i] >= 0.0
    s.known, s.has_lost = 1, 0
    # A vector of that size: any one joint may have all of it, but not all of them.
    slip = _astray(s) * (math.sqrt(square) + s.gone)
    for i in range(n):
        if not settled:
            _settle(s, i, math.inf if moves <= _STILL else h)
        s.position[i] = s.origin[i] + s.total[i]
        error = max(s.below[i], s.above[i])
        if s.has_spread:
            error += s.spread[i]
        s.error[i] = error + slip
        size += error * error
    s.error_size = math.sqrt(size) + slip


@compiled
def _settle(s: State, i: int, seconds: float) -> None:
    """Bring a joint's estimate into its interval, as far as that goes in some time."""
    change = max(-s.below[i], 0.0) - max(-s.above[i], 0.0)
    most = max(_SETTLING, _CATCHING_UP * abs(change)) * seconds
    change = min(max(change, -most), most)
    s.origin[i] += change
    s.below[i] += change
    s.above[i] -= change


@compiled
def _astray(s: State) -> float:
    """Return which share of its way the arm may go astray.

    Where twists are sent, the joint velocities that the robot makes of them are those of its own
    posture: off by the sensors' error over the least singular value.
    """
    if not s.twists:
        return 0.0
    off = s.sensor_error * math.sqrt(s.joints)
    return float(min(1.0, off / max(s.singular_value, s.singular_bound, _LEAST_VALUE)))


@compiled
def _go(s: State, h: float) -> None:
    """Take note of the way that `velocity` goes in `h` s; what is long ago is forgotten."""
    square = 0.0
    for i in range(s.joints):
        square += s.velocity[i] * s.velocity[i]
    s.gone = s.gone * max(0.0, 1.0 - h / _MEMORY) + math.sqrt(square) * h


@compiled
def _met(
    below: float, above: float, new_below: float, new_above: float, width: float
) -> tuple[float, float]:
    """Return the intersection of two intervals, as the estimate's distances from its ends.

    Where nothing is left of it: that of the newest, begun anew at the end that is nearer.
    """
    met_below, met_above = min(below, new_below), min(above, new_above)
    if met_below + met_above >= 0.0:
        return met_below, met_above
    if new_above < 0.0:
        return min(new_below, width - new_above), new_above
    return new_below, min(new_above, width - new_below)


@compiled
def _window(s: State, ring: Array, age: float) -> tuple[int, int]:
    """Return which sums are those of the `delay` before `age` s ago, counted back from the newest.

    The sum at a time lies between those of the steps before and after it.
    """
    size, n, last = ring.shape[0], s.joints, s.ring_count - 1
    newest = ring[s.ring_at, n] - age
    oldest = newest - s.delay
    end = 0
    while end < last and ring[(s.ring_at - end - 1) % size, n] >= newest:
        end += 1
    first = end
    while first < last and ring[(s.ring_at - first) % size, n] > oldest:
        first += 1
    return end, first


@compiled
def _extremes(s: State, ring: Array, newest: int, oldest: int, joint: int) -> tuple[float, float]:
    """Return the least and the greatest sum of a joint in a window."""
    low, high = math.inf, -math.inf
    for back in range(newest, oldest + 1):
        value = ring[(s.ring_at - back) % ring.shape[0], joint]
        low, high = min(low, value), max(high, value)
    return low, high
