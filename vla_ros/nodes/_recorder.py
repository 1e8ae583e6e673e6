"""Record topics as they appear, all of them or some, into a rosbag2."""

import os
import re
from collections import deque
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

import rclpy
from rclpy.clock import Clock, ClockType
from rclpy.executors import SingleThreadedExecutor
from rclpy.node import Node
from rclpy.qos import DurabilityPolicy, QoSProfile, ReliabilityPolicy
from rclpy.signals import SignalHandlerOptions
from rosbags.interfaces import (
    Qos,
    QosDurability,
    QosHistory,
    QosLiveliness,
    QosReliability,
    QosTime,
)

from vla_ros.nodes._common import now_ns
from vla_ros.replay.message_types import gather_definition
from vla_ros.replay.recording import Recording

DISCOVERY_PERIOD_S = 0.2
COMMIT_PERIOD_S = 0.5
MOST_EARLY = 100
"""Messages kept before simulated time begins."""
FOREVER = QosTime(9223372036, 854775807)


@dataclass(slots=True)
class _Subscribed:
    """A topic that is recorded.

    Attributes:
        kind: The class of its messages.
        profile: What its subscription asks for.
        subscription: That subscription.

    """

    kind: Any
    profile: QoSProfile
    subscription: Any


class Recorder:
    """Subscribes to topics as they appear in the graph and writes what arrives, undecoded.

    Each topic is subscribed to with the reliability and durability that its publishers offer, so
    that latched messages are received and nothing that was sent reliably is lost.
    """

    def __init__(
        self,
        node: Node,
        recording: Recording,
        exclude: str = "",
        only: Collection[str] | None = None,
        told: Callable[[str], None] = lambda _: None,
    ) -> None:
        """Start recording.

        Args:
            node: The node whose subscriptions are used.
            recording: Where messages go. The caller closes it after the node has stopped spinning.
            exclude: Regular expression; topics that it matches whole are left out.
            only: The only topics to record, by their full names; all by default.
            told: Called with a line for each topic that begins to be recorded.

        """
        self._node = node
        self._told = told
        self._recording = recording
        self._exclude = re.compile(exclude)
        self._only = only
        self._refused: set[str] = set()
        self._subscribed: dict[str, _Subscribed] = {}
        self._early: deque[tuple[str, bytes]] = deque(maxlen=MOST_EARLY)
        # Simulated time may stand still, or not have begun.
        steady = Clock(clock_type=ClockType.STEADY_TIME)
        node.create_timer(DISCOVERY_PERIOD_S, self._discover, clock=steady)
        # Messages may come rarely, and a recorder be killed between them.
        node.create_timer(COMMIT_PERIOD_S, recording.commit, clock=steady)
        self._discover()

    def _discover(self) -> None:
        for topic, types in self._node.get_topic_names_and_types():
            if topic in self._refused or self._exclude.fullmatch(topic):
                continue
            if self._only is not None and topic not in self._only:
                continue
            endpoints = self._node.get_publishers_info_by_topic(topic)
            if not endpoints:
                continue
            profile = _common_profile([endpoint.qos_profile for endpoint in endpoints])
            known = self._subscribed.get(topic)
            if known is not None:
                self._follow(topic, known, profile)
                continue
            kind = _message_class(types[0]) if len(types) == 1 else None
            if kind is None or not self._knows(types[0]):
                self._node.get_logger().warning(
                    f"{topic} is not recorded: no definition of its type {', '.join(types)}"
                )
                self._refused.add(topic)
                continue
            self._recording.add_topic(topic, types[0], [_bag_qos(profile)])
            self._subscribed[topic] = self._subscribe(topic, kind, profile)
            self._told(f"recording {topic} ({types[0]})")

    def _follow(self, topic: str, known: "_Subscribed", profile: QoSProfile) -> None:
        """Subscribe anew if a publisher that came later offers less than is asked for."""
        if _asks_more(known.profile, profile):
            self._node.destroy_subscription(known.subscription)
            self._subscribed[topic] = self._subscribe(topic, known.kind, profile)

    def _subscribe(
        self,
        topic: str,
        kind: Any,  # noqa: ANN401 - a generated class
        profile: QoSProfile,
    ) -> "_Subscribed":
        subscription = self._node.create_subscription(
            kind, topic, self._writer(topic), profile, raw=True
        )
        return _Subscribed(kind, profile, subscription)

    def _knows(self, msgtype: str) -> bool:
        """Return whether a type can be written, taking its definition from its package if need be.

        A robot's own messages are in no collection of definitions.
        """
        if self._recording.knows(msgtype):
            return True
        definition = gather_definition(msgtype, _share)
        try:
            if definition:
                self._recording.learn(msgtype, definition)
        except ValueError as err:
            self._node.get_logger().warning(str(err))
        return self._recording.knows(msgtype)

    def _writer(self, topic: str) -> Callable[[bytes], None]:
        def write(data: bytes) -> None:
            time_ns = now_ns(self._node)
            self._early.append((topic, data))
            if time_ns == 0:
                return  # Latched messages that come before simulated time has begun.
            for name, early in self._early:
                self._recording.write(name, time_ns, early)
            self._early.clear()

        return write


