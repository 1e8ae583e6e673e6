"""A node given a robot file as its parameters has the robot that the loader reads from it."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import rclpy
from node_process import environment
from rclpy.context import Context
from rclpy.node import Node

from vla_ros.nodes._common import robot_config
from vla_ros.robot import RobotConfig, RobotConfigError, dynamic_parameters, parameters

FILES = sorted((Path(__file__).parents[2] / "config" / "robots").glob("*.yaml"))


@contextmanager
def node_with(path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Node]:
    """Run a node whose parameters are those of a file."""
    arguments = ["--ros-args", "--params-file", str(path)]
    monkeypatch.setattr(sys, "argv", ["node", *arguments])
    for name, value in environment(65).items():
        monkeypatch.setenv(name, value)
    context = Context()
    rclpy.init(context=context, args=arguments)
    node = Node("robot_reader", context=context)
    yield node
    node.destroy_node()
    context.try_shutdown()


@pytest.mark.parametrize("path", FILES, ids=lambda p: p.stem)
def test_a_robot_file_as_parameters(path, monkeypatch):
    """Volumes and points are declared after the lists that name them; all are read-only."""
    with node_with(path, monkeypatch) as node:
        config = robot_config(node)
        assert config == RobotConfig.load(path)
        bounds = config.bounds
        lists = {
            "bounds.workspace": [v.name for v in bounds.workspace],
            "bounds.keep_out": [v.name for v in bounds.keep_out],
        }
        for name in (*parameters(), *dynamic_parameters(lists)):
            assert node.describe_parameter(name).read_only, name


def test_a_wrong_volume_is_named_with_the_file(tmp_path, monkeypatch):
    path = tmp_path / "mine.yaml"
    (original,) = (p for p in FILES if p.stem == "ur5e")
    path.write_text(original.read_text().replace("inner_radius: 0.25", "inner_radius: 0.85"))
    wrong = pytest.raises(RobotConfigError, match=r"mine.yaml.*'volumes.reach.inner_radius'")
    with node_with(path, monkeypatch) as node, wrong:
        robot_config(node)
