"""How long a bundle takes for a chunk on this machine, by threads."""

import os
import time
from collections.abc import Mapping

import numpy as np

from vla_ros.export.parity import random_observation
from vla_ros.policy.backends import BackendOptions, open_backend
from vla_ros.policy.bundle import Bundle
from vla_ros.policy.decoders import make_decoder
from vla_ros.policy.inputs import InputBuilder

WARM_UP = 2
RUNS = 10
LONGEST_S = 20.0

Latency = dict[str, float]


def thread_counts() -> list[int]:
    """Return 1, 2, 4, ... up to the machine's cores."""
    cores = os.cpu_count() or 1
    return [1 << power for power in range(cores.bit_length())]


def milliseconds(bundle: Bundle, threads: int, runs: int = RUNS) -> Latency:
    """Return what a chunk takes: `median` and `worst`, in ms, inputs and decoder included.

    Args:
        bundle: The bundle.
        threads: Of one inference.
        runs: Chunks, fewer if they take longer than `LONGEST_S` together.

    """
    build, decoder = InputBuilder(bundle), make_decoder(bundle.manifest)
    options = BackendOptions(threads=threads)
    graphs = {graph.name: open_backend(bundle, graph, options) for graph in bundle.manifest.graphs}
    observation = random_observation(bundle.manifest, 0, bundle)
    times: list[float] = []
    begun = time.perf_counter()
    for _ in range(WARM_UP + runs):
        started = time.perf_counter()
        decoder.decode(graphs, build(observation), stamp_ns=observation.stamp_ns)
        times.append(1e3 * (time.perf_counter() - started))
        if len(times) > WARM_UP and time.perf_counter() - begun > LONGEST_S:
            break
    for backend in graphs.values():
        backend.close()
    measured = times[WARM_UP:]
    return {"median": float(np.median(measured)), "worst": max(measured)}


def table(latencies: Mapping[str, Mapping[int, Latency]]) -> str:
    """Return the times as a table for people: a row a number of threads, a column a variant."""
    names = list(latencies)
    lines = [f"{'ms a chunk (worst)':<22}" + "".join(f"{name:>20}" for name in names)]
    for threads in latencies[names[0]]:
        cells = ""
        for name in names:
            times = latencies[name][threads]
            cell = f"{times['median']:.1f} ({times['worst']:.1f})"
            cells += f"{cell:>20}"
        label = "1 thread" if threads == 1 else f"{threads} threads"
        lines.append(f"{label:<22}{cells}")
    return "\n".join(lines)
