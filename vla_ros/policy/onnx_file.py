"""What an ONNX file says of itself, read without running it and without the `onnx` package.

ONNX Runtime reads a graph's weights from whatever file the graph names, also outside its folder
(1.23 does), and from files of other kinds that some nodes name. A bundle from elsewhere must not
reach beyond its folder, so that the names are read here first. The file is Protocol Buffers; the
numbers of its fields are those of `onnx.proto3` (https://github.com/onnx/onnx, IR version 13).
"""

import mmap
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

_TYPES = {
    1: "float32",
    2: "uint8",
    6: "int32",
    7: "int64",
    8: "string",
    9: "bool",
    10: "float16",
}
_OTHER_TYPES = {3: "int8", 4: "uint16", 5: "int16", 11: "float64", 12: "uint32", 16: "bfloat16"}
_DEEPEST = 32
_LONGEST_NAME = 4096
_GRAPH, _FUNCTIONS = 7, 25
_NODE, _INITIALIZER, _INPUT, _OUTPUT, _SPARSE_INITIALIZER = 1, 5, 11, 12, 15
_EXTERNAL = 1
_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5
_MORE, _VARINT_BITS = 0x80, 64
_COMPILED_NODES = {"EPContext"}
"""Nodes that are a file of some device's machine code."""


class OnnxFileError(ValueError):
    """A file is no ONNX graph, or one that must not be opened."""


@dataclass(frozen=True, slots=True)
class OnnxTensor:
    """An input or output of a graph.

    Attributes:
        type: `float32` and so on; `type 17` where it has no name here.
        shape: Length of each axis, None where it is free; None where nothing is known of it.

    """

    type: str
    shape: tuple[int | None, ...] | None


@dataclass(frozen=True, slots=True)
class OnnxFile:
    """What is known of a graph without running it.

    Attributes:
        inputs: By name, without those that are constants of the graph.
        outputs: By name.
        external: The files that hold its weights, as it names them, each once.

    """

    inputs: dict[str, OnnxTensor]
    outputs: dict[str, OnnxTensor]
    external: tuple[str, ...]


def read_onnx(file: Path) -> OnnxFile:
    """Return what an ONNX file says of itself.

    Raises:
        OnnxFileError: If it is no ONNX graph, or names machine code.
        OSError: If it cannot be read.

    """
    if file.stat().st_size == 0:
        msg = "is empty: copy or export it again"
        raise OnnxFileError(msg)
    with file.open("rb") as stream:
        head = stream.read(4)
        for magic, kind in ((rb"PK\x03\x04", "a zip"), (rb"\x80[\x02-\x05]", "a pickle")):
            if re.match(magic, head):
                msg = f"is {kind} as PyTorch writes it, no ONNX graph: export it to ONNX"
                raise OnnxFileError(msg)
        with mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ) as data:
            view = memoryview(data)
            try:
                return _read_model(view)
            except _WireError as err:
                msg = f"is no ONNX graph, or a damaged one ({err}): copy or export it again"
                raise OnnxFileError(msg) from None
            finally:
                view.release()


class _WireError(ValueError):
    """The bytes are no message of Protocol Buffers, or not the one that is expected."""


class _Fields:
    """The fields of one message: a part of the file's bytes, read as they are asked for."""

    def __init__(self, data: memoryview, begin: int, end: int) -> None:
        self._data = data
        self._begin = begin
        self._end = end

    def __iter__(self) -> "Iterator[tuple[int, int | _Fields]]":
        """Yield each field's number and value: an integer, or bytes that may be a message."""
        at = self._begin
        while at < self._end:
            tag, at = self._varint(at)
            number, wire = tag >> 3, tag & 7
            if number == 0:
                msg = "a field has the number 0"
                raise _WireError(msg)
            if wire == _VARINT:
                value, at = self._varint(at)
                yield number, value
                continue
            if wire == _BYTES:
                length, at = self._varint(at)
            elif wire in {_FIXED64, _FIXED32}:
                length = 8 if wire == _FIXED64 else 4
            else:
                msg = f"a field has the unknown kind {wire}"
                raise _WireError(msg)
            if at + length > self._end:
                msg = "it breaks off"
                raise _WireError(msg)
            if wire == _BYTES:
                yield number, _Fields(self._data, at, at + length)
            at += length

    def _varint(self, at: int) -> tuple[int, int]:
        value = shift = 0
        while at < self._end and shift < _VARINT_BITS:
            byte = self._data[at]
            at += 1
            value |= (byte & 0x7F) << shift
            if byte < _MORE:
                return value, at
            shift += 7
        msg = "it breaks off in a number"
        raise _WireError(msg)

    def messages(self, number: int) -> "Iterator[_Fields]":
        """Yield the messages, texts or bytes of that field."""
        for found, value in self:
            if found == number:
                if isinstance(value, int):
                    msg = f"field {number} is a number"
                    raise _WireError(msg)
                yield value

    def integer(self, number: int, default: int = 0) -> int:
        """Return the integer of that field."""
        for found, value in self:
            if found == number:
                if not isinstance(value, int):
                    msg = f"field {number} is no number"
                    raise _WireError(msg)
                default = value
        return default

    def text(self, number: int) -> str:
        """Return the text of that field, empty where there is none."""
        text = ""
        for value in self.messages(number):
            if value._end - value._begin > _LONGEST_NAME:  # noqa: SLF001
                msg = "a name is too long"
                raise _WireError(msg)
            try:
                text = bytes(self._data[value._begin : value._end]).decode()  # noqa: SLF001
            except UnicodeDecodeError as err:
                msg = "a name is not UTF-8"
                raise _WireError(msg) from err
        return text


