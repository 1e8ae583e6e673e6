"""`vla_ros play` as a process, with a node of the test's own that listens, and with real nodes."""

import os
import pty
import shutil
import signal
import subprocess
import sys
import time

import pytest
from diagnostic_msgs.msg import DiagnosticArray
from geometry_msgs.msg import TwistStamped
from node_process import LATCHED, SENSOR, NodeProcess, TestNode, claim_domain, environment, wait_for
from playback_bag import MS, START, STORE, cdr, offer, run_of_an_arm, text, write_bag
from rclpy.qos import DurabilityPolicy, ReliabilityPolicy
from rosbags.typesys import get_types_from_msg
from rosgraph_msgs.msg import Clock
from sensor_msgs.msg import JointState
from std_msgs.msg import Float64, String

from vla_ros.nodes._player import qos_profile
from vla_ros.paths import share
from vla_ros.replay.stepping import Options, replay_bag

DOMAIN = claim_domain()
ROBOT = share() / "config" / "robots" / "panda.yaml"
STRING = "std_msgs/msg/String"


@pytest.fixture
def ear():
    node = TestNode(DOMAIN)
    for kind, topic in ((TwistStamped, "command"), (Float64, "gripper_command"), (String, "more")):
        node.listen(kind, f"/{topic}", 1000)
    node.listen(Clock, "/clock", 1000)
    node.listen(JointState, "/joint_states", SENSOR)
    node.start()
    yield node
    node.close()


