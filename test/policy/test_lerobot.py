"""The numbers are LeRobot's: its own normaliser and real-time chunking, run beside ours.

Where LeRobot 0.4.4 is not installed these are skipped (`make test-lerobot` has an environment of
its own); test_normalise.py and decoders/test_guidance.py hold the same formulas written out.
"""

import numpy as np
import pytest

from vla_ros.policy.decoders.guidance import Guidance
from vla_ros.policy.manifest import MeanStd, MinMax, Quantiles
from vla_ros.policy.normalise import denormalise, normalise
from vla_ros.policy.prefix import Prefix

pytest.importorskip("lerobot", reason="compares with LeRobot, which is not installed")
torch = pytest.importorskip("torch")
# LeRobot imports torchvision, of which there is no build beside the CPU build of torch.
pytest.importorskip("vla_ros.export.lerobot.torchvision_shim").install()

# The third entry is constant.
MEAN, STD = (1.0, -2.0, 3.0), (0.5, 4.0, 0.0)
LOW, HIGH = (-1.0, 0.0, 2.5), (1.0, 10.0, 2.5)
CASES = {
    "MEAN_STD": (
        {"mean": MEAN, "std": STD},
        MeanStd(type="mean_std", mean=MEAN, std=STD),
    ),
    "MIN_MAX": (
        {"min": LOW, "max": HIGH},
        MinMax(type="min_max", min=LOW, max=HIGH),
    ),
    "QUANTILES": (
        {"q01": LOW, "q99": HIGH},
        Quantiles(type="quantiles", low=LOW, high=HIGH),
    ),
}


@pytest.mark.parametrize("mode", CASES)
def test_its_normaliser_gives_the_same(mode):
    from lerobot.configs.types import FeatureType, NormalizationMode, PolicyFeature
    from lerobot.processor.normalize_processor import NormalizerProcessorStep

    statistics, spec = CASES[mode]
    theirs = NormalizerProcessorStep(
        features={"action": PolicyFeature(FeatureType.ACTION, (3,))},
        norm_map={FeatureType.ACTION: NormalizationMode[mode]},
        stats={"action": {key: np.array(value) for key, value in statistics.items()}},
        dtype=torch.float64,
    )
    values = np.random.default_rng(0).normal(size=(20, 3))
    values[:, 2] = MEAN[2] if mode == "MEAN_STD" else LOW[2]
    for inverse, ours in ((False, normalise), (True, denormalise)):
        expected = theirs._normalize_action(torch.from_numpy(values), inverse=inverse)
        np.testing.assert_allclose(ours(values, spec), expected.numpy(), rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("time", [1.0, 0.9, 0.5, 0.1])
@pytest.mark.parametrize("delay", [0, 4])
def test_its_real_time_chunking_gives_the_same(time, delay):
    from lerobot.policies.rtc.configuration_rtc import RTCConfig
    from lerobot.policies.rtc.modeling_rtc import RTCProcessor

    torch.manual_seed(0)
    net = torch.nn.Sequential(torch.nn.Linear(7, 64), torch.nn.Tanh(), torch.nn.Linear(64, 7))
    x, left = torch.randn(1, 50, 7), torch.randn(1, 30, 7)
    theirs = RTCProcessor(RTCConfig(enabled=True, max_guidance_weight=10.0))
    weights = theirs.get_prefix_weights(delay, 10, 50).numpy()
    with torch.no_grad():
        expected = theirs.denoise_step(
            x_t=x,
            prev_chunk_left_over=left,
            inference_delay=delay,
            time=time,
            original_denoise_step_partial=net,
            execution_horizon=10,
        )
        velocity = net(x).numpy()
    prefix = Prefix(left[0].numpy().astype(np.float64), delay, weights[:30], 10.0)
    estimate = x.numpy() - np.float32(time) * velocity
    pull = Guidance(prefix, (1, 50, 7)).pull(estimate, 1.0 - time)
    np.testing.assert_allclose(velocity - pull, expected.numpy(), rtol=1e-5, atol=1e-5)
