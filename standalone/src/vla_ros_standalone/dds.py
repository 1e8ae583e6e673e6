"""Raw CDR publish and subscribe on Cyclone DDS, wire-compatible with ROS 2.

A topic is opaque to the library: one keyless octet without XTypes information, as
rmw_cyclonedds_cpp announces its own. Serialised samples (4-byte encapsulation header, then CDR) go
in and come out as buffers; large ones come out without a copy, as read-only views of the library's
memory. A payload of a big-endian peer is not supported: the library relabels it.
"""

from __future__ import annotations

import atexit
import ctypes as C
import os
import threading
import weakref
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, NamedTuple

from vla_ros_standalone import dds_config
from vla_ros_standalone import dds_library as lib
from vla_ros_standalone.dds_library import DdsError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

__all__ = [
    "DdsError",
    "EndpointInfo",
    "EndpointQos",
    "Participant",
    "Reader",
    "Sample",
    "WaitSet",
    "Writer",
]

# How long a reliable writer may wait for room: a stuck peer must not stall a control loop.
MAX_BLOCKING_NS = 100_000_000
# Below this size copying a sample is cheaper than keeping the library's memory alive.
COPY_BELOW_BYTES = 4096

_OPCODES = (C.c_uint32 * 3)((0x01 << 24) | (0x01 << 16), 0, 0)  # one octet at offset 0, then end
_RESTRICT_DATA_REPRESENTATION = 1 << 7
_XCDR1 = 1


@dataclass(frozen=True, slots=True)
class EndpointQos:
    """Policies of a writer or reader. Durations in ns; None is infinite, or keep all."""

    reliable: bool = True
    transient_local: bool = False
    depth: int | None = 10
    deadline_ns: int | None = None
    lifespan_ns: int | None = None
    liveliness_by_topic: bool = False
    lease_ns: int | None = None
    user_data: bytes = b""


@dataclass(frozen=True, slots=True)
class EndpointInfo:
    """A writer or reader that discovery knows; guids are 16 bytes, handles local numbers."""

    guid: bytes
    instance_handle: int
    participant: bytes
    topic: str
    type_name: str
    qos: EndpointQos


class Sample(NamedTuple):
    """A received sample: payload with its encapsulation header, and where and when it came from."""

    payload: bytes | memoryview
    source_timestamp_ns: int
    publication_handle: int


def _duration(value: int | None) -> int:
    return lib.INFINITY if value is None else value


def _from_duration(value: int) -> int | None:
    return None if value == lib.INFINITY else value


@contextmanager
def _c_qos(qos: EndpointQos) -> Iterator[int]:
    pointer = lib.create_qos()
    try:
        kind, depth = (1, -1) if qos.depth is None else (0, qos.depth)
        lib.qset_history(pointer, kind, depth)
        lib.qset_reliability(pointer, int(qos.reliable), MAX_BLOCKING_NS)
        lib.qset_durability(pointer, int(qos.transient_local))
        if qos.transient_local:
            # Cyclone keeps what late joiners get by this policy, not by the history.
            lib.qset_durability_service(pointer, 0, kind, depth, -1, -1, -1)
        if qos.deadline_ns is not None:
            lib.qset_deadline(pointer, qos.deadline_ns)
        if qos.lifespan_ns is not None:
            lib.qset_lifespan(pointer, qos.lifespan_ns)
        lib.qset_liveliness(pointer, 2 if qos.liveliness_by_topic else 0, _duration(qos.lease_ns))
        lib.qset_writer_data_lifecycle(pointer, False)
        lib.qset_data_representation(pointer, 1, (C.c_int16 * 1)(0))
        if qos.user_data:
            lib.qset_userdata(pointer, qos.user_data, len(qos.user_data))
        yield pointer
    finally:
        lib.delete_qos(pointer)


