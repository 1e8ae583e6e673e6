"""The simulated robot behind the safety filter, in simulated time.

The same two objects run in `sim_node` and `safety_node`; here, for demonstrations and evaluation,
they run in one process, as fast as the machine can, and runs with the same seed are the same.
"""

from vla_ros.robot import RobotConfig
from vla_ros.safety import SafetyDecision, SafetyFilter
from vla_ros.sim.panda import PandaSim, urdf
from vla_ros.types import Command, JointSample

SAFETY_HZ = 100
PERIOD_NS = 1_000_000_000 // SAFETY_HZ
START_NS = 1_000_000_000
"""Time at which every episode starts: not 0, which would look like a missing stamp."""


class Rig:
    """A simulator that can be commanded only through the safety filter.

    Attributes:
        sim: The simulator, to look at; it is moved by `advance_to` alone.
        now_ns: The present.
        desired: The command that the filter sees, until replaced.
        decisions: What the filter decided since the reset: time, decision and the joints it saw.

    """

    def __init__(self, robot: RobotConfig, sim: PandaSim) -> None:
        """Connect `sim` to a filter with the bounds of `robot`."""
        self.robot = robot
        self.sim = sim
        self.chain = robot.chain(urdf())
        robot.check_joints(sim.joint_names + robot.gripper_joints, "the simulated robot")
        self.reset(0)

    def reset(self, seed: int) -> None:
        """Start an episode: the scene of `seed`, a fresh filter, time at `START_NS`."""
        self.sim.reset(seed)
        self.now_ns = START_NS
        self.desired: Command | None = None
        self.decisions: list[tuple[int, SafetyDecision, JointSample]] = []
        self._filter = SafetyFilter(self.robot, self.chain, SAFETY_HZ)
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
            decision = self._filter.step(self.now_ns, self.desired, joints)
            self.decisions.append((self.now_ns, decision, joints))
            self.sim.set_twist(decision.twist)
            if decision.gripper is not None:
                self.sim.set_gripper(decision.gripper)
            self._next_ns += PERIOD_NS
        self._move_to(time_ns)

    def _move_to(self, time_ns: int) -> None:
        if time_ns > self.now_ns:
            self.sim.advance_to(time_ns - START_NS)
            self.now_ns = time_ns
