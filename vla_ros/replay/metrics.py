"""The figures of a run, by name: what expectations are written about.

docs/replay.md lists them. A metric whose run holds nothing to compute it from is None. Those of the
filter's steps leave out the steps after the bag's last message, but for the times to stop.
"""

import difflib
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import fields, replace

import numpy as np
from numpy.typing import NDArray

from vla_ros.replay.judge import UNITS, Verdict
from vla_ros.replay.result import Commands, Metric, ReplayResult, Series, Stamps, Ticks
from vla_ros.replay.timing import followed_chunks
from vla_ros.robot import Bounds
from vla_ros.types import Array

UNCHANGED = 1e-6
"""m/s, rad/s, m. What the filter changes less than this counts as passed on as it was."""
STILL = 1e-9
"""m/s, rad/s. A sent twist smaller than this is a stop."""
SECOND_NS = 1_000_000_000
RUNNING = "RUNNING"
Metrics = dict[str, Metric]
Mask = NDArray[np.bool_]


def compute(result: ReplayResult, verdict: Verdict | None, rates: Mapping[str, Stamps]) -> Metrics:
    """Return all metrics of a run.

    Args:
        result: The run.
        verdict: What the independent judge says of the sent commands; None if it could not judge.
        rates: Times of the messages of each topic, by the topic's name without its first slash.

    """
    metrics: Metrics = {"duration_s": Metric(result.duration_s, "s", "length of the bag")}
    metrics |= _violations(result, verdict)
    if result.ticks is not None and len(result.ticks):
        metrics |= _filter(result, result.ticks)
        metrics |= _stops(result.ticks)
        metrics |= _motion(result.ticks)
    metrics |= _finite(result)
    metrics |= _errors(result)
    metrics |= _policy(result)
    metrics |= _measured(result)
    for topic, stamps in rates.items():
        metrics |= _rates(topic, stamps)
    return {name: _finite_or_none(metric) for name, metric in metrics.items()}


def find(metrics: Mapping[str, Metric], name: str, parts: Collection[str] = ()) -> Metric | None:
    """Return the metric of a name, None if there is no such metric.

    A bound that never acted has the share 0, and a bound that was never broken 0 violations: they
    are found though the run has no entry for them.

    Args:
        metrics: The run's metrics.
        name: `violations.<bound>`, say, or `acting_share.<bound>.<part>`.
        parts: What a bound has parts for: joints, axes, volumes.

    """
    if name in metrics:
        return metrics[name]
    family, dot, bound = name.partition(".")
    if not dot or family not in ("acting_share", "violations") or family not in metrics:
        return None
    bound, dot, part = bound.partition(".")
    if bound not in {field.name for field in fields(Bounds)} | set(CHECKS):
        return None
    if dot and part not in parts:
        return None
    text = "share of the steps" if family == "acting_share" else "steps"
    return Metric(0.0 if metrics[family].value is not None else None, "1", f"{text}: {bound}")


def similar(metrics: Mapping[str, Metric], name: str) -> str:
    """Return a hint at the name that was meant."""
    close = difflib.get_close_matches(name, metrics, n=3)
    return f"did you mean {' or '.join(close)}?" if close else f"there are {', '.join(metrics)}"


CHECKS = (
    *("gripper", "frame", "finite", "joint_position", "tool_cone", "singularity", "joints"),
    *("command_frame", "command_finite", "command_order", "command_joints"),
    *("command_quaternion", "gripper_finite"),
    *("joint_states_malformed", "joint_states_order", "joint_states_frozen"),
)
"""What acts or is judged beside the bounds that have a number in the robot file."""


