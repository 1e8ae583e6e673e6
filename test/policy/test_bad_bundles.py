"""Every kind of bad bundle is refused with one clear line that names the key and says what to do.

Each is made from a small good one by one change; where the change is not in a file's bytes, the
hashes are right, so that nothing but the check that is meant can refuse it. What lies outside the
folder is never opened, and no file is run.
"""

import os
import pickle
import re
import shutil
import subprocess
import sys
import time
import zipfile

import numpy as np
import onnx
import pytest
import yaml
from blank_bundles import DECODERS, content, write_bundle
from onnx import TensorProto, helper

from vla_ros.cli import main
from vla_ros.policy.bundle import Bundle, Limits, sha256, write_manifest
from vla_ros.policy.manifest import MANIFEST, BundleError


@pytest.fixture(scope="module")
def good(tmp_path_factory):
    folder = tmp_path_factory.mktemp("good")
    for decoder in DECODERS:
        write_bundle(folder / decoder, content(decoder))
    return folder


@pytest.fixture
def copied(good, tmp_path):
    def copy(decoder):
        folder = tmp_path / "bundle"
        shutil.copytree(good / decoder, folder)
        return folder

    return copy


def read(folder):
    return yaml.safe_load((folder / MANIFEST).read_text())


def save(folder, data):
    (folder / MANIFEST).write_text(yaml.safe_dump(data, sort_keys=False))


def put(value, *path):
    """Return a change that sets the manifest's value at `path`."""

    def change(folder):
        data = section = read(folder)
        for key in path[:-1]:
            section = section[key]
        section[path[-1]] = value
        save(folder, data)

    return change


def drop(*path):
    def change(folder):
        data = section = read(folder)
        for key in path[:-1]:
            section = section[key]
        del section[path[-1]]
        save(folder, data)

    return change


def text(old, new):
    """Return a change of the manifest's text."""

    def change(folder):
        file = folder / MANIFEST
        before = file.read_text()
        assert old in before
        file.write_text(before.replace(old, new, 1))

    return change


def whole(data):
    """Return a change that makes the manifest these bytes."""
    return lambda folder: (folder / MANIFEST).write_bytes(data)


def both(*changes):
    return lambda folder: [change(folder) for change in changes]


def rehash(folder, name):
    put(sha256(folder / name), "files", name)(folder)


def replaced(name, data):
    """Return a change of a file's bytes, with the right hash."""

    def change(folder):
        (folder / name).write_bytes(data)
        rehash(folder, name)

    return change


def graph(change_model, name="policy.onnx"):
    """Return a change of an ONNX graph, with the right hash."""

    def change(folder):
        model = onnx.load(folder / name)
        change_model(model)
        (folder / name).write_bytes(model.SerializeToString())
        rehash(folder, name)

    return change


def external(location):
    """Return a change that lets a constant of the graph lie in another file."""

    def change_model(model):
        constant = model.graph.initializer[0]
        constant.ClearField("raw_data")
        constant.data_location = TensorProto.EXTERNAL
        if location is not None:
            entry = constant.external_data.add()
            entry.key, entry.value = "location", location

    return graph(change_model)


def external_in_a_branch(model):
    """Let a constant in the graph of an If's branch lie in a file outside."""
    constant = TensorProto(name="w", data_type=1, dims=[1], data_location=TensorProto.EXTERNAL)
    entry = constant.external_data.add()
    entry.key, entry.value = "location", "../../secret"
    value = helper.make_tensor_value_info("b", TensorProto.FLOAT, [1])
    branch = helper.make_graph([helper.make_node("Identity", ["w"], ["b"])], "b", [], [value])
    branch.initializer.append(constant)
    yes = helper.make_tensor("yes", TensorProto.BOOL, [], [True])
    model.graph.initializer.append(yes)
    node = helper.make_node("If", ["yes"], ["if"], then_branch=branch, else_branch=branch)
    model.graph.node.append(node)


def compiled(model):
    model.graph.node.append(helper.make_node("EPContext", [], ["x"], domain="com.microsoft"))


def other_type(model):
    model.graph.input[2].type.tensor_type.elem_type = TensorProto.INT32


