"""The kinds of clock, with the values of rcl_clock_type_t."""

from enum import IntEnum


class ClockType(IntEnum):
    """Whose time a clock or a time shows."""

    UNINITIALIZED = 0
    ROS_TIME = 1
    SYSTEM_TIME = 2
    STEADY_TIME = 3
