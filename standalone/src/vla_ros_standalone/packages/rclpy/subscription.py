"""Subscriptions."""

import inspect
import time
from enum import Enum

from rclpy import _names
from rclpy._endpoint import Waitable, user_data
from rclpy.type_support import prepare
from vla_ros_standalone import messages

# A peer that sends rubbish is named once in this time, not once a message.
_COMPLAINT_INTERVAL_S = 5.0


class Subscription(Waitable):
    """Receives messages of one type on one topic; made by `Node.create_subscription`."""

    class CallbackType(Enum):
        MessageOnly = 0
        WithMessageInfo = 1

    def __init__(
        self, node, msg_type, topic, callback, callback_group, qos_profile, raw, event_handlers=()
    ):
        prepare(msg_type)
        self._node = node
        self.msg_type = msg_type
        self.topic = topic
        self.callback = callback
        self.qos_profile = qos_profile
        self.raw = raw
        self.event_handlers = list(event_handlers)
        self._complaints = {}
        self.handle = node.context.handle.create_reader(
            _names.dds_topic(topic),
            messages.dds_type_name(msg_type),
            qos_profile._to_dds(user_data(msg_type)),
        )
        super().__init__(callback_group, self.handle.condition)

    @property
    def callback(self):
        return self._callback

    @callback.setter
    def callback(self, value):
        signature = inspect.signature(value)
        for kind, arguments in (
            (self.CallbackType.MessageOnly, (None,)),
            (self.CallbackType.WithMessageInfo, (None, None)),
        ):
            try:
                signature.bind(*arguments)
            except TypeError:
                continue
            self._callback, self._callback_type = value, kind
            return
        msg = (
            "Subscription.__init__(): callback should be either be callable with one argument "
            "(to get only the message) or two (to get message and message info)"
        )
        raise RuntimeError(msg)

    def _take(self):
        samples = self.handle.take(1)
        if not samples:
            return None
        sample = samples[0]
        message = bytes(sample.payload) if self.raw else self._message(sample)
        if message is None:
            return None
        if self._callback_type is self.CallbackType.MessageOnly:
            return self._callback, (message,)
        info = {
            "source_timestamp": sample.source_timestamp_ns,
            "received_timestamp": time.time_ns(),
            "publication_sequence_number": None,
            "reception_sequence_number": None,
        }
        return self._callback, (message, info)

    def _message(self, sample):
        try:
            return messages.deserialize(sample.payload, self.msg_type)
        except ValueError as error:
            now = time.monotonic()
            last = self._complaints.get(sample.publication_handle)
            if last is None or now - last > _COMPLAINT_INTERVAL_S:
                self._complaints[sample.publication_handle] = now
                self._node.get_logger().error(
                    f"dropped a malformed message on '{self.topic}' "
                    f"({messages.type_name(self.msg_type)}, {len(sample.payload)} bytes): {error}"
                )
            return None

    def get_publisher_count(self):
        """Return how many publishers are matched now."""
        return self.handle.matched()

    @property
    def topic_name(self):
        return self.topic

    @property
    def logger_name(self):
        return self._node.get_logger().name

    def destroy(self):
        self.handle.close()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.destroy()
