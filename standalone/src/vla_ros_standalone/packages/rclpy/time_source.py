"""Simulated time: the `use_sim_time` parameter and the `/clock` topic drive a node's clock."""

from rcl_interfaces.msg import SetParametersResult
from rosgraph_msgs.msg import Clock as ClockMsg

from rclpy.clock import ROSClock
from rclpy.parameter import Parameter
from rclpy.qos import QoSProfile, ReliabilityPolicy
from rclpy.time import Time

CLOCK_TOPIC = "/clock"
USE_SIM_TIME_NAME = "use_sim_time"


class TimeSource:
    """Keeps the clocks attached to it at ROS time."""

    def __init__(self, *, node):
        self._node = node
        self._clocks = []
        self._subscription = None
        self._last = Time(clock_type=ROSClock().clock_type)
        if not node.has_parameter(USE_SIM_TIME_NAME):
            node.declare_parameter(USE_SIM_TIME_NAME, False)
        self._switch(node.get_parameter(USE_SIM_TIME_NAME).value)
        node.add_on_set_parameters_callback(self._on_set_parameters)

    @property
    def ros_time_is_active(self):
        return self._subscription is not None

    def attach_clock(self, clock):
        """Drive a ROSClock from now on."""
        if not isinstance(clock, ROSClock):
            msg = "Only clocks with type ROS_TIME can be attached."
            raise ValueError(msg)  # noqa: TRY004 - as rclpy does
        clock.set_ros_time_override(self._last)
        clock._set_ros_time_is_active(self.ros_time_is_active)
        self._clocks.append(clock)

    def detach_clock(self, clock):
        self._clocks.remove(clock)

    def _switch(self, simulated):
        if simulated == self.ros_time_is_active:
            return
        if simulated:
            self._subscription = self._node.create_subscription(
                ClockMsg,
                CLOCK_TOPIC,
                self._on_clock,
                QoSProfile(depth=1, reliability=ReliabilityPolicy.BEST_EFFORT),
            )
        else:
            self._node.destroy_subscription(self._subscription)
            self._subscription = None
        for clock in self._clocks:
            clock._set_ros_time_is_active(simulated)
        self._node._wake_executor()

    def _on_set_parameters(self, parameters):
        for parameter in parameters:
            if parameter.name == USE_SIM_TIME_NAME:
                if parameter.type_ != Parameter.Type.BOOL:
                    return SetParametersResult(
                        successful=False, reason=f"{USE_SIM_TIME_NAME} parameter must be a bool"
                    )
                self._switch(parameter.value)
        return SetParametersResult(successful=True)

    def _on_clock(self, message):
        self._last = Time.from_msg(message.clock)
        for clock in self._clocks:
            clock.set_ros_time_override(self._last)
        self._node._wake_executor()
