"""What the filter does with each input, one by one. `test_properties.py` has what always holds."""

import gc
import math
import tracemalloc
from dataclasses import replace

import numpy as np
import pytest

from vla_ros.kinematics import quaternion_from_rotation, rotation_from_rotvec
from vla_ros.safety import SafetyFilter, SafetyState
from vla_ros.types import Command, JointVelocityCommand, PoseCommand

BAD_TWISTS = [
    np.array([math.nan, 0, 0, 0, 0, 0]),
    np.array([0, 0, 0, 0, 0, math.inf]),
    np.full(6, -math.inf),
    np.zeros(5),
    np.zeros((6, 6)),
    None,
    "abcdef",
    ["a"] * 6,
]


def named(decision):
    return {acting.name for acting in decision.acting}


def moving(bench, linear=(0.1, 0.0, 0.0)):
    """Bring the filter into motion."""
    decision = bench.run(25, linear=linear)
    assert decision.state is SafetyState.RUNNING
    assert np.allclose(decision.twist[:3], linear)
    return decision


def test_waits_for_the_description_then_for_joints_then_for_a_command(robot, urdf, bench):
    safety = SafetyFilter(robot, None, 100.0)
    decision = safety.step(bench.now, bench.command((0.1, 0, 0)), bench.joints())
    assert (decision.state, decision.reason) == (
        SafetyState.STARTING,
        "waiting for robot_description",
    )
    safety.set_robot_description(urdf)
    fresh = SafetyFilter(robot, urdf, 100.0)
    decision = fresh.step(bench.now, bench.command((0.1, 0, 0)), None)
    assert (decision.state, decision.reason) == (SafetyState.STARTING, "waiting for joint states")
    assert decision.gripper is None
    decision = bench.step(None)
    assert (decision.state, decision.reason) == (SafetyState.HOLDING, "waiting for a command")
    assert not decision.twist.any()


def test_what_piled_up_while_the_description_was_read_is_no_fault(robot, urdf, bench):
    """Neither the time that it took, nor commands from before, too old or not, hold the arm."""
    safety = SafetyFilter(robot, None, 100.0)
    queued = [bench.command((0.1, 0, 0))]
    safety.step(bench.now, queued[0], bench.joints())
    bench.now += 150_000_000
    queued.append(bench.command((0.1, 0, 0)))
    bench.now += 150_000_000
    assert safety.set_robot_description(urdf)
    assert not safety.set_robot_description(urdf)
    safety.forget(bench.now)
    for command in queued:
        safety.receive(command, bench.now)
    decision = safety.step(bench.now, None, bench.joints())
    assert (decision.state, decision.command_stamp_ns) == (SafetyState.HOLDING, None)
    assert named(decision) <= {"command_order", "command_timeout"}
    bench.now += bench.period_ns
    decision = safety.step(bench.now, bench.command((0.1, 0, 0)), bench.joints())
    assert decision.state is SafetyState.RUNNING
    # A clock that is wrong is another matter.
    old = bench.command((0.1, 0, 0), stamp_ns=bench.now - 3600 * 10**9)
    decision = safety.step(bench.now, old, None)
    assert {"command_max_age", "refused_command_hold"} <= named(decision)


def test_whoever_changes_a_decision_changes_no_later_one(bench):
    decision = moving(bench)
    sent, speeds = decision.twist.copy(), decision.joint_velocity.copy()
    decision.twist *= 100.0
    decision.joint_velocity *= 100.0
    again = bench.filter.step(decision.stamp_ns, None, None)
    assert np.array_equal(again.twist, sent)
    assert np.array_equal(again.joint_velocity, speeds)


def test_a_command_within_all_bounds_is_passed_on_unchanged(bench):
    decision = moving(bench, (0.05, 0.02, -0.01))
    assert decision.twist[:3].tolist() == [0.05, 0.02, -0.01]
    assert decision.acting == ()
    assert decision.reason == ""
    assert decision.command_stamp_ns == decision.stamp_ns


