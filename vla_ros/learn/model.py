"""The network: two cameras, the joint state and an instruction in words to a chunk of actions.

Each camera passes four convolutions; the text scales and shifts the features of the last two (FiLM,
Perez et al. 2018), and a spatial softmax (Levine et al. 2016) turns maps into image points, so that
the network looks for what was named. The words pass a transformer of two layers over learned
embeddings, which knows their order. The predicted position of the cube feeds the head that predicts
the actions. How surely the words name a cube at all scales the displacements, so that the arm rests
without slow drift when they name none.

What only helps training (the cube's position and its place in the images, the colour named) is
supervised by the simulator or the grammar, and absent from the exported graph's outputs.
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from vla_ros.learn.instructions import COLOURS, NO_TARGET, TOKENS
from vla_ros.learn.interface import CAMERAS, CHUNK, STATE_NAMES

ACTION = 7
TARGET = 5
"""Auxiliary output: the cube's position in the tool frame (m, times 10), sin, cos of 4 yaw."""

_STRIDE = 4


@dataclass(frozen=True, slots=True)
class Outputs:
    """What training needs of one pass, for a batch of b.

    Attributes:
        actions: Normalised deltas and the gripper's logit, shape (b, 16, 7).
        target: See `TARGET`, shape (b, 5).
        front: Logits over the cells of the front image for where the cube is, shape (b, 24 * 24).
        wrist: The same for the wrist image, shape (b, 20 * 24).
        colour: Logits over `COLOURS` and `NO_TARGET` from the words alone, shape (b, 4).

    """

    actions: Tensor
    target: Tensor
    front: Tensor
    wrist: Tensor
    colour: Tensor


class _Block(nn.Module):
    """One pre-norm transformer layer, written out so that it exports to plain ONNX operators."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm_attention = nn.LayerNorm(width)
        self.qkv = nn.Linear(width, 3 * width)
        self.out = nn.Linear(width, width)
        self.norm_mlp = nn.LayerNorm(width)
        self.mlp = nn.Sequential(
            nn.Linear(width, 2 * width), nn.ReLU(), nn.Linear(2 * width, width)
        )

    def forward(self, x: Tensor, blocked: Tensor) -> Tensor:
        batch, length, width = x.shape
        split = (batch, length, 3, self.heads, width // self.heads)
        q, k, v = self.qkv(self.norm_attention(x)).view(split).permute(2, 0, 3, 1, 4).unbind(0)
        scores = q @ k.transpose(-1, -2) * (width // self.heads) ** -0.5
        attention = (scores + blocked[:, None, None, :]).softmax(-1)
        x = x + self.out((attention @ v).transpose(1, 2).reshape(batch, length, width))
        return x + self.mlp(self.norm_mlp(x))


class TextEncoder(nn.Module):
    """Words to one vector: embeddings, two transformer layers, attention pooling over the words."""

    def __init__(self, vocabulary: int, width: int = 48, out: int = 48) -> None:
        super().__init__()
        self.words = nn.Embedding(vocabulary, width)
        self.places = nn.Parameter(0.1 * torch.randn(TOKENS, width))
        self.blocks = nn.ModuleList([_Block(width, heads=4) for _ in range(2)])
        self.norm = nn.LayerNorm(width)
        self.score = nn.Linear(width, 1)
        self.out = nn.Linear(width, out)
        self.colour = nn.Linear(out, len(COLOURS) + 1)

    def forward(self, tokens: Tensor) -> Tensor:
        """Map int64 (b, 16) word numbers, 0 where there is none, to (b, out)."""
        blocked = (tokens == 0).float() * -1e4
        x = self.words(tokens) + self.places
        for block in self.blocks:
            x = block(x, blocked)
        x = self.norm(x)
        weight = (self.score(x)[..., 0] + blocked).softmax(-1)
        return torch.tanh(self.out((x * weight[..., None]).sum(1)))


class ImageEncoder(nn.Module):
    """An image, looked at with the text in mind, to points, their sharpness and mean features."""

    def __init__(self, size: tuple[int, int], text: int, maps: int) -> None:
        super().__init__()
        first, second, third = 24, 48, 64
        self.conv1 = nn.Conv2d(3, first, 5, 2, 2, bias=False)
        self.conv2 = nn.Conv2d(first, second, 3, 2, 1, bias=False)
        self.conv3 = nn.Conv2d(second, third, 3, 1, 1, bias=False)
        self.conv4 = nn.Conv2d(third, third, 3, 1, 1, bias=False)
        self.bn1, self.bn2 = nn.BatchNorm2d(first), nn.BatchNorm2d(second)
        self.bn3, self.bn4 = nn.BatchNorm2d(third), nn.BatchNorm2d(third)
        self.film3, self.film4 = nn.Linear(text, 2 * third), nn.Linear(text, 2 * third)
        for film in (self.film3, self.film4):
            nn.init.normal_(film.weight, std=0.1)
            nn.init.zeros_(film.bias)
        self.maps = nn.Conv2d(third, maps, 1)
        ys, xs = torch.meshgrid(
            torch.linspace(-1, 1, size[0] // _STRIDE),
            torch.linspace(-1, 1, size[1] // _STRIDE),
            indexing="ij",
        )
        self.grid: Tensor
        self.register_buffer("grid", torch.stack([xs.reshape(-1), ys.reshape(-1)], 1))
        self.outputs = 3 * maps + third

    @staticmethod
    def _film(x: Tensor, film: Tensor) -> Tensor:
        scale, shift = film.chunk(2, dim=1)
        return x * (1 + scale[:, :, None, None]) + shift[:, :, None, None]

    def forward(self, image: Tensor, text: Tensor) -> tuple[Tensor, Tensor]:
        """Map (b, 3, h, w) to features (b, outputs) and the first map's logits (b, h/4 * w/4)."""
        x = functional.relu(self.bn1(self.conv1(image)))
        x = functional.relu(self.bn2(self.conv2(x)))
        x = functional.relu(self._film(self.bn3(self.conv3(x)), self.film3(text)))
        x = functional.relu(self._film(self.bn4(self.conv4(x)), self.film4(text)))
        logits = self.maps(x).flatten(2).float()
        points = logits.softmax(-1) @ self.grid
        sharpness = 0.1 * (torch.logsumexp(logits, -1) - logits.mean(-1))
        features = torch.cat([points.flatten(1), sharpness, x.mean((2, 3)).float()], 1)
        return features, logits[:, 0]


