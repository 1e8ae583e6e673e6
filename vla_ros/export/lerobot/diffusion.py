"""Diffusion Policy (Chi et al., RSS 2023) as two graphs: the encoder, and one step of the U-Net."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from vla_ros.export.lerobot.model import IMAGES, STATE, Model, Names
from vla_ros.export.torch_graph import TorchGraph


class _Prefix(torch.nn.Module):
    """Images (1, t, 3, h, w) and the state (1, t, n), t left out if 1, to the condition (1, m)."""

    def __init__(self, policy: Any, cameras: int) -> None:
        super().__init__()
        self.model = policy.diffusion
        self.single = policy.config.n_obs_steps == 1
        self.cameras = cameras

    def forward(self, *inputs: Tensor) -> Tensor:
        if self.single:
            inputs = tuple(value.unsqueeze(1) for value in inputs)
        batch = {STATE: inputs[self.cameras]}
        if self.cameras:
            batch[IMAGES] = torch.stack(inputs[: self.cameras], dim=-4)
        condition: Tensor = self.model._prepare_global_conditioning(batch)  # noqa: SLF001
        return condition


class _Step(torch.nn.Module):
    """Noisy actions (1, horizon, n), the training's step (1,) and the condition to a prediction."""

    def __init__(self, policy: Any) -> None:
        super().__init__()
        self.unet = policy.diffusion.unet

    def forward(self, sample: Tensor, timestep: Tensor, condition: Tensor) -> Tensor:
        prediction: Tensor = self.unet(sample, timestep, global_cond=condition)
        return prediction


class _MatrixResize(torch.nn.Module):
    """A resize with antialiasing as two matrix products, which every backend computes alike."""

    def __init__(self, resize: torch.nn.Module, height: int, width: int) -> None:
        super().__init__()
        tall, wide = resize.size
        # Resizing is linear, and apart along the axes: the identity's rows show the weights.
        interpolate = torch.nn.functional.interpolate
        options = {"mode": "bilinear", "align_corners": False, "antialias": True}
        rows = interpolate(torch.eye(height)[None, None], (tall, height), **options)[0, 0]
        columns = interpolate(torch.eye(width)[None, None], (width, wide), **options)[0, 0]
        self.register_buffer("rows", rows)
        self.register_buffer("columns", columns)

    def forward(self, images: Tensor) -> Tensor:
        return self.rows @ images @ self.columns


def diffusion(policy: Any, names: Names) -> Model:
    """Return the graphs of a diffusion policy, whose scheduler becomes the manifest's decoder."""
    config = policy.config
    inputs = names.images(config) | names.state(config)
    prefix = _Prefix(policy, len(names.cameras))
    with torch.no_grad(), exportable(policy):
        condition = prefix(*inputs.values())
    generator = torch.Generator().manual_seed(2)
    width = config.action_feature.shape[0]
    step_inputs = {
        "sample": torch.randn(1, config.horizon, width, generator=generator),
        "timestep": torch.tensor([config.num_train_timesteps // 2]),
        "condition": condition,
    }
    return Model(
        graphs=(
            TorchGraph("prefix", prefix, inputs, ("condition",)),
            TorchGraph("step", _Step(policy), step_inputs, ("prediction",)),
        ),
        decoder={
            "type": "diffusion",
            "scheduler": config.noise_scheduler_type.lower(),
            "steps": policy.diffusion.num_inference_steps,
            "train_steps": config.num_train_timesteps,
            "betas": config.beta_schedule,
            "beta_start": config.beta_start,
            "beta_end": config.beta_end,
            "prediction": config.prediction_type,
            "clip": config.clip_sample_range if config.clip_sample else None,
            "horizon": config.horizon,
            "start": config.n_obs_steps - 1,
            "cache": {"condition": "condition"},
        },
        chunk=config.n_action_steps,
        history=config.n_obs_steps,
        predict=lambda moments, noises: _predict(policy, moments, noises),
    )


@contextmanager
def exportable(policy: Any) -> Iterator[None]:
    """Have the encoders resize by matrices, which ONNX can express, within this context."""
    encoders = policy.diffusion.rgb_encoder if policy.config.image_features else []
    encoders = list(encoders) if isinstance(encoders, torch.nn.ModuleList) else [encoders]
    before = [getattr(encoder, "resize", None) for encoder in encoders]
    shape = next(iter(policy.config.image_features.values())).shape if encoders else ()
    for encoder, resize in zip(encoders, before, strict=True):
        if resize is not None:
            encoder.resize = _MatrixResize(resize, *shape[1:])
    try:
        yield
    finally:
        for encoder, resize in zip(encoders, before, strict=True):
            if resize is not None:
                encoder.resize = resize


def _predict(
    policy: Any,
    moments: Sequence[dict[str, Tensor]],
    noises: Sequence[Tensor],
) -> Tensor:
    """Return the chunk that lerobot's `select_action` hands out after it has seen `moments`."""
    policy.reset()
    *earlier, latest = moments
    for moment in earlier:
        batch = dict(moment)
        if policy.config.image_features:
            keys = policy.config.image_features
            batch[IMAGES] = torch.stack([batch[key] for key in keys], dim=-4)
        # As select_action does before it looks whether an action is waiting. A queue that is
        # filled for the first time is filled up: this must happen with the oldest moment.
        for key, queue in policy._queues.items():  # noqa: SLF001
            if key in batch:
                queue.extend([batch[key]] * (1 if queue else queue.maxlen))
    with _drawing(noises[1:]):
        actions = [policy.select_action(latest, noise=noises[0])]
    actions += [policy.select_action(latest) for _ in range(1, policy.config.n_action_steps)]
    return torch.stack(actions, dim=1)


@contextmanager
def _drawing(noises: Sequence[Tensor]) -> Iterator[None]:
    """Have diffusers' DDPM take its noise from `noises`, one a step."""
    import diffusers.schedulers.scheduling_ddpm as module

    waiting = iter(noises)
    original = module.randn_tensor
    module.randn_tensor = lambda *_args, **_options: next(waiting)
    try:
        yield
    finally:
        module.randn_tensor = original
