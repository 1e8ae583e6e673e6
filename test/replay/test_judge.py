"""The judge finds each kind of violation, and nothing else."""

import json
import math
import time
import tracemalloc
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import yaml
from panda_arm import HOME, panda_urdf
from rosbags.rosbag2 import StoragePlugin, Writer
from rosbags.typesys import Stores, get_typestore

from vla_ros import robots
from vla_ros.replay.bags import BagError
from vla_ros.replay.judge import UNITS, Judge, JudgeError, Recording, Tick, Verdict, judge_bag
from vla_ros.replay.timing import latencies

ROBOT = Path(__file__).parents[2] / "config/robots/panda.yaml"
PERIOD = 10_000_000
ARM = np.array(HOME)
# Stretched out: beyond the upper x face by 11 mm.
OUT = np.array((0.0, 0.6, 0.0, -1.0, 0.0, 1.8, 0.785))
STILL = np.zeros(7)


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


def ramp(speed, jerk=600.0, acceleration=5.0):
    """From rest to a speed along x, within the bounds on acceleration and jerk."""
    speeds, rate = [0.0], 0.0
    while speeds[-1] < speed - 1e-9:
        left = speed - speeds[-1]
        rate = min(rate + jerk * 0.01, acceleration, math.sqrt(2.0 * jerk * left), left / 0.01)
        speeds.append(speeds[-1] + rate * 0.01)
    return [(v,) for v in speeds]


def test_a_clean_episode(judge):
    verdict = judge.ticks(episode([*ramp(0.3), (0.3,), (0.3,), (0.25,)]))
    assert (verdict.violations, verdict.examples) == (0, [])
    assert verdict.ticks > 9


def test_no_ticks(judge):
    assert judge.ticks([]).violations == 0


def test_a_long_episode_is_judged_in_blocks(judge, monkeypatch):
    """Of any size: none shows where one ends and the next begins."""
    ticks = episode([*ramp(0.3), *[(0.3,)] * 20, (0.25,), (0.9,)])
    ticks = [
        replace(tick, position=None if i < 2 else ARM + 0.01 * i) for i, tick in enumerate(ticks)
    ]
    whole = judge.ticks(ticks)
    monkeypatch.setattr("vla_ros.replay.judge._BLOCK", 7)
    assert judge.ticks(ticks) == whole
    assert {"linear_acceleration", "linear_speed"} <= broken(whole)


def test_a_long_episode_takes_little_memory(judge):
    """0.7 kB a tick; all poses, Jacobians and rooms at once would take 1.7."""
    count = 30_000
    given = [np.arange(count) * PERIOD, np.zeros((count, 6)), np.full(count, 0.04)]
    given.append(np.tile(ARM, (count, 1)))
    tracemalloc.start()
    try:
        assert judge.steps(*given).violations == 0
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 700 * count


@pytest.mark.parametrize(
    ("twists", "options", "bounds"),
    [
        ([(0.0,), (math.nan,)], {}, {"finite"}),
        ([(0.0,), (0.0, math.inf)], {}, {"finite"}),
        ([*ramp(0.3), (0.301,)], {}, {"linear_speed"}),
        ([(0, 0, 0, 0, 0, 0.12 * i) for i in range(15)], {}, {"angular_speed"}),
        ([*ramp(0.2)[:-2], (0.2,), (0.251,)], {}, {"linear_acceleration"}),
        ([*ramp(0.2), (0.2,), (0.249,), (0.249,), (0.2,), (0.249,)], {}, {"linear_jerk"}),
        ([(0, 0, 0, 0.15), (0, 0, 0, 0.36)], {}, {"angular_acceleration"}),
        ([(0, 0, 0, a) for a in (0, 0.2, 0.4, 0.2)], {}, {"angular_jerk"}),
        ([(0.0,), (0.0,)], {"gripper": 0.081}, {"gripper"}),
        ([(0.0,), (0.0,)], {"gripper": math.nan}, {"gripper"}),
        ([(0.0,), (0.0,)], {"frame": "map"}, {"frame"}),
        ([(0.0,), (0.01,)], {"position": OUT}, {"workspace"}),
        ([(0.0,), (0.01,)], {"position": None}, {"workspace"}),
    ],
)
def test_each_bound_of_what_is_sent_is_counted(judge, twists, options, bounds):
    verdict = judge.ticks(episode(twists, **options))
    assert broken(verdict) >= bounds
    # A step that is too great for one rate may be for the next higher one, too.
    assert {name.split("_")[-1] for name in broken(verdict) - bounds} <= {"acceleration", "jerk"}
    assert verdict.violations >= 1
    assert next(iter(bounds)) in "".join(verdict.examples)
    assert all(verdict.margins[name] < 0.0 for name in bounds)


def test_the_gripper_s_speed_is_judged(judge):
    def moved(step):
        ticks = [Tick(i * PERIOD, np.zeros(6), 0.04 + i * step, ARM) for i in range(3)]
        return broken(judge.ticks(ticks))

    # 0.4 m/s.
    assert moved(0.00399) == set()
    assert moved(0.00401) == {"gripper_speed"}


