"""lerobot's policy as `vla_ros.export.parity` compares it with a bundle."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from vla_ros.export.lerobot.reference import LeRobot
from vla_ros.observation.observation import Observation
from vla_ros.types import Array

Batches = list[dict[str, torch.Tensor]]


class LeRobotOriginal:
    """Runs lerobot's processors, its policy, and the modules that became graphs."""

    def __init__(self, lerobot: LeRobot) -> None:
        """Compare with `lerobot`."""
        self._lerobot = lerobot
        self._graphs = {graph.name: graph for graph in lerobot.model.graphs}

    def prepare(self, observation: Observation) -> Batches:
        """Return what lerobot's preprocessor makes of each moment."""
        return self._lerobot.batches(observation)

    def inputs(self, prepared: Batches) -> dict[str, NDArray[Any]]:
        """Return that as the graphs take it."""
        return self._lerobot.inputs(prepared)

    def run(self, graph: str, inputs: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
        """Return what a graph gives, computed in torch."""
        return self._graphs[graph].run(inputs)

    def decode(self, prepared: Batches, noises: list[NDArray[np.float32]]) -> NDArray[np.float32]:
        """Return lerobot's normalised actions."""
        return self._lerobot.decode(prepared, noises)

    def postprocess(self, actions: NDArray[np.float32]) -> Array:
        """Return lerobot's actions in the manifest's units."""
        return self._lerobot.postprocess(actions)
