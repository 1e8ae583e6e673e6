"""Models of the size of SmolVLA-450M and pi0, random weights: ms a chunk on a GPU, each way to run.

    python bench/gpu.py                      # both models: needs a GPU, torch and onnxruntime-gpu
    python bench/gpu.py --model tiny --device cpu    # the script itself, anywhere

Each model is a vision tower and a language model (`prefix`, once a chunk) whose keys and values an
action expert attends to (`step`, ten times a chunk): flow matching as in SmolVLA (arXiv 2506.01844)
and pi0 (arXiv 2410.24164). Positions are left out, which cost next to nothing. Widths and depths
are those of the published configurations. The floor is the time in which the GPU could read the
weights that a chunk needs, at the speed at which it copies memory, measured here.
"""

import argparse
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

STEPS, CHUNK, TEXT = 10, 50, 48


@dataclass(frozen=True)
class Size:
    """Widths and depths."""

    pixels: int
    patch: int
    shuffle: int  # patches that become one token, along each axis
    cameras: int
    vision: tuple[int, int, int, int]  # layers, width, heads, width of the MLP
    language: tuple[
        int, int, int, int, int, int
    ]  # layers, width, heads, of K and V, their width, MLP
    expert: tuple[int, int]  # width, MLP
    action: int = 32


SIZES = {
    "smolvla": Size(512, 16, 4, 3, (12, 768, 12, 3072), (16, 960, 15, 5, 64, 2560), (720, 2048)),
    "pi0": Size(224, 14, 1, 3, (27, 1152, 16, 4304), (18, 2048, 8, 1, 256, 16384), (1024, 4096)),
    "tiny": Size(32, 8, 2, 2, (2, 32, 2, 64), (2, 32, 4, 2, 8, 64), (16, 32)),
}


