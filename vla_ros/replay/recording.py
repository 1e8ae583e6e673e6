"""Writing a rosbag2 that survives a crash of its writer."""

import sqlite3
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType

from rosbags.interfaces import Connection, Qos
from rosbags.rosbag2 import Writer
from rosbags.rosbag2.enums import StoragePlugin
from rosbags.rosbag2.storage_sqlite3 import Sqlite3Writer
from rosbags.typesys import Stores, get_typestore
from rosbags.typesys.store import Typestore

COMMIT_PERIOD_NS = 1_000_000_000


class RecordingError(RuntimeError):
    """A bag cannot be written."""


def typestore(distro: str) -> Typestore:
    """Return the message types of a ROS 2 distribution.

    Args:
        distro: Its name in lower case, as in ROS_DISTRO.

    Raises:
        RecordingError: If rosbags knows no types of that distribution.

    """
    known = {store.name.removeprefix("ROS2_").lower(): store for store in Stores}
    if distro not in known:
        names = ", ".join(sorted(name for name in known if not name.startswith("ros1")))
        msg = f"ROS_DISTRO is {distro!r}, but message definitions are known for {names}"
        raise RecordingError(msg)
    return get_typestore(known[distro])


class Recording:
    """A rosbag2 in the making: sqlite3 storage, metadata version 8, which Humble and later read.

    Messages are committed to the file every second, so that a killed recorder loses no more than
    that; `ros2 bag reindex` then writes the metadata that only a clean end writes.
    """

    def __init__(self, path: Path, distro: str) -> None:
        """Create the bag.

        Args:
            path: The folder to make; it must not exist.
            distro: Whose message definitions are written, as in ROS_DISTRO.

        Raises:
            RecordingError: If the distribution is unknown.
            rosbags.rosbag2.WriterError: If the folder exists.

        """
        self._types = typestore(distro)
        self._writer = Writer(path, version=8, storage_plugin=StoragePlugin.SQLITE3)
        self._writer.open()
        self._connections: dict[str, Connection] = {}
        self._last_commit_ns = 0
        if not isinstance(self._writer.storage, Sqlite3Writer):
            msg = "rosbags did not open the sqlite3 storage that was asked for"
            raise RecordingError(msg)
        self._database = _number_file(self._writer.storage)
        # Written pages need to survive this process, not a loss of power: no wait for the disk.
        self._database.execute("PRAGMA synchronous = OFF")

    def knows(self, msgtype: str) -> bool:
        """Return whether messages of this type ('std_msgs/msg/String') can be recorded."""
        return msgtype in self._types.types

    def add_topic(self, topic: str, msgtype: str, qos: Sequence[Qos] = ()) -> None:
        """Begin a topic, with the QoS profiles that its publishers offer."""
        self._connections[topic] = self._writer.add_connection(
            topic, msgtype, typestore=self._types, offered_qos_profiles=qos
        )

    def write(self, topic: str, time_ns: int, data: bytes) -> None:
        """Append a serialised message (CDR with its header), received at `time_ns`."""
        self._writer.write(self._connections[topic], time_ns, data)
        if time_ns - self._last_commit_ns >= COMMIT_PERIOD_NS:
            self._database.commit()
            self._last_commit_ns = time_ns

    def close(self) -> None:
        """Write the metadata and close the file."""
        self._writer.close()

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


def _number_file(storage: Sqlite3Writer) -> sqlite3.Connection:
    """Name the new file as rosbag2 does, `bag_0.db3`: `ros2 bag reindex` finds no other."""
    storage.conn.close()
    storage.path = storage.path.rename(storage.path.with_name(f"{storage.path.stem}_0.db3"))
    storage.conn = sqlite3.connect(storage.path)
    storage.cursor = storage.conn.cursor()
    return storage.conn