def other_shape(model):
    model.graph.input[0].type.tensor_type.shape.dim[3].dim_value = 7


def more_axes(model):
    model.graph.output[0].type.tensor_type.shape.dim.add().dim_value = 1


def one_input_more(model):
    model.graph.input.append(helper.make_tensor_value_info("rear", TensorProto.FLOAT, [1]))


def no_outputs(model):
    del model.graph.output[:]


def two_graphs(folder):
    data = (folder / "policy.onnx").read_bytes()
    replaced("policy.onnx", data + data)(folder)


def linked_outside(name):
    def change(folder):
        outside = folder.parent / "outside"
        shutil.move(folder / name, outside)
        (folder / name).symlink_to(outside)

    return change


def linked_folder(folder):
    outside = folder.parent / "elsewhere"
    outside.mkdir()
    (outside / "w.bin").write_bytes(b"w")
    (folder / "deep").symlink_to(outside)
    put(sha256(outside / "w.bin"), "files", "deep/w.bin")(folder)


def linked_in_a_circle(folder):
    (folder / "policy.onnx").unlink()
    (folder / "policy.onnx").symlink_to("policy.onnx")


def linked_manifest(folder):
    (folder / MANIFEST).rename(folder.parent / "other.yaml")
    (folder / MANIFEST).symlink_to(folder.parent / "other.yaml")


def pipe(folder):
    """Put a named pipe in place of a file: opened, it would be waited for without end."""
    (folder / "policy.onnx").unlink()
    os.mkfifo(folder / "policy.onnx")


def device(folder):
    """Link a file to a device that never ends."""
    (folder / "policy.onnx").unlink()
    (folder / "policy.onnx").symlink_to("/dev/zero")


def many_files(folder):
    data = read(folder)
    data["files"] |= {f"w{index}.bin": "0" * 64 for index in range(300)}
    save(folder, data)


def zipped(folder):
    """Put a PyTorch checkpoint, a zip of pickles, in place of the graph."""
    with zipfile.ZipFile(folder / "policy.onnx", "w") as archive:
        archive.writestr("archive/data.pkl", pickle.dumps({"weights": [1.0]}))
    rehash(folder, "policy.onnx")


def flipped(folder):
    data = bytearray((folder / "policy.onnx").read_bytes())
    data[len(data) // 2] ^= 1
    (folder / "policy.onnx").write_bytes(data)


def cut(folder):
    data = (folder / "policy.onnx").read_bytes()
    replaced("policy.onnx", data[: len(data) // 2])(folder)


def laughs(levels):
    """Return YAML of few bytes whose aliases stand for 10 ** levels values."""
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 10)}]" for i in range(1, levels)]
    return "\n".join(lines).encode()


SECRET = "../" * 20 + "etc/hostname"
P, A = "prefix.onnx", "action"

