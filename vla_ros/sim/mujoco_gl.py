"""Import of MuJoCo with headless rendering, where the machine has it.

MuJoCo chooses its GL library while it is imported, and with `MUJOCO_GL=egl` on a machine without
libEGL that import fails. Physics needs no GL, so there it is imported without, and only rendering
raises an error. Everything in `vla_ros` imports MuJoCo from here.
"""

import ctypes
import os

APT_LINE = "apt-get install --no-install-recommends libegl1 libgl1"


class RenderError(OSError):
    """This machine cannot render."""


def _loads(library: str) -> bool:
    try:
        ctypes.CDLL(library)
    except OSError:
        return False
    return True


_missing: list[str] = []
if os.environ.setdefault("MUJOCO_GL", "egl").lower() == "egl":
    _missing = [library for library in ("libEGL.so.1", "libGL.so.1") if not _loads(library)]
    if _missing:
        os.environ["MUJOCO_GL"] = "disable"

import mujoco  # noqa: E402  (the choice above must come first)


def check_rendering() -> None:
    """Raise RenderError, with what to install, if this machine cannot render."""
    if _missing:
        msg = f"cannot render cameras: {' and '.join(_missing)} missing; install with: {APT_LINE}"
        raise RenderError(msg)


__all__ = ["APT_LINE", "RenderError", "check_rendering", "mujoco"]
