"""Checks that a class is a message or a service."""

from rclpy.exceptions import NoTypeSupportImportedException
from vla_ros_standalone import messages


def check_is_valid_msg_type(msg_type):
    """Raise NoTypeSupportImportedException unless `msg_type` is a message class."""
    try:
        messages.type_name(msg_type)
    except (AttributeError, TypeError, ValueError, KeyError):
        raise NoTypeSupportImportedException(f"{msg_type!r} is not a message class") from None


def check_is_valid_srv_type(srv_type):
    """Raise NoTypeSupportImportedException unless `srv_type` is a service class."""
    for part in ("Request", "Response"):
        if not hasattr(srv_type, part):
            raise NoTypeSupportImportedException(f"{srv_type!r} is not a service class")
        check_is_valid_msg_type(getattr(srv_type, part))