def test_outside_in_and_along_are_allowed(judge):
    verdict = judge.ticks(episode([(0.0,), (-0.03, 0.02, 0.0)], position=OUT))
    assert verdict.violations == 0
    assert 0.01 < verdict.outside_m < 0.012


def test_too_fast_for_the_room_that_is_left_unless_it_brakes(judge):
    # 11 mm outside, where nothing may go outward; the arm came in at 0.2 m/s.
    coming = episode([*ramp(0.2), (0.2,)])
    start = len(coming) * PERIOD
    brakes = [Tick(start, np.array([0.19, 0, 0, 0, 0, 0]), None, OUT)]
    slacks = [Tick(start, np.array([0.1999, 0, 0, 0, 0, 0]), None, OUT)]
    assert judge.ticks([*coming, *brakes]).violations == 0
    assert broken(judge.ticks([*coming, *slacks])) == {"workspace"}


def test_a_late_tick_may_change_by_one_and_a_half_periods(judge):
    still = Tick(0, np.zeros(6), None, ARM)

    def after(gap, speed):
        twist = np.array([speed, 0, 0, 0, 0, 0])
        return broken(judge.ticks([still, Tick(gap, twist, None, ARM)]))

    assert after(10 * PERIOD, 0.0749) == set()
    assert after(10 * PERIOD, 0.0751) == {"linear_acceleration"}
    assert after(-PERIOD, 0.001) == {"linear_acceleration"}
    assert after(0, 0.001) == {"linear_acceleration"}


# --- the motion of an arm that follows ---


def followed(speeds, *, start=ARM, twist=None, must_rest=None):
    """An arm that follows joint velocities (T, 7) from `start`, one each 10 ms."""
    speeds = np.asarray(speeds, dtype=float)
    count = len(speeds)
    moved = np.vstack([np.zeros(7), np.cumsum(speeds, axis=0)[:-1]]) * 0.01
    return Recording(
        stamp_ns=np.arange(count) * PERIOD,
        twist=twist,
        joint_velocity=speeds,
        position=start + moved,
        gripper=np.full(count, np.nan),
        must_rest=np.zeros(count, dtype=bool) if must_rest is None else must_rest,
    )


def one_joint(joint, values):
    speeds = np.zeros((len(values), 7))
    speeds[:, joint] = values
    return speeds


def smooth(peak, count=60):
    """From rest to a speed and back."""
    return peak * np.sin(np.linspace(0.0, np.pi, count)) ** 2


@pytest.fixture(scope="module")
def open_judge(tmp_path_factory):
    """Return a function that makes judges with some bounds changed and all others out of reach."""
    content = yaml.safe_load(ROBOT.read_text())
    bounds = content["/**"]["ros__parameters"]["bounds"]
    for name in UNITS:
        if isinstance(bounds.get(name), float):
            bounds[name] *= 1000.0
        elif isinstance(bounds.get(name), list) and not isinstance(bounds[name][0], str):
            bounds[name] = [1000.0 * value for value in bounds[name]]
    for name in ("workspace", "keep_out", "workspace_points", "keep_out_points"):
        bounds.pop(name, None)
    bounds |= {
        "joint_position_min": [-9.0] * 7, "joint_position_max": [9.0] * 7, "tool_cone_angle": 4.0,
        "workspace_min": [-2.0] * 3, "workspace_max": [2.0] * 3, "singularity_distance": 0.0,
        "stopping_time": 9.0,
    }  # fmt: skip

    def make(volumes=None, points=None, **changes):
        path = tmp_path_factory.mktemp("robot") / "robot.yaml"
        parameters = dict(content["/**"]["ros__parameters"])
        parameters["bounds"] = bounds | changes
        parameters |= {"volumes": volumes or {}, "points": points or {}}
        path.write_text(yaml.safe_dump({"/**": {"ros__parameters": parameters}}))
        return Judge(path, robots.urdf("panda"))

    return make


BALL = {"ball": {"shape": "sphere", "center": [0.5, 0.2, 0.4], "radius": 0.1}}
SIDE = {"side": {"shape": "half_space", "normal": [0.0, 1.0, 0.0], "offset": 0.1}}
FINGER = {"finger": {"position": [0.0, 0.0, -0.05], "radius": 0.03}}


