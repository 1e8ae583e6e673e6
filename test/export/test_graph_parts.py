"""Promise: what is rewritten so that ONNX can express it computes what the original computes."""

import math
import subprocess
import sys

import numpy as np
import onnxruntime
import pytest

torch = pytest.importorskip("torch", reason="needs torch: requirements/learn.txt")
pytest.importorskip("onnxscript", reason="needs onnxscript: requirements/learn.txt")

from vla_ros.export.lerobot import torchvision_shim as shim
from vla_ros.export.lerobot.diffusion import _MatrixResize
from vla_ros.export.lerobot.images import FitImage
from vla_ros.export.lerobot.time_embedding import time_embedding
from vla_ros.export.precision import _to_fp16
from vla_ros.export.torch_graph import TorchGraph, write_onnx


def _embedded(time, dimension):
    """Return what lerobot computes, in double precision."""
    fraction = np.linspace(0.0, 1.0, dimension // 2)
    period = 4e-3 * 1000.0**fraction
    angle = 2.0 * math.pi / period[None] * np.asarray(time, np.float64)[:, None]
    return np.concatenate([np.sin(angle), np.cos(angle)], axis=1)


@pytest.mark.parametrize(("precision", "limit"), [("fp32", 1e-6), ("fp16", 1e-3)])
def test_the_time_is_embedded_as_precisely_as_in_float64(tmp_path, precision, limit):
    class Embed(torch.nn.Module):
        def forward(self, time):
            return time_embedding(time, 72, 4e-3, 4.0)

    graph = TorchGraph("fp32", Embed(), {"time": torch.ones(1)}, ("embedded",))
    write_onnx(graph, tmp_path)
    _to_fp16(tmp_path / "fp32.onnx", tmp_path / "fp16.onnx")
    session = onnxruntime.InferenceSession(str(tmp_path / f"{precision}.onnx"))
    for time in np.linspace(0.0, 1.0, 41, dtype=np.float32):
        found = session.run(None, {"time": np.array([time])})[0]
        assert found.dtype == np.float32
        assert np.abs(found - _embedded([time], 72)).max() < limit


def test_a_resize_by_matrices_is_the_resize():
    images = torch.rand(2, 3, 48, 64, generator=torch.Generator().manual_seed(0))
    for size in ((24, 20), (60, 90)):
        resize = shim.Resize(size)
        assert torch.allclose(_MatrixResize(resize, 48, 64)(images), resize(images), atol=1e-6)


@pytest.mark.parametrize("size", [(48, 64), (40, 72), (100, 30), (16, 16)])
@pytest.mark.parametrize("centred", [True, False])
def test_an_image_is_fitted_without_distortion(size, centred):
    image = torch.full((1, 3, *size), 0.75)
    fitted = FitImage(size, (32, 32), centred=centred, pad=-1.0)(image)
    assert fitted.shape == (1, 3, 32, 32)
    seen = (fitted[0, 0] - 0.5).abs() < 1e-6
    assert torch.equal(fitted[0, 0][~seen], torch.full_like(fitted[0, 0][~seen], -3.0))
    shown = (int(seen.any(dim=1).sum()), int(seen.any(dim=0).sum()))
    assert shown == tuple(32 * length // max(size) for length in size)
    if centred:
        assert abs(int(seen[:, 16].nonzero().float().mean() * 2) - 31) <= 1
    else:
        assert seen[-1, -1]


def test_a_batch_normalisation_that_is_frozen_is_the_one_in_evaluation():
    torch.manual_seed(0)
    usual = torch.nn.BatchNorm2d(5).eval()
    for value in (usual.weight, usual.bias, usual.running_mean, usual.running_var):
        value.data.uniform_(0.5, 2.0)
    frozen = shim.FrozenBatchNorm2d(5)
    frozen.load_state_dict(usual.state_dict())
    images = torch.randn(2, 5, 4, 4)
    assert torch.allclose(frozen(images), usual(images), atol=1e-6)


@pytest.mark.parametrize("depth", [18, 50])
def test_a_resnet_has_the_sizes_of_torchvisions(depth):
    block = shim.BasicBlock if depth == 18 else shim.Bottleneck
    layers = (2, 2, 2, 2) if depth == 18 else (3, 4, 6, 3)
    net = shim.ResNet(block, layers).eval()
    # torchvision's documentation gives these numbers of parameters.
    count = {18: 11_689_512, 50: 25_557_032}[depth]
    assert sum(value.numel() for value in net.parameters()) == count
    getter = shim.IntermediateLayerGetter(net, {"layer4": "feature_map"})
    features = getter(torch.zeros(1, 3, 64, 96))["feature_map"]
    assert features.shape == (1, 512 * block.expansion, 2, 3)
    assert "layer2.0.downsample.0.weight" in net.state_dict()


def test_a_stride_replaced_by_dilation_keeps_the_features_size():
    dilated = (False, False, True)
    net = shim.ResNet(shim.Bottleneck, (3, 4, 6, 3), replace_stride_with_dilation=dilated)
    assert net.layer4[0].conv2.dilation == (1, 1)
    assert net.layer4[1].conv2.dilation == (2, 2)
    getter = shim.IntermediateLayerGetter(net.eval(), {"layer4": "map"})
    assert getter(torch.zeros(1, 3, 64, 64))["map"].shape[-2:] == (4, 4)


def test_the_shim_gives_way_to_torchvision_and_says_what_it_lacks():
    code = (
        "import importlib.util, sys\n"
        "had = importlib.util.find_spec('torchvision') is not None\n"
        "from vla_ros.export.lerobot.torchvision_shim import install\n"
        "assert install() is not had\n"
        "import torchvision\n"
        "from torchvision.models._utils import IntermediateLayerGetter\n"
        "if not had:\n"
        "    try:\n"
        "        torchvision.transforms.v2.ColorJitter(0.1)(1)\n"
        "    except NotImplementedError as err:\n"
        "        assert 'install torchvision' in str(err)\n"
        "    else:\n"
        "        raise AssertionError\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_an_input_that_a_module_does_not_use_is_told(tmp_path):
    class Ignores(torch.nn.Module):
        def forward(self, front, state):  # noqa: ARG002
            return front + 1.0

    inputs = {"front": torch.zeros(1, 2), "state": torch.zeros(1, 3)}
    with pytest.raises(RuntimeError, match="does not use its input 'state'"):
        write_onnx(TorchGraph("policy", Ignores(), inputs, ("actions",)), tmp_path)
