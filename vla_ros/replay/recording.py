"""Writing a rosbag2 that survives a crash of its writer."""

import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Literal

from rosbags.interfaces import Connection, MessageDefinitionFormat, Qos
from rosbags.rosbag2 import Writer, WriterError
from rosbags.rosbag2.enums import CompressionMode, StoragePlugin
from rosbags.rosbag2.storage_sqlite3 import Sqlite3Writer
from rosbags.typesys import get_types_from_msg, get_typestore
from rosbags.typesys.store import Typestore

from vla_ros.replay.mcap_writer import McapWriter
from vla_ros.replay.message_types import DEFINITION_ERRORS, known_distros

if TYPE_CHECKING:
    from rosbags.rosbag2.writer import StorageWriter

COMMIT_PERIOD_NS = 1_000_000_000
Storage = Literal["mcap", "sqlite3"]


class RecordingError(RuntimeError):
    """A bag cannot be written."""


def typestore(distro: str) -> Typestore:
    """Return the message types of a ROS 2 distribution.

    Args:
        distro: Its name in lower case, as in ROS_DISTRO.

    Raises:
        RecordingError: If rosbags knows no types of that distribution.

    """
    known = known_distros()
    if distro not in known:
        msg = (
            f"ROS_DISTRO is {distro!r}, but message definitions are known for "
            f"{', '.join(sorted(known))}"
        )
        raise RecordingError(msg)
    return get_typestore(known[distro])


class Recording:
    """A rosbag2 in the making: metadata version 8, which Humble and later read.

    Messages are committed to the file every second, so that a killed recorder loses no more than
    that; `ros2 bag reindex` then writes the metadata that only a clean end writes.
    """

    def __init__(self, path: Path, distro: str, storage: Storage = "sqlite3") -> None:
        """Create the bag.

        Args:
            path: The folder to make; it must not exist.
            distro: Whose message definitions are written, as in ROS_DISTRO.
            storage: The form of its file.

        Raises:
            RecordingError: If the distribution is unknown, or the folder cannot be made.

        """
        self._types = typestore(distro)
        self._distro = distro
        try:
            self._writer = _Writer(path, version=8, storage_plugin=StoragePlugin[storage.upper()])
            self._writer.open()
        except (OSError, WriterError) as err:
            msg = f"the bag {path} cannot be made: {err}"
            raise RecordingError(msg) from err
        self._connections: dict[str, Connection] = {}
        self._last_commit_ns: int | None = None

    @property
    def counts(self) -> dict[str, int]:
        """How many messages of each topic were written."""
        return {topic: self._writer.counts[c.id] for topic, c in self._connections.items()}

    def knows(self, msgtype: str) -> bool:
        """Return whether messages of this type ('std_msgs/msg/String') can be recorded."""
        return msgtype in self._types.types

    def learn(self, msgtype: str, definition: str) -> None:
        """Take in the definition of a type, with those of the types nested in it.

        Raises:
            ValueError: If it is none, or contradicts one that is known.

        """
        try:
            self._types.register(get_types_from_msg(definition, msgtype))
        except DEFINITION_ERRORS as err:
            msg = f"the definition of {msgtype} cannot be used: {err}"
            raise ValueError(msg) from err

    def add_topic(self, topic: str, msgtype: str, qos: Sequence[Qos] = ()) -> None:
        """Begin a topic, with the QoS profiles that its publishers offer."""
        self._connections[topic] = self._writer.add_connection(
            topic, msgtype, typestore=self._types, offered_qos_profiles=qos
        )

    def write(self, topic: str, time_ns: int, data: bytes) -> None:
        """Append a serialised message (CDR with its header), received at `time_ns`.

        Raises:
            RecordingError: If the disk is full, say.

        """
        with _said(self._writer.path):
            self._writer.write(self._connections[topic], time_ns, data)
        if self._last_commit_ns is None:
            self._last_commit_ns = time_ns
        if time_ns - self._last_commit_ns >= COMMIT_PERIOD_NS:
            self.commit()
            self._last_commit_ns = time_ns

    def commit(self) -> None:
        """Bring all that was written into the file, where it survives the end of this process.

        To be called every now and then: `write` itself commits only when messages arrive.

        Raises:
            RecordingError: If the disk is full, say.

        """
        if isinstance(self._writer.storage, _Sqlite3Storage | _McapStorage):
            with _said(self._writer.path):
                self._writer.storage.commit()

    def close(self) -> None:
        """Write the metadata and close the file.

        Raises:
            RecordingError: If the disk is full, say. What was committed stays readable.

        """
        with _said(self._writer.path):
            self._finish()

    def _finish(self) -> None:
        self._writer.close()
        # rosbags names itself as the distribution.
        metadata = self._writer.metapath
        text = metadata.read_text(encoding="utf-8")
        named = text.replace("ros_distro: rosbags", f"ros_distro: {self._distro}")
        written = metadata.with_suffix(".tmp")
        written.write_text(named, encoding="utf-8")
        written.replace(metadata)

    def __enter__(self) -> "Recording":  # noqa: PYI034 - Self is in typing from 3.11 on
        """Return the open recording."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Close, whatever happened: what was recorded stays readable."""
        self.close()


