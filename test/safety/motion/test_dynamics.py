"""The compiled dynamics are Pinocchio's, on every arm that is shipped and one with slides."""

from dataclasses import replace

import numpy as np
import pinocchio as pin
import pytest
from arm_weight import mounted
from safety.motion.test_chain import Arm

from vla_ros import robots
from vla_ros.safety.motion import chain, dynamics
from vla_ros.safety.motion.model import ArmModel


@pytest.fixture(params=["panda", "ur5e", "so101", "sliding"], scope="module")
def arm(request):
    return Arm(request.param)


def frames(arm, q):
    turns, places = np.full((8, 3, 3), np.nan), np.full((8, 3), np.nan)
    chain.set_frames(arm.model.links, q, turns, places)
    return turns, places


def test_the_torques_of_a_motion_are_pinocchios(arm):
    for q, u in zip(arm.postures, arm.velocities, strict=True):
        a, out = 3.0 * arm.rng.normal(size=arm.n), np.full(8, np.nan)
        dynamics.torque(arm.model.links, *frames(arm, q), u, a, out)
        assert out[: arm.n] == pytest.approx(arm.model.torque(q, u, a), rel=1e-10, abs=1e-10)


def test_a_base_that_is_mounted_otherwise_is_pulled_down_all_the_same():
    """Of a description whose root is the room, as of an arm on a wall."""
    upright = Arm("ur5e")
    bounds = replace(upright.robot.bounds, payload_mass=0.0)
    robot = replace(upright.robot, bounds=bounds)
    urdf = mounted(robots.urdf("ur5e"), robot.base_frame)
    links = ArmModel(robot, urdf).links
    full = pin.buildModelFromXML(urdf)
    data = full.createData()
    for q, u in zip(upright.postures, upright.velocities, strict=True):
        a, out = 3.0 * upright.rng.normal(size=6), np.full(8, np.nan)
        dynamics.torque(links, *frames(upright, q), u, a, out)
        assert out[:6] == pytest.approx(pin.rnea(full, data, q, u, a), rel=1e-6, abs=1e-6)


def test_the_inertia_is_pinocchios(arm):
    for q in arm.postures:
        out = np.full((8, 8), np.nan)
        dynamics.mass(arm.model.links, *frames(arm, q), out)
        mass = np.triu(arm.model.mass(q))
        expected = mass + np.triu(mass, 1).T
        assert out[: arm.n, : arm.n] == pytest.approx(expected, rel=1e-10, abs=1e-10)
