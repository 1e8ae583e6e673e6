"""Measures reading a large bag: `python bench/bags.py [--storage mcap] [--mb 2050]`.

Makes a bag of two cameras (640x480 raw and 1280x720 JPEG at 30 Hz), 90 Hz joint states and 30 Hz
commands, reads it and replays it through model and filter, each in a process of its own, and prints
MB/s, messages/s, times real time and the peaks of memory.
"""

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from struct import pack

import cv2
import numpy as np
from rosbags.typesys import Stores, get_typestore

from vla_ros.paths import share
from vla_ros.replay.bags import open_bag
from vla_ros.replay.recording import Recording
from vla_ros.replay.stepping import Options, replay_bag

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
    parser.add_argument("--child", nargs=2, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.child:
        measured = {"read": read, "replay": replay}[args.child[0]](Path(args.child[1]))
        print(json.dumps(measured))
        return
    with tempfile.TemporaryDirectory(dir=args.folder) as folder:
        bag = Path(folder) / "bag"
        began = time.perf_counter()
        make(bag, args.storage, args.mb * 1_000_000)
        written_s = time.perf_counter() - began
        figures = {}
        for child in ("read", "replay"):
            # In a process of its own: its peak of memory is that of this alone.
            command = [sys.executable, __file__, "--child", child, str(bag)]
            output = subprocess.run(command, stdout=subprocess.PIPE, check=True).stdout
            figures |= json.loads(output)
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
    random = np.random.default_rng(0)
    pixels = random.integers(0, 255, 640 * 480 * 3, dtype=np.uint8)
    coarse = random.integers(0, 255, (36, 64, 3), dtype=np.uint8)
    jpeg = cv2.imencode(".jpg", cv2.resize(coarse, (1280, 720)))[1].ravel()
    names = [f"panda_joint{i}" for i in range(1, 8)]
    names += ["panda_finger_joint1", "panda_finger_joint2"]
    posture = np.array([0.0, -0.3, 0.0, -2.2, 0.0, 2.0, 0.78, 0.02, 0.02])
    stamp = types["builtin_interfaces/msg/Time"](1_700_000_000, 0)
    header = types["std_msgs/msg/Header"](stamp, "camera")
    vector = types["geometry_msgs/msg/Vector3"](0.1, 0.0, 0.0)
    messages = {
        "/front/image_raw": types["sensor_msgs/msg/Image"](
            header, 480, 640, "rgb8", 0, 640 * 3, pixels
        ),
        "/wrist/image_raw/compressed": types["sensor_msgs/msg/CompressedImage"](
            header, "jpeg", jpeg
        ),
        "/joint_states": types["sensor_msgs/msg/JointState"](
            header, names, posture, *np.zeros((2, 9))
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
        recording.add_topic("/instruction", "std_msgs/msg/String")
        word = types["std_msgs/msg/String"]("pick up the red cube")
        recording.write("/instruction", START_NS, store.serialize_cdr(word, word.__msgtype__))
        for tick in range(size // sum(map(len, data.values()))):
            now = START_NS + tick * TICK_NS
            for topic in messages:
                recording.write(topic, now, stamped(topic, data[topic], now))
            for third in (1, 2):
                at = now + third * TICK_NS // 3
                recording.write(
                    "/joint_states", at, stamped("/joint_states", data["/joint_states"], at)
                )


def stamped(topic: str, data: bytes, time_ns: int) -> bytes:
    """Return a message with another stamp, if it has one: behind the encapsulation's 4 bytes."""
    if topic == "/gripper_command":
        return data
    return data[:4] + pack("<iI", *divmod(time_ns, 1_000_000_000)) + data[12:]


def replay(path: Path) -> dict[str, float]:
    """Replay a bag through the shipped model and the filter; return the figures."""
    robot = share() / "config" / "robots" / "panda.yaml"
    result = replay_bag(path, robot, share() / "bundles" / "panda_pick", options=Options())
    return {
        "replay_times_real_time": result.speed()["times_real_time"],
        "replay_peak_rss_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
        "replay_library_pages_mb": library_pages_mb(),
    }


def library_pages_mb() -> float:
    """Return what of this process's memory are pages of files, which the kernel can drop.

    They count in a peak, and how many there are is the kernel's choice: of libraries that were
    written a moment ago, as by pip, 85 MB more than of the same read from disk.
    """
    status = Path("/proc/self/status").read_text(encoding="utf-8")
    return int(status.partition("RssFile:")[2].split()[0]) / 1024


def read(path: Path) -> dict[str, float]:
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
        "library_pages_mb": library_pages_mb(),
    }


if __name__ == "__main__":
    main()
