"""Which action of which chunk comes next, counted in actions really executed."""

import math
from collections import deque
from dataclasses import dataclass

import numpy as np

from vla_ros.policy.catch_up import caught_up_joints, caught_up_twists
from vla_ros.policy.latency import Latency
from vla_ros.policy.motion import Motion
from vla_ros.policy.policy import Chunk
from vla_ros.types import Array

MODES = ("blend", "rtc", "ensemble", "replace", "synchronous")
"""How a chunk takes over from the one before it; the first is the default."""

ENSEMBLE_DECAY = 0.01
"""m of ACT's weights exp(-m i), i = 0 for the oldest chunk (T. Zhao et al., Learning Fine-Grained
Bimanual Manipulation with Low-Cost Hardware, 2023, arXiv:2304.13705, algorithm 2)."""

SEAM_RATIO = 1.5
"""Largest step of the velocity at a seam, in largest steps inside a chunk."""

_PACE_STEP = 0.05
"""Largest change of the pace from one action to the next."""

_WAITING = 2.0
"""Periods that a chunk waits besides: for frames to predict it from, and for the next action."""

_SLOWEST = 0.1
"""Least pace: slower than this, the arm may as well hold still."""

_WHOLE = 1e-6
"""Parts of an action that are none, but errors of rounding."""

_TWIST = 6
_PARTS = (slice(0, 3), slice(3, 6), slice(6, None))
"""Columns whose steps are measured together: m/s, rad/s of the TCP, rad/s of the joints."""


@dataclass(frozen=True, slots=True)
class Action:
    """One action.

    Attributes:
        twist: Velocity of the TCP in the base frame: m/s and rad/s, shape (6,).
        gripper: Opening in m, or None to leave it as it is.

    """

    twist: Array
    gripper: float | None


@dataclass(frozen=True, slots=True)
class Remainder:
    """What is left of the running chunk for the next one to go on with.

    Attributes:
        motion: Of the actions that were executed since the observation, and those still to be.
        frozen: The first so many are executed before the next chunk can have come.
        weights: How much each counts, shape (m,), see `soft_mask`.

    """

    motion: Motion
    frozen: int
    weights: Array


@dataclass(frozen=True, slots=True)
class _Executed:
    """What was executed in one period: so much of an action, and what it moved."""

    time_ns: int
    amount: float
    values: Array
    gripper: float | None


def soft_mask(count: int, frozen: int) -> Array:
    """Return how much of the running chunk's actions the next one keeps, shape (count,).

    1 for those that are executed before it can have come, then falling to 0 behind the last: eq. 5
    of arXiv:2506.07339, with `count` in place of H - s.

    Args:
        count: Actions that are left of the running chunk.
        frozen: How many of them are executed meanwhile.

    """
    ahead = np.arange(count)
    share = np.clip((count - ahead) / (count - min(frozen, count) + 1), 0.0, 1.0)
    falling = share * np.expm1(share) / math.expm1(1.0)
    return np.where(ahead < frozen, 1.0, falling)


