"""Promise: what a LeRobot checkpoint says is read as it is, or refused; nothing passes silently."""

import json

import numpy as np
import pytest
from plain_checkpoint import ACTION, FRONT, STATE, statistics, write_checkpoint

from vla_ros.export.error import ExportError
from vla_ros.export.lerobot.checkpoint import read_checkpoint, read_safetensors


def test_statistics_become_normalisations(tmp_path):
    found = read_checkpoint(write_checkpoint(tmp_path))
    assert found.state == {
        "type": "mean_std",
        "mean": [0.5, -0.25, 10.0],
        "std": [0.5, 2.0, 20.0],
        "eps": 1e-8,
    }
    assert found.action["mean"] == [1.0, 2.0, 50.0]
    (camera,) = found.cameras
    assert (camera.name, camera.size) == ("front", (48, 64))
    assert camera.mean == (0.25, 0.5, 0.75)
    assert np.allclose(camera.std, np.array([0.5, 0.25, 0.125]) + 1e-8, rtol=0, atol=1e-12)
    assert found.tokenizer is None


@pytest.mark.parametrize(
    ("mode", "names", "kind", "keys"),
    [
        ("MIN_MAX", ("min", "max"), "min_max", ("min", "max")),
        ("QUANTILES", ("q01", "q99"), "quantiles", ("low", "high")),
        ("QUANTILE10", ("q10", "q90"), "quantiles", ("low", "high")),
    ],
)
def test_each_mode_reads_its_own_statistics(tmp_path, mode, names, kind, keys):
    low, high = np.array([-1.0, -2.0, 0.0]), np.array([1.0, 2.0, 100.0])
    numbers = {f"{ACTION}.{names[0]}": low, f"{ACTION}.{names[1]}": high}
    write_checkpoint(tmp_path, modes={"ACTION": mode}, numbers=statistics() | numbers)
    found = read_checkpoint(tmp_path).action
    assert found == {"type": kind, keys[0]: low.tolist(), keys[1]: high.tolist()}


def test_an_image_that_is_scaled_by_its_range(tmp_path):
    write_checkpoint(tmp_path, modes={"VISUAL": "MIN_MAX"})
    camera = read_checkpoint(tmp_path).cameras[0]
    # 2 x / 0.5 - 1 is (x - 0.25) / 0.25.
    assert camera.mean == (0.25,) * 3
    assert camera.std == (0.25,) * 3


def test_identity_needs_no_statistics(tmp_path):
    modes = {"VISUAL": "IDENTITY", "STATE": "IDENTITY", "ACTION": "IDENTITY"}
    found = read_checkpoint(write_checkpoint(tmp_path, modes=modes, numbers={}))
    assert found.state == found.action == {"type": "identity"}
    assert found.cameras[0].std == (1.0,) * 3


@pytest.mark.parametrize("key", [f"{STATE}.mean", f"{ACTION}.std", f"{FRONT}.std"])
def test_a_key_without_statistics_is_an_error(tmp_path, key):
    numbers = statistics()
    del numbers[key]
    write_checkpoint(tmp_path, numbers=numbers)
    with pytest.raises(ExportError, match=f"{key}: is missing, which MEAN_STD needs"):
        read_checkpoint(tmp_path)


def test_statistics_of_another_size_or_not_finite(tmp_path):
    write_checkpoint(tmp_path, numbers=statistics() | {f"{STATE}.mean": np.zeros(2)})
    with pytest.raises(ExportError, match="statistics of 2 entries, but the policy has 3"):
        read_checkpoint(tmp_path)
    broken = np.array([1.0, np.nan, 1.0])
    write_checkpoint(tmp_path, numbers=statistics() | {f"{STATE}.mean": broken})
    with pytest.raises(ExportError, match=f"{STATE}.mean: is not finite"):
        read_checkpoint(tmp_path)


def test_a_camera_bears_the_name_that_the_robot_gave_it(tmp_path):
    write_checkpoint(tmp_path, rename={"observation.images.top-left": FRONT})
    camera = read_checkpoint(tmp_path).cameras[0]
    assert (camera.key, camera.name) == (FRONT, "top_left")


def test_how_the_instruction_becomes_tokens(tmp_path):
    steps = [
        {"registry_name": "smolvla_new_line_processor", "config": {}},
        {
            "registry_name": "tokenizer_processor",
            "config": {"tokenizer_name": "some/model", "max_length": 48, "padding_side": "right"},
        },
    ]
    write_checkpoint(tmp_path, kind="smolvla", steps=steps)
    tokenizer = read_checkpoint(tmp_path).tokenizer
    assert (tokenizer.name, tokenizer.length, tokenizer.suffix) == ("some/model", 48, "\n")


def test_a_step_that_no_manifest_can_say_is_refused(tmp_path):
    steps = [{"registry_name": "delta_actions_processor", "config": {}}]
    write_checkpoint(tmp_path, steps=steps)
    with pytest.raises(ExportError, match=r"steps\[2\]: 'delta_actions_processor' does what no"):
        read_checkpoint(tmp_path)


def test_a_checkpoint_from_before_the_processors_says_how_to_convert_it(tmp_path):
    write_checkpoint(tmp_path)
    (tmp_path / "policy_preprocessor.json").unlink()
    with pytest.raises(ExportError, match="migrate_policy_normalization"):
        read_checkpoint(tmp_path)


def test_other_folders_and_policies_are_refused(tmp_path):
    with pytest.raises(ExportError, match="is this a checkpoint's folder"):
        read_checkpoint(tmp_path)
    with pytest.raises(ExportError, match="type: is 'vqbet'; act, diffusion, smolvla, pi0 can"):
        read_checkpoint(write_checkpoint(tmp_path, kind="vqbet"))
    write_checkpoint(tmp_path)
    (tmp_path / "model.safetensors").unlink()
    with pytest.raises(ExportError, match=r"model\.safetensors: there is no such file"):
        read_checkpoint(tmp_path)


def test_an_input_that_no_robot_gives_is_refused(tmp_path):
    write_checkpoint(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    config["input_features"]["observation.environment_state"] = {"type": "ENV", "shape": [4]}
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(ExportError, match=r"'observation\.environment_state' of type ENV"):
        read_checkpoint(tmp_path)


@pytest.mark.parametrize("content", [b"", b"\xff" * 20, b"\x02" + bytes(7) + b"[]"])
def test_a_broken_file_of_statistics_is_refused(tmp_path, content):
    (tmp_path / "x.safetensors").write_bytes(content)
    with pytest.raises(ExportError, match="is no safetensors file of statistics"):
        read_safetensors(tmp_path / "x.safetensors")
