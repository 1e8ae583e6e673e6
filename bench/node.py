"""What safety_node costs at 500 Hz: its share of a core, and how regular its output is.

Run by bench/run.py. The node runs as a process with the Panda's robot file; this process is its
robot and its policy: joint states at 100 Hz, commands at 30 Hz.
"""

import math
import os
import subprocess
import sys
import time

import numpy as np
import pinocchio as pin
import psutil
import rclpy
from diagnostic_msgs.msg import DiagnosticArray
from geometry_msgs.msg import Twist, TwistStamped
from rclpy.context import Context
from rclpy.executors import SingleThreadedExecutor
from rclpy.node import Node
from rclpy.qos import DurabilityPolicy, QoSProfile, qos_profile_sensor_data
from sensor_msgs.msg import JointState
from std_msgs.msg import String

from vla_ros.paths import share
from vla_ros.robot import RobotConfig
from vla_ros.sim.panda import HOME, urdf

DOMAIN = "46"
RATE_HZ = 500.0
SETTLE_S = 3.0


def safety_node(seconds: float = 10.0, rate_hz: float = RATE_HZ) -> dict[str, float]:
    """Run the node; return its CPU share in percent of a core, and its output's periods in ms.

    The periods are of the stamps that the node gives its output: when it was computed.
    """
    environment = {**os.environ, "ROS_DOMAIN_ID": DOMAIN, "ROS_LOCALHOST_ONLY": "1"}
    robot = share() / "config" / "robots" / "panda.yaml"
    command = [
        sys.executable, "-m", "vla_ros.nodes.safety_node",
        "--ros-args", "--params-file", str(robot), "-p", f"rate_hz:={rate_hz}",
    ]  # fmt: skip
    with subprocess.Popen(command, env=environment) as process:
        try:
            return _measure(process.pid, RobotConfig.load(robot), seconds)
        finally:
            process.terminate()


def _measure(pid: int, robot: RobotConfig, seconds: float) -> dict[str, float]:
    os.environ["ROS_LOCALHOST_ONLY"] = "1"
    context = Context()
    rclpy.init(context=context, domain_id=int(DOMAIN))
    node = _Loop(robot, context)
    executor = SingleThreadedExecutor(context=context)
    executor.add_node(node)
    _spin(executor, SETTLE_S)
    process = psutil.Process(pid)
    for heard in (node.stamps, node.moving, node.told):
        heard.clear()
    before, began = process.cpu_times(), time.monotonic()
    _spin(executor, seconds)
    after, elapsed = process.cpu_times(), time.monotonic() - began
    used = after.user + after.system - before.user - before.system
    executor.shutdown()
    node.destroy_node()
    context.try_shutdown()
    periods = np.diff(np.sort(node.stamps)) / 1e6
    p1, p50, p99 = np.percentile(periods, [1, 50, 99])
    return {
        "cpu_percent": round(100.0 * used / elapsed, 1),
        "rate_hz": round(len(node.stamps) / elapsed, 1),
        "status_hz": round(len(node.told) / elapsed, 1),
        "period_ms_p1": round(float(p1), 3),
        "period_ms_p50": round(float(p50), 3),
        "period_ms_p99": round(float(p99), 3),
        "period_ms_max": round(float(periods.max()), 3),
        "moving_share": round(float(np.mean(node.moving)), 3),
    }


def _spin(executor: SingleThreadedExecutor, seconds: float) -> None:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        executor.spin_once(timeout_sec=0.1)


class _Loop(Node):
    """The arm and the policy: slow circles about HOME.

    Attributes:
        stamps: Of each output, ns.
        moving: Whether it moved.
        told: An entry for each status.

    """

    def __init__(self, robot: RobotConfig, context: Context) -> None:
        """Publish the description, and all else by timers."""
        super().__init__("bench", context=context)
        self.stamps: list[int] = []
        self.moving: list[bool] = []
        self.told: list[int] = []
        self._robot, self._arm = robot, _Arm(robot)
        latched = QoSProfile(depth=1, durability=DurabilityPolicy.TRANSIENT_LOCAL)
        self._description = self.create_publisher(String, "robot_description", latched)
        self._joints = self.create_publisher(JointState, "joint_states", qos_profile_sensor_data)
        self._commands = self.create_publisher(TwistStamped, "command", 10)
        self.create_subscription(TwistStamped, "safe_command", self._hear, 1000)
        self.create_subscription(
            DiagnosticArray, "safety_node/status", lambda _: self.told.append(1), 1000
        )
        self.create_timer(0.01, self._send_joints)
        self.create_timer(1.0 / 30.0, self._send_command)
        self._description.publish(String(data=urdf()))

    def _hear(self, message: TwistStamped) -> None:
        self.stamps.append(message.header.stamp.sec * 10**9 + message.header.stamp.nanosec)
        self._arm.sent = message.twist
        self.moving.append(message.twist.linear.x != 0.0)

    def _send_joints(self) -> None:
        self._arm.move(0.01)
        sample = JointState()
        sample.header.stamp = self.get_clock().now().to_msg()
        sample.name = [*self._robot.joints, *self._robot.gripper_joints]
        sample.position = [*self._arm.position.tolist(), 0.04, 0.04]
        sample.velocity = [0.0] * 9
        sample.effort = [*self._arm.weight(), 0.0, 0.0]
        self._joints.publish(sample)

    def _send_command(self) -> None:
        wish = TwistStamped()
        wish.header.stamp = self.get_clock().now().to_msg()
        wish.header.frame_id = self._robot.base_frame
        angle = time.monotonic()
        wish.twist.linear.x, wish.twist.linear.y = 0.05 * math.cos(angle), 0.05 * math.sin(angle)
        self._commands.publish(wish)


class _Arm:
    """An arm that does what it was sent at once, and measures its weight."""

    def __init__(self, robot: RobotConfig) -> None:
        """Start at HOME."""
        self._chain = robot.chain(urdf())
        self._model = pin.buildModelFromXML(urdf())
        self._data = self._model.createData()
        self._tcp = self._model.getFrameId(robot.tcp_frame)
        self._carried = 9.81 * robot.bounds.payload_mass
        self.position = HOME.copy()
        self.sent = Twist()

    def move(self, seconds: float) -> None:
        """Follow what was sent for some time."""
        linear, angular = self.sent.linear, self.sent.angular
        twist = [linear.x, linear.y, linear.z, angular.x, angular.y, angular.z]
        inverse = np.linalg.pinv(self._chain.jacobian(self.position))
        self.position = self.position + seconds * (inverse @ twist)

    def weight(self) -> list[float]:
        """Return the torques that hold the arm and its payload, Nm."""
        q = np.concatenate([self.position, np.zeros(self._model.nq - len(self.position))])
        torque = pin.computeGeneralizedGravity(self._model, self._data, q)
        world = pin.ReferenceFrame.LOCAL_WORLD_ALIGNED
        jacobian = pin.computeFrameJacobian(self._model, self._data, q, self._tcp, world)
        return list((torque + self._carried * jacobian[2])[: len(self.position)])
