"""Which action of which chunk comes next, counted in actions really executed."""

from collections import deque
from dataclasses import dataclass

import numpy as np

from vla_ros.policy.catch_up import caught_up_twists
from vla_ros.policy.policy import Chunk
from vla_ros.types import Array


@dataclass(frozen=True, slots=True)
class Action:
    """One action.

    Attributes:
        twist: Velocity of the TCP in the base frame: m/s and rad/s, shape (6,).
        gripper: Opening in m, or None to leave it as it is.

    """

    twist: Array
    gripper: float | None


class ChunkScheduler:
    """Executes chunks one after the other without a gap, a jump or a step back.

    A chunk predicted from an observation at t0 starts at the index of its first action that is not
    yet due: the number of actions executed since t0, whoever's they were. An estimate of the delay
    would do harm where it is wrong, and most of all at the start, when nothing has been executed:
    the first chunk starts at 0. The first actions are blended linearly with what was left of the
    previous chunk. Where a chunk is anchored, what was executed otherwise than it would have been
    since t0 is made up for before the next chunk is wanted.
    """

    def __init__(self, replan_actions: int, blend_actions: int = 3) -> None:
        """Start without a chunk.

        Args:
            replan_actions: Actions of a chunk after which the next one is wanted.
            blend_actions: Actions at the start of a chunk that are mixed with its predecessor's.

        """
        self._replan_actions = replan_actions
        self._blend_actions = blend_actions
        self._executed: deque[tuple[int, Array]] = deque(maxlen=1024)
        self.clear()

    def clear(self) -> None:
        """Drop the chunk and what was executed: the next chunk starts at 0."""
        self._twists: Array = np.zeros((0, 6))
        self._gripper: Array | None = None
        self._taken = 0
        self._executed.clear()

    @property
    def empty(self) -> bool:
        """Whether there is no action left."""
        return self._taken >= len(self._twists)

    @property
    def wants_chunk(self) -> bool:
        """Whether it is time to predict the next chunk."""
        return self.empty or self._taken >= self._replan_actions

    def start(self, chunk: Chunk) -> bool:
        """Go on with `chunk`; return False, changing nothing, if all its actions are past."""
        executed = [twist for time_ns, twist in self._executed if time_ns > chunk.stamp_ns]
        first = len(executed)
        if first >= len(chunk.twists):
            return False
        twists = chunk.twists[first:].copy()
        if chunk.anchored and executed:
            period_s, over = chunk.period_ns / 1e9, self._replan_actions
            twists = caught_up_twists(chunk.twists, np.array(executed), first, period_s, over)
        old = self._twists[self._taken :]
        count = min(self._blend_actions, len(old), len(twists))
        share = (np.arange(count) + 1.0)[:, None] / (self._blend_actions + 1.0)
        twists[:count] = share * twists[:count] + (1.0 - share) * old[:count]
        self._gripper = None if chunk.gripper is None else chunk.gripper[first:]
        self._twists, self._taken = twists, 0
        return True

    def remaining(self) -> Array:
        """Return the twists still to be executed, as they will be, shape (m, 6)."""
        return self._twists[self._taken :]

    def take(self, now_ns: int) -> Action | None:
        """Return the action to execute from now on, or None if there is none left."""
        if self.empty:
            return None
        gripper = None if self._gripper is None else float(self._gripper[self._taken])
        action = Action(self._twists[self._taken], gripper)
        self._taken += 1
        self._executed.append((now_ns, action.twist))
        return action
