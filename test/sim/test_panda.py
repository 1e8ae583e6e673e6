"""The simulated robot: the same run twice, a velocity interface like a robot's, its limits."""

import hashlib
import subprocess
import sys

import numpy as np
import pytest

from vla_ros.kinematics import rotvec_from_rotation
from vla_ros.sim import follower
from vla_ros.sim.panda import CUBES, HOME, PandaSim

RUN = """
import hashlib, numpy as np
from vla_ros.sim.panda import PandaSim
with PandaSim() as sim:
    sim.reset(7)
    for i in range(30):
        sim.set_twist(np.array([0.1, 0.1, -0.2, 0.0, 0.0, 0.5]))
        sim.set_gripper(0.08 if i < 15 else 0.0)
        sim.advance(1 / 30)
    digest = hashlib.sha256(sim.data.qpos.tobytes() + sim.data.qvel.tobytes())
    for camera in ("front", "wrist"):
        digest.update(sim.render(camera).tobytes())
    print(digest.hexdigest())
"""


@pytest.fixture(scope="module")
def sim():
    with PandaSim(cameras={}) as robot:
        yield robot


def linear(*velocity):
    return np.array([*velocity, 0.0, 0.0, 0.0])


def drive(sim, twist, seconds, tick=0.01):
    for _ in range(round(seconds / tick)):
        sim.set_twist(twist)
        sim.advance(tick)


def stopping_time_ms(sim):
    """Time until the last joint speed over 0.02 rad/s, while no other command comes."""
    start, last = sim.time_ns, sim.time_ns
    for _ in range(250):
        sim.advance(0.002)
        if np.abs(sim.data.qvel[:7]).max() > 0.02:
            last = sim.time_ns
    return (last - start) / 1e6


def test_same_seed_gives_the_same_state_and_pictures_in_two_processes():
    def output():
        command = [sys.executable, "-c", RUN]
        return subprocess.run(
            command, check=True, capture_output=True, text=True, timeout=100
        ).stdout

    first = output()
    assert len(first) == 65
    assert output() == first


def test_reset_leaves_nothing_of_the_run_before(sim):
    states = []
    for _ in range(2):
        sim.reset(11)
        drive(sim, linear(0.1, 0.2, -0.1), 0.3)
        states.append(sim.data.qpos.tobytes())
        sim.reset(12)
        drive(sim, linear(-0.2, 0.0, 0.1), 0.5)
    assert states[0] == states[1]


def test_seeds_move_the_arm_and_scatter_the_cubes(sim):
    scenes = []
    for seed in range(20):
        sim.reset(seed)
        places = sim.cube_poses()[:, :2]
        assert (places > [0.37, -0.23]).all()
        assert (places < [0.63, 0.23]).all()
        gaps = [np.linalg.norm(places[i] - places[j]) for i, j in ((0, 1), (0, 2), (1, 2))]
        assert min(gaps) > 0.07
        assert 0.0 < np.abs(sim.data.qpos[:7] - HOME).max() < 0.1
        assert sim.joint_sample(0).gripper == pytest.approx(0.08, abs=1e-3)
        scenes.append(tuple(places.ravel().round(4)))
    assert len(set(scenes)) == 20


@pytest.mark.parametrize(
    "twist",
    [linear(0.25, 0, 0), linear(0, -0.25, 0), linear(0, 0, -0.2), np.array([0, 0, 0, 0, 0, 1.0])],
)
def test_the_arm_follows_the_commanded_twist(sim, twist):
    """Within 2 % of the distance and the turn, after the delay of a tick, and nowhere else."""
    sim.reset(3)
    drive(sim, twist, 0.2)
    place, rotation = sim.tcp_pose()
    drive(sim, twist, 0.4)
    place_after, rotation_after = sim.tcp_pose()
    assert place_after - place == pytest.approx(0.4 * twist[:3], abs=0.002)
    turned = rotation_after @ rotation.T
    angle = np.arctan2(turned[1, 0], turned[0, 0])
    assert angle == pytest.approx(0.4 * twist[5], abs=0.008)
    assert turned[2, 2] > np.cos(0.004)


