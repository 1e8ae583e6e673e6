"""Bags of every form say the same; what is guessed is said; memory stays flat."""

import gc
import json
import os
import struct
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from make_bags import (
    LATCHED,
    MS,
    REAL_BAGS,
    START,
    Form,
    Recorded,
    edit_metadata,
    make_bag,
    scene,
    storage_files,
    types,
)
from rosbags.highlevel import AnyReader

from vla_ros.replay.bags import BagError, open_bag, read_bag, stamp_ns
from vla_ros.replay.mcap_writer import McapWriter
from vla_ros.replay.recording import Recording

FORMS = [
    *(
        Form(storage, compress, mode)
        for storage in ("sqlite3", "mcap")
        for mode in ("file", "message")
        for compress in ("zstd", "lz4")
    ),
    Form("mcap", "zstd", "chunk"),
    Form("mcap", "lz4", "chunk"),
    Form("mcap", files=3),
    Form("sqlite3", files=3),
    Form("sqlite3", "zstd", "file", files=3),
    Form("mcap", "lz4", "file", files=2),
    Form("sqlite3", definitions=False),
    Form("sqlite3", metadata=False),
    Form("mcap", "zstd", "file", files=2, metadata=False),
    Form("mcap", "zstd", "message", metadata=False),
    Form("sqlite3", version=9),
    Form("mcap", version=9),
]


@pytest.fixture(scope="module")
def recorded():
    return scene()


def contents(path, **options):
    """All messages of a bag as they were recorded, and what is said of it."""
    with open_bag(path, **options) as bag:
        messages = [Recorded(m.topic, m.msgtype, m.received_ns, m.data) for m in bag.messages()]
        decoded = sum(1 for _ in bag.read())
        assert decoded == len(messages)
        return messages, bag.warnings


@pytest.mark.parametrize("form", FORMS, ids=str)
def test_every_form_gives_the_same_messages(tmp_path, recorded, form):
    messages, warnings = contents(make_bag(tmp_path / "bag", recorded, form))
    assert messages == recorded
    missing = ["metadata.yaml is missing: the files of the folder are read without it"]
    assert warnings == ([] if form.metadata else missing)


@pytest.mark.parametrize("storage", ["sqlite3", "mcap"])
def test_one_file_is_a_bag_too(tmp_path, recorded, storage):
    path = make_bag(tmp_path / "bag", recorded, Form(storage))
    assert contents(storage_files(path)[0]) == (recorded, [])
    assert contents(path / "metadata.yaml") == (recorded, [])


@pytest.mark.parametrize("storage", ["sqlite3", "mcap"])
def test_our_own_recordings(tmp_path, recorded, storage):
    with Recording(tmp_path / "bag", "humble", storage) as recording:
        for m in recorded:
            if m.topic not in recording.counts:
                recording.add_topic(m.topic, m.msgtype, [LATCHED])
            recording.write(m.topic, m.received_ns, m.data)
    assert contents(tmp_path / "bag") == (recorded, [])
    with AnyReader([tmp_path / "bag"]) as reader:
        assert [(c.topic, t, bytes(d)) for c, t, d in reader.messages()] == [
            (m.topic, m.received_ns, m.data) for m in recorded
        ]


@pytest.mark.parametrize(
    "form", [Form("sqlite3"), Form("mcap", "zstd", "chunk"), Form("mcap", version=9)], ids=str
)
def test_topics(tmp_path, recorded, form):
    with open_bag(make_bag(tmp_path / "bag", recorded, form)) as bag:
        own = [m for m in recorded if m.topic == "/joint_states"]
        topic = bag.topics["/joint_states"]
        assert (topic.msgtype, topic.count) == ("sensor_msgs/msg/JointState", len(own))
        assert (topic.first_ns, topic.last_ns) == (own[0].received_ns, own[-1].received_ns)
        assert topic.qos == (LATCHED,)
        assert bag.start_ns == recorded[0].received_ns
        assert bag.duration_ns == recorded[-1].received_ns - recorded[0].received_ns
        assert {m.topic for m in bag.messages(["joint_states"])} == {"/joint_states"}
        assert list(bag.messages(["/absent"])) == []


