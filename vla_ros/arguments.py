"""Numbers on the command line: within a range, or refused before anything starts."""

import argparse
import math
from collections.abc import Callable


def whole(least: int, most: int | None = None) -> Callable[[str], int]:
    """Return a type for `add_argument`: whole numbers from `least` to `most`."""
    wanted = f"a whole number of {least} or more"
    if most is not None:
        wanted = f"a whole number from {least} to {most}"

    def read(text: str) -> int:
        try:
            value = int(text)
        except ValueError:
            value = least - 1
        if value < least or (most is not None and value > most):
            raise _unlike(text, wanted)
        return value

    return read


threads = whole(1, 64)
"""Threads of an inference, as many as of policy_node."""


def real(least: float, most: float = math.inf) -> Callable[[str], float]:
    """Return a type for `add_argument`: finite numbers from `least` to `most`."""
    wanted = f"a number of {least:g} or more"
    if math.isfinite(most):
        wanted = f"a number from {least:g} to {most:g}"
    return _real(lambda value: least <= value <= most, wanted)


def positive(text: str) -> float:
    """Read a finite number over 0."""
    return _real(lambda value: value > 0.0, "a number over 0")(text)


def _real(good: Callable[[float], bool], wanted: str) -> Callable[[str], float]:
    def read(text: str) -> float:
        try:
            value = float(text)
        except ValueError:
            value = math.nan
        if not (math.isfinite(value) and good(value)):
            raise _unlike(text, wanted)
        return value

    return read


def _unlike(text: str, wanted: str) -> argparse.ArgumentTypeError:
    return argparse.ArgumentTypeError(f"{text} is not {wanted}")
