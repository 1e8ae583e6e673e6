"""Long recordings as few points that still show every peak."""

import numpy as np
from numpy.typing import NDArray

from vla_ros.types import Array

BUCKETS = 900
"""About as many as a page has pixels for."""


def kept(times: Array, values: Array, buckets: int = BUCKETS) -> NDArray[np.int64]:
    """Choose the smallest and the largest value of each of `buckets` equal spans of time.

    Args:
        times: Rising, in s, shape (n,).
        values: Shape (n,). What is not finite is a gap: in each span one such is kept.
        buckets: Number of spans. Of a series with no more than two points a span all are kept.

    Returns:
        Indices of what is kept, rising, at most three for each span.

    """
    if len(times) <= 2 * buckets:
        return np.arange(len(times))
    finite = np.isfinite(values)
    length = max(float(times[-1] - times[0]), 1e-9)
    bucket = np.minimum(((times - times[0]) / length * buckets).astype(np.int64), buckets - 1)
    known = np.flatnonzero(finite)
    keep = np.zeros(len(times), dtype=bool)
    for sign in (1.0, -1.0):
        # Sorted by span, then by value: the first of each span is its extreme.
        order = known[np.lexsort((sign * values[known], bucket[known]))]
        keep[order[np.unique(bucket[order], return_index=True)[1]]] = True
    keep[known[:1]] = keep[known[-1:]] = True
    gaps = np.flatnonzero(~finite & np.concatenate([[True], finite[:-1]]))
    keep[gaps[np.unique(bucket[gaps], return_index=True)[1]]] = True
    return np.flatnonzero(keep)


def simplified(
    times: Array, points: Array, tolerance: float, most: int = 3000
) -> NDArray[np.int64]:
    """Choose points of a way through space between which it is nearly straight and even.

    The top-down time ratio algorithm of Meratnia and de By (2004): at no time is the way further
    than `tolerance` from a motion from point to point in a straight line at even speed.

    Args:
        times: Rising, in s, shape (n,).
        points: Finite, in m, shape (n, k).
        tolerance: In m. It is doubled until no more than `most` points are left.
        most: Greatest number of points.

    Returns:
        Indices of what is kept, rising.

    """
    chosen = np.arange(len(times))[:: max(1, len(times) // (8 * most))]
    while True:
        chosen = chosen[_corners(times[chosen], points[chosen], tolerance)]
        if len(chosen) <= most:
            return chosen
        tolerance *= 2.0


def _corners(times: Array, points: Array, tolerance: float) -> NDArray[np.bool_]:
    keep = np.zeros(len(times), dtype=bool)
    keep[:1] = keep[-1:] = True
    waiting = [(0, len(times) - 1)]
    while waiting:
        first, last = waiting.pop()
        if last - first < 2:  # noqa: PLR2004 - nothing in between
            continue
        length = max(float(times[last] - times[first]), 1e-9)
        share = (times[first + 1 : last] - times[first]) / length
        even = points[first] + share[:, None] * (points[last] - points[first])
        apart = ((points[first + 1 : last] - even) ** 2).sum(axis=1)
        worst = int(apart.argmax())
        if apart[worst] > tolerance**2:
            middle = first + 1 + worst
            keep[middle] = True
            waiting += [(first, middle), (middle, last)]
    return keep


def spans(
    times: Array, active: NDArray[np.bool_], shortest: float = 0.0
) -> list[tuple[float, float]]:
    """Return when something was so.

    Args:
        times: Of the ticks, in s, rising, shape (n,). A tick lasts until the next one.
        active: Whether it was so at the tick, shape (n,).
        shortest: Spans no further apart than that, in s, become one.

    Returns:
        Beginning and end of each span, in s.

    """
    if not len(times):
        return []
    period = float(np.median(np.diff(times))) if len(times) > 1 else 0.0
    edges = np.diff(np.concatenate([[0], active.astype(np.int8), [0]]))
    starts, stops = np.flatnonzero(edges == 1), np.flatnonzero(edges == -1)
    ends = np.append(times[1:], times[-1] + period)
    found: list[tuple[float, float]] = []
    for start, stop in zip(starts.tolist(), stops.tolist(), strict=True):
        begin, end = float(times[start]), float(ends[stop - 1])
        if found and begin - found[-1][1] <= shortest:
            found[-1] = (found[-1][0], end)
        else:
            found.append((begin, end))
    return found
