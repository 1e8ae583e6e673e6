"""ctypes binding of the libddsc that the `cyclonedds` wheel brings along.

Only what `dds.py` uses is bound. Structures follow the headers of the pinned version, so the
version is checked when this module is imported: another one may lay the same names out differently.
Every call through ctypes releases the GIL.
"""

from __future__ import annotations

import ctypes as C
import importlib.metadata
import importlib.util
from pathlib import Path

CYCLONEDDS_VERSION = "11.0.1"

INFINITY = 2**63 - 1
MIN_PSEUDO_HANDLE = 0x7FFF0000
TOPIC_PARTICIPANT = MIN_PSEUDO_HANDLE + 1
TOPIC_PUBLICATION = MIN_PSEUDO_HANDLE + 3
TOPIC_SUBSCRIPTION = MIN_PSEUDO_HANDLE + 4
ANY_STATE = 0x7F
ALIVE = 0x10
NOT_READ_ANY = 0x7E
SERDATA_DATA = 2

RETCODE_BAD_PARAMETER = -3
RETCODE_PRECONDITION_NOT_MET = -4
RETCODE_ALREADY_DELETED = -9
RETCODE_TIMEOUT = -10

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3  # <malloc.h>


class DdsError(RuntimeError):
    """A DDS call failed; the text says which, why and what to do."""


class TypeMeta(C.Structure):
    """dds_type_meta_ser (dds_public_impl.h)."""

    _fields_ = [("data", C.c_void_p), ("size", C.c_uint32)]


class TopicDescriptor(C.Structure):
    """dds_topic_descriptor_t (dds_public_impl.h)."""

    _fields_ = [
        ("size", C.c_uint32),
        ("align", C.c_uint32),
        ("flagset", C.c_uint32),
        ("nkeys", C.c_uint32),
        ("typename", C.c_char_p),
        ("keys", C.c_void_p),
        ("nops", C.c_uint32),
        ("ops", C.POINTER(C.c_uint32)),
        ("meta", C.c_char_p),
        ("type_information", TypeMeta),
        ("type_mapping", TypeMeta),
        ("restrict_data_representation", C.c_uint32),
    ]


class SampleInfo(C.Structure):
    """dds_sample_info_t (dds.h)."""

    _fields_ = [
        ("sample_state", C.c_uint32),
        ("view_state", C.c_uint32),
        ("instance_state", C.c_uint32),
        ("valid_data", C.c_bool),
        ("source_timestamp", C.c_int64),
        ("instance_handle", C.c_uint64),
        ("publication_handle", C.c_uint64),
        ("disposed_generation_count", C.c_uint32),
        ("no_writers_generation_count", C.c_uint32),
        ("sample_rank", C.c_uint32),
        ("generation_rank", C.c_uint32),
        ("absolute_generation_rank", C.c_uint32),
    ]


class Guid(C.Structure):
    """dds_guid_t (dds.h)."""

    _fields_ = [("v", C.c_uint8 * 16)]


class BuiltinParticipant(C.Structure):
    """dds_builtintopic_participant_t (dds.h)."""

    _fields_ = [("key", Guid), ("qos", C.c_void_p)]


class BuiltinEndpoint(C.Structure):
    """dds_builtintopic_endpoint_t (dds.h)."""

    _fields_ = [
        ("key", Guid),
        ("participant_key", Guid),
        ("participant_instance_handle", C.c_uint64),
        ("topic_name", C.c_char_p),
        ("type_name", C.c_char_p),
        ("qos", C.c_void_p),
    ]


class IoVec(C.Structure):
    """ddsrt_iovec_t."""

    _fields_ = [("base", C.c_void_p), ("length", C.c_size_t)]


class DeadlineStatus(C.Structure):
    """dds_offered_deadline_missed_status_t, and requested (dds_public_status.h)."""

    _fields_ = [
        ("total_count", C.c_uint32),
        ("total_count_change", C.c_int32),
        ("last_instance_handle", C.c_uint64),
    ]


class IncompatibleQosStatus(C.Structure):
    """dds_offered_incompatible_qos_status_t, and requested (dds_public_status.h)."""

    _fields_ = [
        ("total_count", C.c_uint32),
        ("total_count_change", C.c_int32),
        ("last_policy_id", C.c_uint32),
    ]


class LivelinessChangedStatus(C.Structure):
    """dds_liveliness_changed_status_t (dds_public_status.h)."""

    _fields_ = [
        ("alive_count", C.c_uint32),
        ("not_alive_count", C.c_uint32),
        ("alive_count_change", C.c_int32),
        ("not_alive_count_change", C.c_int32),
        ("last_publication_handle", C.c_uint64),
    ]


class LivelinessLostStatus(C.Structure):
    """dds_liveliness_lost_status_t (dds_public_status.h)."""

    _fields_ = [("total_count", C.c_uint32), ("total_count_change", C.c_int32)]


