"""A manifest that whoever exports has written, filled up with what the graphs themselves say.

What need not be written: `schema_version`, `files`, `source`, and whatever follows from a graph's
inputs and outputs: `graphs` with all that is in it, a camera's `size` and `layout`, the
instruction's `length`, the action's `chunk`. What is written must agree with the graphs.
"""

import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from vla_ros.export.error import ExportError
from vla_ros.policy.bundle import MANIFEST, Bundle, BundleError, write_manifest
from vla_ros.policy.manifest import DECODER_GRAPHS
from vla_ros.yaml_text import parse_yaml

TEXT_AXES = 2
_IMAGE_AXES = 4


def read(file: Path) -> dict[str, Any]:
    """Return what a manifest's file holds.

    Raises:
        ExportError: If it cannot be read, or lacks what no graph says.

    """
    try:
        content = parse_yaml(file.read_text(encoding="utf-8"))
    except FileNotFoundError as err:
        msg = f"{file}: there is no such file"
        raise ExportError(msg) from err
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as err:
        msg = f"{file}: cannot be read: {' '.join(str(err).split())}"
        raise ExportError(msg) from err
    if not isinstance(content, dict):
        msg = f"{file}: must be a mapping: a manifest, see docs/bundles.md"
        raise ExportError(msg)
    for key, kind in (("cameras", list), ("action", dict), ("decoder", dict)):
        if not isinstance(content.get(key), kind):
            msg = f"{file}: {key}: is missing: no graph says it; docs/bundles.md explains the keys"
            raise ExportError(msg)
    if content["decoder"].get("type") not in DECODER_GRAPHS:
        msg = f"{file}: decoder.type: must be one of {', '.join(DECODER_GRAPHS)}"
        raise ExportError(msg)
    return content


def sources(words: Sequence[str], content: Mapping[str, Any], where: Path) -> dict[str, Path]:
    """Return each graph's file by the graph's name, from `FILE` or `NAME=FILE ...`.

    Raises:
        ExportError: If the names are not those of the decoder, or a file is missing.

    """
    wanted = DECODER_GRAPHS[content["decoder"]["type"]]
    given: dict[str, Path] = {}
    for word in words:
        name, equals, file = word.partition("=")
        given[name if equals else wanted[0]] = Path(file if equals else word)
    if tuple(sorted(given)) != tuple(sorted(wanted)) or len(given) != len(words):
        usage = " ".join(f"{name}=FILE" for name in wanted) if len(wanted) > 1 else "FILE"
        kind = content["decoder"]["type"]
        msg = f"{where}: decoder.type: {kind} runs {', '.join(wanted)}: give {usage}"
        raise ExportError(msg)
    for path in given.values():
        if not path.is_file():
            msg = f"{path}: there is no such file"
            raise ExportError(msg)
    return {name: given[name] for name in wanted}


def given_tensor(content: Mapping[str, Any], graph: str, side: str, name: str) -> list[int] | None:
    """Return the shape that the manifest gives an input or output, if it does."""
    for entry in content.get("graphs") or ():
        if isinstance(entry, dict) and entry.get("name") == graph:
            tensor = (entry.get(side) or {}).get(name)
            shape = tensor.get("shape") if isinstance(tensor, dict) else tensor
            return list(shape) if isinstance(shape, list) else None
    return None


def output_names(content: Mapping[str, Any], graph: str) -> list[str]:
    """Return the names of a graph's outputs: those given, or those that the decoder reads."""
    for entry in content.get("graphs") or ():
        if isinstance(entry, dict) and entry.get("name") == graph and entry.get("outputs"):
            return list(entry["outputs"])
    decoder = content["decoder"]
    kind = decoder["type"]
    default = {"direct": "actions", "flow": "velocity", "diffusion": "prediction"}
    own = decoder.get("output", default.get(kind, "logits"))
    if kind == "action_tokens":
        return [own, *decoder.get("cache" if graph == "prefix" else "new_cache", {})]
    return list(decoder.get("cache", {})) if graph == "prefix" else [own]


