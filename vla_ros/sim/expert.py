"""A scripted expert, which sees the cubes' true poses: the teacher of the policy."""

import numpy as np

from vla_ros.sim.panda import CUBES, MAX_OPENING, PandaSim
from vla_ros.types import Array

MAX_SPEED = 0.25
MAX_TURN = 1.5
# Speed for each metre, or rad, of error: 1/s. With 30 Hz and some 40 ms from command to motion, higher
# gains overshoot.
GAIN = 8.0
GRASP_Z = 0.018
APPROACH_Z = 0.12
LIFT_Z = 0.22


class Expert:
    """Picks up one cube, by a funnel.

    The command depends on the present state, so it corrects whatever happened before: noise, a kick, a
    grasp that slipped. It remembers only the face of the cube that it chose, and that it decided to
    close the gripper. Far from the cube the TCP aims above it; the nearer to the cube's axis, the lower
    it aims; low and central it closes; holding, it lifts.
    """

    def __init__(self, sim: PandaSim, target: str) -> None:
        """Pick up the cube of colour `target` in `sim`; make a new expert after each reset."""
        self._sim = sim
        self._target = target
        self._yaw: float | None = None
        self._closing = False

    def command(self) -> tuple[Array, float]:
        """Return the twist (6,) for the next 1/30 s, and the gripper's opening in m.

        The twist is the TCP's, in the base frame: at most 0.25 m/s and 1.5 rad/s.
        """
        place, rotation = self._sim.tcp_pose()
        cube, cube_rotation = self._sim.cube_pose(self._target)
        fingers, finger_speeds, _ = self._sim.finger_sample()
        opening = float(fingers.sum())
        away = float(np.linalg.norm(cube[:2] - place[:2]))
        around = away < 0.016 and abs(place[2] - cube[2]) < 0.014
        if self._closing and not around:
            self._closing = False
        elif away < 0.007 and place[2] < GRASP_Z + 0.006 and opening > 0.06:
            self._closing = True
        at_rest = float(np.abs(finger_speeds).max()) < 0.01
        held = self._closing and 0.03 < opening < 0.048 and at_rest

        turn = 0.0
        if held:
            goal = np.array([place[0], place[1], LIFT_Z])
        elif self._closing:
            goal = place
        else:
            turn = self._turn(rotation, cube, cube_rotation)
            goal = np.array([cube[0], cube[1], self._height(away, turn, place[2], opening)])
        error = goal - place
        velocity = error * min(GAIN, MAX_SPEED / max(float(np.linalg.norm(error)), 1e-9))
        if not self._closing and place[2] < 0.06 and away > 0.03 and error[2] > 0.0:
            # Low and off the cube: rise first, so as not to sweep the others away.
            velocity[:2] *= 0.15
        spin = GAIN * np.cross(rotation[:, 2], [0.0, 0.0, -1.0])
        spin[2] += GAIN * turn
        spin *= min(1.0, MAX_TURN / max(float(np.linalg.norm(spin)), 1e-9))
        return np.concatenate([velocity, spin]), 0.0 if self._closing else MAX_OPENING

    def _height(self, away: float, turn: float, height: float, opening: float) -> float:
        """Return the height to aim for while approaching."""
        aim = GRASP_Z + (APPROACH_Z - GRASP_Z) * float(np.clip((away - 0.006) / 0.02, 0.0, 1.0))
        if opening < 0.06:
            # Wait for the fingers to open.
            aim = max(aim, min(height + 0.02, APPROACH_Z))
        if abs(turn) > 0.2:
            # Do not come down on the cube with crossed fingers.
            aim = max(aim, min(0.08, max(height, 0.05)))
        return aim

    def _turn(self, rotation: Array, cube: Array, cube_rotation: Array) -> float:
        """Return the angle in rad by which the hand must turn for its fingers to meet two faces."""
        face = _face_yaw(cube_rotation)
        now = float(np.arctan2(rotation[1, 1], rotation[0, 1]))
        if self._yaw is None:
            self._yaw = self._choose_yaw(face, now, cube)
        # The same face again, should the cube have turned.
        self._yaw = face + round((self._yaw - face) / (np.pi / 2.0)) * np.pi / 2.0
        return _wrapped(self._yaw - now)

    def _choose_yaw(self, face: float, now: float, cube: Array) -> float:
        """Choose the face that needs the least turning, rather one whose sides are free."""
        others = [self._sim.cube_pose(c)[0][:2] for c in CUBES if c != self._target]
        best, best_cost = now, np.inf
        for quarter in range(4):
            yaw = face + quarter * np.pi / 2.0
            turn = _wrapped(yaw - now)
            # Fingers come down 55 mm to both sides of the centre.
            side = 0.055 * np.array([np.cos(yaw), np.sin(yaw)])
            clearance = min(
                float(np.linalg.norm(cube[:2] + s * side - other)) for s in (1, -1) for other in others
            )
            cost = abs(turn) + (2.0 if clearance < 0.035 else 0.0)
            # Beyond 1.9 rad the last joint nears its end.
            if abs(turn) <= 1.9 and cost < best_cost:
                best, best_cost = yaw, cost
        return best


def _face_yaw(rotation: Array) -> float:
    """Return the direction in the horizontal plane of a cube's most level axis."""
    axis = int(np.argmin(np.abs(rotation[2, :])))
    return float(np.arctan2(rotation[1, axis], rotation[0, axis]))


def _wrapped(angle: float) -> float:
    """Return the angle in rad within -pi to pi."""
    return float((angle + np.pi) % (2.0 * np.pi) - np.pi)
