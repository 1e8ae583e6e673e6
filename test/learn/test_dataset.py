"""Shards are whole or absent, and rows come back as they were written."""

import json

import numpy as np
import pytest

from vla_ros.learn import dataset
from vla_ros.learn.dataset import DESCRIPTION, Dataset, shard_path, write_shard


def _episode(seed: int, length: int) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    return {
        "front": rng.integers(0, 256, (length, 6, 6, 3), np.uint8),
        "wrist": rng.integers(0, 256, (length, 4, 6, 3), np.uint8),
        "state": rng.normal(0.0, 2.0, (length, 3)).astype(np.float32),
        "episode": np.full(length, seed),
    }


@pytest.fixture
def folder(tmp_path):
    write_shard(shard_path(tmp_path, 0), [_episode(0, 3), _episode(1, 2)])
    write_shard(shard_path(tmp_path, 1), [_episode(2, 4)])
    (tmp_path / DESCRIPTION).write_text(json.dumps({"shards": 2}))
    return tmp_path


def test_rows_across_shards_come_back_as_written(folder):
    data = Dataset.load(folder)
    assert len(data) == 9
    front, wrist = data.images(np.array([1, 4, 5, 8]))
    assert np.array_equal(front[0], _episode(0, 3)["front"][1])
    assert np.array_equal(wrist[1], _episode(1, 2)["wrist"][1])
    assert np.array_equal(front[2], _episode(2, 4)["front"][0])
    assert data.labels(np.array([1, 4, 8]))["episode"].tolist() == [0, 1, 2]


def test_the_state_is_normalised_by_its_own_statistics(folder):
    data = Dataset.load(folder)
    state = data.normalised_state(np.arange(9))
    assert np.allclose(state.mean(0), 0.0, atol=1e-5)
    assert np.allclose(state.std(0), 1.0, atol=1e-5)


def test_missing_data_are_refused_with_the_command_that_makes_them(tmp_path, folder):
    with pytest.raises(ValueError, match="vla_ros learn generate"):
        Dataset.load(tmp_path / "nothing")
    shard_path(folder, 1).rename(folder / "elsewhere")
    with pytest.raises(ValueError, match="1 of 2 shards are missing"):
        Dataset.load(folder)


def test_an_interrupted_write_leaves_no_shard(tmp_path, monkeypatch):
    real = np.save

    def fails_at_wrist(path, array):
        if path.stem == "wrist":
            msg = "disk full"
            raise OSError(msg)
        real(path, array)

    monkeypatch.setattr(dataset.np, "save", fails_at_wrist)
    with pytest.raises(OSError, match="disk full"):
        write_shard(shard_path(tmp_path, 0), [_episode(0, 3)])
    assert not shard_path(tmp_path, 0).exists()
    monkeypatch.undo()
    write_shard(shard_path(tmp_path, 0), [_episode(0, 3)])
    assert len(list(shard_path(tmp_path, 0).glob("*.npy"))) == 4
