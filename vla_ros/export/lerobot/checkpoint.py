"""What a LeRobot checkpoint says of itself, read without lerobot.

A checkpoint is a folder: `config.json`, `model.safetensors`, and since lerobot 0.4
`policy_preprocessor.json` and `policy_postprocessor.json`, ordered steps whose numbers lie in
safetensors files beside them. Where lerobot lets a value through for want of its statistics, or
does more than a manifest can say, this raises: the arm would move all the same.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vla_ros.export.error import ExportError

KINDS = ("act", "diffusion", "smolvla", "pi0")
WEIGHTS = "model.safetensors"
ENVIRONMENT = ".venv-lerobot"
"""Where lerobot is installed, beside the rest, which its pins conflict with."""

_IMAGE = "observation.image"
_STATE = "observation.state"
_ACTION = "action"
_EMPTY_CAMERA = "observation.images.empty_camera_"

_STATISTICS = {
    "MEAN_STD": ("mean", "std"),
    "MIN_MAX": ("min", "max"),
    "QUANTILES": ("q01", "q99"),
    "QUANTILE10": ("q10", "q90"),
}
# What changes nothing that a bundle would have to say.
_HARMLESS = ("to_batch_processor", "device_processor")
_NEW_LINE = ("smolvla_new_line_processor", "pi0_new_line_processor")

_SAFETENSORS_TYPES = {
    "F64": "<f8",
    "F32": "<f4",
    "F16": "<f2",
    "I64": "<i8",
    "I32": "<i4",
    "U8": "u1",
    "BOOL": "?",
}
_SHORTEST_HEADER, _LARGEST_HEADER = len("{}"), 100_000_000


@dataclass(frozen=True, slots=True)
class CameraFeature:
    """One camera of a checkpoint.

    Attributes:
        key: lerobot's key of the policy's input.
        name: The camera's name in the bundle: what the robot that recorded the data called it.
        size: Height and width in pixels.
        mean: Of red, green and blue, of pixels from 0 to 1.
        std: Of red, green and blue; what is added against a division by zero is in it.

    """

    key: str
    name: str
    size: tuple[int, int]
    mean: tuple[float, ...]
    std: tuple[float, ...]


@dataclass(frozen=True, slots=True)
class TokenizerStep:
    """How the instruction becomes tokens.

    Attributes:
        name: The tokenizer's id on the hub, or its folder.
        length: Tokens, at most.
        suffix: What is appended to the instruction.

    """

    name: str
    length: int
    suffix: str


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """A checkpoint, but for its weights.

    Attributes:
        folder: Where it lies.
        kind: One of `KINDS`.
        config: `config.json`.
        cameras: The cameras, in the policy's order, without those that are always empty.
        state_size: Entries of the state; 0 where the policy takes none.
        state: Normalisation of the state, as a manifest has it; None without one.
        action_size: Entries of an action.
        action: Normalisation of the action.
        tokenizer: How the instruction becomes tokens; None where the policy takes none.

    """

    folder: Path
    kind: str
    config: Mapping[str, Any]
    cameras: tuple[CameraFeature, ...]
    state_size: int
    state: Mapping[str, Any] | None
    action_size: int
    action: Mapping[str, Any]
    tokenizer: TokenizerStep | None


def read_checkpoint(folder: Path) -> Checkpoint:
    """Read a checkpoint's configuration and its processors' statistics.

    Raises:
        ExportError: If something is missing, or cannot be said in a manifest.

    """
    if not folder.is_dir():
        msg = (
            f"{folder}: there is no such folder: give that with config.json (pretrained_model); "
            f"one on the hub: {ENVIRONMENT}/bin/hf download OWNER/NAME --local-dir FOLDER"
        )
        raise ExportError(msg)
    config = _read_json(folder, "config.json", "is this a checkpoint's folder (pretrained_model)?")
    kind = config.get("type")
    if kind not in KINDS:
        msg = (
            f"{folder / 'config.json'}: type: is {kind!r}; {', '.join(KINDS)} can be exported. "
            "Another policy: write it as ONNX yourself, then `vla_ros export onnx`"
        )
        raise ExportError(msg)
    if not (folder / WEIGHTS).is_file():
        msg = f"{folder / WEIGHTS}: there is no such file: copy the checkpoint again, whole"
        raise ExportError(msg)
    older = (
        "since lerobot 0.4 it holds the statistics; to convert an older checkpoint: "
        "python -m lerobot.processor.migrate_policy_normalization --pretrained-path ..."
    )
    before = _Processor.read(folder, "policy_preprocessor.json", older)
    after = _Processor.read(folder, "policy_postprocessor.json", older)
    features = _features(config, "input_features", folder)
    actions = _features(config, "output_features", folder)
    if _ACTION not in actions:
        msg = f"{folder / 'config.json'}: output_features: lacks {_ACTION!r}"
        raise ExportError(msg)
    for key, feature in features.items():
        known = key.startswith(_IMAGE) if feature["type"] == "VISUAL" else key == _STATE
        if not known:
            msg = (
                f"{folder / 'config.json'}: input_features: {key!r} of type {feature['type']} is "
                f"nothing that a robot gives here: cameras ({_IMAGE}s.*) and {_STATE} are"
            )
            raise ExportError(msg)
    state_shape = features[_STATE]["shape"] if _STATE in features else [0]
    return Checkpoint(
        folder=folder,
        kind=kind,
        config=config,
        cameras=tuple(
            before.camera(key, feature)
            for key, feature in features.items()
            if feature["type"] == "VISUAL" and not key.startswith(_EMPTY_CAMERA)
        ),
        state_size=int(state_shape[0]),
        state=before.normalisation(_STATE, state_shape) if _STATE in features else None,
        action_size=int(actions[_ACTION]["shape"][0]),
        action=after.normalisation(_ACTION, actions[_ACTION]["shape"]),
        tokenizer=before.tokenizer(),
    )


@dataclass(frozen=True, slots=True)
class _Processor:
    """One of the two processors."""

    file: Path
    steps: tuple[Mapping[str, Any], ...]
    features: Mapping[str, Mapping[str, Any]]
    modes: Mapping[str, str]
    eps: float
    only: tuple[str, ...] | None
    statistics: Mapping[str, NDArray[np.float64]]
    statistics_file: Path
    renamed: Mapping[str, str]

    @classmethod
    def read(cls, folder: Path, name: str, hint: str) -> "_Processor":
        content = _read_json(folder, name, hint)
        file = folder / name
        steps = content.get("steps")
        if not isinstance(steps, list) or not all(isinstance(step, dict) for step in steps):
            msg = f"{file}: steps: must be a list of steps"
            raise ExportError(msg)
        settings: Mapping[str, Any] | None = None
        numbers, numbers_file = {}, file
        renamed: dict[str, str] = {}
        for index, step in enumerate(steps):
            kind = step.get("registry_name", step.get("class", "?"))
            if kind in {"normalizer_processor", "unnormalizer_processor"}:
                settings = step.get("config", {})
                if "state_file" in step:
                    numbers_file = folder / Path(str(step["state_file"])).name
                    numbers = read_safetensors(numbers_file)
            elif kind == "rename_observations_processor":
                renamed = {v: k for k, v in step.get("config", {}).get("rename_map", {}).items()}
            elif kind not in (*_HARMLESS, *_NEW_LINE, "tokenizer_processor"):
                msg = (
                    f"{file}: steps[{index}]: {kind!r} does what no manifest can say: "
                    "export the graph with it inside, then `vla_ros export onnx`"
                )
                raise ExportError(msg)
        if settings is None:
            msg = f"{file}: steps: holds no normalizer: export cannot know the policy's units"
            raise ExportError(msg)
        only = settings.get("normalize_observation_keys")
        return cls(
            file=file,
            steps=tuple(steps),
            features=settings.get("features", {}),
            modes=settings.get("norm_map", {}),
            eps=float(settings.get("eps", 1e-8)),
            only=None if only is None else tuple(only),
            statistics=numbers,
            statistics_file=numbers_file,
            renamed=renamed,
        )

    def _numbers(self, key: str, kind: str) -> tuple[str, list[NDArray[np.float64]]]:
        """Return the mode and the two statistics of a feature; IDENTITY has none."""
        mode = self.modes.get(kind, "IDENTITY")
        # lerobot heeds the list for observations alone.
        left_out = self.only is not None and key != _ACTION and key not in self.only
        if mode == "IDENTITY" or key not in self.features or left_out:
            return "IDENTITY", []
        if mode not in _STATISTICS:
            msg = f"{self.file}: norm_map: {kind}: {mode!r} is none of {', '.join(_STATISTICS)}"
            raise ExportError(msg)
        found: list[NDArray[np.float64]] = []
        for statistic in _STATISTICS[mode]:
            name = f"{key}.{statistic}"
            if name not in self.statistics:
                msg = (
                    f"{self.statistics_file}: {name}: is missing, which {mode} needs: lerobot "
                    "would leave the values as they are. Save the processors with the data's stats"
                )
                raise ExportError(msg)
            values = self.statistics[name].ravel()
            if not np.isfinite(values).all():
                msg = f"{self.statistics_file}: {name}: is not finite"
                raise ExportError(msg)
            found.append(values)
        return mode, found

    def normalisation(self, key: str, shape: Sequence[int]) -> dict[str, Any]:
        """Return a vector's normalisation, as a manifest has it."""
        kind = "ACTION" if key == _ACTION else "STATE"
        mode, numbers = self._numbers(key, kind)
        for values in numbers:
            if len(values) != shape[0]:
                msg = (
                    f"{self.statistics_file}: {key}: has statistics of {len(values)} entries, but "
                    f"the policy has {shape[0]}"
                )
                raise ExportError(msg)
        if mode == "IDENTITY":
            return {"type": "identity"}
        first, second = (values.tolist() for values in numbers)
        if mode == "MEAN_STD":
            return {"type": "mean_std", "mean": first, "std": second, "eps": self.eps}
        if mode == "MIN_MAX":
            return {"type": "min_max", "min": first, "max": second}
        return {"type": "quantiles", "low": first, "high": second}

    def camera(self, key: str, feature: Mapping[str, Any]) -> CameraFeature:
        """Return a camera."""
        shape = feature["shape"]
        if len(shape) != 3 or shape[0] != 3:  # noqa: PLR2004 - colour, height, width
            msg = (
                f"{self.file.parent / 'config.json'}: input_features: {key}: shape: is {shape}, "
                "not (3, height, width)"
            )
            raise ExportError(msg)
        mode, numbers = self._numbers(key, "VISUAL")
        mean: NDArray[np.float64] = np.zeros(3)
        std: NDArray[np.float64] = np.ones(3)
        for values in numbers:
            if len(values) not in {1, 3}:
                msg = f"{self.statistics_file}: {key}: has {len(values)} numbers, not one a colour"
                raise ExportError(msg)
        if mode == "MEAN_STD":
            mean, std = numbers[0], numbers[1] + self.eps
        elif mode != "IDENTITY":
            low, high = numbers
            span = np.where(high == low, self.eps, high - low)
            mean, std = low + span / 2.0, span / 2.0
        source = self.renamed.get(key, key)
        name = source.removeprefix(f"{_IMAGE}s.").removeprefix("observation.")
        return CameraFeature(
            key=key,
            name="".join(c if c.isalnum() else "_" for c in name),
            size=(int(shape[1]), int(shape[2])),
            mean=tuple(np.broadcast_to(mean, 3).tolist()),
            std=tuple(np.broadcast_to(std, 3).tolist()),
        )

    def tokenizer(self) -> TokenizerStep | None:
        """Return how the instruction becomes tokens."""
        suffix = ""
        for index, step in enumerate(self.steps):
            settings = step.get("config", {})
            if step.get("registry_name") in _NEW_LINE:
                suffix = "\n"
            elif step.get("registry_name") == "tokenizer_processor":
                where = f"{self.file}: steps[{index}]"
                if settings.get("padding_side", "right") != "right":
                    msg = f"{where}: padding_side: is {settings['padding_side']!r}, not 'right'"
                    raise ExportError(msg)
                return TokenizerStep(
                    # Made from an object, it has no name, and lerobot cannot load it either.
                    name=str(settings.get("tokenizer_name", "")),
                    length=int(settings.get("max_length", 512)),
                    suffix=suffix,
                )
        return None