@pytest.fixture
def player():
    """Start players; end them."""
    started = []

    def start(bag, *arguments):
        process = subprocess.Popen(
            [sys.executable, "-m", "vla_ros.cli", "play", str(bag), *arguments],
            env={**environment(DOMAIN), "PYTHONUNBUFFERED": "1"},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        started.append(process)
        return process

    yield start
    for process in started:
        if process.poll() is None:
            process.kill()
        process.communicate()


def end(process, timeout=30.0):
    """Wait for the end; return what it printed."""
    output, _ = process.communicate(timeout=timeout)
    assert process.returncode == 0, output
    return output


def counted(count, gap_ms=10, topic="/more"):
    return [(topic, STRING, START + i * gap_ms * MS, text(f"{topic} {i}")) for i in range(count)]


def words(ear, topic="/more"):
    return [message.data for message in ear.messages(topic)]


def clock_ns(ear):
    return [m.clock.sec * 10**9 + m.clock.nanosec for m in ear.messages("/clock")]


# What is published


def test_every_message_arrives_as_it_was_recorded(tmp_path, ear, player):
    bag = write_bag(tmp_path / "bag", run_of_an_arm(0.5))
    output = end(player(bag, "--rate", "2"))
    assert "played 81 messages on 4 topics" in output
    wait_for(lambda: len(ear.messages("/command")) == 15)
    assert len(ear.messages("/gripper_command")) == 15
    command = ear.messages("/command")[7]
    assert command.header.frame_id == "panda_link0"
    assert command.twist.linear.x == 0.6 * 7 / 15
    joints = ear.messages("/joint_states")[0]
    assert joints.name[0] == "panda_joint1"
    assert len(joints.effort) == 9


def test_the_rate_and_the_start_are_as_told(tmp_path, ear, player):
    bag = write_bag(tmp_path / "bag", counted(100))
    output = end(player(bag, "--rate", "2", "--start-offset", "0.5"))
    wait_for(lambda: len(words(ear)) == 50)
    assert words(ear)[0] == "/more 50"
    arrived = [at for at, _ in ear.heard["/more"]]
    assert arrived[-1] - arrived[0] == pytest.approx(0.49 / 2, abs=0.1)
    assert "0.5 s of the bag" in output


def test_publishers_offer_what_was_recorded():
    """rosbag2 does the same: the offer, but its own depth, and its default where they differ."""

    def kind(*offered):
        profile = qos_profile(offered)
        return profile.reliability, profile.durability, profile.depth

    reliable, best_effort = ReliabilityPolicy.RELIABLE, ReliabilityPolicy.BEST_EFFORT
    volatile, latched = DurabilityPolicy.VOLATILE, DurabilityPolicy.TRANSIENT_LOCAL
    assert kind() == (reliable, volatile, 10)
    assert kind(offer(depth=1)) == (reliable, volatile, 10)
    assert kind(offer(reliable=False)) == (best_effort, volatile, 10)
    assert kind(offer(latched=True, depth=3)) == (reliable, latched, 3)
    assert kind(offer(latched=True), offer(latched=True)) == (reliable, latched, 10)
    assert kind(offer(), offer(reliable=False)) == (reliable, volatile, 10)


def test_offers_of_either_form_reach_the_publisher(tmp_path, ear, player):
    """Metadata up to version 8 holds them as text, later ones as lists; MCAP within itself."""
    messages = [*counted(3, topic="/status_latched"), *run_of_an_arm(0.1)]
    bag = write_bag(tmp_path / "bag", sorted(messages, key=lambda m: m[2]))
    player(bag, "--start-paused")

    def offered(topic):
        infos = ear.node.get_publishers_info_by_topic(topic)
        return infos and infos[0].qos_profile

    profile = wait_for(lambda: offered("/status_latched"))
    assert profile.durability == DurabilityPolicy.TRANSIENT_LOCAL
    assert offered("/joint_states").reliability == ReliabilityPolicy.BEST_EFFORT
    assert offered("/command").reliability == ReliabilityPolicy.RELIABLE


def test_who_comes_late_gets_the_instruction(tmp_path, ear, player):
    """Also if it was recorded from a publisher that latched nothing, and before the start."""
    messages = [("/instruction", STRING, START, text("pick up the red cube")), *counted(200)]
    bag = write_bag(tmp_path / "bag", messages)
    player(bag, "--start-offset", "0.5", "--robot", str(ROBOT))
    wait_for(lambda: words(ear))
    late = TestNode(DOMAIN)
    late.listen(String, "/instruction", LATCHED)
    late.listen(String, "/robot_description", LATCHED)
    late.start()
    wait_for(lambda: late.messages("/instruction"))
    (description,) = wait_for(lambda: late.messages("/robot_description"))
    late.close()
    assert "panda_joint7" in description.data


def test_a_recorded_description_is_not_doubled(tmp_path, ear, player):
    messages = [("/robot_description", STRING, START, text("<robot/>")), *counted(50)]
    ear.listen(String, "/robot_description", LATCHED)
    end(player(write_bag(tmp_path / "bag", messages), "--robot", str(ROBOT)))
    assert words(ear, "/robot_description") == ["<robot/>"]


def test_topics_are_renamed_and_left_out(tmp_path, ear, player):
    messages = sorted(counted(5) + counted(5, topic="/other"), key=lambda m: m[2])
    bag = write_bag(tmp_path / "bag", messages)
    end(player(bag, "--exclude", "/more", "--remap", "/other:=/more"))
    wait_for(lambda: len(words(ear)) == 5)
    assert set(words(ear)) == {f"/other {i}" for i in range(5)}


def test_the_clock_is_the_bag_s(tmp_path, ear, player):
    recorded = cdr("rosgraph_msgs/msg/Clock", STORE.types["builtin_interfaces/msg/Time"](1, 0))
    messages = [("/clock", "rosgraph_msgs/msg/Clock", START, recorded), *counted(50)]
    end(player(write_bag(tmp_path / "bag", messages), "--clock", "100"))
    times = wait_for(lambda: len(clock_ns(ear)) >= 49 and clock_ns(ear))
    assert times == sorted(times), "a recorded clock is left out"
    assert START - 1 <= times[0] < START + 100 * MS
    assert times[-1] >= START + 490 * MS
    assert all(t % (10 * MS) == 0 for t in times[1:])


def test_a_loop_begins_again(tmp_path, ear, player):
    process = player(write_bag(tmp_path / "bag", counted(5)), "--loop", "--clock")
    wait_for(lambda: words(ear).count("/more 0") >= 3)
    assert any(b < a for a, b in zip(clock_ns(ear), clock_ns(ear)[1:], strict=False))
    process.send_signal(signal.SIGINT)
    assert "interrupted" in end(process)


def test_what_cannot_be_published_is_named_and_left_out(tmp_path, ear, player):
    STORE.register(get_types_from_msg("int32 x", "own_msgs/msg/Own"))
    unknown = ("/odd", "own_msgs/msg/Own", START, b"\0\1\0\0\1\0\0\0")
    damaged = ("/more", STRING, START, b"no")
    output = end(player(write_bag(tmp_path / "bag", [unknown, damaged, *counted(3)])))
    assert "/odd is not played: own_msgs/msg/Own is not installed here" in output
    assert "/more: a message is not published" in output
    wait_for(lambda: len(words(ear)) == 3)


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["--topics", "/gone"], "the bag has no /gone: its topics are /more"),
        (["--start-offset", "60"], "nothing to play from 60 s on"),
        (["--remap", "a"], "not of the form FROM:=TO"),
        (["--lockstep", "ghost", "--wait-timeout", "1"], "node /ghost did not appear within 1 s"),
    ],
)
def test_what_cannot_be_played_is_said_in_one_line(tmp_path, player, arguments, told):
    process = player(write_bag(tmp_path / "bag", counted(3)), *arguments)
    output, _ = process.communicate(timeout=30.0)
    assert process.returncode == 1
    assert told in output
    assert "Traceback" not in output


# Keys and signals


IN_ITS_TERMINAL = """
import fcntl, os, sys, termios
fcntl.ioctl(0, termios.TIOCSCTTY, 0)
os.execv(sys.executable, [sys.executable, "-m", "vla_ros.cli", *sys.argv[1:]])
"""
"""Becomes `vla_ros` in the foreground of the terminal that is its standard input."""


