"""Plots as SVG, drawn here: the page needs no script to show them.

Each is an SVG that stretches to the room it is given, its strokes as thin as ever, with its labels
beside it as text; so it reads the same on a wide screen, on a phone and in print. The curves are
the only copy of the data in the page: its script reads the values under the pointer back from
them, by the scale in the SVG's attributes.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from vla_ros.replay.report.decimate import BUCKETS, kept
from vla_ros.replay.report.html import Html, el, join
from vla_ros.replay.report.scale import MINUTE_S, Axis, clock, number, steps
from vla_ros.types import Array

WIDTH, HEIGHT = 20_000, 10_000
"""Units of a plot's SVG: finer than any screen, so that values can be read back from it."""
FAR = 50
"""Values are drawn as far as this many heights of the plot outside of it, and cut there."""
STEPS_S = (10, 20, 30, 60, 120, 300, 600, 900, 1800)
"""Between labels of a long time."""
GAP_S = 0.25
"""A longer time without a value is a gap in a curve."""
Spans = Sequence[tuple[float, float]]


@dataclass(frozen=True, slots=True)
class Curve:
    """Values over time.

    Attributes:
        name: As in the legend.
        style: Its CSS class.
        times: In s, rising, shape (n,).
        values: Shape (n,); not finite where there is none.

    """

    name: str
    style: str
    times: Array
    values: Array


@dataclass(frozen=True, slots=True)
class Band:
    """Spans of time that are shaded: beginnings and ends in s, and their CSS class."""

    style: str
    spans: Spans


@dataclass(frozen=True, slots=True)
class TimePlot:
    """Curves over time.

    Attributes:
        title: What is shown.
        unit: Of the values, such as "m/s".
        time: The axis of time, in s, the same for each plot of a page.
        curves: Drawn one over the other in this order.
        bands: Shaded spans.
        limits: Values of bounds, by name.
        low: The axis begins no higher than here.
        high: The axis ends no lower than here.
        reach: The axis ends within plus and minus this, whatever the values are.
        small: Without axes: one of many in a table, with its peak told instead.
        note: What is told beside a small plot's title.
        over: Whether the note is of a bound that was broken.
        buckets: Curves are thinned to two points in each of so many spans.
        empty: What to say where there is nothing to draw.

    """

    title: str
    unit: str
    time: Axis
    curves: Sequence[Curve]
    bands: Sequence[Band] = ()
    limits: Sequence[tuple[str, float]] = ()
    low: float | None = None
    high: float | None = None
    reach: float = math.inf
    small: bool = False
    note: str = ""
    over: bool = False
    buckets: int = BUCKETS
    empty: str = "not in this recording"

    def html(self) -> Html:
        """Return the figure."""
        style = "plot small" if self.small else "plot"
        drawn = [one for one in self.curves if np.isfinite(one.values).any()]
        if not drawn:
            said = join(el("span", self.title, class_="title"), " ", self.empty)
            return el("figure", el("p", said, class_="none"), class_=style)
        axis = self._axis(drawn)
        missing = [one.name for one in self.curves if one not in drawn]
        limits = [] if self.small else list(dict.fromkeys(name for name, _ in self.limits))
        caption = el(
            "figcaption",
            el("span", self.title, el("small", f" {self.unit}"), class_="title"),
            *(_key(one) for one in ([] if self.small else drawn)),
            *(el("span", f"{name}: none", class_="key none") for name in missing),
            *(el("span", el("i", class_="swatch limit"), name, class_="key") for name in limits),
            el("span", self.note, class_="note warn" if self.over else "note")
            if self.note
            else None,
        )
        area = el("div", self._svg(axis, drawn), self._y_labels(axis), class_="area timed")
        return el(
            "figure", caption, area, None if self.small else x_labels(self.time), class_=style
        )

    def _axis(self, drawn: Sequence[Curve]) -> Axis:
        values = np.concatenate([one.values[np.isfinite(one.values)] for one in drawn])
        edges = [value for _, value in self.limits]
        edges += [value for value in (self.low, self.high) if value is not None]
        low = min(max(float(values.min()), -self.reach), self.reach)
        high = max(min(float(values.max()), self.reach), -self.reach)
        if edges:
            # A value far over a bound must not squeeze all that is near it: it leaves the plot.
            room = 0.6 * max(max(edges) - min(edges), 1e-9)
            low = max(min(low, *edges), min(edges) - room)
            high = min(max(high, *edges), max(edges) + room)
        if high - low < 1e-6 * max(abs(high), abs(low), 1e-3):
            room = max(abs(high) / 2, 1e-3)
            low, high = low - room, high + room
        margin = 0.06 * (high - low)
        return Axis(low if low == self.low else low - margin, high + margin)

    def _svg(self, axis: Axis, drawn: Sequence[Curve]) -> Html:
        grid = [] if self.small else axis.ticks(4)
        return el(
            "svg",
            *(
                shade(self.time, span, (place, len(self.bands)), class_=band.style)
                for place, band in enumerate(self.bands)
                for span in band.spans
            ),
            *(_level(axis, tick, "grid") for tick in grid),
            *(_level(axis, value, "limit") for _, value in self.limits),
            *(el("path", d=self._path(axis, one), class_=f"line {one.style}") for one in drawn),
            viewBox=f"0 0 {WIDTH} {HEIGHT}",
            preserveAspectRatio="none",
            role="img",
            aria_label=f"{self.title}, {self.unit}, over time",
            data_low=number(axis.low, 9),
            data_high=number(axis.high, 9),
        )

    def _path(self, axis: Axis, one: Curve) -> str:
        times, values = broken(one.times, one.values)
        index = kept(times, values, self.buckets)
        x = (times[index] - self.time.low) / (self.time.high - self.time.low)
        up = (values[index] - axis.low) / (axis.high - axis.low)
        up = np.clip(np.where(np.isfinite(up), up, np.nan), -FAR, FAR + 1)
        return path(np.round(WIDTH * x), np.round(HEIGHT * (1.0 - up)))

    def _y_labels(self, axis: Axis) -> Html:
        ticks = [] if self.small else axis.ticks(4)
        step = ticks[1] - ticks[0] if len(ticks) > 1 else axis.high - axis.low
        return join(
            *(
                el("span", steps(tick, step), class_="y", style=f"bottom:{percent(axis, tick)}")
                for tick in ticks
            )
        )


