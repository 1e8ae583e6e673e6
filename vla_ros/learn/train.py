"""Train the policy on the demonstrations: `vla_ros learn train`.

Behaviour cloning on CPU. Every sample gets a freshly drawn instruction each time it is seen. A
checkpoint is written whole or not at all, and an interrupted training continues from the last one
to the same end: the order of samples, words and augmentations depends on the seed and the step
alone. `docs/learning.md` has the figures.
"""

import argparse
import copy
import math
import random
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from vla_ros.arguments import whole
from vla_ros.learn.dataset import Dataset
from vla_ros.learn.instructions import (
    COLOURS,
    NO_TARGET,
    build_tokenizer,
    training_instruction,
    vocabulary,
)
from vla_ros.learn.interface import ACTION_STD, IMAGE_MEAN, IMAGE_SCALE, IMAGE_STD, STATE_NAMES
from vla_ros.learn.model import Outputs, PickPolicy

SAVE_EVERY = 200
"""Steps between checkpoints."""

REPORT_EVERY_S = 10.0

VALIDATION_EVERY = 40
"""Every fortieth episode is kept from training, to watch the loss on."""


_HELD_OPENING = 0.06
"""Less than this (m) counts as closed: a held cube keeps the fingers 40 mm apart."""

Report = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Recipe:
    """Everything that decides what comes out of a training, but data and number of threads."""

    steps: int = 1500
    batch: int = 128
    seed: int = 0
    learning_rate: float = 1.5e-3
    weight_decay: float = 1e-4
    warmup: int = 100
    word_steps: int = 2000
    word_rate: float = 2e-3
    brightness: float = 0.2
    channel_gain: float = 0.08
    front_shift: int = 2
    wrist_shift: int = 1
    state_noise: float = 0.02
    no_target: float = 0.1
    """Share of the samples that get an instruction naming no cube, and are to hold still."""


@dataclass(frozen=True, slots=True)
class Batch:
    """One batch as tensors; images still in 0..255, shape (b, 3, h, w), channels last in memory."""

    front: Tensor
    wrist: Tensor
    state: Tensor
    tokens: Tensor
    colour: Tensor
    actions: Tensor
    mask: Tensor
    target: Tensor
    front_point: Tensor
    wrist_point: Tensor
    front_seen: Tensor
    wrist_seen: Tensor


def _rng(recipe: Recipe, step: int, salt: int) -> np.random.Generator:
    return np.random.default_rng([recipe.seed, step, salt])


def _shifted(images: NDArray[np.uint8], by: NDArray[np.int64], most: int) -> NDArray[np.uint8]:
    """Move each image (b, h, w, 3) by its (rows, columns), repeating the border."""
    if most == 0:
        return images
    _, h, w, _ = images.shape
    padded = np.pad(images, ((0, 0), (most, most), (most, most), (0, 0)), mode="edge")
    moved = np.empty_like(images)
    for i, (dy, dx) in enumerate(by):
        moved[i] = padded[i, most - dy : most - dy + h, most - dx : most - dx + w]
    return moved


def _gained(images: NDArray[np.uint8], rng: np.random.Generator, recipe: Recipe) -> Tensor:
    """Return images as float with random brightness and colour cast, channels last in memory."""
    n = len(images)
    gain = 1 + recipe.brightness * rng.uniform(-1, 1, (n, 1, 1, 1))
    gain = gain * (1 + recipe.channel_gain * rng.uniform(-1, 1, (n, 1, 1, 3)))
    bright = torch.from_numpy(images).float() * torch.from_numpy(gain.astype(np.float32))
    return bright.clamp_(0, 255).permute(0, 3, 1, 2)


