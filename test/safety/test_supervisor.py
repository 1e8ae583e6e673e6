"""Which state the filter is in: silence, two commanders, approvals, lateness, the e-stop."""

from dataclasses import replace

import pytest

from vla_ros.safety import SafetyFilter, SafetyState
from vla_ros.safety.inputs import Refusal
from vla_ros.safety.supervisor import Supervisor

MS = 1_000_000
START = 10**12


def supervisor(robot, *, require_approval=False, **bounds):
    changed = replace(robot, bounds=replace(robot.bounds, **bounds))
    return Supervisor(changed, 100.0, require_approval=require_approval)


def assess(watched, now=START, *, described=True, joint_age_ns=0, command_age_ns=0):
    return watched.assess(
        now, described=described, joint_age_ns=joint_age_ns, command_age_ns=command_age_ns
    )


def test_runs_when_all_is_well(robot):
    found = assess(supervisor(robot))
    assert (found.state, found.reason, found.cause) == (SafetyState.RUNNING, "", "")


@pytest.mark.parametrize(
    ("given", "state", "reason", "cause"),
    [
        ({"described": False}, SafetyState.STARTING, "waiting for robot_description", ""),
        ({"joint_age_ns": None}, SafetyState.STARTING, "waiting for joint states", ""),
        (
            {"joint_age_ns": 101 * MS},
            SafetyState.HOLDING,
            "the joint states are 0.10 s old",
            "joint_state_timeout",
        ),
        (
            {"joint_age_ns": 1_795_240_811 * 1000 * MS},
            SafetyState.HOLDING,
            "the joint states are stamped 0, which is no time",
            "joint_state_timeout",
        ),
        ({"command_age_ns": None}, SafetyState.HOLDING, "waiting for a command", ""),
        (
            {"command_age_ns": 150 * MS},
            SafetyState.HOLDING,
            "no acceptable command for 0.15 s",
            "command_timeout",
        ),
    ],
)
def test_what_is_missing_is_named(robot, given, state, reason, cause):
    found = assess(supervisor(robot), **given)
    assert (found.state, found.reason, found.cause) == (state, reason, cause)


def test_two_publishers_hold_and_are_named_until_one_is_left(robot):
    watched = supervisor(robot)
    watched.publishers(["/policy_node", "/teleop"])
    found = assess(watched)
    assert (found.state, found.cause, found.amount) == (
        SafetyState.HOLDING,
        "command_publishers",
        1.0,
    )
    assert "/policy_node, /teleop" in found.reason
    watched.publishers(["/policy_node"])
    assert assess(watched).state is SafetyState.RUNNING


def test_each_new_instruction_needs_its_own_approval(robot):
    watched = supervisor(robot, require_approval=True)
    assert assess(watched).cause == "require_approval"
    assert watched.instruct("pick up the red cube")
    assert "'pick up the red cube'" in assess(watched).reason
    assert watched.approve() == (True, "approved: 'pick up the red cube'")
    assert assess(watched).state is SafetyState.RUNNING
    # Told again, as a latched topic does, it is no new one.
    assert not watched.instruct("pick up the red cube")
    assert assess(watched).state is SafetyState.RUNNING
    assert watched.instruct("pick up the blue cube")
    assert assess(watched).state is SafetyState.HOLDING
    watched.approve()
    watched.instruct("")
    watched.instruct("pick up the blue cube")
    assert assess(watched).state is SafetyState.HOLDING


def test_a_reset_ends_an_approval(robot):
    watched = supervisor(robot, require_approval=True)
    watched.instruct("go")
    watched.approve()
    watched.reset()
    assert assess(watched).cause == "require_approval"


def test_approving_what_needs_none(robot):
    assert not supervisor(robot).approve()[0]
    watched = supervisor(robot, require_approval=True)
    assert watched.approve()[0]
    assert watched.approve() == (False, "approved before: ''")


def test_a_late_step_is_a_fault_that_holds_for_a_while(robot):
    watched = supervisor(robot, overrun_time=0.05, refused_command_hold=0.5)
    watched.late(60 * MS, START)
    assert assess(watched).state is SafetyState.RUNNING
    watched.late(61 * MS, START)
    found = assess(watched)
    assert (found.state, found.cause) == (SafetyState.HOLDING, "overrun_time")
    assert found.amount == pytest.approx(0.051)
    assert "the filter itself ran 0.051 s late" in found.reason
    assert assess(watched, START + 500 * MS).state is SafetyState.HOLDING
    assert assess(watched, START + 501 * MS).state is SafetyState.RUNNING


