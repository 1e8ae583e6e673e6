"""Tells what is done once for a replay, however long the bag is, from what is done with the bag."""

import time


class Stopwatch:
    """Adds up the time that goes by in its `with` blocks, which are not to be nested."""

    def __init__(self) -> None:
        """Start at zero."""
        self.seconds = 0.0
        self._begin = 0.0

    def __enter__(self) -> None:
        """Start."""
        self._begin = time.perf_counter()

    def __exit__(self, *_: object) -> None:
        """Stop."""
        self.seconds += time.perf_counter() - self._begin