# Each: decoder of the good bundle, change, key, words of the line.
BAD = {
    # The manifest's text.
    "empty manifest": ("direct", whole(b""), "must be a mapping", ["schema_version: 2"]),
    "a list": ("direct", whole(b"- a\n- b\n"), "must be a mapping", ["schema_version: 2"]),
    "not YAML": ("direct", whole(b"cameras: [front\nname: x"), "is not YAML", ["line"]),
    "not UTF-8": ("direct", whole(b"name: \xff\xfe"), "is not YAML in UTF-8", []),
    "a binary": ("direct", whole(b"\x7fELF\0\0\0"), "is not YAML", []),
    "manifest too large": ("direct", whole(b"#" * 1_000_001), "is larger than", ["1000000"]),
    "nested deep": ("direct", whole(b"a: " + b"[" * 50_000), "line 1", ["nested more than 24"]),
    "aliases explode": ("direct", whole(laughs(9)), "line 5", ["more than 100000 values"]),
    "alias in itself": ("direct", whole(b"a: &a [*a]"), "line 1", ["alias *a", "no anchor"]),
    "key twice": ("direct", text("name: blank", "name: a\nname: b"), "line 3", ["'name'", "twice"]),
    "python object": (
        "direct",
        text("name: blank", "name: !!python/object/apply:os.system ['touch x']"),
        "line 2",
        ["tag", "leave it out"],
    ),
    "two documents": ("direct", text("name: blank", "---\nname: b"), "is not YAML", []),
    "impossible date": ("direct", text("name: blank", "name: 2024-13-45"), "is not YAML", []),
    "number too long": ("direct", text("name: blank", "name: " + "9" * 5000), "is not YAML", []),
    # The schema.
    "no version": ("direct", drop("schema_version"), "schema_version", ["is missing"]),
    "old version": ("direct", put(1, "schema_version"), "schema_version", ["reads 2", "again"]),
    "unknown section": ("direct", put({}, "camera"), "camera", ["is unknown"]),
    "line feed in a key": ("direct", put({}, "came\nra"), r"came\nra", ["is unknown"]),
    "escape in a key": ("direct", put({}, "\x1b[31m"), r"\x1b[31m", ["is unknown"]),
    "misspelt key": ("direct", put(1, "cameras", 0, "sclae"), "cameras[0].sclae", ["is unknown"]),
    "no source": ("direct", drop("source"), "source", ["is missing"]),
    "name that is a number": ("direct", put(7, "name"), "name", ["string"]),
    "name that colours the log": ("direct", put("\x1b[31mred", "name"), "name", ["printable"]),
    "key that is a number": ("direct", put(1, 7), "[7]", ["string"]),
    # Cameras, state, instruction, history.
    "no cameras": ("direct", put([], "cameras"), "cameras", ["at least 1"]),
    "camera's name with a slash": (
        "direct",
        put("a/b", "cameras", 0, "name"),
        "cameras[0].name",
        [],
    ),
    "crop inside out": ("direct", put([0, 1, 1, 0], "cameras", 0, "crop"), "cameras[0].crop", []),
    "size of words": ("direct", put("4x6", "cameras", 0, "size"), "cameras[0].size", ["tuple"]),
    "yes for a number": (
        "direct",
        put(True, "cameras", 0, "scale"),
        "cameras[0].scale",
        ["number"],
    ),
    "no std": ("flow", drop("cameras", 0, "std"), "cameras[0].std", ["is missing"]),
    "std of zero": ("flow", put([1, 1, 0], "cameras", 0, "std"), "cameras[0].std[2]", ["than 0"]),
    "normalised bytes": (
        "direct",
        put("uint8", "cameras", 0, "type"),
        "cameras[0].scale",
        ["leave it out"],
    ),
    "same input twice": (
        "direct",
        put("state", "cameras", 0, "input"),
        "state.input",
        ["'state' is taken by cameras[0].input"],
    ),
    "state without entries": ("direct", put([], "state", "names"), "state.names", ["at least 1"]),
    "state entry twice": (
        "direct",
        put(["tcp.position.x"] * 2, "state", "names"),
        "state.names",
        ["twice"],
    ),
    "state too narrow": ("direct", put(1, "state", "size"), "state.size", ["less than the 2"]),
    "unknown normalisation": (
        "direct",
        put({"type": "z"}, "state", "normalisation"),
        "state.normalisation.type",
        ["'mean_std'", "'quantiles'"],
    ),
    "normalisation without type": (
        "direct",
        drop("state", "normalisation", "type"),
        "state.normalisation.type",
        ["is missing"],
    ),
    "too few means": (
        "direct",
        put([0.0], "state", "normalisation", "mean"),
        "state.normalisation.mean",
        ["1 values for 2 names"],
    ),
    "mean not a number": (
        "direct",
        put([0.0, float("nan")], "state", "normalisation", "mean"),
        "state.normalisation.mean[1]",
        ["finite"],
    ),
    "division by zero": (
        "direct",
        put([0.0, 1.0], "state", "normalisation", "std"),
        "state.normalisation.std[0]",
        ["eps"],
    ),
    "quantiles swapped": (
        "direct",
        put([2.0] * 4, A, "normalisation", "low"),
        "action.normalisation.low[0]",
        ["more than high"],
    ),
    "no length": ("direct", drop("instruction", "length"), "instruction.length", ["is missing"]),
    "text into ONNX": (
        "direct",
        both(put(None, "instruction", "tokenizer"), drop("instruction", "length")),
        "instruction.tokenizer",
        ["tokens, not text"],
    ),
    "mask that no graph takes": (
        "direct",
        put("mask", "instruction", "mask_input"),
        "graphs[0].inputs.mask",
        ["is missing"],
    ),
    "history without period": (
        "direct",
        put({"steps": 2}, "history"),
        "history.period_s",
        ["is missing"],
    ),
    "history that the graph lacks": (
        "direct",
        put({"steps": 2, "period_s": 0.1}, "history"),
        "graphs[0].inputs.front",
        ["[1, 2, 3, 4, 6]"],
    ),
    # Graphs.
    "no graphs": ("direct", put([], "graphs"), "graphs", ["at least 1"]),
    "no step": ("flow", drop("graphs", 1), "graphs", ["lacks the graph 'step'"]),
    "graph that nothing runs": (
        "direct",
        put("prefix", "graphs", 0, "name"),
        "graphs: lacks the graph 'policy' of decoder direct; graphs[0].name",
        [],
    ),
    "unknown backend": (
        "direct",
        put("jax", "graphs", 0, "backend"),
        "graphs[0].backend",
        ["onnx"],
    ),
    "no file": ("direct", drop("graphs", 0, "file"), "graphs[0].file", ["is missing"]),
    "file on a server": (
        "direct",
        put("triton", "graphs", 0, "backend"),
        "graphs[0].file",
        ["leave it out"],
    ),
    "steps on openpi": (
        "flow",
        both(put("openpi", "graphs", 1, "backend"), drop("graphs", 1, "file")),
        "graphs[1].backend",
        ["direct"],
    ),
    "no such input": (
        "direct",
        put([1, 3], "graphs", 0, "inputs", "rear"),
        "graphs[0].inputs.rear",
        ["is unknown"],
    ),
    "input missing": (
        "direct",
        drop("graphs", 0, "inputs", "state"),
        "graphs[0].inputs.state",
        ["is missing"],
    ),
    "shape against the camera": (
        "direct",
        put([1, 4, 6, 3], "graphs", 0, "inputs", "front"),
        "graphs[0].inputs.front",
        ["[1, 3, 4, 6]"],
    ),
    "axis of zero": (
        "direct",
        put([0, 2], "graphs", 0, "inputs", "state"),
        "graphs[0].inputs.state.shape[0]",
        ["greater"],
    ),
    "unknown type": (
        "direct",
        put("float64", "graphs", 0, "inputs", "state", "type"),
        "graphs[0].inputs.state.type",
        ["'float32'"],
    ),
    "tokens as floats": (
        "direct",
        put("float32", "graphs", 0, "inputs", "tokens", "type"),
        "graphs[0].inputs.tokens.type",
        ["int64"],
    ),
    "output against the action": (
        "direct",
        put([1, 9, 4], "graphs", 0, "outputs", "actions"),
        "graphs[0].outputs.actions",
        ["[1, 3, 4]"],
    ),
    # Decoders.
    "unknown decoder": ("direct", put({"type": "rnn"}, "decoder"), "decoder.type", ["'flow'"]),
    "key of another decoder": ("direct", put(4, "decoder", "steps"), "decoder.steps", ["unknown"]),
    "output that is not there": (
        "direct",
        put("chunk", "decoder", "output"),
        "graphs[0].outputs.actions",
        ["is unknown", "chunk"],
    ),
    "no steps": ("flow", put(0, "decoder", "steps"), "decoder.steps", ["greater"]),
    "no direction": ("flow", drop("decoder", "direction"), "decoder.direction", ["is missing"]),
    "no cache": ("flow", put({}, "decoder", "cache"), "decoder.cache", ["at least 1"]),
    "cache from nowhere": (
        "flow",
        put({"values": "past/keys"}, "decoder", "cache"),
        "graphs[0].outputs.keys",
        ["is unknown"],
    ),
    "cache of another shape": (
        "flow",
        put([2, 1, 6, 4], "graphs", 1, "inputs", "past/keys", "shape"),
        "decoder.cache.keys",
        ["[2, 1, 5, 4]", "[2, 1, 6, 4]"],
    ),
    "noise of another shape": (
        "flow",
        put([1, 3, 5], "graphs", 1, "inputs", "noise", "shape"),
        "graphs[1].inputs.noise",
        ["[1, 3, 4]"],
    ),
    "more steps than trained": (
        "diffusion",
        put(101, "decoder", "steps"),
        "decoder.steps",
        ["train_steps"],
    ),
    "horizon too short": ("diffusion", put(3, "decoder", "start"), "decoder.horizon", ["6"]),
    "betas swapped": (
        "diffusion",
        put(0.5, "decoder", "beta_start"),
        "decoder.beta_start",
        ["beta_end"],
    ),
    "bins beyond the vocabulary": (
        "action_tokens",
        put(50, "decoder", "first_token"),
        "graphs[0].outputs.logits",
        ["token 65"],
    ),
    "bins below the vocabulary": (
        "action_tokens",
        both(put(3, "decoder", "first_token"), put(True, "decoder", "descending")),
        "decoder.first_token",
        ["below 0"],
    ),
    "cache that is not renewed": (
        "action_tokens",
        put({"new_keys": "values"}, "decoder", "new_cache"),
        "decoder.cache.keys",
        ["new_cache"],
    ),
    "token of many": (
        "action_tokens",
        put([1, 2], "graphs", 1, "inputs", "token", "shape"),
        "graphs[1].inputs.token",
        ["1 number"],
    ),
    # Actions.
    "no frame": ("direct", put(None, A, "frame"), "action.frame", ["is missing"]),
    "pose in the tool": (
        "direct",
        both(put("pose", A, "type"), put(None, A, "reference")),
        "action.frame",
        ["base"],
    ),
    "no reference": ("direct", drop(A, "reference"), "action.reference", ["is missing"]),
    "joints in a frame": (
        "direct",
        both(put("joint_delta", A, "type"), put(["a", "b", "c", "gripper"], A, "names")),
        "action.frame",
        ["leave it out"],
    ),
    "names against the rotation": (
        "direct",
        put("quaternion", A, "rotation"),
        "action.names",
        ["'qw'"],
    ),
    "gripper without meaning": ("direct", put(None, A, "gripper"), "action.names", ["null"]),
    "gripper inside out": (
        "direct",
        put(0.08, A, "gripper", "closed_m"),
        "action.gripper.closed_m",
        ["open_m"],
    ),
    "rate of infinity": ("direct", put(float("inf"), A, "rate_hz"), "action.rate_hz", ["finite"]),
    # Files.
    "file without hash": (
        "direct",
        drop("files", "policy.onnx"),
        "graphs[0].file",
        ["'policy.onnx' has no SHA-256"],
    ),
    "hash that is none": ("direct", put("abc", "files", P), f"files.{P}", ["pattern"]),
    "missing file": ("direct", put("0" * 64, "files", "w.bin"), "files.w.bin", ["no such file"]),
    "absolute file": (
        "direct",
        put("0" * 64, "files", "/etc/hostname"),
        "files./etc/hostname",
        ["outside"],
    ),
    "file outside": ("direct", put("0" * 64, "files", SECRET), f"files.{SECRET}", ["outside"]),
    "graph outside": (
        "direct",
        put("../x.onnx", "graphs", 0, "file"),
        "graphs[0].file",
        ["outside"],
    ),
    "tokenizer outside": (
        "direct",
        put("/etc/passwd", "instruction", "tokenizer"),
        "instruction.tokenizer",
        ["outside"],
    ),
    "file of Windows": ("direct", put("0" * 64, "files", r"..\x"), r"files...\x", ["outside"]),
    "file with NUL": ("direct", put("0" * 64, "files", "a\0b"), r"files.a\x00b", ["rename"]),
    "manifest in its files": ("direct", put("0" * 64, "files", MANIFEST), f"files.{MANIFEST}", []),
    "too many files": ("direct", many_files, "files", ["302 files, more than 256"]),
    "changed file": ("direct", flipped, "files.policy.onnx", ["SHA-256", "again"]),
    "linked outside": ("direct", linked_outside("policy.onnx"), "files.policy.onnx", ["outside"]),
    "linked folder": ("direct", linked_folder, "files.deep/w.bin", ["outside"]),
    "linked in a circle": ("direct", linked_in_a_circle, "files.policy.onnx", []),
    "linked manifest": ("direct", linked_manifest, "is a link to", ["put the manifest itself"]),
    "named pipe": ("direct", pipe, "files.policy.onnx", ["no file but"]),
    "device": ("direct", device, "files.policy.onnx", ["outside"]),
    # ONNX files.
    "empty graph": ("direct", replaced("policy.onnx", b""), "graphs[0].file", ["is empty"]),
    "no ONNX": (
        "direct",
        replaced("policy.onnx", b"no graph"),
        "graphs[0].file",
        ["no ONNX graph"],
    ),
    "cut off": ("direct", cut, "graphs[0].file", ["again"]),
    "two in one": ("direct", two_graphs, "graphs[0].file", ["more than one graph"]),
    "pickle": (
        "direct",
        replaced("policy.onnx", pickle.dumps([1.0])),
        "graphs[0].file",
        ["a pickle", "export it to ONNX"],
    ),
    "PyTorch's zip": ("direct", zipped, "graphs[0].file", ["a zip", "export it to ONNX"]),
    "no outputs": ("direct", graph(no_outputs), "graphs[0].file", ["no outputs"]),
    "compiled code": ("direct", graph(compiled), "graphs[0].file", ["compiled code"]),
    "weights outside": ("direct", external("../../secret"), "graphs[0].file", ["outside"]),
    "weights at a path": ("direct", external("/etc/hostname"), "graphs[0].file", ["outside"]),
    "weights in memory": (
        "direct",
        external("*/_ORT_MEM_ADDR_/*"),
        "graphs[0].file",
        ["letters, digits"],
    ),
    "weights without hash": ("direct", external("w.bin"), "graphs[0].file", ["add files.w.bin"]),
    "weights nowhere": ("direct", external(None), "graphs[0].file", ["does not say in which"]),
    "weights outside, in a branch": (
        "direct",
        graph(external_in_a_branch),
        "graphs[0].file",
        ["'../../secret'", "outside"],
    ),
    "graph of another type": (
        "direct",
        graph(other_type),
        "graphs[0].inputs.tokens",
        ["int32", "int64"],
    ),
    "graph of another shape": (
        "direct",
        graph(other_shape),
        "graphs[0].inputs.front",
        ["[1, 3, 4, 7]", "[1, 3, 4, 6]"],
    ),
    "graph of more axes": ("direct", graph(more_axes), "graphs[0].outputs.actions", ["4, 1]"]),
    "graph of more inputs": (
        "direct",
        graph(one_input_more),
        "graphs[0].inputs.rear",
        ["is missing"],
    ),
}


