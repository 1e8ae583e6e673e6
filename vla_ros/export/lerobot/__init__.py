"""LeRobot checkpoints: what is read without lerobot, and what needs it."""
