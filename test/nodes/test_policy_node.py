"""policy_node, as a process: commands at their rate, and a hold with its cause when data fail."""

import contextlib
import itertools
import signal
import time

import numpy as np
import pytest
from geometry_msgs.msg import TwistStamped
from nav_msgs.msg import Path
from node_process import LATCHED, SENSOR, NodeProcess, TestNode, claim_domain, wait_for
from robots import panda, simple_urdf
from sensor_msgs.msg import Image, JointState
from std_msgs.msg import Float64, String
from std_srvs.srv import Trigger

from bundles import WORDS, make_bundle
from vla_ros.paths import share
from vla_ros.policy.cadence import STAGES, parse

DOMAIN = claim_domain()
ROBOT = share() / "config" / "robots" / "panda.yaml"
SIZES = {"front": (96, 96), "wrist": (80, 96)}
PERIOD = 1 / 30
JOINTS = [*panda().joints, *panda().gripper_joints]
_random = np.random.default_rng(0)


@pytest.fixture(scope="module")
def bundle(tmp_path_factory):
    return make_bundle(tmp_path_factory.mktemp("bundle"))


def stamp_s(stamp):
    return stamp.sec + stamp.nanosec * 1e-9


class Robot(TestNode):
    """Cameras at 30 Hz, joint states at 100 Hz, and a description; each can be made to fail.

    Attributes:
        sends: Which of "front", "wrist", "joint_states" are sent.
        frozen: Cameras whose pixels do not change.
        dark: Whether the front camera is black.
        speed: Of the first joint, in rad/s.

    """

    def __init__(self, domain):
        super().__init__(domain)
        self.sends = {*SIZES, "joint_states"}
        self.frozen = set()
        self.dark = False
        self.speed = 0.0
        self._angle = 0.0
        self._images = {
            name: node.create_publisher(Image, f"observation/{name}", SENSOR)
            for node in [self.node]
            for name in SIZES
        }
        self._joints = self.node.create_publisher(JointState, "joint_states", 10)
        self.instruction = self.node.create_publisher(String, "instruction", LATCHED)
        self.description = self.node.create_publisher(String, "robot_description", LATCHED)
        self.listen(TwistStamped, "command", 10)
        self.listen(Float64, "gripper_command", 10)
        self.listen(Path, "policy/chunk", 10)
        self.node.create_timer(PERIOD, self._send_images)
        self.node.create_timer(0.01, self._send_joints)

    def instruct(self, text):
        self.instruction.publish(String(data=text))

    def describe(self, urdf):
        self.description.publish(String(data=urdf))

    def moves(self, seconds=0.0):
        """Return whether the newest command moves, and all of the last `seconds` do."""
        recent = self.messages("command", time.monotonic() - max(seconds, 0.2))
        return bool(recent) and all(command.twist.linear.x > 0.0 for command in recent)

    def call(self, service):
        client = self.node.create_client(Trigger, service)
        assert client.wait_for_service(timeout_sec=10.0)
        future = client.call_async(Trigger.Request())
        wait_for(future.done, 5.0)
        return future.result()

    def _send_images(self):
        stamp = self.node.get_clock().now().to_msg()
        for name in self.sends & set(SIZES):
            height, width = SIZES[name]
            pixels = np.full((height, width, 3), 150, np.uint8)
            if name not in self.frozen:
                pixels[0, 0] = _random.integers(0, 256, 3, np.uint8)
            if name == "front" and self.dark:
                pixels[:] = 0
            message = Image(height=height, width=width, encoding="rgb8", step=3 * width)
            message.data = pixels.tobytes()
            message.header.stamp = stamp
            self._images[name].publish(message)

    def _send_joints(self):
        self._angle += 0.01 * self.speed
        if "joint_states" not in self.sends:
            return
        message = JointState(name=JOINTS, position=[0.0] * 9, velocity=[0.0] * 9)
        message.position[0] = self._angle
        message.header.stamp = self.node.get_clock().now().to_msg()
        self._joints.publish(message)


@pytest.fixture
def robot():
    robot = Robot(DOMAIN)
    robot.describe(simple_urdf())
    yield robot
    robot.close()


@pytest.fixture
def start(bundle, tmp_path):
    with contextlib.ExitStack() as stack:

        def start_node(*arguments, path=bundle.path, file=ROBOT):
            process = NodeProcess(
                "policy_node",
                tmp_path,
                DOMAIN,
                *(["--params-file", str(file)] if file else []),
                "-p",
                f"bundle:={path}",
                *arguments,
            )
            stack.callback(process.close)
            return process

        yield start_node


