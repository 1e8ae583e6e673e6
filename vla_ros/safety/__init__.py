"""What stands between a model and the robot: bounds, watchdogs, the filter. Free of rclpy."""

from vla_ros.safety.decision import Acting, SafetyDecision, SafetyState
from vla_ros.safety.filter import SafetyFilter

__all__ = ["Acting", "SafetyDecision", "SafetyFilter", "SafetyState"]
