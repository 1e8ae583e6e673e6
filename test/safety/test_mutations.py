"""The campaign can fail: a filter with any one row left out, or a wrong turn in it, is caught.

A row is left out by telling the filter a bound so wide that it never acts, while the judge reads
the file: so this needs no hook in the filter, and tests what the filter was told as well. The robot
files of these tests are the shipped ones, some with bounds so tight that an arm gets there at once.
"""

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import yaml

from vla_ros import robots
from vla_ros.safety import SafetyFilter
from vla_ros.safety.campaign import Campaign, campaign_robot
from vla_ros.safety.motion import trial
from vla_ros.safety.supervisor import Supervisor

ROBOTS = Path(__file__).parents[2] / "config" / "robots"
BATCHES = 6
"""Batches of 12 arms for 200 ticks within which a mutant is to be caught."""

TIGHT = {
    "joint_torque": ("panda", {"joint_torque": [30.0, 45.0, 30.0, 25.0, 4.0, 3.5, 2.0]}),
    "joint_torque_rate": ("panda", {"joint_torque_rate": [150.0] * 4 + [40.0] * 3}),
    "payload": ("panda", {
        "joint_torque": [30.0, 60.0, 30.0, 35.0, 6.0, 6.0, 2.0],
        "payload_mass": 3.0, "payload_com": [0.0, 0.1, 0.0]}),
    "linear_speed": ("panda", {"linear_speed": 0.15}),
    "angular_speed": ("panda", {"angular_speed": 0.8}),
    "linear_acceleration": ("panda", {"linear_acceleration": 3.0}),
    "angular_acceleration": ("panda", {"angular_acceleration": 16.0}),
    "joint_speed": ("panda", {"joint_speed": [0.3] * 7}),
    "joint_acceleration": ("panda", {"joint_speed": [0.5] * 7, "joint_acceleration": [5.0] * 7}),
    "workspace volumes": ("panda", {"workspace": ["side"]}),
    "keep_out": ("panda", {"keep_out": ["ball"], "keep_out_points": ["tcp"]}),
    "keep_out_points": ("panda", {"keep_out": ["ball"], "keep_out_points": ["tcp", "finger"]}),
    "reaction_delay": ("panda", {
        "reaction_delay": 0.15, "tracking_error": 0.001, "joint_position_error": 0.0005}),
    "singularity": ("panda", {"singularity_distance": 0.12}),
    "joint_position_error": ("so101", {
        "joint_position_min": [-0.6, -0.5, -0.3, 0.6, -0.6],
        "joint_position_max": [0.6, 0.5, 0.9, 1.5, 0.6]}),
    "joint_position": ("panda", {
        "joint_position_min": [-0.5, -0.6, -0.5, -2.6, -0.5, 1.6, -0.5],
        "joint_position_max": [0.5, 0.6, 0.5, -1.6, 0.5, 2.8, 1.5]}),
}  # fmt: skip
"""Robot files that are tighter than the shipped ones, by row: the robot and its changes."""
VOLUMES = {
    "side": {"shape": "half_space", "normal": [0.0, 1.0, 0.0], "offset": 0.1},
    "ball": {"shape": "sphere", "center": [0.5, 0.0, 0.25], "radius": 0.1},
}
POINTS = {"finger": {"position": [0.0, 0.06, -0.05], "radius": 0.04}}


def far(values, times):
    return tuple(value * times for value in values)


def wider(times, *names):
    """Return a mutation that multiplies bounds, each a number or a list."""

    def mutate(bounds):
        changes = {}
        for name in names:
            value = getattr(bounds, name)
            changes[name] = far(value, times) if isinstance(value, tuple) else value * times
        return changes

    return mutate


def told(**changes):
    """Return a mutation that sets bounds."""
    return lambda _: changes


