"""Promise: a checkpoint that lerobot saved becomes a bundle whose actions are lerobot's own.

Beside lerobot's processors and its `select_action` or `predict_action_chunk`, on random
observations with the same noise, at most 1e-4 off from the camera's pixels to the action in rad.
"""

import json

import numpy as np
import pytest

pytest.importorskip("lerobot", reason="needs lerobot's own environment: make test-lerobot")
torch = pytest.importorskip("torch")

import checkpoints

from vla_ros.cli import main
from vla_ros.export import parity
from vla_ros.export.lerobot.checkpoint import read_checkpoint
from vla_ros.export.lerobot.reference import prepare
from vla_ros.policy.bundle import Bundle

pytestmark = pytest.mark.timeout(600)

MEANING = ["--robot", "so101", "--action", "joint_position", "--rate", "30"]


@pytest.fixture(autouse=True, scope="module")
def _lerobot_without_torchvision():
    prepare("act")


def _export(checkpoint, out, *flags):
    return main(["export", "lerobot", str(checkpoint), "--out", str(out), *MEANING, *flags])


def _differences(out):
    report = json.loads((out / parity.REPORT).read_text())
    assert report["observations"] == 3
    # Zero against zero would prove nothing.
    assert report["greatest_value"]["decode"] > 0.1
    assert report["greatest_value"]["end to end"] > 0.1
    return report["greatest_difference"]


@pytest.fixture
def check(note_difference):
    return lambda out, *graphs: _check(note_difference, out, *graphs)


def _check(note, out, *graphs):
    found = _differences(out)
    note(found["end to end"])
    assert list(found) == ["preprocess", *graphs, "decode", "postprocess", "end to end"]
    assert found["preprocess"] <= 1e-5
    assert found["decode"] <= 1e-4
    assert found["end to end"] <= 1e-4
    return Bundle.load(out).manifest


@pytest.mark.parametrize(
    ("mode", "options"),
    [
        ("MEAN_STD", {}),
        ("QUANTILES", {"pre_norm": True, "use_vae": False}),
    ],
)
def test_act(tmp_path, check, mode, options):
    from lerobot.configs.types import NormalizationMode

    modes = {"VISUAL": "MEAN_STD", "STATE": mode, "ACTION": mode}
    mapping = {key: NormalizationMode(value) for key, value in modes.items()}
    checkpoint = checkpoints.save_act(tmp_path / "act", normalization_mapping=mapping, **options)
    assert _export(checkpoint, tmp_path / "bundle") == 0
    manifest = check(tmp_path / "bundle", "policy")
    assert manifest.decoder.type == "direct"
    assert manifest.action.chunk == 20
    kinds = {"MEAN_STD": "mean_std", "QUANTILES": "quantiles"}
    assert manifest.action.normalisation.type == kinds[mode]


def test_act_in_degrees_and_percent(tmp_path):
    checkpoint = checkpoints.save_act(tmp_path / "act")
    flags = ["--degrees", "--gripper-values", "0", "100"]
    assert _export(checkpoint, tmp_path / "bundle", *flags) == 0
    report = json.loads((tmp_path / "bundle" / parity.REPORT).read_text())
    assert report["greatest_difference"]["end to end"] <= 1e-6
    # What lerobot calls 1 is 1 deg.
    assert report["greatest_value"]["end to end"] < 0.1


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"noise_scheduler_type": "DDPM", "num_inference_steps": 20},
        {"prediction_type": "sample", "use_separate_rgb_encoder_per_camera": True},
        {"resize_shape": (48, 64), "crop_ratio": 0.9, "crop_shape": None},
        {"n_obs_steps": 1, "beta_schedule": "linear", "clip_sample": False},
    ],
    ids=["ddim", "ddpm", "sample, two encoders", "resized", "one moment, not clipped"],
)
def test_diffusion(tmp_path, check, options):
    checkpoint = checkpoints.save_diffusion(tmp_path / "diffusion", **options)
    assert _export(checkpoint, tmp_path / "bundle") == 0
    manifest = check(tmp_path / "bundle", "prefix", "step")
    steps = options.get("n_obs_steps", 2)
    assert manifest.history.steps == steps
    assert manifest.decoder.start == steps - 1
    assert manifest.action.chunk == 8


@pytest.mark.parametrize("options", [{}, {"empty_cameras": 1, "prefix_length": 250}])
def test_smolvla(tmp_path, check, options):
    checkpoint = checkpoints.save_smolvla(tmp_path / "smolvla", **options)
    flags = ("--language-model", str(checkpoint / "vlm"))
    assert _export(checkpoint, tmp_path / "bundle", *flags) == 0
    manifest = check(tmp_path / "bundle", "prefix", "step")
    assert manifest.instruction.suffix == "\n"
    assert manifest.state.size == manifest.action.size == 32
    # Each camera's own size, which the graph fits to the encoder's.
    assert [camera.size for camera in manifest.cameras] == [(48, 64), (40, 72)]


