"""`vla_ros serve`: what a client may send, what it gets, and that an error ends no connection."""

import re
import threading
import urllib.request
from contextlib import contextmanager

import numpy as np
import pytest

pytest.importorskip("msgpack", reason="msgpack is not installed: pip install 'vla_ros[openpi]'")
pytest.importorskip("websockets", reason="websockets is not installed")

from panda_observation import panda_observation
from websockets.sync.client import connect

from bundles import STATE_NAMES, make_bundle
from vla_ros.observation.image import fit_image
from vla_ros.policy.backends import BackendOptions
from vla_ros.policy.backends.msgpack_numpy import pack, unpack
from vla_ros.policy.bundle import write_manifest
from vla_ros.policy.policy import Policy
from vla_ros.policy.serving import (
    ObservationError,
    PolicyServer,
    client_manifest,
    metadata,
    read_observation,
)


@contextmanager
def serving(policy, manifest):
    with PolicyServer(policy, manifest).listen("127.0.0.1", 0) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        yield server.socket.getsockname()[1]
        server.shutdown()
        thread.join(5.0)


@pytest.fixture(scope="module")
def bundle(tmp_path_factory):
    return make_bundle(tmp_path_factory.mktemp("bundle"))


@pytest.fixture(scope="module")
def policy(bundle):
    return Policy(bundle)


def state():
    values = np.zeros(len(STATE_NAMES), np.float32)
    values[3] = values[7] = 1.0  # An identity rotation.
    return values


def content(**changes):
    rng = np.random.default_rng(0)
    return {
        "front": rng.integers(0, 256, (120, 160, 3), np.uint8),
        "wrist": rng.integers(0, 256, (80, 96, 3), np.uint8),
        "state": state(),
        "prompt": "pick up the red cube",
        **changes,
    }


def ask(connection, observation):
    connection.send(observation if isinstance(observation, str | bytes) else pack(observation))
    reply = connection.recv(timeout=10)
    return reply if isinstance(reply, str) else unpack(reply)


def test_metadata_comes_first_then_chunks_in_the_manifests_units(bundle, policy):
    with (
        serving(policy, bundle.manifest) as port,
        connect(f"ws://127.0.0.1:{port}", compression=None) as connection,
    ):
        hello = unpack(connection.recv(timeout=10))
        assert hello == metadata(bundle.manifest)
        assert hello["cameras"] == {"front": [96, 96], "wrist": [80, 96]}
        assert (hello["chunk"], hello["rate_hz"]) == (16, 30.0)
        first = ask(connection, content())
        second = ask(connection, content())
    assert first["actions"].shape == (16, 7)
    # Millimetres a step along x, as the tiny model says, in m.
    np.testing.assert_allclose(first["actions"][:, 0], (np.arange(16) + 1) * 1e-3, rtol=1e-6)
    np.testing.assert_array_equal(first["actions"], second["actions"])
    assert set(first["server_timing"]) == {"infer_ms"}
    assert set(second["server_timing"]) == {"infer_ms", "prev_total_ms"}


def without(key):
    return {name: value for name, value in content().items() if name != key}


BAD = [
    ([1, 2], "an observation is a dict, not list"),
    (without("front"), "there is no image 'front'"),
    (content(wrist=np.zeros((4, 4, 3), np.float32)), r"'wrist' is float32 \[4, 4, 3\], not uint8"),
    (content(wrist=np.zeros((3, 4, 4), np.uint8)), r"'wrist' is uint8 \[3, 4, 4\]"),
    (content(front=np.zeros((0, 4, 3), np.uint8)), "'front' is uint8"),
    (content(front="text"), "'front' is <U4"),
    (without("state"), "there is no 'state': 17 numbers"),
    (content(state=np.zeros(3)), r"state has the shape \[3\], not \[17\]"),
    (content(state=["a"] * 17), "not of numbers"),
    (content(state=np.full(17, np.nan)), "state is not finite: tcp.position.x"),
    (without("prompt"), "there is no 'prompt'"),
    (content(prompt=5), "prompt is int, not text"),
    (content(prompt="pick " * 20), "20 words"),
    (content(stamp_ns="now"), "stamp_ns is str"),
    ("hello", "Error: "),
    (b"\xc1", "is no msgpack frame"),
    (without("state") | {"joints": {}}, "joints do not tell: send 'state'"),
]


def test_every_error_is_one_line_of_text_and_the_connection_lives_on(bundle, policy):
    with (
        serving(policy, bundle.manifest) as port,
        connect(f"ws://127.0.0.1:{port}", compression=None) as connection,
    ):
        connection.recv(timeout=10)
        for bad, words in BAD:
            reply = ask(connection, bad)
            assert isinstance(reply, str), words
            assert "\n" not in reply
            assert re.search(words, reply), reply
        assert ask(connection, content())["actions"].shape == (16, 7)


def test_health(bundle, policy):
    with (
        serving(policy, bundle.manifest) as port,
        urllib.request.urlopen(f"http://127.0.0.1:{port}/healthz", timeout=10) as reply,
    ):
        assert (reply.status, reply.read()) == (200, b"OK\n")


