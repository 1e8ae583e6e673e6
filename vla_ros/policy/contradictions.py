"""Keys of a manifest that contradict one another, each with the reason and the remedy."""

from collections.abc import Iterator, Mapping

import numpy as np

from vla_ros.policy.manifest import (
    DECODER_GRAPHS,
    GRIPPER_NAME,
    POSITION_NAMES,
    ROTATION_NAMES,
    STATISTICS,
    Action,
    ActionTokensDecoder,
    Decoder,
    DiffusionDecoder,
    DirectDecoder,
    FlowDecoder,
    Graph,
    History,
    Instruction,
    Manifest,
    MeanStd,
    MinMax,
    Normalisation,
    Quantiles,
    State,
    Tensor,
)

_FLOATS = ("float32", "float16")
_INTEGERS = ("int64", "int32")
_ANY = (*_FLOATS, *_INTEGERS, "uint8", "bool")

Faults = Iterator[tuple[str, str]]


def contradictions(manifest: Manifest) -> Faults:
    """Yield each key that contradicts another, and why."""
    of_sections = list(_section_faults(manifest))
    yield from of_sections
    if not of_sections:
        # The shapes follow from the sections.
        yield from _tensor_faults(manifest)
    for key, name in manifest.file_names.items():
        if name not in manifest.files:
            yield key, f"{name!r} has no SHA-256 under 'files'"


def _section_faults(manifest: Manifest) -> Faults:
    """Yield what is wrong with each section, and with the graphs but for their shapes."""
    yield from _history_faults(manifest.history)
    yield from _camera_faults(manifest)
    if manifest.state is not None:
        yield from _entry_faults("state", manifest.state)
    if manifest.instruction is not None:
        yield from _instruction_faults(manifest.instruction)
    yield from _action_faults(manifest.action)
    yield from _entry_faults("action", manifest.action)
    yield from _input_name_faults(manifest)
    yield from _graph_faults(manifest)
    yield from _decoder_faults(manifest)


def _history_faults(history: History) -> Faults:
    if history.steps > 1 and history.period_s is None:
        yield "history.period_s", f"is missing: history.steps is {history.steps}, how far apart?"
    if history.steps == 1 and history.period_s is not None:
        yield "history.period_s", "has no meaning with one step: leave it out"


def _camera_faults(manifest: Manifest) -> Faults:
    seen: set[str] = set()
    for index, camera in enumerate(manifest.cameras):
        if camera.name in seen:
            yield f"cameras[{index}].name", f"{camera.name!r} is taken by another camera"
        seen.add(camera.name)
        top, left, bottom, right = camera.crop
        if top >= bottom or left >= right:
            yield f"cameras[{index}].crop", "must be [top, left, bottom, right], and not empty"
        if camera.type == "uint8":
            plain = {"scale": 1.0, "mean": (0.0,) * 3, "std": (1.0,) * 3}
            for key, value in plain.items():
                if getattr(camera, key) != value:
                    yield (
                        f"cameras[{index}].{key}",
                        "is of type float32 alone; uint8 passes pixels as they are: leave it out",
                    )


def _entry_faults(key: str, section: State | Action) -> Faults:
    """Yield what is wrong with the names of a vector's entries and with their statistics."""
    count = len(section.names)
    if len(set(section.names)) != count:
        yield f"{key}.names", "names an entry twice"
    if section.size is not None and section.size < count:
        yield f"{key}.size", f"is {section.size}, less than the {count} names"
    yield from _normalisation_faults(f"{key}.normalisation", section.normalisation, count)


def _normalisation_faults(key: str, spec: Normalisation, count: int) -> Faults:
    lengths = {name: len(getattr(spec, name)) for name in STATISTICS[spec.type]}
    if set(lengths.values()) - {count}:
        for name, length in lengths.items():
            if length != count:
                yield f"{key}.{name}", f"has {length} values for {count} names"
    elif isinstance(spec, MeanStd):
        for index, std in enumerate(spec.std):
            if std + spec.eps == 0.0:
                yield f"{key}.std[{index}]", "is 0 and so is eps: nothing can be divided by it"
    elif isinstance(spec, MinMax | Quantiles):
        low, high = STATISTICS[spec.type]
        for index, (a, b) in enumerate(zip(getattr(spec, low), getattr(spec, high), strict=True)):
            if a > b:
                yield f"{key}.{low}[{index}]", f"is {a}, more than {high}[{index}], which is {b}"


