"""The model of a bundle: from an observation to a chunk of actions."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from vla_ros.observation.observation import Observation
from vla_ros.observation.state import StateError, state_vector
from vla_ros.policy.backends import Backend, BackendError, OnnxBackend, Tensor
from vla_ros.policy.bundle import Bundle
from vla_ros.policy.manifest import (
    ACTION_NAMES,
    Action,
    BundleError,
    Camera,
    Gripper,
    Manifest,
    MeanStd,
)
from vla_ros.policy.tokens import PAD, UNKNOWN, InstructionEncoder, InstructionError
from vla_ros.types import Array, ImageArray


class PolicyError(RuntimeError):
    """The model gave no usable actions for an observation."""


@dataclass(frozen=True, slots=True)
class Chunk:
    """Actions predicted from one observation, each for one period.

    Attributes:
        stamp_ns: The observation's stamp, t0.
        period_ns: Time of one action.
        twists: Velocity of the TCP in the base frame during each action: linear in m/s, angular in
            rad/s, shape (n, 6).
        gripper: Opening in m commanded with each action, shape (n,).
        instruction: What the observation was told to do.
        epoch: The observation's.

    """

    stamp_ns: int
    period_ns: int
    twists: Array
    gripper: Array
    instruction: str
    epoch: int = 0


class Policy:
    """A bundle's model, ready to run. Not for use from two threads at a time."""

    def __init__(
        self, bundle: Bundle, threads: int = 1, provider: str = "CPUExecutionProvider"
    ) -> None:
        """Open the model and run it once, so that the first chunk is not late.

        Args:
            bundle: The bundle.
            threads: Threads of one inference.
            provider: ONNX Runtime's execution provider.

        Raises:
            BundleError: If the model does not fit the manifest, or the provider cannot run it.

        """
        manifest = bundle.manifest
        _check_supported(manifest, bundle)
        self._manifest = manifest
        self._period_ns = bundle.period_ns
        self._encode: InstructionEncoder | None = None
        if manifest.instruction is not None and manifest.instruction.tokenizer is not None:
            self._encode = InstructionEncoder(
                bundle.file(manifest.instruction.tokenizer), manifest.instruction.length
            )
        graph = manifest.graph("policy")
        self._output = manifest.decoder.output
        self._backend: Backend = OnnxBackend(
            bundle.file(graph.file or ""), graph, threads=threads, provider=provider
        )
        self._backend.run(
            {name: np.zeros(spec.shape, spec.dtype) for name, spec in graph.inputs.items()}
        )

    def unknown_words(self, instruction: str) -> tuple[str, ...]:
        """Return the words of `instruction` that the model has never seen.

        Raises:
            InstructionError: If the instruction is too long for the model.

        """
        return () if self._encode is None else self._encode(instruction).unknown

    def infer(self, observation: Observation) -> Chunk:
        """Return the actions for an observation.

        Raises:
            PolicyError: If the observation lacks what the model needs, or an output is not finite.

        """
        try:
            outputs = self._backend.run(self._inputs(observation))
        except BackendError as err:
            msg = f"the model cannot be run: {err}"
            raise PolicyError(msg) from err
        action = self._manifest.action
        actions = np.asarray(outputs[self._output], np.float64)
        if actions.shape != (1, action.chunk, len(action.names)):
            expected = (1, action.chunk, len(action.names))
            msg = f"the model's output has the shape {actions.shape}, not {expected}"
            raise PolicyError(msg)
        actions = _denormalise(actions[0], action)
        if not np.isfinite(actions).all():
            row, column = np.argwhere(~np.isfinite(actions))[0]
            msg = f"the model's output is not finite: {action.names[column]} of action {row}"
            raise PolicyError(msg)
        rotation = observation.tcp_rotation
        velocities = actions[:, :6] * action.rate_hz
        return Chunk(
            stamp_ns=observation.stamp_ns,
            period_ns=self._period_ns,
            twists=np.hstack([velocities[:, :3] @ rotation.T, velocities[:, 3:] @ rotation.T]),
            gripper=_opening(actions[:, 6], action.gripper),
            instruction=observation.instruction,
            epoch=observation.epoch,
        )

    def _inputs(self, observation: Observation) -> dict[str, Tensor]:
        inputs: dict[str, Tensor] = {}
        instruction, state = self._manifest.instruction, self._manifest.state
        try:
            if instruction is not None and self._encode is not None:
                inputs[instruction.input] = self._encode(observation.instruction).ids
            if state is not None:
                values = state_vector(
                    state.names,
                    observation.joints,
                    observation.tcp_position,
                    observation.tcp_rotation,
                    joint_names=observation.joint_names,
                )
                inputs[state.input] = _normalise(values.astype(np.float64), state.normalisation)
        except (InstructionError, StateError) as err:
            raise PolicyError(str(err)) from err
        for camera in self._manifest.cameras:
            inputs[camera.input] = image_input(observation.images.get(camera.name), camera)
        return inputs