@pytest.fixture
def acting(robot, start):
    """Return a robot whose policy_node moves it."""
    robot.process = start()
    robot.start()
    robot.instruct("pick up the red cube")
    wait_for(lambda: robot.moves(0.3))
    return robot


def hold(robot, cause, fault):
    """Make a fault; return the seconds until the commands were and stayed zero.

    The cause must be on /diagnostics, and nothing may be said to the gripper in the hold.
    """
    begin = time.monotonic()
    fault()
    wait_for(lambda: robot.diagnosis("policy_node").startswith(f"holding still: {cause}"), 3.0)
    told = time.monotonic()
    wait_for(lambda: len(robot.messages("command", told)) >= 8, 3.0)
    after = [(t, c) for t, c in robot.heard["command"] if t > begin]
    moving = [t for t, c in after if twist(c).any()]
    stopped = max(moving, default=begin)
    first_zero = min(t for t, c in after if t > stopped)
    assert first_zero <= told + 0.05  # it goes on saying so
    assert not [t for t, _ in robot.heard["gripper_command"] if t > first_zero + 0.05]
    return first_zero - begin


def twist(command):
    linear, angular = command.twist.linear, command.twist.angular
    return np.array([linear.x, linear.y, linear.z, angular.x, angular.y, angular.z])


def two_seconds_at_full_rate(robot):
    """Return the commands of the first two seconds in which the machine was not kept busy."""
    for _ in range(8):
        since = time.monotonic()
        time.sleep(2.0)
        commands = robot.messages("command", since)
        if len(commands) >= 57:
            return commands
    pytest.fail(f"{len(commands)} commands in 2 s, not 60, eight times over")


def test_it_moves_as_the_model_says_at_its_rate(acting):
    commands = two_seconds_at_full_rate(acting)
    assert len(commands) <= 63
    assert {c.header.frame_id for c in commands} == {"panda_link0"}
    stamps = [stamp_s(c.header.stamp) for c in commands]
    assert np.median(np.diff(stamps)) == pytest.approx(PERIOD, abs=0.002)
    # The tiny model's action i moves i + 1 mm along x and the word's number along y, each period.
    # On a machine with too much to do a frame may come too late, and the arm rests for a moment.
    values = np.array([twist(c) for c in commands if twist(c).any()])
    assert len(values) >= 0.8 * len(commands)
    np.testing.assert_allclose(values[:, 1], WORDS.index("red") * 0.001 * 30, rtol=1e-5)
    assert (values[:, 0] > 0.029).all()
    assert (values[:, 0] < 16 * 0.03).all()
    assert acting.messages("gripper_command")[-1].data == pytest.approx(0.08)
    told = acting.diagnosis("policy_node")
    assert told.startswith("acting")
    assert "\npace: " in told
    assert "inference ms p50" in told
    report = parse(dict(line.split(": ", 1) for line in told.splitlines()[1:]))
    assert report.requested_hz == 30.0
    assert report.cycles >= 30
    assert list(report.stages) == [stage for stage in STAGES if stage != "decode"]
    assert report.stages["publish"].count >= 30


def test_chunks_can_be_joined_with_images_and_commands(acting):
    time.sleep(2.0)
    commands = {(c.header.stamp.sec, c.header.stamp.nanosec) for c in acting.messages("command")}
    chunks = acting.messages("policy/chunk")
    # One chunk every 4 actions.
    assert len(chunks) >= 10
    latencies, lengths = [], []
    for chunk in chunks:
        first = chunk.poses[0].header.stamp
        assert (first.sec, first.nanosec) in commands
        due = [stamp_s(pose.header.stamp) for pose in chunk.poses]
        np.testing.assert_allclose(np.diff(due), PERIOD, atol=1e-6)
        assert len(due) <= 16
        lengths.append(len(due))
        latencies.append(due[0] - stamp_s(chunk.header.stamp))
        assert chunk.header.frame_id == "panda_link0"
    # Along x: up to 16 mm a period, from the TCP at 0.4 m.
    xs = [pose.pose.position.x for pose in chunks[-1].poses]
    assert xs[0] > 0.4
    assert (np.diff(xs) > 0).all()
    assert np.median(latencies) < 0.045, latencies
    assert np.median(lengths) >= 14, lengths


def test_a_camera_whose_feed_is_cut_stops_the_arm(acting):
    seconds = hold(acting, "stale camera front", lambda: acting.sends.discard("front"))
    assert seconds < 0.15
    assert "limit 100 ms" in acting.diagnosis("policy_node")
    acting.sends.add("front")
    wait_for(lambda: acting.moves(0.3), 3.0)


