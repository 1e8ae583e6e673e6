"""Makes the helper modules next to this file importable from every test."""

import importlib.util
import sys
from pathlib import Path

sys.path.append(str(Path(__file__).parent))


if importlib.util.find_spec("mujoco") is not None:
    # MuJoCo chooses its GL when it is first imported: by this module, before any test does it.
    import vla_ros.sim.mujoco_gl  # noqa: F401
