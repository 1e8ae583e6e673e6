"""Why an arm was held still, in a few lines."""

import re
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass

from vla_ros.replay.result import ReplayResult
from vla_ros.safety.decision import SafetyState

_NUMBER = re.compile(r"\d+(?:\.\d+)?")


@dataclass(frozen=True, slots=True)
class Held:
    """How often the filter, or the policy, held the arm still.

    Attributes:
        by: "filter" or "policy".
        steps: In which it could have moved it.
        reasons: In how many of them it held it, for each reason, the most frequent first. Of a
            recorded run, neither may be known.

    """

    by: str
    steps: int
    reasons: list[tuple[int, str]]


def held(result: ReplayResult) -> list[Held]:
    """Return how often each part that was stepped held the arm still, and why."""
    found = []
    if (ticks := result.ticks) is not None:
        told = zip(ticks.state, ticks.reason, strict=True)
        why = (f"{s}: {r}" for s, r in told if s not in ("", SafetyState.RUNNING.value))
        found.append(Held("filter", len(ticks), counted(why)))
    if hold := result.commands.hold:
        found.append(Held("policy", len(hold), counted(filter(None, hold))))
    return found


def never_moved(result: ReplayResult) -> list[str]:
    """Return warnings, for people, of a part that held the arm still from first to last.

    It then keeps all bounds, and meets most expectations, without having done a thing.
    """
    return [
        f"the {one.by} held the arm still in all of its {one.steps} steps; "
        f"in {one.reasons[0][0]}: {one.reasons[0][1]}"
        for one in held(result)
        if one.reasons and sum(count for count, _ in one.reasons) == one.steps
    ]


def counted(lines: Iterable[str]) -> list[tuple[int, str]]:
    """Count lines that differ in numbers alone; each as it was first, the most frequent first."""
    first: dict[str, str] = {}
    counts: Counter[str] = Counter()
    # Those that are the same throughout at first: of hours of steps, few are not.
    for line, count in Counter(lines).items():
        counts[first.setdefault(_NUMBER.sub("#", line), line)] += count
    return [(count, line) for line, count in counts.most_common()]
