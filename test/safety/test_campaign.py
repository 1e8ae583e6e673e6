"""The campaign: its arms follow, its adversary does what it says, and it tells the truth."""

import json
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from vla_ros import robots
from vla_ros.replay.judge import UNITS, Judge, read_parameters
from vla_ros.safety import SafetyDecision, SafetyState, campaign
from vla_ros.safety.campaign import Campaign, Outcome, campaign_robot, find_robot
from vla_ros.safety.campaign_adversary import (
    Adversary,
    flip_bit,
    groups,
    limits_of,
    margins,
    quaternions,
)
from vla_ros.safety.campaign_plant import Plants
from vla_ros.types import Command, JointVelocityCommand, PoseCommand

ROBOTS = Path(__file__).parents[2] / "config" / "robots"
PANDA = ROBOTS / "panda.yaml"
PERIOD = 0.01


def small(robot="panda", **options):
    options = {"arms": 8, "ticks": 200, **options}
    return Campaign(ROBOTS / f"{robot}.yaml", robots.urdf(robot), **options)


class Deaf:
    """A filter that sends what it was made with, whatever comes in."""

    def __init__(self, twist):
        self.twist = np.array(twist, dtype=float)

    def step(self, now_ns, desired, joints):
        del desired, joints
        return SafetyDecision(
            stamp_ns=now_ns, twist=self.twist, joint_velocity=np.zeros(7), gripper=None,
            state=SafetyState.RUNNING, acting=(), reason="", command_stamp_ns=None, _measure=dict,
        )  # fmt: skip

    def stop(self, now_ns):
        pass

    def estop(self, engaged, now_ns):
        pass

    def reset(self, now_ns):
        del now_ns
        return True, ""


@pytest.fixture(scope="module")
def judge():
    return Judge(PANDA, robots.urdf("panda"))


@pytest.fixture(scope="module")
def limits():
    return limits_of(read_parameters(PANDA))


HOME = np.array([0.0, 0.15, 0.0, -2.2, 0.0, 2.35, 0.785])


def plants(judge, delay, *, ticks=50, twist=True):
    start = np.tile(HOME, (len(delay), 1))
    options = {"ticks": ticks, "twist": twist, "singular": 0.05, "length": 0.5}
    return Plants(judge.arm, start, np.array(delay), **options)


def test_an_arm_follows_a_twist_its_delay_later(judge):
    arms = plants(judge, [0.0, 0.03])
    start = judge.arm.positions(arms.position)
    for tick in range(50):
        arms.follow(np.tile([0.0, 0.1, 0.0, 0.0, 0.0, 0.0], (2, 1)), np.full(2, PERIOD))
        speeds = arms.measured(np.full(2, 1e-6))[1]
        assert (speeds[0] != 0.0).any()
        assert (speeds[1] != 0.0).any() == (tick >= 3)
    moved = judge.arm.positions(arms.position) - start
    assert np.allclose(moved, [[0.0, 0.05, 0.0], [0.0, 0.047, 0.0]], atol=2e-4)


def test_an_arm_follows_joint_velocities_exactly_at_any_ticks(judge):
    """Against the integral of what was sent up to the delay before, step by step of 0.1 ms."""
    rng = np.random.default_rng(0)
    delays = np.array([0.0, 0.013, 0.05])
    arms = plants(judge, delays, twist=False)
    sent, steps = rng.normal(size=(50, 7)), rng.choice((0.0, 0.003, 0.01, 0.025), 50)
    fine = np.repeat(sent, np.round(steps / 1e-4).astype(int), axis=0)
    way = np.vstack([np.zeros(7), np.cumsum(fine * 1e-4, axis=0)])
    now = 0
    for velocity, seconds in zip(sent, steps, strict=True):
        arms.follow(np.tile(velocity, (3, 1)), np.full(3, seconds))
        now += round(seconds / 1e-4)
        age = rng.choice((0.0, 0.004, 0.009), 3)
        at = now - np.round((delays + age) / 1e-4).astype(int)
        assert np.allclose(arms.measured(age)[0], HOME + way[np.maximum(at, 0)], atol=1e-9)


def test_least_squares_are_least(judge):
    """Against numpy's own, for a redundant arm and for one of five joints."""
    short = Judge(ROBOTS / "so101.yaml", robots.urdf("so101"))
    rng = np.random.default_rng(1)
    for one, start in ((judge, HOME), (short, np.array([0.1, -0.4, 0.5, 0.6, 0.2]))):
        arms = Plants(
            one.arm, start[None], np.array([0.0]), ticks=3, twist=True, singular=1e-6, length=0.5
        )
        jacobian, twist = arms.jacobian[0], rng.normal(size=6)
        arms.follow(twist[None], np.array([PERIOD]))
        scale = np.diag([2.0, 2.0, 2.0, 1.0, 1.0, 1.0])
        expected = np.linalg.pinv(scale @ jacobian) @ scale @ twist
        assert np.allclose(arms.followed[0, 0], expected, atol=1e-6)


