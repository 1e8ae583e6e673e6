"""Why an arm was held still, in a few lines."""

import re
from collections import Counter
from collections.abc import Iterable, Sequence

from vla_ros.replay.result import ReplayResult, Ticks
from vla_ros.safety.decision import SafetyState

_NUMBER = re.compile(r"\d+(?:\.\d+)?")
_RUNNING = SafetyState.RUNNING.value


def reasons(ticks: Ticks) -> list[tuple[int, str]]:
    """Return in how many steps the filter was held, for each reason, the most frequent first."""
    held = zip(ticks.state, ticks.reason, strict=True)
    return counted(f"{state}: {why}" for state, why in held if state not in ("", _RUNNING))


def never_moved(result: ReplayResult) -> list[str]:
    """Return warnings, for people, of a filter or a policy that held the arm from first to last.

    It then keeps all bounds, and meets most expectations, without having done a thing.
    """
    said = []
    ticks, hold = result.ticks, result.commands.hold
    if ticks is not None and _RUNNING not in ticks.state:
        said += _never("the filter followed a command", len(ticks), "steps", reasons(ticks))
    if "" not in hold:
        said += _never("the policy moved", len(hold), "commands", counted(hold))
    return said


def counted(lines: Iterable[str]) -> list[tuple[int, str]]:
    """Count lines that differ in numbers alone; each as it was first, the most frequent first."""
    first: dict[str, str] = {}
    counts = Counter(first.setdefault(_NUMBER.sub("#", line), line) for line in lines)
    return [(count, line) for line, count in counts.most_common()]


def _never(what: str, total: int, of: str, held: Sequence[tuple[int, str]]) -> list[str]:
    # Of a recorded run, the state may not be known.
    if not held or sum(count for count, _ in held) < total:
        return []
    count, why = held[0]
    return [f"{what} in none of its {total} {of}; in {count}: {why}"]