def _qos_from_c(pointer: int) -> EndpointQos:
    kind, depth, duration = C.c_int(0), C.c_int32(0), C.c_int64(0)
    reliable = bool(lib.qget_reliability(pointer, C.byref(kind), C.byref(duration)) and kind.value)
    transient_local = bool(lib.qget_durability(pointer, C.byref(kind)) and kind.value)
    keep: int | None = 0  # unknown: history is not always part of discovery
    if lib.qget_history(pointer, C.byref(kind), C.byref(depth)):
        keep = None if kind.value else depth.value
    deadline = duration.value if lib.qget_deadline(pointer, C.byref(duration)) else lib.INFINITY
    lifespan = duration.value if lib.qget_lifespan(pointer, C.byref(duration)) else lib.INFINITY
    by_topic, lease = False, lib.INFINITY
    if lib.qget_liveliness(pointer, C.byref(kind), C.byref(duration)):
        by_topic, lease = kind.value == 2, duration.value
    return EndpointQos(
        reliable=reliable,
        transient_local=transient_local,
        depth=keep,
        deadline_ns=_from_duration(deadline),
        lifespan_ns=_from_duration(lifespan),
        liveliness_by_topic=by_topic,
        lease_ns=_from_duration(lease),
        user_data=_user_data(pointer),
    )


def _user_data(pointer: int) -> bytes:
    value, size = C.c_void_p(), C.c_size_t()
    if not lib.qget_userdata(pointer, C.byref(value), C.byref(size)) or not value.value:
        return b""
    try:
        return C.string_at(value.value, size.value)
    finally:
        lib.free(value)


class _Entity:
    """A handle of the library, deleted once, and never after its participant."""

    def __init__(self, participant: Participant, handle: int) -> None:
        self.participant = participant
        self.handle = handle
        self._open = True

    def close(self) -> None:
        """Delete the entity; further calls do nothing."""
        if self._open:
            self._open = False
            if not self.participant.closed:
                lib.delete(self.handle)

    @property
    def guid(self) -> bytes:
        """The 16-byte identity of the entity on the network."""
        return _guid(self.handle)


def _guid(handle: int) -> bytes:
    guid = lib.Guid()
    lib.check(lib.get_guid(handle, C.byref(guid)), "reading a guid")
    return bytes(guid.v)


class _Endpoint(_Entity):
    """What writers and readers share: their topic and their events."""

    def __init__(self, participant: Participant, handle: int, topic: str) -> None:
        super().__init__(participant, handle)
        self.topic = topic
        lib.check(lib.set_status_mask(handle, 0), f"setting the status mask of {topic}")

    def watch(self, events: Iterable[str]) -> None:
        """Let a wait set that this endpoint is attached to wake on `events` (STATUS_FUNCTIONS)."""
        mask = 0
        for event in events:
            mask |= 1 << lib.STATUS_FUNCTIONS[event][0]
        lib.check(lib.set_status_mask(self.handle, mask), f"setting the events of {self.topic}")

    def take_status(self, event: str) -> C.Structure:
        """Return the status structure of `event` and reset its change counters."""
        status = lib.STATUS_FUNCTIONS[event][1]()
        lib.check(lib.get_status[event](self.handle, C.byref(status)), f"{event} of {self.topic}")
        return status


class Writer(_Endpoint):
    """A DDS data writer for serialised samples."""

    def __init__(self, participant: Participant, handle: int, topic: str, sertype: int) -> None:
        super().__init__(participant, handle, topic)
        self._sertype = sertype
        instance = C.c_uint64()
        lib.check(lib.get_instance_handle(handle, C.byref(instance)), f"writer of {topic}")
        self.instance_handle: int = instance.value

    def write(self, payload: bytes | bytearray | memoryview) -> bool:
        """Send one sample (header included). Return False when a slow reader left no room for it.

        Raise ValueError when the payload has no valid header, DdsError when the writer is closed.
        """
        serdata = _serdata(self._sertype, payload)
        if serdata is None:
            msg = f"{self.topic}: not a CDR payload ({len(payload)} bytes)"
            raise ValueError(msg)
        code = lib.writecdr(self.handle, serdata)
        if code == lib.RETCODE_TIMEOUT:
            return False
        lib.check(code, f"writing on {self.topic}")
        return True

    def matched(self) -> int:
        """Return how many readers are matched now."""
        return max(0, lib.matched_subscriptions(self.handle, None, 0))

    def matched_handles(self) -> list[int]:
        """Return the instance handles of the readers matched now."""
        return _matched(lib.matched_subscriptions, self.handle)

    def wait_for_acks(self, timeout_ns: int) -> bool:
        """Wait until every reliable reader has acknowledged; return whether they did in time."""
        code = lib.wait_for_acks(self.handle, timeout_ns)
        if code == lib.RETCODE_TIMEOUT:
            return False
        lib.check(code, f"waiting for acknowledgement of {self.topic}")
        return True

    def assert_liveliness(self) -> None:
        """Say that this writer is alive, for liveliness by topic."""
        lib.check(lib.assert_liveliness(self.handle), f"asserting liveliness of {self.topic}")


