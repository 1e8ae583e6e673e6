"""What every node needs: parameters, QoS, stamps, diagnostics, and a `main` that ends cleanly."""

import gc
import signal
import sys
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

import numpy as np
import rclpy
from builtin_interfaces.msg import Time
from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus, KeyValue
from rcl_interfaces.msg import FloatingPointRange, IntegerRange, ParameterDescriptor
from rclpy.exceptions import ParameterException
from rclpy.executors import ExternalShutdownException
from rclpy.logging import get_logger
from rclpy.node import Node
from rclpy.qos import DurabilityPolicy, QoSProfile, ReliabilityPolicy, qos_profile_sensor_data

from vla_ros.robot import Key, RobotConfig, dynamic_parameters, parameters

SECOND_NS = 1_000_000_000

SENSOR_QOS = qos_profile_sensor_data
"""Best effort, the newest few: images, joint states. Also receives from reliable publishers."""

CONTROL_QOS = QoSProfile(depth=10)
"""Reliable, the last ten: commands and reports."""

LATCHED_QOS = QoSProfile(
    depth=1, durability=DurabilityPolicy.TRANSIENT_LOCAL, reliability=ReliabilityPolicy.RELIABLE
)
"""Reliable, the last one kept for late joiners: instruction, robot_description."""


def now_ns(node: Node) -> int:
    """Return the node's time (simulated where `use_sim_time` is set) in ns."""
    return int(node.get_clock().now().nanoseconds)


def stamp_to_ns(stamp: Time) -> int:
    """Return a message's stamp in ns."""
    return int(stamp.sec) * SECOND_NS + int(stamp.nanosec)


def stamp_from_ns(time_ns: int) -> Time:
    """Return `time_ns` as a message's stamp."""
    sec, nanosec = divmod(time_ns, SECOND_NS)
    return Time(sec=sec, nanosec=nanosec)


def declare(
    node: Node,
    name: str,
    default: Any,  # noqa: ANN401 - rclpy's own type of a parameter's value
    description: str,
    *,
    limits: tuple[float, float] | None = None,
    read_only: bool = True,
) -> Any:  # noqa: ANN401
    """Declare a parameter and return its value.

    Args:
        node: The node that owns it.
        name: Its name.
        default: Its value when none is given, which also fixes its type.
        description: One line with the unit, for `ros2 param describe`.
        limits: Least and greatest value, of the default's type. A value outside fails the start.
        read_only: Whether it is fixed once the node runs.

    Raises:
        ParameterException: If the given value has another type or lies outside `limits`.

    """
    descriptor = ParameterDescriptor(description=description, read_only=read_only)
    if limits is not None and isinstance(default, int):
        least, greatest = (int(v) for v in limits)
        descriptor.integer_range = [IntegerRange(from_value=least, to_value=greatest, step=0)]
    elif limits is not None:
        low, high = (float(v) for v in limits)
        descriptor.floating_point_range = [
            FloatingPointRange(from_value=low, to_value=high, step=0.0)
        ]
    return node.declare_parameter(name, default, descriptor).value


def choose(node: Node, name: str, options: Sequence[str], description: str) -> str:
    """Declare a read-only parameter with one of `options`, the first by default, and return it.

    Raises:
        ValueError: If it is something else.

    """
    text = f"{description}: {', '.join(options)}"
    value = str(declare(node, name, options[0], text))
    if value not in options:
        msg = f"parameter {name!r} is {value!r}, but must be one of {', '.join(options)}"
        raise ValueError(msg)
    return value


def robot_config(node: Node, *, bounds_read_only: bool = True) -> RobotConfig:
    """Declare the robot file's parameters, read-only, and return the robot that they describe.

    None has a default and their types are left open here, so that `RobotConfig` can say what is
    missing or wrong and in which file. Volumes and points are declared once the lists that name
    them are read.

    Args:
        node: The node that owns them.
        bounds_read_only: Whether the bounds cannot be set. A node that lets them must check that
            they are only tightened, in a callback of its own.

    Raises:
        RobotConfigError: If one is missing or wrong.

    """
    values = _declare_open(node, parameters(), bounds_read_only=bounds_read_only)
    values |= _declare_open(node, dynamic_parameters(values))
    return RobotConfig.from_parameters(values, parameter_source(node))


def _declare_open(
    node: Node, keys: Mapping[str, Key], *, bounds_read_only: bool = True
) -> dict[str, Any]:
    """Declare parameters of any type, read-only, and return their values; None where not given."""
    values = {}
    for name, key in keys.items():
        descriptor = ParameterDescriptor(
            description=f"{key.text}, {key.unit}" if key.unit else key.text,
            read_only=bounds_read_only or not name.startswith("bounds."),
            dynamic_typing=True,
        )
        values[name] = node.declare_parameter(name, None, descriptor).value
    return values


def parameter_source(node: Node, argv: Sequence[str] | None = None) -> str:
    """Return where the node's parameters came from, for error messages: its files, or its name."""
    words = sys.argv if argv is None else argv
    files = [after for word, after in pairwise(words) if word == "--params-file"]
    return ", ".join(files) or f"the parameters of node {node.get_fully_qualified_name()}"


