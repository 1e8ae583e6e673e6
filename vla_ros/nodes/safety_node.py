"""safety_node: the only way from a command to the robot."""

import sys
import time
from collections.abc import Sequence
from typing import Any

import numpy as np
from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus
from geometry_msgs.msg import TwistStamped, Vector3
from rclpy.node import Node
from rclpy.qos import QoSProfile
from sensor_msgs.msg import JointState
from std_msgs.msg import Bool, Float64, String
from std_srvs.srv import Trigger

from vla_ros.kinematics import KinematicsError
from vla_ros.nodes._common import (
    CONTROL_QOS,
    LATCHED_QOS,
    SENSOR_QOS,
    ConfigurationError,
    Diagnostics,
    Health,
    Percentiles,
    Rate,
    declare,
    now_ns,
    robot_config,
    run,
    stamp_from_ns,
    stamp_to_ns,
    status,
)
from vla_ros.observation.joints import JointError, JointReader
from vla_ros.safety import SafetyDecision, SafetyFilter, SafetyState
from vla_ros.safety.acting_log import ActingLog
from vla_ros.types import Command

_COMMAND_QOS = QoSProfile(depth=20)
"""Room for the bursts of a broken sender beside a sound one, too little to grow old in."""

_LEVELS = {
    SafetyState.STARTING: DiagnosticStatus.WARN,
    SafetyState.HOLDING: DiagnosticStatus.WARN,
    SafetyState.RUNNING: DiagnosticStatus.OK,
    SafetyState.STOPPED: DiagnosticStatus.ERROR,
    SafetyState.PROTECTIVE_STOP: DiagnosticStatus.ERROR,
    SafetyState.EMERGENCY_STOP: DiagnosticStatus.ERROR,
}


