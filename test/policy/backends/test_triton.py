"""A bundle on a real Triton gives what it gives here, to 1e-6; what is wrong is told in a line.

`make test-triton` runs it, in an environment that holds a tritonserver.
"""

import argparse
import socket
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("tritonclient.grpc", reason="tritonclient is not installed: make test-triton")
pytest.importorskip("pytriton", reason="no tritonserver is installed: make test-triton")

from google.protobuf import text_format
from panda_observation import panda_observation
from tritonclient.grpc import model_config_pb2

from vla_ros.policy.backends import BackendError, BackendOptions, open_backend
from vla_ros.policy.backends.triton import TritonBackend
from vla_ros.policy.bundle import Bundle
from vla_ros.policy.commands import triton as command
from vla_ros.policy.manifest import BundleError, Graph
from vla_ros.policy.policy import Policy

HERE = Path(__file__).parent
BUNDLE = HERE.parents[2] / "bundles" / "panda_pick"


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    """What `vla_ros triton` writes: the repository and the client's bundle."""
    folder = tmp_path_factory.mktemp("triton")
    parser = argparse.ArgumentParser()
    command.add_arguments(parser)
    repository, client = folder / "models", folder / "client"
    words = [str(BUNDLE), "--out", str(repository), "--provider", "cpu", "--client", str(client)]
    assert command.run(parser.parse_args(words)) == 0
    return repository, client


class Server:
    def __init__(self, file):
        self.file = file
        sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(3)]
        self.ports = [s.getsockname()[1] for s in sockets]
        for s in sockets:
            s.close()
        self.address = f"127.0.0.1:{self.ports[0]}"
        self.process = None
        self.start()

    def start(self):
        words = [sys.executable, HERE / "triton_server.py", self.file, "panda_pick"]
        self.process = subprocess.Popen(
            [*map(str, words), *map(str, self.ports)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )
        for line in self.process.stdout:
            if line.strip() == "ready":
                return
        pytest.fail("the tritonserver did not start")

    def stop(self):
        self.process.stdin.close()
        self.process.wait(60)


@pytest.fixture(scope="module")
def server(written):
    server = Server(written[0] / "panda_pick" / "1" / "model.onnx")
    yield server
    server.stop()


def test_the_chunk_is_that_of_the_bundle_run_here(server, written):
    local = Policy(Bundle.load(BUNDLE))
    remote = Policy(Bundle.load(written[1]), BackendOptions(server=server.address))
    for seed in range(5):
        here, there = local.infer(panda_observation(seed)), remote.infer(panda_observation(seed))
        assert np.abs(here.actions - there.actions).max() <= 1e-6
        assert np.abs(here.twists - there.twists).max() <= 1e-6
        np.testing.assert_array_equal(here.gripper, there.gripper)
    remote.close()


def test_the_configuration_is_one_that_triton_reads(written):
    text = (written[0] / "panda_pick" / "config.pbtxt").read_text()
    config = text_format.Parse(text, model_config_pb2.ModelConfig())
    assert (config.name, config.backend, config.max_batch_size) == ("panda_pick", "onnxruntime", 0)
    assert {i.name: list(i.dims) for i in config.input}["tokens"] == [1, 16]
    assert {i.name: i.data_type for i in config.input}["tokens"] == model_config_pb2.TYPE_INT64
    assert config.instance_group[0].kind == model_config_pb2.ModelInstanceGroup.KIND_CPU
    tensorrt = command.model_config(
        "m", Bundle.load(BUNDLE).manifest.graphs[0], provider="tensorrt", threads=2
    )
    config = text_format.Parse(tensorrt, model_config_pb2.ModelConfig())
    (accelerator,) = config.optimization.execution_accelerators.gpu_execution_accelerator
    assert accelerator.name == "tensorrt"
    assert config.parameters["intra_op_thread_count"].string_value == "2"


def slow_graph(**changes):
    content = {
        "name": "policy",
        "backend": "triton",
        "model": "slow",
        "inputs": {"x": [1, 2]},
        "outputs": {"y": [1, 2]},
    }
    return Graph.model_validate(content | changes)


def test_a_call_ends_at_the_timeout_but_the_first_may_take_longer(server):
    backend = TritonBackend(slow_graph(), BackendOptions(server=server.address, timeout_s=0.3))
    x = np.array([[1.0, 2.0]], np.float32)
    np.testing.assert_array_equal(backend.run({"x": x})["y"], x)
    begin = time.monotonic()
    with pytest.raises(BackendError, match=r"model 'slow': has not answered within 0\.3 s"):
        backend.run({"x": x})
    assert time.monotonic() - begin < 0.8
    with pytest.raises(BackendError, match="'slow': "):
        backend.run({"x": x[:, :1]})
    backend.close()
    with pytest.raises(BackendError, match="closed"):
        backend.run({"x": x})


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"model": "absent"}, r"model 'absent': is not there"),
        ({"inputs": {"z": [1, 2]}}, r"inputs are \['x'\], but the manifest's \['z'\]"),
        ({"inputs": {"x": [1, 3]}}, r"x: the model's shape is \[1, 2\], but.*\[1, 3\]"),
        (
            {"outputs": {"y": {"shape": [1, 2], "type": "float16"}}},
            "y: the model's type is float32, but the manifest says float16",
        ),
        ({"outputs": {"w": [1, 2]}}, r"no output 'w'; it has \['y'\]"),
    ],
)
def test_a_model_that_is_not_the_manifests_is_refused_at_load(server, changes, words):
    with pytest.raises(BundleError, match=words):
        TritonBackend(slow_graph(**changes), BackendOptions(server=server.address))


def test_a_server_that_is_away_is_told_at_load():
    with pytest.raises(
        BundleError, match=r"no Triton answers at 127\.0\.0\.1:9:.*start the server"
    ):
        TritonBackend(slow_graph(), BackendOptions(server="127.0.0.1:9", timeout_s=1.0))
    with pytest.raises(BundleError, match="needs a server"):
        TritonBackend(slow_graph(), BackendOptions())


def test_a_server_that_went_away_is_found_again(server, written):
    bundle = Bundle.load(written[1])
    graph = bundle.manifest.graphs[0]
    options = BackendOptions(server=server.address, timeout_s=2.0)
    backend = open_backend(bundle, graph, options)
    inputs = {name: np.zeros(spec.shape, spec.dtype) for name, spec in graph.inputs.items()}
    expected = backend.run(inputs)["actions"]
    server.stop()
    begin = time.monotonic()
    with pytest.raises(BackendError, match=r"cannot be reached|not answered"):
        backend.run(inputs)
    assert time.monotonic() - begin < 2.5
    server.start()
    deadline = time.monotonic() + 20.0
    while True:
        try:
            found = backend.run(inputs)["actions"]
            break
        except BackendError:
            assert time.monotonic() < deadline
    np.testing.assert_array_equal(found, expected)
