"""The judge's own kinematics and dynamics, of many joint positions at once.

Written apart from what the safety filter uses, so that neither can share the other's errors; and
for arrays, since the judge looks at whole recordings. Vectors are in the base frame, in SI units;
T is the number of joint positions, n that of joints.
"""

import xml.etree.ElementTree as ET
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]

GRAVITY = 9.81


class JudgeError(ValueError):
    """A robot file, a robot description or a bag cannot be judged."""


@dataclass(frozen=True, slots=True)
class Poses:
    """Where the links are.

    Attributes:
        tip: Positions of the TCP, shape (T, 3).
        rotation: Rotations of the TCP, shape (T, 3, 3).
        origins: A point on each joint's axis, one array (T, 3) for each joint.
        axes: Direction of each joint's axis, one array (T, 3) for each joint.
        rotations: Rotation of the link behind each joint, one array (T, 3, 3) for each joint.

    """

    tip: Array
    rotation: Array
    origins: list[Array]
    axes: list[Array]
    rotations: list[Array]


@dataclass(frozen=True, slots=True)
class _Body:
    """A rigid body: mass, centre of mass (3,) and inertia about that centre (3, 3)."""

    mass: float
    centre: Array
    inertia: Array

    def moved(self, transform: Array) -> "_Body":
        """Return it in the frame that `transform` (4, 4) leads to."""
        turn = transform[:3, :3]
        centre = turn @ self.centre + transform[:3, 3]
        return _Body(self.mass, centre, turn @ self.inertia @ turn.T)

    def joined(self, other: "_Body") -> "_Body":
        """Return both as one body (parallel axes)."""
        mass = self.mass + other.mass
        if mass <= 0.0:
            return self
        centre = (self.mass * self.centre + other.mass * other.centre) / mass
        inertia = np.zeros((3, 3))
        for body in (self, other):
            arm = body.centre - centre
            inertia += body.inertia + body.mass * (arm @ arm * np.eye(3) - np.outer(arm, arm))
        return _Body(mass, centre, inertia)


_NOTHING = _Body(0.0, np.zeros(3), np.zeros((3, 3)))


