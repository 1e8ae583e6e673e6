"""Whether a bundle computes what the model that it came from does, stage by stage.

The bundle runs as on a robot: `Bundle.load`, and the inputs, backends and decoder of
`vla_ros.policy`. The original runs beside it, on the same random observations with the same noise.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from vla_ros.observation.observation import Observation, Snapshot
from vla_ros.observation.state import JOINT_PREFIX
from vla_ros.policy.backends import Backend, BackendOptions, open_backend
from vla_ros.policy.bundle import Bundle
from vla_ros.policy.decoders import make_decoder
from vla_ros.policy.decoders.noise import generator, normal
from vla_ros.policy.inputs import InputBuilder
from vla_ros.policy.manifest import DiffusionDecoder, FlowDecoder, Manifest
from vla_ros.policy.normalise import denormalise
from vla_ros.types import Array, JointSample

LIMIT = 1e-4
"""Greatest difference of an action, end to end, that an export in float32 may have."""

REPORT = "parity.json"
END_TO_END = "end to end"

Tensors = dict[str, NDArray[Any]]


class Original(Protocol):
    """The model that a bundle came from, as far as it is to be compared."""

    def prepare(self, observation: Observation) -> Any:  # noqa: ANN401 - its own
        """Return what its own preprocessing makes of an observation."""
        ...

    def inputs(self, prepared: Any) -> Tensors:  # noqa: ANN401
        """Return that as the graphs take it, by the inputs' names."""
        ...

    def run(self, graph: str, inputs: Mapping[str, NDArray[Any]]) -> Tensors:
        """Return what a graph gives, computed by the original."""
        ...

    def decode(
        self,
        prepared: Any,  # noqa: ANN401
        noises: list[NDArray[np.float32]],
    ) -> NDArray[np.float32]:
        """Return its normalised actions, shape (chunk, n)."""
        ...

    def postprocess(self, actions: NDArray[np.float32]) -> Array:
        """Return its normalised actions in the manifest's units, shape (chunk, n)."""
        ...


@dataclass(slots=True)
class Parity:
    """Differences between a bundle and its original.

    Attributes:
        stages: Greatest absolute difference of each stage, in the order of the stages: `preprocess`
            (the graphs' inputs), each graph on the same inputs, `decode` (normalised actions of the
            same inputs and noise), `postprocess` (actions of the same normalised ones), `end to
            end` (actions of the same observation).
        range: Greatest absolute value of each stage.
        observations: How many were compared.

    """

    stages: dict[str, float] = field(default_factory=dict)
    range: dict[str, float] = field(default_factory=dict)
    observations: int = 0

    @property
    def end_to_end(self) -> float:
        """The difference that counts."""
        return self.stages[END_TO_END]

    def add(self, stage: str, found: NDArray[Any], expected: NDArray[Any]) -> None:
        """Take a stage's result into account; what is not finite counts as infinitely far off."""
        if found.shape != expected.shape:
            msg = f"{stage}: the bundle gives the shape {found.shape}, the model {expected.shape}"
            raise ValueError(msg)
        values = np.asarray(expected, np.float64)
        difference = np.abs(np.asarray(found, np.float64) - values)
        worst = float(difference.max(initial=0.0)) if np.isfinite(difference).all() else np.inf
        self.stages[stage] = max(self.stages.get(stage, 0.0), worst)
        self.range[stage] = max(self.range.get(stage, 0.0), float(np.abs(values).max(initial=0.0)))


class Recording:
    """A backend that remembers what it was asked and what it answered."""

    def __init__(self, backend: Backend) -> None:
        """Ask `backend`."""
        self._backend = backend
        self.calls: list[tuple[Tensors, Tensors]] = []

    def run(self, inputs: Mapping[str, Any]) -> Tensors:
        """Return the outputs by name."""
        outputs = dict(self._backend.run(inputs))
        self.calls.append((dict(inputs), outputs))
        return outputs

    def close(self) -> None:
        """Close the backend."""
        self._backend.close()


def compare(bundle: Bundle, original: Original, observations: int, seed: int = 0) -> Parity:
    """Return how far a bundle is off its original.

    Args:
        bundle: The bundle, of which each graph is run by its own backend with one thread.
        original: What it came from.
        observations: How many random observations.
        seed: Of the observations.

    """
    manifest, parity = bundle.manifest, Parity(observations=observations)
    build, decoder = InputBuilder(bundle), make_decoder(manifest)
    graphs = {
        graph.name: Recording(open_backend(bundle, graph, BackendOptions()))
        for graph in manifest.graphs
    }
    width = len(manifest.action.names)
    for index in range(observations):
        observation = random_observation(manifest, seed + index, bundle)
        prepared = original.prepare(observation)
        expected_inputs, inputs = original.inputs(prepared), build(observation)
        for name, value in expected_inputs.items():
            parity.add("preprocess", inputs[name], value)
        noises = noise(manifest, observation.stamp_ns)
        expected = original.decode(prepared, noises)
        for backend in graphs.values():
            backend.calls.clear()
        decoded = decoder.decode(graphs, expected_inputs, stamp_ns=observation.stamp_ns)[:, :width]
        for name, backend in graphs.items():
            for given, answer in backend.calls:
                for output, value in original.run(name, given).items():
                    parity.add(name, answer[output], value)
        parity.add("decode", decoded, expected)
        after = original.postprocess(expected)
        spec = manifest.action.normalisation
        parity.add("postprocess", denormalise(expected.astype(np.float64), spec), after)
        whole = decoder.decode(graphs, inputs, stamp_ns=observation.stamp_ns)[:, :width]
        parity.add(END_TO_END, denormalise(whole.astype(np.float64), spec), after)
    for backend in graphs.values():
        backend.close()
    return parity


