"""Position of the TCP from joint positions, in a few microseconds."""

import math
from collections.abc import Sequence

import numpy as np

from vla_ros.kinematics import SerialChain
from vla_ros.types import Array

Vector = tuple[float, float, float]


class TcpPosition:
    """Forward kinematics of one point, by the product of exponentials.

    The TCP at joint positions zero is moved by each joint in turn, from the last to the first,
    about the axis that this joint has at zero (Lynch and Park, Modern Robotics, 4.1). On floats:
    for one point that is ten times as fast as products of numpy matrices, and the filter needs no
    more than the position.
    """

    def __init__(self, chain: SerialChain) -> None:
        """Read the joints' axes at zero from the chain's Jacobian there."""
        zero = np.zeros(len(chain.joints))
        home = chain.pose(zero)[0]
        self._home: Vector = _vector(home)
        self._steps: list[tuple[int, bool, Vector, Vector]] = []
        for index, column in enumerate(chain.jacobian(zero).T):
            linear, axis = column[:3], column[3:]
            slides = not axis.any()
            # The point of a rotation's axis nearest to the TCP: linear = axis x (TCP - point).
            point = home + np.cross(axis, linear)
            self._steps.append((index, slides, _vector(linear if slides else axis), _vector(point)))
        self._steps.reverse()

    def __call__(self, positions: Sequence[float]) -> Vector:
        """Return the TCP's position in the base frame, in m.

        Args:
            positions: Joint angles in rad (slides in m), in the chain's order, all finite.

        """
        x, y, z = self._home
        for index, slides, (a, b, c), (px, py, pz) in self._steps:
            value = positions[index]
            if slides:
                x, y, z = x + a * value, y + b * value, z + c * value
                continue
            # Rodrigues: r + sin(q) k x r + (1 - cos(q)) k x (k x r), r from the axis' point.
            sine, versine = math.sin(value), 1.0 - math.cos(value)
            x, y, z = x - px, y - py, z - pz
            u, v, w = b * z - c * y, c * x - a * z, a * y - b * x
            x, y, z = (
                px + x + sine * u + versine * (b * w - c * v),
                py + y + sine * v + versine * (c * u - a * w),
                pz + z + sine * w + versine * (a * v - b * u),
            )
        return x, y, z


def _vector(values: Array) -> Vector:
    return float(values[0]), float(values[1]), float(values[2])