def test_there_are_many_kinds():
    assert len(BAD) >= 100


@pytest.mark.parametrize("decoder", DECODERS)
def test_the_good_ones_are_good(decoder, copied, capsys):
    folder = copied(decoder)
    assert Bundle.load(folder).manifest.decoder.type == decoder
    assert main(["bundle", "check", str(folder)]) == 0
    assert "not" not in capsys.readouterr().out


@pytest.mark.parametrize("kind", BAD)
def test_a_bad_bundle_is_refused_by_its_key(kind, copied):
    decoder, change, key, words = BAD[kind]
    folder = copied(decoder)
    change(folder)
    with pytest.raises(BundleError) as info:
        Bundle.load(folder)
    line = str(info.value)
    assert line.isprintable()
    assert len(line) < 700
    begin = f"{folder / MANIFEST}: {key}"
    assert line.startswith(begin)
    assert re.match(r"\W", line[len(begin) :])  # the key itself, not one that begins like it
    for word in words:
        assert word in line


@pytest.mark.parametrize("kind", BAD)
def test_the_command_says_it_in_one_line(kind, copied, capsys):
    decoder, change, key, _ = BAD[kind]
    folder = copied(decoder)
    change(folder)
    for command in ("check", "show"):
        assert main(["bundle", command, str(folder)]) == 1
        printed = capsys.readouterr()
        assert printed.out == ""
        (line,) = printed.err.splitlines()
        assert line.startswith(f"vla_ros bundle: {folder / MANIFEST}: {key}")