def test_acceleration_and_jerk_are_counted_from_the_last_sent_twist(bench):
    bench.step(None)
    sent = [bench.step(bench.command((0.1, 0, 0))).twist[0] for _ in range(20)]
    assert math.isclose(sent[-1], 0.1)
    changes = np.diff([0.0, *sent])
    assert changes.max() <= bench.robot.bounds.linear_acceleration * 0.01 + 1e-12
    assert np.abs(np.diff(changes)).max() <= bench.robot.bounds.linear_jerk * 1e-4 + 1e-12
    assert bench.decision.acting == ()


def test_speed_is_scaled_and_the_direction_kept(bench):
    bench.filter.tighten("linear_speed", 0.1)
    bench.filter.tighten("angular_speed", 0.2)
    decision = bench.run(60, linear=(0.4, 0.3, 0.0), angular=(0.0, 0.0, 2.0))
    assert np.allclose(decision.twist, [0.08, 0.06, 0, 0, 0, 0.2])
    amounts = {a.name: a.amount for a in decision.acting}
    assert math.isclose(amounts["linear_speed"], 0.4)
    assert math.isclose(amounts["angular_speed"], 1.8)


def test_slides_along_a_face_and_comes_back(bench):
    high = bench.robot.bounds.workspace_max
    bench.run(400, linear=(0.0, 0.1, -0.03))
    margin = bench.robot.bounds.tracking_error
    assert high[1] - 4.0 * margin < bench.tcp()[1] <= high[1] - margin + 1e-6
    assert bench.decision.twist[2] < -0.02
    assert "workspace_max.y" in named(bench.decision)
    decision = bench.run(40, linear=(0.0, -0.1, 0.0))
    assert math.isclose(decision.twist[1], -0.1, rel_tol=1e-6)


@pytest.mark.parametrize("corner", [(1, 1, 1), (1, -1, -1), (-1, 1, -1)])
def test_never_leaves_the_box(bench, corner):
    bounds = bench.robot.bounds
    bench.run(300, linear=corner)
    low, high = np.array(bounds.workspace_min), np.array(bounds.workspace_max)
    assert (bench.tcp() > low).all()
    assert (bench.tcp() < high).all()


def test_outside_a_face_out_is_refused_and_in_allowed(make_bench):
    # The arm stretched out: beyond the upper x face.
    bench = make_bench(position=(0.0, 0.6, 0.0, -1.0, 0.0, 1.8, 0.785))
    assert bench.tcp()[0] > bench.robot.bounds.workspace_max[0] + 0.01
    decision = bench.run(20, linear=(0.2, 0.1, 0.0))
    assert decision.twist[0] <= 0.0
    assert decision.twist[1] > 0.05
    decision = bench.run(40, linear=(-0.1, 0.05, 0.0))
    assert decision.twist[0] < -0.05


def test_the_gripper_starts_as_measured_and_is_clamped(bench):
    bench.opening = 0.03
    assert bench.step(None).gripper == 0.03
    assert bench.run(50, gripper=0.05).gripper == 0.05
    decision = bench.run(50, gripper=0.5)
    assert decision.gripper == 0.08
    assert named(decision) == {"gripper_max"}
    assert bench.run(50, gripper=-1.0).gripper == 0.0
    decision = bench.run(1, gripper=math.nan)
    assert decision.gripper == 0.0
    assert "gripper_finite" in named(decision)
    assert bench.run(1, gripper=None).gripper == 0.0


@pytest.mark.parametrize("twist", BAD_TWISTS, ids=str)
def test_malformed_commands_are_refused_and_brake(bench, twist):
    moving(bench)
    for _ in range(20):
        decision = bench.step(replace(bench.command(), twist=twist))
    assert decision.state is SafetyState.HOLDING
    assert not decision.twist.any()
    assert "refused: the command does not hold 6 finite numbers" in decision.reason
    assert "command_finite" in named(decision)


