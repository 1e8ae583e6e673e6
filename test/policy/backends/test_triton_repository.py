"""What `vla_ros triton` writes is what a real tritonserver loads, and serves with the same chunk.

The tritonserver in nvidia-pytriton has no onnxruntime backend, for which Python's stands in: one
line of the written `config.pbtxt` is another, and `model.py` runs the written `model.onnx`.
"""

import argparse
import os
import shutil
import socket
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("tritonclient.grpc", reason="tritonclient is not installed: make test-triton")
pytest.importorskip("pytriton", reason="no tritonserver is installed: make test-triton")

import pytriton
from panda_observation import panda_observation

from vla_ros.policy.backends import BackendOptions
from vla_ros.policy.bundle import Bundle
from vla_ros.policy.commands import triton as command
from vla_ros.policy.policy import Policy

BUNDLE = Path(__file__).resolve().parents[3] / "bundles" / "panda_pick"
INSTALLED = Path(pytriton.__file__).parent
LINE = 'backend: "onnxruntime"\n'


@pytest.fixture
def repository(tmp_path):
    """A repository and the client's bundle, as they are written, but for the backend."""
    parser = argparse.ArgumentParser()
    command.add_arguments(parser)
    models, client = tmp_path / "models", tmp_path / "client"
    words = [str(BUNDLE), "--out", str(models), "--provider", "cpu", "--client", str(client)]
    assert command.run(parser.parse_args(words)) == 0
    config = models / "panda_pick" / "config.pbtxt"
    text = config.read_text()
    assert LINE in text
    config.write_text(text.replace(LINE, 'backend: "python"\n'))
    target = models / "panda_pick" / "1" / "model.py"
    shutil.copy(Path(__file__).with_name("triton_model.py"), target)
    return models, client


@pytest.fixture
def address(repository, tmp_path):
    """Where a tritonserver serves the repository."""
    server = INSTALLED / "tritonserver"
    backend = tmp_path / "backends" / "python"
    shutil.copytree(server / "backends" / "python", backend)
    version = f"{sys.version_info.major}.{sys.version_info.minor}"
    for stub in (server / "python_backend_stubs" / version).iterdir():
        shutil.copy(stub, backend)
    ports = []
    for _ in range(2):
        with socket.create_server(("127.0.0.1", 0)) as free:
            ports.append(free.getsockname()[1])
    words = [server / "bin" / "tritonserver", f"--model-repository={repository[0]}"]
    words += [f"--backend-directory={backend.parent}", "--allow-metrics=false"]
    words += ["--grpc-address=127.0.0.1", f"--grpc-port={ports[0]}"]
    words += ["--http-address=127.0.0.1", f"--http-port={ports[1]}"]
    packages = INSTALLED.parent
    environment = {
        **os.environ,
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        "PYTHONPATH": str(packages),
        "LD_LIBRARY_PATH": str(packages / "nvidia_pytriton.libs"),
    }
    with subprocess.Popen(
        list(map(str, words)),
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    ) as process:
        try:
            log = []
            for line in process.stdout:
                log.append(line)
                if "Started GRPCInferenceService" in line:
                    break
            else:
                pytest.fail("".join(log[-30:]))
            yield f"127.0.0.1:{ports[0]}"
        finally:
            process.kill()


def test_a_real_server_serves_what_was_written(repository, address):
    local = Policy(Bundle.load(BUNDLE))
    remote = Policy(Bundle.load(repository[1]), BackendOptions(server=address))
    for seed in range(3):
        here, there = local.infer(panda_observation(seed)), remote.infer(panda_observation(seed))
        assert np.abs(here.actions - there.actions).max() <= 1e-6
        np.testing.assert_array_equal(here.gripper, there.gripper)
    remote.close()
