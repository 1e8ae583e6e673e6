"""All that a model is shown: of one moment, or of the newest of several."""

from collections.abc import Mapping
from dataclasses import dataclass

from vla_ros.types import Array, ImageArray, JointSample


@dataclass(frozen=True, slots=True)
class Snapshot:
    """What the sensors showed at an earlier moment.

    Attributes:
        stamp_ns: Stamp of the oldest of the images.
        images: RGB image by camera, uint8, shape (height, width, 3), at the bundle's size.
        joints: The measured joints at that time.
        tcp_position: Of the TCP in the base frame, m, shape (3,).
        tcp_rotation: Of the TCP in the base frame, shape (3, 3).

    """

    stamp_ns: int
    images: Mapping[str, ImageArray]
    joints: JointSample
    tcp_position: Array
    tcp_rotation: Array


@dataclass(frozen=True, slots=True)
class Observation:
    """All that a model is shown.

    Attributes:
        stamp_ns: Stamp of the oldest of the images.
        images: RGB image by camera, uint8, shape (height, width, 3), at the bundle's size.
        joints: The measured joints at that time.
        joint_names: Names of `joints.position`, in its order.
        tcp_position: Of the TCP in the base frame, m, shape (3,).
        tcp_rotation: Of the TCP in the base frame, shape (3, 3).
        instruction: What to do, in words.
        epoch: Number of the stretch of motion that it belongs to. The controller begins a new one
            whenever motion is broken off, and takes no chunk of an older one.
        history: The moments before this one, oldest first: one fewer than the manifest's
            `history.steps`.

    """

    stamp_ns: int
    images: Mapping[str, ImageArray]
    joints: JointSample
    joint_names: tuple[str, ...]
    tcp_position: Array
    tcp_rotation: Array
    instruction: str
    epoch: int = 0
    history: tuple[Snapshot, ...] = ()
