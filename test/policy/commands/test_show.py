"""`vla_ros bundle show` says everything that a bundle holds, and nothing to the terminal itself."""

import pytest
from blank_bundles import DECODERS, content, write_bundle

from bundles import make_bundle
from vla_ros.cli import main


def shown(folder, capsys):
    assert main(["bundle", "show", str(folder)]) == 0
    return capsys.readouterr().out


@pytest.mark.parametrize("decoder", DECODERS)
def test_every_part_is_shown(decoder, tmp_path, capsys):
    data = content(decoder)
    write_bundle(tmp_path, data)
    text = shown(tmp_path, capsys)
    titles = [line.split()[0] for line in text.splitlines() if not line.startswith(" ")]
    assert titles == [
        *("bundle", "cameras", "state", "instruction", "graphs", "decoder", "action"),
        *("files", "source"),
    ]
    for graph in data["graphs"]:
        assert f"{graph['name']}: onnx, {graph['file']}" in text
        for name in (*graph["inputs"], *graph["outputs"]):
            assert f" {name} " in text
    for key in data["decoder"]:
        assert key == "type" or f"{key} " in text
    assert "3 a chunk at 10 Hz: 0.3 s" in text
    assert "tcp.position.x   mean 0            std 0.1" in text
    assert "gripper continuous: 0 to 0.08 (m; rad where it turns)" in text


def test_what_a_model_does_not_take_is_not_shown(tmp_path, capsys):
    data = content("direct")
    for key, name in (("state", "state"), ("instruction", "tokens")):
        del data[key]
        del data["graphs"][0]["inputs"][name]
    write_bundle(tmp_path, data)
    text = shown(tmp_path, capsys)
    assert "state" not in text
    assert "instruction" not in text


def test_the_units_follow_from_the_action(tmp_path, capsys):
    make_bundle(tmp_path)
    said = "delta_pose: frame tool, rotation as rotation_vector, relative to previous, in m and rad"
    assert said in shown(tmp_path, capsys)


def test_a_source_cannot_write_to_the_terminal(tmp_path, capsys):
    data = content("direct")
    data["source"] = {"from": "\x1b[2J\x1b[31mgone\nbundle trusted"}
    write_bundle(tmp_path, data)
    text = shown(tmp_path, capsys)
    assert "\x1b" not in text
    assert r"from: \x1b[2J\x1b[31mgone\nbundle trusted" in text
