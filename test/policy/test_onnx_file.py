"""An ONNX file is read as the `onnx` package reads it, and damaged in any way is never a crash."""

import hypothesis.strategies as st
import onnx
import pytest
from blank_bundles import DECODERS, content, hashes, write_zeros
from hypothesis import HealthCheck, given, settings
from onnx import TensorProto, helper

from bundles import forward_actions, write_graph
from vla_ros.cli import main
from vla_ros.paths import share
from vla_ros.policy.manifest import parse_manifest
from vla_ros.policy.onnx_file import OnnxFileError, OnnxTensor, read_onnx


def expected(values):
    tensors = {}
    for value in values:
        kind = value.type.tensor_type
        dims = tuple(d.dim_value if d.HasField("dim_value") else None for d in kind.shape.dim)
        name = helper.tensor_dtype_to_np_dtype(kind.elem_type).name
        tensors[value.name] = OnnxTensor(name, dims)
    return tensors


@pytest.mark.parametrize("decoder", [*DECODERS, "shipped"])
def test_it_reads_what_the_package_reads(decoder, tmp_path):
    files = [share() / "bundles" / "panda_pick" / "policy.onnx"]
    if decoder != "shipped":
        data = content(decoder)
        graphs = parse_manifest({**data, "files": hashes(data)}, tmp_path).graphs
        files = [tmp_path / str(graph.file) for graph in graphs]
        for graph in graphs:
            write_zeros(tmp_path, graph)
    for file in files:
        graph = onnx.load(file).graph
        read = read_onnx(file)
        assert read.inputs == expected(graph.input)
        assert read.outputs == expected(graph.output)
        assert read.external == ()


def value(name, kind=TensorProto.FLOAT, shape=(1,)):
    return helper.make_tensor_value_info(name, kind, shape)


def outside(name, location):
    tensor = TensorProto(name=name, data_type=1, dims=[1], data_location=TensorProto.EXTERNAL)
    entry = tensor.external_data.add()
    entry.key, entry.value = "location", location
    return tensor


def test_weights_are_found_wherever_a_graph_may_have_them(tmp_path):
    """As a constant, sparse, in a node, in a graph in a node, and in a function."""
    inner = helper.make_graph([], "inner", [], [value("b")], [outside("b", "branch")])
    sparse = onnx.SparseTensorProto(
        values=outside("s", "values"), indices=outside("i", "indices"), dims=[1]
    )
    constant = helper.make_node("Constant", [], ["n"], value=outside("n", "node"))
    node = helper.make_node("If", ["c"], ["y"], then_branch=inner, else_branch=inner)
    graph = helper.make_graph(
        [constant, node], "g", [value("c", TensorProto.BOOL, ())], [value("y")], [outside("w", "w")]
    )
    graph.sparse_initializer.append(sparse)
    function = helper.make_function(
        "own",
        "F",
        [],
        ["z"],
        [helper.make_node("Constant", [], ["z"], value=outside("z", "function"))],
        [helper.make_opsetid("", 17)],
    )
    model = helper.make_model(graph, functions=[function])
    (tmp_path / "m.onnx").write_bytes(model.SerializeToString())
    found = set(read_onnx(tmp_path / "m.onnx").external)
    assert found == {"w", "values", "indices", "node", "branch", "function"}


def test_constants_that_old_files_list_as_inputs_are_none(tmp_path):
    weights = helper.make_tensor("w", TensorProto.FLOAT, [1], [1.0])
    node = helper.make_node("Add", ["x", "w"], ["y"])
    graph = helper.make_graph([node], "g", [value("x"), value("w")], [value("y")], [weights])
    onnx.save(helper.make_model(graph), tmp_path / "m.onnx")
    assert set(read_onnx(tmp_path / "m.onnx").inputs) == {"x"}


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    file = tmp_path_factory.mktemp("small") / "m.onnx"
    write_graph(file, forward_actions(2))
    return file.read_bytes()


@given(data=st.data())
@settings(
    max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
def test_damage_is_never_a_crash(data, small, tmp_path):
    damaged = bytearray(small)
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, len(damaged) - 1))
        damaged[at] = data.draw(st.integers(0, 255))
    del damaged[data.draw(st.integers(1, len(damaged))) :]
    file = tmp_path / "m.onnx"
    file.write_bytes(damaged)
    try:
        read_onnx(file)
    except OnnxFileError as err:
        assert str(err).isprintable()  # noqa: PT017 - most damage is in weights, and none is seen


@given(data=st.binary(max_size=200))
@settings(
    max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
def test_any_bytes_are_refused(data, tmp_path):
    file = tmp_path / "m.onnx"
    file.write_bytes(data)
    with pytest.raises(OnnxFileError):
        read_onnx(file)


def test_show_tells_what_a_file_takes_and_gives(tmp_path, capsys):
    file = tmp_path / "m.onnx"
    write_graph(file, forward_actions(2))
    assert main(["bundle", "show", str(file)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "in   front float32 [1, 3, 96, 96]"
    assert lines[-1] == "out  actions float32 [1, 2, 7]"
    file.write_bytes(b"nothing")
    assert main(["bundle", "show", str(file)]) == 1
    assert f"{file} is no ONNX graph" in capsys.readouterr().err
