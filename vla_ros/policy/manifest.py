"""The manifest of a policy bundle: the contract between a model and a robot.

The classes below are its schema, version 2: `vla_ros.learn` and the exporters write what they
describe, and nothing else defines the format. `docs/bundles.md` explains each key with an example.
A key that is unknown, missing or contradicts another is an error that names it: a model that is fed
wrongly normalised numbers moves the arm just as willingly.
"""

import re
from pathlib import Path, PurePosixPath
from typing import Annotated, Any, Literal

import numpy as np
from numpy.typing import DTypeLike
from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    GetJsonSchemaHandler,
    ValidationError,
    model_validator,
)
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema

from vla_ros.observation.image import ImageSpec

SCHEMA_VERSION = 2
MANIFEST = "manifest.yaml"

POSITION_NAMES = ("x", "y", "z")
ROTATION_NAMES = {
    None: (),
    "rotation_vector": ("rx", "ry", "rz"),
    "quaternion": ("qx", "qy", "qz", "qw"),
    "rotation_6d": ("r11", "r21", "r31", "r12", "r22", "r32"),
}
"""Names of the entries of each representation of a rotation, in their order.

A rotation vector is in rad; the six numbers are the first two columns of the rotation matrix.
"""
GRIPPER_NAME = "gripper"
ACTION_NAMES = (*POSITION_NAMES, *ROTATION_NAMES["rotation_vector"], GRIPPER_NAME)
"""Entries of the usual action: m, a rotation vector in rad, the gripper's open fraction."""

DECODER_GRAPHS = {
    "direct": ("policy",),
    "flow": ("prefix", "step"),
    "diffusion": ("prefix", "step"),
    "action_tokens": ("prefix", "step"),
}
"""The graphs that each decoder runs, by their names."""

_MOST_FAULTS = 8


class BundleError(ValueError):
    """A bundle cannot be used. The message names the file and the key, and says what to do."""


def _number(value: object) -> object:
    """Refuse what YAML reads `yes` and `on` as, which Python takes for the number 1."""
    if isinstance(value, bool):
        msg = "must be a number"
        raise ValueError(msg)  # noqa: TRY004 - pydantic takes no TypeError
    return value


def check_file_name(name: str) -> str:
    """Refuse a file's name that leads out of the bundle, or that another system reads differently.

    Raises:
        ValueError: If it does.

    """
    parts = PurePosixPath(name).parts
    if name.startswith("/") or ".." in parts or "\\" in name or re.match(r"[A-Za-z]:", name):
        msg = "lies outside the bundle: name files relative to its folder, with / between folders"
        raise ValueError(msg)
    if not re.fullmatch(r"[A-Za-z0-9_+-][A-Za-z0-9_.+-]*(/[A-Za-z0-9_+-][A-Za-z0-9_.+-]*)*", name):
        msg = "must be made of letters, digits and _ . + -, with / between folders: rename the file"
        raise ValueError(msg)
    return name


def _label(text: str) -> str:
    """Refuse a name that would do something to a terminal or a log, or that nobody can read.

    Raises:
        ValueError: If it does.

    """
    if not text.isprintable():
        msg = "must be of printable characters"
        raise ValueError(msg)
    return text


Name = Annotated[str, Field(min_length=1, max_length=100, pattern=r"^[A-Za-z][A-Za-z0-9_]*$")]
TensorName = Annotated[str, Field(min_length=1, max_length=200, pattern=r"^[A-Za-z0-9_./:-]+$")]
Text = Annotated[str, Field(min_length=1)]
Label = Annotated[str, Field(min_length=1, max_length=200), AfterValidator(_label)]
FileName = Annotated[str, Field(min_length=1, max_length=200), AfterValidator(check_file_name)]
Real = Annotated[float, Field(allow_inf_nan=False), BeforeValidator(_number)]
Positive = Annotated[float, Field(gt=0.0, allow_inf_nan=False), BeforeValidator(_number)]
NotNegative = Annotated[float, Field(ge=0.0, allow_inf_nan=False), BeforeValidator(_number)]
Fraction = Annotated[float, Field(ge=0.0, le=1.0, allow_inf_nan=False), BeforeValidator(_number)]
Count = Annotated[int, Field(ge=1, strict=True)]
Index = Annotated[int, Field(ge=0, strict=True)]
TensorType = Literal["float32", "float16", "int64", "int32", "uint8", "bool", "string"]
Cache = Annotated[dict[TensorName, TensorName], Field(min_length=1)]


