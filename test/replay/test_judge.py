"""The judge finds each kind of violation, and nothing else."""

import json
import math
import time
from pathlib import Path

import numpy as np
import pytest
from panda_arm import HOME, panda_urdf
from rosbags.rosbag2 import StoragePlugin, Writer
from rosbags.typesys import Stores, get_typestore

from vla_ros.replay.bags import BagError
from vla_ros.replay.judge import Judge, JudgeError, Tick, Verdict, judge_bag
from vla_ros.replay.timing import latencies

ROBOT = Path(__file__).parents[2] / "config/robots/panda.yaml"
PERIOD = 10_000_000
ARM = np.array(HOME)
# Stretched out: beyond the upper x face by 11 mm.
OUT = np.array((0.0, 0.6, 0.0, -1.0, 0.0, 1.8, 0.785))


@pytest.fixture(scope="module")
def judge():
    return Judge(ROBOT, panda_urdf())


def episode(twists, *, position=ARM, gripper=0.04, frame=None):
    """One tick each 10 ms."""
    return [
        Tick(i * PERIOD, np.array([*twist, *[0.0] * (6 - len(twist))]), gripper, position, frame)
        for i, twist in enumerate(twists)
    ]


def broken(verdict):
    return {name for name, count in verdict.by_bound.items() if count}


def ramp(speed):
    """From rest to a speed along x, within the bound on acceleration."""
    return [(v,) for v in np.arange(0.0, speed + 1e-9, 0.05)]


def test_a_clean_episode(judge):
    verdict = judge.ticks(episode([*ramp(0.3), (0.3,), (0.25,)]))
    assert (verdict.violations, verdict.ticks, verdict.examples) == (0, 9, [])


def test_no_ticks(judge):
    assert judge.ticks([]).violations == 0


@pytest.mark.parametrize(
    ("twists", "options", "bounds"),
    [
        ([(0.0,), (math.nan,)], {}, {"finite"}),
        ([(0.0,), (0.0, math.inf)], {}, {"finite"}),
        ([*ramp(0.3), (0.301,)], {}, {"linear_speed"}),
        ([(0, 0, 0, 0, 0, 0.12 * i) for i in range(15)], {}, {"angular_speed"}),
        ([(0.0,), (0.051,)], {}, {"linear_acceleration"}),
        ([(0.01,)], {}, {"linear_acceleration"}),
        ([(0.0,), (0, 0, 0, 0.16)], {}, {"angular_acceleration"}),
        ([(0.0,), (0.0,)], {"gripper": 0.081}, {"gripper"}),
        ([(0.0,), (0.0,)], {"gripper": math.nan}, {"gripper"}),
        ([(0.0,), (0.0,)], {"frame": "map"}, {"frame"}),
        ([(0.0,), (0.01,)], {"position": OUT}, {"workspace"}),
        ([(0.0,), (0.01,)], {"position": None}, {"workspace"}),
    ],
)
def test_each_bound_is_counted(judge, twists, options, bounds):
    verdict = judge.ticks(episode(twists, **options))
    assert broken(verdict) == bounds
    assert verdict.violations >= 1
    assert next(iter(bounds)) in verdict.examples[0]


def test_outside_in_and_along_are_allowed(judge):
    verdict = judge.ticks(episode([(0.0,), (-0.03, 0.02, 0.0)], position=OUT))
    assert verdict.violations == 0
    assert 0.01 < verdict.outside_m < 0.012


def test_too_fast_for_the_room_that_is_left_unless_it_brakes(judge):
    # 10 mm outside, where nothing may go outward; the arm came in at 0.2 m/s.
    share = 5.0 / math.sqrt(3.0) * 0.01
    coming = episode(ramp(0.2))
    start = len(coming) * PERIOD
    brakes = [Tick(start, np.array([0.2 - share, 0, 0, 0, 0, 0]), None, OUT)]
    slacks = [Tick(start, np.array([0.2 - 0.9 * share, 0, 0, 0, 0, 0]), None, OUT)]
    assert judge.ticks([*coming, *brakes]).violations == 0
    assert broken(judge.ticks([*coming, *slacks])) == {"workspace"}


