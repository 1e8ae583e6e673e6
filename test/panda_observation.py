"""What the shipped bundle may be shown, at random; where no more than numpy is installed."""

import numpy as np

from vla_ros.observation.observation import Observation
from vla_ros.types import JointSample


def panda_observation(seed, *, stamp_ns=1, rotation=None):
    rng = np.random.default_rng(seed)
    return Observation(
        stamp_ns=stamp_ns,
        images={
            "front": rng.integers(0, 256, (96, 96, 3), np.uint8),
            "wrist": rng.integers(0, 256, (80, 96, 3), np.uint8),
        },
        joints=JointSample(stamp_ns, rng.normal(size=7), np.zeros(7), None, 0.04),
        joint_names=tuple(f"panda_joint{i}" for i in range(1, 8)),
        tcp_position=rng.normal(size=3),
        tcp_rotation=np.eye(3) if rotation is None else rotation,
        instruction="pick up the green cube",
    )
