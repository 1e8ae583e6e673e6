"""`vla_ros safety explain`: every bound, what follows from it, and errors where it contradicts."""

import math
from collections import deque
from pathlib import Path

import cv2
import numpy as np
import pytest

from vla_ros import robots
from vla_ros.bounds import keys
from vla_ros.cli import main
from vla_ros.robot import RobotConfig
from vla_ros.safety.explain import joint_stoppings, report, tcp_stopping
from vla_ros.safety.explain_plot import draw
from vla_ros.safety.motion import MotionLimiter, TwistTarget

FILES = sorted((Path(__file__).parents[2] / "config" / "robots").glob("*.yaml"))
PANDA = next(path for path in FILES if path.stem == "panda")


def text(path: Path, rate_hz: float = 100.0) -> str:
    return report(RobotConfig.load(path), rate_hz, path.name)


def stopped_after(bounds, speed: float, rate_hz: float) -> float:
    """Return the way to rest, by integrating a plan that each tick holds, as a robot does.

    The deceleration goes linearly to v / (stopping_time - stopping_ramp) and back to 0.
    """
    tick, step = 1.5 / rate_hz, 1e-6
    braking = speed / (bounds.stopping_time - bounds.stopping_ramp)
    times = np.arange(0.0, bounds.stopping_time, step) + step / 2
    ramps = np.minimum(times, bounds.stopping_time - times) / bounds.stopping_ramp
    speeds = speed - np.cumsum(braking * np.minimum(ramps, 1.0)) * step
    held = speeds[(np.floor(times / tick) * tick / step).astype(int)]
    return float(held.sum() * step)


@pytest.mark.parametrize("path", FILES, ids=lambda p: p.stem)
def test_every_bound_is_shown_with_value_unit_and_place_on_80_columns(path):
    bounds = RobotConfig.load(path).bounds
    lines = text(path).splitlines()
    assert max(len(line) for line in lines) <= 80
    for name, key in keys().items():
        value = getattr(bounds, name)
        if isinstance(value, float) and not (key.gripper and path.stem == "ur5e"):
            row = next(line for line in lines if line.split()[:1] == [name])
            assert float(row.split()[1]) == pytest.approx(value, rel=1e-3)
            if key.unit not in ("", "-") and not key.gripper:
                assert row.split()[2] == key.unit
    for joint in RobotConfig.load(path).joints:
        assert sum(line.split()[:1] == [joint] for line in lines) == 3


def test_lists_volumes_and_points_are_shown():
    shown = text(next(p for p in FILES if p.stem == "ur5e"))
    assert "inside of reach: sphere, center 0 0 0.1625, radius 0.8, inner_radius 0.25 m" in shown
    assert "out of    column: capsule, start 0 0 0, end 0 0 0.3, radius 0.12 m" in shown
    assert "point     wrist: ball, TCP frame, position 0 0 -0.1, radius 0.06 m" in shown
    assert "no gripper" in shown
    assert "OFF: effort_samples is 0" in shown
    assert "OFF" not in text(PANDA)


@pytest.mark.parametrize("path", FILES, ids=lambda p: p.stem)
@pytest.mark.parametrize("rate_hz", [100.0, 500.0])
def test_the_stopping_distance_is_that_of_the_plan_as_it_is_sent(path, rate_hz):
    bounds = RobotConfig.load(path).bounds
    tcp = tcp_stopping(bounds, rate_hz)
    measured = stopped_after(bounds, tcp.speed, rate_hz)
    assert measured <= tcp.way * tcp.speed  # never less than what can happen,
    assert measured == pytest.approx(tcp.way * tcp.speed, rel=0.05)  # nor much more
    full = f"{tcp.speed * (tcp.way + tcp.delay):.4f}"
    assert full in text(path, rate_hz)
    assert tcp.stops_from == pytest.approx(
        bounds.tracking_error + (tcp.way + bounds.reaction_delay) * bounds.linear_speed
    )


def test_admissible_speed_against_distance():
    stopping = tcp_stopping(RobotConfig.load(PANDA).bounds, 100.0)
    distances = np.linspace(-0.01, 0.2, 2000)
    speeds = np.array([stopping.admissible(d) for d in distances])
    assert (np.diff(speeds) >= 0.0).all()
    assert speeds[distances < stopping.margin].max() == 0.0
    assert speeds[distances > stopping.full_speed_from].min() == stopping.speed
    most = np.array([stopping.stoppable(d) for d in distances])
    assert (speeds <= most).all()
    ways = most * (stopping.delay + stopping.way)
    assert (ways <= np.maximum(distances - stopping.margin, 0.0) + 1e-12).all()