def _features(config: Mapping[str, Any], key: str, folder: Path) -> Mapping[str, Any]:
    features = config.get(key)
    good = isinstance(features, dict) and all(
        isinstance(f, dict) and "type" in f and isinstance(f.get("shape"), list)
        for f in features.values()
    )
    if not good or not features:
        msg = f"{folder / 'config.json'}: {key}: must hold each feature's type and shape"
        raise ExportError(msg)
    return dict(features)


def _read_json(folder: Path, name: str, hint: str) -> dict[str, Any]:
    file = folder / name
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError as err:
        msg = f"{file}: there is no such file: {hint}"
        raise ExportError(msg) from err
    except (OSError, ValueError) as err:
        msg = f"{file}: is not readable JSON: {err}"
        raise ExportError(msg) from err
    if not isinstance(content, dict):
        msg = f"{file}: must be a JSON object"
        raise ExportError(msg)
    return content


def read_safetensors(file: Path) -> dict[str, NDArray[np.float64]]:
    """Return the numbers of a small safetensors file, by name, as float64.

    The format: eight bytes that hold the header's length, little endian; the header, JSON with each
    tensor's type, shape and place; the tensors.

    Raises:
        ExportError: If the file is missing or broken.

    """
    try:
        content = file.read_bytes()
        length = int.from_bytes(content[:8], "little")
        if not _SHORTEST_HEADER <= length <= min(len(content) - 8, _LARGEST_HEADER):
            msg = "its header is cut off"
            raise ValueError(msg)  # noqa: TRY301 - told below, as all that is wrong with it
        header = json.loads(content[8 : 8 + length])
        data, tensors = content[8 + length :], {}
        for name, entry in header.items():
            if name == "__metadata__":
                continue
            begin, end = entry["data_offsets"]
            kind = _SAFETENSORS_TYPES[entry["dtype"]]
            values = np.frombuffer(data[begin:end], kind).reshape(entry["shape"])
            tensors[name] = values.astype(np.float64)
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as err:
        msg = f"{file}: is no safetensors file of statistics: {err}"
        raise ExportError(msg) from err
    return tensors
