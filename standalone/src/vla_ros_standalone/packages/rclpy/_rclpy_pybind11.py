"""Names that code imports from rclpy's C extension to catch its errors."""

from rclpy.exceptions import (
    InvalidHandle,
    NodeNameNonExistentError,
    RCLError,
    UnknownROSArgsError,
)

__all__ = ["InvalidHandle", "NodeNameNonExistentError", "RCLError", "UnknownROSArgsError"]
