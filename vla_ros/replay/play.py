"""`vla_ros play`: publish a bag's messages again, with /clock, paced or in lockstep with nodes."""

import argparse
import math
import os
import select
import signal
import sys
import termios
import time
import tty
from collections.abc import Iterable, Sequence
from pathlib import Path
from types import FrameType, TracebackType
from typing import TYPE_CHECKING, Any

from vla_ros.arguments import positive, real, whole
from vla_ros.replay.bags import SECOND_NS, Bag, BagError, BagMessage, open_bag
from vla_ros.replay.playback import Pace, Playback, ReadAhead, timeline

if TYPE_CHECKING:
    from vla_ros.nodes._player import BagPublisher

LATCHED_NAMES = ("instruction", "robot_description", "tf_static")
"""Last parts of topics' names whose subscribers may come late, whatever was recorded."""

DESCRIPTION = "/robot_description"
LOCKSTEP_CLOCK_HZ = 100.0
KEYS = {" ": "pause", "s": "step", "\x1b[C": "step", "\x1b[A": "faster", "\x1b[B": "slower"}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's options; they are named after those of `ros2 bag play`."""
    parser.add_argument("bag", type=Path, help="folder or file of the bag")
    parser.add_argument("-r", "--rate", type=positive, help="times real time; 1 by default")
    parser.add_argument(
        "--clock", type=positive, nargs="?", const=40.0, metavar="HZ", help="publish /clock"
    )
    parser.add_argument(
        "--start-offset", type=real(0.0), default=0.0, metavar="S", help="begin S seconds in"
    )
    parser.add_argument("-l", "--loop", action="store_true", help="begin again at the end")
    parser.add_argument("-p", "--start-paused", action="store_true", help="wait for the space key")
    parser.add_argument("--topics", nargs="+", default=[], help="play these alone")
    parser.add_argument("--exclude", nargs="+", default=[], metavar="TOPIC", help="leave these out")
    parser.add_argument(
        "-m", "--remap", nargs="+", default=[], metavar="FROM:=TO", help="publish on other topics"
    )
    parser.add_argument(
        "--read-ahead-queue-size",
        type=whole(1),
        default=100,
        metavar="N",
        help="messages read ahead",
    )
    parser.add_argument(
        "--wait-for", nargs="+", default=[], metavar="NODE", help="begin once these nodes run"
    )
    parser.add_argument(
        "--lockstep",
        nargs="+",
        default=[],
        metavar="NODE",
        help="publish the next message or time only when these nodes (their use_sim_time set; "
        "those further down the data's way last) have dealt with the last: the same run every "
        "time, as fast as they can unless --rate is given; --clock is 100 by default",
    )
    parser.add_argument(
        "--wait-timeout", type=positive, default=60.0, metavar="S", help="for the nodes to appear"
    )
    parser.add_argument(
        "--robot",
        type=Path,
        metavar="FILE",
        help="publish the package's own description of this robot, if the bag has none",
    )
    parser.add_argument(
        "--urdf", metavar="FILE", help="publish this robot_description, if the bag has none"
    )
    parser.add_argument(
        "--describe-only",
        action="store_true",
        help="publish that description alone, until interrupted",
    )
    parser.add_argument(
        "--end-launch",
        type=_boolean,
        nargs="?",
        const=True,
        default=False,
        metavar="BOOL",
        help="interrupt the process that started this one at the bag's end, as Ctrl-C does",
    )
    parser.add_argument(
        "--ros-args", nargs=argparse.REMAINDER, default=[], help="arguments of ROS 2, up to the end"
    )


def run(args: argparse.Namespace) -> int:
    """Play the bag to its end, or until interrupted; return 0."""
    # Imported late: rclpy joins with the environment as it is now.
    from vla_ros.nodes._player import BagPublisher  # noqa: PLC0415

    # Said for both: who is started in the background of a script inherits SIGINT as ignored.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, _interrupt)
    try:
        with open_bag(args.bag) as bag:
            description = _description(args, bag)
            names = played_topics(sorted(bag.topics), args.topics, args.exclude, args.remap)
            out = BagPublisher(args.ros_args)
            try:
                if description:
                    out.describe(DESCRIPTION, description)
                if args.describe_only:
                    while description:
                        out.spin(1.0)
                else:
                    _play(args, bag, names, out)
            finally:
                # `ros2 launch` passes Ctrl-C on to processes that the terminal has told already.
                for number in (signal.SIGINT, signal.SIGTERM):
                    signal.signal(number, signal.SIG_IGN)
                out.close()
                for warning in bag.warnings:
                    print(f"warning: {warning}", file=sys.stderr)
    except KeyboardInterrupt:
        print("interrupted")
        return 0
    except Exception:
        _end_launch(args)
        raise
    _end_launch(args)
    return 0


def _end_launch(args: argparse.Namespace) -> None:
    if args.end_launch:
        os.kill(os.getppid(), signal.SIGINT)


