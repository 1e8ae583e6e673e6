"""What `vla_ros play` publishes with: a publisher for each topic of a bag, and /clock."""

import contextlib
import time
from collections.abc import Iterable, Sequence
from importlib import import_module
from typing import Any

import rclpy
from rcl_interfaces.srv import GetParameters
from rclpy.duration import Duration
from rclpy.executors import SingleThreadedExecutor
from rclpy.node import Node
from rclpy.qos import (
    DurabilityPolicy,
    HistoryPolicy,
    LivelinessPolicy,
    QoSProfile,
    ReliabilityPolicy,
)
from rclpy.signals import SignalHandlerOptions
from rosbags.interfaces import Qos, QosDurability, QosHistory, QosReliability
from rosgraph_msgs.msg import Clock
from std_msgs.msg import String

from vla_ros.nodes._common import LATCHED_QOS, stamp_from_ns

CLOCK_QOS = QoSProfile(depth=10)
"""Reliable, which also serves the best-effort subscription of every node's time source."""

DEFAULT_DEPTH = 10
"""rosbag2 plays with this depth whatever was recorded (`Rosbag2QoS::default_history`)."""

ENCAPSULATIONS = (b"\0\0", b"\0\1")
"""Of CDR, with the most or the least significant byte first."""

HEADER_SIZE = 4
DISCOVERY_S = 0.5
MATCH_TIMEOUT_S = 3.0
ANSWER_TIMEOUT_S = 60.0
"""Also the longest that a model may take where inference runs in the node's own thread."""

FIRST_ANSWER_S = 2.0
LOOK_S = 0.5
"""How often to look whether a node that does not answer is still there."""

LAST_ROUNDS = 20
"""What those who only watch get at the end, to take what they have received."""


class PlayError(RuntimeError):
    """A bag cannot be played, or the nodes that it is played to do not follow."""


