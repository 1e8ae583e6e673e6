"""Classes for messages and services that behave as those of ``rosidl_generator_py``."""

from __future__ import annotations

import math
from array import array
from collections.abc import Callable, Sequence
from collections.abc import Set as AbstractSet
from functools import cache, partial, wraps
from operator import attrgetter
from threading import RLock

import numpy as np
from rosbags.interfaces import Nodetype

from vla_ros_standalone.definitions import EMPTY_MEMBER, Field, definition

_LOCK = RLock()
_FLOAT32_MAX = 3.402823466e38


def _once(make: Callable[[str], type]) -> Callable[[str], type]:
    """Cache, and let no two threads make the same class twice."""
    cached = cache(make)

    @wraps(make)
    def make_once(name: str) -> type:
        with _LOCK:
            return cached(name)

    return make_once


@_once
def make_service(name: str) -> type:
    """Make the class of a service, with its ``Request`` and ``Response``."""
    package, kind, service = name.split("/")
    return type(
        service,
        (),
        {
            "__doc__": f"Service {name}.",
            "__module__": f"{package}.{kind}",
            "_TYPE_NAME": name,
            "Request": make_message(f"{name}_Request"),
            "Response": make_message(f"{name}_Response"),
        },
    )


class _Message:
    """What every message class has."""

    __slots__ = ()
    _TYPE_NAME = ""
    _FIELDS: tuple[Field, ...] = ()

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


@_once
def make_message(name: str) -> type:
    """Make the class of a message, once."""
    package, kind, short = name.split("/")
    constants, wire_fields = definition(name)
    fields = tuple(field for field in wire_fields if field.name != EMPTY_MEMBER)
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


def _converter(field: Field) -> Callable:
    """Make the conversion of what a constructor is given: rclpy is laxer there than in setting."""
    code, dtype = field.primitive.code, np.dtype(field.primitive.dtype)

    def convert_array(value):
        return np.array(value, dtype)

    def convert_sequence(value):
        if isinstance(value, np.ndarray) and value.dtype == dtype:
            return array(code, value.tobytes())
        return array(code, value)

    return convert_array if field.kind == Nodetype.ARRAY else convert_sequence


def _default(message: str, field: Field, constants: dict[str, object]) -> object:
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
    return lambda: [make_message(field.base)() for _ in range(field.length)]


def _default_of_one(message: str, field: Field, constants: dict[str, object]) -> object:
    # The only values other than zero that the .msg files of the served packages set.
    if (message, field.name) == ("geometry_msgs/msg/Quaternion", "w"):
        return 1.0
    if (message, field.name) == ("sensor_msgs/msg/NavSatStatus", "status"):
        return constants.get("STATUS_UNKNOWN", 0)
    if field.primitive is None and field.base != "string":
        return make_message(field.base)
    return _zero(field.base)


def _zero(base: str):
    return {"string": "", "bool": False, "byte": b"\0", "float32": 0.0, "float64": 0.0}.get(base, 0)


def _refuse(field: Field, value: object, wanted: str) -> AssertionError:
    kind = f"{type(value).__module__}.{type(value).__qualname__}".removeprefix("builtins.")
    return AssertionError(f"The '{field.name}' field must be {wanted}, not {kind}")


def _check(field: Field) -> Callable:
    """Make the function that takes or refuses a value for a field, as rclpy's setters do."""
    if field.single:
        return _check_one(field)
    if field.kind == Nodetype.ARRAY:
        return _check_array(field)
    return _check_sequence(field)


def _check_one(field: Field) -> Callable:
    """Make the check of a single value."""
    if field.base == "string":
        return partial(_check_text, field)
    if field.primitive is None:
        return partial(_check_message, field, make_message(field.base))
    if field.primitive.bounds is not None:
        return partial(_check_integer, field, *field.primitive.bounds)
    return partial(
        {"?": _check_boolean, "c": _check_octet, "f": _check_float32, "d": _check_float}[
            field.primitive.code
        ],
        field,
    )


def _check_text(field: Field, value: object) -> object:
    if not isinstance(value, str):
        raise _refuse(field, value, "of type 'str'")
    if field.string_bound and len(value) > field.string_bound:
        limit = field.string_bound
        msg = f"The '{field.name}' field must be string value not longer than {limit}"
        raise AssertionError(msg)
    return value


def _check_message(field: Field, wanted: type, value: object) -> object:
    if not isinstance(value, wanted):
        raise _refuse(field, value, f"a sub message of type '{wanted.__name__}'")
    return value


def _check_boolean(field: Field, value: object) -> object:
    if not isinstance(value, bool):
        raise _refuse(field, value, "of type 'bool'")
    return value


def _check_octet(field: Field, value: object) -> object:
    if not isinstance(value, bytes | bytearray) or len(value) != 1:
        raise _refuse(field, value, "of type 'bytes' with length 1")
    return bytes(value)


def _check_float(field: Field, value: object) -> object:
    if not isinstance(value, float):
        raise _refuse(field, value, "of type 'float'")
    return value


def _check_float32(field: Field, value: object) -> object:
    if not isinstance(value, float):
        raise _refuse(field, value, "of type 'float'")
    if abs(value) > _FLOAT32_MAX and not math.isinf(value):
        msg = f"The '{field.name}' field must be a float in 32 bits, not {value}"
        raise AssertionError(msg)
    return value


def _check_integer(field: Field, low: int, high: int, value: object) -> object:
    if not isinstance(value, int):
        raise _refuse(field, value, "of type 'int'")
    if not low <= value <= high:
        msg = f"The '{field.name}' field must be an integer in [{low}, {high}], not {value}"
        raise AssertionError(msg)
    return value


def _check_sequence(field: Field) -> Callable:
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


def _check_array(field: Field) -> Callable:
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


def _require_collection(field: Field, value: object) -> None:
    if isinstance(value, str) or not isinstance(value, Sequence | AbstractSet):
        hint = "; make an array.array of a numpy array" if isinstance(value, np.ndarray) else ""
        raise _refuse(field, value, f"a set or sequence of '{field.base}'{hint}")
