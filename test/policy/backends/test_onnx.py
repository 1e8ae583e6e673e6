"""ONNX Runtime runs what was asked for or does not start; inputs are checked; binding is exact."""

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper

from vla_ros.policy.backends import BackendError, BackendOptions
from vla_ros.policy.backends.onnx import OnDevice, OnnxBackend, provider_options
from vla_ros.policy.manifest import BundleError, Graph

F32 = TensorProto.FLOAT


def write(file, shape=(1, 3), kind=F32, *, extra_output=False):
    """Write y = x + k (and z = x), k an int64 input of shape (1,)."""
    outputs = [helper.make_tensor_value_info("y", kind, list(shape))]
    nodes = [
        helper.make_node("Cast", ["k"], ["f"], to=kind),
        helper.make_node("Add", ["x", "f"], ["y"]),
    ]
    if extra_output:
        nodes.append(helper.make_node("Identity", ["x"], ["z"]))
        outputs.append(helper.make_tensor_value_info("z", kind, list(shape)))
    graph = helper.make_graph(
        nodes,
        "sum",
        [
            helper.make_tensor_value_info("x", kind, list(shape)),
            helper.make_tensor_value_info("k", TensorProto.INT64, [1]),
        ],
        outputs,
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.save(model, str(file))


def graph(shape=(1, 3), kind="float32", output="y"):
    return Graph.model_validate(
        {
            "name": "policy",
            "file": "g.onnx",
            "inputs": {"x": {"shape": shape, "type": kind}, "k": {"shape": [1], "type": "int64"}},
            "outputs": {output: {"shape": shape, "type": kind}},
        }
    )


def feed(kind=np.float32, k=2):
    return {"x": np.array([[1, 2, 3]], kind), "k": np.array([k], np.int64)}


@pytest.fixture
def file(tmp_path):
    return tmp_path / "g.onnx"


@pytest.mark.parametrize("provider", ["cpu", "CPUExecutionProvider"])
def test_it_runs_on_the_cpu_under_both_names(file, provider):
    write(file)
    backend = OnnxBackend(file, graph(), BackendOptions(provider=provider))
    np.testing.assert_array_equal(backend.run(feed())["y"], [[3, 4, 5]])


def test_symbolic_axes_take_the_manifests_length(file):
    write(file, ("batch", "n"))
    backend = OnnxBackend(file, graph(), BackendOptions())
    np.testing.assert_array_equal(backend.run(feed())["y"], [[3, 4, 5]])


def test_half_precision_is_a_property_of_the_file(file):
    write(file, kind=TensorProto.FLOAT16)
    backend = OnnxBackend(file, graph(kind="float16"), BackendOptions())
    y = backend.run(feed(np.float16))["y"]
    assert y.dtype == np.float16
    np.testing.assert_array_equal(y, [[3, 4, 5]])


def test_outputs_that_the_manifest_does_not_name_are_left(file):
    write(file, extra_output=True)
    assert set(OnnxBackend(file, graph(), BackendOptions()).run(feed())) == {"y"}


@pytest.mark.parametrize(
    ("said", "words"),
    [
        (graph(shape=(1, 4)), r"x: the model's shape is \[1, 3\], but the manifest says \[1, 4\]"),
        (graph(kind="float16"), "x: the model's type is float32, but the manifest says float16"),
        (graph(output="actions"), r"no output 'actions'; it has \['y'\]"),
    ],
)
def test_a_graph_that_is_not_the_manifests_is_refused(file, said, words):
    write(file)
    with pytest.raises(BundleError, match=words):
        OnnxBackend(file, said, BackendOptions())


def test_an_input_that_does_not_fit_is_an_error_in_motion(file):
    write(file)
    backend = OnnxBackend(file, graph(), BackendOptions())
    with pytest.raises(BackendError, match="x"):
        backend.run({**feed(), "x": np.zeros((1, 4), np.float32)})
    backend.close()
    with pytest.raises(BackendError, match="closed"):
        backend.run(feed())


@pytest.mark.parametrize("provider", ["cuda", "tensorrt", "CUDAExecutionProvider"])
def test_a_gpu_that_is_not_there_is_not_replaced_and_the_error_says_what_to_install(file, provider):
    write(file)
    if "CUDAExecutionProvider" in onnxruntime.get_available_providers():
        pytest.skip("this onnxruntime has CUDA")
    with pytest.raises(BundleError, match=rf"'{provider}' is not in this.*onnxruntime-gpu.*cuDNN"):
        OnnxBackend(file, graph(), BackendOptions(provider=provider))


def test_a_gpu_provider_that_would_fall_back_is_refused(file, monkeypatch):
    """Some builds list CUDA on a machine without a GPU, and open the session on the CPU."""
    write(file)
    names = ["CUDAExecutionProvider", "CPUExecutionProvider"]
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: names)
    real = onnxruntime.InferenceSession
    monkeypatch.setattr(
        onnxruntime,
        "InferenceSession",
        lambda path, *_, **__: real(path, providers=["CPUExecutionProvider"]),
    )
    with pytest.raises(BundleError, match=r"CUDAExecutionProvider was asked for, but CPU.*install"):
        OnnxBackend(file, graph(), BackendOptions(provider="cuda"))


