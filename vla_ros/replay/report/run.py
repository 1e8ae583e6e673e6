"""What the sections of a report share: the run, the axis of time, when which bound acted."""

import xml.etree.ElementTree as ET
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from vla_ros.replay.report.decimate import spans
from vla_ros.replay.report.html import Html, el
from vla_ros.replay.report.plot import Spans
from vla_ros.replay.report.scale import Axis
from vla_ros.replay.result import ReplayResult, Stamps
from vla_ros.types import Array

COLOURS = 8
"""Bounds that get a colour of their own, those that acted most; the others share one."""
FINEST = 2000
"""Spans closer together than this share of the recording are drawn as one."""
SLACK_S = 5.0
"""What is stamped further outside of the recording is not drawn: it would squeeze all else."""


@dataclass(frozen=True, slots=True)
class ActingBound:
    """A bound that acted, on whatever joints or axes.

    Attributes:
        name: Its name.
        where: The joints or axes, where it names such (`joint_speed.panda_joint2`).
        colour: CSS class of its colour.
        share: Share of the filter's ticks in which it acted.
        most: By how much it acted at most, in its unit.
        spans: When it acted, in s.

    """

    name: str
    where: tuple[str, ...]
    colour: str
    share: float
    most: float
    spans: Spans


class Run:
    """A run that is being drawn.

    Attributes:
        result: What came of it.
        time: The axis of time of every plot, in s.
        left_out: Number of stamps so far that lie outside of it.
        tick_order: Indices of the filter's ticks that are drawn, in time order.
        tick_times: Their times in s.
        acting: The bounds that acted, those that acted most first.
        gripper_unit: Unit of the gripper's opening: "m", or "rad" where the fingers turn.

    """

    def __init__(self, result: ReplayResult) -> None:
        """Prepare the run."""
        self.result = result
        ticks = result.ticks
        seconds = result.seconds(ticks.stamp_ns) if ticks is not None else np.empty(0)
        # The filter goes on after the last message, until the arm rests.
        after = seconds[seconds <= result.duration_s + SLACK_S]
        end = max(result.duration_s, float(after.max(initial=0.0)))
        self.time = Axis(0.0, end if end > 0.0 else 1.0)
        self.left_out = 0
        self.tick_order, self.tick_times = self.in_time(
            ticks.stamp_ns if ticks is not None else np.empty(0, np.int64)
        )
        self.acting = self._acting()
        self.gripper_unit = _gripper_unit(result)

    def in_time(self, stamps: Stamps) -> tuple[NDArray[np.int64], Array]:
        """Return the indices of what can be drawn, in time order, and their times in s."""
        seconds = self.result.seconds(stamps)
        inside = (seconds >= -SLACK_S) & (seconds <= self.time.high + SLACK_S)
        self.left_out += int((~inside).sum())
        index = np.flatnonzero(inside)
        index = index[np.argsort(seconds[index], kind="stable")]
        return index, seconds[index]

    def spans(self, times: Array, active: NDArray[np.bool_]) -> Spans:
        """Return when something was so, as finely as it can be drawn."""
        return spans(times, active, self.time.high / FINEST)

    def _acting(self) -> tuple[ActingBound, ...]:
        ticks = self.result.ticks
        if ticks is None or not len(ticks):
            return ()
        amounts: dict[str, Array] = {}
        where: dict[str, list[str]] = {}
        for full, signed in ticks.acting.items():
            amount = np.abs(np.nan_to_num(signed))
            if amount.any():
                name, _, part = full.partition(".")
                amounts[name] = np.maximum(amounts.get(name, 0.0), amount)
                where.setdefault(name, []).extend([part] if part else [])
        shares = {name: float((amount > 0.0).mean()) for name, amount in amounts.items()}
        return tuple(
            ActingBound(
                name,
                tuple(where[name]),
                f"c{min(place, COLOURS)}",
                shares[name],
                float(amounts[name].max()),
                self.spans(self.tick_times, amounts[name][self.tick_order] > 0.0),
            )
            for place, name in enumerate(sorted(shares, key=lambda name: (-shares[name], name)))
        )


def _gripper_unit(result: ReplayResult) -> str:
    """Return "rad" if the robot's description has a gripper of hinges, "m" otherwise."""
    try:
        joints = ET.fromstring(result.urdf).iter("joint")  # noqa: S314 - no entities are resolved
        kinds = {joint.get("name"): joint.get("type") for joint in joints}
    except ET.ParseError:
        return "m"
    gripper = {kinds.get(name) for name in result.robot.gripper_joints}
    return "rad" if gripper & {"revolute", "continuous"} else "m"


def section(title: str, *parts: object, lead: str | None = None) -> Html:
    """Return a section of the page."""
    return el("section", el("h2", title), el("p", lead, class_="lead") if lead else None, *parts)


def nothing(said: str) -> Html:
    """Return a line that says what there is not."""
    return el("p", said, class_="none")
