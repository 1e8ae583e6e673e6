"""safety_node as a process, with a node of the test's own as its policy and its robot."""

import math
import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import rclpy
from arm_weight import Weight
from diagnostic_msgs.msg import DiagnosticArray
from geometry_msgs.msg import TwistStamped, Vector3
from panda_arm import HOME
from rcl_interfaces.srv import SetParametersAtomically
from rclpy.context import Context
from rclpy.executors import SingleThreadedExecutor
from rclpy.node import Node
from rclpy.parameter import Parameter
from rclpy.qos import DurabilityPolicy, QoSProfile, qos_profile_sensor_data
from sensor_msgs.msg import JointState
from std_msgs.msg import Bool, Float64, String
from std_srvs.srv import Trigger

from vla_ros.replay.judge import Tick
from vla_ros.robot import RobotConfig
from vla_ros.robots import urdf

ROBOT = Path(__file__).parents[2] / "config/robots/panda.yaml"
BASE = "panda_link0"
NAMES = [f"panda_joint{i}" for i in range(1, 8)] + [f"panda_finger_joint{i}" for i in (1, 2)]
URDF = urdf("panda")
CONFIG = RobotConfig.load(ROBOT)
ARM = Weight(CONFIG, URDF)
CHAIN = CONFIG.chain(URDF)


def environment(domain):
    return {
        **os.environ,
        "ROS_DOMAIN_ID": str(domain),
        "ROS_LOCALHOST_ONLY": "1",
        "PYTHONUNBUFFERED": "1",
    }


def start(domain, *arguments, robot=ROBOT, log=subprocess.PIPE):
    return subprocess.Popen(
        [
            sys.executable, "-m", "vla_ros.nodes.safety_node",
            "--ros-args", "--params-file", str(robot), *arguments,
        ],
        env=environment(domain), stdout=log, stderr=subprocess.STDOUT, text=True,
    )  # fmt: skip


