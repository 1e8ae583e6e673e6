"""What vla_ros adds to the model's own time: two 640x480 cameras, two cores, the real nodes.

`overhead.py [--seconds S] [--json F]`. camera_node and policy_node run as processes of their own,
on two cores together with this one, which is the cameras (two, rgb8, 30 Hz), the robot (joint
states, 100 Hz) and the ear that hears the commands.

The overhead of a chunk is

    (publication of its first command) - (reception of its frames) - (model)

in ms. Reception: when camera_node is called with the second of the two frames that the chunk was
predicted from. Publication: when `publish` of the command had returned in policy_node. Model: the
stage `inference` of that very chunk, as the node times it: the graph's run, and the decoder's loop
round it. `overhead_from_hand_over` begins when `publish` of that frame had returned here, in the
cameras' process: with the way of 1.8 MB from there to camera_node.

In the figure are decoding and fitting the pictures, publishing them, bringing frames and joints
into line, normalising, turning actions to velocities, waiting for the period to begin, and
publishing. What came before `WARM_UP_S` is left out.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from array import array
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import rclpy
from builtin_interfaces.msg import Time
from diagnostic_msgs.msg import DiagnosticArray
from geometry_msgs.msg import TwistStamped
from nav_msgs.msg import Path as PathMessage
from rclpy.context import Context
from rclpy.executors import SingleThreadedExecutor
from rclpy.node import Node
from rclpy.qos import DurabilityPolicy, QoSProfile, qos_profile_sensor_data
from sensor_msgs.msg import Image, JointState
from std_msgs.msg import String

from vla_ros.observation.observation import Observation
from vla_ros.paths import share
from vla_ros.policy.bundle import Bundle
from vla_ros.policy.cadence import CadenceReport, parse
from vla_ros.policy.policy import Policy
from vla_ros.robot import RobotConfig
from vla_ros.sim.panda import HOME, urdf

DOMAIN = "47"
CORES = 2
CAMERA_HZ, JOINTS_HZ = 30.0, 100.0
START_TIMEOUT_S, WARM_UP_S = 30.0, 3.0
TARGETS_MS = {"p50": 3.0, "p99": 8.0}
HERE = Path(__file__)


def main(argv: Sequence[str] | None = None) -> int:
    """Measure, or be policy_node with a log of its inferences (`--policy-node LOG ...`)."""
    words = list(sys.argv[1:] if argv is None else argv)
    if words[:1] == ["--policy-node"]:
        return policy_node(Path(words[1]), words[2:])
    if words[:1] == ["--camera-node"]:
        return camera_node(Path(words[1]), words[2:])
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("--seconds", type=float, default=30.0, help="how long to measure")
    parser.add_argument("--bundle", type=Path, default=share() / "bundles" / "panda_pick")
    parser.add_argument("--instruction", default="pick up the red cube")
    parser.add_argument("--json", type=Path, help="file for the figures")
    args = parser.parse_args(words)
    figures = measure(args.bundle, args.instruction, args.seconds)
    text = json.dumps(figures, indent=2)
    if args.json:
        args.json.write_text(text + "\n", encoding="utf-8")
    print(text)
    return 0


def camera_node(log: Path, words: Sequence[str]) -> int:
    """Run camera_node, and write a line for each frame: ["frame", its stamp, when it came]."""
    from vla_ros.nodes import camera_node as module  # noqa: PLC0415 - in this role alone

    stream, kept = module._Stream, []  # noqa: SLF001
    receive = stream._receive  # noqa: SLF001

    def noted(self: object, message: Image, *rest: Any, **more: Any) -> None:  # noqa: ANN401
        kept.append(["frame", _ns(message.header.stamp), time.time_ns()])
        receive(self, message, *rest, **more)

    stream._receive = noted  # noqa: SLF001
    code = module.main([sys.argv[0], *words])
    log.write_text("\n".join(json.dumps(line) for line in kept), encoding="utf-8")
    return code


def policy_node(log: Path, words: Sequence[str]) -> int:
    """Run policy_node, and write a line for each inference and each command.

    ["model", observation's stamp, begin, end, stages], ["command", its stamp, end of `publish`].
    """
    from vla_ros.nodes import policy_node as module  # noqa: PLC0415 - in this role alone

    infer, kept = module._infer, []  # noqa: SLF001

    def timed(policy: Policy, observation: Observation, *rest: object) -> object:
        begin = time.time_ns()
        result = infer(policy, observation, *rest)
        kept.append(["model", observation.stamp_ns, begin, time.time_ns(), result.stages_ms])
        return result

    class Noted(module.PolicyNode):
        def create_publisher(self, kind: type, topic: str, *rest: Any, **more: Any) -> Any:  # noqa: ANN401
            publisher = super().create_publisher(kind, topic, *rest, **more)
            if topic == "command":
                publish = publisher.publish

                def noted(message: TwistStamped) -> None:
                    publish(message)
                    kept.append(["command", _ns(message.header.stamp), time.time_ns()])

                publisher.publish = noted
            return publisher

    module._infer, module.PolicyNode = timed, Noted  # noqa: SLF001
    code = module.main([sys.argv[0], *words])
    log.write_text("\n".join(json.dumps(line) for line in kept), encoding="utf-8")
    return code


def measure(
    bundle: Path, instruction: str, seconds: float, words: Sequence[str] = ()
) -> dict[str, object]:
    """Run the nodes, policy_node with more `words`; return the figures, in ms."""
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:CORES])
    environment = {**os.environ, "ROS_DOMAIN_ID": DOMAIN, "ROS_LOCALHOST_ONLY": "1"}
    robot = share() / "config" / "robots" / "panda.yaml"
    model = ("-p", f"bundle:={bundle}")
    with tempfile.TemporaryDirectory() as folder:
        logs = [Path(folder) / f"{role}.jsonl" for role in ("camera", "policy")]
        camera, policy = (
            [sys.executable, str(HERE), f"--{log.stem}-node", str(log), "--ros-args", *model]
            for log in logs
        )
        processes = [
            subprocess.Popen(camera, env=environment),
            subprocess.Popen([*policy, "--params-file", str(robot), *words], env=environment),
        ]
        try:
            world = _run_world(Bundle.load(bundle), RobotConfig.load(robot), instruction, seconds)
        finally:
            for process in processes:
                process.terminate()
            for process in processes:
                process.wait(10.0)
        lines = [line for log in logs for line in log.read_text(encoding="utf-8").splitlines()]
    return figures_of(world, [json.loads(line) for line in lines])


def figures_of(world: "World", lines: list[Any]) -> dict[str, object]:
    """Join what the cameras, the node and the robot noted."""
    results = {line[1]: line[2:] for line in lines if line[0] == "model"}
    published = {line[1]: line[2] for line in lines if line[0] == "command"}
    # Of the cameras' frames of one stamp, the last counts.
    received = {line[1]: line[2] for line in lines if line[0] == "frame"}
    since = world.began_ns + WARM_UP_S * 1e9
    rows = []
    for observed, command in world.chunks:
        handed, sent, heard = (
            world.handed.get(observed),
            published.get(command),
            world.heard.get(command),
        )
        came = received.get(observed)
        if handed is None or came is None or sent is None or heard is None:
            continue
        if observed not in results or handed < since:
            continue
        begin, end, stages = results[observed]
        model_ns = round(stages["inference"] * 1e6)
        wait_ns = max(command - end, 0)
        rows.append(
            {
                "overhead": sent - came - model_ns,
                "overhead_without_wait": sent - came - model_ns - wait_ns,
                "overhead_from_hand_over": sent - handed - model_ns,
                "hand_over_to_reception": came - handed,
                "frames_to_inference": begin - came,
                "inputs_and_motion": end - begin - model_ns,
                "model": model_ns,
                "wait_for_period": wait_ns,
                "schedule_and_publish": sent - command,
                "published_to_robot": heard - sent,
            }
        )
    commands = np.array(sorted(t for t in world.heard if t > since))
    periods = np.diff(commands) / 1e6
    if not rows or len(periods) < 2:  # noqa: PLR2004 - a spread needs two
        sys.exit("no chunk reached the robot: is the machine much too busy?")
    told = {name: percentiles([row[name] / 1e6 for row in rows]) for name in rows[0]}
    return {
        "cores": CORES,
        "load": round(os.getloadavg()[0], 2),
        "chunks": len(rows),
        "ms": told,
        "targets_ms": TARGETS_MS,
        "met": all(told["overhead"][name] <= most for name, most in TARGETS_MS.items()),
        "command_period_ms": {
            "mean": round(float(periods.mean()), 3),
            "std": round(float(periods.std()), 3),
            "worst": round(float(periods.max()), 3),
        },
        "cadence": None if world.cadence is None else world.cadence.as_dict(),
    }


def percentiles(values: list[float]) -> dict[str, float]:
    """Return p50, p99 and max."""
    p50, p99 = np.percentile(values, [50, 99])
    named = {"p50": p50, "p99": p99, "max": max(values)}
    return {name: round(float(value), 3) for name, value in named.items()}


def _run_world(bundle: Bundle, robot: RobotConfig, instruction: str, seconds: float) -> "World":
    os.environ["ROS_LOCALHOST_ONLY"] = "1"
    context = Context()
    rclpy.init(context=context, domain_id=int(DOMAIN))
    world = World(bundle, robot, context)
    executor = SingleThreadedExecutor(context=context)
    executor.add_node(world)
    try:
        end = time.monotonic() + START_TIMEOUT_S
        while not world.heard:
            executor.spin_once(timeout_sec=0.1)
            if time.monotonic() > end:
                sys.exit("the nodes did not start")
        world.instruct(instruction)
        world.began_ns = time.time_ns()
        end = time.monotonic() + WARM_UP_S + seconds
        while time.monotonic() < end:
            executor.spin_once(timeout_sec=0.1)
    finally:
        executor.shutdown()
        world.destroy_node()
        context.try_shutdown()
    return world


class World(Node):
    """The cameras, the robot, and its ear.

    Attributes:
        handed: When the frames of a stamp had been handed over, by stamp, ns.
        heard: When the command of a stamp was heard, by stamp, ns.
        chunks: Stamps of each chunk's observation and first command.
        cadence: What the nodes last said of their cadence.
        began_ns: When the instruction was given.

    """

    def __init__(self, bundle: Bundle, robot: RobotConfig, context: Context) -> None:
        """Publish the description, and all else by timers."""
        super().__init__("bench", context=context)
        self.handed: dict[int, int] = {}
        self.heard: dict[int, int] = {}
        self.chunks: list[tuple[int, int]] = []
        self.cadence: CadenceReport | None = None
        self.began_ns = 0
        self._reports: dict[str, CadenceReport] = {}
        latched = QoSProfile(depth=1, durability=DurabilityPolicy.TRANSIENT_LOCAL)
        self._description = self.create_publisher(String, "robot_description", latched)
        self._instruction = self.create_publisher(String, "instruction", latched)
        self._joints = self.create_publisher(JointState, "joint_states", qos_profile_sensor_data)
        self._cameras = [
            self.create_publisher(Image, f"{name}/image_raw", qos_profile_sensor_data)
            for name in bundle.camera_names
        ]
        noise = np.random.default_rng(0).integers(0, 256, 640 * 480 * 3, np.uint8)
        self._pixels = array("B", noise.tobytes())
        self._names = [*robot.joints, *robot.gripper_joints]
        self._position = [*HOME.tolist(), *[0.04] * len(robot.gripper_joints)]
        self.create_subscription(TwistStamped, "command", self._on_command, 1000)
        self.create_subscription(PathMessage, "policy/chunk", self._on_chunk, 1000)
        self.create_subscription(DiagnosticArray, "/diagnostics", self._on_diagnostics, 1000)
        self.create_timer(1.0 / JOINTS_HZ, self._send_joints)
        self.create_timer(1.0 / CAMERA_HZ, self._send_frames)
        self._description.publish(String(data=urdf()))

    def instruct(self, text: str) -> None:
        """Give the instruction."""
        self._instruction.publish(String(data=text))

    def _send_frames(self) -> None:
        stamp = self.get_clock().now().to_msg()
        for publisher in self._cameras:
            self._pixels[0] = (self._pixels[0] + 1) % 256
            message = Image(height=480, width=640, encoding="rgb8", step=1920)
            message.header.stamp = stamp
            message.data = self._pixels
            publisher.publish(message)
        self.handed[_ns(stamp)] = time.time_ns()

    def _send_joints(self) -> None:
        sample = JointState(name=self._names, position=self._position)
        sample.velocity = [0.0] * len(self._names)
        sample.header.stamp = self.get_clock().now().to_msg()
        self._joints.publish(sample)

    def _on_command(self, message: TwistStamped) -> None:
        self.heard[_ns(message.header.stamp)] = time.time_ns()

    def _on_chunk(self, message: PathMessage) -> None:
        if message.poses:
            self.chunks.append((_ns(message.header.stamp), _ns(message.poses[0].header.stamp)))

    def _on_diagnostics(self, message: DiagnosticArray) -> None:
        for status in message.status:
            report = parse({pair.key: pair.value for pair in status.values})
            if report is not None:
                self._reports[status.name] = report
        reports = list(self._reports.values())
        for index, report in enumerate(reports):
            self.cadence = (
                report if index == 0 or self.cadence is None else self.cadence.joined(report)
            )


def _ns(stamp: Time) -> int:
    return int(stamp.sec) * 10**9 + int(stamp.nanosec)


if __name__ == "__main__":
    sys.exit(main())
