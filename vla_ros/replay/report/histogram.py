"""Histograms: how often values fell where."""

from dataclasses import dataclass

import numpy as np

from vla_ros.replay.report.html import Html, el, join
from vla_ros.replay.report.plot import HEIGHT, WIDTH, below
from vla_ros.replay.report.scale import Axis, number, steps
from vla_ros.types import Array

BARS = 48


@dataclass(frozen=True, slots=True)
class Histogram:
    """How often values fell where, with the percentiles that matter.

    Attributes:
        title: What is shown.
        unit: Of the values.
        values: Not finite ones are left out, shape (n,).
        high: End of the axis, for histograms one below the other; of the values if None.

    """

    title: str
    unit: str
    values: Array
    high: float | None = None

    def html(self) -> Html:
        """Return the figure."""
        values = self.values[np.isfinite(self.values)]
        if not values.size:
            said = join(el("span", self.title, class_="title"), " none measured")
            return el("figure", el("p", said, class_="none"), class_="plot")
        high = float(values.max()) if self.high is None else self.high
        axis = Axis(min(0.0, float(values.min())), max(high * 1.04, 1e-6))
        marks = [
            ("p50", float(np.percentile(values, 50))),
            ("p99", float(np.percentile(values, 99))),
            ("max", float(values.max())),
        ]
        svg = el(
            "svg",
            *self._bars(axis, values),
            *(
                el("path", d=f"M{round(WIDTH * axis.place(value))} 0v{HEIGHT}", class_="mark")
                for _, value in marks
            ),
            viewBox=f"0 0 {WIDTH} {HEIGHT}",
            preserveAspectRatio="none",
            role="img",
            aria_label=f"{self.title}, {self.unit}: histogram of {values.size} values",
        )
        caption = el(
            "figcaption",
            el("span", self.title, el("small", f" {self.unit}"), class_="title"),
            *(el("span", name, " ", el("b", number(v)), class_="key") for name, v in marks),
            el("span", f"{values.size} values", class_="key none"),
        )
        ticks = axis.ticks(8)
        labels = [(steps(tick, ticks[1] - ticks[0]), axis.place(tick)) for tick in ticks]
        return el(
            "figure",
            caption,
            el("div", svg, class_="area"),
            below(labels),
            class_="plot histogram",
        )

    def _bars(self, axis: Axis, values: Array) -> list[Html]:
        edges = np.linspace(axis.low, axis.high, BARS + 1)
        counts = np.histogram(np.clip(values, axis.low, axis.high), edges)[0].tolist()
        width = WIDTH / BARS
        bars = []
        for index, count in enumerate(counts):
            if count:
                # A single value among thousands is still to be seen.
                height = max(round(0.94 * HEIGHT * count / max(counts)), 200)
                said = f"{number(edges[index])} to {number(edges[index + 1])} {self.unit}: {count}"
                bars.append(
                    el(
                        "rect",
                        el("title", said),
                        x=round(width * index) + 30,
                        width=round(width) - 60,
                        y=HEIGHT - height,
                        height=height,
                        class_="bar",
                    )
                )
        return bars