def test_the_orientation_does_not_drift(sim):
    """In ten seconds of wandering it turns by less than 0.003 rad; none of it is left at rest."""

    def turned():
        return np.linalg.norm(rotvec_from_rotation(sim.tcp_pose()[1] @ start.T))

    sim.reset(1)
    start = sim.tcp_pose()[1]
    for i in range(1000):
        t = 0.01 * i
        goal = [0.5 + 0.12 * np.cos(2 * t), 0.18 * np.sin(1.3 * t), 0.2 + 0.08 * np.sin(3 * t)]
        velocity = 8.0 * (np.array(goal) - sim.tcp_pose()[0])
        velocity *= min(1.0, 0.25 / np.linalg.norm(velocity))
        sim.set_twist(linear(*velocity))
        sim.advance(0.01)
        assert turned() < 0.003
    drive(sim, np.zeros(6), 0.5)
    assert turned() < 0.0002


def test_a_zero_command_keeps_every_joint_still(sim):
    """The posture in the null space moves only with the TCP, even far from the preferred one."""
    sim.reset(0)
    drive(sim, linear(0.05, 0.25, 0.0), 1.2)
    drive(sim, np.zeros(6), 0.5)
    drive(sim, linear(0.0, -0.25, 0.0), 0.6)
    drive(sim, np.zeros(6), 0.2)
    assert np.abs(sim.data.qpos[:7] - HOME).max() > 0.1
    before = sim.joint_sample(0).position
    drive(sim, np.zeros(6), 2.0)
    assert sim.joint_sample(0).position == pytest.approx(before, abs=5e-4)


@pytest.mark.parametrize("seed", range(4))
def test_a_zero_command_stops_the_arm_within_60_ms(sim, seed):
    """From the fastest straight motion that the robot file allows, 0.3 m/s, without a ramp."""
    direction = np.random.default_rng(seed).normal(size=3)
    sim.reset(seed)
    drive(sim, linear(*(0.3 * direction / np.linalg.norm(direction))), 0.4)
    assert np.abs(sim.data.qvel[:7]).max() > 0.1
    sim.set_twist(np.zeros(6))
    assert stopping_time_ms(sim) <= 60


def test_a_ramped_stop_ends_within_30_ms_of_the_command(sim):
    """Ramped at 5 m/s2, as the safety filter brakes."""
    sim.reset(0)
    drive(sim, linear(0.0, 0.3, 0.0), 0.4)
    for speed in (0.25, 0.2, 0.15, 0.1, 0.05):
        drive(sim, linear(0.0, speed, 0.0), 0.01)
    sim.set_twist(np.zeros(6))
    assert stopping_time_ms(sim) <= 30


def test_it_halts_by_itself_when_commands_stop(sim):
    """It moves on for the timeout of 0.2 s, and is still 0.1 s later."""
    sim.reset(0)
    drive(sim, linear(0.0, 0.25, 0.0), 0.3)
    sim.advance(0.18)
    assert np.abs(sim.data.qvel[:7]).max() > 0.1
    sim.advance(0.12)
    assert np.abs(sim.data.qvel[:7]).max() < 0.02
    place = sim.tcp_pose()[0]
    sim.advance(0.5)
    assert sim.tcp_pose()[0] == pytest.approx(place, abs=1e-3)


@pytest.mark.parametrize("direction", [(1, 0, 0), (-1, 0, 0), (0, 1, 0), (0, 0, 1)])
def test_joint_limits_hold_when_the_arm_is_driven_out_of_reach(sim, direction):
    """Range, speed and acceleration of the plan; then the way back is free, without wind-up."""
    sim.reset(0)
    plan = sim._follower
    low, high = sim.model.jnt_range[:7].T
    before = plan.velocity
    for _ in range(500):
        sim.set_twist(linear(*(0.3 * np.array(direction))))
        sim.advance(0.01)
        assert (np.abs(plan.velocity) <= follower.JOINT_SPEED + 1e-9).all()
        change = np.abs(plan.velocity - before)
        assert (change <= follower.JOINT_ACCELERATION * 0.01 + 1e-9).all()
        before = plan.velocity
        assert (sim.data.qpos[:7] > low).all()
        assert (sim.data.qpos[:7] < high).all()
    at_limit = sim.tcp_pose()[0]
    drive(sim, linear(*(-0.3 * np.array(direction))), 1.0)
    assert (sim.tcp_pose()[0] - at_limit) @ np.array(direction) < -0.1