@pytest.mark.parametrize("kind", ["misspelt key", "weights outside", "python object"])
def test_the_real_command_says_it_in_one_line_too(kind, copied):
    decoder, change, key, _ = BAD[kind]
    folder = copied(decoder)
    change(folder)
    done = subprocess.run(
        [sys.executable, "-m", "vla_ros.cli", "bundle", "check", str(folder)],
        capture_output=True,
        text=True,
        timeout=60,
        cwd=folder,
        check=False,
    )
    assert (done.returncode, done.stdout) == (1, "")
    (line,) = done.stderr.splitlines()
    assert f": {key}" in line
    assert not (folder / "x").exists()  # what the Python object would have made


def test_many_faults_stay_one_line(copied):
    folder = copied("direct")
    data = read(folder)
    data |= {f"key{index}": 1 for index in range(1000)}
    save(folder, data)
    with pytest.raises(BundleError, match=r"and 992 more$") as info:
        Bundle.load(folder)
    assert len(str(info.value)) < 700


def test_the_total_size_is_a_setting(copied, capsys):
    folder = copied("direct")
    size = sum((folder / name).stat().st_size for name in read(folder)["files"])
    Bundle.load(folder, Limits(total_bytes=size))
    with pytest.raises(BundleError, match=r"files\.\S+: up to this one .* more than the limit"):
        Bundle.load(folder, Limits(total_bytes=size - 1))
    assert main(["bundle", "check", str(folder), "--max-gb", "1e-6"]) == 1
    assert "0.000 GB" in capsys.readouterr().err


