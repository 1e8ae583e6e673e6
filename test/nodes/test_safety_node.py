"""safety_node as a process, with the test as its policy and its robot."""

import math
import signal
import subprocess
import sys

import numpy as np
import pytest
from rclpy.qos import DurabilityPolicy, QoSProfile
from sensor_msgs.msg import JointState
from std_msgs.msg import Bool, Float64, String

from test.nodes import safety_rig
from test.nodes.safety_rig import BASE, ROBOT, URDF, Rig
from vla_ros.replay.judge import Judge

DOMAIN = 61
STOP_S = 0.1 + 0.1
"""command_timeout and stopping_time."""
JITTER_S = 0.09
"""Two periods of the node, and what a busy machine may add."""


def start(*arguments, **options):
    return safety_rig.start(DOMAIN, *arguments, **options)


@pytest.fixture(scope="module")
def rig():
    rig = Rig(DOMAIN)
    yield rig
    rig.close()


@pytest.fixture(scope="module")
def process(tmp_path_factory):
    path = tmp_path_factory.mktemp("safety") / "log"
    with path.open("w") as log:
        process = start(log=log)
        process.log = path
        yield process
        process.send_signal(signal.SIGINT)
        assert process.wait(10) == 0, path.read_text()


@pytest.fixture
def running(rig, process):
    """The node in motion; whatever a test latches or stops is undone after it."""
    assert process.poll() is None, process.log.read_text()
    rig.description.publish(String(data=URDF))
    rig.move()
    yield rig
    rig.send_joints, rig.apart, rig.effort = True, False, np.zeros(7)
    rig.estop.publish(Bool(data=False))
    rig.run(0.5)
    assert rig.call("reset").success, rig.told()
    verdict = Judge(ROBOT, URDF).recorded(rig.ticks(), 0.0)
    assert verdict.violations == 0, verdict


def test_zero_at_its_rate_from_the_start(rig, process):
    assert rig.run(10.0, until=lambda: len(rig.commands) > 3), process.log.read_text()
    rates = []
    for _ in range(4):
        rig.forget()
        rig.run(2.0)
        stamps = [m.header.stamp.sec + m.header.stamp.nanosec / 1e9 for m in rig.commands]
        rates.append((len(stamps) - 1) / (stamps[-1] - stamps[0]))
        # The best of some: other processes of the machine may take a while for themselves.
        if abs(rates[-1] - 100.0) < 2.0:
            break
    assert abs(rates[-1] - 100.0) < 2.0, rates
    assert rig.state() == "STARTING"
    assert all(tick.twist.tolist() == [0.0] * 6 for tick in rig.ticks())
    assert "waiting for robot_description" in rig.told()


def test_passes_on_what_is_within_bounds_and_says_which_command(running):
    running.gripper.publish(Float64(data=0.5))
    running.run(0.3, send=lambda: running.twist((0.1, 0.0, 0.0)))
    sent = running.twist((0.1, 0.0, 0.0))
    running.command.publish(sent)
    running.run(0.05)
    assert running.state() == "RUNNING"
    stamp = sent.header.stamp.sec * 10**9 + sent.header.stamp.nanosec
    assert running.value("command_stamp_ns") == str(stamp)
    assert running.statuses[-1][0] in [m.header.stamp for m in running.commands[-3:]]
    assert running.commands[-1].header.frame_id == BASE
    assert running.opening == 0.08
    assert "gripper_max" in running.acted()


HOUR = 3600 * 10**9
FAULTS = {
    "hour-old": (lambda r: r.twist((0.1, 0, 0), r.now_ns() - HOUR), "command_max_age", "s old"),
    "future": (
        lambda r: r.twist((0.1, 0, 0), r.now_ns() + HOUR),
        "stamp_max_future",
        "in the future",
    ),
    "backwards": (
        lambda r: r.twist((0.1, 0, 0), r.sent_ns - 1_000_000),
        "command_order",
        "refused",
    ),
    "wrong frame": (
        lambda r: r.twist((0.1, 0, 0), frame="camera_link"),
        "command_frame",
        "'camera_link'",
    ),
    "nan": (lambda r: r.twist((math.nan, 0, 0)), "command_finite", "finite"),
    "infinite": (lambda r: r.twist((0, -math.inf, 0)), "command_finite", "finite"),
    "enormous": (
        lambda r: r.twist((1e308, 1e308, 0)),
        "command_max_linear_speed",
        "no plausible speed",
    ),
}


