"""Checks that a class is a message or a service."""

from functools import cache

from rclpy.exceptions import NoTypeSupportImportedException
from vla_ros_standalone import messages


def check_is_valid_msg_type(msg_type):
    """Raise NoTypeSupportImportedException unless `msg_type` is a message class."""
    try:
        messages.type_name(msg_type)
    except (AttributeError, TypeError, ValueError, KeyError):
        msg = f"{msg_type!r} is not a message class"
        raise NoTypeSupportImportedException(msg) from None


@cache
def prepare(msg_type):
    """Have the code that encodes and decodes a message made now, not at the first message.

    The first message is then as fast as the next. And Ctrl-C cannot hit the making: CPython takes
    an interrupted `exec` for an unhandled KeyboardInterrupt, and exits as if killed by the signal.
    """
    messages.deserialize(messages.serialize(msg_type()), msg_type)


def check_is_valid_srv_type(srv_type):
    """Raise NoTypeSupportImportedException unless `srv_type` is a service class."""
    for part in ("Request", "Response"):
        if not hasattr(srv_type, part):
            msg = f"{srv_type!r} is not a service class"
            raise NoTypeSupportImportedException(msg)
        check_is_valid_msg_type(getattr(srv_type, part))
