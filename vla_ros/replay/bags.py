"""Reading rosbag2 folders."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from rosbags.highlevel import AnyReader, AnyReaderError
from rosbags.typesys import Stores, get_typestore

SECOND_NS = 1_000_000_000


class BagError(ValueError):
    """A bag cannot be read."""


def read_bag(bag: str | Path, topics: Sequence[str]) -> Iterator[tuple[str, int, Any]]:
    """Yield topic, time of reception in ns, and message of each message on `topics`, in time.

    Bags without message definitions (of Humble, say) are read with those of Humble.

    Raises:
        BagError: If there is no readable bag.

    """
    try:
        with AnyReader([Path(bag)], default_typestore=get_typestore(Stores.ROS2_HUMBLE)) as reader:
            chosen = [c for c in reader.connections if c.topic in topics]
            # Without any, the reader would give all of the bag's.
            for connection, time_ns, data in reader.messages(chosen) if chosen else ():
                yield connection.topic, time_ns, reader.deserialize(data, connection.msgtype)
    except (OSError, AnyReaderError) as err:
        msg = f"bag {bag} cannot be read: {err}"
        raise BagError(msg) from err


def stamp_ns(stamp: Any) -> int:  # noqa: ANN401 - a class made from a message definition
    """Return a message's stamp in ns."""
    return int(stamp.sec) * SECOND_NS + int(stamp.nanosec)