@pytest.mark.parametrize(
    ("bound", "speeds", "change", "volumes"),
    [
        ("joint_position", one_joint(0, smooth(1.0)), {"joint_position_max": [0.2] * 7}, {}),
        ("joint_speed", one_joint(0, smooth(1.0)), {"joint_speed": [0.9] * 7}, {}),
        ("joint_acceleration", one_joint(0, smooth(1.0)), {"joint_acceleration": [4.0] * 7}, {}),
        ("joint_torque", one_joint(1, smooth(1.0)), {"joint_torque": [30.0] * 7}, {}),
        ("joint_torque_rate", one_joint(1, smooth(1.0)), {"joint_torque_rate": [90.0] * 7}, {}),
        ("workspace", one_joint(0, smooth(1.0)), {"workspace_max": [2.0, 0.1, 2.0]}, {}),
        ("workspace", one_joint(0, smooth(1.0)), {"workspace": ["side"]}, SIDE),
        ("keep_out", one_joint(0, smooth(1.2)),
         {"keep_out": ["ball"], "keep_out_points": ["finger"]}, BALL),
        ("tool_cone", one_joint(5, smooth(-1.5)), {"tool_cone_angle": 0.4}, {}),
        ("singularity", one_joint(3, smooth(3.0, 100)), {"singularity_distance": 0.1}, {}),
        ("linear_speed", one_joint(0, smooth(1.0)), {"linear_speed": 0.4}, {}),
        ("linear_acceleration", one_joint(0, smooth(1.0)), {"linear_acceleration": 2.0}, {}),
        ("linear_jerk", one_joint(0, smooth(1.0)), {"linear_jerk": 20.0}, {}),
        ("angular_speed", one_joint(6, smooth(1.0)), {"angular_speed": 0.9}, {}),
        ("angular_acceleration", one_joint(6, smooth(1.0)), {"angular_acceleration": 4.0}, {}),
        ("angular_jerk", one_joint(6, smooth(1.0)), {"angular_jerk": 50.0}, {}),
    ],
)  # fmt: skip
def test_each_bound_of_what_follows_is_counted(open_judge, bound, speeds, change, volumes):
    assert judge_all(open_judge(), speeds) == set()
    points = FINGER if "finger" in str(change) else {}
    assert judge_all(open_judge(volumes, points, **change), speeds) == {bound}


def judge_all(judge, speeds):
    """Judge joint velocities as such."""
    return broken(judge.recording(followed(speeds)))


def test_centripetal_acceleration_counts(open_judge):
    # A joint that turns steadily accelerates the TCP toward its axis: 0.55 m/s^2 at 1 rad/s.
    speeds = one_joint(0, np.concatenate([smooth(1.0)[:30], np.full(60, 1.0)]))
    steady = followed(speeds)
    verdict = open_judge(linear_acceleration=100.0).recording(steady)
    left = 100.0 - verdict.margins["linear_acceleration"]
    assert left > 0.5
    assert judge_all(open_judge(linear_acceleration=left - 0.01), speeds) == {"linear_acceleration"}


def test_outside_it_may_stay_and_come_back_but_not_go_further(open_judge):
    judge = open_judge(workspace_max=[2.0, 0.0, 2.0], tracking_error=0.002)
    out = ARM + np.array([0.2, 0, 0, 0, 0, 0, 0])
    coming = one_joint(0, -smooth(0.5, 80))
    assert judge_all(judge, coming[:1]) == set()
    assert broken(judge.recording(followed(coming, start=out))) == set()
    assert broken(judge.recording(followed(-coming, start=out))) == {"workspace"}
    # Half way in and out again is further out than it was.
    back = np.vstack([coming[:50], -coming[:50]])
    assert broken(judge.recording(followed(back, start=out))) == {"workspace"}


def test_bounds_of_joints_are_left_out_where_twists_are_sent_near_a_singularity(open_judge):
    """Beyond the range there does not count; going further out from there on does."""
    speeds = one_joint(3, np.concatenate([smooth(3.0, 100), -smooth(3.0, 100), smooth(0.3, 60)]))
    recording = followed(speeds, twist=np.zeros((len(speeds), 6)))
    values = open_judge().rooms(recording.position)["singularity"][:, 0]
    judge = open_judge(singularity_distance=0.1, joint_speed=[1.0] * 7)
    near = values < 0.1
    assert near[80:120].all()
    assert not near[[0, -1]].any()
    fast = (np.abs(speeds[:, 3]) > 1.0 * 1.01) & ~near
    assert judge.recording(recording).by_bound["joint_speed"] == fast.sum() > 0
    assert (np.abs(speeds[:, 3]) > 1.01).sum() > fast.sum()


def test_what_has_to_rest_may_not_move_for_longer_than_it_takes(open_judge):
    judge = open_judge(stopping_time=0.1)
    speeds = one_joint(0, smooth(0.5))
    after = np.arange(60) >= 40
    moving = followed(speeds, must_rest=after)
    assert broken(judge.recording(moving)) == {"stopping_time"}
    speeds[50:] = 0.0
    assert broken(judge.recording(followed(speeds, must_rest=after))) == set()


def test_a_smallest_margin_is_told_for_each_bound(open_judge):
    verdict = open_judge().recording(followed(one_joint(0, smooth(1.0))))
    report = verdict.report()["bounds"]
    assert set(report) >= set(UNITS) - {"frame"}
    for name, bound in report.items():
        assert bound["violations"] == 0
        assert bound["unit"] == UNITS[name]
    assert math.isclose(report["joint_speed"]["smallest_margin"], 740.0, abs_tol=0.1)


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
    with pytest.raises(BagError, match="no bag"):
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
    assert "no bag" in capsys.readouterr().err