def _violations(result: ReplayResult, verdict: Verdict | None) -> Metrics:
    text = "steps whose output is outside a bound, by the independent judge"
    if verdict is None or result.ticks is None:
        return {"violations": Metric(None, "1", text)}
    notes = tuple(verdict.examples)
    outside = {name: _outside(result.ticks, at_ns) for name, at_ns in verdict.broken_ns.items()}
    anywhere = _outside(result.ticks, [t for at_ns in verdict.broken_ns.values() for t in at_ns])
    metrics = {"violations": Metric(float(verdict.violations), "1", text, anywhere, notes)}
    for name, margin in verdict.margins.items():
        if np.isfinite(margin) and name not in ("finite", "frame"):
            text_of = f"smallest distance to the bound {name}, by the independent judge"
            metrics[f"margin.{name}"] = Metric(margin, UNITS[name], text_of)
    for name, count in verdict.by_bound.items():
        metrics[f"violations.{name}"] = Metric(
            float(count),
            "1",
            f"{text}: {name}",
            outside.get(name),
            tuple(n for n in notes if name in n),
        )
    return metrics


def _outside(ticks: Ticks, at_ns: Sequence[int]) -> Series | None:
    """Return which steps were outside a bound; None where none was."""
    if not at_ns:
        return None
    return Series(ticks.stamp_ns, np.isin(ticks.stamp_ns, at_ns).astype(np.int8))


def _filter(result: ReplayResult, ticks: Ticks) -> Metrics:
    """Return how often the filter acted, and how much of what was asked it passed on."""
    inside = ticks.stamp_ns <= result.end_ns
    count = int(inside.sum())
    running = np.array([state == RUNNING for state in ticks.state], bool)
    followed = inside & (ticks.command_stamp_ns >= 0)
    acted = np.zeros(len(ticks), bool)
    stamps = ticks.stamp_ns[inside]
    metrics: Metrics = {
        "steps": Metric(float(count), "1", "steps of the filter within the bag"),
        "running_share": _share(stamps, running[inside], "steps in state RUNNING"),
    }
    for name, flags in _acting(ticks).items():
        metrics[f"acting_share.{name}"] = _share(
            stamps, flags[inside], f"steps in which {name} acted"
        )
        acted |= flags
    metrics["acting_share"] = _share(stamps, acted[inside], "steps in which any bound acted")
    change = np.abs(ticks.safe - ticks.desired).max(axis=1, initial=0.0)
    changed = change > UNCHANGED
    stamps = ticks.stamp_ns[followed]
    metrics["unchanged_share"] = _share(
        stamps, ~changed[followed], "followed commands passed on as they were"
    )
    admissible = _admissible(result, ticks)
    metrics["in_bounds_share"] = _share(
        stamps, admissible[followed], "followed commands within the bounds of motion"
    )
    metrics["changed_in_bounds"] = _count(
        ticks.stamp_ns,
        followed & admissible & changed & ~_acted_elsewhere(ticks),
        "commands within the bounds of motion that were changed though no other bound acted",
    )
    linear = _norms(ticks.safe[followed, :3] - ticks.desired[followed, :3])
    angular = _norms(ticks.safe[followed, 3:] - ticks.desired[followed, 3:])
    metrics |= _spread("change_translation", "m/s", stamps, linear, "taken from what was asked")
    metrics |= _spread("change_rotation", "rad/s", stamps, angular, "taken from what was asked")
    return metrics


def _acting(ticks: Ticks) -> dict[str, Mask]:
    """Return where each bound acted, and where any part of it did: a joint, a face, a volume."""
    flags: dict[str, Mask] = {}
    for name, amounts in ticks.acting.items():
        whole = name.partition(".")[0]
        for key in {name, whole}:
            before = flags.get(key)
            flags[key] = amounts != 0.0 if before is None else before | (amounts != 0.0)
    return dict(sorted(flags.items()))