def _load() -> C.CDLL:
    try:
        version = importlib.metadata.version("cyclonedds")
    except importlib.metadata.PackageNotFoundError:
        msg = f"cyclonedds is not installed: pip install cyclonedds=={CYCLONEDDS_VERSION}"
        raise ImportError(msg) from None
    if version != CYCLONEDDS_VERSION:
        msg = (
            f"cyclonedds {version} is installed, but this package binds the memory layout of "
            f"{CYCLONEDDS_VERSION}: pip install cyclonedds=={CYCLONEDDS_VERSION}"
        )
        raise ImportError(msg)
    if C.sizeof(C.c_void_p) != 8 or C.sizeof(SampleInfo) != 64 or C.sizeof(TopicDescriptor) != 96:
        msg = "the ctypes layout of cyclonedds holds on 64-bit platforms only"
        raise ImportError(msg)
    spec = importlib.util.find_spec("cyclonedds")
    places = spec.submodule_search_locations if spec else None
    package = Path(places[0] if places else "")
    found = sorted(package.parent.glob("cyclonedds.libs/libddsc*")) + sorted(
        package.glob(".dylibs/libddsc*")
    )
    if not found:
        msg = (
            f"no libddsc beside {package}: cyclonedds=={CYCLONEDDS_VERSION} must be installed "
            "from its binary wheel, not built from source"
        )
        raise ImportError(msg)
    return C.CDLL(str(found[0]))


_LIBRARY = _load()


def _bind(name: str, result: object, *arguments: object) -> C._FuncPointer:
    try:
        function = getattr(_LIBRARY, name)
    except AttributeError:
        msg = f"libddsc has no {name}: reinstall cyclonedds=={CYCLONEDDS_VERSION}"
        raise ImportError(msg) from None
    function.restype = result
    function.argtypes = list(arguments)
    return function


_entity = C.c_int32
_pointer = C.c_void_p

create_domain = _bind("dds_create_domain", _entity, C.c_uint32, C.c_char_p)
create_participant = _bind("dds_create_participant", _entity, C.c_uint32, _pointer, _pointer)
create_topic = _bind(
    "dds_create_topic",
    _entity,
    _entity,
    C.POINTER(TopicDescriptor),
    C.c_char_p,
    _pointer,
    _pointer,
)
create_writer = _bind("dds_create_writer", _entity, _entity, _entity, _pointer, _pointer)
create_reader = _bind("dds_create_reader", _entity, _entity, _entity, _pointer, _pointer)
create_readcondition = _bind("dds_create_readcondition", _entity, _entity, C.c_uint32)
create_guardcondition = _bind("dds_create_guardcondition", _entity, _entity)
set_guardcondition = _bind("dds_set_guardcondition", C.c_int32, _entity, C.c_bool)
create_waitset = _bind("dds_create_waitset", _entity, _entity)
waitset_attach = _bind("dds_waitset_attach", C.c_int32, _entity, _entity, C.c_ssize_t)
waitset_detach = _bind("dds_waitset_detach", C.c_int32, _entity, _entity)
waitset_wait = _bind(
    "dds_waitset_wait", C.c_int32, _entity, C.POINTER(C.c_ssize_t), C.c_size_t, C.c_int64
)
delete = _bind("dds_delete", C.c_int32, _entity)
get_guid = _bind("dds_get_guid", C.c_int32, _entity, C.POINTER(Guid))
get_instance_handle = _bind("dds_get_instance_handle", C.c_int32, _entity, C.POINTER(C.c_uint64))
get_entity_sertype = _bind("dds_get_entity_sertype", C.c_int32, _entity, C.POINTER(_pointer))
serdata_from_iov = _bind(
    "ddsi_serdata_from_ser_iov",
    _pointer,
    _pointer,
    C.c_int32,
    C.c_size_t,
    C.POINTER(IoVec),
    C.c_size_t,
)
serdata_size = _bind("ddsi_serdata_size", C.c_uint32, _pointer)
serdata_to_ser_ref = _bind(
    "ddsi_serdata_to_ser_ref", _pointer, _pointer, C.c_size_t, C.c_size_t, C.POINTER(IoVec)
)
serdata_unref = _bind("ddsi_serdata_unref", None, _pointer)
writecdr = _bind("dds_writecdr", C.c_int32, _entity, _pointer)
takecdr = _bind(
    "dds_takecdr",
    C.c_int32,
    _entity,
    C.POINTER(_pointer),
    C.c_uint32,
    C.POINTER(SampleInfo),
    C.c_uint32,
)
read_mask = _bind(
    "dds_read_mask",
    C.c_int32,
    _entity,
    C.POINTER(_pointer),
    C.POINTER(SampleInfo),
    C.c_size_t,
    C.c_uint32,
    C.c_uint32,
)
return_loan = _bind("dds_return_loan", C.c_int32, _entity, C.POINTER(_pointer), C.c_int32)
matched_subscriptions = _bind(
    "dds_get_matched_subscriptions", C.c_int32, _entity, _pointer, C.c_size_t
)
matched_publications = _bind(
    "dds_get_matched_publications", C.c_int32, _entity, _pointer, C.c_size_t
)
wait_for_acks = _bind("dds_wait_for_acks", C.c_int32, _entity, C.c_int64)
assert_liveliness = _bind("dds_assert_liveliness", C.c_int32, _entity)
set_status_mask = _bind("dds_set_status_mask", C.c_int32, _entity, C.c_uint32)
strretcode = _bind("dds_strretcode", C.c_char_p, C.c_int32)
free = _bind("dds_free", None, _pointer)

