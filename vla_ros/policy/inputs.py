"""From an observation to the named tensors that a bundle's graphs take."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from vla_ros.observation.observation import Observation, Snapshot
from vla_ros.observation.state import StateError, state_vector
from vla_ros.policy.bundle import Bundle
from vla_ros.policy.manifest import Camera, State
from vla_ros.policy.normalise import normalise
from vla_ros.policy.tokens import InstructionEncoder, InstructionError
from vla_ros.types import ImageArray

Input = NDArray[Any]


class InputError(ValueError):
    """An observation lacks what a model needs."""


class InputBuilder:
    """Makes a bundle's inputs out of observations."""

    def __init__(self, bundle: Bundle) -> None:
        """Open the tokenizer, where there is one.

        Raises:
            BundleError: If it cannot be used.

        """
        manifest = bundle.manifest
        self._cameras, self._state = manifest.cameras, manifest.state
        self._steps = manifest.history.steps
        self._instruction = manifest.instruction
        self._encode: InstructionEncoder | None = None
        if manifest.instruction is not None and manifest.instruction.tokenizer is not None:
            self._encode = InstructionEncoder(
                bundle.file(manifest.instruction.tokenizer), manifest.instruction
            )

    def unknown_words(self, instruction: str) -> tuple[str, ...]:
        """Return the words of `instruction` that the tokenizer does not know.

        None of models that take no instruction, or the text itself.

        Raises:
            InstructionError: If the instruction is too long for the model.

        """
        return () if self._encode is None else self._encode(instruction).unknown

    def __call__(self, observation: Observation) -> dict[str, Input]:
        """Return what the manifest calls `observation_inputs`, by name, in its shapes and types.

        Raises:
            InputError: If the observation lacks something.

        """
        moments = self._moments(observation)
        inputs = {
            camera.input: self._stack(
                [image_input(moment.images.get(camera.name), camera) for moment in moments]
            )
            for camera in self._cameras
        }
        try:
            if (state := self._state) is not None:
                names = observation.joint_names
                values = [state_input(moment, names, state) for moment in moments]
                inputs[state.input] = self._stack(values)
            inputs |= self._words(observation.instruction)
        except (InstructionError, StateError) as err:
            raise InputError(str(err)) from err
        return inputs

    def _moments(self, observation: Observation) -> list[Snapshot | Observation]:
        """Return the moments of an observation, oldest first."""
        if self._steps == 1:
            return [observation]
        earlier = observation.history
        if len(earlier) != self._steps - 1:
            msg = (
                f"the observation has {len(earlier)} earlier moments, but history.steps in the "
                f"manifest, {self._steps}, needs {self._steps - 1}"
            )
            raise InputError(msg)
        return [*earlier, observation]

    def _stack(self, values: list[Input]) -> Input:
        """Return one moment's input, or that of all with their axis after the batch's."""
        return values[0] if self._steps == 1 else np.stack(values, axis=1)

    def _words(self, text: str) -> dict[str, Input]:
        if self._instruction is None:
            return {}
        if self._encode is None:
            return {self._instruction.input: np.array([text + self._instruction.suffix], object)}
        tokens = self._encode(text)
        words: dict[str, Input] = {self._instruction.input: tokens.ids}
        if self._instruction.mask_input is not None:
            words[self._instruction.mask_input] = tokens.mask
        return words


def state_input(
    moment: Snapshot | Observation, joint_names: tuple[str, ...], state: State
) -> NDArray[np.float32]:
    """Return the state of one moment, normalised and filled up with zeros, shape (1, width).

    Raises:
        StateError: If the robot does not have an entry.

    """
    values = state_vector(
        state.names,
        moment.joints,
        moment.tcp_position,
        moment.tcp_rotation,
        joint_names=joint_names,
    )
    result = np.zeros((1, state.width), np.float32)
    result[0, : len(state.names)] = normalise(values.astype(np.float64), state.normalisation)
    return result


def image_input(image: ImageArray | None, camera: Camera) -> NDArray[Any]:
    """Return a camera's input for one moment, with the batch axis, shape `camera.input_shape`.

    Of type float32 it is `(pixel * scale - mean) / std`; of type uint8 the pixels as they are.

    Args:
        image: RGB, uint8, shape (*camera.size, 3).
        camera: The manifest's entry.

    Raises:
        InputError: If there is no image, or one of another size.

    """
    if image is None or image.shape != (*camera.size, 3):
        found = "no image" if image is None else f"an image of the shape {image.shape}"
        msg = f"the observation has {found} of camera {camera.name!r}, not {(*camera.size, 3)}"
        raise InputError(msg)
    planar = camera.layout == "nchw"
    values: NDArray[Any] = np.ascontiguousarray(image.transpose(2, 0, 1) if planar else image)
    if camera.type == "float32":
        # One multiplication and one addition a pixel: (x * scale - mean) / std = x * gain + offset.
        std = np.asarray(camera.std)
        gain = (camera.scale / std).astype(np.float32)
        offset = (-np.asarray(camera.mean) / std).astype(np.float32)
        if planar:
            gain, offset = gain[:, None, None], offset[:, None, None]
        else:
            # A row at a time: numpy is slow where the innermost axis is but three long.
            gain, offset = (np.tile(row, image.shape[1]).reshape(-1, 3) for row in (gain, offset))
        values = values.astype(np.float32)
        values *= gain
        values += offset
    return values[None]
