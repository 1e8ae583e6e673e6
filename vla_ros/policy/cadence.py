"""How well a loop keeps its rate, and what each stage of it costs: figures, without a clock.

Whoever runs the loop brings the times of its commands and the durations of its stages. Memory is
bounded however long it runs: means, worst values and counts are exact, and percentiles come from
a histogram whose bins are 1 % wide.
"""

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

STAGES = ("decode", "preprocess", "inference", "postprocess", "schedule", "publish")
"""What happens between an image and a command, in order.

`decode`: an image's bytes to the pixels that the model sees. `preprocess`: an observation to the
model's inputs. `inference`: the model, with its loop of steps where it has one. `postprocess`: its
outputs to velocities. `schedule`: which action is due, and the checks that come before it.
`publish`: command and gripper to messages, and these to the middleware.
"""

WARM_UP = 5
"""Values at the start of each series that are told apart: caches, arenas and buffers fill there."""

LATE = 0.1
"""A cycle is over budget if it took longer than a period by more than this share of it."""

_BIN = math.log(1.01)
_LEAST_MS, _MOST_MS = 1e-4, 1e6
_BINS = math.ceil(math.log(_MOST_MS / _LEAST_MS) / _BIN)
_PREFIX = "cadence "


@dataclass(frozen=True, slots=True)
class Durations:
    """What a series of durations came to, in ms; `std` is about the mean.

    Attributes:
        count: How many, without the warm-up.
        mean: Of these, as are `std`, `p50` and `p99` (to 1 %), and `worst`.
        warm_up_worst: The longest of the warm-up.

    """

    count: int
    mean: float
    std: float
    p50: float
    p99: float
    worst: float
    warm_up_worst: float


@dataclass(frozen=True, slots=True)
class CadenceReport:
    """Rate and stages of a loop.

    Attributes:
        requested_hz: The rate that was asked for; 0 if the loop has none, as camera_node's.
        achieved_hz: Cycles by the time that they took; 0 before the first.
        cycles: Cycles after the warm-up.
        over_budget: How many of them took longer than 1.1 periods.
        period: Of the cycles' lengths, or None before the first.
        stages: By name, in the order of `STAGES`; those of which there is a value.

    """

    requested_hz: float
    achieved_hz: float
    cycles: int
    over_budget: int
    period: Durations | None
    stages: Mapping[str, Durations]

    def values(self) -> dict[str, str]:
        """Return everything by name, as /diagnostics carries it; `parse` reads it."""
        values = {}
        if self.requested_hz:
            values = {
                f"{_PREFIX}requested Hz": f"{self.requested_hz:g}",
                f"{_PREFIX}achieved Hz": f"{self.achieved_hz:.3f}",
                f"{_PREFIX}cycles": str(self.cycles),
                f"{_PREFIX}cycles over budget": str(self.over_budget),
            }
        for name, durations in self._rows():
            values[f"{_PREFIX}{name} n"] = str(durations.count)
            for key, what in _FIGURES.items():
                values[f"{_PREFIX}{name} ms {what}"] = f"{getattr(durations, key):.4g}"
        return values

    def as_dict(self) -> dict[str, object]:
        """Return everything ready for JSON, with durations in ms."""
        rows = {
            name: {"n": durations.count}
            | {key: float(f"{getattr(durations, key):.4g}") for key in _FIGURES}
            for name, durations in self._rows()
        }
        period = rows.pop("period", None)
        return {
            "requested_hz": round(self.requested_hz, 3),
            "achieved_hz": round(self.achieved_hz, 3),
            "cycles": self.cycles,
            "cycles_over_budget": self.over_budget,
            "period_ms": period,
            "stages_ms": rows,
        }

    @staticmethod
    def from_dict(told: Mapping[str, Any]) -> "CadenceReport":
        """Return the report of which `as_dict` says `told`, as a run's summary.json holds it."""

        def durations(row: Mapping[str, Any]) -> Durations:
            return Durations(count=row["n"], **{key: row[key] for key in _FIGURES})

        period = told["period_ms"]
        return CadenceReport(
            requested_hz=told["requested_hz"],
            achieved_hz=told["achieved_hz"],
            cycles=told["cycles"],
            over_budget=told["cycles_over_budget"],
            period=None if period is None else durations(period),
            stages={name: durations(row) for name, row in told["stages_ms"].items()},
        )

    def table(self) -> str:
        """Return a table to read, without a newline at its end."""
        lines = []
        if self.requested_hz:
            period_ms = 1e3 / self.requested_hz
            lines.append(
                f"{self.achieved_hz:.2f} of {self.requested_hz:g} Hz, {self.over_budget} of "
                f"{self.cycles} cycles over budget ({period_ms:.1f} ms + {LATE:.0%})"
            )
        heads = ("n", "mean", "p50", "p99", "worst", "std", "warm-up")
        lines.append(f"{'ms':<12}" + "".join(f"{head:>9}" for head in heads))
        for name, d in self._rows():
            figures = (d.mean, d.p50, d.p99, d.worst, d.std, d.warm_up_worst)
            lines.append(f"{name:<12}{d.count:>9}" + "".join(f"{f:>9.2f}" for f in figures))
        return "\n".join(lines)

    def joined(self, other: "CadenceReport") -> "CadenceReport":
        """Return this with another node's stages; of a stage that both have, the slower one's."""
        stages = dict(other.stages)
        for name, mine in self.stages.items():
            theirs = stages.get(name)
            stages[name] = mine if theirs is None or mine.p99 >= theirs.p99 else theirs
        ordered = {name: stages[name] for name in STAGES if name in stages}
        timed = self if self.requested_hz else other
        return replace(timed, stages=ordered)

    def _rows(self) -> Iterator[tuple[str, Durations]]:
        if self.period is not None:
            yield "period", self.period
        yield from self.stages.items()


