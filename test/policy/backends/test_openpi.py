"""The openpi client: what it sends and takes, and that every call ends, with one clear line."""

import contextlib
import socket
import threading
import time

import numpy as np
import pytest

pytest.importorskip("msgpack", reason="msgpack is not installed: pip install 'vla_ros[openpi]'")
pytest.importorskip("websockets", reason="websockets is not installed")

from openpi_server import serving

from vla_ros.policy.backends import BackendError, BackendOptions
from vla_ros.policy.backends.openpi import OpenpiBackend
from vla_ros.policy.manifest import BundleError, Graph

GRAPH = Graph.model_validate(
    {
        "name": "policy",
        "backend": "openpi",
        "inputs": {
            "observation/image": {"shape": [1, 4, 6, 3], "type": "uint8"},
            "observation/state": [1, 2],
            "prompt": {"shape": [1], "type": "string"},
        },
        "outputs": {"actions": [1, 3, 2]},
    }
)
INPUTS = {
    "observation/image": np.arange(72, dtype=np.uint8).reshape(1, 4, 6, 3),
    "observation/state": np.array([[1.0, 2.0]], np.float32),
    "prompt": np.array(["pick up"], object),
}
ACTIONS = np.arange(6.0).reshape(3, 2)


def backend(port, **options):
    options = {"timeout_s": 2.0, "server": f"127.0.0.1:{port}", **options}
    client = OpenpiBackend(GRAPH, BackendOptions(**options))
    client._first = False  # The first call may take longer: see its test.
    return client


def test_the_batch_axis_is_taken_off_and_put_back():
    seen = []

    def answer(observation, _):
        seen.append(observation)
        return {"actions": ACTIONS, "server_timing": {"infer_ms": 1.0}}

    with serving(answer) as port:
        client = backend(port, server=f"ws://localhost:{port}")
        outputs = client.run(INPUTS)
        client.close()
    assert client.metadata == {"name": "test"}
    assert seen[0]["prompt"] == "pick up"
    np.testing.assert_array_equal(seen[0]["observation/image"], INPUTS["observation/image"][0])
    np.testing.assert_array_equal(seen[0]["observation/state"], [1.0, 2.0])
    assert outputs["actions"].dtype == np.float32  # The server sent float64.
    np.testing.assert_array_equal(outputs["actions"], ACTIONS[None])


def test_an_error_frame_is_told_by_its_last_line_and_the_next_call_goes_on():
    replies = ["Traceback\n  File x\nValueError: no camera 'left'\n", {"actions": ACTIONS}]
    with serving(lambda *_: replies.pop(0)) as port:
        client = backend(port)
        with pytest.raises(BackendError, match=r"error: ValueError: no camera 'left'$"):
            client.run(INPUTS)
        assert client.run(INPUTS)["actions"].shape == (1, 3, 2)


def test_a_server_that_closes_after_its_error_is_connected_again():
    """As openpi's own does."""
    replies = ["KeyError: 'image'", {"actions": ACTIONS}]

    def answer(_, connection):
        reply = replies.pop(0)
        if isinstance(reply, str):
            connection.send(reply)
            connection.close(1011, "Internal server error.")
            return None
        return reply

    with serving(answer) as port:
        client = backend(port)
        with pytest.raises(BackendError, match="KeyError: 'image'"):
            client.run(INPUTS)
        assert client.run(INPUTS)["actions"].shape == (1, 3, 2)


def test_a_call_ends_at_the_timeout_and_a_late_answer_is_not_taken_for_the_next():
    def answer(observation, _):
        if observation["observation/state"][0] == 1.0:
            time.sleep(0.6)
            return {"actions": ACTIONS + 100.0}
        return {"actions": ACTIONS}

    with serving(answer) as port:
        client = backend(port, timeout_s=0.3)
        begin = time.monotonic()
        with pytest.raises(BackendError, match=r"not answered within 0\.3 s"):
            client.run(INPUTS)
        assert time.monotonic() - begin < 0.55
        time.sleep(0.5)
        other = {**INPUTS, "observation/state": np.array([[9.0, 2.0]], np.float32)}
        np.testing.assert_array_equal(client.run(other)["actions"], ACTIONS[None])


