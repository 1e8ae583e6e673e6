"""MCAP files of rosbag2, whole, unfinished or damaged (https://mcap.dev/spec).

The file is always read from its beginning, record by record, so that a missing or lying summary
costs nothing. Only the indexes behind the chunks are read; chunks themselves are unpacked when a
message in them is wanted, or where their index is missing or contradicts them.
"""

import re
from array import array
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from struct import Struct, error
from typing import BinaryIO
from zlib import crc32

import numpy as np
from numpy.typing import NDArray

from vla_ros.replay.storage import (
    LARGEST_MESSAGE,
    BagError,
    Cache,
    DamagedError,
    StoredTopic,
    read_each,
    span,
    unpack,
)

MAGIC = b"\x89MCAP0\r\n"
HEADER, FOOTER, SCHEMA, CHANNEL, MESSAGE, CHUNK, MESSAGE_INDEX, CHUNK_INDEX = range(1, 9)
ATTACHMENT, ATTACHMENT_INDEX, STATISTICS, METADATA, METADATA_INDEX = range(9, 14)
SUMMARY_OFFSET, DATA_END = 14, 15
FIRST_PRIVATE_OPCODE = 0x80
LARGEST_CHUNK = 1 << 28
"""Bytes. Chunks are held in memory one by one; writers make them of 1 to 8 MB."""

RECORD = Struct("<BQ")
MESSAGE_HEAD = Struct("<BQHIQQ")
FOOTER_SIZE = 20
MESSAGE_FIELDS = Struct("<HIQQ")
CHUNK_HEAD = Struct("<QQQI")
U16, U32, U64 = Struct("<H"), Struct("<I"), Struct("<Q")
INDEX_ENTRY = np.dtype([("time", "<u8"), ("offset", "<u8")])
CHUNK_PATTERN = re.compile(rb"\x06.{36}(?:\x00{4}|\x03\x00{3}lz4|\x04\x00{3}zstd)", re.DOTALL)
# As Humble writes it, and as part of the bag's metadata, which others keep in the file.
DISTRO = re.compile(rb"(?:ROS_DISTRO.{4}|ros_distro: )([a-z]+)", re.DOTALL)
SEARCH_BLOCK = 1 << 20
LATEST_NS = (1 << 63) - 1

Table = tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]
"""Channels, times of reception and offsets of a chunk's messages, in the order of the chunk."""


@dataclass(slots=True)
class Chunk:
    """Where a chunk lies.

    Attributes:
        start_ns: Earliest time of its messages.
        end_ns: Latest.
        unpacked_size: Bytes when unpacked.
        crc: CRC-32 of the unpacked bytes, 0 for none.
        compression: 'zstd', 'lz4' or ''.
        offset: Of its data in the file.
        size: Of its data in the file, bytes.
        cut: Whether the file ends before it does.
        index: Times and offsets of its messages by channel.

    """

    start_ns: int
    end_ns: int
    unpacked_size: int
    crc: int
    compression: str
    offset: int
    size: int
    cut: bool
    index: dict[int, NDArray[np.void]] = field(default_factory=dict)


