"""A filter with the shipped robot file, driven by hand."""

from pathlib import Path

import numpy as np
import pytest
from arm_weight import Weight
from panda_arm import HOME

from vla_ros import robots
from vla_ros.kinematics import SerialChain
from vla_ros.replay.judge import Judge, Tick
from vla_ros.robot import RobotConfig
from vla_ros.safety import SafetyFilter
from vla_ros.types import Command, JointSample

ROBOT_FILE = Path(__file__).parents[2] / "config/robots/panda.yaml"


@pytest.fixture(scope="session")
def urdf() -> str:
    return robots.urdf("panda")


@pytest.fixture(scope="session")
def robot() -> RobotConfig:
    return RobotConfig.load(ROBOT_FILE)


@pytest.fixture(scope="session")
def chain(urdf, robot) -> SerialChain:
    return SerialChain.from_urdf(urdf, robot.base_frame, robot.tcp_frame, robot.joints)


class Bench:
    """A filter driven by hand, with a record for the judge and an arm that follows at once."""

    rate_hz = 100.0
    period_ns = 10_000_000

    def __init__(self, robot, urdf, position=HOME, *, make=SafetyFilter):
        self.robot, self.chain = robot, robot.chain(urdf)
        self.weight = Weight(robot, urdf)
        self.filter = make(robot, urdf, self.rate_hz)
        self.now = 10**12
        self.position = np.array(position, dtype=float)
        self.effort = None
        """What the joints measure, Nm; None: what holds the arm against gravity."""
        self.opening, self.grip = 0.08, 0.0
        self.joints_stamp_offset = 0
        self.seen = None
        self.ticks = []
        self.decision = None

    def joints(self):
        return JointSample(
            self.now + self.joints_stamp_offset,
            self.position.copy(),
            np.zeros(7),
            self.weight.at(self.position) if self.effort is None else self.effort,
            self.opening,
            self.grip,
        )

    def command(self, linear=(0, 0, 0), angular=(0, 0, 0), gripper=None, **changes):
        given = {
            "stamp_ns": self.now,
            "frame_id": self.robot.base_frame,
            "twist": np.array([*linear, *angular], dtype=float),
            "gripper": gripper,
            **changes,
        }
        return Command(**given)

    def step(self, desired=None, joints="measured"):
        if isinstance(joints, str):
            joints = self.joints()
        self.decision = self.filter.step(self.now, desired, joints)
        if joints is not None:
            self.seen = joints
        timeout_ns = self.robot.bounds.joint_state_timeout * 1e9
        known = self.seen is not None and self.now - self.seen.stamp_ns <= timeout_ns
        position = self.seen.position if known else None
        self.ticks.append(Tick(self.now, self.decision.twist, self.decision.gripper, position))
        self.position = self.position + self.decision.joint_velocity * (self.period_ns / 1e9)
        self.now += self.period_ns
        return self.decision

    def run(self, count, *, linear=(0, 0, 0), angular=(0, 0, 0), gripper=None):
        for _ in range(count):
            self.step(self.command(linear, angular, gripper))
        return self.decision

    def move(self, twist, seconds):
        """Push the TCP along, at whatever orientation (Newton on the Jacobian)."""
        goal = self.tcp() + twist[:3] * seconds
        for _ in range(3):
            jacobian = self.chain.jacobian(self.position)[:3]
            squared = jacobian @ jacobian.T + 1e-9 * np.eye(3)
            self.position += jacobian.T @ np.linalg.solve(squared, goal - self.tcp())

    def tcp(self):
        return self.chain.pose(self.position)[0]


@pytest.fixture
def bench(robot, urdf) -> Bench:
    return Bench(robot, urdf)


@pytest.fixture
def make_bench(robot, urdf):
    return lambda **options: Bench(robot, urdf, **options)


@pytest.fixture(scope="session")
def judge(urdf):
    return Judge(ROBOT_FILE, urdf)
