"""`vla_ros safety compile`: have the filter's arithmetic compiled before it is needed."""

import argparse
import sys

from vla_ros.safety.motion import is_kept, warm_up


def add_arguments(_: argparse.ArgumentParser) -> None:
    """Add nothing: there is nothing to choose."""


def run(_: argparse.Namespace) -> int:
    """Compile what is not kept on disk yet; return the exit code."""
    announce()
    warm_up()
    print("the safety filter is ready")
    return 0


def ensure_compiled() -> bool:
    """Compile what is not kept on disk yet, before workers that each would; return if it took so.

    What is kept is not even loaded: that is for who makes a filter.
    """
    missing = announce()
    if missing:
        warm_up()
    return missing


def announce() -> bool:
    """Say on stderr that a filter will first be compiled, if it will; return whether it will.

    A mute minute is alarming.
    """
    missing = not is_kept()
    if missing:
        print("compiling the safety filter, once: up to a minute ...", file=sys.stderr, flush=True)
    return missing
