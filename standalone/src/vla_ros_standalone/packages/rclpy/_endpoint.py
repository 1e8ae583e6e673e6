"""What publishers, subscriptions, clients and services share."""

import threading

from vla_ros_standalone import messages

_local = threading.local()


def in_callback():
    """Whether this thread runs a callback for an executor."""
    return getattr(_local, "depth", 0) > 0


class CallbackScope:
    """Marks that this thread runs a callback."""

    def __enter__(self):
        _local.depth = getattr(_local, "depth", 0) + 1

    def __exit__(self, *_):
        _local.depth -= 1


def user_data(message_type, prefix=b""):
    """Return an endpoint's USER_DATA: from Iron on with the hash of its type."""
    hashed = None if messages.distro() == "humble" else messages.type_hash(message_type)
    return prefix + (f"typehash={hashed};".encode() if hashed else b"")


class Waitable:
    """An entity that an executor waits for: a DDS handle that fires, and work to take then.

    `_take` returns (callable, arguments), or None when there is nothing after all.
    """

    def __init__(self, callback_group, wait_handle):
        self.callback_group = callback_group
        self._wait_handle = wait_handle
        self._executor_event = False
        if callback_group is not None:
            callback_group.add_entity(self)

    def _take(self):
        raise NotImplementedError
