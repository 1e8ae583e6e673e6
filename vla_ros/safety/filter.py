"""The safety filter: the only way from a command to the robot."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from vla_ros.kinematics import (
    quaternion_from_rotation,
    rotation_from_quaternion,
    rotation_from_rotvec,
    rotvec_from_rotation,
)
from vla_ros.robot import RobotConfig
from vla_ros.safety.contact import ContactWatch
from vla_ros.safety.decision import Acting, SafetyDecision, SafetyState
from vla_ros.safety.gripper import GripperLimiter
from vla_ros.safety.inputs import (
    SECOND_NS,
    AcceptedCommand,
    AcceptedJoints,
    CommandInput,
    JointInput,
    Refusal,
    attribute,
    integer,
    numbers,
)
from vla_ros.safety.motion import Motion, MotionLimiter, PoseTarget, Target
from vla_ros.safety.motion.limiter import Output
from vla_ros.safety.supervisor import Supervisor
from vla_ros.types import AnyCommand, Array, JointSample

RATES_HZ = (10.0, 1000.0)
"""Rates at which a filter can be stepped; those of a robot file may be fewer."""
_LONGEST_PERIOD = 1.5
"""After a longer gap, in periods, the velocity may change by no more than after this one."""
_LEASH_S = 0.25
"""Deltas add up ahead of the TCP by no more than it goes in this time at its greatest speed: more
than it is behind by when it follows them, little enough to turn round where it is held back."""
_FROZEN_WAY = 0.1
"""Way of a joint in rad that must show in the joint states: twice what the fastest bounds of the
shipped robots make of their reaction delay."""
_NOTHING = 1e-9
"""Amounts smaller than this are rounding, not a bound that acts."""


class SafetyFilter:
    """Passes on the command nearest to the desired one that keeps every bound of the robot file.

    Always true of what `step` returns, whatever came in and whenever it is called:

    1. It is finite and within the bounds on speed, acceleration and jerk, against what was sent
       last, over min(time between, 1.5 periods), or unchanged where time stood still or went back.
       The gripper's opening is within its range and its speed.
    2. The arm can stop inside the workspace, the joints' ranges and the torques, out of every
       keep-out: `motion` has the formulas, and why this can always be kept.
    3. Outside a boundary, motion further out is refused and motion back in is allowed; along it,
       the motion slides.
    4. Without an acceptable command for `command_timeout`, or acceptable joint states for
       `joint_state_timeout`, and while `supervisor` holds for another cause (a refused command, two
       commanders, a missing approval, its own lateness), it brakes to zero, and goes on when the
       cause is gone.
    5. The e-stop and its silence, `stop`, measured efforts, external torques and forces over their
       bounds brake to zero and latch, until `reset`, which needs the arm at rest.
    6. Each decision names the bounds that acted and by how much, how far it was from others, and
       the reason of a stop.

    `step` raises nothing, whatever its arguments, and holds no more memory the longer it runs.
    Accelerations are counted from the last sent command, not from what is measured, which lags
    behind and would slow the robot down.
    """

    def __init__(
        self,
        robot: RobotConfig,
        urdf: str | None,
        rate_hz: float,
        *,
        output: Output = "twist",
        require_approval: bool = False,
    ) -> None:
        """Start at rest.

        Args:
            robot: Names and bounds.
            urdf: Text of the robot's URDF; None if it is still to come (`set_robot_description`).
            rate_hz: Rate at which `step` is called.
            output: `twist` or `joint_velocity`: which of the two of a decision the robot follows.
            require_approval: Whether each new instruction (`instruct`) holds the arm until
                `approve`.

        Raises:
            ValueError: If the rate does not suit the robot file, or the URDF is not this robot's.

        """
        if not RATES_HZ[0] <= rate_hz <= RATES_HZ[1]:
            msg = f"a rate of {rate_hz} Hz is not from {RATES_HZ[0]:g} to {RATES_HZ[1]:g} Hz"
            raise ValueError(msg)
        if _LONGEST_PERIOD / rate_hz > robot.bounds.stopping_time / 2.0:
            least = 2.0 * _LONGEST_PERIOD / robot.bounds.stopping_time
            msg = (
                f"a rate of {rate_hz} Hz is too low for 'bounds.stopping_time' of "
                f"{robot.bounds.stopping_time} s: use at least {least:.1f} Hz"
            )
            raise ValueError(msg)
        self._robot = robot
        self._rate_hz = rate_hz
        self._output = output
        self._scale = 1.0
        self._period_ns = int(_LONGEST_PERIOD / rate_hz * SECOND_NS)
        self._joint_timeout_ns = 0
        self._supervisor = Supervisor(robot, rate_hz, require_approval=require_approval)
        self._command = CommandInput(robot)
        self._joints = JointInput(robot)
        self._gripper = GripperLimiter(robot)
        self._urdf: str | None = None
        self._limiter: MotionLimiter | None = None
        self._contact: ContactWatch | None = None
        self._motion: Motion | None = None
        self._time_ns: int | None = None
        self._followed: AcceptedCommand | None = None
        self._target: Target | None = None
        self._unseen_way = 0.0
        self._acting: dict[str, float] = {}
        self.limit(robot, 1.0)
        if urdf is not None:
            self.set_robot_description(urdf)

    def set_robot_description(self, urdf: str) -> bool:
        """Set the text of the robot's URDF, once it is there.

        It takes a while to read, for which a live caller does well to `forget` the commands that
        have piled up meanwhile. A second one, of another robot, is a protective stop that only a
        restart ends.

        Returns:
            Whether it was the first.

        Raises:
            ValueError: If the rate does not suit the robot file, or the URDF is not this robot's.

        """
        if urdf == self._urdf:
            return False
        if self._urdf is not None:
            why = "robot_description has changed: start the filter anew"
            self._supervisor.condemn(why)
            return False
        limiter = MotionLimiter(self._robot, urdf, self._rate_hz, output=self._output)
        self._chain = self._robot.chain(urdf)
        if self._robot.bounds.effort_samples:
            self._contact = ContactWatch(self._robot, limiter.links)
        self._urdf, self._limiter = urdf, limiter
        self.limit(self._robot, self._scale)
        # What was before it moved nothing, and was not late for anything.
        self._time_ns = None
        return True

    def receive(self, command: AnyCommand, now_ns: int) -> None:
        """Take a command without a step: for a caller that is sent several between two steps.

        A refused one is named at the next step, refreshes no timeout, and holds the arm still for
        `refused_command_hold`, whatever else comes: who sends nonsense is not to be trusted yet.
        """
        now = integer(now_ns)
        if now is None:
            return
        accepted = self._command.accepted
        refusal = self._command.offer(command, now)
        if refusal is not None:
            # Messages that overtake each other are the network's doing, not their sender's.
            self._note(refusal, now, hold=refusal.name != "command_order")
        opening = attribute(command, "gripper")
        if self._command.accepted is not accepted and opening is not None:
            self.receive_gripper(opening)

    def forget(self, now_ns: int) -> None:
        """Drop the command; only one stamped after `now_ns` will do."""
        self._command.forget(now_ns)

    def receive_gripper(self, opening: float) -> None:
        """Take a desired opening between the fingers, in m. It is kept until the next one."""
        value = numbers((opening,))
        if value is None:
            self._act("gripper_finite", 1.0)
        else:
            self._gripper.wish = value[0]

    def receive_joints(self, joints: JointSample, now_ns: int) -> None:
        """Take a joint sample without a step, as `receive` takes a command."""
        now = integer(now_ns)
        if now is None:
            return
        before = self._joints.accepted
        refusal = self._joints.offer(joints, now)
        if refusal is not None:
            self._note(refusal, now, hold=False)
            return
        sample = self._joints.accepted
        if sample is None or sample is before:
            return
        self._watch_frozen(before, sample)
        if sample.gripper is not None and self._robot.gripper_joints:
            self._gripper.start(sample.gripper)
        if self._joints.tripped:
            self._stop_for(self._joints.overload, "effort")
        if self._contact is not None:
            self._contact.add(sample)
            if self._contact.touch:
                self._stop_for(self._contact.touch, self._contact.cause)

    def refuse(self, name: str, reason: str, now_ns: int, *, hold: bool = False) -> None:
        """Name an input that the caller could not even read, at the next step.

        Args:
            name: Of the check.
            reason: One line.
            now_ns: Time at which it came.
            hold: Whether it is a command, whose sender is not trusted for `refused_command_hold`.

        """
        self._note(Refusal(name, 1.0, reason), now_ns, hold=hold)

    def publishers(self, names: Sequence[str]) -> None:
        """Take the names of all nodes that can send commands now; more than one hold the arm."""
        self._supervisor.publishers(names)

    def instruct(self, text: str, now_ns: int) -> None:
        """Take the instruction that the policy is given; a new one may need an approval."""
        if self._supervisor.instruct(text):
            self.forget(now_ns)

    def approve(self, now_ns: int) -> tuple[bool, str]:
        """Approve the present instruction; motion then needs a command stamped after `now_ns`.

        Returns:
            Whether an approval was missing, and a line.

        """
        approved, line = self._supervisor.approve()
        if approved:
            self.forget(now_ns)
        return approved, line

    def estop(self, engaged: bool, now_ns: int) -> None:  # noqa: FBT001 - part of the interface
        """Take the state of the e-stop. Engaged, it latches; released, it stays latched.

        With `bounds.estop_heartbeat`, silence for longer than that counts as engaged.
        """
        now = integer(now_ns)
        if now is not None:
            self._supervisor.estop(now, engaged=bool(engaged))

    def stop(self, now_ns: int) -> None:  # noqa: ARG002 - part of the interface
        """Brake to zero, and latch."""
        self._supervisor.latch(SafetyState.STOPPED, "stopped by request", "stop")

    def reset(self, now_ns: int) -> tuple[bool, str]:
        """End a latched stop, if its cause is gone and the arm is at rest.

        After it, motion needs a command that is stamped after `now_ns`, and the approval of the
        instruction where one is required.

        Returns:
            Whether nothing is latched any more, and why or why not.

        """
        if not self._supervisor.latched:
            return True, "nothing is latched"
        why_not = self._supervisor.why_no_reset(now_ns) or self._why_no_reset(now_ns)
        if why_not:
            return False, f"not reset: {why_not}"
        self._supervisor.reset()
        self._gripper.wish = None
        self.forget(now_ns)
        return True, "reset: goes on with the next command"

    def tighten(self, name: str, value: Any) -> None:  # noqa: ANN401 - a parameter's value
        """Make one bound tighter, from the next step on, until the filter is made anew.

        Args:
            name: The bound, as in `RobotConfig.tightened`.
            value: A number, or a list of them.

        Raises:
            ValueError: If that would loosen it, or contradict another bound.

        """
        self.limit(self._robot.tightened(name, value), self._scale)

    def set_speed_scale(self, scale: float) -> None:
        """Multiply the bounds on speed (TCP, joints, gripper) by `scale`, from 0 to 1; 0 holds.

        Raises:
            ValueError: If it is out of range, or leaves a speed that counts as rest.

        """
        self.limit(self._robot, scale)

    def limit(self, robot: RobotConfig, scale: float) -> None:
        """Set the bounds and the speed scale at once, from the next step on.

        Args:
            robot: What `RobotConfig.tightened` made of `robot`.
            scale: As in `set_speed_scale`.

        Raises:
            ValueError: If `scale` is out of range, or leaves a speed that counts as rest.

        """
        slowed = robot if scale == 0.0 else robot.slowed(scale)
        self._robot, self._scale = robot, scale
        self._joint_timeout_ns = round(robot.bounds.joint_state_timeout * SECOND_NS)
        self._supervisor.tighten(robot)
        self._supervisor.paused = scale == 0.0
        self._command.tighten(robot)
        self._joints.tighten(robot)
        self._gripper.tighten(slowed)
        if self._contact is not None:
            self._contact.tighten(robot)
        if self._limiter is not None:
            self._limiter.tighten(slowed)

    @property
    def robot(self) -> RobotConfig:
        """The robot with the bounds as they are now; the speed scale is not in them."""
        return self._robot

    @property
    def speed_scale(self) -> float:
        """What the bounds on speed are multiplied by."""
        return self._scale

    def step(
        self, now_ns: int, desired: AnyCommand | None, joints: JointSample | None
    ) -> SafetyDecision:
        """Return what may be sent to the robot at `now_ns`.

        Args:
            now_ns: Time of this step.
            desired: The newest command, or None where none came since the last step. The same one
                may be passed again: it is followed until it times out.
            joints: The newest joint sample, or None. The same holds.

        """
        now, seconds = self._advance(now_ns)
        if desired is not None:
            self.receive(desired, now)
        if joints is not None:
            self.receive_joints(joints, now)
        if self._joints.margin < 0.0:
            self._act("effort", -self._joints.margin)

        joint_age_ns = self._joints.age_ns(now)
        found = self._supervisor.assess(
            now,
            described=self._limiter is not None,
            joint_age_ns=joint_age_ns,
            command_age_ns=self._command.age_ns(now),
        )
        if found.cause:
            self._act(found.cause, found.amount)
        running = found.state is SafetyState.RUNNING
        command = self._command.accepted if running else None
        motion = self._move(command, joint_age_ns, seconds)
        self._gripper.step(seconds, follow=running, closing=self._joints.closing, act=self._act)
        twist: Array
        velocity: Array
        acts: dict[str, float] = {}
        if motion is None:
            twist, velocity = np.zeros(6), np.zeros(len(self._robot.joints))
        else:
            # Copies: the motion is sent again where time stands still.
            twist, velocity = motion.twist.copy(), motion.joint_velocity.copy()
            acts = motion.acting
        if self._acting:
            for name, amount in acts.items():
                self._act(name, amount)
            acts, self._acting = self._acting, {}
        return SafetyDecision(
            stamp_ns=now,
            twist=twist,
            joint_velocity=velocity,
            gripper=self._gripper.opening,
            state=found.state,
            acting=tuple(map(Acting._make, acts.items())),
            reason=found.reason,
            command_stamp_ns=None if command is None else command.stamp_ns,
            _measure=self._margins,
        )

    def _advance(self, now_ns: int) -> tuple[int, float]:
        """Set the time; return it and the seconds that the velocity may change for."""
        now = integer(now_ns)
        last = self._time_ns
        if now is None:
            # No time at all: as if it stood still.
            now = 0 if last is None else last
        self._time_ns = now
        if last is None:
            return now, 0.0
        if now < last:
            self._command.rewind(now)
            self._joints.rewind(now)
            self._supervisor.rewind(now)
        self._supervisor.late(now - last, now)
        return now, min(max(now - last, 0), self._period_ns) / SECOND_NS

    def _move(
        self, command: AcceptedCommand | None, joint_age_ns: int | None, seconds: float
    ) -> Motion | None:
        """Take one step toward the command, or to rest without one; None without a description."""
        if self._limiter is None:
            return None
        joints = self._joints.accepted
        position = None
        age = 0.0
        if joints is not None and joint_age_ns is not None:
            age = joint_age_ns / SECOND_NS
            if joint_age_ns <= self._joint_timeout_ns:
                position = joints.position
        if command is None:
            self._followed = self._target = None
        elif command is not self._followed:
            self._target = self._resolve(command)
            self._followed = command
        self._motion = self._limiter.step(seconds, self._target, position, age)
        return self._motion

    def _watch_frozen(self, before: AcceptedJoints | None, sample: AcceptedJoints) -> None:
        """Stop if fresh joint states repeat the same positions while the arm was sent elsewhere.

        A driver that sends its last positions with new stamps would blind the filter; the motion
        limiter, too, takes the same numbers again for no news.
        """
        moved = before is None or sample.position.tobytes() != before.position.tobytes()
        if before is None or moved or self._motion is None:
            self._unseen_way = 0.0
            return
        seconds = min(max(sample.stamp_ns - before.stamp_ns, 0), self._joint_timeout_ns) / SECOND_NS
        self._unseen_way += seconds * max(map(abs, self._motion.joint_velocity.tolist()))
        if self._unseen_way > _FROZEN_WAY:
            self._unseen_way = 0.0
            text = (
                f"the joint states repeat the same positions, although the arm was sent "
                f"{_FROZEN_WAY} rad away"
            )
            self._stop_for(text, "joint_states_frozen")

    def _margins(self) -> dict[str, float]:
        margins = {} if self._motion is None else dict(self._motion.margins)
        if self._joints.accepted is not None and self._robot.bounds.effort_samples:
            margins["effort"] = self._joints.margin
        if self._contact is not None:
            margins |= self._contact.margins
        return margins

    def _resolve(self, command: AcceptedCommand) -> Target:
        """Return what a command asks for, in the base frame."""
        target, joints = command.target, self._joints.accepted
        if not command.delta or not isinstance(target, PoseTarget) or joints is None:
            return target
        place, turned = self._chain.pose(joints.position)
        last = self._target
        if self._followed is not None and self._followed.delta and isinstance(last, PoseTarget):
            bounds = self._robot.bounds
            place, turned = _pulled(
                last, place, turned, bounds.linear_speed * _LEASH_S, bounds.angular_speed * _LEASH_S
            )
        goal = place + turned @ np.array(target.position)
        rotation = turned @ rotation_from_quaternion(target.quaternion)
        x, y, z = goal.tolist()
        a, b, c, w = quaternion_from_rotation(rotation).tolist()
        return PoseTarget((x, y, z), (a, b, c, w))

    def _stop_for(self, reason: str, cause: str) -> None:
        self._supervisor.latch(SafetyState.PROTECTIVE_STOP, reason, cause)

    def _why_no_reset(self, now_ns: int) -> str:
        """Return what of the arm forbids a reset now, or an empty line."""
        joints, age = self._joints.accepted, self._joints.age_ns(now_ns)
        if joints is None or age is None or age > self._joint_timeout_ns:
            return (
                "there are no fresh joint states, so that nobody knows whether the arm is at rest"
            )
        touch = "" if self._contact is None else self._contact.touch
        speed = float(np.abs(joints.velocity).max())
        if speed > self._robot.bounds.rest_joint_speed:
            return f"the arm still moves, at {speed:.3f} rad/s"
        if self._motion is not None and not self._motion.at_rest:
            return "the arm is still braking"
        return self._joints.overload or touch

    def _note(self, refusal: Refusal, now_ns: int, *, hold: bool) -> None:
        self._supervisor.refuse(refusal, now_ns, hold=hold)
        self._act(refusal.name, refusal.amount)

    def _act(self, name: str, amount: float) -> None:
        """Record that a bound acts, if by more than rounding; the greatest amount counts."""
        if amount > max(_NOTHING, self._acting.get(name, 0.0)):
            self._acting[name] = amount


def _pulled(
    goal: PoseTarget, place: Array, turned: Array, reach: float, turn: float
) -> tuple[Array, Array]:
    """Return a goal's position (3,) and rotation (3, 3), pulled toward the TCP's.

    Args:
        goal: Where the deltas have led so far.
        place: Position of the TCP in m, (3,).
        turned: Its rotation, (3, 3).
        reach: How far the goal may be off in m.
        turn: The same in rad.

    """
    way = np.array(goal.position) - place
    arc = rotvec_from_rotation(rotation_from_quaternion(goal.quaternion) @ turned.T)
    way *= min(1.0, reach / max(float(np.linalg.norm(way)), _NOTHING))
    arc *= min(1.0, turn / max(float(np.linalg.norm(arc)), _NOTHING))
    return place + way, rotation_from_rotvec(arc) @ turned