def test_silence_of_an_expected_heartbeat_is_an_estop(robot):
    watched = supervisor(robot, estop_heartbeat=0.2)
    found = assess(watched)
    assert (found.state, found.reason) == (
        SafetyState.STARTING,
        "waiting for a first message on estop",
    )
    watched.estop(START, engaged=False)
    assert assess(watched, START + 200 * MS).state is SafetyState.RUNNING
    found = assess(watched, START + 201 * MS)
    assert (found.state, found.cause) == (SafetyState.EMERGENCY_STOP, "estop_heartbeat")
    assert found.reason == "no message on estop for 0.20 s"
    assert "silent" in watched.why_no_reset(START + 300 * MS)
    # Back again: still latched, but a reset is possible.
    watched.estop(START + 400 * MS, engaged=False)
    assert assess(watched, START + 401 * MS).state is SafetyState.EMERGENCY_STOP
    assert watched.why_no_reset(START + 401 * MS) == ""
    watched.reset()
    assert assess(watched, START + 402 * MS).state is SafetyState.RUNNING


def test_without_a_heartbeat_silence_of_the_estop_means_nothing(robot):
    watched = supervisor(robot)
    watched.estop(START, engaged=False)
    assert assess(watched, START + 10**12).state is SafetyState.RUNNING


def test_a_clock_that_is_set_back_keeps_no_heartbeat_alive(robot):
    watched = supervisor(robot, estop_heartbeat=0.2)
    watched.estop(START, engaged=False)
    watched.rewind(START - 10**12)
    assert assess(watched, START - 10**12 + 201 * MS).state is SafetyState.EMERGENCY_STOP


def test_a_refusal_is_told_for_a_second_and_holds_if_its_sender_is_not_trusted(robot):
    watched = supervisor(robot, refused_command_hold=0.5)
    watched.refuse(Refusal("x", 1.0, "it is wrong"), START, hold=False)
    found = assess(watched)
    assert (found.state, found.reason) == (SafetyState.RUNNING, "refused: it is wrong")
    watched.refuse(Refusal("x", 1.0, "it is wrong"), START, hold=True)
    found = assess(watched)
    assert (found.state, found.cause) == (SafetyState.HOLDING, "refused_command_hold")
    assert found.reason == "a command was refused; refused: it is wrong"
    assert assess(watched, START + 501 * MS).state is SafetyState.RUNNING
    assert assess(watched, START + 1001 * MS).reason == ""


def test_the_filter_s_own_lateness_holds_the_arm(make_bench, robot):
    bench = make_bench()
    bench.run(10, linear=(0.05, 0.0, 0.0))
    bench.now += 150 * MS
    decision = bench.step(bench.command((0.05, 0.0, 0.0)))
    assert decision.state is SafetyState.HOLDING
    assert "overrun_time" in {a.name for a in decision.acting}
    hold = round(robot.bounds.refused_command_hold * bench.rate_hz)
    states = [bench.run(1, linear=(0.05, 0, 0)).state for _ in range(hold + 1)]
    assert states == [SafetyState.HOLDING] * hold + [SafetyState.RUNNING]


def test_approval_needs_a_newer_command(robot, urdf, bench):
    bench.filter = SafetyFilter(robot, urdf, bench.rate_hz, require_approval=True)
    bench.filter.instruct("pick", bench.now)
    bench.step(None)
    old = bench.command((0.1, 0.0, 0.0))
    assert bench.step(old).state is SafetyState.HOLDING
    assert bench.filter.approve(bench.now)[0]
    assert bench.step(replace(old, gripper=0.01)).state is SafetyState.HOLDING
    assert bench.step(bench.command((0.1, 0.0, 0.0))).state is SafetyState.RUNNING


def test_another_description_while_it_runs_ends_in_a_stop_that_no_reset_ends(bench, urdf):
    bench.run(10, linear=(0.1, 0.0, 0.0))
    bench.filter.set_robot_description(urdf)
    assert bench.run(1, linear=(0.1, 0.0, 0.0)).state is SafetyState.RUNNING
    bench.filter.set_robot_description(urdf.replace("0.333", "0.5"))
    decision = bench.run(20, linear=(0.1, 0.0, 0.0))
    assert decision.state is SafetyState.PROTECTIVE_STOP
    assert not decision.twist.any()
    assert bench.filter.reset(bench.now) == (
        False,
        "not reset: robot_description has changed: start the filter anew",
    )
