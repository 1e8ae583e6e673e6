"""Compile everything before it is needed: the first time takes up to a minute."""

from functools import cache

import numpy as np

from vla_ros.safety.motion import (
    algebra,
    chain,
    external,
    guard,
    places,
    predictor,
    surfaces,
    trial,
)
from vla_ros.safety.motion.acting import PLACES
from vla_ros.safety.motion.compiled import note_complete
from vla_ros.safety.motion.shaping import TWIST
from vla_ros.safety.motion.state import STATE


@cache
def warm_up() -> None:
    """Run all that is compiled once, on made-up numbers; once in a process is enough."""
    n = 6
    record = np.zeros(1, dtype=STATE)
    state = record[0]
    state["joints"], state["twists"], state["target_kind"] = n, 1, TWIST
    state["ring_count"], state["known"] = 1, 1
    for name in ("length", "period", "delay", "ramp", "rate", "way", "slow_way", "plan_time"):
        state[name] = 1.0
    ring, links = np.zeros((4, n + 1)), np.zeros((n + 1, chain.COLUMNS))
    held, points = np.zeros((1, surfaces.COLUMNS)), np.zeros((1, places.POINT_COLUMNS))
    rows, slopes = np.zeros((2, places.ROW_COLUMNS)), np.zeros((2, n))
    indices, acting = np.zeros(2, dtype=np.int64), np.zeros(PLACES + 2)
    metric, gain, matrix = np.zeros((n, n)), np.zeros(n), np.zeros((4 * n, n))
    low, high = np.zeros(5 * n), np.zeros(5 * n)
    guard.tighten(record, 0, 1.0, 1.0, 1.0)
    predictor.lose_time(record)
    trial.tick(
        record, ring, links, held, points, rows, slopes, indices, acting,
        metric, gain, matrix, low, high, 0.1, 0.0,
    )  # fmt: skip
    trial.settle(record, links, rows, indices, gain)
    surfaces.room(held[0], 0.0, 0.0, 0.0, np.zeros(3))
    algebra.check(gain, gain, gain, 1.0)
    algebra.least_margin(gain, gain)
    external.update(links, gain, gain, gain, gain, 0.1, 1.0, gain)
    external.force(links, gain, gain)
    note_complete()