class _Section(BaseModel):
    """Immutable, and without unknown keys: a misspelt key must not become a silent default."""

    model_config = ConfigDict(extra="forbid", frozen=True, ser_json_inf_nan="constants")


class Identity(_Section):
    """Values are left as they are."""

    type: Literal["identity"]


class MeanStd(_Section):
    """`(x - mean) / (std + eps)`.

    Attributes:
        mean: Of each entry.
        std: Of each entry.
        eps: Added to each std; LeRobot adds 1e-8.

    """

    type: Literal["mean_std"]
    mean: tuple[Real, ...]
    std: tuple[NotNegative, ...]
    eps: NotNegative = 1e-8


class MinMax(_Section):
    """`2 (x - min) / (max - min) - 1`.

    Attributes:
        min: Of each entry; becomes -1.
        max: Of each entry; becomes 1.

    """

    type: Literal["min_max"]
    min: tuple[Real, ...]
    max: tuple[Real, ...]


class Quantiles(_Section):
    """`2 (x - low) / (high - low) - 1`.

    Attributes:
        low: A low quantile of each entry (LeRobot: the first percentile); becomes -1.
        high: A high quantile of each entry (the 99th percentile); becomes 1.

    """

    type: Literal["quantiles"]
    low: tuple[Real, ...]
    high: tuple[Real, ...]


Normalisation = Annotated[Identity | MeanStd | MinMax | Quantiles, Field(discriminator="type")]

STATISTICS = {
    "identity": (),
    "mean_std": ("mean", "std"),
    "min_max": ("min", "max"),
    "quantiles": ("low", "high"),
}
"""Names of the two statistics of each normalisation."""


class History(_Section):
    """How many moments one observation holds.

    Attributes:
        steps: Moments. With more than one, the inputs of the cameras and of the state have an axis
            of this length after the batch axis, the oldest moment first.
        period_s: Time from one moment to the next, in s; needed with more than one.

    """

    steps: Count = 1
    period_s: Positive | None = None


def _float_cameras_need_all(schema: dict[str, Any]) -> None:
    """Say in the JSON Schema that only a camera of type uint8 may leave these out."""
    needed = ["scale", "mean", "std"]
    schema["required"] = [key for key in schema["required"] if key not in needed]
    schema["if"] = {"properties": {"type": {"const": "uint8"}}, "required": ["type"]}
    schema["else"] = {"required": needed}


class Camera(_Section):
    """One camera's image, an input of a graph.

    Attributes:
        name: Name of the camera, a part of its topics' names.
        input: Name of the graph's input; by default the camera's.
        size: Height and width in pixels.
        source_aspect: See `ImageSpec`.
        crop: See `ImageSpec`.
        layout: Order of the input's axes.
        type: `float32`, normalised, or `uint8`, the pixels as they are.
        scale: The input is `(pixel * scale - mean) / std`; a pixel is 0 to 255.
        mean: Of red, green and blue, after scaling.
        std: Of red, green and blue, after scaling.

    """

    model_config = ConfigDict(json_schema_extra=_float_cameras_need_all)

    name: Name
    input: TensorName = ""
    size: tuple[Count, Count]
    source_aspect: Positive
    crop: tuple[Fraction, Fraction, Fraction, Fraction]
    layout: Literal["nchw", "nhwc"]
    type: Literal["float32", "uint8"] = "float32"
    scale: Positive
    mean: tuple[Real, Real, Real]
    std: tuple[Positive, Positive, Positive]

    @model_validator(mode="before")
    @classmethod
    def _fill(cls, data: Any) -> Any:  # noqa: ANN401 - whatever the file holds
        if not isinstance(data, dict):
            return data
        plain = {"scale": 1.0, "mean": (0.0,) * 3, "std": (1.0,) * 3}
        defaults = {"input": data["name"]} if isinstance(data.get("name"), str) else {}
        return defaults | (plain if data.get("type") == "uint8" else {}) | data

    @property
    def image(self) -> ImageSpec:
        """Which part of the camera's image the model sees, and at what size."""
        return ImageSpec(size=self.size, source_aspect=self.source_aspect, crop=self.crop)

    @property
    def input_shape(self) -> tuple[int, ...]:
        """Shape of the graph's input for one moment, with the batch axis."""
        return (1, 3, *self.size) if self.layout == "nchw" else (1, *self.size, 3)


