"""Demonstrations on disk: a folder of shards, each a folder of arrays.

A shard appears whole or not at all.
"""

import json
import os
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

DESCRIPTION = "description.json"
_IMAGES = ("front", "wrist")


def shard_path(folder: Path, index: int) -> Path:
    """Return where the shard of an index is kept."""
    return folder / f"shard_{index:04d}"


def write_shard(path: Path, episodes: Sequence[Mapping[str, NDArray[Any]]]) -> int:
    """Write episodes as one shard and return the number of observations in it.

    Args:
        path: Folder to make; an interrupted write leaves nothing there.
        episodes: See `vla_ros.learn.episodes.record`.

    """
    partial = path.with_name(f"{path.name}.partial-{os.getpid()}")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    joined = {name: np.concatenate([e[name] for e in episodes]) for name in episodes[0]}
    for name, array in joined.items():
        np.save(partial / f"{name}.npy", array)
    partial.rename(path)
    return len(joined["state"])


class Dataset:
    """All observations of a folder of shards. Images stay on disk, mapped into memory.

    Attributes:
        episode: Seed of each observation's episode, shape (n,).
        state_mean: Mean of the state vector, float32 (17,).
        state_std: Its standard deviation, at least 1e-3, float32 (17,).
        description: What the shards were generated with.

    """

    def __init__(self, shards: Sequence[Path], description: dict[str, Any]) -> None:
        """Open shards, in order; `Dataset.load` finds them."""
        self.description = description
        self._mapped = {
            name: [np.load(shard / f"{name}.npy", mmap_mode="r") for shard in shards]
            for name in _IMAGES
        }
        names = [f.stem for f in shards[0].glob("*.npy") if f.stem not in _IMAGES]
        self._labels: dict[str, NDArray[Any]] = {
            name: np.concatenate([np.load(shard / f"{name}.npy") for shard in shards])
            for name in sorted(names)
        }
        self._starts = np.cumsum([0, *(len(part) for part in self._mapped["front"])])
        self.episode = self._labels["episode"]
        state = self._labels["state"].astype(np.float64)
        self.state_mean: NDArray[np.float32] = state.mean(0).astype(np.float32)
        self.state_std: NDArray[np.float32] = np.maximum(state.std(0), 1e-3).astype(np.float32)

    @classmethod
    def load(cls, folder: Path) -> "Dataset":
        """Open what `vla_ros learn generate` wrote.

        Raises:
            ValueError: If there is nothing, or the generation was interrupted.

        """
        hint = "run: vla_ros learn generate"
        try:
            description = json.loads((folder / DESCRIPTION).read_text(encoding="utf-8"))
        except OSError as err:
            msg = f"no demonstrations in {folder} ({err.strerror}); {hint}"
            raise ValueError(msg) from err
        shards = [shard_path(folder, i) for i in range(description["shards"])]
        missing = sum(not shard.exists() for shard in shards)
        if missing:
            msg = (
                f"{missing} of {len(shards)} shards are missing in {folder}; {hint} (it continues)"
            )
            raise ValueError(msg)
        return cls(shards, description)

    def __len__(self) -> int:
        return len(self.episode)

    def images(self, rows: NDArray[np.int64]) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
        """Return the front and wrist images of rows, uint8 (b, h, w, 3)."""
        shard = np.searchsorted(self._starts, rows, side="right") - 1
        front, wrist = (
            np.stack(
                [
                    self._mapped[name][s][r - self._starts[s]]
                    for s, r in zip(shard, rows, strict=True)
                ]
            )
            for name in _IMAGES
        )
        return front, wrist

    def labels(self, rows: NDArray[np.int64]) -> dict[str, NDArray[Any]]:
        """Return everything but the images of rows."""
        return {name: array[rows] for name, array in self._labels.items()}

    def normalised_state(self, rows: NDArray[np.int64]) -> NDArray[np.float32]:
        """Return the state of rows as the network takes it, shape (b, 17)."""
        normalised: NDArray[np.float32] = (
            self._labels["state"][rows] - self.state_mean
        ) / self.state_std
        return normalised
