"""Random-weight checkpoints, saved by lerobot itself, as small as its policies get."""

import json
import sys
from pathlib import Path

import numpy as np
import torch
from tokenizers import Tokenizer, models, pre_tokenizers, processors

JOINTS = 6
"""The SO-101's five joints and its gripper."""


def statistics(cameras: dict[str, tuple[int, int, int]]) -> dict[str, dict[str, torch.Tensor]]:
    """Return statistics as a data set has them, of a state and an action in rad."""
    generator = torch.Generator().manual_seed(5)
    numbers = {}
    for key in ("observation.state", "action"):
        low = torch.rand(JOINTS, generator=generator) - 1.5
        high = torch.rand(JOINTS, generator=generator) + 0.5
        numbers[key] = {
            "mean": (low + high) / 2,
            "std": (high - low) / 4,
            "min": low,
            "max": high,
            "q01": 0.9 * low,
            "q99": 0.9 * high,
        }
    for key in cameras:
        numbers[key] = {
            "mean": torch.tensor([0.48, 0.45, 0.41]).reshape(3, 1, 1),
            "std": torch.tensor([0.23, 0.22, 0.24]).reshape(3, 1, 1),
            "min": torch.zeros(3, 1, 1),
            "max": torch.ones(3, 1, 1),
        }
    return numbers


def _features(cameras: dict[str, tuple[int, int, int]]) -> dict:
    from lerobot.configs.types import FeatureType, PolicyFeature

    inputs = {"observation.state": PolicyFeature(FeatureType.STATE, (JOINTS,))}
    inputs |= {key: PolicyFeature(FeatureType.VISUAL, shape) for key, shape in cameras.items()}
    return {
        "input_features": inputs,
        "output_features": {"action": PolicyFeature(FeatureType.ACTION, (JOINTS,))},
        "device": "cpu",
    }


def _save(folder: Path, policy, cameras) -> Path:
    from lerobot.policies.factory import make_pre_post_processors

    # Otherwise biases and normalisations are the same in every layer, and an error might not show.
    generator = torch.Generator().manual_seed(7)
    with torch.no_grad():
        for value in policy.parameters():
            if value.ndim == 1:
                value.add_(0.02 * torch.randn(value.shape, generator=generator))
    policy.save_pretrained(folder)
    processors_ = make_pre_post_processors(policy.config, dataset_stats=statistics(cameras))
    for processor in processors_:
        processor.save_pretrained(folder)
    return folder


def save_act(folder: Path, **options) -> Path:
    from lerobot.policies.act.configuration_act import ACTConfig
    from lerobot.policies.act.modeling_act import ACTPolicy

    cameras = {
        "observation.images.front": (3, 64, 96),
        "observation.images.wrist": (3, 64, 96),
    }
    small = {"dim_model": 64, "n_heads": 4, "dim_feedforward": 128, "chunk_size": 20}
    config = ACTConfig(
        **_features(cameras),
        pretrained_backbone_weights=None,
        n_action_steps=20,
        **small,
        **options,
    )
    torch.manual_seed(0)
    return _save(folder, ACTPolicy(config), cameras)


def save_diffusion(folder: Path, **options) -> Path:
    from lerobot.policies.diffusion.configuration_diffusion import DiffusionConfig
    from lerobot.policies.diffusion.modeling_diffusion import DiffusionPolicy

    cameras = {"observation.images.front": (3, 72, 96), "observation.images.wrist": (3, 72, 96)}
    settings = {
        "crop_shape": (64, 80),
        "down_dims": (32, 64),
        "noise_scheduler_type": "DDIM",
        "num_inference_steps": 10,
        **options,
    }
    config = DiffusionConfig(**_features(cameras), **settings)
    torch.manual_seed(0)
    return _save(folder, DiffusionPolicy(config), cameras)


WORDS = ("<pad>", "<s>", "</s>", "<unk>", "\n", "pick", "up", "the", "red", "cube", "put", "it")


def save_language_model(folder: Path, *, with_config: bool) -> Path:
    """Write what the hub's repository of a VLM holds, as far as it is read: tokenizer, config."""
    from transformers import PreTrainedTokenizerFast, SmolVLMConfig

    special = ["<fake_token_around_image>", "<global-img>"]
    vocabulary = {word: index for index, word in enumerate([*WORDS, *special])}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(" ", "removed"),
            pre_tokenizers.Split("\n", "isolated"),
        ]
    )
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A", special_tokens=[("<s>", 1)]
    )
    PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token="<s>",
        eos_token="</s>",
        unk_token="<unk>",
        pad_token="<pad>",
        additional_special_tokens=special,
    ).save_pretrained(folder)
    if with_config:
        SmolVLMConfig(
            vision_config={
                "model_type": "smolvlm_vision",
                "hidden_size": 48,
                "intermediate_size": 96,
                "num_hidden_layers": 2,
                "num_attention_heads": 4,
                "image_size": 64,
                "patch_size": 8,
            },
            text_config={
                "model_type": "llama",
                "hidden_size": 96,
                "intermediate_size": 192,
                "num_hidden_layers": 6,
                "num_attention_heads": 6,
                "num_key_value_heads": 2,
                "head_dim": 16,
                "vocab_size": 64,
                "rms_norm_eps": 1e-5,
                "tie_word_embeddings": False,
                "attention_bias": False,
            },
            scale_factor=2,
            image_token_id=60,
            pad_token_id=0,
        ).save_pretrained(folder)
    return folder


