"""What messages and services consist of, from rosbags' typestores, by ``ROS_DISTRO``."""

from __future__ import annotations

import os
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING

from rosbags.interfaces import Nodetype
from rosbags.typesys import Stores, get_types_from_msg, get_typestore

if TYPE_CHECKING:
    from rosbags.typesys.store import Typestore

DEFAULT_DISTRO = "humble"

_DISTROS = {
    "humble": "ROS2_HUMBLE",
    "iron": "ROS2_IRON",
    "jazzy": "ROS2_JAZZY",
    "kilted": "ROS2_KILTED",
    "lyrical": "ROS2_LYRICAL",
}

SERVICES = {
    "std_srvs/srv/Empty": "---",
    "std_srvs/srv/SetBool": "bool data\n---\nbool success\nstring message",
    "std_srvs/srv/Trigger": "---\nbool success\nstring message",
    "rcl_interfaces/srv/DescribeParameters": (
        "string[] names\n---\nParameterDescriptor[] descriptors"
    ),
    "rcl_interfaces/srv/GetParameterTypes": "string[] names\n---\nuint8[] types",
    "rcl_interfaces/srv/GetParameters": "string[] names\n---\nParameterValue[] values",
    "rcl_interfaces/srv/ListParameters": (
        "uint64 DEPTH_RECURSIVE=0\nstring[] prefixes\nuint64 depth\n"
        "---\nListParametersResult result"
    ),
    "rcl_interfaces/srv/SetParameters": (
        "Parameter[] parameters\n---\nSetParametersResult[] results"
    ),
    "rcl_interfaces/srv/SetParametersAtomically": (
        "Parameter[] parameters\n---\nSetParametersResult result"
    ),
}
"""Service definitions, which the typestores lack: the .srv files of std_srvs and rcl_interfaces."""

EMPTY_MEMBER = "structure_needs_at_least_one_member"
"""The one octet that a message without fields has on the wire, and not in Python."""


@dataclass(frozen=True, slots=True)
class Primitive:
    """A number, truth value or octet; ``code`` is that of ``struct`` and ``array``."""

    code: str
    size: int
    idl: str
    dtype: str | None  # numpy's name; None where rclpy keeps a list
    bounds: tuple[int, int] | None = None


def _integer(code: str, bits: int, *, signed: bool) -> Primitive:
    name = f"{'' if signed else 'u'}int{bits}"
    low = -(2 ** (bits - 1)) if signed else 0
    return Primitive(code, bits // 8, name, name, (low, low + 2**bits - 1))


PRIMITIVES = {
    "bool": Primitive("?", 1, "boolean", None),
    "byte": Primitive("c", 1, "octet", None),
    "char": _integer("B", 8, signed=False),
    "int8": _integer("b", 8, signed=True),
    "uint8": _integer("B", 8, signed=False),
    "int16": _integer("h", 16, signed=True),
    "uint16": _integer("H", 16, signed=False),
    "int32": _integer("i", 32, signed=True),
    "uint32": _integer("I", 32, signed=False),
    "int64": _integer("q", 64, signed=True),
    "uint64": _integer("Q", 64, signed=False),
    "float32": Primitive("f", 4, "float", "float32"),
    "float64": Primitive("d", 8, "double", "float64"),
}


@dataclass(frozen=True, slots=True)
class Field:
    """One field of a definition.

    ``length`` is None for a single value, the size of a fixed array, or the upper bound of a
    sequence (0: unbounded); ``base`` names a primitive, ``string`` or a message.
    """

    name: str
    base: str
    string_bound: int
    kind: Nodetype  # BASE or NAME, ARRAY, SEQUENCE
    length: int

    @property
    def primitive(self) -> Primitive | None:
        """The primitive; None for text and messages."""
        return PRIMITIVES.get(self.base)

    @property
    def numeric(self) -> bool:
        """Whether it holds numbers."""
        return self.primitive is not None and self.primitive.dtype is not None

    @property
    def single(self) -> bool:
        """Whether it is neither array nor sequence."""
        return self.kind in (Nodetype.BASE, Nodetype.NAME)

    @property
    def idl(self) -> str:
        """The type as ``get_fields_and_field_types`` gives it."""
        if self.base == "string":
            base = f"string<{self.string_bound}>" if self.string_bound else "string"
        elif self.primitive is not None:
            base = self.primitive.idl
        else:
            package, _, name = self.base.split("/")
            base = f"{package}/{name}"
        if self.single:
            return base
        if self.kind == Nodetype.ARRAY:
            return f"{base}[{self.length}]"
        return f"sequence<{base}, {self.length}>" if self.length else f"sequence<{base}>"


def distro() -> str:
    """Name the ROS 2 distribution whose definitions are used.

    Raises:
        RuntimeError: ``ROS_DISTRO`` names one that is not supported.
    """
    wanted = os.environ.get("ROS_DISTRO") or DEFAULT_DISTRO
    known = [name for name, store in _DISTROS.items() if store in Stores.__members__]
    if wanted == "rolling":
        return known[-1]
    if wanted not in known:
        msg = (
            f"ROS_DISTRO={wanted}: message definitions are known for {', '.join(known)} and rolling"
        )
        raise RuntimeError(msg)
    return wanted


@cache
def store() -> Typestore:
    """Load the definitions, those of the services' two messages among them."""
    store = get_typestore(Stores[_DISTROS[distro()]])
    for name, text in SERVICES.items():
        package, _, service = name.split("/")
        for side, part in zip(("Request", "Response"), text.split("---"), strict=True):
            alias = f"{package}/msg/{service}_{side}"
            constants, fields = get_types_from_msg(part, alias)[alias]
            fields = fields or [(EMPTY_MEMBER, (Nodetype.BASE, ("uint8", 0)))]
            store.fielddefs[f"{name}_{side}"] = (constants, fields)
    return store


@cache
def definition(name: str) -> tuple[dict[str, object], tuple[Field, ...]]:
    """Give the constants and fields of a type, with every field of its wire form."""
    constants, fields = store().fielddefs[name]
    return (
        {key: bytes([value]) if kind == "byte" else value for key, kind, value in constants},
        tuple(_field(key, description) for key, description in fields),
    )


def _field(name: str, description) -> Field:
    kind, detail = description
    length = 0
    if kind in (Nodetype.ARRAY, Nodetype.SEQUENCE):
        (base_kind, detail), length = detail
    else:
        base_kind = kind
    base, bound = (detail, 0) if base_kind == Nodetype.NAME else detail
    return Field(name, base, bound, Nodetype(kind), length)
