"""The plan that brings the arm to rest, and the figures that follow from it.

A plan starts with the velocity x and the acceleration a, in whatever space they are sent, and ends
at rest after `stopping_time` Ts. Its acceleration goes linearly from a to a1 within `stopping_ramp`
tr, stays a1, and goes to 0 within another tr. That it ends at rest fixes

    a1 = -k (x + a tr / 2),    k = 1 / (Ts - tr).

So the velocity at time s is X(s) = p(s) x + r(s) a, with two known numbers p and r, and everything
that is to be known of a plan is linear in x and a:

    speed:         X is a Bezier curve of x, x + a tr / 2 and a shortened x + a tr / 2 up to tr, and
                   shortens from there. Within a convex bound (a norm, an interval) that holds 0,
                   X stays if x and x + a tr / 2 are.
    acceleration:  between a, a1 and 0: within a convex bound if a and a1 are. A speed bound V gives
                   |a1| <= k V, which the robot file's check keeps within the acceleration bound.
    jerk:          |a1 - a| / tr at most, or |a1| / tr: 2 A / tr at most, checked there too.
    way:           the integral of X over the plan is (Ts / 2) x + (tr Ts / 4 - tr^2 / 6) a.

Between ticks the robot holds what was sent. Where the component f of X along a direction falls, it
so goes further than the integral: by at most half the longest tick, times what f falls by, and what
the curve bends within a tick, tick^2 / 12 times the change of its slope. For f0 and fa, the
components of x and a, the way along the direction is at most the greatest of three:

    f0 >= 0 and f0 + fa tr / 2 >= 0:  f never is negative. The way is that of the whole plan.
    f0 < 0:                           back first, then maybe forward: that of the whole plan, or 0.
    f0 > 0 > f0 + fa tr / 2:          forward first, f <= f0 (1 - s / tr)^2: f0 (tr / 3 + a tick).

A tick that nobody counts (a clock that jumps, while the robot goes on with what it was sent) takes
it further by `lost` times the fastest that it is, x or x + a tr / 2. This is part of the way, too.

Sampled at any times, a plan's finite differences keep its bounds: a difference quotient is the mean
of X' over a tick, which lies within any convex bound of X', and the means over two ticks of h and g
seconds that touch differ by at most jerk (h + g) / 2. The same holds for the tick before the plan,
over which the mean was a by definition. So neither late ticks nor a clock that stands still for a
while are special cases, as long as the plan's time is advanced by the time that is judged.
"""

from dataclasses import dataclass

from vla_ros.safety.motion.compiled import State, compiled


@dataclass(frozen=True, slots=True)
class StopPlan:
    """Figures of the plan, for one robot file and rate.

    Attributes:
        time: `stopping_time`, s.
        ramp: `stopping_ramp`, s.
        tick: The longest tick, s.
        rate: k, 1/s.
        way: Way of the whole plan for x = 1, held between ticks and once for `lost` longer, s.
        way_of_acceleration: The same for a = 1, s^2.
        rise: What is added to it where a > 0, s^2: f falls from f0 + fa tr / 2 then.
        bend: What is taken from it where a < 0, s^2: that shortens the way by so much less.
        first_way: Way for x = 1 before the ramp has turned it back, s.

    """

    time: float
    ramp: float
    tick: float
    rate: float
    way: float
    way_of_acceleration: float
    rise: float
    bend: float
    first_way: float

    @property
    def slow_way(self) -> float:
        """Return the way per x of an approach that slides into a bound: see `approach`."""
        return 1.5 * self.way

    @property
    def slow_way_of_acceleration(self) -> float:
        """Return the same per a."""
        return 0.5 * self.way * self.way

    @classmethod
    def of(cls, time: float, ramp: float, tick: float, lost: float = 0.0) -> "StopPlan":
        """Return the figures of a plan.

        Args:
            time: Until rest, s.
            ramp: Length of its ramps, s.
            tick: The longest tick, s.
            lost: Time that may pass uncounted, s.

        """
        rate = 1.0 / (time - ramp)
        # The slope of x = 1 changes by k over each ramp.
        bend = tick * tick / 12.0
        fall = tick / 2.0 + bend * 2.0 * rate + lost
        return cls(
            time=time,
            ramp=ramp,
            tick=tick,
            rate=rate,
            way=time / 2.0 + fall,
            way_of_acceleration=ramp * time / 4.0 - ramp * ramp / 6.0,
            rise=fall * ramp / 2.0 + bend,
            bend=min(bend, ramp * time / 4.0 - ramp * ramp / 6.0),
            first_way=ramp / 3.0 + tick + lost,
        )

    def velocity(self, s: float, first: float | None = None) -> tuple[float, float]:
        """Return (p, r) of `shares` for this plan."""
        return shares(self.time, self.ramp, self.rate, s, self.ramp if first is None else first)

    def write(self, state: State) -> None:
        """Put the figures into the record that compiled functions work with."""
        state["plan_time"], state["ramp"], state["tick"] = self.time, self.ramp, self.tick
        state["rate"], state["way"] = self.rate, self.way
        state["way_of_acceleration"] = self.way_of_acceleration
        state["rise"], state["bend_less"], state["first_way"] = self.rise, self.bend, self.first_way
        state["slow_way"] = self.slow_way
        state["slow_way_of_acceleration"] = self.slow_way_of_acceleration


@compiled
def shares(time: float, ramp: float, rate: float, s: float, first: float) -> tuple[float, float]:
    """Return (p, r): at s seconds the velocity of the plan is p x + r a.

    Args:
        time: Until rest, s.
        ramp: Length of its ramps, s.
        rate: k, 1/s.
        s: Time since the plan began, s.
        first: Length of the first ramp, where it is shorter, s. With k left as it is,
            a1 = -k (x + a first / 2), and the plan ends by half of the difference earlier.

    """
    end = time - (ramp - first) / 2.0
    if s >= end:
        return 0.0, 0.0
    if s < first:
        bent = s * s / (2.0 * first)
        return 1.0 - rate * bent, s - bent - rate * bent * first / 2.0
    if s < end - ramp:
        share = 1.0 - rate * (s - first / 2.0)
    else:
        left = end - s
        share = rate * left * left / (2.0 * ramp)
    return share, share * first / 2.0
