"""Promise: an ONNX file and a short manifest make a bundle; what contradicts is refused."""

import json

import numpy as np
import onnx
import pytest
import yaml
from onnx import TensorProto, helper

from bundles import STATE_NAMES, forward_actions, manifest, write_graph, write_tokenizer
from vla_ros.cli import main
from vla_ros.policy.bundle import Bundle
from vla_ros.policy.manifest import parse_manifest


def _short():
    """Return the manifest's content without what the graph says."""
    content = manifest()
    for key in ("schema_version", "graphs", "source"):
        del content[key]
    for camera in content["cameras"]:
        del camera["size"], camera["layout"]
    del content["instruction"]["length"], content["action"]["chunk"]
    return content


@pytest.fixture
def source(tmp_path):
    folder = tmp_path / "source"
    folder.mkdir()
    write_graph(folder / "model.onnx", forward_actions())
    write_tokenizer(folder / "tokenizer.json")
    (folder / "manifest.yaml").write_text(yaml.safe_dump(_short()))
    return folder


def _export(source, tmp_path, *flags, **changes):
    if changes:
        (source / "manifest.yaml").write_text(yaml.safe_dump(_short() | changes))
    words = ["export", "onnx", str(source / "model.onnx"), "--out", str(tmp_path / "bundle")]
    return main([*words, "--manifest", str(source / "manifest.yaml"), *flags])


def test_what_the_graph_says_need_not_be_written(source, tmp_path):
    assert _export(source, tmp_path) == 0
    found = Bundle.load(tmp_path / "bundle").manifest
    expected = parse_manifest({**manifest(), "files": found.files}, tmp_path)
    for key in ("cameras", "state", "instruction", "graphs", "decoder", "action"):
        assert getattr(found, key) == getattr(expected, key), key
    assert set(found.files) == {"policy.onnx", "tokenizer.json"}


def test_the_report_has_the_variants_and_their_times(source, tmp_path, capsys):
    assert _export(source, tmp_path, "--fp16", "--int8", "--dry-run") == 0
    for folder in ("bundle", "bundle_fp16", "bundle_int8"):
        Bundle.load(tmp_path / folder)
        report = json.loads((tmp_path / folder / "parity.json").read_text())
        assert report["ms_a_chunk_by_threads"]["1"]["median"] > 0.0
        assert report["greatest_difference"]["end to end"] < 0.1
    assert "1 thread" in capsys.readouterr().out


def test_a_shape_that_is_not_the_graphs_is_refused(source, tmp_path, capsys):
    graphs = [{"name": "policy", "inputs": {"state": [1, 6]}}]
    assert _export(source, tmp_path, graphs=graphs) == 1
    error = capsys.readouterr().err
    assert "graphs[0].inputs.state: is float32 [1, 6], but the graph's is float32 [1, 17]" in error
    assert not (tmp_path / "bundle").exists()


def test_an_input_that_the_graph_does_not_have_is_refused(source, tmp_path, capsys):
    graphs = [{"name": "policy", "inputs": {"depth": [1, 6]}}]
    assert _export(source, tmp_path, graphs=graphs) == 1
    assert "graphs[0].inputs.depth: the graph has front, wrist" in capsys.readouterr().err


def test_what_no_graph_says_must_be_written(source, tmp_path, capsys):
    (source / "manifest.yaml").write_text("name: model\n")
    assert _export(source, tmp_path) == 1
    assert "cameras: is missing: no graph says it" in capsys.readouterr().err


def test_a_contradiction_of_manifest_and_graph_is_named(source, tmp_path, capsys):
    state = {"names": list(STATE_NAMES[:3]), "normalisation": {"type": "identity"}}
    assert _export(source, tmp_path, state=state) == 1
    assert "graphs[0].inputs.state: is [1, 17], but the rest" in capsys.readouterr().err


def test_a_decoder_of_two_graphs_needs_two_files(source, tmp_path, capsys):
    decoder = {"type": "flow", "steps": 2, "direction": "one_to_zero", "cache": {"a": "a"}}
    assert _export(source, tmp_path, decoder=decoder) == 1
    assert "flow runs prefix, step: give prefix=FILE step=FILE" in capsys.readouterr().err


def test_a_folder_with_something_else_is_not_overwritten(source, tmp_path, capsys):
    (tmp_path / "bundle").mkdir()
    (tmp_path / "bundle" / "thesis.tex").write_text("years of work")
    assert _export(source, tmp_path) == 1
    assert "holds thesis.tex, which no export wrote" in capsys.readouterr().err
    assert (tmp_path / "bundle" / "thesis.tex").read_text() == "years of work"


