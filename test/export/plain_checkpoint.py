"""A checkpoint as lerobot 0.4.4 writes it, but for the weights, which reading never opens."""

import json
from pathlib import Path

import numpy as np

STATE, ACTION = "observation.state", "action"
FRONT = "observation.images.front"


def write_safetensors(file: Path, tensors: dict[str, np.ndarray]) -> None:
    """Write float32 tensors in the safetensors format."""
    header, data = {}, b""
    for name, value in tensors.items():
        content = np.ascontiguousarray(value, np.float32).tobytes()
        header[name] = {
            "dtype": "F32",
            "shape": list(np.shape(value)),
            "data_offsets": [len(data), len(data) + len(content)],
        }
        data += content
    text = json.dumps(header).encode()
    file.write_bytes(len(text).to_bytes(8, "little") + text + data)


def statistics() -> dict[str, np.ndarray]:
    """Return statistics of two joints and a gripper, and of a camera."""
    return {
        f"{STATE}.mean": np.array([0.5, -0.25, 10.0]),
        f"{STATE}.std": np.array([0.5, 2.0, 20.0]),
        f"{ACTION}.mean": np.array([1.0, 2.0, 50.0]),
        f"{ACTION}.std": np.array([2.0, 4.0, 25.0]),
        f"{FRONT}.mean": np.array([0.25, 0.5, 0.75]).reshape(3, 1, 1),
        f"{FRONT}.std": np.array([0.5, 0.25, 0.125]).reshape(3, 1, 1),
        f"{FRONT}.min": np.zeros((3, 1, 1)),
        f"{FRONT}.max": np.full((3, 1, 1), 0.5),
    }


def write_checkpoint(
    folder: Path,
    *,
    kind: str = "act",
    modes: dict[str, str] | None = None,
    numbers: dict[str, np.ndarray] | None = None,
    steps: list[dict] | None = None,
    rename: dict[str, str] | None = None,
) -> Path:
    """Write a checkpoint of one camera, a state and an action of three entries."""
    folder.mkdir(parents=True, exist_ok=True)
    state = {"type": "STATE", "shape": [3]}
    camera = {"type": "VISUAL", "shape": [3, 48, 64]}
    action = {"type": "ACTION", "shape": [3]}
    inputs = {STATE: state, FRONT: camera}
    config = {"type": kind, "input_features": inputs, "output_features": {ACTION: action}}
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "model.safetensors").write_bytes(b"")
    modes = {"VISUAL": "MEAN_STD", "STATE": "MEAN_STD", "ACTION": "MEAN_STD"} | (modes or {})
    settings = {"eps": 1e-8, "features": {**inputs, ACTION: action}, "norm_map": modes}
    for name, normalizer in (("pre", "normalizer"), ("post", "unnormalizer")):
        state_file = f"policy_{name}processor_step_{normalizer}.safetensors"
        normal = {"registry_name": f"{normalizer}_processor", "config": settings}
        processor = [
            {"registry_name": "to_batch_processor", "config": {}},
            {"registry_name": "device_processor", "config": {"device": "cuda"}},
            *(steps or [] if name == "pre" else []),
            {**normal, "state_file": state_file},
        ]
        if rename and name == "pre":
            step = {"registry_name": "rename_observations_processor"}
            processor.insert(0, {**step, "config": {"rename_map": rename}})
        (folder / f"policy_{name}processor.json").write_text(
            json.dumps({"name": name, "steps": processor})
        )
        write_safetensors(folder / state_file, statistics() if numbers is None else numbers)
    return folder
