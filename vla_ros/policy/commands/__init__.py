"""The commands of `vla_ros bundle`."""
