"""What the model takes and gives: images, state, actions, and how each is scaled for the network.

The exporter writes all of it into the bundle's manifest; the policy reads it there at run time.
"""

import numpy as np
from numpy.typing import NDArray

from vla_ros.observation.image import ImageSpec
from vla_ros.observation.state import state_names
from vla_ros.sim.panda import ARM_JOINTS

# The front camera sees the table's working area within this crop; the hand hides the lowest sixth
# of the wrist camera's picture. With the simulator's default sizes no pixel is resampled.
CAMERAS = {
    "front": ImageSpec(size=(96, 96), crop=(44 / 160, 32 / 160, 140 / 160, 128 / 160)),
    "wrist": ImageSpec(size=(80, 96), crop=(0.0, 0.0, 80 / 96, 1.0)),
}
IMAGE_SCALE = 1 / 255
IMAGE_MEAN = (0.5, 0.5, 0.5)
IMAGE_STD = (0.5, 0.5, 0.5)

STATE_NAMES = state_names(ARM_JOINTS)

RATE_HZ = 30
"""Actions a second."""

CHUNK = 16
"""Actions that one inference gives."""

ACTION_MEAN: NDArray[np.float32] = np.zeros(7, np.float32)
ACTION_STD: NDArray[np.float32] = np.array(
    [0.005, 0.005, 0.005, 0.005, 0.005, 0.012, 1.0], np.float32
)
"""What the network calls 1, about the expert's spread: m and rad in 1/30 s, gripper fraction."""