class Arm:
    """A serial arm, from its URDF."""

    def __init__(
        self,
        urdf: str,
        base: str,
        tip: str,
        joints: Sequence[str],
        *,
        payload_mass: float = 0.0,
        payload_centre: Sequence[float] = (0.0, 0.0, 0.0),
    ) -> None:
        """Read the chain from `base` to `tip` and the masses that hang on it.

        Joints that are not in `joints`, those of a gripper, are taken at zero. The payload is a
        point mass in the frame of the tip. What is up is z of the description's root.

        Raises:
            JudgeError: If the description is no URDF or lacks the chain.

        """
        self.joints = list(joints)
        try:
            root = ET.fromstring(urdf)  # noqa: S314 - from our own bag
        except ET.ParseError as err:
            msg = f"the robot description is no URDF: {err}"
            raise JudgeError(msg) from err
        nodes = root.findall("joint")
        above = {_link(n, "child"): n for n in nodes}
        below: dict[str, list[ET.Element]] = {}
        for node in nodes:
            below.setdefault(_link(node, "parent"), []).append(node)
        links = {str(n.get("name")): n for n in root.findall("link")}

        chain: list[ET.Element] = []
        link = tip
        while link != base:
            if link not in above:
                msg = f"the robot description has no way from {base!r} to {tip!r}"
                raise JudgeError(msg)
            chain.insert(0, above[link])
            if not _is_fixed(above[link]) and above[link].get("name") not in self.joints:
                msg = f"the robot file lacks joint {above[link].get('name')!r} of the description"
                raise JudgeError(msg)
            link = _link(above[link], "parent")

        # Fixed transforms in front of each moving joint, and behind the last one.
        self._before: list[Array] = []
        self._axis: list[Array] = []
        self._index: list[int] = []
        self._slides: list[bool] = []
        bodies: list[_Body] = []
        transform = np.eye(4)
        on_chain = {id(node) for node in chain}
        for node in chain:
            transform = transform @ _origin(node)
            if not _is_fixed(node):
                self._before.append(transform)
                axis = _numbers(node.find("axis"), "xyz", "1 0 0")
                self._axis.append(axis / np.linalg.norm(axis))
                self._index.append(self.joints.index(str(node.get("name"))))
                self._slides.append(node.get("type") == "prismatic")
                bodies.append(_NOTHING)
                transform = np.eye(4)
            if bodies:
                hanging = _hanging(_link(node, "child"), links, below, on_chain)
                bodies[-1] = bodies[-1].joined(hanging.moved(transform))
        self._after = transform
        missing = [name for i, name in enumerate(self.joints) if i not in self._index]
        if missing:
            msg = f"the robot description lacks {missing} between {base!r} and {tip!r}"
            raise JudgeError(msg)
        payload = _Body(payload_mass, np.array(payload_centre, float), np.zeros((3, 3)))
        bodies[-1] = bodies[-1].joined(payload.moved(self._after))
        self._bodies, self._pull = bodies, GRAVITY * _up(base, above)

    def poses(self, angles: Array) -> Poses:
        """Return the poses for joint positions (T, n)."""
        count = len(angles)
        rotation: Array = np.tile(np.eye(3), (count, 1, 1))
        position: Array = np.zeros((count, 3))
        origins, axes, rotations = [], [], []
        for before, axis, index, slides in self._segments():
            position = position + rotation @ before[:3, 3]
            rotation = _by(rotation, before[:3, :3])
            values = angles[:, index]
            along = rotation @ axis
            origins.append(position)
            axes.append(along)
            if slides:
                position = position + along * values[:, None]
            else:
                rotation = rotation @ turns(axis, values)
            rotations.append(rotation)
        position = position + rotation @ self._after[:3, 3]
        return Poses(position, _by(rotation, self._after[:3, :3]), origins, axes, rotations)

    def positions(self, angles: Array) -> Array:
        """Return the TCP's positions (T, 3) for joint positions (T, n); NaN for NaN."""
        return self.poses(angles).tip

    def jacobian(self, angles: Array, poses: Poses | None = None) -> Array:
        """Return the Jacobians of the TCP, linear above angular, shape (T, 6, n)."""
        poses = self.poses(angles) if poses is None else poses
        result = np.zeros((len(angles), 6, len(self.joints)))
        for index, slides, origin, axis in zip(
            self._index, self._slides, poses.origins, poses.axes, strict=True
        ):
            if slides:
                result[:, :3, index] = axis
            else:
                result[:, :3, index] = cross(axis, poses.tip - origin)
                result[:, 3:, index] = axis
        return result

    def jacobian_rate(self, angles: Array, speeds: Array) -> Array:
        """Return how fast the Jacobians change at joint speeds (T, n), shape (T, 6, n)."""
        # Second-order differences: exact to 1e-9 of what moves by a millionth of a second.
        instant = 1e-6
        ahead = self.jacobian(angles + instant * speeds)
        return np.asarray((ahead - self.jacobian(angles - instant * speeds)) / (2.0 * instant))

    def torques(
        self, angles: Array, speeds: Array, accelerations: Array, poses: Poses | None = None
    ) -> Array:
        """Return the joints' torques (T, n), gravity included: Newton's and Euler's equations.

        Recursively outward for the motion and inward for the forces, all in the base frame, after
        Siciliano et al., Robotics, section 7.5. Friction and the motors' inertia are not in a URDF.

        Args:
            angles: Joint positions, shape (T, n).
            speeds: Joint velocities, shape (T, n).
            accelerations: Joint accelerations, shape (T, n).
            poses: Those of `angles`, if they are known.

        """
        poses = self.poses(angles) if poses is None else poses
        count = len(angles)
        spin: Array = np.zeros((count, 3))
        spun: Array = np.zeros((count, 3))
        # A base that accelerates upward feels like gravity.
        pull: Array = np.tile(self._pull, (count, 1))
        last: Array = np.zeros((count, 3))
        forces, moments, points = [], [], []
        for joint, (_, _, index, slides) in enumerate(self._segments()):
            body, axis = self._bodies[joint], poses.axes[joint]
            rate, change = speeds[:, index, None], accelerations[:, index, None]
            point = poses.origins[joint]
            if slides:
                point = point + axis * angles[:, index, None]
            way = point - last
            pull = pull + cross(spun, way) + cross(spin, cross(spin, way))
            if slides:
                pull = pull + axis * change + 2.0 * cross(spin, axis * rate)
            else:
                spun = spun + axis * change + cross(spin, axis * rate)
                spin = spin + axis * rate
            turn = poses.rotations[joint]
            arm = turn @ body.centre
            force = body.mass * (pull + cross(spun, arm) + cross(spin, cross(spin, arm)))
            # In the body's own axes the inertia is constant.
            local_spin, local_spun = _into(turn, spin), _into(turn, spun)
            moment = local_spun @ body.inertia + cross(local_spin, local_spin @ body.inertia)
            forces.append(force)
            moments.append(_outof(turn, moment) + cross(arm, force))
            points.append(point)
            last = point

        result = np.zeros((count, len(self.joints)))
        push: Array = np.zeros((count, 3))
        twist: Array = np.zeros((count, 3))
        beyond: Array = last
        for joint in range(len(points) - 1, -1, -1):
            twist = twist + moments[joint] + cross(beyond - points[joint], push)
            push = push + forces[joint]
            beyond = points[joint]
            load = push if self._slides[joint] else twist
            result[:, self._index[joint]] = (load * poses.axes[joint]).sum(axis=1)
        return result

    def _segments(self) -> list[tuple[Array, Array, int, bool]]:
        return list(zip(self._before, self._axis, self._index, self._slides, strict=True))