def test_joint_states_that_stop_stop_the_arm(acting):
    assert hold(acting, "stale joint states", lambda: acting.sends.discard("joint_states")) < 0.15


def test_a_frozen_camera_stops_the_arm(acting):
    acting.speed = 0.5
    time.sleep(0.1)
    seconds = hold(acting, "frozen camera wrist", lambda: acting.frozen.add("wrist"))
    # 0.02 rad at 0.5 rad/s, and the frames and ticks between.
    assert seconds < 0.2
    acting.frozen.clear()
    wait_for(lambda: acting.moves(0.3), 3.0)


def test_an_instruction_made_empty_stops_the_arm(acting):
    assert hold(acting, "no instruction", lambda: acting.instruct("")) < 0.1


def test_a_new_instruction_turns_the_arm_at_once(acting):
    begin = time.monotonic()
    acting.instruct("pick up the blue cube")
    blue = WORDS.index("blue") * 0.001 * 30

    def turned():
        commands = acting.messages("command", begin)
        return any(c.twist.linear.y == pytest.approx(blue, rel=1e-5) for c in commands)

    wait_for(turned, 1.0)
    assert time.monotonic() - begin < 0.3
    # Between the old and the new motion there is nothing but rest: no blend of two intentions.
    values = {round(c.twist.linear.y, 6) for c in acting.messages("command", begin)}
    assert values <= {round(v, 6) for v in (0.0, blue, WORDS.index("red") * 0.001 * 30)}


def test_unknown_words_are_named(acting):
    acting.instruct("grab the blue cube")
    wait_for(lambda: "the model has never seen 'grab'" in acting.process.output, 3.0)


def test_stop_and_start(acting):
    assert acting.call("policy_node/stop").success
    wait_for(lambda: acting.diagnosis("policy_node").startswith("holding still: stopped"), 2.0)
    assert not twist(acting.messages("command")[-1]).any()
    assert acting.call("policy_node/start").success
    wait_for(lambda: acting.moves(0.3), 3.0)


def test_without_autostart_it_waits_for_start(robot, start):
    start("-p", "autostart:=false")
    robot.start()
    robot.instruct("pick up the red cube")
    wait_for(lambda: robot.diagnosis("policy_node").startswith("holding still: stopped"))
    robot.call("policy_node/start")
    wait_for(lambda: robot.moves(0.3), 5.0)


@pytest.mark.parametrize(
    ("when_dark", "what"),
    [("nan", "output is not finite"), ("short", "output 'actions' has the shape (1, 8, 7)")],
)
def test_a_model_that_gives_nothing_usable_holds_until_it_does(
    robot, start, tmp_path, when_dark, what
):
    path = make_bundle(tmp_path / "bundle", when_dark=when_dark).path
    start(path=path)
    robot.start()
    robot.instruct("pick up the red cube")
    wait_for(lambda: robot.moves(0.3))
    cause = f"model failed: the model's {what}"
    assert hold(robot, cause, lambda: setattr(robot, "dark", True)) < 0.3
    robot.dark = False
    wait_for(lambda: robot.moves(0.3), 3.0)


def test_a_model_that_hangs_holds_until_it_is_back(robot, start, tmp_path):
    """Commands keep coming meanwhile, zero, and what it says too late is dropped."""
    path = make_bundle(tmp_path / "bundle", when_dark="slow").path
    start("-p", "inference_timeout:=0.3", path=path)
    robot.start()
    robot.instruct("pick up the red cube")
    wait_for(lambda: robot.moves(0.3))
    cause = "model hangs: an inference takes longer than inference_timeout, 0.3 s"
    assert hold(robot, cause, lambda: setattr(robot, "dark", True)) < 1.2
    robot.dark = False
    chunks = robot.messages("policy/chunk")
    wait_for(lambda: robot.moves(0.3), 20.0)
    # The first chunk after it is of a frame that came after the hang, not of the dark one.
    following = robot.messages("policy/chunk")[len(chunks)]
    started = following.poses[0].header.stamp
    assert stamp_s(started) - stamp_s(following.header.stamp) < 0.3


@pytest.mark.parametrize("mode", ["synchronous", "replace", "ensemble", "rtc"])
def test_it_moves_in_every_chunk_mode(robot, start, mode):
    start("-p", f"chunk_mode:={mode}", "-p", "replan_actions:=0")
    robot.start()
    robot.instruct("pick up the red cube")
    wait_for(lambda: robot.moves(0.3))


def test_a_late_start_finds_instruction_and_description(robot, start):
    """Both are latched: a policy_node that starts again goes on where it was."""
    robot.start()
    robot.instruct("pick up the red cube")
    time.sleep(0.5)
    first = start()
    wait_for(lambda: robot.moves(0.3))
    first.kill()
    start()
    since = time.monotonic()
    wait_for(lambda: robot.messages("command", since) and robot.moves(0.3))


