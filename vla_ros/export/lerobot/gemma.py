"""The Gemma that pi0 runs, which is not quite the one of transformers.

openpi, and lerobot 0.4.4 after it, run pi0 on a changed transformers: the embeddings are not scaled
inside the language model (pi0 scales the text's alone), image features are not divided by the
square root of the width, and a step of the expert reads the cache without adding to it. lerobot
refuses to make the policy on any other. `patch` gives an unchanged transformers those three
properties within this process; `run` is the language model itself.
"""

import importlib
import sys
from collections.abc import Sequence
from types import ModuleType, SimpleNamespace
from typing import Any

import torch
from torch import Tensor

Cache = Sequence[tuple[Tensor, Tensor]]


def run(
    model: Any,
    embedded: Tensor,
    mask: Tensor,
    positions: Tensor,
    past: Cache | None = None,
) -> tuple[Tensor, list[tuple[Tensor, Tensor]]]:
    """Return the last hidden states, and each layer's keys and values of these tokens alone.

    Args:
        model: The Gemma, whose layers are run one after the other.
        embedded: Embedded tokens, shape (1, n, width).
        mask: Added to the attention's logits, shape (1, 1, n, tokens of the past + n).
        positions: Of the tokens, shape (1, n).
        past: Each layer's keys and values of the tokens before, (1, heads, tokens, head's width).

    """
    from transformers.models.gemma import modeling_gemma

    cos, sin = model.rotary_emb(embedded, positions)
    hidden, cache = embedded, []
    for index, layer in enumerate(model.layers):
        attention = layer.self_attn
        normed = layer.input_layernorm(hidden)
        shape = (*normed.shape[:-1], -1, attention.head_dim)
        queries, keys, values = (
            project(normed).view(shape).transpose(1, 2)
            for project in (attention.q_proj, attention.k_proj, attention.v_proj)
        )
        queries, keys = modeling_gemma.apply_rotary_pos_emb(queries, keys, cos, sin)
        cache.append((keys, values))
        if past is not None:
            keys = torch.cat([past[index][0], keys], dim=2)
            values = torch.cat([past[index][1], values], dim=2)
        output, _ = modeling_gemma.eager_attention_forward(
            attention, queries, keys, values, mask, attention.scaling
        )
        output = output.reshape(*normed.shape[:-1], -1)
        hidden = hidden + attention.o_proj(output.to(attention.o_proj.weight.dtype))
        after = layer.post_attention_layernorm(hidden)
        hidden = hidden + layer.mlp(after.to(layer.mlp.up_proj.weight.dtype))
    return model.norm(hidden), cache


def _forward(
    self: Any,
    *,
    inputs_embeds: Tensor,
    attention_mask: Tensor,
    position_ids: Tensor,
    past_key_values: Cache | None = None,
    use_cache: bool = False,
    adarms_cond: None = None,
) -> SimpleNamespace:
    """Stand in for `GemmaModel.forward`, as far as lerobot's pi0 calls it."""
    del adarms_cond  # pi0 has none; pi0.5, which has, is not exported
    hidden, cache = run(self, inputs_embeds, attention_mask, position_ids, past_key_values)
    return SimpleNamespace(last_hidden_state=hidden, past_key_values=cache if use_cache else None)


def _image_features(self: Any, pixel_values: Tensor) -> Tensor:
    """Stand in for `PaliGemmaModel.get_image_features`."""
    features: Tensor = self.multi_modal_projector(self.vision_tower(pixel_values).last_hidden_state)
    return features


def patch() -> None:
    """Give this process's transformers what lerobot's pi0 needs, unless it is such a one."""
    name = "transformers.models.siglip.check"
    try:
        importlib.import_module(name)
    except ImportError:
        pass
    else:
        return
    from transformers.models import siglip
    from transformers.models.gemma import modeling_gemma
    from transformers.models.paligemma import modeling_paligemma

    check = ModuleType(name)
    check.__dict__["check_whether_transformers_replace_is_installed_correctly"] = lambda: True
    sys.modules[name] = check
    siglip.__dict__["check"] = check
    modeling_gemma.GemmaModel.forward = _forward
    modeling_paligemma.PaliGemmaModel.get_image_features = _image_features
