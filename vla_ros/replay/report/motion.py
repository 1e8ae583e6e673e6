"""What was asked of the robot and what was sent to it, and why the two differ."""

from collections import Counter
from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

from vla_ros.bounds import keys
from vla_ros.replay.holds import counted
from vla_ros.replay.report.html import Html, el
from vla_ros.replay.report.plot import Band, Curve, Lane, Spans, TimePlot, x_labels
from vla_ros.replay.report.run import Run, nothing, section
from vla_ros.replay.report.scale import number, pretty
from vla_ros.types import Array

STATES = {
    "RUNNING": "s-run",
    "HOLDING": "s-hold",
    "STARTING": "s-start",
    "STOPPED": "s-stop",
    "PROTECTIVE_STOP": "s-stop",
    "EMERGENCY_STOP": "s-stop",
}
LEAST = 1e-3
"""A smaller share is not told in figures."""
CARRIED_S = 0.1
"""A lost word on a tick does not break the line of a state that goes on."""
REASONS = 3
"""Reasons that are told, the most frequent ones."""
CELL_BUCKETS = 400


def motion(run: Run) -> Html:
    """Return the section."""
    bounds = run.result.robot.bounds
    streams = list(_streams(run))
    norms, axes = [], []
    for kind, unit, bound, first in (
        ("Linear", "m/s", bounds.linear_speed, 0),
        ("Angular", "rad/s", bounds.angular_speed, 3),
    ):
        bands = _bands(run, kind)
        curves = [
            Curve(name, style, times, _norm(twist[:, first : first + 3]))
            for name, style, times, twist in streams
        ]
        norms.append(
            TimePlot(
                f"{kind} velocity",
                unit,
                run.time,
                curves,
                bands=bands,
                limits=[(f"bound {number(bound)}", bound)],
                low=0.0,
                empty="no commands in this recording",
            ).html()
        )
        for axis in range(3):
            curves = [
                Curve(name, style, times, twist[:, first + axis])
                for name, style, times, twist in streams
            ]
            axes.append(
                TimePlot(
                    f"{kind} velocity {'xyz'[axis]}",
                    unit,
                    run.time,
                    curves,
                    bands=bands,
                    reach=2.0 * bound,
                    buckets=CELL_BUCKETS,
                ).html()
            )
    each = el("details", el("summary", "Each axis"), el("div", *axes, class_="pairs"))
    return section(
        "Asked for and sent",
        *norms,
        _lanes(run),
        _gripper(run),
        each if streams else None,
        lead=_lead(run),
    )


def _bands(run: Run, kind: str) -> list[Band]:
    """Return when bounds acted on a velocity: neither those of the other kind nor the gripper's."""
    others = ("gripper", {"Linear": "angular_", "Angular": "linear_"}[kind])
    return [
        Band(f"band {bound.colour}", bound.spans)
        for bound in run.acting
        if not any(other in bound.name for other in others)
    ]


def _lead(run: Run) -> str:
    if run.result.ticks is None:
        return (
            "Speeds of the TCP in the base frame: what the policy commands, and what was recorded. "
            "No filter ran in this mode."
        )
    said = (
        "Speeds of the TCP in the base frame. Where the filter changes nothing, what was sent "
        "covers what was asked for."
    )
    if run.acting:
        said += " Shaded, in a row for each: a bound acted. Below, each by its name."
    return said


def _streams(run: Run) -> Iterable[tuple[str, str, Array, Array]]:
    """Yield name, CSS class, times and twists of what was commanded, in order of drawing."""
    result = run.result
    if result.recorded is not None and len(result.recorded):
        order, times = run.in_time(result.recorded.stamp_ns)
        yield "recorded", "recorded", times, result.recorded.twist[order]
    if result.ticks is not None and len(result.ticks):
        yield "asked for", "desired", run.tick_times, result.ticks.desired[run.tick_order]
        yield "sent", "safe", run.tick_times, result.ticks.safe[run.tick_order]
    elif len(result.commands):
        order, times = run.in_time(result.commands.stamp_ns)
        yield "policy", "safe", times, result.commands.twist[order]


def _lanes(run: Run) -> Html | None:
    """Return the timeline: instruction, policy, state of the filter, and each bound that acted."""
    lanes = [lane.html(run.time) for lane in (*_policy_lanes(run), *_filter_lanes(run))]
    if run.result.ticks is not None and not run.acting:
        lanes.append(nothing("No bound acted."))
    return el("div", *lanes, x_labels(run.time), class_="lanes") if lanes else None


def _policy_lanes(run: Run) -> Iterable[Lane]:
    result = run.result
    told = result.instructions
    if len(told) > 1:
        ends = [one.stamp_ns for one in told[1:]] + [result.end_ns]
        parts: list[tuple[str, str, Spans]] = [
            (
                f"“{one.text}”" if one.text.strip() else "no instruction",
                "s-start" if index % 2 else "s-told",
                [((one.stamp_ns - result.start_ns) / 1e9, (end - result.start_ns) / 1e9)],
            )
            for index, (one, end) in enumerate(zip(told, ends, strict=True))
        ]
        yield Lane("Instruction", f"{len(told)} in this recording", "", parts)
    holds = result.commands.hold
    if any(holds):
        order, times = run.in_time(result.commands.stamp_ns)
        said = np.array(holds)[order]
        parts = [
            (
                f"policy holds: {reason}" if reason else "policy moves",
                style,
                run.spans(times, said == reason),
            )
            for reason, style in (
                (reason, "s-hold" if reason else "s-run") for reason in dict.fromkeys(said.tolist())
            )
        ]
        yield Lane("Policy", f"held still for {_counted(h for h in holds if h)}", "", parts)


