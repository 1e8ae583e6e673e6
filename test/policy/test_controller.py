"""The policy moves the arm only on fresh, whole, current input; else it holds and says why."""

import numpy as np
import pytest
from control_loop import INSTRUCTION, MS, PERIOD, Loop, assert_holds, chunk_for
from decoder_bundles import make_diffusion, make_flow
from hypothesis import given, settings
from hypothesis import strategies as st
from robots import panda, simple_chain

from bundles import make_bundle
from vla_ros.policy.bundle import BundleError
from vla_ros.policy.controller import PolicyController
from vla_ros.types import Frame, JointSample

_random = np.random.default_rng(0)


@pytest.fixture(scope="module")
def bundle(tmp_path_factory):
    return make_bundle(tmp_path_factory.mktemp("bundle"))


@pytest.fixture
def loop(bundle):
    return Loop(bundle)


def test_from_sensors_to_motion(loop):
    loop.sense(0)
    observation = loop.due(5)
    assert observation.stamp_ns == 0
    assert observation.instruction == INSTRUCTION
    assert set(observation.images) == {"front", "wrist"}
    np.testing.assert_allclose(observation.tcp_position, [0.4, 0.0, 0.3])
    assert_holds(loop.tick(6), "waiting for model")
    assert loop.accept(observation, 10)
    step = loop.tick(10)
    assert step.hold is None
    np.testing.assert_allclose(step.twist, [0.1, 0, 0, 0, 0, 0])
    assert step.gripper == 0.03
    assert step.plan.stamp_ns == 0
    assert loop.tick(43).plan is None


def test_the_plan_says_where_the_tcp_will_be_after_each_action_left(loop):
    loop.joints(0, angle=np.pi / 2)
    loop.frames(0)
    observation = loop.due(0)
    chunk = chunk_for(observation)
    chunk.twists[:, 5] = 0.6
    loop.controller.accept(chunk, 1 * MS)
    plan = loop.tick(1).plan
    assert plan.positions.shape == (16, 3)
    period = PERIOD / 1e9
    steps = (np.arange(16) + 1.0) * period
    np.testing.assert_allclose(plan.positions[:, 0], 0.1 * steps, atol=1e-12)
    np.testing.assert_allclose(plan.positions[:, 1:], [[0.4, 0.3]] * 16)
    yaw = np.arctan2(plan.rotations[:, 1, 0], plan.rotations[:, 0, 0])
    np.testing.assert_allclose(yaw, np.pi / 2 + 0.6 * steps, atol=1e-9)


def test_no_second_inference_before_the_first_is_back(loop):
    loop.sense(0)
    observation = loop.due(0)
    loop.sense(33)
    assert loop.due(33) is None
    loop.accept(observation, 40)
    assert loop.due(40) is None


def test_inference_is_due_again_after_replan_actions_and_new_frames(loop):
    loop.act(0)
    for tick in (33, 67, 100):
        assert loop.due(tick) is None
        loop.sense(tick)
        assert loop.due(tick) is None
        loop.tick(tick)
    # The fourth action is out: but the newest frames are from before, and new.
    observation = loop.due(101)
    assert observation.stamp_ns == 100 * MS
    loop.accept(observation, 110)
    assert loop.tick(133).plan.stamp_ns == 100 * MS


def test_while_it_moves_the_first_camera_of_a_new_moment_does_not_bring_up_the_old_one(loop):
    """The last pair of frames is a period old when the next pair's first frame comes."""
    loop.act(0)
    for ms in (33, 67):
        loop.sense(ms)
        loop.tick(ms)
    loop.sense(95)
    loop.tick(100)  # the fourth action: the next chunk is wanted
    loop.joints(128)
    loop.frames(128, ["front"])
    assert loop.due(128) is None
    loop.frames(128, ["wrist"])
    assert loop.due(129).stamp_ns == 128 * MS


def test_one_observation_is_not_used_twice(loop):
    loop.sense(0)
    loop.controller.fail(loop.due(0), "no reason")
    assert loop.due(1) is None
    loop.sense(33)
    assert loop.due(33) is not None


def test_no_instruction_holds(loop):
    loop.act(0)
    loop.controller.set_instruction("   ")
    assert_holds(loop.tick(10), "no instruction")
    assert loop.due(10) is None


def test_stopped_holds_until_started(loop):
    loop.act(0)
    loop.controller.stop()
    assert_holds(loop.tick(10), "stopped")
    assert loop.due(10) is None
    loop.controller.start()
    assert_holds(loop.tick(11), "waiting for model")
    assert loop.due(12) is not None


def test_it_may_be_built_stopped(bundle):
    loop = Loop(bundle, running=False)
    loop.sense(0)
    assert_holds(loop.tick(0), "stopped")


def test_without_the_robots_kinematics_it_holds(bundle):
    controller = PolicyController(bundle, panda(), None)
    controller.set_instruction(INSTRUCTION)
    assert_holds(controller.tick(0), "waiting for robot_description")
    controller.set_chain(simple_chain())
    assert_holds(controller.tick(0), "waiting for joint states")