# By row: what the filter is told, the bound that the campaign then finds broken, and the robot.
ROWS = {
    "linear_speed": (wider(2.0, "linear_speed"), "linear_speed", "panda"),
    "angular_speed": (wider(2.0, "angular_speed"), "angular_speed", "panda"),
    "linear_acceleration": (wider(1.5, "linear_acceleration"), "linear_acceleration", "panda"),
    "angular_acceleration": (wider(1.25, "angular_acceleration"), "angular_acceleration", "panda"),
    "linear_jerk": (wider(5.0, "linear_jerk"), "linear_jerk", "panda"),
    "angular_jerk": (wider(5.0, "angular_jerk"), "angular_jerk", "panda"),
    "joint_position": (
        told(joint_position_min=(-9.0,) * 7, joint_position_max=(9.0,) * 7),
        "joint_position", "panda"),
    "joint_speed": (wider(2.0, "joint_speed"), "joint_speed", "panda"),
    "joint_acceleration": (wider(5.0, "joint_acceleration"), "joint_acceleration", "panda"),
    "joint_torque": (wider(9.0, "joint_torque"), "joint_torque", "panda"),
    "joint_torque_rate": (wider(50.0, "joint_torque_rate"), "joint_torque_rate", "panda"),
    "workspace": (
        told(workspace_min=(-9.0,) * 3, workspace_max=(9.0,) * 3), "workspace", "panda"),
    "workspace volumes": (told(workspace=()), "workspace", "panda"),
    "keep_out": (told(keep_out=()), "keep_out", "panda"),
    "keep_out_points": (
        lambda bounds: {"keep_out_points": bounds.keep_out_points[:1]}, "keep_out", "panda"),
    "tool_cone": (told(tool_cone_angle=math.pi), "tool_cone", "panda"),
    "singularity": (told(singularity_distance=0.001), "singularity", "panda"),
    "gripper": (told(gripper_min=-1.0, gripper_max=3.0), "gripper", "panda"),
    "gripper_speed": (wider(9.0, "gripper_speed"), "gripper_speed", "panda"),
    "reaction_delay": (wider(0.1, "reaction_delay"), "tool_cone", "panda"),
    "tracking_error": (told(tracking_error=0.0), "workspace", "so101"),
    "joint_position_error": (told(joint_position_error=0.0), "joint_position", "so101"),
    "payload": (told(payload_mass=0.0), "joint_torque", "panda"),
    "command_timeout": (told(command_timeout=60.0), "stopping_time", "panda"),
    "joint_state_timeout": (told(joint_state_timeout=60.0), "stopping_time", "panda"),
}  # fmt: skip


FOCUS = {
    "joint_position": "joint_position", "joint_position_error": "joint_position",
    "joint_torque": "joint_torque", "payload": "joint_torque", "workspace": "workspace",
    "workspace volumes": "workspace", "reaction_delay": "tool_cone",
    "tracking_error": "workspace", "keep_out": "keep_out",
    "keep_out_points": "keep_out", "tool_cone": "tool_cone", "singularity": "singularity",
}  # fmt: skip
"""What the adversary pushes against, where that is one bound."""


def campaign(tmp_path, row, mutate=None, *, output="twist"):
    """Return a campaign against a filter that was told something else than the judge."""
    name, changes = TIGHT.get(row, (ROWS[row][2], {}) if row in ROWS else ("panda", {}))
    content = yaml.safe_load((ROBOTS / f"{name}.yaml").read_text())
    parameters = content["/**"]["ros__parameters"]
    parameters["bounds"] |= changes
    lists = ("workspace", "keep_out", "workspace_points", "keep_out_points")
    named = {item for key in lists for item in parameters["bounds"].get(key, [])}
    for section, known in (("volumes", VOLUMES), ("points", POINTS)):
        both = {**parameters.get(section, {}), **known}
        parameters[section] = {key: value for key, value in both.items() if key in named}
    path = tmp_path / f"{name}.yaml"
    path.write_text(yaml.safe_dump(content))
    robot, urdf = campaign_robot(path), robots.urdf(name)
    if mutate is not None:
        robot = replace(robot, bounds=replace(robot.bounds, **mutate(robot.bounds)))
    make = lambda: SafetyFilter(robot, urdf, 100.0, output=output)  # noqa: E731
    focus = FOCUS.get(row, "")
    options = {"output": output, "arms": 12, "ticks": 200, "make": make, "focus": focus}
    return Campaign(path, urdf, seed=5, **options)


