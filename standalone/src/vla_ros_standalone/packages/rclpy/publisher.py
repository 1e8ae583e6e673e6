"""Publishers."""

from rclpy import _names
from rclpy._endpoint import in_callback, user_data
from rclpy.duration import Duration
from rclpy.exceptions import InvalidHandle, RCLError
from rclpy.type_support import prepare
from vla_ros_standalone import messages
from vla_ros_standalone.dds import DdsError

_FOREVER = Duration(seconds=-1)


class Publisher:
    """Publishes messages of one type on one topic; made by `Node.create_publisher`."""

    def __init__(self, node, msg_type, topic, qos_profile, event_handlers=()):
        prepare(msg_type)
        self._node = node
        self.msg_type = msg_type
        self.topic = topic
        self.qos_profile = qos_profile
        self.event_handlers = list(event_handlers)
        self._destroyed = False
        self.handle = node.context.handle.create_writer(
            _names.dds_topic(topic),
            messages.dds_type_name(msg_type),
            qos_profile._to_dds(user_data(msg_type)),
        )

    def publish(self, msg):
        """Send a message, or a serialised one (bytes).

        Raise TypeError for another type, RCLError after the context's end, except that a callback
        which a signal cuts short may finish.
        """
        if isinstance(msg, self.msg_type):
            payload = messages.serialize(msg)
        elif isinstance(msg, bytes):
            payload = msg
        else:
            msg_0 = f"Expected {self.msg_type}, got {type(msg)}"
            raise TypeError(msg_0)
        if self._destroyed:
            msg_0 = "cannot use Destroyable because destruction was requested"
            raise InvalidHandle(msg_0)
        context = self._node.context
        if context.handle.closed or not (context.ok() or in_callback()):
            msg_0 = "Failed to publish: publisher's context is invalid"
            raise RCLError(msg_0)
        try:
            sent = self.handle.write(payload)
        except DdsError as error:
            msg_0 = f"Failed to publish: {error}"
            raise RCLError(msg_0) from None
        if not sent:
            self._node.get_logger().warning(
                f"dropped a message on '{self.topic}': a reliable subscription does not keep up",
                throttle_duration_sec=5.0,
            )

    def get_subscription_count(self):
        """Return how many subscriptions are matched now."""
        return self.handle.matched()

    @property
    def topic_name(self):
        return self.topic

    @property
    def logger_name(self):
        return self._node.get_logger().name

    def assert_liveliness(self):
        """Say that this publisher is alive, for manual liveliness."""
        self.handle.assert_liveliness()

    def wait_for_all_acked(self, timeout=_FOREVER):
        """Wait for the acknowledgement of all reliable subscriptions; return whether it came."""
        nanoseconds = timeout.nanoseconds
        return self.handle.wait_for_acks(2**63 - 1 if nanoseconds < 0 else nanoseconds)

    def destroy(self):
        self._destroyed = True
        self.handle.close()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.destroy()
