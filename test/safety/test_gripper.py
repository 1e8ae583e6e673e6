"""The opening that is sent: within width, speed and force."""

import pytest

from vla_ros.safety.gripper import GripperLimiter


class Bench:
    """A limiter of the Panda's gripper, stepped by hand at 100 Hz."""

    def __init__(self, robot, measured=0.04):
        self.limiter = GripperLimiter(robot)
        self.acted = {}
        if measured is not None:
            self.limiter.start(measured)

    def step(self, wish=None, *, closing=0.0, follow=True, count=1, seconds=0.01):
        if wish is not None:
            self.limiter.wish = wish
        for _ in range(count):
            self.acted = {}
            self.limiter.step(seconds, follow=follow, closing=closing, act=self.act)
        return self.limiter.opening

    def act(self, name, amount):
        if amount > 1e-9:
            self.acted[name] = amount


@pytest.fixture
def bench(robot):
    return Bench(robot)


def test_nothing_is_sent_before_the_gripper_was_measured(robot):
    assert Bench(robot, measured=None).step(0.05) is None


def test_it_starts_where_it_is_and_stays_there_without_a_wish(bench):
    assert bench.step(count=10) == 0.04
    bench.limiter.start(0.01)
    assert bench.step() == 0.04


def test_it_opens_and_closes_at_its_speed(bench, robot):
    step = robot.bounds.gripper_speed * 0.01
    assert bench.step(0.08) == pytest.approx(0.04 + step)
    assert bench.acted["gripper_speed"] == pytest.approx(0.04 - step)
    assert bench.step(0.0) == pytest.approx(0.04)
    assert bench.step(0.0, count=100) == 0.0
    assert not bench.acted


def test_it_stays_within_its_range(bench):
    assert bench.step(1.0, count=100) == 0.08
    assert bench.acted == {"gripper_max": pytest.approx(0.92)}
    assert bench.step(-1.0, count=100) == 0.0
    assert bench.acted == {"gripper_min": 1.0}


def test_it_presses_no_harder_than_its_force_and_can_always_open(bench, robot):
    force = robot.bounds.gripper_force
    held = bench.step(0.0, count=5)
    assert bench.step(0.0, closing=force, count=20) == held
    assert bench.acted["gripper_force"] > 0.0
    assert bench.step(0.08, closing=force) > held
    assert bench.step(0.0, closing=0.9 * force, count=5) < held


def test_it_holds_where_it_may_not_follow(bench):
    bench.limiter.wish = 0.0
    assert bench.step(follow=False, count=10) == 0.04


def test_time_that_stands_still_moves_nothing(bench):
    assert bench.step(0.0, seconds=0.0) == 0.04


def test_a_tighter_range_is_gone_to_at_its_speed(bench, robot):
    bench.limiter.tighten(robot.tightened("gripper_max", 0.03))
    assert 0.03 < bench.step() < 0.04
    assert bench.step(count=100) == 0.03
