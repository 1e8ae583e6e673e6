"""Waiting for one message."""

from rclpy.executors import SingleThreadedExecutor
from rclpy.qos import QoSProfile
from rclpy.task import Future


def wait_for_message(msg_type, node, topic, *, qos_profile=1, time_to_wait=-1):
    """Return (whether a message came, the message or None). The node must not be spun meanwhile."""
    future = Future()
    profile = qos_profile if isinstance(qos_profile, QoSProfile) else QoSProfile(depth=qos_profile)

    def first(message):
        if not future.done():
            future.set_result(message)

    subscription = node.create_subscription(msg_type, topic, first, profile)
    executor = SingleThreadedExecutor(context=node.context)
    try:
        executor.add_node(node)
        executor.spin_until_future_complete(future, time_to_wait)
    finally:
        executor.shutdown()
        node.destroy_subscription(subscription)
    return (True, future.result()) if future.done() else (False, None)
