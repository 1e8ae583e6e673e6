"""Each metric says what docs/replay.md says it does."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from robots import panda, simple_chain

from vla_ros.replay.columns import chunks
from vla_ros.replay.judge import Verdict
from vla_ros.replay.metrics import compute, find
from vla_ros.replay.result import Commands, Instruction, Joints, ReplayResult, Ticks

MS = 1_000_000
START = 1_700_000_000_000 * MS
COUNT = 100
ROBOT = panda()


def stamps(count, period_ms=10, first_ms=0):
    return START + MS * (first_ms + period_ms * np.arange(count, dtype=np.int64))


def along_x(speeds):
    twists = np.zeros((len(speeds), 6))
    twists[:, 0] = speeds
    return twists


def ticks(safe, desired=None, **changes):
    """Steps at 100 Hz, each following a command of its own time, unless told otherwise."""
    count = len(safe)
    made = Ticks(
        stamp_ns=stamps(count),
        desired=along_x(safe if desired is None else desired),
        safe=along_x(safe),
        gripper_desired=np.full(count, 0.04),
        gripper=np.full(count, 0.04),
        command_stamp_ns=stamps(count),
        state=("RUNNING",) * count,
        reason=("",) * count,
        acting={},
        joint_position=np.zeros((count, 7)),
    )
    return replace(made, **changes)


def commands(speeds, period_ms=33, grip=0.04, hold=None, first_ms=0):
    count = len(speeds)
    return Commands(
        stamps(count, period_ms, first_ms),
        along_x(speeds),
        np.full(count, grip),
        tuple(hold or [""] * count),
    )


def run(**changes):
    none = np.zeros((0, 7))
    made = ReplayResult(
        bag=Path("bag"),
        robot=ROBOT,
        robot_file=Path("panda.yaml"),
        mode="policy+safety",
        latency="zero",
        start_ns=START,
        end_ns=START + 10 * COUNT * MS,
        instructions=(),
        cameras={},
        ticks=None,
        commands=commands([]),
        recorded=None,
        recorded_safe=None,
        joints=Joints(stamps(0), none, none, none, np.zeros(0), np.zeros((0, 3))),
        chunks=None,
        inference_ms=np.zeros(0),
        hash="",
    )
    return replace(made, **changes)


def values(result, verdict=None, rates=None):
    return {n: m.value for n, m in compute(result, verdict, rates or {}).items()}


def test_violations_are_the_judge_s():
    verdict = Verdict(
        ticks=COUNT,
        violations=2,
        by_bound={"linear_speed": 2, "workspace": 0},
        margins={"linear_speed": -0.1, "workspace": np.inf},
        examples=["tick 3 at 0.030 s: linear_speed", "tick 4 at 0.040 s: linear_speed"],
    )
    metrics = compute(run(ticks=ticks(np.zeros(COUNT))), verdict, {})
    assert metrics["violations"].value == 2
    assert metrics["violations.linear_speed"].value == 2
    assert metrics["violations.workspace"].value == 0
    assert metrics["margin.linear_speed"].value == -0.1
    assert "margin.workspace" not in metrics
    assert metrics["violations"].notes == tuple(verdict.examples)
    assert find(metrics, "violations.linear_jerk").value == 0
    assert find(metrics, "violations.nonsense") is None


def test_without_a_verdict_there_are_no_violations_to_count():
    assert values(run())["violations"] is None


def test_shares_are_of_the_steps_within_the_bag():
    acting = np.zeros(COUNT)
    acting[:25] = 0.1
    made = ticks(np.zeros(COUNT), acting={"linear_speed": acting})
    told = values(run(ticks=made, end_ns=START + 495 * MS))  # 50 steps
    assert told["steps"] == 50
    assert told["acting_share.linear_speed"] == told["acting_share"] == 0.5
    assert told["running_share"] == 1.0


def test_a_bound_acts_where_any_part_of_it_does():
    first, second = np.zeros(COUNT), np.zeros(COUNT)
    first[:10], second[5:20] = 0.1, 0.1
    acting = {"joint_speed.panda_joint1": first, "joint_speed.panda_joint2": second}
    metrics = compute(run(ticks=ticks(np.zeros(COUNT), acting=acting)), None, {})
    assert metrics["acting_share.joint_speed.panda_joint1"].value == pytest.approx(0.1)
    assert metrics["acting_share.joint_speed"].value == pytest.approx(0.2)
    assert metrics["acting_share"].value == pytest.approx(0.2)
    parts = ROBOT.joints
    assert find(metrics, "acting_share.joint_speed.panda_joint7", parts).value == 0.0
    assert find(metrics, "acting_share.joint_speed.panda_joint8", parts) is None


def test_what_the_filter_took():
    safe = np.full(COUNT, 0.1)
    desired = safe.copy()
    desired[50:60] = 0.15
    told = values(run(ticks=ticks(safe, desired)))
    assert told["unchanged_share"] == pytest.approx(0.9)
    assert told["change_translation.max"] == pytest.approx(0.05)
    assert told["change_translation.mean"] == pytest.approx(0.005)
    assert told["change_rotation.max"] == 0.0


def test_a_change_within_the_bounds_is_counted_unless_a_bound_acted():
    safe = np.full(COUNT, 0.01)
    desired = safe.copy()
    desired[50:53] = 0.0102  # a fifth of a millimetre per second more: within every bound
    told = values(run(ticks=ticks(safe, desired)))
    assert told["changed_in_bounds"] == 3
    acting = np.zeros(COUNT)
    acting[50] = 1.0
    for name, left in (("workspace_min.z", 2), ("linear_acceleration", 3)):
        told = values(run(ticks=ticks(safe, desired, acting={name: acting})))
        assert told["changed_in_bounds"] == left, name


def test_a_jump_is_not_within_the_bounds():
    desired = np.where(np.arange(COUNT) < 50, 0.0, 0.25)
    safe = np.minimum(desired, np.maximum(0.0, 0.05 * (np.arange(COUNT) - 49)))
    told = values(run(ticks=ticks(safe, desired)))
    assert told["unchanged_share"] < 1.0
    assert told["changed_in_bounds"] == 0


def test_the_time_to_stop_runs_from_the_last_command():
    safe = np.zeros(COUNT)
    safe[10:70] = 0.1
    used = np.where(np.arange(COUNT) < 60, stamps(COUNT), stamps(COUNT)[59])
    told = values(run(ticks=ticks(safe, command_stamp_ns=used)))
    assert told["time_to_stop_s"] == pytest.approx(0.11)  # from 0.59 s to 0.70 s


def test_the_time_to_stop_after_a_fault_is_the_longest():
    safe = np.full(COUNT, 0.1)
    safe[25:40] = safe[68:] = 0.0
    state = ["RUNNING"] * COUNT
    state[20:40] = ["HOLDING"] * 20
    state[60:] = ["PROTECTIVE_STOP"] * 40
    told = values(run(ticks=ticks(safe, state=tuple(state))))
    assert told["fault_stops"] == 2
    assert told["fault_to_stop_s"] == pytest.approx(0.08)


def test_without_a_fault_there_is_no_time_to_stop_after_one():
    told = values(run(ticks=ticks(np.full(COUNT, 0.1))))
    assert told["fault_stops"] == 0
    assert told["fault_to_stop_s"] is None
    assert told["time_to_stop_s"] is None  # it never stops


def test_motion():
    told = values(run(ticks=ticks(np.array([0.0, 0.05, 0.1, 0.1, 0.0]))))
    assert told["speed_max"] == pytest.approx(0.1)
    assert told["step_max"] == pytest.approx(0.1)
    assert told["path_sent_m"] == pytest.approx(0.0025)
    assert told["angular_speed_max"] == told["angular_step_max"] == 0.0


def test_errors_are_to_the_command_in_force():
    ours = commands([0.1, 0.2, 0.3], period_ms=30, first_ms=5, grip=0.05)
    theirs = commands([0.1, 0.1, 0.1], period_ms=30)
    told = values(run(commands=ours, recorded=theirs))
    assert told["error_translation.mean"] == pytest.approx(0.1)
    assert told["error_translation.max"] == pytest.approx(0.2)
    assert told["error_gripper.max"] == pytest.approx(0.01)


def test_errors_leave_out_holds_and_what_was_said_long_ago():
    ours = commands([0.1, 0.9, 0.1, 0.1], period_ms=100, hold=["", "stale camera front", "", ""])
    theirs = commands([0.1], period_ms=30)
    metrics = compute(run(commands=ours, recorded=theirs), None, {})
    assert metrics["error_translation.max"].value == 0.0
    assert len(metrics["error_translation.max"].series.values) == 2


def test_latencies_are_joined_by_stamps():
    made = ticks(np.zeros(COUNT), command_stamp_ns=stamps(COUNT) - 3 * MS)
    asked = Commands(stamps(COUNT) - 3 * MS, np.zeros((COUNT, 6)), np.zeros(COUNT), ("",) * COUNT)
    rows = [(int(s) - 40 * MS, int(s) - 3 * MS, 16) for s in stamps(10, 40, 40)]
    told = values(run(ticks=made, commands=asked, chunks=chunks(rows)))
    assert told["chunks"] == 10
    assert told["image_to_command_ms.p50"] == pytest.approx(37.0)
    assert told["image_to_safe_command_ms.p99"] == pytest.approx(40.0)


def test_numbers_that_are_none_are_counted():
    asked = commands([0.1, np.nan, np.inf])
    made = ticks(np.zeros(COUNT))
    told = values(run(commands=asked, ticks=made))
    assert told["nan_count"] == 2
    assert told["nan_sent"] == 0


def test_what_is_no_number_is_no_figure():
    told = values(run(ticks=ticks(np.array([0.0, np.nan, 0.1]))))
    assert told["speed_max"] is None
    assert told["nan_sent"] == 1


class TestInstructions:
    """Changes of the instruction, and what followed."""

    def told(self, given, moves, chunk_starts):
        """Commands at 100 Hz that move in the given stretches of steps."""
        hold = ["still"] * COUNT
        for begin, end in moves:
            hold[begin:end] = [""] * (end - begin)
        asked = Commands(stamps(COUNT), np.zeros((COUNT, 6)), np.zeros(COUNT), tuple(hold))
        rows = [(int(stamps(COUNT)[i]) - 20 * MS, int(stamps(COUNT)[i]), 16) for i in chunk_starts]
        return values(
            run(
                commands=asked,
                chunks=chunks(rows),
                instructions=tuple(Instruction(START + at * MS, text) for at, text in given),
            )
        )

    def test_honoured(self):
        told = self.told([(0, "red"), (500, "green"), (800, "")], [(5, 50), (53, 80)], [5, 53])
        assert told["instruction_changes"] == told["instruction_changes_honoured"] == 3
        assert told["instruction_changes_ignored"] == 0

    def test_motion_that_goes_on_without_a_new_chunk_ignores_the_change(self):
        told = self.told([(0, "red"), (500, "green")], [(5, 80)], [5])
        assert told["instruction_changes_ignored"] == 1

    def test_motion_without_an_instruction_ignores_the_empty_one(self):
        told = self.told([(0, "red"), (500, "")], [(5, 80)], [5])
        assert told["instruction_changes_ignored"] == 1

    def test_no_motion_at_all_ignores_it(self):
        assert self.told([(0, "red")], [], [])["instruction_changes_ignored"] == 1

    def test_the_same_words_again_are_no_change(self):
        told = self.told([(0, "red"), (300, " red "), (600, "red")], [(5, 90)], [5])
        assert told["instruction_changes"] == 1

    def test_the_share_of_holds_is_of_the_commands_under_an_instruction(self):
        told = self.told([(500, "red")], [(50, 90)], [50])
        assert told["hold_share"] == pytest.approx(0.2)


def test_what_was_measured():
    position = np.zeros((COUNT, 7))
    position[:, 0] = np.linspace(0.0, 0.5, COUNT)
    tcp = simple_chain().positions(position)
    effort = np.zeros((COUNT, 7))
    effort[40, 2] = ROBOT.bounds.effort[2] * 0.5
    joints = Joints(
        stamps(COUNT), position, np.zeros((COUNT, 7)), effort, np.full(COUNT, np.nan), tcp
    )
    metrics = compute(run(joints=joints), None, {})
    assert metrics["path_length_m"].value == pytest.approx(0.4 * 0.5, rel=1e-3)
    assert metrics["effort_share_max"].value == pytest.approx(0.5)
    room = 0.4 * np.cos(0.5) - ROBOT.bounds.workspace_min[0]
    assert metrics["workspace_margin_m"].value == pytest.approx(room, abs=1e-9)


def test_rates_and_gaps():
    times = np.concatenate([stamps(50), stamps(50, 10, 600)])
    told = values(run(), rates={"joint_states": times, "instruction": stamps(1)})
    assert told["rate_hz.joint_states"] == pytest.approx(99 / 1.09)
    assert told["longest_gap_s.joint_states"] == pytest.approx(0.11)
    assert told["rate_hz.instruction"] is None


def test_positions_of_many_postures_are_those_of_each():
    chain = simple_chain()
    angles = np.random.default_rng(0).normal(size=(20, 7))
    one_by_one = [chain.pose(row)[0] for row in angles]
    assert np.abs(chain.positions(angles) - one_by_one).max() < 1e-12
