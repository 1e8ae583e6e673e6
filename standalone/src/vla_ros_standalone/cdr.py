"""Encoding of messages as plain CDR (XCDR1), as every ROS 2 middleware speaks it.

That is a header of four bytes, then each primitive aligned to its own size. Consecutive primitives,
those of nested messages included, are one ``struct`` format, of which there are eight: for each
position modulo 8 at which it may start. For each type a function is generated at its first use.
"""

from __future__ import annotations

import struct
import sys
from array import array
from functools import cache, partial
from typing import TYPE_CHECKING

import numpy as np
from rosbags.interfaces import Nodetype

from vla_ros_standalone.definitions import EMPTY_MEMBER, Field, definition
from vla_ros_standalone.message_classes import make_message

if TYPE_CHECKING:
    from collections.abc import Callable

_NATIVE = "<" if sys.byteorder == "little" else ">"


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
    for field in definition(name)[1]:
        if field.name == EMPTY_MEMBER:
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


def _write_many(g: _Generator, field: Field, value: str) -> None:
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
    for field in definition(name)[1]:
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
        if field.name != EMPTY_MEMBER:
            values.append(value)
    build = g.bind("build", _builder(name))
    return f"{build}({', '.join(values)})"


@cache
def _builder(name: str) -> Callable:
    """Make the function that builds a message of values known to be right, in order."""
    cls = make_message(name)
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


def _read_many(g: _Generator, field: Field, value: str) -> None:
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
