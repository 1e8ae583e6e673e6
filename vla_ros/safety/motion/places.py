"""Rows for where the tool is: workspace, keep-out volumes, cone.

Each is a room d (in m or rad) that falls as the arm moves: g = -dd/dq is what
it falls by per joint motion. Along a stop plan it falls by g . (way u + way_of_acceleration a) and
what is not linear:

    - the point's path bends: with J the Jacobian of the room's place, dJ/dt u is what its speed
      changes by; over the plan that is a way of dJ/dt u * way^2 / 2, known but for third order;
    - the surface bends towards the point: kappa |y|^2 / 2, y being its way;
    - the sensors' error, up to E for each joint, which moves the place: sum |g_i| E.

`tracking_error` and a point's radius are taken from the room beforehand.
"""

import math
from dataclasses import dataclass

import numpy as np

from vla_ros.bounds import Bounds
from vla_ros.safety.motion.acting import PLACES, act
from vla_ros.safety.motion.algebra import norm
from vla_ros.safety.motion.compiled import Integers, State, compiled
from vla_ros.safety.motion.plan import StopPlan
from vla_ros.safety.motion.state import MOST_JOINTS
from vla_ros.safety.motion.surfaces import POINT, inside, inside_box, outside, room
from vla_ros.types import Array
from vla_ros.volumes import TCP_POINT, ToolPoint

BAND = 3e-4
"""Distance in m from surfaces that motion aims to keep on top; in rad from the cone."""
_BACK = 0.05
"""Share of all motion that leads back in where the arm may be outside of a bound."""
_ROUNDING = 1e-12
_FREE = math.pi - 1e-6
"""A cone of this angle in rad holds every direction."""

_RADIUS, _LEVER, _NEED = 3, 4, 5
POINT_COLUMNS = 6
"""Of a point, after its position: radius and distance from the TCP, m, and from which room on a
surface does not matter to it, m."""
_ROOM, _OF_WAY, _OF_TURN = 6, 7, 8
ROW_COLUMNS = 9
"""Of a row, after how its room falls with the twist of the TCP (6): the room, and what is lost of
it with half the square of the TCP's way, and of its turn."""


@dataclass(frozen=True, slots=True)
class Places:
    """What bounds the tool's points, and room for the rows of a tick.

    Attributes:
        names: The bound of each surface; the cone's, last.
        first_keep_out: Surfaces from here on are those of keep-outs.
        surfaces: Shape (k, surfaces.COLUMNS).
        points: Shape (p, POINT_COLUMNS).
        rows: The rows, shape (k + 1, ROW_COLUMNS).
        slopes: How their rooms fall with the joints' motion, shape (k + 1, MOST_JOINTS).
        indices: Which surface each is of, shape (k + 1,).

    """

    names: list[str]
    first_keep_out: int
    surfaces: Array
    points: Array
    rows: Array
    slopes: Array
    indices: Integers

    @classmethod
    def of(cls, bounds: Bounds, plan: StopPlan) -> "Places":
        """Gather what a robot file says."""
        tcp = TCP_POINT
        held: list[tuple[str, ToolPoint, Array]] = [
            (name, tcp, surface)
            for name, surface in inside_box(bounds.workspace_min, bounds.workspace_max)
        ]
        for point in bounds.workspace_points:
            for volume in bounds.workspace:
                held += [(f"workspace.{volume.name}", point, s) for s in inside(volume)]
        first_keep_out = len(held)
        if bounds.keep_out:
            for point in bounds.keep_out_points:
                held += [(f"keep_out.{v.name}", point, outside(v)) for v in bounds.keep_out]
        points = list(dict.fromkeys(point for _, point, _ in held))
        surfaces = np.array([surface for _, _, surface in held])
        surfaces[:, POINT] = [points.index(point) for _, point, _ in held]
        count = len(held) + 1
        return cls(
            names=[*(name for name, _, _ in held), "tool_cone_angle"],
            first_keep_out=first_keep_out,
            surfaces=surfaces,
            points=np.array([_figures(point, bounds, plan) for point in points]),
            rows=np.zeros((count, ROW_COLUMNS)),
            slopes=np.zeros((count, MOST_JOINTS)),
            indices=np.zeros(count, dtype=np.int64),
        )

    def margins(self, state: State) -> dict[str, float]:
        """Return the room that is left where the model is: the least of the points and volumes."""
        left: dict[str, float] = {}
        rotation, tcp, gradient = state["rotation"], state["tcp"], np.zeros(3)
        for index, surface in enumerate(self.surfaces):
            point = self.points[int(surface[POINT])]
            x, y, z = (tcp + rotation.dot(point[:3])).tolist()
            name = "workspace" if index < self.first_keep_out else "keep_out"
            found = room(surface, x, y, z, gradient)[0] - float(point[_RADIUS])
            left[name] = min(left.get(name, math.inf), found)
        if state["cone"] < _FREE:
            cosine = float(rotation.dot(state["tool_axis"]).dot(state["cone_axis"]))
            angle = math.acos(min(1.0, max(-1.0, cosine)))
            left["tool_cone_angle"] = float(state["cone"]) - angle
        return left


