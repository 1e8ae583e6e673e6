"""CvBridge converts as ros-perception/vision_opencv does."""

import sys

import cv2
import numpy as np
import pytest

import vla_ros_standalone  # noqa: F401  (installs the import hook)

cv_bridge = pytest.importorskip("cv_bridge")
if "vla_ros_standalone" not in cv_bridge.__file__:
    pytest.skip("a real cv_bridge is sourced", allow_module_level=True)

from cv_bridge import CvBridge, CvBridgeError  # noqa: E402
from sensor_msgs.msg import CompressedImage, Image  # noqa: E402
from std_msgs.msg import Header  # noqa: E402

BRIDGE = CvBridge()
RANDOM = np.random.default_rng(3)
RGB = RANDOM.integers(0, 256, (5, 7, 3), np.uint8)


def image(pixels: np.ndarray, encoding: str, *, padding: int = 0, big: bool = False) -> Image:
    """Make a message by hand, row by row."""
    rows = [row.astype(row.dtype.newbyteorder(">" if big else "<")).tobytes() for row in pixels]
    return Image(
        height=pixels.shape[0],
        width=pixels.shape[1],
        encoding=encoding,
        is_bigendian=int(big),
        step=len(rows[0]) + padding,
        data=b"".join(row + b"\xee" * padding for row in rows),
    )


@pytest.mark.parametrize(
    ("encoding", "dtype", "channels"),
    [
        ("rgb8", "uint8", 3),
        ("bgra8", "uint8", 4),
        ("mono8", "uint8", 1),
        ("mono16", "uint16", 1),
        ("bayer_rggb8", "uint8", 1),
        ("8UC3", "uint8", 3),
        ("8UC1", "uint8", 1),
        ("8U", "uint8", 1),
        ("16UC1", "uint16", 1),
        ("16SC2", "int16", 2),
        ("32FC1", "float32", 1),
        ("64FC4", "float64", 4),
    ],
)
@pytest.mark.parametrize("padding", [0, 1, 5])
@pytest.mark.parametrize("big", [False, True])
def test_pixels_survive_padding_and_byte_order(encoding, dtype, channels, padding, big):
    shape = (4, 6) if channels == 1 else (4, 6, channels)
    pixels = RANDOM.integers(0, 100, shape).astype(dtype)
    out = BRIDGE.imgmsg_to_cv2(image(pixels, encoding, padding=padding, big=big))
    assert out.dtype == np.dtype(dtype)
    assert out.dtype.isnative
    assert out.flags.c_contiguous
    np.testing.assert_array_equal(out, pixels)


@pytest.mark.parametrize(
    ("source", "pixels"),
    [
        ("rgb8", RGB),
        ("bgr8", RGB[..., ::-1]),
        ("rgba8", np.dstack([RGB, np.full((5, 7), 9, np.uint8)])),
        ("bgra8", np.dstack([RGB[..., ::-1], np.full((5, 7), 9, np.uint8)])),
        ("rgb16", RGB.astype(np.uint16) * 257),
    ],
)
def test_every_colour_encoding_gives_the_same_rgb(source, pixels):
    out = BRIDGE.imgmsg_to_cv2(image(np.ascontiguousarray(pixels), source), "rgb8")
    np.testing.assert_array_equal(out, RGB)


def test_grey_and_depth():
    grey = RANDOM.integers(0, 256, (4, 6), np.uint8)
    assert BRIDGE.imgmsg_to_cv2(image(grey, "mono8"), "rgb8").shape == (4, 6, 3)
    deep = BRIDGE.imgmsg_to_cv2(image(grey, "mono8"), "mono16")
    np.testing.assert_array_equal(deep, grey.astype(np.uint16) * 257)
    np.testing.assert_array_equal(BRIDGE.imgmsg_to_cv2(image(deep, "mono16"), "mono8"), grey)
    luma = BRIDGE.imgmsg_to_cv2(image(RGB, "rgb8"), "mono8")
    np.testing.assert_array_equal(luma, cv2.cvtColor(RGB, cv2.COLOR_RGB2GRAY))
    floats = BRIDGE.imgmsg_to_cv2(image(grey.astype(np.uint16), "16UC1"), "32FC1")
    np.testing.assert_array_equal(floats, grey.astype(np.float32))