@pytest.mark.parametrize("hz", [30.0, 1000.0])
@pytest.mark.parametrize("fault", FAULTS)
def test_wrong_commands_end_in_standstill_with_the_cause_named(running, fault, hz):
    make, bound, words = FAULTS[fault]
    began = running.now_ns()
    last_good = len(running.commands)
    running.run(0.6, send=lambda: make(running), hz=hz)
    assert_stopped(running, began, last_good)
    assert bound in running.acted()
    assert words in running.told(), running.told()


def assert_stopped(rig, began, since):
    """Check that the output came to zero in time, and stayed there."""
    ticks = rig.ticks()[since:]
    moving = [t.stamp_ns for t in ticks if t.twist.any()]
    assert moving
    assert (moving[-1] - began) / 1e9 <= STOP_S + JITTER_S
    assert len(ticks) > 30
    assert rig.state() != "RUNNING"


def test_silence_ends_in_standstill(running):
    began, since = running.now_ns(), len(running.commands)
    running.run(0.6)
    assert_stopped(running, began, since)
    assert "no acceptable command" in running.told()


def test_joint_states_that_stop_end_in_standstill(running):
    running.send_joints = False
    began, since = running.now_ns(), len(running.commands)
    running.run(0.6, send=lambda: running.twist((0.1, 0, 0)))
    assert_stopped(running, began, since)
    assert "joint_state_timeout" in running.acted()
    assert "the joint states are" in running.told()


def test_wrong_commands_among_good_ones_hold_the_arm_still(running):
    running.forget()
    began, since = running.now_ns(), len(running.commands)
    running.run(
        1.0,
        send=lambda: running.twist((0.1, 0, 0)),
        also=lambda: running.twist((0, 0.3, 0), frame="map"),
    )
    assert all(abs(t.twist[1]) < 1e-6 for t in running.ticks())
    assert_stopped(running, began, since)
    assert "command_frame" in running.acted()
    assert "'map'" in running.statuses[-1][1].message


def test_a_flood_of_good_commands_keeps_every_bound_and_the_rate(running):
    running.forget()
    rng = np.random.default_rng(0)
    running.run(1.5, send=lambda: running.twist(rng.normal(0.0, 0.5, 3)), hz=1000.0)
    # A busy machine may cost some ticks here: the test itself is the flood.
    assert len(running.commands) > 90


def test_estop_stops_at_once_and_latches(running):
    began, since = running.now_ns(), len(running.commands)
    running.estop.publish(Bool(data=True))
    go = lambda: running.twist((0.1, 0, 0))  # noqa: E731
    running.run(0.5, send=go)
    moving = [t.stamp_ns for t in running.ticks()[since:] if t.twist.any()]
    assert (moving[-1] - began) / 1e9 <= 0.06 + JITTER_S
    assert running.state() == "EMERGENCY_STOP"
    assert "e-stop" in running.told()
    refused = running.call("reset")
    assert not refused.success
    assert "still engaged" in refused.message
    running.estop.publish(Bool(data=False))
    running.run(0.3, send=go)
    assert running.state() == "EMERGENCY_STOP"
    assert running.call("reset").success
    running.move()


def test_stop_is_a_service_and_latches(running):
    assert running.call("stop").success
    running.run(0.3, send=lambda: running.twist((0.1, 0, 0)))
    assert running.state() == "STOPPED"
    assert running.speed() == 0.0


def test_a_push_is_a_protective_stop(running):
    running.effort = np.array([0.0] * 6 + [-10.0])
    running.run(0.4, send=lambda: running.twist((0.1, 0, 0)))
    assert running.state() == "PROTECTIVE_STOP"
    assert running.speed() == 0.0
    words = "panda_joint7 is pushed with"
    assert words in running.told()
    refused = running.call("reset")
    assert not refused.success
    assert words in refused.message


def test_an_arm_and_its_gripper_may_report_apart_and_wheels_beside_them(running):
    running.apart = True
    running.forget()
    running.run(0.5, send=lambda: running.twist((0.1, 0, 0)))
    assert running.state() == "RUNNING"
    assert running.speed() == pytest.approx(0.1, abs=1e-3)
    assert "joint_states_malformed" not in running.acted()


