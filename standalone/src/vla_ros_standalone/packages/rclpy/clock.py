"""Clocks: the system's, a steady one, and ROS time, which /clock may drive."""

import threading
import time as _time

from rclpy.clock_type import ClockType
from rclpy.duration import Duration
from rclpy.time import Time

__all__ = [
    "Clock",
    "ClockChange",
    "ClockType",
    "JumpHandle",
    "JumpThreshold",
    "ROSClock",
    "TimeJump",
]


class ClockChange:
    """What happened to the source of a clock's time (rcl_clock_change_t)."""

    ROS_TIME_NO_CHANGE = 1
    ROS_TIME_ACTIVATED = 2
    ROS_TIME_DEACTIVATED = 3
    SYSTEM_TIME_NO_CHANGE = 4


class JumpThreshold:
    """When a jump callback is called; see `Clock.create_jump_callback`."""

    def __init__(self, *, min_forward, min_backward, on_clock_change=True):
        if min_forward is not None and min_forward.nanoseconds <= 0:
            msg = "min_forward must be a positive non-zero duration"
            raise ValueError(msg)
        if min_backward is not None and min_backward.nanoseconds >= 0:
            msg = "min_backward must be a negative non-zero duration"
            raise ValueError(msg)
        if min_forward is None and min_backward is None and not on_clock_change:
            msg = "at least one of the thresholds must be enabled"
            raise ValueError(msg)
        self.min_forward = min_forward
        self.min_backward = min_backward
        self.on_clock_change = on_clock_change


class TimeJump:
    """A jump in time, handed to post-jump callbacks."""

    def __init__(self, clock_change, delta):
        self._clock_change = clock_change
        self._delta = delta

    @property
    def clock_change(self):
        return self._clock_change

    @property
    def delta(self):
        return self._delta


class JumpHandle:
    """Keeps a jump callback registered; `unregister` ends it."""

    def __init__(self, *, clock, threshold, pre_callback, post_callback):
        if pre_callback is None and post_callback is None:
            msg = "One of pre_callback or post_callback must be callable"
            raise ValueError(msg)
        self._clock = clock
        self.threshold = threshold
        self.pre_callback = pre_callback
        self.post_callback = post_callback

    def unregister(self):
        if self._clock is not None:
            self._clock._jump_handles.remove(self)
            self._clock = None

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.unregister()


class Clock:
    """A source of time. `Clock(clock_type=ClockType.ROS_TIME)` makes a `ROSClock`."""

    def __new__(cls, *, clock_type=ClockType.SYSTEM_TIME):
        if not isinstance(clock_type, ClockType):
            msg = "Clock type must be a ClockType enum"
            raise TypeError(msg)
        kind = ROSClock if clock_type is ClockType.ROS_TIME else Clock
        self = super().__new__(kind)
        self._clock_type = clock_type
        self._jump_handles = []
        self._override_ns = None
        self._pending_ns = 0
        return self

    @property
    def clock_type(self):
        return self._clock_type

    def __repr__(self):
        return f"Clock(clock_type={self._clock_type.name})"

    def now(self):
        return Time(nanoseconds=self._now_ns(), clock_type=self._clock_type)

    def _now_ns(self):
        if self._clock_type is ClockType.STEADY_TIME:
            return _time.monotonic_ns()
        return _time.time_ns()

    def create_jump_callback(self, threshold, *, pre_callback=None, post_callback=None):
        """Register callbacks for jumps of this clock (only ROS time jumps visibly here)."""
        handle = JumpHandle(
            clock=self,
            threshold=threshold,
            pre_callback=pre_callback,
            post_callback=post_callback,
        )
        self._jump_handles.append(handle)
        return handle

    def sleep_until(self, until, context=None):
        """Sleep until the clock reads `until`. Return False when the context is shut down first."""
        from rclpy.utilities import get_default_context

        context = get_default_context() if context is None else context
        if until.clock_type != self._clock_type:
            msg = "until's clock type does not match this clock's type"
            raise ValueError(msg)
        ended = threading.Event()
        context.on_shutdown(ended.set)
        while context.ok():
            left = until.nanoseconds - self._now_ns()
            if left <= 0:
                return True
            simulated = isinstance(self, ROSClock) and self.ros_time_is_active
            ended.wait(min(left / 1e9, 0.01) if simulated else left / 1e9)
        return False

    def sleep_for(self, rel_time, context=None):
        """Sleep for a duration of this clock. Return False when the context is shut down first."""
        return self.sleep_until(self.now() + rel_time, context)


class ROSClock(Clock):
    """ROS time: the system's time, or what `/clock` says once simulated time is active."""

    def __new__(cls):
        return super().__new__(cls, clock_type=ClockType.ROS_TIME)

    @property
    def ros_time_is_active(self):
        return self._override_ns is not None

    def _set_ros_time_is_active(self, enabled):
        if enabled == self.ros_time_is_active:
            return
        before = self._now_ns()
        after = self._pending_ns if enabled else _time.time_ns()
        change = ClockChange.ROS_TIME_ACTIVATED if enabled else ClockChange.ROS_TIME_DEACTIVATED
        self._jump(self._pending_ns if enabled else None, change, after - before)

    def set_ros_time_override(self, time):
        """Set what the clock shows while simulated time is active."""
        if not isinstance(time, Time):
            msg = "Time must be specified as rclpy.time.Time"
            raise TypeError(msg)
        self._pending_ns = time.nanoseconds
        if self.ros_time_is_active:
            delta = time.nanoseconds - self._override_ns
            self._jump(time.nanoseconds, ClockChange.ROS_TIME_NO_CHANGE, delta)

    def _jump(self, override_ns, change, delta_ns):
        handles = [handle for handle in self._jump_handles if _jumped(handle, change, delta_ns)]
        for handle in handles:
            if handle.pre_callback is not None:
                handle.pre_callback()
        self._override_ns = override_ns
        jump = TimeJump(change, Duration(nanoseconds=delta_ns))
        for handle in handles:
            if handle.post_callback is not None:
                handle.post_callback(jump)

    def _now_ns(self):
        override = self._override_ns
        return _time.time_ns() if override is None else override


def _jumped(handle, change, delta_ns):
    threshold = handle.threshold
    if change in (ClockChange.ROS_TIME_ACTIVATED, ClockChange.ROS_TIME_DEACTIVATED):
        return threshold.on_clock_change
    forward, backward = threshold.min_forward, threshold.min_backward
    return (forward is not None and delta_ns >= forward.nanoseconds) or (
        backward is not None and delta_ns <= backward.nanoseconds
    )
