"""The motion limiter against an adversary, with checks of its own: finite differences, no model."""

import math
from dataclasses import replace

import numpy as np
import pytest

from vla_ros import robots
from vla_ros.kinematics import rotation_from_rotvec
from vla_ros.paths import share
from vla_ros.robot import RobotConfig
from vla_ros.safety.motion import JointVelocityTarget, MotionLimiter, PoseTarget, TwistTarget
from vla_ros.volumes import TCP_POINT, Box, Capsule, Sphere

PERIOD = 0.01
HOMES = {
    "panda": [0.0, 0.15, 0.0, -2.2, 0.0, 2.35, 0.785],
    "ur5e": [0.0, -1.4, 1.9, -2.0, -1.57, 0.0],
    "so101": [0.0, -0.4, 0.6, 0.9, 0.0],
}
NEAR_THE_BASE = [-0.12, 0.06, -0.15, -2.7, 0.02, 2.76, 0.45]
"""The TCP of the Panda at 0.39, -0.11, 0.11 m, the hand down."""
OUTPUTS = ("twist", "joint_velocity")


def robot(name):
    return RobotConfig.load(share() / "config" / "robots" / f"{name}.yaml")


class Plant:
    """An arm that does what it is sent, `late` ticks later, measured with an error."""

    def __init__(self, name, output, *, late=0, config=None, rate=1.0 / PERIOD):
        self.config = config or robot(name)
        self.chain = self.config.chain(robots.urdf(name))
        self.limiter = MotionLimiter(self.config, robots.urdf(name), rate, output=output)
        self.output, self.late = output, late
        self.path = [np.array(HOMES[name])]
        self.rng = np.random.default_rng(late)
        self.lie = self.rng.choice([-1.0, 1.0], len(HOMES[name]))

    def step(self, target, h=PERIOD, *, known=True):
        error = self.config.bounds.joint_position_error
        seen = self.path[max(0, len(self.path) - 1 - self.late)] + error * self.lie
        motion = self.limiter.step(h, target, seen.tolist() if known else None, 0.0)
        velocity = motion.joint_velocity
        if self.output == "twist":
            twist = motion.twist
            velocity = np.linalg.pinv(self.chain.jacobian(self.path[-1])) @ twist
        self.velocity = velocity
        self.path.append(self.path[-1] + h * velocity)
        return motion

    @property
    def place(self):
        return self.chain.pose(self.path[-1])[0]


@pytest.mark.parametrize("output", OUTPUTS)
@pytest.mark.parametrize("name", HOMES)
def test_saturated_steps_keep_every_bound(name, output):
    plant = Plant(name, output, late=3)
    bounds, rng = plant.config.bounds, np.random.default_rng(4)
    low, high = np.array(bounds.workspace_min), np.array(bounds.workspace_max)
    inside_once = False
    target = None
    before = np.zeros(len(HOMES[name]))
    moved = 0.0
    for tick in range(1200):
        if tick % 25 == 0:
            wish = rng.choice([-1.0, -0.3, 0.0, 0.3, 1.0], 6) * ([1.0] * 3 + [4.0] * 3)
            target = TwistTarget(tuple(wish[:3]), tuple(wish[3:]))
            if rng.random() < 0.3:
                speeds = 3.0 * rng.uniform(-1.0, 1.0, len(before)) * bounds.joint_speed
                target = JointVelocityTarget(tuple(speeds))
            if rng.random() < 0.1:
                target = None
        motion = plant.step(target)
        share = 1.02 if output == "twist" else 1.0 + 1e-9
        assert np.linalg.norm(motion.twist[:3]) <= bounds.linear_speed * (1.0 + 1e-9)
        assert np.linalg.norm(motion.twist[3:]) <= bounds.angular_speed * (1.0 + 1e-9)
        assert (np.abs(plant.velocity) <= share * np.array(bounds.joint_speed)).all()
        change = np.abs(plant.velocity - before) / PERIOD
        assert (change <= share * np.array(bounds.joint_acceleration)).all()
        before = plant.velocity
        moved += float(np.abs(before).sum()) * PERIOD
        position = plant.path[-1]
        error = bounds.joint_position_error
        assert (position >= np.array(bounds.joint_position_min) - error).all()
        assert (position <= np.array(bounds.joint_position_max) + error).all()
        inside = bool(((plant.place >= low) & (plant.place <= high)).all())
        assert inside or not inside_once
        inside_once |= inside
    assert moved > 0.5


