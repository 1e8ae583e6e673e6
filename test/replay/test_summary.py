"""A run's summary holds what the nodes last reported of their cadence, whatever they reported."""

import pytest
from playback_bag import MS, START, STORE, header, run_of_an_arm, write_bag

from vla_ros.paths import share
from vla_ros.policy.cadence import WARM_UP, Cadence
from vla_ros.replay.summary import cadence, summarise

ROBOT = share() / "config" / "robots" / "panda.yaml"


def diagnostics(time_ns, name, values):
    types = STORE.types
    pairs = [types["diagnostic_msgs/msg/KeyValue"](k, v) for k, v in values.items()]
    status = types["diagnostic_msgs/msg/DiagnosticStatus"](0, name, "acting", "", pairs)
    kind = "diagnostic_msgs/msg/DiagnosticArray"
    array = types[kind](header(time_ns), [status])
    return ("/diagnostics", kind, time_ns, bytes(STORE.serialize_cdr(array, kind)))


def policy(cycles):
    told = Cadence(30.0)
    for index in range(cycles + WARM_UP + 1):
        told.command(index * 33 * MS)
        told.add("inference", 4.0)
    return told.report().values()


def camera():
    told = Cadence()
    for _ in range(20):
        told.add("decode", 0.3)
    return told.report().values()


def test_the_last_report_of_each_node_counts(tmp_path):
    told = [
        diagnostics(START + 100 * MS, "policy_node", policy(3)),
        diagnostics(START + 200 * MS, "camera_node", camera()),
        diagnostics(START + 300 * MS, "safety_node", {"state": "acting"}),
        diagnostics(START + 400 * MS, "policy_node", policy(12)),
    ]
    messages = sorted(run_of_an_arm() + told, key=lambda message: message[2])
    found = cadence(write_bag(tmp_path / "bag", messages))
    assert (found.cycles, found.period.mean) == (12, pytest.approx(33.0))
    assert list(found.stages) == ["decode", "inference"]


def test_a_bag_without_reports_or_with_broken_ones_has_none(tmp_path):
    assert cadence(write_bag(tmp_path / "bag", run_of_an_arm())) is None
    broken = diagnostics(START + 100 * MS, "policy_node", policy(3) | {"cadence cycles": "many"})
    messages = sorted([*run_of_an_arm(), broken], key=lambda message: message[2])
    summary = summarise(write_bag(tmp_path / "broken", messages), ROBOT)
    assert summary["cadence"] is None
    assert "policy_hz" in summary
