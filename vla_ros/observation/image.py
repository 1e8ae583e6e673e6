"""From a camera message's bytes to the RGB image that a model was trained on."""

from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from vla_ros.types import ImageArray

Buffer = bytes | bytearray | memoryview | NDArray[np.uint8]


class ImageError(ValueError):
    """An image cannot be decoded: its encoding is unknown, or its sizes do not fit together."""


@dataclass(frozen=True, slots=True)
class ImageSpec:
    """Which part of a camera's image a model sees, and at what size.

    Attributes:
        size: Height and width of the result, in pixels.
        source_aspect: Width over height of the source. A wider or taller source loses its edges,
            evenly on both sides, before anything else.
        crop: Top, left, bottom and right edge of the part used, as fractions of what is left then.

    """

    size: tuple[int, int]
    source_aspect: float = 1.0
    crop: tuple[float, float, float, float] = (0.0, 0.0, 1.0, 1.0)


def fit_image(image: ImageArray, spec: ImageSpec) -> ImageArray:
    """Return the part of `image` that `spec` names, at its size.

    Training, evaluation and camera_node all call this, so that a model sees on the robot what it
    saw in training. Area averaging avoids aliasing; where no resize is needed pixels are copied.

    Args:
        image: RGB, uint8, shape (height, width, 3), of any size.
        spec: Part and size.

    Returns:
        RGB, uint8, shape (*spec.size, 3), in memory of its own.

    Raises:
        ImageError: If the image is so small that the part has no pixels.

    """
    height, width = image.shape[:2]
    inner_height, inner_width = height, width
    if width > height * spec.source_aspect:
        inner_width = round(height * spec.source_aspect)
    else:
        inner_height = round(width / spec.source_aspect)
    top, left = (height - inner_height) // 2, (width - inner_width) // 2
    rows = [top + round(spec.crop[i] * inner_height) for i in (0, 2)]
    columns = [left + round(spec.crop[i] * inner_width) for i in (1, 3)]
    part = image[rows[0] : rows[1], columns[0] : columns[1]]
    if part.size == 0:
        msg = f"an image of {width}x{height} pixels is too small for the crop {spec.crop}"
        raise ImageError(msg)
    if part.shape[:2] == tuple(spec.size):
        return part.copy()
    fitted = cv2.resize(part, (spec.size[1], spec.size[0]), interpolation=cv2.INTER_AREA)
    return np.asarray(fitted, np.uint8)


@dataclass(frozen=True, slots=True)
class _Encoding:
    """Channels of a pixel, bytes of each, and OpenCV's conversion to RGB, if one is needed."""

    channels: int
    conversion: int | None
    depth: int = 1


_COLOURS = {
    "rgb": (3, None),
    "bgr": (3, cv2.COLOR_BGR2RGB),
    "rgba": (4, cv2.COLOR_RGBA2RGB),
    "bgra": (4, cv2.COLOR_BGRA2RGB),
    "mono": (1, cv2.COLOR_GRAY2RGB),
    # OpenCV names a Bayer pattern by its second row, ROS by its first.
    "bayer_rggb": (1, cv2.COLOR_BayerBG2RGB),
    "bayer_bggr": (1, cv2.COLOR_BayerRG2RGB),
    "bayer_gbrg": (1, cv2.COLOR_BayerGR2RGB),
    "bayer_grbg": (1, cv2.COLOR_BayerGB2RGB),
}
_UYVY, _YUYV = _Encoding(2, cv2.COLOR_YUV2RGB_UYVY), _Encoding(2, cv2.COLOR_YUV2RGB_YUYV)
_ENCODINGS = {
    **{
        f"{name}{8 * depth}": _Encoding(*form, depth)
        for depth in (1, 2)
        for name, form in _COLOURS.items()
    },
    # The second of each pair is its older name.
    "uyvy": _UYVY,
    "yuv422": _UYVY,
    "yuyv": _YUYV,
    "yuv422_yuy2": _YUYV,
}
"""Those of sensor_msgs/image_encodings.hpp that say what the colours are, but for planar ones."""