def _filter_lanes(run: Run) -> Iterable[Lane]:
    ticks = run.result.ticks
    if ticks is None or not len(ticks):
        return
    states = np.array([state or "not told" for state in ticks.state])[run.tick_order]
    count = Counter(states.tolist())
    drawn = _carried_on(run.tick_times, states)
    shares = [f"{name} {_share(n / len(states))}" for name, n in count.most_common()]
    reasons = [
        reason
        for state, reason in zip(ticks.state, ticks.reason, strict=True)
        if reason and state != "RUNNING"
    ]
    note = ", ".join(shares) + (f"; for {_counted(reasons)}" if reasons else "")
    parts = [
        (name, STATES.get(name, "s-start"), run.spans(run.tick_times, drawn == name))
        for name in count
    ]
    yield Lane("State of the filter", note, "", parts)
    broken = list(_broken(run))
    if broken:
        note = f"{run.result.violations} ticks outside a bound, as judged"
        yield Lane("Violations", note, "", broken)
    for bound in run.acting:
        most = f"{number(bound.most)} {_unit(run, bound.name)}".strip()
        note = f"{_share(bound.share)} of ticks, by {most} at most"
        if bound.where:
            note += f": {', '.join(bound.where)}"
        part = (bound.name, bound.colour, bound.spans)
        yield Lane(bound.name, note, f"band {bound.colour}", [part])


def _carried_on(times: Array, states: NDArray[np.str_]) -> NDArray[np.str_]:
    """Return the states, those that were not told as they were before, if that is not long ago."""
    told = np.where(states != "not told", np.arange(len(states)), 0)
    last = np.maximum.accumulate(told)
    return np.asarray(np.where(times - times[last] <= CARRIED_S, states[last], states))


def _broken(run: Run) -> Iterable[tuple[str, str, Spans]]:
    """Yield each bound that was broken, and when."""
    ticks = run.result.ticks
    for name, count in run.result.violations_by_bound.items():
        metric = run.result.metrics.get(f"violations.{name}")
        if not count or ticks is None or metric is None or metric.series is None:
            continue
        stamps = metric.series.stamp_ns[metric.series.values != 0.0]
        active = np.isin(ticks.stamp_ns[run.tick_order], stamps)
        yield f"violation: {name}", "s-stop", run.spans(run.tick_times, active)


def _gripper(run: Run) -> Html | None:
    result, bounds = run.result, run.result.robot.bounds
    if not result.robot.gripper_joints:
        return None
    unit = run.gripper_unit
    # Fingers that slide are told in millimetres.
    scale, unit = (1e3, "mm") if unit == "m" else (1.0, unit)
    curves = []
    if len(result.joints):
        order, times = run.in_time(result.joints.stamp_ns)
        curves.append(Curve("measured", "measured", times, scale * result.joints.gripper[order]))
    if result.recorded is not None and result.ticks is None:
        order, times = run.in_time(result.recorded.stamp_ns)
        curves.append(Curve("recorded", "recorded", times, scale * result.recorded.gripper[order]))
    if result.ticks is not None and len(result.ticks):
        order, times = run.tick_order, run.tick_times
        asked, sent = result.ticks.gripper_desired[order], result.ticks.gripper[order]
        curves.append(Curve("asked for", "desired", times, scale * asked))
        curves.append(Curve("sent", "safe", times, scale * sent))
    elif len(result.commands):
        order, times = run.in_time(result.commands.stamp_ns)
        curves.append(Curve("policy", "safe", times, scale * result.commands.gripper[order]))
    low, high = scale * bounds.gripper_min, scale * bounds.gripper_max
    name = f"bounds {number(low)} and {number(high)}"
    bands = [Band(f"band {b.colour}", b.spans) for b in run.acting if "gripper" in b.name]
    limits = [(name, low), (name, high)]
    return TimePlot("Gripper opening", unit, run.time, curves, bands=bands, limits=limits).html()


def _counted(reasons: Iterable[str]) -> str:
    """Return the most frequent reasons, with how often each was given."""
    told = counted(reasons)
    said = [f"{reason} ({n})" for n, reason in told[:REASONS]]
    rest = len(told) - REASONS
    return ", ".join(said) + (f" and {rest} more" if rest > 0 else "")


def _unit(run: Run, bound: str) -> str:
    """Return the unit of what a bound takes away, where it has one."""
    known = keys().get(bound)
    if known is None:
        return ""
    unit = pretty(known.unit.removeprefix("-"))
    # The robot file tells openings in metres, or in radians where the fingers turn.
    turns = run.gripper_unit == "rad" and bound.startswith("gripper") and unit[:1] == "m"
    return f"rad{unit[1:]}" if turns else unit


def _share(share: float) -> str:
    return f"{100 * share:.1f} %" if share >= LEAST else "under 0.1 %"


def _norm(vectors: Array) -> Array:
    """Return the norms of rows; NaN where a row is not known."""
    with np.errstate(over="ignore", invalid="ignore"):
        return np.asarray(np.sqrt((vectors**2).sum(axis=1)))
