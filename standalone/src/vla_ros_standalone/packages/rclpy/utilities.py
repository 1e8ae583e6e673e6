"""The default context and small helpers."""

import sys
import threading

from rclpy import _arguments
from rclpy.constants import S_TO_NS
from rclpy.context import Context

_default_context = None
_context_lock = threading.Lock()


def get_default_context(*, shutting_down=False):
    """Return the process-wide context; with `shutting_down`, the next call makes a new one."""
    global _default_context
    with _context_lock:
        if _default_context is None:
            _default_context = Context()
        context = _default_context
        if shutting_down:
            _default_context = None
        return context


def ok(*, context=None):
    return (get_default_context() if context is None else context).ok()


def shutdown(*, context=None):
    """Shut down; raise when it is already."""
    if context is None:
        context = get_default_context(shutting_down=True)
    context.shutdown()


def try_shutdown(*, context=None):
    """Shut down unless that already happened."""
    if context is None:
        context = get_default_context(shutting_down=True)
    context.try_shutdown()


def remove_ros_args(args=None):
    """Return a command line without its ROS part."""
    return _arguments.remove_ros_args(sys.argv if args is None else args)


def get_rmw_implementation_identifier():
    return "rmw_cyclonedds_cpp"


def get_available_rmw_implementations():
    return {"rmw_cyclonedds_cpp"}


def timeout_sec_to_nsec(timeout_sec):
    """Return nanoseconds; -1 (wait for ever) for None or a negative timeout."""
    if timeout_sec is None or timeout_sec < 0:
        return -1
    return int(float(timeout_sec) * S_TO_NS)
