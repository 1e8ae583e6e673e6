"""What a graph is given is what its manifest says: types, axes, order of moments, words."""

import copy

import numpy as np
import pytest
from decoder_bundles import manifest, observed, tensor

from bundles import WORDS, write_tokenizer
from vla_ros.observation.observation import Observation, Snapshot
from vla_ros.policy.bundle import Bundle
from vla_ros.policy.inputs import InputBuilder, InputError
from vla_ros.policy.manifest import BundleError, parse_manifest
from vla_ros.policy.tokens import InstructionError
from vla_ros.types import JointSample

JOINTS = tuple(f"panda_joint{i}" for i in range(1, 8))


def image(seed):
    return np.random.default_rng(seed).integers(0, 256, (8, 8, 3), np.uint8)


def joints(opening=0.04):
    return JointSample(0, np.zeros(7), np.zeros(7), None, opening)


def observation(**changes):
    values = {
        "stamp_ns": 0,
        "images": {"front": image(0)},
        "joints": joints(),
        "joint_names": JOINTS,
        "tcp_position": np.array([0.25, 0.0, 0.0]),
        "tcp_rotation": np.eye(3),
        "instruction": "pick up the red",
    }
    return Observation(**(values | changes))


def snapshot(seed, x):
    return Snapshot(0, {"front": image(seed)}, joints(), np.array([x, 0.0, 0.0]), np.eye(3))


def bundle(folder, change=None, *, history=1, drop=(), backend=None):
    """Return a bundle without graphs' files, of decoder direct, its content changed."""
    write_tokenizer(folder / "tokenizer.json")
    inputs = {name: t for name, t in observed(history).items() if name not in drop}
    graph = {"name": "policy", "inputs": inputs, "outputs": {"actions": tensor([1, 4, 8])}}
    graph |= {"file": "policy.onnx"} if backend is None else {"backend": backend}
    content = manifest(history=history, graphs=[graph], decoder={"type": "direct"})
    content = copy.deepcopy(content)
    if change is not None:
        change(content)
    content["files"] = dict.fromkeys(("policy.onnx", "tokenizer.json"), "0" * 64)
    return Bundle(folder, parse_manifest(content, folder / "manifest.yaml"))


def check_shapes(made, source):
    """Check names, shapes and types against what the manifest says."""
    expected = source.manifest.observation_inputs
    assert set(made) == set(expected)
    for name, spec in expected.items():
        assert (made[name].shape, made[name].dtype) == (spec.shape, spec.dtype), name


@pytest.mark.parametrize("history", [1, 3])
def test_names_shapes_and_types_are_the_manifests(tmp_path, history):
    source = bundle(tmp_path, history=history)
    past = tuple(snapshot(seed, 0.1 * seed) for seed in range(1, history))
    check_shapes(InputBuilder(source)(observation(history=past)), source)


def test_moments_are_stacked_oldest_first(tmp_path):
    made = InputBuilder(bundle(tmp_path, history=3))(
        observation(history=(snapshot(1, 0.5), snapshot(2, 0.75)))
    )
    pixels = made["observation.images.front"]
    assert pixels.shape == (1, 3, 3, 8, 8)
    for place, seed in enumerate((1, 2, 0)):
        expected = image(seed).transpose(2, 0, 1) / 255
        np.testing.assert_allclose(pixels[0, place], expected, atol=1e-6)
    np.testing.assert_allclose(made["state"][0, :, 0], [0.0, 0.5, -0.5], atol=1e-6)


@pytest.mark.parametrize("layout", ["nchw", "nhwc"])
def test_pixels_of_type_uint8_are_as_they_are(tmp_path, layout):
    shape = [1, 3, 8, 8] if layout == "nchw" else [1, 8, 8, 3]

    def change(content):
        camera = content["cameras"][0]
        for key in ("scale", "mean", "std"):
            del camera[key]
        camera |= {"type": "uint8", "layout": layout}
        content["graphs"][0]["inputs"]["observation.images.front"] = tensor(shape, "uint8")

    source = bundle(tmp_path, change)
    made = InputBuilder(source)(observation())
    check_shapes(made, source)
    pixels = made["observation.images.front"][0]
    np.testing.assert_array_equal(
        pixels, image(0).transpose(2, 0, 1) if layout == "nchw" else image(0)
    )


def test_the_state_is_normalised_and_then_filled_up(tmp_path):
    made = InputBuilder(bundle(tmp_path))(observation(joints=joints(0.06)))
    np.testing.assert_allclose(made["state"], [[-0.5, 0.5, 0.0]], atol=1e-6)


def test_tokens_end_with_the_suffix_and_the_mask_with_them(tmp_path):
    build = InputBuilder(bundle(tmp_path))
    made = build(observation(instruction="pick up"))
    expected = [WORDS.index(word) for word in ("pick", "up", "cube", "<pad>", "<pad>")]
    assert made["tokens"].tolist() == [expected]
    assert made["mask"].tolist() == [[True, True, True, False, False]]
    assert build.unknown_words("pick the mug") == ("mug",)
    with pytest.raises(InstructionError, match=r"6 words.*at most 5"):
        build.unknown_words("pick up the red thing")
    with pytest.raises(InputError, match=r"6 words.*at most 5"):
        build(observation(instruction="pick up the red thing"))


def test_a_tokenizer_may_know_every_word(tmp_path):
    def change(content):
        content["instruction"]["unknown_token"] = None

    assert InputBuilder(bundle(tmp_path, change)).unknown_words("pick the mug") == ()


@pytest.mark.parametrize("key", ["pad_token", "unknown_token"])
def test_a_token_that_the_tokenizer_lacks_is_named(tmp_path, key):
    def change(content):
        content["instruction"][key] = "<none>"

    with pytest.raises(BundleError, match=rf"instruction\.{key}: .*no token '<none>'"):
        InputBuilder(bundle(tmp_path, change))


def test_a_server_is_given_the_text_itself(tmp_path):
    def change(content):
        content["instruction"] = {"tokenizer": None, "input": "prompt"}
        content["graphs"][0]["inputs"]["prompt"] = tensor([1], "string")

    source = bundle(tmp_path, change, drop=("tokens", "mask"), backend="triton")
    build = InputBuilder(source)
    made = build(observation(instruction="any words, of any number, that there are"))
    check_shapes(made, source)
    assert made["prompt"].tolist() == ["any words, of any number, that there are"]
    assert build.unknown_words("any words") == ()


def test_a_model_may_take_neither_state_nor_words(tmp_path):
    def change(content):
        del content["state"], content["instruction"]

    source = bundle(tmp_path, change, drop=("state", "tokens", "mask"))
    made = InputBuilder(source)(observation())
    assert set(made) == {"observation.images.front"}


def test_what_the_robot_lacks_is_named(tmp_path):
    with pytest.raises(InputError, match="gripper"):
        InputBuilder(bundle(tmp_path))(observation(joints=joints(None)))