def test_an_earlier_export_is_replaced_and_comes_back_if_the_new_one_fails(source, tmp_path):
    assert _export(source, tmp_path, name="first") == 0
    assert _export(source, tmp_path, name="second", action={"type": "pose"}) == 1
    assert Bundle.load(tmp_path / "bundle").manifest.name == "first"
    assert _export(source, tmp_path, name="second") == 0
    assert Bundle.load(tmp_path / "bundle").manifest.name == "second"
    assert {path.name for path in tmp_path.iterdir()} == {"source", "bundle"}


def test_a_file_added_to_an_earlier_export_keeps_it_from_being_replaced(source, tmp_path, capsys):
    assert _export(source, tmp_path, "--int8") == 0
    (tmp_path / "bundle_int8" / "notes.txt").write_text("which to take")
    assert _export(source, tmp_path, "--int8") == 1
    assert "bundle_int8: holds notes.txt, which no export wrote" in capsys.readouterr().err
    assert _export(source, tmp_path) == 0


def test_what_is_read_is_not_overwritten(source, tmp_path, capsys):
    assert _export(source, tmp_path) == 0
    words = ["export", "onnx", str(tmp_path / "bundle" / "policy.onnx")]
    words += ["--manifest", str(source / "manifest.yaml"), "--out", str(tmp_path / "bundle")]
    assert main(words) == 1
    assert "policy.onnx lies in it: name another folder" in capsys.readouterr().err
    Bundle.load(tmp_path / "bundle")


def test_a_fault_of_the_manifest_is_told_of_the_file_given(source, tmp_path, capsys):
    assert _export(source, tmp_path, action={**_short()["action"], "rate_hz": -1}) == 1
    error = capsys.readouterr().err
    assert f"{source / 'manifest.yaml'}: action.rate_hz: input should be greater than 0" in error
    assert not (tmp_path / "bundle").exists()


def test_a_flag_at_fault_is_told_before_anything_is_written(source, tmp_path, capsys):
    assert _export(source, tmp_path, "--out", ".") == 1
    assert "--out .: is no name of a new folder" in capsys.readouterr().err
    assert not (tmp_path / "bundle").exists()


def test_a_file_that_is_no_graph(source, tmp_path, capsys):
    (source / "model.onnx").write_bytes(b"not a graph")
    assert _export(source, tmp_path) == 1
    assert "is no ONNX" in capsys.readouterr().err


def _open_graph(source, axes):
    """Write a graph of a state of open shape."""
    nodes = [helper.make_node("Expand", ["state", "shape"], ["actions"])]
    shape = helper.make_tensor("shape", TensorProto.INT64, [3], [1, 4, 7])
    graph = helper.make_graph(
        nodes,
        "open",
        [
            helper.make_tensor_value_info("state", TensorProto.FLOAT, axes),
            helper.make_tensor_value_info("front", TensorProto.FLOAT, ["n", 3, 8, 8]),
        ],
        [helper.make_tensor_value_info("actions", TensorProto.FLOAT, [1, 4, 7])],
        [shape],
    )
    opset = [helper.make_opsetid("", 17)]
    onnx.save(helper.make_model(graph, opset_imports=opset, ir_version=8), source / "model.onnx")
    content = _short()
    content["cameras"] = content["cameras"][:1]
    content["state"] = {"names": [f"joint.position.j{i}" for i in range(7)]}
    content["state"]["normalisation"] = {"type": "identity"}
    del content["instruction"]
    return content


def test_an_open_batch_axis_is_one_and_others_are_asked_for(source, tmp_path, capsys):
    content = _open_graph(source, ["batch", "entries"])
    (source / "manifest.yaml").write_text(yaml.safe_dump(content))
    assert _export(source, tmp_path) == 1
    assert (
        "state: the length of axis 1 is open (entries): give the shape" in capsys.readouterr().err
    )
    content["graphs"] = [{"name": "policy", "inputs": {"state": [1, 7]}}]
    (source / "manifest.yaml").write_text(yaml.safe_dump(content))
    assert _export(source, tmp_path) == 0
    found = Bundle.load(tmp_path / "bundle").manifest
    assert found.graphs[0].inputs["front"].shape == (1, 3, 8, 8)
    assert found.action.chunk == 4


def test_actions_that_are_not_finite_are_told(source, tmp_path, capsys):
    actions = forward_actions()
    actions[0, 3, 2] = np.nan
    write_graph(source / "model.onnx", actions)
    assert _export(source, tmp_path) == 1
    assert "its actions are not finite" in capsys.readouterr().err
    assert not (tmp_path / "bundle").exists()
