"""Loggers in ROS's format on stderr, with filters, and forwarding to /rosout."""

import os
import sys
import threading
import time

from rclpy.impl.logging_severity import LoggingSeverity

_COLOURS = {10: "\033[32m", 20: "\033[0m", 30: "\033[33m", 40: "\033[31m", 50: "\033[31m"}
_lock = threading.Lock()
_levels = {}
# Called with (logger name, severity, message, caller's frame, time in ns) for /rosout.
_forwarders = []


class _State:
    default_level = LoggingSeverity.INFO
    to_console = True


def configure(default_level, levels, to_console):
    """Apply what the command line says about logging."""
    _State.default_level = default_level
    _State.to_console = to_console
    _levels.update(levels)


def effective_level(name):
    """Return the level of the nearest logger up the name that has one, else the default."""
    while name:
        level = _levels.get(name, LoggingSeverity.UNSET)
        if level:
            return level
        name = name.rpartition(".")[0]
    return _State.default_level


def get_level(name):
    return _levels.get(name, LoggingSeverity.UNSET)


def set_level(name, level):
    if name:
        _levels[name] = LoggingSeverity(level)
    else:
        _State.default_level = LoggingSeverity(level)


def add_forwarder(forwarder):
    _forwarders.append(forwarder)


def remove_forwarder(forwarder):
    if forwarder in _forwarders:
        _forwarders.remove(forwarder)


class RcutilsLogger:
    """A named logger."""

    def __init__(self, name=""):
        self.name = name
        self._filters = {}

    def get_child(self, name):
        if not name:
            msg = "Child logger name must not be empty."
            raise ValueError(msg)
        return RcutilsLogger(f"{self.name}.{name}" if self.name else name)

    def set_level(self, level):
        set_level(self.name, level)

    def get_effective_level(self):
        return effective_level(self.name)

    def is_enabled_for(self, severity):
        return severity >= effective_level(self.name)

    def debug(self, message, **kwargs):
        return self._log(message, LoggingSeverity.DEBUG, kwargs)

    def info(self, message, **kwargs):
        return self._log(message, LoggingSeverity.INFO, kwargs)

    def warning(self, message, **kwargs):
        return self._log(message, LoggingSeverity.WARN, kwargs)

    warn = warning

    def error(self, message, **kwargs):
        return self._log(message, LoggingSeverity.ERROR, kwargs)

    def fatal(self, message, **kwargs):
        return self._log(message, LoggingSeverity.FATAL, kwargs)

    def log(self, message, severity, **kwargs):
        return self._log(message, LoggingSeverity(severity), kwargs)

    def _log(self, message, severity, kwargs):
        """Log and return True, unless the level or a filter forbids it.

        Filters, kept by the calling line: `once`, `skip_first`, `throttle_duration_sec`.
        """
        name = kwargs.pop("name", None) or self.name
        if severity < effective_level(name):
            return False
        frame = sys._getframe(2)
        if kwargs and not self._passes(frame, kwargs):
            return False
        now_ns = time.time_ns()
        text = str(message).encode("utf-8", "backslashreplace").decode()
        if _State.to_console:
            _write(name, severity, text, frame, now_ns)
        for forwarder in tuple(_forwarders):
            forwarder(name, severity, text, frame, now_ns)
        return True

    def _passes(self, frame, kwargs):
        throttle = kwargs.pop("throttle_duration_sec", None)
        clock = kwargs.pop("throttle_time_source_type", None)
        once = kwargs.pop("once", False)
        skip_first = kwargs.pop("skip_first", False)
        if kwargs:
            msg = f"unknown logging argument(s): {', '.join(kwargs)}"
            raise TypeError(msg)
        line = (frame.f_code, frame.f_lineno)
        state = self._filters.setdefault(line, {"calls": 0, "logged": 0, "last_ns": None})
        state["calls"] += 1
        if skip_first and state["calls"] == 1:
            return False
        if once and state["logged"]:
            return False
        if throttle is not None:
            now = _read(clock)
            last = state["last_ns"]
            if last is not None and last <= now < last + int(throttle * 1e9):
                return False
            state["last_ns"] = now
        state["logged"] += 1
        return True


def _read(clock):
    return time.monotonic_ns() if not hasattr(clock, "now") else clock.now().nanoseconds


def _write(name, severity, message, frame, now_ns):
    use_stdout = os.environ.get("RCUTILS_LOGGING_USE_STDOUT") == "1"
    stream = sys.stdout if use_stdout else sys.stderr
    seconds, nanoseconds = divmod(now_ns, 1_000_000_000)
    line = os.environ.get(
        "RCUTILS_CONSOLE_OUTPUT_FORMAT", "[{severity}] [{time}] [{name}]: {message}"
    )
    for token, value in (
        ("severity", severity.name),
        ("time_as_nanoseconds", str(now_ns)),
        ("time", f"{seconds}.{nanoseconds:09d}"),
        ("name", name),
        ("function_name", frame.f_code.co_name),
        ("file_name", frame.f_code.co_filename),
        ("line_number", str(frame.f_lineno)),
        ("message", message),
    ):
        line = line.replace("{" + token + "}", value)
    if _colourful(stream):
        line = f"{_COLOURS[severity]}{line}\033[0m"
    with _lock:
        try:
            stream.write(line + "\n")
            stream.flush()
        except (OSError, ValueError):
            # The terminal or the pipe is gone: there is no one left to tell.
            _State.to_console = False


def _colourful(stream):
    wish = os.environ.get("RCUTILS_COLORIZED_OUTPUT")
    if wish in ("0", "1"):
        return wish == "1"
    return stream.isatty()
