"""The filter around the simulated robot, which moves late, as arms do."""

from dataclasses import replace

import numpy as np
import pytest

pytest.importorskip("mujoco", reason="the simulated robot needs MuJoCo")

from panda_arm import panda_urdf

from vla_ros.kinematics import SerialChain
from vla_ros.paths import share
from vla_ros.replay.judge import Judge, Tick, Verdict
from vla_ros.safety import SafetyFilter, SafetyState
from vla_ros.sim.panda import PandaSim, urdf
from vla_ros.types import Command

PERIOD_NS = 10_000_000


class Loop:
    """The simulator, commanded through the filter at 100 Hz."""

    def __init__(self, sim, robot, seed):
        self.sim, self.robot = sim, robot
        self.chain = SerialChain.from_urdf(urdf(), robot.base_frame, robot.tcp_frame, robot.joints)
        self.filter = SafetyFilter(robot, urdf(), 100.0)
        self.now = 10**9
        self.positions, self.ticks = [], []
        sim.reset(seed)

    def run(self, seconds, twist):
        for _ in range(round(seconds * 100)):
            joints = self.sim.joint_sample(self.now)
            wish = np.asarray(
                twist(self.now) if callable(twist) else [*twist, 0, 0, 0], dtype=float
            )
            command = Command(self.now, self.robot.base_frame, wish, None)
            self.decision = self.filter.step(self.now, command, joints)
            self.ticks.append(
                Tick(self.now, self.decision.twist, self.decision.gripper, joints.position)
            )
            self.positions.append(self.chain.pose(joints.position)[0])
            self.sim.set_twist(self.decision.twist)
            self.now += PERIOD_NS
            self.sim.advance(PERIOD_NS / 1e9)

    def outside(self):
        """Return how far outside the box the TCP was at most, m."""
        positions = np.array(self.positions)
        bounds = self.robot.bounds
        beyond = np.maximum(bounds.workspace_min - positions, positions - bounds.workspace_max)
        return float(beyond.max())


@pytest.fixture(scope="module")
def sim():
    with PandaSim(cameras={}) as sim:
        yield sim


@pytest.fixture(scope="module")
def sim_judge():
    return Judge(share() / "config/robots/panda.yaml", urdf())


@pytest.mark.parametrize("direction", [(0, 1, 0.15), (0, -1, 0.15), (-1, 0.2, 0), (0.1, 0, 1)])
def test_pushed_at_a_face_it_stays_inside_slides_and_comes_back(sim, robot, sim_judge, direction):
    loop = Loop(sim, robot, 0)
    loop.run(4.0, direction)
    assert loop.outside() <= 0.002
    assert loop.decision.state is SafetyState.RUNNING
    assert any(acting.name.startswith("workspace_") for acting in loop.decision.acting)
    wall = int(np.argmax(np.abs(direction)))
    bounds = robot.bounds
    face = (bounds.workspace_max if direction[wall] > 0 else bounds.workspace_min)[wall]
    # It slides at the margin: the tracking error and what the sensors' error is at the TCP.
    assert abs(loop.positions[-1][wall] - face) < bounds.tracking_error + 0.006

    travelled = np.ptp(np.array(loop.positions)[200:], axis=0)
    assert max(np.delete(travelled, wall)) > 0.02

    loop.run(1.0, -np.array(direction))
    assert abs(loop.positions[-1][wall] - face) > 0.1
    verdict = sim_judge.ticks(loop.ticks)
    assert verdict.violations == 0, verdict


def test_random_walks_stay_inside(sim, robot, sim_judge):
    # Above the cubes: an arm that leans on one and slips off it leaves its path by millimetres.
    low = (*robot.bounds.workspace_min[:2], 0.1)
    robot = replace(robot, bounds=replace(robot.bounds, workspace_min=low))
    total = Verdict()
    for seed in range(6):
        rng = np.random.default_rng(seed)
        wish = np.zeros(6)

        def walk(_now, wish=wish, rng=rng):
            wish += rng.normal(0.0, [0.15, 0.15, 0.15, 0.02, 0.02, 0.02])
            wish.clip(-1.0, 1.0, out=wish)
            wish[3:] *= 0.8
            return wish

        loop = Loop(sim, robot, seed)
        loop.run(5.0, walk)
        assert loop.outside() <= 0.002, seed
        total.add(sim_judge.ticks(loop.ticks))
    assert total.violations == 0, total


def test_the_test_s_small_urdf_is_the_simulated_robot(robot):
    small, full = (
        SerialChain.from_urdf(text, robot.base_frame, robot.tcp_frame, robot.joints)
        for text in (panda_urdf(), urdf())
    )
    for angles in np.random.default_rng(0).uniform(-2.0, 2.0, (5, 7)):
        assert np.allclose(small.pose(angles)[0], full.pose(angles)[0], atol=1e-4)