class RecorderSession:
    """A node that only records, its context and its executor, stepped by the command's own loop."""

    def __init__(
        self,
        recording: Recording,
        topics: Sequence[str] | None,
        arguments: Sequence[str],
        told: Callable[[str], None],
    ) -> None:
        """Join the graph and start recording.

        Args:
            recording: Where messages go; the caller closes it.
            topics: The topics to record, relative names in the node's namespace; all if None.
            arguments: ROS 2's own, behind `--ros-args`.
            told: Called with a line for each topic that begins to be recorded.

        """
        # Signals stay with the caller: Ctrl-C must close the bag in order.
        rclpy.init(args=["--ros-args", *arguments], signal_handler_options=SignalHandlerOptions.NO)
        self._node = Node("vla_ros_record")
        self._recording = recording
        self._topics = topics and [self._node.resolve_topic_name(topic) for topic in topics]
        Recorder(self._node, recording, only=self._topics, told=told)
        self._executor = SingleThreadedExecutor()
        self._executor.add_node(self._node)

    def spin_once(self) -> None:
        """Handle a message, or wait a little for one."""
        # Always the same: with each new timeout rclpy begins its round of the subscriptions anew
        # (Humble, Executor.wait_for_ready_callbacks), and serves the first ones only.
        self._executor.spin_once(timeout_sec=0.05)

    def absent(self) -> list[str]:
        """Return the topics asked for that nobody has published so far."""
        return [topic for topic in self._topics or () if topic not in self._recording.counts]

    def close(self) -> None:
        """Leave the graph."""
        self._executor.shutdown()
        self._node.destroy_node()
        rclpy.try_shutdown()


def _share(package: str) -> Path | None:
    """Return the share folder of a package in a sourced workspace, None if it has none."""
    prefixes = os.environ.get("AMENT_PREFIX_PATH", "").split(os.pathsep)
    folders = (Path(prefix) / "share" / package for prefix in prefixes if prefix)
    return next((folder for folder in folders if folder.is_dir()), None)


def _message_class(msgtype: str) -> Any:  # noqa: ANN401 - a generated class
    """Return the class of a type, or None if its package is not installed."""
    package, kind, name = msgtype.split("/")
    try:
        return getattr(import_module(f"{package}.{kind}"), name, None)
    except ImportError:
        return None


def _asks_more(profile: QoSProfile, than: QoSProfile) -> bool:
    """Return whether publishers with one profile are not heard by subscribers with the other."""
    reliable = ReliabilityPolicy.RELIABLE
    latched = DurabilityPolicy.TRANSIENT_LOCAL
    return bool(
        (profile.reliability == reliable and than.reliability != reliable)
        or (profile.durability == latched and than.durability != latched)
    )


def _common_profile(offered: list[QoSProfile]) -> QoSProfile:
    reliable = all(p.reliability == ReliabilityPolicy.RELIABLE for p in offered)
    latched = all(p.durability == DurabilityPolicy.TRANSIENT_LOCAL for p in offered)
    return QoSProfile(
        depth=100,
        reliability=ReliabilityPolicy.RELIABLE if reliable else ReliabilityPolicy.BEST_EFFORT,
        durability=DurabilityPolicy.TRANSIENT_LOCAL if latched else DurabilityPolicy.VOLATILE,
    )


def _bag_qos(profile: QoSProfile) -> Qos:
    reliable = profile.reliability == ReliabilityPolicy.RELIABLE
    latched = profile.durability == DurabilityPolicy.TRANSIENT_LOCAL
    return Qos(
        history=QosHistory.KEEP_LAST,
        depth=10,
        reliability=QosReliability.RELIABLE if reliable else QosReliability.BEST_EFFORT,
        durability=QosDurability.TRANSIENT_LOCAL if latched else QosDurability.VOLATILE,
        deadline=FOREVER,
        lifespan=FOREVER,
        liveliness=QosLiveliness.AUTOMATIC,
        liveliness_lease_duration=FOREVER,
        avoid_ros_namespace_conventions=False,
    )
