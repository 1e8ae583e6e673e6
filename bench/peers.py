"""vla_ros beside LeRobot's async server and client and openpi's server with broker, in one run.

`make bench-peers`. The same ACT (two cameras, chunks of 20, random weights, ONNX Runtime with one
thread) at 30 Hz, a new chunk after every 10 actions, one system after another on the same two
cores. docs/cadence.md says what the columns are.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import overhead
from peers_roles import CAMERAS, CHUNK, DOF, INSTRUCTION, RATE_HZ, REPLAN, SIZE

from vla_ros.policy.bundle import write_manifest
from vla_ros.policy.manifest import ACTION_NAMES

HERE = Path(__file__).parent
WARM_UP_S = overhead.WARM_UP_S
COLUMNS = ("overhead p50", "p99", "model p50", "rate", "period std", "worst")


def main() -> int:
    """Measure the three, print a table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("--python", type=Path, required=True, help="of the peers' environment")
    parser.add_argument("--seconds", type=float, default=60.0, help="how long to measure each")
    parser.add_argument("--json", type=Path, help="file for the figures")
    args = parser.parse_args()
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[: overhead.CORES])
    load = os.getloadavg()[0]
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        roles = Roles(args.python, folder)
        roles.run("make")
        figures = {
            "vla_ros": ours(folder, args.seconds),
            "lerobot": lerobot(roles, args.seconds),
            "openpi": openpi(roles, args.seconds),
        }
    told = {"load": round(load, 2), "seconds": args.seconds, "systems": figures}
    if args.json:
        args.json.write_text(json.dumps(told, indent=2) + "\n", encoding="utf-8")
    print(f"load before: {load:.2f} (the figures want an idle machine); all but the rate in ms")
    print(f"{'':<10}" + "".join(f"{column:>14}" for column in COLUMNS))
    for system, row in figures.items():
        print(f"{system:<10}" + "".join(f"{row[column]:>14.2f}" for column in COLUMNS))
    return 0


class Roles:
    """Processes of bench/peers_roles.py."""

    def __init__(self, python: Path, folder: Path) -> None:
        """Use the peers' interpreter, and a folder for what they note."""
        # For any folder; and unlike its target, the link is in the environment.
        self.python, self.folder = python.absolute(), folder
        self._environment = {**os.environ, "PYTHONPATH": str(HERE.parent), "HF_HUB_OFFLINE": "1"}

    def start(self, role: str, *arguments: str) -> "subprocess.Popen[bytes]":
        """Start a role; what it prints goes to a file."""
        command = [str(self.python), str(HERE / "peers_roles.py"), role, str(self.folder)]
        with (self.folder / f"{role}.txt").open("wb") as output:
            return subprocess.Popen(
                [*command, *arguments],
                env=self._environment,
                cwd=self.folder,
                stdout=output,
                stderr=subprocess.STDOUT,
            )

    def run(self, role: str, *arguments: str, timeout: float = 600.0) -> None:
        """Run a role to its end; end the bench with what it said if it fails."""
        code = self.start(role, *arguments).wait(timeout)
        if code != 0:
            output = (self.folder / f"{role}.txt").read_text(errors="replace")
            sys.exit(f"{role} ended with {code}:\n{output[-2000:]}")

    def pair(self, system: str, seconds: float) -> None:
        """Run a system's server and client for some seconds."""
        server = self.start(f"{system}-server")
        try:
            wait_for_server(server, self.folder / f"{system}-server.txt", system)
            self.run(f"{system}-client", str(seconds), timeout=seconds + 120.0)
        finally:
            server.terminate()
            server.wait(10.0)

    def lines(self, name: str) -> list[Any]:
        """Return what was noted in a file."""
        text = (self.folder / f"{name}.jsonl").read_text(encoding="utf-8")
        return [json.loads(line) for line in text.splitlines()]


def wait_for_server(server: "subprocess.Popen[bytes]", output: Path, system: str) -> None:
    """Give a server time to come up; openpi's client waits by itself."""
    end = time.monotonic() + 60.0
    while system == "lerobot" and b"PolicyServer started" not in output.read_bytes():
        if server.poll() is not None or time.monotonic() > end:
            sys.exit(f"{system}'s server did not start:\n{output.read_text()[-2000:]}")
        time.sleep(0.1)


