"""Measures reading a large bag: `python bench/bags.py [--storage mcap] [--mb 2050]`.

Makes a bag of two cameras (640x480 raw and 1280x720 JPEG at 30 Hz), 90 Hz joint states and 30 Hz
commands, reads it in a process of its own, and prints MB/s, messages/s and the peak of memory.
"""

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from rosbags.typesys import Stores, get_typestore

from vla_ros.replay.bags import open_bag
from vla_ros.replay.recording import Recording

START_NS = 1_700_000_000_000_000_000
TICK_NS = 33_333_333
CONTROL = ["/joint_states", "/command", "/gripper_command"]


def main() -> None:
    """Make the bag and read it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--storage", choices=["mcap", "sqlite3"], default="mcap")
    parser.add_argument("--mb", type=int, default=2050, help="size of the bag in MB")
    parser.add_argument("--folder", type=Path, help="where the bag is made; a temporary folder")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument("--read", type=Path, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.read:
        print(json.dumps(measure(args.read)))
        return
    with tempfile.TemporaryDirectory(dir=args.folder) as folder:
        bag = Path(folder) / "bag"
        began = time.perf_counter()
        make(bag, args.storage, args.mb * 1_000_000)
        written_s = time.perf_counter() - began
        # In a process of its own: its peak of memory is that of reading.
        command = [sys.executable, __file__, "--read", str(bag)]
        figures = json.loads(subprocess.run(command, stdout=subprocess.PIPE, check=True).stdout)
        figures["written_mb_s"] = figures["bag_mb"] / written_s
    figures = {name: round(value, 1) for name, value in figures.items()}
    if args.json:
        print(json.dumps(figures))
    else:
        print(args.storage, *(f"{name} {value}" for name, value in figures.items()), sep="\n")


def make(path: Path, storage: str, size: int) -> None:
    """Record a bag of `size` bytes."""
    store = get_typestore(Stores.ROS2_HUMBLE)
    types = store.types
    pixels = np.random.default_rng(0).integers(0, 255, 640 * 480 * 3, dtype=np.uint8)
    stamp = types["builtin_interfaces/msg/Time"](1_700_000_000, 0)
    header = types["std_msgs/msg/Header"](stamp, "camera")
    vector = types["geometry_msgs/msg/Vector3"](0.1, 0.0, 0.0)
    messages = {
        "/front/image_raw": types["sensor_msgs/msg/Image"](
            header, 480, 640, "rgb8", 0, 640 * 3, pixels
        ),
        "/wrist/image_raw/compressed": types["sensor_msgs/msg/CompressedImage"](
            header, "jpeg", pixels[:150_000]
        ),
        "/joint_states": types["sensor_msgs/msg/JointState"](
            header, [f"panda_joint{i}" for i in range(1, 10)], *np.zeros((3, 9))
        ),
        "/command": types["geometry_msgs/msg/TwistStamped"](
            header, types["geometry_msgs/msg/Twist"](vector, vector)
        ),
        "/gripper_command": types["std_msgs/msg/Float64"](0.08),
    }
    data = {
        topic: bytes(store.serialize_cdr(message, message.__msgtype__))
        for topic, message in messages.items()
    }
    with Recording(path, "humble", storage) as recording:
        for topic, message in messages.items():
            recording.add_topic(topic, message.__msgtype__)
        for tick in range(size // sum(map(len, data.values()))):
            now = START_NS + tick * TICK_NS
            for topic in messages:
                recording.write(topic, now, data[topic])
            for third in (1, 2):
                recording.write("/joint_states", now + third * TICK_NS // 3, data["/joint_states"])


def measure(path: Path) -> dict[str, float]:
    """Read a bag; return the figures."""
    size = sum(file.stat().st_size for file in path.iterdir())
    began = time.perf_counter()
    bag = open_bag(path)
    opened = time.perf_counter()
    # Of this process alone: other load does not count.
    busy = time.process_time()
    control = sum(1 for _ in bag.read(CONTROL))
    busy = time.process_time() - busy
    controlled = time.perf_counter()
    count = sum(1 for _ in bag.messages())
    read = time.perf_counter()
    return {
        "bag_mb": size / 1e6,
        "open_ms": (opened - began) * 1e3,
        "control_messages_s": control / (controlled - opened),
        "control_times_real_time": bag.duration_ns / 1e9 / busy,
        "messages_s": count / (read - controlled),
        "read_mb_s": size / 1e6 / (read - controlled),
        "peak_rss_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
    }


if __name__ == "__main__":
    main()