def _instruction_faults(instruction: Instruction) -> Faults:
    if instruction.tokenizer is not None:
        if instruction.length == 0:
            yield "instruction.length", "is missing: how many tokens, padded, the graph takes"
        return
    if instruction.length:
        yield "instruction.length", "has no meaning without a tokenizer: leave it out"
    if instruction.mask_input is not None:
        yield "instruction.mask_input", "has no meaning without a tokenizer: leave it out"


def _action_faults(action: Action) -> Faults:
    takes_reference = action.type in {"delta_pose", "joint_delta"}
    if takes_reference and action.reference is None:
        yield "action.reference", f"is missing: what is a {action.type} relative to?"
    if not takes_reference and action.reference is not None:
        yield "action.reference", f"has no meaning for type {action.type}: leave it out"
    yield from _cartesian_faults(action) if action.is_cartesian else _joint_faults(action)
    if action.gripper is not None and action.gripper.closed_m >= action.gripper.open_m:
        yield "action.gripper.closed_m", "must be less than action.gripper.open_m"


def _cartesian_faults(action: Action) -> Faults:
    if action.frame is None:
        yield "action.frame", f"is missing: in which frame is a {action.type} written?"
    if action.type == "pose" and action.frame == "tool":
        yield "action.frame", "must be base for type pose; relative to the tool is delta_pose"
    if action.type == "twist" and action.rotation not in {None, "rotation_vector"}:
        yield "action.rotation", "must be rotation_vector or null for type twist"
    gripper = () if action.gripper is None else (GRIPPER_NAME,)
    expected = (*POSITION_NAMES, *ROTATION_NAMES[action.rotation], *gripper)
    if action.names != expected:
        kind = f"type {action.type}, rotation {action.rotation or 'null'}"
        gripped = "a gripper" if gripper else "gripper null"
        yield "action.names", f"must be {list(expected)} for {kind} and {gripped}"


def _joint_faults(action: Action) -> Faults:
    for key in ("frame", "rotation"):
        if getattr(action, key) is not None:
            yield f"action.{key}", f"has no meaning for type {action.type}: leave it out"
    if action.gripper is not None and (action.names[-1] != GRIPPER_NAME or len(action.names) == 1):
        yield "action.names", "must be the joints and then 'gripper', as there is a gripper"
    if action.gripper is None and GRIPPER_NAME in action.names:
        yield "action.gripper", "is null, but action.names has 'gripper': what does it mean?"


def _input_name_faults(manifest: Manifest) -> Faults:
    """Yield the sections that are fed to an input which another one has taken."""
    named = [(f"cameras[{i}].input", camera.input) for i, camera in enumerate(manifest.cameras)]
    if manifest.state is not None:
        named.append(("state.input", manifest.state.input))
    if manifest.instruction is not None:
        named.append(("instruction.input", manifest.instruction.input))
        if manifest.instruction.mask_input is not None:
            named.append(("instruction.mask_input", manifest.instruction.mask_input))
    taken = {name: f"decoder.{key}" for key, name in _decoder_inputs(manifest.decoder).items()}
    for key, name in named:
        if name in taken:
            yield key, f"{name!r} is taken by {taken[name]}"
        taken.setdefault(name, key)


def _decoder_inputs(decoder: Decoder) -> dict[str, str]:
    """Return the inputs of `step` that the decoder feeds, by their keys in its section."""
    if isinstance(decoder, DirectDecoder):
        return {}
    if isinstance(decoder, ActionTokensDecoder):
        inputs = {"token": decoder.token, "position": decoder.position}
    else:
        inputs = {"noise": decoder.noise, "time": decoder.time}
    return inputs | {f"cache.{output}": name for output, name in decoder.cache.items()}


def _graph_faults(manifest: Manifest) -> Faults:
    """Yield what is wrong with the graphs as such: which there are, and what runs them."""
    wanted = DECODER_GRAPHS[manifest.decoder.type]
    names = [graph.name for graph in manifest.graphs]
    for name in wanted:
        if name not in names:
            yield "graphs", f"lacks the graph {name!r} of decoder {manifest.decoder.type}"
    for index, graph in enumerate(manifest.graphs):
        where = f"graphs[{index}]"
        if graph.name not in wanted:
            yield (
                f"{where}.name",
                f"is {graph.name!r}, but decoder {manifest.decoder.type} runs {', '.join(wanted)}",
            )
        if graph.name in names[:index]:
            yield f"{where}.name", f"{graph.name!r} is taken by another graph"
        yield from _backend_faults(where, graph, manifest)


