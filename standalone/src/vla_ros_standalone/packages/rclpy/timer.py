"""Timers on any clock, and rates."""

import threading
import time

from rclpy.clock import ROSClock
from rclpy.exceptions import InvalidHandle, ROSInterruptException


class Timer:
    """Calls back at a fixed period; made by `Node.create_timer`.

    The call times are multiples of the period after the start: lateness does not add up, and calls
    that were missed are skipped, but for one that is due at that very time. Without simulated time,
    a steady clock counts, so that a step of the system's clock does not disturb.
    """

    def __init__(self, callback, callback_group, timer_period_ns, clock, *, autostart=True):
        if timer_period_ns < 0:
            msg = f"timer period {timer_period_ns} ns is negative"
            raise ValueError(msg)
        self.callback = callback
        self.callback_group = callback_group
        self._clock = clock
        self._period_ns = int(timer_period_ns)
        self._executor_event = False
        self._canceled = not autostart
        self._destroyed = False
        self._lock = threading.Lock()
        self._simulated = self._is_simulated()
        self._last_ns = self._now_ns()
        self._next_ns = self._last_ns + self._period_ns
        self._wake = lambda: None
        if callback_group is not None:
            callback_group.add_entity(self)

    def _is_simulated(self):
        return isinstance(self._clock, ROSClock) and self._clock.ros_time_is_active

    def _now_ns(self):
        return self._clock._now_ns() if self._simulated else time.monotonic_ns()

    @property
    def clock(self):
        return self._clock

    @property
    def timer_period_ns(self):
        return self._period_ns

    @timer_period_ns.setter
    def timer_period_ns(self, value):
        with self._lock:
            self._next_ns += int(value) - self._period_ns
            self._period_ns = int(value)
        self._wake()

    def _left_ns(self):
        """Return the time to the next call in ns (due when <= 0), and whether it is simulated."""
        with self._lock:
            simulated = self._is_simulated()
            if simulated != self._simulated:
                self._simulated = simulated
                self._restart()
            now = self._now_ns()
            if now + self._period_ns < self._next_ns:
                # Simulated time jumped back: count from where it is now.
                self._last_ns, self._next_ns = now, now + self._period_ns
            return self._next_ns - now, simulated

    def _take(self):
        with self._lock:
            if self._canceled or self._next_ns > self._now_ns():
                return None
            now = self._now_ns()
            self._last_ns = now
            self._next_ns += self._period_ns
            if self._next_ns < now:
                # As rcl_timer_call: a call that is due exactly now is not skipped, but made next.
                periods = -((self._next_ns - now) // self._period_ns) if self._period_ns else 0
                self._next_ns = self._next_ns + periods * self._period_ns if periods else now
        return self.callback, ()

    def _restart(self):
        self._last_ns = self._now_ns()
        self._next_ns = self._last_ns + self._period_ns

    def cancel(self):
        """Stop calling until `reset`."""
        self._canceled = True

    def is_canceled(self):
        return self._canceled

    def reset(self):
        """Start the period anew."""
        if self._destroyed:
            msg = "the timer is destroyed"
            raise InvalidHandle(msg)
        with self._lock:
            self._canceled = False
            self._restart()
        self._wake()

    def is_ready(self):
        return not self._canceled and self._left_ns()[0] <= 0

    def time_since_last_call(self):
        return self._now_ns() - self._last_ns

    def time_until_next_call(self):
        """Return nanoseconds to the next call (negative when late), None when cancelled."""
        return None if self._canceled else self._left_ns()[0]

    def destroy(self):
        self._canceled = True
        self._destroyed = True
        self._wake = lambda: None


class Rate:
    """Sleeps to the end of each period; made by `Node.create_rate`. Another thread must spin."""

    def __init__(self, *, context):
        self._timer = None
        self._context = context
        self._tick = threading.Event()
        self._destroyed = False
        context.on_shutdown(self._tick.set)

    def _on_timer(self):
        self._tick.set()

    def sleep(self):
        """Sleep until the next tick. Raise ROSInterruptException on shutdown."""
        if self._destroyed:
            msg = "Rate cannot sleep because it has been destroyed"
            raise RuntimeError(msg)
        self._tick.wait()
        self._tick.clear()
        if not self._context.ok() or self._destroyed:
            raise ROSInterruptException

    def destroy(self):
        self._destroyed = True
        self._tick.set()
        self._timer.destroy()