class ChunkScheduler:
    """Executes chunks one after the other without a gap, a jump or a step back.

    A chunk predicted from an observation at t0 starts at the index of its first action that is not
    yet due: the number of actions executed since t0, whoever's they were. An estimate of the delay
    would do harm where it is wrong, and most of all at the start, when nothing has been executed:
    the first chunk starts at 0. Where a chunk is anchored, what was executed otherwise than it
    would have been since t0 is made up for before the next chunk is wanted.

    How the next chunk takes over is the mode's matter:

    - `synchronous`: it is asked for when the arm rests, after `replan_actions` of the one before.
    - `replace`: it is taken as it is.
    - `blend`: its first few actions are mixed linearly with what was left of the one before.
    - `ensemble`: each action is the weighted mean of all chunks that have one for it, as in ACT.
    - `rtc`: real-time chunking. The model is given what is left of the running chunk to go on with;
      the chunk of a model that cannot is mixed with it by the same weights.

    In `blend`, `ensemble` and `rtc` the velocity steps at a seam at most `seam_ratio` times as far
    as it does inside any chunk of this motion. Where that would not bring it to the new chunk's
    before this ends, it is spread evenly over the chunk.

    A model that takes more than about half of a chunk's time cannot keep up: each chunk is half
    past when it comes, and what is left of it ends before the next. Then actions are executed
    slower, several periods for one, so that the arm goes on until the next chunk comes, rather than
    stop: the places that it comes by are the same.
    """

    def __init__(
        self,
        replan_actions: int,
        blend_actions: int = 3,
        *,
        mode: str = MODES[0],
        seam_ratio: float = math.inf,
    ) -> None:
        """Start without a chunk.

        Args:
            replan_actions: Actions of a chunk after which the next one is wanted, at the latest; 0
                for as late as will do, by what inferences took.
            blend_actions: Actions at the start of a chunk that mode `blend` mixes.
            mode: One of `MODES`.
            seam_ratio: Bound on the step of the velocity at a seam in modes `blend`, `ensemble` and
                `rtc`, in largest steps inside the chunks.

        """
        self._replan_actions = replan_actions
        self._blend_actions = blend_actions
        self._mode = mode
        self._seam_ratio = seam_ratio
        self._smooth = mode in {"blend", "ensemble", "rtc"}
        self._executed: deque[_Executed] = deque(maxlen=1024)
        self.latency = Latency()
        self.clear()

    def clear(self) -> None:
        """Drop the chunk and what was executed: the next chunk starts at 0."""
        self._values: Array = np.zeros((0, 6))  # twists, and the joints' speeds where there are any
        self._gripper: Array | None = None
        self._taken = 0.0
        self._pace = 1.0
        self._length = 0  # of the whole chunk
        self._period_ns = 1
        self._inner: list[float] = [0.0] * len(_PARTS)
        self._last: Array | None = None  # what was executed last, None where the arm stood still
        self._predictions: list[tuple[float, Array]] = []  # oldest first, with their progress
        self._progress = 0.0
        self._asked_ns: int | None = None
        self._frozen = 0
        self._executed.clear()

    @property
    def empty(self) -> bool:
        """Whether there is no action left."""
        return self._left < _WHOLE

    @property
    def pace(self) -> float:
        """How much of an action is executed in a period: 1, or less where the model is too slow."""
        return self._pace

    @property
    def _left(self) -> float:
        return len(self._values) - self._taken

    @property
    def wants_chunk(self) -> bool:
        """Whether it is time to predict the next chunk."""
        if self.empty:
            return True
        if self._mode == "synchronous":
            return False
        if 0 < self._replan_actions <= self._taken + _WHOLE:
            return True
        expected = self.latency.expected_ns
        if expected is None:
            return self._replan_actions == 0
        needed = expected / self._period_ns + _WAITING
        if self._smooth:
            needed += self._blend_actions
        return self._left <= needed

    @property
    def rests_at_ns(self) -> int:
        """Before when an observation is of no use, as the arm still moves; -1 if it is anyway."""
        if self._mode != "synchronous" or not self._executed:
            return -1
        return self._executed[-1].time_ns + self._period_ns

    def ask(self, stamp_ns: int, now_ns: int) -> Remainder | None:
        """Take note that a chunk is asked for.

        Args:
            stamp_ns: Stamp of the observation that it is predicted from.
            now_ns: The present.

        Returns:
            What it is to go on with; None in other modes than `rtc`, or if nothing is left.

        """
        self._asked_ns = now_ns
        self._frozen = 0
        if self._mode != "rtc" or self.empty:
            return None
        values, openings, past = self._since(stamp_ns)
        expected = self.latency.expected_ns or 0
        meanwhile = expected / self._period_ns * self._pace
        self._frozen = min(math.ceil(past + meanwhile - _WHOLE), len(values))
        joints = values[:, _TWIST:] if values.shape[1] > _TWIST else None
        motion = Motion(values[:, :6], openings, joints)
        return Remainder(motion, self._frozen, soft_mask(len(values), self._frozen))

    def answer(self, now_ns: int) -> None:
        """Take note that the chunk asked for has come."""
        if self._asked_ns is not None:
            self.latency.add(max(0, now_ns - self._asked_ns))  # time may be set back
        self._asked_ns = None

    def start(self, chunk: Chunk) -> bool:
        """Go on with `chunk`; return False, changing nothing, if all its actions are past."""
        executed = [e for e in self._executed if e.time_ns > chunk.stamp_ns]
        past = sum(e.amount for e in executed)
        whole, part = _split(past)
        values, first = _columns(chunk), whole
        if part:
            # Actions that begin where the one that has been executed in part leaves off.
            between = (1.0 - part) * values[:-1] + part * values[1:]
            values, first = np.vstack([part * values[:1], between]), whole + 1
        if first >= len(values):
            return False
        new = values[first:].copy()
        if chunk.anchored and executed:
            new = self._caught_up(values, executed, first, chunk.period_ns)
        own = [_largest_step(_columns(chunk)[:, p]) for p in _PARTS]
        self._inner = [max(pair) for pair in zip(own, self._inner, strict=True)]
        new = self._taken_over(new, whole, continues=chunk.continues)
        if self._smooth and self._last is not None:
            new = self._limited(new, self._last)
        elif self._mode == "synchronous" and self._replan_actions:
            new = new[: self._replan_actions]
        self._gripper = None
        if chunk.gripper is not None:
            self._gripper = chunk.gripper[whole : whole + len(new)]
        self._values, self._taken = new, 0.0
        self._period_ns, self._length = chunk.period_ns, len(chunk.twists)
        return True

    def remaining(self) -> Array:
        """Return the twists still to be executed, as they will be at full pace, shape (m, 6)."""
        return self._ahead()[0][:, :6]

    def take(self, now_ns: int) -> Action | None:
        """Return the action to execute from now on, or None if there is none left."""
        if self.empty:
            self._last = None
            return None
        self._pace = self._paced(now_ns)
        amount = min(self._pace, self._left)
        values = self._over(amount)
        index = min(int(self._taken + _WHOLE), len(self._values) - 1)
        gripper = None if self._gripper is None else float(self._gripper[index])
        self._taken += amount
        self._progress += amount
        self._last = values
        self._executed.append(_Executed(now_ns, amount, values, gripper))
        return Action(values[:6], gripper)

    def _ahead(self) -> tuple[Array, Array | None]:
        """Return what is left of the chunk in whole actions, and the openings."""
        whole, _ = _split(self._taken)
        values = _from(self._values, self._taken)
        gripper = self._gripper
        return values, None if gripper is None else gripper[whole : whole + len(values)]

    def _since(self, stamp_ns: int) -> tuple[Array, Array | None, float]:
        """Return the chunk's actions from an observation on, openings, and how many are past."""
        past = [e for e in self._executed if e.time_ns > stamp_ns]
        values, gripper = self._ahead()
        if not past:
            return values, gripper, 0.0
        # Executed in parts of actions, they are put together to whole ones again.
        amounts = [e.amount for e in past] + [1.0] * len(values)
        moved = np.vstack([np.array([e.values for e in past]), values])
        ends = np.concatenate([[0.0], np.cumsum(amounts)])
        path = np.vstack([np.zeros((1, values.shape[1])), np.cumsum(moved, axis=0)])
        whole, _ = _split(float(ends[-1]))
        at = [np.interp(np.arange(whole + 1), ends, column) for column in path.T]
        if gripper is not None:
            each = np.concatenate([[e.gripper or 0.0 for e in past], gripper])
            gripper = each[np.searchsorted(ends, np.arange(whole) + _WHOLE) - 1]
        return np.diff(np.array(at).T, axis=0), gripper, float(ends[len(past)])

    def _over(self, amount: float) -> Array:
        """Return what moves the arm in one period as far as the next `amount` of actions."""
        whole, part = _split(self._taken)
        if amount == 1.0 and not part:
            at: Array = self._values[whole]
            return at
        moved = np.zeros(self._values.shape[1])
        while amount > _WHOLE and whole < len(self._values):
            share = min(1.0 - part, amount)
            moved += share * self._values[whole]
            amount -= share
            whole, part = whole + 1, 0.0
        return moved

    def _paced(self, now_ns: int) -> float:
        """Return how much of an action to execute now: 1, or less if the next chunk takes longer.

        An inference that takes longer than usual leaves the pace as it is.
        """
        usual = self.latency.usual_ns
        if self._mode == "synchronous" or usual is None:
            return 1.0
        # A chunk comes a cycle after its observation, and has to last for the cycle of the next.
        inference = usual / self._period_ns
        cycle = inference + min(inference, _WAITING)
        target = min(1.0, self._length / max(2.0 * cycle, 1.0))
        if self._last is None:
            return max(target, _SLOWEST)
        if self._taken == 0.0:
            return self._pace  # a step at the seam is limited for this one
        if self._asked_ns is not None:
            periods = (self._asked_ns + usual - now_ns) / self._period_ns + 1.0
            overdue = periods <= 1.0
            target = self._pace if overdue else min(target, self._left / periods)
        slowest, fastest = max(self._pace - _PACE_STEP, _SLOWEST), self._pace + _PACE_STEP
        return min(max(target, slowest), fastest)

    def _caught_up(
        self, values: Array, executed: list[_Executed], first: int, period: int
    ) -> Array:
        """Return an anchored chunk's values from `first` on, made to lead where they would have."""
        over = self._replan_actions or max(1, (len(values) - first) // 2)
        own = np.array([e.values for e in executed])
        parts = [caught_up_twists(values[:, :6], own[:, :6], first, period / 1e9, over)]
        if values.shape[1] > _TWIST:
            parts.append(caught_up_joints(values[:, 6:], own[:, 6:], first, over))
        return np.hstack(parts)

    def _taken_over(self, new: Array, past: int, *, continues: bool) -> Array:
        """Return `new` as the mode lets it take over; `past` were executed since it was seen."""
        old, _ = self._ahead()
        count = min(len(old), len(new))
        if self._mode == "blend":
            count = min(self._blend_actions, count)
            kept = 1.0 - (np.arange(count) + 1.0) / (self._blend_actions + 1.0)
        elif self._mode == "rtc" and not continues:
            kept = soft_mask(past + len(old), self._frozen)[past:][:count]
        elif self._mode == "ensemble":
            return self._ensemble(new)
        else:
            return new
        if not count:
            return new
        mixed = new.copy()
        mixed[:count] = (1.0 - kept[:, None]) * new[:count] + kept[:, None] * old[:count]
        return mixed

    def _ensemble(self, new: Array) -> Array:
        """Return the weighted mean of all chunks that have an action for the time, as in ACT."""
        left = [
            (begin, values)
            for begin, values in self._predictions
            if self._progress - begin < len(values)
        ]
        self._predictions = [*left, (self._progress, new)]
        total, weights = np.zeros_like(new), np.zeros((len(new), 1))
        for age, (begin, values) in enumerate(self._predictions):
            ahead = _from(values, self._progress - begin)[: len(new)]
            weight = math.exp(-ENSEMBLE_DECAY * age)
            total[: len(ahead)] += weight * ahead
            weights[: len(ahead)] += weight
        return np.asarray(total / weights)

    def _limited(self, new: Array, last: Array) -> Array:
        """Return `new` begun from the velocity of `last` without a step larger than allowed."""
        limited = new.copy()
        last = last / self._pace
        steps = np.diff(np.vstack([last, new]), axis=0)
        for part, inner in zip(_PARTS, self._inner, strict=True):
            sizes = np.linalg.norm(steps[:, part], axis=1)
            limit = max(self._seam_ratio * inner, float(sizes[0]) / len(new))
            over = np.flatnonzero(sizes > limit)
            if not len(over):  # mostly
                continue
            at = last[part]
            for index, row in enumerate(limited[:, part]):
                step = row - at
                size = float(np.linalg.norm(step))
                if size > limit:
                    row[:] = at + step * (limit / size)
                elif index > over[-1]:
                    break  # back on the chunk, whose steps are smaller from here on
                at = row
        return limited


def _columns(chunk: Chunk) -> Array:
    """Return a chunk's twists, and beside them the joints' speeds where it has any."""
    return chunk.twists if chunk.joints is None else np.hstack([chunk.twists, chunk.joints])


def _split(amount: float) -> tuple[int, float]:
    """Return whole actions and the part of another one."""
    whole = int(amount + _WHOLE)
    part = amount - whole
    return whole, part if part > _WHOLE else 0.0


def _from(values: Array, amount: float) -> Array:
    """Return the whole actions that are left after `amount` of them, beginning there."""
    whole, part = _split(amount)
    left: Array = values[whole:]
    if part:
        left = (1.0 - part) * left[:-1] + part * left[1:]
    return left


def _largest_step(values: Array) -> float:
    """Return the largest change from one row to the next."""
    return float(np.linalg.norm(np.diff(values, axis=0), axis=1).max(initial=0.0))
