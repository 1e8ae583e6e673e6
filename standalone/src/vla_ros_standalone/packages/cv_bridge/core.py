"""The class ``CvBridge`` of ros-perception/vision_opencv, without its C++ part.

Signatures, results and conversion rules are those of ``cv_bridge/core.py`` and ``cv_bridge.cpp``
(branch ``humble``). Malformed images raise ``CvBridgeError``, where the original leaves some of it
to numpy.
"""

from __future__ import annotations

import re
import sys

import cv2
import numpy as np
from sensor_msgs.msg import CompressedImage, Image

_DEPTHS = {
    "8U": "uint8",
    "8S": "int8",
    "16U": "uint16",
    "16S": "int16",
    "32S": "int32",
    "32F": "float32",
    "64F": "float64",
}
_NAMES = {dtype: depth for depth, dtype in _DEPTHS.items()}

_COLOURS = {
    "mono8": ("GRAY", "8UC1"),
    "mono16": ("GRAY", "16UC1"),
    "rgb8": ("RGB", "8UC3"),
    "rgb16": ("RGB", "16UC3"),
    "bgr8": ("BGR", "8UC3"),
    "bgr16": ("BGR", "16UC3"),
    "rgba8": ("RGBA", "8UC4"),
    "rgba16": ("RGBA", "16UC4"),
    "bgra8": ("BGRA", "8UC4"),
    "bgra16": ("BGRA", "16UC4"),
    "yuv422": ("YUV_UYVY", "8UC2"),
    "yuv422_yuy2": ("YUV_YUY2", "8UC2"),
    # OpenCV names a Bayer pattern by the second row, ROS by the first.
    "bayer_rggb8": ("BayerBG", "8UC1"),
    "bayer_bggr8": ("BayerRG", "8UC1"),
    "bayer_gbrg8": ("BayerGR", "8UC1"),
    "bayer_grbg8": ("BayerGB", "8UC1"),
    "bayer_rggb16": ("BayerBG", "16UC1"),
    "bayer_bggr16": ("BayerRG", "16UC1"),
    "bayer_gbrg16": ("BayerGR", "16UC1"),
    "bayer_grbg16": ("BayerGB", "16UC1"),
}
"""Encodings with a meaning, by their colour space in OpenCV's names and their type."""


class CvBridgeError(TypeError):
    """A conversion that is not possible."""


