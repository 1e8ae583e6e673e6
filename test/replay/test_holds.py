"""A replay in which nothing moved says so, and why; else its expectations pass for nothing."""

import re
from dataclasses import replace

import pytest
from make_bags import make_bag, types
from panda_bags import ROBOT, motion

from vla_ros import cli
from vla_ros.replay.holds import held
from vla_ros.replay.replay import Options, ReplayError, replay_bag

SAFETY = Options(mode="safety")
STORE = types()


def changed(path, topic, *changes):
    """A bag of a moving arm, in which each message of a topic is replaced by what it is made of."""
    recorded = sorted(motion().messages, key=lambda m: m.received_ns)
    messages = []
    for message in recorded:
        if message.topic != topic:
            messages.append(message)
            continue
        content = STORE.deserialize_cdr(message.data, message.msgtype)
        for change in changes:
            data = bytes(STORE.serialize_cdr(change(content), message.msgtype))
            messages.append(replace(message, data=data))
    return make_bag(path, messages)


def in_frame(name):
    return lambda m: replace(m, header=replace(m.header, frame_id=name))


def only(joints):
    return lambda m: replace(
        m,
        name=m.name[joints],
        position=m.position[joints],
        velocity=m.velocity[joints],
        effort=m.effort[joints],
    )


@pytest.mark.parametrize(
    ("topic", "change", "cause"),
    [
        ("/command", in_frame("tool"), "HOLDING: .*the command's frame is 'tool', not 'panda_link"),
        (
            "/joint_states",
            lambda m: replace(m, effort=m.effort[:0]),
            "STARTING: .*7 finite efforts.*set effort_samples to 0",
        ),
    ],
)
def test_a_filter_that_held_the_arm_throughout_is_told_with_the_cause(
    tmp_path, capsys, topic, change, cause
):
    bag = changed(tmp_path / "bag", topic, change)
    assert cli.main(["replay", str(bag), "--robot", str(ROBOT)]) == 0
    said = capsys.readouterr()
    never = "warning: the filter held the arm still in all of its [0-9]+ steps; in [0-9]+: "
    assert re.fullmatch(f"{never}{cause}.*\n", said.err), said.err
    assert re.search(f"held still by the filter +[0-9.]+ of its steps, {cause}", said.out), said.out


def test_an_arm_that_moved_is_only_told_when_it_was_held(tmp_path):
    result = replay_bag(motion().bag(tmp_path / "bag"), ROBOT, options=SAFETY)
    assert result.warnings == ()
    (by_filter,) = held(result)
    assert sum(count for count, _ in by_filter.reasons) == result.ticks.state.count("HOLDING")
    assert [why.partition(" 0.")[0] for _, why in by_filter.reasons] == [
        "HOLDING: the joint states are",
        "HOLDING: no acceptable command for",
        "HOLDING: waiting for a command",
    ]


def test_a_gripper_with_a_driver_of_its_own_changes_nothing(tmp_path):
    """Its joint states come in messages of their own, on the same topic."""
    whole = motion().bag(tmp_path / "whole")
    split = changed(tmp_path / "split", "/joint_states", only(slice(7, 9)), only(slice(7)))
    result = replay_bag(split, ROBOT, options=SAFETY)
    assert result.hash == replay_bag(whole, ROBOT, options=SAFETY).hash
    assert result.warnings == ()


def test_a_topic_of_another_type_is_named_with_both(tmp_path):
    messages = [
        replace(m, msgtype="geometry_msgs/msg/Twist") if m.topic == "/command" else m
        for m in motion().messages
    ]
    bag = make_bag(tmp_path / "bag", messages)
    with pytest.raises(ReplayError, match=r"as geometry_msgs/msg/Twist: .*msg/TwistStamped"):
        replay_bag(bag, ROBOT, options=SAFETY)
