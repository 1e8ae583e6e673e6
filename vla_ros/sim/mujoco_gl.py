"""Import of MuJoCo with headless rendering, where the machine has it.

MuJoCo chooses its GL library while it is imported, and with `MUJOCO_GL=egl` on a machine without
libEGL that import fails. Physics needs no GL, so there it is imported without, and only rendering
raises an error. Everything in `vla_ros` imports MuJoCo from here.
"""

import ctypes
import os

APT_LINE = "apt-get install --no-install-recommends libegl1 libgl1"


class RenderError(RuntimeError):
    """This machine cannot render."""


def _missing_library() -> str | None:
    for library in ("libEGL.so.1", "libGL.so.1"):
        try:
            ctypes.CDLL(library)
        except OSError:
            return library
    return None


_missing: str | None = None
if os.environ.setdefault("MUJOCO_GL", "egl").lower() == "egl":
    _missing = _missing_library()
    if _missing is not None:
        os.environ["MUJOCO_GL"] = "disable"

import mujoco  # noqa: E402  (the choice above must come first)


def check_rendering() -> None:
    """Raise RenderError, with what to install, if this machine cannot render."""
    if _missing is not None:
        msg = f"cannot render cameras: {_missing} is missing; install it with: {APT_LINE}"
        raise RenderError(msg)


__all__ = ["APT_LINE", "RenderError", "check_rendering", "mujoco"]