def test_decoded(tmp_path, recorded):
    with open_bag(make_bag(tmp_path / "bag", recorded)) as bag:
        message, joints = next(bag.read(["/joint_states"]))
        assert joints.name[0] == "panda_joint1"
        np.testing.assert_allclose(joints.position, np.linspace(0, 1, 7))
        assert message.stamp_ns == stamp_ns(joints.header.stamp) == START + 33 * MS
        (instruction,) = bag.messages(["/instruction"])
        assert instruction.stamp_ns is None
        assert bag.decode(instruction).data == "pick up the red cube"


def test_compressed_images(tmp_path):
    recorded = scene(compressed=True)
    topic = "/front/image_raw/compressed"
    bag = make_bag(tmp_path / "bag", recorded, Form("mcap", "lz4", "chunk"))
    images = [m for t, _, m in read_bag(bag, [topic]) if t == topic]
    assert len(images) == 30
    assert {i.format for i in images} == {"jpeg"}


def test_remapped(tmp_path, recorded):
    path = make_bag(tmp_path / "bag", recorded)
    with open_bag(path, remap={"front/image_raw": "/camera"}, topics=["camera"]) as bag:
        assert {m.topic for m in bag.messages()} == {"/camera"} == set(bag.topics)
        assert bag.topics["/camera"].recorded_name == "/front/image_raw"
        assert bag.warnings == []
    with pytest.raises(BagError, match="would both become /command"):
        open_bag(path, remap={"/gripper_command": "/command"})


def test_absent_topics_are_named(tmp_path, recorded):
    with open_bag(make_bag(tmp_path / "bag", recorded)) as bag:
        bag.require("/command", "joint_states")
        with pytest.raises(BagError, match="no topic /odom; it has /command, /front/image_raw"):
            bag.require("/odom")


def test_temporary_files_go(tmp_path, recorded, monkeypatch):
    temporary = tmp_path / "temporary"
    temporary.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(temporary))
    path = make_bag(tmp_path / "bag", recorded, Form("sqlite3", "zstd", "file"))
    with open_bag(path):
        assert len(list(temporary.iterdir())) == 1
    assert not list(temporary.iterdir())
    bag = open_bag(path)
    del bag  # never closed
    gc.collect()
    assert not list(temporary.iterdir())


@pytest.mark.parametrize("storage", ["sqlite3", "mcap"])
def test_order(tmp_path, recorded, storage):
    """By reception; at the same time in the order in which they were written."""
    shuffled = [recorded[i] for i in np.random.default_rng(1).permutation(len(recorded))]
    same = [Recorded(m.topic, m.msgtype, START + i % 3, m.data) for i, m in enumerate(shuffled)]
    path = make_bag(tmp_path / "shuffled", shuffled, Form(storage, files=2), per_chunk=7)
    messages, warnings = contents(path)
    assert [m.received_ns for m in messages] == [m.received_ns for m in recorded]
    assert "clock goes backwards" in warnings[0]
    path = make_bag(tmp_path / "same", same, Form(storage, files=2), per_chunk=7)
    messages, warnings = contents(path)
    assert messages == sorted(same, key=lambda m: m.received_ns)


def gids(distro, count=5):
    """Messages of a type that has 24 bytes in Humble and 16 in Jazzy."""
    store = types(distro)
    kind = "rmw_dds_common/msg/Gid"
    gid = store.types[kind](np.arange(24 if distro == "humble" else 16, dtype=np.uint8))
    data = bytes(store.serialize_cdr(gid, kind))
    return [Recorded("/gid", kind, START + i * MS, data) for i in range(count)]


@pytest.mark.parametrize("distro", ["humble", "jazzy", "kilted"])
@pytest.mark.parametrize("form", [Form("sqlite3"), Form("mcap")], ids=str)
def test_embedded_definitions_come_first(tmp_path, monkeypatch, distro, form):
    monkeypatch.setenv("ROS_DISTRO", "humble")
    path = make_bag(tmp_path / "bag", gids(distro), form, distro=distro)
    assert contents(path, store="foxy")[1] == []


IDL = """// generated
#include "builtin_interfaces/msg/Time.idl"
module my_msgs {
  module msg {
    struct Grip {
      builtin_interfaces::msg::Time stamp;
      double width;
      sequence<float> forces;
    };
  };
};
"""
TIME_IDL = """module builtin_interfaces {
  module msg {
    struct Time { int32 sec; uint32 nanosec; };
  };
};
"""


