"""Pictures of the scene, from its generalised positions."""

import os

import numpy as np

from vla_ros.sim.mujoco_gl import RenderError, check_rendering, mujoco
from vla_ros.types import Array, ImageArray

SIZE_RANGE = (16, 2048)


class SceneRenderer:
    """Renders a model's cameras.

    It draws from positions alone, in its own MjData, so it may run in another thread than the
    physics. But draw with one renderer, and close it, in one thread only: its GL contexts, made at
    the first picture of each size, belong to that thread.
    """

    def __init__(self, model: "mujoco.MjModel") -> None:
        """Draw `model`, which is shared: what changes in it (lights, colours, cameras) shows."""
        self._model = model
        self._data = mujoco.MjData(model)
        self._renderers: dict[tuple[int, int, bool], mujoco.Renderer] = {}

    def render(
        self, qpos: Array, camera: str, height: int, width: int, *, pretty: bool = False
    ) -> ImageArray:
        """Return a new RGB image, uint8 (height, width, 3).

        Args:
            qpos: Generalised positions of the whole scene, shape (nq,).
            camera: Name of a camera of the model.
            height: Rows, within SIZE_RANGE.
            width: Columns, within SIZE_RANGE.
            pretty: With shadows and smooth edges, for people: about ten times slower. Policies are
                shown plain pictures.

        Raises:
            ValueError: If the camera is unknown or the size out of range.
            RenderError: If the machine has no GL.

        """
        check_camera(self._model, camera)
        check_size(height, width)
        renderer = self._renderer(height, width, pretty=pretty)
        data = self._data
        data.qpos[:] = qpos
        mujoco.mj_kinematics(self._model, data)
        mujoco.mj_comPos(self._model, data)
        mujoco.mj_camlight(self._model, data)
        renderer.update_scene(data, camera)
        image: ImageArray = renderer.render()
        return image

    def close(self) -> None:
        """Free the GL contexts; the next picture makes new ones."""
        for renderer in self._renderers.values():
            renderer.close()
        self._renderers.clear()

    def _renderer(self, height: int, width: int, *, pretty: bool) -> "mujoco.Renderer":
        key = (height, width, pretty)
        if key not in self._renderers:
            check_rendering()
            visual = self._model.vis
            visual.global_.offwidth, visual.global_.offheight = width, height
            visual.quality.offsamples = 4 if pretty else 0
            visual.quality.shadowsize = 4096 if pretty else 1024
            try:
                renderer = mujoco.Renderer(self._model, height, width)
            except Exception as err:  # the GL stack raises many kinds
                msg = f"cannot render cameras with MUJOCO_GL={os.environ['MUJOCO_GL']}: {err}"
                raise RenderError(msg) from err
            renderer.scene.flags[mujoco.mjtRndFlag.mjRND_SHADOW] = pretty
            renderer.scene.flags[mujoco.mjtRndFlag.mjRND_REFLECTION] = 0
            self._renderers[key] = renderer
        return self._renderers[key]


def check_camera(model: "mujoco.MjModel", camera: str) -> None:
    """Raise ValueError, naming the model's cameras, if `camera` is none of them."""
    names = [model.camera(i).name for i in range(model.ncam)]
    if camera not in names:
        msg = f"unknown camera {camera!r}: the simulated robot has {', '.join(names)}"
        raise ValueError(msg)


def check_size(height: int, width: int) -> None:
    """Raise ValueError if an image of this size cannot be rendered."""
    low, high = SIZE_RANGE
    if not (low <= height <= high and low <= width <= high):
        msg = f"image size {width}x{height} is out of range: {low} to {high} pixels a side"
        raise ValueError(msg)


def project(model: "mujoco.MjModel", qpos: Array, camera: str, point: Array) -> tuple[Array, float]:
    """Return where a camera sees a point: ((column, row) in fractions of the image, depth in m).

    For square images of any size: multiply by the side. MuJoCo's cameras look along -z, y up.

    Args:
        model: The scene.
        qpos: Generalised positions, shape (nq,).
        camera: Name of a camera.
        point: In the base frame, shape (3,).

    """
    check_camera(model, camera)
    data = mujoco.MjData(model)
    data.qpos[:] = qpos
    mujoco.mj_kinematics(model, data)
    mujoco.mj_comPos(model, data)
    mujoco.mj_camlight(model, data)
    index = model.camera(camera).id
    local = data.cam_xmat[index].reshape(3, 3).T @ (point - data.cam_xpos[index])
    depth = -float(local[2])
    focal = 0.5 / np.tan(np.deg2rad(model.cam_fovy[index]) / 2.0)
    scale = focal / max(depth, 1e-3)
    return np.array([0.5 + scale * local[0], 0.5 - scale * local[1]]), depth
