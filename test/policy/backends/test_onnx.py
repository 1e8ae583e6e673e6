"""ONNX Runtime runs what was asked for or does not start; inputs are checked; binding is exact."""

from functools import partial

import numpy as np
import onnx
import onnxruntime
import pytest
from decoder_bundles import make_action_tokens, make_diffusion, make_flow
from onnx import TensorProto, helper

from vla_ros.policy.backends import BackendError, BackendOptions
from vla_ros.policy.backends import onnx as onnx_backend
from vla_ros.policy.backends.onnx import BoundSession, OnnxBackend, provider_options
from vla_ros.policy.manifest import BundleError, Graph
from vla_ros.policy.policy import Policy
from vla_ros.policy.serving import read_observation

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
    with pytest.raises(BundleError, match=rf"'{provider}' is not in this.*onnxruntime-gpu"):
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


def test_a_library_that_is_missing_is_named(file, monkeypatch, tmp_path):
    write(file)
    (tmp_path / "capi").mkdir()
    (tmp_path / "capi" / "libonnxruntime_providers_cuda.so").write_bytes(b"")
    monkeypatch.setattr(onnxruntime, "__file__", str(tmp_path / "__init__.py"))
    names = ["CUDAExecutionProvider", "CPUExecutionProvider"]
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: names)

    def load(_):
        message = "libcublasLt.so.12: cannot open shared object file: No such file or directory"
        raise OSError(message)

    monkeypatch.setattr(onnx_backend.ctypes, "CDLL", load)
    with pytest.raises(BundleError, match=r"'cuda' cannot be loaded: libcublasLt\.so\.12.*pip"):
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
    return BoundSession(session, graph(), "cpu")


def test_bound_memory_gives_the_same_and_tells_when_it_was_written_over(bound):
    first = bound.run(feed(k=2))["y"]
    assert (first.shape, first.dtype) == ((1, 3), np.float32)
    kept = np.asarray(first)
    second = bound.run(feed(k=5))["y"]
    np.testing.assert_array_equal(kept, [[3, 4, 5]])
    np.testing.assert_array_equal(second, [[6, 7, 8]])
    with pytest.raises(BackendError, match="'y' is of an earlier run"):
        np.asarray(first)


def test_an_array_that_was_changed_in_place_is_copied_again(bound):
    inputs = feed()
    bound.run(inputs)
    inputs["x"][0, 0] = 10
    np.testing.assert_array_equal(bound.run(inputs)["y"], [[12, 4, 5]])


def test_an_output_goes_on_to_the_next_run_without_the_host(bound, monkeypatch):
    """As the cache of a language model does, which each step reads and writes anew."""
    value = bound.run(feed(k=1))["y"]
    with monkeypatch.context() as patch:
        patch.setattr(onnxruntime.OrtValue, "numpy", None)
        for _ in range(3):
            value = bound.run({"x": value, "k": np.array([10], np.int64)})["y"]
    np.testing.assert_array_equal(value, [[32, 33, 34]])
    # The next array goes to its own place, not to where that output is.
    np.testing.assert_array_equal(bound.run(feed(k=0))["y"], [[1, 2, 3]])


def test_an_output_goes_to_another_graph_and_to_other_backends(bound, file):
    other = BoundSession(bound._session, graph(), "cpu")
    first = bound.run(feed(k=1))["y"]
    np.testing.assert_array_equal(other.run({**feed(), "x": first})["y"], [[4, 5, 6]])
    plain = OnnxBackend(file, graph(), BackendOptions())
    np.testing.assert_array_equal(plain.run({**feed(), "x": first})["y"], [[4, 5, 6]])
    np.testing.assert_array_equal(np.asarray(first), [[2, 3, 4]])


@pytest.mark.parametrize("fixed", [False, True])
@pytest.mark.parametrize("make", [make_flow, make_diffusion, make_action_tokens])
def test_decoders_give_the_same_from_a_devices_memory(tmp_path, monkeypatch, make, fixed):
    """Caches go from graph to graph there; only actions and logits come back."""
    bundle = make(tmp_path)
    moments = () if bundle.manifest.history.steps == 1 else (bundle.manifest.history.steps,)
    request = {"front": np.full((*moments, 8, 8, 3), 51, np.uint8), "prompt": "pick up"}
    request["state"] = np.full((*moments, 2), 0.02)
    observation = read_observation(request, bundle.manifest)
    expected = Policy(bundle).predict(observation)
    monkeypatch.setitem(onnx_backend._DEVICES, "CPUExecutionProvider", "cpu")
    bound = partial(BoundSession, cuda_graph=False, fixed=fixed)
    monkeypatch.setattr(onnx_backend, "BoundSession", lambda *args, **_: bound(*args))
    policy = Policy(bundle)
    for _ in range(2):
        np.testing.assert_array_equal(policy.predict(observation), expected)


def test_a_cuda_graph_is_kept_for_each_set_of_addresses(file):
    """The CPU's provider does not look at the id: only the numbering is tested here."""
    write(file)
    session = onnxruntime.InferenceSession(str(file), providers=["CPUExecutionProvider"])
    bound = BoundSession(session, graph(), "cpu", cuda_graph=True)
    for _ in range(3):
        value = bound.run(feed())["y"]
    assert len(bound._captured) == 1
    for _ in range(6):
        value = bound.run({"x": value, "k": np.array([1], np.int64)})["y"]
    # From the array's place, then to and fro between two sets of outputs.
    assert len(bound._captured) == 3
    np.testing.assert_array_equal(value, [[9, 10, 11]])


def test_at_fixed_places_nothing_but_the_places_is_bound(file):
    """As TensorRT needs it for its only CUDA graph; an output is fetched once."""
    write(file)
    session = onnxruntime.InferenceSession(str(file), providers=["CPUExecutionProvider"])
    producer = BoundSession(session, graph(), "cpu")
    bound = BoundSession(session, graph(), "cpu", fixed=True)
    addresses = set()
    for k in (1, 5):
        cache = producer.run(feed(k=k))["y"]
        fetches = []
        real = cache._fetch
        cache._fetch = lambda fetches=fetches, real=real: (fetches.append(1), real())[1]
        for step in range(3):
            outputs = bound.run({"x": cache, "k": np.array([step], np.int64)})
            np.testing.assert_array_equal(
                outputs["y"], [[1 + k + step, 2 + k + step, 3 + k + step]]
            )
            addresses.add((bound._bound["x"].data_ptr(), outputs["y"].value.data_ptr()))
        assert len(fetches) == 1
        # An array at the same input, then the output again.
        np.testing.assert_array_equal(bound.run(feed(k=0))["y"], [[1, 2, 3]])
        again = bound.run({"x": cache, "k": np.array([0], np.int64)})["y"]
        np.testing.assert_array_equal(again, [[1 + k, 2 + k, 3 + k]])
        # Its own output, which it writes over as it reads.
        own = bound.run({"x": again, "k": np.array([1], np.int64)})["y"]
        np.testing.assert_array_equal(own, [[2 + k, 3 + k, 4 + k]])
    assert len(addresses) == 1


def test_bound_memory_refuses_what_does_not_fit(bound):
    with pytest.raises(ValueError, match=r"'x' is float32 \[1, 2\], not float32 \[1, 3\]"):
        bound.run({**feed(), "x": np.zeros((1, 2), np.float32)})
    with pytest.raises(ValueError, match="inputs are"):
        bound.run({"x": feed()["x"]})