@pytest.mark.parametrize(
    ("changes", "name"),
    [
        ({"frame_id": "camera"}, "command_frame"),
        ({"frame_id": None}, "command_frame"),
        ({"stamp_ns": 10**9}, "command_max_age"),
        ({"stamp_ns": -(10**30)}, "command_finite"),
        ({"stamp_ns": math.nan}, "command_finite"),
        ({"stamp_ns": 2 * 10**12}, "stamp_max_future"),
        ({"twist": np.full(6, 1e308)}, "command_max_linear_speed"),
        ({"twist": np.array([0, 0, 0, 1e9, 0, 0])}, "command_max_angular_speed"),
    ],
)
def test_wrong_commands_are_refused_by_name_and_brake(bench, changes, name):
    moving(bench)
    for _ in range(20):
        decision = bench.step(replace(bench.command(), **changes))
    assert decision.state is SafetyState.HOLDING
    assert not decision.twist.any()
    assert name in named(decision)
    assert "refused: " in decision.reason
    bench.run(50, linear=(0.1, 0.0, 0.0))
    moving(bench)


def test_bad_commands_among_good_ones_hold_the_arm_still(bench):
    moving(bench)
    for _ in range(30):
        good = bench.command((0.1, 0.0, 0.0))
        bench.filter.receive(good, bench.now)
        bench.filter.receive(replace(good, frame_id="x", twist=np.ones(6)), bench.now)
        decision = bench.step(None)
        assert decision.state is SafetyState.HOLDING
        assert "command_frame" in named(decision)
    assert not decision.twist.any()


def test_one_bad_command_holds_for_the_time_of_the_robot_file(bench):
    moving(bench)
    bench.step(bench.command((0.1, 0, 0), frame_id="x"))
    states = [bench.run(1, linear=(0.1, 0, 0)).state for _ in range(60)]
    hold = round(bench.robot.bounds.refused_command_hold * bench.rate_hz)
    assert states == [SafetyState.HOLDING] * hold + [SafetyState.RUNNING] * (60 - hold)


def test_a_command_that_was_overtaken_does_not_hold(bench):
    moving(bench)
    late = bench.command((0.1, 0, 0), stamp_ns=bench.now - 50_000_000)
    assert bench.step(late).state is SafetyState.RUNNING
    assert bench.run(1, linear=(0.1, 0, 0)).state is SafetyState.RUNNING


def test_the_same_command_repeated_refreshes_no_timeout(bench):
    moving(bench)
    stuck = bench.command((0.1, 0, 0))
    for _ in range(30):
        decision = bench.step(stuck)
    assert decision.state is SafetyState.HOLDING
    for _ in range(30):
        decision = bench.step(replace(stuck, gripper=None))
    assert decision.state is SafetyState.HOLDING
    assert "command_timeout" in named(decision)


def test_commands_stamped_backwards_are_refused(bench):
    moving(bench)
    decision = bench.step(bench.command((0.1, 0, 0), stamp_ns=bench.now - 50_000_000))
    assert "command_order" in named(decision)


def test_silence_brakes_within_timeout_and_braking_time(bench):
    moving(bench, (0.1, 0.0, 0.0))
    began = bench.now - bench.period_ns
    while bench.step(None).twist.any():
        assert bench.now - began < 10**9
    bounds = bench.robot.bounds
    longest = bounds.command_timeout + bounds.stopping_time + 3 / bench.rate_hz
    assert bench.decision.stamp_ns - began <= longest * 1e9
    assert "no acceptable command for" in bench.decision.reason
    assert bench.decision.command_stamp_ns is None
    moving(bench)


@pytest.mark.parametrize("fault", ["silent", "frozen", "nan", "short", "backwards", "no effort"])
def test_joint_states_that_fail_brake_and_resume(bench, fault):
    moving(bench)
    frozen = bench.joints()
    for _ in range(25):
        good = bench.joints()
        joints = {
            "silent": None,
            "frozen": frozen,
            "nan": replace(good, position=good.position * math.nan),
            "short": replace(good, position=good.position[:6]),
            "backwards": replace(good, stamp_ns=good.stamp_ns - 10**9),
            "no effort": replace(good, effort=None),
        }[fault]
        bench.step(bench.command((0.1, 0, 0)), joints)
    assert bench.decision.state is SafetyState.HOLDING
    assert not bench.decision.twist.any()
    assert "joint_state_timeout" in named(bench.decision)
    assert "the joint states are" in bench.decision.reason
    moving(bench)


def test_joint_states_from_the_future_are_refused(bench):
    bench.joints_stamp_offset = 10**9
    decision = bench.step(bench.command())
    assert decision.state is SafetyState.STARTING
    assert "stamp_max_future" in named(decision)


