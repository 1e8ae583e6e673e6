"""Surfaces: the same distances as the volumes', gradients that are theirs, and near ones found."""

from dataclasses import replace

import numpy as np
import pytest
from robots import panda
from safety.motion.records import PLAN, record_at_rest

from vla_ros.safety.motion import places as rows_of_places
from vla_ros.safety.motion import surfaces
from vla_ros.safety.motion.surfaces import inside, inside_box, outside
from vla_ros.volumes import TCP_POINT, Box, Capsule, Cylinder, HalfSpace, Sphere, ToolPoint

BOX = Box("box", (0.1, -0.2, 0.3), (0.3, -0.5, 1.0), (0.4, 0.2, 0.6))
SPHERE = Sphere("sphere", (0.2, 0.1, 0.0), 0.4)
SHELL = Sphere("shell", (0.2, 0.1, 0.0), 0.6, 0.3)
TUBE = Cylinder("tube", (0.0, 0.1, 0.0), (0.0, 0.6, 0.8), 0.5, 0.2)
HALF = HalfSpace("half", (0.6, 0.0, 0.8), 0.3)
CAPSULE = Capsule("capsule", (0.0, 0.1, 0.0), (0.3, -0.2, 0.4), 0.15)
STEP = 1e-6


def places(count=200):
    return np.random.default_rng(3).uniform(-0.8, 0.8, (count, 3))


def room(surface, place):
    """Return the room at a place, its gradient and the curvature."""
    slope = np.full(3, np.nan)
    found, curvature = surfaces.room(surface, *map(float, place), slope)
    return found, slope, curvature


def gradient(surface, place):
    steps = STEP * np.eye(3)
    return [
        (room(surface, place + d)[0] - room(surface, place - d)[0]) / (2.0 * STEP) for d in steps
    ]


@pytest.mark.parametrize("volume", [BOX, SPHERE, CAPSULE])
def test_outside_is_the_volumes_distance(volume):
    surface = outside(volume)
    for place in places():
        found, slope, curvature = room(surface, place)
        assert found == pytest.approx(volume.distance(place[None])[0], abs=1e-12)
        assert curvature == 0.0
        assert np.linalg.norm(slope) == pytest.approx(1.0)
        assert gradient(surface, place) == pytest.approx(slope, abs=1e-4)
        # The plane through the nearest point parts the convex volume from the place.
        further = place + 0.3 * np.random.default_rng(1).normal(size=3)
        left = found + np.dot(slope, further - place)
        assert room(surface, further)[0] >= left - 1e-9 or found < 0


@pytest.mark.parametrize("volume", [BOX, SPHERE, SHELL, TUBE, HALF])
def test_inside_is_the_volumes_distance_negated(volume):
    held = inside(volume)
    for place in places():
        rooms = [room(surface, place) for surface in held]
        least = min(found for found, _, _ in rooms)
        distance = -volume.distance(place[None])[0]
        if isinstance(volume, Box) and least < 0.0:
            # Outside of a corner the faces' planes are nearer than the corner.
            assert least >= distance - 1e-12
        else:
            assert least == pytest.approx(distance, abs=1e-12)
        for surface, (found, slope, curvature) in zip(held, rooms, strict=True):
            assert gradient(surface, place) == pytest.approx(slope, abs=1e-5)
            way = 0.05 * np.random.default_rng(2).normal(size=3)
            left = found + np.dot(slope, way) - curvature / 2.0 * np.dot(way, way)
            assert room(surface, place + way)[0] >= left - 1e-9


@pytest.mark.parametrize(
    ("surface", "middle", "axis", "far"),
    [
        (inside(SHELL)[0], SHELL.center, (0.0, 0.0, 0.0), 0.6),
        (inside(TUBE)[0], TUBE.center, TUBE.axis, 0.5),
        (inside(TUBE)[1], TUBE.center, TUBE.axis, -0.2),
        (outside(SPHERE), SPHERE.center, (0.0, 0.0, 0.0), -0.4),
        (outside(CAPSULE), CAPSULE.start, (0.3, -0.3, 0.4), -0.15),
    ],
)
def test_at_the_very_middle_there_is_a_way_out(surface, middle, axis, far):
    """There every direction across is as good; none would leave the row without a gradient."""
    found, slope, _ = room(surface, middle)
    assert found == pytest.approx(far, abs=1e-12)
    assert np.linalg.norm(slope) == pytest.approx(1.0)
    assert np.dot(slope, axis) == pytest.approx(0.0, abs=1e-12)


def test_faces_of_the_workspace_box_are_named_by_their_keys():
    faces = dict(inside_box((0.0, -1.0, 0.1), (1.0, 1.0, 0.5)))
    assert room(faces["workspace_min.z"], (0.5, 0.0, 0.3))[0] == pytest.approx(0.2)
    assert room(faces["workspace_max.x"], (0.7, 0.0, 0.3))[0] == pytest.approx(0.3)
    assert len(faces) == 6


def test_of_many_surfaces_those_that_are_near_make_rows():
    """Every one is looked at each tick, for every point, however many there are."""
    volumes = [CAPSULE, BOX, SPHERE]
    rng = np.random.default_rng(5)
    volumes += [
        Sphere(f"ball_{i}", tuple(rng.uniform(-0.8, 0.8, 3).tolist()), 0.05) for i in range(60)
    ]
    finger = ToolPoint("finger", (0.0, 0.1, -0.05), 0.03)
    bounds = replace(
        panda().bounds,
        workspace_min=(-0.7,) * 3,
        workspace_max=(0.7,) * 3,
        keep_out=tuple(volumes),
        keep_out_points=(TCP_POINT, finger),
    )
    held = rows_of_places.Places.of(bounds, PLAN)
    assert len(held.surfaces) == 6 + 2 * len(volumes)
    state = record_at_rest(7)[0]
    state["cone"] = np.pi
    state["margin"] = bounds.tracking_error
    needs = held.points[:, 5]
    some = 0
    for place in places(60):
        turned, _ = np.linalg.qr(rng.normal(size=(3, 3)))
        state["tcp"], state["rotation"] = place, turned
        rows_of_places.update(
            state, held.surfaces, held.points, held.rows, held.slopes, held.indices
        )
        near = {}
        for index, surface in enumerate(held.surfaces):
            which = int(surface[surfaces.POINT])
            point = (TCP_POINT, finger)[which]
            found, slope, _ = room(surface, place + turned @ point.position)
            if found < needs[which]:
                near[index] = (found - bounds.tracking_error - point.radius, slope)
        count = int(state["rows"])
        assert held.indices[:count].tolist() == list(near)
        for row, (left, slope) in zip(held.rows[:count], near.values(), strict=True):
            assert row[6] == pytest.approx(left)
            assert -row[:3] == pytest.approx(slope)
        some += 0 < count < len(held.surfaces)
    assert some > 30
