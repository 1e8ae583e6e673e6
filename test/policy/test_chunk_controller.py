"""What a chunk goes on with, and what a model that is late, hangs or fails does to the motion."""

import numpy as np
import pytest
from control_loop import INSTRUCTION, MS, Loop, assert_holds, chunk_for
from decoder_bundles import make_flow

from bundles import make_bundle
from vla_ros.policy.motion import to_motion
from vla_ros.policy.normalise import denormalise
from vla_ros.policy.policy import Policy
from vla_ros.types import Frame


@pytest.fixture(scope="module")
def bundle(tmp_path_factory):
    return make_bundle(tmp_path_factory.mktemp("bundle"))


def run(loop, begin, end, value=0.1):
    """Sense and tick at 30 Hz, inference taking no time."""
    ms = begin
    while ms < end:
        loop.sense(ms)
        observation = loop.due(ms)
        if observation is not None:
            loop.accept(observation, ms, value)
        step = loop.tick(ms)
        ms += 33
    return ms, step


def test_an_inference_that_takes_too_long_ends_the_motion_and_is_dropped_when_it_comes(bundle):
    loop = Loop(bundle, inference_timeout_s=0.2)
    loop.act(0)
    for ms in (33, 67, 100):
        loop.sense(ms)
        loop.tick(ms)
    asked = loop.due(101)
    for ms in (133, 167, 200, 233, 267, 300):
        loop.sense(ms)
        assert loop.tick(ms).hold is None
    loop.sense(333)
    step = loop.tick(333)
    assert_holds(step, "model hangs")
    assert step.hold.detail == "an inference takes longer than inference_timeout, 0.2 s"
    assert loop.due(334) is None
    # Back at last, it is dropped, and the hold goes on until there is a new one.
    assert not loop.accept(asked, 400)
    loop.sense(400)
    assert_holds(loop.tick(400), "model hangs")
    observation = loop.due(401)
    assert observation.stamp_ns == 400 * MS
    assert loop.accept(observation, 410)
    assert loop.tick(410).hold is None


def test_a_failure_that_comes_too_late_holds_all_the_same(bundle):
    loop = Loop(bundle, inference_timeout_s=0.05)
    loop.sense(0)
    asked = loop.due(0)
    assert_holds(loop.tick(60), "model hangs")
    loop.controller.fail(asked, "no reason")
    assert_holds(loop.tick(70), "model failed")
    loop.sense(90)
    assert loop.due(90) is not None


def test_an_instruction_changed_in_mid_chunk_drops_it_and_what_is_being_inferred(bundle):
    loop = Loop(bundle, chunk_mode="rtc", replan_actions=0)
    ms, step = run(loop, 0, 400)
    assert step.hold is None
    asked = None
    while asked is None:
        loop.sense(ms)
        asked = loop.due(ms)
        loop.tick(ms)
        ms += 33
    assert loop.controller.prefix is not None
    loop.controller.set_instruction("pick up the blue cube")
    assert_holds(loop.tick(ms), "waiting for model")
    loop.sense(ms)
    assert loop.due(ms) is None  # one at a time
    assert not loop.accept(asked, ms + 1)
    new = loop.due(ms + 2)
    assert new.instruction == "pick up the blue cube"
    assert loop.controller.prefix is None  # of what was done for another reason, nothing goes on
    loop.accept(new, ms + 3, speed=0.4)
    np.testing.assert_allclose(loop.tick(ms + 3).twist[0], 0.4)


def test_only_rtc_has_something_to_go_on_with(bundle):
    for mode in ("blend", "replace", "ensemble", "synchronous"):
        loop = Loop(bundle, chunk_mode=mode)
        run(loop, 0, 600)
        assert loop.controller.prefix is None


def test_rtc_says_what_is_left_as_the_model_would(bundle):
    """Normalised, and done from the observation on it is the motion that is left."""
    loop = Loop(bundle, chunk_mode="rtc")
    loop.act(0)
    for ms in (33, 67, 100):
        loop.sense(ms, angle=ms / 1000)
        loop.tick(ms)
    loop.sense(110, angle=0.11)
    loop.tick(133)
    observation = loop.due(134)
    prefix = loop.controller.prefix
    action = bundle.manifest.action
    motion = to_motion(denormalise(prefix.actions, action.normalisation), action, observation, None)
    # 5 of 16 executed, the last after the observation: that one and 11 more.
    expected = chunk_for(observation, count=12)
    np.testing.assert_allclose(motion.twists, expected.twists, atol=1e-12)
    assert len(prefix.weights) == 12
    assert prefix.weights[: prefix.frozen].tolist() == [1.0] * prefix.frozen
    assert prefix.frozen >= 1


def test_a_flow_is_guided_to_what_is_left(tmp_path):
    """This one leads back to its own actions at the end; on the way it is drawn to the others."""
    bundle = make_flow(tmp_path, steps=20)
    policy = Policy(bundle)
    loop = Loop(bundle, chunk_mode="rtc", replan_actions=2)
    loop.controller.set_instruction("red cube")

    def sense(ms):
        loop.joints(ms)
        image = np.random.default_rng(ms).integers(0, 256, (8, 8, 3), np.uint8)
        loop.controller.add_frame(Frame("front", ms * MS, image))

    sense(0)
    first = policy.infer(loop.due(0))
    assert not first.continues
    loop.controller.accept(first, 60 * MS)
    for ms in (60, 93):
        loop.tick(ms)
    sense(94)
    observation = loop.due(94)
    prefix = loop.controller.prefix
    guided = policy.infer(observation, prefix)
    free = policy.infer(observation)
    assert guided.continues
    left = denormalise(prefix.actions, bundle.manifest.action.normalisation)
    apart = np.abs(guided.actions[: len(left)] - left).max(axis=1)
    before = np.abs(free.actions[: len(left)] - left).max(axis=1)
    assert apart[0] < 0.8 * before[0]
    assert apart[1] < before[1]
    np.testing.assert_array_equal(guided.actions[len(left) :], free.actions[len(left) :])


def test_synchronous_waits_for_the_model_without_complaint(bundle):
    loop = Loop(bundle, chunk_mode="synchronous", replan_actions=2)
    loop.act(0)
    loop.sense(33)
    assert loop.tick(33).hold is None
    assert loop.due(40) is None  # seen while the arm moved
    loop.sense(66)
    assert_holds(loop.tick(66), "waiting for model")
    loop.sense(100)
    assert loop.due(100).instruction == INSTRUCTION


def test_there_is_no_other_mode(bundle):
    with pytest.raises(ValueError, match="chunk_mode is 'fast', but must be one of blend, rtc"):
        Loop(bundle, chunk_mode="fast")


def test_what_inferences_take_is_taken_from_asking_to_answer(bundle):
    loop = Loop(bundle)
    loop.sense(0)
    loop.accept(loop.due(20), 70)
    assert loop.controller._scheduler.latency.expected_ns == 50 * MS
