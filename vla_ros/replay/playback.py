"""When each message of a bag, and each time on the clock, is published again."""

import math
import queue
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from vla_ros.replay.bags import SECOND_NS, BagMessage

RATE_STEP = 1.1
"""What an arrow key multiplies the rate by, as in `ros2 bag play`."""

IDLE_S = 0.05
"""How often to look at the keys, and to repeat the time in a pause."""

SHOW_PERIOD_S = 0.2


class Publisher(Protocol):
    """What publishes; `vla_ros.nodes._player.BagPublisher` does."""

    def publish(self, topic: str, data: bytes) -> None:
        """Publish a serialised message."""

    def publish_clock(self, time_ns: int) -> None:
        """Publish a time."""

    def follows(self, topic: str) -> bool:
        """Return whether a node in lockstep receives a topic."""
        ...

    def settle(self, topic: str | None) -> None:
        """Wait until those nodes have dealt with the last message, or time (None), published."""


class Keyboard(Protocol):
    """What the user presses."""

    def wait(self, seconds: float) -> list[str]:
        """Wait for keys; return what they mean, nothing after `seconds`."""
        ...


class Pace:
    """Maps the bag's time to a steady clock's, at a rate, with pauses. It reads no clock."""

    def __init__(self, rate: float) -> None:
        """Start at time 0, until `jump`; the rate may be infinite, which is never to wait."""
        self.rate = rate
        self.paused = False
        self._bag_ns = 0
        self._wall_s = 0.0

    def bag_ns(self, wall_s: float) -> int:
        """Return the bag's time at a time of the steady clock."""
        if self.paused or math.isinf(self.rate):
            return self._bag_ns
        return self._bag_ns + round((wall_s - self._wall_s) * self.rate * SECOND_NS)

    def jump(self, bag_ns: int, wall_s: float) -> None:
        """Go on from another time of the bag."""
        self._bag_ns, self._wall_s = bag_ns, wall_s

    def set_rate(self, rate: float, wall_s: float) -> None:
        """Go on at another rate."""
        self.jump(self.bag_ns(wall_s), wall_s)
        self.rate = rate

    def set_paused(self, *, paused: bool, wall_s: float) -> None:
        """Halt, or go on."""
        self.jump(self.bag_ns(wall_s), wall_s)
        self.paused = paused

    def wait_s(self, bag_ns: int, wall_s: float) -> float:
        """Return how long it is until a time of the bag: 0 if it is past, infinity in a pause."""
        if self.paused:
            return math.inf
        return max(0.0, (bag_ns - self._bag_ns) / self.rate / SECOND_NS - (wall_s - self._wall_s))