def caught(campaign, bound):
    return any(campaign.batch(i).verdict.by_bound[bound] for i in range(BATCHES))


@pytest.mark.parametrize("row", ROWS)
def test_a_filter_without_a_row_is_caught(tmp_path, row):
    mutate, bound, _ = ROWS[row]
    assert caught(campaign(tmp_path, row, mutate), bound)


def keep(*_, **__):
    return None


def misled(step, **false):
    """Return a step of the limiter that finds other numbers in its record, and leaves the true."""

    def run(record, *rest, **options):
        state = record[0]
        true = {name: state[name].copy() for name in false}
        for name, value in false.items():
            state[name] = value
        result = step(record, *rest, **options)
        for name, value in true.items():
            state[name] = value
        return result

    return run


def in_steps(begin=trial.begin, attempt=trial.attempt):
    """Return `trial.tick` made of its two steps, either of them another one."""

    def tick(record, ring, links, surfaces, points, rows, slopes, indices, acting, *rest):
        *program, h, age = rest
        found = begin(record, ring, links, surfaces, points, rows, slopes, indices, acting, h, age)
        if found != trial.TRY:
            return found
        return attempt(record, links, rows, slopes, indices, acting, *program)

    return tick


def unheld(**false):
    """Return changes of a tick: trials, and what the program finds, are held to false numbers."""
    tick = in_steps(attempt=misled(trial.attempt, **false))
    return [(trial, "tick", tick), (trial, "settle", misled(trial.settle, **false))]


ENDLESS = {"guard_speed": 1e9, "guard_acceleration": 1e9, "guard_jerk": 1e9}
WRONG_TURNS = {
    # What is sent is not held against speed, acceleration and jerk.
    "no guard": (
        [(trial, step, misled(getattr(trial, step), **ENDLESS)) for step in ("tick", "settle")],
        {"linear_jerk", "linear_acceleration"}),
    # Where a stop plan leads to is not verified.
    "no places": (unheld(rows=0), {"workspace", "tool_cone"}),
    "no joints": (
        unheld(most=np.inf, least=-np.inf), {"joint_torque_rate", "joint_acceleration"}),
    # The e-stop, stops and silence do nothing.
    "no stop": ([(Supervisor, "latch", keep), (Supervisor, "estop", keep)], {"stopping_time"}),
}  # fmt: skip
"""Mistakes in the logic: what is put out of force, and bounds of which one is then broken.

What is compiled calls itself, so that none of it can be replaced; but each step of a tick
(`trial`) works with one record, and can be told other bounds there than the step before it.
"""


@pytest.mark.parametrize("name", WRONG_TURNS)
def test_a_filter_with_a_wrong_turn_is_caught(tmp_path, monkeypatch, name):
    changes, bounds = WRONG_TURNS[name]
    for where, what, mutant in changes:
        monkeypatch.setattr(where, what, mutant)
    driven = campaign(tmp_path, "as shipped")
    assert any(caught(driven, bound) for bound in bounds)


def test_with_the_true_record_the_same_steps_are_right(tmp_path, monkeypatch):
    """So it is the false numbers that are caught, not that they were put in."""
    for where, what, mutant in unheld():
        monkeypatch.setattr(where, what, mutant)
    assert campaign(tmp_path, "as shipped").batch(0).verdict.violations == 0


@pytest.mark.parametrize("output", ["twist", "joint_velocity"])
@pytest.mark.parametrize("row", TIGHT)
def test_with_the_row_the_same_campaign_finds_nothing(tmp_path, row, output):
    """Where the robot file was made tighter; the shipped ones are held in test_campaign."""
    verdict = campaign(tmp_path, row, output=output).batch(0).verdict
    assert verdict.violations == 0, verdict.examples
