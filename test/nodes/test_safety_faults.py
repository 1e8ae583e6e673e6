"""Promise: each fault that safety_node supervises stops the arm in time, by its name.

And what lets it go on: an approval, a reset at rest. With the real node and options of its own for
each test; `test_safety_node.py` has the faults that need none.
"""

import signal
import time
from contextlib import contextmanager

import numpy as np
import pytest
from geometry_msgs.msg import PoseStamped, TwistStamped
from sensor_msgs.msg import JointState
from std_msgs.msg import Bool, Float64, Float64MultiArray, String

from test.nodes import safety_rig
from test.nodes.safety_rig import ARM, BASE, CONFIG, NAMES, URDF, Rig

DOMAIN = 62
STOP_S = 0.1 + 0.1
"""command_timeout or joint_state_timeout, and stopping_time."""
JITTER_S = 0.09
"""Two periods of the node, and what a busy machine may add."""
LIMIT_S = 0.3
"""What the way from any fault to an arm at rest may take; the arm's own lag is in it."""
LAG_S = 0.05


@pytest.fixture(scope="module")
def rig():
    rig = Rig(DOMAIN)
    yield rig
    rig.close()


@pytest.fixture
def node(rig, tmp_path):
    """Start the node with arguments; it is ended after the test, and was alive until then."""
    started = []

    def start(*arguments):
        rig.forget()
        rig.effort, rig.grip, rig.joints_shift_ns, rig.send_joints = np.zeros(7), 0.0, 0, True
        rig.frozen = None
        with (tmp_path / "log").open("w") as log:
            started.append(safety_rig.start(DOMAIN, *arguments, log=log))
        rig.description.publish(String(data=URDF))
        assert rig.run(10.0, until=lambda: len(rig.commands) > 3)
        return started[-1]

    yield start
    for process in started:
        assert process.poll() is None, (tmp_path / "log").read_text()
        process.send_signal(signal.SIGINT)
        assert process.wait(10) == 0
    rig.run(0.3)


def go(rig):
    return lambda: rig.twist((0.1, 0.0, 0.0))


def seconds_to_still(rig, fault, **run):
    """Make a fault; return how long after it the output still moved."""
    began = rig.now_ns()
    since = len(rig.commands)
    fault()
    rig.run(0.8, **run)
    moving = [t.stamp_ns for t in rig.ticks()[since:] if t.twist.any()]
    assert len(rig.commands) - since > 30
    return (max(moving, default=began) - began) / 1e9


def test_two_publishers_are_refused_and_named(rig, node):
    node()
    rig.move()
    other = rig.node.create_publisher(TwistStamped, "command", 10)
    took = seconds_to_still(rig, lambda: None, send=go(rig))
    assert took < LIMIT_S
    assert rig.state() == "HOLDING"
    assert "2 publishers on command: /rig, /rig" in rig.told()
    assert "command_publishers" in rig.acted()
    rig.node.destroy_publisher(other)
    assert rig.run(2.0, send=go(rig), until=lambda: rig.state() == "RUNNING")


@pytest.mark.parametrize(
    ("shift_s", "name", "words"),
    [
        (-3600.0, "joint_state_timeout", "joint states are"),
        (-0.05, "joint_states_order", "before the last ones"),
        (3600.0, "stamp_max_future", "in the future"),
    ],
)
def test_joint_states_with_wrong_stamps(rig, node, shift_s, name, words):
    node()
    rig.move()

    def fault():
        rig.joints_shift_ns = round(shift_s * 1e9)
        rig.run(0.05, send=go(rig))
        if shift_s == -0.05:
            # Slower and slower, so that each is stamped before the one before it.
            rig.joints_shift_ns = -(10**9)

    assert seconds_to_still(rig, fault, send=go(rig)) <= STOP_S + JITTER_S + 0.05
    assert name in rig.acted()
    assert words in "\n".join(s.message for _, s in rig.statuses)


def test_joint_states_that_repeat_the_same_positions(rig, node):
    node()
    rig.move()

    def fault():
        rig.frozen = rig.position

    # 0.1 rad of the fastest joint must have been sent first: about 0.3 rad/s here.
    assert seconds_to_still(rig, fault, send=go(rig)) <= 0.4 + 0.12 + JITTER_S
    assert rig.state() == "PROTECTIVE_STOP"
    assert "the joint states repeat the same positions" in rig.told()
    assert "joint_states_frozen" in rig.acted()
    rig.position, rig.frozen = rig.frozen, None
    rig.run(0.2)
    assert rig.call("reset").success
    rig.move()


