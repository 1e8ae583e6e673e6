"""Messages to bytes and back."""

from vla_ros_standalone import messages


def serialize_message(message):
    """Return the CDR form of a message, with its header, as a rosbag2 stores it."""
    return bytes(messages.serialize(message))


def deserialize_message(serialized_message, message_type):
    """Return the message that serialized bytes hold; raise ValueError when they are malformed."""
    return messages.deserialize(serialized_message, message_type)