def _admissible(result: ReplayResult, ticks: Ticks) -> Mask:
    """Return where a command, sent as it was asked for, kept speed and acceleration.

    Counted from what was sent before: jumps of a slow sender are over the acceleration bound until
    the filter has caught up with them.
    """
    bounds = result.robot.bounds
    desired = np.nan_to_num(ticks.desired, nan=np.inf)
    before = np.vstack([np.zeros((1, 6)), ticks.safe[:-1]])
    seconds = np.diff(ticks.stamp_ns, prepend=ticks.stamp_ns[:1]) / SECOND_NS
    usual = float(np.median(seconds[1:])) if len(ticks) > 1 else 0.0
    seconds = np.clip(seconds, 0.0, 1.5 * usual)
    with np.errstate(invalid="ignore"):
        fits = np.ones(len(ticks), bool)
        for part, name in ((slice(0, 3), "linear"), (slice(3, 6), "angular")):
            speed = getattr(bounds, f"{name}_speed")
            most = getattr(bounds, f"{name}_acceleration") * seconds
            fits &= _norms(desired[:, part]) <= speed
            fits &= _norms(desired[:, part] - before[:, part]) <= most
            jerk = getattr(bounds, f"{name}_jerk", None)
            if jerk is not None:
                fits &= _jerk_fits(desired[:, part], ticks.safe[:, part], seconds, jerk)
    return fits


def _jerk_fits(desired: Array, safe: Array, seconds: Array, jerk: float) -> Mask:
    """Return where the change of acceleration, too, was within its bound.

    Both to reach the command and to hold it afterwards, with no acceleration left.
    """
    before = np.vstack([np.zeros((1, 3)), safe[:-1]])
    step = np.where(seconds > 0.0, seconds, np.inf)
    now = (desired - before) / step[:, None]
    sent = (safe - before) / step[:, None]
    last = np.vstack([np.zeros((1, 3)), sent[:-1]])
    between = (seconds + np.concatenate([seconds[:1], seconds[:-1]])) / 2.0
    return np.asarray((_norms(now - last) <= jerk * between) & (_norms(now) <= jerk * seconds))


def _acted_elsewhere(ticks: Ticks) -> Mask:
    """Return where a bound acted that is not one of the TCP's speed, acceleration and jerk."""
    motion = {f"{a}_{b}" for a in ("linear", "angular") for b in ("speed", "acceleration", "jerk")}
    acted = np.zeros(len(ticks), bool)
    for name, amounts in ticks.acting.items():
        if name not in motion:
            acted |= amounts != 0.0
    return acted


def _stops(ticks: Ticks) -> Metrics:
    """Return how long the output takes to rest once there is nothing more to follow."""
    still = (_norms(ticks.safe[:, :3]) < STILL) & (_norms(ticks.safe[:, 3:]) < STILL)
    followed = ticks.command_stamp_ns >= 0
    text = "from the last command to the first step after it whose output is zero"
    last = None
    if followed.any():
        asked_ns = int(ticks.command_stamp_ns[followed].max())
        last = _time_to(ticks.stamp_ns, still, asked_ns)
    metrics = {"time_to_stop_s": Metric(last, "s", text)}

    running = np.array([state == RUNNING for state in ticks.state], bool)
    faults = np.flatnonzero(running[:-1] & ~running[1:]) + 1
    moving = [i for i in faults if not still[i - 1]]
    times = [_time_to(ticks.stamp_ns[i:], still[i:], int(ticks.stamp_ns[i])) for i in moving]
    ended = [(i, t) for i, t in zip(moving, times, strict=True) if t is not None]
    metrics["fault_stops"] = _count(
        ticks.stamp_ns, np.isin(np.arange(len(ticks)), moving), "times that a motion was broken off"
    )
    metrics["fault_to_stop_s"] = Metric(
        max((t for _, t in ended), default=None),
        "s",
        "longest time from a broken-off motion (state no longer RUNNING) to an output of zero",
        Series(ticks.stamp_ns[[i for i, _ in ended]], np.array([t for _, t in ended])),
    )
    return metrics


