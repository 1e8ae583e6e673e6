"""Kinematics and dynamics of the arm, by Pinocchio, reduced to the chain from base to TCP."""

import xml.etree.ElementTree as ET
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pinocchio as pin

from vla_ros.kinematics import KinematicsError, rotation_from_rpy, urdf_link, urdf_vector
from vla_ros.robot import RobotConfig
from vla_ros.safety.motion.chain import COLUMNS
from vla_ros.safety.motion.compiled import State
from vla_ros.safety.motion.dynamics import FIRST_MOMENT, INERTIA, MASS, UP
from vla_ros.types import Array

_GRAVITY = 9.81
_SAMPLES = 400
"""Random postures from which bounds on how fast the model's terms change are taken."""
_TURNS = 4
_SPARE = 1.2
"""What the greatest value found in those is multiplied by."""


@dataclass(frozen=True, slots=True)
class Study:
    """How fast the model's terms change with its posture, at most.

    Attributes:
        gravity: Greatest |d gravity torque_i / d q_j|, Nm/rad, shape (n, n).
        mass: Greatest |dM/dq_j a|_i / |a|, shape (n, n).
        turning: Greatest norm of the change of the Jacobian (with lengths divided by the
            characteristic length) per rad of joint motion (its norm).
        reach: Greatest distance in m from a joint's axis to the TCP, about.
        sway: Greatest change of the TCP's linear (m) and angular (rad) velocity where the joints
            are off by up to 1 rad each, per joint velocity (its norm), two numbers.

    """

    gravity: Array
    mass: Array
    turning: float
    reach: float
    sway: tuple[float, float]

    def write(self, state: State) -> None:
        """Put it into the record that compiled functions work with."""
        n = len(self.gravity)
        state["drift_change"][:n] = np.linalg.norm(self.gravity, axis=1)
        state["mass_change"][:n] = np.linalg.norm(self.mass, axis=1)
        state["turning"], state["reach"], state["sway"] = self.turning, self.reach, self.sway


_STUDIES: dict[tuple[object, ...], Study] = {}
"""What was found, by all that it depends on: who drives many filters waits only once."""


class ArmModel:
    """The arm: its dynamics, and its kinematics as `chain` takes them.

    Whatever hangs on the chain beside it (fingers, cables) is part of the link that it hangs on, in
    its zero position; the payload is part of the last link. Vectors are in the robot file's base
    frame; up is z of the description's root, however the base is mounted on that.

    Attributes:
        joints: Number of joints, n.
        links: The chain, shape (n + 1, chain.COLUMNS).
        study: How fast its terms change.

    """

    def __init__(self, robot: RobotConfig, urdf: str) -> None:
        """Read the model.

        Raises:
            vla_ros.kinematics.KinematicsError: If the text is no URDF, the joints between base and
                TCP are not the robot file's, or a link lacks the inertia that torques need.

        """
        robot.chain(urdf)
        bounds = robot.bounds
        self.joints = len(robot.joints)
        self._model = model = _reduced(robot, urdf)
        names = [model.names[i] for i in range(1, model.njoints)]
        if names != list(robot.joints):
            msg = (
                f"the robot file lists the joints as {list(robot.joints)}, but from "
                f"{robot.base_frame!r} to {robot.tcp_frame!r} their order is {names}: use that one"
            )
            raise KinematicsError(msg)
        for index in range(1, model.njoints):
            if model.inertias[index].mass <= 0.0:
                msg = (
                    f"robot_description gives no mass to what joint {names[index - 1]!r} moves, "
                    "without which 'bounds.joint_torque' cannot be kept: add <inertial> there"
                )
                raise KinematicsError(msg)
        self._frame = model.getFrameId(robot.tcp_frame)
        frame = model.frames[self._frame]
        if bounds.payload_mass > 0.0:
            load = pin.Inertia(bounds.payload_mass, np.array(bounds.payload_com), np.zeros((3, 3)))
            model.appendBodyToJoint(frame.parentJoint, load, frame.placement)
        self._data = model.createData()
        self.links = _links(model, self._data, frame.placement)
        length = bounds.characteristic_length
        made_of = (
            urdf, robot.base_frame, robot.tcp_frame, robot.joints, bounds.joint_position_min,
            bounds.joint_position_max, bounds.payload_mass, bounds.payload_com, length,
        )  # fmt: skip
        if made_of not in _STUDIES:
            low, high = np.array(bounds.joint_position_min), np.array(bounds.joint_position_max)
            _STUDIES[made_of] = self._study(low, high, length)
        self.study = _STUDIES[made_of]

    def mass(self, position: Array) -> Array:
        """Return the joint-space inertia, shape (n, n), valid until the next call."""
        found: Array = pin.crba(self._model, self._data, position)
        return found

    def torque(self, position: Array, velocity: Array, acceleration: Array) -> Array:
        """Return the torques (n,) of a motion in Nm, valid until the next call."""
        found: Array = pin.rnea(self._model, self._data, position, velocity, acceleration)
        return found

    def jacobian(self, position: Array) -> Array:
        """Return the TCP's Jacobian, linear above angular, in the base frame, shape (6, n)."""
        found: Array = pin.computeFrameJacobian(
            self._model, self._data, position, self._frame, pin.LOCAL_WORLD_ALIGNED
        )
        return found

    def _study(self, low: Array, high: Array, length: float) -> Study:
        """Bound how fast gravity, inertia and Jacobian change, over random postures."""
        n, model, data = self.joints, self._model, self._data
        weights = np.repeat([1.0 / length, 1.0], 3)[:, None]
        rng = np.random.default_rng(0)
        gravity, inertia = np.zeros((n, n)), np.zeros((n, n))
        turning, reach = 0.0, 0.0
        sway = [0.0, 0.0]
        step = 1e-4
        for _ in range(_SAMPLES):
            q = rng.uniform(low, high)
            slope = pin.computeGeneralizedGravityDerivatives(model, data, q)
            np.maximum(gravity, np.abs(slope), out=gravity)
            here, mass = self.jacobian(q).copy(), self.mass(q).copy()
            reach = max(reach, float(np.linalg.norm(here[:3], axis=0).max()))
            slopes = []
            change_of_jacobian = np.zeros((6, n))
            for j in range(n):
                ahead = q.copy()
                ahead[j] += step
                slope_of_jacobian = (self.jacobian(ahead) - here) / step
                change_of_jacobian += rng.choice((-1.0, 1.0)) * slope_of_jacobian
                slopes.append(weights * slope_of_jacobian)
                change = (self.mass(ahead) - mass) / step
                np.maximum(inertia[:, j], np.linalg.norm(change, axis=1), out=inertia[:, j])
            turning = max(turning, _steepest(np.array(slopes), rng))
            for part in range(2):
                rows = change_of_jacobian[3 * part : 3 * part + 3]
                sway[part] = max(sway[part], float(np.linalg.norm(rows, 2)))
        swayed = _SPARE * sway[0], _SPARE * sway[1]
        return Study(_SPARE * gravity, _SPARE * inertia, _SPARE * turning, _SPARE * reach, swayed)


