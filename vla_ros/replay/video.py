"""A film of a recorded run: the scene drawn from the recorded state, beside what the policy saw."""

import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import cv2
import imageio_ffmpeg
import numpy as np
from rosbags.highlevel import AnyReader

from vla_ros.sim.panda import ARM_JOINTS, GRIPPER_JOINTS, PandaSim
from vla_ros.types import Array, ImageArray

RATE_HZ = 25
HEIGHT, SCENE_WIDTH, VIEW = 600, 800, 288
WIDTH = SCENE_WIDTH + VIEW + 32
BACKGROUND, INK, FAINT = (24, 26, 30), (235, 235, 235), (150, 155, 165)
FONT = cv2.FONT_HERSHEY_SIMPLEX


class VideoError(RuntimeError):
    """A bag holds nothing to show, or the film cannot be written."""


@dataclass(slots=True)
class _Moment:
    """The newest of everything, at one time of the recording."""

    joints: Array | None = None
    gripper: float = 0.0
    cubes: Array | None = None
    instruction: str = ""
    speed_m_s: float = 0.0
    success: bool = False


def write_video(bag: Path, target: Path) -> int:
    """Write `target`, an MP4 (H.264), from a bag of the simulated robot; return its frames.

    The film is drawn from `/joint_states` and `/task/objects`: it shows the recorded motion, with
    the pictures `/observation/<camera>` that the policy was given in that moment.

    Raises:
        VideoError: If the bag has no joint states or objects, or the encoder fails.

    """
    partial = target.with_suffix(".partial.mp4")
    encoder = subprocess.Popen(  # noqa: S603 - the program of the wheel, no shell
        _encoder_command(partial),
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
    )
    pipe = encoder.stdin
    if pipe is None:
        msg = "the video encoder has no input pipe"
        raise VideoError(msg)
    frames = 0
    try:
        with PandaSim() as scene:
            for picture in _pictures(bag, scene):
                pipe.write(picture.tobytes())
                frames += 1
    except BrokenPipeError:
        frames = 0
    _, errors = encoder.communicate()
    if encoder.returncode != 0 or frames == 0:
        partial.unlink(missing_ok=True)
        reason = errors.decode(errors="replace").strip() or "no joint states and objects recorded"
        msg = f"no video of {bag}: {reason}"
        raise VideoError(msg)
    partial.replace(target)
    return frames


def _encoder_command(target: Path) -> list[str]:
    return [
        imageio_ffmpeg.get_ffmpeg_exe(),
        *("-loglevel", "error", "-y"),
        *("-f", "rawvideo", "-pix_fmt", "rgb24", "-s", f"{WIDTH}x{HEIGHT}", "-r", str(RATE_HZ)),
        *("-i", "-", "-an", "-c:v", "libx264", "-preset", "veryfast", "-crf", "23"),
        *("-pix_fmt", "yuv420p", "-movflags", "+faststart", str(target)),
    ]


def _pictures(bag: Path, scene: PandaSim) -> Iterator[ImageArray]:
    moment = _Moment()
    views: dict[str, ImageArray] = {}
    start_ns: int | None = None
    next_ns = 0
    with AnyReader([bag]) as reader:
        for connection, time_ns, data in reader.messages():
            while start_ns is not None and time_ns >= next_ns:
                yield _compose(scene, moment, views, (next_ns - start_ns) / 1e9)
                next_ns += round(1e9 / RATE_HZ)
            message = reader.deserialize(data, connection.msgtype)
            _update(moment, views, connection.topic, message)
            if start_ns is None and moment.joints is not None and moment.cubes is not None:
                start_ns = next_ns = time_ns
    if start_ns is not None:
        yield _compose(scene, moment, views, (next_ns - start_ns) / 1e9)


def _update(moment: _Moment, views: dict[str, ImageArray], topic: str, message: object) -> None:
    """Take over what a message says. `message` is of rosbags' generated classes."""
    get = message.__getattribute__
    if topic == "/joint_states":
        angles = dict(zip(get("name"), get("position"), strict=True))
        moment.joints = np.array([angles[name] for name in ARM_JOINTS])
        moment.gripper = float(sum(angles[name] for name in GRIPPER_JOINTS))
    elif topic == "/task/objects":
        moment.cubes = np.array(
            [
                (
                    *(getattr(p.position, k) for k in "xyz"),
                    *(getattr(p.orientation, k) for k in "xyzw"),
                )
                for p in get("poses")
            ]
        )
    elif topic == "/instruction":
        moment.instruction = get("data")
    elif topic == "/safe_command":
        linear = get("twist").linear
        moment.speed_m_s = float(np.sqrt(linear.x**2 + linear.y**2 + linear.z**2))
    elif topic == "/task/success":
        moment.success = moment.success or bool(get("data"))
    elif topic.startswith("/observation/"):
        image = np.frombuffer(get("data"), np.uint8)
        views[topic.rsplit("/", 1)[1]] = image.reshape(get("height"), get("width"), 3)


def _compose(
    scene: PandaSim, moment: _Moment, views: dict[str, ImageArray], seconds: float
) -> ImageArray:
    picture = np.full((HEIGHT, WIDTH, 3), BACKGROUND, np.uint8)
    if moment.joints is not None and moment.cubes is not None:
        scene.set_state(moment.joints, moment.gripper, moment.cubes)
        picture[:, :SCENE_WIDTH] = scene.render_pretty("side", HEIGHT, SCENE_WIDTH)
    top = 8
    left = SCENE_WIDTH + 16
    for name, image in sorted(views.items()):
        height = round(VIEW * image.shape[0] / image.shape[1])
        _write(picture, f"policy input: {name}", (left, top + 14), FAINT, 0.45)
        view = cv2.resize(image, (VIEW, height), interpolation=cv2.INTER_NEAREST)
        bottom = min(top + 20 + height, HEIGHT)
        picture[top + 20 : bottom, left : left + VIEW] = view[: bottom - top - 20]
        top = bottom + 4
    cv2.rectangle(picture, (0, HEIGHT - 44), (SCENE_WIDTH, HEIGHT), BACKGROUND, -1)
    said = f'"{moment.instruction}"' if moment.instruction else "no instruction yet"
    _write(picture, said, (16, HEIGHT - 16), INK if moment.instruction else FAINT, 0.65)
    told = "done" if moment.success else f"{moment.speed_m_s:.2f} m/s"
    _write(picture, f"{told}   {seconds:5.2f} s", (SCENE_WIDTH - 210, HEIGHT - 16), FAINT, 0.55)
    return picture


def _write(
    picture: ImageArray, text: str, at: tuple[int, int], colour: tuple[int, int, int], size: float
) -> None:
    cv2.putText(picture, text, at, FONT, size, colour, 1, cv2.LINE_AA)
