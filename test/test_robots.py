"""The descriptions of the robots: real figures, read alike by several libraries."""

import math
import xml.etree.ElementTree as ET
from pathlib import Path

import mujoco
import numpy as np
import pinocchio
import pytest

from vla_ros import robots
from vla_ros.robot import RobotConfig

FOLDER = Path(__file__).parents[1] / "config" / "robots"
NAMES = robots.names()
REST = {
    "panda": [0.0, 0.15, 0.0, -2.2, 0.0, 2.35, 0.785],
    "so101": [0.0, -0.5, 0.5, 1.2, 0.0],
    "ur5e": [0.0, -1.57, 1.9, -1.9, -1.57, 0.0],
}
"""A position over the middle of each table, tool down."""


def config(name: str) -> RobotConfig:
    return RobotConfig.load(FOLDER / f"{name}.yaml")


def pin_arm(name: str) -> tuple[pinocchio.Model, pinocchio.Data, int]:
    """Return the arm with its fingers fixed, and the TCP's frame."""
    robot = config(name)
    model = pinocchio.buildModelFromXML(robots.urdf(name))
    locked = [model.getJointId(j) for j in model.names[1:] if j not in robot.joints]
    if locked:
        model = pinocchio.buildReducedModel(model, locked, pinocchio.neutral(model))
    assert tuple(model.names[1:]) == robot.joints
    return model, model.createData(), model.getFrameId(robot.tcp_frame)


def test_there_is_a_description_of_every_robot_file_and_no_other():
    assert sorted(NAMES) == sorted(path.stem for path in FOLDER.glob("*.yaml"))
    with pytest.raises(ValueError, match="panda, so101, ur5e"):
        robots.urdf("../panda")


@pytest.mark.parametrize("name", NAMES)
def test_three_readers_agree_on_where_the_tcp_is(name):
    robot = config(name)
    arm, data, tcp = pin_arm(name)
    chain = robot.chain(robots.urdf(name))
    spec = mujoco.MjSpec.from_string(robots.urdf(name))
    spec.compiler.fusestatic = False  # The TCP is a link without mass, fixed to another.
    model = spec.compile()
    state = mujoco.MjData(model)
    places = [model.jnt_qposadr[model.joint(j).id] for j in robot.joints]
    rng = np.random.default_rng(0)
    for _ in range(50):
        q = rng.uniform(robot.bounds.joint_position_min, robot.bounds.joint_position_max)
        state.qpos[places] = q
        mujoco.mj_kinematics(model, state)
        pinocchio.framesForwardKinematics(arm, data, q)
        position, rotation = chain.pose(q)
        body = state.body(robot.tcp_frame)
        for found in (body.xpos, data.oMf[tcp].translation):
            assert found == pytest.approx(position, abs=1e-9)
        for found in (body.xmat.reshape(3, 3), data.oMf[tcp].rotation):
            assert found == pytest.approx(rotation, abs=1e-9)


@pytest.mark.parametrize("name", ["so101", "ur5e"])
def test_two_readers_agree_on_its_dynamics(name):
    """MuJoCo's inertias are those of Pinocchio: the mass matrix, and the torque against gravity."""
    robot = config(name)
    full = pinocchio.buildModelFromXML(robots.urdf(name))
    data = full.createData()
    model = mujoco.MjModel.from_xml_string(robots.urdf(name))
    state = mujoco.MjData(model)
    names = list(full.names[1:])
    order = [model.jnt_dofadr[model.joint(j).id] for j in names]
    q = np.random.default_rng(1).uniform(-1.0, 1.0, full.nq)
    state.qpos[order] = q
    mujoco.mj_forward(model, state)
    mass = np.zeros((model.nv, model.nv))
    for row, unit in zip(mass, np.eye(model.nv), strict=True):
        mujoco.mj_mulM(model, state, row, unit)
    expected = pinocchio.crba(full, data, q)
    expected = np.triu(expected) + np.triu(expected, 1).T
    assert mass[np.ix_(order, order)] == pytest.approx(expected, rel=1e-4, abs=1e-7)
    gravity = pinocchio.computeGeneralizedGravity(full, data, q)
    assert state.qfrc_bias[order] == pytest.approx(gravity, rel=1e-3, abs=1e-6)
    assert robot.joints == tuple(names[: len(robot.joints)])