_FIGURES = {
    "mean": "mean",
    "std": "std",
    "p50": "p50",
    "p99": "p99",
    "worst": "worst",
    "warm_up_worst": "warm-up worst",
}


def parse(values: Mapping[str, str]) -> CadenceReport | None:
    """Return the report that `values` carries among others, or None if it carries none.

    Raises:
        ValueError: If a figure is no number or not there.

    """

    def read(key: str) -> float:
        try:
            return float(values[_PREFIX + key])
        except (KeyError, ValueError) as err:
            msg = f"{_PREFIX}{key}: no number in {values.get(_PREFIX + key)!r}"
            raise ValueError(msg) from err

    def durations(name: str) -> Durations | None:
        if f"{_PREFIX}{name} n" not in values:
            return None
        figures = {key: read(f"{name} ms {what}") for key, what in _FIGURES.items()}
        return Durations(count=round(read(f"{name} n")), **figures)

    if not any(key.startswith(_PREFIX) for key in values):
        return None
    timed = f"{_PREFIX}requested Hz" in values
    found = {name: durations(name) for name in STAGES}
    return CadenceReport(
        requested_hz=read("requested Hz") if timed else 0.0,
        achieved_hz=read("achieved Hz") if timed else 0.0,
        cycles=round(read("cycles")) if timed else 0,
        over_budget=round(read("cycles over budget")) if timed else 0,
        period=durations("period"),
        stages={name: stage for name, stage in found.items() if stage is not None},
    )


class Cadence:
    """Takes the times of a loop's commands and the durations of its stages.

    A cycle is the time from one command to the next. Time in which nothing is wanted of the loop (a
    stop, no instruction) is no cycle: see `pause`.
    """

    def __init__(self, rate_hz: float = 0.0) -> None:
        """Start with nothing.

        Args:
            rate_hz: The rate that is asked for; 0 for a loop that only has stages.

        """
        self._rate_hz = rate_hz
        self._last_ns: int | None = None
        self._over_budget = 0
        self._period = _Series()
        self._stages = {name: _Series() for name in STAGES}

    def command(self, time_ns: int) -> None:
        """Take the time of a command: it ends a cycle, and begins one."""
        last_ns, self._last_ns = self._last_ns, time_ns
        if last_ns is None or time_ns < last_ns:  # a clock that was set back
            return
        cycle_ms = (time_ns - last_ns) / 1e6
        warm = self._period.add(cycle_ms)
        if warm and cycle_ms * self._rate_hz > 1e3 * (1.0 + LATE):
            self._over_budget += 1

    def pause(self) -> None:
        """Begin anew with the next command: what lies between is no cycle."""
        self._last_ns = None

    def add(self, stage: str, ms: float) -> None:
        """Take a duration of a stage of `STAGES`, in ms."""
        self._stages[stage].add(ms)

    def report(self) -> CadenceReport:
        """Return the figures so far."""
        period = self._period.durations()
        stages = {name: series.durations() for name, series in self._stages.items()}
        return CadenceReport(
            requested_hz=self._rate_hz,
            achieved_hz=1e3 / period.mean if period is not None and period.mean > 0.0 else 0.0,
            cycles=0 if period is None else period.count,
            over_budget=self._over_budget,
            period=period,
            stages={name: found for name, found in stages.items() if found is not None},
        )


@dataclass(slots=True)
class _Series:
    """Durations in ms: exact but for percentiles, in memory that does not grow."""

    warm_up: int = 0
    warm_up_worst: float = 0.0
    count: int = 0
    mean: float = 0.0
    squares: float = 0.0  # sum of squared distances to the mean, as Welford keeps it
    worst: float = 0.0
    bins: dict[int, tuple[int, float]] = field(default_factory=dict)  # count and sum of each

    def add(self, ms: float) -> bool:
        """Take a value; return whether it is past the warm-up."""
        if self.warm_up < WARM_UP:
            self.warm_up += 1
            self.warm_up_worst = max(self.warm_up_worst, ms)
            return False
        self.count += 1
        # Welford, Technometrics 4 (1962): no difference of large sums.
        step = ms - self.mean
        self.mean += step / self.count
        self.squares += step * (ms - self.mean)
        self.worst = max(self.worst, ms)
        index = int(math.log(max(ms, _LEAST_MS) / _LEAST_MS) / _BIN)
        index = min(index, _BINS)
        count, total = self.bins.get(index, (0, 0.0))
        self.bins[index] = count + 1, total + ms
        return True

    def durations(self) -> Durations | None:
        """Return the figures, or None before the first value after the warm-up."""
        if self.count == 0:
            return None
        return Durations(
            count=self.count,
            mean=self.mean,
            std=math.sqrt(self.squares / self.count),
            p50=self._percentile(0.50),
            p99=self._percentile(0.99),
            worst=self.worst,
            warm_up_worst=self.warm_up_worst,
        )

    def _percentile(self, share: float) -> float:
        """Return the value that `share` of all do not exceed: the mean of its bin."""
        wanted, seen = math.ceil(share * self.count), 0
        for index in sorted(self.bins):
            count, total = self.bins[index]
            seen += count
            if seen >= wanted:
                break
        return total / count
