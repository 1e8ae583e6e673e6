"""The model of a bundle: from an observation to a chunk of actions."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from vla_ros.observation.observation import Observation
from vla_ros.observation.state import StateError, state_vector
from vla_ros.policy.backends import Backend, BackendError, OnnxBackend, Tensor
from vla_ros.policy.bundle import (
    ACTIONS_OUTPUT,
    STATE_INPUT,
    TOKENS_INPUT,
    Bundle,
    Camera,
    Gripper,
    denormalise,
    normalise,
)
from vla_ros.policy.tokens import InstructionEncoder, InstructionError
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
        self._manifest = bundle.manifest
        self._period_ns = bundle.period_ns
        self._encode = InstructionEncoder(
            bundle.file(bundle.manifest.instruction.tokenizer), bundle.manifest.instruction.length
        )
        self._backend: Backend = OnnxBackend(
            bundle.file(bundle.graph.file), bundle.graph, threads=threads, provider=provider
        )
        self._backend.run(
            {
                name: np.zeros(shape, np.int64 if name == TOKENS_INPUT else np.float32)
                for name, shape in bundle.graph.inputs.items()
            }
        )

    def unknown_words(self, instruction: str) -> tuple[str, ...]:
        """Return the words of `instruction` that the model has never seen.

        Raises:
            InstructionError: If the instruction is too long for the model.

        """
        return self._encode(instruction).unknown

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
        actions = np.asarray(outputs[ACTIONS_OUTPUT], np.float64)
        if actions.shape != (1, action.chunk, len(action.names)):
            expected = (1, action.chunk, len(action.names))
            msg = f"the model's output has the shape {actions.shape}, not {expected}"
            raise PolicyError(msg)
        actions = denormalise(actions[0], action.mean, action.std)
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
        state = self._manifest.state
        try:
            tokens = self._encode(observation.instruction)
            values = state_vector(
                state.names,
                observation.joints,
                observation.tcp_position,
                observation.tcp_rotation,
                joint_names=observation.joint_names,
            )
        except (InstructionError, StateError) as err:
            raise PolicyError(str(err)) from err
        inputs: dict[str, Tensor] = {
            STATE_INPUT: normalise(values.astype(np.float64), state.mean, state.std)
            .astype(np.float32)
            .reshape(1, -1),
            TOKENS_INPUT: tokens.ids,
        }
        for camera in self._manifest.cameras:
            inputs[camera.name] = image_input(observation.images.get(camera.name), camera)
        return inputs


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


def _opening(fraction: Array, gripper: Gripper) -> Array:
    """Return the opening in m of each open fraction, shape (n,) both."""
    if gripper.mode == "binary":
        return np.where(fraction >= gripper.threshold, gripper.open_m, gripper.closed_m)
    span = gripper.open_m - gripper.closed_m
    return gripper.closed_m + span * np.clip(fraction, 0.0, 1.0)
