"""What SmolVLA and pi0 share: a language model that leaves a cache, and steps of a flow on it."""

from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import Tensor

from vla_ros.export.lerobot.model import Model
from vla_ros.export.torch_graph import TorchGraph

_CACHE = ("keys", "values", "prefix_mask")


def fitted(
    fits: Iterable[torch.nn.Module], images: Iterable[Tensor], empty: int
) -> tuple[list[Tensor], list[Tensor]]:
    """Return images as the policy sees them, and whether each is one; `empty` of them are not."""
    seen = [fit(image) for fit, image in zip(fits, images, strict=True)]
    masks = [torch.ones(1, dtype=torch.bool)] * len(seen)
    for _ in range(empty):
        seen.append(torch.ones_like(seen[-1]) * -1)
        masks.append(torch.zeros(1, dtype=torch.bool))
    return seen, masks


def example_tokens(length: int) -> dict[str, Tensor]:
    """Return an instruction of a few tokens, and its mask."""
    tokens = torch.zeros(1, length, dtype=torch.int64)
    tokens[0, :5] = torch.tensor([1, 5, 6, 7, 8])
    mask = torch.zeros(1, length, dtype=torch.bool)
    mask[0, :5] = True
    return {"tokens": tokens, "tokens_mask": mask}


def flow_vla(
    policy: Any,
    prefix: torch.nn.Module,
    step: torch.nn.Module,
    inputs: Mapping[str, Tensor],
    *,
    steps: int,
    step_inputs: Mapping[str, Tensor] | None = None,
) -> Model:
    """Return the two graphs of a policy.

    Args:
        policy: LeRobot's.
        prefix: Inputs to keys, values and the mask of the cache.
        step: Noise, time, its own inputs and the cache to a velocity.
        inputs: Examples of the inputs of `prefix`, in its order.
        steps: Of the flow.
        step_inputs: Examples of the own inputs of `step`, in its order.

    """
    config = policy.config
    with torch.no_grad():
        cache = dict(zip(_CACHE, prefix(*inputs.values()), strict=True))
    generator = torch.Generator().manual_seed(2)
    of_step = {
        "noise": torch.randn(1, config.chunk_size, config.max_action_dim, generator=generator),
        "time": torch.ones(1),
        **(step_inputs or {}),
        **cache,
    }
    return Model(
        graphs=(
            TorchGraph("prefix", prefix, dict(inputs), _CACHE),
            TorchGraph("step", step, of_step, ("velocity",)),
        ),
        decoder={
            "type": "flow",
            "steps": steps,
            "direction": "one_to_zero",
            "cache": {name: name for name in _CACHE},
        },
        chunk=config.chunk_size,
        state_size=config.max_state_dim,
        action_size=config.max_action_dim,
        tokens=config.tokenizer_max_length,
        predict=lambda moments, noises: policy.predict_action_chunk(
            dict(moments[-1]), noise=noises[0]
        ),
    )
