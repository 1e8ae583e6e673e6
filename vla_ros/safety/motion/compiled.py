"""What is compiled: the arithmetic of a tick, some hundred small loops over a few joints.

In numpy each of them costs a microsecond, nearly all of it for the call. Numba compiles them once,
which takes half a minute to a minute, and keeps the result on disk; `warm_up` has it done before a
`MotionLimiter` is made, so that nothing is ever compiled in motion.

Numba looks for a newer source of the function itself only, and not of what it calls. So what is
kept is kept apart for each state of all the sources in this folder.
"""

import hashlib
import os
import shutil
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any, TypeVar

import numba
import numpy as np
from numba.core import config
from numpy.typing import NDArray

Function = TypeVar("Function", bound=Callable[..., Any])

State = Any
"""A record of the type `state.STATE`; where it stands in an array, that array of length 1."""
Records = NDArray[np.void]
Integers = NDArray[np.int64]

_COMPLETE = f"complete_{hashlib.sha256(str(Path(__file__).parent).encode()).hexdigest()[:16]}"
"""File that says so, of the sources in this place: Numba keeps apart what is of another, such as a
second workspace, though the sources be the same."""
_FORGET_S = 7 * 24 * 3600.0
"""Age after which what was compiled of other sources is removed, once there are new ones."""


def _folder() -> Path:
    """Return where what is compiled of the present sources is kept."""
    digest = hashlib.sha256()
    for source in sorted(Path(__file__).parent.glob("*.py")):
        digest.update(source.read_bytes())
    root = os.environ.get("XDG_CACHE_HOME")
    home = Path(root) if root else Path("~/.cache").expanduser()
    return home / "vla_ros" / "compiled" / digest.hexdigest()[:16]


def _make(folder: Path) -> bool:
    """Make the folder, and remove what was compiled of other sources long ago.

    Returns:
        Whether it can be written to.

    """
    try:
        if not folder.exists():
            folder.mkdir(parents=True)
            for other in folder.parent.iterdir():
                if time.time() - other.stat().st_mtime > _FORGET_S:
                    shutil.rmtree(other, ignore_errors=True)
        return os.access(folder, os.W_OK)
    except OSError:
        # Another process may be doing the same, or this one may have no home.
        return os.access(folder, os.W_OK)


def is_kept() -> bool:
    """Return whether all of the present sources was compiled before, and nothing is to wait for."""
    return _KEPT and (_FOLDER / _COMPLETE).exists()


def note_complete() -> None:
    """Note that all is compiled: the folder alone, and what is in it, may be of half a run."""
    if _KEPT:
        # Where it cannot be noted, the next process compiles nothing twice, but says that it may.
        with suppress(OSError):
            (_FOLDER / _COMPLETE).touch()


_FOLDER = _folder()
_KEPT = _make(_FOLDER)
"""Where nothing can be kept, each process compiles anew."""


def compiled(function: Function) -> Function:
    """Compile a function of arrays and numbers. Divisions by zero give infinity, as in numpy."""
    before = config.CACHE_DIR
    # Read where the function is decorated.
    config.CACHE_DIR = str(_FOLDER)
    try:
        result: Function = numba.njit(cache=_KEPT, error_model="numpy")(function)
    finally:
        config.CACHE_DIR = before
    return result