@dataclass(frozen=True, slots=True)
class Lane:
    """A line of a timeline: when something was so.

    Attributes:
        name: What.
        note: How often, by how much.
        style: CSS class of the name's swatch, if it has one.
        parts: Name, CSS class and spans of each thing that is drawn in the line.

    """

    name: str
    note: str
    style: str
    parts: Sequence[tuple[str, str, Spans]]

    def html(self, time: Axis) -> Html:
        """Return the line."""
        svg = el(
            "svg",
            *(
                shade(time, span, class_=style, data_name=name)
                for name, style, spans in self.parts
                for span in spans
            ),
            viewBox=f"0 0 {WIDTH} {HEIGHT}",
            preserveAspectRatio="none",
            role="img",
            aria_label=f"{self.name} over time: {self.note}",
        )
        swatch = el("i", class_=f"swatch {self.style}") if self.style else None
        head = el("div", swatch, el("b", self.name), " ", el("span", self.note), class_="head")
        return el("div", head, el("div", svg, class_="area timed"), class_="lane")


def broken(times: Array, values: Array) -> tuple[Array, Array]:
    """Return a curve with a NaN in each gap, so that it is not drawn across."""
    between = np.diff(times)
    if not between.size:
        return times, values
    gaps = np.flatnonzero(between > max(GAP_S, 3.0 * float(np.median(between))))
    middles = (times[gaps] + times[gaps + 1]) / 2.0
    return np.insert(times, gaps + 1, middles), np.insert(values, gaps + 1, np.nan)


def path(x: Array, y: Array) -> str:
    """Return an SVG path through whole numbers, in steps; a NaN in `y` lifts the pen."""
    words: list[str] = []
    last: tuple[int, int] | None = None
    for across, down in zip(x.tolist(), y.tolist(), strict=True):
        if math.isnan(down):
            last = None
            continue
        point = int(across), int(down)
        # A step of nothing makes a lone point a dot.
        words.append(
            f"M{point[0]} {point[1]}l0 0"
            if last is None
            else f"{point[0] - last[0]} {point[1] - last[1]}"
        )
        last = point
    return " ".join(words)


def shade(
    time: Axis, span: tuple[float, float], row: tuple[int, int] = (0, 1), **attributes: object
) -> Html:
    """Return a rectangle over a span of time, never too thin to be seen.

    Args:
        time: The axis of time.
        span: Beginning and end, in s.
        row: Which row of how many rows of the plot it fills, so that shades do not mix.
        attributes: Of the element.

    """
    left, right = (round(WIDTH * min(max(time.place(edge), 0.0), 1.0)) for edge in span)
    place, rows = row
    top, bottom = round(HEIGHT * place / rows), round(HEIGHT * (place + 1) / rows)
    return el("rect", x=left, width=max(right - left, 16), y=top, height=bottom - top, **attributes)


def x_labels(time: Axis) -> Html:
    """Return the labels of the axis of time."""
    minutes = time.high >= 2 * MINUTE_S
    if minutes:
        whole = next((s for s in STEPS_S if time.high / s <= 10), 3600)  # noqa: PLR2004 - labels
        ticks = [float(second) for second in range(0, int(time.high) + 1, whole)]
    else:
        ticks = time.ticks(10)
    step = ticks[1] - ticks[0] if len(ticks) > 1 else 1.0
    return below([(clock(t, step, minutes=minutes), time.place(t)) for t in ticks], "xs clock")


def percent(axis: Axis, value: float) -> str:
    """Return where a value lies as CSS has it."""
    return f"{100 * axis.place(value):.2f}%"


def below(labels: Sequence[tuple[str, float]], style: str = "xs") -> Html:
    """Return labels below a plot; where room is short, the page leaves out every other one."""
    return el(
        "div",
        *(
            el("span", label, class_="odd" if index % 2 else None, style=f"left:{100 * at:.2f}%")
            for index, (label, at) in enumerate(labels)
        ),
        class_=style,
    )


def _level(axis: Axis, value: float, style: str) -> Html:
    return el("path", d=f"M0 {round(HEIGHT * (1.0 - axis.place(value)))}h{WIDTH}", class_=style)


def _key(one: Curve) -> Html:
    return el(
        "span",
        el("i", class_=f"swatch {one.style}"),
        one.name,
        " ",
        el("output", class_="value"),
        class_="key",
    )
