"""Export a LeRobot checkpoint to a bundle: `vla_ros export lerobot CHECKPOINT --out DIR`.

lerobot's pins conflict with the rest, so that it has an environment of its own, `.venv-lerobot`.
Where this one has no lerobot, the command runs itself in that one.
"""

import argparse
import importlib.util
import os
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from vla_ros.export import finish
from vla_ros.export import meaning as meanings
from vla_ros.export.error import ExportError
from vla_ros.export.lerobot.checkpoint import ENVIRONMENT, Checkpoint, read_checkpoint
from vla_ros.export.meaning import Meaning
from vla_ros.paths import share

TOKENIZER_FILE = "tokenizer.json"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments of `vla_ros export lerobot`."""
    parser.add_argument("checkpoint", type=Path, help="folder with config.json (pretrained_model)")
    finish.add_arguments(parser)
    meanings.add_arguments(parser)
    parser.add_argument(
        "--language-model",
        type=Path,
        metavar="FOLDER",
        help="tokenizer (SmolVLA: config.json too) of the VLM, for where the hub is out of reach",
    )


def run(args: argparse.Namespace) -> int:
    """Carry out `vla_ros export lerobot`."""
    # What is wrong with the checkpoint or missing from the flags is said before lerobot is loaded.
    checkpoint = read_checkpoint(args.checkpoint)
    meaning = meanings.read_meaning(
        args,
        state_size=checkpoint.state_size,
        action_size=checkpoint.action_size,
        source=str(checkpoint.folder),
    )
    unknown = sorted(set(meaning.cameras) - {camera.name for camera in checkpoint.cameras})
    if unknown:
        known = ", ".join(camera.name for camera in checkpoint.cameras)
        msg = f"{args.meaning}: cameras: {unknown[0]!r}: the checkpoint has {known}"
        raise ExportError(msg)
    if args.language_model is not None and not args.language_model.is_dir():
        msg = f"--language-model {args.language_model}: there is no such folder"
        raise ExportError(msg)
    folders = [checkpoint.folder, args.language_model]
    finish.check(args, [folder for folder in folders if folder is not None])
    if importlib.util.find_spec("lerobot") is None:
        return _run_elsewhere(args.argv)
    return export(checkpoint, meaning, args)


def _run_elsewhere(argv: Sequence[str]) -> int:
    """Run this command again in lerobot's environment; return its exit code.

    Args:
        argv: The command's words.

    Raises:
        ExportError: If there is none.

    """
    python = share() / ENVIRONMENT / "bin" / "python"
    if not python.exists():
        msg = (
            "lerobot is not installed here: `make .venv-lerobot` makes an environment with it in "
            f"{share()}, which this command then uses by itself"
        )
        raise ExportError(msg)
    command = [str(python), "-m", "vla_ros.cli", *argv]
    root = str(Path(__file__).resolve().parents[3])
    path = os.pathsep.join(p for p in (root, os.environ.get("PYTHONPATH", "")) if p)
    environment = {**os.environ, "PYTHONPATH": path}
    return subprocess.run(command, check=False, env=environment).returncode  # noqa: S603 - our own


def export(checkpoint: Checkpoint, meaning: Meaning, args: argparse.Namespace) -> int:
    """Write the bundle of a checkpoint, compare it, and report; return the exit code."""
    from vla_ros.export.lerobot.original import LeRobotOriginal
    from vla_ros.export.lerobot.reference import LeRobot
    from vla_ros.export.torch_graph import write_onnx
    from vla_ros.policy.bundle import MANIFEST, BundleError, write_manifest

    def make() -> finish.Made:
        lerobot = LeRobot.load(checkpoint, meaning, args.language_model)
        with lerobot.exportable():
            for graph in lerobot.model.graphs:
                write_onnx(graph, args.out)
            entries = [graph.entry() for graph in lerobot.model.graphs]
        tokens = None
        if checkpoint.tokenizer is not None:
            tokens = lerobot.save_tokenizer(args.out / TOKENIZER_FILE)
        content = manifest(lerobot, entries, tokens)
        try:
            bundle = write_manifest(args.out, content)
        except BundleError as err:
            fault = str(err).removeprefix(f"{args.out / MANIFEST}: ")
            msg = f"{checkpoint.folder}: no manifest can say what it is by these flags: {fault}"
            raise ExportError(msg) from err
        return bundle, LeRobotOriginal(lerobot)

    return finish.finish(make, args)


def manifest(
    lerobot: Any, entries: list[dict[str, Any]], tokens: tuple[str, str | None] | None
) -> dict[str, Any]:
    """Return the manifest of a checkpoint, without the hashes of its files.

    Args:
        lerobot: The `LeRobot`.
        entries: Its graphs.
        tokens: Padding and unknown token of the tokenizer, where there is one.

    """
    checkpoint, model, meaning = lerobot.checkpoint, lerobot.model, lerobot.meaning
    content: dict[str, Any] = {"schema_version": 2, "name": meaning.name}
    if model.history > 1:
        period = 1.0 / meaning.action["rate_hz"]
        content["history"] = {"steps": model.history, "period_s": period}
    content["cameras"] = [
        {
            "name": camera.name,
            "size": list(camera.size),
            "source_aspect": camera.size[1] / camera.size[0],
            "crop": [0.0, 0.0, 1.0, 1.0],
            "layout": "nchw",
            "scale": 1.0 / 255.0,
            "mean": list(camera.mean),
            "std": list(camera.std),
            **meaning.cameras.get(camera.name, {}),
        }
        for camera in checkpoint.cameras
    ]
    if checkpoint.state is not None:
        content["state"] = {
            "names": list(meaning.state_names),
            "normalisation": meaning.state_units.convert(checkpoint.state, inverse=False),
            "size": model.state_size,
        }
    if checkpoint.tokenizer is not None and tokens is not None:
        content["instruction"] = {
            "tokenizer": TOKENIZER_FILE,
            "input": "tokens",
            "mask_input": "tokens_mask",
            "length": model.tokens,
            "pad_token": tokens[0],
            "unknown_token": tokens[1],
            "suffix": checkpoint.tokenizer.suffix,
        }
    content["graphs"] = entries
    content["decoder"] = model.decoder
    content["action"] = {
        **meaning.action,
        "chunk": model.chunk,
        "normalisation": meaning.action_units.convert(checkpoint.action, inverse=True),
        "size": model.action_size,
    }
    content["source"] = {
        "exported by": "vla_ros export lerobot",
        "checkpoint": checkpoint.folder.name,
        "policy": checkpoint.kind,
        "config": {
            key: value
            for key, value in checkpoint.config.items()
            if key in {"repo_id", "license", "tags", "n_action_steps", "chunk_size", "horizon"}
        },
    }
    return content
