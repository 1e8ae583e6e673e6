"""The shipped model acts as it did before its manifest, decoder and motion were made general.

What it was given and what it gave then is in data/panda_pick_chunks.npz: for three observations the
SHA-256 of the graph's inputs, its output, and the chunk. Inputs, and the chunk of a given output,
are the same bit for bit; the graph's output may differ in its last digits between processors.
"""

import hashlib
from pathlib import Path

import numpy as np
import pytest

from vla_ros.kinematics import rotation_from_rotvec
from vla_ros.observation.observation import Observation
from vla_ros.paths import share
from vla_ros.policy.bundle import Bundle
from vla_ros.policy.policy import Policy
from vla_ros.types import JointSample

INSTRUCTIONS = ("pick up the red cube", "grab the blue one", "lift the green cube")


@pytest.fixture(scope="module")
def before():
    return np.load(Path(__file__).parent / "data" / "panda_pick_chunks.npz")


@pytest.fixture(scope="module")
def policy():
    return Policy(Bundle.load(share() / "bundles" / "panda_pick"))


def observation(bundle, seed):
    rng = np.random.default_rng(seed)
    return Observation(
        stamp_ns=1000 + seed,
        images={c.name: rng.integers(0, 256, (*c.size, 3), np.uint8) for c in bundle.cameras},
        joints=JointSample(1000, rng.uniform(-1, 1, 7), np.zeros(7), None, 0.05),
        joint_names=tuple(f"panda_joint{i}" for i in range(1, 8)),
        tcp_position=rng.uniform(0, 0.5, 3),
        tcp_rotation=rotation_from_rotvec(rng.uniform(-1, 1, 3)),
        instruction=INSTRUCTIONS[seed],
        epoch=seed,
    )


class Recorded:
    """Gives the output of before, whatever it is given, and keeps that."""

    def __init__(self, output):
        self.output, self.inputs = output, {}

    def run(self, inputs):
        self.inputs = dict(inputs)
        return {"actions": self.output[None]}

    def close(self):
        pass


@pytest.mark.parametrize("seed", range(3))
def test_inputs_and_chunks_are_the_same_bit_for_bit(policy, before, monkeypatch, seed):
    graph = Recorded(before["outputs"][seed])
    monkeypatch.setitem(policy._graphs, "policy", graph)
    manifest = Bundle.load(share() / "bundles" / "panda_pick").manifest
    seen = observation(manifest, seed)
    chunk = policy.infer(seen)
    digest = hashlib.sha256()
    for name in sorted(graph.inputs):
        digest.update(name.encode())
        digest.update(np.ascontiguousarray(graph.inputs[name]).tobytes())
    assert digest.hexdigest() == before["inputs"][seed]
    # As it was computed before; the product of matrices is this machine's.
    spec = manifest.action.normalisation
    actions = np.asarray(before["outputs"][seed], np.float64) * np.asarray(spec.std)
    actions = actions + np.asarray(spec.mean)
    velocities = actions[:, :6] * 30.0
    rotation = seen.tcp_rotation
    twists = np.hstack([velocities[:, :3] @ rotation.T, velocities[:, 3:] @ rotation.T])
    np.testing.assert_array_equal(chunk.actions, actions)
    np.testing.assert_array_equal(chunk.twists, twists)
    np.testing.assert_array_equal(chunk.gripper, before["gripper"][seed])
    np.testing.assert_allclose(chunk.twists, before["twists"][seed], rtol=1e-14, atol=1e-16)
    assert chunk.joints is None


@pytest.mark.parametrize("seed", range(3))
def test_the_model_gives_the_same(policy, before, seed):
    manifest = Bundle.load(share() / "bundles" / "panda_pick").manifest
    chunk = policy.infer(observation(manifest, seed))
    np.testing.assert_allclose(chunk.twists, before["twists"][seed], atol=1e-5)
    np.testing.assert_array_equal(chunk.gripper, before["gripper"][seed])