def test_effort_over_its_bound(rig, node):
    node("-p", f"bounds.external_torque:={[100.0] * 7}", "-p", "bounds.contact_force:=1000.0")
    rig.move()

    def fault():
        rig.effort = np.array([0.0, 0.0, 0.0, 0.0, 12.0, 0.0, 0.0])

    assert seconds_to_still(rig, fault, send=go(rig)) <= 0.05 + 0.1 + JITTER_S
    assert rig.state() == "PROTECTIVE_STOP"
    assert "panda_joint5 measures" in rig.told()
    assert not rig.call("reset").success
    rig.effort = np.zeros(7)
    rig.run(0.3)
    assert rig.call("reset").success
    rig.move()


def test_a_force_on_the_tcp(rig, node):
    node("-p", f"bounds.external_torque:={[100.0] * 7}")
    rig.move()

    def fault():
        rig.effort = -ARM.of_force(rig.position, [0.0, 60.0, 0.0])

    assert seconds_to_still(rig, fault, send=go(rig)) <= LIMIT_S - LAG_S + JITTER_S
    assert rig.state() == "PROTECTIVE_STOP"
    assert "the TCP is pushed with" in rig.told()
    assert "contact_force" in rig.acted()


def test_silence_of_the_estop_s_heartbeat(rig, node):
    node("-p", "bounds.estop_heartbeat:=0.1")
    rig.run(0.3, send=go(rig))
    assert rig.state() == "STARTING"
    assert "waiting for a first message on estop" in rig.told()
    beating = rig.node.create_timer(0.02, lambda: rig.estop.publish(Bool(data=False)))
    try:
        rig.move()
        rig.run(0.5, send=go(rig))
        assert rig.state() == "RUNNING"
        took = seconds_to_still(rig, beating.cancel, send=go(rig))
        assert took <= 0.1 + 0.1 + JITTER_S
        assert rig.state() == "EMERGENCY_STOP"
        assert "no message on estop for" in rig.told()
        assert "silent" in rig.call("reset").message
        beating.reset()
        rig.run(0.2)
        assert rig.state() == "EMERGENCY_STOP"
        assert rig.call("reset").success
        rig.move()
    finally:
        rig.node.destroy_timer(beating)


def test_its_own_overrun(rig, node):
    process = node()
    rig.move()
    process.send_signal(signal.SIGSTOP)
    time.sleep(0.4)
    rig.forget()
    process.send_signal(signal.SIGCONT)
    rig.run(0.3, send=go(rig))
    assert "overrun_time" in rig.acted()
    assert "the filter itself ran" in rig.told()
    assert rig.state() == "HOLDING"
    rig.run(1.0, send=go(rig))
    assert rig.state() == "RUNNING"


def test_no_reset_while_the_arm_moves(rig, node):
    node()
    rig.move()
    assert rig.call("stop").success
    refused = rig.call("reset")
    assert not refused.success
    assert "still braking" in refused.message
    rig.run(0.3)
    assert rig.call("reset").success


def test_each_instruction_is_approved(rig, node):
    node("-p", "require_approval:=true")
    rig.instruction.publish(String(data="pick up the red cube"))
    rig.run(0.5, send=go(rig))
    assert rig.state() == "HOLDING"
    assert rig.speed() == 0.0
    assert "waiting for ~/approve of the instruction 'pick up the red cube'" in rig.told()
    assert "require_approval" in rig.acted()
    answer = rig.call("approve")
    assert (answer.success, answer.message) == (True, "approved: 'pick up the red cube'")
    rig.move()
    change = lambda: rig.instruction.publish(String(data="pick up the blue cube"))  # noqa: E731
    assert seconds_to_still(rig, change, send=go(rig)) <= 0.1 + JITTER_S
    assert "'pick up the blue cube'" in rig.told()
    assert rig.call("approve").success
    rig.move()
    assert rig.call("stop").success
    rig.run(0.3, send=go(rig))
    assert rig.call("reset").success
    rig.run(0.3, send=go(rig))
    assert rig.state() == "HOLDING"
    assert rig.call("approve").success
    rig.move()


