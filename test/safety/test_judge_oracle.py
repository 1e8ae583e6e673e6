"""The judge's arithmetic is that of MuJoCo, of brute force and of plain loops (`oracle`)."""

import math
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("mujoco", reason="the oracle of kinematics and dynamics is MuJoCo")

from arm_weight import mounted
from safety.oracle import MujocoArm, is_inside, sent_violations, surface_is_at

from vla_ros import robots
from vla_ros.replay.judge import Judge, Recording, read_parameters
from vla_ros.replay.judge_arm import Arm, smallest_singular_values
from vla_ros.replay.judge_volumes import outside

ROBOTS = Path(__file__).parents[2] / "config" / "robots"
PAYLOAD = {"payload_mass": 1.3, "payload_com": (0.01, -0.03, 0.05)}


def both(name, mount=lambda urdf, _: urdf):
    """Return the judge's arm and MuJoCo's, with a payload."""
    robot = read_parameters(ROBOTS / f"{name}.yaml")["robot"]
    joints = robot["joints"]
    urdf = mount(robots.urdf(name), robot["base_frame"])
    arm = Arm(
        urdf, robot["base_frame"], robot["tcp_frame"], joints,
        payload_mass=1.3, payload_centre=PAYLOAD["payload_com"],
    )  # fmt: skip
    return arm, MujocoArm(urdf, robot["tcp_frame"], joints, **PAYLOAD)


@pytest.mark.parametrize("name", robots.names())
def test_poses_and_jacobians_are_mujoco_s(name):
    arm, other = both(name)
    angles = np.random.default_rng(0).uniform(-2.5, 2.5, (50, len(arm.joints)))
    poses, jacobians = arm.poses(angles), arm.jacobian(angles)
    for i, given in enumerate(angles):
        position, rotation, jacobian = other.pose(given)
        assert np.allclose(poses.tip[i], position, atol=1e-9)
        assert np.allclose(poses.rotation[i], rotation, atol=1e-9)
        assert np.allclose(jacobians[i], jacobian, atol=1e-9)


