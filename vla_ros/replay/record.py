"""`vla_ros record`: topics into a rosbag2 that `ros2 bag` reads, whatever ends the recording."""

import argparse
import os
import signal
import sys
from datetime import datetime
from pathlib import Path

from vla_ros.replay.message_types import FALLBACK
from vla_ros.replay.recording import Recording, RecordingError


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's options; they are named after those of `ros2 bag record`."""
    parser.add_argument("topics", nargs="*", metavar="TOPIC", help="topics to record")
    parser.add_argument("-a", "--all", action="store_true", help="record every topic")
    parser.add_argument(
        "-o", "--output", type=Path, metavar="DIR", help="the bag; rosbag2_<date>-<time> by default"
    )
    parser.add_argument(
        "-s", "--storage", choices=["mcap", "sqlite3"], default="mcap", help="mcap by default"
    )
    parser.add_argument(
        "--ros-args", nargs=argparse.REMAINDER, default=[], help="arguments of ROS 2, up to the end"
    )


def run(args: argparse.Namespace) -> int:
    """Record until Ctrl-C or SIGTERM; return 0, or 1 if no message came."""
    if bool(args.topics) == args.all:
        msg = "name the topics to record, or say -a for all"
        raise RecordingError(msg)
    # Imported late: rclpy joins with the environment as it is now.
    from vla_ros.nodes._recorder import RecorderSession  # noqa: PLC0415

    path = args.output or Path(f"rosbag2_{datetime.now().astimezone():%Y_%m_%d-%H_%M_%S}")
    recording = Recording(path, os.environ.get("ROS_DISTRO", FALLBACK), args.storage)
    stopping: list[int] = []
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda received, _: stopping.append(received))
    print(f"recording into {path}; Ctrl-C ends it", flush=True)
    with recording:
        session = RecorderSession(recording, args.topics or None, args.ros_args, _tell)
        try:
            while not stopping:
                session.spin_once()
        finally:
            session.close()
    return _report(path, recording.counts, session.absent())


def _tell(line: str) -> None:
    print(line, flush=True)


def _report(path: Path, counts: dict[str, int], absent: list[str]) -> int:
    for topic, count in sorted(counts.items()):
        print(f"{count:8d}  {topic}")
    print(f"{sum(counts.values())} messages on {len(counts)} topics in {path}")
    if absent:
        print(f"nobody published {', '.join(absent)}", file=sys.stderr)
    return 0 if any(counts.values()) else 1
