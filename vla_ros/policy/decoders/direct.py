"""Direct regression: the graph's output is the chunk (ACT, and small networks)."""

from collections.abc import Mapping

from vla_ros.policy.backends import Backend
from vla_ros.policy.decoders.decoder import Floats, Tensors, as_floats, run_graph
from vla_ros.policy.manifest import DirectDecoder, Manifest
from vla_ros.policy.prefix import Prefix


class Direct:
    """Takes the output of the graph `policy` as it is."""

    takes_prefix = False

    def __init__(self, manifest: Manifest, settings: DirectDecoder) -> None:
        """Take what the manifest says."""
        self._graph = manifest.graph("policy")
        self._output = settings.output
        self._shape = (1, manifest.action.chunk, manifest.action.width)

    def decode(
        self,
        graphs: Mapping[str, Backend],
        inputs: Tensors,
        *,
        stamp_ns: int,  # noqa: ARG002 - nothing is random here
        prefix: Prefix | None = None,  # noqa: ARG002 - see takes_prefix
    ) -> Floats:
        """Return normalised actions, see `Decoder.decode`."""
        outputs = run_graph(graphs, self._graph, inputs)
        actions: Floats = as_floats(outputs, self._output, self._shape)[0]
        return actions
