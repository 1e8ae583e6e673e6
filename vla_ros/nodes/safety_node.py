"""safety_node: the only way from a command to the robot."""

import sys
import time
from collections.abc import Callable, Sequence
from typing import Any, ClassVar

import numpy as np
from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus, KeyValue
from geometry_msgs.msg import PoseStamped, TwistStamped
from rcl_interfaces.msg import SetParametersResult
from rclpy.node import Node
from rclpy.parameter import Parameter
from rclpy.qos import QoSProfile
from sensor_msgs.msg import JointState
from std_msgs.msg import Bool, Float64, Float64MultiArray, String
from std_srvs.srv import Trigger

from vla_ros.nodes._common import (
    CONTROL_QOS,
    LATCHED_QOS,
    SECOND_NS,
    SENSOR_QOS,
    ConfigurationError,
    Diagnostics,
    Health,
    Percentiles,
    Rate,
    choose,
    declare,
    now_ns,
    robot_config,
    run,
    stamp_to_ns,
)
from vla_ros.observation.joints import JointError, JointReader, in_order
from vla_ros.safety import RATES_HZ, SafetyDecision, SafetyFilter, SafetyState
from vla_ros.safety.acting_log import ActingLog
from vla_ros.safety.motion import is_kept, warm_up
from vla_ros.types import Command, JointVelocityCommand, PoseCommand

