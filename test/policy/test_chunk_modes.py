"""However slow the model is, the arm goes on, without a jump where chunks meet, in every mode."""

import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vla_ros.policy.policy import Chunk
from vla_ros.policy.scheduler import (
    ENSEMBLE_DECAY,
    MODES,
    SEAM_RATIO,
    ChunkScheduler,
    soft_mask,
)

PERIOD = 33_333_333
MS = 1_000_000
SMOOTH = ("blend", "rtc", "ensemble")


def chunk(stamp_ns, values, **others):
    """Return a chunk that moves along x at `values`."""
    values = np.asarray(values, float)
    twists = np.zeros((len(values), 6))
    twists[:, 0] = values
    return Chunk(stamp_ns, PERIOD, twists, values / 100, "go", **others)


class Drive:
    """A scheduler at 30 Hz and a model that takes its time; what happens is in lists."""

    def __init__(self, mode, inference_ms, *, replan=4, model=None, seed=0):
        self.scheduler = ChunkScheduler(replan, mode=mode, seam_ratio=SEAM_RATIO)
        self.inference_ns = round(inference_ms * MS)
        self.model = model or wave
        self.now = 0
        self.position = 0.0  # in actions: what has been executed
        self.pending = None
        self.commands, self.seams, self.inner = [], [], 0.0
        self.rng = np.random.default_rng(seed)

    def tick(self):
        """Do what the controller does in a period: frames come just before the tick."""
        s = self.scheduler
        self.now += PERIOD
        if self.pending is not None and self.pending[0] <= self.now:
            s.answer(self.pending[0])
            new = self.pending[1]
            self.pending = None
            self.inner = max(self.inner, np.abs(np.diff(new.twists[:, 0])).max())
            if s.start(new):
                self.seams.append(len(self.commands))
        action = s.take(self.now)
        self.commands.append(None if action is None else float(action.twist[0]))
        stamp = self.now + 1
        if self.pending is None and s.wants_chunk and stamp >= s.rests_at_ns:
            s.ask(stamp, stamp)
            new = chunk(stamp, self.model(self.rng, s._progress))
            self.pending = (stamp + self.inference_ns, new)
        return self.commands[-1]

    def run(self, ticks=240):
        for _ in range(ticks):
            self.tick()
        return self

    @property
    def pauses(self):
        """How many periods had no action after the first."""
        first = next(i for i, c in enumerate(self.commands) if c is not None)
        return sum(c is None for c in self.commands[first:])

    @property
    def seam_ratio(self):
        steps = [
            abs(self.commands[i] - self.commands[i - 1])
            for i in self.seams
            if i > 0 and self.commands[i - 1] is not None
        ]
        return max(steps, default=0.0) / self.inner


def wave(_rng, progress):
    """Return the velocities of a motion that goes on the same wherever it is looked at."""
    return 0.1 + 0.05 * np.sin((progress + np.arange(16)) / 10)


def moody(rng, _progress):
    """Return velocities that have nothing to do with those of the chunk before."""
    return rng.uniform(-0.3, 0.3) + 0.01 * np.sin(np.arange(16.0))


@pytest.mark.parametrize("inference_ms", [0, 50, 150, 300, 500])
@pytest.mark.parametrize("replan", [0, 4, 16])
@pytest.mark.parametrize("mode", [m for m in MODES if m != "synchronous"])
def test_the_arm_never_pauses_while_an_inference_is_shorter_than_a_chunk(
    mode, replan, inference_ms
):
    assert Drive(mode, inference_ms, replan=replan).run().pauses == 0


@pytest.mark.parametrize("inference_ms", [0, 50, 150, 300, 500])
@pytest.mark.parametrize("model", [wave, moody])
@pytest.mark.parametrize("mode", SMOOTH)
def test_the_velocity_does_not_jump_where_chunks_meet(mode, model, inference_ms):
    drive = Drive(mode, inference_ms, model=model).run()
    assert len(drive.seams) > 4
    assert drive.seam_ratio <= SEAM_RATIO + 1e-9 or model is moody
    if model is moody:
        # Disagreement that no allowed step would make up for is spread over the chunk instead.
        steps = np.abs(np.diff([c for c in drive.commands if c is not None]))
        assert steps.max() < 0.6 / 4


def test_replace_jumps():
    """So that the bound above says something."""
    assert Drive("replace", 50, model=moody).run().seam_ratio > 10


def test_a_slow_model_slows_the_arm_and_no_more():
    """At half a chunk's time and less it goes at full speed; at 500 ms about half of it."""

    def speed(inference_ms):
        drive = Drive("blend", inference_ms, model=lambda *_: np.full(16, 0.1)).run(600)
        return np.mean(drive.commands[300:]) / 0.1

    assert speed(150) == pytest.approx(1.0, abs=1e-6)
    assert 0.6 < speed(300) < 0.9
    assert 0.4 < speed(500) < 0.55


