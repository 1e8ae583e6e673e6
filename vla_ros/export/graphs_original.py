"""A bundle's own graphs, run by something else, as an original to compare the bundle with."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vla_ros.observation.observation import Observation
from vla_ros.policy.backends import Backend, BackendOptions, open_backend
from vla_ros.policy.bundle import Bundle
from vla_ros.policy.decoders import make_decoder
from vla_ros.policy.inputs import InputBuilder
from vla_ros.policy.normalise import denormalise
from vla_ros.types import Array

Prepared = tuple[dict[str, NDArray[Any]], int]


class GraphsOriginal:
    """Inputs and decoder are the bundle's; only what runs the graphs differs."""

    def __init__(self, bundle: Bundle, graphs: Mapping[str, Backend] | None = None) -> None:
        """Run `graphs`, by name; by default the bundle's own.

        Args:
            bundle: Whose manifest it follows.
            graphs: What runs each graph.

        """
        self._manifest = bundle.manifest
        self._build, self._decoder = InputBuilder(bundle), make_decoder(bundle.manifest)
        self._graphs = graphs or {
            graph.name: open_backend(bundle, graph, BackendOptions())
            for graph in bundle.manifest.graphs
        }

    def prepare(self, observation: Observation) -> Prepared:
        """Return the graphs' inputs, and the stamp that the noise comes from."""
        return self._build(observation), observation.stamp_ns

    def inputs(self, prepared: Prepared) -> dict[str, NDArray[Any]]:
        """Return the graphs' inputs."""
        return prepared[0]

    def run(self, graph: str, inputs: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
        """Return what a graph gives."""
        return dict(self._graphs[graph].run(inputs))

    def decode(
        self,
        prepared: Prepared,
        noises: list[NDArray[np.float32]],
    ) -> NDArray[np.float32]:
        """Return the normalised actions; the decoder draws the noise again, from the stamp."""
        del noises
        actions = self._decoder.decode(self._graphs, prepared[0], stamp_ns=prepared[1])
        return actions[:, : len(self._manifest.action.names)]

    def postprocess(self, actions: NDArray[np.float32]) -> Array:
        """Return the actions in the manifest's units."""
        return denormalise(actions.astype(np.float64), self._manifest.action.normalisation)
