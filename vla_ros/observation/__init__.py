"""Frames, joint states and the instruction, aligned into what a policy sees."""