def _time_to(stamps: Stamps, still: Mask, begin_ns: int) -> float | None:
    after = np.flatnonzero(still & (stamps >= begin_ns))
    return None if len(after) == 0 else float(stamps[after[0]] - begin_ns) / SECOND_NS


def _motion(ticks: Ticks) -> Metrics:
    """Return how fast and how far the output moves the TCP."""
    linear, angular = _norms(ticks.safe[:, :3]), _norms(ticks.safe[:, 3:])
    jump = _norms(np.diff(ticks.safe[:, :3], axis=0))
    turn = _norms(np.diff(ticks.safe[:, 3:], axis=0))
    seconds = np.diff(ticks.stamp_ns) / SECOND_NS
    stamps = ticks.stamp_ns
    return {
        "speed_max": _most("m/s", stamps, linear, "greatest linear speed sent"),
        "angular_speed_max": _most("rad/s", stamps, angular, "greatest angular speed sent"),
        "step_max": _most("m/s", stamps[1:], jump, "greatest change of the sent linear velocity"),
        "angular_step_max": _most(
            "rad/s", stamps[1:], turn, "greatest change of the sent angular velocity"
        ),
        "path_sent_m": Metric(
            float((linear[:-1] * np.clip(seconds, 0.0, 0.1)).sum()),
            "m",
            "length of the path that the sent velocities make",
        ),
    }


def _finite(result: ReplayResult) -> Metrics:
    """Return how many commands hold a number that is none."""
    asked = result.commands
    bad = _not_finite(asked.twist) | np.isinf(asked.gripper)
    metrics = {"nan_count": _count(asked.stamp_ns, bad, "commands with NaN or infinity asked for")}
    if result.ticks is not None:
        sent = result.ticks
        metrics["nan_sent"] = _count(
            sent.stamp_ns, _not_finite(sent.safe), "steps with NaN or infinity sent"
        )
    return metrics


def _errors(result: ReplayResult) -> Metrics:
    """Return how far the commands are from the recorded ones."""
    metrics: Metrics = {}
    if result.recorded is not None and result.mode != "safety":
        acting = np.array([not hold for hold in result.commands.hold], bool)
        metrics |= _differences(
            "error", result.commands, result.recorded, acting, "from the recorded commands"
        )
    if result.recorded_safe is not None and result.ticks is not None and result.mode != "live":
        ticks = result.ticks
        sent = Commands(ticks.stamp_ns, ticks.safe, ticks.gripper)
        inside = ticks.stamp_ns <= result.end_ns
        metrics |= _differences(
            "safe_error", sent, result.recorded_safe, inside, "from the recorded output"
        )
    return metrics


def _differences(
    name: str,
    ours: Commands,
    theirs: Commands,
    chosen: Mask,
    text: str,
) -> Metrics:
    """Compare each of our commands with the one of theirs that was in force then."""
    at = np.searchsorted(theirs.stamp_ns, ours.stamp_ns, side="right") - 1
    chosen = chosen & (at >= 0)
    # What was last said long ago is in force no more.
    chosen &= ours.stamp_ns - theirs.stamp_ns[np.maximum(at, 0)] <= SECOND_NS // 5
    chosen &= ~_not_finite(ours.twist) & ~_not_finite(theirs.twist[np.maximum(at, 0)])
    stamps, mine, other = ours.stamp_ns[chosen], ours.twist[chosen], theirs.twist[at[chosen]]
    metrics = _spread(
        f"{name}_translation", "m/s", stamps, _norms(mine[:, :3] - other[:, :3]), text
    )
    metrics |= _spread(
        f"{name}_rotation", "rad/s", stamps, _norms(mine[:, 3:] - other[:, 3:]), text
    )
    opening = np.abs(ours.gripper[chosen] - theirs.gripper[at[chosen]])
    known = np.isfinite(opening)
    return metrics | _spread(f"{name}_gripper", "m", stamps[known], opening[known], text)


