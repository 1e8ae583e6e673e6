"""Re-export, as in rclpy."""

from rclpy._names import validate_namespace

__all__ = ["validate_namespace"]
