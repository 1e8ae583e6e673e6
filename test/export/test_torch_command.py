"""Promise: a torch.export program becomes a bundle that computes the same, or no bundle."""

import json
import pickle

import numpy as np
import pytest
import yaml

torch = pytest.importorskip("torch", reason="needs torch: requirements/learn.txt")
pytest.importorskip("onnxscript", reason="needs onnxscript: requirements/learn.txt")

from vla_ros.cli import main
from vla_ros.export import finish, parity
from vla_ros.policy.bundle import Bundle

NAMES = ["joint.position.j1", "joint.position.j2"]


class Direct(torch.nn.Module):
    """Sees an image and a state, and gives four actions of two joints."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.layer = torch.nn.Linear(3 + 2, 8)

    def forward(self, front, state):
        seen = torch.cat([front.mean(dim=(2, 3)), state], dim=1)
        return torch.tanh(self.layer(seen)).reshape(1, 4, 2)


class Prefix(torch.nn.Module):
    def forward(self, front):
        return front.mean(dim=(2, 3))


class Step(torch.nn.Module):
    def __init__(self):
        super().__init__()
        torch.manual_seed(1)
        self.layer = torch.nn.Linear(2 + 3 + 2 + 1, 2)

    def forward(self, noise, time, seen, state):
        given = torch.cat([seen, state, time[:, None]], dim=1)[:, None].expand(1, 4, 6)
        return torch.tanh(self.layer(torch.cat([noise, given], dim=2)))


def _manifest(decoder):
    normal = {"type": "mean_std", "mean": [0.5, -0.5], "std": [0.25, 2.0]}
    camera = {"name": "front", "scale": 1 / 255, "mean": [0.5] * 3, "std": [0.25] * 3}
    return {
        "cameras": [camera],
        "state": {"names": NAMES, "normalisation": normal},
        "decoder": decoder,
        "action": {
            "type": "joint_position",
            "rate_hz": 30.0,
            "names": ["j1", "j2"],
            "normalisation": normal,
            "gripper": None,
        },
    }


def _save(module, inputs, file):
    torch.export.save(torch.export.export(module, inputs), str(file))
    return str(file)


@pytest.fixture
def direct(tmp_path):
    (tmp_path / "manifest.yaml").write_text(yaml.safe_dump(_manifest({"type": "direct"})))
    inputs = (torch.rand(1, 3, 12, 16), torch.rand(1, 2))
    return _save(Direct(), inputs, tmp_path / "model.pt2")


def _export(tmp_path, *words):
    folder, manifest = tmp_path / "bundle", tmp_path / "manifest.yaml"
    return main(["export", "torch", *words, "--manifest", str(manifest), "--out", str(folder)])


@pytest.mark.parametrize("backend", ["onnx", "torch"])
def test_a_program_becomes_a_bundle_that_computes_the_same(tmp_path, direct, backend):
    assert _export(tmp_path, direct, "--backend", backend) == 0
    bundle = Bundle.load(tmp_path / "bundle")
    graph = bundle.manifest.graphs[0]
    assert graph.backend == backend
    assert graph.inputs["front"].shape == (1, 3, 12, 16)
    assert bundle.camera("front").size == (12, 16)
    assert bundle.manifest.action.chunk == 4
    report = json.loads((tmp_path / "bundle" / "parity.json").read_text())
    assert set(report["greatest_difference"]) >= {"policy", "decode", "end to end"}
    assert 0.0 <= report["greatest_difference"]["end to end"] <= 1e-5
    assert report["greatest_value"]["end to end"] > 0.1


def test_flow_matching_of_two_programs(tmp_path):
    decoder = {
        "type": "flow",
        "steps": 3,
        "direction": "one_to_zero",
        "cache": {"seen": "seen"},
    }
    (tmp_path / "manifest.yaml").write_text(yaml.safe_dump(_manifest(decoder)))
    images = (torch.rand(1, 3, 12, 16),)
    given = (torch.rand(1, 4, 2), torch.ones(1), torch.rand(1, 3), torch.rand(1, 2))
    prefix = _save(Prefix(), images, tmp_path / "a.pt2")
    step = _save(Step(), given, tmp_path / "b.pt2")
    assert _export(tmp_path, f"prefix={prefix}", f"step={step}") == 0
    graphs = Bundle.load(tmp_path / "bundle").manifest.graphs
    assert [graph.name for graph in graphs] == ["prefix", "step"]
    assert "state" in graphs[1].inputs


def test_a_bundle_that_is_off_its_model_is_none(tmp_path, direct, monkeypatch, capsys):
    real = parity.make_decoder

    class Worse:
        """Decodes with one action a little off."""

        takes_prefix = False

        def __init__(self, manifest):
            self._decoder = real(manifest)

        def decode(self, *args, **options):
            actions = self._decoder.decode(*args, **options).copy()
            actions[2, 1] += 1e-3
            return actions

    monkeypatch.setattr(parity, "make_decoder", Worse)
    assert _export(tmp_path, direct, "--fp16") == 1
    out = capsys.readouterr().out
    assert "is 2.0e-03 off the model, more than 1e-04" in out
    assert [path.name for path in (tmp_path / "bundle").iterdir()] == ["parity.json"]
    assert not finish.variant_folder(tmp_path / "bundle", "fp16").exists()
    report = json.loads((tmp_path / "bundle" / "parity.json").read_text())
    assert report["greatest_difference"]["policy"] < 1e-5
    assert report["greatest_difference"]["decode"] == pytest.approx(1e-3, rel=1e-3)


def test_outputs_of_another_number_are_refused(tmp_path, direct, capsys):
    decoder = {"type": "flow", "steps": 3, "direction": "one_to_zero"}
    cache = {"cache": {"keys": "keys", "values": "values"}}
    (tmp_path / "manifest.yaml").write_text(yaml.safe_dump(_manifest(decoder | cache)))
    assert _export(tmp_path, f"prefix={direct}", f"step={direct}") == 1
    assert "gives 1 outputs, but the manifest names 2 for graph 'prefix'" in capsys.readouterr().err


def test_precision_is_of_onnx_alone(tmp_path, direct, capsys):
    assert _export(tmp_path, direct, "--backend", "torch", "--int8") == 1
    assert "leave out --backend torch" in capsys.readouterr().err


def test_a_pickle_is_not_opened(tmp_path, direct, capsys):
    (tmp_path / "evil.pt2").write_bytes(pickle.dumps(np.zeros(3)))
    assert _export(tmp_path, str(tmp_path / "evil.pt2")) == 1
    assert "is no .pt2 file of torch.export.save" in capsys.readouterr().err
    assert direct
