"""Conversion between ROS images and numpy arrays, as the Python half of ros-perception/vision_opencv."""

from cv_bridge.core import CvBridge, CvBridgeError

__all__ = ["CvBridge", "CvBridgeError"]