def test_idl_definitions(tmp_path):
    """rosbag2 embeds IDL where a package has no .msg file."""
    rule = "=" * 80
    text = f"{rule}\nIDL: my_msgs/msg/Grip\n{IDL}\n{rule}\n"
    text += f"IDL: builtin_interfaces/msg/Time\n{TIME_IDL}"
    file = McapWriter(tmp_path / "x.mcap")
    channel = file.add_channel("/grip", "my_msgs/msg/Grip", "ros2idl", text, {})
    data = b"\0\1\0\0" + struct.pack("<iIdI2f", 1, 2, 0.5, 2, 1.0, 2.0)
    file.write(channel, START, data)
    file.close("ros_distro: jazzy")
    with open_bag(tmp_path / "x.mcap") as bag:
        ((_, grip),) = bag.read()
        assert (grip.stamp.nanosec, grip.width, list(grip.forces)) == (2, 0.5, [1.0, 2.0])
        assert bag.ros_distro == "jazzy"
        assert bag.warnings == []


def test_definitions_of_the_distribution(tmp_path, monkeypatch):
    monkeypatch.delenv("ROS_DISTRO", raising=False)
    path = make_bag(
        tmp_path / "bag", gids("jazzy"), Form("sqlite3", definitions=False), distro="jazzy"
    )
    assert contents(path) == (gids("jazzy"), [])
    edit_metadata(path, lambda info: info.pop("ros_distro"))
    assert contents(path, store="jazzy")[1] == []
    assert len(contents(path, store="Jazzy")[0]) == 5
    with open_bag(path) as bag:
        assert list(bag.read()) == []
        assert "those of humble are used, as nothing says" in bag.warnings[0]
        assert bag.warnings[1].startswith("/gid: 5 messages are damaged (no rmw_dds_common/msg/Gid")
        assert bag.damaged == {"/gid": 5}
    monkeypatch.setenv("ROS_DISTRO", "jazzy")
    assert contents(path)[1] == [
        "the bag has no message definitions: those of jazzy are used, of ROS_DISTRO"
    ]
    with pytest.raises(BagError, match="'melodic', but for dashing"):
        open_bag(path, store="melodic")


def test_a_hash_tells_the_version_of_a_definition(tmp_path, monkeypatch):
    """Metadata from Iron on has hashes, even where no definition could be recorded."""
    monkeypatch.delenv("ROS_DISTRO", raising=False)
    path = make_bag(
        tmp_path / "bag", gids("jazzy"), Form("sqlite3", definitions=False), distro="jazzy"
    )
    digest = types("jazzy").hash_rihs01("rmw_dds_common/msg/Gid")

    def change(info):
        info["ros_distro"] = ""
        info["topics_with_message_count"][0]["topic_metadata"]["type_description_hash"] = digest

    edit_metadata(path, change)
    assert contents(path) == (gids("jazzy"), [])


@pytest.mark.parametrize("path", REAL_BAGS, ids=lambda p: p.name)
def test_bags_of_a_real_ros(path):
    messages, warnings = contents(path)
    assert warnings == []
    with AnyReader([path], default_typestore=types()) as reader:
        assert [(m.topic, m.received_ns, m.data) for m in messages] == [
            (c.topic, t, bytes(d)) for c, t, d in reader.messages()
        ]


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize("storage", ["mcap", "sqlite3"])
def test_memory_is_flat(tmp_path, storage):
    """A bag of 2 GB is read with at most 400 MB; its small messages faster than it was recorded."""
    bench = Path(__file__).parents[2] / "bench" / "bags.py"
    found = subprocess.run(
        [sys.executable, bench, "--storage", storage, "--folder", tmp_path, "--json"],
        capture_output=True,
        check=True,
        env={**os.environ, "PYTHONPATH": str(bench.parents[1])},
    )
    figures = json.loads(found.stdout)
    assert figures["bag_mb"] > 2000
    assert figures["peak_rss_mb"] < 400
    # 33 MB/s were recorded, and in MCAP all of it has to be read for its checksums.
    assert figures["control_times_real_time"] > 20
