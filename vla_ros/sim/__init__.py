"""The embedded robot: a Panda on its table in MuJoCo, a task, and a scripted expert.

`panda.PandaSim` is the robot and its scene, `task.PickTask` says what success means, and
`expert.Expert` solves the task from the cubes' true poses. One control loop, as data generation,
evaluation and the tests run it (the filter left out):

    sim = PandaSim()
    sim.reset(seed)
    task = PickTask(sim, "pick up the red cube")
    expert = Expert(sim, task.target)
    while not task.success:
        twist, opening = expert.command()    # 30 Hz: base frame, m/s, rad/s; m
        sim.set_twist(twist)
        sim.set_gripper(opening)
        sim.advance(1 / 30)
        task.update()
    sim.close()

Distances are in metres, angles in rad, times in seconds or integer nanoseconds of simulated time.
The base frame is `panda_link0`: its origin at the height of the table's surface, x forwards, z up.
"""