class BagPublisher:
    """Publishes serialised messages, times and a robot description.

    In lockstep it also waits until nodes have dealt with all that was published. It asks for one of
    their parameters: an executor of rclpy makes rounds, in each of which it runs the due timers,
    then one message of every subscription that had one when the round began, then the services,
    one request each (Humble, `Executor._wait_for_ready_callbacks`). So the answer comes after the
    messages that were published before the question, if there was one on each topic at most; and
    the answer to a second question comes after what the first round made due: the timers of a time
    on /clock.
    """

    def __init__(self, ros_args: Sequence[str] = ()) -> None:
        """Join the graph, with what follows `--ros-args`. Signals stay with the caller."""
        rclpy.init(args=["--ros-args", *ros_args], signal_handler_options=SignalHandlerOptions.NO)
        self._node = Node("vla_ros_player")
        self._executor = SingleThreadedExecutor()
        self._executor.add_node(self._node)
        self._publishers: dict[str, Any] = {}
        self._clock: Any = None
        self._description: Any = None
        self._nodes: list[str] = []
        self._watchers: list[str] = []
        self._questions: dict[str, Any] = {}
        self._first_node: dict[str, int] = {}

    def add_topic(self, topic: str, msgtype: str, offered: Sequence[Qos], *, latched: bool) -> bool:
        """Begin a topic; return False if its type is not installed here.

        Args:
            topic: Its absolute name.
            msgtype: Its type, as 'std_msgs/msg/String'.
            offered: The QoS that its publishers offered when it was recorded; may be empty.
            latched: Whether late joiners get the last message whatever was offered.

        """
        package, kind, name = msgtype.split("/")
        try:
            message = getattr(import_module(f"{package}.{kind}"), name)
        except (ImportError, AttributeError):
            return False
        qos = LATCHED_QOS if latched else qos_profile(offered)
        self._publishers[topic] = self._node.create_publisher(message, topic, qos)
        return True

    def add_clock(self) -> None:
        """Begin /clock."""
        self._clock = self._node.create_publisher(Clock, "/clock", CLOCK_QOS)

    def describe(self, topic: str, urdf: str) -> None:
        """Publish a robot description, kept for late joiners."""
        self._description = self._node.create_publisher(String, topic, LATCHED_QOS)
        self._publishers.setdefault(topic, self._description)
        self._description.publish(String(data=urdf))

    def publish(self, topic: str, data: bytes) -> None:
        """Publish a serialised message (CDR with its header).

        What has no such header is left out: on real ROS 2 it would reach the wire, and break it.
        """
        if data[:2] in ENCAPSULATIONS and len(data) >= HEADER_SIZE:
            self._publishers[topic].publish(data)
        else:
            self._node.get_logger().error(
                f"{topic}: a message is not published: it is damaged", throttle_duration_sec=5.0
            )

    def publish_clock(self, time_ns: int) -> None:
        """Publish a time."""
        self._clock.publish(Clock(clock=stamp_from_ns(time_ns)))

    def wait_for(self, lockstep: Sequence[str], others: Sequence[str], timeout_s: float) -> None:
        """Wait until nodes run, and all subscriptions that there are are matched.

        Args:
            lockstep: Names of the nodes for which `settle` waits, in the order in which data pass
                through them.
            others: Names of further nodes. In lockstep, they get the time to take each message (a
                recorder), but what they make of it is not waited for.
            timeout_s: How long at most.

        Raises:
            PlayError: If one does not answer in time.

        """
        end = time.monotonic() + timeout_s
        self._nodes = [_absolute(name) for name in lockstep]
        self._watchers = [_absolute(name) for name in others if name not in lockstep]
        for name in (*self._nodes, *self._watchers):
            # Served by every node, once it spins.
            self._questions[name] = self._node.create_client(
                GetParameters, f"{name}/get_parameters"
            )
            while not self._questions[name].service_is_ready():
                if time.monotonic() > end:
                    msg = (
                        f"node {name} did not appear within {timeout_s:g} s: there are "
                        f"{', '.join(sorted(self._others())) or 'none'}"
                    )
                    raise PlayError(msg)
                self.spin(0.05)
            self._hear(name, max(1.0, end - time.monotonic()))
        # Those who are there already have to be found, and the nodes have to find each other.
        found = time.monotonic() + DISCOVERY_S
        while time.monotonic() < found:
            self.spin(0.05)
        self._match()
        if self._description is not None:
            self._description.wait_for_all_acked(Duration(seconds=MATCH_TIMEOUT_S))
        self.settle(None)

    def follows(self, topic: str) -> bool:
        """Return whether a node in lockstep receives a topic."""
        return topic in self._first_node

    def settle(self, topic: str | None) -> None:
        """Wait until the nodes in lockstep have done what follows from the last publication.

        Args:
            topic: Where a message was published; None for a time on the clock.

        Raises:
            PlayError: If a node has ended or hangs.

        """
        first = 0 if topic is None else self._first_node.get(topic, len(self._nodes))
        for index, name in enumerate(self._nodes[first:], first):
            # What a node publishes of it, the next in line has by the time of its answer: maybe
            # two messages on a topic, for which it needs two rounds.
            self._ask(name, 1 if topic is not None and index == first else 2)
        if topic is not None:
            for name in self._watchers:
                self._ask(name, 1)

    def spin(self, seconds: float) -> None:
        """Let the graph be heard for a while."""
        self._executor.spin_once(timeout_sec=seconds)

    def close(self) -> None:
        """Leave the graph, once what was sent reliably has arrived."""
        for name in self._watchers:
            with contextlib.suppress(PlayError):
                self._ask(name, LAST_ROUNDS, timeout_s=1.0)
        for publisher in self._publishers.values():
            publisher.wait_for_all_acked(Duration(seconds=0.5))
        self._executor.shutdown()
        self._node.destroy_node()
        rclpy.try_shutdown()

    def _ask(self, name: str, rounds: int, timeout_s: float = ANSWER_TIMEOUT_S) -> None:
        """Wait until a node has answered as many questions, each in a round of its executor."""
        request = GetParameters.Request(names=["use_sim_time"])
        futures = [self._questions[name].call_async(request) for _ in range(rounds)]
        end = time.monotonic() + timeout_s
        absent = 0
        for future in futures:
            self._executor.spin_until_future_complete(future, timeout_sec=LOOK_S)
            while not future.done():
                absent = 0 if name in self._others() else absent + 1
                if absent > 1:
                    msg = f"node {name} has ended"
                    raise PlayError(msg)
                if time.monotonic() > end:
                    msg = f"node {name} has not answered for {timeout_s:g} s"
                    raise PlayError(msg)
                self._executor.spin_until_future_complete(future, timeout_sec=LOOK_S)

    def _hear(self, name: str, timeout_s: float) -> None:
        """Wait for a node's first answer: it may know the question before it knows who asks."""
        end = time.monotonic() + timeout_s
        while time.monotonic() < end:
            with contextlib.suppress(PlayError):
                self._ask(name, 1, FIRST_ANSWER_S)
                return
        self._ask(name, 1, FIRST_ANSWER_S)

    def _match(self) -> None:
        """Wait until every publisher has found the subscriptions that the graph knows."""
        end = time.monotonic() + MATCH_TIMEOUT_S
        for topic, publisher in self._publishers.items():
            while True:
                infos = self._node.get_subscriptions_info_by_topic(topic)
                if publisher.get_subscription_count() >= len(infos):
                    break
                if time.monotonic() > end:
                    names = ", ".join(sorted({info.node_name for info in infos}))
                    self._node.get_logger().warning(
                        f"{topic}: not all of {names} match the QoS that is offered"
                    )
                    break
                self.spin(0.05)
            listeners = [
                self._nodes.index(name)
                for info in infos
                if (name := _full_name(info.node_name, info.node_namespace)) in self._nodes
            ]
            if listeners:
                self._first_node[topic] = min(listeners)

    def _others(self) -> set[str]:
        names: Iterable[tuple[str, str]] = self._node.get_node_names_and_namespaces()
        own = self._node.get_fully_qualified_name()
        return {_full_name(name, namespace) for name, namespace in names} - {own}


