"""The embedded MuJoCo robot, its task, and the scripted expert."""
