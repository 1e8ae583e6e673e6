"""The functions of ``ament_index_python.packages`` that nodes and launch files use."""

from __future__ import annotations

import importlib.util
import os
import sys
from pathlib import Path
from xml.etree import ElementTree as ET


class PackageNotFoundError(KeyError):
    """No package of that name is installed."""

    def __str__(self) -> str:
        return str(self.args[0]) if self.args else ""


def get_package_prefix(package_name: str) -> str:
    """Give the folder that a package is installed below.

    It is the first of ``AMENT_PREFIX_PATH`` whose index names the package, else the prefix of this
    Python environment.

    Raises:
        PackageNotFoundError: The package is in neither.
    """
    for prefix in filter(None, os.environ.get("AMENT_PREFIX_PATH", "").split(os.pathsep)):
        if (Path(prefix) / "share/ament_index/resource_index/packages" / package_name).is_file():
            return prefix
    if (Path(sys.prefix) / "share" / package_name / "package.xml").is_file() or (
        _source_tree(package_name) is not None
    ):
        return sys.prefix
    msg = (
        f"package '{package_name}' not found in AMENT_PREFIX_PATH="
        f"{os.environ.get('AMENT_PREFIX_PATH', '')!r}, in {sys.prefix}/share, or as source on "
        "Python's path"
    )
    raise PackageNotFoundError(msg)


def get_package_share_directory(package_name: str) -> str:
    """Give the folder of a package's launch and configuration files.

    A package imported from its source tree (an editable installation) is used from there, so that
    its files are those being edited and not the copies made when it was installed.

    Raises:
        PackageNotFoundError: The package is not found.
    """
    prefix = get_package_prefix(package_name)
    if prefix == sys.prefix:
        source = _source_tree(package_name)
        if source is not None:
            return str(source)
    return os.path.join(prefix, "share", package_name)


def get_package_share_path(package_name: str) -> Path:
    """Give ``get_package_share_directory`` as a path."""
    return Path(get_package_share_directory(package_name))


def _source_tree(package_name: str) -> Path | None:
    """Find the folder with ``package.xml`` that the importable package of that name lies in."""
    try:
        spec = importlib.util.find_spec(package_name)
    except (ImportError, ValueError):
        return None
    for location in (spec.submodule_search_locations or []) if spec else []:
        folder = Path(location).parent
        manifest = folder / "package.xml"
        if manifest.is_file() and ET.parse(manifest).findtext("name") == package_name:
            return folder
    return None