class State(_Section):
    """The robot's state.

    Attributes:
        input: Name of the graph's input.
        names: Entries, see `vla_ros.observation.state.state_names`.
        normalisation: From SI units to what the graph takes.
        size: Width of the graph's input, if greater: zeros follow the normalised entries.

    """

    input: TensorName = "state"
    names: Annotated[tuple[Label, ...], Field(min_length=1)]
    normalisation: Normalisation
    size: Count | None = None

    @property
    def width(self) -> int:
        """Numbers in one moment's input."""
        return self.size or len(self.names)


class Instruction(_Section):
    """The instruction, as tokens or as the text itself.

    Attributes:
        tokenizer: File of the `tokenizers` library; None where the server takes the text itself, as
            an input of type string and shape (1,).
        input: Name of the graph's input.
        mask_input: Name of the graph's input that is true where a token is not padding, if any.
        length: Tokens of an instruction, padded; 0 without a tokenizer.
        pad_token: The tokenizer's token that fills up.
        unknown_token: The tokenizer's token for a word that it does not know, if it has one.
        suffix: Text that follows each instruction, such as the line feed that PaliGemma expects.

    """

    tokenizer: FileName | None
    input: TensorName = "tokens"
    mask_input: TensorName | None = None
    length: Index = 0
    pad_token: Text = "<pad>"  # noqa: S105
    unknown_token: Text | None = "<unk>"  # noqa: S105
    suffix: str = ""

    @property
    def inputs(self) -> "dict[str, Tensor]":
        """The graph's inputs."""
        if self.tokenizer is None:
            return {self.input: Tensor(shape=(1,), type="string")}
        inputs = {self.input: Tensor(shape=(1, self.length), type="int64")}
        if self.mask_input is not None:
            inputs[self.mask_input] = Tensor(shape=(1, self.length), type="bool")
        return inputs


class Tensor(_Section):
    """Shape and type of an input or output.

    A list alone is the shape; the type is then what the rest of the manifest makes it, or float32.

    Attributes:
        shape: Length of each axis.
        type: Type of each entry.

    """

    shape: tuple[Count, ...]
    type: TensorType = "float32"

    @model_validator(mode="before")
    @classmethod
    def _shape_alone(cls, data: Any) -> Any:  # noqa: ANN401 - whatever the file holds
        return {"shape": data} if isinstance(data, list | tuple) else data

    @classmethod
    def __get_pydantic_json_schema__(
        cls, core_schema: CoreSchema, handler: GetJsonSchemaHandler
    ) -> JsonSchemaValue:
        """Say in the JSON Schema that a list alone is the shape."""
        schema = handler.resolve_ref_schema(handler(core_schema))
        return {"anyOf": [schema["properties"]["shape"], schema]}

    @property
    def dtype(self) -> DTypeLike:
        """NumPy's type; of strings, objects."""
        return np.dtype(object if self.type == "string" else self.type)


class Graph(_Section):
    """One graph.

    Attributes:
        name: Name of the graph; the decoder says which there are, see `DECODER_GRAPHS`.
        backend: What runs it.
        file: The file, of backend onnx or torch.
        model: The server's name of it, of backend triton; by default the bundle's name.
        inputs: Each input, by its name.
        outputs: Each output that is used, by its name.

    """

    name: Name
    backend: Literal["onnx", "torch", "triton", "openpi"] = "onnx"
    file: FileName | None = None
    model: Label | None = None
    inputs: dict[TensorName, Tensor]
    outputs: Annotated[dict[TensorName, Tensor], Field(min_length=1)]


class DirectDecoder(_Section):
    """The output of the graph `policy` is the normalised actions themselves.

    Attributes:
        output: Name of the output, shape (1, chunk, width of an action).

    """

    type: Literal["direct"]
    output: TensorName = "actions"


