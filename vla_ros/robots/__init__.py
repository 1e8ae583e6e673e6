"""Descriptions (URDF) of the robots that `config/robots` has files for.

They are what filters, planners and tests need: links, inertias, limits and no meshes. On a real arm
use the `robot_description` of its driver, which knows its calibration and its gripper.
"""

from pathlib import Path

_HERE = Path(__file__).parent
_FILES = {
    "panda": _HERE.parent / "sim" / "assets" / "panda" / "panda.urdf",
    "so101": _HERE / "so101" / "so101.urdf",
    "ur5e": _HERE / "ur5e" / "ur5e.urdf",
}


def names() -> tuple[str, ...]:
    """Return the names of the robots that there are descriptions of."""
    return tuple(_FILES)


def urdf(name: str) -> str:
    """Return the URDF of a robot.

    Args:
        name: One of `names()`, the `robot.name` of its file.

    Raises:
        ValueError: If there is none of that name.

    """
    if name not in _FILES:
        msg = f"there is no description of a robot {name!r}: there are {', '.join(_FILES)}"
        raise ValueError(msg)
    return _FILES[name].read_text(encoding="utf-8")
