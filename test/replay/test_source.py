"""A bag's messages come in one order, whatever the recorder did, and what is odd is said."""

from dataclasses import replace

import numpy as np
from make_bags import MS, START
from panda_bags import Maker

from vla_ros.observation.image import ImageSpec, decode_image, fit_image
from vla_ros.replay.bags import open_bag
from vla_ros.replay.source import Kind, Source

ALL = [Kind.INSTRUCTION, Kind.JOINTS, Kind.FRAME, Kind.COMMAND, Kind.GRIPPER]
SPEC = ImageSpec(size=(8, 8))
SECOND = 1000 * MS


def read(path, *, kinds=ALL, cameras=("front", "wrist"), **options):
    with open_bag(path) as bag:
        source = Source(bag, cameras=dict.fromkeys(cameras, SPEC), **options)
        events = list(source.events(kinds))
    return events, source.warnings


def test_simultaneous_messages_come_by_kind_then_camera_then_bag(tmp_path):
    maker = Maker()
    at = START + 20 * MS
    maker.gripper(at, 0.01)
    maker.command(at, (0.1,), late_ns=1)
    maker.image("wrist", at, late_ns=2)
    maker.image("front", at, late_ns=3)
    maker.joints(at, late_ns=5)
    maker.joints(at, late_ns=4, position=[0.5] * 7)
    maker.text("/instruction", at, "go")
    events, _ = read(maker.bag(tmp_path / "bag"))
    assert [event.kind for event in events] == [
        Kind.INSTRUCTION,
        Kind.JOINTS,
        Kind.JOINTS,
        Kind.FRAME,
        Kind.FRAME,
        Kind.COMMAND,
        Kind.GRIPPER,
    ]
    assert {event.time_ns for event in events} == {at}
    assert [event.value.camera for event in events[3:5]] == ["front", "wrist"]
    assert events[1].value.position[0] == 0.5  # the one that the bag has first


def test_messages_come_by_their_stamps_however_late_they_were_recorded(tmp_path):
    maker = Maker()
    for i, late in enumerate([900, 5, 400, 30, 1]):
        maker.command(START + i * 10 * MS, (0.01 * i,), late_ns=late * MS)
    events, warnings = read(maker.bag(tmp_path / "bag"))
    assert [event.value.twist[0] for event in events] == [0.0, 0.01, 0.02, 0.03, 0.04]
    assert warnings == []


def test_in_the_order_of_reception_when_asked(tmp_path):
    maker = Maker()
    for i, late in enumerate([900, 5, 400]):
        maker.command(START + i * 10 * MS, (0.01 * i,), late_ns=late * MS)
    events, _ = read(maker.bag(tmp_path / "bag"), received=True)
    assert [event.value.twist[0] for event in events] == [0.01, 0.02, 0.0]
    assert events[0].time_ns == START + 15 * MS
    assert events[0].value.stamp_ns == START + 10 * MS


def test_a_message_without_a_stamp_comes_when_it_was_received(tmp_path):
    maker = Maker()
    maker.command(START, (0.0,), late_ns=300 * MS)
    maker.gripper(START + 100 * MS, 0.04)
    maker.command(START + 200 * MS, (0.0,), late_ns=300 * MS)
    events, _ = read(maker.bag(tmp_path / "bag"))
    assert [event.kind for event in events] == [Kind.COMMAND, Kind.GRIPPER, Kind.COMMAND]


def test_stamps_of_simulated_time_take_what_has_no_stamp_to_their_clock(tmp_path):
    maker = Maker()
    for i in range(40):
        maker.command(5 * SECOND + i * 10 * MS, (0.01 * i,), late_ns=START)
        if i == 20:
            maker.gripper(START + 5 * SECOND + i * 10 * MS + MS, 0.04)
    events, warnings = read(maker.bag(tmp_path / "bag"))
    assert [event.kind for event in events].index(Kind.GRIPPER) == 21
    assert events[21].time_ns == 5 * SECOND + 201 * MS
    assert any("another clock" in warning for warning in warnings)


def test_a_stamp_that_cannot_be_is_not_believed_but_passed_on(tmp_path):
    maker = Maker()
    for i in range(10):
        wrong = 3600 * SECOND if i == 4 else 0
        maker.command(START + i * 10 * MS + wrong, (0.01 * i,), late_ns=-wrong + MS)
    events, warnings = read(maker.bag(tmp_path / "bag"))
    assert [round(event.value.twist[0] * 100) for event in events] == list(range(10))
    assert events[4].value.stamp_ns == START + 40 * MS + 3600 * SECOND
    assert events[4].time_ns == START + 41 * MS
    assert len(warnings) == 1
    assert "/command: 1 messages are stamped more than 5 s" in warnings[0]


