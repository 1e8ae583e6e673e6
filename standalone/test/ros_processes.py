"""Nodes for tests: in this process, and as processes whose output can be waited for."""

import os
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import vla_ros_standalone  # noqa: F401  (installs the import hook)

SOURCE = Path(__file__).parents[1] / "src"
# Runs at the same time on one machine keep apart.
DOMAIN = 11 + os.getpid() % 9

PREAMBLE = """
import sys, time
import vla_ros_standalone
import rclpy
from rclpy.node import Node
from rclpy.executors import ExternalShutdownException
from std_msgs.msg import String
"""


class Program:
    """A Python program in its own process; its output goes to a file."""

    def __init__(self, code, arguments, environment, log):
        self._log = log
        with log.open("wb") as output:
            self.process = subprocess.Popen(
                [sys.executable, "-u", "-c", PREAMBLE + textwrap.dedent(code), *arguments],
                env={**os.environ, "PYTHONPATH": str(SOURCE), **environment},
                stdout=output,
                stderr=subprocess.STDOUT,
            )

    @property
    def output(self):
        return self._log.read_text(errors="replace")

    def wait_for(self, text, timeout=15.0):
        """Wait until the output contains `text`; fail with the output when it does not."""
        end = time.monotonic() + timeout
        while text not in self.output:
            if time.monotonic() > end or self.process.poll() is not None:
                # What was written between the look and the end counts too.
                assert text in self.output, f"no {text!r} in:\n{self.output}"
            time.sleep(0.01)

    def end(self, number=signal.SIGINT, timeout=10.0):
        """Send a signal and return the exit status."""
        self.process.send_signal(number)
        return self.wait(timeout)

    def wait(self, timeout=15.0):
        try:
            return self.process.wait(timeout)
        except subprocess.TimeoutExpired:
            msg = f"still running after {timeout} s:\n{self.output}"
            raise AssertionError(msg) from None

    def kill(self):
        """End the program; gently first, so that the next test does not see it in the graph."""
        if self.process.poll() is None:
            self.process.terminate()
            try:
                self.process.wait(3.0)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()


class Ros:
    """A context in this process, its nodes and their executor."""

    def __init__(self):
        self._contexts = []

    def context(self, *ros_arguments):
        from rclpy.context import Context

        context = Context()
        context.init(["test", "--ros-args", *ros_arguments] if ros_arguments else ["test"])
        self._contexts.append(context)
        return context

    def node(self, name="node", *ros_arguments, context=None, **options):
        from rclpy.node import Node

        context = context or self.context(*ros_arguments)
        return Node(name, context=context, **options)

    def close(self):
        for context in self._contexts:
            context.try_shutdown()


def spin_until(node, condition, timeout=10.0, *others):
    """Spin nodes until a condition holds; return whether it came to hold."""
    from rclpy.executors import SingleThreadedExecutor

    executor = SingleThreadedExecutor(context=node.context)
    for one in (node, *others):
        executor.add_node(one)
    try:
        end = time.monotonic() + timeout
        while not condition() and time.monotonic() < end:
            executor.spin_once(timeout_sec=0.05)
        return bool(condition())
    finally:
        executor.shutdown()