def cone_need(bounds: Bounds, plan: StopPlan) -> float:
    """Return the room in rad from which on the cone does not matter."""
    return 1.1 * _way(plan, bounds.angular_speed, bounds.angular_acceleration) + BAND


def _figures(point: ToolPoint, bounds: Bounds, plan: StopPlan) -> tuple[float, ...]:
    lever = math.sqrt(sum(x * x for x in point.position))
    far = _way(plan, bounds.linear_speed, bounds.linear_acceleration) + BAND + bounds.tracking_error
    far += lever * _way(plan, bounds.angular_speed, bounds.angular_acceleration)
    return (*point.position, point.radius, lever, 1.1 * far + point.radius)


def _way(plan: StopPlan, speed: float, acceleration: float) -> float:
    """Return how far a plan leads at most, in whichever row."""
    slow = plan.slow_way * speed + plan.slow_way_of_acceleration * acceleration
    fast = plan.way * speed + (plan.way_of_acceleration + plan.rise) * acceleration
    return max(slow, fast, plan.first_way * speed)


@compiled
def update(
    s: State, surfaces: Array, points: Array, rows: Array, slopes: Array, indices: Integers
) -> None:
    """Make the rows where the model is now, of what is near enough to matter."""
    s.rows = 0
    total = 0.0
    for i in range(s.joints):
        total += s.error[i]
    _add_volumes(s, surfaces, points, rows, indices, s.reach * total)
    _add_cone(s, rows, indices, len(surfaces), total)
    for k in range(s.rows):
        noise = 0.0
        for j in range(s.joints):
            slope = 0.0
            for i in range(6):
                slope += rows[k, i] * s.jacobian[i, j]
            slopes[k, j] = slope
            noise += abs(slope) * s.error[j]
        rows[k, _ROOM] -= noise


@compiled
def _add_volumes(
    s: State, surfaces: Array, points: Array, rows: Array, indices: Integers, loose: float
) -> None:
    gradient, arm, turned = np.empty(3), np.empty(3), s.rotation
    last = -1
    x = y = z = 0.0
    for k in range(len(surfaces)):
        index = int(surfaces[k, POINT])
        point = points[index]
        if index != last:
            last = index
            for i in range(3):
                arm[i] = 0.0
                for j in range(3):
                    arm[i] += turned[i, j] * point[j]
            x, y, z = s.tcp[0] + arm[0], s.tcp[1] + arm[1], s.tcp[2] + arm[2]
        found, curvature = room(surfaces[k], x, y, z, gradient)
        if found >= point[_NEED] + loose:
            continue
        # The room falls with the point's velocity v + w x r against the gradient.
        row, lever = rows[s.rows], point[_LEVER]
        a, b, c = arm[0], arm[1], arm[2]
        d, e, f = gradient[0], gradient[1], gradient[2]
        row[0], row[1], row[2] = -d, -e, -f
        row[3], row[4], row[5] = c * e - b * f, a * f - c * d, b * d - a * e
        row[_ROOM] = found - s.margin - point[_RADIUS]
        # |v + w x r|^2 <= 2 |v|^2 + 2 lever^2 |w|^2; and w x (w x r) is part of the bend.
        row[_OF_WAY] = curvature if lever == 0.0 else 2.0 * curvature
        row[_OF_TURN] = 2.0 * curvature * lever * lever + lever
        indices[s.rows] = k
        s.rows += 1


