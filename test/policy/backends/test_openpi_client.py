"""The openpi project's own package with `vla_ros serve`, and its frames with our client."""

import json
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from bundles import STATE_NAMES
from vla_ros.observation.observation import Observation
from vla_ros.policy.backends import BackendError, BackendOptions
from vla_ros.policy.bundle import Bundle
from vla_ros.policy.manifest import Graph
from vla_ros.policy.policy import Policy
from vla_ros.types import JointSample

HERE = Path(__file__).parent
ROOT = HERE.parents[2]
THEIRS = ROOT / ".venv-openpi" / "bin" / "python"
BUNDLE = ROOT / "bundles" / "panda_pick"
pytestmark = pytest.mark.skipif(
    not THEIRS.exists(), reason="needs openpi-client in .venv-openpi: make test-openpi"
)


@pytest.fixture
def start():
    """Start a program; return its process and the port that its first line names."""
    processes = []

    def run(*words):
        process = subprocess.Popen(words, stdout=subprocess.PIPE, text=True)
        processes.append(process)
        line = process.stdout.readline()
        port = re.search(r"(\d+)\s*$", line)
        assert port, line
        return int(port[1])

    yield run
    for process in processes:
        process.terminate()
        process.wait(10)


def test_their_client_and_broker_use_a_bundle(start, tmp_path):
    port = start(sys.executable, "-m", "vla_ros.cli", "serve", str(BUNDLE), "--port", "0")
    rng = np.random.default_rng(0)
    state = np.zeros(len(STATE_NAMES), np.float32)
    state[[3, 7]] = 1.0
    state[9:] = rng.normal(size=8) * 0.1
    images = {
        "front": rng.integers(0, 256, (96, 96, 3), np.uint8),
        "wrist": rng.integers(0, 256, (80, 96, 3), np.uint8),
    }
    prompt = "pick up the red cube"
    file = tmp_path / "observation.npz"
    fitted = {f"{name}/fitted": image for name, image in images.items()}
    np.savez(file, state=state, prompt=np.array(prompt), **fitted)
    out = subprocess.run(
        [THEIRS, HERE / "openpi_their_client.py", str(port), file],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert out.returncode == 0, out.stderr
    found = json.loads(out.stdout)
    assert found["numpy"].startswith("1.")
    assert found["metadata"]["name"] == "panda_pick"
    assert found["metadata"]["cameras"] == {"front": [96, 96], "wrist": [80, 96]}
    local = Policy(Bundle.load(BUNDLE)).predict(
        Observation(
            stamp_ns=0,
            images=images,
            joints=JointSample(0, state[10:].astype(float), np.zeros(7), None, float(state[9])),
            joint_names=tuple(f"panda_joint{i}" for i in range(1, 8)),
            tcp_position=np.zeros(3),
            tcp_rotation=np.eye(3),
            instruction=prompt,
        )
    )
    np.testing.assert_allclose(found["actions"], local, rtol=1e-6, atol=1e-9)
    assert found["again"] == found["actions"]
    assert found["timing"] == ["infer_ms", "prev_total_ms"]
    missing, short = found["errors"]
    assert "there is no image 'front'" in missing
    assert "state has the shape [3], not [17]" in short
    chunk = found["actions"]
    assert found["broker"] == [*chunk, chunk[0]]


def test_our_client_uses_a_server_of_their_frames(start):
    from vla_ros.policy.backends.openpi import OpenpiBackend

    port = start(str(THEIRS), str(HERE / "openpi_their_server.py"))
    graph = Graph.model_validate(
        {
            "name": "policy",
            "backend": "openpi",
            "inputs": {
                "observation/image": {"shape": [1, 4, 6, 3], "type": "uint8"},
                "state": [1, 2],
                "prompt": {"shape": [1], "type": "string"},
            },
            "outputs": {"actions": [1, 3, 2]},
        }
    )
    backend = OpenpiBackend(graph, BackendOptions(server=f"127.0.0.1:{port}"))
    assert backend.metadata == {"model": "theirs"}
    inputs = {
        "observation/image": np.ones((1, 4, 6, 3), np.uint8),
        "state": np.array([[1.0, 2.0]], np.float32),
        "prompt": np.array(["go"], object),
    }
    np.testing.assert_array_equal(backend.run(inputs)["actions"], np.full((1, 3, 2), 75.0))
    with pytest.raises(BackendError, match=r"error: KeyError: 'no such task'$"):
        backend.run({**inputs, "prompt": np.array(["fail"], object)})
    # Their server has closed the connection.
    np.testing.assert_array_equal(backend.run(inputs)["actions"], np.full((1, 3, 2), 75.0))