def test_a_server_that_stops_reading_does_not_hold_the_call():
    """More than the sockets' buffers hold: the sending itself waits."""
    stop = threading.Event()
    with serving(lambda *_: stop.wait(5.0) and None) as port:
        client = backend(port, timeout_s=0.3)
        client._graph = GRAPH
        big = {**INPUTS, "observation/image": np.zeros((1, 4000, 4000, 3), np.uint8)}
        begin = time.monotonic()
        with pytest.raises(BackendError, match="not answered within"):
            client.run(INPUTS)  # keeps the server busy
        with pytest.raises(BackendError, match="not answered within"):
            client.run(big)
        assert time.monotonic() - begin < 2.0
        stop.set()


def test_a_server_that_goes_away_and_comes_back_is_found_again():
    with serving(lambda *_: {"actions": ACTIONS}) as port:
        client = backend(port)
        client.run(INPUTS)
    with pytest.raises(BackendError, match="cannot be reached"):
        client.run(INPUTS)
    with serving(lambda *_: {"actions": ACTIONS}, port=port):
        assert client.run(INPUTS)["actions"].shape == (1, 3, 2)


def test_the_first_call_may_take_longer_as_servers_compile_on_it():
    def answer(*_):
        time.sleep(0.4)
        return {"actions": ACTIONS}

    with serving(answer) as port:
        client = OpenpiBackend(GRAPH, BackendOptions(timeout_s=0.2, server=f"127.0.0.1:{port}"))
        assert client.run(INPUTS)["actions"].shape == (1, 3, 2)
        with pytest.raises(BackendError, match="not answered"):
            client.run(INPUTS)


@pytest.mark.parametrize(
    ("result", "words"),
    [
        ({"actions": ACTIONS[:2]}, r"output 'actions' is float32 \[1, 2, 2\], but.*\[1, 3, 2\]"),
        ({"action": ACTIONS}, r"no 'actions', but \['action'\]"),
        ({"actions": ACTIONS.astype(np.int64)}, "is int64"),
        ([1, 2], "no 'actions'"),
    ],
)
def test_an_answer_that_is_not_the_manifests_is_refused(result, words):
    with serving(lambda *_: result) as port, pytest.raises(BackendError, match=words):
        backend(port).run(INPUTS)


def test_what_is_wrong_at_load_is_told_at_load():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with pytest.raises(BundleError, match=rf"{port} cannot be reached:.*start the server"):
        backend(port)
    with pytest.raises(BundleError, match="needs a server: set 'server' to host:port"):
        backend(port, server="")
    with (
        serving(lambda *_: None, hello="hello") as port,
        pytest.raises(BundleError, match="greets with text"),
    ):
        backend(port)
    with (
        socket.create_server(("127.0.0.1", 0)) as silent,
        pytest.raises(BundleError, match=r"not answered within 0\.5 s"),
    ):
        backend(silent.getsockname()[1], timeout_s=0.5)


def test_a_name_is_looked_up_at_load_alone(monkeypatch):
    """A look-up may hang for as long as the system likes, whatever the timeout is."""
    real = socket.getaddrinfo
    asked = []

    def look_up(host, *args, **kwargs):
        if host != "127.0.0.1":
            asked.append(host)
        return real("127.0.0.1", *args, **kwargs)

    monkeypatch.setattr(socket, "getaddrinfo", look_up)
    with serving(lambda *_: {"actions": ACTIONS}) as port:
        client = backend(port, server=f"gpu-machine:{port}")
        client.run(INPUTS)
    with serving(lambda *_: {"actions": ACTIONS}, port=port):
        # The lost connection is noticed at once, or as the answer does not come.
        for _ in range(2):
            with contextlib.suppress(BackendError):
                outputs = client.run(INPUTS)
        assert outputs["actions"].shape == (1, 3, 2)
    assert asked == ["gpu-machine"]


@pytest.mark.parametrize("server", ["host:port", "ws://", "ftp://host", ":8000"])
def test_an_address_that_is_none_is_told_at_load(server):
    with pytest.raises(BundleError, match="set 'server' to host:port"):
        backend(0, server=server)


def test_a_name_that_is_unknown_is_told_at_load():
    with pytest.raises(BundleError, match=r"nowhere\.invalid:8000: cannot be found: .*correct"):
        backend(0, server="nowhere.invalid:8000")