def write(
    content: Mapping[str, Any], entries: Sequence[dict[str, Any]], file: Path, folder: Path
) -> Bundle:
    """Write the bundle's manifest beside its graphs, and copy the tokenizer there.

    Args:
        content: What `read` returned.
        entries: The graphs as they are, entries of `graphs`.
        file: The manifest's file, for errors; the tokenizer lies relative to it.
        folder: Of the bundle, which holds the graphs.

    Raises:
        ExportError: If what is written contradicts the graphs, or is at fault by itself.

    """
    filled = {"schema_version": 2, "name": folder.name, **content}
    filled.pop("files", None)
    filled["graphs"] = [_merged(entry, content, file) for entry in entries]
    shapes = {
        side: {n: t["shape"] for entry in entries for n, t in entry[side].items()}
        for side in ("inputs", "outputs")
    }
    steps = (content.get("history") or {}).get("steps", 1)
    filled["cameras"] = [
        _camera(camera, shapes["inputs"], steps) if isinstance(camera, dict) else camera
        for camera in content["cameras"]
    ]
    filled["action"] = _action(content, shapes["outputs"])
    if isinstance(content.get("instruction"), dict):
        filled["instruction"] = _instruction(content["instruction"], shapes["inputs"], file, folder)
    filled["source"] = {**(content.get("source") or {}), "exported by": "vla_ros export"}
    try:
        return write_manifest(folder, filled)
    except BundleError as err:  # names the new manifest: what is to be mended is the one given
        raise ExportError(str(err).replace(str(folder / MANIFEST), str(file))) from err


def _merged(entry: dict[str, Any], content: Mapping[str, Any], file: Path) -> dict[str, Any]:
    """Return a graph's entry, after comparing it with what the manifest says of it.

    Raises:
        ExportError: If they differ.

    """
    for index, given in enumerate(content.get("graphs") or ()):
        if not isinstance(given, dict) or given.get("name") != entry["name"]:
            continue
        for side in ("inputs", "outputs"):
            for name, tensor in (given.get(side) or {}).items():
                where = f"{file}: graphs[{index}].{side}.{name}"
                if name not in entry[side]:
                    msg = f"{where}: the graph has {', '.join(entry[side])}"
                    raise ExportError(msg)
                own = entry[side][name]
                shape = tensor.get("shape") if isinstance(tensor, dict) else tensor
                kind = tensor.get("type", own["type"]) if isinstance(tensor, dict) else own["type"]
                if list(shape or own["shape"]) != own["shape"] or kind != own["type"]:
                    actual = f"{own['type']} {own['shape']}"
                    msg = f"{where}: is {kind} {shape}, but the graph's is {actual}"
                    raise ExportError(msg)
    return entry


def _camera(camera: Mapping[str, Any], inputs: Mapping[str, Any], steps: int) -> dict[str, Any]:
    shape = inputs.get(camera.get("input", camera.get("name")))
    found = {"source_aspect": None, "crop": [0.0, 0.0, 1.0, 1.0], **camera}
    if shape is not None and steps > 1:
        shape = [shape[0], *shape[2:]]
    if shape is not None and len(shape) == _IMAGE_AXES:
        layout = camera.get("layout") or ("nchw" if shape[1] == 3 else "nhwc")  # noqa: PLR2004
        found["layout"] = layout
        found.setdefault("size", shape[2:] if layout == "nchw" else shape[1:3])
    if found["source_aspect"] is None:
        del found["source_aspect"]
        if isinstance(found.get("size"), list) and len(found["size"]) == 2:  # noqa: PLR2004
            found["source_aspect"] = found["size"][1] / found["size"][0]
    return found


def _action(content: Mapping[str, Any], outputs: Mapping[str, Any]) -> dict[str, Any]:
    action = dict(content["action"])
    last = outputs.get(output_names(content, DECODER_GRAPHS[content["decoder"]["type"]][-1])[0])
    if (
        "chunk" not in action
        and last is not None
        and content["decoder"]["type"] in {"direct", "flow"}
    ):
        action["chunk"] = last[1]
    return action


def _instruction(
    given: Mapping[str, Any], inputs: Mapping[str, Any], file: Path, folder: Path
) -> dict[str, Any]:
    found = dict(given)
    shape = inputs.get(given.get("input", "tokens"))
    if shape is not None and len(shape) == TEXT_AXES:
        found.setdefault("length", shape[1])
    if given.get("tokenizer") is not None:
        source = file.parent / str(given["tokenizer"])
        if not source.is_file():
            msg = f"{file}: instruction.tokenizer: there is no file {source}"
            raise ExportError(msg)
        shutil.copyfile(source, folder / source.name)
        found["tokenizer"] = source.name
    return found
