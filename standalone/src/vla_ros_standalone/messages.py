"""Message and service classes with rclpy's behaviour, and their CDR encoding.

The definitions come from rosbags' typestores, by ``ROS_DISTRO`` (Humble where it is unset). Each
class is generated when first asked for, and behaves as the one that ``rosidl_generator_py`` writes:
keyword arguments only, every field optional, wrong types refused with ``AssertionError`` and
unknown fields with ``AttributeError``, numeric sequences as ``array.array``, numeric arrays of
fixed size as ``numpy.ndarray``, ``byte`` as ``bytes`` of length one. As in rclpy on Humble, a
constructor converts what ``array.array`` can convert, a numpy array too, but setting a sequence
takes no numpy array: ``message.data = array.array("B", image.tobytes())`` is the fast way in, there
as here.

Encoding is plain CDR (XCDR1), as every ROS 2 middleware speaks it: a header of four bytes, then
each primitive aligned to its own size. Consecutive primitives, those of nested messages included,
are one ``struct`` format, of which there are eight: for each position modulo 8 at which it may
start.
"""

from __future__ import annotations

import math
import os
import struct
import sys
from array import array
from collections.abc import Callable, Iterable, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from functools import cache, partial
from operator import attrgetter

import numpy as np
from rosbags.interfaces import Nodetype
from rosbags.typesys import Stores, get_types_from_msg, get_typestore
from rosbags.typesys.store import Typestore

DEFAULT_DISTRO = "humble"
_NATIVE = "<" if sys.byteorder == "little" else ">"

_DISTROS = {
    "humble": "ROS2_HUMBLE",
    "iron": "ROS2_IRON",
    "jazzy": "ROS2_JAZZY",
    "kilted": "ROS2_KILTED",
    "lyrical": "ROS2_LYRICAL",
}

