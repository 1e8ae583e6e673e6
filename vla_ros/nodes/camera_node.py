"""camera_node: from the cameras' images to what the bundle's model sees."""

import sys
from array import array
from collections.abc import Callable, Sequence
from functools import partial

from diagnostic_msgs.msg import DiagnosticStatus
from rclpy.node import Node
from sensor_msgs.msg import CompressedImage, Image

from vla_ros.nodes._common import (
    SENSOR_QOS,
    Diagnostics,
    Health,
    Laps,
    Percentiles,
    Rate,
    declare,
    now_ns,
    run,
    stamp_to_ns,
)
from vla_ros.observation.image import ImageError, decode_compressed, decode_image, fit_image
from vla_ros.policy.bundle import Bundle
from vla_ros.policy.cadence import Cadence
from vla_ros.policy.manifest import Camera
from vla_ros.types import ImageArray

_SILENCE_MS = 1000.0
"""A camera without frames for longer than this is reported."""


class CameraNode(Node):
    """Decodes `<camera>/image_raw` and publishes `observation/<camera>` at the bundle's size."""

    def __init__(self) -> None:
        """Declare the parameters and subscribe.

        Raises:
            ValueError: If the bundle cannot be used, or a parameter contradicts it.

        """
        super().__init__("camera_node")
        bundle = Bundle.load(declare(self, "bundle", "", "Folder of the policy bundle"))
        names = declare(self, "cameras", [""], "Cameras to serve; [''] serves all the bundle's")
        transport = declare(
            self, "transport", "raw", "raw: <camera>/image_raw; compressed: .../compressed"
        )
        if transport not in {"raw", "compressed"}:
            msg = f"parameter 'transport' is {transport!r}, but must be 'raw' or 'compressed'"
            raise ValueError(msg)
        chosen = [name for name in names if name] or bundle.camera_names
        self._cadence = Cadence()
        self._streams = [
            _Stream(self, bundle.camera(name), transport, self._cadence) for name in chosen
        ]
        self._diagnostics = Diagnostics(self, self._health)
        self.get_logger().info(
            f"bundle {bundle.manifest.name!r} ({bundle.path}): cameras {', '.join(chosen)}, "
            f"transport {transport}"
        )

    def _health(self, time_ns: int) -> Health:
        faults = [fault for stream in self._streams for fault in stream.faults(time_ns)]
        values = {k: v for stream in self._streams for k, v in stream.values(time_ns).items()}
        values |= self._cadence.report().values()
        if faults:
            return Health(DiagnosticStatus.WARN, "; ".join(faults), values)
        return Health(DiagnosticStatus.OK, "all cameras deliver", values)


class _Stream:
    """One camera: its subscription, its publisher and its counts."""

    def __init__(self, node: Node, camera: Camera, transport: str, cadence: Cadence) -> None:
        self._node = node
        self._cadence = cadence
        self._camera = camera
        self._created_ns = now_ns(node)
        self._last_stamp_ns = -1
        self._received = Rate()
        self._published = Rate()
        self._age_ms = Percentiles()
        self._work_ms = Percentiles()
        self._duplicate = 0
        self._out_of_order = 0
        self._undecodable = 0
        self._undecodable_reason = ""
        self._undecodable_now = False
        self._publisher = node.create_publisher(Image, f"observation/{camera.name}", SENSOR_QOS)
        topic = f"{camera.name}/image_raw"
        if transport == "raw":
            message, decode = Image, decode_image
        else:
            message, decode = CompressedImage, _decode_compressed
            topic += "/compressed"
        self._topic = topic
        node.create_subscription(message, topic, partial(self._receive, decode=decode), SENSOR_QOS)

    def faults(self, time_ns: int) -> list[str]:
        """Return what is wrong with the camera."""
        faults = []
        if self._created_ns == 0:
            self._created_ns = time_ns  # Simulated time had not begun.
        last_ns = self._received.last_ns
        silence_ms = (time_ns - (self._created_ns if last_ns is None else last_ns)) / 1e6
        if silence_ms > _SILENCE_MS:
            faults.append(f"no frames on {self._topic} for {silence_ms / 1e3:.1f} s")
        if self._undecodable_now:
            faults.append(f"{self._topic}: {self._undecodable_reason}")
        return faults

    def values(self, time_ns: int) -> dict[str, object]:
        """Return the camera's figures."""
        name = self._camera.name
        return {
            f"{name} rate Hz": f"{self._received.rate_hz(time_ns):.1f}",
            f"{name} published": self._published.count,
            f"{name} dropped duplicate": self._duplicate,
            f"{name} dropped out-of-order": self._out_of_order,
            f"{name} dropped undecodable": self._undecodable,
            **({f"{name} last error": self._undecodable_reason} if self._undecodable else {}),
            **self._age_ms.report(f"{name} age on arrival ms"),
            **self._work_ms.report(f"{name} decode ms"),
        }

    def _receive(self, message: Image | CompressedImage, decode: Callable[..., ImageArray]) -> None:
        time_ns = now_ns(self._node)
        stamp_ns = stamp_to_ns(message.header.stamp)
        self._received.add(time_ns)
        self._age_ms.add((time_ns - stamp_ns) / 1e6)
        if not self._is_newer(stamp_ns, time_ns):
            return
        lap = Laps(self._cadence.add)
        try:
            image = fit_image(decode(message), self._camera.image)
        except ImageError as err:
            self._refuse(str(err))
            return
        lap("decode")
        self._undecodable_now = False
        self._publish(message, image)
        self._work_ms.add((now_ns(self._node) - time_ns) / 1e6)
        self._published.add(time_ns)

    def _is_newer(self, stamp_ns: int, time_ns: int) -> bool:
        """Count a frame that is not newer than the last, unless the clock was set back since."""
        if stamp_ns > self._last_stamp_ns or self._last_stamp_ns > time_ns:
            self._last_stamp_ns = stamp_ns
            return True
        if stamp_ns == self._last_stamp_ns:
            self._duplicate += 1
        else:
            self._out_of_order += 1
        return False

    def _refuse(self, reason: str) -> None:
        self._undecodable += 1
        self._undecodable_now = True
        self._undecodable_reason = reason
        self._node.get_logger().error(
            f"{self._topic}: frame dropped: {reason}", throttle_duration_sec=5.0
        )

    def _publish(self, source: Image | CompressedImage, image: ImageArray) -> None:
        height, width = image.shape[:2]
        message = Image(
            header=source.header,
            height=height,
            width=width,
            encoding="rgb8",
            is_bigendian=0,
            step=3 * width,
        )
        # rclpy takes an array.array as it is, and checks anything else byte by byte.
        message.data = array("B", image.tobytes())
        self._publisher.publish(message)


def _decode_compressed(message: CompressedImage) -> ImageArray:
    return decode_compressed(message.data)


def main(args: Sequence[str] | None = None) -> int:
    """Run the node; return the exit code."""
    return run(CameraNode, "camera_node", args)


if __name__ == "__main__":
    sys.exit(main())