def noise(manifest: Manifest, stamp_ns: int) -> list[NDArray[np.float32]]:
    """Return the noise that the decoder draws for an observation, in its order."""
    decoder, action = manifest.decoder, manifest.action
    if not isinstance(decoder, FlowDecoder | DiffusionDecoder):
        return []
    horizon, again = action.chunk, 0
    if isinstance(decoder, DiffusionDecoder):
        horizon = decoder.horizon
        again = decoder.steps - 1 if decoder.scheduler == "ddpm" else 0
    rng = generator(decoder.seed, stamp_ns)
    return [normal(rng, (1, horizon, action.width)) for _ in range(1 + again)]


def random_observation(manifest: Manifest, seed: int, bundle: Bundle | None = None) -> Observation:
    """Return noise as images, and joints spread as the model's statistics are.

    Args:
        manifest: Of the model that is shown it.
        seed: Of the random numbers.
        bundle: Where the tokenizer is, whose words make the instruction.

    """
    rng = np.random.default_rng(seed)
    period_ns = round(1e9 * (manifest.history.period_s or 0.0))
    stamp_ns = 1_000_000_000 + seed
    steps = manifest.history.steps
    joint_names = _joint_names(manifest)
    moments = []
    for index in range(steps):
        values = _random_state(manifest, rng)
        axes, _ = np.linalg.qr(rng.normal(size=(3, 3)))
        moments.append(
            Snapshot(
                stamp_ns=stamp_ns - (steps - 1 - index) * period_ns,
                images={
                    camera.name: rng.integers(0, 256, (*camera.size, 3), np.uint8)
                    for camera in manifest.cameras
                },
                joints=JointSample(
                    stamp_ns=stamp_ns,
                    position=np.array([values.get(JOINT_PREFIX + n, 0.0) for n in joint_names]),
                    velocity=np.zeros(len(joint_names)),
                    effort=None,
                    gripper=values.get("gripper.opening", 0.0),
                ),
                tcp_position=rng.normal(size=3),
                tcp_rotation=axes * np.linalg.det(axes),
            )
        )
    *earlier, latest = moments
    return Observation(
        stamp_ns=latest.stamp_ns,
        images=latest.images,
        joints=latest.joints,
        joint_names=joint_names,
        tcp_position=latest.tcp_position,
        tcp_rotation=latest.tcp_rotation,
        instruction=_instruction(manifest, rng, bundle),
        history=tuple(earlier),
    )


def _joint_names(manifest: Manifest) -> tuple[str, ...]:
    names = () if manifest.state is None else manifest.state.names
    return tuple(name.removeprefix(JOINT_PREFIX) for name in names if name.startswith(JOINT_PREFIX))


def _random_state(manifest: Manifest, rng: np.random.Generator) -> dict[str, float]:
    state = manifest.state
    if state is None:
        return {}
    values = denormalise(np.clip(rng.normal(size=len(state.names)), -2.0, 2.0), state.normalisation)
    return dict(zip(state.names, values.tolist(), strict=True))


def _instruction(manifest: Manifest, rng: np.random.Generator, bundle: Bundle | None) -> str:
    """Return a few words of the tokenizer, which need make no sense."""
    section = manifest.instruction
    if section is None or section.tokenizer is None or bundle is None:
        return ""
    content = json.loads(bundle.file(section.tokenizer).read_text(encoding="utf-8"))
    vocabulary = content.get("model", {}).get("vocab", {})
    entries = vocabulary if isinstance(vocabulary, dict) else [entry[0] for entry in vocabulary]
    words = [word for word in entries if word.isascii() and word.isalpha()] or ["go"]
    return " ".join(rng.choice(sorted(words), 3))


def write_report(folder: Path, content: Mapping[str, Any]) -> Path:
    """Write `parity.json`."""
    file = folder / REPORT
    file.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
    return file


def table(parities: Mapping[str, Parity]) -> str:
    """Return the stages' differences as a table for people, one column a variant."""
    names = list(parities)
    stages = list(parities[names[0]].stages)
    lines = [
        f"{'greatest difference':<22}" + "".join(f"{name:>12}" for name in names) + f"{'of':>12}"
    ]
    for stage in stages:
        figures = "".join(f"{parities[name].stages[stage]:>12.1e}" for name in names)
        lines.append(f"{stage:<22}{figures}{parities[names[0]].range[stage]:>12.3g}")
    return "\n".join(lines)