def test_a_late_tick_may_change_by_one_and_a_half_periods(judge):
    still = Tick(0, np.zeros(6), None, ARM)

    def after(gap, speed):
        twist = np.array([speed, 0, 0, 0, 0, 0])
        return broken(judge.ticks([still, Tick(gap, twist, None, ARM)]))

    assert after(10 * PERIOD, 0.075) == set()
    assert after(10 * PERIOD, 0.076) == {"linear_acceleration"}
    assert after(-PERIOD, 0.001) == {"linear_acceleration"}
    assert after(0, 0.001) == {"linear_acceleration"}


def test_positions_are_mujoco_s(judge):
    mujoco = pytest.importorskip("mujoco", reason="checks the judge's kinematics against MuJoCo")
    model = mujoco.MjModel.from_xml_string(
        panda_urdf().replace(
            '<robot name="panda">',
            '<robot name="panda"><mujoco><compiler fusestatic="false"/></mujoco>',
        )
    )
    data = mujoco.MjData(model)
    angles = np.random.default_rng(0).uniform(-2.0, 2.0, (20, 7))
    for given, position in zip(angles, judge._arm.positions(angles), strict=True):
        data.qpos[:7] = given
        mujoco.mj_kinematics(model, data)
        assert np.allclose(data.body("panda_hand_tcp").xpos, position, atol=1e-9)


def test_verdicts_add_up(judge):
    total = Verdict()
    for _ in range(4):
        total.add(judge.ticks(episode([(0.0,), (0.2,), (0.4,)])))
    assert (total.ticks, total.violations) == (12, 8)
    assert total.by_bound["linear_acceleration"] == 8
    assert len(total.examples) == 5


def test_a_hundred_episodes_take_seconds(judge):
    ticks = episode([(0.0,)] * 500)
    begin = time.perf_counter()
    for _ in range(10):
        judge.ticks(ticks)
    assert time.perf_counter() - begin < 1.0


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda t: t.replace("linear_speed", "speed"), "has no 'linear_speed'"),
        (lambda t: t.replace("ros__parameters", "parameters"), "cannot be read"),
        (lambda t: t.replace("panda_hand_tcp", "tool"), "no way from 'panda_link0' to 'tool'"),
        (lambda t: t.replace("panda_joint3", "elbow"), "lacks joint 'panda_joint3'"),
    ],
)
def test_what_cannot_be_judged(tmp_path, change, words):
    robot = tmp_path / "robot.yaml"
    robot.write_text(change(ROBOT.read_text()))
    with pytest.raises(JudgeError, match=words):
        Judge(robot, panda_urdf())


# --- bags ---

STORE = get_typestore(Stores.ROS2_HUMBLE)
T = STORE.types


def header(stamp_ns, frame="panda_link0"):
    time_type = T["builtin_interfaces/msg/Time"]
    return T["std_msgs/msg/Header"](time_type(*divmod(stamp_ns, 10**9)), frame)


def twist_stamped(stamp_ns, x, frame="panda_link0"):
    vector = T["geometry_msgs/msg/Vector3"]
    twist = T["geometry_msgs/msg/Twist"](vector(x, 0.0, 0.0), vector(0.0, 0.0, 0.0))
    return T["geometry_msgs/msg/TwistStamped"](header(stamp_ns, frame), twist)


def joint_state(stamp_ns, position):
    names = [f"panda_joint{i}" for i in (7, 6, 5, 4, 3, 2, 1)]
    values = np.array(position[::-1], dtype=float)
    return T["sensor_msgs/msg/JointState"](header(stamp_ns), names, values, values * 0, values * 0)


def chunk(stamp_ns, first_ns):
    pose = T["geometry_msgs/msg/PoseStamped"](
        header(first_ns),
        T["geometry_msgs/msg/Pose"](
            T["geometry_msgs/msg/Point"](0.0, 0.0, 0.0),
            T["geometry_msgs/msg/Quaternion"](0.0, 0.0, 0.0, 1.0),
        ),
    )
    return T["nav_msgs/msg/Path"](header(stamp_ns), [pose])


def status(stamp_ns, used):
    value = T["diagnostic_msgs/msg/KeyValue"]("command_stamp_ns", used)
    entry = T["diagnostic_msgs/msg/DiagnosticStatus"](0, "safety_node", "", "", [value])
    return T["diagnostic_msgs/msg/DiagnosticArray"](header(stamp_ns), [entry])


