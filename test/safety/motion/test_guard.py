"""The guard: what it sends keeps speed, acceleration and jerk, tick after tick."""

import numpy as np
import pytest
from safety.motion.records import PLAN, record_at_rest

from vla_ros.safety.motion import guard
from vla_ros.safety.motion.plan import StopPlan
from vla_ros.safety.motion.shaping import _approach

SPEED, ACCELERATION, JERK = 0.3, 5.0, 600.0
PARTS = (0, 1)


def guarded(plan=PLAN, part=0):
    """Return a record whose `part` is bounded; the other part may not move at all."""
    record = record_at_rest(6, plan)
    guard.tighten(record, part, SPEED, ACCELERATION, JERK)
    return record


def any_tick(rng):
    return float(rng.choice([0.01, 0.015, 1e-4, rng.uniform(1e-4, 0.015)]))


def any_wish(rng):
    return rng.normal(size=3) * rng.choice([0.01, 0.3, 3.0, 1e6])


class Held:
    """Holds what is sent against the bounds, by its finite differences."""

    def __init__(self):
        self.velocity, self.acceleration, self.tick = np.zeros(3), np.zeros(3), 0.0

    def take(self, sent, h, speed=SPEED):
        change = (sent - self.velocity) / h
        turn = np.linalg.norm(change - self.acceleration)
        assert np.linalg.norm(sent) <= speed * (1.0 + 1e-9)
        assert np.linalg.norm(change) <= ACCELERATION * (1.0 + 1e-7)
        assert turn <= JERK * (h + self.tick) / 2.0 * (1.0 + 1e-6)
        self.velocity, self.acceleration, self.tick = sent, change, h


@pytest.mark.parametrize("part", PARTS)
@pytest.mark.parametrize("seed", range(4))
def test_any_wishes_at_any_ticks_keep_every_bound(seed, part):
    rng = np.random.default_rng(seed)
    state = guarded(part=part)[0]
    held, wish = Held(), np.zeros(3)
    for _ in range(5000):
        h = any_tick(rng)
        if rng.random() < 0.1:
            wish = any_wish(rng)
        if rng.random() < 0.02:
            sent, new = np.array(guard.fallback(state, part, h)), False
        else:
            sent = wish.copy()
            new = guard.nearest(state, part, sent, h)
        guard.send(state, part, sent, h, new)
        held.take(sent, h)
    assert not state["guard_velocity"][1 - part].any()


def test_not_a_number_is_not_sent():
    wish = np.array([np.nan, 0.0, 0.0])
    assert not guard.nearest(guarded()[0], 0, wish, 0.01)
    assert wish.tolist() == [0.0, 0.0, 0.0]


@pytest.mark.parametrize("rate", [100.0, 1000.0])
def test_a_step_is_reached_without_more_than_a_ripple(rate):
    state = guarded(StopPlan.of(0.1, 0.02, 1.5 / rate))[0]
    h = state["h"] = 1.0 / rate
    wish = np.array([0.2, 0.0, 0.0])
    fastest = 0.0
    for _ in range(round(0.3 * rate)):
        sent = wish.copy()
        _approach(state, 0, sent)
        new = guard.nearest(state, 0, sent, h)
        guard.send(state, 0, sent, h, new)
        fastest = max(fastest, sent[0])
    assert state["guard_velocity"][0] == pytest.approx(wish, abs=1e-9)
    assert fastest <= 0.2 + 2.0 * JERK * h * h


def set_going(rng, state, part):
    """Drive to somewhere by a new plan; return what was sent last, and its acceleration."""
    held, wish = Held(), any_wish(rng)
    new = False
    while not (new and held.velocity.any()):
        for _ in range(rng.integers(1, 40)):
            sent, h = wish.copy(), any_tick(rng)
            new = guard.nearest(state, part, sent, h)
            guard.send(state, part, sent, h, new)
            held.take(sent, h)
        wish = any_wish(rng)
    return held


@pytest.mark.parametrize("part", PARTS)
@pytest.mark.parametrize("lowered", [1.0, 0.9])
def test_a_plan_of_the_callers_is_followed_to_its_end(part, lowered):
    """Sampled at any ticks its points are sent as they are, also where V is lowered on the way."""
    for seed in range(60):
        rng = np.random.default_rng(seed)
        record = guarded(part=part)
        state = record[0]
        held = set_going(rng, state, part)
        start, change, since = held.velocity, held.acceleration, 0.0
        guard.tighten(record, part, lowered * SPEED, ACCELERATION, JERK)
        while since < PLAN.time:
            h = any_tick(rng)
            since += h
            p, r = PLAN.velocity(since)
            planned = p * start + r * change
            sent = planned.copy()
            guard.follow(state, part, sent, h, max(0.0, PLAN.ramp - since))
            assert sent == pytest.approx(planned, abs=1e-12)
            held.take(sent, h)
        assert not state["guard_velocity"][part].any()


@pytest.mark.parametrize("part", PARTS)
def test_a_lowered_speed_holds_once_the_plan_before_is_over(part):
    """Whatever is asked for meanwhile: the plan that goes on is one of the speed before."""
    for seed in range(60):
        rng = np.random.default_rng(seed)
        record = guarded(part=part)
        state = record[0]
        held = set_going(rng, state, part)
        guard.tighten(record, part, 0.2 * SPEED, ACCELERATION, JERK)
        over = 0.0
        for _ in range(400):
            sent, h = any_wish(rng), any_tick(rng)
            if rng.random() < 0.5:
                guard.follow(state, part, sent, h, 0.0)
            else:
                new = guard.nearest(state, part, sent, h)
                guard.send(state, part, sent, h, new)
            over += h
            held.take(sent, h, SPEED if over < PLAN.time + PLAN.tick else 0.2 * SPEED)
        assert state["guard_kept_speed"][part] == pytest.approx(0.2 * SPEED)


def test_at_rest_a_lowered_speed_holds_at_once():
    record = guarded()
    guard.tighten(record, 0, 0.1, ACCELERATION, JERK)
    assert record[0]["guard_kept_speed"][0] == 0.1
