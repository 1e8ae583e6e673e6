"""lerobot's own policy and processors, which a bundle is compared with."""

import contextlib
import importlib
import io
import logging
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError

from vla_ros.export.error import ExportError
from vla_ros.export.lerobot import gemma, torchvision_shim
from vla_ros.export.lerobot.act import act
from vla_ros.export.lerobot.checkpoint import Checkpoint
from vla_ros.export.lerobot.diffusion import diffusion, exportable
from vla_ros.export.lerobot.model import TOKENS, TOKENS_MASK, Model, Names
from vla_ros.export.lerobot.pi0 import pi0
from vla_ros.export.lerobot.smolvla import smolvla
from vla_ros.export.lerobot.time_embedding import in_float32
from vla_ros.export.meaning import Meaning
from vla_ros.observation.observation import Observation, Snapshot
from vla_ros.observation.state import state_vector
from vla_ros.types import Array

_POLICIES = {
    "act": ("act.modeling_act", "ACTPolicy"),
    "diffusion": ("diffusion.modeling_diffusion", "DiffusionPolicy"),
    "smolvla": ("smolvla.modeling_smolvla", "SmolVLAPolicy"),
    "pi0": ("pi0.modeling_pi0", "PI0Policy"),
}
_MODELS = {"act": act, "diffusion": diffusion, "smolvla": smolvla, "pi0": pi0}


def prepare(kind: str) -> None:
    """Make lerobot's policy importable in an environment without torchvision.

    Args:
        kind: Of the policy.

    """
    torchvision_shim.install()
    if kind == "pi0":
        gemma.patch()
    if kind == "smolvla":
        module = importlib.import_module("lerobot.policies.smolvla.smolvlm_with_expert")
        module.AutoProcessor = _TokenizerAlone  # type: ignore[attr-defined]


class _TokenizerAlone:
    """Stands for SmolVLM's processor, of which the policy reads the ids of two tokens."""

    @staticmethod
    def from_pretrained(name: str, **_options: object) -> SimpleNamespace:
        from transformers import AutoTokenizer

        tokenizer = AutoTokenizer.from_pretrained(name)
        number = tokenizer.convert_tokens_to_ids
        return SimpleNamespace(
            tokenizer=SimpleNamespace(
                fake_image_token_id=number("<fake_token_around_image>"),
                global_image_token_id=number("<global-img>"),
            )
        )


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keep what lerobot and transformers print and warn of out of the export's report."""
    with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
        warnings.simplefilter("ignore")
        logging.disable(logging.WARNING)
        try:
            yield
        finally:
            logging.disable(logging.NOTSET)