class BagFile:
    """A bag in the making."""

    def __init__(self, path):
        self.writer = Writer(path, version=8, storage_plugin=StoragePlugin.SQLITE3)
        self.connections = {}

    def __enter__(self):
        self.writer.open()
        return self

    def __exit__(self, *_):
        self.writer.close()

    def add(self, topic, time_ns, message):
        kind = message.__msgtype__
        if topic not in self.connections:
            self.connections[topic] = self.writer.add_connection(topic, kind, typestore=STORE)
        data = STORE.serialize_cdr(message, kind)
        self.writer.write(self.connections[topic], time_ns, data)


def record(path, speeds, *, position=HOME, description=True, frame="panda_link0", opening=0.04):
    """Record ticks at 100 Hz from 10 s on, with joint states, and a command that each followed."""
    start = 10 * 10**9
    string, number = T["std_msgs/msg/String"], T["std_msgs/msg/Float64"]
    with BagFile(path) as bag:
        if description:
            bag.add("/robot_description", start, string(panda_urdf()))
        bag.add("/policy/chunk", start, chunk(start - 30_000_000, start - 5_000_000))
        bag.add("/command", start, twist_stamped(start - 5_000_000, 0.0))
        for i, speed in enumerate(speeds):
            now = start + i * PERIOD
            bag.add("/joint_states", now - 4_000_000, joint_state(now - 4_000_000, position))
            bag.add("/safe_gripper_command", now, number(opening))
            bag.add("/safe_command", now, twist_stamped(now, float(speed), frame))
            bag.add("/safety_node/status", now, status(now, str(start - 5_000_000)))
    return path


def test_a_clean_bag(tmp_path):
    bag = record(tmp_path / "bag", [*np.arange(0.2, 0.3, 0.05), *[0.3] * 50])
    verdict = judge_bag(bag, ROBOT)
    assert (verdict.ticks, verdict.violations) == (52, 0)


@pytest.mark.parametrize(
    ("speeds", "options", "bound"),
    [
        ([0.0, 0.0, 0.1], {}, "linear_acceleration"),
        ([0.31, 0.31], {}, "linear_speed"),
        ([0.0, 0.0], {"frame": "map"}, "frame"),
        ([0.0, 0.0], {"opening": 0.09}, "gripper"),
        ([0.05, 0.05], {"position": tuple(OUT)}, "workspace"),
        ([math.nan, 0.0], {}, "finite"),
    ],
)
def test_a_bag_with_violations(tmp_path, speeds, options, bound):
    verdict = judge_bag(record(tmp_path / "bag", speeds, **options), ROBOT)
    assert broken(verdict) == {bound}


def test_the_bag_s_latencies(tmp_path):
    timing = latencies(record(tmp_path / "bag", [0.0] * 11))
    assert timing.image_to_command_ms == [25.0]
    assert timing.image_to_safe_command_ms == [30.0]
    assert math.isclose(timing.safe_command_hz, 100.0)


def test_a_bag_without_description(tmp_path):
    bag = record(tmp_path / "bag", [0.0], description=False)
    with pytest.raises(JudgeError, match="no /robot_description"):
        judge_bag(bag, ROBOT)
    assert judge_bag(bag, ROBOT, panda_urdf()).violations == 0


def test_no_bag(tmp_path):
    with pytest.raises(BagError, match="cannot be read"):
        judge_bag(tmp_path / "none", ROBOT)


def test_a_bag_of_something_else(tmp_path):
    with BagFile(tmp_path / "bag") as bag:
        bag.add("/chatter", 1, T["std_msgs/msg/String"]("hello"))
    with pytest.raises(JudgeError, match="/robot_description"):
        judge_bag(tmp_path / "bag", ROBOT)
    with pytest.raises(JudgeError, match="no messages on /safe_command"):
        judge_bag(tmp_path / "bag", ROBOT, panda_urdf())


def test_the_command_line(tmp_path, capsys):
    from vla_ros.cli import main

    bag = record(tmp_path / "bag", [0.0, 0.3])
    assert main(["judge", str(bag), "--robot", str(ROBOT)]) == 1
    told = json.loads(capsys.readouterr().out)
    assert told["by_bound"]["linear_acceleration"] == told["violations"] == 1
    assert told["image_to_safe_command_ms"] == {"p50": 30.0, "p99": 30.0}
    assert main(["judge", str(tmp_path), "--robot", str(ROBOT)]) == 1
    assert "cannot be read" in capsys.readouterr().err
