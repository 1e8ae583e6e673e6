"""SIGINT and SIGTERM shut the contexts down, so that spinning ends.

Python runs a signal's handler only between bytecodes, and the main thread may sleep in the DDS
library. So the interpreter also writes the signal's number into a socket, and a thread that reads
it wakes the executors; then the main thread gets to the handler.
"""

import enum
import signal
import socket
import threading
import time
import weakref
from typing import ClassVar

from rclpy.context import living_contexts

# Ctrl-C in a terminal goes to each process of the group, and `ros2 launch` sends one more to each
# of its processes. The copy must not interrupt what the first made the program do: its clean end.
_SAME_CTRL_C_S = 1.0


class SignalHandlerOptions(enum.IntFlag):
    """Which signals rclpy handles."""

    NO = 0
    SIGINT = 1
    SIGTERM = 2
    ALL = 3


class _Installed:
    options = SignalHandlerOptions.NO
    previous: ClassVar = {}
    reader = None
    writer = None
    previous_fd = -1
    handled_at = None


# The executors, which the waking thread wakes.
_wakers = weakref.WeakSet()


def add_waker(waker):
    _wakers.add(waker)


def remove_waker(waker):
    _wakers.discard(waker)


def install_signal_handlers(options=SignalHandlerOptions.ALL):
    """Install the handlers for `options`. Only the main thread can; elsewhere nothing happens."""
    if threading.current_thread() is not threading.main_thread():
        return
    _uninstall()
    options = SignalHandlerOptions(options)
    if options == SignalHandlerOptions.NO:
        return
    _Installed.reader, _Installed.writer = socket.socketpair()
    _Installed.writer.setblocking(False)
    _Installed.previous_fd = signal.set_wakeup_fd(
        _Installed.writer.fileno(), warn_on_full_buffer=False
    )
    threading.Thread(
        target=_wake_on_signal, args=(_Installed.reader,), name="rclpy-signals", daemon=True
    ).start()
    for flag, number in (
        (SignalHandlerOptions.SIGINT, signal.SIGINT),
        (SignalHandlerOptions.SIGTERM, signal.SIGTERM),
    ):
        if options & flag:
            _Installed.previous[number] = signal.signal(number, _handle)
    _Installed.options = options


def uninstall_signal_handlers():
    """Put the previous handlers back, unless a signal is ending the program just now."""
    if threading.current_thread() is threading.main_thread() and _Installed.handled_at is None:
        _uninstall()


def _uninstall():
    if _Installed.options == SignalHandlerOptions.NO:
        return
    for number, handler in _Installed.previous.items():
        signal.signal(number, signal.SIG_DFL if handler is None else handler)
    _Installed.previous = {}
    signal.set_wakeup_fd(_Installed.previous_fd)
    _Installed.writer.close()  # the thread reads the end of the stream and ends
    _Installed.options = SignalHandlerOptions.NO
    _Installed.handled_at = None


def get_current_signal_handlers_options():
    return _Installed.options


def _handle(number, frame):
    now = time.monotonic()
    if _Installed.handled_at is not None and now < _Installed.handled_at + _SAME_CTRL_C_S:
        return
    _Installed.handled_at = now
    for context in living_contexts():
        context._end()
    previous = _Installed.previous.get(number)
    # The default of SIGINT is KeyboardInterrupt; that of SIGTERM, death, is what shutdown replaces.
    if callable(previous):
        previous(number, frame)


def _wake_on_signal(reader):
    with reader:
        while reader.recv(1):
            for waker in tuple(_wakers):
                waker.wake()