def _check_supported(manifest: Manifest, bundle: Bundle) -> None:
    """Refuse what the manifest can say and this class cannot do.

    Raises:
        BundleError: Naming the first key.

    """
    action, instruction, state = manifest.action, manifest.instruction, manifest.state
    words = (
        (PAD, UNKNOWN)
        if instruction is None
        else (
            instruction.pad_token,
            instruction.unknown_token,
        )
    )
    inputs = manifest.graphs[0].inputs
    able = {
        "decoder.type": manifest.decoder.type == "direct",
        "graphs[0].backend": manifest.graphs[0].backend == "onnx",
        "graphs[0].inputs": {"float32", "int64"} >= {spec.type for spec in inputs.values()},
        "history.steps": manifest.history.steps == 1,
        "cameras": all(camera.type == "float32" for camera in manifest.cameras),
        "state.size": state is None or state.width == len(state.names),
        "state.normalisation": state is None or isinstance(state.normalisation, MeanStd),
        "instruction.unknown_token": words[1] == UNKNOWN,
        "instruction.pad_token": words[0] == PAD,
        "instruction.suffix": instruction is None or not instruction.suffix,
        "instruction.mask_input": instruction is None or instruction.mask_input is None,
        "action.type": action.type == "delta_pose",
        "action.frame": action.frame == "tool",
        "action.reference": action.reference == "previous",
        "action.names": action.names == ACTION_NAMES,
        "action.size": action.width == len(action.names),
        "action.normalisation": isinstance(action.normalisation, MeanStd),
    }
    for key, is_able in able.items():
        if not is_able:
            msg = f"the bundle {bundle.path}: {key}: this version of vla_ros cannot run it"
            raise BundleError(msg)


def _normalise(values: Array, spec: object) -> NDArray[np.float32]:
    if not isinstance(spec, MeanStd):
        raise TypeError(spec)
    scaled = (values - np.asarray(spec.mean)) / (np.asarray(spec.std) + spec.eps)
    return np.asarray(scaled, np.float32).reshape(1, -1)


def _denormalise(values: Array, action: Action) -> Array:
    spec = action.normalisation
    if not isinstance(spec, MeanStd):
        raise TypeError(spec)
    return np.asarray(values * (np.asarray(spec.std) + spec.eps) + spec.mean, np.float64)


def image_input(image: ImageArray | None, camera: Camera) -> NDArray[np.float32]:
    """Return a camera's input of the graph: `(pixel * scale - mean) / std`, with the batch axis.

    Args:
        image: RGB, uint8, shape (*camera.size, 3).
        camera: The manifest's entry.

    Raises:
        PolicyError: If there is no image, or one of another size.

    """
    if image is None or image.shape != (*camera.size, 3):
        found = "no image" if image is None else f"an image of the shape {image.shape}"
        msg = f"the observation has {found} of camera {camera.name!r}, not {(*camera.size, 3)}"
        raise PolicyError(msg)
    # One multiplication and one addition a pixel: (x * scale - mean) / std = x * gain + offset.
    std = np.asarray(camera.std)
    gain = (camera.scale / std).astype(np.float32)
    offset = (-np.asarray(camera.mean) / std).astype(np.float32)
    values = image.astype(np.float32) * gain + offset
    if camera.layout == "nchw":
        values = values.transpose(2, 0, 1)
    return np.ascontiguousarray(values[None])


def _opening(fraction: Array, gripper: Gripper | None) -> Array:
    """Return the opening in m of each open fraction, shape (n,) both."""
    if gripper is None:
        raise TypeError(gripper)
    if gripper.mode == "binary":
        return np.where(fraction >= gripper.threshold, gripper.open_m, gripper.closed_m)
    span = gripper.open_m - gripper.closed_m
    return gripper.closed_m + span * np.clip(fraction, 0.0, 1.0)
