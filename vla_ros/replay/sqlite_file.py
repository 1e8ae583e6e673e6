"""The sqlite3 storage of rosbag2, whole, cut off or damaged."""

import sqlite3
from array import array
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from urllib.parse import quote

import numpy as np

from vla_ros.replay.storage import (
    LARGEST_MESSAGE,
    BagError,
    DamagedError,
    StoredTopic,
    read_each,
    span,
)

MAGIC = b"SQLite format 3\0"
HEADER_SIZE = 100
# Each costs a search of about 80 queries.
MAX_GAPS = 500
QUERIED = 256
"""Messages that are read by one query."""
SMALLEST_PAGE = 512
FARTHEST_ID = 1 << 40
# SQLite's own messages quote what is damaged, in whatever bytes that is.
ERRORS = (sqlite3.Error, UnicodeDecodeError, OverflowError)


class SqliteFile:
    """One .db3 file: the index is read at once, messages by their ids.

    SQLite keeps no checksums. What it finds to be damaged is left out; a flipped byte inside a
    message's data shows only if the message no longer decodes.
    """

    def __init__(self, path: Path) -> None:
        """Open and index a file; it is never written to.

        Args:
            path: The database. A journal beside it is not looked at (see bag_files.py).

        Raises:
            BagError: If nothing of it can be read.

        """
        self.path = path
        self.warnings: list[str] = []
        self.topics: list[StoredTopic] = []
        self.ros_distro = ""
        self._database = _connect(path)
        try:
            ids, topics, times = self._index(self._read_topics())
        except ERRORS as err:
            self._database.close()
            msg = f"{path.name} cannot be read as a rosbag2 in sqlite3 storage: {err}"
            raise BagError(msg) from err
        except BagError:
            self._database.close()
            raise
        self._ids = np.frombuffer(ids, np.int64)
        self.topic_of = np.frombuffer(topics, np.int32)
        self.times_ns = np.frombuffer(times, np.int64)

    def read(self, row: int) -> bytes:
        """Return the serialised message in a row of the index.

        Raises:
            DamagedError: If it is damaged.

        """
        try:
            found = self._database.execute(
                "SELECT data FROM messages WHERE id = ?", (int(self._ids[row]),)
            ).fetchone()
        except ERRORS as err:
            msg = f"{err}"
            raise DamagedError(msg) from err
        if found is None or not _is_message(found[0]):
            msg = "no message is stored in its place"
            raise DamagedError(msg)
        return bytes(found[0])

    def read_many(self, rows: Sequence[int]) -> Iterator[bytes | DamagedError]:
        """Yield the messages in rows of the index, or in place of each damaged one the error."""
        for begin in range(0, len(rows), QUERIED):
            some = rows[begin : begin + QUERIED]
            read = 0
            for data in self._in_one_query(self._ids[some].tolist()):
                yield data
                read += 1
            yield from read_each(self, some[read:])

    def _in_one_query(self, ids: list[int]) -> Iterator[bytes]:
        """Yield messages up to the first that is damaged, or not in the order of the ids."""
        wanted = ",".join(map(str, ids))
        query = f"SELECT id, data FROM messages WHERE id IN ({wanted}) ORDER BY id"  # noqa: S608 - numbers
        # Whatever is wrong is found again, and said, where the message is read by itself.
        with suppress(*ERRORS):
            for key, (found, data) in zip(ids, self._database.execute(query), strict=False):
                if found != key or not _is_message(data):
                    return
                yield data

    def close(self) -> None:
        """Close the database."""
        self._database.close()

    def _read_topics(self) -> dict[int, int]:
        """Fill `topics`; return their places there by the ids of the database."""
        tables = {
            name: {column for _, column, *_ in self._database.execute(f"PRAGMA table_info({name})")}
            for name in ("topics", "messages", "message_definitions", "schema")
        }
        if (
            not {"id", "name", "type"} <= tables["topics"]
            or not {
                "id",
                "topic_id",
                "timestamp",
                "data",
            }
            <= tables["messages"]
        ):
            msg = f"{self.path.name} is an SQLite database, but not a rosbag2: it has no messages"
            raise BagError(msg)
        if "ros_distro" in tables["schema"]:
            row = self._database.execute("SELECT ros_distro FROM schema").fetchone()
            self.ros_distro = str(row[0]) if row else ""
        definitions: dict[str, tuple[str, str]] = {}
        if {"topic_type", "encoding", "encoded_message_definition"} <= tables[
            "message_definitions"
        ]:
            query = (
                "SELECT topic_type, encoding, encoded_message_definition FROM message_definitions"
            )
            definitions = {str(n): (str(e), str(d)) for n, e, d in self._database.execute(query)}
        columns = [
            column if column in tables["topics"] else "''"
            for column in ("serialization_format", "offered_qos_profiles", "type_description_hash")
        ]
        places: dict[int, int] = {}
        query = f"SELECT id, name, type, {', '.join(columns)} FROM topics ORDER BY id"  # noqa: S608 - the names above
        for key, name, msgtype, serialization, qos, digest in self._database.execute(query):
            places[key] = len(self.topics)
            encoding, text = definitions.get(str(msgtype), ("", ""))
            self.topics.append(
                StoredTopic(
                    name=str(name),
                    msgtype=str(msgtype),
                    serialization=str(serialization) or "cdr",
                    qos=str(qos),
                    encoding=encoding,
                    definition=text,
                    digest=str(digest),
                )
            )
        return places

    def _index(self, places: dict[int, int]) -> tuple["array[int]", "array[int]", "array[int]"]:
        ids, topics, times = array("q"), array("i"), array("q")
        strange = 0
        for key, topic, time_ns in self._rows():
            if topic in places and isinstance(time_ns, int) and time_ns >= 0:
                ids.append(key)
                topics.append(places[topic])
                times.append(time_ns)
            else:
                strange += 1
        if strange:
            self.warnings.append(f"{strange} messages have no topic or no time of reception")
        missing = ids[-1] - len(ids) - strange if ids else 0
        if missing > 0:
            # They are numbered from 1 on, without gaps, as they are received.
            gaps = np.flatnonzero(np.diff(np.frombuffer(ids, np.int64), prepend=0) > 1)
            around = [times[max(0, int(gaps[0]) - 1)], times[int(gaps[-1])]]
            self.warnings.append(
                f"{missing} messages are missing (their numbers are skipped), around {span(around)}"
            )
        return ids, topics, times

    def _rows(self) -> Iterator[tuple[int, int, int]]:
        """Yield id, topic and time of every row that SQLite can reach, in the order of the ids."""
        last = 0
        for _ in range(MAX_GAPS):
            try:
                for row in self._rows_from(last + 1):
                    if not last < row[0] < FARTHEST_ID:
                        problem = "its numbers are not in order"
                        break
                    last = row[0]
                    yield row
                else:
                    return
            except ERRORS as err:
                problem = str(err)
            beyond = self._next_readable(last + 1)
            if beyond is None:
                where = "its beginning" if not last else f"message {last}"
                self.warnings.append(f"nothing after {where} can be read ({problem})")
                return
            last = beyond - 1
        self.warnings.append(f"given up after message {last}: more than {MAX_GAPS} damaged places")

    def _rows_from(self, key: int) -> sqlite3.Cursor:
        # By row, not by the index of times: pages of data stay readable where those are damaged.
        return self._database.execute(
            "SELECT id, topic_id, timestamp FROM messages NOT INDEXED WHERE id >= ? ORDER BY id",
            (key,),
        )

    def _next_readable(self, key: int) -> int | None:
        """Return the first id after a damaged place from which rows can be read again."""
        step = 1
        while key + step < FARTHEST_ID and not self._reads(key + step):
            step *= 2
        if key + step >= FARTHEST_ID:
            return None
        low, high = key + step // 2, key + step
        while high - low > 1:
            middle = (low + high) // 2
            if self._reads(middle):
                high = middle
            else:
                low = middle
        return high

    def _reads(self, key: int) -> bool:
        try:
            row = self._rows_from(key).fetchone()
        except ERRORS:
            return False
        # Past the last row there is no error to see either: nothing more is there to read.
        return row is None or key <= row[0] < FARTHEST_ID