def _read_model(view: memoryview) -> OnnxFile:
    model = _Fields(view, 0, len(view))
    graphs = list(model.messages(_GRAPH))
    if len(graphs) != 1:
        msg = "it holds no graph" if not graphs else "it holds more than one graph"
        raise _WireError(msg)
    graph = graphs[0]
    constants: set[str] = set()
    external: dict[str, None] = {}
    for tensor in graph.messages(_INITIALIZER):
        constants.add(tensor.text(8))
    for tensor in _graph_tensors(graph, 0):
        external |= dict.fromkeys(_locations(tensor))
    for function in model.messages(_FUNCTIONS):
        for node in function.messages(7):
            for tensor in _node_tensors(node, 0):
                external |= dict.fromkeys(_locations(tensor))
    inputs = dict(_value(value) for value in graph.messages(_INPUT))
    outputs = dict(_value(value) for value in graph.messages(_OUTPUT))
    if not outputs:
        msg = "its graph has no outputs"
        raise _WireError(msg)
    # Before IR version 4 constants were listed as inputs too.
    inputs = {name: tensor for name, tensor in inputs.items() if name not in constants}
    return OnnxFile(inputs, outputs, tuple(external))


def _graph_tensors(graph: _Fields, depth: int) -> Iterator[_Fields]:
    """Yield every constant of a graph, those of the graphs in its nodes included."""
    if depth > _DEEPEST:
        msg = f"graphs are nested more than {_DEEPEST} deep"
        raise _WireError(msg)
    for number, value in graph:
        if isinstance(value, int):
            continue
        if number == _INITIALIZER:
            yield value
        elif number == _SPARSE_INITIALIZER:
            yield from _sparse_tensors(value)
        elif number == _NODE:
            yield from _node_tensors(value, depth)


def _sparse_tensors(sparse: _Fields) -> Iterator[_Fields]:
    yield from sparse.messages(1)
    yield from sparse.messages(2)


def _node_tensors(node: _Fields, depth: int) -> Iterator[_Fields]:
    operation = node.text(4)
    if operation in _COMPILED_NODES:
        msg = f"holds compiled code (a node {operation}): give the graph itself"
        raise OnnxFileError(msg)
    for attribute in node.messages(5):
        for number, value in attribute:
            if isinstance(value, int):
                continue
            if number in {5, 10}:
                yield value
            elif number in {6, 11}:
                yield from _graph_tensors(value, depth + 1)
            elif number in {22, 23}:
                yield from _sparse_tensors(value)


def _locations(tensor: _Fields) -> Iterator[str]:
    """Yield the name of the file that holds a constant, if it is not in the graph."""
    entries = [(entry.text(1), entry.text(2)) for entry in tensor.messages(13)]
    if entries or tensor.integer(14) == _EXTERNAL:
        names = [value for key, value in entries if key == "location"]
        if not names:
            msg = "a constant lies in another file, but does not say in which"
            raise _WireError(msg)
        yield from names


def _value(value: _Fields) -> tuple[str, OnnxTensor]:
    name = value.text(1)
    for kind in value.messages(2):
        for tensor in kind.messages(1):
            number = tensor.integer(1)
            named = {**_TYPES, **_OTHER_TYPES}.get(number, f"type {number}")
            shapes = list(tensor.messages(2))
            return name, OnnxTensor(named, _shape(shapes[-1]) if shapes else None)
    return name, OnnxTensor("no tensor", None)


def _shape(shape: _Fields) -> tuple[int | None, ...]:
    axes: list[int | None] = []
    for axis in shape.messages(1):
        length = None
        for number, value in axis:
            if number == 1 and isinstance(value, int):
                length = value
        # Some exporters write -1 or 0 for an axis of any length.
        axes.append(length if length is not None and 0 < length < 1 << 63 else None)
    return tuple(axes)