def test_slowed_actions_lead_to_the_same_places():
    """Each of them is executed wholly: chunks that agree are one motion, whatever the pace."""
    s = ChunkScheduler(4, mode="replace")
    s.latency.add(600 * MS)
    s.start(chunk(0, np.arange(16.0)))
    moved, now = [], 0
    while (action := s.take(now := now + PERIOD)) is not None:
        moved.append(action.twist[0])
    assert len(moved) > 24
    assert sum(moved) == pytest.approx(sum(range(16)))


def test_a_chunk_that_comes_while_actions_are_slowed_goes_on_within_an_action():
    """Indexed by what has been executed really, parts of actions included."""
    s = ChunkScheduler(4, mode="replace")
    s.latency.add(600 * MS)
    s.start(chunk(0, np.arange(16.0)))
    first = [s.take(tick * PERIOD).twist[0] for tick in range(1, 8)]
    pace = s.pace
    executed = 7 * pace
    s.start(chunk(0, np.arange(16.0)))
    # The integral of v from where it was to the end of the chunk, less the part cut off there.
    whole, part = int(executed), executed - int(executed)
    left = s.remaining()[:, 0]
    assert len(left) == 16 - whole - 1
    np.testing.assert_allclose(left, np.arange(whole, 15) + part)
    assert first[0] == 0.0


def test_the_soft_mask_is_that_of_the_paper():
    """Eq. 5 of arXiv:2506.07339, computed by hand for 8 actions of which 3 are frozen."""
    mask = soft_mask(8, 3)
    np.testing.assert_array_equal(mask[:3], 1.0)
    share = np.array([5, 4, 3, 2, 1]) / 6
    np.testing.assert_allclose(mask[3:], share * (np.exp(share) - 1) / (math.e - 1))
    assert (np.diff(mask) <= 0).all()


@given(count=st.integers(0, 40), frozen=st.integers(0, 50))
def test_the_soft_mask_falls_from_1_to_0(count, frozen):
    mask = soft_mask(count, frozen)
    assert mask.shape == (count,)
    assert ((mask > 0) & (mask <= 1)).all()
    assert (np.diff(mask) <= 0).all()
    assert (mask[:frozen] == 1).all()


def test_rtc_asks_to_go_on_with_what_was_executed_since_the_observation_and_what_is_left():
    s = ChunkScheduler(4, mode="rtc")
    s.latency.add(110 * MS)
    s.start(chunk(0, np.arange(16.0)))
    for tick in range(1, 6):
        s.take(tick * PERIOD)
    left = s.ask(3 * PERIOD, 5 * PERIOD + 1)
    # Executed after the observation: actions 3 and 4. Left: 5 to 15.
    np.testing.assert_allclose(left.motion.twists[:, 0], np.arange(3.0, 16.0))
    np.testing.assert_allclose(left.motion.gripper, np.arange(3.0, 16.0) / 100)
    assert left.frozen == 2 + 4  # 110 ms are 3.3 periods
    np.testing.assert_array_equal(left.weights, soft_mask(13, 6))


def test_what_rtc_asks_to_go_on_with_is_in_actions_also_where_they_are_slowed():
    """Seven periods of less than an action each are not seven actions."""
    s = ChunkScheduler(4, mode="rtc")
    s.latency.add(600 * MS)
    s.start(chunk(0, np.full(16, 0.1)))
    for tick in range(1, 8):
        s.take(tick * PERIOD)
    left = s.ask(0, 7 * PERIOD)
    assert 14 <= len(left.motion.twists) <= 16
    np.testing.assert_allclose(left.motion.twists[:, 0], 0.1)
    assert len(left.motion.gripper) == len(left.motion.twists)
    assert left.frozen == math.ceil(7 * s.pace + 600 * MS / PERIOD * s.pace)


def test_rtc_asks_for_nothing_when_nothing_is_left():
    s = ChunkScheduler(4, mode="rtc")
    assert s.ask(0, 0) is None


def test_rtc_mixes_the_chunk_of_a_model_that_cannot_be_guided_by_the_same_weights():
    s = ChunkScheduler(4, mode="rtc")
    s.latency.add(60 * MS)
    s.start(chunk(0, np.zeros(16)))
    for tick in range(1, 5):
        s.take(tick * PERIOD)
    left = s.ask(4 * PERIOD, 4 * PERIOD)
    for tick in range(5, 7):
        s.take(tick * PERIOD)
    s.start(chunk(4 * PERIOD, np.ones(16)))
    expected = np.concatenate([1.0 - left.weights[2:], np.ones(4)])
    np.testing.assert_allclose(s.remaining()[:, 0], expected)


def test_rtc_takes_the_chunk_of_a_guided_model_as_it_is():
    s = ChunkScheduler(4, mode="rtc")
    s.start(chunk(0, np.zeros(16)))
    for tick in range(1, 5):
        s.take(tick * PERIOD)
    s.ask(4 * PERIOD, 4 * PERIOD)
    s.start(chunk(4 * PERIOD, np.ones(16), continues=True))
    np.testing.assert_array_equal(s.remaining()[:, 0], np.ones(16))