def test_pictures_are_cut_as_camera_node_cuts_them(tmp_path):
    maker = Maker()
    maker.image("front", START, size=(16, 32))
    (event,), _ = read(maker.bag(tmp_path / "bag"), cameras=("front",))
    assert event.value.image.shape == (8, 8, 3)
    assert event.value.image.dtype == np.uint8


def test_what_cannot_be_decoded_is_counted_and_said(tmp_path):
    maker = Maker()
    for i in range(5):
        maker.command(START + i * 10 * MS, (0.1,))
    broken = maker.messages[2]
    maker.messages[2] = type(broken)(
        broken.topic, broken.msgtype, broken.received_ns, broken.data[:30]
    )
    events, warnings = read(maker.bag(tmp_path / "bag"))
    assert len(events) == 4
    assert any(w.startswith("/command: 1 messages could not be used") for w in warnings)


def test_a_topic_of_another_type_is_left_out_by_name(tmp_path):
    maker = Maker()
    maker.text("/command", START, "forward!")
    maker.joints(START)
    events, warnings = read(maker.bag(tmp_path / "bag"))
    assert [event.kind for event in events] == [Kind.JOINTS]
    assert any("/command is left out: its type is std_msgs/msg/String" in w for w in warnings)


def test_fast_and_slow_reading_agree(tmp_path):
    maker = Maker()
    rng = np.random.default_rng(1)
    for i in range(6):
        at = START + i * 10 * MS
        # Every message of another layout is read by its definition, in between others.
        frame = "panda_link0" if i % 3 else "another_frame"
        maker.command(at, rng.normal(size=6), frame=frame)
        names = None if i != 3 else [f"j{k}" for k in range(9)]
        maker.joints(at, position=rng.normal(size=7), names=names)
        maker.gripper(at, rng.normal())
    path = maker.bag(tmp_path / "bag")
    events, _ = read(path)
    with open_bag(path) as bag:
        for message, content in bag.read():
            (event,) = [
                e
                for e in events
                if e.time_ns == (message.stamp_ns or message.received_ns)
                and (e.kind is Kind.COMMAND) == (message.topic == "/command")
                and (e.kind is Kind.JOINTS) == (message.topic == "/joint_states")
            ]
            if event.kind is Kind.COMMAND:
                v, w = content.twist.linear, content.twist.angular
                assert event.value.twist.tolist() == [v.x, v.y, v.z, w.x, w.y, w.z]
                assert event.value.frame_id == content.header.frame_id
            elif event.kind is Kind.JOINTS:
                assert list(event.value.names) == content.name
                for key in ("position", "velocity", "effort"):
                    assert list(getattr(event.value, key)) == getattr(content, key).tolist()
            else:
                assert event.value == content.data


def test_fast_and_slow_pictures_agree(tmp_path):
    """Images of one layout are read by its offsets, and others in between by their definition."""
    maker = Maker()
    rng = np.random.default_rng(2)
    pictures = []
    for i in range(40):
        size = (8, 8) if i % 5 else (16, 8)
        shade = int(rng.integers(256))
        maker.image("front", START + i * 33 * MS, shade=shade, size=size)
        pictures.append((size, shade))
    path = maker.bag(tmp_path / "bag")
    events, warnings = read(path, cameras=("front",))
    assert warnings == []
    with open_bag(path) as bag:
        decoded = [fit_image(decode_image(content), SPEC) for _, content in bag.read()]
    assert len(events) == len(decoded) == 40
    for event, picture in zip(events, decoded, strict=True):
        np.testing.assert_array_equal(event.value.image, picture)


def test_what_is_wrong_with_pictures_is_said_in_the_same_words_every_time(tmp_path):
    """They are decoded in another thread than the rest: it must not show in the order."""
    maker = Maker()
    for i in range(30):
        maker.image("front", START + i * 10 * MS, size=(8, 8))
        maker.command(START + i * 10 * MS, (0.1,))
    maker.messages = [
        replace(m, data=m.data[:60]) if i % 4 < 2 else m for i, m in enumerate(maker.messages)
    ]
    path = maker.bag(tmp_path / "bag")
    said = set()
    for _ in range(10):
        with open_bag(path) as bag:
            source = Source(bag, cameras={"front": SPEC})
            for _ in source.events(ALL):
                pass
            said.add((*bag.warnings, *source.warnings))
    assert len(said) == 1
    assert sorted(bag.damaged) == ["/command", "/front/image_raw"]
