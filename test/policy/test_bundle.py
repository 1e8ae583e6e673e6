"""A bundle loads whole or is refused with one line that names the file and the key."""

import copy
import shutil
from pathlib import Path

import numpy as np
import onnx
import pytest
import yaml

from bundles import forward_actions, make_bundle, manifest, write_graph
from vla_ros.observation.image import ImageSpec
from vla_ros.policy.backends import BackendOptions
from vla_ros.policy.bundle import Bundle, sha256
from vla_ros.policy.manifest import MANIFEST, BundleError, parse_manifest
from vla_ros.policy.policy import Policy


@pytest.fixture(scope="module")
def good(tmp_path_factory):
    return make_bundle(tmp_path_factory.mktemp("bundle")).path


@pytest.fixture
def folder(good, tmp_path):
    copied = tmp_path / "bundle"
    shutil.copytree(good, copied)
    return copied


def content(folder):
    return yaml.safe_load((folder / MANIFEST).read_text())


def rewrite(folder, change):
    data = content(folder)
    change(data)
    (folder / MANIFEST).write_text(yaml.safe_dump(data))


def test_a_good_bundle_loads(folder):
    bundle = Bundle.load(str(folder))
    assert bundle.camera_names == ("front", "wrist")
    assert bundle.camera("wrist").image == ImageSpec((80, 96), 1.0, (0.0, 0.0, 80 / 96, 1.0))
    assert bundle.camera("wrist").input_shape == (1, 3, 80, 96)
    assert bundle.period_ns == 33_333_333
    Policy(bundle)


def test_an_unknown_camera_is_refused_with_those_that_there_are(folder):
    with pytest.raises(BundleError, match=r"'rear'.*front, wrist"):
        Bundle.load(folder).camera("rear")


def delete(*path):
    def change(data):
        for key in path[:-1]:
            data = data[key]
        del data[path[-1]]

    return change


def assign(value, *path):
    def change(data):
        for key in path[:-1]:
            data = data[key]
        data[path[-1]] = value

    return change


def no_open_fraction(data):
    data["action"]["names"] = ["x", "y", "z", "rx", "ry", "rz", "grip"]


def two_of_a_name(data):
    data["cameras"][1]["name"] = "front"


