"""The policy bundle: a folder that holds a model and says, in `manifest.yaml`, how to run it.

The classes below are the manifest's schema, version 1: `vla_ros.learn` and the exporters write what
they describe, and nothing else defines the format. Everything is checked at load. A key that is
unknown, missing or contradicts another is an error that names it: a model that is fed wrongly
normalised numbers moves the arm just as willingly.
"""

import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from vla_ros.observation.image import ImageSpec
from vla_ros.types import Array
from vla_ros.yaml_text import parse_yaml

SCHEMA_VERSION = 1
MANIFEST = "manifest.yaml"

STATE_INPUT = "state"
TOKENS_INPUT = "tokens"
ACTIONS_OUTPUT = "actions"
ACTION_NAMES = ("x", "y", "z", "rx", "ry", "rz", "gripper")
"""Entries of a `delta_pose` action: m, a rotation vector in rad, the gripper's open fraction."""

Name = Annotated[str, Field(min_length=1, pattern=r"^[A-Za-z][A-Za-z0-9_]*$")]
Text = Annotated[str, Field(min_length=1)]
Real = Annotated[float, Field(allow_inf_nan=False)]
Positive = Annotated[float, Field(gt=0.0, allow_inf_nan=False)]
Count = Annotated[int, Field(ge=1)]
Fraction = Annotated[float, Field(ge=0.0, le=1.0, allow_inf_nan=False)]


class BundleError(ValueError):
    """A bundle cannot be used. The message names the file and the key, and says what to do."""


class _Section(BaseModel):
    """Immutable, and without unknown keys: a misspelt key must not become a silent default."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class Camera(_Section):
    """One camera's image, an input of the graph under the camera's name.

    Attributes:
        name: Name of the camera and of the graph's input.
        size: Height and width in pixels.
        source_aspect: See `ImageSpec`.
        crop: See `ImageSpec`.
        layout: Order of the input's axes.
        scale: The input is `(pixel * scale - mean) / std`; a pixel is 0 to 255.
        mean: Of red, green and blue, after scaling.
        std: Of red, green and blue, after scaling.

    """

    name: Name
    size: tuple[Count, Count]
    source_aspect: Positive
    crop: tuple[Fraction, Fraction, Fraction, Fraction]
    layout: Literal["nchw", "nhwc"]
    scale: Positive
    mean: tuple[Real, Real, Real]
    std: tuple[Positive, Positive, Positive]

    @property
    def image(self) -> ImageSpec:
        """Which part of the camera's image the model sees, and at what size."""
        return ImageSpec(size=self.size, source_aspect=self.source_aspect, crop=self.crop)

    @property
    def input_shape(self) -> tuple[int, ...]:
        """Shape of the graph's input."""
        return (1, 3, *self.size) if self.layout == "nchw" else (1, *self.size, 3)


class State(_Section):
    """The robot's state, the graph's input `state`: `(value - mean) / std` of each entry.

    Attributes:
        names: Entries, see `vla_ros.observation.state.state_names`.
        mean: Of each entry.
        std: Of each entry.

    """

    names: Annotated[tuple[Text, ...], Field(min_length=1)]
    mean: tuple[Real, ...]
    std: tuple[Positive, ...]


class Instruction(_Section):
    """The instruction, the graph's input `tokens`.

    Attributes:
        tokenizer: File of the `tokenizers` library, with the tokens `<pad>` and `<unk>`.
        length: Tokens of an instruction, padded.

    """

    tokenizer: Text
    length: Count


class Graph(_Section):
    """One ONNX graph.

    Attributes:
        name: Name of the graph; decoder `direct` takes one, called `policy`.
        file: The ONNX file.
        inputs: Shape of each input, by its name.
        outputs: Shape of each output, by its name.

    """

    name: Name
    file: Text
    inputs: dict[Name, tuple[Count, ...]]
    outputs: dict[Name, tuple[Count, ...]]


class DirectDecoder(_Section):
    """The graph's output `actions` is the normalised actions themselves."""

    type: Literal["direct"]