def test_missing_sensors_are_named(loop):
    assert_holds(loop.tick(0), "waiting for joint states")
    loop.joints(0)
    assert_holds(loop.tick(0), "waiting for camera front")
    loop.frames(0, ["front"])
    assert_holds(loop.tick(0), "waiting for camera wrist")
    loop.frames(0, ["wrist"])
    assert_holds(loop.tick(0), "waiting for model")


@pytest.mark.parametrize("camera", ["front", "wrist"])
def test_a_camera_that_stops_stops_the_arm(loop, camera):
    loop.act(0)
    other = "wrist" if camera == "front" else "front"
    for ms in (33, 67, 100):
        loop.joints(ms)
        loop.frames(ms, [other])
        assert loop.tick(ms).hold is None
    loop.joints(130)
    step = loop.tick(130)
    assert_holds(step, f"stale camera {camera}")
    assert str(step.hold) == f"stale camera {camera}: 130 ms old, limit 100 ms"


def test_joint_states_that_stop_stop_the_arm(loop):
    loop.act(0)
    loop.frames(90)
    assert_holds(loop.tick(120), "stale joint states")


def test_a_frozen_camera_stops_the_arm(loop):
    loop.joints(0)
    loop.frames(0, value=7)
    loop.accept(loop.due(0), 0)
    assert loop.tick(0).hold is None
    loop.joints(33, angle=0.03)
    loop.frames(33, ["front"], value=7)
    loop.frames(33, ["wrist"])
    assert_holds(loop.tick(34), "frozen camera front")


def test_cameras_out_of_step_are_named(loop):
    loop.joints(0)
    loop.joints(60)
    loop.frames(0, ["front"])
    loop.frames(60, ["wrist"])
    assert loop.due(61) is None
    assert_holds(loop.tick(61), "cameras out of step")


def test_after_a_hold_the_old_chunk_does_not_go_on(loop):
    loop.act(0)
    assert loop.tick(120).hold is not None
    loop.sense(130)
    assert_holds(loop.tick(131), "waiting for model")
    loop.accept(loop.due(131), 140, speed=0.2)
    assert loop.tick(140).twist[0] == 0.2


def test_an_exhausted_chunk_holds_and_never_repeats_the_last_motion(loop):
    loop.sense(0)
    loop.accept(loop.due(0), 0, count=3)
    for ms in (0, 33, 67):
        assert loop.tick(ms).hold is None
    loop.sense(100)
    assert_holds(loop.tick(100), "chunk exhausted")
    observation = loop.due(100)
    assert loop.accept(observation, 110)  # at once: the arm waits for it
    step = loop.tick(110)
    assert step.hold is None
    assert len(step.plan.positions) == 16


def test_while_moving_a_chunk_waits_for_its_tick(loop):
    loop.act(0)
    for ms in (33, 67, 100):
        loop.tick(ms)
    loop.sense(101)
    assert not loop.accept(loop.due(101), 110)


def test_a_new_instruction_drops_the_old_chunk_at_once(loop):
    loop.act(0)
    loop.controller.set_instruction("pick up the blue cube")
    assert_holds(loop.tick(5), "waiting for model")
    observation = loop.due(5)  # with the frames that are there
    assert observation.instruction == "pick up the blue cube"
    loop.accept(observation, 8, speed=-0.2)
    assert loop.tick(8).twist[0] == -0.2


def test_a_result_for_the_old_instruction_is_not_taken(loop):
    loop.sense(0)
    old = loop.due(0)
    loop.controller.set_instruction("pick up the blue cube")
    assert loop.due(1) is None  # the model is busy
    assert not loop.accept(old, 5)
    assert_holds(loop.tick(5), "waiting for model")
    assert loop.due(6).instruction == "pick up the blue cube"


def test_a_result_that_has_arrived_but_not_started_is_dropped_too(loop):
    loop.sense(0)
    loop.accept(loop.due(0), 5)
    loop.controller.set_instruction("pick up the blue cube")
    assert_holds(loop.tick(6), "waiting for model")


def test_the_same_instruction_again_changes_nothing(loop):
    loop.act(0)
    loop.controller.set_instruction(f" {INSTRUCTION} ")
    assert loop.tick(33).hold is None


@pytest.mark.parametrize("interrupt", ["stop", "empty", "stale"])
def test_no_result_from_before_an_interruption_moves_the_arm(loop, interrupt):
    loop.sense(0)
    old = loop.due(0)
    if interrupt == "stop":
        loop.controller.stop()
        loop.controller.start()
    elif interrupt == "empty":
        loop.controller.set_instruction("")
        loop.controller.set_instruction(INSTRUCTION)
    else:
        loop.tick(500)
        loop.sense(501)
    assert not loop.accept(old, 502)
    loop.sense(502)
    assert_holds(loop.tick(502), "waiting for model")


def test_a_model_that_fails_holds_until_it_gives_a_chunk(loop):
    loop.act(0)
    for ms in (33, 67, 100):
        loop.tick(ms)
    loop.sense(100)
    loop.controller.fail(loop.due(100), "the model's output is not finite")
    step = loop.tick(133)
    assert_holds(step, "model failed")
    assert str(step.hold) == "model failed: the model's output is not finite"
    loop.sense(133)
    loop.accept(loop.due(133), 140)
    assert loop.tick(140).hold is None


