"""pi0 (Black et al., 2024) as two graphs: PaliGemma, and a step of the action expert.

The keys and values of all layers pass from one to the other stacked, (layers, 1, heads, tokens,
width), beside the mask of the tokens that are not padding. The state enters the expert.
"""

from typing import Any

import torch
from torch import Tensor

from vla_ros.export.lerobot import gemma
from vla_ros.export.lerobot.flow_vla import example_tokens, fitted, flow_vla
from vla_ros.export.lerobot.images import FitImage
from vla_ros.export.lerobot.model import Model, Names


class _Prefix(torch.nn.Module):
    """Images (1, 3, h, w), tokens and their mask (1, n) to the cache."""

    def __init__(self, policy: Any, names: Names, empty: int) -> None:
        super().__init__()
        self.model = policy.model
        config = policy.config
        self.fits = torch.nn.ModuleList(
            FitImage(
                tuple(config.image_features[key].shape[1:]),
                tuple(config.image_resolution),
                centred=True,
                pad=-1.0,
            )
            for key in names.cameras
        )
        self.empty = empty

    def forward(self, *inputs: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        from lerobot.policies.pi0.modeling_pi0 import (
            make_att_2d_masks,
        )

        *images, tokens, tokens_mask = inputs
        seen, masks = fitted(self.fits, images, self.empty)
        embedded, mask, attends = self.model.embed_prefix(seen, masks, tokens, tokens_mask)
        _, cache = gemma.run(
            self.model.paligemma_with_expert.paligemma.language_model,
            embedded,
            self.model._prepare_attention_masks_4d(make_att_2d_masks(mask, attends)),  # noqa: SLF001
            torch.cumsum(mask, dim=1) - 1,
        )
        keys, values = (torch.stack(states) for states in zip(*cache, strict=True))
        return keys, values, mask


class _Step(torch.nn.Module):
    """Noisy actions (1, chunk, n), time (1,), state (1, m) and the cache to a velocity."""

    def __init__(self, policy: Any) -> None:
        super().__init__()
        self.model = policy.model

    def forward(
        self,
        noise: Tensor,
        time: Tensor,
        state: Tensor,
        keys: Tensor,
        values: Tensor,
        mask: Tensor,
    ) -> Tensor:
        from lerobot.policies.pi0.modeling_pi0 import (
            make_att_2d_masks,
        )

        model = self.model
        embedded, own_mask, attends, _ = model.embed_suffix(state, noise, time)
        before = mask[:, None, :].expand(1, own_mask.shape[1], mask.shape[1])
        attention = torch.cat([before, make_att_2d_masks(own_mask, attends)], dim=2)
        positions = torch.sum(mask, dim=-1)[:, None] + torch.cumsum(own_mask, dim=1) - 1
        hidden, _ = gemma.run(
            model.paligemma_with_expert.gemma_expert.model,
            embedded,
            model._prepare_attention_masks_4d(attention),  # noqa: SLF001
            positions,
            [(keys[index], values[index]) for index in range(keys.shape[0])],
        )
        actions = hidden[:, -model.config.chunk_size :].to(torch.float32)
        velocity: Tensor = model.action_out_proj(actions)
        return velocity


def pi0(policy: Any, names: Names) -> Model:
    """Return the graphs of a pi0 policy, which must be in float32."""
    config = policy.config
    prefix = _Prefix(policy, names, len(config.image_features) - len(names.cameras))
    inputs = {**names.images(config), **example_tokens(config.tokenizer_max_length)}
    state = names.state(config, config.max_state_dim)
    steps = config.num_inference_steps
    return flow_vla(policy, prefix, _Step(policy), inputs, steps=steps, step_inputs=state)
