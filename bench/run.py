"""`make bench`: what the paths of the design cost, printed and written to bench/results.json.

Every figure is measured here and now, on this machine; two processes talk over the loopback.
"""

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from importlib.metadata import version
from pathlib import Path
from unittest.mock import patch

import node
import numpy as np
import safety

from vla_ros.observation.image import decode_raw, fit_image
from vla_ros.observation.observation import Observation
from vla_ros.paths import share
from vla_ros.policy.backends import Tensor
from vla_ros.policy.backends.onnx import OnnxBackend
from vla_ros.policy.bundle import Bundle
from vla_ros.policy.policy import Policy
from vla_ros.replay.result import ReplayResult
from vla_ros.replay.stepping import Options, replay_bag
from vla_ros.sim.panda import PandaSim

HERE = Path(__file__).parent
DOMAIN = "98"
IMAGE_TRIPS, TWISTS = 500, 3000
WARM_UP = 0.1


def main() -> int:
    """Run every benchmark, or one role of the two-process ones."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", type=Path, default=HERE / "results.json")
    parser.add_argument("--no-demo", action="store_true", help="leave out the launched loop")
    args = parser.parse_args()

    results: dict[str, object] = {"machine": machine()}
    print(f"load before: {os.getloadavg()[0]:.2f} (the figures want an idle machine)")
    for name, measure in {
        "image_640x480_round_trip_ms": image_round_trip,
        "twist_one_way_1khz_us": twist_one_way,
        "filter_step_us": filter_step,
        "filter_step_by_keep_outs_us": keep_outs,
        "filter_growth": safety.growth_kb,
        "safety_node_500_hz": node.safety_node,
        "model_one_core_ms": model,
        "camera_decode_and_fit_640x480_us": decode_and_fit,
        "render_160x160_ms": render,
    }.items():
        results[name] = measure()
        print(f"{name:<36}{results[name]}")
    if not args.no_demo:
        for name, measure in {
            "demo": demo,
            "overhead_two_cameras": overhead,
            "replay": replay,
            "replay_share_by_model": replay_share_by_model,
            "large_bags": large_bags,
        }.items():
            results[name] = measure()
            print(f"{name:<36}{results[name]}")
    args.json.write_text(json.dumps(results, indent=2) + "\n", encoding="utf-8")
    print(f"written to {args.json}")
    return 0


def machine() -> dict[str, object]:
    """Return what the figures depend on."""
    model_name = next(
        (
            line.split(":", 1)[1].strip()
            for line in Path("/proc/cpuinfo").read_text().splitlines()
            if line.startswith("model name")
        ),
        platform.processor(),
    )
    packages = [
        "numpy",
        "onnxruntime",
        "pin",
        "daqp",
        "mujoco",
        "cyclonedds",
        "rosbags",
        "opencv-python-headless",
    ]
    return {
        "cpu": model_name,
        "cores": os.cpu_count(),
        "load": round(os.getloadavg()[0], 2),
        "python": platform.python_version(),
        "packages": {name: version(name) for name in packages},
    }


def percentiles(values: list[float]) -> dict[str, float]:
    """Return p50, p99 and max of the values after the first tenth, and how many there are."""
    kept = np.array(values[int(len(values) * WARM_UP) :])
    p50, p99 = np.percentile(kept, [50, 99])
    return {
        "p50": round(float(p50), 3),
        "p99": round(float(p99), 3),
        "max": round(float(kept.max()), 3),
        "n": len(kept),
    }


def repeat(call: Callable[[], object], times: int, unit_ns: float) -> dict[str, float]:
    """Time each of `times` calls."""
    values = []
    for _ in range(times):
        start = time.perf_counter_ns()
        call()
        values.append((time.perf_counter_ns() - start) / unit_ns)
    return percentiles(values)


def image_round_trip() -> dict[str, float]:
    """Time a 640x480 rgb8 Image to another process and back, serialisation included."""
    return two_processes("image", "echo")


def twist_one_way() -> dict[str, float]:
    """Time a TwistStamped to another process, 1000 a second."""
    return two_processes("twist", "sink")


def two_processes(source: str, target: str) -> dict[str, float]:
    """Run one role of bench/messages.py in each of two processes; return the figures it prints."""
    environment = {**os.environ, "ROS_DOMAIN_ID": DOMAIN, "ROS_LOCALHOST_ONLY": "1"}
    command = [sys.executable, str(HERE / "messages.py")]
    count = str(IMAGE_TRIPS if source == "image" else TWISTS)
    with (
        subprocess.Popen([*command, target, count], env=environment, stdout=subprocess.PIPE) as far,
        subprocess.Popen(
            [*command, source, count], env=environment, stdout=subprocess.PIPE
        ) as near,
    ):
        near_out, _ = near.communicate(timeout=60)
        far_out, _ = far.communicate(timeout=60)
    return percentiles(json.loads(near_out if source == "image" else far_out))


def filter_step() -> dict[str, object]:
    """Time SafetyFilter.step on the Panda with every bound: commands inside, and pushing."""
    return {
        "inside": safety.step_us(safety.panda(), hard=False),
        "pushing": safety.step_us(safety.panda(), hard=True),
    }


def keep_outs() -> dict[str, object]:
    """Time SafetyFilter.step against the number of keep-outs, and draw it."""
    figures = safety.keep_outs()
    safety.plot(figures, HERE / "keep_outs.svg")
    return dict(figures)


def replay() -> dict[str, object]:
    """Replay the demo's bag ten times in each mode; return what the fastest says of its speed.

    The shares are of `wall_s`: reading, stepping, judging and measuring. `loading_s` is not in it.
    """
    figures: dict[str, object] = {}
    for mode in ("safety", "policy", "policy+safety"):
        best = fastest(mode, 10)
        speed = {name: round(value, 4) for name, value in best.speed().items()}
        figures[mode] = {"bag_s": round(best.duration_s, 2), **speed}
    return figures


def replay_share_by_model() -> list[dict[str, float]]:
    """Replay in `policy+safety` with models that take longer: the shipped one, run several times.

    What of `wall_s` is not the model's is our share.
    """
    once, rows = OnnxBackend.run, []
    for times in (1, 2, 4, 8, 16):

        def run(
            backend: OnnxBackend, inputs: Mapping[str, Tensor], times: int = times
        ) -> dict[str, Tensor]:
            return [once(backend, inputs) for _ in range(times)][-1]

        with patch.object(OnnxBackend, "run", run):
            best = fastest("policy+safety", 5)
        rows.append(
            {
                "chunk_ms": round(float(best.inference_ms.mean()), 2),
                "our_share": round(1.0 - best.speed()["model_share"], 4),
            }
        )
    return rows


def fastest(mode: str, runs: int) -> ReplayResult:
    """Replay the demo's bag some times; return what came of the fastest."""
    bag, robot = Path("runs/latest/bag"), share() / "config" / "robots" / "panda.yaml"
    bundle, options = share() / "bundles" / "panda_pick", Options(mode=mode)
    results = [replay_bag(bag, robot, bundle, options=options) for _ in range(runs)]
    return min(results, key=lambda result: result.wall_s)


