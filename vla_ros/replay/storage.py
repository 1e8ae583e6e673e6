"""What both storages of rosbag2 have in common: topics, an index of messages, their bytes."""

from collections import OrderedDict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import BinaryIO, Protocol

import lz4.frame  # type: ignore[import-untyped]
import numpy as np
from backports import zstd
from numpy.typing import NDArray

ZSTD_MAGIC = b"\x28\xb5\x2f\xfd"
LZ4_MAGIC = b"\x04\x22\x4d\x18"
LARGEST_MESSAGE = 1 << 28
"""Bytes; a longer message, or one that unpacks to more, is taken for damaged."""
COMPRESSIONS = {ZSTD_MAGIC: "zstd", LZ4_MAGIC: "lz4"}
CACHE_BYTES = 16 << 20
# Small, as what was unpacked together with a damaged block is lost.
INPUT_BLOCK, OUTPUT_BLOCK = 1 << 13, 1 << 20


class BagError(ValueError):
    """A bag, or a message of it, cannot be read."""


class DamagedError(Exception):
    """A part of a file is damaged. It is left out, counted and said; the rest is read."""


@dataclass(frozen=True, slots=True)
class StoredTopic:
    """A topic as a file describes it.

    Attributes:
        name: Its name, unchanged.
        msgtype: 'sensor_msgs/msg/Image'.
        serialization: 'cdr'.
        qos: The offered QoS profiles, YAML.
        encoding: Form of the definition: 'ros2msg', 'ros2idl', or '' where there is none.
        definition: Its text, with those of the nested types.
        digest: Its hash (REP 2016, 'RIHS01_...'), or ''.

    """

    name: str
    msgtype: str
    serialization: str
    qos: str = ""
    encoding: str = ""
    definition: str = ""
    digest: str = ""


class StorageFile(Protocol):
    """One file of a bag, indexed.

    Attributes:
        topics: Its topics.
        topic_of: Index into `topics` of each message (n,), in the order of the file.
        times_ns: When each was received (n,), int64.
        warnings: What is damaged, in sentences that begin with what is lost.
        ros_distro: The distribution that wrote it, or ''.

    """

    topics: list[StoredTopic]
    topic_of: NDArray[np.int32]
    times_ns: NDArray[np.int64]
    warnings: list[str]
    ros_distro: str

    def read(self, row: int) -> bytes:
        """Return the serialised message in a row of the index.

        Raises:
            DamagedError: If it is damaged.

        """

    def read_many(self, rows: Sequence[int]) -> Iterator["bytes | DamagedError"]:
        """Yield the messages in rows of the index, or in place of each damaged one the error."""

    def close(self) -> None:
        """Release the file."""


def read_each(file: StorageFile, rows: Sequence[int]) -> Iterator[bytes | DamagedError]:
    """Yield what `StorageFile.read_many` does, one by one."""
    for row in rows:
        try:
            data: bytes | DamagedError = file.read(row)
        except DamagedError as err:
            data = err
        yield data


class Cache:
    """The last unpacked pieces of all files of a bag, as many as fit into a fixed size."""

    def __init__(self, size: int = CACHE_BYTES) -> None:
        """Start empty."""
        self._size = size
        self._held = 0
        self._pieces: OrderedDict[object, bytes] = OrderedDict()

    def get(self, key: object) -> bytes | None:
        """Return a piece, or None if it is not held."""
        piece = self._pieces.get(key)
        if piece is not None:
            self._pieces.move_to_end(key)
        return piece

    def put(self, key: object, piece: bytes) -> None:
        """Hold a piece, and drop the oldest ones that have no more room."""
        self._pieces[key] = piece
        self._held += len(piece)
        while self._held > self._size and len(self._pieces) > 1:
            self._held -= len(self._pieces.popitem(last=False)[1])


def unpack(data: bytes, compression: str, limit: int) -> tuple[bytes, bool]:
    """Decompress as much as there is.

    Args:
        data: The compressed bytes.
        compression: 'zstd', 'lz4', or '' for none.
        limit: No more than so many bytes are made.

    Returns:
        The bytes, and whether they are all of them.

    Raises:
        DamagedError: If the data is damaged, or longer than `limit`.

    """
    if not compression:
        return data, True
    unpacker: zstd.ZstdDecompressor | lz4.frame.LZ4FrameDecompressor
    if compression == "zstd":
        unpacker = zstd.ZstdDecompressor()
    elif compression == "lz4":
        unpacker = lz4.frame.LZ4FrameDecompressor()
    else:
        msg = f"compression {compression!r} is unknown"
        raise DamagedError(msg)
    try:
        unpacked: bytes = unpacker.decompress(data, max_length=limit)
    except (zstd.ZstdError, RuntimeError, EOFError, ValueError) as err:
        msg = f"its {compression} data is damaged"
        raise DamagedError(msg) from err
    if not unpacker.eof and (not unpacker.needs_input or len(unpacked) >= limit):
        msg = f"it unpacks to more than {limit} bytes"
        raise DamagedError(msg)
    return unpacked, unpacker.eof


def unpack_message(data: bytes) -> bytes:
    """Undo the compression of a single message; CDR, which begins with 0, stays as it is.

    Raises:
        DamagedError: If it is damaged or incomplete.

    """
    compression = COMPRESSIONS.get(data[:4])
    if compression is None:
        return data
    unpacked, whole = unpack(data, compression, LARGEST_MESSAGE)
    if not whole:
        msg = f"its {compression} data is incomplete"
        raise DamagedError(msg)
    return unpacked


def span(times_ns: Sequence[int] | NDArray[np.int64]) -> str:
    """Say from when to when messages were received, in seconds of the system's clock."""
    return f"{min(times_ns) / 1e9:.3f} s to {max(times_ns) / 1e9:.3f} s"


def stream_unpacked(file: BinaryIO, out: BinaryIO, compression: str, room: int) -> bool:
    """Decompress a file into another, block by block.

    Args:
        file: The compressed one.
        out: The other; what was written before damage was found stays.
        compression: 'zstd' or 'lz4'.
        room: No more than so many bytes are written.

    Returns:
        Whether it was whole.

    Raises:
        DamagedError: If its data is damaged.
        BagError: If there is no room.

    """
    unpacker: zstd.ZstdDecompressor | lz4.frame.LZ4FrameDecompressor | None = None
    left = b""
    while True:
        block = b""
        if unpacker is None or unpacker.needs_input:
            block, left = left or file.read(INPUT_BLOCK), b""
            if not block:
                return unpacker is None
        if unpacker is None:
            # A file may be several frames, one after the other.
            unpacker = (
                zstd.ZstdDecompressor()
                if compression == "zstd"
                else lz4.frame.LZ4FrameDecompressor()
            )
        try:
            piece = unpacker.decompress(block, max_length=OUTPUT_BLOCK)
        except (zstd.ZstdError, RuntimeError, EOFError, ValueError) as err:
            msg = f"its {compression} data is damaged"
            raise DamagedError(msg) from err
        room -= len(piece)
        if room < 0:
            msg = "there is no room to unpack the bag: free some, or set TMPDIR"
            raise BagError(msg)
        out.write(piece)
        if unpacker.eof:
            left = unpacker.unused_data or b""
            unpacker = None
