"""Message and service classes with rclpy's behaviour, and their CDR encoding.

The definitions come from rosbags' typestores, by ``ROS_DISTRO`` (Humble where it is unset). Each
class is generated when first asked for, and behaves as the one that ``rosidl_generator_py`` writes:
keyword arguments only, every field optional, wrong types refused with ``AssertionError`` and
unknown fields with ``AttributeError``, numeric sequences as ``array.array``, numeric arrays of
fixed size as ``numpy.ndarray``, ``byte`` as ``bytes`` of length one. As in rclpy on Humble, a
constructor converts what ``array.array`` can convert, a numpy array too, but setting a sequence
takes no numpy array: ``message.data = array.array("B", image.tobytes())`` is the fast way in, there
as here.
"""

from __future__ import annotations

from functools import cache

from rosbags.interfaces import Nodetype
from rosbags.typesys.store import Typestore

from vla_ros_standalone.cdr import deserialize, serialize
from vla_ros_standalone.definitions import SERVICES, distro, store
from vla_ros_standalone.message_classes import make_message, make_service

__all__ = [
    "dds_type_name",
    "deserialize",
    "distro",
    "get_interface",
    "names",
    "serialize",
    "type_hash",
    "type_name",
]


def names(package: str, kind: str) -> tuple[str, ...]:
    """List the interfaces of a package.

    Args:
        package: Such as ``std_msgs``.
        kind: ``msg`` or ``srv``.
    """
    known = store().fielddefs if kind == "msg" else SERVICES
    return tuple(sorted(n.split("/")[2] for n in known if n.startswith(f"{package}/{kind}/")))


@cache
def get_interface(name: str) -> type:
    """Give the class of a message or service.

    Args:
        name: Such as ``std_msgs/msg/String`` or ``std_srvs/srv/Trigger``.

    Raises:
        ValueError: No such type in this ROS 2 distribution's definitions.
    """
    if name in SERVICES:
        return make_service(name)
    if name not in store().fielddefs:
        msg = f"no message or service type {name!r} in ROS 2 {distro()}'s definitions"
        raise ValueError(msg)
    return make_message(name)


def type_name(cls: type) -> str:
    """Name the type of a class, such as ``std_msgs/msg/String``."""
    return cls._TYPE_NAME


def dds_type_name(cls: type) -> str:
    """Name the type of a message class as DDS does: ``std_msgs::msg::dds_::String_``."""
    package, kind, name = type_name(cls).split("/")
    return f"{package}::{kind}::dds_::{name}_"


@cache
def type_hash(cls: type) -> str:
    """Give the type's REP 2011 hash, ``RIHS01_`` and 64 hexadecimal digits.

    Raises:
        ValueError: A service's, in a distribution whose services have no event message.
    """
    if type_name(cls) in SERVICES and "service_msgs/msg/ServiceEventInfo" not in store().fielddefs:
        msg = f"{type_name(cls)}: ROS 2 {distro()} defines no type hash for services"
        raise ValueError(msg)
    hasher = Typestore()
    for name, (constants, fields) in store().fielddefs.items():
        # rosidl reads `char` in a .msg file as uint8, and hashes it as that.
        hasher.fielddefs[name] = (constants, [(key, _without_char(d)) for key, d in fields])
    for name in SERVICES:
        request, response = f"{name}_Request", f"{name}_Response"
        hasher.fielddefs[f"{name}_Event"] = (
            [],
            [
                ("info", (Nodetype.NAME, "service_msgs/msg/ServiceEventInfo")),
                ("request", (Nodetype.SEQUENCE, ((Nodetype.NAME, request), 1))),
                ("response", (Nodetype.SEQUENCE, ((Nodetype.NAME, response), 1))),
            ],
        )
        hasher.fielddefs[name] = (
            [],
            [
                ("request_message", (Nodetype.NAME, request)),
                ("response_message", (Nodetype.NAME, response)),
                ("event_message", (Nodetype.NAME, f"{name}_Event")),
            ],
        )
    return hasher.hash_rihs01(type_name(cls))


def _without_char(description):
    kind, detail = description
    if kind in (Nodetype.ARRAY, Nodetype.SEQUENCE):
        return kind, (_without_char(detail[0]), detail[1])
    return (kind, ("uint8", 0)) if detail == ("char", 0) else description