@dataclass(slots=True)
class Rate:
    """Counts events and measures their rate over the last second."""

    count: int = 0
    last_ns: int | None = None
    _times: deque[int] = field(default_factory=deque)

    def add(self, time_ns: int) -> None:
        """Record an event."""
        if self.last_ns is not None and time_ns < self.last_ns:
            self._times.clear()  # The clock was set back, as by a bag that is played again.
        self.count += 1
        self.last_ns = time_ns
        self._times.append(time_ns)
        self._trim(time_ns)

    def rate_hz(self, time_ns: int) -> float:
        """Return the mean rate over the second before `time_ns`, 0 for fewer than two events."""
        self._trim(time_ns)
        if not self._times or self._times[-1] <= self._times[0]:
            return 0.0
        return (len(self._times) - 1) * SECOND_NS / (self._times[-1] - self._times[0])

    def age_ms(self, time_ns: int) -> float | None:
        """Return how long ago the last event was, or None if there was none."""
        return None if self.last_ns is None else (time_ns - self.last_ns) / 1e6

    def _trim(self, time_ns: int) -> None:
        while self._times and time_ns - self._times[0] > SECOND_NS:
            self._times.popleft()


@dataclass(slots=True)
class Percentiles:
    """Keeps the last thousand values for percentiles."""

    _values: deque[float] = field(default_factory=lambda: deque(maxlen=1000))

    def add(self, value: float) -> None:
        """Record a value."""
        self._values.append(value)

    def report(self, name: str) -> dict[str, str]:
        """Return `name p50`, `p99` and `max`, formatted; nothing before the first value."""
        if not self._values:
            return {}
        values = np.fromiter(self._values, np.float64)
        p50, p99 = np.percentile(values, [50, 99])
        return {
            f"{name} p50": f"{p50:.1f}",
            f"{name} p99": f"{p99:.1f}",
            f"{name} max": f"{values.max():.1f}",
        }


class Laps:
    """Times stages that follow one another, in ms."""

    def __init__(self, take: Callable[[str, float], None]) -> None:
        """Start the first stage; `take` is given the name and the duration of each."""
        self._take = take
        self._began = time.perf_counter()

    def __call__(self, stage: str) -> None:
        """End a stage, and start the next."""
        now = time.perf_counter()
        self._take(stage, (now - self._began) * 1e3)
        self._began = now


@dataclass(frozen=True, slots=True)
class Health:
    """What a node says of itself: a level of DiagnosticStatus, one line, and named values."""

    level: Any
    message: str
    values: Mapping[str, object]


class Diagnostics:
    """Publishes a node's health on /diagnostics once a second, and at once when told to."""

    def __init__(self, node: Node, report: Callable[[int], Health]) -> None:
        """Start publishing what `report(now_ns)` returns."""
        self._node = node
        self._report = report
        self._publisher = node.create_publisher(DiagnosticArray, "/diagnostics", CONTROL_QOS)
        node.create_timer(1.0, self.publish)

    def publish(self) -> None:
        """Publish the health as it is now."""
        time_ns = now_ns(self._node)
        array = DiagnosticArray()
        array.header.stamp = stamp_from_ns(time_ns)
        array.status = [status(self._node, self._report(time_ns))]
        self._publisher.publish(array)


def status(node: Node, health: Health) -> DiagnosticStatus:
    """Return `health` as a message, named after the node."""
    return DiagnosticStatus(
        level=health.level,
        name=node.get_fully_qualified_name().lstrip("/"),
        message=health.message,
        hardware_id="",
        values=[KeyValue(key=key, value=str(value)) for key, value in health.values.items()],
    )


class ConfigurationError(ValueError):
    """What a node learnt after its start (robot_description, say) shows that it cannot work."""


def run(make_node: Callable[[], Node], name: str, args: Sequence[str] | None = None) -> int:
    """Run one node until SIGINT, SIGTERM or shutdown; return the process's exit code.

    A node that cannot start (a bad bundle, a missing bound, a parameter out of range, a bad domain)
    logs one line that says so, and the code is 1; so does one whose callback raises
    ConfigurationError.
    A node with a `close` method has it called at the end.

    Args:
        make_node: Builds the node; a ValueError, OSError, RuntimeError or ParameterException from
            it is what it cannot start for.
        name: Name of the logger for that line.
        args: The command line, sys.argv by default.

    """
    try:
        node = _start(make_node, name, args)
        if node is None:
            return 1
        # What stays until the end need not be looked through again and again: a full collection
        # of it stops every thread of the process for tens of milliseconds.
        gc.collect()
        gc.freeze()
        try:
            return _spin(node)
        finally:
            _end(node)
    except KeyboardInterrupt:
        return 0  # It came while the node was starting or ending.
    finally:
        rclpy.try_shutdown()


def _start(make_node: Callable[[], Node], name: str, args: Sequence[str] | None) -> Node | None:
    """Return the node, or None if it cannot start, which is logged."""
    joined = False
    try:
        rclpy.init(args=args)
        joined = True
        return make_node()
    except (ValueError, OSError) as err:
        reason = str(err)
    except ParameterException as err:
        reason = str(err.args[0])
    except RuntimeError as err:  # the middleware's: arguments, domain, network
        if joined and not rclpy.ok():
            raise KeyboardInterrupt from err  # A signal ended the context meanwhile.
        reason = f"{type(err).__name__}: {err}"
    get_logger(name).fatal(f"cannot start: {reason}")
    return None


def _spin(node: Node) -> int:
    try:
        rclpy.spin(node)
    except ConfigurationError as err:
        node.get_logger().fatal(f"cannot go on: {err}")
        return 1
    except (KeyboardInterrupt, ExternalShutdownException):
        return 0  # Asked to stop: the ordinary end of a node.
    except Exception:
        # A signal ends the context at once, also under a callback that is about to publish.
        if rclpy.ok():
            raise
    return 0


def _end(node: Node) -> None:
    # `ros2 launch` passes Ctrl-C on to nodes that the terminal has told already.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
    close = getattr(node, "close", None)
    if close is not None:
        close()
    node.destroy_node()
