"""torch programs run as exported; files that could do more than compute are refused unopened."""

import json
import zipfile

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="torch is not installed: pip install 'vla_ros[torch]'")

from vla_ros.policy.backends import BackendError, BackendOptions, DeviceTensor  # noqa: E402
from vla_ros.policy.backends.torch_program import TorchBackend  # noqa: E402
from vla_ros.policy.manifest import BundleError, Graph  # noqa: E402


class Model(torch.nn.Module):
    def __init__(self, form):
        super().__init__()
        self.layer = torch.nn.Linear(4, 6)
        self.form = form

    def forward(self, state, tokens):
        actions = self.layer(state).reshape(1, 2, 3) + tokens.float().mean()
        return {"tensor": actions, "dict": {"other": state, "actions": actions}}[self.form]


def graph(**changes):
    content = {
        "name": "policy",
        "backend": "torch",
        "file": "m.pt2",
        # Not in the order of `forward`: names count.
        "inputs": {"tokens": {"shape": [1, 5], "type": "int64"}, "state": [1, 4]},
        "outputs": {"actions": [1, 2, 3]},
    }
    return Graph.model_validate(content | changes)


def inputs():
    return {
        "state": np.array([[1, 2, 3, 4]], np.float32),
        "tokens": np.array([[1, 2, 3, 4, 5]]),
    }


def export(file, form="tensor"):
    torch.manual_seed(0)
    model = Model(form).eval()
    args = (torch.zeros(1, 4), torch.zeros(1, 5, dtype=torch.int64))
    program = torch.export.export(model, args)
    torch.export.save(program, str(file))
    return model, program


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    file = tmp_path_factory.mktemp("torch") / "m.pt2"
    return export(file)[0], file


@pytest.mark.parametrize("form", ["tensor", "dict"])
def test_a_program_gives_what_the_model_gives(tmp_path, form):
    model, _ = export(tmp_path / "m.pt2", form)
    backend = TorchBackend(tmp_path / "m.pt2", graph(), BackendOptions())
    found = backend.run(inputs())["actions"]
    with torch.no_grad():
        expected = model(*(torch.tensor(inputs()[n]) for n in ("state", "tokens")))
    expected = expected if form == "tensor" else expected["actions"]
    np.testing.assert_allclose(found, expected.numpy(), rtol=1e-6)
    backend.close()
    with pytest.raises(BackendError, match="closed"):
        backend.run(inputs())


def test_outputs_on_a_device_go_on_to_the_next_graph_as_they_are(exported):
    backend = TorchBackend(exported[1], graph(), BackendOptions())
    expected = backend.run(inputs())["actions"]
    backend._on_device = True  # As on a GPU; here the device's memory is the host's.
    found = backend.run(inputs())["actions"]
    assert isinstance(found, DeviceTensor)
    assert (found.shape, found.dtype) == ((1, 2, 3), np.float32)
    np.testing.assert_array_equal(found, expected)
    state = DeviceTensor(torch.tensor(inputs()["state"]), (1, 4), "float32", lambda: None)
    again = backend.run({**inputs(), "state": state})["actions"]
    np.testing.assert_array_equal(again, expected)
    backend.run(inputs() | {"state": np.zeros((1, 4), np.float32)})
    np.testing.assert_array_equal(found, expected)  # It is no run's but its own.


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"inputs": {"state": [1, 4]}}, r"inputs are \['state', 'tokens'\]"),
        (
            {"inputs": {"state": [1, 5], "tokens": {"shape": [1, 5], "type": "int64"}}},
            r"state: the model's shape is \[1, 4\], but the manifest says \[1, 5\]",
        ),
        (
            {"inputs": {"state": [1, 4], "tokens": {"shape": [1, 5], "type": "int32"}}},
            "tokens: the model's type is int64, but the manifest says int32",
        ),
    ],
)
def test_a_program_that_is_not_the_manifests_is_refused(exported, changes, words):
    with pytest.raises(BundleError, match=words):
        TorchBackend(exported[1], graph(**changes), BackendOptions())


def test_an_output_of_another_shape_is_an_error(exported):
    backend = TorchBackend(exported[1], graph(outputs={"actions": [1, 3, 2]}), BackendOptions())
    with pytest.raises(BackendError, match=r"'actions' is float32 \[1, 2, 3\]"):
        backend.run(inputs())


def test_a_gpu_that_is_not_there_is_not_replaced(exported):
    if not torch.cuda.is_available():
        with pytest.raises(BundleError, match=r"provider cuda: this torch .* sees no GPU"):
            TorchBackend(exported[1], graph(), BackendOptions(provider="cuda"))
    with pytest.raises(BundleError, match="providers cpu and cuda, not 'tensorrt'"):
        TorchBackend(exported[1], graph(), BackendOptions(provider="tensorrt"))


def rewrite(source, target, change=None, add=None):
    """Copy an archive, with the model's JSON changed as `change` does, and records added."""
    with zipfile.ZipFile(source) as old, zipfile.ZipFile(target, "w") as new:
        root = old.namelist()[0].split("/")[0]
        for name in old.namelist():
            data = old.read(name)
            if change is not None and name.endswith("models/model.json"):
                content = json.loads(data)
                change(content)
                data = json.dumps(content).encode()
            if add and name.removeprefix(f"{root}/") in add:
                continue
            new.writestr(name, data)
        for name, data in (add or {}).items():
            new.writestr(f"{root}/{name}", data)


class Evil:
    """What a pickle may do: anything. Here it makes a file."""

    def __init__(self, file):
        self.file = str(file)

    def __reduce__(self):
        return open, (self.file, "w")