class Gripper(_Section):
    """What the action's gripper entry means: 0 is closed, 1 is open.

    Attributes:
        open_m: Opening when open, in m.
        closed_m: Opening commanded when closed, in m.
        mode: `binary` opens or closes; `continuous` commands what lies between.
        threshold: In binary mode the open fraction from which on it opens.

    """

    open_m: Annotated[float, Field(ge=0.0, allow_inf_nan=False)]
    closed_m: Annotated[float, Field(ge=0.0, allow_inf_nan=False)]
    mode: Literal["binary", "continuous"]
    threshold: Fraction = 0.5


class Action(_Section):
    """What comes out: a chunk of displacements of the TCP, each for the time `1 / rate_hz`.

    Attributes:
        type: `delta_pose`: displacement and rotation vector of the TCP during one action.
        frame: `tool`: in the TCP's frame at the time of the observation.
        rate_hz: Actions a second.
        chunk: Actions a chunk.
        names: Entries of one action, `ACTION_NAMES`.
        mean: Of each entry; an action is `output * std + mean`.
        std: Of each entry.
        gripper: Meaning of the last entry.

    """

    type: Literal["delta_pose"]
    frame: Literal["tool"]
    rate_hz: Positive
    chunk: Count
    names: tuple[Text, ...]
    mean: tuple[Real, ...]
    std: tuple[Positive, ...]
    gripper: Gripper


class Manifest(_Section):
    """The whole manifest.

    Attributes:
        schema_version: Version of this schema.
        name: Name of the model, for people.
        cameras: The cameras, in any order.
        state: The robot's state.
        instruction: The instruction.
        graphs: The ONNX graphs.
        decoder: How actions come from the graph's output.
        action: What an action is.
        files: SHA-256 of every file, as 64 hexadecimal digits.
        source: Where the model is from, for people: data, command, revision, measured results.

    """

    schema_version: Literal[1]
    name: Text
    cameras: Annotated[tuple[Camera, ...], Field(min_length=1)]
    state: State
    instruction: Instruction
    graphs: Annotated[tuple[Graph, ...], Field(min_length=1, max_length=1)]
    decoder: DirectDecoder
    action: Action
    files: dict[Text, Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]]
    source: dict[str, Any]


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
    def graph(self) -> Graph:
        """The graph."""
        return self.manifest.graphs[0]

    @property
    def period_ns(self) -> int:
        """Time of one action in ns."""
        return round(1e9 / self.manifest.action.rate_hz)

    def file(self, name: str) -> Path:
        """Return where the file of that name lies."""
        return self.path / name


def parse_manifest(content: object, where: Path) -> Manifest:
    """Return the manifest in `content`, as YAML gives it.

    Args:
        content: Nested dicts and lists.
        where: The file, for errors.

    Raises:
        BundleError: Naming each key that is wrong.

    """
    if not isinstance(content, dict):
        msg = f"{where}: must be a mapping that starts with 'schema_version: {SCHEMA_VERSION}'"
        raise BundleError(msg)
    version = content.get("schema_version", None)
    if "schema_version" in content and version != SCHEMA_VERSION:
        msg = (
            f"{where}: schema_version: is {version!r}, but this vla_ros reads {SCHEMA_VERSION}: "
            "export the bundle again"
        )
        raise BundleError(msg)
    try:
        manifest = Manifest.model_validate(content)
    except ValidationError as err:
        faults = [f"{_key(e['loc'])}: {_explain(e)}" for e in err.errors()]
    else:
        faults = [f"{key}: {fault}" for key, fault in _contradictions(manifest)]
    if faults:
        msg = f"{where}: {'; '.join(faults)}"
        raise BundleError(msg)
    return manifest


def write_manifest(folder: Path, content: Mapping[str, Any]) -> Bundle:
    """Write `manifest.yaml` into a folder that holds the model's files already; load the result.

    Args:
        folder: The bundle's folder.
        content: The manifest without `files`, whose hashes are computed here.

    Raises:
        BundleError: If the result would not load. Nothing is written if the manifest is at fault.

    """
    graphs = [graph["file"] for graph in content["graphs"]]
    names = [*graphs, content["instruction"]["tokenizer"]]
    files = {name: sha256(folder / name) for name in names}
    manifest = parse_manifest({**content, "files": files}, folder / MANIFEST)
    text = yaml.safe_dump(manifest.model_dump(mode="json"), sort_keys=False, width=100)
    (folder / MANIFEST).write_text(text, encoding="utf-8")
    return Bundle.load(folder)