create_qos = _bind("dds_create_qos", _pointer)
delete_qos = _bind("dds_delete_qos", None, _pointer)
qset_userdata = _bind("dds_qset_userdata", None, _pointer, C.c_char_p, C.c_size_t)
qset_durability = _bind("dds_qset_durability", None, _pointer, C.c_int)
qset_history = _bind("dds_qset_history", None, _pointer, C.c_int, C.c_int32)
qset_reliability = _bind("dds_qset_reliability", None, _pointer, C.c_int, C.c_int64)
qset_deadline = _bind("dds_qset_deadline", None, _pointer, C.c_int64)
qset_lifespan = _bind("dds_qset_lifespan", None, _pointer, C.c_int64)
qset_liveliness = _bind("dds_qset_liveliness", None, _pointer, C.c_int, C.c_int64)
qset_writer_data_lifecycle = _bind("dds_qset_writer_data_lifecycle", None, _pointer, C.c_bool)
qset_durability_service = _bind(
    "dds_qset_durability_service",
    None,
    _pointer,
    C.c_int64,
    C.c_int,
    C.c_int32,
    C.c_int32,
    C.c_int32,
    C.c_int32,
)
qset_data_representation = _bind(
    "dds_qset_data_representation", None, _pointer, C.c_uint32, C.POINTER(C.c_int16)
)
qget_userdata = _bind(
    "dds_qget_userdata", C.c_bool, _pointer, C.POINTER(_pointer), C.POINTER(C.c_size_t)
)
qget_durability = _bind("dds_qget_durability", C.c_bool, _pointer, C.POINTER(C.c_int))
qget_history = _bind(
    "dds_qget_history", C.c_bool, _pointer, C.POINTER(C.c_int), C.POINTER(C.c_int32)
)
qget_reliability = _bind(
    "dds_qget_reliability", C.c_bool, _pointer, C.POINTER(C.c_int), C.POINTER(C.c_int64)
)
qget_deadline = _bind("dds_qget_deadline", C.c_bool, _pointer, C.POINTER(C.c_int64))
qget_lifespan = _bind("dds_qget_lifespan", C.c_bool, _pointer, C.POINTER(C.c_int64))
qget_liveliness = _bind(
    "dds_qget_liveliness", C.c_bool, _pointer, C.POINTER(C.c_int), C.POINTER(C.c_int64)
)

# The events of an endpoint: name -> (bit of the status mask, structure, reading function).
STATUS_FUNCTIONS = {
    "offered_deadline_missed": (1, DeadlineStatus, "dds_get_offered_deadline_missed_status"),
    "requested_deadline_missed": (2, DeadlineStatus, "dds_get_requested_deadline_missed_status"),
    "offered_incompatible_qos": (
        3,
        IncompatibleQosStatus,
        "dds_get_offered_incompatible_qos_status",
    ),
    "requested_incompatible_qos": (
        4,
        IncompatibleQosStatus,
        "dds_get_requested_incompatible_qos_status",
    ),
    "liveliness_lost": (9, LivelinessLostStatus, "dds_get_liveliness_lost_status"),
    "liveliness_changed": (10, LivelinessChangedStatus, "dds_get_liveliness_changed_status"),
}
get_status = {
    event: _bind(function, C.c_int32, _entity, C.POINTER(structure))
    for event, (_, structure, function) in STATUS_FUNCTIONS.items()
}


def keep_freed_memory() -> None:
    """Have glibc keep freed memory for the next message instead of giving it back.

    Otherwise each image is a fresh mapping whose pages the kernel clears one by one: 1.5 ms for a
    640x480 image, three times what sending it takes.
    """
    libc = C.CDLL(None)
    if hasattr(libc, "mallopt"):
        libc.mallopt(_M_MMAP_THRESHOLD, 16 * 2**20)
        libc.mallopt(_M_TRIM_THRESHOLD, 64 * 2**20)


def check(code: int, what: str) -> int:
    """Return `code` when it is a success; raise DdsError naming `what` when it is negative."""
    if code < 0:
        msg = f"{what}: {strretcode(code).decode()} (DDS {code})"
        raise DdsError(msg)
    return code


def _smoke_test() -> None:
    """Fail at import, not on the wire, when the binding does not match the library."""
    qos = create_qos()
    kind, depth = C.c_int(), C.c_int32()
    qset_history(qos, 0, 7)
    ok = qget_history(qos, C.byref(kind), C.byref(depth)) and depth.value == 7
    delete_qos(qos)
    if not ok or b"parameter" not in strretcode(RETCODE_BAD_PARAMETER).lower():
        msg = (
            "libddsc does not behave as bound: reinstall "
            f"cyclonedds=={CYCLONEDDS_VERSION} from its wheel"
        )
        raise ImportError(msg)


_smoke_test()