@contextmanager
def _said(path: Path) -> Iterator[None]:
    """Turn what the storages raise into a RecordingError."""
    try:
        yield
    except (OSError, sqlite3.Error) as err:
        msg = f"the bag {path} cannot be written: {err}"
        raise RecordingError(msg) from err


class _Sqlite3Storage(Sqlite3Writer):
    """rosbags' storage, whose file is named as rosbag2 does, `bag_0.db3`, and committed at will."""

    def __init__(self, path: Path, compression: CompressionMode) -> None:
        super().__init__(path, compression)
        self.conn.close()
        # `ros2 bag reindex` finds no other name.
        self.path = self.path.rename(self.path.with_name(f"{self.path.stem}_0.db3"))
        self.conn = sqlite3.connect(self.path)
        self.cursor = self.conn.cursor()
        # Written pages need to survive this process, not a loss of power: no wait for the disk.
        self.conn.execute("PRAGMA synchronous = OFF")

    def commit(self) -> None:
        """Commit what was written."""
        self.conn.commit()


class _McapStorage:
    """Our MCAP file as a storage of rosbags' writer."""

    def __init__(self, path: Path, compression: CompressionMode) -> None:
        del compression
        self.path = path / f"{path.name}_0.mcap"
        self._file = McapWriter(self.path)
        self._channels: dict[int, int] = {}

    def add_msgtype(self, connection: Connection) -> None:
        """Do nothing: types are written with their topics."""

    def add_connection(self, connection: Connection, offered_qos_profiles: str) -> None:
        """Begin a topic."""
        idl = connection.msgdef.format == MessageDefinitionFormat.IDL
        self._channels[connection.id] = self._file.add_channel(
            connection.topic,
            connection.msgtype,
            "ros2idl" if idl else "ros2msg",
            connection.msgdef.data,
            {"offered_qos_profiles": offered_qos_profiles, "topic_type_hash": connection.digest},
        )

    def write(self, connection: Connection, timestamp: int, data: bytes | memoryview) -> None:
        """Append a message."""
        self._file.write(self._channels[connection.id], timestamp, data)

    def commit(self) -> None:
        """Commit what was written."""
        self._file.flush()

    def close(self, version: int, metadata: str) -> None:
        """Finish the file."""
        del version
        self._file.close(metadata)

    def abort(self) -> None:
        """Leave the file as it is."""
        self._file.abort()


class _Writer(Writer):
    STORAGE_PLUGINS: Mapping[StoragePlugin, "type[StorageWriter]"] = {
        StoragePlugin.SQLITE3: _Sqlite3Storage,
        StoragePlugin.MCAP: _McapStorage,
    }