@pytest.mark.parametrize(("name", "direction"), [("panda", (0, 0, -1)), ("ur5e", (0, 1, 0))])
def test_the_filter_lets_pass_about_what_is_said(name, direction):
    """An arm that follows after reaction_delay is driven at a face of its workspace."""
    robot = RobotConfig.load(next(p for p in FILES if p.stem == name))
    bounds, rate_hz = robot.bounds, 100.0
    limiter = MotionLimiter(robot, robots.urdf(name), rate_hz)
    chain, stopping = robot.chain(robots.urdf(name)), tcp_stopping(bounds, rate_hz)
    q = np.array([0.0, 0.15, 0.0, -2.2, 0.0, 2.35, 0.785])
    if name == "ur5e":
        q = np.array([0.0, -1.57, 1.9, -1.9, -1.57, 0.0])
    toward = np.array(direction, float)
    face = np.where(toward > 0.0, bounds.workspace_max, bounds.workspace_min) @ np.abs(toward)
    late = deque([np.zeros(len(q))] * round(bounds.reaction_delay * rate_hz))
    target = TwistTarget(tuple(toward * bounds.linear_speed), (0.0, 0.0, 0.0))
    seen = []
    for _ in range(300):
        motion = limiter.step(1.0 / rate_hz, target, q.tolist(), 0.0)
        distance = abs(chain.pose(q)[0] @ np.abs(toward) - face)
        seen.append((distance, motion.twist[:3] @ toward))
        late.append(motion.joint_velocity)
        q = q + late.popleft() / rate_hz
    distances, speeds = np.array(seen).T
    said = np.array([stopping.admissible(distance) for distance in distances])
    most = np.array([stopping.stoppable(distance) for distance in distances])
    assert (speeds <= most + 1e-6).all()
    assert (speeds <= said + 0.02 * bounds.linear_speed).all()  # it is slowing down already
    # The Panda's speed is 0.7999 of what is said at 19.2 mm, 15.2 beyond the margin.
    near = (distances < stopping.full_speed_from) & (distances > stopping.margin + 0.016)
    assert near.sum() > 10
    assert (speeds[near] > 0.8 * said[near]).all()
    assert distances.min() > bounds.tracking_error


def test_joints_stop_before_the_ends_of_their_ranges():
    bounds = RobotConfig.load(PANDA).bounds
    for stopping, speed in zip(joint_stoppings(bounds, 100.0), bounds.joint_speed, strict=True):
        assert stopping.speed == speed
        assert stopping.margin == bounds.joint_position_error


@pytest.mark.parametrize("path", FILES, ids=lambda p: p.stem)
def test_the_command_takes_a_file_or_a_name(path, tmp_path, capsys):
    plot = tmp_path / "speeds.png"
    assert main(["safety", "explain", path.stem, "--plot", str(plot)]) == 0
    by_name = capsys.readouterr().out
    assert str(plot) in by_name
    picture = cv2.imread(str(plot))
    assert picture.shape == (600, 1280, 3)
    assert main(["safety", "explain", str(path)]) == 0
    assert capsys.readouterr().out.splitlines()[1:] == by_name.splitlines()[1:-2]


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("linear_acceleration: 5.0", "linear_acceleration: 2.0", "bounds.linear_speed"),
        ("gripper_max: 0.08", "gripper_max: -0.08", "bounds.gripper_min"),
        ("overrun_time: 0.1", "", "bounds.overrun_time"),
        ("tool_cone_angle: 1.2", "tool_cone_angle: .nan", "bounds.tool_cone_angle"),
    ],
)
def test_a_contradiction_is_an_error_that_names_key_and_file(old, new, words, tmp_path, capsys):
    path = tmp_path / "mine.yaml"
    path.write_text(PANDA.read_text().replace(old, new))
    assert main(["safety", "explain", str(path)]) == 1
    shown = capsys.readouterr()
    assert shown.out == ""
    assert words in shown.err
    assert "mine.yaml" in shown.err


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["nope"], "panda, so101, ur5e"),
        (["panda", "--plot", "/nowhere/at/all/f.png"], "/nowhere/at/all/f.png"),
        (["panda", "--plot", "f.unheard"], "f.unheard"),
    ],
)
def test_wrong_arguments_say_what_to_do(arguments, words, capsys):
    assert main(["safety", "explain", *arguments]) == 1
    assert words in capsys.readouterr().err


def test_the_plot_shows_where_the_speed_is_reduced():
    """The line is blue over the white and blue of what is not, and what is, admissible."""
    robot = RobotConfig.load(PANDA)
    picture = draw(robot, 100.0)
    left, top, width, height = 96, 128, 480, 384
    stopping = tcp_stopping(robot.bounds, 100.0)
    farthest, fastest = 1.35 * stopping.full_speed_from, 1.2 * stopping.speed
    for share in (0.3, 0.5, 0.6, 0.9):
        speed = stopping.admissible(share * farthest)
        column = picture[top : top + height, left + math.floor(share * width)].astype(int)
        blue = np.nonzero((column[:, 0] > 150) & (column[:, 2] < 60))[0]
        assert len(blue) > 0
        assert blue.mean() == pytest.approx(height * (1.0 - speed / fastest), abs=3.0)
