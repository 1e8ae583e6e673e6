"""Flow matching: noise flows to actions along a velocity that the model gives (pi0, SmolVLA).

Y. Lipman et al., Flow Matching for Generative Modeling, 2023; K. Black et al., pi0, 2024, eq. 2.
Euler's method with steps of equal length. LeRobot and openpi count time from 1 (noise) to 0, and
their velocity points from the actions to the noise: `one_to_zero`.
"""

from collections.abc import Mapping

import numpy as np

from vla_ros.policy.backends import Backend
from vla_ros.policy.decoders.decoder import Floats, Tensors, as_floats, as_input, run_graph
from vla_ros.policy.decoders.guidance import Guidance
from vla_ros.policy.decoders.noise import generator, normal
from vla_ros.policy.manifest import FlowDecoder, Manifest
from vla_ros.policy.prefix import Prefix


class Flow:
    """Runs `prefix` once and `step` as often as there are steps."""

    takes_prefix = True

    def __init__(self, manifest: Manifest, settings: FlowDecoder) -> None:
        """Take what the manifest says."""
        self._prefix, self._step = manifest.graph("prefix"), manifest.graph("step")
        self._settings = settings
        self._shape = (1, manifest.action.chunk, manifest.action.width)

    def decode(
        self,
        graphs: Mapping[str, Backend],
        inputs: Tensors,
        *,
        stamp_ns: int,
        prefix: Prefix | None = None,
    ) -> Floats:
        """Return normalised actions, see `Decoder.decode`."""
        settings = self._settings
        guidance = None if prefix is None else Guidance(prefix, self._shape)
        backward = settings.direction == "one_to_zero"
        outputs = run_graph(graphs, self._prefix, inputs)
        values = dict(inputs) | {name: outputs[out] for out, name in settings.cache.items()}
        sample = normal(generator(settings.seed, stamp_ns), self._shape)
        length = 1.0 / settings.steps
        signed = np.float32(-length if backward else length)
        for index in range(settings.steps):
            progress = index * length
            time = 1.0 - progress if backward else progress
            values[settings.noise] = as_input(self._step, settings.noise, sample)
            values[settings.time] = as_input(self._step, settings.time, time)
            outputs = run_graph(graphs, self._step, values)
            velocity = as_floats(outputs, settings.output, self._shape)
            if guidance is not None:
                # Where the velocity leads from here in the time that is left.
                left = np.float32((-1.0 if backward else 1.0) * (1.0 - progress))
                pull = guidance.pull(sample + left * velocity, progress)
                velocity = velocity - pull if backward else velocity + pull
            sample = sample + signed * velocity
        return np.asarray(sample[0])
