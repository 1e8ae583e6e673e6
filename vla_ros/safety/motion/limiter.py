"""From a target to the next motion that keeps every bound of the robot file, for ever.

**What is promised.** Whatever is asked for and whenever, a motion is sent that keeps the bounds on
speed, acceleration, jerk, joints and torques, and from which the arm can be brought to rest within
`stopping_time` without leaving a bound on position (workspace, keep-out volumes, joint ranges,
cone, distance to singularity).

**How.** With every motion that is sent there is a stop plan (`plan`), of joint velocities, that
begins with it and was verified whole before the motion was sent: every bound, at every point of
the plan, wherever the arm may be by what is known (`predictor`). At each tick

1. the target is shaped by the bounds on what is sent (`shaping`, `guard`), and slowed as a whole to
   what the joints can keep up: the program alone would turn it aside;
2. if its plan keeps every bound with a band to spare (`joints`, `places`, `singular`), it is sent
   as it is;
3. else a small program finds the nearest that does (`program`);
4. the plan of that is verified; if it fails, the plan of something between it and the next point of
   the present plan is tried;
5. if that fails as well, the next point of the present plan is sent. It was verified before.

So the program may be infeasible or wrong: nothing depends on it but how near to the target the
motion is. By induction, from rest on, there always is a verified plan.

**Twists.** The plan is one of joint velocities also where a twist v = J u is sent. The robot makes
u of it again, by least squares. Where the arm is redundant, what is idle in u is lost in this: the
motion that counts is P J u, P being that least-squares inverse. Sent twists pass the `guard` last:
speed, acceleration and jerk of what is sent then do not even depend on the model.

**Sliding up to a bound.** Step 2 asks for more than step 4: with d the room, x the speed towards it
and a the acceleration, way x + way_of_acceleration a <= d is what the plan needs. Approaching on
that edge would need jerks without end. So the target is held to
slow_way x + slow_way_of_acceleration a <= d instead, with slow_way = 1.5 way and
slow_way_of_acceleration = way^2 / 2: then d falls by the sum of two exponentials with the rates
1 / way and 2 / way, whose decelerations, at most 0.4 x / way, and jerks are within those of a plan.

**In code.** But for DAQP's program, a tick is compiled (`trial`), and all that it knows is one
record (`state`).

**Outside of a bound** (pushed there, or started there) its room counts as 0: motion further out is
refused, along it and back in is allowed.
"""

import math
from collections.abc import Sequence
from typing import Literal

import numpy as np

from vla_ros.robot import RobotConfig
from vla_ros.safety.motion import guard, predictor, shaping, trial
from vla_ros.safety.motion.acting import names_of
from vla_ros.safety.motion.joints import EXACT
from vla_ros.safety.motion.model import ArmModel
from vla_ros.safety.motion.motion import Motion
from vla_ros.safety.motion.places import Places, cone_need
from vla_ros.safety.motion.plan import StopPlan
from vla_ros.safety.motion.program import Program
from vla_ros.safety.motion.state import MOST_JOINTS, STATE
from vla_ros.safety.motion.targets import JointVelocityTarget, PoseTarget, Target, TwistTarget
from vla_ros.safety.motion.warm_up import warm_up
from vla_ros.types import Array

Output = Literal["twist", "joint_velocity"]
_LONGEST_PERIOD = 1.5
_LOST_TICKS = 1.0
"""Ticks that may pass uncounted while the arm moves on, for which room is kept."""
_FREEDOMS = 6
_SPARE = 0.98
"""Share of the TCP's acceleration and jerk that joint velocities use: they move it at the true
posture, a sensor's error from the known one, and whoever judges them samples otherwise."""
_SPARE_ROWS = 4
"""Rows of the program that are not of places, at most: the singular values' and the speeds'."""