def _backend_faults(where: str, graph: Graph, manifest: Manifest) -> Faults:
    needless = f"has no meaning for backend {graph.backend}: leave it out"
    instruction = manifest.instruction
    if graph.backend in {"onnx", "torch"}:
        if graph.file is None:
            yield f"{where}.file", f"is missing: backend {graph.backend} runs a file"
        if instruction is not None and instruction.tokenizer is None:
            yield (
                "instruction.tokenizer",
                f"is null, but {where} has backend {graph.backend}, which takes tokens, not text",
            )
    elif graph.file is not None:
        yield f"{where}.file", needless
    if graph.backend != "triton" and graph.model is not None:
        yield f"{where}.model", needless
    if graph.backend == "openpi" and manifest.decoder.type != "direct":
        yield f"{where}.backend", "openpi gives whole chunks: use decoder direct with it"


def _decoder_faults(manifest: Manifest) -> Faults:
    decoder, action = manifest.decoder, manifest.action
    used: dict[str, str] = {}
    for key, name in _decoder_inputs(decoder).items():
        if name in used:
            yield f"decoder.{key}", f"{name!r} is taken by decoder.{used[name]}"
        used.setdefault(name, key)
    if isinstance(decoder, DiffusionDecoder):
        yield from _diffusion_faults(decoder, action)
    if isinstance(decoder, ActionTokensDecoder):
        yield from _action_tokens_faults(decoder)


def _diffusion_faults(decoder: DiffusionDecoder, action: Action) -> Faults:
    if decoder.steps > decoder.train_steps:
        yield "decoder.steps", f"is {decoder.steps}, more than decoder.train_steps"
    if decoder.beta_start > decoder.beta_end:
        yield "decoder.beta_start", "must be at most decoder.beta_end"
    needed = decoder.start + action.chunk
    if needed > decoder.horizon:
        yield (
            "decoder.horizon",
            f"is {decoder.horizon}, less than decoder.start + action.chunk, {needed}",
        )


def _action_tokens_faults(decoder: ActionTokensDecoder) -> Faults:
    if decoder.low >= decoder.high:
        yield "decoder.low", "must be less than decoder.high"
    if decoder.descending and decoder.first_token < decoder.bins - 1:
        yield (
            "decoder.first_token",
            f"is {decoder.first_token}: {decoder.bins} bins descending from it fall below 0",
        )
    for key, names, other in (
        ("cache", decoder.cache, "new_cache"),
        ("new_cache", decoder.new_cache, "cache"),
    ):
        for output, name in names.items():
            if name not in getattr(decoder, other).values():
                yield f"decoder.{key}.{output}", f"feeds {name!r}, which decoder.{other} does not"


class _Expected:
    """What one input or output must be: a shape, or only how many entries, and the types."""

    def __init__(
        self,
        types: tuple[str, ...],
        *,
        shape: tuple[int, ...] | None = None,
        entries: int | None = None,
    ) -> None:
        self.types = types
        self.shape = shape
        self.entries = entries

    def faults(self, key: str, tensor: Tensor) -> Faults:
        shape = list(tensor.shape)
        if self.shape is not None and tensor.shape != self.shape:
            yield key, f"is {shape}, but the rest of the manifest makes it {list(self.shape)}"
        if self.entries is not None and int(np.prod(tensor.shape)) != self.entries:
            yield key, f"is {shape}, but must hold {self.entries} number"
        if tensor.type not in self.types:
            yield f"{key}.type", f"is {tensor.type}, but must be {' or '.join(self.types)}"


_TYPES_TAKEN = {
    "float32": _FLOATS,
    "int64": _INTEGERS,
    # Exporters of language models write masks as integers as often as not.
    "bool": ("bool", *_INTEGERS),
    "uint8": ("uint8",),
    "string": ("string",),
}


