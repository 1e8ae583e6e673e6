"""The plot of `vla_ros safety explain`: admissible speed against distance, of TCP and joints."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from vla_ros.robot import RobotConfig
from vla_ros.safety.explain import Stopping, joint_stoppings, tcp_stopping
from vla_ros.types import Array, ImageArray

SIZE = (1280, 600)
"""Width and height of the plot in pixels."""
_FINE = 3
"""Drawn this many times larger and averaged, for smooth lines and letters."""
_INK = (51, 41, 31)  # colours in OpenCV's order: blue, green, red
_GREY = (140, 130, 122)
_GRID = (236, 232, 228)
_FILL = (246, 238, 226)
_TICKS = 8
_COLOURS = (
    (178, 104, 31),
    (14, 127, 255),
    (44, 160, 44),
    (40, 39, 214),
    (189, 103, 148),
    (75, 86, 140),
    (160, 160, 30),
)


@dataclass(frozen=True, slots=True)
class _Curve:
    label: str
    stopping: Stopping
    colour: tuple[int, int, int]


def save_plot(robot: RobotConfig, rate_hz: float, path: Path) -> None:
    """Write the plot to a file, whose ending says its format (.png).

    Raises:
        OSError: If it cannot be written.

    """
    try:
        written = cv2.imwrite(str(path), draw(robot, rate_hz))
    except cv2.error as err:
        msg = f"cannot write the plot to {path}: its ending must be that of an image, as .png"
        raise OSError(msg) from err
    if not written:
        msg = f"cannot write the plot to {path}: is there such a folder?"
        raise OSError(msg)


def draw(robot: RobotConfig, rate_hz: float) -> ImageArray:
    """Return the plot, shape (600, 1280, 3), 8 bits, in OpenCV's order of colours.

    Args:
        robot: A valid robot.
        rate_hz: Rate of the filter.

    """
    tcp = tcp_stopping(robot.bounds, rate_hz)
    joints = joint_stoppings(robot.bounds, rate_hz)
    # Joints that behave alike share a line.
    alike: dict[Stopping, list[str]] = {}
    for name, stopping in zip(robot.joints, joints, strict=True):
        alike.setdefault(stopping, []).append(name)
    curves = [
        _Curve(", ".join(names), stopping, _COLOURS[i % len(_COLOURS)])
        for i, (stopping, names) in enumerate(alike.items())
    ]
    canvas = _Canvas()
    canvas.text(
        (40, 44), f"{robot.name}: admissible speed toward a boundary", 0.78, _INK, bold=True
    )
    subtitle = (
        f"steady motion, filter at {rate_hz:g} Hz, reaction delay "
        f"{1e3 * tcp.delay:g} ms, at rest {1e3 * (tcp.delay + robot.bounds.stopping_time):g} ms "
        "after the decision to stop"
    )
    canvas.text((40, 70), subtitle, 0.5, _GREY)
    left = _Axes(canvas, (96, 128, 480, 384), 1e3, 1.35 * tcp.full_speed_from, 1.2 * tcp.speed)
    left.frame("TCP and the faces of volumes", "distance in mm", "speed in m/s")
    left.area(tcp)
    left.margin(tcp.margin, "tracking_error")
    left.last_chance(tcp)
    left.curve(_Curve("", tcp, _COLOURS[0]))
    left.knee(tcp, f"linear_speed {tcp.speed:g} m/s from {1e3 * tcp.full_speed_from:.0f} mm on")
    farthest = max(stopping.full_speed_from for stopping in joints)
    fastest = max(stopping.speed for stopping in joints)
    right = _Axes(canvas, (736, 128, 480, 384), 1.0, 1.35 * farthest, 1.2 * fastest)
    right.frame("Joints and the ends of their ranges", "distance in rad", "speed in rad/s")
    right.margin(joints[0].margin, "")
    for curve in curves:
        right.curve(curve)
    right.legend(curves)
    return canvas.image()


class _Canvas:
    """A white picture that is drawn on in pixels of its final size."""

    def __init__(self) -> None:
        width, height = SIZE
        self._pixels = np.full((height * _FINE, width * _FINE, 3), 255, np.uint8)

    def image(self) -> ImageArray:
        return np.asarray(cv2.resize(self._pixels, SIZE, interpolation=cv2.INTER_AREA), np.uint8)

    def line(
        self,
        points: Sequence[tuple[float, float]],
        colour: tuple[int, int, int],
        width: float = 1.0,
    ) -> None:
        path = [np.round(np.array(points) * _FINE).astype(np.int32)]
        thickness = max(1, round(width * _FINE))
        cv2.polylines(self._pixels, path, isClosed=False, color=colour, thickness=thickness)

    def fill(self, points: Sequence[tuple[float, float]], colour: tuple[int, int, int]) -> None:
        path = [np.round(np.array(points) * _FINE).astype(np.int32)]
        cv2.fillPoly(self._pixels, path, colour)

    def dot(self, point: tuple[float, float], radius: float, colour: tuple[int, int, int]) -> None:
        centre = (round(point[0] * _FINE), round(point[1] * _FINE))
        cv2.circle(self._pixels, centre, round(radius * _FINE), colour, thickness=-1)

    def text(
        self,
        place: tuple[float, float],
        words: str,
        size: float,
        colour: tuple[int, int, int],
        *,
        align: float = 0.0,
        bold: bool = False,
    ) -> None:
        """Write at a baseline; `align` is the share of the width that lies left of `place`."""
        font, scale, thickness = cv2.FONT_HERSHEY_SIMPLEX, size * _FINE, 5 if bold else 3
        (width, _), _ = cv2.getTextSize(words, font, scale, thickness)
        origin = (round(place[0] * _FINE - align * width), round(place[1] * _FINE))
        cv2.putText(self._pixels, words, origin, font, scale, colour, thickness, cv2.LINE_AA)

    def width(self, words: str, size: float) -> float:
        """Return the width of a text in pixels."""
        (width, _), _ = cv2.getTextSize(words, cv2.FONT_HERSHEY_SIMPLEX, size * _FINE, 3)
        return float(width) / _FINE

    def upright(self, place: tuple[float, float], words: str, size: float) -> None:
        """Write from the bottom to the top, with the middle at `place`."""
        font, scale = cv2.FONT_HERSHEY_SIMPLEX, size * _FINE
        (width, height), base = cv2.getTextSize(words, font, scale, 3)
        tile = np.full((height + base + 4, width + 4, 3), 255, np.uint8)
        cv2.putText(tile, words, (2, height + 2), font, scale, _INK, 3, cv2.LINE_AA)
        turned = cv2.rotate(tile, cv2.ROTATE_90_COUNTERCLOCKWISE)
        top = round(place[1] * _FINE) - turned.shape[0] // 2
        left = round(place[0] * _FINE) - turned.shape[1] // 2
        self._pixels[top : top + turned.shape[0], left : left + turned.shape[1]] = turned


class _Axes:
    """A panel with distance to the right and speed up."""

    def __init__(
        self,
        canvas: _Canvas,
        place: tuple[int, int, int, int],
        unit: float,
        distance: float,
        speed: float,
    ) -> None:
        """Lay out a panel.

        Args:
            canvas: What to draw on.
            place: Left, top, width and height, in pixels.
            unit: How many of the shown units one m or rad is.
            distance: Greatest distance, in m or rad.
            speed: Greatest speed.

        """
        self._canvas = canvas
        self._left, self._top, self._width, self._height = place
        self._unit = unit
        self._distance, self._speed = distance, speed

    def frame(self, title: str, x_label: str, y_label: str) -> None:
        """Draw the grid, its numbers and the labels."""
        canvas, right, bottom = self._canvas, self._left + self._width, self._top + self._height
        canvas.text((self._left, self._top - 16), title, 0.56, _INK, bold=True)
        for value in _ticks(self._distance * self._unit):
            x, _ = self._at(value / self._unit, 0.0)
            canvas.line([(x, self._top), (x, bottom)], _GRID)
            canvas.text((x, bottom + 22), f"{value:g}", 0.45, _INK, align=0.5)
        for value in _ticks(self._speed):
            _, y = self._at(0.0, value)
            canvas.line([(self._left, y), (right, y)], _GRID)
            canvas.text((self._left - 10, y + 5), f"{value:g}", 0.45, _INK, align=1.0)
        canvas.line([(self._left, self._top), (self._left, bottom), (right, bottom)], _GREY, 1.3)
        canvas.text((self._left + self._width / 2, bottom + 48), x_label, 0.5, _INK, align=0.5)
        canvas.upright((self._left - 60, self._top + self._height / 2), y_label, 0.5)

    def area(self, stopping: Stopping) -> None:
        """Fill what is admissible."""
        bottom = self._at(self._distance, 0.0), self._at(0.0, 0.0)
        self._canvas.fill([*self._path(stopping), *bottom], _FILL)
        x, y = self._at(0.74 * self._distance, 0.38 * self._speed)
        self._canvas.text((x, y), "let pass", 0.5, _GREY, align=0.5)

    def last_chance(self, stopping: Stopping) -> None:
        """Draw what could still be stopped in time, dashed."""
        begin = self._at(stopping.margin, 0.0)
        end = self._at(stopping.stops_from, stopping.speed)
        shares = np.arange(0.0, 1.0, 0.04).tolist()
        for share in shares:
            ends = [
                (begin[0] + s * (end[0] - begin[0]), begin[1] + s * (end[1] - begin[1]))
                for s in (share, min(share + 0.022, 1.0))
            ]
            self._canvas.line(ends, _GREY, 1.4)
        x = begin[0] + 0.66 * (end[0] - begin[0]) - 12
        y = begin[1] + 0.66 * (end[1] - begin[1])
        self._canvas.text((x, y - 8), "could still", 0.45, _GREY, align=1.0)
        self._canvas.text((x, y + 10), "be stopped", 0.45, _GREY, align=1.0)

    def curve(self, curve: _Curve) -> None:
        """Draw one line."""
        self._canvas.line(self._path(curve.stopping), curve.colour, 2.4)

    def margin(self, distance: float, label: str) -> None:
        """Mark the distance that is kept."""
        x, bottom = self._at(distance, 0.0)
        for y in np.arange(self._top, bottom, 9.0).tolist():
            self._canvas.line([(x, y), (x, min(y + 5.0, bottom))], _GREY)
        if label:
            self._canvas.text((x + 7, self._top + 16), label, 0.45, _GREY)

    def knee(self, stopping: Stopping, label: str) -> None:
        """Mark where full speed begins."""
        x, y = self._at(stopping.full_speed_from, stopping.speed)
        self._canvas.dot((x, y), 5.0, _COLOURS[0])
        self._canvas.text((self._left + self._width, y - 12), label, 0.45, _INK, align=1.0)

    def legend(self, curves: Sequence[_Curve]) -> None:
        """Name the lines, in the corner where there are none."""
        row, size = 19, 0.43
        bottom, right = self._top + self._height - 14, self._left + self._width - 8
        width = max(self._canvas.width(curve.label, size) for curve in curves) + 36
        top = bottom - row * len(curves) + 4
        corners = [
            (right - width, top),
            (right, top),
            (right, bottom + 8),
            (right - width, bottom + 8),
        ]
        self._canvas.fill(corners, (255, 255, 255))
        for i, curve in enumerate(reversed(curves)):
            y = bottom - i * row
            self._canvas.line([(right - 22, y - 5), (right, y - 5)], curve.colour, 2.4)
            self._canvas.text((right - 30, y), curve.label, size, _INK, align=1.0)

    def _path(self, stopping: Stopping) -> list[tuple[float, float]]:
        distances: Array = np.array(
            [0.0, stopping.margin, stopping.full_speed_from, self._distance], np.float64
        )
        return [self._at(d, stopping.admissible(d)) for d in distances.tolist()]

    def _at(self, distance: float, speed: float) -> tuple[float, float]:
        return (
            self._left + self._width * distance / self._distance,
            self._top + self._height * (1.0 - speed / self._speed),
        )


def _ticks(greatest: float) -> list[float]:
    """Return round numbers from 0 to `greatest`, at most `_TICKS` steps."""
    rough = greatest / _TICKS
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(f * power for f in (1.0, 2.0, 5.0, 10.0) if f * power >= rough * (1.0 - 1e-9))
    return [round(i * step, 12) for i in range(int(greatest / step) + 1)]