BAD_MANIFESTS = {
    "no version": (delete("schema_version"), ["schema_version: is missing"]),
    "version of the future": (assign(3, "schema_version"), ["schema_version: is 3", "reads 2"]),
    "no cameras": (assign([], "cameras"), ["cameras: "]),
    "no std of a camera": (delete("cameras", 0, "std"), ["cameras[0].std: is missing"]),
    "two stds": (assign([1.0, 1.0], "cameras", 0, "std"), ["cameras[0].std[2]: is missing"]),
    "std of zero": (assign([1.0, 0.0, 1.0], "cameras", 1, "std"), ["cameras[1].std[1]", "than 0"]),
    "size of zero": (assign([0, 96], "cameras", 0, "size"), ["cameras[0].size[0]"]),
    "unknown layout": (assign("chw", "cameras", 0, "layout"), ["cameras[0].layout", "'nchw'"]),
    "crop inside out": (assign([0.5, 0, 0.5, 1], "cameras", 0, "crop"), ["cameras[0].crop"]),
    "crop beyond": (assign([0, 0, 1.2, 1], "cameras", 0, "crop"), ["cameras[0].crop[2]"]),
    "same camera twice": (two_of_a_name, ["cameras[1].name: 'front' is taken"]),
    "camera called state": (
        assign("state", "cameras", 0, "input"),
        ["state.input: 'state' is taken by cameras[0].input"],
    ),
    "misspelt key": (assign(1.0, "cameras", 0, "sclae"), ["cameras[0].sclae: is unknown"]),
    "no state statistics": (
        delete("state", "normalisation", "mean"),
        ["state.normalisation.mean: is missing"],
    ),
    "too few state statistics": (
        assign([0.0], "state", "normalisation", "mean"),
        ["state.normalisation.mean: has 1 values for 17"],
    ),
    "mean not finite": (
        assign([float("nan")] * 17, "state", "normalisation", "mean"),
        ["state.normalisation.mean[0]"],
    ),
    "entry twice": (assign(["tcp.position.x"] * 17, "state", "names"), ["state.names: names"]),
    "no tokenizer": (delete("instruction", "tokenizer"), ["instruction.tokenizer: is missing"]),
    "tokenizer without hash": (
        assign("other.json", "instruction", "tokenizer"),
        ["instruction.tokenizer: 'other.json' has no SHA-256"],
    ),
    "no graph": (assign([], "graphs"), ["graphs: "]),
    "graph without hash": (delete("files", "policy.onnx"), ["graphs[0].file: 'policy.onnx'"]),
    "missing input": (
        delete("graphs", 0, "inputs", "state"),
        ["graphs[0].inputs.state: is missing"],
    ),
    "unknown input": (assign([1, 2], "graphs", 0, "inputs", "rear"), ["graphs[0].inputs.rear"]),
    "input of another shape": (
        assign([1, 3, 64, 64], "graphs", 0, "inputs", "front"),
        ["graphs[0].inputs.front: is [1, 3, 64, 64]", "[1, 3, 96, 96]"],
    ),
    "output of another shape": (
        assign([1, 8, 7], "graphs", 0, "outputs", "actions"),
        ["graphs[0].outputs.actions: is [1, 8, 7]", "[1, 16, 7]"],
    ),
    "unknown decoder": (assign("rnn", "decoder", "type"), ["decoder.type", "'direct'"]),
    "unknown action": (assign("torque", "action", "type"), ["action.type", "'delta_pose'"]),
    "unknown frame": (assign("world", "action", "frame"), ["action.frame", "'tool'"]),
    "unknown action entry": (no_open_fraction, ["action.names: must be ['x'"]),
    "rate of zero": (assign(0, "action", "rate_hz"), ["action.rate_hz"]),
    "no gripper": (delete("action", "gripper"), ["action.gripper: is missing"]),
    "gripper inside out": (
        assign(0.1, "action", "gripper", "closed_m"),
        ["action.gripper.closed_m: must be less"],
    ),
    "hash that is none": (assign("abc", "files", "policy.onnx"), ["files.policy.onnx"]),
    "file outside": (assign("0" * 64, "files", "../manifest.yaml"), ["outside the bundle"]),
    "absolute file": (assign("0" * 64, "files", "/etc/hostname"), ["outside the bundle"]),
    "file that is missing": (assign("0" * 64, "files", "x.bin"), ["files.x.bin", "no such file"]),
}


@pytest.mark.parametrize("fault", BAD_MANIFESTS)
def test_a_bad_manifest_is_refused_by_its_key(fault, folder):
    change, words = BAD_MANIFESTS[fault]
    rewrite(folder, change)
    with pytest.raises(BundleError) as info:
        Bundle.load(folder)
    message = str(info.value)
    assert message.startswith(f"{folder / MANIFEST}: ")
    assert "\n" not in message
    for word in words:
        assert word in message


def test_several_faults_are_all_named(folder):
    rewrite(folder, lambda data: (delete("state", "names")(data), delete("action", "chunk")(data)))
    with pytest.raises(BundleError, match=r"state\.names: is missing; action\.chunk: is missing"):
        Bundle.load(folder)


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda _: None, ["no bundle at", "parameter 'bundle'"]),
        (lambda path: path.write_text("x"), ["is a file", "folder"]),
        (lambda path: path.mkdir(), ["holds no manifest.yaml"]),
        (lambda path: (path.mkdir(), (path / MANIFEST).write_text("")), ["must be a mapping"]),
        (lambda path: (path.mkdir(), (path / MANIFEST).write_text("a: [")), ["is not YAML"]),
        (
            lambda path: (path.mkdir(), (path / MANIFEST).write_bytes(b"\xff\xfe\x00")),
            ["is not YAML"],
        ),
    ],
)
def test_what_is_no_bundle_is_refused_with_what_to_do(make, words, tmp_path):
    path = tmp_path / "somewhere"
    make(path)
    with pytest.raises(BundleError) as info:
        Bundle.load(path)
    assert all(word in str(info.value) for word in words)