class Rig:
    """The test's node: an arm that follows at once, commands at 30 Hz, what is heard."""

    def __init__(self, domain):
        os.environ.update(environment(domain))
        self.context = Context()
        rclpy.init(context=self.context, domain_id=domain)
        self.node = Node("rig", context=self.context)
        self.executor = SingleThreadedExecutor(context=self.context)
        self.executor.add_node(self.node)
        latched = QoSProfile(depth=1, durability=DurabilityPolicy.TRANSIENT_LOCAL)
        publish = self.node.create_publisher
        self.command = publish(TwistStamped, "command", 10)
        self.gripper = publish(Float64, "gripper_command", 10)
        self.joints = publish(JointState, "joint_states", qos_profile_sensor_data)
        self.description = publish(String, "robot_description", latched)
        self.estop = publish(Bool, "estop", 10)
        self.instruction = publish(String, "instruction", latched)
        listen = self.node.create_subscription
        listen(TwistStamped, "safe_command", self.hear_command, 100)
        listen(Float64, "safe_gripper_command", self.hear_gripper, 100)
        listen(DiagnosticArray, "safety_node/status", self.hear_status, 100)
        listen(DiagnosticArray, "/diagnostics", self.hear_diagnostics, 100)
        self.clients = {
            name: self.node.create_client(Trigger, f"safety_node/{name}")
            for name in ("stop", "reset", "approve")
        }
        self.position, self.sent = np.array(HOME), np.zeros(6)
        self.commands, self.places, self.statuses, self.diagnostics = [], [], [], []
        self.opening = None
        self.sent_ns = 0
        self.effort = np.zeros(7)
        self.grip = 0.0
        self.joints_shift_ns = 0
        self.frozen = None
        self.send_joints = True
        self.apart = False

    def hear_command(self, message):
        if self.commands:
            period = min(max(stamp_ns(message) - stamp_ns(self.commands[-1]), 0), 15_000_000)
            jacobian = CHAIN.jacobian(self.position)
            self.position = self.position + np.linalg.pinv(jacobian) @ (self.sent * period / 1e9)
        self.sent = np.array([*xyz(message.twist.linear), *xyz(message.twist.angular)])
        self.commands.append(message)
        self.places.append(self.position)

    def hear_gripper(self, message):
        self.opening = message.data

    def hear_status(self, message):
        self.statuses.append((message.header.stamp, message.status[0]))

    def hear_diagnostics(self, message):
        self.diagnostics += [s for s in message.status if s.name == "safety_node"]

    def now_ns(self):
        return self.node.get_clock().now().nanoseconds

    def twist(self, linear=(0.0, 0.0, 0.0), stamp_ns=None, frame=BASE):
        message = TwistStamped()
        if stamp_ns is None:
            stamp_ns = self.sent_ns = self.now_ns()
        message.header.stamp.sec, message.header.stamp.nanosec = divmod(stamp_ns, 10**9)
        message.header.frame_id = frame
        x, y, z = map(float, linear)
        message.twist.linear = Vector3(x=x, y=y, z=z)
        return message

    def measured(self):
        message = JointState()
        stamp_ns = self.now_ns() + self.joints_shift_ns
        message.header.stamp.sec, message.header.stamp.nanosec = divmod(stamp_ns, 10**9)
        message.name = NAMES
        position = self.position if self.frozen is None else self.frozen
        message.position = [*position.tolist(), 0.03, 0.03]
        message.velocity = [0.0] * 9
        message.effort = [*(ARM.at(self.position) + self.effort), self.grip, 0.0]
        return message

    def joint_states(self):
        """What is measured: whole, or `apart` as of an arm, a gripper and wheels that know nothing
        of each other."""
        whole = self.measured()
        if not self.apart:
            return [whole]
        parts = [JointState(header=whole.header, name=["wheel"], position=[0.0])]
        for joints in (slice(7, 9), slice(7)):
            lists = {k: getattr(whole, k)[joints] for k in ("position", "velocity", "effort")}
            parts.append(JointState(header=whole.header, name=whole.name[joints], **lists))
        return parts

    def run(self, seconds, *, send=None, hz=30.0, also=None, also_hz=1000.0, until=None):
        """Run for some time: `send()` gives the commands, `also()` those of a flood."""
        start = time.monotonic()
        due = dict.fromkeys(("joints", "send", "also"), start)
        while (now := time.monotonic()) < start + seconds:
            if until is not None and until():
                return True
            if self.send_joints and now >= due["joints"]:
                due["joints"] += 0.01
                for message in self.joint_states():
                    self.joints.publish(message)
            if send is not None and now >= due["send"]:
                due["send"] += 1.0 / hz
                self.command.publish(send())
            for _ in range(5):
                if also is not None and now >= due["also"]:
                    due["also"] += 1.0 / also_hz
                    self.command.publish(also())
            self.executor.spin_once(timeout_sec=0.001)
        return until is not None and until()

    def call(self, name):
        future = self.clients[name].call_async(Trigger.Request())
        assert self.run(5.0, until=future.done), f"{name} is not served"
        return future.result()

    def set_parameters(self, **values):
        """Set parameters of the node at once; return whether that was accepted, and the reason."""
        client = self.node.create_client(
            SetParametersAtomically, "safety_node/set_parameters_atomically"
        )
        wishes = [
            Parameter(name.replace("__", "."), value=value).to_parameter_msg()
            for name, value in values.items()
        ]
        future = client.call_async(SetParametersAtomically.Request(parameters=wishes))
        assert self.run(5.0, until=future.done)
        self.node.destroy_client(client)
        return future.result().result.successful, future.result().result.reason

    def state(self):
        return self.value("state")

    def value(self, key):
        return {v.key: v.value for v in self.statuses[-1][1].values}[key] if self.statuses else ""

    def speed(self):
        v = self.commands[-1].twist.linear
        return math.hypot(v.x, v.y, v.z)

    def forget(self):
        self.commands.clear()
        self.places.clear()
        self.statuses.clear()
        self.diagnostics.clear()

    def move(self):
        """Bring the filter into motion."""
        go = lambda: self.twist((0.1, 0.0, 0.0))  # noqa: E731
        moving = lambda: self.commands and self.speed() > 0.099  # noqa: E731
        self.position = np.array(HOME)
        assert self.run(10.0, send=go, until=moving), self.told()
        self.forget()
        self.run(0.1, send=go)

    def told(self):
        """Return what was said lately, each once: on /diagnostics, and at each step."""
        said = [s.message for s in self.diagnostics[-5:]]
        return "\n".join(dict.fromkeys(said + [s.message for _, s in self.statuses]))

    def acted(self):
        return {
            name
            for _, status in self.statuses
            for value in status.values
            if value.key == "acting"
            for name in value.value.split(",")
        }

    def ticks(self):
        return [
            Tick(
                stamp_ns(m),
                np.array([*xyz(m.twist.linear), *xyz(m.twist.angular)]),
                self.opening,
                place,
                m.header.frame_id,
            )
            for m, place in zip(self.commands, self.places, strict=True)
        ]

    def close(self):
        self.executor.shutdown()
        self.node.destroy_node()
        rclpy.shutdown(context=self.context)


def stamp_ns(message):
    return message.header.stamp.sec * 10**9 + message.header.stamp.nanosec


def xyz(vector):
    return vector.x, vector.y, vector.z
