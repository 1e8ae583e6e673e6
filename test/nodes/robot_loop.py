"""The whole loop as processes, with a node of the test's own between the simulator and the others.

The test's node relays pictures and joint states, so that it can freeze or stop them, and sees the
true joint states whatever the other nodes see.
"""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path

import numpy as np
import rclpy
from diagnostic_msgs.msg import DiagnosticArray
from geometry_msgs.msg import TwistStamped
from rclpy.context import Context
from rclpy.executors import SingleThreadedExecutor
from rclpy.node import Node
from rclpy.qos import DurabilityPolicy, QoSProfile, qos_profile_sensor_data
from sensor_msgs.msg import Image, JointState
from std_msgs.msg import String

from vla_ros.paths import share

LATCHED = QoSProfile(depth=1, durability=DurabilityPolicy.TRANSIENT_LOCAL)
CAMERAS = ("front", "wrist")
STILL_RAD_S = 0.02
ROBOT = share() / "config" / "robots" / "panda.yaml"
BUNDLE = share() / "bundles" / "panda_pick"


class RobotLoop(AbstractContextManager["RobotLoop"]):
    """sim_node, camera_node, policy_node and safety_node, and the test's relay.

    Attributes:
        relay: Which of "front", "wrist", "joint_states" pass through.
        freeze: Cameras whose newest picture is sent again and again, with new stamps.
        speeds: (time.monotonic of reception, largest joint speed in rad/s) of every joint state.
        commands: Every safe_command.
        told: Everything that was said on /diagnostics: (time.monotonic, node, message and values).

    """

    def __init__(self, domain: int, log: Path, *, seed: int = 1) -> None:
        """Start the processes with the ROS domain and the folder for their output."""
        self.environment = {
            **os.environ,
            "ROS_DOMAIN_ID": str(domain),
            "ROS_LOCALHOST_ONLY": "1",
            "PYTHONUNBUFFERED": "1",
        }
        self._log = log
        self.relay = {*CAMERAS, "joint_states"}
        self.freeze: set[str] = set()
        self.speeds: list[tuple[float, float]] = []
        self.commands: list[TwistStamped] = []
        self.told: list[tuple[float, str, str]] = []
        self.processes: dict[str, subprocess.Popen[bytes]] = {}
        self._frozen: dict[str, Image] = {}
        os.environ["ROS_DOMAIN_ID"] = str(domain)
        os.environ["ROS_LOCALHOST_ONLY"] = "1"
        self._context = Context()
        rclpy.init(context=self._context, domain_id=domain)
        self.node = Node("test_relay", context=self._context)
        self._executor = SingleThreadedExecutor(context=self._context)
        self._executor.add_node(self.node)
        self._connect()
        raw = [("joint_states", "raw/joint_states")]
        raw += [(f"{name}/image_raw", f"raw/{name}") for name in CAMERAS]
        remaps = [word for a, b in raw for word in ("-r", f"{a}:={b}")]
        self.start("sim_node", "-p", f"seed:={seed}", *remaps)
        self.start("camera_node", "-p", f"bundle:={BUNDLE}")
        self.start("policy_node", "--params-file", str(ROBOT), "-p", f"bundle:={BUNDLE}")
        self.start("safety_node", "--params-file", str(ROBOT))

    def start(self, name: str, *arguments: str) -> None:
        """Start a node."""
        with (self._log / f"{name}.log").open("ab") as log:
            self.processes[name] = subprocess.Popen(
                [sys.executable, "-m", f"vla_ros.nodes.{name}", "--ros-args", *arguments],
                env=self.environment,
                stdout=log,
                stderr=subprocess.STDOUT,
            )

    def kill(self, name: str) -> None:
        """Kill a node as a crash would."""
        self.processes[name].send_signal(signal.SIGKILL)
        self.processes[name].wait()

    def spin(self, seconds: float, until: Callable[[], bool] | None = None) -> bool:
        """Handle messages for `seconds`, or until a condition holds; return whether it did."""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            if until is not None and until():
                return True
            self._executor.spin_once(timeout_sec=0.01)
        return until is not None and until()

    def move(self, instruction: str = "pick up the red cube") -> None:
        """Instruct, and wait until the arm moves at 0.1 m/s or more for some ticks."""
        assert self.spin(30.0, lambda: len(self.commands) > 20 and self._hears("policy_node")), (
            self.logs()
        )
        self.instruct(instruction)
        assert self.spin(15.0, lambda: min(self._recent_speeds(5), default=0.0) > 0.08), self.logs()

    def instruct(self, text: str) -> None:
        """Publish an instruction."""
        self._instruction.publish(String(data=text))

    def seconds_to_still(self, fault: Callable[[], None]) -> float:
        """Make a fault; return how long after it the joints came to rest, for 1 s at least."""
        start = time.monotonic()
        fault()
        self.spin(1.2)
        moving = [t for t, speed in self.speeds if t >= start and speed > STILL_RAD_S]
        assert [t for t, _ in self.speeds if t > start + 1.0], "the simulator itself went silent"
        return max(moving, default=start) - start

    def causes(self, since: float) -> str:
        """Return all that was said on /diagnostics since the time."""
        return "\n".join(f"{node}: {text}" for at, node, text in self.told if at >= since)

    def publisher(self, kind: type, topic: str) -> "rclpy.publisher.Publisher":
        """Return a publisher of the test's node."""
        return self.node.create_publisher(kind, topic, QoSProfile(depth=10))

    def logs(self) -> str:
        """Return what the nodes printed."""
        return "\n".join(f"--- {p.name}\n{p.read_text()[-3000:]}" for p in self._log.glob("*.log"))

    def __exit__(self, *_: object) -> None:
        """End every process."""
        for process in self.processes.values():
            if process.poll() is None:
                process.send_signal(signal.SIGINT)
        for process in self.processes.values():
            end(process)
        self._executor.shutdown()
        self.node.destroy_node()
        rclpy.shutdown(context=self._context)

    def _recent_speeds(self, count: int) -> list[float]:
        linear = [c.twist.linear for c in self.commands[-count:]]
        return [float(np.linalg.norm([v.x, v.y, v.z])) for v in linear]

    def _hears(self, name: str) -> bool:
        return any(node.endswith(name) for _, node, _ in self.told)

    def _connect(self) -> None:
        node = self.node
        self._instruction = node.create_publisher(String, "instruction", LATCHED)
        self._joints = node.create_publisher(JointState, "joint_states", QoSProfile(depth=10))
        node.create_subscription(
            JointState, "raw/joint_states", self._on_joints, QoSProfile(depth=50)
        )
        node.create_subscription(
            TwistStamped, "safe_command", self.commands.append, QoSProfile(depth=50)
        )
        node.create_subscription(
            DiagnosticArray, "/diagnostics", self._on_diagnostics, QoSProfile(depth=50)
        )
        for camera in CAMERAS:
            publisher = node.create_publisher(Image, f"{camera}/image_raw", qos_profile_sensor_data)
            node.create_subscription(
                Image,
                f"raw/{camera}",
                self._relay_image(camera, publisher),
                qos_profile_sensor_data,
            )

    def _relay_image(self, camera: str, publisher: object) -> Callable[[Image], None]:
        def relay(message: Image) -> None:
            if camera not in self.relay:
                return
            if camera in self.freeze:
                stamp = message.header.stamp
                message = self._frozen.setdefault(camera, message)
                message.header.stamp = stamp
            publisher.publish(message)

        return relay

    def _on_joints(self, message: JointState) -> None:
        self.speeds.append((time.monotonic(), float(np.abs(message.velocity[:7]).max())))
        if "joint_states" in self.relay:
            self._joints.publish(message)

    def _on_diagnostics(self, message: DiagnosticArray) -> None:
        for status in message.status:
            values = " ".join(f"{value.key}={value.value}" for value in status.values)
            self.told.append((time.monotonic(), status.name, f"{status.message} {values}"))


def end(process: "subprocess.Popen[bytes]") -> None:
    """Wait for a process that was interrupted; kill it if it does not end."""
    try:
        process.wait(8.0)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
