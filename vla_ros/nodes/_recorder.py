"""Record every topic that appears, but some, into a rosbag2."""

import re
from collections.abc import Callable
from importlib import import_module
from typing import Any

from rclpy.node import Node
from rclpy.qos import DurabilityPolicy, QoSProfile, ReliabilityPolicy
from rosbags.interfaces import (
    Qos,
    QosDurability,
    QosHistory,
    QosLiveliness,
    QosReliability,
    QosTime,
)

from vla_ros.nodes._common import now_ns
from vla_ros.replay.recording import Recording

DISCOVERY_PERIOD_S = 0.2
FOREVER = QosTime(9223372036, 854775807)


class Recorder:
    """Subscribes to topics as they appear in the graph and writes what arrives, undecoded.

    Each topic is subscribed to with the reliability and durability that its publishers offer, so
    that latched messages are received and nothing that was sent reliably is lost.
    """

    def __init__(self, node: Node, recording: Recording, exclude: str) -> None:
        """Start recording.

        Args:
            node: The node whose subscriptions are used.
            recording: Where messages go. The caller closes it after the node has stopped spinning.
            exclude: Regular expression; topics that it matches whole are left out.

        """
        self._node = node
        self._recording = recording
        self._exclude = re.compile(exclude)
        self._seen: set[str] = set()
        node.create_timer(DISCOVERY_PERIOD_S, self._discover)
        self._discover()

    def _discover(self) -> None:
        for topic, types in self._node.get_topic_names_and_types():
            if topic in self._seen or self._exclude.fullmatch(topic):
                continue
            endpoints = self._node.get_publishers_info_by_topic(topic)
            if not endpoints:
                continue
            self._seen.add(topic)
            if len(types) != 1 or not self._recording.knows(types[0]):
                self._node.get_logger().warning(
                    f"{topic} is not recorded: no definition of its type {', '.join(types)}"
                )
                continue
            profile = _common_profile([endpoint.qos_profile for endpoint in endpoints])
            self._recording.add_topic(topic, types[0], [_bag_qos(profile)])
            self._node.create_subscription(
                _message_class(types[0]), topic, self._writer(topic), profile, raw=True
            )

    def _writer(self, topic: str) -> Callable[[bytes], None]:
        def write(data: bytes) -> None:
            self._recording.write(topic, now_ns(self._node), data)

        return write


def _message_class(msgtype: str) -> Any:  # noqa: ANN401 - a generated class
    package, kind, name = msgtype.split("/")
    return getattr(import_module(f"{package}.{kind}"), name)


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
