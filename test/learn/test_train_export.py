"""Training continues after a crash to the same end, and what is exported computes the same."""

import json

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="training needs torch: requirements/learn.txt")
pytest.importorskip("onnx", reason="exporting needs onnx: requirements/learn.txt")

from vla_ros.learn import train as training_module  # noqa: E402
from vla_ros.learn.dataset import DESCRIPTION, Dataset, shard_path, write_shard  # noqa: E402
from vla_ros.learn.export import difference, export, export_graph, random_inputs  # noqa: E402
from vla_ros.learn.instructions import NO_TARGET, TOKENS, vocabulary  # noqa: E402
from vla_ros.learn.model import PickPolicy  # noqa: E402
from vla_ros.learn.train import Recipe, Words, losses, make_batch, train  # noqa: E402
from vla_ros.policy.bundle import Bundle  # noqa: E402
from vla_ros.policy.policy import Policy  # noqa: E402

RECIPE = Recipe(steps=4, batch=8, warmup=2, word_steps=3)


def _episode(seed: int, length: int = 12) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    numbers = {
        "state": (17,),
        "actions": (16, 7),
        "mask": (16,),
        "target": (5,),
        "front_point": (2,),
        "wrist_point": (2,),
        "front_seen": (),
        "wrist_seen": (),
    }
    arrays = {n: rng.random((length, *s)).astype(np.float32) for n, s in numbers.items()}
    arrays["front"] = rng.integers(0, 256, (length, 96, 96, 3), np.uint8)
    arrays["wrist"] = rng.integers(0, 256, (length, 80, 96, 3), np.uint8)
    arrays["colour"] = np.full(length, seed % 3)
    arrays["episode"] = np.full(length, seed)
    return arrays


@pytest.fixture
def data(tmp_path):
    folder = tmp_path / "data"
    write_shard(shard_path(folder, 0), [_episode(seed) for seed in (40, 41, 42)])
    description = {"shards": 1, "episodes": 3, "seed": 40}
    (folder / DESCRIPTION).write_text(json.dumps(description))
    return folder


@pytest.fixture(autouse=True)
def threads():
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


def test_the_network_gives_a_chunk_and_a_gripper_between_0_and_1():
    net = PickPolicy(len(vocabulary())).eval()
    with torch.no_grad():
        actions = net(*(torch.from_numpy(a) for a in random_inputs(0).values()))
    assert actions.shape == (1, 16, 7)
    assert ((actions[..., 6] >= 0) & (actions[..., 6] <= 1)).all()


def test_the_words_and_their_order_reach_the_network():
    torch.manual_seed(0)
    text = PickPolicy(len(vocabulary())).text.eval()
    tokens = torch.zeros(3, TOKENS, dtype=torch.int64)
    tokens[0, :4] = torch.tensor([5, 6, 7, 8])
    tokens[1, :4] = torch.tensor([8, 6, 7, 5])
    tokens[2, :4] = torch.tensor([5, 6, 7, 9])
    with torch.no_grad():
        a, b, c = text(tokens)
    assert (a - b).abs().max() > 1e-4
    assert (a - c).abs().max() > 1e-4


def test_padding_does_not_change_what_words_mean():
    torch.manual_seed(0)
    text = PickPolicy(len(vocabulary())).text.eval()
    tokens = torch.tensor([[5, 6, 7] + [0] * (TOKENS - 3)])
    with torch.no_grad():
        before = text(tokens)
        text.words.weight[0] = 3.0 * torch.randn(text.words.weight.shape[1])
        assert torch.allclose(text(tokens), before, atol=1e-5)


def test_a_share_of_the_samples_is_to_hold_still_with_the_gripper_as_it_is(data):
    recipe = Recipe(no_target=0.5)
    rows = np.arange(36)
    content = Dataset.load(data)
    content._labels["state"][:, 9] = np.linspace(0.03, 0.08, 36)
    batch = make_batch(content, rows, Words(), recipe, 0, augment=True)
    still = (batch.colour == NO_TARGET).numpy()
    assert 8 < still.sum() < 28
    labels = content.labels(rows)
    assert (labels["colour"] < NO_TARGET).all()
    assert (batch.actions[still][..., :6] == 0).all()
    assert (batch.mask[still] == 1).all()
    # The fingers around a 40 mm cube count as closed.
    is_open = labels["state"][:, 9] > 0.06
    assert np.array_equal(
        batch.actions[still][..., 6].numpy(), np.repeat(is_open[still][:, None], 16, 1)
    )
    assert np.array_equal(batch.actions[~still].numpy(), labels["actions"][~still])