def test_a_file_that_is_too_large_is_not_read(copied):
    """A sparse file of 100 GB: reading it would take minutes."""
    folder = copied("direct")
    with (folder / "policy.onnx").open("r+b") as file:
        file.truncate(100_000_000_000)
    begin = time.perf_counter()
    with pytest.raises(BundleError, match=r"files\.policy\.onnx: up to this one"):
        Bundle.load(folder)
    assert time.perf_counter() - begin < 5.0


def test_weights_in_a_file_of_their_own_are_hashed_and_run(copied, capsys):
    folder = copied("direct")
    model = onnx.load(folder / "policy.onnx")
    (constant,) = model.graph.initializer
    weights = np.full((1, 3, 4), 7.0, np.float32)
    (folder / "w.bin").write_bytes(weights.tobytes())
    constant.ClearField("raw_data")
    constant.data_location = TensorProto.EXTERNAL
    for key, value in (("location", "w.bin"), ("offset", "0"), ("length", str(weights.nbytes))):
        entry = constant.external_data.add()
        entry.key, entry.value = key, value
    (folder / "policy.onnx").write_bytes(model.SerializeToString())
    data = read(folder)
    del data["files"]
    bundle = write_manifest(folder, data)
    assert set(bundle.manifest.files) == {"policy.onnx", "tokenizer.json", "w.bin"}
    assert main(["bundle", "check", str(folder)]) == 0
    assert "files: 3" in capsys.readouterr().out
    (folder / "w.bin").write_bytes(weights[::-1].tobytes()[:-4])
    with pytest.raises(BundleError, match=r"files\.w\.bin.*SHA-256"):
        Bundle.load(folder)


