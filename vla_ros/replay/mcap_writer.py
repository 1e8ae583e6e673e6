"""Writing MCAP files as rosbag2 does (https://mcap.dev/spec), so that a crash costs little."""

from dataclasses import dataclass, field
from pathlib import Path
from struct import Struct
from zlib import crc32

from vla_ros.replay.mcap_file import (
    CHANNEL,
    CHUNK,
    CHUNK_HEAD,
    CHUNK_INDEX,
    DATA_END,
    FOOTER,
    HEADER,
    MAGIC,
    MESSAGE,
    MESSAGE_FIELDS,
    MESSAGE_INDEX,
    METADATA,
    METADATA_INDEX,
    RECORD,
    SCHEMA,
    STATISTICS,
    SUMMARY_OFFSET,
    U16,
    U32,
    U64,
)

LIBRARY = "vla_ros"
CHUNK_SIZE = 1 << 20
INDEX_ENTRY = Struct("<QQ")
CHANNEL_OFFSET = Struct("<HQ")


@dataclass(slots=True)
class _Chunk:
    """A chunk in the making.

    Attributes:
        records: Its records so far.
        index: Times and offsets of its messages, by channel.
        start_ns: Earliest time of a message.
        end_ns: Latest.

    """

    records: bytearray = field(default_factory=bytearray)
    index: dict[int, bytearray] = field(default_factory=dict)
    start_ns: int = (1 << 63) - 1
    end_ns: int = 0