def test_the_ur5e_is_where_its_makers_dh_table_puts_it():
    """Universal Robots, "DH parameters for calculations of kinematics and dynamics", UR5e."""
    a, d = [0.0, -0.425, -0.3922, 0.0, 0.0, 0.0], [0.1625, 0.0, 0.0, 0.1333, 0.0997, 0.0996]
    twist = [math.pi / 2, 0.0, 0.0, math.pi / 2, -math.pi / 2, 0.0]
    chain = config("ur5e").chain(robots.urdf("ur5e"))
    for q in np.random.default_rng(2).uniform(-3.0, 3.0, (20, 6)):
        pose = np.diag([-1.0, -1.0, 1.0, 1.0])  # from `base`, the maker's, to `base_link`
        for i in range(6):
            (c, s), (ca, sa) = [(math.cos(v), math.sin(v)) for v in (q[i], twist[i])]
            pose = pose @ [
                [c, -s * ca, s * sa, a[i] * c],
                [s, c * ca, -c * sa, a[i] * s],
                [0.0, sa, ca, d[i]],
                [0.0, 0.0, 0.0, 1.0],
            ]
        position, rotation = chain.pose(q)
        assert position == pytest.approx(pose[:3, 3], abs=1e-9)
        assert rotation == pytest.approx(pose[:3, :3], abs=1e-9)


@pytest.mark.parametrize("name", NAMES)
def test_the_bounds_ask_no_more_of_the_joints_than_the_description_allows(name):
    robot = config(name)
    bounds = robot.bounds
    limits = {
        node.get("name"): {key: float(value) for key, value in node.find("limit").items()}
        for node in ET.fromstring(robots.urdf(name)).findall("joint")
        if node.find("limit") is not None
    }
    for i, joint in enumerate(robot.joints):
        limit = limits[joint]
        assert limit["lower"] <= bounds.joint_position_min[i]
        assert limit["upper"] >= bounds.joint_position_max[i]
        assert limit["velocity"] >= bounds.joint_speed[i]
        assert limit["effort"] >= bounds.effort[i] >= bounds.joint_torque[i]


@pytest.mark.parametrize("name", NAMES)
def test_the_arm_can_work_over_the_middle_of_its_table(name):
    """A position of rest keeps every bound, with torque to spare for it and for a full start."""
    robot = config(name)
    bounds = robot.bounds
    arm, data, tcp = pin_arm(name)
    q = np.array(REST[name])
    assert (q > np.array(bounds.joint_position_min) + 0.2).all()
    assert (q < np.array(bounds.joint_position_max) - 0.2).all()
    pinocchio.framesForwardKinematics(arm, data, q)
    pose = data.oMf[tcp]
    room = bounds.tracking_error + bounds.stopping_distance
    assert (pose.translation > np.array(bounds.workspace_min) + room).all()
    assert (pose.translation < np.array(bounds.workspace_max) - room).all()
    for volume in bounds.workspace:
        for point in bounds.workspace_points:
            place = pose.act(np.array(point.position))[np.newaxis]
            assert volume.distance(place) + point.radius < -room
    for volume in bounds.keep_out:
        for point in bounds.keep_out_points:
            place = pose.act(np.array(point.position))[np.newaxis]
            assert volume.distance(place) - point.radius > room
    axis = pose.rotation @ np.array(bounds.tool_axis)
    assert math.acos(axis @ np.array(bounds.tool_cone_axis)) < bounds.tool_cone_angle - 0.3
    local = pinocchio.LOCAL_WORLD_ALIGNED
    jacobian = pinocchio.computeFrameJacobian(arm, data, q, tcp, local).copy()
    jacobian[:3] /= bounds.characteristic_length
    least = np.linalg.svd(jacobian, compute_uv=False)[-1]
    assert least > 2.0 * bounds.singularity_distance
    gravity = np.abs(pinocchio.computeGeneralizedGravity(arm, data, q))
    start = np.abs(np.diag(pinocchio.crba(arm, data, q))) * np.array(bounds.joint_acceleration)
    assert (gravity + start < np.array(bounds.joint_torque)).all()
