"""Action tokens: a language model names the bin of one entry after another.

A. Brohan et al., RT-2, 2023; M. J. Kim et al., OpenVLA, 2024. An entry's value is the centre of its
bin. Greedy: each token is the likeliest of all words, and one that is no bin's is an error rather
than the nearest bin, for then the model does not speak of actions.
"""

from collections.abc import Mapping

import numpy as np

from vla_ros.policy.backends import Backend
from vla_ros.policy.decoders.decoder import DecodingError, Floats, Tensors, as_input, run_graph
from vla_ros.policy.manifest import ActionTokensDecoder, Manifest
from vla_ros.policy.prefix import Prefix


class ActionTokens:
    """Runs `prefix` once, for the first token, and `step` for each further one."""

    takes_prefix = False

    def __init__(self, manifest: Manifest, settings: ActionTokensDecoder) -> None:
        """Take what the manifest says."""
        self._prefix, self._step = manifest.graph("prefix"), manifest.graph("step")
        self._settings = settings
        self._chunk, self._names = manifest.action.chunk, manifest.action.names
        self._width = manifest.action.width

    def decode(
        self,
        graphs: Mapping[str, Backend],
        inputs: Tensors,
        *,
        stamp_ns: int,  # noqa: ARG002 - nothing is random here
        prefix: Prefix | None = None,  # noqa: ARG002 - see takes_prefix
    ) -> Floats:
        """Return normalised actions, see `Decoder.decode`."""
        settings = self._settings
        outputs = run_graph(graphs, self._prefix, inputs)
        cache = {name: outputs[output] for output, name in settings.cache.items()}
        tokens = [self._token(outputs, 0)]
        for count in range(1, self._chunk * len(self._names)):
            values = dict(inputs) | cache
            values[settings.token] = as_input(self._step, settings.token, tokens[-1])
            values[settings.position] = as_input(self._step, settings.position, count - 1)
            outputs = run_graph(graphs, self._step, values)
            cache = {name: outputs[output] for output, name in settings.new_cache.items()}
            tokens.append(self._token(outputs, count))
        bins = np.array([self._bin(token) for token in tokens], np.float64)
        actions = np.zeros((self._chunk, self._width), np.float32)
        width = (settings.high - settings.low) / settings.bins
        values_of_bins = settings.low + (bins + 0.5) * width
        actions[:, : len(self._names)] = values_of_bins.reshape(self._chunk, -1)
        return actions

    def _token(self, outputs: Tensors, count: int) -> int:
        """Return the likeliest token by the last logits: that of entry `count`."""
        logits = np.asarray(outputs[self._settings.output])
        last = logits.reshape(-1, logits.shape[-1])[-1]
        entry = f"{self._names[count % len(self._names)]} of action {count // len(self._names)}"
        if np.isnan(last).any():
            msg = f"the model's output is not finite: {entry}"
            raise DecodingError(msg)
        token = int(np.argmax(last))
        if not 0 <= self._bin(token) < self._settings.bins:
            msg = f"the model's likeliest token is {token}, which is no action: {entry}"
            raise DecodingError(msg)
        return token

    def _bin(self, token: int) -> int:
        settings = self._settings
        if not settings.descending:
            return token - settings.first_token
        number = settings.first_token - token
        # OpenVLA's tokenizer gives the upper edge of the last bin a token of its own.
        return settings.bins - 1 if number == settings.bins else number
