"""The steps from noise to a sample are those of `diffusers`, number for number.

Where diffusers is installed (the lerobot environment has it), both are run side by side; the table
of what diffusers 0.35.2 gave holds everywhere.
"""

import itertools

import numpy as np
import pytest

from vla_ros.policy.decoders.noise_schedule import NoiseSchedule, betas

SCHEDULERS = ("ddim", "ddpm")
BETAS = ("linear", "scaled_linear", "squaredcos_cap_v2")
PREDICTIONS = ("epsilon", "sample", "v_prediction")
START = np.array([-1.5, -0.4, 0.3, 2.0], np.float32)


def model(sample, timestep):
    """Predict something of the sample's size that depends on both."""
    return (0.6 * sample - 0.1 + 0.0005 * timestep).astype(np.float32)


def noise(timestep):
    return np.array([0.5, -1.0, 0.25, 1.5], np.float32) * np.float32(1 + timestep % 3) / 2


def run(scheduler, kind, prediction, *, steps=10, train_steps=100, clip=1.0):
    beta = betas(kind, train_steps, 0.0001, 0.02)
    schedule = NoiseSchedule(scheduler, beta, steps, prediction, clip)
    sample = START
    for index, timestep in enumerate(schedule.timesteps):
        drawn = noise(timestep) if schedule.needs_noise(index) else None
        sample = schedule.step(index, model(sample, timestep), sample, drawn)
    assert sample.dtype == np.float32
    return sample


def run_diffusers(scheduler, kind, prediction, *, steps=10, train_steps=100, clip=1.0):
    torch = pytest.importorskip("torch")
    diffusers = pytest.importorskip("diffusers", reason="compares with diffusers, not installed")
    ddpm = pytest.importorskip("diffusers.schedulers.scheduling_ddpm")
    options = {
        "num_train_timesteps": train_steps,
        "beta_start": 0.0001,
        "beta_end": 0.02,
        "beta_schedule": kind,
        "prediction_type": prediction,
        "clip_sample": clip is not None,
        "clip_sample_range": clip or 1.0,
    }
    name = "DDIMScheduler" if scheduler == "ddim" else "DDPMScheduler"
    theirs = getattr(diffusers, name)(**options)
    theirs.set_timesteps(steps)
    sample = torch.from_numpy(START.copy())[None]
    with pytest.MonkeyPatch.context() as patch:
        for timestep in theirs.timesteps:
            drawn = torch.from_numpy(noise(int(timestep)))[None]
            patch.setattr(ddpm, "randn_tensor", lambda *_, drawn=drawn, **__: drawn)
            predicted = torch.from_numpy(model(sample.numpy(), int(timestep)))
            sample = theirs.step(predicted, timestep, sample).prev_sample
    return sample.numpy()[0]


@pytest.mark.parametrize("scheduler", SCHEDULERS)
def test_diffusers_gives_the_same(scheduler):
    cases = itertools.product(BETAS, PREDICTIONS, (1, 7, 10, 100), (None, 0.7))
    for kind, prediction, steps, clip in cases:
        ours = run(scheduler, kind, prediction, steps=steps, clip=clip)
        theirs = run_diffusers(scheduler, kind, prediction, steps=steps, clip=clip)
        message = f"{kind} {prediction} {steps} {clip}"
        np.testing.assert_allclose(ours, theirs, rtol=2e-5, atol=2e-6, err_msg=message)


# 10 steps of 100, clipped at 1, by diffusers 0.35.2.
RECORDED = {
    ("ddim", "linear", "epsilon"): [-1.0, -0.2706417, 0.3175561, 1.0],
    ("ddim", "linear", "sample"): [-0.5142035, -0.2791927, -0.1296404, 0.1998978],
    ("ddim", "linear", "v_prediction"): [-0.797791, -0.1743432, 0.2223964, 1.0],
    ("ddim", "scaled_linear", "epsilon"): [-1.0, -0.2789274, 0.2974465, 1.0],
    ("ddim", "scaled_linear", "sample"): [-0.4699644, -0.2688512, -0.1408701, 0.1425648],
    ("ddim", "scaled_linear", "v_prediction"): [-0.8964741, -0.2072782, 0.231301, 1.0],
    ("ddim", "squaredcos_cap_v2", "epsilon"): [-0.9461201, -0.4320942, 0.5980175, 0.9895579],
    ("ddim", "squaredcos_cap_v2", "sample"): [-0.602661, -0.3145918, -0.1083322, 0.3012342],
    ("ddim", "squaredcos_cap_v2", "v_prediction"): [-0.4667168, -0.0695621, 0.1831729, 0.7969576],
    ("ddpm", "linear", "epsilon"): [-0.0264421, -1.0, 0.5971621, 1.0],
    ("ddpm", "linear", "sample"): [-0.1898504, -0.561135, -0.1054218, 0.3222002],
    ("ddpm", "linear", "v_prediction"): [0.2070767, -1.0, 0.4087398, 1.0],
    ("ddpm", "scaled_linear", "epsilon"): [-0.2276983, -1.0, 0.5206028, 1.0],
    ("ddpm", "scaled_linear", "sample"): [-0.2219442, -0.4481291, -0.1420066, 0.1933827],
    ("ddpm", "scaled_linear", "v_prediction"): [0.0075888, -1.0, 0.3974035, 1.0],
    ("ddpm", "squaredcos_cap_v2", "epsilon"): [0.812876, -1.0, 0.9042291, 1.0],
    ("ddpm", "squaredcos_cap_v2", "sample"): [-0.0045174, -0.6777608, -0.0641578, 0.4525718],
    ("ddpm", "squaredcos_cap_v2", "v_prediction"): [0.5959504, -1.0, 0.3617869, 1.0],
}


@pytest.mark.parametrize("case", RECORDED, ids="-".join)
def test_diffusers_gave_the_same(case):
    np.testing.assert_allclose(run(*case), RECORDED[case], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("scheduler", SCHEDULERS)
@pytest.mark.parametrize("prediction", PREDICTIONS)
def test_a_perfect_model_leads_to_its_sample(scheduler, prediction):
    """Whatever the noise, a model that knows the answer ends there."""
    answer = np.array([0.3, -0.8, 0.0, 0.9], np.float32)
    beta = betas("squaredcos_cap_v2", 100, 0.0001, 0.02)
    kept = np.cumprod(1.0 - beta.astype(np.float64))
    schedule = NoiseSchedule(scheduler, beta, 20, prediction, None)
    sample = START
    for index, timestep in enumerate(schedule.timesteps):
        a = kept[timestep]
        e = (sample - np.sqrt(a) * answer) / np.sqrt(1.0 - a)
        predicted = {
            "epsilon": e,
            "sample": answer,
            "v_prediction": np.sqrt(a) * e - np.sqrt(1.0 - a) * answer,
        }[prediction].astype(np.float32)
        drawn = noise(timestep) if schedule.needs_noise(index) else None
        sample = schedule.step(index, predicted, sample, drawn)
    np.testing.assert_allclose(sample, answer, atol=1e-4)


def test_timesteps_are_evenly_spaced_and_end_at_0():
    beta = betas("linear", 100, 0.0001, 0.02)
    schedule = NoiseSchedule("ddpm", beta, 3, "epsilon", None)
    assert schedule.timesteps == (66, 33, 0)
    assert [schedule.needs_noise(index) for index in range(3)] == [True, True, False]
    assert not NoiseSchedule("ddim", beta, 3, "epsilon", None).needs_noise(0)