class SafetyNode(Node):
    """Publishes `safe_command` and `safe_gripper_command` at a fixed rate, from its start on."""

    def __init__(self) -> None:
        """Declare the parameters and subscribe.

        Raises:
            ValueError: If a bound is missing or wrong.

        """
        super().__init__("safety_node")
        self._rate_hz = declare(
            self, "rate_hz", 100.0, "Rate of safe_command, Hz", limits=(10.0, 1000.0)
        )
        self._robot = robot_config(self)
        self._filter = SafetyFilter(self._robot, None, self._rate_hz)
        self._reader = JointReader(self._robot)
        self._description = ""
        self._state: SafetyState | None = None
        self._reason = ""
        self._acting = ActingLog()
        self._rates = {name: Rate() for name in ("safe_command", "command", "joint_states")}
        self._step_us = Percentiles()

        self._command = self.create_publisher(TwistStamped, "safe_command", CONTROL_QOS)
        self._gripper = self.create_publisher(Float64, "safe_gripper_command", CONTROL_QOS)
        self._status = self.create_publisher(DiagnosticArray, "~/status", CONTROL_QOS)
        self._diagnostics = Diagnostics(self, self._health)

        for message, topic, receive, qos in (
            (TwistStamped, "command", self._on_command, _COMMAND_QOS),
            (Float64, "gripper_command", self._on_gripper, CONTROL_QOS),
            (JointState, "joint_states", self._on_joints, SENSOR_QOS),
            (String, "robot_description", self._on_robot_description, LATCHED_QOS),
            (Bool, "estop", self._on_estop, CONTROL_QOS),
        ):
            self.create_subscription(message, topic, receive, qos)
        self.create_service(Trigger, "~/stop", self._on_stop)
        self.create_service(Trigger, "~/reset", self._on_reset)
        self.create_timer(1.0 / self._rate_hz, self._tick)
        self.get_logger().info(f"robot {self._robot.name!r}, {self._rate_hz:g} Hz")

    def _tick(self) -> None:
        now = now_ns(self)
        begin = time.perf_counter_ns()
        decision = self._filter.step(now, None, None)
        self._step_us.add((time.perf_counter_ns() - begin) / 1e3)
        self._publish(decision)
        self._tell(decision)

    def _publish(self, decision: SafetyDecision) -> None:
        stamp = stamp_from_ns(decision.stamp_ns)
        command = TwistStamped()
        command.header.stamp = stamp
        command.header.frame_id = self._robot.base_frame
        x, y, z, roll, pitch, yaw = decision.twist.tolist()
        command.twist.linear = Vector3(x=x, y=y, z=z)
        command.twist.angular = Vector3(x=roll, y=pitch, z=yaw)
        self._command.publish(command)
        if decision.gripper is not None:
            self._gripper.publish(Float64(data=decision.gripper))
        self._rates["safe_command"].add(decision.stamp_ns)

        report = DiagnosticArray()
        report.header.stamp = stamp
        used = decision.command_stamp_ns
        values = {
            "state": decision.state.value,
            "acting": ",".join(acting.name for acting in decision.acting),
            "amounts": ",".join(f"{acting.amount:.6g}" for acting in decision.acting),
            "command_stamp_ns": "" if used is None else used,
        }
        health = Health(*_summary(decision.state, decision.reason), values)
        report.status = [status(self, health)]
        self._status.publish(report)

    def _tell(self, decision: SafetyDecision) -> None:
        """Log and publish what changed."""
        self._reason = decision.reason
        if decision.state is not self._state:
            self._state = decision.state
            line = f"{decision.state.value}: {_summary(decision.state, decision.reason)[1]}"
            if decision.state in (SafetyState.RUNNING, SafetyState.STARTING):
                self.get_logger().info(line)
            else:
                self.get_logger().warning(line)
            self._diagnostics.publish()
        for line in self._acting.update(decision.stamp_ns, decision.acting, decision.reason):
            self.get_logger().info(line)

    def _health(self, time_ns: int) -> Health:
        state = self._state or SafetyState.STARTING
        values: dict[str, object] = {
            "robot": self._robot.name,
            "state": state.value,
            "acting": ",".join(self._acting.names),
        }
        for name, rate in self._rates.items():
            values[f"{name} rate (Hz)"] = f"{rate.rate_hz(time_ns):.1f}"
            age = rate.age_ms(time_ns)
            values[f"{name} age (ms)"] = "never" if age is None else f"{age:.1f}"
        values |= self._step_us.report("step (us)")
        return Health(*_summary(state, self._reason), values)

    def _on_command(self, message: TwistStamped) -> None:
        now = now_ns(self)
        self._rates["command"].add(now)
        linear, angular = message.twist.linear, message.twist.angular
        command = Command(
            stamp_ns=stamp_to_ns(message.header.stamp),
            frame_id=message.header.frame_id,
            twist=np.array([linear.x, linear.y, linear.z, angular.x, angular.y, angular.z]),
            gripper=None,
        )
        self._filter.receive(command, now)

    def _on_gripper(self, message: Float64) -> None:
        self._filter.receive_gripper(message.data)

    def _on_joints(self, message: JointState) -> None:
        now = now_ns(self)
        self._rates["joint_states"].add(now)
        try:
            joints = self._reader.read(
                stamp_to_ns(message.header.stamp),
                message.name,
                message.position,
                message.velocity,
                message.effort,
            )
        except JointError as err:
            self._filter.refuse("joint_states_malformed", str(err), now)
        else:
            self._filter.receive_joints(joints, now)

    def _on_robot_description(self, message: String) -> None:
        if message.data == self._description:
            return
        try:
            chain = self._robot.chain(message.data)
        except KinematicsError as err:
            msg = f"robot {self._robot.name!r}: {err}"
            raise ConfigurationError(msg) from err
        self._description = message.data
        self._filter.set_chain(chain)

    def _on_estop(self, message: Bool) -> None:
        self._filter.estop(message.data, now_ns(self))

    def _on_stop(self, _request: Trigger.Request, response: Trigger.Response) -> Trigger.Response:
        self._filter.stop(now_ns(self))
        response.success, response.message = True, "stopping; ~/reset ends it"
        return response

    def _on_reset(self, _request: Trigger.Request, response: Trigger.Response) -> Trigger.Response:
        response.success, response.message = self._filter.reset(now_ns(self))
        return response


def _summary(state: SafetyState, reason: str) -> tuple[Any, str]:
    """Return a DiagnosticStatus' level and message."""
    level = _LEVELS[state]
    if state is SafetyState.RUNNING and reason:
        level = DiagnosticStatus.WARN
    return level, reason or "following commands"


def main(args: Sequence[str] | None = None) -> int:
    """Run the node."""
    return run(SafetyNode, "safety_node", args)


if __name__ == "__main__":
    sys.exit(main())
