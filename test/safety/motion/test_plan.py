"""The stop plan: its figures are those of the curve, held between ticks of any length."""

import numpy as np
import pytest
from safety.motion.records import record_at_rest

from vla_ros.safety.motion.plan import StopPlan

PLANS = [(0.1, 0.02, 0.015), (0.1, 0.02, 0.003), (0.15, 0.03, 0.015), (0.12, 0.03, 0.03)]


@pytest.mark.parametrize(("time", "ramp", "tick"), PLANS)
def test_ends_at_rest_after_the_stated_way(time, ramp, tick):
    plan = StopPlan.of(time, ramp, tick)
    times = np.linspace(0.0, time, 20001)
    curve = np.array([plan.velocity(s) for s in times])
    assert curve[0] == pytest.approx((1.0, 0.0))
    assert curve[-1] == pytest.approx((0.0, 0.0))
    steps = np.diff(times)[:, None]
    way = ((curve[1:] + curve[:-1]) / 2.0 * steps).sum(axis=0)
    assert way == pytest.approx((time / 2.0, plan.way_of_acceleration), rel=1e-6)
    slopes = np.diff(curve, axis=0) / steps
    # Its acceleration begins with a, ends with 0, and has no jumps.
    assert slopes[0] == pytest.approx((0.0, 1.0), abs=2e-3)
    assert slopes[-1] == pytest.approx((0.0, 0.0), abs=2e-3)
    assert np.abs(np.diff(slopes, axis=0)).max() < 2.0 * steps.max() / ramp * max(1.0, plan.rate)


@pytest.mark.parametrize("lost", [0.0, 0.01])
@pytest.mark.parametrize(("time", "ramp", "tick"), PLANS)
def test_held_between_ticks_it_goes_no_further_than_the_rows_say(time, ramp, tick, lost):
    """Also where some time passes that nobody counts, at the worst moment."""
    plan = StopPlan.of(time, ramp, tick, lost)
    rng = np.random.default_rng(1)
    for case in range(1500):
        speed, growth = rng.uniform(-0.3, 0.3), rng.uniform(-5.0, 5.0) * rng.choice([0.0, 0.3, 1.0])
        now = way = farthest = fastest = 0.0
        while now < time:
            p, r = plan.velocity(now)
            velocity = p * speed + r * growth
            h = rng.uniform(1e-4, tick)
            if case % 3 == 0:
                # The worst: long ticks where it is fast.
                h = tick if velocity > 0.0 else 1e-3
            way += velocity * h
            fastest = max(fastest, velocity)
            farthest = max(farthest, way + lost * fastest)
            now += h
        gain = plan.way_of_acceleration + (plan.rise if growth > 0.0 else -plan.bend)
        most = max(0.0, plan.way * speed + gain * growth, plan.first_way * speed)
        assert farthest <= most + 1e-9


@pytest.mark.parametrize(("time", "ramp", "tick"), PLANS)
@pytest.mark.parametrize("part", [0.0, 0.3, 0.9])
def test_with_a_shorter_first_ramp_it_brakes_as_hard_and_is_over_sooner(time, ramp, tick, part):
    plan = StopPlan.of(time, ramp, tick)
    first = part * ramp
    end = time - (ramp - first) / 2.0
    times = np.linspace(0.0, end, 20001)
    curve = np.array([plan.velocity(s, first) for s in times])
    assert curve[0] == pytest.approx((1.0, 0.0))
    assert curve[-2] == pytest.approx((0.0, 0.0), abs=1e-6)
    assert np.abs(curve[:-1]).max(axis=1).min() > 0.0
    assert plan.velocity(end, first) == (0.0, 0.0)
    step = times[1]
    slopes = np.diff(curve, axis=0) / step
    # -k (x + a first / 2) between the ramps, and no jumps.
    between = slopes[(times[:-1] > first) & (times[1:] < end - ramp)]
    braking = np.broadcast_to((-plan.rate, -plan.rate * first / 2.0), between.shape)
    assert between == pytest.approx(braking, abs=1e-6)
    sharpest = 2.0 * step / min(first or ramp, ramp) * max(1.0, plan.rate)
    assert np.abs(np.diff(slopes, axis=0)).max() < sharpest


def test_the_record_has_every_figure():
    plan = StopPlan.of(0.15, 0.03, 0.015, 0.01)
    state = record_at_rest(6, plan)[0]
    for name in ("ramp", "tick", "rate", "way", "way_of_acceleration", "rise", "first_way",
                 "slow_way", "slow_way_of_acceleration"):  # fmt: skip
        assert state[name] == getattr(plan, name) > 0.0
    assert state["plan_time"] == plan.time
    assert state["bend_less"] == plan.bend > 0.0