def timeline(
    messages: Iterable[BagMessage], begin_ns: int, period_ns: int | None
) -> Iterator[tuple[int, BagMessage | None]]:
    """Merge messages with the times at which the clock is to be published.

    Those are the nanosecond before the begin, so that nodes have a time when the first message
    comes, then every multiple of the period (which is when their timers of that period are due),
    and so on to the one after the last message. A message that was received exactly then comes
    the nanosecond before.

    Args:
        messages: In order of reception.
        begin_ns: First time.
        period_ns: Period of the clock; None for no clock.

    Yields:
        The time in ns, and the message to be published then, or None for the clock alone.

    """
    if period_ns is None:
        for message in messages:
            yield message.received_ns, message
        return
    yield begin_ns - 1, None
    next_ns = -(-begin_ns // period_ns) * period_ns
    for message in messages:
        while next_ns < message.received_ns:
            yield next_ns, None
            next_ns += period_ns
        yield min(message.received_ns, next_ns - 1), message
    yield next_ns, None


class ReadAhead:
    """Reads messages in a thread, so that a slow disk or decompression does not delay them."""

    def __init__(self, messages: Iterator[BagMessage], size: int) -> None:
        """Start reading at most `size` messages ahead."""
        self._queue: queue.Queue[BagMessage | BaseException | None] = queue.Queue(max(1, size))
        self._closed = threading.Event()
        self._thread = threading.Thread(target=self._read, args=(messages,), daemon=True)
        self._thread.start()

    def __iter__(self) -> Iterator[BagMessage]:
        """Yield the messages; raise what the reading raised."""
        while (item := self._queue.get()) is not None:
            if isinstance(item, BaseException):
                raise item
            yield item

    def close(self) -> None:
        """End the thread."""
        self._closed.set()
        while self._thread.is_alive():
            while not self._queue.empty():
                self._queue.get_nowait()
            self._thread.join(0.01)

    def _read(self, messages: Iterator[BagMessage]) -> None:
        try:
            for message in messages:
                if self._closed.is_set():
                    return
                self._queue.put(message)
        except Exception as err:  # noqa: BLE001 - raised again by the thread that plays
            self._queue.put(err)
        self._queue.put(None)


@dataclass(slots=True)
class Count:
    """What was published."""

    messages: int = 0
    clocks: int = 0


class Playback:
    """Brings a timeline's events out when they are due."""

    def __init__(
        self,
        out: Publisher,
        keyboard: Keyboard,
        show: Callable[[str], None],
        pace: Pace,
        clock_hz: float,
        *,
        lockstep: bool,
    ) -> None:
        """Get ready.

        Args:
            out: What publishes.
            keyboard: What the user presses.
            show: Takes a line on how it goes, a few times a second.
            pace: When what is due.
            clock_hz: Rate of /clock, at which it goes on in a pause; 0 without one.
            lockstep: Whether to wait for the nodes after each event.

        """
        self.count = Count()
        self._out = out
        self._keyboard = keyboard
        self._show = show
        self._pace = pace
        self._clock_hz = clock_hz
        self._lockstep = lockstep
        self._steps = 0
        self._clock_ns = -1
        self._shown_s = 0.0

    def pause(self) -> None:
        """Begin with a pause."""
        self._pace.set_paused(paused=True, wall_s=time.monotonic())

    def latch(self, messages: Sequence[BagMessage], names: Mapping[str, str]) -> None:
        """Publish messages of latched topics from before the begin."""
        for message in messages:
            self._publish(message, names[message.topic])

    def play(
        self,
        events: Iterable[tuple[int, BagMessage | None]],
        begin_ns: int,
        names: Mapping[str, str],
    ) -> None:
        """Publish the events; `names` has the topic to publish on for each of the bag's.

        In lockstep, the clock is also brought to the time of reception of each message that a
        node follows, and to the nanosecond before each event: so timers that fell due since the
        last event have run, and what they published has arrived, before anything else happens.
        """
        self._pace.jump(begin_ns, time.monotonic())
        self._clock_ns = -1
        for time_ns, message in events:
            self._wait(time_ns)
            topic = None if message is None else names[message.topic]
            if self._lockstep and (topic is None or self._out.follows(topic)):
                self._bring_clock_to(time_ns)
                if topic is None:
                    self._out.settle(None)
            elif topic is None:
                self._set_clock(time_ns)
            if message is None or topic is None:
                continue
            self._publish(message, topic)
            if self._steps:
                self._steps -= 1
                self._pace.jump(time_ns, time.monotonic())

    def _publish(self, message: BagMessage, topic: str) -> None:
        self._out.publish(topic, message.data)
        self.count.messages += 1
        if self._lockstep:
            self._out.settle(topic)

    def _bring_clock_to(self, time_ns: int) -> None:
        if time_ns - 1 > self._clock_ns >= 0:
            self._set_clock(time_ns - 1)
            self._out.settle(None)
        if time_ns > self._clock_ns:
            self._set_clock(time_ns)

    def _set_clock(self, time_ns: int) -> None:
        if time_ns != self._clock_ns:
            self._clock_ns = time_ns
            self._out.publish_clock(time_ns)
            self.count.clocks += 1

    def _wait(self, time_ns: int) -> None:
        """Wait until an event is due; do what keys say meanwhile."""
        while not self._steps:
            wall_s = time.monotonic()
            left_s = self._pace.wait_s(time_ns, wall_s)
            self._tell(wall_s)
            if left_s <= 0.0:
                return
            paused = self._pace.paused
            self._obey(self._keyboard.wait(min(left_s, IDLE_S)))
            if paused and self._clock_hz and self._clock_ns >= 0:
                self._out.publish_clock(self._clock_ns)  # for nodes that start now

    def _obey(self, keys: Sequence[str]) -> None:
        wall_s = time.monotonic()
        for key in keys:
            if key == "pause":
                self._pace.set_paused(paused=not self._pace.paused, wall_s=wall_s)
            elif key == "step" and self._pace.paused:
                self._steps += 1
            elif key in {"faster", "slower"}:
                factor = RATE_STEP if key == "faster" else 1.0 / RATE_STEP
                self._pace.set_rate(self._pace.rate * factor, wall_s)
            self._shown_s = 0.0

    def _tell(self, wall_s: float) -> None:
        if wall_s - self._shown_s > SHOW_PERIOD_S:
            self._shown_s = wall_s
            state = "paused" if self._pace.paused else f"rate {self._pace.rate:.2f}"
            self._show(f"{state}, {self.count.messages} messages")
