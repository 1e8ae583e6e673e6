"""Whatever is wrong with a bag: one clear line, or a result that names what it lacks."""

import json
import time
from dataclasses import replace

import numpy as np
import pytest
from make_bags import MS, START, Form, Recorded, make_bag, storage_files
from panda_bags import ROBOT, Maker, motion

from bundles import make_bundle
from vla_ros import cli
from vla_ros.replay.common import packaged_urdf
from vla_ros.robot import RobotConfig

TOO_LONG_S = 30.0
FORMS = [
    Form("sqlite3"),
    Form("mcap"),
    Form("mcap", "zstd", "chunk"),
    Form("sqlite3", "lz4", "file"),
]


@pytest.fixture(scope="module")
def bundle(tmp_path_factory):
    return make_bundle(tmp_path_factory.mktemp("bundle")).path


def maker():
    """A second of everything that a replay reads."""
    made = motion(cameras=True)
    made.text("/robot_description", START, packaged_urdf(RobotConfig.load(ROBOT), ROBOT))
    made.flag("/estop", START + 5 * MS, False)
    return made


def replay(bag, tmp_path, capsys, *words):
    """Return exit code, what was said, and the JSON if there is one."""
    out = tmp_path / "out.json"
    began = time.monotonic()
    code = cli.main(["replay", str(bag), "--robot", str(ROBOT), "--json", str(out), *words])
    assert time.monotonic() - began < TOO_LONG_S
    said = capsys.readouterr().err
    assert "Traceback" not in said
    if code == 2:
        assert said.startswith("vla_ros replay: ")
        assert said.count("\n") == 1
        return code, said, None
    return code, said, json.loads(out.read_text())


def damage(path, seed):
    """Damage one file of a bag: cut it, or change bytes in it."""
    rng = np.random.default_rng(seed)
    file = storage_files(path)[0]
    data = bytearray(file.read_bytes())
    if seed % 3 == 0:
        data = data[: int(rng.integers(0, len(data)))]
    else:
        count = 1 if seed % 3 == 1 else 200
        for place in rng.integers(0, len(data), count):
            data[place] = rng.integers(0, 256)
    file.write_bytes(bytes(data))


@pytest.mark.parametrize("seed", range(30))
def test_damaged_files(tmp_path, bundle, capsys, seed):
    bag = maker().bag(tmp_path / "bag", FORMS[seed % len(FORMS)])
    damage(bag, seed)
    for words in ((), ("--bundle", str(bundle))):
        code, said, written = replay(bag, tmp_path, capsys, *words)
        assert code in (0, 2)
        if code == 0:
            lost = written["metrics"].get("rate_hz.joint_states") is None
            assert said or not lost


@pytest.mark.parametrize("seed", range(16))
def test_damaged_messages(tmp_path, bundle, capsys, seed):
    """Bytes are changed in the messages themselves: the files are whole."""
    rng = np.random.default_rng(seed)
    made = maker()
    topics = sorted({m.topic for m in made.messages})
    topic = topics[seed % len(topics)]
    changed = []
    for m in made.messages:
        if m.topic == topic:
            data = bytearray(m.data)
            if seed % 4 == 0:
                data = data[: int(rng.integers(0, len(data)))]
            elif rng.random() < 0.5:
                data[int(rng.integers(0, min(len(data), 200)))] = rng.integers(0, 256)
            changed.append(replace(m, data=bytes(data)))
        else:
            changed.append(m)
    bag = make_bag(tmp_path / "bag", sorted(changed, key=lambda m: m.received_ns))
    for words in ((), ("--bundle", str(bundle))):
        code, _, written = replay(bag, tmp_path, capsys, *words)
        assert code in (0, 2)
        if written is not None:
            assert written["metrics"]["nan_sent"] == 0
            assert written["violations"] == 0


def test_a_bag_without_messages(tmp_path, capsys):
    bag = make_bag(tmp_path / "bag", [])
    code, said, _ = replay(bag, tmp_path, capsys)
    assert code == 2
    assert "no messages" in said


@pytest.mark.parametrize("topic", ["/front/image_raw", "/joint_states", "/instruction", "/command"])
def test_a_topic_that_is_not_there(tmp_path, bundle, capsys, topic):
    made = maker()
    made.messages = [m for m in made.messages if m.topic != topic]
    code, said, _ = replay(made.bag(tmp_path / "bag"), tmp_path, capsys, "--bundle", str(bundle))
    assert code == (2 if topic in ("/front/image_raw", "/joint_states") else 0)
    assert topic.split("/")[1] in said or topic == "/command"


def test_an_unknown_type_beside_the_others(tmp_path, capsys):
    made = maker()
    made.messages.append(Recorded("/odd", "std_msgs/msg/String", START, b"\x00\x01\x00\x00"))
    assert replay(made.bag(tmp_path / "bag"), tmp_path, capsys)[0] == 0


def test_empty_images(tmp_path, bundle, capsys):
    made = maker()
    for i in range(10):
        made.image("front", START + 500 * MS + i * MS, size=(0, 0))
    code, said, _ = replay(made.bag(tmp_path / "bag"), tmp_path, capsys, "--bundle", str(bundle))
    assert code == 0
    assert "/front/image_raw: 10 messages could not be used" in said
    assert "empty" in said


def test_a_clock_that_goes_backwards(tmp_path, capsys):
    made = motion(0.5)
    back = 3600 * 1000 * MS
    for i in range(50):
        made.joints(START + 500 * MS + i * 10 * MS - back, late_ns=back)
        made.command(START + 500 * MS + i * 10 * MS - back, (0.1,), late_ns=back)
    code, said, written = replay(made.bag(tmp_path / "bag"), tmp_path, capsys)
    assert code == 0
    assert written["violations"] == 0
    assert "are stamped more than 5 s from their reception" in said


def test_only_a_part_of_the_cameras_and_a_robot_that_is_silent(tmp_path, bundle, capsys):
    made = Maker()
    made.joints(START)
    made.image("front", START)
    made.image("wrist", START)
    made.command(START, (0.1,))
    code, said, _ = replay(made.bag(tmp_path / "bag"), tmp_path, capsys, "--bundle", str(bundle))
    assert code == 0
    assert "no instruction" in said