class McapWriter:
    """An MCAP file in the making: chunks of 1 MB without compression, with checksums and indexes.

    A chunk reaches the file in one write with its index: what a killed recorder leaves behind ends
    with a whole chunk, and is read without the summary that only `close` writes.
    """

    def __init__(self, path: Path) -> None:
        """Create the file; it must not exist."""
        self._file = path.open("xb", buffering=0)
        self._size = 0
        self._chunk = _Chunk()
        self._schemas: dict[str, tuple[int, bytes]] = {}
        self._channels: dict[int, bytes] = {}
        self._counts: dict[int, int] = {}
        self._chunk_indexes: list[bytes] = []
        self._start_ns, self._end_ns = (1 << 63) - 1, 0
        self._put(MAGIC + _record(HEADER, _string("ros2") + _string(LIBRARY)))

    def add_channel(
        self, topic: str, msgtype: str, encoding: str, definition: str, values: dict[str, str]
    ) -> int:
        """Begin a topic.

        Args:
            topic: Its name.
            msgtype: 'std_msgs/msg/String'.
            encoding: Form of the definition: 'ros2msg' or 'ros2idl'.
            definition: Its text, with those of the nested types.
            values: 'offered_qos_profiles' and 'topic_type_hash', as rosbag2 writes them.

        Returns:
            The channel, for `write`.

        """
        if msgtype not in self._schemas:
            key = len(self._schemas) + 1
            schema = _record(
                SCHEMA, U16.pack(key) + _string(msgtype) + _string(encoding) + _string(definition)
            )
            self._schemas[msgtype] = key, schema
            self._chunk.records += schema
        channel = len(self._channels) + 1
        pairs = b"".join(_string(name) + _string(value) for name, value in values.items())
        self._channels[channel] = _record(
            CHANNEL,
            U16.pack(channel)
            + U16.pack(self._schemas[msgtype][0])
            + _string(topic)
            + _string("cdr")
            + U32.pack(len(pairs))
            + pairs,
        )
        self._chunk.records += self._channels[channel]
        self._counts[channel] = 0
        return channel

    def write(self, channel: int, time_ns: int, data: bytes | memoryview) -> None:
        """Append a message (CDR with its header), received at `time_ns`."""
        chunk = self._chunk
        entry = INDEX_ENTRY.pack(time_ns, len(chunk.records))
        chunk.index.setdefault(channel, bytearray()).extend(entry)
        chunk.records += RECORD.pack(MESSAGE, MESSAGE_FIELDS.size + len(data))
        sequence = self._counts[channel] & 0xFFFFFFFF
        chunk.records += MESSAGE_FIELDS.pack(channel, sequence, time_ns, time_ns)
        chunk.records += data
        chunk.start_ns = min(chunk.start_ns, time_ns)
        chunk.end_ns = max(chunk.end_ns, time_ns)
        self._counts[channel] += 1
        if len(chunk.records) >= CHUNK_SIZE:
            self.flush()

    def flush(self) -> None:
        """Bring what was appended into the file, where it survives the end of this process."""
        if not self._chunk.index:
            return  # topics wait for their first message
        chunk, self._chunk = self._chunk, _Chunk()
        size = len(chunk.records)
        head = CHUNK_HEAD.pack(chunk.start_ns, chunk.end_ns, size, crc32(chunk.records))
        stored = _record(CHUNK, head + _string("") + U64.pack(size) + chunk.records)
        start = self._size
        offsets = b""
        indexes = b""
        for channel, entries in chunk.index.items():
            offsets += CHANNEL_OFFSET.pack(channel, start + len(stored) + len(indexes))
            body = U16.pack(channel) + U32.pack(len(entries)) + entries
            indexes += _record(MESSAGE_INDEX, body)
        self._chunk_indexes.append(
            _record(
                CHUNK_INDEX,
                U64.pack(chunk.start_ns)
                + U64.pack(chunk.end_ns)
                + U64.pack(start)
                + U64.pack(len(stored))
                + U32.pack(len(offsets))
                + offsets
                + U64.pack(len(indexes))
                + _string("")
                + U64.pack(size)
                + U64.pack(size),
            )
        )
        self._start_ns = min(self._start_ns, chunk.start_ns)
        self._end_ns = max(self._end_ns, chunk.end_ns)
        self._put(stored + indexes)

    def close(self, metadata: str) -> None:
        """Write the summary and close the file.

        Args:
            metadata: The bag's metadata, YAML, which rosbag2 from Iron on keeps in the file too.

        """
        self.flush()
        metadata_start = self._size
        pairs = _string("serialized_metadata") + _string(metadata)
        body = _record(METADATA, _string("rosbag2") + U32.pack(len(pairs)) + pairs)
        self._put(body + _record(DATA_END, U32.pack(0)))
        groups = {
            SCHEMA: b"".join(schema for _, schema in self._schemas.values()),
            CHANNEL: b"".join(self._channels.values()),
            STATISTICS: self._statistics(),
            CHUNK_INDEX: b"".join(self._chunk_indexes),
            METADATA_INDEX: _record(
                METADATA_INDEX,
                U64.pack(metadata_start) + U64.pack(len(body)) + _string("rosbag2"),
            ),
        }
        start = self._size
        summary = b""
        offsets = b""
        for opcode, group in groups.items():
            if group:
                place = U64.pack(start + len(summary)) + U64.pack(len(group))
                offsets += _record(SUMMARY_OFFSET, bytes([opcode]) + place)
            summary += group
        ends = U64.pack(start) + U64.pack(start + len(summary))
        checked = summary + offsets + RECORD.pack(FOOTER, len(ends) + U32.size) + ends
        self._put(checked + U32.pack(crc32(checked)) + MAGIC)
        self._file.close()

    def abort(self) -> None:
        """Close the file without a summary."""
        self._file.close()

    def _statistics(self) -> bytes:
        count = sum(self._counts.values())
        counts = b"".join(CHANNEL_OFFSET.pack(c, n) for c, n in self._counts.items())
        return _record(
            STATISTICS,
            U64.pack(count)
            + U16.pack(len(self._schemas))
            + U32.pack(len(self._channels))
            + U32.pack(0)  # attachments
            + U32.pack(1)  # metadata
            + U32.pack(len(self._chunk_indexes))
            + U64.pack(self._start_ns if count else 0)
            + U64.pack(self._end_ns)
            + U32.pack(len(counts))
            + counts,
        )

    def _put(self, data: bytes) -> None:
        view = memoryview(data)
        while view:
            written = self._file.write(view)
            view = view[written:]
        self._size += len(data)


def _record(opcode: int, body: bytes | bytearray) -> bytes:
    return RECORD.pack(opcode, len(body)) + body


def _string(text: str) -> bytes:
    data = text.encode()
    return U32.pack(len(data)) + data