def calls(target):
    def change(content):
        content["graph_module"]["graph"]["nodes"][0]["target"] = target

    return change


@pytest.mark.parametrize(
    "target",
    [
        "torch.os.system",
        "torch.ops.load_library",
        "torch.ops.aten.from_file.default",
        "torch.load",
        "_operator.methodcaller",
        "math.__loader__",
        "#anything",
        "print",
        "torch.ops.aten.add.__init__.x",
    ],
)
def test_a_call_of_more_than_arithmetic_is_refused(exported, tmp_path, target):
    rewrite(exported[1], tmp_path / "m.pt2", calls(target))
    with pytest.raises(BundleError, match="its graph calls"):
        TorchBackend(tmp_path / "m.pt2", graph(), BackendOptions())


def test_a_rewritten_archive_still_loads(exported, tmp_path):
    """Else the tests beside this one would show nothing."""
    rewrite(exported[1], tmp_path / "m.pt2", lambda _: None)
    TorchBackend(tmp_path / "m.pt2", graph(), BackendOptions()).run(inputs())


def test_a_function_handed_to_an_operator_that_calls_it_is_refused(exported, tmp_path):
    def change(content):
        node = content["graph_module"]["graph"]["nodes"][0]
        node["target"] = "torch.ops.higher_order.wrap_with_set_grad_enabled"
        node["inputs"][0]["arg"] = {"as_operator": "torch.os.system"}

    rewrite(exported[1], tmp_path / "m.pt2", change)
    with pytest.raises(BundleError, match=r"its graph calls 'torch\.os\.system'"):
        TorchBackend(tmp_path / "m.pt2", graph(), BackendOptions())


def test_a_free_batch_axis_takes_the_manifests_length(tmp_path):
    args = (torch.zeros(3, 4), torch.zeros(3, 5, dtype=torch.int64))

    class Rows(torch.nn.Module):
        def forward(self, state, tokens):
            return state[:, :2] + tokens[:, :2].float() + (state.shape[0] * 2 + 1)

    batch = torch.export.Dim("batch")
    program = torch.export.export(
        Rows(), args, dynamic_shapes={"state": {0: batch}, "tokens": {0: batch}}
    )
    torch.export.save(program, str(tmp_path / "m.pt2"))
    backend = TorchBackend(tmp_path / "m.pt2", graph(outputs={"actions": [1, 2]}), BackendOptions())
    np.testing.assert_array_equal(backend.run(inputs())["actions"], [[5.0, 7.0]])


@pytest.mark.parametrize(
    "expression",
    ["__import__('os').getcwd()", "eval(chr(95)+chr(95))", "open(1)", "exit()", "9**9**9", ""],
)
def test_a_length_that_would_be_evaluated_is_refused(exported, tmp_path, expression):
    def change(content):
        sizes = content["graph_module"]["graph"]["tensor_values"]["state"]["sizes"]
        sizes[0] = {"as_expr": {"expr_str": expression, "hint": None}}

    rewrite(exported[1], tmp_path / "m.pt2", change)
    with pytest.raises(BundleError, match="a length in it is"):
        TorchBackend(tmp_path / "m.pt2", graph(), BackendOptions())


def test_pickles_are_refused_and_do_not_run(exported, tmp_path):
    import io
    import pickle

    mark = tmp_path / "mark"
    buffer = io.BytesIO()
    torch.save(Evil(mark), buffer)
    rewrite(exported[1], tmp_path / "a.pt2", add={"data/sample_inputs/model.pt": buffer.getvalue()})
    with pytest.raises(BundleError, match="sample inputs are no plain tensors"):
        TorchBackend(tmp_path / "a.pt2", graph(), BackendOptions())
    evil = pickle.dumps(Evil(mark))
    rewrite(exported[1], tmp_path / "b.pt2", add={"data/constants/opaque_obj_0": evil})
    with pytest.raises(BundleError, match="'data/constants/opaque_obj_0'"):
        TorchBackend(tmp_path / "b.pt2", graph(), BackendOptions())
    config = {"config": {"l": {"path_name": "weight_0", "is_param": True, "use_pickle": True}}}
    weights = json.dumps(config).encode()
    rewrite(
        exported[1],
        tmp_path / "c.pt2",
        add={"data/weights/model_weights_config.json": weights, "data/weights/weight_0": evil},
    )
    with pytest.raises(BundleError, match="a pickled tensor"):
        TorchBackend(tmp_path / "c.pt2", graph(), BackendOptions())
    (tmp_path / "d.pt2").write_bytes(evil)
    with pytest.raises(BundleError, match=r"is no \.pt2 file"):
        TorchBackend(tmp_path / "d.pt2", graph(), BackendOptions())
    assert not mark.exists()


@pytest.mark.slow
def test_machine_code_is_run_for_those_who_trust_it_alone(tmp_path):
    model, program = export(tmp_path / "m.pt2")
    file = tmp_path / "compiled.pt2"
    try:
        torch._inductor.aoti_compile_and_package(program, package_path=str(file))
    except Exception as err:  # noqa: BLE001 - no compiler, or one that fails
        pytest.skip(f"AOTInductor cannot compile here: {str(err).splitlines()[0]}")
    said = graph(inputs={"state": [1, 4], "tokens": {"shape": [1, 5], "type": "int64"}})
    with pytest.raises(BundleError, match=r"is machine code .*set trust_code"):
        TorchBackend(file, said, BackendOptions())
    backend = TorchBackend(file, said, BackendOptions(trust_code=True))
    with torch.no_grad():
        expected = model(*(torch.tensor(inputs()[n]) for n in ("state", "tokens")))
    np.testing.assert_allclose(backend.run(inputs())["actions"], expected.numpy(), rtol=1e-5)
