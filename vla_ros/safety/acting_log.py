"""Log lines for bounds that start and stop acting: few enough to be read."""

from collections.abc import Iterable

from vla_ros.safety.decision import Acting

QUIET_NS = 500_000_000
"""A bound that acted within this time still counts as acting: one line, not one a tick."""
SPACING_NS = 5_000_000_000
"""Least time between two starts that are told of the same bound."""


class ActingLog:
    """Follows which bounds act."""

    def __init__(self) -> None:
        """Start with none."""
        self._last_ns: dict[str, int] = {}
        self._most: dict[str, float] = {}
        self._told_ns: dict[str, int] = {}
        self._silent: set[str] = set()

    @property
    def names(self) -> tuple[str, ...]:
        """The bounds that act now, or did a moment ago."""
        return tuple(self._last_ns)

    def update(self, now_ns: int, acting: Iterable[Acting], reason: str = "") -> list[str]:
        """Return the lines to log after a step.

        Args:
            now_ns: Time of the step.
            acting: The bounds that acted in it.
            reason: Its reason, which is told with each start.

        """
        lines = []
        for bound in acting:
            if bound.name not in self._last_ns:
                self._most[bound.name] = 0.0
                told = self._told_ns.get(bound.name)
                if told is None or abs(now_ns - told) >= SPACING_NS:
                    self._told_ns[bound.name] = now_ns
                    line = f"{bound.name} acts (by {bound.amount:.3g})"
                    lines.append(f"{line}: {reason}" if reason else line)
                else:
                    self._silent.add(bound.name)
            self._last_ns[bound.name] = now_ns
            self._most[bound.name] = max(self._most[bound.name], bound.amount)
        over = [n for n, last in self._last_ns.items() if not 0 <= now_ns - last < QUIET_NS]
        for name in over:
            del self._last_ns[name]
            most = self._most.pop(name)
            if name in self._silent:
                self._silent.remove(name)
            else:
                lines.append(f"{name} acts no longer (by {most:.3g} at most)")
        return lines