def test_the_ensemble_is_acts_with_the_oldest_weighted_most():
    s = ChunkScheduler(4, mode="ensemble")
    s.start(chunk(0, np.full(16, 1.0)))
    s.take(10)
    s.start(chunk(10, np.full(16, 2.0)))
    s.take(20)
    s.start(chunk(20, np.full(16, 4.0)))
    w = np.exp(-ENSEMBLE_DECAY * np.arange(3))
    left = s.remaining()[:, 0]
    np.testing.assert_allclose(left[:14], (w @ [1.0, 2.0, 4.0]) / w.sum())
    w = w[1:]  # the oldest has no action for this time; weights are relative
    np.testing.assert_allclose(left[14], (w @ [2.0, 4.0]) / w.sum())
    assert left[15] == pytest.approx(4.0)


def test_the_ensemble_forgets_chunks_that_are_past():
    s = ChunkScheduler(4, mode="ensemble")
    for begin in range(0, 50, 10):
        s.start(chunk(begin, np.full(4, float(begin))))
        for tick in range(begin + 1, begin + 5):
            s.take(tick)
    assert len(s._predictions) == 1


def test_synchronous_asks_at_rest_and_starts_at_0():
    drive = Drive("synchronous", 100, replan=0).run(100)
    moving = [c is not None for c in drive.commands]
    text = "".join("x" if m else "." for m in moving).strip(".")
    assert set(text.split(".")) - {""} == {"x" * 16}
    assert text.count("....") >= 3


def test_synchronous_may_stop_before_the_chunk_ends():
    drive = Drive("synchronous", 100, replan=8).run(100)
    text = "".join("x" if c is not None else "." for c in drive.commands).strip(".")
    assert set(text.split(".")[1:-1]) - {""} == {"x" * 8}


def test_adaptive_asks_just_in_time():
    """With what an inference takes, what it may wait, and what is mixed, and no earlier."""
    s = ChunkScheduler(0, mode="blend")
    s.latency.add(100 * MS)
    s.start(chunk(0, np.zeros(16)))
    wanted = []
    for tick in range(1, 17):
        s.take(tick * PERIOD)
        wanted.append(s.wants_chunk)
    # 100 ms are 3.0 periods, 2 to wait, 3 to mix: at 8 left, and "a bit" more than 3 periods.
    assert wanted.index(True) == 7


def test_without_any_measurement_adaptive_asks_at_once():
    s = ChunkScheduler(0)
    s.start(chunk(0, np.zeros(16)))
    assert s.wants_chunk


def test_a_late_inference_lets_the_chunk_run_out_and_then_goes_on():
    drive = Drive("blend", 50).run(30)
    drive.inference_ns = 2_000 * MS
    drive.run(80)
    assert 20 < drive.pauses < 75
    drive.inference_ns = 50 * MS
    drive.run(100)
    assert all(c is not None for c in drive.commands[-20:])


@settings(max_examples=150, deadline=None)
@given(
    mode=st.sampled_from([m for m in MODES if m != "synchronous"]),
    replan=st.integers(0, 16),
    latencies=st.lists(st.integers(0, 230), min_size=3, max_size=12),
)
def test_chunks_that_agree_are_executed_as_one_in_every_mode(mode, replan, latencies):
    """A perfect model's action k is what is executed as the k-th, whatever inferences take."""
    s = ChunkScheduler(replan, mode=mode, seam_ratio=SEAM_RATIO)
    waiting, due, executed = list(latencies), None, 0.0
    s.start(chunk(0, np.arange(20.0)))
    now = 0
    for _ in range(150):
        now += PERIOD
        if due is not None and due[0] <= now:
            s.answer(due[0])
            s.start(due[1])
            due = None
        if (action := s.take(now)) is None:
            break
        amount = s._progress - executed
        if amount == 1.0 and executed == int(executed):
            assert action.twist[0] == pytest.approx(executed)
        else:  # slowed: of what is between two actions, at most one apart
            assert action.twist[0] / amount == pytest.approx(executed, abs=1.0)
        executed = s._progress
        if due is None and waiting and s.wants_chunk:
            s.ask(now + 1, now + 1)
            new = chunk(now + 1, executed + np.arange(20.0))
            due = (now + 1 + waiting.pop(0) * MS, new)


def test_joint_speeds_are_mixed_as_twists_are():
    s = ChunkScheduler(4, mode="rtc")
    s.latency.add(60 * MS)
    s.start(replace(chunk(0, np.zeros(16)), joints=np.zeros((16, 7))))
    for tick in range(1, 5):
        s.take(tick * PERIOD)
    left = s.ask(4 * PERIOD, 4 * PERIOD)
    assert left.motion.joints.shape == (12, 7)
    assert s.start(replace(chunk(4 * PERIOD, np.ones(16)), joints=np.ones((16, 7))))
    s.take(5 * PERIOD)
    again = s.ask(5 * PERIOD, 5 * PERIOD)
    np.testing.assert_allclose(again.motion.joints[:, 0], again.motion.twists[:, 0])
