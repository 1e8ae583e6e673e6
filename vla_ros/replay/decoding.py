"""Reading the frequent messages of a bag fast: joint states, commands, numbers.

Messages of one topic mostly have one layout: the same frame, the same names, as many numbers. The
first message of a topic is decoded by its definition; those that follow with the same layout, byte
by byte but for the stamp and the numbers, are read by the offsets found there. All others go the
slow way.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from struct import Struct
from typing import Any, NamedTuple

import numpy as np

from vla_ros.observation.image import decode_compressed, decode_image, decode_raw
from vla_ros.replay.bags import Bag, BagMessage
from vla_ros.types import Array, ImageArray

IMAGE, COMPRESSED = "sensor_msgs/msg/Image", "sensor_msgs/msg/CompressedImage"

_STAMP = slice(4, 12)
"""Where the stamp is: behind the encapsulation, the first of the header."""
_LITTLE = b"\x00\x01"
_NUMBER = Struct("<d")
_NUMBER_BYTES = 12
_TWIST = 6


class JointLists(NamedTuple):
    """A JointState's lists, as `JointReader.read` takes them.

    A named tuple, as hundreds of thousands are made.
    """

    stamp_ns: int
    names: tuple[str, ...]
    position: Sequence[float]
    velocity: Sequence[float]
    effort: Sequence[float]


@dataclass(frozen=True, slots=True)
class _Layout:
    """Messages of so many bytes whose bytes from the stamp to the numbers are these."""

    size: int
    begin: int
    fixed: bytes
    numbers: Struct
    content: Any

    @classmethod
    def of(cls, data: bytes, numbers: Struct, content: Any) -> "_Layout":  # noqa: ANN401
        """Return the layout of messages like this one, which ends in these numbers."""
        begin = len(data) - numbers.size
        return cls(len(data), begin, data[_STAMP.stop : begin], numbers, content)

    def fits(self, data: bytes) -> bool:
        return (
            len(data) == self.size
            and data[_STAMP.stop : self.begin] == self.fixed
            and data[:2] == _LITTLE
        )


class Decoder:
    """Decodes a bag's messages."""

    def __init__(self, bag: Bag) -> None:
        """Decode the messages of `bag`."""
        self._bag = bag
        self._layouts: dict[str, _Layout | None] = {}

    def number(self, message: BagMessage) -> float:
        """Return a Float64.

        Raises:
            BagError: If it is damaged.

        """
        data = message.data
        if len(data) == _NUMBER_BYTES and data[:2] == _LITTLE:
            return float(_NUMBER.unpack_from(data, 4)[0])
        return float(self._bag.decode(message).data)

    def twist(self, message: BagMessage) -> tuple[str, Array]:
        """Return frame and twist of a TwistStamped: m/s and rad/s, shape (6,).

        Raises:
            BagError: If it is damaged.

        """
        data = message.data
        layout = self._layouts.get(message.topic)
        if layout is not None and layout.fits(data):
            twist = np.array(layout.numbers.unpack_from(data, layout.begin), np.float64)
            return layout.content, twist
        content = self._bag.decode(message)
        v, w = content.twist.linear, content.twist.angular
        twist = np.array((v.x, v.y, v.z, w.x, w.y, w.z), np.float64)
        frame = str(content.header.frame_id)
        self._layouts[message.topic] = _Layout.of(data, Struct(f"<{_TWIST}d"), frame)
        return frame, twist

    def joints(self, message: BagMessage) -> JointLists:
        """Return a JointState.

        Raises:
            BagError: If it is damaged.

        """
        data, stamp = message.data, message.stamp_ns or 0
        layout = self._layouts.get(message.topic)
        if layout is not None and layout.fits(data):
            names = layout.content
            count = len(names)
            numbers = layout.numbers.unpack_from(data, layout.begin)
            if numbers[count] == numbers[2 * count + 1] == count:
                return JointLists(
                    stamp,
                    names,
                    numbers[:count],
                    numbers[count + 1 : 2 * count + 1],
                    numbers[2 * count + 2 :],
                )
        content = self._bag.decode(message)
        lists = JointLists(
            stamp,
            tuple(content.name),
            content.position.tolist(),
            content.velocity.tolist(),
            content.effort.tolist(),
        )
        self._layouts[message.topic] = _joint_layout(data, lists)
        return lists

    def picture(self, message: BagMessage) -> ImageArray:
        """Return the picture in an Image or CompressedImage, RGB, uint8, shape (height, width, 3).

        Raises:
            BagError: If the message is damaged.
            ImageError: If it holds no picture.

        """
        data = message.data
        layout = self._layouts.get(message.topic)
        if layout is not None and layout.fits(data):
            return decode_raw(memoryview(data)[layout.begin :], **layout.content)
        content = self._bag.decode(message)
        if message.msgtype == COMPRESSED:
            return decode_compressed(content.data)
        self._layouts[message.topic] = _image_layout(data, content)
        return decode_image(content)


def _image_layout(data: bytes, content: Any) -> _Layout | None:  # noqa: ANN401
    """Return the layout of images like this one, None if it does not end in its pixels."""
    pixels = Struct(f"{len(content.data)}x")
    form = {
        "height": content.height,
        "width": content.width,
        "encoding": content.encoding,
        "step": content.step,
        "is_bigendian": bool(content.is_bigendian),
    }
    layout = _Layout.of(data, pixels, form)
    # The list's length comes before it.
    ends_in_them = layout.fixed[-4:] == len(content.data).to_bytes(4, "little")
    return layout if ends_in_them and bytes(content.data) == data[layout.begin :] else None


def _joint_layout(data: bytes, lists: JointLists) -> _Layout | None:
    """Return the layout of messages like this one, None if a list lacks a joint.

    In CDR, 64-bit numbers are aligned to 8 bytes from the end of the encapsulation, and a list's
    length of 4 bytes comes before it: after n numbers, the next list's length and a gap of 4.
    """
    count = len(lists.names)
    if not count or any(
        len(values) != count for values in (lists.position, lists.velocity, lists.effort)
    ):
        return None
    numbers = Struct(f"<{count}dI4x{count}dI4x{count}d")
    return _Layout.of(data, numbers, lists.names)
