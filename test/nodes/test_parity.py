"""The live nodes on a played bag, and the replay of the same bag, command the same bit for bit."""

import subprocess
import sys

import numpy as np
import pytest
from geometry_msgs.msg import TwistStamped
from node_process import NodeProcess, TestNode, claim_domain, environment
from playback_bag import run_of_an_arm, shared_bags, with_outputs, write_bag

from vla_ros.paths import share
from vla_ros.replay.stepping import Options, replay_bag

DOMAIN = claim_domain()
ROBOT = share() / "config" / "robots" / "panda.yaml"
BUNDLE = share() / "bundles" / "panda_pick"
SIM_TIME = ("-p", "use_sim_time:=true")
RECORDED = "/recorded"


def bags():
    """A generated bag always; the real ones where they are."""
    found = [pytest.param(None, id="generated")]
    real = shared_bags()
    found += [pytest.param(path, id=path.name) for path in real]
    if not real:
        skip = pytest.mark.skip(reason="no ../shared/bags beside the repository")
        found.append(pytest.param(None, id="real", marks=skip))
    return found


def play(bag, *arguments):
    """Play a bag to its end."""
    done = subprocess.run(
        [sys.executable, "-m", "vla_ros.cli", "play", str(bag), *arguments],
        env=environment(DOMAIN),
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture
def live(tmp_path):
    """Start nodes, and a node of the test's own that hears what they command."""
    started = []

    def start(*nodes):
        for name, *arguments in nodes:
            started.append(NodeProcess(name, tmp_path, DOMAIN, *SIM_TIME, *arguments))
        ear = TestNode(DOMAIN)
        started.append(ear)
        for topic in ("command", "safe_command"):
            ear.listen(TwistStamped, topic, 1000)
        ear.start()
        return ear

    yield start
    for one in reversed(started):
        one.close()


def stamps(messages):
    return [m.header.stamp.sec * 10**9 + m.header.stamp.nanosec for m in messages]


def twists(messages):
    rows = []
    for message in messages:
        linear, angular = message.twist.linear, message.twist.angular
        rows.append((linear.x, linear.y, linear.z, angular.x, angular.y, angular.z))
    return np.array(rows)


def assert_same(messages, stamp_ns, twist):
    """The replay goes on for a while at the end, which nodes cannot without a clock."""
    count = len(messages)
    assert count > 20
    np.testing.assert_array_equal(stamps(messages), stamp_ns[:count])
    heard = twists(messages)
    assert np.count_nonzero(np.any(heard != 0.0, axis=1)) >= 10, "it hardly moved"
    np.testing.assert_array_equal(heard, twist[:count])


def published_by_the_filter(ear):
    return ear.messages("safe_command")


@pytest.mark.parametrize("bag", bags())
def test_the_filter_alone(tmp_path, live, bag):
    bag = bag or write_bag(tmp_path / "bag", run_of_an_arm())
    ear = live(("safety_node", "--params-file", str(ROBOT)))
    play(bag, "--lockstep", "safety_node", "--robot", str(ROBOT), "--topics", *INPUTS)
    sent = published_by_the_filter(ear)

    played = with_outputs(tmp_path / "both", bag, [("/safe_command", m) for m in sent])
    options = Options(mode="safety", received=True, recorded_ticks=True)
    result = replay_bag(played, ROBOT, options=options)
    assert_same(sent, result.ticks.stamp_ns, result.ticks.safe)


INPUTS = ("/command", "/gripper_command", "/joint_states", "/instruction")


@pytest.mark.parametrize("latency_ms", [0, 50])
@pytest.mark.parametrize("bag", bags())
def test_cameras_to_robot(tmp_path, live, bag, latency_ms):
    if not BUNDLE.is_dir():
        pytest.skip("the bundle panda_pick is not in this tree")
    bag = bag or write_bag(tmp_path / "bag", run_of_an_arm(cameras=True))
    ear = live(
        ("camera_node", "-p", f"bundle:={BUNDLE}", "-p", f"transport:={transport(bag)}"),
        (
            "policy_node",
            *("--params-file", str(ROBOT), "-p", f"bundle:={BUNDLE}"),
            *("-p", f"simulated_latency:={latency_ms / 1e3}"),
        ),
        ("safety_node", "--params-file", str(ROBOT)),
    )
    play(
        bag,
        *("--lockstep", "camera_node", "policy_node", "safety_node", "--robot", str(ROBOT)),
        *("--remap", f"/command:={RECORDED}/command"),
        *(f"/gripper_command:={RECORDED}/gripper_command",),
    )
    asked, sent = ear.messages("command"), published_by_the_filter(ear)

    outputs = [("/command", m) for m in asked] + [("/safe_command", m) for m in sent]
    played = with_outputs(tmp_path / "both", bag, outputs, ("/command", "/gripper_command"))
    latency = f"fixed:{latency_ms}" if latency_ms else "zero"
    options = Options(latency=latency, received=True, recorded_ticks=True)
    result = replay_bag(played, ROBOT, BUNDLE, options=options)
    assert_same(asked, result.commands.stamp_ns, result.commands.twist)
    assert_same(sent, result.ticks.stamp_ns, result.ticks.safe)


def transport(bag):
    return "compressed" if "green" in bag.name else "raw"