def test_two_clients_are_served(bundle, policy):
    with serving(policy, bundle.manifest) as port:
        uri = f"ws://127.0.0.1:{port}"
        with connect(uri, compression=None) as one, connect(uri, compression=None) as two:
            one.recv(timeout=10), two.recv(timeout=10)
            one.send(pack(content()))
            assert ask(two, content(prompt="pick up the blue cube"))["actions"].shape == (16, 7)
            assert unpack(one.recv(timeout=10))["actions"].shape == (16, 7)


def test_all_clients_inferences_run_in_one_thread(bundle, policy):
    """On a GPU a new thread sets up its libraries anew, while all others wait."""
    threads = []

    class Watched:
        def predict(self, observation):
            threads.append(threading.get_ident())
            return policy.predict(observation)

    with serving(Watched(), bundle.manifest) as port:
        for _ in range(3):
            with connect(f"ws://127.0.0.1:{port}", compression=None) as client:
                client.recv(timeout=10)
                ask(client, content())
    assert len(threads) == 3
    assert len(set(threads)) == 1


def test_a_camera_of_any_size_is_fitted_but_what_is_fitted_already_is_not(bundle):
    front, wrist = bundle.camera("front"), content()["wrist"]
    observation = read_observation(content(), bundle.manifest)
    np.testing.assert_array_equal(
        observation.images["front"], fit_image(content()["front"], front.image)
    )
    # A camera's own picture is cropped whatever its size is, the model's included.
    np.testing.assert_array_equal(
        observation.images["wrist"], fit_image(wrist, bundle.camera("wrist").image)
    )
    observation = read_observation(without("wrist") | {"wrist/fitted": wrist}, bundle.manifest)
    np.testing.assert_array_equal(observation.images["wrist"], wrist)
    small = {"wrist/fitted": wrist[1:]}
    with pytest.raises(ObservationError, match=r"'wrist/fitted' is \[79, 96\] pixels.*\[80, 96\]"):
        read_observation(content() | small, bundle.manifest)


def test_the_state_is_handed_on_number_for_number(bundle):
    from vla_ros.observation.state import state_vector

    values = np.random.default_rng(1).normal(size=17).astype(np.float32)
    found = read_observation(content(state=values), bundle.manifest)
    back = state_vector(
        STATE_NAMES,
        found.joints,
        found.tcp_position,
        found.tcp_rotation,
        joint_names=found.joint_names,
    )
    np.testing.assert_array_equal(back, values)


def test_joints_by_name_where_the_model_takes_nothing_else(bundle):
    names = ["gripper.opening", "joint.position.b", "joint.position.a"]
    section = bundle.manifest.state.model_copy(update={"names": tuple(names)})
    manifest = bundle.manifest.model_copy(update={"state": section})
    sent = without("state") | {"joints": {"a": 1.0, "b": 2, "gripper": 0.5, "other": 9.0}}
    found = read_observation(sent, manifest)
    assert found.joint_names == ("b", "a")
    np.testing.assert_array_equal(found.joints.position, [2.0, 1.0])
    assert found.joints.gripper == 0.5
    with pytest.raises(ObservationError, match=r"joints\.gripper is missing"):
        read_observation(without("state") | {"joints": {"a": 1.0, "b": 2}}, manifest)


def test_a_history_is_an_axis_of_moments_oldest_first(bundle):
    history = bundle.manifest.history.model_copy(update={"steps": 2, "period_s": 0.1})
    manifest = bundle.manifest.model_copy(update={"history": history})
    fronts = np.stack([np.full((96, 96, 3), v, np.uint8) for v in (1, 2)])
    wrists = np.stack([np.full((80, 96, 3), v, np.uint8) for v in (3, 4)])
    states = np.stack([state(), state() + 1])
    found = read_observation(content(front=fronts, wrist=wrists, state=states), manifest)
    (earlier,) = found.history
    assert (earlier.images["front"][0, 0, 0], found.images["front"][0, 0, 0]) == (1, 2)
    assert (earlier.joints.gripper, found.joints.gripper) == (0.0, 1.0)
    with pytest.raises(ObservationError, match="'front' is uint8"):
        read_observation(content(wrist=wrists, state=states), manifest)


def test_a_robot_with_the_clients_bundle_moves_as_with_the_bundle_itself(bundle, policy, tmp_path):
    client = write_manifest(tmp_path, client_manifest(bundle.manifest))
    assert client.manifest.files == {}
    rotation = np.array([[0.0, -1.0, 0.0], [1.0, 0.0, 0.0], [0.0, 0.0, 1.0]])
    observation = panda_observation(2, stamp_ns=5, rotation=rotation)
    with serving(policy, bundle.manifest) as port:
        options = BackendOptions(server=f"127.0.0.1:{port}")
        remote = Policy(client, options)
        found = remote.infer(observation)
        remote.close()
    expected = policy.infer(observation)
    np.testing.assert_allclose(found.twists, expected.twists, rtol=1e-6, atol=1e-9)
    np.testing.assert_array_equal(found.gripper, expected.gripper)