def test_older_joint_states_leave_no_less_room(make_bench):
    places = []
    for age in (0, 80_000_000):
        bench = make_bench()
        bench.joints_stamp_offset = -age
        bench.run(500, linear=(0.0, 0.1, 0.0))
        places.append(bench.tcp()[1])
        assert places[-1] < bench.robot.bounds.workspace_max[1]
    assert places[1] <= places[0]


@pytest.fixture
def untouched(bench, robot, urdf):
    """A bench whose bounds on what is outside never act: measured effort alone does."""
    bounds = replace(robot.bounds, external_torque=(1e6,) * 7, contact_force=1e6)
    bench.filter = SafetyFilter(replace(robot, bounds=bounds), urdf, bench.rate_hz)
    return bench


def test_effort_over_its_bound_for_long_enough_latches(untouched):
    bench = untouched
    moving(bench)
    bench.effort = np.array([0, 0, 80.0, 0, 0, 0, 0])
    bench.run(4, linear=(0.1, 0, 0))
    assert bench.decision.state is SafetyState.RUNNING
    assert "effort" in named(bench.decision)
    bench.effort = np.zeros(7)
    bench.run(1, linear=(0.1, 0, 0))
    bench.effort = np.array([0, 0, -80.0, 0, 0, 0, 0])
    bench.run(4, linear=(0.1, 0, 0))
    assert bench.decision.state is SafetyState.RUNNING
    bench.run(1, linear=(0.1, 0, 0))
    assert bench.decision.state is SafetyState.PROTECTIVE_STOP
    assert "panda_joint3 measures -80.0 Nm, over its bound of 78.3 Nm" in bench.decision.reason
    bench.run(15, linear=(0.1, 0, 0))
    assert not bench.decision.twist.any()

    assert bench.filter.reset(bench.now) == (
        False,
        "not reset: panda_joint3 measures -80.0 Nm, over its bound of 78.3 Nm",
    )
    bench.effort = np.zeros(7)
    bench.step(None)
    assert bench.filter.reset(bench.now)[0]


def test_the_same_joint_sample_counts_once(untouched):
    bench = untouched
    moving(bench)
    bench.effort = np.full(7, 80.0)
    joints = bench.joints()
    for _ in range(9):
        bench.step(bench.command((0.1, 0, 0)), joints)
    assert bench.decision.state is SafetyState.RUNNING


def test_every_sample_between_two_steps_counts(untouched):
    bench = untouched
    moving(bench)
    bench.effort = np.full(7, 80.0)
    for _i in range(5):
        bench.now += 1_000_000
        bench.filter.receive_joints(bench.joints(), bench.now)
    assert bench.step(bench.command(), None).state is SafetyState.PROTECTIVE_STOP


def test_what_the_caller_could_not_read_is_named(bench):
    moving(bench)
    bench.filter.refuse("joint_states_malformed", "joint_states has no joint 'a'", bench.now)
    decision = bench.step(bench.command())
    assert "joint_states_malformed" in named(decision)
    assert decision.reason == "refused: joint_states has no joint 'a'"


def test_effort_is_not_supervised_where_the_file_says_so(bench, robot, urdf):
    unsupervised = replace(robot, bounds=replace(robot.bounds, effort_samples=0))
    bench.filter = SafetyFilter(unsupervised, urdf, 100.0)
    bench.effort = np.full(7, 100.0)
    moving(bench)


@pytest.mark.parametrize(
    ("engage", "state"),
    [
        (lambda f, now: f.estop(True, now), SafetyState.EMERGENCY_STOP),
        (lambda f, now: f.stop(now), SafetyState.STOPPED),
    ],
)
def test_stops_latch_until_reset_at_rest(bench, engage, state):
    moving(bench, (0.1, 0.0, 0.0))
    old = bench.command((0.1, 0.0, 0.0))
    engage(bench.filter, bench.now)
    assert bench.filter.reset(bench.now)[0] is False
    bench.filter.estop(False, bench.now)
    assert bench.step(bench.command((0.1, 0, 0))).state is state
    assert bench.filter.reset(bench.now) == (False, "not reset: the arm is still braking")
    decision = bench.run(15, linear=(0.1, 0, 0))
    assert (decision.state, decision.twist.any()) == (state, False)

    moves = replace(bench.joints(), velocity=np.full(7, 0.05))
    bench.step(None, moves)
    assert bench.filter.reset(bench.now) == (
        False,
        "not reset: the arm still moves, at 0.050 rad/s",
    )
    bench.step(None)
    assert bench.filter.reset(bench.now)[0] is True
    assert bench.step(None).state is SafetyState.HOLDING
    assert bench.step(old).state is SafetyState.HOLDING
    bench.run(50, linear=(0.1, 0.0, 0.0))
    moving(bench)