def build(size: Size):
    """Return the modules `prefix` and `step`, and their example inputs by name."""
    import torch
    from torch import nn
    from torch.nn import functional

    layers, width, heads, kv_heads, head, hidden = size.language

    def heads_of(x, count):
        return x.unflatten(-1, (count, -1)).transpose(1, 2)

    class Mlp(nn.Module):
        def __init__(self, dim, inner, *, gated):
            super().__init__()
            self.up = nn.Linear(dim, inner, bias=False)
            self.gate = nn.Linear(dim, inner, bias=False) if gated else None
            self.down = nn.Linear(inner, dim, bias=False)

        def forward(self, x):
            if self.gate is None:
                return self.down(functional.gelu(self.up(x)))
            return self.down(functional.silu(self.gate(x)) * self.up(x))

    class Block(nn.Module):
        """Attention to itself and, where given, to cached keys and values before it."""

        def __init__(self, dim, count, kv_count, head_dim, inner, *, gated):
            super().__init__()
            self.count, self.kv_count = count, kv_count
            self.norms = nn.ModuleList([nn.LayerNorm(dim) for _ in range(2)])
            self.q = nn.Linear(dim, count * head_dim, bias=False)
            self.k = nn.Linear(dim, kv_count * head_dim, bias=False)
            self.v = nn.Linear(dim, kv_count * head_dim, bias=False)
            self.o = nn.Linear(count * head_dim, dim, bias=False)
            self.mlp = Mlp(dim, inner, gated=gated)

        def forward(self, x, cache=None):
            y = self.norms[0](x)
            keys = own_keys = heads_of(self.k(y), self.kv_count)
            values = own_values = heads_of(self.v(y), self.kv_count)
            if cache is not None:
                keys = torch.cat([cache[0], keys], 2)
                values = torch.cat([cache[1], values], 2)
            share = self.count // self.kv_count
            attended = functional.scaled_dot_product_attention(
                heads_of(self.q(y), self.count),
                keys.repeat_interleave(share, 1),
                values.repeat_interleave(share, 1),
            )
            x = x + self.o(attended.transpose(1, 2).flatten(2))
            return x + self.mlp(self.norms[1](x)), own_keys, own_values

    class Prefix(nn.Module):
        def __init__(self):
            super().__init__()
            count, dim, vision_heads, inner = size.vision
            self.patches = nn.Conv2d(3, dim, size.patch, size.patch)
            args = (dim, vision_heads, vision_heads, dim // vision_heads, inner)
            self.vision = nn.ModuleList([Block(*args, gated=False) for _ in range(count)])
            self.project = nn.Linear(dim * size.shuffle**2, width, bias=False)
            self.words = nn.Embedding(4096, width)
            args = (width, heads, kv_heads, head, hidden)
            self.language = nn.ModuleList([Block(*args, gated=True) for _ in range(layers)])

        def forward(self, images, tokens):
            x = self.patches(images)
            side = x.shape[-1]
            x = x.flatten(2).transpose(1, 2)
            for block in self.vision:
                x, _, _ = block(x)
            s = size.shuffle
            x = x.reshape(size.cameras, side // s, s, side // s, s, -1).transpose(2, 3)
            x = self.project(x.reshape(1, size.cameras * (side // s) ** 2, -1))
            x = torch.cat([x, self.words(tokens)], 1)
            keys, values = [], []
            for block in self.language:
                x, k, v = block(x)
                keys.append(k)
                values.append(v)
            return torch.stack(keys), torch.stack(values)

    class Step(nn.Module):
        def __init__(self):
            super().__init__()
            dim, inner = size.expert
            self.enter = nn.Linear(size.action + 1, dim)
            args = (dim, heads, kv_heads, head, inner)
            self.blocks = nn.ModuleList([Block(*args, gated=True) for _ in range(layers)])
            self.leave = nn.Linear(dim, size.action)

        def forward(self, noise, time, keys, values):
            x = self.enter(torch.cat([noise, time.expand(1, CHUNK, 1)], -1))
            for index, block in enumerate(self.blocks):
                x, _, _ = block(x, (keys[index], values[index]))
            return self.leave(x)

    torch.manual_seed(0)
    side = size.pixels // size.patch // size.shuffle
    length = size.cameras * side**2 + TEXT
    cache = (layers, 1, kv_heads, length, head)
    prefix_inputs = {
        "images": torch.randn(size.cameras, 3, size.pixels, size.pixels),
        "tokens": torch.zeros(1, TEXT, dtype=torch.int64),
    }
    step_inputs = {
        "noise": torch.randn(1, CHUNK, size.action),
        "time": torch.ones(1, 1, 1),
        "keys": torch.zeros(cache),
        "values": torch.zeros(cache),
    }
    return Prefix().eval(), Step().eval(), prefix_inputs, step_inputs


def timed(run: Callable[[], object], repeats: int) -> float:
    """Return the median time of a call in ms, after three that do not count."""
    times = []
    for _ in range(repeats + 3):
        begin = time.perf_counter()
        run()
        times.append((time.perf_counter() - begin) * 1e3)
    return statistics.median(times[3:])


def with_torch(prefix, step, first, second, noise) -> Callable[[], np.ndarray]:
    """Return a function that makes a chunk in torch."""
    import torch

    def run() -> np.ndarray:
        with torch.inference_mode():
            keys, values = prefix(**first)
            x = noise
            for index in range(STEPS):
                at = torch.full_like(second["time"], 1.0 - index / STEPS)
                x = x - step(x, at, keys, values) / STEPS
            return x.float().cpu().numpy()

    return run


def with_onnx(folder: Path, specs: dict, options, feed: dict) -> Callable[[], np.ndarray]:
    """Return a function that makes a chunk with this project's backend."""
    from vla_ros.policy.backends.onnx import OnnxBackend
    from vla_ros.policy.manifest import Graph

    graphs = {
        name: OnnxBackend(
            folder / f"{name}.onnx", Graph.model_validate({"name": name, **spec}), options
        )
        for name, spec in specs.items()
    }
    kind = feed["noise"].dtype.type

    def run() -> np.ndarray:
        cache = graphs["prefix"].run({name: feed[name] for name in ("images", "tokens")})
        x = feed["noise"]
        for index in range(STEPS):
            at = np.full((1, 1, 1), 1.0 - index / STEPS, kind)
            outputs = graphs["step"].run({"noise": x, "time": at, **cache})
            velocity = np.asarray(outputs["velocity"])
            x = (x - velocity / STEPS).astype(kind)
        return x.astype(np.float32)

    return run


def bandwidth(device: str) -> float:
    """Return how fast memory is read and written, in bytes/s."""
    import torch

    source = torch.empty(1 << 28, dtype=torch.uint8, device=device)
    target = torch.empty_like(source)

    def copy() -> None:
        for _ in range(8):
            target.copy_(source)
        if device == "cuda":
            torch.cuda.synchronize()

    return 2 * 8 * source.numel() / (timed(copy, 5) / 1e3)


def measure(name: str, device: str, repeats: int, folder: Path) -> dict[str, object]:
    """Measure one model; return ms a chunk by runtime, and the greatest difference to torch."""
    import torch

    from vla_ros.policy.backends import BackendOptions

    half = device == "cuda"
    kind = torch.float16 if half else torch.float32
    prefix, step, first, second = build(SIZES[name])
    prefix, step = (module.to(device, kind) for module in (prefix, step))

    def place(inputs):
        return {
            n: v.to(device, kind if v.is_floating_point() else v.dtype) for n, v in inputs.items()
        }

    first, second = place(first), place(second)
    sizes = [sum(p.numel() * p.element_size() for p in m.parameters()) for m in (prefix, step)]
    read = sizes[0] + STEPS * sizes[1]
    result: dict[str, object] = {
        "parameters": sum(p.numel() for m in (prefix, step) for p in m.parameters()),
        "floor_ms": 1e3 * read / bandwidth(device),
    }
    eager = with_torch(prefix, step, first, second, second["noise"])
    expected = eager()
    result["torch_eager_ms"] = timed(eager, repeats)
    specs = {}
    for graph, module, inputs, outputs in (
        ("prefix", prefix, first, ["keys", "values"]),
        ("step", step, second, ["velocity"]),
    ):
        with torch.inference_mode():
            values = module(**inputs)
        values = values if isinstance(values, tuple) else (values,)
        torch.onnx.export(
            module,
            (),
            str(folder / f"{graph}.onnx"),
            kwargs=inputs,
            input_names=list(inputs),
            output_names=outputs,
            dynamo=True,
            verbose=False,
        )

        def said(value):
            return {"shape": list(value.shape), "type": str(value.dtype).split(".")[-1]}

        specs[graph] = {
            "file": f"{graph}.onnx",
            "inputs": {n: said(v) for n, v in inputs.items()},
            "outputs": {n: said(v) for n, v in zip(outputs, values, strict=True)},
        }
    feed = {n: v.cpu().numpy() for n, v in (first | {"noise": second["noise"]}).items()}
    ways = {"onnx_cpu": BackendOptions(threads=2)}
    if half:
        ways = {
            "cuda": BackendOptions(provider="cuda"),
            "cuda_graph": BackendOptions(provider="cuda", cuda_graph=True),
            "tensorrt": BackendOptions(provider="tensorrt", precision="fp16", cache_dir=folder),
        }
    for way, options in ways.items():
        try:
            run = with_onnx(folder, specs, options, feed)
            result[f"{way}_error"] = float(np.abs(run() - expected).max())
            result[f"{way}_ms"] = timed(run, repeats)
        except (ValueError, RuntimeError) as err:  # BundleError, BackendError: said, and go on
            result[f"{way}_ms"] = f"not run: {err}"
    if half:
        torch.set_float32_matmul_precision("high")
        compiled = [torch.compile(module, mode="max-autotune") for module in (prefix, step)]
        result["torch_compile_ms"] = timed(
            with_torch(*compiled, first, second, second["noise"]), repeats
        )
    return result


def main() -> int:
    """Measure; print a line a model, and write JSON where asked."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", choices=SIZES, action="append")
    parser.add_argument("--device", default="cuda", choices=("cuda", "cpu"))
    parser.add_argument("--repeats", type=int, default=20)
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    try:
        import torch
    except ImportError:
        print("bench/gpu.py was not run: torch is not installed (requirements/learn.txt)")
        return 0
    if args.device == "cuda" and not torch.cuda.is_available():
        print("bench/gpu.py was not run: this machine has no GPU that torch can use")
        return 0
    results: dict[str, object] = {
        "device": torch.cuda.get_device_name() if args.device == "cuda" else "cpu",
        "torch": torch.__version__,
    }
    for name in args.model or ("smolvla", "pi0"):
        with tempfile.TemporaryDirectory() as folder:
            results[name] = measure(name, args.device, args.repeats, Path(folder))
        print(name, json.dumps(results[name]), flush=True)
    if args.json is not None:
        args.json.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
