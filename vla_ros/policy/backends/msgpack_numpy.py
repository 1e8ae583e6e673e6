"""The openpi protocol's frames: msgpack, with NumPy arrays as small maps of bytes.

The format is that of `openpi_client.msgpack_numpy` 0.1.2
(https://github.com/Physical-Intelligence/openpi). Nothing in it is code: arrays are of plain
numbers or text, and what claims to be another kind is refused.
"""

import math
from typing import Any

import numpy as np

try:
    import msgpack
except ImportError as err:  # pragma: no cover - depends on what is installed
    _message = "the openpi protocol needs msgpack and websockets: pip install 'vla_ros[openpi]'"
    raise ImportError(_message) from err

_KINDS = "biufSU"


class FrameError(ValueError):
    """A frame is not of this format, or holds what the format cannot."""


def pack(content: object) -> bytes:
    """Return a frame of dicts, lists, numbers, text, and arrays of numbers or text.

    Raises:
        FrameError: If it holds something else.

    """
    try:
        return bytes(msgpack.packb(content, default=_pack_array))
    except (TypeError, ValueError, OverflowError) as err:
        msg = f"cannot be sent: {err}"
        raise FrameError(msg) from err


def unpack(frame: bytes) -> Any:  # noqa: ANN401 - whatever was packed
    """Return a frame's content. Arrays are read-only: they are the frame's own bytes.

    Raises:
        FrameError: If it is none, or a damaged one.

    """
    try:
        return msgpack.unpackb(frame, object_hook=_unpack_array)
    except FrameError:
        raise
    # msgpack's exceptions are of several classes; a deep nesting is a StackError.
    except Exception as err:
        msg = f"is no msgpack frame: {' '.join(str(err).split()) or type(err).__name__}"
        raise FrameError(msg) from err


def _pack_array(value: object) -> object:
    if isinstance(value, np.ndarray | np.generic) and value.dtype.kind not in _KINDS:
        msg = f"arrays of {value.dtype} are not part of the protocol"
        raise TypeError(msg)
    if isinstance(value, np.ndarray):
        return {
            b"__ndarray__": True,
            b"data": value.tobytes(),
            b"dtype": value.dtype.str,
            b"shape": value.shape,
        }
    if isinstance(value, np.generic):
        return {b"__npgeneric__": True, b"data": value.item(), b"dtype": value.dtype.str}
    msg = f"{type(value).__name__} is not part of the protocol"
    raise TypeError(msg)


def _unpack_array(value: dict[Any, Any]) -> object:
    if b"__ndarray__" in value:
        kind = _dtype(value)
        shape, data = value.get(b"shape"), value.get(b"data")
        if not isinstance(data, bytes) or not isinstance(shape, list | tuple):
            msg = "an array lacks its data or its shape"
            raise FrameError(msg)
        if not all(isinstance(axis, int) and axis >= 0 for axis in shape):
            msg = f"an array has the shape {shape!r:.60}"
            raise FrameError(msg)
        if math.prod(shape) * kind.itemsize != len(data):
            msg = f"an array of {kind} {list(shape)} has {len(data)} bytes"
            raise FrameError(msg)
        return np.frombuffer(data, kind).reshape(shape) if data else np.zeros(shape, kind)
    if b"__npgeneric__" in value:
        kind = _dtype(value)
        try:
            return kind.type(value.get(b"data"))
        except (TypeError, ValueError, OverflowError) as err:
            msg = f"a number of type {kind} is none: {err}"
            raise FrameError(msg) from err
    return value


def _dtype(value: dict[Any, Any]) -> np.dtype[Any]:
    name = value.get(b"dtype")
    try:
        kind = np.dtype(name) if isinstance(name, str) else None
    except (TypeError, ValueError, SyntaxError):
        kind = None
    if kind is None or kind.kind not in _KINDS or kind.hasobject or kind.shape:
        msg = f"an array has the type {name!r:.60}, which is none of numbers or text"
        raise FrameError(msg)
    return kind
