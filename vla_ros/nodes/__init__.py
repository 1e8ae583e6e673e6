"""The ROS 2 nodes: parameters, topics, and one call into the core each."""