class Words:
    """Draws instructions and turns them into tokens."""

    def __init__(self) -> None:
        """Build the tokenizer of the grammar."""
        self._tokenizer = build_tokenizer()

    def tokens(self, colours: NDArray[np.int64], seed: int) -> Tensor:
        """Return int64 (b, 16), one fresh instruction for each colour index or `NO_TARGET`."""
        rng = random.Random(seed)  # noqa: S311 - no secret
        texts = [training_instruction(rng, None if c == NO_TARGET else COLOURS[c]) for c in colours]
        return torch.tensor([e.ids for e in self._tokenizer.encode_batch(texts)])


def _held_still(labels: dict[str, NDArray[Any]], still: NDArray[np.bool_]) -> None:
    """Relabel samples as those of an instruction that names no cube.

    The arm is to rest and the gripper to stay as it is, so that it does not drop what it holds.
    """
    opening = labels["state"][still, STATE_NAMES.index("gripper.opening")]
    labels["colour"][still] = NO_TARGET
    labels["actions"][still, :, :6] = 0.0
    labels["actions"][still, :, 6] = (opening > _HELD_OPENING)[:, None]
    labels["mask"][still] = 1.0
    for name in ("front_seen", "wrist_seen"):
        labels[name][still] = 0.0


def make_batch(
    data: Dataset,
    rows: NDArray[np.int64],
    words: Words,
    recipe: Recipe,
    step: int,
    *,
    augment: bool,
) -> Batch:
    """Gather rows of the data set, draw their instructions and, for training, augment."""
    rng = _rng(recipe, step, 1)
    front, wrist = data.images(rows)
    labels = data.labels(rows)
    _held_still(labels, rng.random(len(rows)) < recipe.no_target)
    front_point, wrist_point = labels["front_point"], labels["wrist_point"]
    state: NDArray[np.floating[Any]] = data.normalised_state(rows)
    if augment:
        for_front = rng.integers(-recipe.front_shift, recipe.front_shift + 1, (len(rows), 2))
        for_wrist = rng.integers(-recipe.wrist_shift, recipe.wrist_shift + 1, (len(rows), 2))
        front = _shifted(front, for_front, recipe.front_shift)
        wrist = _shifted(wrist, for_wrist, recipe.wrist_shift)
        front_point = front_point + for_front[:, ::-1]
        wrist_point = wrist_point + for_wrist[:, ::-1]
        state = state + recipe.state_noise * rng.standard_normal(state.shape)
        front_images, wrist_images = _gained(front, rng, recipe), _gained(wrist, rng, recipe)
    else:
        front_images = torch.from_numpy(front).permute(0, 3, 1, 2).float()
        wrist_images = torch.from_numpy(wrist).permute(0, 3, 1, 2).float()
    colour = labels["colour"].astype(np.int64)

    def tensor(array: NDArray[Any]) -> Tensor:
        return torch.from_numpy(np.ascontiguousarray(array, np.float32))

    return Batch(
        front_images,
        wrist_images,
        tensor(state),
        words.tokens(colour, recipe.seed * 1_000_003 + step if augment else -1 - step),
        torch.from_numpy(colour),
        tensor(labels["actions"]),
        tensor(labels["mask"]),
        tensor(labels["target"]),
        tensor(front_point),
        tensor(wrist_point),
        tensor(labels["front_seen"]),
        tensor(labels["wrist_seen"]),
    )


def _cell_loss(logits: Tensor, point: Tensor, seen: Tensor, rows: int, columns: int) -> Tensor:
    """Cross-entropy of a map with the cell of an image point, shared among its four neighbours.

    Args:
        logits: Shape (b, rows * columns).
        point: Column and row in pixels of the image, four pixels a cell, shape (b, 2).
        seen: 1 where the point is in the image, shape (b,).
        rows: Rows of the map.
        columns: Columns of the map.

    """
    logp = logits.float().log_softmax(-1)
    u = (point[:, 0] / 4 - 0.5).clamp(0, columns - 1.001)
    v = (point[:, 1] / 4 - 0.5).clamp(0, rows - 1.001)
    u0, v0 = u.floor(), v.floor()
    du, dv = u - u0, v - v0
    loss = torch.zeros_like(du)
    for right, weight_u in ((0, 1 - du), (1, du)):
        for down, weight_v in ((0, 1 - dv), (1, dv)):
            cell = ((v0 + down) * columns + u0 + right).long()
            loss = loss - weight_u * weight_v * logp.gather(1, cell[:, None])[:, 0]
    return (loss * seen).sum() / seen.sum().clamp(min=1)