def test_a_workspace_built_with_links_is_good(good, tmp_path):
    """As `colcon build --symlink-install` lays it out: each file a link into the sources."""
    folder = tmp_path / "share"
    folder.mkdir()
    for file in (good / "flow").iterdir():
        (folder / file.name).symlink_to(file)
    assert Bundle.load(folder).manifest.decoder.type == "flow"


# What loading does not open is found by `check`, and by the policy when it starts.
RUN = {
    "no tokenizer": (replaced("tokenizer.json", b"{}"), "instruction.tokenizer: tokenizer.json"),
    "no such token": (put("<fill>", "instruction", "pad_token"), "instruction.pad_token"),
    "unknown operator": (
        graph(lambda model: model.graph.node.append(helper.make_node("Nonsense", [], ["x"]))),
        "graphs[0] 'policy' (onnx)",
    ),
}


@pytest.mark.parametrize("kind", RUN)
def test_check_finds_what_only_opening_finds(kind, copied, capsys):
    change, key = RUN[kind]
    folder = copied("direct")
    change(folder)
    assert main(["bundle", "check", str(folder)]) == 1
    fault, verdict = capsys.readouterr().err.splitlines()
    assert key in fault
    assert verdict == f"{folder}: cannot be used"


def test_check_finds_an_output_that_runs_to_another_shape(copied, capsys):
    folder = copied("direct")

    def free(model):
        """Make the output's shape depend on the tokens, so that only running it tells."""
        del model.graph.node[:]
        del model.graph.initializer[:]
        model.graph.initializer.append(helper.make_tensor("s", TensorProto.INT64, [3], [1, 2, 4]))
        model.graph.node.extend(
            [
                helper.make_node("ReduceSum", ["tokens"], ["sum"], keepdims=0),
                helper.make_node("Add", ["s", "sum"], ["shape"]),
                helper.make_node("ConstantOfShape", ["shape"], ["actions"]),
            ]
        )
        for index, axis in enumerate(model.graph.output[0].type.tensor_type.shape.dim):
            axis.dim_param = f"free{index}"

    graph(free)(folder)
    Bundle.load(folder)
    assert main(["bundle", "check", str(folder)]) == 1
    assert "outputs.actions: has the shape [1, 2, 4]" in capsys.readouterr().err


