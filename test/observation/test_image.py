"""Decoding gives the same pixels whatever the encoding, padding and byte order."""

import struct
import zlib

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from vla_ros.observation.image import (
    ImageError,
    ImageSpec,
    decode_compressed,
    decode_raw,
    fit_image,
)

RGB = np.random.default_rng(0).integers(0, 256, (5, 7, 3), np.uint8)
GREY = RGB[..., 0]
ALPHA = np.full((5, 7, 1), 9, np.uint8)

PIXELS = {
    "rgb8": RGB,
    "bgr8": RGB[..., ::-1],
    "rgba8": np.concatenate([RGB, ALPHA], axis=2),
    "bgra8": np.concatenate([RGB[..., ::-1], ALPHA], axis=2),
    "mono8": GREY[..., None],
}


def padded(pixels: np.ndarray, padding: int) -> tuple[bytes, int]:
    rows = np.ascontiguousarray(pixels).reshape(pixels.shape[0], -1)
    rows = np.pad(rows, ((0, 0), (0, padding)), constant_values=77)
    return rows.tobytes(), rows.shape[1]


@pytest.mark.parametrize("padding", [0, 1, 5, 64])
@pytest.mark.parametrize("encoding", PIXELS)
def test_every_encoding_decodes_to_the_same_rgb_with_padded_rows(encoding, padding):
    data, step = padded(PIXELS[encoding], padding)
    image = decode_raw(data, height=5, width=7, encoding=encoding, step=step)
    expected = np.repeat(GREY[..., None], 3, axis=2) if encoding == "mono8" else RGB
    np.testing.assert_array_equal(image, expected)
    assert image.dtype == np.uint8


@pytest.mark.parametrize("padding", [0, 3])
@pytest.mark.parametrize("big", [False, True])
@pytest.mark.parametrize("encoding", PIXELS)
def test_of_16_bits_the_high_byte_is_taken_in_either_byte_order(encoding, big, padding):
    words = (PIXELS[encoding].astype(np.uint16) << 8 | 0x5A).astype(">u2" if big else "<u2")
    data, step = padded(np.ascontiguousarray(words).view(np.uint8), padding)
    deep = encoding.replace("8", "16")
    image = decode_raw(data, height=5, width=7, encoding=deep, step=step, is_bigendian=big)
    expected = np.repeat(GREY[..., None], 3, axis=2) if encoding == "mono8" else RGB
    np.testing.assert_array_equal(image, expected)


@pytest.mark.parametrize("bits", [8, 16])
@pytest.mark.parametrize(
    ("pattern", "red_at"),
    [("rggb", (0, 0)), ("bggr", (1, 1)), ("gbrg", (1, 0)), ("grbg", (0, 1))],
)
def test_a_bayer_pattern_shows_red_where_its_name_says(pattern, red_at, bits):
    """Its letters are the colours of the first row's two pixels, then of the second's."""
    mosaic = np.zeros((8, 8), "<u2" if bits == 16 else np.uint8)
    mosaic[red_at[0] :: 2, red_at[1] :: 2] = 200 << (bits - 8)
    image = decode_raw(
        mosaic.tobytes(), height=8, width=8, encoding=f"bayer_{pattern}{bits}", step=bits
    )
    assert image[4, 4].tolist() == [200, 0, 0]


@pytest.mark.parametrize(
    ("encodings", "pair"),
    [(("uyvy", "yuv422"), (90, 81, 240, 81)), (("yuyv", "yuv422_yuy2"), (81, 90, 81, 240))],
)
@pytest.mark.parametrize("padding", [0, 6])
def test_two_pixels_that_share_their_colour_are_as_red_as_bt_601_says(encodings, pair, padding):
    """ITU-R BT.601: pure red is Y = 81, U = 90, V = 240."""
    data, step = padded(np.tile(np.array(pair, np.uint8), (4, 3)), padding)
    for encoding in encodings:
        image = decode_raw(data, height=4, width=6, encoding=encoding, step=step)
        np.testing.assert_allclose(image, np.broadcast_to((255, 0, 0), (4, 6, 3)), atol=2)


def test_byte_order_means_nothing_for_8_bit_encodings():
    data, step = padded(RGB, 2)
    image = decode_raw(data, height=5, width=7, encoding="rgb8", step=step, is_bigendian=True)
    np.testing.assert_array_equal(image, RGB)