def test_no_bundle_at_all_is_refused():
    with pytest.raises(BundleError, match=r"no bundle is given.*parameter 'bundle'"):
        Bundle.load("")


def test_a_changed_file_is_refused(folder):
    graph = folder / "policy.onnx"
    data = bytearray(graph.read_bytes())
    data[len(data) // 2] ^= 1
    graph.write_bytes(data)
    with pytest.raises(BundleError, match=r"files\.policy\.onnx.*SHA-256.*again"):
        Bundle.load(folder)


def test_a_file_that_is_linked_from_outside_is_refused(folder, tmp_path):
    outside = tmp_path / "outside.json"
    shutil.move(folder / "tokenizer.json", outside)
    (folder / "tokenizer.json").symlink_to(outside)
    with pytest.raises(BundleError, match=r"files\.tokenizer\.json: lies outside"):
        Bundle.load(folder)


def rehash(folder, name):
    rewrite(folder, assign(sha256(folder / name), "files", name))


def test_a_broken_graph_with_the_right_hash_is_refused(folder):
    (folder / "policy.onnx").write_bytes(b"no graph")
    rehash(folder, "policy.onnx")
    with pytest.raises(BundleError, match=r"graphs\[0\]\.file: policy\.onnx is no ONNX graph"):
        Bundle.load(folder)


def test_a_broken_tokenizer_is_refused(folder):
    (folder / "tokenizer.json").write_text("{}")
    rehash(folder, "tokenizer.json")
    with pytest.raises(BundleError, match=r"instruction\.tokenizer: is no tokenizer"):
        Policy(Bundle.load(folder))


def test_a_graph_of_another_shape_than_the_manifest_is_refused(folder):
    write_graph(folder / "policy.onnx", forward_actions(8))
    rehash(folder, "policy.onnx")
    with pytest.raises(
        BundleError, match=r"graphs\[0\]\.outputs\.actions.*\[1, 8, 7\].*\[1, 16, 7\]"
    ):
        Policy(Bundle.load(folder))


def test_a_graph_with_other_inputs_than_the_manifest_is_refused(folder):
    model = onnx.load(folder / "policy.onnx")
    model.graph.input[0].name = "rear"
    for node in model.graph.node:
        for index, name in enumerate(node.input):
            if name == "front":
                node.input[index] = "rear"
    onnx.save(model, folder / "policy.onnx")
    rehash(folder, "policy.onnx")
    with pytest.raises(BundleError, match=r"inputs\.rear: is missing.*inputs\.front: is not in"):
        Policy(Bundle.load(folder))


def test_a_graph_with_another_type_than_is_fed_is_refused(folder):
    model = onnx.load(folder / "policy.onnx")
    (tokens,) = (i for i in model.graph.input if i.name == "tokens")
    tokens.type.tensor_type.elem_type = onnx.TensorProto.INT32
    onnx.save(model, folder / "policy.onnx")
    rehash(folder, "policy.onnx")
    with pytest.raises(BundleError, match=r"graphs\[0\]\.inputs\.tokens: the graph's type is"):
        Policy(Bundle.load(folder))


def test_symbolic_axes_of_a_graph_take_what_the_manifest_says(folder):
    model = onnx.load(folder / "policy.onnx")
    for value in model.graph.input:
        value.type.tensor_type.shape.dim[0].dim_param = "batch"
    onnx.save(model, folder / "policy.onnx")
    rehash(folder, "policy.onnx")
    Policy(Bundle.load(folder))


def test_a_provider_that_is_not_there_is_refused_not_replaced(folder):
    with pytest.raises(BundleError, match=r"'NoSuchProvider'.*CPUExecutionProvider"):
        Policy(Bundle.load(folder), BackendOptions(provider="NoSuchProvider"))


def test_what_is_written_is_what_is_read(good):
    bundle = Bundle.load(good)
    expected = copy.deepcopy(manifest())
    expected["files"] = {n: sha256(good / n) for n in ("policy.onnx", "tokenizer.json")}
    assert bundle.manifest == parse_manifest(expected, Path("here"))
    np.testing.assert_allclose(bundle.manifest.cameras[0].crop, manifest()["cameras"][0]["crop"])
