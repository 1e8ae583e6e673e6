"""A second opinion of the judge's arithmetic: MuJoCo, brute force and plain loops.

The judge shares no code with the filter; this shares none with the judge. It is slow, and so not a
judge itself: tests hold the judge against it.
"""

import math
import re

import mujoco
import numpy as np


class MujocoArm:
    """Kinematics and inverse dynamics of a URDF by MuJoCo, one pose at a time."""

    def __init__(self, urdf, tcp, joints, payload_mass=0.0, payload_com=(0.0, 0.0, 0.0)):
        xyz = " ".join(map(str, payload_com))
        payload = (
            f'<link name="payload"><inertial><origin xyz="{xyz}"/><mass value="{payload_mass}"/>'
            '<inertia ixx="1e-12" iyy="1e-12" izz="1e-12" ixy="0" ixz="0" iyz="0"/></inertial>'
            f'</link><joint name="payload" type="fixed"><parent link="{tcp}"/>'
            '<child link="payload"/></joint>'
        )
        # Everything stays a body of its own, and no joint has the friction of a driver's model.
        options = '<mujoco><compiler fusestatic="false" discardvisual="true"/></mujoco>'
        urdf = re.sub("<mujoco>.*?</mujoco>", "", urdf, flags=re.DOTALL)
        text = urdf.replace("</robot>", f"{payload if payload_mass else ''}{options}</robot>")
        self.model = mujoco.MjModel.from_xml_string(text)
        self.model.dof_damping[:] = 0.0
        self.model.dof_frictionloss[:] = 0.0
        self.model.opt.disableflags |= mujoco.mjtDisableBit.mjDSBL_CONTACT
        self.model.opt.disableflags |= mujoco.mjtDisableBit.mjDSBL_LIMIT
        self.data = mujoco.MjData(self.model)
        self.tcp = self.model.body(tcp).id
        self.qpos = [int(self.model.joint(name).qposadr[0]) for name in joints]
        self.dofs = [int(self.model.joint(name).dofadr[0]) for name in joints]

    def pose(self, angles):
        """Return position (3,), rotation (3, 3) and Jacobian (6, n) of the TCP."""
        self._place(angles)
        mujoco.mj_kinematics(self.model, self.data)
        mujoco.mj_comPos(self.model, self.data)
        jacobian = np.zeros((6, self.model.nv))
        mujoco.mj_jacBody(self.model, self.data, jacobian[:3], jacobian[3:], self.tcp)
        body = self.data.body(self.tcp)
        return body.xpos.copy(), body.xmat.reshape(3, 3).copy(), jacobian[:, self.dofs]

    def torques(self, angles, speeds, accelerations):
        """Return the torques (n,) that this motion takes."""
        self._place(angles)
        self.data.qvel[self.dofs] = speeds
        self.data.qacc[self.dofs] = accelerations
        mujoco.mj_inverse(self.model, self.data)
        return self.data.qfrc_inverse[self.dofs].copy()

    def _place(self, angles):
        mujoco.mj_resetData(self.model, self.data)
        self.data.qpos[self.qpos] = angles


def is_inside(shape, point):
    """Return whether a point is inside of a volume: by membership, without any distance."""
    kind = shape["shape"]
    x = np.asarray(point, dtype=float)
    if kind == "half_space":
        return float(np.dot(shape["normal"], x)) <= shape["offset"]
    if kind == "box":
        roll, pitch, yaw = shape["rpy"]
        local = x - shape["center"]
        # Undo the turns one after the other, the last first.
        for (first, second), angle in (((0, 1), yaw), ((2, 0), pitch), ((1, 2), roll)):
            a, b = local[first], local[second]
            local[first] = math.cos(angle) * a + math.sin(angle) * b
            local[second] = -math.sin(angle) * a + math.cos(angle) * b
        return bool(np.all(2.0 * np.abs(local) <= shape["size"]))
    if kind == "capsule":
        start, end = np.array(shape["from"]), np.array(shape["to"])
        steps = np.linspace(0.0, 1.0, 2001)[:, None]
        on_line = start + steps * (end - start)
        return bool((np.linalg.norm(x - on_line, axis=1) <= shape["radius"]).any())
    offset = x - shape["center"]
    if kind == "cylinder":
        axis = np.array(shape["axis"])
        reach = np.linalg.norm(np.cross(axis, offset)) / np.linalg.norm(axis)
    else:
        reach = math.dist(x, shape["center"])
    return shape.get("inner_radius", 0.0) <= reach <= shape["radius"]


def surface_is_at(shape, point, distance, directions):
    """Return whether the nearest surface is `distance` away, by looking into many directions.

    Nothing of the other side may be nearer (by 1 %), and some of it must be not much farther.
    """
    side = is_inside(shape, point)
    nearer = [is_inside(shape, point + 0.99 * distance * d) == side for d in directions]
    farther = [is_inside(shape, point + (1.03 * distance + 1e-4) * d) == side for d in directions]
    return all(nearer) and not all(farther)


def sent_violations(stamps, velocities, speed, acceleration, jerk, period):
    """Count the ticks of a sent velocity, from rest, that break a bound; plain loops of floats.

    Returns:
        The numbers for speed, acceleration and jerk.

    """
    found = [0, 0, 0]
    last, last_change, last_h, last_stamp = (0.0, 0.0, 0.0), (0.0, 0.0, 0.0), None, stamps[0]
    for stamp, now in zip(stamps, velocities, strict=True):
        h = min(max((stamp - last_stamp) / 1e9, 0.0), 1.5 * period)
        step = math.dist(now, last)
        found[0] += math.hypot(*now) > speed + 1e-9
        found[1] += step > acceleration * h + 1e-9
        if h > 0.0:
            change = tuple((n - b) / h for n, b in zip(now, last, strict=True))
            mean = h if last_h is None else (h + last_h) / 2.0
            found[2] += math.dist(change, last_change) > jerk * mean * (1.0 + 2e-6) + 1e-9
            last_change, last_h = change, h
        last, last_stamp = now, stamp
    return tuple(found)
