"""What is expected of a run: conditions on its metrics, read from YAML.

violations: {equals: 0}
fault_to_stop_s: {max: 0.3}
error_translation.mean: {near: 0.02, tolerance: 0.01}
image_to_command_ms.p99: {min: 10, max: 150}
hash: {equals: 5f0c...}
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import yaml

from vla_ros.replay.metrics import find, similar
from vla_ros.replay.result import Metric, Outcome, ReplayResult, Series
from vla_ros.robot import RobotConfig

HASH = "hash"
_SHOWN = 2
"""Values shown before and after the one that is worst."""
_HASH_DIGITS = 64


class ExpectationError(ValueError):
    """An expectation is written wrongly, or is about a metric that there is not."""


@dataclass(frozen=True, slots=True)
class Expectation:
    """One condition.

    Attributes:
        metric: Name of the metric.
        kind: `min`, `max`, `equals` or `near`.
        bound: The number, or the digits of the hash.
        tolerance: Of `near`.

    """

    metric: str
    kind: str
    bound: float | str
    tolerance: float = 0.0

    def __str__(self) -> str:
        """Return the condition, without the metric's name."""
        if isinstance(self.bound, str):
            return f"{self.kind} {self.bound[:12]}..."
        within = f" within {self.tolerance:g}" if self.kind == "near" else ""
        return f"{self.kind} {self.bound:g}{within}"

    def holds(self, value: float) -> bool:
        """Return whether a value meets the condition."""
        if isinstance(self.bound, str):
            return False
        if self.kind == "min":
            return value >= self.bound
        if self.kind == "max":
            return value <= self.bound
        return abs(value - self.bound) <= self.tolerance


def load(path: str | Path) -> tuple[Expectation, ...]:
    """Read a file of expectations.

    Raises:
        ExpectationError: If it cannot be read, or says what is no condition.

    """
    try:
        content = yaml.safe_load(Path(path).read_text(encoding="utf-8"))
    except OSError as err:
        msg = f"expectations {path}: {err.strerror}"
        raise ExpectationError(msg) from err
    except (yaml.YAMLError, UnicodeDecodeError) as err:
        msg = f"expectations {path} are not YAML: {' '.join(str(err).split())}"
        raise ExpectationError(msg) from err
    return parse(content, str(path))


def parse(content: object, source: str) -> tuple[Expectation, ...]:
    """Return the expectations in `content`, as YAML gives it.

    Args:
        content: Mapping of names of metrics to mappings of conditions.
        source: Where it is from, for errors.

    Raises:
        ExpectationError: If it says what is no condition.

    """
    if not isinstance(content, dict) or not content:
        msg = f"{source}: must map names of metrics to conditions, as violations: {{equals: 0}}"
        raise ExpectationError(msg)
    return tuple(e for name, told in content.items() for e in _conditions(str(name), told, source))


def _conditions(name: str, told: object, source: str) -> Iterator[Expectation]:
    kinds = ("min", "max", "equals", "near")
    if not isinstance(told, dict) or not set(told) & set(kinds):
        msg = f"{source}: {name}: must be a mapping with {', '.join(kinds)}, but is {told!r}"
        raise ExpectationError(msg)
    unknown = sorted(map(str, set(told) - {*kinds, "tolerance"}))
    if unknown:
        msg = f"{source}: {name}: {unknown[0]!r} is unknown: use {', '.join(kinds)} and tolerance"
        raise ExpectationError(msg)
    if ("near" in told) != ("tolerance" in told):
        msg = f"{source}: {name}: near and tolerance need each other"
        raise ExpectationError(msg)
    if name == HASH:
        digits = told.get("equals")
        if set(told) != {"equals"} or not isinstance(digits, str) or len(digits) != _HASH_DIGITS:
            msg = f"{source}: hash: must be {{equals: ...}} with its 64 digits"
            raise ExpectationError(msg)
        yield Expectation(name, "equals", digits.lower())
        return
    tolerance = _number(told.get("tolerance", 0.0), f"{source}: {name}.tolerance")
    if tolerance < 0.0:
        msg = f"{source}: {name}.tolerance: must not be negative"
        raise ExpectationError(msg)
    for kind in kinds:
        if kind in told:
            bound = _number(told[kind], f"{source}: {name}.{kind}")
            yield Expectation(name, kind, bound, tolerance if kind == "near" else 0.0)


def _number(value: object, where: str) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value):
        msg = f"{where}: must be a finite number, but is {value!r}"
        raise ExpectationError(msg)
    return float(value)


def check(result: ReplayResult, expectations: tuple[Expectation, ...]) -> tuple[Outcome, ...]:
    """Return the outcome of each expectation.

    Raises:
        ExpectationError: If one is about a metric that there is not, or about a hash where the
            run's latency was measured, so that none is the same twice.

    """
    return tuple(_check(result, expectation) for expectation in expectations)


