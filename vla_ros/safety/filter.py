"""The safety filter: the only way from a command to the robot."""

import math

import numpy as np

from vla_ros.kinematics import SerialChain
from vla_ros.robot import RobotConfig
from vla_ros.safety.decision import Acting, SafetyDecision, SafetyState
from vla_ros.safety.inputs import (
    SECOND_NS,
    AcceptedCommand,
    CommandInput,
    JointInput,
    Refusal,
    attribute,
    integer,
    numbers,
)
from vla_ros.safety.limits import (
    STANDSTILL,
    ZERO,
    Interval,
    Vector,
    allowed_speeds,
    clip,
    distance,
    norm,
    scale_to,
    step_angular,
    step_linear,
)
from vla_ros.safety.position import TcpPosition
from vla_ros.types import Command, JointSample

_LONGEST_PERIOD = 1.5
"""After a longer gap, in periods, the velocity may change by no more than after this one."""
_NOTHING = 1e-9
"""Changes smaller than this, in m/s or rad/s, are rounding, not a bound that acts."""
_REFUSAL_SHOWN_NS = SECOND_NS
"""How long a refused input stays in the reason; `acting` names it at its own step only."""
_SEVERITY = (SafetyState.STOPPED, SafetyState.PROTECTIVE_STOP, SafetyState.EMERGENCY_STOP)


