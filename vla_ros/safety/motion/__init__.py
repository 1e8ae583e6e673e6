"""From a target to the next motion that keeps every bound of the robot file. Free of rclpy."""

from vla_ros.safety.motion.compiled import is_kept
from vla_ros.safety.motion.limiter import MotionLimiter
from vla_ros.safety.motion.motion import Motion
from vla_ros.safety.motion.targets import (
    JointVelocityTarget,
    PoseTarget,
    Target,
    TwistTarget,
)
from vla_ros.safety.motion.warm_up import warm_up

__all__ = [
    "JointVelocityTarget",
    "Motion",
    "MotionLimiter",
    "PoseTarget",
    "Target",
    "TwistTarget",
    "is_kept",
    "warm_up",
]