def test_the_last_row_may_lack_its_padding():
    data, step = padded(RGB, 4)
    image = decode_raw(data[:-4], height=5, width=7, encoding="rgb8", step=step)
    np.testing.assert_array_equal(image, RGB)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"encoding": "32FC1"}, ["'32FC1'", "rgb8"]),
        ({"encoding": "uyvy"}, ["7 pixels wide", "uyvy"]),
        ({"step": 20}, ["step is 20", "21"]),
        ({"data": bytes(104)}, ["104 bytes", "5 rows of 21"]),
        ({"data": bytes(106)}, ["106 bytes", "5 rows of 21"]),
        ({"data": b""}, ["0 bytes"]),
        ({"height": 0}, ["empty", "7x0"]),
        ({"height": 4_000_000_000}, ["105 bytes"]),
    ],
)
def test_sizes_that_do_not_fit_are_refused_with_the_numbers(changes, words):
    message = {"data": bytes(105), "height": 5, "width": 7, "encoding": "rgb8", "step": 21}
    message |= changes
    with pytest.raises(ImageError) as info:
        decode_raw(message.pop("data"), **message)
    assert all(word in str(info.value) for word in words)


@given(
    data=st.binary(max_size=200),
    height=st.integers(0, 2**32 - 1) | st.integers(0, 8),
    width=st.integers(0, 2**32 - 1) | st.integers(0, 8),
    step=st.integers(0, 2**32 - 1) | st.integers(0, 40),
    encoding=st.sampled_from([*PIXELS, "mono16", "bayer_rggb8", "bayer_grbg16", "yuyv"]),
    big=st.booleans(),
)
def test_any_header_gives_an_image_of_its_size_or_a_clear_error(
    data, height, width, step, encoding, big
):
    try:
        image = decode_raw(
            data, height=height, width=width, encoding=encoding, step=step, is_bigendian=big
        )
    except ImageError:
        return
    assert image.shape == (height, width, 3)


def test_compressed_png_is_exact_and_jpeg_close():
    bgr = np.ascontiguousarray(RGB[..., ::-1])
    png = cv2.imencode(".png", bgr)[1].tobytes()
    np.testing.assert_array_equal(decode_compressed(png), RGB)
    smooth = np.full((32, 32, 3), (200, 100, 50), np.uint8)
    jpeg = cv2.imencode(".jpg", np.ascontiguousarray(smooth[..., ::-1]))[1].tobytes()
    np.testing.assert_allclose(decode_compressed(jpeg).astype(int), smooth, atol=4)


def test_compressed_grey_images_become_rgb():
    png = cv2.imencode(".png", GREY)[1].tobytes()
    np.testing.assert_array_equal(decode_compressed(png), np.repeat(GREY[..., None], 3, axis=2))


@pytest.mark.parametrize("data", [b"", b"not an image", b"\xff\xd8\xff\xe0 cut"])
def test_a_broken_compressed_image_is_refused(data):
    with pytest.raises(ImageError, match="JPEG or PNG"):
        decode_compressed(data)


def test_a_picture_that_claims_to_be_larger_than_any_is_refused():
    def chunk(kind, data):
        checked = kind + data
        return struct.pack(">I", len(data)) + checked + struct.pack(">I", zlib.crc32(checked))

    size = struct.pack(">IIBBBBB", 60_000, 60_000, 8, 2, 0, 0, 0)
    head = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", size)
    data = head + chunk(b"IDAT", zlib.compress(b"0")) + chunk(b"IEND", b"")
    with pytest.raises(ImageError, match="no readable JPEG or PNG"):
        decode_compressed(data)


def test_fit_copies_exactly_where_no_resize_is_needed():
    """The simulator's cameras: what training saw is what the nodes see, bit for bit."""
    image = np.random.default_rng(1).integers(0, 256, (160, 160, 3), np.uint8)
    spec = ImageSpec((96, 96), 1.0, (44 / 160, 32 / 160, 140 / 160, 128 / 160))
    fitted = fit_image(image, spec)
    np.testing.assert_array_equal(fitted, image[44:140, 32:128])
    assert not np.shares_memory(fitted, image)
    wrist = image[:96, :96]
    spec = ImageSpec((80, 96), 1.0, (0.0, 0.0, 80 / 96, 1.0))
    np.testing.assert_array_equal(fit_image(wrist, spec), wrist[:80])


def test_a_wide_camera_loses_its_sides_evenly_and_shows_the_same_part():
    square = np.random.default_rng(2).integers(0, 256, (160, 160, 3), np.uint8)
    triple = cv2.resize(square, (480, 480), interpolation=cv2.INTER_NEAREST)
    wide = np.zeros((480, 640, 3), np.uint8)
    wide[:, 80:560] = triple
    spec = ImageSpec((96, 96), 1.0, (44 / 160, 32 / 160, 140 / 160, 128 / 160))
    np.testing.assert_array_equal(fit_image(wide, spec), fit_image(square, spec))
    tall = np.ascontiguousarray(wide.transpose(1, 0, 2))
    spec = ImageSpec((160, 160))
    np.testing.assert_array_equal(fit_image(tall, spec), square.transpose(1, 0, 2))


def test_an_image_too_small_for_the_crop_is_refused():
    with pytest.raises(ImageError, match="too small"):
        fit_image(np.zeros((2, 2, 3), np.uint8), ImageSpec((4, 4), 1.0, (0.0, 0.0, 0.1, 0.1)))