def test_no_reset_without_fresh_joint_states(bench):
    moving(bench)
    bench.filter.stop(bench.now)
    for _ in range(20):
        bench.step(None, None)
    assert "no fresh joint states" in bench.filter.reset(bench.now)[1]


def test_no_reset_while_the_estop_is_engaged(bench):
    bench.step(None)
    bench.filter.estop(True, bench.now)
    bench.step(None)
    assert bench.filter.reset(bench.now) == (False, "not reset: the e-stop is still engaged")


def test_reset_with_nothing_latched(bench):
    assert bench.filter.reset(bench.now) == (True, "nothing is latched")


def test_a_graver_stop_replaces_a_lesser_one_and_not_the_reverse(bench):
    bench.filter.stop(bench.now)
    bench.filter.estop(True, bench.now)
    bench.filter.stop(bench.now)
    assert bench.step(None).state is SafetyState.EMERGENCY_STOP


def test_the_gripper_holds_while_latched(bench):
    bench.run(50, gripper=0.04)
    bench.filter.stop(bench.now)
    assert bench.run(3, gripper=0.0).gripper == 0.04
    bench.filter.reset(bench.now)
    assert bench.run(3, gripper=None).gripper == 0.04


def test_time_that_stands_still_or_goes_back_changes_nothing(bench):
    moving(bench)
    before = bench.decision.twist
    for offset in (0, -1, -(10**9), -1):
        bench.now += offset - bench.period_ns if bench.now else 0
        decision = bench.step(bench.command((-0.2, 0.0, 0.0)))
        assert np.array_equal(decision.twist, before)


def test_a_clock_that_was_set_back_an_hour_keeps_no_command_alive(bench):
    moving(bench)
    bench.now -= 3600 * 10**9
    for _ in range(25):
        decision = bench.step(None)
    assert (decision.state, decision.twist.any()) == (SafetyState.HOLDING, False)
    moving(bench)


def test_a_late_step_changes_no_more_than_one_and_a_half_periods(bench):
    moving(bench)
    bench.now += 60_000_000
    decision = bench.step(bench.command((-0.1, 0.0, 0.0)))
    assert 0.1 - 5.0 * 0.015 <= decision.twist[0] < 0.1


def test_a_rate_too_low_to_brake_with_is_refused(robot, urdf):
    with pytest.raises(ValueError, match=r"10.0 Hz is too low for .*stopping_time.*use at least"):
        SafetyFilter(robot, urdf, 10.0)


class Hostile:
    """Raises on whatever is asked of it."""

    def __getattribute__(self, name):
        raise RuntimeError(name)


@pytest.mark.parametrize("now", [math.nan, None, "now", 2**80, -(2**80), Hostile], ids=str)
@pytest.mark.parametrize("thing", [Hostile, object(), "text", 3, math.nan, []], ids=str)
def test_never_raises(bench, now, thing):
    moving(bench)
    # Made here: pytest itself cannot look at such objects.
    now, thing = (Hostile() if value is Hostile else value for value in (now, thing))
    for _ in range(3):
        decision = bench.filter.step(now, thing, thing)
        assert np.array_equal(decision.twist, bench.decision.twist)
    hostile = Command(Hostile(), Hostile(), Hostile(), Hostile())
    assert np.isfinite(bench.filter.step(bench.now, hostile, hostile).twist).all()


