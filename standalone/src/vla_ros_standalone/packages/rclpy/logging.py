"""Loggers by name and their levels."""

from rclpy.impl import rcutils_logger
from rclpy.impl.logging_severity import LoggingSeverity
from rclpy.impl.rcutils_logger import RcutilsLogger

__all__ = [
    "LoggingSeverity",
    "get_logger",
    "get_logger_effective_level",
    "get_logger_level",
    "get_logging_severity_from_string",
    "set_logger_level",
]

_root_logger = RcutilsLogger()


def get_logger(name):
    if not name:
        msg = "Logger name must not be empty."
        raise ValueError(msg)
    return _root_logger.get_child(name)


def set_logger_level(name, level, detailed_error=False):
    rcutils_logger.set_level(name, level)


def get_logger_effective_level(name):
    return rcutils_logger.effective_level(name)


def get_logger_level(name):
    return rcutils_logger.get_level(name)


def get_logging_severity_from_string(log_severity):
    try:
        return LoggingSeverity[log_severity.upper()]
    except KeyError:
        msg = f"unknown logging severity: {log_severity!r}"
        raise RuntimeError(msg) from None
