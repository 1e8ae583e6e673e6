"""Rate and stages of a loop: figures that are right, whatever its length, with warm-up apart."""

import json
import tracemalloc

import numpy as np
import pytest

from vla_ros.policy.cadence import STAGES, WARM_UP, Cadence, CadenceReport, parse

PERIOD_NS = 33_333_333


def run(cadence, periods_ns):
    time_ns = 0
    cadence.command(time_ns)
    for period in periods_ns:
        time_ns += int(period)
        cadence.command(time_ns)


def test_rate_and_cycles_over_budget():
    cadence = Cadence(30.0)
    # Of 100 cycles after the warm-up, three last 40 ms; one lasts 36 ms, which is within the tenth.
    run(cadence, [PERIOD_NS] * WARM_UP + [PERIOD_NS] * 96 + [40_000_000] * 3 + [36_000_000])
    report = cadence.report()
    assert (report.cycles, report.over_budget) == (100, 3)
    mean_ms = (96 * PERIOD_NS / 1e6 + 3 * 40 + 36) / 100
    assert report.achieved_hz == pytest.approx(1e3 / mean_ms)
    assert report.period.worst == pytest.approx(40.0)
    assert "29.80 of 30 Hz, 3 of 100 cycles over budget (33.3 ms + 10%)" in report.table()


def test_the_warm_up_is_told_apart():
    cadence = Cadence(30.0)
    for ms in [90.0] + [5.0] * 20:
        cadence.add("inference", ms)
    found = cadence.report().stages["inference"]
    assert (found.count, found.worst, found.warm_up_worst) == (21 - WARM_UP, 5.0, 90.0)


def test_what_nothing_was_wanted_in_is_no_cycle():
    cadence = Cadence(30.0)
    run(cadence, [PERIOD_NS] * 10)
    cadence.pause()
    cadence.command(10**12)
    cadence.command(10**12 + PERIOD_NS)
    assert cadence.report().cycles == 11 - WARM_UP
    assert cadence.report().over_budget == 0


def test_a_clock_that_is_set_back_begins_anew():
    cadence = Cadence(30.0)
    run(cadence, [PERIOD_NS] * 10)
    cadence.command(0)
    cadence.command(PERIOD_NS)
    assert cadence.report().cycles == 11 - WARM_UP


@pytest.mark.parametrize("scale", [0.003, 1.0, 300.0])
def test_figures_are_those_of_the_values(scale):
    values = scale * np.random.default_rng(0).lognormal(size=5000)
    cadence = Cadence()
    for value in [0.0] * WARM_UP + values.tolist():
        cadence.add("schedule", value)
    found = cadence.report().stages["schedule"]
    assert found.mean == pytest.approx(values.mean())
    assert found.std == pytest.approx(values.std())
    assert found.worst == values.max()
    assert found.p50 == pytest.approx(np.percentile(values, 50), rel=0.011)
    assert found.p99 == pytest.approx(np.percentile(values, 99), rel=0.03)


def test_memory_does_not_grow():
    cadence = Cadence(30.0)
    values = np.random.default_rng(1).lognormal(sigma=3.0, size=20_000).tolist()

    def feed():
        for value in values:
            cadence.add("publish", value)

    feed()
    tracemalloc.start()
    feed()
    grown = tracemalloc.get_traced_memory()[0]
    tracemalloc.stop()
    assert grown < 20_000


def test_values_of_no_or_endless_length_have_a_bin():
    cadence = Cadence()
    for _ in range(WARM_UP + 3):
        cadence.add("decode", 0.0)
        cadence.add("inference", 1e9)
    stages = cadence.report().stages
    assert stages["decode"].p99 == 0.0
    assert stages["inference"].worst == 1e9


def test_diagnostics_carry_it_whole():
    cadence = Cadence(30.0)
    run(cadence, [PERIOD_NS] * 20)
    for stage in STAGES:
        for ms in range(1, 20):
            cadence.add(stage, ms)
    report = cadence.report()
    read = parse({"state": "acting", **report.values()})
    assert read.values() == report.values()
    assert read.as_dict() == report.as_dict()
    assert set(read.stages) == set(STAGES)
    again = CadenceReport.from_dict(json.loads(json.dumps(report.as_dict())))
    assert again.table() == read.table()


def test_what_carries_none_or_a_broken_one():
    assert parse({"state": "acting"}) is None
    values = Cadence(30.0).report().values()
    with pytest.raises(ValueError, match="cadence cycles: no number in 'x'"):
        parse(values | {"cadence cycles": "x"})
    del values["cadence achieved Hz"]
    with pytest.raises(ValueError, match="cadence achieved Hz: no number in None"):
        parse(values)


def test_stages_of_two_nodes_are_joined():
    loop, camera = Cadence(30.0), Cadence()
    run(loop, [PERIOD_NS] * 20)
    for _ in range(20):
        loop.add("inference", 5.0)
        loop.add("decode", 0.1)
        camera.add("decode", 0.7)
    for joined in (
        loop.report().joined(camera.report()),
        camera.report().joined(loop.report()),
    ):
        assert joined.requested_hz == 30.0
        assert list(joined.stages) == ["decode", "inference"]
        assert joined.stages["decode"].mean == pytest.approx(0.7)
