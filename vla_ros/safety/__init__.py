"""The filter between a policy and a robot: bounds, watchdogs, states."""