def _steepest(slopes: Array, rng: np.random.Generator) -> float:
    """Return the greatest norm of sum u_i slopes_i over unit vectors u.

    For the singular vectors of a sum, the best u is known, and for that the vectors: in turns.

    Args:
        slopes: Matrices (n, 6, n).
        rng: Where the first u is drawn from.

    """
    direction = rng.normal(size=len(slopes))
    for _ in range(_TURNS):
        direction /= np.linalg.norm(direction)
        left, values, right = np.linalg.svd(np.tensordot(direction, slopes, 1))
        direction = (left[:, 0] @ slopes) @ right[0]
    return float(values[0])


def _links(model: pin.Model, data: pin.Data, tcp: pin.SE3) -> Array:
    """Return the chain as `chain` takes it."""
    n = model.nv
    links: Array = np.zeros((n + 1, COLUMNS))
    zero = np.zeros(n)
    for index in range(n):
        placement = model.jointPlacements[index + 1]
        # In its own frame a joint moves along, or turns about, its axis alone.
        moves = pin.computeJointJacobian(model, data, zero, index + 1)[:, index]
        slides = not moves[3:].any()
        links[index, :9], links[index, 9:12] = placement.rotation.ravel(), placement.translation
        links[index, 12:15], links[index, 15] = moves[:3] if slides else moves[3:], slides
        body = model.inertias[index + 1]
        lever = pin.skew(body.lever)
        links[index, MASS] = body.mass
        links[index, FIRST_MOMENT : FIRST_MOMENT + 3] = body.mass * body.lever
        about_origin = body.inertia - body.mass * lever @ lever
        links[index, INERTIA:] = about_origin[np.triu_indices(3)]
    links[n, :9], links[n, 9:12] = tcp.rotation.ravel(), tcp.translation
    links[n, UP : UP + 3] = -model.gravity.linear
    return links


def _reduced(robot: RobotConfig, urdf: str) -> pin.Model:
    """Return Pinocchio's model of what is beyond the base, with all but the arm's joints fixed."""
    root = ET.fromstring(urdf)  # noqa: S314 - expat limits entities
    below: dict[str, list[ET.Element]] = {}
    for joint in root.findall("joint"):
        below.setdefault(urdf_link(joint, "parent"), []).append(joint)
    tree = ET.Element("robot", name=robot.name)
    links = {link.get("name", ""): link for link in root.findall("link")}
    waiting: list[str] = [robot.base_frame]
    while waiting:
        name = waiting.pop()
        link = ET.SubElement(tree, "link", name=name)
        inertial = links[name].find("inertial")
        if inertial is not None:
            link.append(inertial)
        for joint in below.get(name, []):
            waiting.append(urdf_link(joint, "child"))
            tree.append(_fixed_unless(joint, robot.joints))
    model = pin.buildModelFromXML(ET.tostring(tree, encoding="unicode"))
    model.gravity.linear = -_GRAVITY * _up(root, robot.base_frame)
    return model


def _up(root: ET.Element, base: str) -> Array:
    """Return z of the description's root in the base frame, (3,), its joints at zero."""
    above = {urdf_link(joint, "child"): joint for joint in root.findall("joint")}
    turn: Array = np.eye(3)
    while base in above:
        rpy = urdf_vector(above[base].find("origin"), "rpy", "0 0 0")
        turn = rotation_from_rpy(rpy) @ turn
        base = urdf_link(above[base], "parent")
    up: Array = turn[2]
    return up


def _fixed_unless(joint: ET.Element, moving: Sequence[str]) -> ET.Element:
    """Return the joint, made a fixed one if it is not among `moving`; its limits do not matter."""
    copy = ET.Element("joint", name=joint.get("name", ""), type="fixed")
    for tag in ("parent", "child", "origin"):
        copy.extend(joint.findall(tag))
    if joint.get("name") in moving:
        copy.set("type", "prismatic" if joint.get("type") == "prismatic" else "revolute")
        copy.extend(joint.findall("axis"))
        ET.SubElement(copy, "limit", lower="-100", upper="100", velocity="100", effort="1000")
    return copy