class CvBridge:
    """Converts between ``sensor_msgs`` images and OpenCV's numpy arrays."""

    def imgmsg_to_cv2(self, img_msg: Image, desired_encoding: str = "passthrough") -> np.ndarray:
        """Convert an Image.

        Returns:
            Array of shape (h, w) for one channel, else (h, w, channels), in native byte order. With
            ``passthrough`` and rows without padding it shares the message's memory.

        Raises:
            CvBridgeError: Unknown encoding, too few bytes, or no such conversion.
        """
        dtype, channels = self.encoding_to_dtype_with_channels(img_msg.encoding)
        dtype = np.dtype(dtype).newbyteorder(">" if img_msg.is_bigendian else "<")
        height, width, step = img_msg.height, img_msg.width, img_msg.step
        pixel = dtype.itemsize * channels
        if step < width * pixel or len(img_msg.data) < height * step:
            msg = (
                f"{img_msg.encoding} image of {width}x{height} needs rows of {width * pixel} "
                f"bytes, not {step}, and {height * step} bytes in all, not {len(img_msg.data)}"
            )
            raise CvBridgeError(msg)
        # Strides, not a reshape: padding need not be a whole number of pixels.
        image = np.ndarray(
            (height, width, channels),
            dtype,
            np.asarray(img_msg.data, np.uint8),
            strides=(step, pixel, dtype.itemsize),
        )
        image = np.ascontiguousarray(image[:, :, 0] if channels == 1 else image)
        if dtype.itemsize > 1 and bool(img_msg.is_bigendian) != (sys.byteorder == "big"):
            image = image.astype(dtype.newbyteorder("="))
        if desired_encoding == "passthrough":
            return image
        return _convert(image, img_msg.encoding, desired_encoding)

    def cv2_to_imgmsg(self, cvim: np.ndarray, encoding: str = "passthrough", header=None) -> Image:
        """Convert an array of shape (h, w) or (h, w, channels) to an Image.

        Raises:
            TypeError: ``cvim`` is not an array.
            CvBridgeError: Its type is not that of ``encoding``.
        """
        cv_type = self._type_of(cvim)
        if encoding == "passthrough":
            encoding = cv_type
        elif self.encoding_to_cvtype2(encoding) != cv_type:
            msg = f"encoding specified as {encoding}, but image has incompatible type {cv_type}"
            raise CvBridgeError(msg)
        message = Image()
        if header is not None:
            message.header = header
        message.height, message.width = cvim.shape[:2]
        message.encoding = encoding
        message.is_bigendian = int(
            cvim.dtype.byteorder == ">" or (cvim.dtype.byteorder == "=" and sys.byteorder == "big")
        )
        message.data.frombytes(np.ascontiguousarray(cvim).reshape(-1).view(np.uint8))
        message.step = len(message.data) // message.height if message.height else 0
        return message

    def compressed_imgmsg_to_cv2(
        self, cmprs_img_msg: CompressedImage, desired_encoding: str = "passthrough"
    ) -> np.ndarray:
        """Decode a CompressedImage; colour comes out as BGR unless another encoding is desired.

        Raises:
            CvBridgeError: The data are no image that OpenCV reads, or there is no such conversion.
        """
        data = np.frombuffer(cmprs_img_msg.data, np.uint8)
        image = cv2.imdecode(data, cv2.IMREAD_ANYCOLOR) if data.size else None
        if image is None:
            kind = cmprs_img_msg.format
            msg = f"{data.size} bytes of format '{kind}' are no image that can be decoded"
            raise CvBridgeError(msg)
        if desired_encoding == "passthrough":
            return image
        return _convert(image, "bgr8" if image.ndim == 3 else "mono8", desired_encoding)

    def cv2_to_compressed_imgmsg(
        self, cvim: np.ndarray, dst_format: str = "jpg"
    ) -> CompressedImage:
        """Encode an array, BGR or grey, as a CompressedImage.

        Args:
            cvim: Array of shape (h, w) or (h, w, channels).
            dst_format: File suffix that OpenCV knows, such as ``jpg`` or ``png``.

        Raises:
            TypeError: ``cvim`` is not an array.
            CvBridgeError: OpenCV cannot write it in that format.
        """
        self._type_of(cvim)
        try:
            done, encoded = cv2.imencode(f".{dst_format}", cvim)
        except cv2.error as error:
            msg = f"cannot encode as {dst_format}: {error}"
            raise CvBridgeError(msg) from error
        if not done:
            msg = f"cannot encode as {dst_format}"
            raise CvBridgeError(msg)
        message = CompressedImage(format=dst_format)
        message.data.frombytes(encoded.reshape(-1))
        return message

    def dtype_with_channels_to_cvtype2(self, dtype: np.dtype, n_channels: int) -> str:
        """Name OpenCV's type, such as ``8UC3``."""
        try:
            return f"{_NAMES[np.dtype(dtype).name]}C{n_channels}"
        except KeyError:
            msg = f"OpenCV has no type for {dtype}"
            raise CvBridgeError(msg) from None

    def encoding_to_cvtype2(self, encoding: str) -> str:
        """Name OpenCV's type of an encoding (the original gives its number)."""
        if encoding in _COLOURS:
            return _COLOURS[encoding][1]
        match = re.fullmatch(r"(8U|8S|16U|16S|32S|32F|64F)(?:C([0-9]+))?", encoding)
        if match is None or match[2] == "0":
            msg = f"Unrecognized image encoding [{encoding}]"
            raise CvBridgeError(msg)
        return f"{match[1]}C{int(match[2] or 1)}"

    def encoding_to_dtype_with_channels(self, encoding: str) -> tuple[str, int]:
        """Give numpy's type and the number of channels of an encoding."""
        depth, channels = self.encoding_to_cvtype2(encoding).split("C")
        return _DEPTHS[depth], int(channels)

    def _type_of(self, image: np.ndarray) -> str:
        if not isinstance(image, np.ndarray):
            msg = "Your input type is not a numpy array"
            raise TypeError(msg)
        if image.ndim not in (2, 3):
            msg = f"an image has 2 or 3 dimensions, not {image.ndim}"
            raise CvBridgeError(msg)
        return self.dtype_with_channels_to_cvtype2(
            image.dtype, image.shape[2] if image.ndim == 3 else 1
        )


def _convert(image: np.ndarray, source: str, desired: str) -> np.ndarray:
    """Convert colours first, then the depth, as ``cv_bridge::cvtColor``."""
    if source == desired:
        return image.copy()
    bridge = CvBridge()
    source_dtype, source_channels = bridge.encoding_to_dtype_with_channels(source)
    dtype, channels = bridge.encoding_to_dtype_with_channels(desired)
    if source in _COLOURS and desired in _COLOURS:
        before, after = _COLOURS[source][0], _COLOURS[desired][0]
        if before != after:
            image = cv2.cvtColor(image, _conversion_code(before, after, source, desired))
    elif source in _COLOURS or source_channels != channels:
        if source_channels != channels:
            msg = f"[{source}] and [{desired}] do not have the same number of channels"
            raise CvBridgeError(msg)
    elif desired in _COLOURS:
        msg = f"[{source}] is not a color format, but [{desired}] is"
        raise CvBridgeError(msg)
    return _change_depth(image, source_dtype, dtype)


def _conversion_code(before: str, after: str, source: str, desired: str) -> int:
    name = f"COLOR_{before}2{after}"
    if before.startswith("YUV"):
        packing = before.removeprefix("YUV_")
        name = f"COLOR_YUV2{after}_{packing}"
    if after not in ("GRAY", "RGB", "BGR", "RGBA", "BGRA") or not hasattr(cv2, name):
        msg = f"Unsupported conversion from [{source}] to [{desired}]"
        raise CvBridgeError(msg)
    return getattr(cv2, name)


def _change_depth(image: np.ndarray, source: str, wanted: str) -> np.ndarray:
    """Convert as ``cv::Mat::convertTo``: round, saturate, and scale only between 8 and 16 bits."""
    if source == wanted:
        return image
    scale = {("uint8", "uint16"): 257.0, ("uint16", "uint8"): 1 / 257.0}.get((source, wanted), 1.0)
    if wanted.startswith("float"):
        return image.astype(wanted)
    limits = np.iinfo(wanted)
    return np.rint(image * scale).clip(limits.min, limits.max).astype(wanted)
