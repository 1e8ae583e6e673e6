"""`vla_ros safety lag`: the delay and the error of an arm whose delay and error are known."""

import sys
from pathlib import Path

import numpy as np
import pytest

from vla_ros import robots
from vla_ros.cli import main
from vla_ros.robot import RobotConfig
from vla_ros.safety.lag import Lag, LagError, advice, measure

sys.path.append(str(Path(__file__).parents[1] / "replay"))
from make_bags import MS, START, make_bag
from panda_bags import HOME, Maker

ROBOT = RobotConfig.load(Path(__file__).parents[2] / "config" / "robots" / "panda.yaml")
SECOND = 1_000_000_000


def sent_velocities(seconds: float, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Return starts and stops in all directions at 100 Hz, and their times in ns."""
    times = np.arange(0, int(seconds * SECOND), 10 * MS)
    knots = np.arange(0.0, seconds + 0.3, 0.3)
    speeds = rng.uniform(-0.15, 0.15, (len(knots), 3))
    velocities = [np.interp(times / SECOND, knots, column) for column in speeds.T]
    return times, np.stack(velocities, axis=1)


def followed(times, velocities, when, delay):
    """Return where an arm is that does what was sent `delay` s later."""
    fine = np.arange(0.0, times[-1] / SECOND + 0.02, 1e-4)
    held = velocities[np.clip(np.searchsorted(times / SECOND, fine, side="right") - 1, 0, None)]
    way = np.cumsum(held, axis=0) * 1e-4
    return np.stack([np.interp(when - delay, fine, column) for column in way.T], axis=1)


@pytest.mark.parametrize("delay", [0.0, 0.013, 0.05, 0.12, 0.3])
def test_a_pure_delay_is_found_to_the_millisecond(delay):
    rng = np.random.default_rng(0)
    times, velocities = sent_velocities(8.0, rng)
    measured = np.sort(rng.choice(8000, 2000, replace=False)) * MS  # at no fixed rate
    places = followed(times, velocities, measured / SECOND, delay)
    lag = measure(times, velocities, measured, places + rng.normal(0.0, 5e-5, places.shape))
    assert lag.delay == pytest.approx(delay, abs=0.0021)
    assert lag.worst < 0.001
    assert lag.speed == pytest.approx(np.linalg.norm(velocities, axis=1).max())


def test_what_the_arm_adds_is_the_tracking_error():
    rng = np.random.default_rng(1)
    times, velocities = sent_velocities(8.0, rng)
    measured = np.arange(0, 8000, 8) * MS
    places = followed(times, velocities, measured / SECOND, 0.03)
    seconds = measured / SECOND
    places[:, 1] += np.where((seconds > 4.0) & (seconds < 4.02), 0.006, 0.0)
    lag = measure(times, velocities, measured, places)
    assert lag.delay == pytest.approx(0.03, abs=0.002)
    assert lag.worst == pytest.approx(0.006, abs=0.001)
    assert lag.error < 0.007


def test_a_run_without_motion_is_not_enough():
    times = np.arange(0, 500) * 10 * MS
    with pytest.raises(LagError, match="record a longer run"):
        measure(
            times, np.full((500, 3), 1e-9) * (times[:, None] < 100 * MS), times, np.zeros((500, 3))
        )
    with pytest.raises(LagError, match="no joint states"):
        measure(times, np.zeros((500, 3)), times[:1], np.zeros((1, 3)))


@pytest.mark.parametrize(
    ("lag", "covered", "words"),
    [
        (Lag(0.04, 0.001, 0.002, 0.3, 5.0), True, "reaction_delay of 0.05 covers it"),
        (Lag(0.06, 0.001, 0.002, 0.3, 5.0), False, "TOO SMALL: set 0.072 or more"),
        (Lag(0.04, 0.001, 0.005, 0.3, 5.0), False, "TOO SMALL: set 0.006 or more"),
        (Lag(0.04, 0.001, 0.002, 0.1, 5.0), False, "the run was slow"),  # 6 mm at 0.3 m/s
    ],
)
def test_advice(lag, covered, words):
    found, lines = advice(lag, ROBOT)
    assert found is covered
    assert any(words in line for line in lines)


@pytest.mark.parametrize("topic", ["/safe_command", "/arm/safe_command"])
def test_the_command_reads_a_recorded_run(tmp_path, capsys, topic):
    """The arm turns about its base's axis; its joint states show it 40 ms after the command."""
    maker = Maker()
    maker.text("/robot_description", START, robots.urdf("panda"))
    chain = ROBOT.chain(robots.urdf("panda"))
    times, velocities = sent_velocities(4.0, np.random.default_rng(2))
    speeds = velocities[:, 0] * 2.0
    angles = followed(times, np.repeat(speeds[:, None], 3, axis=1), times / SECOND, 0.04)[:, 0]
    for time, speed, angle in zip(times.tolist(), speeds, angles, strict=True):
        q = np.array([HOME[0] + angle, *HOME[1:]])
        lead = np.array([HOME[0] + angle + 0.04 * speed, *HOME[1:]])
        maker.joints(START + time, position=q)
        twist = chain.jacobian(lead)[:, 0] * speed
        maker.command(START + time, twist, topic=topic)
    bag = tmp_path / "bag"
    make_bag(bag, sorted(maker.messages, key=lambda m: m.received_ns))
    arguments = ["safety", "lag", str(bag), "--robot", "panda"]
    if topic != "/safe_command":
        assert main(arguments) == 1
        assert "has no safe_command" in capsys.readouterr().err
        arguments += ["--remap", f"{topic}:=/safe_command"]
    assert main(arguments) == 0
    shown = capsys.readouterr().out
    delay = int(shown.split("delay: ")[1].split()[0])
    assert delay == pytest.approx(40, abs=3)
    assert "reaction_delay of 0.05 covers it" in shown
