"""The compiled dynamics are Pinocchio's, on every arm that is shipped and one with slides."""

import numpy as np
import pytest
from safety.motion.test_chain import Arm

from vla_ros.safety.motion import dynamics


@pytest.fixture(params=["panda", "ur5e", "so101", "sliding"], scope="module")
def arm(request):
    return Arm(request.param)


def frames(arm, q):
    turns, places = np.full((8, 3, 3), np.nan), np.full((8, 3), np.nan)
    dynamics.set_frames(arm.model.links, q, turns, places)
    return turns, places


def test_the_torques_of_a_motion_are_pinocchios(arm):
    for q, u in zip(arm.postures, arm.velocities, strict=True):
        a, out = 3.0 * arm.rng.normal(size=arm.n), np.full(8, np.nan)
        dynamics.torque(arm.model.links, *frames(arm, q), u, a, out)
        assert out[: arm.n] == pytest.approx(arm.model.torque(q, u, a), rel=1e-10, abs=1e-10)


def test_the_inertia_is_pinocchios(arm):
    for q in arm.postures:
        out = np.full((8, 8), np.nan)
        dynamics.mass(arm.model.links, *frames(arm, q), out)
        mass = np.triu(arm.model.mass(q))
        expected = mass + np.triu(mass, 1).T
        assert out[: arm.n, : arm.n] == pytest.approx(expected, rel=1e-10, abs=1e-10)
