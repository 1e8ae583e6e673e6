"""Damaged bags: what is whole is read, the loss is said, nothing is made up."""

import re
import shutil
import sqlite3
import time
from collections import Counter
from dataclasses import replace

import lz4.frame
import numpy as np
import pytest
from backports import zstd
from make_bags import (
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

from vla_ros.replay.bags import BagError, open_bag
from vla_ros.replay.mcap_file import CHUNK, MESSAGE_INDEX, METADATA
from vla_ros.replay.mcap_writer import McapWriter
from vla_ros.replay.recording import Recording

FORMS = [
    Form("sqlite3"),
    Form("mcap"),
    Form("mcap", "zstd", "chunk"),
    Form("mcap", "lz4", "chunk"),
    Form("sqlite3", "zstd", "file"),
    Form("mcap", "lz4", "file"),
    Form("sqlite3", "lz4", "message"),
    Form("mcap", "zstd", "message"),
]
STORAGES = ["sqlite3", "mcap"]
# For a bag of a second, on a busy machine.
TOO_LONG_S = 10.0


@pytest.fixture(scope="module")
def recorded():
    # Large enough for several blocks of zstd, which are lost whole.
    return scene(size=(48, 64))


@pytest.fixture(scope="module")
def whole(tmp_path_factory, recorded):
    """A folder of whole bags, by form; and one written by ourselves, with checksums."""
    folder = tmp_path_factory.mktemp("whole")
    for form in FORMS:
        make_bag(folder / str(form), recorded, form, per_chunk=40)
    with Recording(folder / "ours", "humble", "mcap") as recording:
        for i, m in enumerate(recorded):
            if m.topic not in recording.counts:
                recording.add_topic(m.topic, m.msgtype)
            recording.write(m.topic, m.received_ns, m.data)
            if i % 40 == 39:
                recording.commit()
    return folder


@pytest.fixture
def copy(whole, tmp_path):
    def make(form):
        path = tmp_path / "bag"
        shutil.rmtree(path, ignore_errors=True)
        shutil.copytree(whole / str(form), path)
        return path

    return make


def outcome(path, **options):
    """Read a bag to its end: messages, warnings; or the one line of its error."""
    began = time.monotonic()
    try:
        with open_bag(path, **options) as bag:
            read = [Recorded(m.topic, m.msgtype, m.received_ns, m.data) for m in bag.messages()]
            for _ in bag.read():
                pass
            warnings = bag.warnings
    except BagError as err:
        read, warnings = None, str(err)
        assert "\n" not in warnings
        assert path.name in warnings
    else:
        assert all(isinstance(w, str) and "\n" not in w for w in warnings)
    assert time.monotonic() - began < TOO_LONG_S
    return read, warnings


def survives(path, recorded, *, least=1, exact=True):
    """Read a damaged bag: some messages, all of them true, and the loss is said."""
    read, warnings = outcome(path)
    assert read is not None, warnings
    assert len(read) >= least
    if exact:
        assert not Counter(read) - Counter(recorded), "a message was made up"
    if len(read) < len(recorded):
        assert warnings
    return read, warnings


def cut(file, size):
    file.write_bytes(file.read_bytes()[:size])


def chunk_places(file):
    """Where the chunks of an MCAP file begin."""
    data, place, found = file.read_bytes(), 8, []
    while place < len(data) - 8:
        if data[place] == CHUNK:
            found.append(place)
        place += 9 + int.from_bytes(data[place + 1 : place + 9], "little")
    return found


def flip(file, place, value=0xFF):
    data = bytearray(file.read_bytes())
    data[place] ^= value
    file.write_bytes(data)


# ---- cut off anywhere --------------------------------------------------------------------------


@pytest.mark.parametrize("share", [0.999, 0.9, 0.7, 0.5, 0.3, 0.1])
@pytest.mark.parametrize("form", [*FORMS, "ours"], ids=str)
def test_cut_off(copy, recorded, form, share):
    path = copy(form)
    (file,) = storage_files(path)
    cut(file, int(file.stat().st_size * share))
    read, warnings = outcome(path)
    if read is None:
        assert share < 0.5, warnings
        assert form.mode == "file", warnings
        return
    assert not Counter(read) - Counter(recorded)
    assert read == sorted(read, key=lambda m: m.received_ns)
    if share >= 0.3:
        assert len(read) > 0.4 * share * len(recorded), warnings
    if len(read) < len(recorded):
        assert re.search("cut off|not finished|cannot be read|ends in|are missing", warnings[0])


@pytest.mark.parametrize("size", [0, 1, 8, 16, 99, 100, 512, 4096, 5000])
@pytest.mark.parametrize("form", [*FORMS, "ours"], ids=str)
def test_cut_off_at_the_beginning(copy, recorded, form, size):
    path = copy(form)
    (file,) = storage_files(path)
    cut(file, size)
    read, warnings = outcome(path)
    assert warnings
    assert not Counter(read or []) - Counter(recorded)


def test_the_last_whole_messages_of_a_chunk_that_is_cut(copy, recorded):
    path = copy("ours")
    (file,) = storage_files(path)
    cut(file, chunk_places(file)[2] + 30_000)
    read, warnings = survives(path, recorded, least=81)
    assert read == recorded[: len(read)]
    assert len(read) < 120
    assert "ends in the middle of a chunk" in warnings[0]
    assert f"received after {read[-1].received_ns / 1e9:.3f} s to" in warnings[1]
    assert re.search(r"metadata.yaml counts 90 messages on /joint_states, \d+ were", str(warnings))


# ---- flipped bytes -----------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(12))
@pytest.mark.parametrize("form", ["ours", *FORMS], ids=str)
def test_flipped_bytes(copy, recorded, form, seed):
    path = copy(form)
    (file,) = storage_files(path)
    rng = np.random.default_rng(seed)
    for _ in range(1 if seed < 6 else 20):
        flip(file, rng.integers(file.stat().st_size), int(rng.integers(1, 256)))
    read, warnings = outcome(path)
    if form == "ours":
        assert read is not None
        assert not Counter(read) - Counter(recorded)
    if read is not None and len(read) < len(recorded):
        assert warnings


def test_a_chunk_whose_checksum_differs_is_left_out(copy, recorded):
    path = copy("ours")
    (file,) = storage_files(path)
    place = file.read_bytes().index(recorded[100].data)
    flip(file, place + 20)
    read, warnings = survives(path, recorded, least=len(recorded) - 40)
    assert read == recorded[:80] + recorded[120:]
    assert re.match(r"/\S+: \d+ messages are damaged \(the chunk at byte \d+", warnings[0])
    with open_bag(path) as bag:
        list(bag.messages())
        assert sum(bag.damaged.values()) == 40


def test_a_damaged_record_is_jumped_over(copy, recorded):
    path = copy("ours")
    (file,) = storage_files(path)
    flip(file, chunk_places(file)[1] + 4)
    read, warnings = survives(path, recorded)
    assert read == recorded[:40] + recorded[80:]
    assert "up to the next chunk" in warnings[0]


def test_a_lying_index_is_found_out(copy, recorded):
    path = copy("ours")
    (file,) = storage_files(path)
    data = file.read_bytes()
    entry = recorded[50].received_ns.to_bytes(8, "little")
    # The third place is in the index, after the message's own two.
    places = [m.start() for m in re.finditer(re.escape(entry), data)]
    flip(file, places[2] + 7, 0x01)
    read, _ = survives(path, recorded)
    assert read == recorded


@pytest.mark.parametrize("opcode", [0, METADATA])
@pytest.mark.parametrize("finished", [True, False])
def test_an_index_that_is_gone(copy, recorded, opcode, finished):
    """Where nothing says how many messages there were, one that is skipped cannot be missed."""
    path = copy("ours")
    (file,) = storage_files(path)
    place, data = chunk_places(file)[2], file.read_bytes()
    for _ in range(2):  # the second record behind the chunk
        place += 9 + int.from_bytes(data[place + 1 : place + 9], "little")
    assert data[place] == MESSAGE_INDEX
    flip(file, place, opcode ^ MESSAGE_INDEX)
    if not finished:
        cut(file, file.stat().st_size - 1000)
    read, _ = survives(path, recorded)
    assert read == recorded or (opcode == METADATA and not finished)


def test_a_message_that_is_not_where_the_index_says(copy, recorded):
    """Without a checksum (rosbags writes none, nor does rosbag2) each message is compared."""
    path = copy(Form("mcap"))
    (file,) = storage_files(path)
    place = file.read_bytes().index(recorded[50].data)
    flip(file, place - 16)
    read, warnings = survives(path, recorded)
    assert read == recorded[:50] + recorded[51:]
    assert warnings[0].endswith(": 1 messages are damaged (something else lies in its place)")


def test_a_damaged_summary_is_not_needed(copy, recorded):
    path = copy("ours")
    (file,) = storage_files(path)
    data = file.read_bytes()
    flip(file, data.rindex(b"float64[] position") + 5, 0x01)
    read, warnings = survives(path, recorded)
    assert read == recorded
    assert "summary is damaged" in warnings[0]


def test_damaged_pages_of_a_database(copy, recorded):
    path = copy(Form("sqlite3"))
    (file,) = storage_files(path)
    data = bytearray(file.read_bytes())
    pages = len(data) // 4096
    for page in (pages // 3, pages // 2):
        data[page * 4096 : page * 4096 + 64] = b"\xaa" * 64
    file.write_bytes(data)
    # The end of a message's data may be changed without notice: SQLite has no checksums.
    _, warnings = survives(path, recorded, least=len(recorded) // 2, exact=False)
    assert any("messages are missing" in w or "damaged" in w for w in warnings)


@pytest.mark.parametrize("number", [100, 170, 240])
def test_a_damaged_page_costs_no_more_than_its_messages(tmp_path, number):
    small = [m for m in scene(ticks=300) if "command" in m.topic]
    path = make_bag(tmp_path / "bag", small, Form("sqlite3"))
    (file,) = storage_files(path)
    data = file.read_bytes()
    first = [m for m in small if m.topic == "/command"][number]
    page = data.index(first.data) // 4096
    assert data[page * 4096] == 0x0D, "a leaf of the table"
    lost = [m for m in small if m.data in data[page * 4096 : (page + 1) * 4096]]
    flip(file, page * 4096, 0xF0)
    read, warnings = survives(path, small)
    assert 0 < len(small) - len(read) <= len(lost) + 1
    assert read[-1] == small[-1]
    assert re.search(rf"{len(small) - len(read)} messages are missing .* around", warnings[0])


def test_messages_that_do_not_decode_are_counted(tmp_path, recorded):
    broken = [
        replace(m, data=m.data[:-9]) if m.topic == "/command" and i % 2 else m
        for i, m in enumerate(recorded)
    ]
    count = sum(a != b for a, b in zip(broken, recorded, strict=True))
    assert count > 5
    with open_bag(make_bag(tmp_path / "bag", broken)) as bag:
        assert len(list(bag.read())) == len(recorded) - count
        assert len(list(bag.read(["/command"]))) == len(recorded) // 6 - count
        assert bag.damaged == {"/command": count}, "counted once, if read twice"
        assert bag.warnings[0].startswith(f"/command: {count} messages are damaged (no geometry_")


@pytest.mark.parametrize(
    "data", [b"", b"\0", b"\0\1\0\0", b"\0\1\0\0" + b"\xff" * 40, b"garbage" * 9, b"\0\7\0\0abcd"]
)
@pytest.mark.parametrize("storage", STORAGES)
def test_messages_that_are_none(tmp_path, storage, data):
    messages = [Recorded("/joint_states", "sensor_msgs/msg/JointState", START, data)]
    with open_bag(make_bag(tmp_path / "bag", messages, Form(storage))) as bag:
        assert list(bag.read()) == []
        assert bag.damaged == {"/joint_states": 1}


@pytest.mark.parametrize("pack", [zstd.compress, lz4.frame.compress])
def test_damaged_compression_of_messages(tmp_path, recorded, pack):
    packed = [replace(m, data=pack(m.data)) for m in recorded]
    packed[10] = replace(packed[10], data=packed[10].data[:-5])
    packed[20] = replace(packed[20], data=packed[20].data[:8] + b"\xff" * 8)
    read, warnings = survives(make_bag(tmp_path / "bag", packed), recorded)
    assert len(read) == len(recorded) - 2
    assert "damaged" in warnings[0]


# ---- metadata ----------------------------------------------------------------------------------


@pytest.mark.parametrize("storage", STORAGES)
@pytest.mark.parametrize(
    "text",
    ["", "{", "a: [", "- 1\n- 2", "rosbag2_bagfile_information: 3", "\0\1\2", "x: &a [*a]", "é: ü"],
)
def test_metadata_that_is_none(copy, recorded, storage, text):
    path = copy(Form(storage))
    (path / "metadata.yaml").write_text(text)
    read, warnings = outcome(path)
    assert read == recorded
    assert warnings[0].startswith("metadata.yaml cannot be used (")


@pytest.mark.parametrize(
    "change",
    [
        lambda i: i.pop("topics_with_message_count"),
        lambda i: i.update(topics_with_message_count="many"),
        lambda i: i.update(files=[1, None, "x"]),
        lambda i: i.update(storage_identifier="postgres"),
        lambda i: i.update(relative_file_paths=None),
        lambda i: i.update(relative_file_paths=[]),
        lambda i: i.update(compression_mode="FILE", compression_format="zstd"),
        lambda i: i.update(duration="long", starting_time=[], message_count=-1),
        lambda i: i.update(ros_distro=["x"], version="new"),
    ],
)
@pytest.mark.parametrize("storage", STORAGES)
def test_metadata_that_does_not_matter(copy, recorded, storage, change):
    path = copy(Form(storage))
    edit_metadata(path, change)
    assert outcome(path)[0] == recorded


@pytest.mark.parametrize("storage", STORAGES)
def test_metadata_that_lies(copy, recorded, storage):
    path = copy(Form(storage))

    def lie(info):
        info["version"] = 99
        info["topics_with_message_count"][1]["message_count"] += 5
        other = {"name": "/odom", "type": "nav_msgs/msg/Odometry", "serialization_format": "cdr"}
        info["topics_with_message_count"].append({"topic_metadata": other, "message_count": 7})

    edit_metadata(path, lie)
    read, warnings = outcome(path)
    assert read == recorded
    assert "version 99" in warnings[0]
    assert warnings[1:] == [
        "metadata.yaml counts 95 messages on /joint_states, 90 were found",
        "metadata.yaml counts 7 messages on /odom, 0 were found",
    ]


@pytest.mark.parametrize("missing", [0, 1, 2])
@pytest.mark.parametrize("form", [Form(s, files=3) for s in STORAGES], ids=str)
def test_a_file_is_missing(tmp_path, recorded, form, missing):
    path = make_bag(tmp_path / "bag", recorded, form)
    part = [recorded[i] for i in np.array_split(np.arange(len(recorded)), 3)[missing]]
    gone = storage_files(path)[missing]
    gone.unlink()
    read, warnings = survives(path, recorded)
    assert read == [m for m in recorded if m not in part]
    assert warnings[0] == (
        f"{gone.name} is missing: its messages ({len(part)}, received from "
        f"{part[0].received_ns / 1e9:.3f} s to {part[-1].received_ns / 1e9:.3f} s) are lost"
    )


@pytest.mark.parametrize("form", [Form(s, files=3) for s in STORAGES], ids=str)
def test_a_file_is_damaged(tmp_path, recorded, form):
    path = make_bag(tmp_path / "bag", recorded, form)
    file = storage_files(path)[1]
    file.write_bytes(b"nothing of a bag" * 100)
    read, warnings = survives(path, recorded)
    assert len(read) == len(recorded) - len(np.array_split(np.arange(len(recorded)), 3)[1])
    assert f"{file.name} is no file of a ROS 2 bag" in warnings[0]


def test_a_file_that_the_metadata_does_not_know(tmp_path, recorded):
    path = make_bag(tmp_path / "bag", recorded, Form("mcap", files=3))
    edit_metadata(path, lambda info: info["relative_file_paths"].pop())
    read, warnings = outcome(path)
    assert read == recorded
    assert warnings == ["bag_2.mcap is not in metadata.yaml; it is read too"]


def test_a_file_left_beside_its_compressed_copy(tmp_path, recorded):
    path = make_bag(tmp_path / "bag", recorded, Form("sqlite3", "zstd", "file"))
    (packed,) = storage_files(path)
    (path / packed.stem).write_bytes(zstd.decompress(packed.read_bytes()))
    assert outcome(path) == (recorded, [])
    (path / "metadata.yaml").unlink()
    assert outcome(path)[0] == recorded


# ---- unfinished recordings ---------------------------------------------------------------------


@pytest.mark.parametrize("mode", ["wal", "delete", "memory"])
def test_an_unfinished_database(tmp_path, copy, recorded, mode):
    """As a recorder leaves it that is killed in a transaction."""
    source = copy(Form("sqlite3"))
    (file,) = storage_files(source)
    database = sqlite3.connect(file, isolation_level=None)
    database.execute(f"PRAGMA journal_mode = {mode}")
    database.execute("PRAGMA wal_autocheckpoint = 0")
    database.execute("PRAGMA cache_size = 2")  # pages go into the file before the commit
    end = recorded[-1].received_ns
    for transaction in range(3):
        database.execute("BEGIN")
        for i in range(40):
            database.execute(
                "INSERT INTO messages (topic_id, timestamp, data) VALUES (1, ?, ?)",
                (end + 40 * transaction + i + 1, recorded[0].data + b"\0" * 3000),
            )
        if transaction < 2:
            database.execute("COMMIT")
    path = tmp_path / "killed"
    shutil.copytree(source, path)
    database.close()
    before = {p.name: p.read_bytes() for p in path.iterdir()}
    with open_bag(path) as bag:
        read = list(bag.messages())
        warnings = bag.warnings
    assert {p.name: p.read_bytes() for p in path.iterdir()} == before, "the bag was written to"
    assert [m.data for m in read[: len(recorded)]] == [m.data for m in recorded]
    if mode != "memory":
        assert len(read) == len(recorded) + 80
        assert "its journal was applied to a copy" in warnings[0]


def test_an_unfinished_mcap_file(tmp_path, recorded):
    recording = Recording(tmp_path / "bag", "humble", "mcap")
    for topic, kind in {m.topic: m.msgtype for m in recorded}.items():
        recording.add_topic(topic, kind)
    for m in recorded[:100]:
        recording.write(m.topic, m.received_ns, m.data)
    recording.commit()
    for m in recorded[100:150]:
        recording.write(m.topic, m.received_ns, m.data)
    path = tmp_path / "killed"
    shutil.copytree(tmp_path / "bag", path)
    recording.close()
    read, warnings = outcome(path)
    assert read == recorded[:100]
    assert warnings == [
        "metadata.yaml is missing: the files of the folder are read without it",
        "bag_0.mcap: it was not finished: it has no summary",
    ]


# ---- what is in it -----------------------------------------------------------------------------


@pytest.mark.parametrize("form", FORMS, ids=str)
def test_no_messages(tmp_path, form):
    path = make_bag(tmp_path / "bag", [], form)
    read, warnings = outcome(path)
    assert read == []
    assert warnings == ["the bag holds no messages"]


@pytest.mark.parametrize("storage", STORAGES)
def test_unknown_types(tmp_path, recorded, storage):
    """They are named; their messages can be passed on, but not decoded."""
    if storage == "mcap":
        path = tmp_path / "bag.mcap"
        file = McapWriter(path)
        channel = file.add_channel("/strange", "bad_msgs/msg/Float64", "", "", {})
        file.write(channel, START, recorded[0].data)
        file.close("")
    else:
        strange = [replace(recorded[0], topic="/strange"), *recorded[1:]]
        bag = make_bag(tmp_path / "bag", strange, Form("sqlite3", definitions=False))
        (path,) = storage_files(bag)
        path.write_bytes(path.read_bytes().replace(b"std_msgs/msg/String", b"bad_msgs/msg/Float6"))
    with open_bag(path) as bag:
        assert "/strange" in bag.warnings[0]
        assert re.search(r"bad_msgs/msg/Float\d+ is defined neither in the bag", bag.warnings[0])
        assert "/strange" not in {m.topic for m, _ in bag.read()}
        (message,) = bag.messages(["/strange"])
        assert message.data == recorded[0].data
        with pytest.raises(BagError, match="bad_msgs/msg/Float"):
            bag.decode(message)
        with pytest.raises(BagError, match="/strange cannot be decoded"):
            bag.require("/strange")


def test_definitions_that_are_damaged(tmp_path, recorded):
    path = make_bag(tmp_path / "bag", recorded, Form("sqlite3"))
    (file,) = storage_files(path)
    data = file.read_bytes()
    file.write_bytes(data.replace(b"float64[] velocity", b"float32[] velocity"))
    read, warnings = outcome(path)
    assert read == recorded
    assert (
        "definition of sensor_msgs/msg/JointState in the bag differs from its hash" in warnings[0]
    )


@pytest.mark.parametrize("storage", STORAGES)
def test_stamps_that_go_backwards(tmp_path, recorded, storage):
    commands = [m for m in recorded if m.topic == "/command"]
    stamps = [m.data for m in commands]
    back = [replace(m, data=d) for m, d in zip(commands, stamps[20:] + stamps[:20], strict=True)]
    with open_bag(make_bag(tmp_path / "bag", back, Form(storage))) as bag:
        assert len(list(bag.messages())) == 30
        assert bag.warnings[0].startswith("/command: its stamps go backwards 1 times, by up to 0.9")


@pytest.mark.parametrize("storage", STORAGES)
def test_times_of_reception_that_go_backwards(tmp_path, recorded, storage):
    back = [
        replace(m, received_ns=m.received_ns - 400 * MS) if i > 100 else m
        for i, m in enumerate(recorded)
    ]
    read, warnings = outcome(make_bag(tmp_path / "bag", back, Form(storage)))
    assert read == sorted(back, key=lambda m: m.received_ns)
    assert warnings[0].startswith("the recorder's clock goes backwards 1 times, by up to 0.3")


@pytest.mark.parametrize("storage", STORAGES)
def test_empty_images(tmp_path, storage):
    store = types()
    header = store.types["std_msgs/msg/Header"](
        store.types["builtin_interfaces/msg/Time"](1, 0), ""
    )
    kind = "sensor_msgs/msg/Image"
    image = store.types[kind](header, 0, 0, "", 0, 0, np.zeros(0, np.uint8))
    data = bytes(store.serialize_cdr(image, kind))
    path = make_bag(
        tmp_path / "bag", [Recorded("/front/image_raw", kind, START, data)], Form(storage)
    )
    with open_bag(path) as bag:
        ((_, decoded),) = bag.read()
        assert len(decoded.data) == 0


@pytest.mark.parametrize("storage", STORAGES)
def test_a_topic_of_two_types(tmp_path, recorded, storage):
    strange = [replace(m, topic="/command") if m.topic == "/instruction" else m for m in recorded]
    path = make_bag(tmp_path / "bag", strange[1:] + strange[:1], Form(storage, files=2))
    read, _ = outcome(path)
    assert read is not None
    assert len(read) == len(recorded)


# ---- no bag at all -----------------------------------------------------------------------------


def test_nothing_there(tmp_path):
    with pytest.raises(BagError, match=r"there is no bag"):
        open_bag(tmp_path / "bag")
    (tmp_path / "bag").mkdir()
    with pytest.raises(BagError, match=r"no \.db3 or \.mcap file"):
        open_bag(tmp_path / "bag")
    (tmp_path / "bag" / "metadata.yaml").mkdir()
    with pytest.raises(BagError, match=r"no \.db3 or \.mcap file"):
        open_bag(tmp_path / "bag")


@pytest.mark.parametrize(
    ("name", "data", "said"),
    [
        ("x.mcap", b"", "is empty"),
        ("x.db3", b"\0" * 5000, "no file of a ROS 2 bag"),
        ("x.db3", b"SQLite format 3\0" + b"\0" * 5000, "page size 0"),
        ("x.mcap", b"\x89MCAP0\r\n", "x.mcap"),
        ("x.txt", b"hello", "no file of a ROS 2 bag"),
        ("x.bag", b"#ROSBAG V2.0\n", "ROS 1"),
        ("x.db3.zstd", zstd.compress(b"hello" * 100), "no file of a ROS 2 bag"),
        ("x.db3.zstd", b"\x28\xb5\x2f\xfd" + b"\xff" * 100, "nothing could be unpacked"),
    ],
)
def test_other_files(tmp_path, name, data, said):
    file = tmp_path / name
    file.write_bytes(data)
    read, problem = outcome(file)
    if name == "x.mcap" and data:
        assert read == []
    else:
        assert said in problem


def test_another_database(tmp_path):
    database = sqlite3.connect(tmp_path / "x.db3")
    database.executescript("CREATE TABLE messages (id INTEGER, text TEXT)")
    database.close()
    assert "not a rosbag2" in outcome(tmp_path / "x.db3")[1]


def test_a_file_that_may_not_be_read(copy, monkeypatch):
    path = copy(Form("mcap"))
    (file,) = storage_files(path)
    opened = type(file).open

    def refuse(self, *args, **kwargs):
        if self.name == file.name:
            raise PermissionError(13, "Permission denied")
        return opened(self, *args, **kwargs)

    monkeypatch.setattr(type(file), "open", refuse)
    assert "Permission denied" in outcome(path)[1]


# ---- bags of a real ROS ------------------------------------------------------------------------


@pytest.mark.parametrize("damage", ["cut 0.95", "cut 0.5", "cut 0.05", "flip", "flips", "metadata"])
@pytest.mark.parametrize("bag", REAL_BAGS, ids=lambda p: p.name)
def test_real_bags(tmp_path, bag, damage):
    with open_bag(bag) as opened:
        recorded = [Recorded(m.topic, m.msgtype, m.received_ns, m.data) for m in opened.messages()]
    path = tmp_path / "bag"
    shutil.copytree(bag, path)
    for file in path.iterdir():
        file.chmod(0o644)
    (file,) = storage_files(path)
    rng = np.random.default_rng(0)
    if damage.startswith("cut"):
        cut(file, int(file.stat().st_size * float(damage[4:])))
    elif damage == "metadata":
        (path / "metadata.yaml").write_text("metadata")
    else:
        for _ in range(1 if damage == "flip" else 30):
            flip(file, rng.integers(file.stat().st_size))
    read, _ = outcome(path)
    assert read is not None or damage in {"cut 0.05", "flip", "flips"}
    if damage == "metadata":
        assert read == recorded
    if damage.startswith("cut"):
        assert not Counter(read or []) - Counter(recorded)
        assert len(read or []) >= {"cut 0.95": 400, "cut 0.5": 100, "cut 0.05": 0}[damage]