def _check(result: ReplayResult, expectation: Expectation) -> Outcome:
    name = expectation.metric
    if name == HASH:
        return _check_hash(result, expectation)
    metric = find(result.metrics, name, _parts(result.robot))
    if metric is None:
        msg = f"there is no metric {name!r} in mode {result.mode}: {similar(result.metrics, name)}"
        raise ExpectationError(msg)
    value = metric.value
    if value is not None and expectation.holds(value):
        return Outcome(name, str(expectation), value, metric.unit, passed=True)
    at: float | None = None
    lines: list[str] = []
    shown = "none: the bag holds nothing to compute it from"
    if value is not None:
        shown = _with_unit(value, metric.unit)
        at, lines = _place(result, metric, expectation, value)
    head = f"{name}: expected {expectation}, but it is {shown} ({metric.text})"
    return Outcome(
        metric=name,
        expected=str(expectation),
        value=value,
        unit=metric.unit,
        passed=False,
        at_s=at,
        message="\n".join([head, *lines, *(f"  {note}" for note in metric.notes)]),
    )


def _parts(robot: RobotConfig) -> set[str]:
    """Return what bounds have parts for."""
    volumes = (*robot.bounds.workspace, *robot.bounds.keep_out)
    return {*robot.joints, *"xyz", *(volume.name for volume in volumes)}


def _check_hash(result: ReplayResult, expectation: Expectation) -> Outcome:
    if not result.hash:
        msg = (
            "a hash is expected, but this run has none that repeats: use --latency zero or "
            "fixed:MS, or a bag with recorded chunks"
        )
        raise ExpectationError(msg)
    passed = result.hash == expectation.bound
    message = ""
    if not passed:
        message = f"hash: expected {expectation.bound}, but it is {result.hash}"
    return Outcome(HASH, str(expectation), None, "", passed=passed, message=message)


def _place(
    result: ReplayResult, metric: Metric, expectation: Expectation, value: float
) -> tuple[float | None, list[str]]:
    """Return when the condition was first broken, and lines that show it."""
    series = metric.series
    if series is None or not len(series.values) or isinstance(expectation.bound, str):
        return None, []
    too_much = value > expectation.bound
    flags = bool(np.isin(series.values, (0.0, 1.0)).all())
    bound = 0.5 if flags else expectation.bound
    tolerance = 0.0 if flags else expectation.tolerance
    if too_much:
        broken = np.flatnonzero(series.values > bound + tolerance)
        worst = int(np.nanargmax(series.values))
    else:
        broken = np.flatnonzero(series.values < bound - tolerance)
        worst = int(np.nanargmin(series.values))
    first = int(broken[0]) if len(broken) else worst
    seconds = result.seconds(series.stamp_ns)
    count = f"{len(broken)} of {len(series.values)} values"
    lines = [f"  first at {seconds[first]:.3f} s of the bag, {count}"]
    if series.values[worst] != series.values[first]:
        lines[0] += f"; worst at {seconds[worst]:.3f} s"
        first_shown = worst
    else:
        first_shown = first
    lines += _around(result, metric, series, first_shown)
    return float(seconds[first]), lines


def _around(result: ReplayResult, metric: Metric, series: Series, centre: int) -> list[str]:
    """Return a table of the values around one, with what the filter did then."""
    unit = "" if metric.unit == "1" else f" {metric.unit}"
    header = f"  {'':2}{'at s':>9}{'value' + unit:>16}"
    if result.ticks is not None and len(result.ticks):
        header += f"{'asked m/s':>11}{'sent m/s':>10}  state, acting"
    lines = [header]
    for i in range(max(0, centre - _SHOWN), min(len(series.values), centre + _SHOWN + 1)):
        time_ns = int(series.stamp_ns[i])
        at = (time_ns - result.start_ns) / 1e9
        mark = ">" if i == centre else ""
        lines.append(f"  {mark:2}{at:9.3f}{series.values[i]:16.6g}{_filter_at(result, time_ns)}")
    return lines


def _filter_at(result: ReplayResult, time_ns: int) -> str:
    """Return what the filter was asked for and did at a time, as columns."""
    ticks = result.ticks
    if ticks is None or not len(ticks):
        return ""
    i = min(int(np.searchsorted(ticks.stamp_ns, time_ns)), len(ticks) - 1)
    asked = float(np.linalg.norm(ticks.desired[i, :3]))
    sent = float(np.linalg.norm(ticks.safe[i, :3]))
    acting = [name for name, amounts in ticks.acting.items() if amounts[i] != 0.0]
    told = "" if math.isnan(asked) else f"{asked:.4f}"
    return f"{told:>11}{sent:10.4f}  {', '.join([ticks.state[i], *acting])}"


def _with_unit(value: float, unit: str) -> str:
    return f"{value:.6g}" if unit == "1" else f"{value:.6g} {unit}"