def test_a_graph_may_give_more_than_the_manifest_uses(copied):
    folder = copied("direct")

    def one_output_more(model):
        model.graph.node.append(helper.make_node("Identity", ["state"], ["seen"]))
        model.graph.output.append(helper.make_tensor_value_info("seen", TensorProto.FLOAT, [1, 2]))

    graph(one_output_more)(folder)
    assert main(["bundle", "check", str(folder)]) == 0


def test_check_runs_nothing_where_it_is_not_to(copied, capsys):
    folder = copied("direct")
    graph(lambda model: model.graph.node.append(helper.make_node("Nonsense", [], ["x"])))(folder)
    assert main(["bundle", "check", "--no-run", str(folder)]) == 2
    assert "not tried: --no-run" in capsys.readouterr().out


def test_check_says_what_it_cannot_try(copied, capsys):
    folder = copied("direct")
    data = read(folder)
    data["graphs"][0] |= {"backend": "triton", "file": None}
    del data["files"]["policy.onnx"]
    save(folder, data)
    assert Bundle.load(folder).manifest.graphs[0].model == "blank"
    assert main(["bundle", "check", str(folder)]) == 2
    lines = capsys.readouterr().out.splitlines()
    assert any("not tried: it runs on a server: name it with --server" in line for line in lines)
    assert lines[-1].endswith("not every graph was tried")


@pytest.mark.parametrize(
    ("change", "key"),
    [
        (lambda data: data.pop("graphs"), "graphs: is missing"),
        (lambda data: data.update(graphs="x"), "graphs: "),
        (lambda data: data["graphs"][0].update(file="../x.onnx"), "graphs[0].file: lies outside"),
        (lambda data: data["graphs"][0].update(file="x.onnx"), "x.onnx: No such file"),
        (lambda data: data["action"].pop("chunk"), "action.chunk: is missing"),
    ],
)
def test_a_bad_manifest_is_not_even_written(copied, change, key):
    folder = copied("direct")
    before = (folder / MANIFEST).read_bytes()
    data = read(folder)
    del data["files"]
    change(data)
    with pytest.raises(BundleError) as info:
        write_manifest(folder, data)
    assert key in str(info.value)
    assert str(info.value).startswith(f"{folder / MANIFEST}: ")
    assert (folder / MANIFEST).read_bytes() == before