def _policy(result: ReplayResult) -> Metrics:
    """Return how the policy held, how old its pictures were, and whether it did as it was told."""
    metrics: Metrics = {}
    chunks, commands = result.chunks, result.commands
    if chunks is None:
        return metrics
    holding = np.array([bool(hold) for hold in commands.hold], bool)
    told = np.zeros(len(commands), bool)
    for i, begin in enumerate(result.instructions):
        end = result.instructions[i + 1 : i + 2]
        if begin.text.strip():
            told |= (commands.stamp_ns >= begin.stamp_ns) & (
                commands.stamp_ns < (end[0].stamp_ns if end else result.end_ns + 1)
            )
    if commands.hold:
        metrics["hold_share"] = _share(
            commands.stamp_ns[told],
            holding[told],
            "commands held still though an instruction was given",
        )
        metrics |= _instructions(result)
    metrics["chunks"] = Metric(float(len(chunks)), "1", "chunks of actions that were executed")
    age = (chunks.started_ns - chunks.observed_ns) / 1e6
    metrics |= _percentiles(
        "image_to_command_ms", chunks.started_ns, age, "from the oldest image to the first command"
    )
    ticks = result.ticks
    if ticks is not None:
        stamps, used = ticks.stamp_ns.tolist(), ticks.command_stamp_ns.tolist()
        ways = followed_chunks(
            list(zip(chunks.observed_ns.tolist(), chunks.started_ns.tolist(), strict=True)),
            commands.stamp_ns.tolist(),
            stamps,
            [pair for pair in zip(used, stamps, strict=True) if pair[0] >= 0],
        )
        sent = np.array([tick for _, _, tick in ways], np.int64)
        whole = (sent - np.array([observed for observed, _, _ in ways], np.int64)) / 1e6
        metrics |= _percentiles(
            "image_to_safe_command_ms", sent, whole, "from the oldest image to the filter's output"
        )
    return metrics


def _instructions(result: ReplayResult) -> Metrics:
    """Return whether each change of the instruction was honoured.

    One to an empty instruction is, if nothing moves until the next. One to another is, if the first
    motion after it is by a chunk that was observed under it, and comes before the next change.
    """
    commands, chunks = result.commands, result.chunks
    changes = []
    before = ""
    for given in result.instructions:
        if given.text.strip() != before:
            changes.append(given)
            before = given.text.strip()
    if chunks is None or not changes:
        return {
            "instruction_changes": Metric(float(len(changes)), "1", "changes of the instruction")
        }
    moving = np.array([not hold for hold in commands.hold], bool)
    kept = np.zeros(len(changes))
    for i, change in enumerate(changes):
        end_ns = changes[i + 1].stamp_ns if i + 1 < len(changes) else result.end_ns + 1
        span = (commands.stamp_ns >= change.stamp_ns) & (commands.stamp_ns < end_ns) & moving
        if not change.text.strip():
            kept[i] = not span.any()
            continue
        if not span.any():
            continue
        first_ns = commands.stamp_ns[span][0]
        started = np.flatnonzero(chunks.started_ns == first_ns)
        # A picture from shortly before the words is a picture of the same moment.
        kept[i] = len(started) > 0
    stamps = np.array([change.stamp_ns for change in changes], np.int64)
    return {
        "instruction_changes": Metric(float(len(changes)), "1", "changes of the instruction"),
        "instruction_changes_honoured": Metric(
            float(kept.sum()),
            "1",
            "changes of the instruction that the next motion followed (or stillness, if empty)",
            Series(stamps, 1.0 - kept),
        ),
        "instruction_changes_ignored": _count(
            stamps, kept == 0.0, "changes of the instruction that nothing followed"
        ),
    }


