"""Diffusion: noise is taken off actions step by step (Diffusion Policy, C. Chi et al., 2023)."""

from collections.abc import Mapping

from vla_ros.policy.backends import Backend
from vla_ros.policy.decoders.decoder import Floats, Tensors, as_floats, as_input, run_graph
from vla_ros.policy.decoders.noise import generator, normal
from vla_ros.policy.decoders.noise_schedule import NoiseSchedule, betas
from vla_ros.policy.manifest import DiffusionDecoder, Manifest
from vla_ros.policy.prefix import Prefix


class Diffusion:
    """Runs `prefix` once and `step` as often as there are steps.

    The noise of an observation is drawn from one generator: first the sample, shape (1, horizon,
    width), then, of DDPM, as much after each step but the last.
    """

    takes_prefix = False

    def __init__(self, manifest: Manifest, settings: DiffusionDecoder) -> None:
        """Take what the manifest says."""
        self._prefix, self._step = manifest.graph("prefix"), manifest.graph("step")
        self._settings = settings
        self._shape = (1, settings.horizon, manifest.action.width)
        self._used = slice(settings.start, settings.start + manifest.action.chunk)
        self._schedule = NoiseSchedule(
            settings.scheduler,
            betas(settings.betas, settings.train_steps, settings.beta_start, settings.beta_end),
            settings.steps,
            settings.prediction,
            settings.clip,
        )

    def decode(
        self,
        graphs: Mapping[str, Backend],
        inputs: Tensors,
        *,
        stamp_ns: int,
        prefix: Prefix | None = None,  # noqa: ARG002 - see takes_prefix
    ) -> Floats:
        """Return normalised actions, see `Decoder.decode`."""
        settings, schedule = self._settings, self._schedule
        outputs = run_graph(graphs, self._prefix, inputs)
        values = dict(inputs) | {name: outputs[out] for out, name in settings.cache.items()}
        rng = generator(settings.seed, stamp_ns)
        sample = normal(rng, self._shape)
        for index, timestep in enumerate(schedule.timesteps):
            values[settings.noise] = as_input(self._step, settings.noise, sample)
            values[settings.time] = as_input(self._step, settings.time, timestep)
            outputs = run_graph(graphs, self._step, values)
            predicted = as_floats(outputs, settings.output, self._shape)
            noise = normal(rng, self._shape) if schedule.needs_noise(index) else None
            sample = schedule.step(index, predicted, sample, noise)
        return sample[0, self._used]
