"""From a bag's messages to the pipeline's inputs, in the one order that a replay has.

The order is by time, and the time of a message is the stamp in its header, or, where it has none,
the time of its reception. At the same time the kinds come in the order of `Kind`, cameras in the
bundle's order, and then messages in the bag's own order. So the order does not depend on how busy
the recorder was.

A stamp that lies more than `LAG_NS` from what the times of reception make plausible is not believed
in this (a broken message, a camera with a clock of its own): such a message comes when it was
received, stamped as it is, for the pipeline to judge. A bag whose stamps run on another clock as a
whole (simulated time) is recognised by its first messages.
"""

import os
from bisect import bisect_left
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from enum import IntEnum
from typing import Any, NamedTuple

from vla_ros.observation.image import (
    ImageError,
    ImageSpec,
    fit_image,
)
from vla_ros.replay.bags import Bag, BagError, BagMessage, stamp_ns
from vla_ros.replay.decoding import COMPRESSED, IMAGE, Decoder
from vla_ros.replay.pictures import Picture, Pictures
from vla_ros.types import Command, Frame

LAG_NS = 5_000_000_000
"""Greatest distance between a stamp and the time of reception that is believed."""
_FIRST = 20
"""Stamped messages by which the clock of the stamps is recognised."""
_DECODERS = min(4, os.cpu_count() or 1)
"""Threads that decode pictures; each takes the memory of some."""
_SORTED = 512
"""Messages after which those that have come are sorted again."""


class Kind(IntEnum):
    """What a message is to the pipeline, in the order of simultaneous messages."""

    ESTOP = 0
    DESCRIPTION = 1
    INSTRUCTION = 2
    JOINTS = 3
    FRAME = 4
    COMMAND = 5
    GRIPPER = 6
    CHUNK = 7
    SAFE = 8
    SAFE_GRIPPER = 9
    STATUS = 10

    __hash__ = int.__hash__
    """Of all messages and many tables: Enum's own is made of the name, in Python."""


TOPICS = {
    Kind.ESTOP: ("/estop", "std_msgs/msg/Bool"),
    Kind.DESCRIPTION: ("/robot_description", "std_msgs/msg/String"),
    Kind.INSTRUCTION: ("/instruction", "std_msgs/msg/String"),
    Kind.JOINTS: ("/joint_states", "sensor_msgs/msg/JointState"),
    Kind.COMMAND: ("/command", "geometry_msgs/msg/TwistStamped"),
    Kind.GRIPPER: ("/gripper_command", "std_msgs/msg/Float64"),
    Kind.CHUNK: ("/policy/chunk", "nav_msgs/msg/Path"),
    Kind.SAFE: ("/safe_command", "geometry_msgs/msg/TwistStamped"),
    Kind.SAFE_GRIPPER: ("/safe_gripper_command", "std_msgs/msg/Float64"),
    Kind.STATUS: ("/safety_node/status", "diagnostic_msgs/msg/DiagnosticArray"),
}
"""Topic and type of everything but the cameras."""

CAMERA_TOPICS = ("/{}/image_raw", "/{}/image_raw/compressed", "/observation/{}")
"""Where a camera's pictures are, the first that the bag has: as it took them, or, in the recording
of a run, as camera_node made them for the model."""


class Event(NamedTuple):
    """A message on its way into the pipeline. Compared as a tuple, it is the order of a replay."""

    time_ns: int
    rank: int
    sequence: int
    kind: Kind
    value: Any

    def holding(self, value: Any) -> "Event":  # noqa: ANN401
        """Return it with another value: as `_replace`, in a third of the time."""
        return Event(self.time_ns, self.rank, self.sequence, self.kind, value)


@dataclass(frozen=True, slots=True)
class ChunkStamps:
    """When a chunk was observed and started, and its actions then left."""

    observed_ns: int
    started_ns: int
    actions: int


@dataclass(frozen=True, slots=True)
class Status:
    """The filter's word on one of its steps."""

    stamp_ns: int
    state: str
    reason: str
    acting: dict[str, float]
    command_stamp_ns: int | None


_UNUSABLE = (BagError, ImageError, ValueError, ArithmeticError, LookupError)
"""What is raised for a message that cannot be decoded."""