def test_a_failure_on_what_was_broken_off_does_not_matter(loop):
    loop.sense(0)
    old = loop.due(0)
    loop.controller.set_instruction("pick up the blue cube")
    loop.controller.fail(old, "bad words")
    assert_holds(loop.tick(1), "waiting for model")


def test_a_clock_that_is_set_back_is_survived(loop):
    loop.sense(10_000)
    loop.accept(loop.due(10_000), 10_000)
    assert loop.tick(10_000).hold is None
    assert loop.tick(5).hold.cause.endswith("ahead of the clock")
    loop.sense(10)
    loop.tick(10)
    loop.sense(20)
    loop.accept(loop.due(20), 21)
    assert loop.tick(21).hold is None


def test_a_bundle_for_other_joints_is_refused(bundle):
    robot = panda()
    other = type(robot)(
        name="other",
        base_frame=robot.base_frame,
        tcp_frame=robot.tcp_frame,
        joints=tuple(f"other_joint{i}" for i in range(1, 8)),
        gripper_joints=robot.gripper_joints,
        bounds=robot.bounds,
    )
    with pytest.raises(BundleError, match=r"'other': state\.names\[10\]: 'joint\.position\.panda"):
        PolicyController(bundle, other, None)


@pytest.mark.parametrize("replan", [-1, 17])
def test_replan_actions_must_fit_the_chunk(bundle, replan):
    with pytest.raises(BundleError, match=f"replan_actions is {replan}, but must be 1 to 16"):
        PolicyController(bundle, panda(), None, replan_actions=replan)


EVENTS = st.sampled_from(
    [
        "joints",
        "front",
        "wrist",
        "tick",
        "infer",
        "accept",
        "fail",
        "stop",
        "start",
        "red",
        "blue",
        "",
    ]
)


@settings(max_examples=200, deadline=None)
@given(events=st.lists(st.tuples(EVENTS, st.integers(0, 60)), max_size=60))
def test_whatever_happens_motion_needs_fresh_input_and_the_current_instruction(  # noqa: C901, PLR0912
    bundle, events
):
    """Against a plain account of what was last seen and said, over any sequence of events."""
    loop = Loop(bundle)
    now, told, running, pending = 0, INSTRUCTION, True, None
    seen = {"joints": None, "front": None, "wrist": None}
    for event, wait in events:
        now += wait
        if event in seen:
            seen[event] = now
            if event == "joints":
                loop.joints(now)
            else:
                loop.frames(now, [event])
        elif event == "infer":
            pending = loop.due(now) or pending
        elif event in {"accept", "fail"} and pending is not None:
            # The chunk carries the instruction's own speed, to tell whose motion it is.
            if event == "accept":
                loop.accept(pending, now, speed=len(pending.instruction) / 100)
            else:
                loop.controller.fail(pending, "no reason")
            pending = None
        elif event == "stop":
            loop.controller.stop()
            running = False
        elif event == "start":
            loop.controller.start()
            running = True
        elif event in {"red", "blue", ""}:
            told = event
            loop.controller.set_instruction(event)
        elif event == "tick":
            step = loop.tick(now)
            if step.hold is not None:
                assert not step.twist.any()
                assert step.gripper is None
                continue
            assert running
            assert told
            assert step.twist[0] == pytest.approx(len(told) / 100)
            assert all(t is not None and now - t <= 100 for t in seen.values())


def test_an_observation_of_several_moments_holds_those_before_it(tmp_path):
    """At the manifest's spacing, 0.1 s, each with the pose of the TCP at its own time."""
    controller = PolicyController(make_diffusion(tmp_path), panda(), simple_chain())
    controller.set_instruction(INSTRUCTION)
    shown = {}
    for ms in (0, 50, 100, 150):
        values = np.zeros(7)
        values[0] = ms / 1000
        controller.add_joints(JointSample(ms * MS, values, np.zeros(7), None, 0.08))
        shown[ms] = _random.integers(0, 256, (8, 8, 3), np.uint8)
        controller.add_frame(Frame("front", ms * MS, shown[ms]))
    observation = controller.due_observation(150 * MS)
    (before,) = observation.history
    assert (before.stamp_ns, observation.stamp_ns) == (50 * MS, 150 * MS)
    assert before.images["front"] is shown[50]
    expected = [0.4 * np.cos(0.05), 0.4 * np.sin(0.05), 0.3]
    np.testing.assert_allclose(before.tcp_position, expected)
    np.testing.assert_allclose(before.tcp_rotation[:2, 0], [np.cos(0.05), np.sin(0.05)])


def test_a_model_of_other_joints_is_refused(tmp_path):
    def change(content):
        names = ["elbow", *(f"panda_joint{i}" for i in range(2, 8))]
        content["action"] |= {"type": "joint_position", "names": names, "gripper": None}
        for key in ("frame", "rotation"):
            del content["action"][key]

    with pytest.raises(BundleError, match=r"action\.names: .*elbow, panda_joint1 differ"):
        PolicyController(make_flow(tmp_path, change=change), panda(), None)