def test_the_gripper_s_speed_and_force(rig, node):
    node()
    rig.move()
    openings = []
    listener = rig.node.create_subscription(
        Float64, "safe_gripper_command", lambda m: openings.append(m.data), 100
    )
    rig.gripper.publish(Float64(data=0.0))
    rig.run(0.1, send=go(rig))
    rig.grip = -1.2 * CONFIG.bounds.gripper_force
    rig.run(0.1, send=go(rig))
    held = openings[-1]
    rig.run(0.3, send=go(rig))
    rig.node.destroy_subscription(listener)
    # In ticks of 10 ms that may come half a period late.
    assert max(-np.diff(openings)) <= CONFIG.bounds.gripper_speed * 0.015 + 1e-9
    assert 0.0 < held < 0.06
    assert openings[-1] == held
    assert {"gripper_speed", "gripper_force"} <= rig.acted()


@contextmanager
def sending(rig, make, kind):
    """Publish what `make()` returns on `command` at 30 Hz, instead of the rig's twists."""
    rig.node.destroy_publisher(rig.command)
    sender = rig.node.create_publisher(kind, "command", 10)

    def send():
        message = make()
        stamp_ns = rig.now_ns()
        message.header.stamp.sec, message.header.stamp.nanosec = divmod(stamp_ns, 10**9)
        sender.publish(message)

    timer = rig.node.create_timer(1.0 / 30.0, send)
    try:
        yield
    finally:
        rig.node.destroy_timer(timer)
        rig.node.destroy_publisher(sender)
        rig.command = rig.node.create_publisher(TwistStamped, "command", 10)


def test_joint_velocities_in_and_out(rig, node):
    node("-p", "command_type:=joint_velocity", "-p", "output:=joint_velocity")
    heard = []
    listener = rig.node.create_subscription(
        Float64MultiArray, "safe_joint_command", lambda m: heard.append(list(m.data)), 100
    )
    wish = [0.02, -0.03, 0.01, 0.02, -0.01, 0.03, 0.05]
    backwards = JointState(name=NAMES[6::-1], velocity=wish[::-1])
    with sending(rig, lambda: backwards, JointState):
        assert rig.run(5.0, until=lambda: heard and np.allclose(heard[-1], wish)), rig.told()
        assert rig.state() == "RUNNING"
        # `safe_command` tells the twist all the same.
        assert rig.speed() > 0.0
    lacking = JointState(name=NAMES[:6], velocity=wish[:6])
    with sending(rig, lambda: lacking, JointState):
        rig.run(0.5)
    rig.node.destroy_subscription(listener)
    assert not any(heard[-1])
    assert "command_joints" in rig.acted()


@pytest.mark.parametrize("kind", ["pose", "pose_delta"])
def test_poses_and_pose_deltas(rig, node, kind):
    node("-p", f"command_type:={kind}")
    message = PoseStamped()
    message.header.frame_id = BASE if kind == "pose" else "panda_hand_tcp"
    place, turned = message.pose.position, message.pose.orientation
    if kind == "pose":
        place.x, place.y, place.z = 0.5, 0.0, 0.1
        turned.x, turned.w = 1.0, 0.0
    else:
        # The tool points down: its z is the base's -z.
        place.z = 0.05
    down = lambda: rig.commands and rig.commands[-1].twist.linear.z < -0.01  # noqa: E731
    with sending(rig, lambda: message, PoseStamped):
        assert rig.run(5.0, until=down), rig.told()
        rig.run(0.2)
        assert rig.state() == "RUNNING"
        message.header.frame_id = "camera_link"
        rig.run(0.5)
        assert rig.speed() == 0.0
        assert "command_frame" in rig.acted()


def test_options_that_are_none_are_named():
    for option, words in (
        ("command_type:=force", "'command_type' is 'force', but must be one of twist, pose"),
        ("output:=torque", "'output' is 'torque', but must be one of twist, joint_velocity"),
    ):
        process = safety_rig.start(DOMAIN, "-p", option)
        output, _ = process.communicate(timeout=15)
        assert process.returncode == 1
        assert words in output