def decode_raw(
    data: Buffer,
    *,
    height: int,
    width: int,
    encoding: str,
    step: int,
    is_bigendian: bool = False,
) -> ImageArray:
    """Return the RGB image in the buffer of a sensor_msgs/Image.

    Args:
        data: Rows of pixels, `step` bytes each; only the last may lack its padding.
        height: Rows.
        width: Pixels in a row.
        encoding: rgb8, bgr8, rgba8, bgra8, mono8, bayer_rggb8 and the three other patterns, the
            same with 16 bits (of which the high byte is used), uyvy or yuyv (yuv422, yuv422_yuy2).
        step: Bytes from one row to the next, at least a row's own.
        is_bigendian: Byte order of 16 bits.

    Returns:
        RGB, uint8, shape (height, width, 3). It may share memory with `data`.

    Raises:
        ImageError: If the encoding is not among these, or the sizes do not fit together.

    """
    if encoding not in _ENCODINGS:
        msg = f"encoding {encoding!r} is not supported: use one of {', '.join(_ENCODINGS)}"
        raise ImageError(msg)
    form = _ENCODINGS[encoding]
    row = width * form.channels * form.depth
    if height < 1 or width < 1:
        msg = f"the image is empty: {width}x{height} pixels"
        raise ImageError(msg)
    if width % 2 and form in (_UYVY, _YUYV):
        msg = f"the image is {width} pixels wide, but in {encoding} every two share their colour"
        raise ImageError(msg)
    if step < row:
        msg = f"step is {step} bytes, but {width} pixels of {encoding} take {row}"
        raise ImageError(msg)
    buffer = np.frombuffer(data, np.uint8)
    if not step * (height - 1) + row <= buffer.size <= step * height:
        msg = (
            f"data holds {buffer.size} bytes, but {height} rows of {step} bytes ({width} pixels of "
            f"{encoding} each) take {step * height}"
        )
        raise ImageError(msg)
    if buffer.size != row * height:  # rows have padding
        padded = np.lib.stride_tricks.as_strided(buffer, (height, row), (step, 1), writeable=False)
        buffer = np.ascontiguousarray(padded)
    high = 0 if is_bigendian else form.depth - 1
    pixels: ImageArray = buffer.reshape(height, width, form.channels, form.depth)[..., high]
    if form.conversion is None:
        return pixels
    return np.asarray(cv2.cvtColor(pixels, form.conversion), np.uint8)


def decode_image(message: Any) -> ImageArray:  # noqa: ANN401 - rclpy's class, or a bag's
    """Return the RGB image of a sensor_msgs/Image, as `decode_raw` does."""
    return decode_raw(
        message.data,
        height=message.height,
        width=message.width,
        encoding=message.encoding,
        step=message.step,
        is_bigendian=bool(message.is_bigendian),
    )


def decode_compressed(data: Buffer) -> ImageArray:
    """Return the RGB image in the JPEG or PNG of a sensor_msgs/CompressedImage.

    Args:
        data: The file's bytes. Its header says what it is: the message's `format` is not needed.

    Returns:
        RGB, uint8, shape (height, width, 3).

    Raises:
        ImageError: If the bytes are no image, or a broken one.

    """
    buffer = np.frombuffer(data, np.uint8)
    # The sensor's orientation counts, as in training: not a flag in the file.
    flags = cv2.IMREAD_COLOR | cv2.IMREAD_IGNORE_ORIENTATION
    try:
        image = cv2.imdecode(buffer, flags) if buffer.size else None
    except cv2.error:  # of pictures that claim to be larger than any
        image = None
    if image is None:
        msg = f"the {buffer.size} bytes of the compressed image are no readable JPEG or PNG"
        raise ImageError(msg)
    return np.asarray(cv2.cvtColor(image, cv2.COLOR_BGR2RGB), np.uint8)