def test_keys_on_a_terminal(tmp_path, ear):
    keyboard, terminal = pty.openpty()
    bag = write_bag(tmp_path / "bag", counted(20))
    process = subprocess.Popen(
        [
            *(sys.executable, "-c", IN_ITS_TERMINAL),
            *("play", str(bag), "--start-paused", "--clock"),
        ],
        env=environment(DOMAIN),
        stdin=terminal,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )
    try:
        wait_for(lambda: len(ear.node.get_publishers_info_by_topic("/more")) == 1)
        time.sleep(1.0)
        assert words(ear) == []
        for count, key in enumerate((b"s", b"\x1b[C"), start=1):
            os.write(keyboard, key)
            wait_for(lambda count=count: len(words(ear)) == count)
            time.sleep(0.2)
            assert len(words(ear)) == count
        os.write(keyboard, b" ")
        wait_for(lambda: len(words(ear)) == 20)
        end(process)
    finally:
        process.kill()
        process.communicate()
        os.close(keyboard)
        os.close(terminal)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_it_cleanly_also_in_a_pause(tmp_path, ear, player, number):
    process = player(write_bag(tmp_path / "bag", counted(3)), "--start-paused")
    wait_for(lambda: ear.node.get_publishers_info_by_topic("/more"))
    time.sleep(0.5)
    process.send_signal(number)
    assert "interrupted" in end(process)


# Lockstep


@pytest.fixture
def safety_node(tmp_path):
    node = NodeProcess(
        "safety_node", tmp_path, DOMAIN, "--params-file", str(ROBOT), "-p", "use_sim_time:=true"
    )
    yield node
    node.close()


def test_lockstep_ticks_at_every_period_and_is_the_same_every_time(tmp_path, player):
    bag = write_bag(tmp_path / "bag", run_of_an_arm(1.0))
    runs = []
    for run in range(2):
        ear = TestNode(DOMAIN)
        ear.listen(TwistStamped, "/safe_command", 1000)
        ear.listen(DiagnosticArray, "/safety_node/status", 1000)
        ear.start()
        (tmp_path / f"{run}").mkdir()
        node = NodeProcess(
            *("safety_node", tmp_path / f"{run}", DOMAIN),
            *("--params-file", str(ROBOT), "-p", "use_sim_time:=true"),
        )
        end(player(bag, "--lockstep", "safety_node", "--robot", str(ROBOT)), 60.0)
        runs.append([str(m) for m in ear.messages("/safe_command")])
        stamps = [m.header.stamp for m in ear.messages("/safe_command")][1:]
        node.close()
        ear.close()
    times = [s.sec * 10**9 + s.nanosec for s in stamps]
    first = -(-START // (10 * MS)) * 10 * MS
    assert times == [first + i * 10 * MS for i in range(len(times))]
    assert len(times) in (100, 101)
    assert runs[0] == runs[1]
    assert any("x=0.0," not in command for command in runs[0]), "it never moved"


def test_lockstep_says_when_a_node_ends(tmp_path, player, safety_node):
    bag = write_bag(tmp_path / "bag", run_of_an_arm(1.0))
    process = player(bag, "--lockstep", "safety_node", "--robot", str(ROBOT), "--rate", "0.1")
    wait_for(lambda: "STARTING" in safety_node.output)
    safety_node.interrupt()
    output, _ = process.communicate(timeout=30.0)
    assert process.returncode == 1
    assert "node /safety_node has ended" in output


# The launch file


def launch(*arguments):
    """Run replay.launch.xml to its end; return what it printed."""
    ros2 = shutil.which("ros2") if "AMENT_PREFIX_PATH" in os.environ else None
    runner = [ros2, "launch"] if ros2 else [sys.executable, "-m", "vla_ros_standalone.launch"]
    done = subprocess.run(
        [*runner, str(share() / "launch" / "replay.launch.xml"), *arguments, "end:=true"],
        env=environment(DOMAIN),
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    return done.stdout + done.stderr


@pytest.mark.parametrize("lockstep", ["true", "false"])
def test_the_launch_file_filters_recorded_commands(tmp_path, ear, lockstep):
    bag = write_bag(tmp_path / "bag", run_of_an_arm(0.5))
    ear.listen(TwistStamped, "/safe_command", 1000)
    output = launch(f"bag:={bag}", "policy:=false", f"lockstep:={lockstep}", "ros2_bag:=false")
    assert "played 81 messages" in output
    assert "has died" not in output
    commands = ear.messages("/safe_command")
    assert len(commands) > 40
    assert any(m.twist.linear.x > 0.1 for m in commands)


def test_a_recorded_lockstep_is_replayed_exactly(tmp_path):
    """From a bag, through the live nodes, into a bag; and that bag through the replay."""
    bag = write_bag(tmp_path / "bag", run_of_an_arm(0.5))
    recorded = tmp_path / "recorded"
    output = launch(f"bag:={bag}", "policy:=false", "lockstep:=true", f"record:={recorded}")
    assert "has died" not in output
    options = Options(mode="safety", received=True, recorded_ticks=True)
    result = replay_bag(recorded, ROBOT, options=options)
    assert len(result.recorded_safe) > 45
    assert result.metrics["speed_max"].value > 0.1
    for kind in ("translation", "rotation", "gripper"):
        assert result.metrics[f"safe_error_{kind}.max"].value == 0.0
