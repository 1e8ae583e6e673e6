"""The policy bundle: a folder that holds a model and says, in `manifest.yaml`, how to run it.

What the manifest may say is in `vla_ros.policy.manifest`; everything is checked at load.
"""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from vla_ros.policy.manifest import (
    MANIFEST,
    BundleError,
    Camera,
    Manifest,
    parse_manifest,
)
from vla_ros.yaml_text import parse_yaml

__all__ = ["MANIFEST", "Bundle", "BundleError", "parse_manifest", "sha256", "write_manifest"]


@dataclass(frozen=True, slots=True)
class Bundle:
    """A bundle whose manifest and files have been checked.

    Attributes:
        path: The folder.
        manifest: What `manifest.yaml` says.

    """

    path: Path
    manifest: Manifest

    @classmethod
    def load(cls, folder: str | Path) -> "Bundle":
        """Read a bundle, and check its manifest and the hash of every file.

        Whether the graph fits the manifest is checked by `Policy`, which opens it.

        Raises:
            BundleError: If the bundle cannot be used.

        """
        if not str(folder):
            msg = "no bundle is given: set the parameter 'bundle' to a bundle's folder"
            raise BundleError(msg)
        path = Path(folder).expanduser()
        manifest = parse_manifest(_read_yaml(_manifest_file(path)), path / MANIFEST)
        root = path.resolve()
        for name, expected in manifest.files.items():
            _check_file(root, path, name, expected)
        return cls(path, manifest)

    @property
    def camera_names(self) -> tuple[str, ...]:
        """Names of the cameras, in the manifest's order."""
        return tuple(camera.name for camera in self.manifest.cameras)

    def camera(self, name: str) -> Camera:
        """Return the camera of that name.

        Raises:
            BundleError: If there is none, listing those that there are.

        """
        for camera in self.manifest.cameras:
            if camera.name == name:
                return camera
        msg = (
            f"camera {name!r} is unknown to the bundle {self.path}, whose cameras are "
            f"{', '.join(self.camera_names)}"
        )
        raise BundleError(msg)

    @property
    def period_ns(self) -> int:
        """Time of one action in ns."""
        return round(1e9 / self.manifest.action.rate_hz)

    def file(self, name: str) -> Path:
        """Return where the file of that name lies."""
        return self.path / name


def write_manifest(folder: Path, content: Mapping[str, Any]) -> Bundle:
    """Write `manifest.yaml` into a folder that holds the model's files already; load the result.

    Args:
        folder: The bundle's folder.
        content: The manifest without `files`, whose hashes are computed here.

    Raises:
        BundleError: If the result would not load. Nothing is written if the manifest is at fault.

    """
    named = [graph.get("file") for graph in content["graphs"]]
    named.append((content.get("instruction") or {}).get("tokenizer"))
    files = {name: sha256(folder / name) for name in named if name is not None}
    manifest = parse_manifest({**content, "files": files}, folder / MANIFEST)
    text = yaml.safe_dump(manifest.model_dump(mode="json"), sort_keys=False, width=100)
    (folder / MANIFEST).write_text(text, encoding="utf-8")
    return Bundle.load(folder)


def sha256(path: Path) -> str:
    """Return the file's SHA-256 as the manifest's `files` writes it."""
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _manifest_file(path: Path) -> Path:
    if not path.exists():
        msg = f"there is no bundle at {path}: set the parameter 'bundle' to a bundle's folder"
        raise BundleError(msg)
    if not path.is_dir():
        msg = f"the bundle {path} is a file: give the folder that holds {MANIFEST}"
        raise BundleError(msg)
    manifest = path / MANIFEST
    if not manifest.is_file():
        msg = f"the folder {path} holds no {MANIFEST}: it is no bundle, or its export broke off"
        raise BundleError(msg)
    return manifest


def _read_yaml(file: Path) -> object:
    try:
        return parse_yaml(file.read_text(encoding="utf-8"))
    except OSError as err:
        msg = f"{file}: {err.strerror}"
        raise BundleError(msg) from err
    except (yaml.YAMLError, UnicodeDecodeError) as err:
        msg = f"{file}: is not YAML: {' '.join(str(err).split())}"
        raise BundleError(msg) from err


def _check_file(root: Path, path: Path, name: str, expected: str) -> None:
    where = f"{path / MANIFEST}: files.{name}"
    file = (root / name).resolve()
    if not file.is_relative_to(root):
        msg = f"{where}: lies outside the bundle: files are named relative to its folder"
        raise BundleError(msg)
    if not file.is_file():
        msg = f"{where}: there is no such file in {path}: copy the bundle again, whole"
        raise BundleError(msg)
    actual = sha256(file)
    if actual != expected:
        msg = (
            f"{where}: the file's SHA-256 is {actual[:12]}..., not {expected[:12]}...: it is "
            "corrupt or was changed: copy or export the bundle again"
        )
        raise BundleError(msg)
