"""The closed loop with an adversary: what the arm really does stays within the robot file."""

import json
from dataclasses import replace

import numpy as np
import pytest

pytest.importorskip("mujoco", reason="the simulated robot needs MuJoCo")

from vla_ros.cli import main
from vla_ros.paths import share
from vla_ros.robot import RobotConfig
from vla_ros.sim.adversary import ClosedLoop, Outcome, wishes
from vla_ros.sim.panda import PandaSim

PANDA = share() / "config" / "robots" / "panda.yaml"


@pytest.fixture(scope="module")
def sim():
    with PandaSim(cameras={}) as sim:
        yield sim


@pytest.mark.parametrize("seed", range(5))
def test_every_kind_of_adversary_leaves_the_arm_inside_its_bounds(sim, seed):
    outcome = ClosedLoop(RobotConfig.load(PANDA), sim).run(seed, 4.0)
    assert outcome.violations == 0, outcome.report()
    assert outcome.ticks == 400
    # It did push: bounds acted in many of the ticks.
    assert sum(outcome.acted.values()) > 200


def test_an_arm_that_leaves_its_bounds_is_counted(sim):
    """The loop is judged by bounds tighter than those that its filter keeps."""
    robot = RobotConfig.load(PANDA)
    loop = ClosedLoop(robot, sim)
    strict = replace(
        robot.bounds,
        joint_speed=tuple(0.2 * v for v in robot.bounds.joint_speed),
        effort=tuple(0.2 * v for v in robot.bounds.effort),
        tracking_error=-0.2,
    )
    outcome = Outcome()
    loop.judged = strict
    outcome.add(loop.run(1, 2.0))
    assert all(count > 0 for count in outcome.by_bound.values()), outcome.report()
    assert outcome.violations > 0
    assert outcome.speed_share > 1.0
    assert outcome.effort_share > 1.0


def test_adversaries_are_the_same_for_the_same_seed_and_too_fast():
    bound = np.repeat([0.3, 1.6], 3)
    for kind in range(5):
        first, again = (wishes(np.random.default_rng(3), kind, bound) for _ in range(2))
        twists = np.array([first(tick / 100) for tick in range(300)])
        assert np.array_equal(twists, [again(t / 100) for t in range(300)], equal_nan=True)
        assert np.nanmax(np.abs(twists) / bound) > 1.5


def test_the_command_writes_its_figures(tmp_path, capsys):
    file = tmp_path / "closed.json"
    words = ["safety", "closed-loop", "--episodes", "1", "--seconds", "0.5", "--workers", "1"]
    assert main([*words, "--json", str(file)]) == 0
    figures = json.loads(file.read_text())
    assert figures["violations"] == 0
    assert figures["ticks"] == 50
    assert "violations" in capsys.readouterr().out


def test_another_robot_s_file_is_refused(capsys):
    ur5e = PANDA.with_name("ur5e.yaml")
    assert main(["safety", "closed-loop", "--robot", str(ur5e)]) == 1
    assert "joint" in capsys.readouterr().err