class SafetyFilter:
    """Passes on the command nearest to the desired one that keeps every bound of the robot file.

    Always true of what `step` returns, whatever came in and whenever it is called:

    1. The twist is finite and within the speed bounds. From one step to the next it changes by no
       more than the acceleration bound times min(time between, 1.5 periods), or not at all where
       time stood still or went back. The gripper's opening is within its range.
    2. The TCP can stop before the workspace's faces, with the deceleration that is left to each
       axis. `limits` has the formulas and why they can always be kept.
    3. Outside a face, motion further out is refused and motion back in is allowed; along it, the
       motion slides.
    4. Without an acceptable command for `command_timeout`, or acceptable joint states for
       `joint_state_timeout`, and for `refused_command_hold` after a refused command, it brakes to
       zero; it goes on when commands and joint states are fresh and good again.
    5. The e-stop, `stop`, and measured efforts over their bounds brake to zero and latch, until
       `reset`.
    6. Each decision names the bounds that acted, and the reason of a stop.

    `step` raises nothing, whatever its arguments, and holds no more memory the longer it runs.
    Accelerations are counted from the last sent twist, not from the measured one, which lags behind
    and would slow the robot down.
    """

    def __init__(self, robot: RobotConfig, chain: SerialChain | None, rate_hz: float) -> None:
        """Start at rest.

        Args:
            robot: Names and bounds.
            chain: From base to TCP; None if the robot's description is still to come (`set_chain`).
            rate_hz: Rate at which `step` is called.

        Raises:
            ValueError: If the rate is too low for the robot file's reaction delay.

        """
        bounds = robot.bounds
        self._bounds = bounds
        self._period = _LONGEST_PERIOD / rate_hz
        if not 0.0 < self._period <= 2.0 * bounds.reaction_delay:
            least = _LONGEST_PERIOD / (2.0 * bounds.reaction_delay)
            msg = (
                f"a rate of {rate_hz} Hz is too low for 'bounds.reaction_delay' of "
                f"{bounds.reaction_delay} s, within which braking is to start: "
                f"use at least {least:.1f} Hz"
            )
            raise ValueError(msg)
        self._period_ns = int(self._period * SECOND_NS)
        self._braking = bounds.linear_acceleration / math.sqrt(3.0)
        self._command_timeout_ns = round(bounds.command_timeout * SECOND_NS)
        self._hold_ns = round(bounds.refused_command_hold * SECOND_NS)
        self._joint_timeout_ns = round(bounds.joint_state_timeout * SECOND_NS)
        self._command = CommandInput(robot)
        self._joints = JointInput(robot)
        self._position_of = None if chain is None else TcpPosition(chain)

        self._time_ns: int | None = None
        self._linear: Vector = ZERO
        self._angular: Vector = ZERO
        self._gripper: float | None = None
        self._gripper_wish: float | None = None
        self._has_gripper = bool(robot.gripper_joints)
        self._latch: SafetyState | None = None
        self._latch_reason = ""
        self._estop_engaged = False
        self._refusal: Refusal | None = None
        self._refusal_ns = 0
        self._distrusted_ns: int | None = None
        self._acting: dict[str, float] = {}

    def set_chain(self, chain: SerialChain) -> None:
        """Set the kinematics, once the robot's description is there."""
        self._position_of = TcpPosition(chain)

    def receive(self, command: Command, now_ns: int) -> None:
        """Take a command without a step: for a caller that is sent several between two steps.

        A refused one is named at the next step, refreshes no timeout, and holds the arm still for
        `refused_command_hold`, whatever else comes: who sends nonsense is not to be trusted yet.
        """
        now = integer(now_ns)
        if now is None:
            return
        accepted = self._command.accepted
        refusal = self._command.offer(command, now)
        self._note(refusal, now)
        if refusal is not None and refusal.name != "command_order":
            # Messages that overtake each other are the network's doing, not their sender's.
            self._distrusted_ns = now
        opening = attribute(command, "gripper")
        if self._command.accepted is not accepted and opening is not None:
            self.receive_gripper(opening)

    def receive_gripper(self, opening: float) -> None:
        """Take a desired opening between the fingers, in m. It is kept until the next one."""
        value = numbers((opening,))
        if value is None:
            self._act("gripper_finite", 1.0)
        else:
            self._gripper_wish = value[0]

    def receive_joints(self, joints: JointSample, now_ns: int) -> None:
        """Take a joint sample without a step, as `receive` takes a command."""
        now = integer(now_ns)
        if now is None:
            return
        self._note(self._joints.offer(joints, now), now)
        if self._joints.tripped:
            self._set_latch(SafetyState.PROTECTIVE_STOP, self._joints.overload)

    def refuse(self, name: str, reason: str, now_ns: int) -> None:
        """Name an input that the caller could not even read, at the next step."""
        self._note(Refusal(name, 1.0, reason), now_ns)

    def estop(self, engaged: bool, now_ns: int) -> None:  # noqa: ARG002, FBT001 - part of the interface
        """Take the state of the e-stop. Engaged, it latches; released, it stays latched."""
        self._estop_engaged = bool(engaged)
        if self._estop_engaged:
            self._set_latch(SafetyState.EMERGENCY_STOP, "the e-stop was engaged")

    def stop(self, now_ns: int) -> None:  # noqa: ARG002 - part of the interface
        """Brake to zero, and latch."""
        self._set_latch(SafetyState.STOPPED, "stopped by request")

    def reset(self, now_ns: int) -> tuple[bool, str]:
        """End a latched stop, if its cause is gone and the arm is at rest.

        After it, motion needs a command that is stamped after `now_ns`.

        Returns:
            Whether nothing is latched any more, and why or why not.

        """
        if self._latch is None:
            return True, "nothing is latched"
        why_not = self._why_no_reset(now_ns)
        if why_not:
            return False, f"not reset: {why_not}"
        self._latch, self._latch_reason = None, ""
        self._gripper_wish = None
        self._refusal = self._distrusted_ns = None
        self._command.forget(now_ns)
        return True, "reset: goes on with the next command"

    def step(
        self, now_ns: int, desired: Command | None, joints: JointSample | None
    ) -> SafetyDecision:
        """Return what may be sent to the robot at `now_ns`.

        Args:
            now_ns: Time of this step.
            desired: The newest command, or None where none came since the last step. The same one
                may be passed again: it is followed until it times out.
            joints: The newest joint sample, or None. The same holds.

        """
        now, change = self._advance(now_ns)
        if desired is not None:
            self.receive(desired, now)
        if joints is not None:
            self.receive_joints(joints, now)
        if self._joints.excess > 0.0:
            self._act("effort", self._joints.excess)

        state, reason = self._supervise(now)
        command = self._command.accepted if state is SafetyState.RUNNING else None
        self._move(command, self._allowed(now), change)
        self._move_gripper(state)
        acting = tuple(Acting(name, amount) for name, amount in self._acting.items())
        self._acting.clear()
        return SafetyDecision(
            stamp_ns=now,
            twist=np.array((*self._linear, *self._angular)),
            gripper=self._gripper,
            state=state,
            acting=acting,
            reason=reason,
            command_stamp_ns=None if command is None else command.stamp_ns,
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
        return now, min(max(now - last, 0), self._period_ns) / SECOND_NS

    def _supervise(self, now: int) -> tuple[SafetyState, str]:
        """Return the state, and the reason why the arm is not moving, or what was refused."""
        if self._latch is not None:
            return self._latch, self._latch_reason
        state, reason = self._check_joints(now) or self._check_command(now)
        if self._refusal is not None and abs(now - self._refusal_ns) <= _REFUSAL_SHOWN_NS:
            reason = f"{reason}; refused: {self._refusal.text}".removeprefix("; ")
        return state, reason

    def _check_joints(self, now: int) -> tuple[SafetyState, str] | None:
        """Return why the arm may not move without knowing where it is, or None."""
        if self._position_of is None:
            return SafetyState.STARTING, "waiting for robot_description"
        joint_age = self._joints.age_ns(now)
        if joint_age is None:
            return SafetyState.STARTING, "waiting for joint states"
        if joint_age > self._joint_timeout_ns:
            age = joint_age / SECOND_NS
            self._act("joint_state_timeout", age)
            return SafetyState.HOLDING, f"the joint states are {age:.2f} s old"
        return None

    def _check_command(self, now: int) -> tuple[SafetyState, str]:
        """Return whether there is a command to follow, or why not."""
        if self._distrusted_ns is not None and abs(now - self._distrusted_ns) <= self._hold_ns:
            return SafetyState.HOLDING, "a command was refused"
        command_age = self._command.age_ns(now)
        if command_age is None:
            return SafetyState.HOLDING, "waiting for a command"
        if command_age > self._command_timeout_ns:
            age = command_age / SECOND_NS
            self._act("command_timeout", age)
            return SafetyState.HOLDING, f"no acceptable command for {age:.2f} s"
        return SafetyState.RUNNING, ""

    def _allowed(self, now: int) -> tuple[Interval, Interval, Interval]:
        """Return the speeds that each axis may have, by the workspace and the measured position."""
        joints, age = self._joints.accepted, self._joints.age_ns(now)
        if (
            self._position_of is None
            or joints is None
            or age is None
            or age > self._joint_timeout_ns
        ):
            return STANDSTILL
        # The arm has moved on since it was measured: the sample's age adds to the delay.
        return allowed_speeds(
            self._position_of(joints.position),
            self._bounds.workspace_min,
            self._bounds.workspace_max,
            self._bounds.reaction_delay + age / SECOND_NS,
            self._braking,
        )

    def _move(
        self,
        command: AcceptedCommand | None,
        allowed: tuple[Interval, Interval, Interval],
        seconds: float,
    ) -> None:
        """Take one step from the last sent twist toward the command, or toward zero without one."""
        bounds = self._bounds
        linear = angular = ZERO
        if command is not None:
            wish = scale_to(command.linear, bounds.linear_speed)
            linear = clip(wish, allowed)
            angular = scale_to(command.angular, bounds.angular_speed)
            self._act("linear_speed", norm(command.linear) - bounds.linear_speed)
            self._act("angular_speed", norm(command.angular) - bounds.angular_speed)
            self._act("workspace", distance(wish, linear))
        self._linear = step_linear(
            self._linear, linear, allowed, bounds.linear_acceleration * seconds
        )
        self._angular = step_angular(self._angular, angular, bounds.angular_acceleration * seconds)
        self._act("linear_acceleration", distance(self._linear, linear))
        self._act("angular_acceleration", distance(self._angular, angular))

    def _move_gripper(self, state: SafetyState) -> None:
        """Follow the desired opening while running, within its range; else hold the last one."""
        if not self._has_gripper:
            return
        joints = self._joints.accepted
        if self._gripper is None and joints is not None and joints.gripper is not None:
            self._gripper = self._clamp_gripper(joints.gripper)
        wish = self._gripper_wish
        if state is SafetyState.RUNNING and wish is not None:
            self._gripper = self._clamp_gripper(wish)
            self._act("gripper_min", self._bounds.gripper_min - wish)
            self._act("gripper_max", wish - self._bounds.gripper_max)

    def _clamp_gripper(self, opening: float) -> float:
        return min(max(opening, self._bounds.gripper_min), self._bounds.gripper_max)

    def _set_latch(self, state: SafetyState, reason: str) -> None:
        """Latch a stop; a lesser one does not replace a graver one."""
        if self._latch is None or _SEVERITY.index(state) > _SEVERITY.index(self._latch):
            self._latch, self._latch_reason = state, reason

    def _why_no_reset(self, now_ns: int) -> str:
        """Return what forbids a reset now, or an empty line."""
        joints, age = self._joints.accepted, self._joints.age_ns(now_ns)
        if self._estop_engaged:
            return "the e-stop is still engaged"
        if joints is None or age is None or age > self._joint_timeout_ns:
            return (
                "there are no fresh joint states, so that nobody knows whether the arm is at rest"
            )
        if self._joints.excess > 0.0:
            return self._joints.overload
        speed = max(map(abs, joints.velocity))
        if speed > self._bounds.rest_joint_speed:
            return f"the arm still moves, at {speed:.3f} rad/s"
        if self._linear != ZERO or self._angular != ZERO:
            return "the arm is still braking"
        return ""

    def _note(self, refusal: Refusal | None, now_ns: int) -> None:
        if refusal is not None:
            self._refusal, self._refusal_ns = refusal, now_ns
            self._act(refusal.name, refusal.amount)

    def _act(self, name: str, amount: float) -> None:
        """Record that a bound acts, if by more than rounding; the greatest amount counts."""
        if amount > max(_NOTHING, self._acting.get(name, 0.0)):
            self._acting[name] = amount
