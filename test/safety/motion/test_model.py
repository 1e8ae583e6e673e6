"""The model: the same arm as by finite differences; wrong descriptions are refused."""

import re

import numpy as np
import pytest
from safety.motion.records import move, record_of

from vla_ros import robots
from vla_ros.kinematics import KinematicsError
from vla_ros.paths import share
from vla_ros.robot import RobotConfig
from vla_ros.safety.motion import singular
from vla_ros.safety.motion.model import ArmModel

STEP = 1e-6


def robot(name):
    return RobotConfig.load(share() / "config" / "robots" / f"{name}.yaml")


@pytest.fixture(params=["panda", "ur5e", "so101"])
def arm(request):
    config = robot(request.param)
    urdf = robots.urdf(request.param)
    model = ArmModel(config, urdf)
    rng = np.random.default_rng(5)
    low, high = config.bounds.joint_position_min, config.bounds.joint_position_max
    return model, config.chain(urdf), rng.uniform(low, high), rng.normal(size=model.joints)


def config_of(model):
    return robot({7: "panda", 6: "ur5e", 5: "so101"}[model.joints])


def test_kinematics_are_those_of_the_chain(arm):
    """Of Pinocchio's here, and of the compiled ones in test_chain."""
    model, chain, q, _ = arm
    assert model.jacobian(q) == pytest.approx(chain.jacobian(q), abs=1e-9)


def test_singular_values_change_by_their_slope(arm):
    """The two least, each against numpy's; what the record holds is how they fall."""
    model, chain, q, u = arm
    config = config_of(model)
    record = record_of(config, model, q)
    state = record[0]
    state["error_size"] = 0.01
    singular.work_out(state)
    weights = np.repeat([1.0 / config.bounds.characteristic_length, 1.0], 3)[:, None]

    def values(position):
        return np.linalg.svd(weights * chain.jacobian(position), compute_uv=False)[::-1][:2]

    slopes = state["singular_slopes"][:, : model.joints] @ u
    change = (values(q + STEP * u) - values(q - STEP * u)) / (2.0 * STEP)
    assert -slopes == pytest.approx(change, abs=1e-5)
    bound = config.bounds.singularity_distance + model.study.turning * 0.01
    assert state["singular_rooms"] == pytest.approx(values(q) - bound, abs=1e-9)
    assert state["singular_value"] == pytest.approx(values(q)[0], abs=1e-9)
    assert singular.smallest(state, state["jacobian"]) == pytest.approx(values(q)[0], abs=1e-9)


def test_the_least_singular_value_is_never_under_what_is_taken_for_it(arm):
    """Tick by tick it is bounded from below, by the way since it was worked out and by P."""
    model, chain, _, _ = arm
    config = config_of(model)
    bounds = config.bounds
    rng = np.random.default_rng(6)
    weights = np.repeat([1.0 / bounds.characteristic_length, 1.0], 3)[:, None]
    q = rng.uniform(bounds.joint_position_min, bounds.joint_position_max)
    record = record_of(config, model, q)
    state = record[0]
    exact = 0
    for tick in range(300):
        if tick % 100 == 50:
            q = rng.uniform(bounds.joint_position_min, bounds.joint_position_max)
        q = q + 0.02 * rng.normal(size=model.joints)
        move(state, model, q)
        singular.begin(state)
        if tick % 20 == 0:
            singular.work_out(state)
        least = np.linalg.svd(weights * chain.jacobian(q), compute_uv=False)[-1]
        assert state["singular_value"] <= least + 1e-9
        exact += state["singular_value"] >= least - 1e-9
    assert 15 <= exact < 300


def gravity_torque(model, q):
    still = np.zeros(model.joints)
    return model.torque(q, still, still).copy()


def test_torque_is_affine_in_the_acceleration(arm):
    model, _, q, u = arm
    a = np.linspace(-1.0, 1.0, model.joints)
    mass, still = model.mass(q).copy(), np.zeros(model.joints)
    drift = model.torque(q, u, still).copy()
    assert mass == pytest.approx(mass.T, abs=1e-12)
    assert model.torque(q, u, a) == pytest.approx(mass @ a + drift, abs=1e-9)
    gravity = gravity_torque(model, q)
    # Coriolis and centrifugal torques take no power beyond what changes the kinetic energy.
    ahead, back = model.mass(q + STEP * u).copy(), model.mass(q - STEP * u).copy()
    power = u @ ((ahead - back) / (2.0 * STEP)) @ u / 2.0
    assert u @ (drift - gravity) == pytest.approx(power, abs=1e-6)


def test_gravity_and_inertia_change_by_no_more_than_stated(arm):
    model, _, _, _ = arm
    config = config_of(model)
    low = np.array(config.bounds.joint_position_min)
    high = np.array(config.bounds.joint_position_max)
    rng = np.random.default_rng(9)
    study = model.study
    for _ in range(200):
        q = rng.uniform(low, high)
        way = rng.normal(size=model.joints) * 1e-4
        drift, mass = gravity_torque(model, q), model.mass(q).copy()
        drift_change = np.abs(gravity_torque(model, q + way) - drift)
        assert (drift_change <= study.gravity @ np.abs(way) + 1e-9).all()
        a = rng.normal(size=model.joints)
        change = np.abs((model.mass(q + way) - mass) @ a)
        assert (change <= np.linalg.norm(a) * study.mass @ np.abs(way) + 1e-9).all()


def test_the_record_bounds_those_changes_for_motion_in_any_direction(arm):
    model, _, q, _ = arm
    n, study = model.joints, model.study
    state = record_of(config_of(model), model, q)[0]
    for way in np.random.default_rng(2).normal(size=(50, n)):
        size = np.linalg.norm(way)
        assert (study.gravity @ np.abs(way) <= state["drift_change"][:n] * size + 1e-9).all()
        assert (study.mass @ np.abs(way) <= state["mass_change"][:n] * size + 1e-9).all()
    assert (state["turning"], state["reach"]) == (study.turning, study.reach)
    assert tuple(state["sway"]) == study.sway


def test_other_joints_are_an_error():
    with pytest.raises(KinematicsError, match="panda_elbow"):
        ArmModel(robot("panda"), robots.urdf("panda").replace('"panda_joint4"', '"panda_elbow"'))


def test_links_without_mass_are_an_error():
    urdf = re.sub(r"<inertial>.*?</inertial>", "", robots.urdf("panda"), flags=re.DOTALL)
    with pytest.raises(KinematicsError, match="joint_torque"):
        ArmModel(robot("panda"), urdf)
