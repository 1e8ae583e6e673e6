"""The strip of frames: what the cameras saw, a dozen times in a run."""

import base64
import itertools
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np

from vla_ros.observation.image import ImageError
from vla_ros.replay.bags import BagError, BagTopic, open_bag
from vla_ros.replay.decoding import Decoder
from vla_ros.replay.report.html import Html, el
from vla_ros.replay.report.scale import clock
from vla_ros.replay.result import ReplayResult
from vla_ros.types import Frame, ImageArray

MOMENTS = 12
WIDTH_PX, HEIGHT_PX = 176, 264
JPEG_QUALITY = 72


@dataclass(frozen=True, slots=True)
class Pictures:
    """What the cameras saw, a few pictures of each.

    Attributes:
        frames: The pictures, in any order.
        problems: What kept pictures from being shown, one line each.

    """

    frames: Sequence[Frame] = ()
    problems: Sequence[str] = ()


def read_pictures(result: ReplayResult) -> Pictures:
    """Read some pictures of each camera from a run's bag, evenly over the time that it ran.

    Args:
        result: The run, which names the bag and the cameras' topics.

    Raises:
        BagError: If the bag cannot be read.

    """
    frames: list[Frame] = []
    bad: Counter[str] = Counter()
    names = {topic: camera for camera, topic in result.cameras.items()}
    if not names:
        return Pictures()
    with open_bag(result.bag, topics=list(names), remap=result.remap) as opened:
        decoder = Decoder(opened)
        for topic in opened.topics.values():
            for message in opened.messages([topic.name], at_ns=_moments(topic)):
                try:
                    image = decoder.picture(message)
                except (BagError, ImageError, ValueError, ArithmeticError, AttributeError):
                    bad[message.topic] += 1
                    continue
                stamp = message.stamp_ns
                if stamp is None or not result.start_ns <= stamp <= result.end_ns:
                    stamp = message.received_ns
                frames.append(Frame(names[message.topic], stamp, image))
    problems = [f"{topic}: {count} pictures cannot be shown" for topic, count in bad.items()]
    return Pictures(tuple(frames), tuple(problems))


def _moments(topic: BagTopic) -> list[int]:
    """Return times of reception, evenly from the first picture to the last."""
    steps = np.linspace(0, topic.last_ns - topic.first_ns, MOMENTS)
    return [topic.first_ns + round(step) for step in steps.tolist()]


def strip(frames: Sequence[Frame], start_ns: int, *, minutes: bool = False) -> Html | None:
    """Return the pictures in columns of the same time, or None without any."""
    cameras = sorted({frame.camera for frame in frames})
    if not frames:
        return None
    by_camera = {
        name: sorted((f for f in frames if f.camera == name), key=lambda f: f.stamp_ns)
        for name in cameras
    }
    columns = []
    for row in itertools.zip_longest(*by_camera.values()):
        shown = [frame for frame in row if frame is not None]
        seconds = (shown[0].stamp_ns - start_ns) / 1e9
        columns.append(
            el(
                "figure",
                *(
                    el(
                        "img",
                        src=data_uri(frame.image),
                        alt=f"{frame.camera} at {clock((frame.stamp_ns - start_ns) / 1e9)}",
                    )
                    for frame in shown
                ),
                el("figcaption", clock(seconds, minutes=minutes)),
                class_="moment",
                data_t=round(1e3 * seconds),
            )
        )
    return el("div", *columns, class_="strip")


def data_uri(image: ImageArray) -> str:
    """Return a small JPEG of an RGB image (height, width, 3) as a data URI."""
    height, width = image.shape[:2]
    scale = min(WIDTH_PX / width, HEIGHT_PX / height)
    if scale < 1.0:
        size = (max(1, round(scale * width)), max(1, round(scale * height)))
        image = np.asarray(cv2.resize(image, size, interpolation=cv2.INTER_AREA), np.uint8)
    done, data = cv2.imencode(
        ".jpg", cv2.cvtColor(image, cv2.COLOR_RGB2BGR), [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY]
    )
    if not done:
        msg = f"an image of {width}x{height} pixels cannot be written as JPEG"
        raise ValueError(msg)
    return "data:image/jpeg;base64," + base64.b64encode(data.tobytes()).decode("ascii")
