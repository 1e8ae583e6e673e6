"""ACT (Zhao et al., RSS 2023) as one graph."""

from typing import Any

import torch
from torch import Tensor

from vla_ros.export.lerobot.model import Model, Names
from vla_ros.export.torch_graph import TorchGraph


class _Act(torch.nn.Module):
    """Images (1, 3, h, w) and, where the policy has one, the state (1, n), to actions."""

    def __init__(self, policy: Any, cameras: int) -> None:
        super().__init__()
        self.model = policy.model
        self.cameras = cameras

    def forward(self, *inputs: Tensor) -> Tensor:
        batch: dict[str, Any] = {"observation.images": list(inputs[: self.cameras])}
        if len(inputs) > self.cameras:
            batch["observation.state"] = inputs[self.cameras]
        actions: Tensor = self.model(batch)[0]
        return actions


def act(policy: Any, names: Names) -> Model:
    """Return the graphs of an ACT policy."""
    inputs = names.images(policy.config) | names.state(policy.config)
    return Model(
        graphs=(TorchGraph("policy", _Act(policy, len(names.cameras)), inputs, ("actions",)),),
        decoder={"type": "direct", "output": "actions"},
        chunk=policy.config.chunk_size,
        predict=lambda moments, _noises: policy.predict_action_chunk(moments[-1]),
    )