def test_the_worst_direction_leads_to_the_bound(judge, limits):
    """Whichever margin is pushed against shrinks."""
    adversary = Adversary(judge, limits, np.random.default_rng(2), 40)
    arms = plants(judge, [0.0] * 40, twist=False)
    arms.path[0] += np.random.default_rng(3).uniform(-0.2, 0.2, arms.path[0].shape)
    adversary.think(arms)
    before = margins(judge, limits, arms.position)
    worst = adversary._gradients(arms.position)
    after = margins(judge, limits, arms.position + 1e-4 * worst)
    chosen = np.arange(40), adversary._column
    assert np.allclose(np.abs(worst / limits.joint_speed).max(axis=1), 1.0, atol=1e-6)
    assert (after[chosen] < before[chosen]).all()
    assert len(set(adversary._column)) > 5
    assert sum(map(len, groups(judge).values())) == before.shape[1]


def test_the_adversary_can_be_told_what_to_push_against(judge, limits):
    adversary = Adversary(judge, limits, np.random.default_rng(2), 40, "tool_cone")
    adversary.think(plants(judge, [0.0] * 40))
    assert set(adversary._column) == set(groups(judge)["tool_cone"])


def test_joint_states_lie_within_the_sensors_error(judge, limits):
    adversary = Adversary(judge, limits, np.random.default_rng(4), 200)
    arms = plants(judge, [0.0] * 200)
    seen = np.zeros(200)
    for _ in range(5):
        adversary.think(arms)
        size = np.abs(adversary.errors())
        assert size.max() <= limits.joint_position_error
        seen = np.maximum(seen, size.max(axis=1))
    assert (seen > 0.9 * limits.joint_position_error).sum() > 100


def test_all_kinds_of_commands_and_faults_come(judge, limits):
    adversary = Adversary(judge, limits, np.random.default_rng(5), 300)
    arms = plants(judge, [0.0] * 300)
    kinds, broken, frames, delta = set(), 0, set(), set()
    for _ in range(20):
        adversary.think(arms)
        for i in range(300):
            command = adversary.command(i, 10**12)
            kinds.add(type(command))
            if isinstance(command, Command):
                broken += not np.isfinite(command.twist).all()
                frames.add(command.frame_id)
            if isinstance(command, PoseCommand):
                delta.add(command.delta)
    assert kinds == {Command, PoseCommand, JointVelocityCommand, type(None)}
    assert frames == {"panda_link0", "map"}
    assert delta == {True, False}
    assert broken > 0


def test_bits_and_quaternions():
    values = np.ones(3)
    flip_bit(values, np.random.default_rng(6))
    assert (values != 1.0).sum() == 1
    from vla_ros.kinematics import quaternion_from_rotation, rotation_from_rotvec

    turns = np.array(
        [rotation_from_rotvec(v) for v in np.random.default_rng(7).normal(size=(9, 3))]
    )
    for found, turn in zip(quaternions(turns), turns, strict=True):
        expected = quaternion_from_rotation(turn)
        assert math.isclose(abs(found @ expected), 1.0, abs_tol=1e-9)


def test_arms_start_inside_on_and_outside_of_the_bounds(judge, limits):
    starts = small().starts(np.random.default_rng(8), 400)
    left = margins(judge, limits, starts).min(axis=1)
    assert (left > 0.01).sum() > 40
    assert ((left >= 0.0) & (left < 0.005)).sum() > 40
    assert (left < -0.001).sum() > 40
    held = limits.joint_torque - np.abs(judge.arm.torques(starts, starts * 0, starts * 0))
    assert (held > 0.0).all()


def test_a_filter_at_rest_is_never_at_fault():
    outcome = small(make=lambda: Deaf(np.zeros(6))).batch(0)
    assert outcome.verdict.violations == 0, outcome.verdict.examples
    assert outcome.driven == 8 * 200
    assert set(UNITS) - {"frame"} == set(outcome.verdict.by_bound)


@pytest.mark.parametrize(
    ("twist", "bounds"),
    [
        ([0.0, 0.2, 0.0, 0.0, 0.0, 0.0], {"linear_acceleration", "workspace", "stopping_time"}),
        ([0.0, 0.0, 0.0, 2.0, 0.0, 0.0], {"angular_speed", "tool_cone", "joint_position"}),
        ([math.nan, 0.0, 0.0, 0.0, 0.0, 0.0], {"finite"}),
    ],
)
def test_a_filter_that_ignores_everything_is_found_out(twist, bounds):
    outcome = small(make=lambda: Deaf(twist), ticks=300).batch(0)
    broken = {name for name, count in outcome.verdict.by_bound.items() if count}
    assert bounds <= broken
    assert len(outcome.verdict.examples) == 5
    assert outcome.verdict.examples[0].startswith("seed 0 batch 0 arm 0 (")