def sha256(path: Path) -> str:
    """Return the file's SHA-256 as the manifest's `files` writes it."""
    return hashlib.sha256(path.read_bytes()).hexdigest()


def normalise(values: Array, mean: tuple[float, ...], std: tuple[float, ...]) -> Array:
    """Return `(values - mean) / std` along the last axis."""
    return np.asarray((values - np.asarray(mean)) / np.asarray(std), np.float64)


def denormalise(values: Array, mean: tuple[float, ...], std: tuple[float, ...]) -> Array:
    """Return `values * std + mean` along the last axis."""
    return np.asarray(values * np.asarray(std) + np.asarray(mean), np.float64)


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


def _key(location: tuple[int | str, ...]) -> str:
    """Return pydantic's path to a value as `cameras[0].std`."""
    key = ""
    for part in location:
        key += f"[{part}]" if isinstance(part, int) else f".{part}" if key else str(part)
    return key


def _explain(error: Any) -> str:  # noqa: ANN401 - pydantic's ErrorDetails
    kinds = {"missing": "is missing", "extra_forbidden": "is unknown"}
    if error["type"] in kinds:
        return kinds[error["type"]]
    return f"{error['msg'][0].lower()}{error['msg'][1:]}, but is {error['input']!r:.60}"


def _contradictions(manifest: Manifest) -> Iterator[tuple[str, str]]:
    """Yield each key that contradicts another, and why."""
    yield from _camera_faults(manifest)
    for key, section in (("state", manifest.state), ("action", manifest.action)):
        count = len(section.names)
        if len(set(section.names)) != count:
            yield f"{key}.names", "names an entry twice"
        for statistic in ("mean", "std"):
            length = len(getattr(section, statistic))
            if length != count:
                yield f"{key}.{statistic}", f"has {length} values for {count} names"
    if manifest.action.names != ACTION_NAMES:
        yield "action.names", f"must be {list(ACTION_NAMES)} for type delta_pose"
    if manifest.action.gripper.closed_m >= manifest.action.gripper.open_m:
        yield "action.gripper.closed_m", "must be less than action.gripper.open_m"
    yield from _graph_faults(manifest)
    named = {"instruction.tokenizer": manifest.instruction.tokenizer}
    named |= {f"graphs[{i}].file": graph.file for i, graph in enumerate(manifest.graphs)}
    for key, name in named.items():
        if name not in manifest.files:
            yield key, f"{name!r} has no SHA-256 under 'files'"


def _camera_faults(manifest: Manifest) -> Iterator[tuple[str, str]]:
    seen = {STATE_INPUT, TOKENS_INPUT}
    for index, camera in enumerate(manifest.cameras):
        if camera.name in seen:
            yield f"cameras[{index}].name", f"{camera.name!r} is taken by another input"
        seen.add(camera.name)
        top, left, bottom, right = camera.crop
        if top >= bottom or left >= right:
            yield f"cameras[{index}].crop", "must be [top, left, bottom, right], and not empty"


def _graph_faults(manifest: Manifest) -> Iterator[tuple[str, str]]:
    graph, action = manifest.graphs[0], manifest.action
    inputs: dict[str, tuple[int, ...]] = {c.name: c.input_shape for c in manifest.cameras}
    inputs[STATE_INPUT] = (1, len(manifest.state.names))
    inputs[TOKENS_INPUT] = (1, manifest.instruction.length)
    outputs = {ACTIONS_OUTPUT: (1, action.chunk, len(ACTION_NAMES))}
    for side, expected, given in (
        ("inputs", inputs, graph.inputs),
        ("outputs", outputs, graph.outputs),
    ):
        for name, shape in expected.items():
            if name not in given:
                yield f"graphs[0].{side}.{name}", "is missing"
            elif given[name] != shape:
                yield (
                    f"graphs[0].{side}.{name}",
                    f"is {list(given[name])}, but the rest of the manifest makes it {list(shape)}",
                )
        for name in given:
            if name not in expected:
                yield f"graphs[0].{side}.{name}", f"is unknown: {', '.join(expected)} are expected"
