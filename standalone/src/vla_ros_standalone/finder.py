"""Import hook that serves ROS 2's Python packages where ROS 2 itself is not installed.

The finder stands last on ``sys.meta_path``: whatever the ordinary import finds wins. It never mixes
its packages with those of a real ROS 2: where a real ``rclpy`` is found, it serves nothing at all.

This module runs at the start of every interpreter of the environment, so it imports nothing heavy.
"""

from __future__ import annotations

import os
import sys
from importlib.machinery import ModuleSpec, PathFinder
from types import ModuleType  # noqa: TC003 (typing would take longer to import)

PACKAGES = os.path.join(os.path.dirname(os.path.abspath(__file__)), "packages")

CODE_PACKAGES = frozenset({"rclpy", "cv_bridge", "ament_index_python"})
"""Packages with code of their own, in the folder ``packages``."""

MESSAGE_PACKAGES = frozenset(
    {
        "action_msgs",
        "builtin_interfaces",
        "diagnostic_msgs",
        "geometry_msgs",
        "lifecycle_msgs",
        "nav_msgs",
        "rcl_interfaces",
        "rmw_dds_common",
        "rosgraph_msgs",
        "sensor_msgs",
        "service_msgs",
        "shape_msgs",
        "statistics_msgs",
        "std_msgs",
        "std_srvs",
        "stereo_msgs",
        "tf2_msgs",
        "trajectory_msgs",
        "type_description_interfaces",
        "unique_identifier_msgs",
        "visualization_msgs",
    }
)
"""Packages generated from type definitions, as modules without a file."""


class _InterfaceLoader:
    """Fills ``<package>.msg`` and ``<package>.srv``, whose classes are made when asked for."""

    def create_module(self, _spec: ModuleSpec) -> None:
        """Leave making the module to Python."""

    def exec_module(self, module: ModuleType) -> None:
        package, _, kind = module.__name__.partition(".")
        if not kind:
            return
        from vla_ros_standalone import messages  # noqa: PLC0415 (heavy: only when asked for)

        names = messages.names(package, kind)
        module.__all__ = list(names)

        def make(name: str) -> type:
            if name not in names:
                msg = f"module {module.__name__!r} has no attribute {name!r}"
                raise AttributeError(msg)
            made = messages.get_interface(f"{package}/{kind}/{name}")
            setattr(module, name, made)
            return made

        module.__getattr__ = make
        module.__dir__ = lambda: sorted({*vars(module), *names})


class StandaloneFinder:
    """Finds the packages that this distribution provides."""

    def find_spec(
        self,
        fullname: str,
        _path: object = None,
        _target: object = None,
    ) -> ModuleSpec | None:
        """Say where a module is that nothing before has found; None if it is not one of ours.

        Raises:
            ImportError: A ROS 2 is sourced whose rclpy this Python cannot load.
        """
        top, _, rest = fullname.partition(".")
        if top in CODE_PACKAGES:
            if rest:
                _explain_unloadable_rclpy(fullname)
                return None
            return None if real_rclpy() else PathFinder.find_spec(fullname, [PACKAGES])
        if top not in MESSAGE_PACKAGES or real_rclpy():
            return None
        if rest in ("", "msg", "srv"):
            return ModuleSpec(fullname, _InterfaceLoader(), is_package=not rest)
        return None


def real_rclpy() -> str | None:
    """Find the folder of a real ROS 2's rclpy on ``sys.path``.

    Raises:
        ImportError: A ROS 2 is sourced, but its rclpy is not on this interpreter's path.
    """
    spec = PathFinder.find_spec("rclpy")
    if spec is not None and spec.origin is not None:
        return os.path.dirname(spec.origin)
    sourced = _sourced_rclpy()
    if sourced is not None:
        raise ImportError(_explanation(sourced), name="rclpy", path=sourced)
    return None


def _sourced_rclpy() -> str | None:
    """Find rclpy in the prefixes that a sourced ROS 2 names, for whichever Python it was built."""
    if "ROS_DISTRO" not in os.environ:
        return None
    from glob import glob  # noqa: PLC0415 (imports re, which most interpreters never need)

    for prefix in filter(None, os.environ.get("AMENT_PREFIX_PATH", "").split(os.pathsep)):
        for library in ("lib", "local/lib"):
            pattern = f"{library}/python3*/*-packages/rclpy"
            for folder in sorted(glob(pattern, root_dir=prefix)):
                return os.path.join(prefix, folder)
    return None


def _explain_unloadable_rclpy(fullname: str) -> None:
    """Say why the C extension of a sourced ROS 2 is not found, which ROS 2 itself leaves open."""
    origin = getattr(sys.modules.get("rclpy"), "__file__", None)
    if fullname == "rclpy._rclpy_pybind11" and origin and not origin.startswith(PACKAGES):
        raise ImportError(_explanation(os.path.dirname(origin)), name=fullname)


def _explanation(folder: str) -> str:
    version = f"{sys.version_info.major}.{sys.version_info.minor}"
    return (
        f"ROS 2 {os.environ.get('ROS_DISTRO', '')} is sourced, and its rclpy ({folder}) cannot be "
        f"loaded by this Python {version} ({sys.executable}). Either run with ROS 2's own Python "
        "(a virtual environment made with `/usr/bin/python3 -m venv --system-site-packages`), or, "
        "to use vla_ros_standalone instead, start from a shell in which no ROS 2 is sourced."
    )


def install() -> None:
    """Put the finder last on ``sys.meta_path``, once."""
    if not any(isinstance(finder, StandaloneFinder) for finder in sys.meta_path):
        sys.meta_path.append(StandaloneFinder())