class Reader(_Endpoint):
    """A DDS data reader for serialised samples."""

    def __init__(self, participant: Participant, handle: int, topic: str) -> None:
        super().__init__(participant, handle, topic)
        self.condition: int = lib.check(
            lib.create_readcondition(handle, lib.ANY_STATE), f"read condition of {topic}"
        )
        self._lock = threading.Lock()

    def take(self, most: int = 1) -> list[Sample]:
        """Take up to `most` samples, oldest first. Large payloads are views that keep them."""
        pointers, infos = (C.c_void_p * most)(), (lib.SampleInfo * most)()
        with self._lock:
            count = lib.takecdr(self.handle, pointers, most, infos, lib.ANY_STATE)
        if count < 0 and (self.participant.closed or not self._open):
            return []  # another thread closed it meanwhile
        lib.check(count, f"taking from {self.topic}")
        samples = []
        for index in range(count):
            info = infos[index]
            if info.valid_data:
                payload = _payload(pointers[index])
                samples.append(Sample(payload, info.source_timestamp, info.publication_handle))
            else:
                lib.serdata_unref(pointers[index])
        return samples

    def matched(self) -> int:
        """Return how many writers are matched now."""
        return max(0, lib.matched_publications(self.handle, None, 0))

    def matched_handles(self) -> list[int]:
        """Return the instance handles of the writers matched now."""
        return _matched(lib.matched_publications, self.handle)


def _matched(function: C._FuncPointer, handle: int) -> list[int]:
    handles = (C.c_uint64 * max(1, function(handle, None, 0)))()
    count = function(handle, handles, len(handles))
    return list(handles[: max(0, min(count, len(handles)))])


def _serdata(sertype: int, payload: bytes | bytearray | memoryview) -> int | None:
    """Copy a payload into a sample of the library; None when the library refuses it."""
    view = memoryview(payload)
    size = view.nbytes
    if size < 4:
        return None
    if view.readonly:
        data = payload if isinstance(payload, bytes) else view.tobytes()
        vector = lib.IoVec(C.cast(C.c_char_p(data), C.c_void_p), size)
        return lib.serdata_from_iov(sertype, lib.SERDATA_DATA, 1, C.byref(vector), size)
    buffer = (C.c_char * size).from_buffer(view)
    vector = lib.IoVec(C.addressof(buffer), size)
    return lib.serdata_from_iov(sertype, lib.SERDATA_DATA, 1, C.byref(vector), size)


def _payload(serdata: int) -> bytes | memoryview:
    """Return the serialised form of a sample that this call now owns, header included."""
    size = lib.serdata_size(serdata)
    vector = lib.IoVec()
    lib.serdata_to_ser_ref(serdata, 0, size, C.byref(vector))
    lib.serdata_unref(serdata)  # to_ser_ref holds its own reference
    if size < COPY_BELOW_BYTES:
        data = C.string_at(vector.base, size)
        lib.serdata_unref(serdata)
        return data
    array = (C.c_ubyte * size).from_address(vector.base)
    weakref.finalize(array, lib.serdata_unref, serdata).atexit = False
    return memoryview(array).cast("B").toreadonly()


