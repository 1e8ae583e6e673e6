"""External torque from measured efforts: what a push makes of it, and what noise does not.

The arm is integrated with the articulated-body algorithm, which the observer does not use, under a
controller that moves it, and torques from outside.
"""

from dataclasses import replace

import numpy as np
import pinocchio as pin
import pytest
from arm_weight import Weight

from vla_ros.safety.contact import ContactWatch
from vla_ros.safety.inputs import AcceptedJoints
from vla_ros.safety.motion.model import ArmModel
from vla_ros.safety.observer import MomentumObserver

STEP_S = 0.001
TIME = 0.03
NOISE = (1e-4, 5e-3, 0.5)
"""Standard deviations of position (rad), velocity (rad/s) and effort (Nm)."""


class Arm:
    """The Panda under a stiff controller that moves it on sine waves, sampled at 100 Hz."""

    def __init__(self, robot, urdf):
        full = pin.buildModelFromXML(urdf)
        fingers = [full.getJointId(name) for name in robot.gripper_joints]
        self.model = pin.buildReducedModel(full, fingers, pin.neutral(full))
        self.data = self.model.createData()
        self.tcp = self.model.getFrameId(robot.tcp_frame)
        self.home = np.array([0.0, -0.1, 0.0, -2.2, 0.0, 2.1, 0.785])
        self.q, self.v = self.home.copy(), np.zeros(7)
        self.seconds = 0.0
        self.external = np.zeros(7)
        self.force = np.zeros(3)
        self.effort = np.zeros(7)

    def run(self, seconds):
        """Yield (stamp_ns, position, velocity, effort) every 10 ms."""
        for i in range(round(seconds / STEP_S)):
            goal = self.home + 0.2 * np.sin(2.0 * self.seconds + np.arange(7))
            speed = 0.4 * np.cos(2.0 * self.seconds + np.arange(7))
            wish = 400.0 * (goal - self.q) + 40.0 * (speed - self.v)
            self.effort = pin.rnea(self.model, self.data, self.q, self.v, wish)
            torque = self.effort + self.external
            if self.force.any():
                world = pin.ReferenceFrame.LOCAL_WORLD_ALIGNED
                jacobian = pin.computeFrameJacobian(self.model, self.data, self.q, self.tcp, world)
                torque = torque + jacobian[:3].T @ self.force
            acceleration = pin.aba(self.model, self.data, self.q, self.v, torque)
            self.v = self.v + STEP_S * acceleration
            self.q = self.q + STEP_S * self.v
            self.seconds += STEP_S
            if i % 10 == 9:
                yield round(self.seconds * 1e9), self.q.copy(), self.v.copy(), self.effort.copy()


@pytest.fixture
def arm(robot, urdf):
    return Arm(robot, urdf)


@pytest.fixture
def light(robot):
    """The Panda without a payload, which the arm of these tests does not carry."""
    return replace(robot, bounds=replace(robot.bounds, payload_mass=0.0))


@pytest.fixture
def observer(light, urdf):
    return MomentumObserver(ArmModel(light, urdf).links, TIME)


def test_nothing_is_seen_where_nothing_pushes(arm, observer):
    worst = 0.0
    for sample in arm.run(3.0):
        observer.add(*sample)
        # The first sample starts the controller with a jerk.
        if sample[0] > 0.2e9:
            worst = max(worst, np.abs(observer.torque).max())
    assert worst < 0.5


def test_a_constant_torque_is_found_after_a_few_time_constants(arm, observer):
    for sample in arm.run(1.0):
        observer.add(*sample)
    arm.external = np.array([0.0, 12.0, 0.0, -8.0, 0.0, 3.0, 0.0])
    found = []
    for sample in arm.run(0.5):
        observer.add(*sample)
        found.append(observer.torque.copy())
    assert np.allclose(found[-1], arm.external, atol=0.6)
    # The first-order filter: 1 - 1/e of it after one time constant.
    assert 0.4 * 12.0 < found[2][1] < 0.8 * 12.0


def test_a_force_at_the_tcp_is_found(arm, observer):
    arm.force = np.array([0.0, 30.0, 40.0])
    for sample in arm.run(1.0):
        observer.add(*sample)
    assert observer.contact_force() == pytest.approx(50.0, rel=0.05)


@pytest.mark.parametrize("gap", [-10_000_000, 0, 500_000_000])
def test_after_a_gap_or_a_step_back_it_starts_anew(arm, observer, gap):
    arm.external = np.full(7, 5.0)
    for sample in arm.run(0.5):
        observer.add(*sample)
    assert np.abs(observer.torque).max() > 3.0
    stamp, *rest = sample
    observer.add(stamp + gap, *rest)
    assert not observer.torque.any()


def watch(robot, urdf, samples, rng=None):
    """Return the least margins that a watch on the Panda has seen, and the first touch."""
    watched, least, touch = ContactWatch(robot, ArmModel(robot, urdf).links), {}, ""
    scale = 0.0 if rng is None else 1.0
    rng = rng or np.random.default_rng()
    for stamp, *measured in samples:
        noisy = [m + rng.normal(0.0, scale * s, 7) for m, s in zip(measured, NOISE, strict=True)]
        watched.add(AcceptedJoints(stamp, *noisy, gripper=None, gripper_effort=None))
        touch = touch or watched.touch
        least = {k: min(v, least.get(k, v)) for k, v in watched.margins.items()}
    return least, touch


def test_noise_of_the_sensors_does_not_trip(light, urdf, arm):
    list(arm.run(0.2))
    least, touch = watch(light, urdf, arm.run(20.0), np.random.default_rng(0))
    assert touch == ""
    assert least["external_torque"] > 0.5 * min(light.bounds.external_torque)
    assert least["contact_force"] > 0.3 * light.bounds.contact_force


def test_a_push_trips_within_a_tenth_of_a_second(light, urdf, arm):
    list(arm.run(0.5))
    arm.force = np.array([0.0, 2.0 * light.bounds.contact_force, 0.0])
    # The torques' own bounds wide: the force alone is what trips.
    loose = replace(light, bounds=replace(light.bounds, external_torque=(1e3,) * 7))
    least, touch = watch(loose, urdf, arm.run(0.1), np.random.default_rng(1))
    assert "the TCP is pushed with" in touch
    assert least["contact_force"] < 0.0


def test_a_payload_counts_as_the_arm_s_own_weight(robot, urdf):
    heavy = replace(robot, bounds=replace(robot.bounds, payload_mass=2.0))
    position = np.array([0.0, -0.1, 0.0, -2.2, 0.0, 2.1, 0.785])
    held = Weight(heavy, urdf).at(position)
    samples = [(i * 10**7, position, np.zeros(7), held) for i in range(1, 50)]
    least, touch = watch(heavy, urdf, samples)
    assert touch == ""
    # Fingers are part of the hand; where they are moves its weight by little.
    assert least["contact_force"] > heavy.bounds.contact_force - 2.0
