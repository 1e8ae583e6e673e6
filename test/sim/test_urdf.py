"""The URDF that the robot publishes is the robot that MuJoCo simulates."""

import numpy as np
import pytest

from vla_ros.kinematics import SerialChain
from vla_ros.sim.mujoco_gl import mujoco
from vla_ros.sim.panda import ARM_JOINTS, ASSETS, GRIPPER_JOINTS, PandaSim, urdf


@pytest.fixture(scope="module")
def chain():
    return SerialChain.from_urdf(urdf(), "panda_link0", "panda_hand_tcp", ARM_JOINTS)


@pytest.fixture(scope="module")
def arm():
    """MuJoCo's model of the arm alone: panda.xml without table and cubes."""
    return mujoco.MjModel.from_xml_path(str(ASSETS / "panda.xml"))


@pytest.fixture(scope="module")
def described():
    """The URDF, compiled by MuJoCo; link by link, since MuJoCo 3.3 fuses fixed links wrongly."""
    compiler = '<mujoco><compiler fusestatic="false"/></mujoco>'
    return mujoco.MjModel.from_xml_string(
        urdf().replace('<robot name="panda">', f'<robot name="panda">{compiler}')
    )


def configurations(model, count):
    rng = np.random.default_rng(0)
    low, high = model.jnt_range[:9].T
    return rng.uniform(low, high, (count, 9))


def test_forward_kinematics_and_jacobian_equal_mujocos(arm, chain):
    data = mujoco.MjData(arm)
    site = arm.site("tcp").id
    jacobian = np.zeros((6, arm.nv))
    for q in configurations(arm, 200):
        data.qpos[:] = q
        mujoco.mj_kinematics(arm, data)
        mujoco.mj_comPos(arm, data)
        mujoco.mj_jacSite(arm, data, jacobian[:3], jacobian[3:], site)
        place, rotation = chain.pose(q[:7])
        assert place == pytest.approx(data.site_xpos[site], abs=1e-6)
        assert rotation == pytest.approx(data.site_xmat[site].reshape(3, 3), abs=1e-6)
        assert chain.jacobian(q[:7]) == pytest.approx(jacobian[:, :7], abs=1e-6)


def test_tcp_pose_of_the_simulator_is_the_chains(chain):
    """While moving too: `tcp_pose` belongs to the same instant as `joint_sample`."""
    with PandaSim(cameras={}) as sim:
        sim.reset(2)
        for _ in range(20):
            sim.set_twist(np.array([0.2, 0.1, -0.1, 0.3, 0.2, 0.5]))
            sim.advance(0.01)
            place, rotation = chain.pose(sim.joint_sample(0).position)
            assert sim.tcp_pose()[0] == pytest.approx(place, abs=1e-6)
            assert sim.tcp_pose()[1] == pytest.approx(rotation, abs=1e-6)


def test_joints_links_and_ranges(arm, described):
    names = [described.joint(i).name for i in range(described.njnt)]
    assert names == [*ARM_JOINTS, *GRIPPER_JOINTS]
    assert described.jnt_range == pytest.approx(arm.jnt_range)
    assert described.jnt_actfrcrange[:7] == pytest.approx(arm.jnt_actfrcrange[:7])
    for link in ("panda_hand", "panda_hand_tcp", "panda_leftfinger", "panda_rightfinger"):
        assert f'<link name="{link}"' in urdf()


def test_masses_gravity_torques_and_inertia_agree(arm, described):
    assert described.body_subtreemass[0] == pytest.approx(arm.body_subtreemass[0])
    # What a URDF cannot say: reflected inertia of motors, and gravity compensation.
    arm.dof_armature[:] = 0.0
    described.dof_armature[:] = 0.0
    mine, theirs = mujoco.MjData(described), mujoco.MjData(arm)
    for q in configurations(arm, 50):
        inertias = []
        for model, data in ((described, mine), (arm, theirs)):
            data.qpos[:] = q
            data.qvel[:] = np.linspace(-1.0, 1.0, 9)
            mujoco.mj_forward(model, data)
            inertia = np.zeros((model.nv, model.nv))
            for column, axis in zip(inertia, np.eye(model.nv), strict=True):
                mujoco.mj_mulM(model, data, column, axis)
            inertias.append(inertia)
        assert mine.qfrc_bias == pytest.approx(theirs.qfrc_bias, abs=1e-4)
        assert inertias[0] == pytest.approx(inertias[1], abs=1e-5)