def smallest_singular_values(jacobians: Array, length: float) -> Array:
    """Return the smallest singular value of each Jacobian (T, 6, n), linear rows over `length`.

    From the eigenvalues of the smaller of J J^T and J^T J, which is several times as fast.
    """
    scaled = jacobians / np.array([length] * 3 + [1.0] * 3)[:, None]
    turned = np.swapaxes(scaled, 1, 2)
    square = scaled @ turned if scaled.shape[2] >= scaled.shape[1] else turned @ scaled
    lowest = np.linalg.eigvalsh(square)[:, 0]
    return np.asarray(np.sqrt(np.maximum(lowest, 0.0)))


def cross(first: Array, second: Array) -> Array:
    """Return the vector products of the rows, shape (T, 3); many times as fast as numpy's."""
    a, b, c = first[:, 0], first[:, 1], first[:, 2]
    x, y, z = second[:, 0], second[:, 1], second[:, 2]
    result = np.empty((len(first), 3))
    result[:, 0] = b * z - c * y
    result[:, 1] = c * x - a * z
    result[:, 2] = a * y - b * x
    return result


def turns(axis: Array, angles: Array) -> Array:
    """Return rotations by `angles` (T,) about the unit vector `axis`, shape (T, 3, 3).

    Rodrigues' formula, as in Lynch and Park, Modern Robotics, equation 3.51.
    """
    x, y, z = axis
    skew = np.array([[0.0, -z, y], [z, 0.0, -x], [-y, x, 0.0]])
    parts = np.stack([np.sin(angles), 1.0 - np.cos(angles)], axis=1)
    turned = parts @ np.stack([skew, skew @ skew]).reshape(2, 9) + np.eye(3).ravel()
    return np.asarray(turned.reshape(-1, 3, 3))


def _by(rotations: Array, matrix: Array) -> Array:
    """Return rotations (T, 3, 3) times one matrix (3, 3): as one product, much faster."""
    return np.asarray((rotations.reshape(-1, 3) @ matrix).reshape(rotations.shape))


def _into(rotations: Array, vectors: Array) -> Array:
    """Return the vectors (T, 3) in the frames of the rotations (T, 3, 3)."""
    return np.asarray((vectors[:, None, :] @ rotations)[:, 0])


def _outof(rotations: Array, vectors: Array) -> Array:
    return np.asarray((rotations @ vectors[:, :, None])[:, :, 0])


def _hanging(
    link: str,
    links: dict[str, ET.Element],
    below: dict[str, list[ET.Element]],
    on_chain: set[int],
) -> _Body:
    """Return a link with all that hangs on it beside the chain, in the link's frame."""
    node = links.get(link)
    body = _NOTHING if node is None else _body(node)
    for joint in below.get(link, []):
        if id(joint) not in on_chain:
            branch = _hanging(_link(joint, "child"), links, below, on_chain)
            body = body.joined(branch.moved(_origin(joint)))
    return body


def _body(link: ET.Element) -> _Body:
    inertial = link.find("inertial")
    if inertial is None:
        return _NOTHING
    mass, inertia = inertial.find("mass"), inertial.find("inertia")
    xx, xy, xz, yy, yz, zz = (
        0.0 if inertia is None else float(inertia.get(key, 0.0))
        for key in ("ixx", "ixy", "ixz", "iyy", "iyz", "izz")
    )
    body = _Body(
        0.0 if mass is None else float(mass.get("value", 0.0)),
        np.zeros(3),
        np.array([[xx, xy, xz], [xy, yy, yz], [xz, yz, zz]]),
    )
    return body.moved(_origin(inertial))


def _up(link: str, above: dict[str, ET.Element]) -> Array:
    """Return z of the description's root, (3,), in the frame of a link, all joints at zero."""
    turn = np.eye(3)
    while link in above:
        turn = _origin(above[link])[:3, :3] @ turn
        link = _link(above[link], "parent")
    return np.asarray(turn[2])


def _origin(node: ET.Element) -> Array:
    """Return the transform (4, 4) of an element's origin: roll, pitch and yaw about fixed axes."""
    origin = node.find("origin")
    result = np.eye(4)
    roll, pitch, yaw = _numbers(origin, "rpy", "0 0 0")
    x, y, z = np.eye(3)
    for axis, angle in ((z, yaw), (y, pitch), (x, roll)):
        result[:3, :3] = result[:3, :3] @ turns(axis, np.array([angle]))[0]
    result[:3, 3] = _numbers(origin, "xyz", "0 0 0")
    return result


def _is_fixed(node: ET.Element) -> bool:
    return node.get("type") == "fixed"


def _link(node: ET.Element, role: str) -> str:
    link = node.find(role)
    return "" if link is None else str(link.get("link"))


def _numbers(node: ET.Element | None, key: str, default: str) -> Array:
    text = default if node is None else node.get(key, default)
    return np.array([float(word) for word in text.split()])