class FlowDecoder(_Section):
    """Flow matching: `step` gives the velocity of noisy actions, which are integrated.

    Inputs of `step` that are not named here are the observation's.

    Attributes:
        steps: Euler steps of equal length.
        noise: Input of `step`: the noisy actions, shape (1, chunk, width of an action).
        time: Input of `step`: time from 0 to 1, one number.
        output: Output of `step`: the velocity, shaped as the noise.
        cache: Output of `prefix` to input of `step`.
        direction: `one_to_zero`: noise at time 1, `x -= v / steps` (LeRobot, openpi);
            `zero_to_one`: noise at time 0, `x += v / steps`.
        seed: Of the noise.

    """

    type: Literal["flow"]
    steps: Count
    noise: TensorName = "noise"
    time: TensorName = "time"
    output: TensorName = "velocity"
    cache: Cache
    direction: Literal["one_to_zero", "zero_to_one"]
    seed: Index = 0


class DiffusionDecoder(_Section):
    """Diffusion: `step` predicts what the noise in noisy actions is, which is taken off.

    Inputs of `step` that are not named here are the observation's.

    Attributes:
        scheduler: The sampler.
        steps: Its steps.
        train_steps: Steps of the training's schedule.
        betas: Shape of that schedule, by the names of `diffusers`.
        beta_start: First beta, of the linear ones.
        beta_end: Last beta, of the linear ones.
        prediction: What `step` predicts.
        clip: Bound of the denoised actions' absolute values; None for no bound.
        horizon: Actions that are denoised.
        start: Index of the first of them that is used.
        noise: Input of `step`: the noisy actions, shape (1, horizon, width of an action).
        time: Input of `step`: index of the training's step, one number.
        output: Output of `step`: the prediction, shaped as the noise.
        cache: Output of `prefix` to input of `step`.
        seed: Of the noise.

    """

    type: Literal["diffusion"]
    scheduler: Literal["ddim", "ddpm"]
    steps: Count
    train_steps: Count
    betas: Literal["linear", "scaled_linear", "squaredcos_cap_v2"]
    beta_start: Annotated[Positive, Field(lt=1.0)] = 1e-4
    beta_end: Annotated[Positive, Field(lt=1.0)] = 0.02
    prediction: Literal["epsilon", "sample", "v_prediction"]
    clip: Positive | None
    horizon: Count
    start: Index = 0
    noise: TensorName = "sample"
    time: TensorName = "timestep"
    output: TensorName = "prediction"
    cache: Cache
    seed: Index = 0


class ActionTokensDecoder(_Section):
    """Actions as words of a language model, one bin an entry, taken greedily one after another.

    `prefix` reads the observation and gives the first token's logits; `step` takes the token before
    and gives the next one's. Entries of an action follow one another, and so do the actions.

    Attributes:
        bins: Bins of an entry.
        low: Normalised value at the first bin's lower edge.
        high: Normalised value at the last bin's upper edge.
        first_token: The token of bin 0.
        descending: Whether the token's number falls with the bin (OpenVLA).
        output: Output of both graphs: the logits, whose last axis is the vocabulary.
        token: Input of `step`: the token before, one integer.
        position: Input of `step`: that token's place among those produced, one integer, from 0.
        cache: Output of `prefix` to input of `step`.
        new_cache: Output of `step` to its own input at the next token.

    """

    type: Literal["action_tokens"]
    bins: Annotated[Count, Field(ge=2)] = 256
    low: Real = -1.0
    high: Real = 1.0
    first_token: Index
    descending: bool = False
    output: TensorName = "logits"
    token: TensorName = "token"  # noqa: S105
    position: TensorName = "position"
    cache: Cache
    new_cache: Cache


Decoder = Annotated[
    DirectDecoder | FlowDecoder | DiffusionDecoder | ActionTokensDecoder,
    Field(discriminator="type"),
]


class Gripper(_Section):
    """What the action's gripper entry means: 0 is closed, 1 is open.

    Attributes:
        open_m: Opening when open, in m (in rad where the gripper turns).
        closed_m: Opening commanded when closed, likewise; it may be less than 0.
        mode: `binary` opens or closes; `continuous` commands what lies between.
        threshold: In binary mode the open fraction from which on it opens.

    """

    open_m: Real
    closed_m: Real
    mode: Literal["binary", "continuous"]
    threshold: Fraction = 0.5