def qos_profile(offered: Sequence[Qos]) -> QoSProfile:
    """Return what to publish with, as rosbag2 chooses it: the recorded offer where there is one.

    The depth is rosbag2's own, but for latched topics, of which late joiners get as many as
    they did.

    Args:
        offered: What the publishers of the topic offered. Where they differed in reliability or
            durability, the default (reliable, volatile) is taken, which rosbag2 does too.

    """
    kinds = {(qos.reliability, qos.durability) for qos in offered}
    if len(kinds) != 1:
        return QoSProfile(depth=DEFAULT_DEPTH)
    qos = offered[0]
    latched = qos.durability == QosDurability.TRANSIENT_LOCAL
    keeps = qos.history == QosHistory.KEEP_LAST and qos.depth > 0
    best_effort = qos.reliability == QosReliability.BEST_EFFORT
    return QoSProfile(
        history=HistoryPolicy.KEEP_LAST,
        depth=(qos.depth if keeps else 1) if latched else DEFAULT_DEPTH,
        reliability=ReliabilityPolicy.BEST_EFFORT if best_effort else ReliabilityPolicy.RELIABLE,
        durability=DurabilityPolicy.TRANSIENT_LOCAL if latched else DurabilityPolicy.VOLATILE,
        liveliness=LivelinessPolicy.AUTOMATIC,
    )


def _absolute(name: str) -> str:
    return name if name.startswith("/") else f"/{name}"


def _full_name(name: str, namespace: str) -> str:
    return f"{namespace.rstrip('/')}/{name}"