def test_the_causes_follow_what_is_missing(robot, start):
    robot.sends.clear()
    process = start()
    robot.start()
    for cause, give in (
        ("no instruction", lambda: robot.instruct("pick up the red cube")),
        ("waiting for joint states", lambda: robot.sends.add("joint_states")),
        ("waiting for camera front", lambda: robot.sends.add("front")),
        ("waiting for camera wrist", lambda: robot.sends.add("wrist")),
    ):
        wait_for(lambda c=cause: f"holding still: {c}" in robot.diagnosis("policy_node"))
        give()
    wait_for(lambda: robot.moves(0.3))
    assert "acting on 'pick up the red cube'" in process.output


def test_a_description_of_another_robot_ends_it_with_the_reason(robot, start):
    robot.describe(simple_urdf().replace("panda_joint3", "elbow"))
    process = start()
    robot.start()
    assert process.wait() == 1
    assert "use the robot file of this robot" in process.output


def test_joint_states_of_another_robot_are_named(robot, start):
    robot.sends.discard("joint_states")
    start()
    robot.start()
    robot.instruct("pick up the red cube")
    publisher = robot.node.create_publisher(JointState, "joint_states", 10)
    message = JointState(name=["elbow"], position=[0.0], velocity=[0.0])

    def named():
        publisher.publish(message)
        return "joint_states has no joint 'panda_joint1'" in robot.diagnosis("policy_node")

    wait_for(named)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"path": "/nowhere"}, "there is no bundle at /nowhere"),
        ({"path": "''"}, "no bundle is given"),
        ({"file": None}, "'robot.name' is missing"),
        ({"arguments": ["-p", "bounds.linear_speed:=0.0"]}, "'bounds.linear_speed' is 0.0"),
        ({"arguments": ["-p", "replan_actions:=17"]}, "replan_actions is 17"),
        ({"arguments": ["-p", "chunk_mode:=fast"]}, "must be one of blend, rtc, ensemble"),
        ({"arguments": ["-p", "threads:=0"]}, "threads"),
        ({"arguments": ["-p", "max_frame_age:=100.0"]}, "max_frame_age"),
        ({"arguments": ["-p", "provider:=CUDA"]}, "provider 'CUDA' is not in this onnxruntime"),
        ({"arguments": ["-p", "robot.joints:=['a']"]}, "panda.yaml: 'bounds.joint_position_min'"),
    ],
)
def test_what_cannot_work_ends_at_once_with_one_line_that_says_why(start, options, words):
    process = start(*options.pop("arguments", []), **options)
    assert process.wait() == 1
    assert words in process.output
    assert len([line for line in process.log_lines if "[FATAL]" in line]) == 1, process.output
    assert "Traceback" not in process.output


def test_an_empty_folder_and_a_corrupt_model_are_named(start, tmp_path):
    empty = tmp_path / "empty"
    empty.mkdir()
    process = start(path=empty)
    assert process.wait() == 1
    assert "holds no manifest.yaml" in process.output
    broken = make_bundle(tmp_path / "broken").path
    (broken / "policy.onnx").write_bytes(b"")
    process = start(path=broken)
    assert process.wait() == 1
    assert "files.policy.onnx" in process.output
    assert "corrupt" in process.output


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_it_ends_cleanly_while_acting(acting, number):
    begin = time.monotonic()
    assert acting.process.interrupt(number) == 0
    assert time.monotonic() - begin < 3.0
    assert "Traceback" not in acting.process.output


def test_bad_frames_are_refused_and_named(acting):
    publisher = acting.node.create_publisher(Image, "observation/front", SENSOR)
    wrong = itertools.cycle(
        [
            Image(height=10, width=10, encoding="rgb8", step=30, data=bytes(300)),
            Image(height=96, width=96, encoding="rgb8", step=288, data=bytes(7)),
            Image(height=96, width=96, encoding="none", step=288, data=bytes(288 * 96)),
        ]
    )

    def named():
        publisher.publish(next(wrong))
        return "observation/front last error" in acting.diagnosis("policy_node")

    wait_for(named, 5.0)
    assert acting.moves()


def test_ctrl_c_told_twice_ends_cleanly_too(acting):
    """`ros2 launch` passes Ctrl-C on to nodes that the terminal has told already."""
    acting.process.process.send_signal(signal.SIGINT)
    time.sleep(0.02)
    acting.process.process.send_signal(signal.SIGINT)
    assert acting.process.wait() == 0
    assert "Traceback" not in acting.process.output
