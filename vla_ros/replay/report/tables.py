"""What is told in words and figures: expectations, warnings, timing, metrics, what was run."""

from collections.abc import Iterable, Sequence

import numpy as np

from vla_ros.replay.report.histogram import Histogram
from vla_ros.replay.report.html import Html, el, join
from vla_ros.replay.report.run import Run, nothing, section
from vla_ros.replay.report.scale import clock, number, pretty
from vla_ros.replay.result import Metric, Outcome
from vla_ros.types import Array

GAP_FACTOR = 3.0
"""An interval this many times the usual one is called a gap."""
LATENCIES = {
    "image_to_command_ms.p50": "Image to command",
    "image_to_safe_command_ms.p50": "Image to robot",
}
SMALL = 0.1
"""Fewer seconds, metres or radians are told in thousandths."""
GAPS = "longest_gap_s."
MODES = {
    "policy+safety": "the policy, from the cameras, and the filter behind it",
    "safety": "the filter alone, on the recorded commands",
    "policy": "the policy alone, from the cameras, against the recorded commands",
    "live": "a recorded run; nothing was stepped again",
}


def expectations(run: Run) -> Html | None:
    """Return the expectations, those that failed first, and which bounds were broken."""
    outcomes = sorted(run.result.expectations, key=lambda outcome: outcome.passed)
    broken = {name: count for name, count in run.result.violations_by_bound.items() if count}
    parts = []
    if outcomes:
        rows = [row for outcome in outcomes for row in _outcome(outcome)]
        head = ("", "metric", "expected", "came", "first broken")
        parts.append(_table(head, rows, "outcomes"))
    if broken:
        rows = [
            el("tr", el("th", name, scope="row"), el("td", count))
            for name, count in sorted(broken.items(), key=lambda item: -item[1])
        ]
        parts.append(_table(("bound that was broken", "ticks"), rows, "narrow"))
        notes = run.result.metrics["violations"].notes if "violations" in run.result.metrics else ()
        if notes and not outcomes:
            parts.append(el("pre", "\n".join(notes)))
    if not parts:
        return None
    return section("Expectations" if outcomes else "Violations", *parts)


def _outcome(outcome: Outcome) -> Iterable[Html]:
    passed = outcome.passed
    yield el(
        "tr",
        el("td", "✓ met" if passed else "✗ not met", class_="met" if passed else "unmet"),
        el("th", outcome.metric, scope="row"),
        el("td", outcome.expected, data_label="expected"),
        el("td", _value(outcome.value, outcome.unit), data_label="came"),
        el("td", None if outcome.at_s is None else clock(outcome.at_s), data_label="first broken")
        if outcome.at_s is not None
        else el("td"),
    )
    if outcome.message:
        yield el("tr", el("td", el("pre", outcome.message), colspan=5), class_="told")


def warnings(lines: Sequence[str]) -> Html | None:
    """Return what is to be known of the recording."""
    if not lines:
        return None
    told = el("ul", *(el("li", line) for line in lines), class_="warnings")
    return section("To know about this recording", told)


def latencies(run: Run) -> Iterable[tuple[str, Array]]:
    """Yield names and values in ms of the ways from an image to a command."""
    for key, name in LATENCIES.items():
        metric = run.result.metrics.get(key)
        if metric is not None and metric.series is not None and metric.series.values.size:
            yield name, np.asarray(metric.series.values, np.float64)


def timing(run: Run) -> Html:
    """Return histograms of latencies, and rates and gaps of the streams."""
    shown = list(latencies(run))
    if run.result.inference_ms.size:
        shown.append(("Inference", run.result.inference_ms))
    high = max((float(np.nanmax(values)) for _, values in shown), default=1.0)
    plots = [Histogram(name, "ms", values, high).html() for name, values in shown]
    if not plots:
        plots = [nothing("No latency to show: no chunk of actions was executed.")]
    return section(
        "Timing",
        el("div", *plots, class_="pairs"),
        _rates(run),
        lead=None
        if run.result.mode == "safety"
        else f"Latency of the inference: {run.result.latency}.",
    )


