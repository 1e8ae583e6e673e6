"""The plugin as a robot's own package uses it: marker, fixture, configuration, JUnit."""

import os
import subprocess
import sys
import xml.etree.ElementTree as ET
from pathlib import Path

import pytest
from panda_bags import ROBOT, motion

from bundles import make_bundle

REPOSITORY = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def package(tmp_path_factory):
    """A package with a bag, expectations and its own configuration of pytest."""
    folder = tmp_path_factory.mktemp("package")
    motion(cameras=True).bag(folder / "bags" / "tuesday")
    make_bundle(folder / "bundle")
    (folder / "expect.yaml").write_text("violations: {equals: 0}\nspeed_max: {max: 0.05}\n")
    (folder / "pytest.ini").write_text(f"[pytest]\nreplay_robot = {ROBOT}\n")
    return folder


def run(package, text, *options):
    """Run pytest on a test file of that text, as a process of its own."""
    (package / "test_bags.py").write_text(text)
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY)}
    command = [sys.executable, "-m", "pytest", "-q", "-p", "vla_ros.replay.pytest_plugin"]
    return subprocess.run(
        [*command, "--strict-markers", *options],
        cwd=package,
        env=environment,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def test_a_marked_bag_is_replayed_and_checked(package):
    done = run(
        package,
        """
import pytest

@pytest.mark.replay(bag="bags/tuesday", expect={"violations": {"equals": 0}})
def test_good(replay):
    result = replay()
    assert len(result.ticks) > 100

@pytest.mark.replay("bags/tuesday", expect="expect.yaml")
def test_bad(replay):
    replay()
""",
        "--junitxml=junit.xml",
    )
    assert done.returncode == 1, done.stdout + done.stderr
    assert "1 failed, 1 passed" in done.stdout
    assert "speed_max: expected max 0.05, but it is 0.1 m/s" in done.stdout
    assert "first at 0." in done.stdout
    cases = ET.parse(package / "junit.xml").getroot().iter("testcase")
    hashes = [
        p.get("value") for case in cases for p in case.iter("property") if "hash" in p.get("name")
    ]
    assert len(hashes) == 2
    assert len(set(hashes)) == 1


def test_arguments_of_the_call_come_before_the_marker_s(package):
    done = run(
        package,
        """
import pytest

@pytest.mark.replay(bag="bags/monday", expect="expect.yaml", bundle="bundle")
def test_it(replay):
    result = replay("bags/tuesday", expect=None, mode="policy", latency="fixed:20")
    assert result.mode == "policy"
    assert result.chunks.started_ns[0] - result.chunks.observed_ns[0] >= 20_000_000

def test_without_a_marker(replay):
    assert replay("bags/tuesday").violations == 0
""",
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_what_is_missing_is_said(package):
    done = run(package, "def test_it(replay):\n    replay()\n")
    assert done.returncode == 1
    assert "name the bag of this replay" in done.stdout


def test_what_a_replay_warns_of_is_among_the_warnings_of_a_test_that_passes(package):
    motion(cameras=True, instruction=None).bag(package / "bags" / "silent")
    test = """
import pytest

@pytest.mark.replay(bag="bags/silent", bundle="bundle")
def test_still(replay):
    replay()
"""
    done = run(package, test)
    assert "1 passed, 1 warning" in done.stdout, done.stdout + done.stderr
    assert "test_bags.py:6: " in done.stdout
    assert "bags/silent: the policy held the arm still in all of its" in done.stdout
    assert "1 failed" in run(package, test, "-W", "error::pytest.PytestWarning").stdout
