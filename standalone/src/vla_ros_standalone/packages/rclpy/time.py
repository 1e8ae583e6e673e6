"""Points in time in nanoseconds, of a given kind of clock."""

import builtin_interfaces.msg

from rclpy.clock_type import ClockType
from rclpy.constants import S_TO_NS
from rclpy.duration import Duration


class Time:
    """A point in time; only times of the same clock type compare and subtract."""

    __slots__ = ("_clock_type", "_nanoseconds")

    def __init__(self, *, seconds=0, nanoseconds=0, clock_type=ClockType.SYSTEM_TIME):
        if not isinstance(clock_type, ClockType):
            msg = "Clock type must be a ClockType enum"
            raise TypeError(msg)
        if seconds < 0:
            msg = "Seconds value must not be negative"
            raise ValueError(msg)
        if nanoseconds < 0:
            msg = "Nanoseconds value must not be negative"
            raise ValueError(msg)
        total = int(seconds * S_TO_NS) + int(nanoseconds)
        if total >= 2**63:
            msg = f"total nanoseconds {total} do not fit 64 bits"
            raise OverflowError(msg)
        self._nanoseconds = total
        self._clock_type = clock_type

    @property
    def nanoseconds(self):
        return self._nanoseconds

    @property
    def clock_type(self):
        return self._clock_type

    def seconds_nanoseconds(self):
        """Return (whole seconds, remaining nanoseconds)."""
        return divmod(self._nanoseconds, S_TO_NS)

    def __repr__(self):
        return f"Time(nanoseconds={self._nanoseconds}, clock_type={self._clock_type.name})"

    def __hash__(self):
        return hash((self._nanoseconds, self._clock_type))

    def __add__(self, other):
        if isinstance(other, Duration):
            return self._moved(other.nanoseconds)
        return NotImplemented

    __radd__ = __add__

    def __sub__(self, other):
        if isinstance(other, Time):
            self._same_clock(other, "subtract")
            return Duration(nanoseconds=self._nanoseconds - other._nanoseconds)
        if isinstance(other, Duration):
            return self._moved(-other.nanoseconds)
        return NotImplemented

    def _moved(self, nanoseconds):
        total = self._nanoseconds + nanoseconds
        if total < 0:
            msg = "the result would be a negative time"
            raise ValueError(msg)
        return Time(nanoseconds=total, clock_type=self._clock_type)

    def _same_clock(self, other, verb):
        if self._clock_type != other._clock_type:
            msg = f"Can't {verb} times with different clock types"
            raise TypeError(msg)

    def __eq__(self, other):
        if isinstance(other, Time):
            self._same_clock(other, "compare")
            return self._nanoseconds == other._nanoseconds
        return NotImplemented

    def __lt__(self, other):
        if isinstance(other, Time):
            self._same_clock(other, "compare")
            return self._nanoseconds < other._nanoseconds
        return NotImplemented

    def __le__(self, other):
        if isinstance(other, Time):
            self._same_clock(other, "compare")
            return self._nanoseconds <= other._nanoseconds
        return NotImplemented

    def __gt__(self, other):
        if isinstance(other, Time):
            self._same_clock(other, "compare")
            return self._nanoseconds > other._nanoseconds
        return NotImplemented

    def __ge__(self, other):
        if isinstance(other, Time):
            self._same_clock(other, "compare")
            return self._nanoseconds >= other._nanoseconds
        return NotImplemented

    def to_msg(self):
        sec, nanosec = self.seconds_nanoseconds()
        return builtin_interfaces.msg.Time(sec=sec, nanosec=nanosec)

    @classmethod
    def from_msg(cls, msg, clock_type=ClockType.ROS_TIME):
        if not isinstance(msg, builtin_interfaces.msg.Time):
            msg_0 = "Must pass a builtin_interfaces.msg.Time object"
            raise TypeError(msg_0)
        return cls(seconds=msg.sec, nanoseconds=msg.nanosec, clock_type=clock_type)