_SERVICES = {
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

_EMPTY_MEMBER = "structure_needs_at_least_one_member"
"""The one octet that a message without fields has on the wire, and not in Python."""


@dataclass(frozen=True, slots=True)
class _Primitive:
    code: str  # of struct and, for numbers, of array
    size: int
    idl: str
    dtype: str | None  # numpy's name; None where rclpy keeps a list
    bounds: tuple[int, int] | None = None


def _integer(code: str, bits: int, *, signed: bool) -> _Primitive:
    name = f"{'' if signed else 'u'}int{bits}"
    low = -(2 ** (bits - 1)) if signed else 0
    return _Primitive(code, bits // 8, name, name, (low, low + 2**bits - 1))


_PRIMITIVES = {
    "bool": _Primitive("?", 1, "boolean", None),
    "byte": _Primitive("c", 1, "octet", None),
    "char": _integer("B", 8, signed=False),
    "int8": _integer("b", 8, signed=True),
    "uint8": _integer("B", 8, signed=False),
    "int16": _integer("h", 16, signed=True),
    "uint16": _integer("H", 16, signed=False),
    "int32": _integer("i", 32, signed=True),
    "uint32": _integer("I", 32, signed=False),
    "int64": _integer("q", 64, signed=True),
    "uint64": _integer("Q", 64, signed=False),
    "float32": _Primitive("f", 4, "float", "float32"),
    "float64": _Primitive("d", 8, "double", "float64"),
}
_FLOAT32_MAX = 3.402823466e38


@dataclass(frozen=True, slots=True)
class _Field:
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
    def primitive(self) -> _Primitive | None:
        return _PRIMITIVES.get(self.base)

    @property
    def numeric(self) -> bool:
        return self.primitive is not None and self.primitive.dtype is not None

    @property
    def single(self) -> bool:
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
def _store() -> Typestore:
    store = get_typestore(Stores[_DISTROS[distro()]])
    for name, text in _SERVICES.items():
        package, _, service = name.split("/")
        for side, part in zip(("Request", "Response"), text.split("---"), strict=True):
            alias = f"{package}/msg/{service}_{side}"
            constants, fields = get_types_from_msg(part, alias)[alias]
            fields = fields or [(_EMPTY_MEMBER, (Nodetype.BASE, ("uint8", 0)))]
            store.fielddefs[f"{name}_{side}"] = (constants, fields)
    return store


@cache
def _definition(name: str) -> tuple[dict[str, object], tuple[_Field, ...]]:
    """Give the constants and fields of a type, with every field of its wire form."""
    constants, fields = _store().fielddefs[name]
    return (
        {key: bytes([value]) if kind == "byte" else value for key, kind, value in constants},
        tuple(_field(key, description) for key, description in fields),
    )


def _field(name: str, description) -> _Field:
    kind, detail = description
    length = 0
    if kind in (Nodetype.ARRAY, Nodetype.SEQUENCE):
        (base_kind, detail), length = detail
    else:
        base_kind = kind
    base, bound = (detail, 0) if base_kind == Nodetype.NAME else detail
    return _Field(name, base, bound, Nodetype(kind), length)


def names(package: str, kind: str) -> tuple[str, ...]:
    """List the interfaces of a package.

    Args:
        package: Such as ``std_msgs``.
        kind: ``msg`` or ``srv``.
    """
    known: Iterable[str] = _store().fielddefs if kind == "msg" else _SERVICES
    return tuple(sorted(n.split("/")[2] for n in known if n.startswith(f"{package}/{kind}/")))


@cache
def get_interface(name: str) -> type:
    """Give the class of a message or service.

    Args:
        name: Such as ``std_msgs/msg/String`` or ``std_srvs/srv/Trigger``.

    Raises:
        ValueError: No such type in this ROS 2 distribution's definitions.
    """
    if name in _SERVICES:
        return _make_service(name)
    if name not in _store().fielddefs:
        msg = f"no message or service type {name!r} in ROS 2 {distro()}'s definitions"
        raise ValueError(msg)
    return _make_message(name)


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
    if (
        type_name(cls) in _SERVICES
        and "service_msgs/msg/ServiceEventInfo" not in _store().fielddefs
    ):
        msg = f"{type_name(cls)}: ROS 2 {distro()} defines no type hash for services"
        raise ValueError(msg)
    hasher = Typestore()
    for name, (constants, fields) in _store().fielddefs.items():
        # rosidl reads `char` in a .msg file as uint8, and hashes it as that.
        hasher.fielddefs[name] = (constants, [(key, _without_char(d)) for key, d in fields])
    for name in _SERVICES:
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


def serialize(message) -> bytes:
    """Encode a message as CDR, little-endian, with the header of four bytes.

    Raises:
        ValueError: A field holds what its type cannot (possible only by changing an array in
        place).
    """
    parts = [b"\x00\x01\x00\x00"]
    try:
        _writer(message._TYPE_NAME)(message, parts, 0)
    except (struct.error, TypeError, AttributeError, OverflowError) as error:
        msg = f"{message._TYPE_NAME}: cannot be encoded: {error}"
        raise ValueError(msg) from error
    return b"".join(parts)


def deserialize(buffer, cls: type):
    """Decode a message from CDR; nothing in it refers to ``buffer`` afterwards.

    Args:
        buffer: Any bytes-like object, with the header of four bytes.
        cls: Message class, or a service's ``Request`` or ``Response``.

    Raises:
        ValueError: The payload is malformed: encapsulation, length, encoding or trailing bytes.
    """
    view = memoryview(buffer).cast("B")
    if len(view) < 4 or view[0] != 0 or view[1] > 1:
        msg = f"{cls._TYPE_NAME}: not CDR: header {bytes(view[:4]).hex(' ') or 'missing'}"
        raise ValueError(msg)
    body = view[4:]
    try:
        message, end = _reader(cls._TYPE_NAME, "<" if view[1] else ">")(body, 0)
    except struct.error as error:
        msg = f"{cls._TYPE_NAME}: payload of {len(view)} bytes is too short"
        raise ValueError(msg) from error
    except ValueError as error:
        msg = f"{cls._TYPE_NAME}: {error}"
        raise ValueError(msg) from error
    if len(body) - end > 3:  # up to three bytes of padding are usual
        msg = f"{cls._TYPE_NAME}: {len(body) - end} bytes too many in the payload"
        raise ValueError(msg)
    return message


# Classes


def _make_service(name: str) -> type:
    package, kind, service = name.split("/")
    return type(
        service,
        (),
        {
            "__doc__": f"Service {name}.",
            "__module__": f"{package}.{kind}",
            "_TYPE_NAME": name,
            "Request": _make_message(f"{name}_Request"),
            "Response": _make_message(f"{name}_Response"),
        },
    )


class _Message:
    """What every message class has."""

    __slots__ = ()
    _TYPE_NAME = ""
    _FIELDS: tuple[_Field, ...] = ()

    @classmethod
    def get_fields_and_field_types(cls) -> dict[str, str]:
        """Give the IDL type of each field by name."""
        return {field.name: field.idl for field in cls._FIELDS}

    def __repr__(self) -> str:
        values = ", ".join(f"{f.name}={_plain(getattr(self, f.name))!r}" for f in self._FIELDS)
        return f"{type(self).__module__}.{type(self).__qualname__}({values})"

    def __eq__(self, other: object) -> bool:
        if type(self) is not type(other):
            return NotImplemented
        return all(
            np.array_equal(mine, theirs) if isinstance(mine, np.ndarray) else mine == theirs
            for mine, theirs in (
                (getattr(self, f.name), getattr(other, f.name)) for f in self._FIELDS
            )
        )

    __hash__ = None


def _plain(value):
    return value.tolist() if isinstance(value, array | np.ndarray) else value


@cache
def _make_message(name: str) -> type:
    package, kind, short = name.split("/")
    constants, wire_fields = _definition(name)
    fields = tuple(field for field in wire_fields if field.name != _EMPTY_MEMBER)
    attributes: dict[str, object] = {
        "__doc__": f"Message {name}.",
        "__module__": f"{package}.{kind}",
        "__slots__": tuple(f"_{field.name}" for field in fields),
        "_TYPE_NAME": name,
        "_FIELDS": fields,
        **constants,
    }
    scope: dict[str, object] = {}
    arguments, body = [], ["  pass"]
    for field in fields:
        check, default = _check(field), _default(name, field, constants)
        scope[f"check_{field.name}"], scope[f"default_{field.name}"] = check, default
        attributes[field.name] = property(
            attrgetter(f"_{field.name}"), _setter(f"_{field.name}", check), doc=field.idl
        )
        initial = f"default_{field.name}" + ("()" if callable(default) else "")
        arguments.append(f"{field.name}=None")
        given = field.name
        if field.numeric and not field.single:
            scope[f"convert_{field.name}"] = _converter(field)
            given = f"convert_{field.name}({field.name})"
        body.append(
            f"  self._{field.name} = {initial} if {field.name} is None"
            f" else check_{field.name}({given})"
        )
    signature = ", ".join(["self", *(["*"] if arguments else []), *arguments])
    exec(f"def __init__({signature}):\n" + "\n".join(body), scope)
    attributes["__init__"] = scope["__init__"]
    return type(short, (_Message,), attributes)


def _setter(slot: str, check: Callable) -> Callable:
    def put(self, value):
        setattr(self, slot, check(value))

    return put


def _converter(field: _Field) -> Callable:
    """Make the conversion of what a constructor is given: rclpy is laxer there than in setting."""
    code, dtype = field.primitive.code, np.dtype(field.primitive.dtype)

    def convert_array(value):
        return np.array(value, dtype)

    def convert_sequence(value):
        if isinstance(value, np.ndarray) and value.dtype == dtype:
            return array(code, value.tobytes())
        return array(code, value)

    return convert_array if field.kind == Nodetype.ARRAY else convert_sequence


def _default(message: str, field: _Field, constants: dict[str, object]) -> object:
    """Give a field's initial value, or what makes it where it can be changed in place."""
    if field.single:
        return _default_of_one(message, field, constants)
    if field.numeric and field.kind == Nodetype.SEQUENCE:
        return partial(array, field.primitive.code)
    if field.numeric:
        return partial(np.zeros, field.length, np.dtype(field.primitive.dtype))
    if field.kind == Nodetype.SEQUENCE:
        return list
    if field.primitive is not None or field.base == "string":
        return lambda: [_zero(field.base)] * field.length
    return lambda: [_make_message(field.base)() for _ in range(field.length)]


def _default_of_one(message: str, field: _Field, constants: dict[str, object]) -> object:
    # The only values other than zero that the .msg files of the served packages set.
    if (message, field.name) == ("geometry_msgs/msg/Quaternion", "w"):
        return 1.0
    if (message, field.name) == ("sensor_msgs/msg/NavSatStatus", "status"):
        return constants.get("STATUS_UNKNOWN", 0)
    if field.primitive is None and field.base != "string":
        return _make_message(field.base)
    return _zero(field.base)


def _zero(base: str):
    return {"string": "", "bool": False, "byte": b"\0", "float32": 0.0, "float64": 0.0}.get(base, 0)


def _refuse(field: _Field, value: object, wanted: str) -> AssertionError:
    kind = f"{type(value).__module__}.{type(value).__qualname__}".removeprefix("builtins.")
    return AssertionError(f"The '{field.name}' field must be {wanted}, not {kind}")


def _check(field: _Field) -> Callable:
    """Make the function that takes or refuses a value for a field, as rclpy's setters do."""
    if field.single:
        return _check_one(field)
    if field.kind == Nodetype.ARRAY:
        return _check_array(field)
    return _check_sequence(field)


def _check_one(field: _Field) -> Callable:
    """Make the check of a single value."""
    if field.base == "string":
        return partial(_check_text, field)
    if field.primitive is None:
        return partial(_check_message, field, _make_message(field.base))
    if field.primitive.bounds is not None:
        return partial(_check_integer, field, *field.primitive.bounds)
    return partial(
        {"?": _check_boolean, "c": _check_octet, "f": _check_float32, "d": _check_float}[
            field.primitive.code
        ],
        field,
    )


def _check_text(field: _Field, value: object) -> object:
    if not isinstance(value, str):
        raise _refuse(field, value, "of type 'str'")
    if field.string_bound and len(value) > field.string_bound:
        limit = field.string_bound
        msg = f"The '{field.name}' field must be string value not longer than {limit}"
        raise AssertionError(msg)
    return value


def _check_message(field: _Field, wanted: type, value: object) -> object:
    if not isinstance(value, wanted):
        raise _refuse(field, value, f"a sub message of type '{wanted.__name__}'")
    return value


def _check_boolean(field: _Field, value: object) -> object:
    if not isinstance(value, bool):
        raise _refuse(field, value, "of type 'bool'")
    return value


def _check_octet(field: _Field, value: object) -> object:
    if not isinstance(value, bytes | bytearray) or len(value) != 1:
        raise _refuse(field, value, "of type 'bytes' with length 1")
    return bytes(value)


def _check_float(field: _Field, value: object) -> object:
    if not isinstance(value, float):
        raise _refuse(field, value, "of type 'float'")
    return value


def _check_float32(field: _Field, value: object) -> object:
    if not isinstance(value, float):
        raise _refuse(field, value, "of type 'float'")
    if abs(value) > _FLOAT32_MAX and not math.isinf(value):
        msg = f"The '{field.name}' field must be a float in 32 bits, not {value}"
        raise AssertionError(msg)
    return value


def _check_integer(field: _Field, low: int, high: int, value: object) -> object:
    if not isinstance(value, int):
        raise _refuse(field, value, "of type 'int'")
    if not low <= value <= high:
        msg = f"The '{field.name}' field must be an integer in [{low}, {high}], not {value}"
        raise AssertionError(msg)
    return value


def _check_sequence(field: _Field) -> Callable:
    one = _check_one(field)
    code = field.primitive.code if field.numeric else None

    def check(value):
        if code is not None and isinstance(value, array):
            if value.typecode != code:
                raise _refuse(field, value, f"an array.array with type code '{code}'")
        elif code == "B" and isinstance(value, bytes | bytearray):
            value = array("B", value)
        else:
            _require_collection(field, value)
            for entry in value:
                one(entry)
            value = value if code is None else array(code, value)
        if field.length and len(value) > field.length:
            limit = f"at most {field.length} values"
            msg = f"The '{field.name}' field must have {limit}, not {len(value)}"
            raise AssertionError(msg)
        return value

    return check


def _check_array(field: _Field) -> Callable:
    one = _check_one(field)
    dtype = np.dtype(field.primitive.dtype) if field.numeric else None

    def check(value):
        if dtype is not None and isinstance(value, np.ndarray):
            if value.dtype != dtype or value.ndim != 1:
                raise _refuse(field, value, f"a flat numpy.ndarray of {dtype}")
        else:
            _require_collection(field, value)
            for entry in value:
                one(entry)
            value = value if dtype is None else np.array(value, dtype)
        if len(value) != field.length:
            msg = f"The '{field.name}' field must have {field.length} values, not {len(value)}"
            raise AssertionError(msg)
        return value

    return check


def _require_collection(field: _Field, value: object) -> None:
    if isinstance(value, str) or not isinstance(value, Sequence | AbstractSet):
        hint = "; make an array.array of a numpy array" if isinstance(value, np.ndarray) else ""
        raise _refuse(field, value, f"a set or sequence of '{field.base}'{hint}")


# Encoding


@cache
def _layouts(codes: str, order: str) -> tuple[struct.Struct, ...]:
    """Compile consecutive primitives, with their padding, for each start position modulo 8.

    Args:
        codes: ``struct`` codes, one a primitive.
        order: ``<`` or ``>``.
    """
    layouts = []
    for start in range(8):
        pattern, position = order, start
        for code in codes:
            size = struct.calcsize(f"={code}")
            padding = -position % size
            pattern += "x" * padding + code
            position += padding + size
        layouts.append(struct.Struct(pattern))
    return tuple(layouts)


class _Generator:
    """Collects the lines of a function, and the run of primitives not yet written into one."""

    def __init__(self, order: str) -> None:
        self.order = order
        self.lines: list[str] = []
        self.scope: dict[str, object] = {}
        self.codes = ""
        self.run: list[str] = []
        self.count = 0

    def new(self, stem: str) -> str:
        self.count += 1
        return f"{stem}{self.count}"

    def bind(self, stem: str, value: object) -> str:
        """Make a value known to the function, under a new name."""
        name = self.new(stem)
        self.scope[name] = value
        return name

    def add(self, *lines: str) -> None:
        self.lines.extend(f"  {line}" for line in lines)

    def primitive(self, code: str, expression: str) -> None:
        self.codes += code
        self.run.append(expression)

    def take_run(self) -> tuple[str, str] | None:
        """End the run; give the name of its layouts, and the expressions separated by commas."""
        if not self.codes:
            return None
        taken = self.bind("layouts", _layouts(self.codes, self.order)), ", ".join(self.run)
        self.codes, self.run = "", []
        return taken

    def compile(self, signature: str) -> Callable:
        exec("\n".join([f"def function({signature}):", *self.lines]), self.scope)
        return self.scope["function"]


@cache
def _writer(name: str) -> Callable:
    """Make ``write(message, parts, position) -> position``, which appends buffers to ``parts``."""
    generator = _Generator("<")
    _write_fields(generator, name, "m")
    _write_run(generator)
    generator.add("return p")
    return generator.compile("m, parts, p")


def _write_run(generator: _Generator) -> None:
    if taken := generator.take_run():
        layouts, values = taken
        generator.add(f"s = {layouts}[p & 7]", f"parts.append(s.pack({values}))", "p += s.size")


def _write_fields(g: _Generator, name: str, path: str) -> None:
    for field in _definition(name)[1]:
        if field.name == _EMPTY_MEMBER:
            g.primitive("B", "0")
        elif not field.single:
            _write_many(g, field, f"{path}._{field.name}")
        elif field.base == "string":
            _write_string(g, f"{path}._{field.name}")
        elif field.primitive is not None:
            g.primitive(field.primitive.code, f"{path}._{field.name}")
        else:
            _write_fields(g, field.base, f"{path}._{field.name}")


def _write_string(g: _Generator, value: str) -> None:
    text = g.new("t")
    g.add(f"{text} = {value}.encode() + b'\\0'")
    g.primitive("I", f"len({text})")
    _write_run(g)
    g.add(f"parts.append({text})", f"p += len({text})")


def _write_many(g: _Generator, field: _Field, value: str) -> None:
    values = g.new("v")
    g.add(f"{values} = {value}")
    if field.kind == Nodetype.SEQUENCE:
        g.primitive("I", f"len({values})")
    _write_run(g)
    if field.kind == Nodetype.ARRAY or field.length:
        exact = "!=" if field.kind == Nodetype.ARRAY else ">"
        g.add(
            f"if len({values}) {exact} {field.length}:",
            f"  raise ValueError('{field.name}: %d values for {field.idl}' % len({values}))",
        )
    if field.primitive is not None:
        size = field.primitive.size
        encoded = {"?": f"bytes({values})", "c": f"b''.join({values})"}.get(
            field.primitive.code, values
        )
        if field.numeric and field.kind == Nodetype.ARRAY:
            encoded = f"{values}.tobytes()"
        if size > 1:
            g.add(f"if len({values}) and -p % {size}:")
            g.add(f"  parts.append(bytes(-p % {size}))", f"  p += -p % {size}")
        g.add(f"parts.append({encoded})", f"p += len({values}) * {size}")
    elif field.base == "string":
        layouts = g.bind("layouts", _layouts("I", "<"))
        g.add(
            f"for t in {values}:",
            "  t = t.encode() + b'\\0'",
            f"  s = {layouts}[p & 7]",
            "  parts.append(s.pack(len(t)))",
            "  parts.append(t)",
            "  p += s.size + len(t)",
        )
    else:
        write = g.bind("write", _writer(field.base))
        g.add(f"for item in {values}:", f"  p = {write}(item, parts, p)")


@cache
def _reader(name: str, order: str) -> Callable:
    """Make ``read(body, position) -> (message, position)`` for a byte order."""
    g = _Generator(order)
    message = _read_fields(g, name)
    _read_run(g)
    g.add(f"return {message}, p")
    # Objects are put together last, when every value has been read.
    return g.compile("b, p")


def _read_run(g: _Generator) -> None:
    if taken := g.take_run():
        layouts, values = taken
        g.add(f"s = {layouts}[p & 7]", f"{values}, = s.unpack_from(b, p)", "p += s.size")


def _read_fields(g: _Generator, name: str) -> str:
    """Read the fields of a message into local variables; give the expression that builds it."""
    values = []
    for field in _definition(name)[1]:
        if field.single and field.primitive is None and field.base != "string":
            values.append(_read_fields(g, field.base))
            continue
        value = g.new("v")
        if field.single and field.primitive is not None:
            g.primitive(field.primitive.code, value)
        elif field.single:
            g.primitive("I", "n")
            _read_run(g)
            string = g.bind("string", partial(_read_string, bound=field.string_bound))
            g.add(f"{value} = {string}(b, p, n)", "p += n")
        else:
            _read_many(g, field, value)
        if field.name != _EMPTY_MEMBER:
            values.append(value)
    build = g.bind("build", _builder(name))
    return f"{build}({', '.join(values)})"


@cache
def _builder(name: str) -> Callable:
    """Make the function that builds a message of values known to be right, in order."""
    cls = _make_message(name)
    slots = cls.__slots__
    lines = [f"def build({', '.join(slots)}):", "  m = new(cls)"]
    lines += [f"  m.{slot} = {slot}" for slot in slots]
    scope: dict[str, object] = {"new": object.__new__, "cls": cls}
    exec("\n".join([*lines, "  return m"]), scope)
    return scope["build"]


def _read_string(body: memoryview, position: int, length: int, bound: int = 0) -> str:
    """Read a string whose length, its final zero included, is known."""
    end = position + length
    if length < 1 or end > len(body) or body[end - 1]:
        msg = f"string of length {length} at byte {position}"
        raise ValueError(msg)
    text = str(body[position : end - 1], "utf-8")
    if bound and len(text) > bound:
        msg = f"string of {len(text)} characters where {bound} are allowed"
        raise ValueError(msg)
    return text


def _read_many(g: _Generator, field: _Field, value: str) -> None:
    if field.kind == Nodetype.SEQUENCE:
        g.primitive("I", "n")
        _read_run(g)
        if field.length:
            g.add(f"if n > {field.length}: raise ValueError('{field.name}: %d values' % n)")
    else:
        _read_run(g)
        g.add(f"n = {field.length}")
    if field.primitive is not None:
        size = field.primitive.size
        if size > 1:
            g.add(f"if n: p += -p % {size}")
        # Before anything is allocated for a count that the bytes left cannot hold.
        wrong = f"raise ValueError('{field.name}: %d values, %d bytes left' % (n, len(b) - p))"
        g.add(f"e = p + n * {size}", f"if e > len(b): {wrong}")
        if field.primitive.code == "?":
            g.add(f"{value} = [x != 0 for x in b[p:e]]")
        elif field.primitive.code == "c":
            g.add(f"{value} = [bytes((x,)) for x in b[p:e]]")
        elif field.kind == Nodetype.SEQUENCE:
            new = g.bind("array", array)
            g.add(f"{value} = {new}('{field.primitive.code}')", f"{value}.frombytes(b[p:e])")
            if size > 1 and g.order != _NATIVE:
                g.add(f"{value}.byteswap()")
        else:
            dtype = g.bind("dtype", np.dtype(field.primitive.dtype).newbyteorder(g.order))
            native = g.bind("dtype", np.dtype(field.primitive.dtype))
            frombuffer = g.bind("frombuffer", np.frombuffer)
            g.add(f"{value} = {frombuffer}(b[p:e], {dtype}).astype({native})")
        g.add("p = e")
    elif field.base == "string":
        layouts, string = g.bind("layouts", _layouts("I", g.order)), g.bind("string", _read_string)
        g.add(
            f"{value} = []",
            "for _ in range(n):",
            f"  s = {layouts}[p & 7]",
            "  k, = s.unpack_from(b, p)",
            "  p += s.size",
            f"  {value}.append({string}(b, p, k))",
            "  p += k",
        )
    else:
        read = g.bind("read", _reader(field.base, g.order))
        g.add(
            f"{value} = []",
            "for _ in range(n):",
            f"  item, p = {read}(b, p)",
            f"  {value}.append(item)",
        )
