"""A policy controller and the ends of its wires, for tests without a graph and a clock."""

import numpy as np
from robots import panda, simple_chain

from vla_ros.policy.controller import PolicyController
from vla_ros.policy.policy import Chunk
from vla_ros.types import Frame, JointSample

MS = 1_000_000
PERIOD = 33_333_333
INSTRUCTION = "pick up the red cube"
SIZES = {"front": (96, 96, 3), "wrist": (80, 96, 3)}
_random = np.random.default_rng(0)


class Loop:
    """A controller, and the ends of its wires."""

    def __init__(self, bundle, **options):
        options.setdefault("replan_actions", 4)
        self.controller = PolicyController(bundle, panda(), simple_chain(), **options)
        self.controller.set_instruction(INSTRUCTION)

    def joints(self, ms, angle=0.0):
        values = np.zeros(7)
        values[0] = angle
        self.controller.add_joints(JointSample(int(ms * MS), values, np.zeros(7), None, 0.08))

    def frames(self, ms, cameras=("front", "wrist"), value=None):
        for camera in cameras:
            image = _random.integers(0, 256, SIZES[camera], np.uint8)
            if value is not None:
                image = np.full(SIZES[camera], value, np.uint8)
            self.controller.add_frame(Frame(camera, int(ms * MS), image))

    def sense(self, ms, angle=0.0):
        self.joints(ms, angle)
        self.frames(ms)

    def due(self, ms):
        return self.controller.due_observation(int(ms * MS))

    def accept(self, observation, ms, speed=0.1, count=16):
        return self.controller.accept(chunk_for(observation, speed, count), int(ms * MS))

    def tick(self, ms):
        return self.controller.tick(int(ms * MS))

    def act(self, ms, speed=0.1):
        """Sense, infer without delay and start to move."""
        self.sense(ms)
        self.accept(self.due(ms), ms, speed)
        step = self.tick(ms)
        assert step.hold is None
        return step


def chunk_for(observation, speed=0.1, count=16):
    twists = np.zeros((count, 6))
    twists[:, 0] = speed
    return Chunk(
        stamp_ns=observation.stamp_ns,
        period_ns=PERIOD,
        twists=twists,
        gripper=np.full(count, 0.03),
        instruction=observation.instruction,
        epoch=observation.epoch,
    )


def assert_holds(step, cause):
    assert step.hold is not None
    assert step.hold.cause == cause
    np.testing.assert_array_equal(step.twist, np.zeros(6))
    assert step.gripper is None
    assert step.plan is None