@compiled
def _add_cone(s: State, rows: Array, indices: Integers, index: int, loose: float) -> None:
    if s.cone >= _FREE:
        return
    axis = np.zeros(3)
    for i in range(3):
        for j in range(3):
            axis[i] += s.rotation[i, j] * s.tool_axis[j]
    x, y, z = axis[0], axis[1], axis[2]
    a, b, c = s.cone_axis[0], s.cone_axis[1], s.cone_axis[2]
    cosine = a * x + b * y + c * z
    # The axis about which a turn leads away from the cone's axis.
    p, q, r = b * z - c * y, c * x - a * z, a * y - b * x
    sine = math.sqrt(p * p + q * q + r * r)
    left = s.cone - math.atan2(sine, cosine)
    if left >= s.cone_need + loose:
        return
    size = max(sine, 1e-6)
    row = rows[s.rows]
    row[:] = 0.0
    row[3], row[4], row[5] = p / size, q / size, r / size
    row[_ROOM] = left
    # A turn across leads away, too: spherical triangles.
    row[_OF_TURN] = min(max(0.0, cosine / size), 1.0 / BAND)
    indices[s.rows] = index
    s.rows += 1


@compiled
def reserve(s: State, row: Array) -> float:
    """Return what is lost of a row's room by all that is not linear, for a trial."""
    lost = back = linear = angular = 0.0
    for i in range(6):
        v = s.trial_moved[i]
        lost += row[i] * s.trial_bend[i]
        back += abs(row[i] * v)
        if i < 3:  # noqa: PLR2004 - the linear part
            linear += v * v
        else:
            angular += v * v
    lost = max(0.0, lost) + row[_OF_WAY] * linear + row[_OF_TURN] * angular
    way = s.way * norm(s.trial, s.joints)
    more = s.way_of_acceleration * norm(s.trial_change, s.joints)
    result = s.way * s.way / 2.0 * lost + s.reach * way * (way * way / 2.0 + more)
    if row[_ROOM] < 0.0:
        # The gradient is that of a place that is not known exactly. Along a bound that the arm is
        # outside of, or may be, it also heads back in, so that this does not add up.
        result += _BACK * s.way * back
    return float(result)


@compiled
def worst(s: State, rows: Array, aim: bool) -> tuple[int, float]:  # noqa: FBT001 - compiled
    """Return which row's room the plan that begins with a trial exceeds the most, and by how much.

    Args:
        s: The limiter's record, with `trial` and all that goes with it.
        rows: The rows.
        aim: Whether to keep the bands as well, and the slower approach.

    Returns:
        The row and the amount in m or rad, not over 0 where every room is kept.

    """
    which, most = 0, -math.inf
    gain = s.way_of_acceleration
    for k in range(s.rows):
        row = rows[k]
        toward = gaining = 0.0
        for i in range(6):
            toward += row[i] * s.trial_moved[i]
            gaining += row[i] * s.trial_turned[i]
        whole = s.way * toward + gaining * (gain + s.rise if gaining > 0.0 else gain - s.bend_less)
        over = max(whole, s.first_way * toward) - max(row[_ROOM], 0.0)
        if aim:
            slow = s.slow_way * toward + s.slow_way_of_acceleration * gaining
            over = max(over, slow - max(row[_ROOM] - BAND, 0.0))
        over += reserve(s, row) - _ROUNDING
        if over > most:
            which, most = k, over
    return which, most


@compiled
def program_room(s: State, row: Array, slope: Array) -> float:
    """Return how much a row's room may fall, per s^2, by the joint acceleration of this tick.

    With the reserves of a trial, whose joint velocity is the wish.
    """
    toward = 0.0
    for i in range(s.joints):
        toward += slope[i] * s.velocity[i]
    left = max(row[_ROOM] - BAND, 0.0) - reserve(s, row) - s.slow_way * toward
    return float(left / (s.slow_way * s.h + s.slow_way_of_acceleration))


@compiled
def excess(s: State, rows: Array, indices: Integers, acting: Array) -> None:
    """Note by how much a trial exceeds each bound, in m or rad."""
    for k in range(s.rows):
        slow = 0.0
        for i in range(6):
            slow += rows[k, i] * (
                s.slow_way * s.trial_moved[i] + s.slow_way_of_acceleration * s.trial_turned[i]
            )
        amount = slow - max(rows[k, _ROOM] - BAND, 0.0)
        act(s, acting, PLACES + indices[k], amount)


@compiled
def set_spread(s: State, velocity: Array) -> None:
    """Set how much faster the TCP may be than is known (m/s, rad/s), as the joints may be off."""
    size = s.error_most * norm(velocity, s.joints)
    s.tcp_spread[0], s.tcp_spread[1] = s.sway[0] * size, s.sway[1] * size