def test_is_deterministic(make_bench):
    rng = np.random.default_rng(3)
    twists = rng.normal(0.0, 0.5, (200, 6))
    first, second = make_bench(), make_bench()
    for twist in twists:
        one = first.step(first.command(twist[:3], twist[3:]))
        two = second.step(second.command(twist[:3], twist[3:]))
        assert np.array_equal(one.twist, two.twist)
        assert one.acting == two.acting


def test_holds_no_more_memory_the_longer_it_runs(bench):
    joints = bench.joints()

    def drive(count):
        for i in range(count):
            frame = "panda_link0" if i % 3 else f"frame{i}"
            bench.now += bench.period_ns
            desired = bench.command((0.1, 0, 0), frame_id=frame)
            bench.filter.step(bench.now, desired, replace(joints, stamp_ns=bench.now))

    drive(500)
    gc.collect()
    tracemalloc.start()
    drive(500)
    base = tracemalloc.get_traced_memory()[0]
    drive(5000)
    gc.collect()
    grown = tracemalloc.get_traced_memory()[0] - base
    tracemalloc.stop()
    assert grown < 4000


def pose(bench, position, quaternion=(1.0, 0.0, 0.0, 0.0), **changes):
    given = {
        "stamp_ns": bench.now,
        "frame_id": bench.robot.base_frame,
        "position": np.array(position),
        "quaternion": np.array(quaternion),
        **changes,
    }
    return PoseCommand(**given)


def test_goes_to_a_pose_and_rests_there(bench):
    _, rotation = bench.chain.pose(bench.position)
    goal = bench.tcp() + np.array([0.03, -0.05, -0.02])
    turned = rotation_from_rotvec(np.array([0.0, 0.0, 0.2])) @ rotation
    for _ in range(400):
        bench.step(pose(bench, goal, quaternion_from_rotation(turned)))
    assert np.abs(bench.tcp() - goal).max() < 1e-3
    assert np.abs(bench.chain.pose(bench.position)[1] - turned).max() < 5e-3
    assert np.linalg.norm(bench.decision.twist) < 1e-2


def test_deltas_lead_as_far_as_their_sum_at_their_own_pace(bench):
    """30 Hz, 2 mm each along the tool: 60 mm/s, after the arm has caught up."""
    start, rotation = bench.chain.pose(bench.position)
    speeds = []
    for tick in range(240):
        command = None
        if tick * 30 // 100 != (tick - 1) * 30 // 100 and tick < 200:
            delta = {"frame_id": bench.robot.tcp_frame, "delta": True}
            command = pose(bench, (0.0, 0.0, 0.002), (0.0, 0.0, 0.0, 1.0), **delta)
        bench.step(command)
        speeds.append(bench.decision.twist[:3] @ rotation[:, 2])
    assert np.mean(speeds[100:200]) == pytest.approx(0.06, rel=0.05)
    way = (bench.tcp() - start) @ rotation[:, 2]
    # Silence after the last one stops the arm a little before it is there.
    assert 0.10 < way <= 0.12 + 1e-3


def test_deltas_against_a_face_do_not_pile_up(bench):
    delta = {"frame_id": bench.robot.tcp_frame, "delta": True}
    still = (0.0, 0.0, 0.0, 1.0)
    for _ in range(900):
        bench.step(pose(bench, (0.0, 0.0, 0.003), still, **delta))
    assert bench.tcp()[2] > bench.robot.bounds.workspace_min[2]
    low = bench.tcp()[2]
    for _ in range(60):
        bench.step(pose(bench, (0.0, 0.0, -0.003), still, **delta))
    assert bench.tcp()[2] > low + 0.01


def test_follows_joint_velocities(bench):
    wish = np.array([0.05, -0.02, 0.03, 0.04, 0.0, -0.05, 0.1])
    for _ in range(50):
        decision = bench.step(JointVelocityCommand(bench.now, wish))
    jacobian = bench.chain.jacobian(bench.position)
    assert np.allclose(decision.twist, jacobian @ wish, atol=2e-3)


def test_sends_joint_velocities_exactly_where_the_robot_follows_them(bench, robot, urdf):
    bench.filter = SafetyFilter(robot, urdf, bench.rate_hz, output="joint_velocity")
    wish = np.array([0.05, -0.02, 0.03, 0.04, 0.0, -0.05, 0.1])
    for _ in range(50):
        decision = bench.step(JointVelocityCommand(bench.now, wish))
    assert np.allclose(decision.joint_velocity, wish, rtol=1e-6)
    assert decision.acting == ()