def ours(folder: Path, seconds: float) -> dict[str, float]:
    """Measure vla_ros: its two nodes."""
    bundle = folder / "bundle"
    bundle.mkdir()
    (bundle / "policy.onnx").write_bytes((folder / "policy.onnx").read_bytes())
    write_manifest(bundle, manifest())
    words = ("-p", f"replan_actions:={REPLAN}", "-p", "even_periods:=true")
    told: Any = overhead.measure(bundle, INSTRUCTION, seconds, words)
    mine, period = told["ms"]["overhead_without_wait"], told["command_period_ms"]
    return {
        "overhead p50": mine["p50"],
        "p99": mine["p99"],
        "model p50": told["ms"]["model"]["p50"],
        "rate": 1e3 / period["mean"],
        "period std": period["std"],
        "worst": period["worst"],
    }


def manifest() -> dict[str, Any]:
    """Return the manifest of the ACT's bundle, without `files`."""
    shape = [1, 3, SIZE, SIZE]
    camera = {
        "size": [SIZE, SIZE],
        "source_aspect": 1.3333333333,
        "crop": [0.0, 0.0, 1.0, 1.0],
        "layout": "nchw",
        "scale": 1 / 255,
        "mean": [0.5] * 3,
        "std": [0.25] * 3,
    }
    return {
        "schema_version": 2,
        "name": "act",
        "cameras": [{"name": name, **camera} for name in CAMERAS],
        "state": {
            "names": [f"joint.position.panda_joint{i}" for i in range(1, DOF + 1)],
            "normalisation": {"type": "identity"},
        },
        "graphs": [
            {
                "name": "policy",
                "file": "policy.onnx",
                "inputs": {"state": [1, DOF], **dict.fromkeys(CAMERAS, shape)},
                "outputs": {"actions": [1, CHUNK, DOF]},
            }
        ],
        "decoder": {"type": "direct"},
        "action": {
            "type": "delta_pose",
            "frame": "tool",
            "rotation": "rotation_vector",
            "reference": "previous",
            "rate_hz": float(RATE_HZ),
            "chunk": CHUNK,
            "names": list(ACTION_NAMES),
            "normalisation": {"type": "identity"},
            "gripper": {"open_m": 0.08, "closed_m": 0.0, "mode": "binary", "threshold": 0.5},
        },
        "source": {"made by": "bench/peers.py: random weights"},
    }


def lerobot(roles: Roles, seconds: float) -> dict[str, float]:
    """Measure LeRobot's async inference."""
    roles.pair("lerobot", WARM_UP_S + seconds)
    model_ms = dict(roles.lines("lerobot_server"))
    lines = roles.lines("lerobot_client")
    chunks = [
        (taken, ready, model_ms[taken])
        for kind, taken, *rest in lines
        if kind == "chunk"
        for ready in rest
    ]
    return figures_of(chunks, [at for kind, at, *_ in lines if kind == "command"])


def openpi(roles: Roles, seconds: float) -> dict[str, float]:
    """Measure openpi's server, client, broker and runtime."""
    roles.pair("openpi", WARM_UP_S + seconds)
    lines = roles.lines("openpi_client")
    chunks = [tuple(rest) for kind, *rest in lines if kind == "chunk"]
    return figures_of(chunks, [at for kind, at, *_ in lines if kind == "command"])


def figures_of(chunks: list[Any], commands: list[float]) -> dict[str, float]:
    """Return the row of a peer.

    Args:
        chunks: When the observation was taken and the chunk was ready, s, and the model's ms.
        commands: When each action went to the robot, s.

    """
    if len(commands) < 2:  # noqa: PLR2004 - a period needs two
        sys.exit("a peer commanded nothing")
    since = commands[0] + WARM_UP_S
    beside = [(ready - taken) * 1e3 - ms for taken, ready, ms in chunks if taken > since]
    periods = np.diff([at for at in commands if at > since]) * 1e3
    p50, p99 = np.percentile(beside, [50, 99])
    return {
        "overhead p50": round(float(p50), 3),
        "p99": round(float(p99), 3),
        "model p50": round(float(np.median([ms for taken, _, ms in chunks if taken > since])), 3),
        "rate": round(1e3 / float(periods.mean()), 3),
        "period std": round(float(periods.std()), 3),
        "worst": round(float(periods.max()), 3),
    }


if __name__ == "__main__":
    sys.exit(main())
