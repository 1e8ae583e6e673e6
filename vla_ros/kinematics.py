"""Forward kinematics of the serial chain between two links of a URDF."""

import math
import xml.etree.ElementTree as ET
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from vla_ros.types import Array

# Below this angle in rad, a rotation is the identity to double precision.
_NO_ANGLE = 1e-12


class KinematicsError(ValueError):
    """The URDF does not hold the chain that the robot file describes."""


@dataclass(frozen=True, slots=True)
class _Segment:
    """A fixed transform, followed by a rotation or a slide of joint `index`, if there is one."""

    rotation: Array
    translation: Array
    axis: Array
    index: int
    prismatic: bool


class SerialChain:
    """The chain of links from a base to a tip, moved by named joints.

    Plain numpy: at 7 joints the products of 3x3 matrices cost less than a conversion to a library's
    types would, and the filter's process needs nothing more for positions.
    """

    def __init__(self, segments: Sequence[_Segment], joints: Sequence[str]) -> None:
        """Use `SerialChain.from_urdf`."""
        self._segments = tuple(segments)
        self.joints = tuple(joints)

    @classmethod
    def from_urdf(cls, urdf: str, base: str, tip: str, joints: Sequence[str]) -> "SerialChain":
        """Read the chain from the text of a URDF.

        Args:
            urdf: The XML text.
            base: Link in whose frame poses are expressed.
            tip: Link whose pose is computed, the TCP.
            joints: Names of the moving joints, in the order of the joint vectors.

        Raises:
            KinematicsError: If the text is no URDF, a link is missing, or the moving joints between
                base and tip are others than `joints`.

        """
        try:
            root = ET.fromstring(urdf)  # noqa: S314 - expat limits entities
        except ET.ParseError as err:
            msg = f"robot_description is not a URDF: {err}"
            raise KinematicsError(msg) from err
        parents = {urdf_link(node, "child"): node for node in root.findall("joint")}
        links = {node.get("name") for node in root.findall("link")}
        for link in (base, tip):
            if link not in links:
                msg = f"robot_description has no link {link!r}, which the robot file names"
                raise KinematicsError(msg)

        nodes = []
        link = tip
        while link != base:
            if link not in parents:
                msg = f"robot_description has no chain from link {base!r} to link {tip!r}"
                raise KinematicsError(msg)
            nodes.append(parents[link])
            link = urdf_link(parents[link], "parent")
        nodes.reverse()

        moving = [n.get("name", "") for n in nodes if n.get("type") != "fixed"]
        if sorted(moving) != sorted(joints):
            msg = (
                f"the moving joints from {base!r} to {tip!r} in robot_description are {moving}, "
                f"but the robot file names {list(joints)}: use the robot file of this robot"
            )
            raise KinematicsError(msg)
        return cls([_segment(node, list(joints)) for node in nodes], joints)

    def pose(self, positions: Array) -> tuple[Array, Array]:
        """Return the tip's position (3,) in m and rotation (3, 3), in the base frame.

        Args:
            positions: Joint angles in rad (slides in m), shape (n,).

        """
        rotation: Array = np.eye(3)
        translation: Array = np.zeros(3)
        for segment in self._segments:
            translation = translation + rotation @ segment.translation
            rotation = rotation @ segment.rotation
            if segment.index < 0:
                continue
            value = float(positions[segment.index])
            if segment.prismatic:
                translation = translation + rotation @ (segment.axis * value)
            else:
                rotation = rotation @ rotation_from_axis_angle(segment.axis, value)
        return translation, rotation

    def positions(self, angles: Array) -> Array:
        """Return the tip's positions for many postures at once, shape (m, 3), in m.

        Args:
            angles: Joint angles in rad (slides in m), shape (m, n).

        """
        return self.poses(angles)[0]

    def poses(self, angles: Array) -> tuple[Array, Array]:
        """Return the tip's positions (m, 3) in m and rotations (m, 3, 3) for many postures at once.

        Args:
            angles: Joint angles in rad (slides in m), shape (m, n).

        """
        count = len(angles)
        rotation: Array = np.broadcast_to(np.eye(3), (count, 3, 3))
        translation: Array = np.zeros((count, 3))
        for segment in self._segments:
            translation = translation + rotation @ segment.translation
            rotation = rotation @ segment.rotation
            if segment.index < 0:
                continue
            values = angles[:, segment.index]
            if segment.prismatic:
                translation = translation + (rotation @ segment.axis) * values[:, None]
                continue
            x, y, z = segment.axis
            cross = np.array([[0.0, -z, y], [z, 0.0, -x], [-y, x, 0.0]])
            sine, versine = np.sin(values), 1.0 - np.cos(values)
            turn = np.eye(3) + sine[:, None, None] * cross
            rotation = rotation @ (turn + versine[:, None, None] * (cross @ cross))
        return translation, rotation

    def jacobian(self, positions: Array) -> Array:
        """Return the geometric Jacobian of the tip in the base frame, shape (6, n).

        Rows 0 to 2 give the linear velocity of the tip's origin, rows 3 to 5 the angular velocity.
        """
        rotation: Array = np.eye(3)
        translation: Array = np.zeros(3)
        axes = np.zeros((3, len(self.joints)))
        origins = np.zeros((3, len(self.joints)))
        slides = np.zeros(len(self.joints), bool)
        for segment in self._segments:
            translation = translation + rotation @ segment.translation
            rotation = rotation @ segment.rotation
            if segment.index < 0:
                continue
            value = float(positions[segment.index])
            axes[:, segment.index] = rotation @ segment.axis
            origins[:, segment.index] = translation
            slides[segment.index] = segment.prismatic
            if segment.prismatic:
                translation = translation + rotation @ (segment.axis * value)
            else:
                rotation = rotation @ rotation_from_axis_angle(segment.axis, value)
        linear = np.cross(axes.T, translation - origins.T).T
        return np.vstack([np.where(slides, axes, linear), np.where(slides, 0.0, axes)])


