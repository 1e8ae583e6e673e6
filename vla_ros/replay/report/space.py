"""The way of the tool through its workspace, from three sides."""

import itertools

import cv2
import numpy as np
from numpy.typing import NDArray

from vla_ros.replay.report.decimate import simplified
from vla_ros.replay.report.html import Html, el
from vla_ros.replay.report.run import Run, nothing, section
from vla_ros.replay.report.scale import Axis
from vla_ros.replay.report.view import Outline, View
from vla_ros.types import Array
from vla_ros.volumes import Box, Capsule, Cylinder, HalfSpace, Sphere, Volume

TOLERANCE = 5e-4
"""m. Half of that is the width of the line."""
FAR = 5.0
"""m. As long are what has no end: cylinders and half-spaces."""
ROUND = np.linspace(0.0, 2.0 * np.pi, 48, endpoint=False)
SIDES = (("From above", 0, 1), ("From the robot's right", 0, 2), ("From the front", 1, 2))


def space(run: Run) -> Html:
    """Return the section."""
    title = "Way of the tool"
    robot, joints = run.result.robot, run.result.joints
    order, times = run.in_time(joints.stamp_ns)
    tcp = joints.tcp[order]
    known = np.isfinite(tcp).all(axis=1)
    if not known.any():
        return section(
            title, nothing("Where the tool was is not known: no joint states or no URDF.")
        )
    times, tcp = times[known], tcp[known]
    chosen = simplified(times, tcp, TOLERANCE)
    times, tcp = times[chosen], tcp[chosen]
    axes = _axes(run, tcp)
    marked = _acted(run, times)
    volumes: list[tuple[str, str, Volume]] = [("box", "workspace", _box(run))]
    volumes += [("box", volume.name, volume) for volume in robot.bounds.workspace]
    volumes += [("out", volume.name, volume) for volume in robot.bounds.keep_out]
    views = [
        View(
            name,
            ("xyz"[across], "xyz"[up]),
            axes[across],
            axes[up],
            times,
            tcp[:, [across, up]],
            marked,
            [
                Outline(label, style, line)
                for style, label, volume in volumes
                for line in outlines(volume, across, up)
            ],
        ).html()
        for name, across, up in SIDES
    ]
    outside = ", ".join(volume.name for volume in robot.bounds.keep_out)
    inside = ", ".join(("workspace", *(volume.name for volume in robot.bounds.workspace)))
    keys = [
        el("span", el("i", class_="swatch way"), "way of the TCP", class_="key"),
        el("span", el("i", class_="swatch marked"), "a bound acted", class_="key"),
        el("span", el("i", class_="spot begin"), "begin", class_="key"),
        el("span", el("i", class_="spot end"), "end", class_="key"),
        el("span", el("i", class_="swatch box"), f"stay inside: {inside}", class_="key"),
        el("span", el("i", class_="swatch out"), f"keep out: {outside}", class_="key")
        if outside
        else None,
    ]
    return section(
        title,
        el("p", *keys, class_="keys"),
        el("div", *views, class_="views"),
        lead=f"Measured, of {robot.tcp_frame} in {robot.base_frame}, in metres.",
    )


def outlines(volume: Volume, across: int, up: int) -> list[Array]:
    """Return what a volume looks like along an axis: closed lines, each of shape (k, 2), in m."""
    view = [across, up]
    if isinstance(volume, Box):
        corners = np.array(list(itertools.product((-0.5, 0.5), repeat=3))) * np.array(volume.size)
        return [_hull((np.array(volume.center) + corners @ volume.rotation.T)[:, view])]
    if isinstance(volume, Sphere):
        centre = np.array(volume.center)[view]
        return [centre + _circle(r) for r in (volume.radius, volume.inner_radius) if r > 0.0]
    if isinstance(volume, Capsule):
        ends = [np.array(end)[view] + _circle(volume.radius) for end in (volume.start, volume.end)]
        return [_hull(np.concatenate(ends))]
    if isinstance(volume, Cylinder):
        radii = [r for r in (volume.radius, volume.inner_radius) if r > 0.0]
        return [_hull(_rims(volume, radius)[:, view]) for radius in radii]
    return _edge(volume, across, up)


def _edge(volume: HalfSpace, across: int, up: int) -> list[Array]:
    """Return the half of the view that is inside; nothing where its edge is no line there."""
    normal = np.array(volume.normal)[[across, up]]
    if np.linalg.norm(normal) < 1.0 - 1e-6:
        return []
    along = FAR * np.array([-normal[1], normal[0]])
    foot, back = normal * volume.offset, -FAR * normal
    return [np.array([foot - along, foot + along, foot + along + back, foot - along + back])]


def _rims(volume: Cylinder, radius: float) -> Array:
    """Return points on both ends of a cylinder that is cut far away."""
    axis = np.array(volume.axis)
    one = np.cross(axis, np.eye(3)[int(np.abs(axis).argmin())])
    one /= np.linalg.norm(one)
    rim = radius * (np.outer(np.cos(ROUND), one) + np.outer(np.sin(ROUND), np.cross(axis, one)))
    middle = np.array(volume.center)
    return np.concatenate([middle + end * FAR * axis + rim for end in (-1.0, 1.0)])


def _circle(radius: float) -> Array:
    return np.asarray(radius * np.column_stack([np.cos(ROUND), np.sin(ROUND)]))


def _hull(points: Array) -> Array:
    return np.asarray(cv2.convexHull(points.astype(np.float32))[:, 0], np.float64)


def _box(run: Run) -> Box:
    low, high = (
        np.array(corner)
        for corner in (run.result.robot.bounds.workspace_min, run.result.robot.bounds.workspace_max)
    )
    middle, size = ((low + high) / 2.0).tolist(), (high - low).tolist()
    return Box(
        "workspace", (middle[0], middle[1], middle[2]), (0.0, 0.0, 0.0), (size[0], size[1], size[2])
    )


def _axes(run: Run, tcp: Array) -> list[Axis]:
    """Return axes that show the way, and the workspace unless that is very much larger."""
    bounds = run.result.robot.bounds
    low, high = np.nanmin(tcp, axis=0), np.nanmax(tcp, axis=0)
    room = 3.0 * max(float((high - low).max()), 0.1)
    low = np.minimum(low, np.maximum(np.array(bounds.workspace_min), low - room))
    high = np.maximum(high, np.minimum(np.array(bounds.workspace_max), high + room))
    margin = 0.05 * float((high - low).max())
    return [Axis(a - margin, b + margin) for a, b in zip(low.tolist(), high.tolist(), strict=True)]


def _acted(run: Run, times: Array) -> NDArray[np.bool_]:
    """Return at which times a bound of the motion acted."""
    acted = np.zeros(len(times), dtype=bool)
    for bound in run.acting:
        if "gripper" in bound.name:
            continue
        for begin, end in bound.spans:
            acted |= (times >= begin) & (times <= end)
    return acted
