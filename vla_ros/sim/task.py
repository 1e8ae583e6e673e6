"""The task "pick up the red cube": what an instruction asks for, and whether it is done."""

import re

import numpy as np

from vla_ros.sim.panda import CUBES, PandaSim

LIFTED_Z = 0.12
LEFT_ALONE_Z = 0.05
WRONG_LIFTED_Z = 0.08
HOLD_NS = 250_000_000


def target_of(instruction: str) -> str | None:
    """Return the one colour of a cube that the instruction names, or None for none or several."""
    words = set(re.findall(r"[a-z]+", instruction.lower()))
    named = [colour for colour in CUBES if colour in words]
    return named[0] if len(named) == 1 else None


def target_for(seed: int) -> str:
    """Return the colour to be picked in the episode of `seed`, drawn apart from the scene."""
    return CUBES[int(np.random.default_rng((seed, 1)).integers(len(CUBES)))]


class PickTask:
    """Whether the named cube is lifted and the others are not.

    Attributes:
        target: Colour of the cube to lift, or None: then nothing succeeds.
        success: Whether `update` has seen the target above 0.12 m and the others below 0.05 m for
            0.25 s without a break. Once true it stays so until `set_instruction`.
        wrong_lifted: A cube other than the target was above 0.08 m at some `update`.

    """

    def __init__(self, sim: PandaSim, instruction: str) -> None:
        """Watch `sim`; make a new task, or call `set_instruction`, after its reset."""
        self._sim = sim
        self.set_instruction(instruction)

    def set_instruction(self, instruction: str) -> None:
        """Start over with another instruction."""
        self.target = target_of(instruction)
        self.success = False
        self.wrong_lifted = False
        self._lifted_since_ns: int | None = None

    def update(self) -> None:
        """Look at the cubes; call it at 10 Hz or more, after `advance`."""
        now_ns = self._sim.time_ns
        heights = {colour: float(self._sim.cube_pose(colour)[0][2]) for colour in CUBES}
        others = max(height for colour, height in heights.items() if colour != self.target)
        self.wrong_lifted = self.wrong_lifted or others > WRONG_LIFTED_Z
        if self.target is None or heights[self.target] <= LIFTED_Z or others >= LEFT_ALONE_Z:
            self._lifted_since_ns = None
            return
        if self._lifted_since_ns is None:
            self._lifted_since_ns = now_ns
        self.success = self.success or now_ns - self._lifted_since_ns >= HOLD_NS
