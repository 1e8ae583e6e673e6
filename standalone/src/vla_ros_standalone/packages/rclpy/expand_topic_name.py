"""Topic names made absolute."""

from rclpy import _names


def expand_topic_name(topic_name, node_name, node_namespace):
    """Return the absolute form of `topic_name` in the given node and namespace."""
    _names.validate_node_name(node_name)
    _names.validate_namespace(node_namespace)
    _names.validate_topic_name(topic_name)
    return _names.expand(topic_name, node_name, node_namespace)