def test_settings_reach_tensorrt_and_nobody_else(tmp_path):
    options = BackendOptions(precision="fp16", cache_dir=tmp_path / "engines", cuda_graph=True)
    found = provider_options("TensorrtExecutionProvider", options)
    assert found["trt_fp16_enable"] == found["trt_cuda_graph_enable"] == "True"
    assert found["trt_engine_cache_path"] == str(tmp_path / "engines")
    assert (tmp_path / "engines").is_dir()
    with pytest.raises(BundleError, match="precision fp16 is TensorRT's alone"):
        provider_options("CUDAExecutionProvider", BackendOptions(precision="fp16"))
    with pytest.raises(BundleError, match="cuda_graph needs"):
        provider_options("CPUExecutionProvider", BackendOptions(cuda_graph=True))
    assert provider_options("CUDAExecutionProvider", BackendOptions(cuda_graph=True)) == {
        "enable_cuda_graph": "1"
    }


@pytest.fixture
def bound(file):
    """The code that runs on a GPU, with the CPU's memory as the device's."""
    write(file)
    session = onnxruntime.InferenceSession(str(file), providers=["CPUExecutionProvider"])
    return OnDevice(session, graph(), "cpu")


def test_bound_memory_gives_the_same_and_keeps_no_result(bound):
    first = bound.run(feed(k=2))["y"]
    second = bound.run(feed(k=5))["y"]
    np.testing.assert_array_equal(first, [[3, 4, 5]])
    np.testing.assert_array_equal(second, [[6, 7, 8]])


def test_an_array_that_was_changed_in_place_is_copied_again(bound):
    inputs = feed()
    bound.run(inputs)
    inputs["x"][0, 0] = 10
    np.testing.assert_array_equal(bound.run(inputs)["y"], [[12, 4, 5]])
    fixed = bound.run(inputs)["y"]  # read-only: copied once
    assert not fixed.flags.writeable
    for _ in range(2):
        np.testing.assert_array_equal(bound.run({**feed(k=1), "x": fixed})["y"], [[13, 5, 6]])
    np.testing.assert_array_equal(bound.run(feed(k=1))["y"], [[2, 3, 4]])


def test_bound_memory_refuses_what_does_not_fit(bound):
    with pytest.raises(ValueError, match=r"'x' is float32 \[1, 2\], not float32 \[1, 3\]"):
        bound.run({**feed(), "x": np.zeros((1, 2), np.float32)})
    with pytest.raises(ValueError, match="inputs are"):
        bound.run({"x": feed()["x"]})
