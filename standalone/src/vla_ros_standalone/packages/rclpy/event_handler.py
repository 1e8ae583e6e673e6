"""Events of publishers and subscriptions: missed deadlines, liveliness, incompatible QoS."""

from typing import NamedTuple

from rclpy._endpoint import Waitable
from rclpy.qos import qos_policy_name_from_kind

# The policy ids of DDS, as QoSPolicyKind.
_POLICY_KINDS = {2: 1 << 1, 4: 1 << 2, 8: 1 << 3, 11: 1 << 4, 13: 1 << 5, 21: 1 << 6}


class QoSDeadlineMissedInfo(NamedTuple):
    total_count: int
    total_count_change: int


QoSRequestedDeadlineMissedInfo = QoSOfferedDeadlineMissedInfo = QoSDeadlineMissedInfo


class QoSLivelinessChangedInfo(NamedTuple):
    alive_count: int
    not_alive_count: int
    alive_count_change: int
    not_alive_count_change: int


class QoSLivelinessLostInfo(NamedTuple):
    total_count: int
    total_count_change: int


class QoSIncompatibleInfo(NamedTuple):
    total_count: int
    total_count_change: int
    last_policy_kind: int


QoSRequestedIncompatibleQoSInfo = QoSOfferedIncompatibleQoSInfo = QoSIncompatibleInfo


class SubscriptionEventCallbacks:
    """Callbacks for a subscription's events; without one, incompatible QoS is logged."""

    def __init__(
        self, *, incompatible_qos=None, deadline=None, liveliness=None, use_default_callbacks=True
    ):
        self.incompatible_qos = incompatible_qos
        self.deadline = deadline
        self.liveliness = liveliness
        self.use_default_callbacks = use_default_callbacks

    def _callbacks(self, node, topic):
        incompatible = self.incompatible_qos
        if incompatible is None and self.use_default_callbacks:

            def incompatible(info):
                node.get_logger().warning(
                    f"New publisher discovered on topic '{topic}', offering incompatible QoS. No "
                    "messages will be received from it. Last incompatible policy: "
                    f"{qos_policy_name_from_kind(info.last_policy_kind)}"
                )

        return {
            "requested_incompatible_qos": incompatible,
            "requested_deadline_missed": self.deadline,
            "liveliness_changed": self.liveliness,
        }


class PublisherEventCallbacks:
    """Callbacks for a publisher's events; without one, incompatible QoS is logged."""

    def __init__(
        self, *, incompatible_qos=None, deadline=None, liveliness=None, use_default_callbacks=True
    ):
        self.incompatible_qos = incompatible_qos
        self.deadline = deadline
        self.liveliness = liveliness
        self.use_default_callbacks = use_default_callbacks

    def _callbacks(self, node, topic):
        incompatible = self.incompatible_qos
        if incompatible is None and self.use_default_callbacks:

            def incompatible(info):
                node.get_logger().warning(
                    f"New subscription discovered on topic '{topic}', requesting incompatible "
                    "QoS. No messages will be sent to it. Last incompatible policy: "
                    f"{qos_policy_name_from_kind(info.last_policy_kind)}"
                )

        return {
            "offered_incompatible_qos": incompatible,
            "offered_deadline_missed": self.deadline,
            "liveliness_lost": self.liveliness,
        }


class EventHandler(Waitable):
    """Waits for the events of one endpoint and calls back for those that happened."""

    def __init__(self, endpoint, callbacks, callback_group):
        self._endpoint = endpoint
        self._callbacks = {event: call for event, call in callbacks.items() if call is not None}
        endpoint.watch(self._callbacks)
        super().__init__(callback_group, endpoint.handle)

    def _take(self):
        happened = []
        for event, callback in self._callbacks.items():
            info = _info(event, self._endpoint.take_status(event))
            if info is not None:
                happened.append((callback, info))
        return (_call_all, (happened,)) if happened else None


def _call_all(happened):
    for callback, info in happened:
        callback(info)


def _info(event, status):
    """Return the event's information, or None when nothing changed since the last time."""
    if event == "liveliness_changed":
        if not (status.alive_count_change or status.not_alive_count_change):
            return None
        return QoSLivelinessChangedInfo(
            status.alive_count,
            status.not_alive_count,
            status.alive_count_change,
            status.not_alive_count_change,
        )
    if not status.total_count_change:
        return None
    counts = (status.total_count, status.total_count_change)
    if event == "liveliness_lost":
        return QoSLivelinessLostInfo(*counts)
    if event.endswith("deadline_missed"):
        return QoSDeadlineMissedInfo(*counts)
    return QoSIncompatibleInfo(*counts, _POLICY_KINDS.get(status.last_policy_id, 1))
