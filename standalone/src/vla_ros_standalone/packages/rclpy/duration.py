"""Spans of time in nanoseconds."""

import builtin_interfaces.msg

from rclpy.constants import S_TO_NS

INFINITE_NANOSECONDS = 2**63 - 1


class Duration:
    """A span between two times, signed 64-bit nanoseconds."""

    __slots__ = ("_nanoseconds",)

    def __init__(self, *, seconds=0, nanoseconds=0):
        total = int(seconds * S_TO_NS) + int(nanoseconds)
        if not -(2**63) <= total < 2**63:
            msg = f"total nanoseconds {total} do not fit 64 bits"
            raise OverflowError(msg)
        self._nanoseconds = total

    @property
    def nanoseconds(self):
        return self._nanoseconds

    def __repr__(self):
        return f"Duration(nanoseconds={self._nanoseconds})"

    def __str__(self):
        if self == Infinite:
            return "Infinite"
        return f"{self._nanoseconds} nanoseconds"

    def __hash__(self):
        return hash(self._nanoseconds)

    def __eq__(self, other):
        return isinstance(other, Duration) and self._nanoseconds == other._nanoseconds

    def __lt__(self, other):
        return self._nanoseconds < other._nanoseconds if _is(other) else NotImplemented

    def __le__(self, other):
        return self._nanoseconds <= other._nanoseconds if _is(other) else NotImplemented

    def __gt__(self, other):
        return self._nanoseconds > other._nanoseconds if _is(other) else NotImplemented

    def __ge__(self, other):
        return self._nanoseconds >= other._nanoseconds if _is(other) else NotImplemented

    def to_msg(self):
        sec, nanosec = divmod(self._nanoseconds, S_TO_NS)
        return builtin_interfaces.msg.Duration(sec=sec, nanosec=nanosec)

    @classmethod
    def from_msg(cls, msg):
        if not isinstance(msg, builtin_interfaces.msg.Duration):
            msg_0 = "must pass a builtin_interfaces.msg.Duration object"
            raise TypeError(msg_0)
        return cls(seconds=msg.sec, nanoseconds=msg.nanosec)


def _is(other):
    return isinstance(other, Duration)


Infinite = Duration(nanoseconds=INFINITE_NANOSECONDS)