def save_smolvla(folder: Path, **options) -> Path:
    from lerobot.policies.smolvla.configuration_smolvla import SmolVLAConfig
    from lerobot.policies.smolvla.modeling_smolvla import SmolVLAPolicy

    from vla_ros.export.lerobot.reference import prepare

    model = save_language_model(folder / "vlm", with_config=True)
    prepare("smolvla")
    cameras = {"observation.images.front": (3, 48, 64), "observation.images.wrist": (3, 40, 72)}
    settings = {
        "vlm_model_name": str(model),
        "load_vlm_weights": False,
        "num_vlm_layers": 4,
        "resize_imgs_with_padding": (64, 64),
        "chunk_size": 12,
        "n_action_steps": 12,
        "tokenizer_max_length": 16,
        **options,
    }
    config = SmolVLAConfig(**_features(cameras), **settings)
    torch.manual_seed(0)
    return _save(folder, SmolVLAPolicy(config).float(), cameras)


def shrink_pi0(monkeypatch) -> None:
    """Make PaliGemma and its expert as small as they get: lerobot has their sizes in its code."""
    from vla_ros.export.lerobot.reference import prepare

    prepare("pi0")
    from lerobot.policies.pi0 import modeling_pi0

    paligemma, gemma = modeling_pi0.PaliGemmaForConditionalGeneration, modeling_pi0.GemmaForCausalLM

    def variant(name):
        width = 64 if name == "gemma_2b" else 32
        return modeling_pi0.GemmaConfig(width, 3, 2 * width, 8, 1, 16)

    def small_paligemma(config):
        vision = config.vision_config
        vision.hidden_size, vision.intermediate_size, vision.projection_dim = 32, 64, 64
        vision.num_hidden_layers, vision.num_attention_heads, vision.patch_size = 2, 2, 8
        config.text_config.vocab_size = 64
        return paligemma(config=config)

    def small_gemma(config):
        config.vocab_size = 64
        return gemma(config=config)

    monkeypatch.setattr(modeling_pi0, "get_gemma_config", variant)
    monkeypatch.setattr(modeling_pi0, "PaliGemmaForConditionalGeneration", small_paligemma)
    monkeypatch.setattr(modeling_pi0, "GemmaForCausalLM", small_gemma)


def save_pi0(folder: Path, monkeypatch, **options) -> Path:
    shrink_pi0(monkeypatch)
    from lerobot.policies.pi0.configuration_pi0 import PI0Config
    from lerobot.policies.pi0.modeling_pi0 import PI0Policy
    from transformers import AutoTokenizer

    tokenizer = save_language_model(folder / "vlm", with_config=False)
    cameras = {"observation.images.front": (3, 48, 64), "observation.images.wrist": (3, 32, 32)}
    settings = {
        "image_resolution": (32, 32),
        "chunk_size": 12,
        "n_action_steps": 12,
        "tokenizer_max_length": 16,
        **options,
    }
    config = PI0Config(**_features(cameras), **settings)
    torch.manual_seed(0)
    policy = PI0Policy(config)
    # The processor names the tokenizer by its hub id; without the hub, by its folder.
    original = AutoTokenizer.from_pretrained
    monkeypatch.setattr(AutoTokenizer, "from_pretrained", lambda _name: original(str(tokenizer)))
    _save(folder, policy, cameras)
    monkeypatch.setattr(AutoTokenizer, "from_pretrained", original)
    return folder


def rewrite(file: Path, change) -> None:
    """Change a JSON file in place."""
    content = json.loads(file.read_text())
    change(content)
    file.write_text(json.dumps(content))


def random_pixels(shape: tuple[int, int], seed: int) -> np.ndarray:
    """Return a random image, RGB, uint8."""
    return np.random.default_rng(seed).integers(0, 256, (*shape, 3), np.uint8)


if __name__ == "__main__":
    from vla_ros.export.lerobot.reference import prepare

    kind, folder = sys.argv[1:]
    prepare(kind)
    {"act": save_act, "diffusion": save_diffusion, "smolvla": save_smolvla}[kind](Path(folder))