class WaitSet:
    """Sleeps until an attached reader or event fires, `wake` is called, or the time is over."""

    def __init__(self, participant: Participant) -> None:
        self._participant = participant
        self._handle = lib.check(lib.create_waitset(participant.handle), "creating a wait set")
        self._guard = lib.check(lib.create_guardcondition(participant.handle), "creating a guard")
        lib.check(lib.waitset_attach(self._handle, self._guard, self._guard), "attaching a guard")
        self._attached: set[int] = set()
        self._fired = (C.c_ssize_t * 16)()

    def attach_only(self, handles: set[int]) -> None:
        """Attach exactly `handles` (read conditions, and endpoints whose events are watched)."""
        if handles == self._attached:
            return
        for handle in self._attached - handles:
            # An entity that was deleted meanwhile has left the set by itself.
            lib.waitset_detach(self._handle, handle)
        for handle in handles - self._attached:
            if lib.waitset_attach(self._handle, handle, handle) < 0:
                handles = handles - {handle}
        self._attached = handles
        if len(handles) >= len(self._fired):
            self._fired = (C.c_ssize_t * (2 * len(handles)))()

    def wait(self, timeout_ns: int | None) -> list[int]:
        """Return the handles that fired; none after the timeout, a wake-up or the end."""
        fired = self._fired
        count = lib.waitset_wait(self._handle, fired, len(fired), _duration(timeout_ns))
        if self._participant.closed or count <= 0:
            return []
        handles = fired[: min(count, len(fired))]
        if self._guard in handles:
            lib.set_guardcondition(self._guard, False)
            handles.remove(self._guard)
        return handles

    def wake(self) -> None:
        """End the current wait, or the next one, at once. Callable from any thread."""
        if not self._participant.closed:
            lib.set_guardcondition(self._guard, True)

    def close(self) -> None:
        """Delete the wait set; a wait in another thread ends."""
        if not self._participant.closed:
            lib.delete(self._handle)
            lib.delete(self._guard)


class Participant:
    """A member of a DDS domain; everything in it is deleted with it."""

    _domains: ClassVar[set[int]] = set()
    _domains_lock = threading.Lock()

    def __init__(self, domain_id: int | None = None, user_data: bytes = b"enclave=/;") -> None:
        """Join `domain_id` (None: ROS_DOMAIN_ID), or raise ValueError or DdsError."""
        if domain_id is None:
            domain_id = dds_config.domain_id_from(os.environ)
        self.domain_id = dds_config.check_domain_id(domain_id)
        self.closed = False
        self._topics: dict[tuple[str, str], int] = {}
        self._builtin: dict[int, int] = {}
        self._lock = threading.Lock()
        self._open_domain(self.domain_id)
        with _c_participant_qos(user_data) as qos:
            self.handle: int = lib.create_participant(self.domain_id, qos, None)
        if self.handle < 0:
            raise DdsError(_join_failure(self.domain_id, self.handle))
        self.guid = _guid(self.handle)
        self._close_at_exit = atexit.register(self.close)

    @classmethod
    def _open_domain(cls, domain_id: int) -> None:
        # A domain is created once, with our configuration, and kept: views of received samples
        # may outlive every participant, and their memory belongs to the domain.
        with cls._domains_lock:
            if domain_id in cls._domains:
                return
            lib.keep_freed_memory()
            configuration = dds_config.cyclonedds_configuration(os.environ)
            code = lib.create_domain(domain_id, configuration.encode())
            if code < 0 and code != lib.RETCODE_PRECONDITION_NOT_MET:
                raise DdsError(_join_failure(domain_id, code))
            cls._domains.add(domain_id)

    def create_writer(self, topic: str, type_name: str, qos: EndpointQos) -> Writer:
        """Create a writer of a DDS topic ('rt/...') and type ('a::msg::dds_::B_')."""
        entity = self._topic(topic, type_name)
        with _c_qos(qos) as pointer:
            handle = lib.create_writer(self.handle, entity, pointer, None)
        lib.check(handle, f"creating a writer of {topic} [{type_name}]")
        return Writer(self, handle, topic, _sertype(entity, topic))

    def create_reader(self, topic: str, type_name: str, qos: EndpointQos) -> Reader:
        """Create a reader of a DDS topic ('rt/...') and type ('a::msg::dds_::B_')."""
        entity = self._topic(topic, type_name)
        with _c_qos(qos) as pointer:
            handle = lib.create_reader(self.handle, entity, pointer, None)
        lib.check(handle, f"creating a reader of {topic} [{type_name}]")
        return Reader(self, handle, topic)

    def writers(self) -> list[EndpointInfo]:
        """Return every writer in the domain that is known now, this participant's included."""
        return self._endpoints(lib.TOPIC_PUBLICATION)

    def readers(self) -> list[EndpointInfo]:
        """Return every reader in the domain that is known now, this participant's included."""
        return self._endpoints(lib.TOPIC_SUBSCRIPTION)

    def participants(self) -> dict[bytes, bytes]:
        """Return guid -> user data of every participant that is alive now, this one included."""
        found = {}
        with self._read_builtin(lib.TOPIC_PARTICIPANT) as pointers:
            for pointer, _ in pointers:
                item = lib.BuiltinParticipant.from_address(pointer)
                found[bytes(item.key.v)] = _user_data(item.qos)
        return found

    def close(self) -> None:
        """Leave the domain: peers are told at once. Further calls do nothing."""
        with self._lock:
            if self.closed:
                return
            self.closed = True
        atexit.unregister(self._close_at_exit)
        lib.delete(self.handle)

    def _topic(self, name: str, type_name: str) -> int:
        with self._lock:
            entity = self._topics.get((name, type_name))
            if entity is None:
                descriptor = lib.TopicDescriptor(
                    size=1,
                    align=1,
                    flagset=_RESTRICT_DATA_REPRESENTATION,
                    typename=type_name.encode(),
                    nops=2,
                    ops=C.cast(_OPCODES, C.POINTER(C.c_uint32)),
                    meta=b"",
                    restrict_data_representation=_XCDR1,
                )
                entity = lib.create_topic(
                    self.handle, C.byref(descriptor), name.encode(), None, None
                )
                lib.check(entity, f"creating topic {name} [{type_name}]")
                _check_round_trip(_sertype(entity, name))
                self._topics[name, type_name] = entity
            return entity

    def _endpoints(self, builtin_topic: int) -> list[EndpointInfo]:
        found = []
        with self._read_builtin(builtin_topic) as pointers:
            for pointer, instance_handle in pointers:
                item = lib.BuiltinEndpoint.from_address(pointer)
                found.append(
                    EndpointInfo(
                        guid=bytes(item.key.v),
                        instance_handle=instance_handle,
                        participant=bytes(item.participant_key.v),
                        topic=item.topic_name.decode(errors="replace"),
                        type_name=item.type_name.decode(errors="replace"),
                        qos=_qos_from_c(item.qos),
                    )
                )
        return found

    @contextmanager
    def _read_builtin(self, builtin_topic: int) -> Iterator[list[tuple[int, int]]]:
        """Lend (address, instance handle) of each living entry of a discovery topic."""
        most = 4096
        with self._lock:
            reader = self._builtin.get(builtin_topic)
            if reader is None:
                reader = lib.check(
                    lib.create_reader(self.handle, builtin_topic, None, None),
                    "reading discovery",
                )
                self._builtin[builtin_topic] = reader
            pointers, infos = (C.c_void_p * most)(), (lib.SampleInfo * most)()
            mask = lib.ALIVE | 0xF
            count = lib.read_mask(reader, pointers, infos, most, most, mask)
            lib.check(count, "reading discovery")
            try:
                yield [
                    (pointers[index], infos[index].instance_handle)
                    for index in range(count)
                    if infos[index].valid_data
                ]
            finally:
                if count:
                    lib.return_loan(reader, pointers, count)