def _is_message(data: object) -> bool:
    return isinstance(data, bytes) and len(data) <= LARGEST_MESSAGE


def page_counts(path: Path) -> tuple[int, int, int]:
    """Return a database's page size, its pages by its header, and those in the file.

    Raises:
        BagError: If the header is none.

    """
    with path.open("rb") as file:
        header = file.read(HEADER_SIZE)
    if len(header) < HEADER_SIZE or header[:16] != MAGIC:
        msg = f"{path.name} is too short for a bag, or its beginning is damaged"
        raise BagError(msg)
    size = int.from_bytes(header[16:18], "big")
    size = 65536 if size == 1 else size
    if size < SMALLEST_PAGE or size & (size - 1):
        msg = f"{path.name} cannot be read: its header is damaged (page size {size})"
        raise BagError(msg)
    pages = int.from_bytes(header[28:32], "big")
    if header[24:28] != header[92:96]:
        pages = 0  # SQLite then counts by the file
    return size, pages, path.stat().st_size // size


def set_page_count(path: Path, pages: int) -> None:
    """Write into a database's header how many pages it has.

    SQLite takes pages beyond the file's end for zeros, and so would make up messages.
    """
    with path.open("r+b") as file:
        file.seek(28)
        file.write(pages.to_bytes(4, "big"))


def _connect(path: Path) -> sqlite3.Connection:
    database = sqlite3.connect(
        f"file:{quote(str(path.resolve()))}?mode=ro&immutable=1",
        uri=True,
        check_same_thread=False,
        isolation_level=None,
    )
    # Names and definitions may be damaged.
    database.text_factory = lambda text: text.decode("utf-8", "replace")
    database.execute("PRAGMA cell_size_check = ON")
    # Tables are read even where the description of an index, say, is damaged.
    database.execute("PRAGMA writable_schema = ON")
    return database