@pytest.mark.parametrize(
    ("make", "name"),
    [
        (lambda b: pose(b, (math.nan, 0, 0)), "command_finite"),
        (lambda b: pose(b, (0.5, 0, 0.3), (1.0, 1.0, 0.0, 0.0)), "command_quaternion"),
        (lambda b: pose(b, (0.5, 0, 0.3), (0.0, 0.0, 0.0, 0.0)), "command_quaternion"),
        (lambda b: pose(b, (0.5, 0, 0.3), frame_id="panda_hand_tcp"), "command_frame"),
        (lambda b: pose(b, (0.0, 0, 0.3), delta=True), "command_frame"),
        (lambda b: pose(b, (0.5, 0, 0.3), stamp_ns=b.now - 10**10), "command_max_age"),
        (lambda b: pose(b, (0.5, 0.3)), "command_finite"),
        (lambda _: PoseCommand(None, None, None, None), "command_finite"),
        (lambda b: JointVelocityCommand(b.now, np.zeros(6)), "command_finite"),
        (lambda b: JointVelocityCommand(b.now, np.full(7, math.inf)), "command_finite"),
        (lambda b: JointVelocityCommand(b.now, np.full(7, 1e9)), "command_max_angular_speed"),
        (lambda _: JointVelocityCommand(None, np.zeros(7)), "command_finite"),
    ],
)
def test_wrong_poses_and_joint_velocities_are_refused_by_name(bench, make, name):
    moving(bench)
    for _ in range(25):
        decision = bench.step(make(bench))
    assert decision.state is SafetyState.HOLDING
    assert not decision.twist.any()
    assert name in named(decision)


def test_tightening_holds_at_once_and_loosening_is_refused(bench):
    moving(bench)
    with pytest.raises(ValueError, match="can only be tightened"):
        bench.filter.tighten("linear_speed", 0.5)
    bench.filter.tighten("linear_speed", 0.04)
    bench.run(60, linear=(0.1, 0.0, 0.0))
    assert bench.decision.twist[0] == pytest.approx(0.04)
    bench.filter.tighten("bounds.command_timeout", 0.03)
    for _ in range(4):
        decision = bench.step(None)
    assert decision.state is SafetyState.HOLDING


def test_the_speed_is_scaled_down_to_nothing_and_up_again(bench):
    moving(bench)
    for scale in (-0.1, 1.1, math.nan):
        with pytest.raises(ValueError, match="speed_scale"):
            bench.filter.set_speed_scale(scale)
    bench.filter.set_speed_scale(0.2)
    assert bench.run(60, linear=(0.1, 0.0, 0.0)).twist[0] <= 0.06 + 1e-9
    bench.filter.set_speed_scale(0.0)
    decision = bench.run(20, linear=(0.1, 0.0, 0.0))
    assert (decision.state, decision.twist.any()) == (SafetyState.HOLDING, False)
    assert decision.reason == "the speed is scaled to 0"
    bench.filter.set_speed_scale(1.0)
    assert bench.run(40, linear=(0.1, 0.0, 0.0)).twist[0] == pytest.approx(0.1)


def test_joint_states_that_repeat_the_same_positions_stop_a_moving_arm(bench):
    moving(bench)
    seen = bench.position.copy()
    for _ in range(100):
        joints = replace(bench.joints(), position=seen)
        decision = bench.step(bench.command((0.1, 0.0, 0.0)), joints)
    assert decision.state is SafetyState.PROTECTIVE_STOP
    assert not decision.twist.any()
    assert "repeat the same positions" in decision.reason
    assert bench.filter.reset(bench.now)[0]


def test_an_arm_at_rest_may_repeat_its_positions(bench):
    assert bench.run(300).state is SafetyState.RUNNING


def test_margins_are_told_on_request(bench):
    margins = moving(bench).margins
    assert margins["external_torque"] == pytest.approx(9.0)
    assert margins["contact_force"] == pytest.approx(40.0)
    assert 0.0 < margins["effort"] < 78.3
