"""`vla_ros safety compile`: have the filter's arithmetic compiled before it is needed."""

import argparse
import time

from vla_ros.safety.motion import is_kept, warm_up


def add_arguments(_: argparse.ArgumentParser) -> None:
    """Add nothing: there is nothing to choose."""


def run(_: argparse.Namespace) -> int:
    """Compile what is not kept on disk yet; return the exit code."""
    if not is_kept():
        print("compiling the safety filter, once: up to a minute ...", flush=True)
    begin = time.perf_counter()
    warm_up()
    print(f"the safety filter is ready ({time.perf_counter() - begin:.1f} s)")
    return 0