@pytest.mark.parametrize("output", OUTPUTS)
@pytest.mark.parametrize("name", ["panda", "ur5e"])
def test_what_is_too_fast_for_a_joint_is_slowed_and_not_turned_aside(name, output):
    config = robot(name)
    slow = tuple(0.2 * speed for speed in config.bounds.joint_speed)
    config = replace(config, bounds=replace(config.bounds, joint_speed=slow))
    rng = np.random.default_rng(8)
    for _ in range(12):
        plant = Plant(name, output, config=config)
        wish = rng.normal(size=6)
        wish[:3] *= 0.5 * config.bounds.linear_speed / np.linalg.norm(wish[:3])
        wish[3:] *= 0.5 * config.bounds.angular_speed / np.linalg.norm(wish[3:])
        motions = [plant.step(TwistTarget(tuple(wish[:3]), tuple(wish[3:]))) for _ in range(30)]
        sent = np.array(motions[-1].twist)
        along = wish / np.linalg.norm(wish)
        aside = np.linalg.norm(sent - (sent @ along) * along)
        assert aside < 0.01 * np.linalg.norm(sent)
        shares = np.abs(plant.velocity) / slow
        assert 0.9 < shares.max() < 1.0
        joint = config.joints[int(shares.argmax())]
        assert f"joint_speed.{joint}" in motions[-1].acting


def test_coming_down_near_the_base_is_slowed_and_not_turned_aside():
    # There the Panda's second joint is the slowest for the motion, by what it can brake from.
    plant = Plant("panda", "twist")
    plant.path = [np.array(NEAR_THE_BASE)]
    wish = np.array([-0.032, -0.023, -0.262])
    for _ in range(25):
        motion = plant.step(TwistTarget(tuple(wish), (0.0, 0.0, 0.0)))
    sent = np.array(motion.twist[:3])
    along = wish / np.linalg.norm(wish)
    assert np.linalg.norm(sent - (sent @ along) * along) < 0.02 * np.linalg.norm(sent)
    assert 0.15 < sent @ along < 0.25
    assert "joint_speed.panda_joint2" in motion.acting


@pytest.mark.parametrize("output", OUTPUTS)
@pytest.mark.parametrize("late", [0, 5])
def test_targets_inside_all_bounds_pass_unchanged(output, late):
    plant = Plant("panda", output, late=late)
    for tick in range(300):
        t = tick * PERIOD
        ease = min(1.0, t) ** 2
        linear = (0.08 * ease * math.sin(3.0 * t), 0.08 * ease * math.sin(2.0 * t), 0.0)
        angular = (0.0, 0.0, 0.2 * ease * math.sin(t))
        motion = plant.step(TwistTarget(linear, angular))
        assert motion.twist[:3] == pytest.approx(linear, rel=1e-6, abs=1e-9)
        assert motion.twist[3:] == pytest.approx(angular, rel=1e-6, abs=1e-9)
        assert motion.acting == {}


@pytest.mark.parametrize("output", OUTPUTS)
@pytest.mark.parametrize("why", ["no target", "no position"])
def test_without_target_or_position_it_rests_within_the_stopping_time(output, why):
    plant = Plant("panda", output)
    target = TwistTarget((0.2, 0.0, 0.1), (0.0, 0.5, 0.0))
    for _ in range(60):
        motion = plant.step(target)
    assert not motion.at_rest
    ticks = math.ceil(plant.config.bounds.stopping_time / PERIOD - 1e-9) + 1
    for _ in range(ticks):
        motion = plant.step(None) if why == "no target" else plant.step(target, known=False)
    assert motion.at_rest
    assert not motion.twist.any()


@pytest.mark.parametrize("output", OUTPUTS)
def test_time_that_stands_still_repeats_the_last_motion(output):
    plant = Plant("panda", output)
    target = TwistTarget((0.2, 0.0, 0.0), (0.0, 0.0, 0.0))
    for _ in range(20):
        last = plant.step(target)
    for h in (0.0, -1.0, float("nan")):
        again = plant.limiter.step(h, target, plant.path[-1].tolist(), 0.0)
        assert np.array_equal(again.twist, last.twist)
        assert np.array_equal(again.joint_velocity, last.joint_velocity)