def losses(out: Outputs, batch: Batch) -> dict[str, Tensor]:
    """Return the weighted parts of the loss; their sum is what is minimised."""
    actions, mask = out.actions.float(), batch.mask
    wanted = batch.actions[..., :6] / torch.from_numpy(ACTION_STD[:6])
    error = actions[..., :6] - wanted
    gripper = functional.binary_cross_entropy_with_logits(
        actions[..., 6], batch.actions[..., 6], reduction="none"
    )
    count = mask.sum()
    named = (batch.colour != NO_TARGET).float()
    target = functional.smooth_l1_loss(
        out.target.float(), batch.target, beta=0.1, reduction="none"
    ).mean(-1)
    return {
        "delta": (error.abs().mean(-1) * mask).sum() / count,
        "path": 0.2 * (error.cumsum(1).abs().mean(-1) * mask).sum() / count,
        "gripper": 0.5 * (gripper * mask).sum() / count,
        "target": (target * named).sum() / named.sum().clamp(min=1),
        "front": 0.3 * _cell_loss(out.front, batch.front_point, batch.front_seen, 24, 24),
        "wrist": 0.3 * _cell_loss(out.wrist, batch.wrist_point, batch.wrist_seen, 20, 24),
        "words": 0.1 * functional.cross_entropy(out.colour.float(), batch.colour),
    }


def _forward(net: PickPolicy, batch: Batch) -> Outputs:
    def normalised(images: Tensor) -> Tensor:
        return (images * IMAGE_SCALE - IMAGE_MEAN[0]) / IMAGE_STD[0]

    with torch.autocast("cpu", torch.bfloat16):
        return net.outputs(
            normalised(batch.front), normalised(batch.wrist), batch.state, batch.tokens
        )


def _teach_words(net: PickPolicy, words: Words, recipe: Recipe) -> float:
    """Teach the words which colour is meant, before images come in; return the last accuracy."""
    optimiser = torch.optim.AdamW(net.text.parameters(), lr=recipe.word_rate)
    right = 0.0
    for step in range(recipe.word_steps):
        for group in optimiser.param_groups:
            group["lr"] = recipe.word_rate * (1.01 - step / recipe.word_steps)
        colours = _rng(recipe, step, 2).integers(0, len(COLOURS) + 1, 256)
        tokens = words.tokens(colours, recipe.seed * 7_000_003 + step)
        logits = net.text.colour(net.text(tokens))
        wanted = torch.from_numpy(colours)
        loss = functional.cross_entropy(logits, wanted)
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(net.text.parameters(), 1.0)
        optimiser.step()
        right = 0.9 * right + 0.1 * float((logits.argmax(1) == wanted).float().mean())
    return right


def _save(path: Path, content: dict[str, Any]) -> None:
    """Write a checkpoint whole or not at all."""
    partial = path.with_suffix(".partial")
    torch.save(content, partial)
    partial.replace(path)


