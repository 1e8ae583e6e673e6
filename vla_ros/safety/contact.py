"""What touches the arm, as far as its torques show it: a protective stop."""

import math

import numpy as np

from vla_ros.robot import RobotConfig
from vla_ros.safety.inputs import AcceptedJoints
from vla_ros.safety.motion.algebra import least_margin
from vla_ros.safety.observer import MomentumObserver
from vla_ros.types import Array


class ContactWatch:
    """Holds external torques, and the force at the TCP that explains them, against their bounds.

    Attributes:
        touch: What is over its bound now, and by how much, as a line; empty if nothing is.
        cause: Which bound that is.

    """

    def __init__(self, robot: RobotConfig, links: Array) -> None:
        """Start without a sample.

        Args:
            robot: Names and bounds.
            links: The arm with its payload, `model.ArmModel.links`.

        """
        self._names = robot.joints
        self._observer = MomentumObserver(links, robot.bounds.external_torque_time)
        self.touch = ""
        self.cause = ""
        self._least = math.inf
        self.tighten(robot)

    def tighten(self, robot: RobotConfig) -> None:
        """Use the bounds of `robot` from now on."""
        self._observer.set_time_constant(robot.bounds.external_torque_time)
        self._torque = np.array(robot.bounds.external_torque)
        self._force = robot.bounds.contact_force

    def add(self, sample: AcceptedJoints) -> None:
        """Take a joint sample with efforts, newer than the last."""
        self._observer.add(sample.stamp_ns, sample.position, sample.velocity, sample.effort)
        self.touch = ""
        if (
            self._observer.most_contact_force() > self._force
            and (force := self._observer.contact_force()) > self._force
        ):
            self.cause = "contact_force"
            self.touch = (
                f"the TCP is pushed with {force:.1f} N, over the bound of {self._force:g} N"
            )
        torques = self._observer.torque
        index, self._least = least_margin(self._torque, torques)
        if self._least < 0.0:
            self.cause = "external_torque"
            self.touch = (
                f"{self._names[index]} is pushed with {torques[index]:.1f} Nm, over its bound of "
                f"{self._torque[index]:g} Nm"
            )

    @property
    def margins(self) -> dict[str, float]:
        """What is left to each bound, in its unit; to that of the torques, of the worst joint.

        Empty before the first sample. Worked out when asked for.
        """
        if self._least == math.inf:
            return {}
        force = self._observer.contact_force()
        return {"external_torque": self._least, "contact_force": self._force - force}
