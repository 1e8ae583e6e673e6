"""A context: one command line and one DDS participant, from init to shutdown."""

import sys
import threading
import weakref
from inspect import ismethod

from rclpy import _arguments
from rclpy._graph import Graph
from rclpy.exceptions import RCLError
from rclpy.impl import rcutils_logger
from rclpy.impl.logging_severity import LoggingSeverity
from vla_ros_standalone.dds import DdsError, Participant

_living = weakref.WeakSet()


class Context:
    """The life between init and shutdown. It can be initialised once."""

    def __init__(self):
        self._lock = threading.RLock()
        self._callbacks = []
        self._ok = False
        self._participant = None
        self._graph = None
        self._arguments = None

    def init(self, args=None, *, initialize_logging=True, domain_id=None):
        """Parse `args` (default: sys.argv) and join the domain.

        Raise RCLError when that fails: a bad domain id, taken ports, bad arguments.
        """
        with self._lock:
            if self._participant is not None:
                msg = "Context.init() must only be called once"
                raise RuntimeError(msg)
            self._arguments = _arguments.parse(sys.argv if args is None else args)
            if initialize_logging:
                self._configure_logging()
            enclave = f"enclave={self._arguments.enclave};".encode()
            try:
                self._participant = Participant(domain_id, user_data=enclave)
                self._graph = Graph(self._participant)
            except (ValueError, DdsError) as error:
                msg = f"failed to initialize ROS: {error}"
                raise RCLError(msg) from None
            self._ok = True
            _living.add(self)

    def _configure_logging(self):
        arguments = self._arguments
        level = (arguments.default_log_level or "info").upper()
        rcutils_logger.configure(
            LoggingSeverity[level],
            {name: LoggingSeverity[word.upper()] for name, word in arguments.log_levels.items()},
            arguments.log_to_stdout,
        )

    @property
    def handle(self):
        """The DDS participant."""
        return self._participant

    def ok(self):
        """Whether the context is initialised and not shut down."""
        return self._ok

    def get_domain_id(self):
        if self._participant is None:
            msg = "Context must be initialized before it can have a domain id"
            raise RuntimeError(msg)
        return self._participant.domain_id

    def shutdown(self):
        """Shut down; raise when that already happened (a signal may have done it)."""
        if self._participant is None:
            msg = "Context must be initialized before it can be shutdown"
            raise RuntimeError(msg)
        if not self._ok:
            self._leave()
            msg = "failed to shutdown: rcl_shutdown already called on the given context"
            raise RCLError(msg)
        self.try_shutdown()

    def try_shutdown(self):
        """Shut down and leave the domain, whatever happened before."""
        self._end()
        self._leave()

    def _end(self):
        """Make `ok()` False and wake who waits. The participant stays: callbacks may still run."""
        with self._lock:
            if not self._ok:
                return
            self._ok = False
            callbacks, self._callbacks = self._callbacks, []
        for reference in callbacks:
            callback = reference()
            if callback is not None:
                callback()

    def _leave(self):
        participant = self._participant
        if participant is not None:
            participant.close()

    def on_shutdown(self, callback):
        """Call `callback()` at shutdown, or now if that is over."""
        if not callable(callback):
            msg = f"callback should be a callable, got {type(callback)}"
            raise TypeError(msg)
        with self._lock:
            if self._ok:
                is_method = ismethod(callback)
                self._callbacks.append(
                    weakref.WeakMethod(callback) if is_method else lambda: callback
                )
                return
        callback()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.try_shutdown()


def living_contexts():
    """Return the contexts that are initialised and not shut down."""
    return [context for context in _living if context.ok()]
