"""The joints: how much of what each may do was used."""

import numpy as np

from vla_ros.replay.report.html import Html, el
from vla_ros.replay.report.plot import Curve, TimePlot
from vla_ros.replay.report.run import Run, nothing, section
from vla_ros.replay.report.scale import number
from vla_ros.types import Array

BUCKETS = 300
"""A plot of one joint is narrow."""


def joints(run: Run) -> Html:
    """Return the section: a line for each joint, with position, speed and effort."""
    measured, bounds = run.result.joints, run.result.robot.bounds
    names = run.result.robot.joints
    if not len(measured):
        return section("Joints", nothing("There are no joint states in this recording."))
    order, times = run.in_time(measured.stamp_ns)
    speed = np.array(bounds.joint_speed)
    # Where no sample counts, a driver may give a current or a load: then there is no range.
    supervised = bounds.effort_samples > 0
    effort = np.array(bounds.effort) if supervised else np.full(len(names), np.inf)
    unit = "Nm" if supervised else "in the driver's unit"
    quantities = (
        (
            "Position",
            "rad",
            measured.position,
            bounds.joint_position_min,
            bounds.joint_position_max,
        ),
        ("Speed", "rad/s", measured.velocity, -speed, speed),
        ("Effort", unit, measured.effort, -effort, effort),
    )
    lines = [
        el(
            "div",
            el("h3", name),
            *(
                _cell(
                    run,
                    title,
                    unit,
                    times,
                    values[order, index],
                    float(low[index]),
                    float(high[index]),
                )
                for title, unit, values, low, high in quantities
            ),
            class_="joint",
        )
        for index, name in enumerate(names)
    ]
    return section(
        "Joints",
        *lines,
        lead="Measured. Dashed: the range of the robot file, of effort the one that stops the arm. "
        "Beside each the share of the half range that was used at most.",
    )


def _cell(
    run: Run, title: str, unit: str, times: Array, values: Array, low: float, high: float
) -> Html:
    finite = values[np.isfinite(values)]
    note, over = "", False
    limits = [("range", low), ("range", high)] if np.isfinite(high - low) else []
    if finite.size and not limits:
        note = f"{number(float(finite.min()))} to {number(float(finite.max()))}"
    elif finite.size and high > low:
        used = float(np.abs(finite - (low + high) / 2).max()) / ((high - low) / 2)
        over = used > 1.0
        note = f"{100 * used:.0f} % of {number(low)} to {number(high)}"
    return TimePlot(
        title,
        unit,
        run.time,
        [Curve("", "safe", times, values)],
        limits=limits,
        small=True,
        note=note,
        over=over,
        buckets=BUCKETS,
        empty="not measured",
    ).html()
