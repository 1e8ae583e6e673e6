"""The predictor: its error bound holds for any delay, noise and motion, and is small."""

import numpy as np
import pytest
from safety.motion.records import record_at_rest

from vla_ros.safety.motion import predictor

PERIOD, DELAY, ERROR = 0.01, 0.05, 0.002
AGE = 0.1


class Followed:
    """An arm of two joints, followed in a record."""

    def __init__(self):
        self.record = record_at_rest(2)
        self.state = self.record[0]
        self.state["period"], self.state["delay"] = PERIOD, DELAY
        self.state["sensor_error"] = ERROR
        self.ring = np.zeros((predictor.ring_size(DELAY, AGE, PERIOD), 3))

    def advance(self, h, velocity):
        self.state["velocity"][:2] = velocity
        predictor.advance(self.state, self.ring, h)

    def correct(self, measured, age=0.0, h=PERIOD):
        self.state["seen"][:2] = measured
        predictor.correct(self.state, self.ring, age, h)

    @property
    def position(self):
        return self.state["position"][:2]

    @property
    def error(self):
        return self.state["error"][:2]


def drive(rng, delay, *, jitter=0.0, age=0.0, loses=False, ticks=600):
    """Move a robot that is `delay` s behind; yield what follows it and where it comes to.

    It is measured `age` s before each tick. Where it `loses` time, it sometimes goes on with what
    it was sent for up to a period that nobody counted.
    """
    followed = Followed()
    start = rng.uniform(-1.0, 1.0, 2)
    times, places, velocities = [0.0], [start.copy()], []
    velocity = np.zeros(2)
    lie = rng.uniform(-ERROR, ERROR, 2)
    uncounted = 0.0
    for tick in range(ticks):
        if tick:
            h = PERIOD * (1.0 + jitter * rng.uniform(-0.7, 0.5))
            followed.advance(h, velocity)
            if loses and rng.random() < 0.05:
                predictor.lose_time(followed.record)
                uncounted = rng.uniform(0.0, PERIOD)
            h += uncounted
            uncounted = 0.0
            velocities.append(velocity)
            places.append(places[-1] + h * velocity)
            times.append(times[-1] + h)
        then = times[-1] - age - delay
        at = max(int(np.searchsorted(times, then, side="right")) - 1, 0)
        where = places[at]
        if then > 0.0 and at < len(velocities):
            where = where + (then - times[at]) * velocities[at]
        noise = lie if tick % 200 < 100 else rng.uniform(-ERROR, ERROR, 2)
        followed.correct(where + noise, age)
        yield followed, places[-1]
        if tick % 20 == 0:
            velocity = rng.uniform(-1.0, 1.0, 2) * rng.choice([0.0, 0.3, 1.0])
        else:
            velocity = velocity + rng.uniform(-0.1, 0.1, 2)


@pytest.mark.parametrize("delay", [0.0, 0.013, 0.05])
@pytest.mark.parametrize("jitter", [0.0, 1.0])
def test_the_place_is_within_the_error(delay, jitter):
    rng = np.random.default_rng([int(1e3 * delay), int(jitter)])
    for followed, place in drive(rng, delay, jitter=jitter):
        assert (np.abs(followed.position - place) <= followed.error + 1e-12).all()
        assert followed.state["error_size"] == pytest.approx(np.linalg.norm(followed.error))


@pytest.mark.parametrize("delay", [0.0, 0.05])
@pytest.mark.parametrize("age", [0.0, 0.023])
def test_even_ticks_leave_the_sensors_error_alone(delay, age):
    for followed, place in drive(np.random.default_rng(1), delay, age=age):
        assert (followed.error <= 2.0 * ERROR + 1e-12).all()
        assert (np.abs(followed.position - place) <= followed.error + 1e-12).all()


def test_a_robot_that_was_moved_is_found_again_at_rest():
    followed = Followed()
    followed.correct(np.zeros(2))
    moved = np.array([0.3, -0.2])
    for tick in range(20):
        followed.advance(PERIOD, np.zeros(2))
        followed.correct(moved + 1e-6 * tick)
    assert followed.position == pytest.approx(moved, abs=2.0 * ERROR)
    assert (followed.error <= 2.0 * ERROR).all()


def test_a_sample_that_is_seen_twice_says_nothing_new():
    followed = Followed()
    still = np.array([0.1, 0.2])
    followed.correct(still)
    for _ in range(30):
        followed.advance(PERIOD, np.ones(2))
        followed.correct(still)
    assert followed.position == pytest.approx(still + 0.3)


def test_a_first_sample_at_zero_is_one():
    """Nothing measured yet is not the same as measured at 0, where the record begins."""
    followed = Followed()
    assert not followed.state["known"]
    followed.correct(np.zeros(2))
    assert followed.state["known"]
    assert followed.error == pytest.approx([ERROR, ERROR])


def test_time_that_nobody_counted_widens_the_error_by_a_period_of_motion():
    followed = Followed()
    velocity = np.array([0.4, -0.1])
    followed.correct(np.zeros(2))
    for tick in range(1, 40):
        followed.advance(PERIOD, velocity)
        followed.correct(tick * PERIOD * velocity)
    before = followed.error.copy()
    predictor.lose_time(followed.record)
    followed.advance(PERIOD, velocity)
    followed.correct(40 * PERIOD * velocity)
    most = before + np.abs(velocity) * PERIOD
    assert (followed.error > before + 0.5 * np.abs(velocity) * PERIOD).all()
    assert (followed.error <= most + 1e-12).all()


def test_where_time_is_lost_the_place_is_within_the_error():
    """Seen at once; a robot that is late shows what it did in that time only later."""
    for followed, place in drive(np.random.default_rng(3), 0.0, loses=True):
        assert (np.abs(followed.position - place) <= followed.error + 1e-12).all()
