"""What the joints of a robot measure at rest: their torques against gravity."""

import numpy as np
import pinocchio as pin


class Weight:
    """The torques that hold an arm with what it carries, fingers closed."""

    def __init__(self, robot, urdf):
        self._model = pin.buildModelFromXML(urdf)
        self._data = self._model.createData()
        self._robot = robot
        self._tcp = self._model.getFrameId(robot.tcp_frame)

    def at(self, position):
        """Return the torques in Nm, (n,), for the arm's joints first in the URDF's tree."""
        torque = pin.computeGeneralizedGravity(self._model, self._data, self._all(position))
        carried = [0.0, 0.0, -9.81 * self._robot.bounds.payload_mass]
        return torque[: len(position)] - self.of_force(position, carried)

    def of_force(self, position, force):
        """Return the torques in Nm, (n,), that a force in N on the TCP, base frame, makes."""
        world = pin.ReferenceFrame.LOCAL_WORLD_ALIGNED
        q = self._all(position)
        jacobian = pin.computeFrameJacobian(self._model, self._data, q, self._tcp, world)
        return (jacobian[:3].T @ force)[: len(position)]

    def _all(self, position):
        return np.concatenate([position, np.zeros(self._model.nq - len(position))])


def mounted(urdf, base):
    """Return a description of the same arm whose root is a room, and the base crooked in it."""
    joints = (("room", "wall", "0 0 1", "0.3 0 0.7"), ("wall", base, "0 1 0", "0 1.2 0.1"))
    parts = ['<link name="room"/><link name="wall"/>']
    for parent, child, xyz, rpy in joints:
        parts.append(
            f'<joint name="{child}_mount" type="fixed"><parent link="{parent}"/>'
            f'<child link="{child}"/><origin xyz="{xyz}" rpy="{rpy}"/></joint>'
        )
    return urdf.replace("</robot>", f"{''.join(parts)}</robot>")
