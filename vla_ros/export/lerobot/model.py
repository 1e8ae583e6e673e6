"""What each kind of LeRobot policy is turned into."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from vla_ros.export.torch_graph import TorchGraph

IMAGES = "observation.images"
STATE = "observation.state"
TOKENS = "observation.language.tokens"
TOKENS_MASK = "observation.language.attention_mask"

Predict = Callable[[Sequence[dict[str, Tensor]], Sequence[Tensor]], Tensor]


@dataclass(frozen=True, slots=True)
class Names:
    """Names of the graphs' inputs.

    Attributes:
        cameras: Name by LeRobot's key, in the policy's order; those of empty cameras are left out.
        has_state: Whether the policy takes the robot's state.

    """

    cameras: Mapping[str, str]
    has_state: bool

    def images(self, config: Any) -> dict[str, Tensor]:
        """Return an example of each camera's input."""
        moments = () if config.n_obs_steps == 1 else (config.n_obs_steps,)
        generator = torch.Generator().manual_seed(0)
        return {
            name: torch.rand(1, *moments, *config.image_features[key].shape, generator=generator)
            for key, name in self.cameras.items()
        }

    def state(self, config: Any, width: int | None = None) -> dict[str, Tensor]:
        """Return an example of the state's input, `width` wide where the policy pads it."""
        if not self.has_state:
            return {}
        moments = () if config.n_obs_steps == 1 else (config.n_obs_steps,)
        size = width or config.robot_state_feature.shape[0]
        generator = torch.Generator().manual_seed(1)
        return {"state": torch.randn(1, *moments, size, generator=generator)}


@dataclass(frozen=True, slots=True)
class Model:
    """A policy's graphs, and how to run the policy itself.

    Attributes:
        graphs: The graphs.
        decoder: The manifest's section.
        chunk: Actions a chunk.
        predict: lerobot's own prediction: the moments of an observation, oldest first, each as its
            preprocessor leaves it, and the noise (the first, then one a step where the sampler
            draws any), to normalised actions (1, chunk, n).
        state_size: Padded width of the state.
        action_size: Padded width of an action.
        history: Moments of an observation.
        tokens: Tokens of an instruction, padded; None without one.

    """

    graphs: tuple[TorchGraph, ...]
    decoder: dict[str, Any]
    chunk: int
    predict: Predict = field(repr=False)
    state_size: int | None = None
    action_size: int | None = None
    history: int = 1
    tokens: int | None = None
