"""`vla_ros safety compile`: have the filter's arithmetic compiled before it is needed."""

import argparse
import sys

from vla_ros.safety.motion import is_kept, warm_up


def add_arguments(_: argparse.ArgumentParser) -> None:
    """Add nothing: there is nothing to choose."""


def run(_: argparse.Namespace) -> int:
    """Compile what is not kept on disk yet; return the exit code."""
    ensure_compiled()
    print("the safety filter is ready")
    return 0


def ensure_compiled() -> None:
    """Compile what is not kept on disk yet, having said so: before workers that each would."""
    announce()
    warm_up()


def announce() -> None:
    """Say on stderr that a filter will first be compiled, if it will: a mute minute is alarming."""
    if not is_kept():
        print("compiling the safety filter, once: up to a minute ...", file=sys.stderr, flush=True)
