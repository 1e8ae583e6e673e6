"""`vla_ros bundle show`: what a model takes and gives, as a table.

Of a single ONNX file, its inputs and outputs: what a manifest for it has to name.
"""

import argparse
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from vla_ros.policy.bundle import Bundle
from vla_ros.policy.commands.check import add_folder, load
from vla_ros.policy.manifest import (
    STATISTICS,
    Action,
    Camera,
    Graph,
    Instruction,
    Manifest,
    Normalisation,
    Tensor,
    printable,
)
from vla_ros.policy.onnx_file import OnnxFileError, read_onnx

_TITLE_WIDTH = 12
_UNITS = {
    "delta_pose": ("m", "rad"),
    "twist": ("m/s", "rad/s"),
    "pose": ("m", "rad"),
    "joint_position": ("rad", "rad"),
    "joint_velocity": ("rad/s", "rad/s"),
    "joint_delta": ("rad", "rad"),
}

Lines = Iterator[tuple[str, str]]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments to its parser."""
    parser.description = __doc__
    add_folder(parser)


def run(args: argparse.Namespace) -> int:
    """Print the table, or what an ONNX file takes and gives; return the exit code.

    Raises:
        BundleError: If the bundle cannot be used.
        ValueError: If the file is no ONNX graph.

    """
    if args.folder.suffix == ".onnx" and args.folder.is_file():
        print(onnx_table(args.folder))
    else:
        print(table(load(args)))
    return 0


def onnx_table(file: Path) -> str:
    """Return the inputs and outputs of an ONNX file that has no manifest yet.

    Raises:
        ValueError: If it is no ONNX graph.

    """
    try:
        content = read_onnx(file)
    except OnnxFileError as err:
        msg = f"{file} {err}"
        raise ValueError(msg) from err
    lines = [
        f"{title:5}{name} {tensor.type} "
        + (
            "of any shape"
            if tensor.shape is None
            else str([axis or "any" for axis in tensor.shape])
        )
        for title, side in (("in", content.inputs), ("out", content.outputs))
        for name, tensor in side.items()
    ]
    lines += [f"{'file':5}{name}" for name in content.external]
    return "\n".join(map(printable, lines))


def table(bundle: Bundle) -> str:
    """Return what a bundle's model takes and gives, a line for each part."""
    last = None
    lines = []
    for title, text in _lines(bundle):
        head = "" if title == last else title
        lines.append(printable(f"{head:{_TITLE_WIDTH}}{text}".rstrip()))
        last = title
    return "\n".join(lines)


def _lines(bundle: Bundle) -> Lines:
    manifest = bundle.manifest
    yield "bundle", f"{manifest.name} ({bundle.path}), schema {manifest.schema_version}"
    if manifest.history.steps > 1:
        yield "history", f"{manifest.history.steps} moments, {manifest.history.period_s:g} s apart"
    for camera in manifest.cameras:
        yield "cameras", _camera(camera)
    yield from _state(manifest)
    if manifest.instruction is not None:
        yield "instruction", _instruction(manifest.instruction)
    for graph in manifest.graphs:
        yield "graphs", _graph(graph)
        for name, tensor in graph.inputs.items():
            yield "graphs", f"  in   {_tensor(name, tensor)}"
        for name, tensor in graph.outputs.items():
            yield "graphs", f"  out  {_tensor(name, tensor)}"
    settings = manifest.decoder.model_dump(exclude={"type"})
    yield "decoder", f"{manifest.decoder.type}: {_settings(settings)}"
    yield from _action(manifest.action)
    for name in manifest.files:
        size = bundle.file(name).stat().st_size
        yield "files", f"{name}  {_size(size)}  sha256 {manifest.files[name][:12]}..."
    for key, value in manifest.source.items():
        yield "source", f"{key}: {_settings(value) if isinstance(value, dict) else value}"


def _camera(camera: Camera) -> str:
    height, width = camera.size
    top, left, bottom, right = camera.crop
    pixels = "pixels as they are"
    if camera.type == "float32":
        pixels = f"(pixel * {camera.scale:.6g} - {_numbers(camera.mean)}) / {_numbers(camera.std)}"
    return (
        f"{camera.name} -> {camera.input}: {width}x{height}, {camera.layout} {camera.type}, "
        f"{pixels}; of a picture {camera.source_aspect:g}:1, rows {top:.3g} to {bottom:.3g}, "
        f"columns {left:.3g} to {right:.3g}"
    )


def _state(manifest: Manifest) -> Lines:
    state = manifest.state
    if state is None:
        return
    padded = "" if state.size is None else f", padded to {state.size}"
    yield "state", f"-> {state.input}: {len(state.names)} entries{padded}"
    yield from _entries("state", state.names, state.normalisation)


def _instruction(instruction: Instruction) -> str:
    if instruction.tokenizer is None:
        return f"-> {instruction.input}: the text itself"
    mask = f", mask -> {instruction.mask_input}" if instruction.mask_input else ""
    suffix = f", followed by {instruction.suffix!r}" if instruction.suffix else ""
    return (
        f"-> {instruction.input}: {instruction.length} tokens of {instruction.tokenizer}, filled "
        f"up with {instruction.pad_token!r}{suffix}{mask}"
    )


def _graph(graph: Graph) -> str:
    where = graph.file or graph.model or "the server's model"
    return f"{graph.name}: {graph.backend}, {where}"


def _tensor(name: str, tensor: Tensor) -> str:
    return f"{name} {tensor.type} {list(tensor.shape)}"


def _action(action: Action) -> Lines:
    said = [f"frame {action.frame}"] if action.frame else []
    said += [f"rotation as {action.rotation}"] if action.rotation else []
    said += [f"relative to {action.reference}"] if action.reference else []
    units = dict.fromkeys(_UNITS[action.type])
    said += [f"in {' and '.join(units)}"]
    duration = action.chunk / action.rate_hz
    yield "action", f"{action.type}: {', '.join(said)}"
    yield (
        "action",
        f"{action.chunk} a chunk at {action.rate_hz:g} Hz: {duration:.3g} s",
    )
    if action.size is not None:
        yield "action", f"the first {len(action.names)} of {action.size} numbers"
    yield from _entries("action", action.names, action.normalisation)
    gripper = action.gripper
    if gripper is not None:
        binary = f", opens from {gripper.threshold:g} on" if gripper.mode == "binary" else ""
        opening = f"{gripper.closed_m:g} to {gripper.open_m:g}"
        yield "action", f"gripper {gripper.mode}: {opening} (m; rad where it turns){binary}"


def _entries(title: str, names: tuple[str, ...], spec: Normalisation) -> Lines:
    statistics = {key: getattr(spec, key) for key in STATISTICS[spec.type]}
    width = max(map(len, names))
    for index, name in enumerate(names):
        values = "  ".join(f"{key} {values[index]:<11.5g}" for key, values in statistics.items())
        yield title, f"  {name:{width}}  {values or 'as it is'}"


def _numbers(values: tuple[float, ...]) -> str:
    if len(set(values)) == 1:
        return f"{values[0]:.6g}"
    return f"[{', '.join(f'{value:.6g}' for value in values)}]"


def _settings(values: dict[str, Any]) -> str:
    return ", ".join(
        f"{key} {'{' + _settings(value) + '}' if isinstance(value, dict) else value}"
        for key, value in values.items()
    )


def _size(size: int) -> str:
    for unit, scale in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if size >= scale:
            return f"{size / scale:.1f} {unit}"
    return f"{size} B"