def _play(args: argparse.Namespace, bag: Bag, names: dict[str, str], out: "BagPublisher") -> None:
    # Names joined by commas are for launch files, whose variables are one word each.
    nodes = [name for word in args.lockstep for name in word.split(",")]
    clock_hz = args.clock or (LOCKSTEP_CLOCK_HZ if nodes else 0.0)
    if clock_hz:
        out.add_clock()
    for topic in list(names):
        info = bag.topics[topic]
        if not out.add_topic(names[topic], info.msgtype, info.qos, latched=_is_latched(topic)):
            print(f"{topic} is not played: {info.msgtype} is not installed here", file=sys.stderr)
            del names[topic]
    begin_ns = bag.start_ns + round(args.start_offset * SECOND_NS)
    end_ns = bag.start_ns + bag.duration_ns
    if not names or begin_ns > end_ns:
        msg = (
            f"nothing to play from {args.start_offset:g} s on: {args.bag} is "
            f"{bag.duration_ns / SECOND_NS:.1f} s long and has {', '.join(sorted(bag.topics))}"
        )
        raise BagError(msg)
    waited = [name for word in args.wait_for for name in word.split(",")]
    out.wait_for(nodes, waited, args.wait_timeout)

    period_ns = round(SECOND_NS / clock_hz) if clock_hz else None
    pace = Pace(args.rate or (math.inf if nodes else 1.0))
    started = time.monotonic()
    with Keys() as keys:
        playback = Playback(out, keys, _show, pace, clock_hz, lockstep=bool(nodes))
        if args.start_paused:
            playback.pause()
        while True:
            playback.latch(_last_before(bag, names, begin_ns), names)
            source = ReadAhead(
                (m for m in bag.messages(names) if m.received_ns >= begin_ns),
                args.read_ahead_queue_size,
            )
            try:
                playback.play(timeline(source, begin_ns, period_ns), begin_ns, names)
            finally:
                source.close()
            if not args.loop:
                break
    print(
        f"played {playback.count.messages} messages on {len(names)} topics and "
        f"{playback.count.clocks} times: {(end_ns - begin_ns) / SECOND_NS:.1f} s of the bag in "
        f"{time.monotonic() - started:.1f} s"
    )


def _description(args: argparse.Namespace, bag: Bag) -> str | None:
    """Return the robot's description that is to be published, if any."""
    recorded = bag.topics.get(DESCRIPTION)
    if recorded is not None and recorded.count:
        return None
    if args.urdf:
        return Path(args.urdf).read_text(encoding="utf-8")
    if args.robot:
        # Imported late: the replay's modules are many.
        from vla_ros.replay.common import packaged_urdf  # noqa: PLC0415
        from vla_ros.robot import RobotConfig  # noqa: PLC0415

        return packaged_urdf(RobotConfig.load(args.robot), args.bag)
    return None


def _is_latched(topic: str) -> bool:
    return topic.rpartition("/")[2] in LATCHED_NAMES


def _last_before(bag: Bag, topics: Iterable[str], begin_ns: int) -> list[BagMessage]:
    """Return the last message of each latched topic before a time: what a late joiner has."""
    last = {}
    latched = [topic for topic in topics if _is_latched(topic)]
    if latched and begin_ns > bag.start_ns:
        for message in bag.messages(latched):
            if message.received_ns >= begin_ns:
                break
            last[message.topic] = message
    return list(last.values())


def _show(line: str) -> None:
    """Show how it goes, in place, on a terminal."""
    if sys.stdout.isatty():
        print(f"\r{line:<40}", end="", flush=True)


def _interrupt(_number: int, _frame: FrameType | None) -> None:
    raise KeyboardInterrupt


class Keys:
    """The keys pressed on the terminal, if there is one; none elsewhere."""

    def __init__(self) -> None:
        """Have the terminal give single keys."""
        self._fd: int | None = None
        self._saved: list[Any] = []
        # A background job that touched the terminal would be stopped.
        if sys.stdin.isatty() and os.getpgrp() == os.tcgetpgrp(sys.stdin.fileno()):
            self._fd = sys.stdin.fileno()
            self._saved = termios.tcgetattr(self._fd)
            tty.setcbreak(self._fd)

    def __enter__(self) -> "Keys":  # noqa: PYI034 - Self is in typing from 3.11 on
        """Return the keys."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Give the terminal back as it was."""
        if self._fd is not None:
            termios.tcsetattr(self._fd, termios.TCSADRAIN, self._saved)

    def wait(self, seconds: float) -> list[str]:
        """Wait for keys; return what they mean, nothing after `seconds`."""
        if self._fd is None:
            if seconds > 0:
                time.sleep(seconds)
            return []
        if not select.select([self._fd], [], [], max(0.0, seconds))[0]:
            return []
        text = os.read(self._fd, 64).decode(errors="replace")
        meant = []
        while text:
            key = next((key for key in KEYS if text.startswith(key)), text[0])
            meant.append(KEYS.get(key, ""))
            text = text[len(key) :]
        return [name for name in meant if name]


def played_topics(
    recorded: Sequence[str], chosen: Sequence[str], excluded: Sequence[str], remaps: Sequence[str]
) -> dict[str, str]:
    """Return the topics to play, and the topic to publish each on.

    /clock is never among them: a recorded time beside the player's own would set the nodes' clocks
    back and forth.

    Raises:
        BagError: If a chosen topic is not in the bag, or a remap is not of the form FROM:=TO.

    """
    wanted = [_absolute(name) for name in chosen]
    if missing := sorted(set(wanted) - set(recorded)):
        msg = f"the bag has no {', '.join(missing)}: its topics are {', '.join(recorded)}"
        raise BagError(msg)
    left_out = {"/clock", *(_absolute(name) for name in excluded)}
    rules = {}
    for remap in remaps:
        before, mark, after = remap.partition(":=")
        if not (before and mark and after):
            msg = f"--remap {remap!r} is not of the form FROM:=TO"
            raise BagError(msg)
        rules[_absolute(before)] = _absolute(after)
    return {
        topic: rules.get(topic, topic) for topic in (wanted or recorded) if topic not in left_out
    }


def _absolute(topic: str) -> str:
    return topic if topic.startswith("/") else f"/{topic}"


def _boolean(text: str) -> bool:
    if text.lower() not in {"true", "false"}:
        msg = f"{text} is neither true nor false"
        raise argparse.ArgumentTypeError(msg)
    return text.lower() == "true"
