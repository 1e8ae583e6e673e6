"""What touches the arm, as far as its torques show it: a protective stop."""

import math

import numpy as np
import pinocchio as pin

from vla_ros.robot import RobotConfig
from vla_ros.safety.inputs import AcceptedJoints
from vla_ros.safety.motion.algebra import least_margin
from vla_ros.safety.observer import MomentumObserver


class ContactWatch:
    """Holds external torques, and the force at the TCP that explains them, against their bounds.

    Attributes:
        touch: What is over its bound now, and by how much, as a line; empty if nothing is.
        cause: Which bound that is.

    """

    def __init__(self, robot: RobotConfig, urdf: str) -> None:
        """Build the dynamics of the arm with its payload; fingers stay where they are at zero."""
        full = pin.buildModelFromXML(urdf)
        names = list(robot.joints)
        others = [i for i in range(1, full.njoints) if full.names[i] not in names]
        model = pin.buildReducedModel(full, others, pin.neutral(full))
        # The samples' order is the robot file's, the model's is the tree's.
        self._names = list(model.names[1:])
        self._indices = [names.index(name) for name in self._names]
        self._order = None if self._names == names else self._indices
        tcp = model.getFrameId(robot.tcp_frame)
        bounds = robot.bounds
        if bounds.payload_mass > 0.0:
            payload = pin.Inertia(
                bounds.payload_mass, np.array(bounds.payload_com), np.zeros((3, 3))
            )
            frame = model.frames[tcp]
            model.appendBodyToJoint(frame.parentJoint, payload, frame.placement)
        self._observer = MomentumObserver(model, tcp, bounds.external_torque_time)
        self.touch = ""
        self.cause = ""
        self._least = math.inf
        self.tighten(robot)

    def tighten(self, robot: RobotConfig) -> None:
        """Use the bounds of `robot` from now on."""
        self._observer.set_time_constant(robot.bounds.external_torque_time)
        self._torque = np.array(robot.bounds.external_torque)[self._indices]
        self._force = robot.bounds.contact_force

    def add(self, sample: AcceptedJoints) -> None:
        """Take a joint sample with efforts, newer than the last."""
        position, velocity, effort = sample.position, sample.velocity, sample.effort
        order = self._order
        if order is not None:
            position, velocity, effort = position[order], velocity[order], effort[order]
        self._observer.add(sample.stamp_ns, position, velocity, effort)
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
