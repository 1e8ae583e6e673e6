"""The compiled kinematics: those of two other readers, and of finite differences."""

from dataclasses import replace

import numpy as np
import pytest
from safety.motion.records import move, record_of

from vla_ros import robots
from vla_ros.paths import share
from vla_ros.robot import RobotConfig
from vla_ros.safety.motion import chain
from vla_ros.safety.motion.model import ArmModel

STEP = 1e-6
POSTURES = 40
SLIDES = ("prismatic", "revolute", "prismatic", "revolute", "revolute", "prismatic", "revolute")
AXES = ("0 0 1", "0 1 0", "0.6 0 0.8", "1 0 0", "0.48 0.6 0.64", "0 -1 0", "0 0 1")


def sliding_urdf(robot):
    """Return the text of an arm of which some joints slide, along and about crooked axes."""
    links = [robot.base_frame, *(f"link{i}" for i in range(1, 8)), robot.tcp_frame]
    inertial = (
        '<inertial><mass value="1"/><inertia ixx=".1" iyy=".1" izz=".1" ixy="0" ixz="0" iyz="0"/>'
        "</inertial>"
    )
    parts = [f'<link name="{link}">{inertial}</link>' for link in links]
    for i, (name, kind, axis) in enumerate(zip(robot.joints, SLIDES, AXES, strict=True)):
        parts.append(
            f'<joint name="{name}" type="{kind}"><parent link="{links[i]}"/>'
            f'<child link="{links[i + 1]}"/><axis xyz="{axis}"/>'
            f'<origin xyz="{0.1 * i} -0.05 0.2" rpy="0.{i} -0.{i + 1} 0.{i + 2}"/>'
            '<limit lower="-3" upper="3" velocity="2" effort="80"/></joint>'
        )
    parts.append(
        f'<joint name="tcp" type="fixed"><parent link="link7"/><child link="{robot.tcp_frame}"/>'
        '<origin xyz="0.1 0.2 0.3" rpy="0.4 0.5 0.6"/></joint>'
    )
    return f'<robot name="sliding">{"".join(parts)}</robot>'


class Arm:
    """An arm at some postures, its model, another reader's chain, and a record."""

    def __init__(self, name):
        known = "panda" if name == "sliding" else name
        robot = RobotConfig.load(share() / "config" / "robots" / f"{known}.yaml")
        urdf = robots.urdf(known)
        if name == "sliding":
            urdf = sliding_urdf(robot)
            # A study of its own, which takes no description of the same name for another.
            robot = replace(robot, name=name)
        self.robot = robot
        self.model, self.other = ArmModel(robot, urdf), robot.chain(urdf)
        self.n = self.model.joints
        rng = np.random.default_rng(4)
        low, high = robot.bounds.joint_position_min, robot.bounds.joint_position_max
        self.postures = rng.uniform(low, high, (POSTURES, self.n))
        self.velocities = rng.normal(size=(POSTURES, self.n))
        self.rng = rng
        self.state = record_of(robot, self.model, self.postures[0])[0]

    def change(self, q, u):
        """Return dJ/dq u by the other reader."""
        ahead, back = self.other.jacobian(q + STEP * u), self.other.jacobian(q - STEP * u)
        return (ahead - back) / (2.0 * STEP)


@pytest.fixture(params=["panda", "ur5e", "so101", "sliding"], scope="module")
def arm(request):
    return Arm(request.param)


def test_the_jacobian_is_that_of_two_other_readers(arm):
    for q in arm.postures:
        out = np.full((6, arm.n), np.nan)
        tcp, rotation = np.full(3, np.nan), np.full((3, 3), np.nan)
        chain.jacobian_at(arm.model.links, q, out, tcp, rotation)
        place, turned = arm.other.pose(q)
        assert tcp == pytest.approx(place, abs=1e-12)
        assert rotation == pytest.approx(turned, abs=1e-12)
        assert out == pytest.approx(arm.other.jacobian(q), abs=1e-12)
        assert out == pytest.approx(arm.model.jacobian(q), abs=1e-12)


def test_in_the_wider_record_it_is_the_same(arm):
    for q in arm.postures:
        move(arm.state, arm.model, q)
        expected = arm.other.jacobian(q)
        assert arm.state["jacobian"][:, : arm.n] == pytest.approx(expected, abs=1e-12)
        assert not arm.state["jacobian"][:, arm.n :].any()


def test_the_bend_is_how_the_jacobian_changes(arm):
    for q, u in zip(arm.postures, arm.velocities, strict=True):
        move(arm.state, arm.model, q)
        velocity, bend = np.zeros(8), np.full(6, np.nan)
        velocity[: arm.n] = u
        chain.bend(arm.state, velocity, bend)
        assert bend == pytest.approx(arm.change(q, u) @ u, abs=1e-7)


def test_slopes_are_how_any_two_vectors_product_changes(arm):
    """Not of singular vectors alone: d (left . J right) / dq, for each joint by itself."""
    for q in arm.postures:
        move(arm.state, arm.model, q)
        left, right = arm.rng.normal(size=6), arm.rng.normal(size=arm.n)
        slope = np.full(arm.n, np.nan)
        chain.slope_of_singular_value(arm.state, left, right, slope)
        expected = [left @ arm.change(q, unit) @ right for unit in np.eye(arm.n)]
        assert slope == pytest.approx(expected, abs=1e-7)


def test_slides_are_among_the_joints_of_these_tests():
    slides = Arm("sliding").model.links[:-1, 15]
    assert slides.tolist() == [kind == "prismatic" for kind in SLIDES]
