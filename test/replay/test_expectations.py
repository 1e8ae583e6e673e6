"""Expectations are read strictly, and a failure says when in the bag and shows the values."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from robots import panda

from vla_ros.replay.expectations import ExpectationError, check, load, parse
from vla_ros.replay.result import Commands, Joints, Metric, ReplayResult, Series, Ticks

START = 1_700_000_000_000_000_000
MS = 1_000_000


def stamps(count):
    return START + 10 * MS * np.arange(count)


def result(**metrics):
    """A run of 2 s with the metrics that are given as (value, values)."""
    count = 200
    none = np.zeros((0, 7))
    empty = np.zeros(0)
    ticks = Ticks(
        stamp_ns=stamps(count),
        desired=np.full((count, 6), 0.3),
        safe=np.full((count, 6), 0.1),
        gripper_desired=np.full(count, 0.04),
        gripper=np.full(count, 0.04),
        command_stamp_ns=stamps(count),
        state=("RUNNING",) * count,
        reason=("",) * count,
        acting={"linear_speed": np.where(np.arange(count) > 100, 0.1, 0.0)},
        joint_position=np.zeros((count, 7)),
    )
    made = {}
    for name, (value, values) in metrics.items():
        series = None
        if values is not None:
            series = Series(stamps(len(values)), np.asarray(values, float))
        made[name] = Metric(value, "1" if name.endswith("share") else "m/s", "a figure", series)
    return ReplayResult(
        bag=Path("bag"),
        robot=panda(),
        robot_file=Path("panda.yaml"),
        mode="safety",
        latency="none",
        start_ns=START,
        end_ns=START + 2000 * MS,
        instructions=(),
        cameras={},
        ticks=ticks,
        commands=Commands(stamps(0), np.zeros((0, 6)), empty),
        recorded=None,
        recorded_safe=None,
        joints=Joints(stamps(0), none, none, none, empty, np.zeros((0, 3))),
        chunks=None,
        inference_ms=empty,
        hash="a" * 64,
        metrics=made,
    )


def outcomes(run, **conditions):
    return check(run, parse(conditions, "test"))


RAMP = np.arange(200) / 100.0


@pytest.mark.parametrize(
    ("condition", "passed"),
    [
        ({"max": 2.0}, True),
        ({"max": 1.99}, True),
        ({"max": 1.9}, False),
        ({"min": 1.5}, True),
        ({"min": 2.5}, False),
        ({"equals": 1.99}, True),
        ({"equals": 1.98}, False),
        ({"near": 2.0, "tolerance": 0.02}, True),
        ({"near": 2.0, "tolerance": 0.001}, False),
    ],
)
def test_conditions(condition, passed):
    (outcome,) = outcomes(result(speed=(1.99, RAMP)), speed=condition)
    assert outcome.passed is passed
    assert bool(outcome.message) is not passed


def test_several_conditions_on_a_metric_are_several_outcomes():
    both = outcomes(result(speed=(1.99, RAMP)), speed={"min": 1, "max": 1.5})
    assert [outcome.passed for outcome in both] == [True, False]
    assert [outcome.expected for outcome in both] == ["min 1", "max 1.5"]


def test_a_failure_says_when_and_shows_the_values_around():
    (outcome,) = outcomes(result(speed=(1.99, RAMP)), speed={"max": 1.5})
    assert outcome.at_s == pytest.approx(1.51)
    lines = outcome.message.splitlines()
    assert lines[0] == "speed: expected max 1.5, but it is 1.99 m/s (a figure)"
    assert "first at 1.510 s of the bag, 49 of 200 values; worst at 1.990 s" in lines[1]
    (worst,) = [line for line in lines if line.strip().startswith(">")]
    # Time, the value, what was asked for and sent (norms of three equal axes), what acted.
    assert worst.split() == [
        *(">", "1.990", "1.99", "0.5196", "0.1732"),
        *("RUNNING,", "linear_speed"),
    ]


def test_too_little_is_shown_where_it_is_least():
    (outcome,) = outcomes(result(room=(0.0, RAMP[::-1])), room={"min": 0.1})
    assert outcome.at_s == pytest.approx(1.9)
    assert "10 of 200 values" in outcome.message


def test_a_share_is_shown_where_it_counted():
    flags = np.zeros(200)
    flags[[50, 51, 120]] = 1.0
    (outcome,) = outcomes(result(share=(0.015, flags)), share={"max": 0.01})
    assert outcome.at_s == pytest.approx(0.5)
    assert "3 of 200 values" in outcome.message


def test_notes_of_a_metric_are_shown():
    run = result(speed=(1.0, None))
    noted = replace(run.metrics["speed"], notes=("tick 3 at 0.030 s: linear_speed",))
    (outcome,) = outcomes(replace(run, metrics={"speed": noted}), speed={"equals": 0})
    assert outcome.at_s is None
    assert "tick 3 at 0.030 s" in outcome.message


def test_a_metric_without_a_value_meets_nothing():
    (outcome,) = outcomes(result(speed=(None, None)), speed={"max": 1})
    assert not outcome.passed
    assert "nothing to compute it from" in outcome.message


def test_a_bound_that_never_acted_has_the_share_0():
    run = result(acting_share=(0.0, None))
    (outcome,) = check(run, parse({"acting_share.linear_speed": {"max": 0}}, "test"))
    assert outcome.passed
    with pytest.raises(ExpectationError, match=r"no metric 'acting_share\.linear_sped'"):
        check(run, parse({"acting_share.linear_sped": {"max": 0}}, "test"))


def test_an_unknown_metric_is_an_error_with_a_hint():
    with pytest.raises(ExpectationError, match="did you mean speed"):
        outcomes(result(speed=(1.0, None)), sped={"max": 1})


def test_a_hash():
    good, bad = outcomes(result(), hash={"equals": "A" * 64}) + outcomes(
        result(), hash={"equals": "b" * 64}
    )
    assert good.passed
    assert not bad.passed
    assert "a" * 64 in bad.message
    with pytest.raises(ExpectationError, match="--latency zero"):
        outcomes(replace(result(), hash=""), hash={"equals": "a" * 64})


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "must map names"),
        ("- violations", "must map names"),
        ("violations: 0", "must be a mapping with min, max, equals, near"),
        ("violations: {}", "must be a mapping with"),
        ("violations: {equal: 0}", "must be a mapping with"),
        ("violations: {equals: 0, maximum: 1}", "'maximum' is unknown"),
        ("violations: {equals: true}", "must be a finite number"),
        ("violations: {max: .nan}", "must be a finite number"),
        ("violations: {max: many}", "must be a finite number"),
        ("speed: {near: 1}", "near and tolerance need each other"),
        ("speed: {max: 1, tolerance: 1}", "near and tolerance need each other"),
        ("speed: {near: 1, tolerance: -1}", "must not be negative"),
        ("hash: {equals: 12}", "64 digits"),
        ("hash: {max: 1}", "64 digits"),
        ("violations: {equals: 0", "are not YAML"),
    ],
)
def test_what_is_written_wrongly_is_said_with_the_file(tmp_path, text, says):
    file = tmp_path / "expect.yaml"
    file.write_text(text)
    with pytest.raises(ExpectationError, match=says) as caught:
        load(file)
    assert "expect.yaml" in str(caught.value)


def test_a_missing_file():
    with pytest.raises(ExpectationError, match="No such file"):
        load("nowhere.yaml")
