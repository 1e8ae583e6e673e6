"""A runner for XML launch files: ``vla_ros_launch PACKAGE FILE``.

It accepts a subset of what ``ros2 launch`` accepts on ROS 2 Humble and newer, and does the same
with it. What it does not know is an error that names the file and line, before any process starts.
"""
