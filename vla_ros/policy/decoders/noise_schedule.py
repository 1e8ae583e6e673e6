"""The steps of a diffusion model from noise to a sample: DDIM and DDPM.

Notation as in the papers: a is the cumulative product of 1 - beta up to a training step, e the
noise in the sample x, x0 what the sample is without it: x = sqrt(a) x0 + sqrt(1 - a) e.

- DDPM: J. Ho, A. Jain, P. Abbeel, Denoising Diffusion Probabilistic Models, 2020, eq. 7.
- DDIM: J. Song, C. Meng, S. Ermon, Denoising Diffusion Implicit Models, 2021, eq. 12, with eta = 0.
- v: T. Salimans, J. Ho, Progressive Distillation, 2022, app. D: v = sqrt(a) e - sqrt(1 - a) x0.

The numbers are those of `diffusers`' DDIMScheduler and DDPMScheduler with their defaults, which
LeRobot trains and runs with: leading spacing, the last step goes to a = 1, variance `fixed_small`.
Single precision is theirs: with 1 - a as small as 1e-4, double precision would be other numbers.
"""

import itertools
import math
from typing import Literal

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]

_MAX_BETA = 0.999
_LEAST_VARIANCE = np.float32(1e-20)


def betas(
    kind: Literal["linear", "scaled_linear", "squaredcos_cap_v2"],
    train_steps: int,
    start: float,
    end: float,
) -> Floats:
    """Return the variance added in each training step, float32, shape (train_steps,).

    Args:
        kind: `linear` from start to end; `scaled_linear`, whose square root is; or
            `squaredcos_cap_v2`, which takes neither: A. Nichol, P. Dhariwal, Improved Denoising
            Diffusion Probabilistic Models, 2021, eq. 17, capped at 0.999.
        train_steps: Steps that the model was trained with.
        start: Of the first step.
        end: Of the last step.

    """
    if kind == "linear":
        return np.linspace(start, end, train_steps).astype(np.float32)
    if kind == "scaled_linear":
        roots = np.linspace(math.sqrt(start), math.sqrt(end), train_steps).astype(np.float32)
        return np.square(roots)
    shares = [
        math.cos((step / train_steps + 0.008) / 1.008 * math.pi / 2) ** 2
        for step in range(train_steps + 1)
    ]
    ratios = [after / before for before, after in itertools.pairwise(shares)]
    return np.array([min(1.0 - ratio, _MAX_BETA) for ratio in ratios], np.float32)


class NoiseSchedule:
    """Which training steps are visited, and how a sample gets from each to the next."""

    def __init__(
        self,
        scheduler: Literal["ddim", "ddpm"],
        beta: Floats,
        steps: int,
        prediction: Literal["epsilon", "sample", "v_prediction"],
        clip: float | None,
    ) -> None:
        """Work out the coefficients.

        Args:
            scheduler: `ddim`, which adds no noise, or `ddpm`, which does.
            beta: Of each training step, see `betas`.
            steps: Steps to take, at most as many as were trained.
            prediction: What the model predicts: the noise, the sample or v.
            clip: x0 is kept within plus and minus this; None: as it is.

        """
        self._ddpm = scheduler == "ddpm"
        self._prediction = prediction
        self._clip = None if clip is None else np.float32(clip)
        stride = len(beta) // steps
        self.timesteps: tuple[int, ...] = tuple(range((steps - 1) * stride, -1, -stride))
        """Training step of each step, descending to 0."""
        # Products in double precision, each rounded: as torch.cumprod does.
        kept = np.float32(1.0) - beta
        products = np.cumprod(kept.astype(np.float64)).astype(np.float32)
        self._a = products[list(self.timesteps)]
        self._a_next = np.append(self._a[1:], np.float32(1.0))

    def step(self, index: int, predicted: Floats, sample: Floats, noise: Floats | None) -> Floats:
        """Return the sample after a step, float32, in the sample's shape.

        Args:
            index: Of the step in `timesteps`.
            predicted: What the model predicts for `sample` at that training step.
            sample: Before the step.
            noise: Standard normal, in the sample's shape, where `needs_noise`.

        """
        one = np.float32(1.0)
        a, a_next = self._a[index], self._a_next[index]
        b = one - a
        if self._prediction == "epsilon":
            x0, e = (sample - np.sqrt(b) * predicted) / np.sqrt(a), predicted
        elif self._prediction == "sample":
            x0, e = predicted, (sample - np.sqrt(a) * predicted) / np.sqrt(b)
        else:
            x0 = np.sqrt(a) * sample - np.sqrt(b) * predicted
            e = np.sqrt(a) * predicted + np.sqrt(b) * sample
        if self._clip is not None:
            x0 = np.clip(x0, -self._clip, self._clip)
        if not self._ddpm:
            # e stays that of the unclipped x0.
            return np.asarray(np.sqrt(a_next) * x0 + np.sqrt(one - a_next) * e, np.float32)
        kept = a / a_next
        added, b_next = one - kept, one - a_next
        mean = (np.sqrt(a_next) * added / b) * x0 + (np.sqrt(kept) * b_next / b) * sample
        if noise is None:
            return np.asarray(mean, np.float32)
        variance = np.maximum(b_next / b * added, _LEAST_VARIANCE)
        return np.asarray(mean + np.sqrt(variance) * noise, np.float32)

    def needs_noise(self, index: int) -> bool:
        """Return whether a step adds noise: every one of DDPM's but the last."""
        return self._ddpm and self.timesteps[index] > 0
