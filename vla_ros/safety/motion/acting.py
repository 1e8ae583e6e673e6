"""Bounds that act: which ones they are, and by how much.

By how much is an array of amounts, in each bound's unit, 0 where one does not act; this says at
which index each is.
"""

from vla_ros.safety.motion.compiled import State, compiled
from vla_ros.safety.motion.state import MOST_JOINTS
from vla_ros.types import Array

SPEED, ACCELERATION, JERK = 0, 1, 2
PART = 3
"""Those of the angular part come after the linear ones."""
JOINTS, SINGULARITY = 6, 7
JOINT_KINDS = (
    "joint_acceleration",
    "joint_speed",
    "joint_position_min",
    "joint_position_max",
    "joint_torque",
    "joint_torque_rate",
)
JOINT_ACCELERATION, JOINT_SPEED, POSITION_MIN, POSITION_MAX, TORQUE, TORQUE_RATE = (
    8 + i * MOST_JOINTS for i in range(len(JOINT_KINDS))
)
PLACES = 8 + len(JOINT_KINDS) * MOST_JOINTS
"""From here on, those of places, in their order there."""
_NOTHING = 1e-9
"""Changes smaller than this are rounding, not a bound that acts."""


@compiled
def act(s: State, amounts: Array, index: int, amount: float) -> None:
    """Note that a bound acts; the greatest amount counts."""
    if amount > _NOTHING and amount > amounts[index]:
        amounts[index] = amount
        s.acts = 1


def names_of(joints: tuple[str, ...], places: list[str]) -> list[str]:
    """Return the name of each index of what acts."""
    names = [
        f"{part}_{kind}"
        for part in ("linear", "angular")
        for kind in ("speed", "acceleration", "jerk")
    ]
    names += ["joints", "singularity_distance"]
    unused = [""] * (MOST_JOINTS - len(joints))
    for kind in JOINT_KINDS:
        names += [f"{kind}.{joint}" for joint in joints] + unused
    return names + places