def test_a_batch_depends_on_seed_and_number_alone():
    first, again, other = (small(seed=s, ticks=60).batch(2).report() for s in (1, 1, 2))
    assert first == again
    assert first != other


@pytest.mark.parametrize("robot", robots.names())
@pytest.mark.parametrize("output", ["twist", "joint_velocity"])
def test_the_filter_breaks_no_bound(robot, output):
    outcome = Outcome()
    for part in small(robot, output=output, seed=11, arms=16, ticks=250).run(8_000):
        outcome.add(part)
    assert outcome.verdict.violations == 0, outcome.verdict.examples
    assert outcome.states["RUNNING"] > 0.4 * outcome.driven


def test_it_changes_nothing_that_bounds_motion():
    robot, file = campaign_robot(PANDA), campaign.RobotConfig.load(PANDA)
    changed = {"refused_command_hold": file.bounds.refused_command_hold,
               "effort_samples": file.bounds.effort_samples}  # fmt: skip
    assert replace(robot, bounds=replace(robot.bounds, **changed)) == file


def test_the_command_line(tmp_path, capsys, monkeypatch):
    from vla_ros.cli import main

    monkeypatch.setattr(campaign, "ARMS", 4)
    monkeypatch.setattr(campaign, "TICKS", 50)
    path = tmp_path / "found.json"
    words = ["safety", "campaign", "--ticks", "300", "--seed", "3", "--robot", "panda"]
    assert main([*words, "--json", str(path)]) == 0
    report = json.loads(path.read_text())
    assert report["robot"] == "panda"
    assert (report["seed"], report["violations"]) == (3, 0)
    assert report["ticks"] >= 300
    assert report["ticks_per_second"] > 0.0
    assert set(report["bounds"]) == set(UNITS) - {"frame"}
    for name, bound in report["bounds"].items():
        assert bound["violations"] == 0
        assert bound["unit"] == UNITS[name]
        assert bound["smallest_margin"] is None or bound["smallest_margin"] >= 0.0
        assert bound["acted"] >= 0
    assert "violations: 0" in capsys.readouterr().out


@pytest.mark.slow
def test_several_processes_find_the_same(tmp_path):
    from vla_ros.cli import main

    found = []
    for workers in ("1", "2"):
        path = tmp_path / f"{workers}.json"
        words = ["safety", "campaign", "--ticks", "40000", "--robot", "so101"]
        main([*words, "--workers", workers, "--json", str(path)])
        report = json.loads(path.read_text())
        del report["seconds"], report["ticks_per_second"]
        found.append(report)
    assert found[0] == found[1]


def test_violations_are_an_exit_code(monkeypatch, tmp_path):
    from vla_ros.cli import main

    monkeypatch.setattr(campaign, "ARMS", 4)
    monkeypatch.setattr(campaign, "TICKS", 50)
    monkeypatch.setattr(campaign, "SafetyFilter", lambda *_, **__: Deaf([1.0] * 6))
    path = tmp_path / "found.json"
    words = ["safety", "campaign", "--ticks", "100", "--robot", "panda", "--json", str(path)]
    assert main(words) == 1
    assert json.loads(path.read_text())["bounds"]["linear_speed"]["violations"] > 0


def test_an_interrupt_leaves_what_was_found(monkeypatch, tmp_path, capsys):
    from vla_ros.cli import main

    monkeypatch.setattr(campaign, "ARMS", 4)
    monkeypatch.setattr(campaign, "TICKS", 50)
    monkeypatch.setattr(campaign, "SafetyFilter", lambda *_, **__: Deaf([0.0] * 6))
    batches = Campaign.batch

    def interrupted(self, number, arms=None):
        if number == 2:
            raise KeyboardInterrupt
        return batches(self, number, arms)

    monkeypatch.setattr(Campaign, "batch", interrupted)
    path = tmp_path / "found.json"
    words = ["safety", "campaign", "--ticks", "10000", "--robot", "panda", "--json", str(path)]
    assert main(words) == 0
    assert json.loads(path.read_text())["ticks"] == 400
    assert "interrupted" in capsys.readouterr().err


def test_robots_are_found_by_name_and_by_file(tmp_path):
    assert find_robot("ur5e", None)[0].name == "ur5e.yaml"
    mine = tmp_path / "mine.yaml"
    mine.write_text(PANDA.read_text().replace("name: panda", "name: mine"))
    with pytest.raises(ValueError, match="no description of 'mine' is shipped"):
        find_robot(str(mine), None)
    description = tmp_path / "mine.urdf"
    description.write_text("<robot/>")
    assert find_robot(str(mine), description) == (mine, "<robot/>")
    with pytest.raises(ValueError, match=r"shipped are \['panda', 'so101', 'ur5e'\]"):
        find_robot("pando", None)
