"""hardware.launch.xml between the topics of drivers, for which the simulated robot stands in."""

import os
import shutil
import signal
import subprocess
import sys

import pytest
from geometry_msgs.msg import TwistStamped
from node_process import LATCHED, NodeProcess, TestNode, claim_domain, environment, wait_for
from std_msgs.msg import Bool, String
from std_srvs.srv import Trigger

from vla_ros.paths import share

pytestmark = pytest.mark.demo
DOMAIN = claim_domain()
# Topic of the simulated robot, argument of the launch file, topic of the driver.
DRIVER = [
    ("joint_states", "joint_states", "/arm/joint_states"),
    ("front/image_raw", "front", "/camera/color/image_raw"),
    ("wrist/image_raw", "wrist", "/hand/color/image_raw"),
    ("safe_command", "safe_command", "/servo_node/delta_twist_cmds"),
    ("safe_gripper_command", "safe_gripper_command", "/gripper/opening"),
    ("robot_description", "robot_description", "/arm/robot_description"),
]


@pytest.fixture
def arm(tmp_path):
    remaps = [word for topic, _, driver in DRIVER for word in ("-r", f"{topic}:={driver}")]
    node = NodeProcess("sim_node", tmp_path, DOMAIN, *remaps)
    yield node
    node.close()


@pytest.fixture
def launched(tmp_path):
    ros2 = shutil.which("ros2") if "AMENT_PREFIX_PATH" in os.environ else None
    runner = [ros2, "launch"] if ros2 else [sys.executable, "-m", "vla_ros_standalone.launch"]
    arguments = {
        "robot": share() / "config" / "robots" / "panda.yaml",
        "bundle": share() / "bundles" / "panda_pick",
        "namespace": "left",
        **{name: driver for _, name, driver in DRIVER},
    }
    with (tmp_path / "launch.log").open("wb") as log:
        process = subprocess.Popen(
            [
                *(*runner, str(share() / "launch" / "hardware.launch.xml")),
                *(f"{name}:={value}" for name, value in arguments.items()),
            ],
            env=environment(DOMAIN),
            stdout=log,
            stderr=subprocess.STDOUT,
        )
    yield process
    process.send_signal(signal.SIGINT)
    process.wait(20.0)
    assert "has died" not in (tmp_path / "launch.log").read_text()


@pytest.fixture
def operator():
    node = TestNode(DOMAIN)
    node.listen(TwistStamped, "/servo_node/delta_twist_cmds", 100)
    node.listen(Bool, "/task/success", 10)
    node.instruction = node.node.create_publisher(String, "/instruction", LATCHED)
    node.begin = node.node.create_client(Trigger, "/left/policy_node/start")
    node.start()
    yield node
    node.close()


def fastest(operator):
    """Return the greatest linear speed sent to the driver, None before the first command."""
    commands = operator.messages("/servo_node/delta_twist_cmds")
    speeds = [
        abs(c.twist.linear.x) + abs(c.twist.linear.y) + abs(c.twist.linear.z) for c in commands
    ]
    return max(speeds, default=None)


def test_nothing_moves_before_the_start_and_the_task_is_done_after(arm, launched, operator):
    operator.instruction.publish(String(data="pick up the red cube"))
    wait_for(lambda: "left/policy_node" in policy_s_name(operator), 30.0)
    wait_for(lambda: len(operator.messages("/servo_node/delta_twist_cmds")) > 100, 30.0)
    assert "stopped" in operator.diagnosis("left/policy_node")
    assert fastest(operator) == 0.0
    assert operator.begin.wait_for_service(10.0)
    answer = operator.begin.call_async(Trigger.Request())
    wait_for(answer.done)
    wait_for(lambda: any(m.data for m in operator.messages("/task/success")), 40.0)
    assert fastest(operator) > 0.05
    assert arm.process.poll() is None
    assert launched.poll() is None


def policy_s_name(operator):
    return {s.name for m in operator.messages("/diagnostics") for s in m.status}