class Training:
    """A training in progress: the network, its running average, the optimiser and the step."""

    def __init__(self, data: Dataset, recipe: Recipe) -> None:
        """Start at step 0."""
        torch.manual_seed(recipe.seed)
        self.data, self.recipe, self.words = data, recipe, Words()
        self.net = PickPolicy(len(vocabulary()))
        # Convolutions with bfloat16 are twice as fast in this layout.
        self.net.to(memory_format=torch.channels_last)
        self.average = copy.deepcopy(self.net)
        self.optimiser = torch.optim.AdamW(
            self.net.parameters(), lr=recipe.learning_rate, weight_decay=recipe.weight_decay
        )
        self.step = 0
        self._beside = ThreadPoolExecutor(1)
        self._coming: Future[Batch] | None = None
        held_back = data.episode % VALIDATION_EVERY == 0
        self.rows = np.flatnonzero(~held_back)
        self.validation_rows = np.flatnonzero(held_back)[:1024]

    def teach_words(self) -> float:
        """Pretrain the text encoder; return its accuracy on fresh training instructions."""
        accuracy = _teach_words(self.net, self.words, self.recipe)
        self.average.load_state_dict(self.net.state_dict())
        return accuracy

    def _batch_rows(self, step: int) -> NDArray[np.int64]:
        """Return the rows of a step: none twice within an epoch, whatever was run before."""
        size = min(self.recipe.batch, len(self.rows))
        per_epoch = len(self.rows) // size
        order = _rng(self.recipe, step // per_epoch, 3).permutation(self.rows)
        at = step % per_epoch
        # Sorted, because neighbours share pages of the files that the images are mapped from.
        return np.sort(order[at * size : (at + 1) * size])

    def _prepare(self, step: int) -> "Future[Batch]":
        """Gather the batch of a step beside the optimisation of the one before."""
        rows = self._batch_rows(step)
        return self._beside.submit(
            make_batch, self.data, rows, self.words, self.recipe, step, augment=True
        )

    def advance(self) -> dict[str, float]:
        """Do one step of optimisation and return the parts of the loss."""
        recipe, step = self.recipe, self.step
        rate = recipe.learning_rate * min(1.0, (step + 1) / recipe.warmup)
        rate *= 0.02 + 0.98 * 0.5 * (1 + math.cos(math.pi * step / recipe.steps))
        for group in self.optimiser.param_groups:
            group["lr"] = rate
        batch = (self._coming or self._prepare(step)).result()
        if step + 1 < recipe.steps:
            self._coming = self._prepare(step + 1)
        self.net.train()
        parts = losses(_forward(self.net, batch), batch)
        total = torch.stack(list(parts.values())).sum()
        if not torch.isfinite(total):
            msg = f"the loss is {float(total)} at step {step}; lower the learning rate"
            raise FloatingPointError(msg)
        self.optimiser.zero_grad(set_to_none=True)
        total.backward()
        torch.nn.utils.clip_grad_norm_(self.net.parameters(), 2.0)
        self.optimiser.step()
        self.step += 1
        decay = min(0.998, (1 + self.step) / (10 + self.step))
        with torch.no_grad():
            for mine, theirs in zip(self.average.parameters(), self.net.parameters(), strict=True):
                mine.lerp_(theirs, 1 - decay)
            for mine, theirs in zip(self.average.buffers(), self.net.buffers(), strict=True):
                mine.copy_(theirs)
        return {name: float(part.detach()) for name, part in parts.items()}

    def validate(self) -> dict[str, float]:
        """Return the parts of the averaged network's loss on episodes kept from training."""
        self.average.eval()
        sums: dict[str, float] = {}
        chunks = [
            self.validation_rows[i : i + 256] for i in range(0, len(self.validation_rows), 256)
        ]
        for i, rows in enumerate(chunks):
            batch = make_batch(self.data, rows, self.words, self.recipe, i, augment=False)
            with torch.no_grad():
                parts = losses(_forward(self.average, batch), batch)
            for name, part in parts.items():
                sums[name] = sums.get(name, 0.0) + float(part) / len(chunks)
        return sums

    def save(self, path: Path, *, validation: dict[str, float]) -> None:
        """Write everything that continues, exports and documents this training."""
        content = {
            "recipe": asdict(self.recipe),
            "step": self.step,
            "net": self.net.state_dict(),
            "average": self.average.state_dict(),
            "optimiser": self.optimiser.state_dict(),
            "state_mean": torch.from_numpy(self.data.state_mean),
            "state_std": torch.from_numpy(self.data.state_std),
            "data": self.data.description,
            "threads": torch.get_num_threads(),
            "validation": validation,
        }
        _save(path, content)

    def resume(self, path: Path) -> None:
        """Continue from a checkpoint.

        Raises:
            ValueError: If the checkpoint is of another recipe or other data.

        """
        content = torch.load(path, weights_only=True)
        for name, mine, theirs in (
            ("recipe", asdict(self.recipe), content["recipe"]),
            ("data", self.data.description, content["data"]),
        ):
            if mine != theirs:
                msg = (
                    f"{path} was trained with another {name} ({theirs}, not {mine}); "
                    "remove it to start anew, or give another --output"
                )
                raise ValueError(msg)
        self.net.load_state_dict(content["net"])
        self.average.load_state_dict(content["average"])
        self.optimiser.load_state_dict(content["optimiser"])
        self.step = int(content["step"])


def train(data_dir: Path, output: Path, recipe: Recipe, threads: int, report: Report) -> Path:
    """Train, or continue an interrupted training, and return the finished checkpoint.

    Args:
        data_dir: What `vla_ros learn generate` wrote.
        output: Folder of the checkpoint.
        recipe: What to train with.
        threads: CPU threads. Results are reproducible for the same number of them.
        report: Takes lines for people.

    Raises:
        ValueError: If the data or an earlier checkpoint does not fit.

    """
    torch.set_num_threads(threads)
    output.mkdir(parents=True, exist_ok=True)
    checkpoint = output / "checkpoint.pt"
    data = Dataset.load(data_dir)
    training = Training(data, recipe)
    parameters = sum(p.numel() for p in training.net.parameters())
    report(
        f"{len(training.rows)} samples of {len(np.unique(data.episode))} episodes, "
        f"{len(training.validation_rows)} for validation, {parameters / 1e6:.2f} M parameters"
    )
    if checkpoint.exists():
        training.resume(checkpoint)
        report(f"continuing {checkpoint} at step {training.step}")
    else:
        accuracy = training.teach_words()
        report(f"words: {accuracy:.3f} of fresh instructions understood")
    started, first = time.monotonic(), training.step
    shown = started
    validation: dict[str, float] = {}
    while training.step < recipe.steps:
        parts = training.advance()
        now = time.monotonic()
        finished = training.step == recipe.steps
        if training.step % SAVE_EVERY == 0 or finished:
            validation = training.validate()
            training.save(checkpoint, validation=validation)
            line = " ".join(f"{k} {v:.3f}" for k, v in validation.items())
            report(f"step {training.step}/{recipe.steps} validation: {line}")
        elif now - shown > REPORT_EVERY_S:
            shown = now
            pace = (now - started) / (training.step - first)
            line = " ".join(f"{k} {v:.3f}" for k, v in parts.items())
            left = pace * (recipe.steps - training.step) / 60
            report(
                f"step {training.step}/{recipe.steps} {recipe.batch / pace:.0f} samples/s, "
                f"{left:.1f} min left: {line}"
            )
    report(f"trained in {(time.monotonic() - started) / 60:.1f} min: {checkpoint}")
    return checkpoint


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments of `vla_ros learn train`."""
    parser.add_argument("--data", type=Path, default=Path("runs/learn/demonstrations"))
    parser.add_argument("--output", type=Path, default=Path("runs/learn/training"))
    parser.add_argument("--steps", type=whole(1), default=Recipe().steps)
    parser.add_argument("--batch", type=whole(1), default=Recipe().batch)
    parser.add_argument("--seed", type=whole(0), default=Recipe().seed)
    parser.add_argument("--threads", type=whole(1), default=2, help="of the CPU")


def run(args: argparse.Namespace) -> int:
    """Carry out `vla_ros learn train`."""
    recipe = Recipe(steps=args.steps, batch=args.batch, seed=args.seed)
    train(args.data, args.output, recipe, args.threads, partial(print, flush=True))
    return 0