@pytest.mark.parametrize("options", [{}, {"empty_cameras": 1}])
def test_pi0(tmp_path, check, monkeypatch, options):
    checkpoint = checkpoints.save_pi0(tmp_path / "pi0", monkeypatch, **options)
    flags = ("--language-model", str(checkpoint / "vlm"))
    assert _export(checkpoint, tmp_path / "bundle", *flags) == 0
    manifest = check(tmp_path / "bundle", "prefix", "step")
    assert "state" in manifest.graph("step").inputs


def test_less_precise_variants_tell_their_error(tmp_path):
    checkpoint = checkpoints.save_smolvla(tmp_path / "smolvla")
    flags = ("--language-model", str(checkpoint / "vlm"), "--fp16", "--int8")
    assert _export(checkpoint, tmp_path / "bundle", *flags) == 0
    exact = _differences(tmp_path / "bundle")["end to end"]
    for precision, limit in (("fp16", 1e-3), ("int8", 0.1)):
        worse = _differences(tmp_path / f"bundle_{precision}")["end to end"]
        assert exact < worse < limit, precision


def test_on_the_robot_the_first_action_is_that_of_select_action(tmp_path):
    from vla_ros import robots
    from vla_ros.export.lerobot.reference import LeRobot
    from vla_ros.export.meaning import Meaning, Units
    from vla_ros.paths import share
    from vla_ros.policy.policy import Policy
    from vla_ros.robot import RobotConfig

    checkpoint = checkpoints.save_act(tmp_path / "act")
    assert _export(checkpoint, tmp_path / "bundle") == 0
    bundle = Bundle.load(tmp_path / "bundle")
    names = bundle.manifest.state.names
    plain = Units((1.0,) * 6, (0.0,) * 6)
    meaning = Meaning("x", {}, plain, names, plain)
    lerobot = LeRobot.load(read_checkpoint(checkpoint), meaning, None)
    observation = parity.random_observation(bundle.manifest, 5)
    lerobot.policy.reset()
    action = lerobot.policy.select_action(lerobot.batches(observation)[0])
    expected = lerobot.postprocessor(action).numpy()[0]

    robot = RobotConfig.load(share() / "config" / "robots" / "so101.yaml")
    policy = Policy(bundle, chain=robot.chain(robots.urdf("so101")))
    chunk = policy.infer(observation)
    assert np.abs(chunk.actions[0] - expected).max() <= 1e-4
    # From where the joints are to where the first action wants them, within one period.
    speeds = 30.0 * (expected[:5] - observation.joints.position)
    assert np.abs(chunk.joints[0] - speeds).max() <= 30.0 * 1e-4
    assert chunk.twists.shape == (20, 6)


def test_weights_that_do_not_fit_the_configuration_are_no_bundle(tmp_path, capsys):
    checkpoint = checkpoints.save_act(tmp_path / "act")
    checkpoints.rewrite(checkpoint / "config.json", lambda c: c.update(dim_model=32))
    assert _export(checkpoint, tmp_path / "bundle") == 1
    assert "lerobot cannot load it" in capsys.readouterr().err
    assert not (tmp_path / "bundle").exists()


def test_weights_that_are_cut_off_are_told(tmp_path, capsys):
    checkpoint = checkpoints.save_act(tmp_path / "act")
    file = checkpoint / "model.safetensors"
    file.write_bytes(file.read_bytes()[:1000])
    assert _export(checkpoint, tmp_path / "bundle") == 1
    assert "lerobot cannot load it: Error while deserializing" in capsys.readouterr().err
    assert not (tmp_path / "bundle").exists()


def test_the_gemma_of_pi0_is_transformers_own_but_for_the_scale():
    """In a process of its own, where nothing has been patched."""
    import subprocess
    import sys

    code = """
import torch
from transformers import GemmaConfig, GemmaModel
from vla_ros.export.lerobot import gemma
torch.manual_seed(0)
config = GemmaConfig(hidden_size=32, intermediate_size=64, num_hidden_layers=3, vocab_size=50,
                     num_attention_heads=4, num_key_value_heads=2, head_dim=8,
                     attn_implementation="eager")
model = GemmaModel(config).eval()
for value in model.parameters():
    value.data.add_(0.05 * torch.randn(value.shape))
embedded = torch.randn(1, 7, 32)
positions = torch.arange(7)[None]
mask = torch.full((7, 7), -1e30).triu(1)[None, None]
with torch.no_grad():
    expected = model(inputs_embeds=embedded / 32**0.5, position_ids=positions,
                     attention_mask=mask).last_hidden_state
    found, _ = gemma.run(model, embedded, mask, positions)
    _, past = gemma.run(model, embedded[:, :5], mask[..., :5, :5], positions[:, :5])
    rest, _ = gemma.run(model, embedded[:, 5:], mask[..., 5:, :], positions[:, 5:], past)
assert (found - expected).abs().max() < 1e-5, (found - expected).abs().max()
assert (rest - expected[:, 5:]).abs().max() < 1e-5
assert past[0][0].shape[2] == 5
"""
    subprocess.run([sys.executable, "-c", code], check=True)