def _tensor_faults(manifest: Manifest) -> Faults:
    """Yield each input and output of a graph that is missing, unknown, or of another shape."""
    observed = {
        name: _Expected(_TYPES_TAKEN[tensor.type], shape=tensor.shape)
        for name, tensor in manifest.observation_inputs.items()
    }
    first = DECODER_GRAPHS[manifest.decoder.type][0]
    unused = [name for name in observed if all(name not in g.inputs for g in manifest.graphs)]
    for index, graph in enumerate(manifest.graphs):
        where = f"graphs[{index}]"
        fed = _fed(manifest) if graph.name == "step" else {}
        yield from _side_faults(f"{where}.inputs", graph.inputs, {**observed, **fed})
        for name in fed:
            if name not in graph.inputs:
                yield f"{where}.inputs.{name}", "is missing: the decoder feeds it"
        if graph.name == first:
            for name in unused:
                yield f"{where}.inputs.{name}", "is missing: the observation gives it"
        read = _read(manifest, graph.name)
        yield from _side_faults(f"{where}.outputs", graph.outputs, read)
        for name in read:
            if name not in graph.outputs:
                yield f"{where}.outputs.{name}", "is missing: the decoder reads it"
    yield from _cache_faults(manifest)


def _side_faults(key: str, tensors: Mapping[str, Tensor], known: Mapping[str, _Expected]) -> Faults:
    for name, tensor in tensors.items():
        if name in known:
            yield from known[name].faults(f"{key}.{name}", tensor)
        else:
            yield f"{key}.{name}", f"is unknown to the rest of the manifest: {', '.join(known)}"


def _actions_shape(manifest: Manifest) -> tuple[int, ...]:
    decoder, action = manifest.decoder, manifest.action
    chunk = decoder.horizon if isinstance(decoder, DiffusionDecoder) else action.chunk
    return (1, chunk, action.width)


def _fed(manifest: Manifest) -> dict[str, _Expected]:
    """Return what the decoder feeds to `step`."""
    decoder = manifest.decoder
    if isinstance(decoder, DirectDecoder):
        return {}
    inputs = {name: _Expected(_ANY) for name in decoder.cache.values()}
    if isinstance(decoder, ActionTokensDecoder):
        inputs[decoder.token] = _Expected(_INTEGERS, entries=1)
        inputs[decoder.position] = _Expected(_INTEGERS, entries=1)
    else:
        times = _FLOATS if isinstance(decoder, FlowDecoder) else (*_INTEGERS, *_FLOATS)
        inputs[decoder.noise] = _Expected(_FLOATS, shape=_actions_shape(manifest))
        inputs[decoder.time] = _Expected(times, entries=1)
    return inputs


def _read(manifest: Manifest, graph: str) -> dict[str, _Expected]:
    """Return what the decoder reads from a graph's outputs."""
    decoder = manifest.decoder
    if isinstance(decoder, DirectDecoder):
        return {decoder.output: _Expected(_FLOATS, shape=_actions_shape(manifest))}
    cached = {name: _Expected(_ANY) for name in decoder.cache}
    if isinstance(decoder, ActionTokensDecoder):
        logits = {decoder.output: _Expected(_FLOATS)}
        renewed = {name: _Expected(_ANY) for name in decoder.new_cache}
        return logits | (cached if graph == "prefix" else renewed)
    if graph == "prefix":
        return cached
    return {decoder.output: _Expected(_FLOATS, shape=_actions_shape(manifest))}


def _cache_faults(manifest: Manifest) -> Faults:
    """Yield what `step` takes from an output of another shape or type, and too few logits."""
    decoder = manifest.decoder
    if isinstance(decoder, DirectDecoder):
        return
    step = manifest.graph("step")
    passed = [("cache", "prefix", decoder.cache)]
    if isinstance(decoder, ActionTokensDecoder):
        passed.append(("new_cache", "step", decoder.new_cache))
    for key, giver, names in passed:
        for output, name in names.items():
            given, taken = manifest.graph(giver).outputs.get(output), step.inputs.get(name)
            if given is not None and taken is not None and given != taken:
                yield (
                    f"decoder.{key}.{output}",
                    (
                        f"is {given.type} {list(given.shape)}, but the input {name!r} of 'step' is "
                        f"{taken.type} {list(taken.shape)}"
                    ),
                )
    if isinstance(decoder, ActionTokensDecoder):
        last = decoder.first_token + (0 if decoder.descending else decoder.bins - 1)
        for index, graph in enumerate(manifest.graphs):
            logits = graph.outputs.get(decoder.output)
            if logits is not None and (not logits.shape or logits.shape[-1] <= last):
                yield (
                    f"graphs[{index}].outputs.{decoder.output}",
                    f"is {list(logits.shape)}, but its last axis must reach token {last}",
                )
