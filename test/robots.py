"""The robot of this package, and a simple one of the same joints, for tests."""

from vla_ros.kinematics import SerialChain
from vla_ros.paths import share
from vla_ros.robot import RobotConfig


def panda() -> RobotConfig:
    """Return the Panda of config/robots."""
    return RobotConfig.load(share() / "config" / "robots" / "panda.yaml")


def simple_urdf() -> str:
    """Return a URDF with the Panda's names whose TCP is 0.4 m in front of 7 joints about z."""
    links = ["panda_link0", *(f"panda_link{i}" for i in range(1, 8)), "panda_hand_tcp"]
    joints = [
        f'<joint name="panda_joint{i}" type="revolute"><parent link="panda_link{i - 1}"/>'
        f'<child link="panda_link{i}"/><axis xyz="0 0 1"/>'
        '<limit lower="-3" upper="3" velocity="2" effort="80"/></joint>'
        for i in range(1, 8)
    ]
    joints.append(
        '<joint name="tcp" type="fixed"><parent link="panda_link7"/><child link="panda_hand_tcp"/>'
        '<origin xyz="0.4 0 0.3"/></joint>'
    )
    parts = [f'<link name="{link}"/>' for link in links] + joints
    return f'<robot name="simple">{"".join(parts)}</robot>'


def simple_chain() -> SerialChain:
    """Return the chain of `simple_urdf`: the TCP turns about the base's z by the joints' sum."""
    robot = panda()
    return SerialChain.from_urdf(simple_urdf(), robot.base_frame, robot.tcp_frame, robot.joints)