def _rates(run: Run) -> Html | None:
    rows = []
    for key, metric in run.result.metrics.items():
        if not key.startswith(GAPS) or metric.series is None:
            continue
        gaps = metric.series.values
        cells = [el("th", key.removeprefix(GAPS), scope="row")]
        if gaps.size:
            usual, widest = float(np.median(gaps)), int(gaps.argmax())
            # A series has the time of the message after each gap.
            at_ns = int(metric.series.stamp_ns[widest]) - round(1e9 * float(gaps[widest]))
            at_s = (at_ns - run.result.start_ns) / 1e9
            wide = int((gaps > GAP_FACTOR * usual).sum())
            cells += [
                el("td", f"{gaps.size + 1}", data_label="messages"),
                el("td", f"{number(1.0 / max(float(gaps.mean()), 1e-9))} Hz", data_label="rate"),
                el("td", f"{number(1e3 * usual)} ms", data_label="usual interval"),
                el(
                    "td",
                    f"{number(1e3 * float(gaps[widest]))} ms at {clock(at_s)}",
                    data_label="longest",
                ),
                el("td", wide, data_label="gaps", class_="warn" if wide else None),
            ]
        else:
            cells += [el("td", "1 or none", data_label="messages"), *(el("td") for _ in range(4))]
        rows.append(el("tr", *cells))
    if not rows:
        return None
    gap = f"over {GAP_FACTOR:.0f} times that"
    head = ("topic", "messages", "rate", "usual interval", "longest", gap)
    return _table(head, rows, "rates")


def metrics(run: Run) -> Html | None:
    """Return all metrics, folded away."""
    rows = [
        el(
            "tr",
            el("th", name, scope="row"),
            el("td", _value(metric.value, metric.unit)),
            el("td", metric.text),
        )
        for name, metric in run.result.metrics.items()
    ]
    if not rows:
        return None
    table = _table(("metric", "value", "what it is"), rows, "figures")
    return section("All figures", el("details", el("summary", f"{len(rows)} metrics"), table))


def made_of(run: Run) -> Html:
    """Return what was run, in full."""
    result = run.result
    facts: list[tuple[str, object]] = [
        ("bag", result.bag),
        ("robot", f"{result.robot.name}, {result.robot_file}"),
        ("mode", f"{result.mode}: {MODES.get(result.mode, '')}"),
        ("latency", result.latency),
        (
            "hash",
            el("code", result.hash) if result.hash else "none: such a run does not repeat exactly",
        ),
        *((name, el("code", value)) for name, value in result.versions.items()),
    ]
    facts += [
        (
            "" if index else "instruction",
            f"{clock((one.stamp_ns - result.start_ns) / 1e9)}: “{one.text}”",
        )
        for index, one in enumerate(result.instructions)
    ]
    listed = (join(el("dt", name), el("dd", value)) for name, value in facts)
    return section("What was run", el("dl", *listed, class_="facts"))


def short(metric: Metric | None) -> str | None:
    """Return a metric's value in few digits and a handy unit, None if it has none."""
    if metric is None or metric.value is None:
        return None
    value, unit = metric.value, metric.unit
    if unit in ("s", "m", "m/s", "rad", "rad/s") and abs(value) < SMALL:
        value, unit = 1e3 * value, f"m{unit}"
    return number(value) if unit == "1" else f"{number(value)} {pretty(unit)}"


def _value(value: float | None, unit: str) -> str:
    if value is None:
        return "none"
    return number(value, 4) if unit == "1" else f"{number(value, 4)} {pretty(unit)}"


def _table(head: Sequence[str], rows: Sequence[Html], style: str) -> Html:
    return el(
        "table",
        el("thead", el("tr", *(el("th", name, scope="col") for name in head))),
        el("tbody", *rows),
        class_=style,
    )
