"""The simulated robot behind the safety filter, in simulated time.

The same two objects run in `sim_node` and `safety_node`; here, for demonstrations and evaluation,
they run in one process, as fast as the machine can, and runs with the same seed are the same.
"""

import numpy as np

from vla_ros.replay.judge import Tick
from vla_ros.robot import RobotConfig
from vla_ros.safety import SafetyDecision, SafetyFilter
from vla_ros.sim.panda import PandaSim, urdf
from vla_ros.types import Array, Command, JointSample

SAFETY_HZ = 100
PERIOD_NS = 1_000_000_000 // SAFETY_HZ
START_NS = 1_000_000_000
"""Time at which every episode starts: not 0, which would look like a missing stamp."""


class Rig:
    """A simulator that is commanded through the safety filter.

    Without it only where an episode asks for that, to learn what the filter costs.

    Attributes:
        sim: The simulator, to look at; it is moved by `advance_to` alone.
        now_ns: The present.
        desired: The command that the filter sees, until replaced.
        ticks: What the robot was sent since the reset, and where its joints were.
        decision: The filter's last; None before its first, and without a filter.

    """

    def __init__(self, robot: RobotConfig, sim: PandaSim) -> None:
        """Connect `sim` to a filter with the bounds of `robot`."""
        self.robot = robot
        self.sim = sim
        self._urdf = urdf()
        self.chain = robot.chain(self._urdf)
        robot.check_joints(sim.joint_names + robot.gripper_joints, "the simulated robot")
        self.reset(0)

    def reset(self, seed: int, *, filtered: bool = True) -> None:
        """Start an episode: the scene of `seed`, a fresh filter, time at `START_NS`.

        Args:
            seed: The scene.
            filtered: Whether commands pass the filter; else the robot gets them as they are.

        """
        self.sim.reset(seed)
        self.now_ns = START_NS
        self.desired: Command | None = None
        self.ticks: list[Tick] = []
        self.decision: SafetyDecision | None = None
        self._filter = SafetyFilter(self.robot, self._urdf, SAFETY_HZ) if filtered else None
        self._next_ns = START_NS

    def joints(self) -> JointSample:
        """Return the joints as measured now."""
        return self.sim.joint_sample(self.now_ns)

    def advance_to(self, time_ns: int) -> None:
        """Let physics and filter run until `time_ns`.

        A filter tick at `time_ns` itself is still to come: a command given then counts for it.
        """
        while self._next_ns < time_ns:
            self._move_to(self._next_ns)
            joints = self.joints()
            twist, gripper = self._to_send(joints)
            self.ticks.append(Tick(self.now_ns, twist, gripper, joints.position))
            self.sim.set_twist(twist)
            if gripper is not None:
                self.sim.set_gripper(gripper)
            self._next_ns += PERIOD_NS
        self._move_to(time_ns)

    def _to_send(self, joints: JointSample) -> tuple[Array, float | None]:
        if self._filter is not None:
            self.decision = decision = self._filter.step(self.now_ns, self.desired, joints)
            return decision.twist, decision.gripper
        if self.desired is None:
            return np.zeros(6), None
        return self.desired.twist, self.desired.gripper

    def _move_to(self, time_ns: int) -> None:
        if time_ns > self.now_ns:
            self.sim.advance_to(time_ns - START_NS)
            self.now_ns = time_ns
