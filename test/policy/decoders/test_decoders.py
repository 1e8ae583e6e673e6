"""Bundles of every decoder, from the folder to the chunk, against what their graphs make known."""

import re
from pathlib import Path

import numpy as np
import pytest
import yaml
from decoder_bundles import make_action_tokens, make_diffusion, make_flow, ramp, spoken
from pydantic import TypeAdapter

from vla_ros.kinematics import rotation_from_rotvec
from vla_ros.observation.observation import Observation, Snapshot
from vla_ros.policy.backends import BackendError, open_backend
from vla_ros.policy.bundle import Bundle, BundleError
from vla_ros.policy.decoders.noise import generator, normal
from vla_ros.policy.decoders.noise_schedule import NoiseSchedule, betas
from vla_ros.policy.manifest import Decoder
from vla_ros.policy.motion import Motion, from_motion
from vla_ros.policy.normalise import normalise
from vla_ros.policy.policy import Policy, PolicyError
from vla_ros.policy.prefix import Prefix
from vla_ros.types import JointSample

JOINTS = tuple(f"panda_joint{i}" for i in range(1, 8))
WORDS = (2 + 3 + 8) / 100  # "pick up" and the suffix " cube", by their places in the vocabulary


def sample(opening=0.02):
    return JointSample(0, np.zeros(7), np.zeros(7), None, opening)


def picture(value):
    return {"front": np.full((8, 8, 3), value, np.uint8)}


def observation(stamp_ns=5, **changes):
    values = {
        "stamp_ns": stamp_ns,
        "images": picture(51),  # 0.2
        "joints": sample(),  # -0.5 of its range
        "joint_names": JOINTS,
        "tcp_position": np.array([0.75, 0.0, 0.0]),  # 0.5 of its range
        "tcp_rotation": np.eye(3),
        "instruction": "pick up",
    }
    return Observation(**(values | changes))


def earlier(value, x, opening=0.02):
    return Snapshot(0, picture(value), sample(opening), np.array([x, 0.0, 0.0]), np.eye(3))


def count_runs(policy, name):
    """Return a list that grows by the inputs of each run of a graph."""
    backend, seen = policy._graphs[name], []

    class Counted:
        def run(self, inputs):
            seen.append(dict(inputs))
            return backend.run(inputs)

        def close(self):
            backend.close()

    policy._graphs[name] = Counted()
    return seen


def actions(chunk):
    """Return the chunk's actions but for the gripper, (n, 6): twists in the base frame."""
    np.testing.assert_array_equal(chunk.actions[:, :6], chunk.twists)
    return chunk.actions[:, :6]


CONTEXT = 0.2 + WORDS  # The state's two entries cancel out.


@pytest.mark.parametrize("direction", ["one_to_zero", "zero_to_one"])
@pytest.mark.parametrize("steps", [1, 5, 10])
def test_a_straight_flow_arrives_in_any_number_of_steps(tmp_path, direction, steps):
    policy = Policy(make_flow(tmp_path, direction=direction, steps=steps))
    prefix, step = count_runs(policy, "prefix"), count_runs(policy, "step")
    chunk = policy.infer(observation())
    np.testing.assert_allclose(chunk.actions, ramp(4)[0, :, :7] + CONTEXT, atol=1e-6)
    np.testing.assert_allclose(chunk.gripper, ramp(4)[0, :, 6] + CONTEXT, atol=1e-6)
    assert (len(prefix), len(step)) == (1, steps)
    times = [float(inputs["t"][0]) for inputs in step]
    expected = np.arange(steps) / steps
    np.testing.assert_allclose(times, 1.0 - expected if direction == "one_to_zero" else expected)
    np.testing.assert_allclose(prefix[0]["state"], [[0.5, -0.5, 0.0]], atol=1e-7)
    assert prefix[0]["mask"].tolist() == [[True, True, True, False, False]]


