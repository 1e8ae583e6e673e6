"""Reading rosbag2: any storage, compression and damage, in order of reception, in flat memory."""

from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from struct import Struct, error
from types import TracebackType
from typing import Any, NamedTuple

import numpy as np
import yaml
from numpy.typing import NDArray
from rosbags.interfaces import Qos
from rosbags.rosbag2.metadata import parse_qos
from rosbags.serde import SerdeError
from rosbags.typesys.store import Typestore

from vla_ros.replay.bag_files import find_bag, open_file
from vla_ros.replay.message_types import MessageTypes
from vla_ros.replay.storage import (
    COMPRESSIONS,
    BagError,
    Cache,
    DamagedError,
    StorageFile,
    StoredTopic,
    unpack_message,
)

__all__ = ["Bag", "BagError", "BagMessage", "BagTopic", "open_bag", "read_bag", "stamp_ns"]

SECOND_NS = 1_000_000_000
BACKWARDS_NS = 10_000_000
"""A recorder may write a little out of order; a clock that is set back is more."""
STAMPS = {b"\x00\x01": Struct("<iI"), b"\x00\x00": Struct(">iI")}
HEADER_TYPE = "std_msgs/msg/Header"
# What the generated code of rosbags raises on data that is no message.
DECODE_ERRORS = (
    SerdeError,
    error,
    ValueError,
    IndexError,
    KeyError,
    TypeError,
    AttributeError,
    OverflowError,
    MemoryError,
)


class BagMessage(NamedTuple):
    """A message as recorded (a named tuple, as hundreds of thousands are made).

    Attributes:
        topic: Its topic, after remapping.
        msgtype: 'sensor_msgs/msg/JointState'.
        received_ns: When it was recorded.
        data: CDR with its encapsulation header.
        stamp_ns: The stamp of its header, None for types without one.

    """

    topic: str
    msgtype: str
    received_ns: int
    data: bytes
    stamp_ns: int | None


@dataclass(frozen=True, slots=True)
class BagTopic:
    """A topic of a bag.

    Attributes:
        name: Its name, after remapping.
        recorded_name: Its name in the bag.
        msgtype: 'sensor_msgs/msg/JointState'.
        count: Messages found, those included that turn out to be damaged when read.
        first_ns: When the first was received, 0 if there is none.
        last_ns: When the last was received.
        qos_text: The QoS profiles that its publishers offered, YAML as in the bag.

    """

    name: str
    recorded_name: str
    msgtype: str
    count: int
    first_ns: int
    last_ns: int
    qos_text: str

    @property
    def qos(self) -> tuple[Qos, ...]:
        """The QoS profiles that its publishers offered, none if they are not known."""
        try:
            profiles = yaml.safe_load(self.qos_text)
            return tuple(parse_qos(profiles)) if isinstance(profiles, list) else ()
        except (yaml.YAMLError, KeyError, TypeError, ValueError, AttributeError):
            return ()


@dataclass(slots=True)
class _SetBack:
    """How often the stamps of a topic go backwards: counted on the first reading alone."""

    first_ns: int
    times: int = 0
    most_ns: int = 0
    counted_ns: int = -1

    def add(self, time_ns: int, back_ns: int) -> None:
        if time_ns > self.counted_ns:
            self.counted_ns = time_ns
            self.times += 1
            self.most_ns = max(self.most_ns, back_ns)


def open_bag(
    path: str | Path,
    *,
    store: str | None = None,
    topics: Collection[str] | None = None,
    remap: Mapping[str, str] | None = None,
) -> "Bag":
    """Open a bag of ROS 2 for reading; nothing of it is changed.

    Args:
        path: Its folder, with or without metadata.yaml, or one .db3 or .mcap file, compressed or
            not.
        store: Distribution ('jazzy') whose message definitions are used where the bag has none.
            By default the one that the bag names, else ROS_DISTRO, else Humble.
        topics: The only topics to open, by their names after remapping; all by default.
        remap: New names of topics by those in the bag.

    Raises:
        BagError: If nothing of it can be read, or `store` is unknown, or two topics get one name.

    """
    return Bag(Path(path), store=store, topics=topics, remap=remap or {})