def test_where_a_cube_is_does_not_count_when_none_is_named(data):
    content, recipe = Dataset.load(data), Recipe(no_target=1.0)
    batch = make_batch(content, np.arange(8), Words(), recipe, 0, augment=False)
    net = PickPolicy(len(vocabulary())).eval()
    with torch.no_grad():
        out = net.outputs(batch.front / 255, batch.wrist / 255, batch.state, batch.tokens)
    parts = losses(out, batch)
    assert parts["target"] == parts["front"] == parts["wrist"] == 0
    assert parts["delta"] > 0
    assert parts["words"] > 0


def test_words_that_name_no_cube_stop_the_arm_whatever_else_the_network_wants():
    net = PickPolicy(len(vocabulary())).eval()
    with torch.no_grad():
        net.text.colour.bias[NO_TARGET] = 30.0
        actions = net(*(torch.from_numpy(a) for a in random_inputs(0).values()))
    assert actions[..., :6].abs().max() < 1e-6


def test_the_onnx_graph_computes_what_the_network_does(tmp_path):
    torch.manual_seed(1)
    net = PickPolicy(len(vocabulary()))
    export_graph(net, tmp_path / "policy.onnx")
    assert difference(net, tmp_path / "policy.onnx", samples=5) < 1e-4


def test_training_exports_a_bundle_that_the_policy_runs(data, tmp_path):
    lines: list[str] = []
    checkpoint = train(data, tmp_path / "training", RECIPE, 1, lines.append)
    assert any("validation" in line for line in lines)
    export(checkpoint, tmp_path / "bundle", lines.append)
    assert "off the network" in lines[-1]
    bundle = Bundle.load(tmp_path / "bundle")
    assert bundle.manifest.source["recipe"]["steps"] == 4
    assert "vla_ros learn generate --episodes 3 --seed 40" in bundle.manifest.source["commands"]
    Policy(bundle)


def test_an_interrupted_training_continues_to_the_same_end(data, tmp_path, monkeypatch):
    monkeypatch.setattr(training_module, "SAVE_EVERY", 2)
    whole = torch.load(train(data, tmp_path / "whole", RECIPE, 1, lambda _: None))

    real = training_module.Training.advance

    def crashes(self):
        if self.step == 3:
            raise KeyboardInterrupt
        return real(self)

    monkeypatch.setattr(training_module.Training, "advance", crashes)
    with pytest.raises(KeyboardInterrupt):
        train(data, tmp_path / "parts", RECIPE, 1, lambda _: None)
    monkeypatch.setattr(training_module.Training, "advance", real)
    lines: list[str] = []
    parts = torch.load(train(data, tmp_path / "parts", RECIPE, 1, lines.append))
    assert any("at step 2" in line for line in lines)
    for name, value in whole["average"].items():
        assert torch.equal(value, parts["average"][name]), name


def test_a_checkpoint_of_another_recipe_is_refused(data, tmp_path):
    train(data, tmp_path / "training", RECIPE, 1, lambda _: None)
    other = Recipe(steps=5, batch=8, warmup=2, word_steps=3)
    with pytest.raises(ValueError, match="another recipe"):
        train(data, tmp_path / "training", other, 1, lambda _: None)


def test_an_unfinished_training_is_not_exported(data, tmp_path):
    checkpoint = train(data, tmp_path / "training", RECIPE, 1, lambda _: None)
    content = torch.load(checkpoint)
    torch.save(content | {"step": 2}, checkpoint)
    with pytest.raises(ValueError, match="at step 2 of 4"):
        export(checkpoint, tmp_path / "bundle", lambda _: None)
