"""What stands between a model and the robot: bounds, watchdogs, the filter. Free of rclpy."""

from vla_ros.safety.decision import Acting, SafetyDecision, SafetyState
from vla_ros.safety.filter import RATES_HZ, SafetyFilter

__all__ = ["RATES_HZ", "Acting", "SafetyDecision", "SafetyFilter", "SafetyState"]
