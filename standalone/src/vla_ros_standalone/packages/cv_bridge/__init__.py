"""Conversion between ROS images and numpy arrays, as in ros-perception/vision_opencv."""

from cv_bridge.core import CvBridge, CvBridgeError

__all__ = ["CvBridge", "CvBridgeError"]