@pytest.mark.parametrize(
    ("pattern", "red_at"),
    [("rggb", (0, 0)), ("bggr", (1, 1)), ("gbrg", (1, 0)), ("grbg", (0, 1))],
)
def test_a_bayer_pattern_gives_the_colour_it_names(pattern, red_at):
    mosaic = np.zeros((8, 8), np.uint8)
    mosaic[red_at[0] :: 2, red_at[1] :: 2] = 200
    centre = BRIDGE.imgmsg_to_cv2(image(mosaic, f"bayer_{pattern}8"), "rgb8")[4, 4]
    assert centre[0] > 100 > centre[2]


def test_a_wrong_conversion_is_refused():
    with pytest.raises(CvBridgeError, match="Unrecognized"):
        BRIDGE.imgmsg_to_cv2(image(RGB, "rgb9"))
    with pytest.raises(CvBridgeError, match="not a color format"):
        BRIDGE.imgmsg_to_cv2(image(RGB, "8UC3"), "rgb8")
    with pytest.raises(CvBridgeError, match="number of channels"):
        BRIDGE.imgmsg_to_cv2(image(RGB, "rgb8"), "8UC1")
    with pytest.raises(CvBridgeError, match="Unsupported"):
        BRIDGE.imgmsg_to_cv2(image(RGB, "rgb8"), "bayer_rggb8")
    assert issubclass(CvBridgeError, TypeError)


@pytest.mark.parametrize(("step", "size"), [(20, 105), (21, 104), (21, 0), (0, 105)])
def test_a_malformed_image_is_refused(step, size):
    broken = Image(height=5, width=7, encoding="rgb8", step=step, data=bytes(size))
    with pytest.raises(CvBridgeError, match="7x5"):
        BRIDGE.imgmsg_to_cv2(broken)


def test_images_out():
    header = Header(frame_id="camera")
    out = BRIDGE.cv2_to_imgmsg(RGB, "rgb8", header=header)
    assert (out.height, out.width, out.step, out.encoding) == (5, 7, 21, "rgb8")
    assert out.header is header
    assert bytes(out.data) == RGB.tobytes()
    assert out.is_bigendian == (sys.byteorder == "big")
    assert BRIDGE.cv2_to_imgmsg(RGB[:, :, 0].astype(np.float32)).encoding == "32FC1"
    np.testing.assert_array_equal(
        BRIDGE.imgmsg_to_cv2(BRIDGE.cv2_to_imgmsg(RGB[::2, ::2])), RGB[::2, ::2]
    )
    with pytest.raises(CvBridgeError, match="incompatible type 8UC3"):
        BRIDGE.cv2_to_imgmsg(RGB, "mono8")
    with pytest.raises(TypeError, match="numpy"):
        BRIDGE.cv2_to_imgmsg([[1, 2]])


def test_compressed_images():
    out = BRIDGE.cv2_to_compressed_imgmsg(RGB[..., ::-1], "png")
    assert out.format == "png"
    np.testing.assert_array_equal(BRIDGE.compressed_imgmsg_to_cv2(out), RGB[..., ::-1])
    np.testing.assert_array_equal(BRIDGE.compressed_imgmsg_to_cv2(out, "rgb8"), RGB)
    grey = BRIDGE.cv2_to_compressed_imgmsg(RGB[:, :, 0], "png")
    assert BRIDGE.compressed_imgmsg_to_cv2(grey, "rgb8").shape == (5, 7, 3)
    assert BRIDGE.cv2_to_compressed_imgmsg(RGB).format == "jpg"
    for data in (b"", b"no image"):
        with pytest.raises(CvBridgeError, match="decoded"):
            BRIDGE.compressed_imgmsg_to_cv2(CompressedImage(format="jpeg", data=data))
    with pytest.raises(CvBridgeError):
        BRIDGE.cv2_to_compressed_imgmsg(RGB, "docx")
