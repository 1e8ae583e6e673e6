"""Where the package's launch files, robot files and bundles lie."""

import os
import sys
from pathlib import Path


def share() -> Path:
    """Return the package's share directory.

    The first found of: `share/vla_ros` of a sourced ROS 2 workspace (`AMENT_PREFIX_PATH`), the
    source tree (a checkout, `pip install -e .`), that of Python's prefix (`pip install .`).

    Raises:
        FileNotFoundError: If none holds the package.

    """
    source = Path(__file__).resolve().parent.parent
    prefixes = [p for p in os.environ.get("AMENT_PREFIX_PATH", "").split(os.pathsep) if p]
    candidates = [Path(p) / "share" / "vla_ros" for p in [*prefixes, sys.prefix]]
    if (source / "setup.py").exists():
        candidates.insert(len(prefixes), source)
    for candidate in candidates:
        if (candidate / "package.xml").exists():
            return candidate
    msg = f"the share directory of vla_ros is in none of {[str(c) for c in candidates]}"
    raise FileNotFoundError(msg)