@dataclass(frozen=True, slots=True)
class LeRobot:
    """A checkpoint as lerobot runs it, in float32 on the CPU.

    Attributes:
        checkpoint: What it says of itself.
        model: Its graphs, and how to run the policy.
        meaning: What its numbers mean.
        policy: lerobot's.
        preprocessor: lerobot's.
        postprocessor: lerobot's.

    """

    checkpoint: Checkpoint
    model: Model
    meaning: Meaning
    policy: Any
    preprocessor: Any
    postprocessor: Any

    @classmethod
    def load(
        cls, checkpoint: Checkpoint, meaning: Meaning, language_model: Path | None
    ) -> "LeRobot":
        """Load the policy and its processors.

        Args:
            checkpoint: Where it is.
            meaning: What its numbers mean.
            language_model: Folder with the tokenizer, and for SmolVLA with the VLM's config.json,
                for where the hub is not to be asked.

        Raises:
            ExportError: If lerobot cannot load it.

        """
        try:
            with _quiet():
                prepare(checkpoint.kind)
                return cls._load(checkpoint, meaning, language_model)
        except (OSError, ValueError, KeyError, RuntimeError, ImportError, SafetensorError) as err:
            hint = ""
            if checkpoint.tokenizer is not None and language_model is None:
                name = checkpoint.tokenizer.name
                hint = f" (without a way to the hub: --language-model FOLDER, a copy of {name})"
            reason = " ".join(str(err).split())[:400]
            msg = f"{checkpoint.folder}: lerobot cannot load it: {reason}{hint}"
            raise ExportError(msg) from err

    @classmethod
    def _load(
        cls, checkpoint: Checkpoint, meaning: Meaning, language_model: Path | None
    ) -> "LeRobot":
        from lerobot.configs.policies import PreTrainedConfig
        from lerobot.policies.factory import make_pre_post_processors

        folder = str(checkpoint.folder)
        config = PreTrainedConfig.from_pretrained(folder)
        config.device = "cpu"
        overrides: dict[str, Any] = {"device_processor": {"device": "cpu"}}
        if checkpoint.kind == "smolvla":
            config.load_vlm_weights = False  # The checkpoint holds them all.
            if language_model is not None:
                config.vlm_model_name = str(language_model)
        if checkpoint.kind == "pi0":
            config.dtype = "float32"
        if checkpoint.kind in {"smolvla", "pi0"}:
            config.compile_model = False
        if checkpoint.kind == "act":
            config.pretrained_backbone_weights = None
        if checkpoint.tokenizer is not None and language_model is not None:
            overrides["tokenizer_processor"] = {"tokenizer_name": str(language_model)}
        module, name = _POLICIES[checkpoint.kind]
        policy_class = getattr(importlib.import_module(f"lerobot.policies.{module}"), name)
        policy = policy_class.from_pretrained(folder, config=config, strict=True).float().eval()
        before, after = make_pre_post_processors(
            config,
            pretrained_path=folder,
            preprocessor_overrides=overrides,
            postprocessor_overrides={"device_processor": {"device": "cpu"}},
        )
        names = Names({c.key: c.name for c in checkpoint.cameras}, checkpoint.state_size > 0)
        model = _MODELS[checkpoint.kind](policy, names)
        return cls(checkpoint, model, meaning, policy, before, after)

    @contextlib.contextmanager
    def exportable(self) -> Iterator[None]:
        """Within this context the policy does nothing that ONNX cannot express."""
        with contextlib.ExitStack() as stack:
            if self.checkpoint.kind == "diffusion":
                stack.enter_context(exportable(self.policy))
            if self.checkpoint.kind in {"smolvla", "pi0"}:
                name = _POLICIES[self.checkpoint.kind][0]
                module = importlib.import_module(f"lerobot.policies.{name}")
                stack.enter_context(in_float32(module))
            stack.enter_context(_quiet())
            yield

    def save_tokenizer(self, file: Path) -> tuple[str, str | None]:
        """Write the tokenizer as a bundle has it; return its padding and unknown tokens.

        Raises:
            ExportError: If it is none of the `tokenizers` library, or has no padding token.

        """
        steps = [step for step in self.preprocessor.steps if hasattr(step, "input_tokenizer")]
        tokenizer = steps[0].input_tokenizer
        backend = getattr(tokenizer, "backend_tokenizer", None)
        if backend is None or tokenizer.pad_token is None:
            msg = f"the tokenizer {steps[0].tokenizer_name!r} is no fast one with a padding token"
            raise ExportError(msg)
        backend.no_truncation()
        backend.no_padding()
        backend.save(str(file))
        return str(tokenizer.pad_token), tokenizer.unk_token

    def batches(self, observation: Observation) -> list[dict[str, torch.Tensor]]:
        """Return what lerobot's preprocessor makes of each moment, oldest first."""
        moments: list[Snapshot | Observation] = [*observation.history, observation]
        return [self._batch(moment, observation) for moment in moments]

    def _batch(
        self, moment: Snapshot | Observation, observation: Observation
    ) -> dict[str, torch.Tensor]:
        renamed = {v: k for k, v in self._rename_map().items()}
        raw: dict[str, Any] = {}
        for camera in self.checkpoint.cameras:
            pixels = torch.from_numpy(moment.images[camera.name].copy())
            raw[renamed.get(camera.key, camera.key)] = pixels.permute(2, 0, 1).float() / 255.0
        if self.checkpoint.state_size:
            values = state_vector(
                self.meaning.state_names,
                moment.joints,
                moment.tcp_position,
                moment.tcp_rotation,
                joint_names=observation.joint_names,
            )
            numbers = self.meaning.state_units.to_model(values.astype(np.float64))
            raw["observation.state"] = torch.from_numpy(numbers.astype(np.float32))
        if self.checkpoint.tokenizer is not None:
            raw["task"] = observation.instruction
        with _quiet():
            batch = self.preprocessor(raw)
        return {key: value for key, value in batch.items() if isinstance(value, torch.Tensor)}

    def _rename_map(self) -> dict[str, str]:
        for step in self.preprocessor.steps:
            if hasattr(step, "rename_map"):
                return dict(step.rename_map)
        return {}

    def inputs(self, batches: list[dict[str, torch.Tensor]]) -> dict[str, NDArray[Any]]:
        """Return lerobot's batches as the graphs take them, by the inputs' names."""
        keys = {camera.key: camera.name for camera in self.checkpoint.cameras}
        if self.checkpoint.state_size:
            keys["observation.state"] = "state"
        inputs: dict[str, NDArray[Any]] = {}
        for key, name in keys.items():
            values = [batch[key].numpy() for batch in batches]
            if name == "state" and self.model.state_size is not None:
                short = self.model.state_size - values[0].shape[-1]
                values = [np.pad(value, ((0, 0), (0, short))) for value in values]
            inputs[name] = values[-1] if self.model.history == 1 else np.stack(values, axis=1)
        if self.model.tokens is not None:
            tokens, mask = batches[-1][TOKENS].numpy(), batches[-1][TOKENS_MASK].numpy()
            steps = [step for step in self.preprocessor.steps if hasattr(step, "input_tokenizer")]
            padding = steps[0].input_tokenizer.pad_token_id
            short = ((0, 0), (0, self.model.tokens - tokens.shape[1]))
            inputs["tokens"] = np.pad(tokens, short, constant_values=padding)
            inputs["tokens_mask"] = np.pad(mask, short)
        return inputs

    def decode(
        self, batches: list[dict[str, torch.Tensor]], noises: list[NDArray[np.float32]]
    ) -> NDArray[np.float32]:
        """Return lerobot's normalised actions, shape (chunk, n)."""
        with torch.no_grad(), _quiet():
            actions = self.model.predict(batches, [torch.from_numpy(n) for n in noises])
        return np.asarray(actions[0].numpy(), np.float32)

    def postprocess(self, actions: NDArray[np.float32]) -> Array:
        """Return the actions in the manifest's units, shape (n, k), denormalised by lerobot."""
        with _quiet():
            numbers = self.postprocessor(torch.from_numpy(actions.copy())).numpy()
        return self.meaning.action_units.from_model(numbers.astype(np.float64))
