"""Re-export, as in rclpy."""

from rclpy.exceptions import InvalidHandle

__all__ = ["InvalidHandle"]
