"""Cameras: what they show, which sizes, and what happens without GL."""

import os
import subprocess
import sys
import textwrap

import numpy as np
import pytest

from vla_ros.sim.mujoco_gl import APT_LINE
from vla_ros.sim.panda import CUBES, PandaSim
from vla_ros.sim.render import project


@pytest.fixture(scope="module")
def sim():
    with PandaSim() as robot:
        yield robot


def test_each_camera_shows_each_cube_where_geometry_puts_it(sim):
    """At the projected centre of a cube its own colour channel is the brightest."""
    seen = 0
    for seed in range(5):
        sim.reset(seed)
        image = sim.render("front")
        assert image.shape == (160, 160, 3)
        assert image.dtype == np.uint8
        for channel, colour in enumerate(CUBES):
            (column, row), depth = project(
                sim.model, sim.data.qpos, "front", sim.cube_pose(colour)[0]
            )
            assert 0.3 < depth < 1.5
            pixel = image[int(row * 160), int(column * 160)].astype(int)
            seen += int(np.argmax(pixel) == channel and pixel[channel] > pixel.sum() / 2)
    assert seen >= 12, "at most a few cubes may be hidden behind the arm"


def test_wrist_camera_sees_between_the_fingers(sim):
    sim.reset(0)
    assert sim.render("wrist").shape == (96, 96, 3)
    (column, row), depth = project(sim.model, sim.data.qpos, "wrist", sim.tcp_pose()[0])
    assert column == pytest.approx(0.5, abs=0.02)
    assert 0.4 < row < 1.0
    assert 0.05 < depth < 0.2


def test_pretty_pictures_have_shadows_and_leave_the_plain_ones_alone(sim):
    sim.reset(0)
    plain = sim.render("front")
    pretty = sim.render_pretty("side", 90, 160)
    assert pretty.shape == (90, 160, 3)
    assert np.array_equal(sim.render("front"), plain)
    shadowed = sim.render_pretty("front", 160, 160)
    darker = plain.mean(axis=2) - shadowed.mean(axis=2) > 25
    assert 0.01 < darker.mean() < 0.3
    samples = {k: r._mjr_context.offSamples for k, r in sim._renderer._renderers.items()}
    assert samples[160, 160, False] == 0, "policies are shown no smooth edges"
    assert samples[160, 160, True] == 4


def test_changes_of_the_model_show(sim):
    sim.reset(0)
    before = sim.render("front").mean()
    brightness = sim.model.light_diffuse.copy()
    sim.model.light_diffuse[:] *= 0.5
    after = sim.render("front").mean()
    sim.model.light_diffuse[:] = brightness
    assert after < 0.95 * before
    assert sim.render("front").mean() == before


def test_closed_renderers_come_back():
    with PandaSim({"wrist": (32, 32)}) as sim:
        first = sim.render("wrist")
        sim.close()
        assert np.array_equal(sim.render("wrist"), first)


@pytest.mark.parametrize(
    ("cameras", "message"),
    [
        ({"fornt": (96, 96)}, "unknown camera 'fornt': the simulated robot has front, side, wrist"),
        ({"front": (8, 96)}, "image size 96x8 is out of range: 16 to 2048"),
        ({"front": (96, 4096)}, "image size 4096x96 is out of range"),
    ],
)
def test_bad_cameras_are_refused_at_once(cameras, message):
    with pytest.raises(ValueError, match=message):
        PandaSim(cameras)


def test_without_gl_physics_runs_and_rendering_says_what_to_install():
    """In a process in which no GL library can be loaded."""
    script = """
        import ctypes
        load = ctypes.CDLL
        def without_gl(name, *args, **kwargs):
            if name in ("libEGL.so.1", "libGL.so.1"):
                raise OSError(name)
            return load(name, *args, **kwargs)
        ctypes.CDLL = without_gl
        from vla_ros.sim.panda import PandaSim
        with PandaSim() as sim:
            sim.advance(0.1)
            try:
                sim.render("front")
            except OSError as err:
                print(err)
    """
    environment = {k: v for k, v in os.environ.items() if k != "MUJOCO_GL"}
    output = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(script)],
        check=True,
        capture_output=True,
        text=True,
        env=environment,
        timeout=60,
    ).stdout
    expected = f"libEGL.so.1 and libGL.so.1 missing; install with: {APT_LINE}"
    assert output.strip() == f"cannot render cameras: {expected}"
