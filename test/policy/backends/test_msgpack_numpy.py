"""Frames: what goes in comes out; what is damaged or malicious is refused, whatever it is."""

import contextlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

msgpack = pytest.importorskip("msgpack", reason="msgpack is not installed")

from vla_ros.policy.backends.msgpack_numpy import FrameError, pack, unpack  # noqa: E402


@pytest.mark.parametrize(
    "value",
    [
        np.arange(6, dtype=np.uint8).reshape(1, 2, 3),
        np.array(1.5, np.float32),
        np.zeros((0, 3), np.float64),
        np.array([True, False]),
        np.array(["a", "bc"]),
        np.asfortranarray(np.arange(6.0).reshape(2, 3)),
    ],
)
def test_arrays_come_back(value):
    found = unpack(pack({"a": value}))["a"]
    assert found.dtype == value.dtype
    np.testing.assert_array_equal(found, value)


def test_the_rest_comes_back():
    content = {"text": "é", "list": [1, 2.5, None, True], "nested": {"x": b"raw"}}
    assert unpack(pack(content)) == content
    number = unpack(pack(np.float32(0.5)))
    assert isinstance(number, np.float32)
    assert number == np.float32(0.5)


@pytest.mark.parametrize(
    "value", [np.array([object()]), np.array([1j]), object(), np.zeros(1, [("a", "f4")])]
)
def test_what_is_no_number_and_no_text_is_not_sent(value):
    with pytest.raises(FrameError, match="not part of the protocol"):
        pack({"a": value})


@pytest.mark.parametrize(
    "fields",
    [
        {b"dtype": "|O"},
        {b"dtype": "V8"},
        {b"dtype": "f4,f4"},
        {b"dtype": "(2,)f4"},
        {b"dtype": 5},
        {b"shape": [3]},
        {b"shape": [-1]},
        {b"shape": [2**62, 2**62]},
        {b"shape": ["a"]},
        {b"data": "text"},
        {b"data": None},
    ],
)
def test_an_array_that_is_none_is_refused(fields):
    good = {b"__ndarray__": True, b"data": b"\0" * 8, b"dtype": "<f4", b"shape": [2]}
    assert unpack(msgpack.packb(good)).shape == (2,)
    with pytest.raises(FrameError):
        unpack(msgpack.packb({**good, **fields}))


@given(st.binary(max_size=200))
@settings(deadline=None, max_examples=300)
def test_any_bytes_are_content_or_a_frame_error(data):
    with contextlib.suppress(FrameError):
        unpack(data)