class MotionLimiter:
    """Gives the motion nearest to a target that keeps every bound of the robot file.

    The module says how. `step` raises nothing for finite or missing arguments of the right lengths.
    """

    def __init__(
        self, robot: RobotConfig, urdf: str, rate_hz: float, *, output: Output = "twist"
    ) -> None:
        """Start at rest.

        Args:
            robot: Names and bounds.
            urdf: Text of the robot's description, with inertias.
            rate_hz: Rate at which `step` is called.
            output: What the robot is sent: twists of the TCP or joint velocities.

        Raises:
            ValueError: If the robot has more joints than there is room for.
            vla_ros.kinematics.KinematicsError: If the URDF is not this robot's, or lacks inertias.

        """
        warm_up()
        n = len(robot.joints)
        if n > MOST_JOINTS:
            msg = f"the robot file lists {n} joints: the filter takes up to {MOST_JOINTS}"
            raise ValueError(msg)
        bounds = robot.bounds
        self._n, self._robot = n, robot
        self._twists = output == "twist"
        model = ArmModel(robot, urdf)
        self.links = model.links
        period = 1.0 / rate_hz
        self._plan = StopPlan.of(
            bounds.stopping_time,
            bounds.stopping_ramp,
            _LONGEST_PERIOD * period,
            _LOST_TICKS * period,
        )
        self._record = record = np.zeros(1, dtype=STATE)
        self._state = state = record[0]
        size = predictor.ring_size(bounds.reaction_delay, bounds.joint_state_timeout, period)
        self._ring: Array = np.zeros((size, n + 1))
        state["joints"], state["twists"], state["ring_count"] = n, self._twists, 1
        state["length"], state["period"] = bounds.characteristic_length, period
        state["since"] = state["guard_since"] = bounds.stopping_time
        state["guard_ramp"] = bounds.stopping_ramp
        state["below"] = state["above"] = np.inf
        state["singular_there"] = -np.inf
        self._plan.write(state)
        model.study.write(state)
        # Views of the record, by joint.
        self._velocity: Array = state["velocity"][:n]
        self._position: Array = state["position"][:n]
        self._acceleration: Array = state["acceleration"][:n]
        self._torque: Array = state["torque"][:n]
        self._seen: Array = state["seen"][:n]
        self._target: Array = state["target"]
        self._aimed: Target | None = None
        self._target_kind = record["target_kind"]
        self._acts = record["acts"]
        self._twist: Array = state["twist"]
        self._set_bounds(robot)
        self._motion = self._rest()

    def tighten(self, robot: RobotConfig) -> None:
        """Replace the bounds by tighter ones, without losing state.

        What moves faster than they allow is brought to rest by the present plan, and goes on then.
        """
        self._robot = robot
        self._set_bounds(robot)

    def _set_bounds(self, robot: RobotConfig) -> None:
        bounds, state, n = robot.bounds, self._state, self._n
        state["delay"], state["sensor_error"] = bounds.reaction_delay, bounds.joint_position_error
        state["position_low"][:n] = bounds.joint_position_min
        state["position_high"][:n] = bounds.joint_position_max
        state["most_speed"][:n] = np.array(bounds.joint_speed) * EXACT
        state["most_acceleration"][:n] = np.array(bounds.joint_acceleration) * EXACT
        state["most_torque"][:n] = bounds.joint_torque
        state["most_torque_rate"][:n] = bounds.joint_torque_rate
        state["margin"], state["singular_bound"] = (
            bounds.tracking_error,
            bounds.singularity_distance,
        )
        state["cone"], state["cone_need"] = bounds.tool_cone_angle, cone_need(bounds, self._plan)
        state["tool_axis"], state["cone_axis"] = bounds.tool_axis, bounds.tool_cone_axis
        spare = 1.0 if self._twists else _SPARE
        for part, speed, acceleration, jerk in (
            (0, bounds.linear_speed, bounds.linear_acceleration, bounds.linear_jerk),
            (1, bounds.angular_speed, bounds.angular_acceleration, bounds.angular_jerk),
        ):
            guard.tighten(self._record, part, speed, spare * acceleration, spare * jerk)
        self._places = places = Places.of(bounds, self._plan)
        self._names = names_of(robot.joints, places.names)
        self._acting: Array = np.zeros(len(self._names))
        rows = len(places.rows) + _SPARE_ROWS
        n = self._n
        # A twist's program has 6 variables, rows of n joints and their torques; one of joint
        # velocities has n, and rows of n torques and the 6 of the TCP.
        size, hard = (_FREEDOMS, 2 * n) if self._twists else (n, n + _FREEDOMS)
        self._program = Program(size, hard, hard + rows)

    # --- one tick --------------------------------------------------------------------------------

    def step(
        self,
        seconds: float,
        target: Target | None,
        position: Sequence[float] | Array | None,
        age: float,
    ) -> Motion:
        """Return the motion to send.

        Args:
            seconds: Time since the last step in s, at most 1.5 periods; 0 repeats the last motion.
            target: What is asked for; None brings the arm to rest.
            position: Measured joint positions in rad, in the order of the robot file; None brings
                the arm to rest, as nobody knows where it is.
            age: Time in s since they were measured.

        """
        if not seconds > 0.0:
            predictor.lose_time(self._record)
            return self._motion
        longest = self._plan.tick
        if seconds > longest * (1.0 - 1e-6):
            predictor.lose_time(self._record)
            seconds = min(seconds, longest)
        if position is None:
            age = -1.0
        else:
            self._seen[:] = position
            age = max(0.0, float(age))
        self._aim_at(target)
        places = self._places
        program = self._program
        rows = trial.tick(
            self._record, self._ring, self.links, places.surfaces, places.points,
            places.rows, places.slopes, places.indices, self._acting,
            program.metric, program.gain, program.matrix, program.low, program.high, seconds, age,
        )  # fmt: skip
        if rows == trial.BLIND:
            return self._motion
        if rows != trial.SENT:
            found = program.solve(rows)
            trial.settle(self._record, self.links, places.rows, places.indices, found)
        self._motion = self._told()
        return self._motion

    def _aim_at(self, target: Target | None) -> None:
        if target is self._aimed:
            return
        self._aimed = target
        kind, values = shaping.NO_TARGET, self._target
        if isinstance(target, TwistTarget):
            kind, values[:6] = shaping.TWIST, target.linear + target.angular
        elif isinstance(target, JointVelocityTarget):
            kind, values[: self._n] = shaping.JOINT_VELOCITY, target.velocities
        elif isinstance(target, PoseTarget):
            kind, values[:7] = shaping.POSE, target.position + target.quaternion
        self._target_kind[0] = kind

    # --- what is told ----------------------------------------------------------------------------

    def _rest(self) -> Motion:
        return Motion(np.zeros(6), np.zeros(self._n), {}, dict)

    def _told(self) -> Motion:
        acting: dict[str, float] = {}
        if self._acts[0]:
            amounts, names = self._acting, self._names
            acting = {names[i]: amounts.item(i) for i in amounts.nonzero()[0].tolist()}
            amounts.fill(0.0)
            self._acts[0] = 0
        return Motion(self._twist.copy(), self._velocity.copy(), acting, self._margins)

    def _margins(self) -> dict[str, float]:
        """Return what is left to the bounds, the least of the joints' and of the volumes'."""
        bounds, state = self._robot.bounds, self._state
        left = {
            "linear_speed": bounds.linear_speed - math.hypot(*self._twist[:3].tolist()),
            "angular_speed": bounds.angular_speed - math.hypot(*self._twist[3:].tolist()),
            "joint_speed": _least(bounds.joint_speed, self._velocity),
            "joint_acceleration": _least(bounds.joint_acceleration, self._acceleration),
        }
        if not state["known"]:
            return left
        left["joint_torque"] = _least(bounds.joint_torque, self._torque)
        low, high = np.array(bounds.joint_position_min), np.array(bounds.joint_position_max)
        left["joint_position"] = float(
            np.minimum(self._position - low, high - self._position).min()
        )
        left |= self._places.margins(state)
        if bounds.singularity_distance > 0.0:
            left["singularity_distance"] = (
                float(state["singular_value"]) - bounds.singularity_distance
            )
        return left


def _least(bounds: Sequence[float], values: Array) -> float:
    return float((np.array(bounds) - np.abs(values)).min())
