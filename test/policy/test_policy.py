"""From an observation to a chunk: normalisation, frames, units, and refusal of what is unusable."""

import numpy as np
import pytest
import yaml

from bundles import WORDS, forward_actions, make_bundle, manifest, write_manifest
from vla_ros.observation.observation import Observation
from vla_ros.policy.backends import BackendOptions
from vla_ros.policy.bundle import Bundle
from vla_ros.policy.inputs import image_input
from vla_ros.policy.manifest import Camera, Instruction
from vla_ros.policy.policy import Policy, PolicyError
from vla_ros.policy.tokens import InstructionEncoder, InstructionError
from vla_ros.types import JointSample

JOINT_NAMES = tuple(f"panda_joint{i}" for i in range(1, 8))


def observation(instruction="pick up the red cube", rotation=None, front=100, **changes):
    values = {
        "stamp_ns": 123,
        "images": {
            "front": np.full((96, 96, 3), front, np.uint8),
            "wrist": np.full((80, 96, 3), 100, np.uint8),
        },
        "joints": JointSample(123, np.zeros(7), np.zeros(7), None, 0.04),
        "joint_names": JOINT_NAMES,
        "tcp_position": np.zeros(3),
        "tcp_rotation": np.eye(3) if rotation is None else rotation,
        "instruction": instruction,
        "epoch": 7,
    }
    return Observation(**(values | changes))


@pytest.fixture(scope="module")
def policy(tmp_path_factory):
    return Policy(make_bundle(tmp_path_factory.mktemp("bundle")))


def test_a_chunk_is_in_si_units_of_the_base_frame(policy):
    """The model's millimetres a thirtieth of a second become metres a second, turned by the TCP."""
    quarter = np.array([[0.0, -1.0, 0.0], [1.0, 0.0, 0.0], [0.0, 0.0, 1.0]])
    chunk = policy.infer(observation(rotation=quarter))
    assert (chunk.stamp_ns, chunk.epoch, chunk.period_ns) == (123, 7, 33_333_333)
    assert chunk.instruction == "pick up the red cube"
    forward = (np.arange(16) + 1.0) * 0.001 * 30.0
    side = WORDS.index("red") * 0.001 * 30.0
    # Along the tool's x, which is the base's y; along the tool's y, the base's -x.
    np.testing.assert_allclose(chunk.twists[:, 1], forward, rtol=1e-6)
    np.testing.assert_allclose(chunk.twists[:, 0], -side, rtol=1e-6)
    np.testing.assert_allclose(chunk.twists[:, 2:], 0.0, atol=1e-9)
    np.testing.assert_allclose(chunk.gripper, 0.08)


def test_the_rotation_vector_is_turned_too(tmp_path):
    actions = np.zeros((1, 2, 7))
    actions[0, :, 3] = 2.0
    quarter = np.array([[0.0, -1.0, 0.0], [1.0, 0.0, 0.0], [0.0, 0.0, 1.0]])
    chunk = Policy(make_bundle(tmp_path, actions)).infer(observation(rotation=quarter))
    np.testing.assert_allclose(chunk.twists[:, 4], 2.0 * 0.001 * 30.0, rtol=1e-6)
    np.testing.assert_allclose(chunk.gripper, 0.0)


def test_words_reach_the_model(policy):
    red = policy.infer(observation("pick up the red cube"))
    blue = policy.infer(observation("pick up the blue cube"))
    step = (WORDS.index("blue") - WORDS.index("red")) * 0.001 * 30.0
    np.testing.assert_allclose(blue.twists[:, 1] - red.twists[:, 1], step, rtol=1e-5)


def test_an_output_that_is_not_finite_is_refused(tmp_path):
    policy = Policy(make_bundle(tmp_path, when_dark="nan"))
    policy.infer(observation())
    with pytest.raises(PolicyError, match="not finite: x of action 0"):
        policy.infer(observation(front=0))