def rotation_from_axis_angle(axis: Array, angle: float) -> Array:
    """Return the rotation matrix (3, 3) by `angle` rad about the unit vector `axis` (3,).

    Rodrigues' formula: R = I + sin(a) K + (1 - cos(a)) K^2, K the cross-product matrix of the axis.
    """
    # Python's floats: numpy's cost several times as much one by one.
    x, y, z = axis.tolist()
    sine, cosine = math.sin(angle), math.cos(angle)
    versine = 1.0 - cosine
    return np.array(
        [
            [cosine + x * x * versine, x * y * versine - z * sine, x * z * versine + y * sine],
            [y * x * versine + z * sine, cosine + y * y * versine, y * z * versine - x * sine],
            [z * x * versine - y * sine, z * y * versine + x * sine, cosine + z * z * versine],
        ]
    )


def rotation_from_rpy(rpy: Sequence[float] | Array) -> Array:
    """Return the rotation matrix (3, 3) by roll, pitch and yaw about fixed x, y, z, in rad."""
    roll, pitch, yaw = rpy
    x_axis, y_axis, z_axis = np.eye(3)
    turned: Array = (
        rotation_from_axis_angle(z_axis, yaw)
        @ rotation_from_axis_angle(y_axis, pitch)
        @ rotation_from_axis_angle(x_axis, roll)
    )
    return turned


def rotation_from_rotvec(rotvec: Array) -> Array:
    """Return the rotation matrix (3, 3) of the rotation vector (3,), in rad."""
    angle = math.hypot(*rotvec.tolist())
    if angle < _NO_ANGLE:
        return np.eye(3)
    return rotation_from_axis_angle(rotvec / angle, angle)


def rotvec_from_rotation(rotation: Array) -> Array:
    """Return the rotation vector (3,), in rad, of the rotation matrix (3, 3)."""
    x, y, z, w = quaternion_from_rotation(rotation)
    vector = np.array([x, y, z])
    sine = float(np.linalg.norm(vector))
    scale = 2.0 if sine < _NO_ANGLE else 2.0 * float(np.arctan2(sine, w)) / sine
    result: Array = scale * vector
    return result


def rotation_from_quaternion(quaternion: Sequence[float]) -> Array:
    """Return the rotation matrix (3, 3) of the unit quaternion (x, y, z, w)."""
    x, y, z, w = quaternion
    return np.array(
        [
            [1.0 - 2.0 * (y * y + z * z), 2.0 * (x * y - z * w), 2.0 * (x * z + y * w)],
            [2.0 * (x * y + z * w), 1.0 - 2.0 * (x * x + z * z), 2.0 * (y * z - x * w)],
            [2.0 * (x * z - y * w), 2.0 * (y * z + x * w), 1.0 - 2.0 * (x * x + y * y)],
        ]
    )


def quaternion_from_rotation(rotation: Array) -> Array:
    """Return the quaternion (x, y, z, w), w >= 0, of the rotation matrix (3, 3).

    Shepperd's method: divide by the largest of the four, so that no case loses precision.
    """
    r = rotation
    trace = r[0, 0] + r[1, 1] + r[2, 2]
    squares = np.array([2 * r[0, 0] - trace, 2 * r[1, 1] - trace, 2 * r[2, 2] - trace, trace]) + 1.0
    largest = int(np.argmax(squares))
    scale = 2.0 * np.sqrt(squares[largest])
    sums = {
        0: (squares[0], r[0, 1] + r[1, 0], r[0, 2] + r[2, 0], r[2, 1] - r[1, 2]),
        1: (r[0, 1] + r[1, 0], squares[1], r[1, 2] + r[2, 1], r[0, 2] - r[2, 0]),
        2: (r[0, 2] + r[2, 0], r[1, 2] + r[2, 1], squares[2], r[1, 0] - r[0, 1]),
        3: (r[2, 1] - r[1, 2], r[0, 2] - r[2, 0], r[1, 0] - r[0, 1], squares[3]),
    }
    quaternion = np.array(sums[largest]) / scale
    quaternion[largest] = scale / 4.0
    quaternion /= np.linalg.norm(quaternion)
    signed: Array = quaternion if quaternion[3] >= 0.0 else -quaternion
    return signed


def urdf_link(node: ET.Element, role: str) -> str:
    """Return the name of a joint's `parent` or `child` link, empty if it has none."""
    link = node.find(role)
    return "" if link is None else link.get("link", "")


def urdf_vector(node: ET.Element | None, key: str, default: str) -> Array:
    """Return the numbers in an attribute of an element, those of `default` where there is none."""
    text = default if node is None else node.get(key, default)
    return np.array([float(word) for word in text.split()])


def _segment(node: ET.Element, joints: list[str]) -> _Segment:
    kind = node.get("type", "")
    name = node.get("name", "")
    if kind not in {"fixed", "revolute", "continuous", "prismatic"}:
        msg = f"joint {name!r} in robot_description has the type {kind!r}, which is not supported"
        raise KinematicsError(msg)
    origin = node.find("origin")
    axis = urdf_vector(node.find("axis"), "xyz", "1 0 0")
    return _Segment(
        rotation=rotation_from_rpy(urdf_vector(origin, "rpy", "0 0 0")),
        translation=urdf_vector(origin, "xyz", "0 0 0"),
        axis=axis / np.linalg.norm(axis),
        index=-1 if kind == "fixed" else joints.index(name),
        prismatic=kind == "prismatic",
    )