@pytest.mark.parametrize("mount", [lambda urdf, _: urdf, mounted], ids=["upright", "mounted"])
@pytest.mark.parametrize("name", robots.names())
def test_torques_are_mujoco_s(name, mount):
    arm, other = both(name, mount)
    rng = np.random.default_rng(1)
    shape = (50, len(arm.joints))
    angles, speeds = rng.uniform(-2.5, 2.5, shape), rng.uniform(-2.0, 2.0, shape)
    accelerations = rng.uniform(-20.0, 20.0, shape)
    torques = arm.torques(angles, speeds, accelerations)
    for i in range(len(angles)):
        expected = other.torques(angles[i], speeds[i], accelerations[i])
        assert np.allclose(torques[i], expected, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("name", robots.names())
def test_jacobians_change_as_their_differences_say(name):
    arm, other = both(name)
    rng = np.random.default_rng(2)
    angles = rng.uniform(-2.0, 2.0, (10, len(arm.joints)))
    speeds = rng.uniform(-1.0, 1.0, angles.shape)
    rates = arm.jacobian_rate(angles, speeds)
    for i in range(10):
        later, earlier = (other.pose(angles[i] + s * 1e-4 * speeds[i])[2] for s in (1, -1))
        assert np.allclose(rates[i], (later - earlier) / 2e-4, atol=1e-5)


def test_singular_values_are_those_of_the_decomposition():
    rng = np.random.default_rng(3)
    scale = np.array([[1 / 0.3]] * 3 + [[1.0]] * 3)
    for joints in (5, 6, 7):
        jacobians = rng.normal(size=(20, 6, joints))
        found = smallest_singular_values(jacobians, 0.3)
        expected = [np.linalg.svd(scale * j, compute_uv=False)[-1] for j in jacobians]
        assert np.allclose(found, expected, atol=1e-7)


SHAPES = {
    "box": {"center": [0.3, 0.1, 0.2], "rpy": [0.4, -0.7, 1.9], "size": [0.4, 0.2, 0.6]},
    "sphere": {"center": [0.3, 0.0, 0.2], "radius": 0.3},
    "shell": {"shape": "sphere", "center": [0.3, 0.0, 0.2], "radius": 0.5, "inner_radius": 0.2},
    "cylinder": {"center": [0.1, 0.0, 0.2], "axis": [1.0, 2.0, 2.0], "radius": 0.3},
    "tube": {"shape": "cylinder", "center": [0.1, 0.0, 0.2], "axis": [0.0, 0.0, 1.0],
             "radius": 0.5, "inner_radius": 0.25},
    "half_space": {"normal": [2.0 / 3.0, -1.0 / 3.0, 2.0 / 3.0], "offset": 0.1},
    "capsule": {"from": [0.1, 0.0, 0.0], "to": [0.3, 0.4, 0.1], "radius": 0.15},
}  # fmt: skip


@pytest.mark.parametrize("name", SHAPES)
def test_distances_are_found_by_looking_around(name):
    shape = {"shape": name, **SHAPES[name]}
    rng = np.random.default_rng(4)
    points = rng.uniform(-0.6, 0.9, (12, 3))
    directions = rng.normal(size=(600, 3))
    directions /= np.linalg.norm(directions, axis=1)[:, None]
    for point, distance in zip(points, outside(shape, points), strict=True):
        assert (distance < 0.0) == is_inside(shape, point)
        # Toward the surface itself, too: random directions alone miss it.
        slope = [
            (outside(shape, (point + 1e-6 * axis)[None])[0] - distance) / 1e-6 for axis in np.eye(3)
        ]
        ways = np.vstack([directions, np.array(slope), -np.array(slope)])
        assert surface_is_at(shape, point, abs(distance), ways)


def test_speed_acceleration_and_jerk_are_those_of_plain_loops():
    """Irregular times, ticks without time and time that goes back, likewise."""
    judge = Judge(ROBOTS / "panda.yaml", robots.urdf("panda"))
    bounds = read_parameters(ROBOTS / "panda.yaml")["bounds"]
    rng = np.random.default_rng(5)
    found = np.zeros(3, dtype=int)
    for _ in range(30):
        count = 200
        steps = rng.choice((0, -5_000_000, 1_000, 3_000_000, 10_000_000, 15_000_000, 10**10), count)
        stamps = np.cumsum(np.where(rng.random(count) < 0.8, 10_000_000, steps))
        change = rng.normal(0.0, rng.choice((0.002, 0.01, 0.03)), (count, 6))
        twists = np.cumsum(change, axis=0) * 0.97 ** np.arange(count)[::-1, None]
        still = np.zeros((count, 7))
        recording = Recording(
            stamps, twists, still, still, np.full(count, np.nan), np.zeros(count, dtype=bool)
        )
        verdict = judge.recording(recording)
        for name, part in (("linear", twists[:, :3]), ("angular", twists[:, 3:])):
            kinds = ("speed", "acceleration", "jerk")
            expected = sent_violations(
                stamps.tolist(), part.tolist(), *(bounds[f"{name}_{k}"] for k in kinds), 0.01
            )
            assert tuple(verdict.by_bound[f"{name}_{k}"] for k in kinds) == expected
            found += expected
    # Each of them was broken, and kept, many times.
    assert (found > 20).all()
    assert (found < 30 * 200 * 2 - 20).all()


def test_the_cone_is_an_angle():
    judge = Judge(ROBOTS / "panda.yaml", robots.urdf("panda"))
    _, other = both("panda")
    bounds = read_parameters(ROBOTS / "panda.yaml")["bounds"]
    angles = np.random.default_rng(6).uniform(-2.0, 2.0, (50, 7))
    for given, left in zip(angles, judge.rooms(angles)["tool_cone"][:, 0], strict=True):
        tool = other.pose(given)[1] @ bounds["tool_axis"]
        angle = math.acos(np.clip(np.dot(tool, bounds["tool_cone_axis"]), -1.0, 1.0))
        assert math.isclose(bounds["tool_cone_angle"] - angle, left, abs_tol=1e-6)
