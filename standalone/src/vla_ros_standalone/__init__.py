"""The part of ROS 2's Python interface that vla_ros needs, for machines without ROS 2.

Importing this package makes ``rclpy``, ``cv_bridge``, ``ament_index_python`` and the message
packages importable, unless a real ROS 2 is sourced. An installed distribution does that at
interpreter start.
"""

from vla_ros_standalone.finder import install

install()
