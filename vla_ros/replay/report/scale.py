"""Scales: where values lie on a plot, and how values and times are told."""

import math
from dataclasses import dataclass

MINUTE_S = 60


@dataclass(frozen=True, slots=True)
class Axis:
    """A linear scale from `low` to `high`."""

    low: float
    high: float

    def place(self, value: float) -> float:
        """Return where a value lies: 0 at the low end, 1 at the high end."""
        return (value - self.low) / (self.high - self.low)

    def ticks(self, most: int = 6) -> list[float]:
        """Return round values inside, `most` at most and no fewer than a third of that."""
        length = self.high - self.low
        step = 10.0 ** math.floor(math.log10(length / most))
        step *= next(factor for factor in (1, 2, 5, 10) if length / (step * factor) <= most)
        first = math.ceil(self.low / step - 1e-9)
        last = math.floor(self.high / step + 1e-9)
        return [index * step for index in range(first, last + 1)]


def clock(seconds: float, step: float = 0.01, *, minutes: bool = False) -> str:
    """Return a time as text: in seconds, or `minutes` or from two on as 2:34.5."""
    if abs(seconds) < 2 * MINUTE_S and not minutes:
        return f"{steps(seconds, step)} s"
    digits = _digits(step)
    whole = round(abs(seconds) * 10**digits)
    whole_minutes, rest = divmod(whole, MINUTE_S * 10**digits)
    sign = "-" if seconds < 0 else ""
    return f"{sign}{whole_minutes}:{rest / 10**digits:0{digits + 3 if digits else 2}.{digits}f}"


def steps(value: float, step: float) -> str:
    """Return a value with the digits that multiples of `step` need."""
    if abs(value) >= 1e6 or abs(step) < 1e-5:  # noqa: PLR2004 - longer labels do not fit
        return f"{value:.1e}"
    return f"{value + 0.0:.{_digits(step)}f}"


def number(value: float, digits: int = 3) -> str:
    """Return a value with so many significant digits, plainly where that is short."""
    if value == 0 or not math.isfinite(value):
        return f"{value:.0f}"
    exponent = math.floor(math.log10(abs(value)))
    if not -4 <= exponent <= max(digits, 6):  # noqa: PLR2004 - of a plain number
        return f"{value:.{digits - 1}e}"
    text = f"{value:.{max(0, digits - 1 - exponent)}f}"
    return text.rstrip("0").rstrip(".") if "." in text else text


def pretty(unit: str) -> str:
    """Return a unit as it is printed: m/s^2 as m/s²."""
    return unit.replace("^2", "²").replace("^3", "³")


def _digits(step: float) -> int:
    return max(0, -math.floor(math.log10(abs(step)) + 1e-9))