_COMMAND_QOS = QoSProfile(depth=20)
"""Room for the bursts of a broken sender beside a sound one, too little to grow old in."""
_REPEAT_NS = 9_000_000
"""Status and opening are sent again after this time; sooner only if they say something new."""
_WATCH_S = 0.1
"""How often the publishers of `command` are counted."""

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
            ValueError: If a bound is missing or wrong, or a parameter out of its range.

        """
        super().__init__("safety_node")
        self._rate_hz = declare(self, "rate_hz", 100.0, "Rate of safe_command, Hz", limits=RATES_HZ)
        kind = choose(self, "command_type", tuple(self._COMMANDS), "What `command` holds")
        output = choose(self, "output", ("twist", "joint_velocity"), "What the robot follows")
        approval = declare(
            self, "require_approval", False, "Hold each new instruction until ~/approve"
        )
        scale = declare(
            self,
            "speed_scale",
            1.0,
            "What the bounds on speed are multiplied by; 0 holds still",
            limits=(0.0, 1.0),
            read_only=False,
        )
        self._robot = robot_config(self, bounds_read_only=False)
        if not is_kept():
            self.get_logger().info(
                "compiling the filter, once: up to a minute (vla_ros safety compile does it ahead)"
            )
        warm_up()
        self._filter = SafetyFilter(
            self._robot,
            None,
            self._rate_hz,
            output="joint_velocity" if output == "joint_velocity" else "twist",
            require_approval=approval,
        )
        self._filter.set_speed_scale(scale)
        self.add_on_set_parameters_callback(self._on_parameters)
        self._reader = JointReader(self._robot)
        self._state: SafetyState | None = None
        self._decision: SafetyDecision | None = None
        self._acting = ActingLog()
        self._opening: float | None = None
        self._opening_ns = 0
        self._rates = {name: Rate() for name in ("safe_command", "command", "joint_states")}
        self._step_us = Percentiles()

        self._message = TwistStamped()
        self._message.header.frame_id = self._robot.base_frame
        self._command = self.create_publisher(TwistStamped, "safe_command", CONTROL_QOS)
        self._joint_command = (
            self.create_publisher(Float64MultiArray, "safe_joint_command", CONTROL_QOS)
            if output == "joint_velocity"
            else None
        )
        self._gripper = self.create_publisher(Float64, "safe_gripper_command", CONTROL_QOS)
        self._report = _Report(self)
        self._diagnostics = Diagnostics(self, self._health)

        message, read = self._COMMANDS[kind]
        self._read_command = read
        self._commands = self.create_subscription(
            message, "command", self._on_command, _COMMAND_QOS
        )
        for message, topic, handle, qos in (
            (Float64, "gripper_command", self._on_gripper, CONTROL_QOS),
            (JointState, "joint_states", self._on_joints, SENSOR_QOS),
            (String, "robot_description", self._on_robot_description, LATCHED_QOS),
            (String, "instruction", self._on_instruction, LATCHED_QOS),
            (Bool, "estop", self._on_estop, CONTROL_QOS),
        ):
            self.create_subscription(message, topic, handle, qos)
        self.create_service(Trigger, "~/stop", self._on_stop)
        self.create_service(Trigger, "~/reset", self._on_reset)
        self.create_service(Trigger, "~/approve", self._on_approve)
        self.create_timer(1.0 / self._rate_hz, self._tick)
        self.create_timer(_WATCH_S, self._watch_publishers)
        self.get_logger().info(f"robot {self._robot.name!r}, {self._rate_hz:g} Hz")

    def _tick(self) -> None:
        now = now_ns(self)
        begin = time.perf_counter_ns()
        decision = self._filter.step(now, None, None)
        self._step_us.add((time.perf_counter_ns() - begin) / 1e3)
        self._publish(decision)
        self._tell(decision)

    def _publish(self, decision: SafetyDecision) -> None:
        sec, nanosec = divmod(decision.stamp_ns, SECOND_NS)
        # One message is filled again and again: making it anew costs as much as publishing it.
        message = self._message
        message.header.stamp.sec, message.header.stamp.nanosec = sec, nanosec
        linear, angular = message.twist.linear, message.twist.angular
        linear.x, linear.y, linear.z, angular.x, angular.y, angular.z = decision.twist.tolist()
        self._command.publish(message)
        if self._joint_command is not None:
            self._joint_command.publish(Float64MultiArray(data=decision.joint_velocity.tolist()))
        if decision.gripper is not None:
            since_ns = decision.stamp_ns - self._opening_ns
            if decision.gripper != self._opening or not 0 <= since_ns < _REPEAT_NS:
                self._opening, self._opening_ns = decision.gripper, decision.stamp_ns
                self._gripper.publish(Float64(data=decision.gripper))
        self._rates["safe_command"].add(decision.stamp_ns)
        self._report.publish(decision)

    def _tell(self, decision: SafetyDecision) -> None:
        """Log and publish what changed."""
        self._decision = decision
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
        decision = self._decision
        state = SafetyState.STARTING if decision is None else decision.state
        values: dict[str, object] = {
            "robot": self._robot.name,
            "state": state.value,
            "acting": ",".join(self._acting.names),
            "speed_scale": f"{self._filter.speed_scale:g}",
        }
        for name, rate in self._rates.items():
            values[f"{name} rate (Hz)"] = f"{rate.rate_hz(time_ns):.1f}"
            age = rate.age_ms(time_ns)
            values[f"{name} age (ms)"] = "never" if age is None else f"{age:.1f}"
        values |= self._step_us.report("step (us)")
        if decision is not None:
            values |= {f"margin {k}": f"{v:.6g}" for k, v in decision.margins.items()}
        return Health(*_summary(state, "" if decision is None else decision.reason), values)

    def _on_command(self, message: Any) -> None:  # noqa: ANN401 - as command_type says
        now = now_ns(self)
        self._rates["command"].add(now)
        try:
            command = self._read_command(self, message)
        except JointError as err:
            self._filter.refuse("command_joints", str(err), now, hold=True)
        else:
            self._filter.receive(command, now)

    def _read_twist(self, message: TwistStamped) -> Command:
        linear, angular = message.twist.linear, message.twist.angular
        return Command(
            stamp_ns=stamp_to_ns(message.header.stamp),
            frame_id=message.header.frame_id,
            twist=np.array([linear.x, linear.y, linear.z, angular.x, angular.y, angular.z]),
            gripper=None,
        )

    def _read_pose(self, message: PoseStamped, *, delta: bool = False) -> PoseCommand:
        at, turned = message.pose.position, message.pose.orientation
        return PoseCommand(
            stamp_ns=stamp_to_ns(message.header.stamp),
            frame_id=message.header.frame_id,
            position=np.array([at.x, at.y, at.z]),
            quaternion=np.array([turned.x, turned.y, turned.z, turned.w]),
            delta=delta,
        )

    def _read_pose_delta(self, message: PoseStamped) -> PoseCommand:
        return self._read_pose(message, delta=True)

    def _read_joint_velocity(self, message: JointState) -> JointVelocityCommand:
        speeds = in_order(self._robot.joints, message.name, message.velocity, "command")
        return JointVelocityCommand(stamp_to_ns(message.header.stamp), np.array(speeds))

    _COMMANDS: ClassVar[dict[str, tuple[Any, Callable[..., Any]]]] = {
        "twist": (TwistStamped, _read_twist),
        "pose": (PoseStamped, _read_pose),
        "pose_delta": (PoseStamped, _read_pose_delta),
        "joint_velocity": (JointState, _read_joint_velocity),
    }
    """Message and reader of each `command_type`.

    A pose is the one to go to, in the base frame; a pose delta is a pose in the frame of the TCP,
    relative to where it is on arrival.
    """

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
            return
        if joints is not None:
            self._filter.receive_joints(joints, now)

    def _on_robot_description(self, message: String) -> None:
        try:
            if self._filter.set_robot_description(message.data):
                self._filter.forget(now_ns(self))
        except ValueError as err:
            msg = f"robot {self._robot.name!r}: {err}"
            raise ConfigurationError(msg) from err

    def _on_instruction(self, message: String) -> None:
        self._filter.instruct(message.data, now_ns(self))

    def _on_estop(self, message: Bool) -> None:
        self._filter.estop(message.data, now_ns(self))

    def _watch_publishers(self) -> None:
        """Tell the filter who can command; the names are asked for only if there is a choice."""
        topic = self._commands.topic_name
        names = []
        if self.count_publishers(topic) > 1:
            infos = self.get_publishers_info_by_topic(topic)
            names = sorted(f"{i.node_namespace.rstrip('/')}/{i.node_name}" for i in infos)
        self._filter.publishers(names)

    def _on_parameters(self, parameters: Sequence[Parameter]) -> SetParametersResult:
        """Tighten bounds, and scale the speed; all of what is set at once, or nothing."""
        robot, scale = self._filter.robot, self._filter.speed_scale
        try:
            for parameter in parameters:
                if parameter.name == "speed_scale":
                    scale = parameter.value
                elif parameter.name.startswith("bounds."):
                    robot = robot.tightened(parameter.name, parameter.value)
            self._filter.limit(robot, scale)
        except ValueError as err:
            return SetParametersResult(successful=False, reason=str(err))
        return SetParametersResult(successful=True)

    def _on_stop(self, _request: Trigger.Request, response: Trigger.Response) -> Trigger.Response:
        self._filter.stop(now_ns(self))
        response.success, response.message = True, "stopping; ~/reset ends it"
        return response

    def _on_reset(self, _request: Trigger.Request, response: Trigger.Response) -> Trigger.Response:
        response.success, response.message = self._filter.reset(now_ns(self))
        return response

    def _on_approve(
        self, _request: Trigger.Request, response: Trigger.Response
    ) -> Trigger.Response:
        response.success, response.message = self._filter.approve(now_ns(self))
        return response


class _Report:
    """`~/status`: what the filter decided, at every step up to 100 Hz.

    At higher rates, a step that says nothing new is left out, but never the first one that follows
    a command, and no change of the state or of the bounds that act: what a recording is joined by.
    """

    def __init__(self, node: Node) -> None:
        """Publish for `node`."""
        self._publisher = node.create_publisher(DiagnosticArray, "~/status", CONTROL_QOS)
        names = ("state", "acting", "amounts", "command_stamp_ns", "margins")
        self._values = [KeyValue(key=name) for name in names]
        self._status = DiagnosticStatus(
            name=node.get_fully_qualified_name().lstrip("/"), values=self._values
        )
        self._message = DiagnosticArray(status=[self._status])
        self._told_ns = 0
        self._told: object = None

    def publish(self, decision: SafetyDecision) -> None:
        """Publish the decision, if it is due or says something new."""
        acting = ",".join([bound.name for bound in decision.acting])
        told = (decision.state, acting, decision.command_stamp_ns, decision.reason)
        if told == self._told and 0 <= decision.stamp_ns - self._told_ns < _REPEAT_NS:
            return
        self._told, self._told_ns = told, decision.stamp_ns
        stamp = self._message.header.stamp
        stamp.sec, stamp.nanosec = divmod(decision.stamp_ns, SECOND_NS)
        self._status.level, self._status.message = _summary(decision.state, decision.reason)
        used = decision.command_stamp_ns
        texts = (
            decision.state.value,
            acting,
            ",".join([f"{bound.amount:.6g}" for bound in decision.acting]),
            "" if used is None else str(used),
            ",".join([f"{name}={left:.6g}" for name, left in decision.margins.items()]),
        )
        for value, text in zip(self._values, texts, strict=True):
            value.value = text
        self._publisher.publish(self._message)


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
