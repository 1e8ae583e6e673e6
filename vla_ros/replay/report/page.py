"""The report of a run: one HTML file that needs nothing else."""

import base64
import hashlib
from collections.abc import Iterable
from importlib import resources
from pathlib import Path

import numpy as np

from vla_ros.replay.holds import never_moved
from vla_ros.replay.report.html import Html, el
from vla_ros.replay.report.joints import joints
from vla_ros.replay.report.motion import motion
from vla_ros.replay.report.run import Run, nothing, section
from vla_ros.replay.report.scale import MINUTE_S, clock, number
from vla_ros.replay.report.space import space
from vla_ros.replay.report.strip import Pictures, read_pictures, strip
from vla_ros.replay.report.tables import (
    expectations,
    latencies,
    made_of,
    metrics,
    short,
    timing,
    warnings,
)
from vla_ros.replay.result import ReplayResult

TILES = {
    "time_to_stop_s": ("Time to rest", "after the last command"),
    "error_translation.mean": ("Mean error", "to the recorded velocity"),
    "error_rotation.mean": ("Mean error", "in rotation"),
}
"""Metrics that are told at the top, where a run has them."""
STOPS = ("STOPPED", "PROTECTIVE_STOP", "EMERGENCY_STOP")
"""The filter's latched states."""
SHORT_HASH = 12


def write_report(
    result: ReplayResult,
    target: str | Path,
    *,
    pictures: Pictures | None = None,
    task: tuple[bool, str] | None = None,
) -> int:
    """Write the report of a run; the same run gives the same bytes.

    Args:
        result: The run.
        target: The HTML file.
        pictures: What the cameras saw; None to read some from the run's bag.
        task: Whether the run's task was done, and a few words on it, where that is known.

    Returns:
        Size of the file in bytes.

    Raises:
        BagError: If the bag cannot be read again.
        OSError: If the file cannot be written.

    """
    if pictures is None:
        pictures = read_pictures(result)
    page = _page(Run(result), pictures, task).encode("utf-8")
    path = Path(target)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(page)
    return len(page)


def _page(run: Run, pictures: Pictures, task: tuple[bool, str] | None) -> str:
    script, style = _asset("report.js"), _asset("report.css")
    # Nothing but what is in this file is ever loaded or run, whatever a bag may hold.
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    policy = (
        "default-src 'none'; img-src data:; style-src 'unsafe-inline'; "
        f"script-src 'sha256-{digest}'"
    )
    # The sections count what they cannot draw, which the warnings above them then tell.
    drawn = [
        _frames(run, pictures),
        motion(run),
        space(run),
        joints(run),
        timing(run),
        metrics(run),
        made_of(run),
    ]
    told = [*run.result.warnings, *pictures.problems]
    if run.left_out:
        told.append(
            f"{run.left_out} stamps lie outside of the recording's time: they are not drawn"
        )
    _, word = _verdict(run, task)
    head = el(
        "head",
        el("meta", charset="utf-8"),
        el("meta", http_equiv="Content-Security-Policy", content=policy),
        el("meta", name="viewport", content="width=device-width, initial-scale=1"),
        el("meta", name="color-scheme", content="light dark"),
        el("title", f"{_title(run)}: {word}"),
        el("style", Html(style)),
    )
    body = el(
        "body",
        _header(run, task, len(told)),
        el("main", expectations(run), warnings(told), *drawn),
        _footer(run),
        el("div", class_="readout", hidden=True),
        el("script", Html(script)),
        data_start=number(run.time.low, 9),
        data_end=number(run.time.high, 9),
    )
    return f"<!DOCTYPE html>\n{el('html', head, body, lang='en')}\n"


def _title(run: Run) -> str:
    spoken = [one.text for one in run.result.instructions if one.text.strip()]
    return spoken[-1] if spoken else f"{run.result.bag.name}, without an instruction"


def _verdict(run: Run, task: tuple[bool, str] | None) -> tuple[str, str]:
    """Return CSS class and word of the verdict."""
    result = run.result
    if result.violations or not result.passed or (task is not None and not task[0]):
        return "fail", "failed"
    if not result.expectations:
        if result.violations is None:
            return "open", "not judged"
        if task is None and never_moved(result):
            return "open", "nothing moved"
    return "pass", "passed"