class McapFile:
    """One .mcap file: the index is read at once, messages by their places."""

    def __init__(self, path: Path, cache: Cache | None = None) -> None:
        """Open and index a file.

        Args:
            path: The file.
            cache: Holds unpacked chunks; shared by the files of a bag.

        Raises:
            BagError: If nothing of it can be read.

        """
        self.path = path
        self.warnings: list[str] = []
        self.topics: list[StoredTopic] = []
        self.ros_distro = ""
        self._cache = cache or Cache()
        self._schemas: dict[int, tuple[str, str, str]] = {}
        self._channels: dict[int, int] = {}
        self._chunks: list[Chunk] = []
        self._damaged: dict[int, str] = {}
        # Messages outside of chunks: places, channels, times.
        self._direct = array("q"), array("i"), array("q")
        self._counts: dict[int, int] | None = None
        self._before_summary: tuple[int, dict[int, tuple[str, str, str]], int] | None = None
        self._finished = False
        self._size = path.stat().st_size
        self._file: BinaryIO = path.open("rb")
        try:
            self._scan()
            self._make_index()
        except BaseException:
            self._file.close()
            raise

    def read(self, row: int) -> bytes:
        """Return the serialised message in a row of the index.

        Raises:
            DamagedError: If it, or the chunk that it lies in, is damaged.

        """
        place = int(self._places[row])
        number = int(self._chunk_of[row])
        if number >= 0:
            chunk = self._chunks[number]
            if chunk.compression or chunk.crc or chunk.cut:
                piece = self._unpacked(number)
                size = self._check_head(row, piece[place : place + MESSAGE_HEAD.size])
                data = piece[place + MESSAGE_HEAD.size : place + MESSAGE_HEAD.size + size]
                return self._check_size(data, size)
            # Nothing to unpack and nothing to check: the rest of the chunk need not be read.
            place += chunk.offset
        self._file.seek(place)
        size = self._check_head(row, self._file.read(MESSAGE_HEAD.size))
        return self._check_size(self._file.read(size), size)

    def read_many(self, rows: Sequence[int]) -> Iterator[bytes | DamagedError]:
        """Yield the messages in rows of the index, or in place of each damaged one the error."""
        return read_each(self, rows)

    def _check_head(self, row: int, head: bytes) -> int:
        """Compare what lies in a message's place with the index; return the size of its data."""
        if len(head) == MESSAGE_HEAD.size:
            opcode, size, channel, _, time_ns, _ = MESSAGE_HEAD.unpack(head)
            size -= MESSAGE_FIELDS.size
            if (
                opcode == MESSAGE
                and time_ns == self.times_ns[row]
                and self._channels.get(channel) == self.topic_of[row]
                and 0 <= size <= LARGEST_MESSAGE
            ):
                return int(size)
        msg = "something else lies in its place"
        raise DamagedError(msg)

    @staticmethod
    def _check_size(data: bytes, size: int) -> bytes:
        if len(data) < size:
            msg = "it is longer than what it lies in"
            raise DamagedError(msg)
        return data

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    # ---- the records of the file -------------------------------------------------------------

    def _scan(self) -> None:
        if self._file.read(len(MAGIC)) != MAGIC:
            msg = f"{self.path.name} is no MCAP file, or its beginning is damaged"
            raise BagError(msg)
        place = len(MAGIC)
        while place is not None and place < self._size:
            self._file.seek(place)
            if self._finished:
                if self._file.read(len(MAGIC)) != MAGIC:
                    self.warnings.append("its last bytes are damaged; all before them was read")
                return
            following = self._record(place)
            if following is None:
                following = self._resume(place)
                if following is None:
                    return
            place = following
        if not self._finished:
            self.warnings.append("it was not finished: it has no summary")

    def _forget_summary(self) -> None:
        """Undo what a damaged summary said."""
        if self._before_summary is not None:
            _, self._schemas, topics = self._before_summary
            del self.topics[topics:]
            self._channels = {k: place for k, place in self._channels.items() if place < topics}
            self._counts = None
            self.warnings.append("its summary is damaged; the messages were read without it")

    def _record(self, place: int) -> int | None:
        """Take in the record at `place`; return where the next begins, or None if it is none."""
        head = self._file.read(RECORD.size)
        if len(head) < RECORD.size:
            return None
        opcode, size = RECORD.unpack(head)
        end: int = place + RECORD.size + size
        if opcode == CHUNK:
            return self._chunk(place, end)
        if opcode == 0 or end > self._size or (DATA_END < opcode < FIRST_PRIVATE_OPCODE):
            return None
        try:
            return end if self._take(opcode, place, size) else None
        except (error, UnicodeDecodeError, DamagedError):
            return None

    def _take(self, opcode: int, place: int, size: int) -> bool:
        """Take in a record whose head was read; return whether it is plausible."""
        if opcode == MESSAGE:
            return self._message(place, size)
        if opcode in {SCHEMA, CHANNEL, MESSAGE_INDEX, STATISTICS, METADATA}:
            if size > LARGEST_MESSAGE:
                return False
            self._describe(opcode, self._file.read(size))
        elif opcode == DATA_END:
            end = place + RECORD.size + size
            self._before_summary = end, dict(self._schemas), len(self.topics)
        elif opcode == FOOTER:
            self._check_summary(place, self._file.read(FOOTER_SIZE))
            self._finished = True
        return True

    def _check_summary(self, place: int, footer: bytes) -> None:
        crc = U32.unpack_from(footer, 16)[0]
        if crc and self._before_summary is not None:
            begin = self._before_summary[0]
            self._file.seek(begin)
            # Up to the checksum itself.
            if crc32(self._file.read(place + RECORD.size + 16 - begin)) != crc:
                self._forget_summary()

    def _describe(self, opcode: int, data: bytes) -> None:
        """Take in a record that is not a message."""
        if opcode == SCHEMA:
            key = U16.unpack_from(data)[0]
            name, at = _string(data, 2)
            encoding, at = _string(data, at)
            text, _ = _string(data, at)
            self._schemas.setdefault(key, (name, encoding, text))
        elif opcode == CHANNEL:
            self._add_channel(data)
        elif opcode == MESSAGE_INDEX:
            channel, size = U16.unpack_from(data)[0], U32.unpack_from(data, 2)[0]
            if size != len(data) - 6 or size % INDEX_ENTRY.itemsize or not self._chunks:
                msg = "an index is damaged"
                raise DamagedError(msg)
            entries = np.frombuffer(data, INDEX_ENTRY, offset=6)
            if len(entries):
                self._chunks[-1].index[channel] = entries
        elif opcode == METADATA:
            found = DISTRO.search(data)
            self.ros_distro = found[1].decode() if found else self.ros_distro
        elif opcode == STATISTICS:
            self._counts = {
                U16.unpack_from(data, at)[0]: U64.unpack_from(data, at + 2)[0]
                for at in range(46, len(data) - 9, 10)
            }

    def _add_channel(self, data: bytes) -> None:
        key, schema = U16.unpack_from(data)[0], U16.unpack_from(data, 2)[0]
        if key in self._channels:
            return
        topic, at = _string(data, 4)
        serialization, at = _string(data, at)
        end = at + 4 + U32.unpack_from(data, at)[0]
        at += 4
        values: dict[str, str] = {}
        while at < end:
            name, at = _string(data, at)
            values[name], at = _string(data, at)
        msgtype, encoding, text = self._schemas.get(schema, ("", "", ""))
        self._channels[key] = len(self.topics)
        self.topics.append(
            StoredTopic(
                name=topic,
                msgtype=msgtype,
                serialization=serialization,
                qos=values.get("offered_qos_profiles", ""),
                encoding=encoding,
                definition=text,
                digest=values.get("topic_type_hash", ""),
            )
        )

    def _message(self, place: int, size: int) -> bool:
        if not MESSAGE_FIELDS.size <= size <= LARGEST_MESSAGE:
            return False
        channel, _, time_ns, _ = MESSAGE_FIELDS.unpack(self._file.read(MESSAGE_FIELDS.size))
        if channel not in self._channels or time_ns > LATEST_NS:
            return False
        for column, value in zip(self._direct, (place, channel, time_ns), strict=True):
            column.append(value)
        return True

    def _chunk(self, place: int, end: int) -> int | None:
        head = self._file.read(64)
        try:
            start_ns, end_ns, unpacked_size, crc = CHUNK_HEAD.unpack_from(head)
            compression, at = _string(head, CHUNK_HEAD.size)
            size = int(U64.unpack_from(head, at)[0])
        except (error, UnicodeDecodeError, DamagedError):
            return None
        offset = place + RECORD.size + at + 8
        if compression not in {"", "lz4", "zstd"} or offset + size != end:
            return None
        if unpacked_size > LARGEST_CHUNK or size > LARGEST_CHUNK or end_ns > LATEST_NS:
            return None
        cut = end > self._size
        self._chunks.append(
            Chunk(
                start_ns, end_ns, unpacked_size, crc, compression, offset,
                min(size, self._size - offset), cut,
            )
        )  # fmt: skip
        if cut:
            self._finished = False
            self.warnings.append("it ends in the middle of a chunk")
            return None
        return end

    def _resume(self, place: int) -> int | None:
        """Return where the next chunk behind a damaged record begins, or None if there is none."""
        if self._chunks and self._chunks[-1].cut:
            return None
        if self._before_summary is not None:
            self._finished = True
            self._forget_summary()
            return None
        if self._chunks:
            # It may be the chunk's index that is damaged.
            self._chunks[-1].index.clear()
        left = self._size - place
        for begin in range(place + 1, self._size, SEARCH_BLOCK):
            self._file.seek(begin)
            block = self._file.read(SEARCH_BLOCK + 64)
            for match in CHUNK_PATTERN.finditer(block):
                found = begin + match.start()
                self._file.seek(found)
                size = RECORD.unpack(self._file.read(RECORD.size))[1]
                known = len(self._chunks)
                if self._chunk(found, found + RECORD.size + size) is not None:
                    del self._chunks[known:]
                    self.warnings.append(
                        f"{found - place} bytes are damaged at byte {place}, up to the next chunk"
                    )
                    return found
                del self._chunks[known:]
        self.warnings.append(f"its last {left} bytes, from byte {place} on, cannot be read")
        return None

    # ---- the index ---------------------------------------------------------------------------

    def _make_index(self) -> None:
        tables = [self._indexed(chunk) for chunk in self._chunks]
        self._join([self._listed(n) if t is None else t for n, t in enumerate(tables)])
        if not self._count_fits() and any(table is not None for table in tables):
            # The indexes lie, or the summary does.
            self._join([self._listed(number) for number in range(len(self._chunks))])
        for chunk in self._chunks:
            chunk.index.clear()
        self._count_fits(say=True)

    def _join(self, tables: list[Table]) -> None:
        """Make one index of those of the chunks, and of what lies outside of chunks."""
        places, channels, times = (np.frombuffer(c, c.typecode) for c in self._direct)
        columns = [(np.full(len(places), -1), channels, times, places)]
        columns += [(np.full(len(t[0]), n), *t) for n, t in enumerate(tables)]
        chunk_of, channel_of, times_ns, where = (
            np.concatenate([c[k] for c in columns]).astype(np.int64) for k in range(4)
        )
        topic_by_channel = np.full(max(self._channels, default=0) + 1, -1, np.int32)
        for channel, place in self._channels.items():
            topic_by_channel[channel] = place
        self._chunk_of = chunk_of.astype(np.int32)
        self._places = where
        self.topic_of = topic_by_channel[channel_of]
        self.times_ns = times_ns

    def _indexed(self, chunk: Chunk) -> Table | None:
        """Return a chunk's messages by its index; None if there is none or it cannot be true."""
        if not chunk.index or chunk.cut or any(c not in self._channels for c in chunk.index):
            return None
        entries = np.concatenate(list(chunk.index.values()))
        times, offsets = entries["time"], entries["offset"]
        if times.max() != chunk.end_ns or times.min() != chunk.start_ns:
            return None
        if offsets.max() >= chunk.unpacked_size:
            return None
        channels = np.repeat(list(chunk.index), [len(e) for e in chunk.index.values()])
        order = np.argsort(offsets)
        return channels[order], times[order].astype(np.int64), offsets[order].astype(np.int64)

    def _listed(self, number: int) -> Table:
        """Return a chunk's messages by unpacking it."""
        chunk = self._chunks[number]
        rows: list[tuple[int, int, int]] = []
        try:
            rows.extend(self._walk(number))
        except DamagedError as err:
            if not chunk.cut and number not in self._damaged:
                known = sum(len(entries) for entries in chunk.index.values())
                lost = f"{known} messages" if known else "messages"
                period = span([chunk.start_ns, chunk.end_ns])
                self.warnings.append(f"{lost} received from {period} are lost: {err}")
                self._damaged[number] = str(err)
        if chunk.cut:
            begin = rows[-1][1] if rows else chunk.start_ns
            self.warnings.append(
                f"messages received {'after' if rows else 'from'} {begin / 1e9:.3f} s "
                f"to {chunk.end_ns / 1e9:.3f} s are lost with it"
            )
        table = np.array(rows, np.int64).reshape(-1, 3)
        return table[:, 0], table[:, 1], table[:, 2]

    def _walk(self, number: int) -> Iterator[tuple[int, int, int]]:
        """Go through the records of a chunk; take in its channels, yield its messages."""
        piece = self._unpacked(number)
        at = 0
        while at + RECORD.size <= len(piece):
            opcode, size = RECORD.unpack_from(piece, at)
            end = at + RECORD.size + size
            if end > len(piece):
                break
            if opcode in {SCHEMA, CHANNEL}:
                try:
                    self._describe(opcode, piece[at + RECORD.size : end])
                except (error, UnicodeDecodeError) as err:
                    msg = "a record in a chunk is damaged"
                    raise DamagedError(msg) from err
            elif opcode == MESSAGE and size >= MESSAGE_FIELDS.size:
                _, _, channel, _, time_ns, _ = MESSAGE_HEAD.unpack_from(piece, at)
                if channel in self._channels and time_ns <= LATEST_NS:
                    yield channel, time_ns, at
            elif (
                opcode == 0 or opcode in {CHUNK, FOOTER} or DATA_END < opcode < FIRST_PRIVATE_OPCODE
            ):
                msg = "a record in a chunk is damaged"
                raise DamagedError(msg)
            at = end
        if at < len(piece) and not self._chunks[number].cut:
            msg = "a record in a chunk is damaged"
            raise DamagedError(msg)

    def _unpacked(self, number: int) -> bytes:
        key = (self.path, number)
        piece = self._cache.get(key)
        if piece is not None:
            return piece
        if number in self._damaged:
            raise DamagedError(self._damaged[number])
        try:
            piece = self._unpack(self._chunks[number])
        except DamagedError as err:
            # Not tried again for each of its messages.
            self._damaged[number] = str(err)
            raise
        self._cache.put(key, piece)
        return piece

    def _unpack(self, chunk: Chunk) -> bytes:
        self._file.seek(chunk.offset)
        data = self._file.read(chunk.size)
        piece, whole = unpack(data, chunk.compression, chunk.unpacked_size)
        if chunk.cut:
            return piece
        if not whole or len(piece) != chunk.unpacked_size:
            msg = f"the chunk at byte {chunk.offset} is damaged"
            raise DamagedError(msg)
        if chunk.crc and crc32(piece) != chunk.crc:
            msg = f"the chunk at byte {chunk.offset} is damaged (its checksum differs)"
            raise DamagedError(msg)
        return piece

    def _count_fits(self, *, say: bool = False) -> bool:
        """Compare the messages found with the summary's count; warn of differences if asked to."""
        found = np.bincount(self.topic_of, minlength=len(self.topics))
        fits = True
        for channel, count in (self._counts or {}).items():
            topic = self._channels.get(channel)
            if topic is not None and found[topic] != count:
                fits = False
                if say:
                    self.warnings.append(
                        f"its summary counts {count} messages on {self.topics[topic].name}, "
                        f"{found[topic]} were found"
                    )
        return fits


def _string(data: bytes, at: int) -> tuple[str, int]:
    size = U32.unpack_from(data, at)[0]
    end = at + 4 + size
    if end > len(data):
        msg = "a string is longer than its record"
        raise DamagedError(msg)
    return data[at + 4 : end].decode(), end