@contextmanager
def _c_participant_qos(user_data: bytes) -> Iterator[int]:
    pointer = lib.create_qos()
    try:
        lib.qset_userdata(pointer, user_data, len(user_data))
        yield pointer
    finally:
        lib.delete_qos(pointer)


def _sertype(topic: int, name: str) -> int:
    sertype = C.c_void_p()
    lib.check(lib.get_entity_sertype(topic, C.byref(sertype)), f"the type of {name}")
    return sertype.value or 0


def _check_round_trip(sertype: int) -> None:
    """Show that the library keeps an opaque payload whole, as the bound layout promises."""
    payload = b"\x00\x01\x00\x00" + bytes(range(12))
    serdata = _serdata(sertype, payload)
    if serdata is None or _payload(serdata) != payload:
        msg = (
            "libddsc does not carry opaque payloads as bound: reinstall "
            f"cyclonedds=={lib.CYCLONEDDS_VERSION} from its wheel"
        )
        raise DdsError(msg)


def _join_failure(domain_id: int, code: int) -> str:
    most = dds_config.MAX_PARTICIPANT_INDEX
    base = 7400 + 250 * domain_id
    return (
        f"cannot join DDS domain {domain_id}: {lib.strretcode(code).decode()} (DDS {code}). "
        f"Either its UDP ports {base}..{base + 249} are taken (at most {most} processes a host and "
        "domain: end some, or set another ROS_DOMAIN_ID), or CYCLONEDDS_URI or the network "
        "interface is not usable; the line of Cyclone DDS above says which"
    )