def _measured(result: ReplayResult) -> Metrics:
    """Return what the measured joints say."""
    joints, bounds = result.joints, result.robot.bounds
    if not len(joints):
        return {}
    stamps = joints.stamp_ns
    way = _norms(np.diff(joints.tcp, axis=0))
    low, high = np.array(bounds.workspace_min), np.array(bounds.workspace_max)
    room = np.minimum(joints.tcp - low, high - joints.tcp).min(axis=1)
    worst = int(np.argmin(room))
    metrics = {
        "path_length_m": Metric(float(way.sum()), "m", "length of the TCP's measured path"),
        "workspace_margin_m": Metric(
            float(room[worst]),
            "m",
            "least measured distance of the TCP to the faces of its workspace, inside",
            Series(stamps, room),
        ),
    }
    if np.isfinite(joints.effort).all():
        share = (np.abs(joints.effort) / np.array(bounds.effort)).max(axis=1)
        metrics["effort_share_max"] = _most(
            "1", stamps, share, "greatest measured effort of a joint, as a share of its bound"
        )
    return metrics


def _rates(topic: str, stamps: Stamps) -> Metrics:
    rate = gap = None
    between = np.diff(stamps) / SECOND_NS
    if len(stamps) > 1 and stamps[-1] > stamps[0]:
        rate = (len(stamps) - 1) * SECOND_NS / float(stamps[-1] - stamps[0])
        gap = float(between.max())
    return {
        f"rate_hz.{topic}": Metric(rate, "Hz", f"mean rate of {topic}"),
        f"longest_gap_s.{topic}": Metric(
            gap, "s", f"longest time between two messages of {topic}", Series(stamps[1:], between)
        ),
    }


def _share(stamps: Stamps, counts: Mask, text: str) -> Metric:
    value = float(counts.mean()) if len(counts) else None
    return Metric(value, "1", f"share of {text}", Series(stamps, counts.astype(np.int8)))


def _count(stamps: Stamps, counts: Mask, text: str) -> Metric:
    return Metric(float(counts.sum()), "1", text, Series(stamps, counts.astype(np.int8)))


def _most(unit: str, stamps: Stamps, values: Array, text: str) -> Metric:
    value = float(values.max()) if len(values) else None
    return Metric(value, unit, text, Series(stamps, values))


def _spread(name: str, unit: str, stamps: Stamps, values: Array, text: str) -> Metrics:
    """Return mean, 95th percentile and maximum."""
    figures: dict[str, Callable[[Array], float]] = {
        "mean": lambda v: float(v.mean()),
        "p95": lambda v: float(np.percentile(v, 95)),
        "max": lambda v: float(v.max()),
    }
    return _figures(name, unit, stamps, values, text, figures)


def _percentiles(name: str, stamps: Stamps, values: Array, text: str) -> Metrics:
    figures: dict[str, Callable[[Array], float]] = {
        "p50": lambda v: float(np.percentile(v, 50)),
        "p95": lambda v: float(np.percentile(v, 95)),
        "p99": lambda v: float(np.percentile(v, 99)),
        "max": lambda v: float(v.max()),
    }
    return _figures(name, "ms", stamps, values, text, figures)


def _figures(
    name: str,
    unit: str,
    stamps: Stamps,
    values: Array,
    text: str,
    figures: Mapping[str, Callable[[Array], float]],
) -> Metrics:
    series = Series(stamps, values)
    what = name.replace("_", " ")
    return {
        f"{name}.{key}": Metric(
            figure(values) if len(values) else None, unit, f"{what} {text}: {key}", series
        )
        for key, figure in figures.items()
    }


def _finite_or_none(metric: Metric) -> Metric:
    """Return a metric without a value that is no number: a run that sent NaN has no top speed."""
    if metric.value is None or np.isfinite(metric.value):
        return metric
    return replace(metric, value=None)


def _not_finite(vectors: Array) -> Mask:
    """Return which rows hold what is no number."""
    return np.asarray(~np.isfinite(vectors).all(axis=1))


def _norms(vectors: Array) -> Array:
    return np.asarray(np.sqrt((vectors**2).sum(axis=-1)))
