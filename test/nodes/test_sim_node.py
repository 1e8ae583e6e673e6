"""sim_node as a process: what it publishes, how it obeys, how it ends."""

import os
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
import rclpy
from diagnostic_msgs.msg import DiagnosticArray
from geometry_msgs.msg import PoseArray, TwistStamped
from rclpy.context import Context
from rclpy.executors import SingleThreadedExecutor
from rclpy.node import Node
from rclpy.qos import DurabilityPolicy, QoSProfile, qos_profile_sensor_data
from sensor_msgs.msg import Image, JointState
from std_msgs.msg import Bool, Float64, String
from std_srvs.srv import Trigger

from vla_ros.nodes._common import now_ns, stamp_from_ns, stamp_to_ns
from vla_ros.sim.expert import Expert
from vla_ros.sim.panda import ARM_JOINTS, GRIPPER_JOINTS, PandaSim, urdf

DOMAIN = 31
LATCHED = QoSProfile(depth=1, durability=DurabilityPolicy.TRANSIENT_LOCAL)


def launch(domain, *arguments):
    return subprocess.Popen(
        [sys.executable, "-m", "vla_ros.nodes.sim_node", "--ros-args", *arguments],
        env=os.environ | {"ROS_DOMAIN_ID": str(domain), "ROS_LOCALHOST_ONLY": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


class Peer:
    """A node of the test's own, which keeps what it receives with the time of its arrival."""

    def __init__(self):
        os.environ["ROS_LOCALHOST_ONLY"] = "1"
        self.context = Context()
        rclpy.init(context=self.context, domain_id=DOMAIN)
        self.node = Node("test_peer", context=self.context)
        self.executor = SingleThreadedExecutor(context=self.context)
        self.executor.add_node(self.node)
        self.received = {}
        reliable = QoSProfile(depth=100)
        for kind, topic, qos in (
            (Image, "front/image_raw", qos_profile_sensor_data),
            (Image, "side/image_raw", qos_profile_sensor_data),
            (JointState, "joint_states", reliable),
            (String, "robot_description", LATCHED),
            (Bool, "task/success", reliable),
            (PoseArray, "task/objects", reliable),
            (DiagnosticArray, "/diagnostics", reliable),
        ):
            self.received[topic] = []
            self.node.create_subscription(kind, topic, self._keep(topic), qos)
        self.commands = self.node.create_publisher(TwistStamped, "safe_command", reliable)
        self.gripper = self.node.create_publisher(Float64, "safe_gripper_command", reliable)
        self.instruction = self.node.create_publisher(String, "instruction", LATCHED)
        self.reset = self.node.create_client(Trigger, "sim_node/reset_task")

    def _keep(self, topic):
        return lambda message: self.received[topic].append((now_ns(self.node), message))

    def close(self):
        self.executor.shutdown()
        self.node.destroy_node()
        rclpy.shutdown(context=self.context)

    def spin(self, seconds, until=None):
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            if until is not None and until():
                return True
            self.executor.spin_once(timeout_sec=0.005)
        return until is not None and until()

    def latest(self, topic):
        return self.received[topic][-1][1]

    def forget(self):
        for topic, messages in self.received.items():
            if topic != "robot_description":
                messages.clear()

    def command(self, linear, frame="panda_link0"):
        message = TwistStamped()
        message.header.stamp = stamp_from_ns(now_ns(self.node))
        message.header.frame_id = frame
        twist = message.twist
        twist.linear.x, twist.linear.y, twist.linear.z = (float(v) for v in linear)
        self.commands.publish(message)

    def speed(self):
        return float(np.abs(self.latest("joint_states").velocity[:7]).max())

    def reset_task(self):
        assert self.reset.wait_for_service(timeout_sec=10.0)
        future = self.reset.call_async(Trigger.Request())
        assert self.spin(5.0, future.done)
        self.forget()
        assert self.spin(
            5.0, lambda: all(self.received[t] for t in ("joint_states", "task/objects"))
        )
        return future.result()


@pytest.fixture(scope="module")
def process():
    cameras = ("-p", "cameras:=[front, side]", "-p", "side.width:=64", "-p", "side.height:=48")
    node = launch(DOMAIN, "-p", "seed:=3", *cameras, "-p", "side.rate_hz:=5.0")
    yield node
    node.kill()
    node.communicate()


@pytest.fixture(scope="module")
def peer(process):
    peer = Peer()
    ready = peer.spin(40.0, lambda: all(peer.received.values()))
    if not ready:
        process.send_signal(signal.SIGINT)
        pytest.fail(f"not heard: {[t for t, m in peer.received.items() if not m]}\n{process}")
    yield peer
    peer.close()


def test_everything_is_published_at_its_rate_and_fresh(peer):
    peer.forget()
    peer.spin(3.0)
    for topic, rate in (
        ("front/image_raw", 30),
        ("side/image_raw", 5),
        ("joint_states", 100),
        ("task/objects", 30),
        ("task/success", 30),
        ("/diagnostics", 1),
    ):
        # A fifth is left to a busy machine: rendering needs the processor.
        assert 0.8 * 3 * rate - 2 < len(peer.received[topic]) < 1.05 * 3 * rate + 2, topic
    for topic, longest_ms in (("front/image_raw", 60), ("joint_states", 30)):
        ages = [at - stamp_to_ns(m.header.stamp) for at, m in peer.received[topic]]
        assert min(ages) > 0
        assert np.median(ages) < longest_ms * 1e6
        stamps = [stamp_to_ns(m.header.stamp) for _, m in peer.received[topic]]
        assert (np.diff(stamps) > 0).all()


def test_messages_hold_what_a_robot_would_say(peer):
    image = peer.latest("front/image_raw")
    assert (image.height, image.width, image.step) == (160, 160, 480)
    assert (image.encoding, image.header.frame_id) == ("rgb8", "front_optical_frame")
    assert len(image.data) == 160 * 480
    assert np.std(np.frombuffer(image.data, np.uint8)) > 20
    side = peer.latest("side/image_raw")
    assert (side.height, side.width) == (48, 64)
    joints = peer.latest("joint_states")
    assert list(joints.name) == [*ARM_JOINTS, *GRIPPER_JOINTS]
    assert len(joints.position) == len(joints.velocity) == len(joints.effort) == 9
    assert 10 < abs(joints.effort[1]) < 87
    assert sum(joints.position[7:]) == pytest.approx(0.08, abs=0.002)
    assert peer.latest("robot_description").data == urdf()
    objects = peer.latest("task/objects")
    assert objects.header.frame_id == "panda_link0"
    assert [round(p.position.z, 2) for p in objects.poses] == [0.02] * 3
    status = peer.latest("/diagnostics").status[0]
    values = {v.key: v.value for v in status.values}
    assert status.name == "sim_node"
    assert float(values["real_time_factor"]) > 0.9
    assert values["seed"] == "3"


def test_it_follows_commands_and_halts_by_itself(peer):
    """Still at most 0.3 s after the last command, as when safety_node was killed."""
    peer.reset_task()
    for _ in range(60):
        peer.command((0.0, 0.15, 0.0))
        peer.spin(0.01)
    last = time.monotonic()
    assert peer.speed() > 0.1
    assert peer.spin(1.0, lambda: peer.speed() < 0.02)
    assert 0.15 < time.monotonic() - last < 0.3
    assert not peer.spin(0.3, lambda: peer.speed() > 0.02)


@pytest.mark.parametrize(
    ("linear", "frame"), [((0.0, 0.2, 0.0), "camera"), ((np.nan, 0.0, 0.0), "panda_link0")]
)
def test_nonsense_does_not_move_the_arm(peer, linear, frame):
    peer.reset_task()
    peer.spin(0.3)
    for _ in range(30):
        peer.command(linear, frame)
        peer.spin(0.01)
        assert peer.speed() < 0.02


def test_the_task_succeeds_when_the_named_cube_is_lifted(peer):
    """The expert, run here on what the process publishes, lifts the cube there."""
    peer.reset_task()
    assert not peer.latest("task/success").data
    peer.instruction.publish(String(data="pick up the blue cube"))
    with PandaSim(cameras={}) as mirror:
        expert = Expert(mirror, "blue")
        end = time.monotonic() + 15.0
        while time.monotonic() < end and not peer.latest("task/success").data:
            joints = peer.latest("joint_states").position
            cubes = [
                (p.x, p.y, p.z, q.x, q.y, q.z, q.w)
                for p, q in (
                    (pose.position, pose.orientation) for pose in peer.latest("task/objects").poses
                )
            ]
            mirror.set_state(np.array(joints[:7]), sum(joints[7:]), np.array(cubes))
            twist, opening = expert.command()
            message = TwistStamped()
            message.header.frame_id = "panda_link0"
            linear, angular = message.twist.linear, message.twist.angular
            linear.x, linear.y, linear.z, angular.x, angular.y, angular.z = twist.tolist()
            peer.commands.publish(message)
            peer.gripper.publish(Float64(data=opening))
            peer.spin(0.02)
    assert peer.latest("task/success").data
    assert peer.latest("task/objects").poses[2].position.z > 0.12
    answer = peer.reset_task()
    assert answer.success
    assert answer.message.startswith("seed ")
    assert not peer.latest("task/success").data


@pytest.mark.usefixtures("peer")
def test_sigint_ends_it_cleanly(process):
    process.send_signal(signal.SIGINT)
    output = process.communicate(timeout=5.0)[0]
    assert process.returncode == 0, output
    assert "Traceback" not in output
    assert "refused a message on safe_command: its frame is 'camera'" in output


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        (["cameras:=[front, top]"], "unknown camera 'top': the simulated robot has front, side"),
        (["front.width:=5"], "front.width"),
        (["seed:=-1"], "seed"),
        (["joint_state_rate_hz:=0.0"], "joint_state_rate_hz"),
        (["front.rate_hz:=fast"], "front.rate_hz"),
    ],
)
def test_bad_parameters_get_a_clear_error(parameters, message):
    words = [word for p in parameters for word in ("-p", p)]
    node = launch(DOMAIN + 1, *words)
    output = node.communicate(timeout=30.0)[0]
    assert node.returncode == 1, output
    assert "cannot start: " in output
    assert message in output
    assert "Traceback" not in output
