"""A scripted expert, which sees the cubes' true poses: the teacher of the policy."""

import numpy as np

from vla_ros.sim.panda import CUBES, MAX_OPENING, PandaSim
from vla_ros.types import Array

MAX_SPEED = 0.25
MAX_TURN = 1.5
# Speed for each metre, or rad, of error: 1/s. With 30 Hz and some 40 ms from command to motion,
# higher gains overshoot.
GAIN = 8.0

# Heights of the TCP in m: fingers around a cube, above the cubes, at the end of the lift.
GRASP_Z = 0.018
APPROACH_Z = 0.12
LIFT_Z = 0.22
# The funnel: within the first distance from the cube's axis the TCP aims for GRASP_Z, and over the
# next its aim rises to APPROACH_Z.
FUNNEL_BOTTOM = 0.006
FUNNEL_WIDTH = 0.02

# Close when this near to the cube's axis (m), this near to GRASP_Z, and this far open: a neighbour
# may keep the fingers from opening fully.
CLOSE_AWAY = 0.007
CLOSE_ABOVE = 0.006
OPEN_ENOUGH = 0.06
# The cube is between the fingers within these distances; a wider slip means trying again.
BETWEEN_AWAY = 0.016
BETWEEN_ABOVE = 0.014
# A cube of 40 mm is held when the fingers rest at about its size.
HELD_OPENING = (0.03, 0.048)
REST_SPEED = 0.01

# Speed at which a lift begins (m/s), and what each metre of height adds (1/s): starting at full
# speed would take a stretched arm's second joint over its effort bound.
LIFT_SPEED = 0.08
LIFT_GAIN = 4.0

# Do not come down with fingers crossed by more than this (rad): wait at least this high (m).
CROSSED = 0.2
CROSSED_Z = (0.05, 0.08)
# Off the cube by this much and this low (m), rise first, so as not to sweep the others away.
SWEEP_AWAY = 0.03
SWEEP_Z = 0.06
SWEEP_SLOWDOWN = 0.15

# Beyond this turn (rad) the last joint nears its end.
TURN_RANGE = 1.9
# An open finger comes down this far from the cube's axis (m), and needs this much room to the
# centre of another cube; else the face costs as much as this many rad of turning.
FINGER_SIDE = 0.055
FINGER_ROOM = 0.035
CROWDED_COST = 2.0


class Expert:
    """Picks up one cube, by a funnel.

    The command depends on the present state, so it corrects whatever happened before: noise, a
    kick, a grasp that slipped. It remembers only the face of the cube that it chose, and that it
    decided to close the gripper. Far from the cube the TCP aims above it; the nearer to the cube's
    axis, the lower it aims; low and central it closes; holding, it lifts.
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
        between = away < BETWEEN_AWAY and abs(place[2] - cube[2]) < BETWEEN_ABOVE
        if self._closing and not between:
            self._closing = False
        elif away < CLOSE_AWAY and place[2] < GRASP_Z + CLOSE_ABOVE and opening > OPEN_ENOUGH:
            self._closing = True

        turn = 0.0
        speed = MAX_SPEED
        if self._closing and _holds(opening, finger_speeds):
            goal = np.array([place[0], place[1], LIFT_Z])
            speed = min(speed, LIFT_SPEED + LIFT_GAIN * max(float(place[2]) - GRASP_Z, 0.0))
        elif self._closing:
            goal = place
        else:
            turn = self._turn(rotation, cube, cube_rotation)
            goal = np.array([cube[0], cube[1], _aim(away, turn, place[2], opening)])
        error = goal - place
        velocity = error * min(GAIN, speed / max(float(np.linalg.norm(error)), 1e-9))
        low = place[2] < SWEEP_Z and away > SWEEP_AWAY
        if low and not self._closing and error[2] > 0.0:
            velocity[:2] *= SWEEP_SLOWDOWN
        spin = GAIN * np.cross(rotation[:, 2], [0.0, 0.0, -1.0])
        spin[2] += GAIN * turn
        spin *= min(1.0, MAX_TURN / max(float(np.linalg.norm(spin)), 1e-9))
        return np.concatenate([velocity, spin]), 0.0 if self._closing else MAX_OPENING

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
            turn = abs(_wrapped(yaw - now))
            side = FINGER_SIDE * np.array([np.cos(yaw), np.sin(yaw)])
            fingers = (cube[:2] + side, cube[:2] - side)
            room = min(float(np.linalg.norm(f - other)) for f in fingers for other in others)
            cost = turn + (CROWDED_COST if room < FINGER_ROOM else 0.0)
            if turn <= TURN_RANGE and cost < best_cost:
                best, best_cost = yaw, cost
        return best


def _holds(opening: float, finger_speeds: Array) -> bool:
    """Return whether closing fingers rest on a cube."""
    least, greatest = HELD_OPENING
    return least < opening < greatest and float(np.abs(finger_speeds).max()) < REST_SPEED


def _aim(away: float, turn: float, height: float, opening: float) -> float:
    """Return the height in m to aim for while approaching from `height`, `away` from the axis."""
    funnel = float(np.clip((away - FUNNEL_BOTTOM) / FUNNEL_WIDTH, 0.0, 1.0))
    aim = GRASP_Z + (APPROACH_Z - GRASP_Z) * funnel
    if opening < OPEN_ENOUGH:
        # Rise clear of the cube while the fingers open.
        aim = max(aim, min(height + 0.02, APPROACH_Z))
    if abs(turn) > CROSSED:
        aim = max(aim, float(np.clip(height, *CROSSED_Z)))
    return aim


def _face_yaw(rotation: Array) -> float:
    """Return the direction in the horizontal plane of a cube's most level axis."""
    axis = int(np.argmin(np.abs(rotation[2, :])))
    return float(np.arctan2(rotation[1, axis], rotation[0, axis]))


def _wrapped(angle: float) -> float:
    """Return the angle in rad within -pi to pi."""
    return float((angle + np.pi) % (2.0 * np.pi) - np.pi)