def test_a_missing_image_or_one_of_another_size_is_refused(policy):
    with pytest.raises(PolicyError, match="no image of camera 'front'"):
        policy.infer(observation(images={"wrist": np.zeros((80, 96, 3), np.uint8)}))
    images = {"front": np.zeros((95, 96, 3), np.uint8), "wrist": np.zeros((80, 96, 3), np.uint8)}
    with pytest.raises(PolicyError, match=r"\(95, 96, 3\) of camera 'front'"):
        policy.infer(observation(images=images))


def test_an_instruction_that_is_too_long_is_refused_not_cut(policy):
    with pytest.raises(PolicyError, match=r"20 words.*at most 16"):
        policy.infer(observation("pick " * 20))


@pytest.mark.parametrize("layout", ["nchw", "nhwc"])
def test_images_are_normalised_as_the_manifest_says(layout):
    camera = Camera.model_validate(
        manifest()["cameras"][1]
        | {"layout": layout, "scale": 0.5, "mean": [1.0, 2.0, 3.0], "std": [2.0, 4.0, 8.0]}
    )
    image = np.random.default_rng(0).integers(0, 256, (80, 96, 3), np.uint8)
    values = image_input(image, camera)
    expected = (image * 0.5 - [1.0, 2.0, 3.0]) / [2.0, 4.0, 8.0]
    if layout == "nchw":
        expected = expected.transpose(2, 0, 1)
    assert values.shape == camera.input_shape
    assert values.dtype == np.float32
    np.testing.assert_allclose(values[0], expected, rtol=1e-6, atol=1e-5)


def test_a_continuous_gripper_opens_part_of_the_way(tmp_path):
    actions = np.zeros((1, 3, 7))
    actions[0, :, 6] = [-0.5, 0.25, 1.5]
    make_bundle(tmp_path, actions)
    content = yaml.safe_load((tmp_path / "manifest.yaml").read_text())
    del content["files"]
    content["action"]["gripper"] = {"open_m": 0.08, "closed_m": 0.02, "mode": "continuous"}
    policy = Policy(write_manifest(tmp_path, content))
    np.testing.assert_allclose(policy.infer(observation()).gripper, [0.02, 0.035, 0.08])


def test_a_binary_gripper_opens_from_the_threshold_on(tmp_path):
    actions = np.zeros((1, 3, 7))
    actions[0, :, 6] = [0.49, 0.5, 0.9]
    chunk = Policy(make_bundle(tmp_path, actions)).infer(observation())
    np.testing.assert_allclose(chunk.gripper, [0.0, 0.08, 0.08])


@pytest.fixture
def encoder(tmp_path):
    make_bundle(tmp_path, forward_actions())
    instruction = Instruction(tokenizer="tokenizer.json", length=16)
    return InstructionEncoder(tmp_path / "tokenizer.json", instruction)


def test_tokens_are_padded_and_unknown_words_named(encoder):
    tokens = encoder("Pick up the PURPLE cube, shiny")
    expected = [WORDS.index(w) for w in ("pick", "up", "the", "<unk>", "cube", "<unk>")]
    assert tokens.ids.tolist() == [expected + [0] * 10]
    assert tokens.ids.dtype == np.int64
    assert tokens.unknown == ("PURPLE", "shiny")
    assert encoder("pick up the red cube").unknown == ()


def test_the_last_instruction_is_remembered(encoder):
    assert encoder("pick up") is encoder("pick up")
    assert encoder("the red cube").ids[0, 0] == WORDS.index("the")


def test_length_counts_words(encoder):
    assert encoder("pick " * 16).ids.shape == (1, 16)
    with pytest.raises(InstructionError, match="17 words"):
        encoder("pick " * 17)


def test_threads_do_not_change_the_result(tmp_path):
    bundle = make_bundle(tmp_path)
    one = Policy(bundle, BackendOptions(threads=1)).infer(observation())
    two = Policy(Bundle.load(tmp_path), BackendOptions(threads=2)).infer(observation())
    np.testing.assert_array_equal(one.twists, two.twists)
