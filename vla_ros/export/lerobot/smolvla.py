"""SmolVLA (Shukor et al., 2025) as two graphs: the language model, and a step of the expert.

The key and value states of all layers pass from one to the other stacked, (layers, 1, tokens,
heads, width), beside the mask of the tokens that are not padding.
"""

from typing import Any

import torch
from torch import Tensor

from vla_ros.export.lerobot.flow_vla import example_tokens, fitted, flow_vla
from vla_ros.export.lerobot.images import FitImage
from vla_ros.export.lerobot.model import Model, Names


class _Prefix(torch.nn.Module):
    """Images (1, 3, h, w), tokens and their mask (1, n), the padded state (1, m) to the cache."""

    def __init__(self, policy: Any, names: Names, empty: int) -> None:
        super().__init__()
        self.model = policy.model
        config = policy.config
        self.fits = torch.nn.ModuleList(
            FitImage(
                tuple(config.image_features[key].shape[1:]),
                # lerobot's width comes first here; its policies have it square.
                config.resize_imgs_with_padding and tuple(config.resize_imgs_with_padding[::-1]),
                centred=False,
                pad=0.0,
            )
            for key in names.cameras
        )
        self.empty = empty

    def forward(self, *inputs: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        from lerobot.policies.smolvla.modeling_smolvla import (
            make_att_2d_masks,
        )

        *images, tokens, tokens_mask, state = inputs
        seen, masks = fitted(self.fits, images, self.empty)
        embedded, mask, attends = self.model.embed_prefix(
            seen, masks, tokens, tokens_mask, state=state
        )
        _, cache = self.model.vlm_with_expert.forward(
            attention_mask=make_att_2d_masks(mask, attends),
            position_ids=torch.cumsum(mask, dim=1) - 1,
            past_key_values=None,
            inputs_embeds=[embedded, None],
            use_cache=True,
            fill_kv_cache=True,
        )
        layers = [cache[index] for index in range(len(cache))]
        keys = torch.stack([layer["key_states"] for layer in layers])
        values = torch.stack([layer["value_states"] for layer in layers])
        return keys, values, mask


class _Step(torch.nn.Module):
    """Noisy actions (1, chunk, n), time (1,) and the cache to a velocity (1, chunk, n)."""

    def __init__(self, policy: Any) -> None:
        super().__init__()
        self.model = policy.model

    def forward(
        self, noise: Tensor, time: Tensor, keys: Tensor, values: Tensor, mask: Tensor
    ) -> Tensor:
        cache = {
            index: {"key_states": keys[index], "value_states": values[index]}
            for index in range(keys.shape[0])
        }
        velocity: Tensor = self.model.denoise_step(
            prefix_pad_masks=mask, past_key_values=cache, x_t=noise, timestep=time
        )
        return velocity


def smolvla(policy: Any, names: Names) -> Model:
    """Return the graphs of a SmolVLA policy.

    Raises:
        ValueError: If the policy does something that the graphs cannot.

    """
    config = policy.config
    if config.adapt_to_pi_aloha:
        msg = "config.json: adapt_to_pi_aloha: is for ALOHA's grippers, which no bundle describes"
        raise ValueError(msg)
    missing = len(config.image_features) - len(names.cameras)
    prefix = _Prefix(policy, names, min(config.empty_cameras, missing))
    inputs = {
        **names.images(config),
        **example_tokens(config.tokenizer_max_length),
        **names.state(config, config.max_state_dim),
    }
    return flow_vla(policy, prefix, _Step(policy), inputs, steps=config.num_steps)