@pytest.mark.parametrize("output", OUTPUTS)
def test_it_comes_to_a_pose_and_rests_there(output):
    plant = Plant("panda", output)
    plant.lie = 0.0 * plant.lie
    place, rotation = plant.chain.pose(plant.path[0])
    goal = place + np.array([-0.05, 0.1, 0.05])
    turned = rotation_from_rotvec(np.array([0.0, 0.0, 0.3])) @ rotation
    x, y, z, w = _quaternion(turned)
    for _ in range(250):
        plant.step(PoseTarget(tuple(goal), (x, y, z, w)))
    end, orientation = plant.chain.pose(plant.path[-1])
    assert end == pytest.approx(goal, abs=2e-4)
    assert orientation == pytest.approx(turned, abs=2e-3)


def _quaternion(rotation):
    from vla_ros.kinematics import quaternion_from_rotation

    return quaternion_from_rotation(rotation).tolist()


@pytest.mark.parametrize("output", OUTPUTS)
def test_outside_it_goes_back_in_and_not_further_out(output):
    config = robot("panda")
    low = (config.bounds.workspace_min[0], config.bounds.workspace_min[1], 0.25)
    config = replace(config, bounds=replace(config.bounds, workspace_min=low))
    plant = Plant("panda", output, config=config)
    start = plant.place[2]
    assert start < 0.25
    for _ in range(50):
        motion = plant.step(TwistTarget((0.0, 0.0, -0.2), (0.0, 0.0, 0.0)))
    assert plant.place[2] >= start - 1e-4
    assert "workspace_min.z" in motion.acting
    for _ in range(50):
        plant.step(TwistTarget((0.0, 0.0, 0.2), (0.0, 0.0, 0.0)))
    assert plant.place[2] > 0.25


@pytest.mark.parametrize("output", OUTPUTS)
@pytest.mark.parametrize(
    "volume",
    [
        Box("thing", (0.55, 0.25, 0.25), (0.0, 0.0, 0.4), (0.2, 0.1, 0.6)),
        Sphere("thing", (0.55, 0.25, 0.25), 0.1),
        Capsule("thing", (0.4, 0.25, 0.25), (0.7, 0.25, 0.25), 0.05),
    ],
)
def test_keep_out_volumes_are_not_entered_and_are_named(output, volume):
    config = robot("panda")
    config = replace(
        config, bounds=replace(config.bounds, keep_out=(volume,), keep_out_points=(TCP_POINT,))
    )
    plant = Plant("panda", output, config=config, late=2)
    least, named = math.inf, False
    for tick in range(500):
        side = 0.05 * math.sin(0.02 * tick)
        motion = plant.step(TwistTarget((side, 0.3, side), (0.0, 0.0, 0.0)))
        least = min(least, float(volume.distance(plant.place[None])[0]))
        named |= "keep_out.thing" in motion.acting
    assert named
    assert 0.0 < least < 0.02


def test_tighter_bounds_hold_once_the_present_plan_is_over():
    plant = Plant("panda", "twist")
    target = TwistTarget((0.25, 0.0, 0.0), (0.0, 0.0, 0.0))
    for _ in range(30):
        plant.step(target)
    slow = replace(plant.config, bounds=replace(plant.config.bounds, linear_speed=0.1))
    plant.limiter.tighten(slow)
    speeds = [np.linalg.norm(plant.step(target).twist[:3]) for _ in range(60)]
    assert max(speeds[12:]) <= 0.1 + 1e-9
    assert speeds[-1] == pytest.approx(0.1, rel=1e-2)


def test_margins_are_what_is_left():
    plant = Plant("panda", "twist")
    for _ in range(40):
        motion = plant.step(TwistTarget((0.1, 0.0, 0.0), (0.0, 0.0, 0.0)))
    bounds, place = plant.config.bounds, plant.place
    faces = np.concatenate([place - bounds.workspace_min, np.array(bounds.workspace_max) - place])
    assert motion.margins["linear_speed"] == pytest.approx(bounds.linear_speed - 0.1)
    assert motion.margins["workspace"] == pytest.approx(faces.min(), abs=5e-3)
    assert motion.margins["singularity_distance"] > 0.0