def _header(run: Run, task: tuple[bool, str] | None, noted: int) -> Html:
    result = run.result
    style, word = _verdict(run, task)
    spoken = any(one.text.strip() for one in result.instructions)
    title = _title(run)
    facts = [
        ("Recorded run" if result.mode == "live" else "Replay", "/".join(result.bag.parts[-2:])),
        ("robot", result.robot.name),
        ("policy", result.versions.get("bundle", "")),
        ("mode", "" if result.mode == "live" else result.mode),
        ("latency", "" if result.mode in ("live", "safety") else result.latency),
        ("hash", result.hash[:SHORT_HASH]),
        ("vla_ros", result.versions.get("vla_ros", "")),
    ]
    return el(
        "header",
        el(
            "p",
            *(el("span", name, " ", el("b", value)) for name, value in facts if value),
            class_="kind",
        ),
        el("h1", el("q", title) if spoken else title),
        el(
            "div",
            el("strong", word, class_="word"),
            el("ul", *(el("li", line) for line in _reasons(run, task, noted))),
            class_=f"verdict {style}",
        ),
        el(
            "dl",
            *(
                el("div", el("dt", name), el("dd", value, el("small", note) if note else None))
                for name, value, note in _tiles(run)
            ),
            class_="tiles",
        ),
    )


def _reasons(run: Run, task: tuple[bool, str] | None, noted: int) -> Iterable[str]:
    result = run.result
    if task is not None:
        yield f"{'Task done' if task[0] else 'Task not done'}: {task[1]}"
    count = len(result.ticks) if result.ticks is not None else 0
    if result.violations is None:
        yield "Bounds were not judged" if count else "No filter ran, so no bound is judged"
    elif result.violations:
        broken = [f"{name} {n}" for name, n in result.violations_by_bound.items() if n]
        yield f"{result.violations} of {count} ticks outside a bound: {', '.join(broken)}"
    else:
        yield f"None of {count} ticks outside a bound"
    yield from _stop(run)
    if outcomes := result.expectations:
        met = sum(outcome.passed for outcome in outcomes)
        yield f"{met} of {len(outcomes)} expectations met"
    elif result.mode != "live":
        yield "No expectations were given"
    if noted:
        yield f"{noted} {'thing' if noted == 1 else 'things'} to know about the recording"


def _stop(run: Run) -> Iterable[str]:
    """Yield when and why the filter first stopped for good."""
    ticks = run.result.ticks
    if ticks is None:
        return
    for index, seconds in zip(run.tick_order.tolist(), run.tick_times.tolist(), strict=True):
        if ticks.state[index] in STOPS:
            why = f": {ticks.reason[index]}" if ticks.reason[index] else ""
            yield f"{ticks.state[index]} at {clock(seconds)}{why}"
            return


def _tiles(run: Run) -> Iterable[tuple[str, str, str]]:
    """Yield name, value and note of the figures at the top."""
    result = run.result
    yield "Length", clock(result.duration_s), ""
    if result.violations is not None:
        yield "Violations", str(result.violations), ""
    share = result.metrics.get("acting_share")
    if share is not None and share.value is not None:
        yield "A bound acted in", f"{100 * share.value:.1f} %", "of ticks"
    for name, values in latencies(run):
        p50, p99 = np.percentile(values, [50, 99])
        yield name, f"{number(float(p50))} ms", f"p99 {number(float(p99))} ms"
    for key, (name, note) in TILES.items():
        value = short(result.metrics.get(key))
        if value is not None:
            yield name, value, note


def _frames(run: Run, pictures: Pictures) -> Html:
    shown = strip(pictures.frames, run.result.start_ns, minutes=run.time.high >= 2 * MINUTE_S)
    cameras = sorted({frame.camera for frame in pictures.frames})
    if shown is None:
        return section("What the cameras saw", nothing("There are no pictures to show."))
    lead = f"From top to bottom: {', '.join(cameras)}." if len(cameras) > 1 else f"{cameras[0]}."
    return section("What the cameras saw", shown, lead=lead)


def _footer(run: Run) -> Html:
    version = run.result.versions.get("vla_ros", "")
    return el(
        "footer",
        el(
            "p",
            f"Made by vla_ros {version}".strip(),
            ". Times are seconds from the recording's first message. Long curves are thinned to "
            "the least and the greatest value of each span of time, so that no peak is lost. Point "
            "at a plot to read all of them at that time, click to keep it there and arrow keys to "
            "move it, drag to look closer, double-click to see all again.",
        ),
    )


def _asset(name: str) -> str:
    return resources.files(__package__).joinpath(name).read_text(encoding="utf-8")
