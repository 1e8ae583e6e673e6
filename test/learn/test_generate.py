"""Demonstrations: what they hold, that they depend on the seed alone, and that they continue."""

import numpy as np
import pytest

from vla_ros.learn.dataset import Dataset, shard_path
from vla_ros.learn.episodes import SceneVariation, record
from vla_ros.learn.generate import Plan, generate
from vla_ros.learn.rig import Rig
from vla_ros.paths import share
from vla_ros.robot import RobotConfig
from vla_ros.sim.mujoco_gl import RenderError, check_rendering
from vla_ros.sim.panda import PandaSim

ROBOT_FILE = share() / "config" / "robots" / "panda.yaml"

try:
    check_rendering()
except RenderError as err:
    pytest.skip(str(err), allow_module_level=True)


@pytest.fixture(scope="module")
def rig():
    with PandaSim() as sim:
        yield Rig(RobotConfig.load(ROBOT_FILE), sim)


@pytest.fixture(scope="module")
def variation(rig):
    return SceneVariation(rig)


@pytest.fixture(scope="module")
def episode(rig, variation):
    return record(rig, variation, 100_001)


def test_an_episode_holds_what_the_model_takes(episode):
    count = len(episode["state"])
    assert count > 10
    assert episode["front"].shape == (count, 96, 96, 3)
    assert episode["wrist"].shape == (count, 80, 96, 3)
    assert episode["state"].shape == (count, 17)
    assert episode["actions"].shape == (count, 16, 7)
    assert set(np.unique(episode["mask"])) <= {0.0, 1.0}
    assert (episode["mask"][:, 0] == 1.0).all()


def test_labels_keep_the_experts_speed_and_the_gripper_is_a_fraction(episode):
    actions = episode["actions"]
    assert np.linalg.norm(actions[..., :3], axis=-1).max() <= 0.25 / 30 + 1e-6
    assert np.linalg.norm(actions[..., 3:6], axis=-1).max() <= 1.5 / 30 + 1e-6
    assert set(np.unique(actions[..., 6])) == {0.0, 1.0}


def test_the_last_observation_holds_a_lifted_cube_still(episode):
    assert episode["state"][-1, 2] > 0.12
    assert np.allclose(episode["actions"][-1, -1, :6], 0.0)
    assert episode["actions"][-1, -1, 6] == 0.0


def test_the_cube_is_where_the_label_says(episode):
    # In the last observation the cube is between the fingers, so at the tool's origin.
    assert np.linalg.norm(episode["target"][-1, :3] / 10.0) < 0.02


def test_an_episode_depends_on_its_seed_alone(rig, variation, episode):
    record(rig, variation, 100_002)
    again = record(rig, variation, 100_001)
    assert all(np.array_equal(again[name], episode[name]) for name in episode)


def test_a_varied_scene_can_be_restored(rig, variation):
    variation.restore()
    rig.reset(3)
    before = rig.sim.render("front")
    variation.vary(np.random.default_rng(0))
    assert not np.array_equal(rig.sim.render("front"), before)
    variation.restore()
    assert np.array_equal(rig.sim.render("front"), before)


def test_generation_continues_where_it_was_interrupted(tmp_path):
    plan = Plan(episodes=3, seed=100_010, per_shard=1)
    lines: list[str] = []
    generate(plan, tmp_path, ROBOT_FILE, 1, lines.append)
    assert len(lines) == 3
    whole = Dataset.load(tmp_path)
    kept = (shard_path(tmp_path, 0) / "state.npy").stat().st_mtime_ns
    first = np.load(shard_path(tmp_path, 1) / "front.npy")
    shard_path(tmp_path, 1).rename(tmp_path / "lost")
    lines.clear()
    generate(plan, tmp_path, ROBOT_FILE, 1, lines.append)
    assert "continuing: 2 of 3" in lines[0]
    assert (shard_path(tmp_path, 0) / "state.npy").stat().st_mtime_ns == kept
    assert np.array_equal(np.load(shard_path(tmp_path, 1) / "front.npy"), first)
    assert len(Dataset.load(tmp_path)) == len(whole)


def test_data_of_another_plan_are_not_mixed_in(tmp_path):
    generate(Plan(1, 100_010, 1), tmp_path, ROBOT_FILE, 1, lambda _: None)
    with pytest.raises(ValueError, match="other data"):
        generate(Plan(1, 100_020, 1), tmp_path, ROBOT_FILE, 1, lambda _: None)