class PickPolicy(nn.Module):
    """The whole network. `forward` is what is exported; `outputs` is what is trained."""

    def __init__(self, vocabulary: int, text: int = 48, maps: int = 24, hidden: int = 512) -> None:
        super().__init__()
        self.text = TextEncoder(vocabulary, out=text)
        self.front = ImageEncoder(CAMERAS["front"].size, text, maps)
        self.wrist = ImageEncoder(CAMERAS["wrist"].size, text, maps)
        features = self.front.outputs + self.wrist.outputs + len(STATE_NAMES) + text
        self.trunk = nn.Sequential(
            nn.Linear(features, hidden), nn.ReLU(), nn.Linear(hidden, hidden), nn.ReLU()
        )
        self.target = nn.Linear(hidden, TARGET)
        self.head = nn.Sequential(
            nn.Linear(hidden + TARGET, hidden), nn.ReLU(), nn.Linear(hidden, CHUNK * ACTION)
        )

    def outputs(self, front: Tensor, wrist: Tensor, state: Tensor, tokens: Tensor) -> Outputs:
        """Run the network with everything that the loss supervises; shapes as in `forward`."""
        text = self.text(tokens)
        front_features, front_logits = self.front(front, text)
        wrist_features, wrist_logits = self.wrist(wrist, text)
        hidden = self.trunk(torch.cat([front_features, wrist_features, state, text], 1))
        target = self.target(hidden)
        actions = self.head(torch.cat([hidden, target], 1)).view(-1, CHUNK, ACTION).float()
        colour = self.text.colour(text)
        named = 1 - colour.float().softmax(-1)[:, NO_TARGET]
        deltas = actions[..., :6] * named[:, None, None]
        actions = torch.cat([deltas, actions[..., 6:]], -1)
        return Outputs(actions, target, front_logits, wrist_logits, colour)

    def forward(self, front: Tensor, wrist: Tensor, state: Tensor, tokens: Tensor) -> Tensor:
        """Return the actions (b, 16, 7).

        They are normalised tool-frame deltas, and how surely the gripper should be open, 0..1.

        Args:
            front: Normalised images, float32 (b, 3, 96, 96).
            wrist: Normalised images, float32 (b, 3, 80, 96).
            state: Normalised state, float32 (b, 17).
            tokens: Words, int64 (b, 16).

        """
        actions = self.outputs(front, wrist, state, tokens).actions
        return torch.cat([actions[..., :6], torch.sigmoid(actions[..., 6:])], -1)
