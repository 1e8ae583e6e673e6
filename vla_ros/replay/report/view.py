"""A way through space, seen along an axis."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from vla_ros.replay.report.html import Html, el
from vla_ros.replay.report.plot import below, path, percent
from vla_ros.replay.report.scale import Axis, steps
from vla_ros.types import Array

DENSE = 1500
"""A way of more points than that is drawn finely."""


@dataclass(frozen=True, slots=True)
class Outline:
    """A closed line in a view, such as a workspace's.

    Attributes:
        name: What it is.
        style: Its CSS class.
        points: Its corners in m, shape (k, 2).

    """

    name: str
    style: str
    points: Array


@dataclass(frozen=True, slots=True)
class View:
    """A way through space, seen along an axis; a metre is as long upwards as sideways.

    Attributes:
        title: From where.
        labels: Names of the two axes.
        across: Horizontal axis, in m.
        up: Vertical axis, in m.
        times: Of the way, in s, shape (n,).
        points: The way, in m, shape (n, 2); NaN where it is not known.
        marked: Where it is drawn as marked, shape (n,).
        outlines: Closed lines.

    """

    title: str
    labels: tuple[str, str]
    across: Axis
    up: Axis
    times: Array
    points: Array
    marked: NDArray[np.bool_]
    outlines: Sequence[Outline]

    def html(self) -> Html:
        """Return the figure."""
        width, height = self._size()
        x = np.round((self.points[:, 0] - self.across.low) * 1e4)
        y = np.round((self.up.high - self.points[:, 1]) * 1e4)
        known = np.flatnonzero(np.isfinite(x) & np.isfinite(y))
        ends = [
            el("path", d=f"M{int(x[i])} {int(y[i])}l0 0", class_=style)
            for i, style in ((known[0], "begin"), (known[0], "begin inner"), (known[-1], "end"))
        ]
        marked = np.where(self.marked, y, np.nan)
        svg = el(
            "svg",
            *(_grid(self.across, self.up)),
            *(
                el(
                    "polygon",
                    el("title", outline.name),
                    points=" ".join(
                        f"{round((px - self.across.low) * 1e4)},{round((self.up.high - py) * 1e4)}"
                        for px, py in outline.points.tolist()
                    ),
                    class_=outline.style,
                )
                for outline in self.outlines
            ),
            el(
                "path",
                d=path(x[known], y[known]),
                class_="line way dense" if len(known) > DENSE else "line way",
                data_t=" ".join(str(round(1e3 * t)) for t in self.times[known].tolist()),
            ),
            el("path", d=path(x, marked), class_="line marked") if self.marked.any() else None,
            *ends,
            viewBox=f"0 0 {width} {height}",
            preserveAspectRatio="none",
            role="img",
            aria_label=f"way of the TCP, {self.title}",
        )
        ticks = self.across.ticks(6)
        upward = self.up.ticks(5)
        area = el(
            "div",
            svg,
            *(
                el(
                    "span",
                    steps(tick, upward[1] - upward[0]),
                    class_="y",
                    style=f"bottom:{percent(self.up, tick)}",
                )
                for tick in upward
            ),
            class_="area",
            style=f"aspect-ratio:{width}/{height}",
        )
        labels = [(steps(tick, ticks[1] - ticks[0]), self.across.place(tick)) for tick in ticks]
        caption = el(
            "figcaption",
            el("span", self.title, class_="title"),
            el("span", f"{self.labels[1]} over {self.labels[0]}, m", class_="key none"),
            el("output", class_="value"),
        )
        # As wide as it is long, so that views side by side have one scale.
        room = f"--length:{width / 1e4:.3f}"
        return el("figure", caption, area, below(labels), class_="plot view", style=room)

    def _size(self) -> tuple[int, int]:
        return (
            round((self.across.high - self.across.low) * 1e4),
            round((self.up.high - self.up.low) * 1e4),
        )


def _grid(across: Axis, up: Axis) -> list[Html]:
    right, bottom = round((across.high - across.low) * 1e4), round((up.high - up.low) * 1e4)
    lines = [f"M{round((tick - across.low) * 1e4)} 0v{bottom}" for tick in across.ticks(6)]
    lines += [f"M0 {round((up.high - tick) * 1e4)}h{right}" for tick in up.ticks(5)]
    return [el("path", d=line, class_="grid") for line in lines]
