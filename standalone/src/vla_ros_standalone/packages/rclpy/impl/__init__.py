"""Parts of rclpy that nodes rarely import by name."""
