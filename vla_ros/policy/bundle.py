"""The policy bundle: a folder that holds a model and says, in `manifest.yaml`, how to run it.

What the manifest may say is in `vla_ros.policy.manifest`. A bundle is data from elsewhere: loading
it opens nothing but the files that the manifest names, inside the folder and with the SHA-256 that
it gives, and runs nothing.
"""

import hashlib
import posixpath
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from vla_ros.policy.manifest import (
    MANIFEST,
    BundleError,
    Camera,
    Graph,
    Manifest,
    check_file_name,
    parse_manifest,
    plain,
)
from vla_ros.policy.manifest_text import ManifestTextError, parse_manifest_text
from vla_ros.policy.onnx_file import OnnxFile, OnnxFileError, read_onnx

__all__ = ["MANIFEST", "Bundle", "BundleError", "Limits", "sha256", "write_manifest"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """What a bundle may take of a machine.

    Attributes:
        manifest_bytes: Size of `manifest.yaml`.
        files: Number of files beside it.
        total_bytes: Size of all of them together.

    """

    manifest_bytes: int = 1_000_000
    files: int = 256
    total_bytes: int = 64_000_000_000


@dataclass(frozen=True, slots=True)
class Bundle:
    """A bundle whose manifest, files and ONNX graphs have been checked.

    Attributes:
        path: The folder.
        manifest: What `manifest.yaml` says.

    """

    path: Path
    manifest: Manifest

    @classmethod
    def load(cls, folder: str | Path, limits: Limits | None = None) -> "Bundle":
        """Read a bundle, and check its manifest, the hash of every file and the ONNX graphs.

        Graphs of other kinds are checked by the backend that opens them.

        Args:
            folder: The bundle's folder.
            limits: How large it may be; see `Limits` for the default.

        Raises:
            BundleError: If the bundle cannot be used.

        """
        if not str(folder):
            msg = "no bundle is given: set the parameter 'bundle' to a bundle's folder"
            raise BundleError(msg)
        limits = limits or Limits()
        path = Path(folder).expanduser()
        file = _manifest_file(path)
        manifest = parse_manifest(_read_yaml(file, limits.manifest_bytes), file)
        _check_files(file, manifest.files, limits)
        faults = [f"{key}: {fault}" for key, fault in _onnx_faults(path, manifest)]
        if faults:
            msg = f"{file}: {'; '.join(faults)}"
            raise BundleError(msg)
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
        content: The manifest without `files`, whose hashes are computed here: of the files that it
            names, and of those that hold the weights of its ONNX graphs.

    Raises:
        BundleError: If the result would not load. Nothing is written if the manifest is at fault.

    """
    file = folder / MANIFEST
    unknown = dict.fromkeys(_named_files(content), "0" * 64)
    draft = parse_manifest({**content, "files": unknown}, file)
    files: dict[str, str] = {}
    try:
        for name in unknown:
            files[name] = sha256(folder / name)
        for graph in draft.graphs:
            if graph.backend == "onnx" and graph.file is not None:
                for location in read_onnx(folder / graph.file).external:
                    weights = _beside(graph.file, check_file_name(location))
                    files[weights] = sha256(folder / weights)
    except OSError as err:
        msg = f"{file}: {err.filename}: {err.strerror}: put the files there before the manifest"
        raise BundleError(msg) from err
    except ValueError as err:  # of the graph, or of where its weights lie
        msg = f"{file}: graphs: {err}"
        raise BundleError(msg) from err
    manifest = parse_manifest({**content, "files": files}, file)
    text = yaml.safe_dump(manifest.model_dump(mode="json"), sort_keys=False, width=100)
    file.write_text(text, encoding="utf-8")
    return Bundle.load(folder)


def sha256(path: Path) -> str:
    """Return the file's SHA-256 as the manifest's `files` writes it."""
    digest = hashlib.sha256()
    with path.open("rb") as stream:
        while block := stream.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def _named_files(content: Mapping[str, Any]) -> list[str]:
    """Return the files that a manifest's content names, which nobody has checked."""
    graphs, instruction = content.get("graphs"), content.get("instruction")
    sections = [*graphs] if isinstance(graphs, list | tuple) else []
    names = [section.get("file") for section in sections if isinstance(section, dict)]
    if isinstance(instruction, dict):
        names.append(instruction.get("tokenizer"))
    return [name for name in names if isinstance(name, str)]


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


def _read_yaml(file: Path, most_bytes: int) -> object:
    try:
        with file.open("rb") as stream:
            data = stream.read(most_bytes + 1)
        if len(data) > most_bytes:
            msg = f"{file}: is larger than {most_bytes} bytes: a manifest holds no weights"
            raise BundleError(msg)
        return parse_manifest_text(data.decode("utf-8"))
    except OSError as err:
        msg = f"{file}: {err.strerror}"
        raise BundleError(msg) from err
    except UnicodeDecodeError as err:
        msg = f"{file}: is not YAML in UTF-8: {err}"
        raise BundleError(msg) from err
    except ManifestTextError as err:
        msg = f"{file}: {err}"
        raise BundleError(msg) from err


def _check_files(manifest: Path, files: Mapping[str, str], limits: Limits) -> None:
    """Check that every file lies in the folder, and is what its hash says.

    Raises:
        BundleError: Naming the first that does not.

    """
    if len(files) > limits.files:
        msg = f"{manifest}: files: names {len(files)} files, more than {limits.files}"
        raise BundleError(msg)
    # A workspace that was built with links (colcon --symlink-install) links each file by itself:
    # the folder is where the manifest really lies.
    own = manifest.resolve()
    if own.name != MANIFEST:
        msg = f"{manifest}: is a link to {own}: put the manifest itself there"
        raise BundleError(msg)
    found = {}
    total = 0
    for name in files:
        file = _inside(manifest, own.parent, name)
        total += file.stat().st_size
        if total > limits.total_bytes:
            msg = (
                f"{manifest}: files.{name}: up to this one the files take {total / 1e9:.3f} GB, "
                f"more than the limit of {limits.total_bytes / 1e9:.3f} GB"
            )
            raise BundleError(msg)
        found[name] = file
    for name, expected in files.items():
        try:
            actual = sha256(found[name])
        except OSError as err:
            msg = f"{manifest}: files.{name}: {err.strerror}"
            raise BundleError(msg) from err
        if actual != expected:
            msg = (
                f"{manifest}: files.{name}: the file's SHA-256 is {actual[:12]}..., not "
                f"{expected[:12]}...: it is corrupt or was changed: copy or export the bundle again"
            )
            raise BundleError(msg)


def _inside(manifest: Path, root: Path, name: str) -> Path:
    where = f"{manifest}: files.{name}"
    try:
        file = (manifest.parent / name).resolve()
    except (OSError, RuntimeError) as err:  # links in a circle; Python 3.13 tells it otherwise
        msg = f"{where}: cannot be followed: {err}"
        raise BundleError(msg) from err
    if file == root / MANIFEST:
        msg = f"{where}: is the manifest itself, which cannot hold its own hash: leave it out"
        raise BundleError(msg)
    if not file.is_relative_to(root):
        msg = f"{where}: lies outside the bundle, through a link: put the file itself there"
        raise BundleError(msg)
    if not file.exists():
        msg = f"{where}: there is no such file in {manifest.parent}: copy the bundle again, whole"
        raise BundleError(msg)
    if not file.is_file():
        msg = f"{where}: is no file but a folder or a device: put the file itself there"
        raise BundleError(msg)
    return file


def _beside(graph: str, location: str) -> str:
    """Return the bundle's name of a file that a graph names relative to its own folder."""
    return posixpath.normpath(posixpath.join(posixpath.dirname(graph), location))


def _onnx_faults(path: Path, manifest: Manifest) -> Iterator[tuple[str, str]]:
    """Yield what ONNX files hold other than the manifest says, and what they must not hold."""
    for index, graph in enumerate(manifest.graphs):
        if graph.backend != "onnx" or graph.file is None:
            continue
        key = f"graphs[{index}]"
        try:
            content = read_onnx(path / graph.file)
        except OnnxFileError as err:
            yield f"{key}.file", f"{graph.file} {err}"
            continue
        yield from _external_faults(f"{key}.file", graph.file, content, manifest.files)
        yield from _shape_faults(key, graph, content)


def _external_faults(
    key: str, file: str, content: OnnxFile, files: Mapping[str, str]
) -> Iterator[tuple[str, str]]:
    for location in content.external:
        said = f"{file} takes weights from {location!r:.100}, which"
        name = _beside(file, location)
        try:
            # As it is written: what only leads inside by way of outside is refused as well.
            check_file_name(location)
        except ValueError as err:
            yield key, f"{said} {err}"
            continue
        if name not in files:
            yield key, f"{said} has no SHA-256 under 'files': add files.{name}"


def _shape_faults(key: str, graph: Graph, content: OnnxFile) -> Iterator[tuple[str, str]]:
    for name in content.inputs:
        if name not in graph.inputs:
            yield f"{key}.inputs.{plain(name)}", f"is missing: {graph.file} takes it"
    for side, expected, actual in (
        ("inputs", graph.inputs, content.inputs),
        ("outputs", graph.outputs, content.outputs),
    ):
        for name, tensor in expected.items():
            where = f"{key}.{side}.{name}"
            if name not in actual:
                yield where, f"is not in {graph.file}, whose {side} are {sorted(actual)}"
                continue
            own = actual[name]
            if own.type != tensor.type:
                yield where, f"the graph's type is {own.type}, but the manifest says {tensor.type}"
            if own.shape is None:
                continue
            # An axis without a length takes any.
            fits = [a in {None, b} for a, b in zip(own.shape, tensor.shape, strict=False)]
            if len(own.shape) != len(tensor.shape) or not all(fits):
                shape = [axis or "any" for axis in own.shape]
                said = list(tensor.shape)
                yield where, f"the graph's shape is {shape}, but the manifest says {said}"
