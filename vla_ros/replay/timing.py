"""Latencies and rates in a recorded run, from the stamps of its messages.

A chunk of actions names the observation that it came from and the first command that was taken from
it, and each tick of the filter names the command that it followed; so the way of an image to the
robot is joined by stamps alone, whenever the recorder received what.
"""

from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from vla_ros.replay.bags import read_bag, stamp_ns

TOPICS = ("/policy/chunk", "/command", "/safe_command", "/safety_node/status")


@dataclass(frozen=True, slots=True)
class Timing:
    """What was measured; a list has one entry for each chunk that reached the robot.

    Attributes:
        image_to_command_ms: From the oldest image's stamp to the first command made from it.
        image_to_safe_command_ms: From there to the filter's first output that followed it.
        policy_hz: Mean rate of the policy's commands, 0 with fewer than two.
        chunk_hz: Mean rate of chunks, 0 with fewer than two.
        safe_command_hz: Mean rate of the filter's output, 0 with fewer than two.

    """

    image_to_command_ms: list[float]
    image_to_safe_command_ms: list[float]
    policy_hz: float
    chunk_hz: float
    safe_command_hz: float

    def percentiles(self) -> dict[str, Any]:
        """Return everything by name, each list as its `p50` and `p99`, None where it is empty."""
        return {
            name: _percentiles(value) if isinstance(value, list) else value
            for name, value in asdict(self).items()
        }


def latencies(bag: str | Path) -> Timing:
    """Measure a rosbag2 with the topics of `TOPICS`.

    Raises:
        BagError: If the bag cannot be read.

    """
    chunks: list[tuple[int, int]] = []
    commands: list[int] = []
    safe_commands: list[int] = []
    followed: list[tuple[int, int]] = []
    for topic, _, message in read_bag(bag, TOPICS):
        stamp = stamp_ns(message.header.stamp)
        if topic == "/policy/chunk":
            if message.poses:
                chunks.append((stamp, stamp_ns(message.poses[0].header.stamp)))
        elif topic == "/command":
            commands.append(stamp)
        elif topic == "/safe_command":
            safe_commands.append(stamp)
        else:
            used = {v.key: v.value for v in message.status[0].values}.get("command_stamp_ns", "")
            if used:
                followed.append((int(used), stamp))
    return join(chunks, commands, safe_commands, followed)


def join(
    chunks: Sequence[tuple[int, int]],
    commands: Sequence[int],
    safe_commands: Sequence[int],
    followed: Sequence[tuple[int, int]],
) -> Timing:
    """Join stamps, all in ns.

    Args:
        chunks: Stamps of each chunk's observation, and of the first command from it.
        commands: Stamps of the policy's commands.
        safe_commands: Stamps of the filter's output.
        followed: For each tick of the filter that followed a command, the command's stamp and the
            tick's.

    """
    ways = followed_chunks(chunks, commands, safe_commands, followed)
    return Timing(
        image_to_command_ms=[(command - observed) / 1e6 for observed, command, _ in ways],
        image_to_safe_command_ms=[(tick - observed) / 1e6 for observed, _, tick in ways],
        policy_hz=_rate_hz(commands),
        chunk_hz=_rate_hz([command for _, command in chunks]),
        safe_command_hz=_rate_hz(safe_commands),
    )


def followed_chunks(
    chunks: Sequence[tuple[int, int]],
    commands: Sequence[int],
    safe_commands: Sequence[int],
    followed: Sequence[tuple[int, int]],
) -> list[tuple[int, int, int]]:
    """Return the stamps of observation, first command and first tick of chunks that were followed.

    The arguments are those of `join`.
    """
    known, sent = set(commands), set(safe_commands)
    first_tick: dict[int, int] = {}
    for command, tick in followed:
        if tick in sent:
            first_tick[command] = min(tick, first_tick.get(command, tick))
    used = sorted(first_tick)
    ways = []
    for observed, command in chunks:
        # The filter may have been given a newer command before it came to follow this one.
        at = bisect_left(used, command)
        if command in known and at < len(used):
            ways.append((observed, command, first_tick[used[at]]))
    return ways


def _percentiles(values: list[float]) -> dict[str, float | None]:
    if not values:
        return {"p50": None, "p99": None}
    p50, p99 = np.percentile(values, [50, 99])
    return {"p50": float(p50), "p99": float(p99)}


def _rate_hz(stamps: Sequence[int]) -> float:
    if len(stamps) < 2 or max(stamps) == min(stamps):  # noqa: PLR2004 - two make an interval
        return 0.0
    return (len(stamps) - 1) * 1e9 / (max(stamps) - min(stamps))