class Action(_Section):
    """What comes out: a chunk of actions, each for the time `1 / rate_hz`.

    Attributes:
        type: `delta_pose`: displacement of the TCP, in m, and rotation. `twist`: its velocity, m/s
            and rad/s. `pose`: where it goes. `joint_position`: in rad; `joint_velocity`: in rad/s;
            `joint_delta`: displacement of the joints, in rad.
        frame: Of the Cartesian types: the robot's base, or the TCP at the observation.
        rotation: Of the Cartesian types: how a rotation is written; None for position alone.
        reference: What delta_pose and joint_delta are relative to: the state at the observation, or
            the end of the action before (so that each is the motion of one period).
        rate_hz: Actions a second.
        chunk: Actions a chunk.
        names: Entries of one action: x y z, the rotation's (`ROTATION_NAMES`), or the robot's
            joints; then `gripper` where there is one.
        normalisation: Of the entries, in the units above.
        size: Width of the graph's output, if greater: what follows the entries is not used.
        gripper: Meaning of the last entry; None where the action moves no gripper.

    """

    type: Literal["delta_pose", "twist", "pose", "joint_position", "joint_velocity", "joint_delta"]
    frame: Literal["base", "tool"] | None = None
    rotation: Literal["rotation_vector", "quaternion", "rotation_6d"] | None = None
    reference: Literal["observation", "previous"] | None = None
    rate_hz: Positive
    chunk: Count
    names: Annotated[tuple[Label, ...], Field(min_length=1)]
    normalisation: Normalisation
    size: Count | None = None
    gripper: Gripper | None

    @property
    def width(self) -> int:
        """Numbers of one action in the graph's output."""
        return self.size or len(self.names)

    @property
    def is_cartesian(self) -> bool:
        """Whether it moves the TCP rather than joints."""
        return self.type in {"delta_pose", "twist", "pose"}


class Manifest(_Section):
    """The whole manifest.

    Attributes:
        schema_version: Version of this schema.
        name: Name of the model, for people.
        history: How many moments an observation holds.
        cameras: The cameras, in any order.
        state: The robot's state, if the model takes it.
        instruction: The instruction, if the model takes one.
        graphs: The graphs.
        decoder: How actions come from the graphs' outputs.
        action: What an action is.
        files: SHA-256 of every file, as 64 hexadecimal digits.
        source: Where the model is from, for people: data, command, revision, measured results.

    """

    schema_version: Literal[2]
    name: Label
    history: History = History()
    cameras: Annotated[tuple[Camera, ...], Field(min_length=1)]
    state: State | None = None
    instruction: Instruction | None = None
    graphs: Annotated[tuple[Graph, ...], Field(min_length=1)]
    decoder: Decoder
    action: Action
    files: dict[FileName, Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]]
    source: dict[str, Any]

    @model_validator(mode="before")
    @classmethod
    def _fill(cls, data: Any) -> Any:  # noqa: ANN401 - whatever the file holds
        return _filled(data) if isinstance(data, dict) else data

    def graph(self, name: str) -> Graph:
        """Return the graph of that name.

        Raises:
            BundleError: If there is none.

        """
        for graph in self.graphs:
            if graph.name == name:
                return graph
        msg = f"graphs: there is no graph {name!r}"
        raise BundleError(msg)

    @property
    def observation_inputs(self) -> dict[str, Tensor]:
        """What the observation gives, by the graphs' inputs' names, at full precision."""
        moments = () if self.history.steps == 1 else (self.history.steps,)
        inputs = {
            camera.input: Tensor(shape=(1, *moments, *camera.input_shape[1:]), type=camera.type)
            for camera in self.cameras
        }
        if self.state is not None:
            inputs[self.state.input] = Tensor(shape=(1, *moments, self.state.width))
        if self.instruction is not None:
            inputs |= self.instruction.inputs
        return inputs

    @property
    def file_names(self) -> dict[str, str]:
        """The files that the manifest names, by the key that names them."""
        named = {f"graphs[{i}].file": graph.file for i, graph in enumerate(self.graphs)}
        if self.instruction is not None:
            named["instruction.tokenizer"] = self.instruction.tokenizer
        return {key: name for key, name in named.items() if name is not None}


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
            f"{where}: schema_version: is {version!r:.60}, but this vla_ros reads "
            f"{SCHEMA_VERSION}: export the bundle again"
        )
        raise BundleError(msg)
    # It imports the classes above.
    from vla_ros.policy.contradictions import contradictions  # noqa: PLC0415

    try:
        manifest = Manifest.model_validate(content)
    except ValidationError as err:
        errors = err.errors(include_url=False)
        faults = [f"{_key(e)}: {_explain(e)}" for e in errors]
    else:
        faults = [f"{key}: {fault}" for key, fault in contradictions(manifest)]
    if faults:
        more = len(faults) - _MOST_FAULTS
        faults[_MOST_FAULTS:] = [f"and {more} more"] if more > 0 else []
        msg = f"{where}: {'; '.join(faults)}"
        raise BundleError(msg)
    return manifest