def test_joint_states_without_the_robot_s_joints_are_named(running):
    running.send_joints = False
    message = JointState(name=["panda_joint2"], position=[0.0], velocity=[0.0], effort=[0.0])

    def send():
        running.joints.publish(message)
        return running.twist((0.1, 0, 0))

    running.run(0.5, send=send)
    assert running.state() == "HOLDING"
    assert "joint_states has no joint 'panda_joint1'" in running.told()


def test_bounds_can_be_tightened_but_not_loosened(running):
    go = lambda: running.twist((0.1, 0.0, 0.0))  # noqa: E731
    accepted, reason = running.set_parameters(bounds__linear_speed=5.0)
    assert not accepted
    assert "'bounds.linear_speed' can only be tightened while it runs, to at most" in reason
    # All at once, or nothing.
    accepted, reason = running.set_parameters(
        bounds__linear_speed=0.25, bounds__contact_force=100.0
    )
    assert not accepted
    assert "contact_force" in reason
    accepted, reason = running.set_parameters(bounds__reaction_delay=0.01)
    assert not accepted
    assert "cannot be changed while it runs" in reason
    assert running.set_parameters(bounds__linear_speed=0.12)[0]
    running.forget()
    running.run(0.5, send=lambda: running.twist((0.5, 0.0, 0.0)))
    assert running.speed() == pytest.approx(0.12)
    running.run(0.3, send=go)
    assert running.speed() == pytest.approx(0.1)


def test_the_speed_is_scaled_while_it_runs(running):
    go = lambda: running.twist((0.1, 0.0, 0.0))  # noqa: E731
    try:
        assert running.set_parameters(speed_scale=0.2)[0]
        running.run(1.0, send=go)
        # Of the TCP's speed, or of a joint's if that is less here.
        assert 0.01 < running.speed() <= 0.2 * 0.3 + 1e-6
        assert running.set_parameters(speed_scale=0.0)[0]
        running.run(0.5, send=go)
        assert running.speed() == 0.0
        assert "scaled to 0" in running.told()
        assert not running.set_parameters(speed_scale=1.5)[0]
    finally:
        assert running.set_parameters(speed_scale=1.0)[0]
    running.run(0.3, send=go)
    assert running.speed() == pytest.approx(0.1)


def exits_with(process):
    output, _ = process.communicate(timeout=15)
    assert process.returncode == 1, output
    return output


@pytest.mark.parametrize("bound", ["linear_speed", "effort", "workspace_min", "command_timeout"])
def test_a_missing_bound_is_named_and_nothing_starts(tmp_path, bound):
    lines = ROBOT.read_text().splitlines()
    robot = tmp_path / "robot.yaml"
    robot.write_text("\n".join(n for n in lines if not n.strip().startswith(f"{bound}:")))
    output = exits_with(start(robot=robot))
    assert f"{robot}: 'bounds.{bound}' is missing: set '{bound}' under 'bounds' there" in output
    assert len(output.splitlines()) == 1


def test_no_parameters_at_all():
    command = [sys.executable, "-m", "vla_ros.nodes.safety_node"]
    result = subprocess.run(
        command,
        env=safety_rig.environment(DOMAIN),
        capture_output=True,
        text=True,
        timeout=15,
        check=False,
    )
    assert result.returncode == 1
    assert "is missing" in result.stdout + result.stderr


def test_a_rate_out_of_range():
    assert "rate_hz" in exits_with(start("-p", "rate_hz:=5000.0"))


@pytest.mark.parametrize(
    ("description", "words"),
    [
        (URDF.replace("panda_joint3", "elbow"), "elbow"),
        (URDF.replace("panda_hand_tcp", "tool"), "panda_hand_tcp"),
        ("<robot", "not a URDF"),
    ],
)
def test_the_description_of_another_robot_ends_the_node(rig, description, words):
    process = start("-r", "robot_description:=other_description", "-r", "__node:=other")
    latched = QoSProfile(depth=1, durability=DurabilityPolicy.TRANSIENT_LOCAL)
    publisher = rig.node.create_publisher(String, "other_description", latched)
    publisher.publish(String(data=description))
    rig.run(10.0, until=lambda: process.poll() is not None)
    rig.node.destroy_publisher(publisher)
    output = exits_with(process)
    assert "FATAL" in output
    assert words in output
