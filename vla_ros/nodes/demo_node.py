"""The demo's own node: gives the instruction, watches the task, records the bag."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import rclpy
from diagnostic_msgs.msg import DiagnosticArray
from geometry_msgs.msg import TwistStamped
from rclpy.executors import SingleThreadedExecutor
from rclpy.node import Node
from rclpy.signals import SignalHandlerOptions
from std_msgs.msg import Bool, String

from vla_ros.nodes._common import CONTROL_QOS, LATCHED_QOS, now_ns, stamp_to_ns
from vla_ros.nodes._recorder import Recorder
from vla_ros.replay.recording import Recording

NOT_RECORDED = r".*/image_raw(/compressed)?|/rosout|/parameter_events"
MOVING_M_S = 0.01


@dataclass(slots=True)
class Progress:
    """What the demo's node has seen so far.

    Attributes:
        robot_ready: Whether the simulated robot and the filter publish.
        policy: What policy_node says of itself on /diagnostics.
        safety: What safety_node says of itself.
        speed_m_s: Linear speed of the last safe command.
        first_motion_ns: When the first safe command faster than 0.01 m/s was stamped, or None.
        success: Whether the task was done.

    """

    robot_ready: bool = False
    policy: str = ""
    safety: str = ""
    speed_m_s: float = 0.0
    first_motion_ns: int | None = None
    success: bool = False


class DemoNode(Node):
    """Publishes `instruction`, subscribes to what tells of the run, and records the rest."""

    def __init__(self, recording: Recording) -> None:
        """Start watching and recording."""
        super().__init__("demo_node")
        self.progress = Progress()
        self._heard: set[str] = set()
        Recorder(self, recording, NOT_RECORDED)
        self._instruction = self.create_publisher(String, "instruction", LATCHED_QOS)
        self.create_subscription(Bool, "task/success", self._on_success, CONTROL_QOS)
        self.create_subscription(TwistStamped, "safe_command", self._on_command, CONTROL_QOS)
        self.create_subscription(DiagnosticArray, "/diagnostics", self._on_diagnostics, CONTROL_QOS)

    def instruct(self, text: str) -> int:
        """Publish the instruction; return the time in ns."""
        self._instruction.publish(String(data=text))
        return now_ns(self)

    def node_names(self) -> list[str]:
        """Return the names of the other nodes in the graph, sorted."""
        return sorted(set(self.get_node_names()) - {self.get_name()})

    def _on_success(self, message: Any) -> None:  # noqa: ANN401
        self._heard.add("task")
        self._update_ready()
        self.progress.success = self.progress.success or bool(message.data)

    def _on_command(self, message: Any) -> None:  # noqa: ANN401
        self._heard.add("safety")
        self._update_ready()
        linear = message.twist.linear
        speed = (linear.x**2 + linear.y**2 + linear.z**2) ** 0.5
        self.progress.speed_m_s = speed
        if speed > MOVING_M_S and self.progress.first_motion_ns is None:
            self.progress.first_motion_ns = stamp_to_ns(message.header.stamp)

    def _on_diagnostics(self, message: Any) -> None:  # noqa: ANN401
        for status in message.status:
            if status.name.endswith("policy_node"):
                self._heard.add("policy")
                self.progress.policy = status.message
            elif status.name.endswith("safety_node"):
                self.progress.safety = status.message
        self._update_ready()

    def _update_ready(self) -> None:
        self.progress.robot_ready = {"task", "safety", "policy"} <= self._heard


class DemoSession:
    """The node, its context and its executor, stepped by the demo's own loop.

    Signals stay with the caller: Ctrl-C must close the bag and end the launched nodes in order.
    """

    def __init__(self, bag: Path, distro: str) -> None:
        """Join the graph and start recording into `bag`."""
        rclpy.init(signal_handler_options=SignalHandlerOptions.NO)
        self._recording = Recording(bag, distro)
        self.node = DemoNode(self._recording)
        self._executor = SingleThreadedExecutor()
        self._executor.add_node(self.node)

    def spin(self, seconds: float) -> None:
        """Handle messages for `seconds`."""
        end_ns = now_ns(self.node) + round(seconds * 1e9)
        while now_ns(self.node) < end_ns:
            # Always the same: with each new timeout rclpy begins its round of the subscriptions
            # anew (Humble, Executor.wait_for_ready_callbacks), and serves the first ones only.
            self._executor.spin_once(timeout_sec=0.02)

    def close(self) -> None:
        """Close the bag and leave the graph."""
        self._executor.shutdown()
        self.node.destroy_node()
        rclpy.try_shutdown()
        self._recording.close()