class Bag:
    """An open bag: its topics, and its messages in order of reception.

    What is damaged is left out, and said in `warnings`. Messages received at the same time come
    in the order of the files, and in a file in the order in which they were written.

    Attributes:
        path: The bag.
        topics: Its topics by name.
        duration_ns: From the first message to the last.
        start_ns: When the first message was received, 0 if there is none.
        ros_distro: The distribution that recorded it, '' if it does not say.

    """

    def __init__(
        self,
        path: Path,
        *,
        store: str | None,
        topics: Collection[str] | None,
        remap: Mapping[str, str],
    ) -> None:
        """Open a bag; use `open_bag`."""
        self.path = path
        self._names = {_absolute(old): _absolute(new) for old, new in remap.items()}
        self._wanted = None if topics is None else {_absolute(name) for name in topics}
        self._warnings: list[str] = []
        # By message, so that what is read twice is counted once.
        self._damaged: dict[str, dict[tuple[int, int], str]] = {}
        self._set_back: dict[str, _SetBack] = {}
        self._stack = ExitStack()
        try:
            found = find_bag(path)
            self._warnings += found.warnings
            self._files = self._open_files(found.paths)
            recorded = [found.ros_distro, *(file.ros_distro for file in self._files)]
            self.ros_distro = next((name for name in recorded if name), "")
            self._types = MessageTypes(store, recorded)
            self._index(found.counts, found.digests)
        except BaseException:
            self._stack.close()
            raise

    @property
    def warnings(self) -> list[str]:
        """What is missing, damaged or guessed, in sentences; complete once everything was read."""
        said = [*self._warnings, *self._types.warnings]
        # In an order of their own: pictures are decoded while other messages are read.
        for topic, reasons in sorted(self._damaged.items()):
            in_time = sorted(reasons.items(), key=lambda item: item[0][0])
            reason, _ = Counter(text for _, text in in_time).most_common(1)[0]
            said.append(f"{topic}: {len(reasons)} messages are damaged ({reason})")
        for topic, back in self._set_back.items():
            said.append(
                f"{topic}: its stamps go backwards {back.times} times, by up to "
                f"{back.most_ns / 1e9:.3f} s (first received at {back.first_ns / 1e9:.3f} s)"
            )
        return list(dict.fromkeys(said))

    @property
    def damaged(self) -> dict[str, int]:
        """How many messages of each topic could not be read or decoded so far."""
        return {topic: len(reasons) for topic, reasons in self._damaged.items()}

    @property
    def loading_s(self) -> float:
        """Seconds that the definitions of messages took, and what was made of them."""
        return self._types.loading.seconds

    def prepare(self, topics: Iterable[str]) -> None:
        """Make what decodes the messages of some topics now, and not with the first of them."""
        for topic in topics:
            self._types.prepare(self._stored[topic])

    def require(self, *topics: str) -> None:
        """Insist on topics that have messages which can be decoded.

        Raises:
            BagError: Naming what is absent, and what there is.

        """
        for name in map(_absolute, topics):
            topic = self.topics.get(name)
            if topic is None or not topic.count:
                there = ", ".join(sorted(n for n, t in self.topics.items() if t.count)) or "nothing"
                problem = "has no messages on" if topic else "has no topic"
                msg = f"bag {self.path} {problem} {name}; it has {there}"
                raise BagError(msg)
            if self._store(name) is None:
                msg = next((w for w in self._types.warnings if topic.recorded_name in w), name)
                msg = f"bag {self.path}: {msg}"
                raise BagError(msg)

    def messages(
        self, topics: Collection[str] | None = None, *, at_ns: Sequence[int] | None = None
    ) -> Iterator[BagMessage]:
        """Yield the messages of some topics, all by default, in order of reception.

        Messages that cannot be read are left out and counted. Only what holds the wanted messages
        is read from the files.

        Args:
            topics: Their names; None for all.
            at_ns: Times; only the first message of each topic at or after each of them is wanted.

        """
        names = set(self.topics) if topics is None else {_absolute(name) for name in topics}
        wanted = np.array([name in names for name in self._topic_names], dtype=bool)
        if not wanted.any():
            return
        order = self._order[wanted[self._topic_of[self._order]]]
        if at_ns is not None:
            order = self._first_after(order, np.array(at_ns, np.int64))
        topics_of = [
            (name, self._stored[name].msgtype, self._is_stamped(name)) for name in self._topic_names
        ]
        previous: dict[str, int] = {}
        # Converted piece by piece: all at once would take ten times the memory of the arrays.
        for begin in range(0, len(order), 4096):
            rows = order[begin : begin + 4096]
            for row, topic, time_ns, data in zip(
                self._row_of[rows].tolist(),
                self._topic_of[rows].tolist(),
                self._times[rows].tolist(),
                self._contents(rows),
                strict=True,
            ):
                name, msgtype, stamped = topics_of[topic]
                if isinstance(data, DamagedError):
                    self._damaged.setdefault(name, {})[time_ns, row] = str(data)
                    continue
                stamp = _stamp_in(data) if stamped else None
                if stamp is not None:
                    back_ns = previous.get(name, stamp) - stamp
                    if back_ns > 0:
                        self._set_back.setdefault(name, _SetBack(time_ns)).add(time_ns, back_ns)
                    previous[name] = stamp
                yield BagMessage(name, msgtype, time_ns, data, stamp)

    def _contents(self, rows: NDArray[np.int64]) -> Iterator[bytes | DamagedError]:
        """Yield messages by their rows in the index, unpacked, or the errors of damaged ones."""
        file_of, row_of = self._file_of[rows], self._row_of[rows]
        ends = [0, *(np.flatnonzero(np.diff(file_of)) + 1).tolist(), len(rows)]
        for begin, end in pairwise(ends):
            file = self._files[file_of[begin]]
            try:
                for data in file.read_many(row_of[begin:end]):
                    if isinstance(data, bytes) and data[:4] in COMPRESSIONS:
                        yield _unpacked(data)
                    else:
                        yield data
            except OSError as err:
                msg = f"bag {self.path} cannot be read any further: {err.strerror or err}"
                raise BagError(msg) from err

    def _first_after(self, order: NDArray[np.int64], at_ns: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return those of `order` that are the first of their topic from one of the times on."""
        first = np.zeros(len(order), dtype=bool)
        of, times = self._topic_of[order], self._times[order]
        for topic in np.unique(of):
            own = np.flatnonzero(of == topic)
            places = np.searchsorted(times[own], at_ns)
            first[own[places[places < len(own)]]] = True
        return np.asarray(order[first], np.int64)

    def decode(self, message: BagMessage) -> Any:  # noqa: ANN401 - a class made from a definition
        """Return a message as an object with the fields of its definition.

        Arrays of numbers are read-only numpy arrays.

        Raises:
            BagError: If it is damaged (then it is counted), or its type is not known.

        """
        store = self._store(message.topic)
        if store is None:
            msg = f"{message.topic}: the definition of {message.msgtype} is not known"
            raise BagError(msg)
        try:
            return store.deserialize_cdr(memoryview(message.data), message.msgtype)
        except DECODE_ERRORS as err:
            key = message.received_ns, hash(message.data)
            self._damaged.setdefault(message.topic, {})[key] = f"no {message.msgtype}: {err}"
            msg = f"{message.topic}: a message is damaged ({err})"
            raise BagError(msg) from err

    def read(self, topics: Collection[str] | None = None) -> Iterator[tuple[BagMessage, Any]]:
        """Yield messages with what they decode to; damaged ones are left out and counted.

        Topics whose type is not known are left out, and said in `warnings`.
        """
        names = list(self.topics) if topics is None else [_absolute(name) for name in topics]
        known = [name for name in names if name in self.topics and self._store(name) is not None]
        for message in self.messages(known):
            try:
                decoded = self.decode(message)
            except BagError:
                continue  # decode has counted it
            yield message, decoded

    def close(self) -> None:
        """Close the files, and remove temporary ones."""
        self._stack.close()

    def __enter__(self) -> "Bag":  # noqa: PYI034 - Self is in typing from 3.11 on
        """Return the open bag."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Close."""
        self.close()

    def _open_files(self, paths: Sequence[Path]) -> list[StorageFile]:
        cache = Cache()
        files: list[StorageFile] = []
        problems: list[str] = []
        for path in paths:
            try:
                files.append(open_file(path, cache, self._stack, self._warnings))
            except BagError as err:  # noqa: PERF203 - there are few files
                problems.append(str(err))
        if not files:
            # A single file's own message is enough.
            msg = f"bag {self.path} cannot be read: {'; '.join(problems + self._warnings)}"
            raise BagError(msg)
        self._warnings += problems
        return files

    def _index(self, counts: Mapping[str, int], digests: Mapping[str, str]) -> None:
        """Bring the indexes of the files together, in order of reception."""
        self._topic_names: list[str] = []
        self._stored: dict[str, StoredTopic] = {}
        places = [self._place_topics(file, digests) for file in self._files]
        topic_of = [p[file.topic_of] for p, file in zip(places, self._files, strict=True)]
        sizes = [len(t) for t in topic_of]
        times = np.concatenate([file.times_ns for file in self._files])
        self._topic_of = np.concatenate(topic_of)
        self._file_of = np.repeat(np.arange(len(sizes), dtype=np.int32), sizes)
        self._row_of = np.concatenate([np.arange(n, dtype=np.int64) for n in sizes])
        self._times = times
        self._compare_counts(counts)
        used = np.flatnonzero(self._topic_of >= 0)
        self._order = used[np.argsort(times[used], kind="stable")]
        self.topics = self._describe_topics()
        for name in self._topic_names:
            self._store(name)  # so that what is wrong with the definitions is said at once
        ordered = times[self._order]
        self.start_ns = int(ordered[0]) if len(ordered) else 0
        self.duration_ns = int(ordered[-1]) - self.start_ns if len(ordered) else 0
        self._say_order(times[used])

    def _place_topics(self, file: StorageFile, digests: Mapping[str, str]) -> NDArray[np.int32]:
        """Return the place of each of a file's topics among the bag's, -1 for one left out."""
        places = np.full(len(file.topics) + 1, -1, np.int32)
        for i, stored in enumerate(file.topics):
            recorded = _absolute(stored.name)
            name = self._names.get(recorded, recorded)
            if self._wanted is not None and name not in self._wanted:
                continue
            if not stored.digest and digests.get(stored.name):
                stored = _with_digest(stored, digests[stored.name])  # noqa: PLW2901
            first = self._stored.get(name)
            if first is None:
                self._stored[name] = stored
                self._topic_names.append(name)
            elif _absolute(first.name) != recorded:
                msg = f"bag {self.path}: {first.name} and {stored.name} would both become {name}"
                raise BagError(msg)
            elif first.msgtype != stored.msgtype:
                self._warnings.append(
                    f"{name} is recorded both as {first.msgtype} and as {stored.msgtype}: "
                    "the messages of the second are left out"
                )
                continue
            elif stored.definition and not first.definition:
                self._stored[name] = stored
            places[i] = self._topic_names.index(name)
        return places

    def _describe_topics(self) -> dict[str, BagTopic]:
        topics: dict[str, BagTopic] = {}
        of, times = self._topic_of[self._order], self._times[self._order]
        for place, name in enumerate(self._topic_names):
            own = times[of == place]
            stored = self._stored[name]
            topics[name] = BagTopic(
                name=name,
                recorded_name=stored.name,
                msgtype=stored.msgtype,
                count=len(own),
                first_ns=int(own[0]) if len(own) else 0,
                last_ns=int(own[-1]) if len(own) else 0,
                qos_text=stored.qos,
            )
        return topics

    def _compare_counts(self, counts: Mapping[str, int]) -> None:
        by_name = {stored.name: name for name, stored in self._stored.items()}
        found = np.bincount(self._topic_of[self._topic_of >= 0], minlength=len(self._topic_names))
        for recorded, count in counts.items():
            name = by_name.get(recorded)
            here = int(found[self._topic_names.index(name)]) if name else 0
            if here != count and (name or (count and self._wanted is None)):
                self._warnings.append(
                    f"metadata.yaml counts {count} messages on {recorded}, {here} were found"
                )

    def _say_order(self, times: NDArray[np.int64]) -> None:
        if not len(times):
            self._warnings.append("the bag holds no messages")
            return
        back = times[:-1] - times[1:]
        back = back[back > BACKWARDS_NS]
        if len(back):
            self._warnings.append(
                f"the recorder's clock goes backwards {len(back)} times, by up to "
                f"{back.max() / 1e9:.3f} s: messages are given in the order of its time"
            )

    def _store(self, topic: str) -> Typestore | None:
        stored = self._stored.get(topic)
        return None if stored is None else self._types.of(stored)

    def _is_stamped(self, topic: str) -> bool:
        """Return whether a topic's messages begin with a header."""
        store = self._store(topic)
        fields = [] if store is None else store.fielddefs[self._stored[topic].msgtype][1]
        return bool(fields) and fields[0][1][1] == HEADER_TYPE


def read_bag(bag: str | Path, topics: Sequence[str]) -> Iterator[tuple[str, int, Any]]:
    """Yield topic, time of reception in ns, and message of each message on `topics`, in time.

    Raises:
        BagError: If there is no readable bag.

    """
    with open_bag(bag) as opened:
        for message, decoded in opened.read(topics):
            yield message.topic, message.received_ns, decoded


def stamp_ns(stamp: Any) -> int:  # noqa: ANN401 - a class made from a message definition
    """Return a message's stamp in ns."""
    return int(stamp.sec) * SECOND_NS + int(stamp.nanosec)


def _stamp_in(data: bytes) -> int | None:
    """Return the stamp of a message that begins with a header, without decoding it."""
    layout = STAMPS.get(data[:2])
    if layout is None or len(data) < 12:  # noqa: PLR2004 - the encapsulation and a stamp
        return None
    sec, nanosec = layout.unpack_from(data, 4)
    return int(sec * SECOND_NS + nanosec)


def _unpacked(data: bytes) -> bytes | DamagedError:
    try:
        return unpack_message(data)
    except DamagedError as err:
        return err


def _absolute(name: str) -> str:
    return name if name.startswith("/") else f"/{name}"


def _with_digest(topic: StoredTopic, digest: str) -> StoredTopic:
    return StoredTopic(
        topic.name, topic.msgtype, topic.serialization, topic.qos,
        topic.encoding, topic.definition, digest,
    )  # fmt: skip