def _filled(data: dict[Any, Any]) -> dict[Any, Any]:
    """Return the manifest's content with the defaults that depend on other keys.

    It has not been checked, so that nothing is where it should be: what is not, stays as it is.
    """
    graphs = data.get("graphs")
    if not isinstance(graphs, list | tuple):
        return data
    types = _types_fed(data)
    filled: list[Any] = []
    for graph in graphs:
        if not isinstance(graph, dict):
            filled.append(graph)
            continue
        new = dict(graph)
        if isinstance(graph.get("inputs"), dict):
            new["inputs"] = {
                name: {"shape": tensor, "type": types.get(name, "float32")}
                if isinstance(tensor, list | tuple)
                else tensor
                for name, tensor in graph["inputs"].items()
            }
        if graph.get("backend") == "triton" and graph.get("model") is None:
            new["model"] = data.get("name")
        filled.append(new)
    return {**data, "graphs": filled}


def _types_fed(data: dict[Any, Any]) -> dict[Any, str]:
    """Return the types of the inputs that are not float32, by name."""
    types: dict[Any, str] = {}

    def give(name: object, kind: str) -> None:
        if isinstance(name, str):
            types[name] = kind

    cameras = data.get("cameras")
    for camera in cameras if isinstance(cameras, list | tuple) else ():
        if isinstance(camera, dict) and camera.get("type") == "uint8":
            give(camera.get("input", camera.get("name")), "uint8")
    instruction = data.get("instruction")
    if isinstance(instruction, dict):
        is_text = instruction.get("tokenizer") is None
        give(instruction.get("input", "tokens"), "string" if is_text else "int64")
        give(instruction.get("mask_input"), "bool")
    decoder = data.get("decoder")
    if isinstance(decoder, dict) and decoder.get("type") == "action_tokens":
        give(decoder.get("token", "token"), "int64")
        give(decoder.get("position", "position"), "int64")
    return types


def _key(error: Any) -> str:  # noqa: ANN401 - pydantic's ErrorDetails
    """Return the path to a value as `cameras[0].std`."""
    location = error["loc"]
    if error["type"] in {"union_tag_not_found", "union_tag_invalid"}:
        location = (*location, "type")
    key = ""
    previous: int | str = ""
    for part in location:
        tagged = previous in {"normalisation", "decoder"}
        previous = part
        if isinstance(part, int):
            key += f"[{part}]"
        elif part == "[key]" or (tagged and part in {*STATISTICS, *DECODER_GRAPHS}):
            continue  # The kind of the section, not a key: pydantic names it.
        else:
            key += f".{plain(part)}" if key else plain(part)
    return key


def printable(text: str) -> str:
    """Return text from elsewhere as one line that does nothing to a terminal."""
    return "".join(c if c.isprintable() else repr(c)[1:-1] for c in text)


def plain(name: str) -> str:
    """Return a name from elsewhere so that it fits into a line for people."""
    return f"{printable(name):.100}"


def _explain(error: Any) -> str:  # noqa: ANN401 - pydantic's ErrorDetails
    kinds = {"missing": "is missing", "extra_forbidden": "is unknown"}
    if error["type"] in kinds:
        return kinds[error["type"]]
    if error["type"] == "value_error":
        return str(error["ctx"]["error"])
    if error["type"] == "union_tag_not_found":
        return "is missing"
    if error["type"] == "union_tag_invalid":
        context = error["ctx"]
        return f"must be one of {context['expected_tags']}, but is {context['tag']!r:.60}"
    message = " ".join(error["msg"].split())
    return f"{message[0].lower()}{message[1:]}, but is {error['input']!r:.60}"
