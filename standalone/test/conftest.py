"""Fixtures for tests that run nodes: in this process, and as processes of their own."""

import sys
from pathlib import Path

import pytest

sys.path.append(str(Path(__file__).parent))

import ros_processes


@pytest.fixture
def environment(monkeypatch):
    """Keep what a test sends on this machine, in a domain of this test run."""
    for name in ("CYCLONEDDS_URI", "ROS_STATIC_PEERS", "ROS_AUTOMATIC_DISCOVERY_RANGE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("ROS_DOMAIN_ID", str(ros_processes.DOMAIN))
    monkeypatch.setenv("ROS_LOCALHOST_ONLY", "1")
    return monkeypatch


@pytest.fixture
def ros(environment):
    """Give nodes in this process, in a context of their own."""
    made = ros_processes.Ros()
    yield made
    made.close()


@pytest.fixture
def start(environment, tmp_path):
    """Start Python programs that use rclpy; what still runs at the end is killed."""
    running = []

    def start_one(code: str, *arguments: str, **environment: str) -> ros_processes.Program:
        log = tmp_path / f"program{len(running)}.log"
        program = ros_processes.Program(code, arguments, environment, log)
        running.append(program)
        return program

    yield start_one
    for program in running:
        program.kill()