class Source:
    """A bag's messages as events, in order. It may be read several times."""

    def __init__(
        self,
        bag: Bag,
        *,
        cameras: Mapping[str, ImageSpec] | None = None,
        received: bool = False,
    ) -> None:
        """Find the topics.

        Args:
            bag: An open bag, its topics renamed already.
            cameras: Part and size of each camera's picture that the model sees, in the bundle's
                order.
            received: Whether messages come in the order and at the time of their reception instead
                of their stamps'.

        """
        self._bag = bag
        self._received = received
        self._specs = dict(cameras or {})
        self._decoder = Decoder(bag)
        self._fast: dict[Kind, Callable[[BagMessage], Any]] = {
            Kind.JOINTS: self._decoder.joints,
            Kind.COMMAND: self._command,
            Kind.SAFE: self._command,
            Kind.GRIPPER: self._decoder.number,
            Kind.SAFE_GRIPPER: self._decoder.number,
        }
        self.warnings: list[str] = []
        self._bad: dict[str, tuple[int, str]] = {}
        self._strange: dict[str, int] = {}
        self.topics = self._find_topics()
        self.cameras = self._find_cameras()

    @property
    def missing_cameras(self) -> tuple[str, ...]:
        """Cameras of the bundle that the bag has no pictures of."""
        return tuple(name for name in self._specs if name not in self.cameras)

    def events(self, kinds: Iterable[Kind]) -> Iterator[Event]:
        """Yield the messages of `kinds`, in the order of a replay; nothing else is decoded."""
        wanted = set(kinds)
        routes: dict[str, tuple[Kind, int, str]] = {}
        for kind, topic in self.topics.items():
            if kind in wanted:
                routes[topic] = (kind, kind * 64, "")
        if Kind.FRAME in wanted:
            for index, (camera, topic) in enumerate(self.cameras.items()):
                routes[topic] = (Kind.FRAME, Kind.FRAME * 64 + index, camera)
        self._bad, self._strange = {}, {}
        # Pictures are decoded in other threads, while this one runs the model.
        with ThreadPoolExecutor(_DECODERS, "pictures") as pool:
            timed = self._timed(self._decoded(routes, Pictures(pool, self._frame)))
            for event in timed if self._received else _sorted(timed):
                if event.kind is not Kind.FRAME:
                    yield event
                elif (frame := self._finished(event.value)) is not None:
                    yield event.holding(frame)
        self._report()

    def _decoded(
        self, routes: Mapping[str, tuple[Kind, int, str]], pictures: Pictures
    ) -> Iterator[tuple[int, int | None, int, Kind, Any]]:
        """Yield time of reception, stamp or None, rank, kind and value; pictures as `Picture`."""
        if not routes:
            return
        fast = self._fast
        for message in self._bag.messages(list(routes)):
            kind, rank, camera = routes[message.topic]
            stamp = message.stamp_ns
            try:
                if kind in fast:
                    value = fast[kind](message)
                elif kind is Kind.FRAME:
                    value = pictures.add(camera, message)
                else:
                    stamp, value = self._value(kind, message)
            except _UNUSABLE as err:
                self._count(message.topic, err)
                continue
            yield message.received_ns, stamp or None, rank, kind, value

    def _finished(self, picture: Picture) -> Frame | None:
        """Return a picture's frame, or None, counting it, where it cannot be decoded."""
        frame = picture.result()
        if isinstance(frame, Frame):
            return frame
        self._count(self.cameras[picture.camera], frame)
        return None

    def _count(self, topic: str, err: Exception) -> None:
        count, first = self._bad.get(topic, (0, str(err)))
        self._bad[topic] = (count + 1, first)

    def _frame(self, camera: str, message: BagMessage) -> Frame | Exception:
        """Decode a picture, and cut it as camera_node does; return the error where it is none."""
        try:
            image = self._decoder.picture(message)
            if not message.topic.startswith("/observation/"):
                image = fit_image(image, self._specs[camera])
        except _UNUSABLE as err:
            return err
        return Frame(camera, message.stamp_ns or 0, image)

    def _value(self, kind: Kind, message: BagMessage) -> tuple[int | None, Any]:
        """Return the stamp in the header, None where there is none, and what the pipeline takes."""
        content = self._bag.decode(message)
        read = _PLAIN.get(kind)
        if read is not None:
            return None, read(content.data)
        stamp = stamp_ns(content.header.stamp)
        return stamp, _STAMPED[kind](stamp, content)

    def _command(self, message: BagMessage) -> Command:
        frame, twist = self._decoder.twist(message)
        return Command(message.stamp_ns or 0, frame, twist, None)

    def _timed(self, decoded: Iterator[tuple[int, int | None, int, Kind, Any]]) -> Iterator[Event]:
        """Yield events with their times, in the bag's order."""
        first: list[tuple[int, int | None, int, Kind, Any]] = []
        lags: list[int] = []
        for item in decoded:
            first.append(item)
            if item[1] is not None:
                lags.append(item[0] - item[1])
                if len(lags) == _FIRST:
                    break
        lag = self._usual_lag(lags)
        for sequence, (received, stamp, rank, kind, value) in enumerate(_chain(first, decoded)):
            if self._received:
                time = received
            elif stamp is None:
                time = received - lag
            elif abs(received - stamp - lag) <= LAG_NS:
                time = stamp
                if lag:
                    lag = received - stamp  # A clock of another speed is followed.
            else:
                time = received - lag
                name = self._name_of(kind, value)
                self._strange[name] = self._strange.get(name, 0) + 1
            yield Event(time, rank, sequence, kind, value)

    def _usual_lag(self, lags: list[int]) -> int:
        """Return how far the stamps' clock is behind that of the reception: 0 if it is the same."""
        if self._received or not lags or min(abs(value) for value in lags) <= LAG_NS:
            return 0
        lag = sorted(lags)[len(lags) // 2]
        self._warn(
            f"the stamps are {lag / 1e9:.1f} s before the times of reception: they run on another "
            "clock, and messages without a stamp are taken to it"
        )
        return lag

    def _name_of(self, kind: Kind, value: Any) -> str:  # noqa: ANN401
        return self.cameras[value.camera] if kind is Kind.FRAME else self.topics[kind]

    def _report(self) -> None:
        for topic, (count, reason) in sorted(self._bad.items()):
            self._warn(f"{topic}: {count} messages could not be used; the first: {reason}")
        for topic, count in sorted(self._strange.items()):
            self._warn(
                f"{topic}: {count} messages are stamped more than {LAG_NS / 1e9:.0f} s from their "
                "reception: they come when they were received"
            )

    def _warn(self, text: str) -> None:
        if text not in self.warnings:
            self.warnings.append(text)

    def _find_topics(self) -> dict[Kind, str]:
        found = {}
        for kind, (name, msgtype) in TOPICS.items():
            topic = self._bag.topics.get(name)
            if topic is None or not topic.count:
                continue
            if topic.msgtype == msgtype:
                found[kind] = name
            else:
                self._warn(f"{name} is left out: its type is {topic.msgtype}, not {msgtype}")
        return found

    def _find_cameras(self) -> dict[str, str]:
        found = {}
        for camera in self._specs:
            for pattern in CAMERA_TOPICS:
                name = pattern.format(camera)
                topic = self._bag.topics.get(name)
                if topic is None or not topic.count:
                    continue
                if topic.msgtype in (IMAGE, COMPRESSED):
                    found[camera] = name
                    break
                self._warn(f"{name} is left out: its type is {topic.msgtype}, no image")
        return found


def _sorted(events: Iterator[Event]) -> Iterator[Event]:
    """Sort events that lie at most twice `LAG_NS` out of order, holding hardly more than those."""
    held: list[Event] = []
    enough = _SORTED
    for event in events:
        held.append(event)
        if len(held) >= enough:
            held.sort()
            due = bisect_left(held, (held[-1].time_ns - 2 * LAG_NS,))
            yield from held[:due]
            del held[:due]
            enough = len(held) + _SORTED
    held.sort()
    yield from held


def _chain(first: list[Any], rest: Iterator[Any]) -> Iterator[Any]:
    yield from first
    first.clear()
    yield from rest


def _chunk(stamp: int, content: Any) -> ChunkStamps:  # noqa: ANN401
    started = stamp_ns(content.poses[0].header.stamp) if content.poses else stamp
    return ChunkStamps(stamp, started, len(content.poses))


def _status(stamp: int, status: Any) -> Status:  # noqa: ANN401
    values = {item.key: item.value for item in status.values}
    names = [name for name in values.get("acting", "").split(",") if name]
    amounts = [float(word) for word in values.get("amounts", "").split(",") if word]
    if len(amounts) != len(names):
        amounts = [1.0] * len(names)
    used = values.get("command_stamp_ns", "")
    return Status(
        stamp_ns=stamp,
        state=values.get("state", ""),
        reason="" if status.message == "following commands" else status.message,
        acting=dict(zip(names, amounts, strict=True)),
        command_stamp_ns=int(used) if used else None,
    )


_PLAIN: dict[Kind, Callable[[Any], Any]] = {
    Kind.INSTRUCTION: str,
    Kind.DESCRIPTION: str,
    Kind.ESTOP: bool,
}
"""What messages with nothing but `data` are read as."""
_STAMPED: dict[Kind, Callable[[int, Any], Any]] = {
    Kind.CHUNK: _chunk,
    Kind.STATUS: lambda stamp, content: _status(stamp, content.status[0]),
}
"""How messages with a header are read."""
