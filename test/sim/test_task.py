"""What counts as success, and as the wrong cube."""

import numpy as np
import pytest

from vla_ros.sim.panda import CUBES, PandaSim
from vla_ros.sim.task import PickTask, target_for, target_of


@pytest.fixture(scope="module")
def sim():
    with PandaSim(cameras={}) as robot:
        yield robot


def lift(sim, heights, seconds):
    """Hold cubes at heights in mid-air for a while, as a hand would."""
    task_ticks = round(seconds / 0.05)
    for _ in range(task_ticks):
        for colour, height in heights.items():
            at = int(sim.model.joint(f"cube_{colour}").qposadr[0])
            sim.data.qpos[at + 2] = height
            dof = int(sim.model.joint(f"cube_{colour}").dofadr[0])
            sim.data.qvel[dof : dof + 6] = 0.0
        sim.advance(0.002)
        sim._due_ns += 48_000_000
        sim._steps += 24
        yield


def hold(sim, task, heights, seconds):
    for _ in lift(sim, heights, seconds):
        task.update()


@pytest.mark.parametrize(
    ("instruction", "target"),
    [
        ("pick up the red cube", "red"),
        ("Grab the BLUE block!", "blue"),
        ("the cube that is green, please", "green"),
        ("pick up the cube", None),
        ("", None),
        ("the red or the blue one", None),
        ("put the red cube, yes the red one, up", "red"),
        ("reddish evergreen", None),
    ],
)
def test_the_target_is_the_one_colour_named(instruction, target):
    assert target_of(instruction) == target


def test_targets_of_seeds_are_fixed_and_even():
    targets = [target_for(seed) for seed in range(300)]
    assert targets == [target_for(seed) for seed in range(300)]
    assert min(targets.count(colour) for colour in CUBES) > 70


def test_success_needs_a_quarter_of_a_second(sim):
    sim.reset(0)
    task = PickTask(sim, "pick up the red cube")
    hold(sim, task, {"red": 0.2}, 0.25)
    assert not task.success
    hold(sim, task, {"red": 0.02}, 0.05)
    hold(sim, task, {"red": 0.2}, 0.25)
    assert not task.success, "the hold was broken"
    hold(sim, task, {"red": 0.2}, 0.05)
    assert task.success
    assert not task.wrong_lifted
    task.set_instruction("pick up the green cube")
    assert not task.success


@pytest.mark.parametrize(
    ("heights", "wrong"),
    [
        ({"red": 0.11}, False),
        ({"red": 0.2, "blue": 0.2}, True),
        ({"red": 0.2, "green": 0.06}, False),
        ({"blue": 0.2}, True),
    ],
)
def test_no_success_if_low_or_with_another_cube(sim, heights, wrong):
    sim.reset(0)
    task = PickTask(sim, "pick up the red cube")
    hold(sim, task, heights, 0.5)
    assert not task.success
    assert task.wrong_lifted is wrong


def test_without_a_target_every_lifted_cube_is_wrong(sim):
    sim.reset(0)
    task = PickTask(sim, "pick up the cube")
    hold(sim, task, {"red": 0.2}, 0.5)
    assert not task.success
    assert task.wrong_lifted


def test_resting_cubes_are_neither(sim):
    sim.reset(0)
    task = PickTask(sim, "pick up the red cube")
    for _ in range(20):
        sim.advance(0.05)
        task.update()
    assert not task.success
    assert not task.wrong_lifted
    assert np.ptp(sim.cube_poses()[:, 2]) < 1e-3
