"""Runs a node as a process, and a node of the test's own beside it."""

import fcntl
import os
import re
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import IO, Any

import rclpy
from diagnostic_msgs.msg import DiagnosticArray
from rclpy.context import Context
from rclpy.executors import SingleThreadedExecutor
from rclpy.node import Node
from rclpy.qos import DurabilityPolicy, QoSProfile, qos_profile_sensor_data

LATCHED = QoSProfile(depth=1, durability=DurabilityPolicy.TRANSIENT_LOCAL)
SENSOR = qos_profile_sensor_data


def claim_domain() -> int:
    """Return a ROS domain that no other run of the tests on this machine uses, for this process."""
    for domain in range(51, 60):
        lock = (Path(tempfile.gettempdir()) / f"vla_ros_test_domain_{domain}").open("w")
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            lock.close()
            continue
        _claims.append(lock)
        return domain
    msg = "all domains for tests are taken by other runs of the tests: end those first"
    raise RuntimeError(msg)


_claims: list[IO[str]] = []
"""Kept open, and so locked, until this process ends."""


def environment(domain: int) -> dict[str, str]:
    """Return the environment of a process in a ROS domain of its own."""
    return {**os.environ, "ROS_DOMAIN_ID": str(domain), "ROS_LOCALHOST_ONLY": "1"}


class NodeProcess:
    """A node of this package as a process, its output in a file."""

    def __init__(self, name: str, folder: Path, domain: int, *arguments: str) -> None:
        """Start `vla_ros.nodes.<name>` with ROS arguments."""
        self.log = folder / f"{name}.log"
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", f"vla_ros.nodes.{name}", "--ros-args", *arguments],
                env=environment(domain),
                stdout=log,
                stderr=subprocess.STDOUT,
            )

    @property
    def output(self) -> str:
        """What it has logged, without colours."""
        return re.sub(r"\x1b\[[0-9;]*m", "", self.log.read_text())

    @property
    def log_lines(self) -> list[str]:
        """What it has logged, without what libraries print beside."""
        return [line for line in self.output.splitlines() if line.startswith("[")]

    def wait(self, timeout: float = 20.0) -> int:
        """Wait for its end; return the exit code."""
        return self.process.wait(timeout)

    def interrupt(self, signal_number: int = signal.SIGINT) -> int:
        """End it as Ctrl-C does; return the exit code."""
        self.process.send_signal(signal_number)
        return self.wait()

    def kill(self) -> None:
        """End it as a crash would."""
        self.process.kill()
        self.process.wait()

    def close(self) -> None:
        """End it if it still runs; gently, as peers wait for the answers of one that was killed."""
        self.process.terminate()
        try:
            self.process.wait(5.0)
        except subprocess.TimeoutExpired:
            self.kill()


class TestNode:
    """A node in this process, spun by a thread: what it hears is kept, with the time of arrival."""

    __test__ = False

    def __init__(self, domain: int) -> None:
        """Join the domain."""
        os.environ["ROS_LOCALHOST_ONLY"] = "1"
        self._context = Context()
        rclpy.init(context=self._context, domain_id=domain)
        self.node = Node("test_node", context=self._context)
        self.heard: dict[str, list[tuple[float, Any]]] = {}
        self.listen(DiagnosticArray, "/diagnostics", 10)
        self._executor = SingleThreadedExecutor(context=self._context)
        self._executor.add_node(self.node)
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._spin, daemon=True)

    def start(self) -> None:
        """Begin to spin."""
        self._thread.start()

    def listen(self, kind: type, topic: str, qos: QoSProfile | int) -> None:
        """Keep the messages of a topic."""
        messages = self.heard.setdefault(topic, [])
        self.node.create_subscription(
            kind, topic, lambda message: messages.append((time.monotonic(), message)), qos
        )

    def messages(self, topic: str, since: float = 0.0) -> list[Any]:
        """Return the messages of a topic that came after a time of time.monotonic."""
        return [message for arrived, message in list(self.heard[topic]) if arrived > since]

    def diagnosis(self, node: str) -> str:
        """Return message and values of a node's latest diagnostics, empty before the first."""
        for _, array in reversed(list(self.heard["/diagnostics"])):
            for status in array.status:
                if status.name == node:
                    values = [f"{v.key}: {v.value}" for v in status.values]
                    return "\n".join([status.message, *values])
        return ""

    def close(self) -> None:
        """Leave the domain."""
        self._closing.set()
        if self._thread.is_alive():
            self._thread.join(5.0)
        self.node.destroy_node()
        self._context.try_shutdown()

    def _spin(self) -> None:
        while not self._closing.is_set():
            self._executor.spin_once(timeout_sec=0.1)


def wait_for(condition: Callable[[], Any], timeout: float = 15.0) -> Any:
    """Wait until a condition holds; return its value, or fail the test."""
    end = time.monotonic() + timeout
    while time.monotonic() < end:
        value = condition()
        if value:
            return value
        time.sleep(0.005)
    msg = f"did not happen within {timeout} s"
    raise AssertionError(msg)