@pytest.mark.parametrize("direction", ["one_to_zero", "zero_to_one"])
def test_a_flow_starts_from_the_observations_noise(tmp_path, direction):
    policy = Policy(make_flow(tmp_path, direction=direction, decay=True))
    chunk = policy.infer(observation())
    noise = normal(generator(3, 5), (1, 4, 8))[0]
    factor = (1.0 - 1 / 5) ** 5 if direction == "one_to_zero" else (1.0 + 1 / 5) ** 5
    np.testing.assert_allclose(actions(chunk), factor * noise[:, :6], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("make", [make_flow, make_diffusion, make_action_tokens])
def test_a_chunk_depends_on_its_observation_alone(tmp_path, make):
    bundle = make(
        tmp_path, **{make_flow: {"decay": True}, make_diffusion: {"knows": False}}.get(make, {})
    )
    past = {"history": (earlier(0, 0.5),)} if make is make_diffusion else {}
    one, two = Policy(bundle), Policy(Bundle.load(tmp_path))
    first = one.infer(observation(**past))
    other = one.infer(observation(stamp_ns=6, **past))
    again = one.infer(observation(**past))
    np.testing.assert_array_equal(first.actions, again.actions)
    np.testing.assert_array_equal(first.actions, two.infer(observation(**past)).actions)
    if make is not make_action_tokens:
        assert np.abs(first.actions - other.actions).max() > 0.1


def test_inputs_of_half_precision_are_given_so(tmp_path):
    policy = Policy(make_flow(tmp_path, dtype="float16"))
    step = count_runs(policy, "step")
    chunk = policy.infer(observation())
    assert {step[0]["x_t"].dtype, step[0]["t"].dtype} == {np.dtype(np.float16)}
    np.testing.assert_allclose(chunk.actions, ramp(4)[0, :, :7] + CONTEXT, atol=2e-2)


class OnDevice:
    """A tensor that a backend keeps to itself: all that others know is its shape."""

    def __init__(self, value):
        self.value, self.shape = value, value.shape


class Device:
    """A backend that keeps its cache on a device."""

    def __init__(self, backend):
        self._backend = backend

    def run(self, inputs):
        plain = {n: v.value if isinstance(v, OnDevice) else v for n, v in inputs.items()}
        outputs = self._backend.run(plain)
        return {n: OnDevice(v) if n == "context" else v for n, v in outputs.items()}

    def close(self):
        self._backend.close()


def test_a_cache_may_stay_where_the_backend_keeps_it(tmp_path, monkeypatch):
    bundle = make_flow(tmp_path)
    expected = Policy(bundle).infer(observation())
    monkeypatch.setattr(
        "vla_ros.policy.policy.open_backend", lambda *args: Device(open_backend(*args))
    )
    policy = Policy(bundle)
    step = count_runs(policy, "step")
    np.testing.assert_array_equal(policy.infer(observation()).actions, expected.actions)
    assert isinstance(step[0]["kv.context"], OnDevice)


def test_a_prefix_is_gone_on_with(tmp_path):
    """Where it counts in full the chunk is led to it, where it does not the model decides."""
    policy = Policy(make_flow(tmp_path, decay=True, steps=50))
    assert policy.takes_prefix
    alone = policy.infer(observation())
    left = np.full((3, 7), 0.4)
    prefix = Prefix(left, 1, np.array([1.0, 0.5, 0.0]), beta=100.0)
    guided = policy.infer(observation(), prefix)
    apart = np.abs(actions(guided) - 0.4).mean(axis=1)
    before = np.abs(actions(alone) - 0.4).mean(axis=1)
    assert apart[0] < 0.2 * before[0]
    assert apart[0] < apart[1] < before[1]
    np.testing.assert_array_equal(actions(guided)[2:], actions(alone)[2:])


def test_what_is_left_of_a_chunk_is_gone_on_with_in_the_new_observations_frame(tmp_path):
    """The tool has turned since: the same motion, written along its new axes, is gone on with."""

    def change(content):
        content["action"] |= {"type": "delta_pose", "frame": "tool", "reference": "previous"}
        spec = {"type": "mean_std", "mean": [0.0] * 7, "std": [0.01] * 6 + [0.5]}
        content["action"]["normalisation"] = spec

    bundle = make_flow(tmp_path, decay=True, steps=50, change=change)
    policy, action = Policy(bundle), bundle.manifest.action
    before = policy.infer(observation())
    new = observation(stamp_ns=6, tcp_rotation=rotation_from_rotvec(np.array([0.3, -1.0, 0.5])))
    left = Motion(before.twists[1:], before.gripper[1:], None)
    actions = normalise(from_motion(left, action, new), action.normalisation)
    guided = policy.infer(new, Prefix(actions, 1, np.ones(3), beta=1e3))
    alone = policy.infer(new)
    apart = np.abs(guided.twists[:3] - left.twists)
    assert apart.max() < 0.1 * np.abs(alone.twists[:3] - left.twists).max()


@pytest.mark.parametrize("scheduler", ["ddim", "ddpm"])
def test_diffusion_ends_where_the_model_says_and_uses_its_share_of_the_horizon(tmp_path, scheduler):
    policy = Policy(make_diffusion(tmp_path, scheduler=scheduler))
    prefix, step = count_runs(policy, "prefix"), count_runs(policy, "step")
    chunk = policy.infer(observation(history=(earlier(0, 1.0, 0.08),)))
    # Two moments: the image's mean is 0.1, and the sum of the state 2 from the earlier one.
    expected = ramp(6)[0, 1:5, :7] + 0.1 + 0.2 + WORDS
    np.testing.assert_allclose(chunk.actions, expected, atol=1e-5)
    assert (len(prefix), len(step)) == (1, 5)
    assert [int(inputs["timestep"][0]) for inputs in step] == [40, 30, 20, 10, 0]
    np.testing.assert_allclose(prefix[0]["state"], [[[1.0, 1.0, 0.0], [0.5, -0.5, 0.0]]], atol=1e-6)
    assert prefix[0]["observation.images.front"][0, :, 0, 0, 0].tolist() == [
        0.0,
        pytest.approx(0.2),
    ]


@pytest.mark.parametrize("scheduler", ["ddim", "ddpm"])
def test_diffusion_takes_the_steps_of_its_schedule(tmp_path, scheduler):
    settings = {"betas": "linear", "clip": 0.9, "steps": 7, "seed": 11}
    policy = Policy(
        make_diffusion(tmp_path, knows=False, history=1, scheduler=scheduler, **settings)
    )
    chunk = policy.infer(observation())
    schedule = NoiseSchedule(scheduler, betas("linear", 50, 1e-4, 0.02), 7, "epsilon", 0.9)
    rng = generator(11, 5)
    x = normal(rng, (1, 6, 8))
    for index, timestep in enumerate(schedule.timesteps):
        predicted = (x * 0.5 + 1e-4 * timestep).astype(np.float32)
        noise = normal(rng, x.shape) if schedule.needs_noise(index) else None
        x = schedule.step(index, predicted, x, noise)
    np.testing.assert_allclose(chunk.actions, x[0, 1:5, :7], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("descending", [False, True])
@pytest.mark.parametrize("prompt", [1, 3])
def test_tokens_become_the_middles_of_their_bins(tmp_path, descending, prompt):
    policy = Policy(make_action_tokens(tmp_path, descending=descending, prompt=prompt))
    prefix, step = count_runs(policy, "prefix"), count_runs(policy, "step")
    chunk = policy.infer(observation())
    first = 40 if descending else 20
    bins = spoken(2 + 3 + 8, 28, bins=16, first=first, descending=descending)
    expected = -1.0 + (np.array(bins).reshape(4, 7) + 0.5) / 8
    np.testing.assert_allclose(chunk.actions, expected, rtol=1e-7)
    assert len(set(bins)) > 8  # so that it shows which bin is which
    assert (len(prefix), len(step)) == (1, 27)
    assert [int(inputs["position"][0]) for inputs in step] == list(range(27))


def replace(policy, name, **outputs):
    """Have a graph give other outputs."""
    backend = policy._graphs[name]

    class Changed:
        def run(self, inputs):
            return backend.run(inputs) | outputs

        def close(self):
            backend.close()

    policy._graphs[name] = Changed()


def logits(token):
    values = np.zeros((1, 1, 64), np.float32)
    values[..., token] = 1.0
    return values


@pytest.mark.parametrize("token", [19, 36])
def test_a_token_that_is_no_action_is_refused(tmp_path, token):
    policy = Policy(make_action_tokens(tmp_path))
    replace(policy, "step", logits=logits(token))
    with pytest.raises(PolicyError, match=f"token is {token}, which is no action: y of action 0"):
        policy.infer(observation())


def test_openvlas_token_of_the_upper_edge_is_the_last_bin(tmp_path):
    policy = Policy(make_action_tokens(tmp_path, descending=True))
    step = count_runs(policy, "step")
    replace(policy, "prefix", logits=logits(40 - 16))
    assert policy.infer(observation()).actions[0, 0] == pytest.approx(1.0 - 1 / 16)
    assert step[0]["token"].tolist() == [[24]]  # as the model said it
    replace(policy, "prefix", logits=logits(40 - 17))
    with pytest.raises(PolicyError, match="token is 23, which is no action: x of action 0"):
        policy.infer(observation())


def test_every_token_of_openvla_is_the_value_that_it_gives_it(tmp_path):
    """Its ActionTokenizer written out, with 16 edges for its 256, of a vocabulary of 41."""
    policy = Policy(make_action_tokens(tmp_path, descending=True, bins=15))
    edges = np.linspace(-1.0, 1.0, 16)
    centers = (edges[:-1] + edges[1:]) / 2.0
    for token in range(41 - 16, 41):
        replace(policy, "prefix", logits=logits(token))
        expected = centers[np.clip(41 - token - 1, 0, 14)]
        assert policy.infer(observation()).actions[0, 0] == pytest.approx(expected, abs=1e-7)


def test_what_is_not_finite_is_refused(tmp_path):
    policy = Policy(make_action_tokens(tmp_path / "tokens"))
    replace(policy, "prefix", logits=np.full((1, 1, 64), np.nan, np.float32))
    with pytest.raises(PolicyError, match="not finite: x of action 0"):
        policy.infer(observation())
    policy = Policy(make_flow(tmp_path / "flow"))
    velocity = np.zeros((1, 4, 8), np.float32)
    velocity[0, 2, 1] = np.inf
    replace(policy, "step", v=velocity)
    with pytest.raises(PolicyError, match="not finite: y of action 2"):
        policy.infer(observation())


def test_a_motion_that_is_not_finite_is_refused(tmp_path):
    """Finite actions can be so large that no rotation comes of them."""

    def change(content):
        content["action"] |= {"type": "pose", "normalisation": {"type": "mean_std"}}
        content["action"]["normalisation"] |= {"mean": [0.0] * 7, "std": [1e200] * 7}

    policy = Policy(make_flow(tmp_path, change=change))
    with pytest.raises(PolicyError, match="no finite motion: action 0"):
        policy.infer(observation())


class Silent:
    """A backend that fails, or gives what it is told."""

    def __init__(self, outputs=None):
        self.outputs = outputs

    def run(self, _):
        if self.outputs is None:
            msg = "no answer in 5 s"
            raise BackendError(msg)
        return self.outputs

    def close(self):
        pass


@pytest.mark.parametrize(
    ("outputs", "message"),
    [
        (None, "graph 'prefix': cannot be run: no answer in 5 s"),
        ({}, "graph 'prefix': output 'context' is not given"),
        ({"context": np.zeros((1, 2))}, r"'context' has the shape \[1, 2\].*says \[1, 1, 1\]"),
    ],
)
def test_a_graph_that_does_not_keep_the_manifest_is_refused_at_load(
    tmp_path, monkeypatch, outputs, message
):
    monkeypatch.setattr("vla_ros.policy.policy.open_backend", lambda *_: Silent(outputs))
    bundle = make_flow(tmp_path)
    with pytest.raises(BundleError, match=message):
        Policy(bundle)


def test_a_graph_that_fails_in_motion_is_a_policy_error(tmp_path):
    policy = Policy(make_flow(tmp_path))
    policy._graphs["step"] = Silent()
    with pytest.raises(PolicyError, match="the model cannot be run: no answer in 5 s"):
        policy.infer(observation())


def test_an_output_of_another_shape_is_refused(tmp_path):
    policy = Policy(make_flow(tmp_path))
    replace(policy, "step", v=np.zeros((1, 4, 7), np.float32))
    with pytest.raises(PolicyError, match=r"'v' has the shape \(1, 4, 7\), not \(1, 4, 8\)"):
        policy.infer(observation())


def test_an_observation_without_its_history_is_refused(tmp_path):
    policy = Policy(make_diffusion(tmp_path))
    with pytest.raises(PolicyError, match=r"has 0 earlier moments.*history.steps.*needs 1"):
        policy.infer(observation())


def test_the_examples_of_the_documentation_are_decoders():
    text = (Path(__file__).parents[3] / "docs" / "decoders.md").read_text(encoding="utf-8")
    examples = [
        yaml.safe_load(block) for block in re.findall(r"```yaml\n(.*?)```", text, re.DOTALL)
    ]
    kinds = [TypeAdapter(Decoder).validate_python(e["decoder"]).type for e in examples]
    assert kinds == ["flow", "diffusion", "action_tokens"]