def overhead() -> dict[str, object]:
    """Measure what the nodes add to the model's time (bench/overhead.py, in its own process)."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "overhead.json"
        command = [sys.executable, str(HERE / "overhead.py"), "--json", str(file)]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
        return dict(json.loads(file.read_text(encoding="utf-8")))


def large_bags() -> dict[str, object]:
    """Read a 2 GB bag of each storage: speed, and the peak of memory (bench/bags.py)."""
    figures = {}
    for storage in ("mcap", "sqlite3"):
        command = [sys.executable, str(HERE / "bags.py"), "--storage", storage, "--json"]
        output = subprocess.run(command, stdout=subprocess.PIPE, check=True).stdout
        figures[storage] = json.loads(output)
    return figures


def model() -> dict[str, float]:
    """Time one inference of the shipped bundle on one thread, pre- and postprocessing included."""
    bundle = Bundle.load(share() / "bundles" / "panda_pick")
    policy = Policy(bundle)
    with PandaSim() as sim:
        position, rotation = sim.tcp_pose()
        observation = Observation(
            stamp_ns=0,
            images={
                c.name: fit_image(sim.render(c.name), c.image) for c in bundle.manifest.cameras
            },
            joints=sim.joint_sample(0),
            joint_names=sim.joint_names,
            tcp_position=position,
            tcp_rotation=rotation,
            instruction="pick up the red cube",
        )
    return repeat(lambda: policy.infer(observation), 300, 1e6)


def decode_and_fit() -> dict[str, float]:
    """Time what camera_node does to a 640x480 bgr8 picture for the front camera."""
    spec = Bundle.load(share() / "bundles" / "panda_pick").camera("front").image
    data = np.random.default_rng(0).integers(0, 255, 640 * 480 * 3, np.uint8).tobytes()

    def take() -> None:
        image = decode_raw(data, height=480, width=640, encoding="bgr8", step=1920)
        fit_image(image, spec)

    return repeat(take, 500, 1e3)


def render() -> dict[str, float]:
    """Time one picture of the simulated front camera."""
    with PandaSim() as sim:
        return repeat(lambda: sim.render("front"), 200, 1e6)


def demo() -> dict[str, object]:
    """Run the launched loop once; return its own figures."""
    command = [sys.executable, "-m", "vla_ros.cli", "demo", "--no-video", "--runs", "runs"]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    summary = json.loads(Path("runs/latest/summary.json").read_text(encoding="utf-8"))
    keys = ["image_to_command_ms", "image_to_safe_command_ms", "policy_hz", "safe_command_hz"]
    return {key: summary[key] for key in [*keys, "seconds", "violations"]}


if __name__ == "__main__":
    sys.exit(main())
