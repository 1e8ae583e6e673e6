"""Finding what ``<node pkg= exec=>`` names."""

from __future__ import annotations

import os
import sys
from importlib.metadata import Distribution, PackageNotFoundError, distribution
from pathlib import Path

from vla_ros_standalone.launch.substitutions import LaunchError

_RUN_ENTRY_POINT = (
    "import sys, vla_ros_standalone; from importlib.metadata import EntryPoint; "
    "sys.argv[0] = {name!r}; sys.exit(EntryPoint({name!r}, {value!r}, 'console_scripts').load()())"
)


def find_executable(package: str, name: str, environment: dict[str, str]) -> tuple[str, ...]:
    """Give the command that starts an executable of a package.

    Looked for in this order: ``<prefix>/lib/<package>/<name>`` for each prefix in
    ``AMENT_PREFIX_PATH`` and for this Python environment; the console script beside this
    interpreter; the package's entry point.

    Raises:
        LaunchError: There is none.
    """
    prefixes = [
        *filter(None, environment.get("AMENT_PREFIX_PATH", "").split(os.pathsep)),
        sys.prefix,
    ]
    for prefix in prefixes:
        file = Path(prefix) / "lib" / package / name
        if os.access(file, os.X_OK) and file.is_file():
            return (str(file),)
    installed = _distribution(package)
    if installed is None:
        msg = f"package '{package}' not found in {', '.join(prefixes)} or as a distribution"
        raise LaunchError(msg)
    scripts = {
        point.name: point.value
        for point in installed.entry_points
        if point.group == "console_scripts"
    }
    if name not in scripts:
        known = ", ".join(sorted(scripts)) or "none"
        msg = f"package '{package}' has no executable '{name}' (it has: {known})"
        raise LaunchError(msg)
    script = Path(sys.executable).parent / name
    # Without its distribution, only an interpreter told to import it knows vla_ros_standalone.
    if os.access(script, os.X_OK) and _distribution("vla_ros_standalone") is not None:
        return (str(script),)
    return (sys.executable, "-c", _RUN_ENTRY_POINT.format(name=name, value=scripts[name]))


def _distribution(name: str) -> Distribution | None:
    try:
        return distribution(name)
    except PackageNotFoundError:
        return None