def test_gripper_opens_in_metres_and_clips(sim):
    sim.reset(0)
    for wanted, reached in ((0.03, 0.03), (0.0, 0.0), (1.0, 0.08), (-1.0, 0.0)):
        sim.set_gripper(wanted)
        sim.advance(0.6)
        assert sim.joint_sample(0).gripper == pytest.approx(reached, abs=2e-3)


def test_effort_includes_gravity_and_shows_a_push(sim):
    """At rest it is gravity's torque; a force F on the TCP adds -J^T F."""
    import mujoco

    sim.reset(0)
    sim.advance(1.0)
    rest = sim.joint_sample(5)
    assert rest.stamp_ns == 5
    assert rest.effort == pytest.approx(sim.data.qfrc_bias[:7], abs=0.1)
    assert abs(rest.effort[1]) > 10.0
    hand = sim.model.body("hand").id
    sim.data.xfrc_applied[hand, :3] = [0.0, 0.0, -10.0]
    sim.advance(1.5)
    jacobian = np.zeros((3, sim.model.nv))
    mujoco.mj_jac(sim.model, sim.data, jacobian, None, sim.data.xipos[hand], hand)
    expected = -jacobian[:, :7].T @ [0.0, 0.0, -10.0]
    assert sim.joint_sample(0).effort - rest.effort == pytest.approx(expected, abs=0.2)
    sim.data.xfrc_applied[hand] = 0.0


def test_advance_carries_what_is_left_of_a_step(sim):
    sim.reset(0)
    for _ in range(30):
        sim.advance(1 / 30)
    assert sim.time_ns == pytest.approx(1_000_000_000, abs=2_000_000)
    sim.advance_to(1_500_000_000)
    assert sim.time_ns == 1_500_000_000
    sim.advance_to(1_000_000_000)
    assert sim.time_ns == 1_500_000_000


def test_joint_velocities_move_the_joints_and_halt_when_they_stop_coming(sim):
    sim.reset(0)
    start = sim.data.qpos[:7].copy()
    velocity = np.array([0.1, -0.2, 0.1, 0.2, -0.1, 0.3, 0.5])
    for _ in range(100):
        sim.set_joint_velocity(velocity)
        sim.advance(0.01)
    assert sim.data.qpos[:7] - start == pytest.approx(velocity, abs=0.01)
    sim.advance(0.5)
    assert np.abs(sim.data.qvel[:7]).max() < 0.01
    assert sim.data.qpos[:7] - start == pytest.approx(1.2 * velocity, abs=0.01)


def test_cubes_are_put_where_they_are_asked_for(sim):
    sim.reset(0)
    places = [(0.4, 0.1, 0.02), (0.5, 0.2, 0.02), (0.6, -0.2, 0.02)]
    sim.put_cubes(places)
    assert sim.cube_poses()[:, :3] == pytest.approx(np.array(places))


def test_bad_commands_are_refused(sim):
    with pytest.raises(ValueError, match="6 finite numbers"):
        sim.set_twist(np.array([np.nan, 0, 0, 0, 0, 0]))
    with pytest.raises(ValueError, match="6 finite numbers"):
        sim.set_twist(np.zeros(3))
    with pytest.raises(ValueError, match="7 finite numbers"):
        sim.set_joint_velocity(np.zeros(6))
    with pytest.raises(ValueError, match="finite number of metres"):
        sim.set_gripper(float("inf"))


def test_a_recorded_state_is_shown_as_it_was():
    with PandaSim() as live, PandaSim() as shown:
        live.reset(5)
        drive(live, linear(0.1, 0.0, -0.2), 0.5)
        joints = live.joint_sample(0)
        shown.set_state(joints.position, joints.gripper, live.cube_poses())
        assert shown.tcp_pose()[0] == pytest.approx(live.tcp_pose()[0], abs=1e-12)
        for colour in CUBES:
            for a, b in zip(shown.cube_pose(colour), live.cube_pose(colour), strict=True):
                assert a == pytest.approx(b, abs=1e-9)
        difference = shown.render("front").astype(int) - live.render("front").astype(int)
        assert np.abs(difference).mean() < 0.1


def test_hash_helper_is_sensitive():
    """The determinism test compares hashes of pictures: a picture must depend on the scene."""
    with PandaSim({"front": (96, 96)}) as sim:
        digests = set()
        for seed in range(3):
            sim.reset(seed)
            digests.add(hashlib.sha256(sim.render("front").tobytes()).hexdigest())
        assert len(digests) == 3
