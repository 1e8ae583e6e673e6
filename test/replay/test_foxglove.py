"""The layout for Foxglove is one that it loads, and names what our recordings hold.

What a layout must hold is from the open Lichtblick Suite, which is Foxglove Studio 1 continued:
`validateLayoutData` (util/layout.ts), the panels' types (panels/index.ts) and the message paths'
grammar (message-path/src/grammar.ne). The application itself is not run.
"""

import json
import re

import panda_bags
import pytest
from make_bags import shared_bags
from rosbags.rosbag2 import Reader
from rosbags.typesys import Stores, get_typestore

from vla_ros.cli import main
from vla_ros.paths import share
from vla_ros.replay.recording import Recording

LAYOUT = json.loads((share() / "config" / "foxglove" / "vla_ros.json").read_text())
PANELS = LAYOUT["configById"]
KNOWN = {"3D", "Image", "Plot", "StateTransitions", "DiagnosticSummary", "Tab"}
TYPES = {
    "/command": "geometry_msgs/msg/TwistStamped",
    "/safe_command": "geometry_msgs/msg/TwistStamped",
    "/gripper_command": "std_msgs/msg/Float64",
    "/safe_gripper_command": "std_msgs/msg/Float64",
    "/joint_states": "sensor_msgs/msg/JointState",
    "/instruction": "std_msgs/msg/String",
    "/robot_description": "std_msgs/msg/String",
    "/policy/chunk": "nav_msgs/msg/Path",
    "/safety_node/status": "diagnostic_msgs/msg/DiagnosticArray",
    "/diagnostics": "diagnostic_msgs/msg/DiagnosticArray",
    "/task/objects": "geometry_msgs/msg/PoseArray",
    "/task/success": "std_msgs/msg/Bool",
    **{f"/observation/{c}": "sensor_msgs/msg/Image" for c in ("front", "wrist")},
    **{f"/{c}/image_raw": "sensor_msgs/msg/Image" for c in ("front", "wrist")},
    **{f"/{c}/image_raw/compressed": "sensor_msgs/msg/CompressedImage" for c in ("front", "wrist")},
}
ELEMENT = re.compile(r'\.(\w+)(\[\d*:?\d*\])?(\{(\w+)=="[^"]*"\})?')


def leaves(node):
    """The panels of a tree of splits."""
    if isinstance(node, str):
        return [node]
    assert set(node) == {"direction", "first", "second", "splitPercentage"}
    assert node["direction"] in ("row", "column")
    assert 0 < node["splitPercentage"] < 100
    return leaves(node["first"]) + leaves(node["second"])


def test_it_is_a_layout():
    assert all(isinstance(LAYOUT[key], dict) for key in ("configById", "globalVariables"))
    assert isinstance(LAYOUT["playbackConfig"]["speed"], int)
    shown = leaves(LAYOUT["layout"])
    for panel in list(shown):
        for tab in PANELS[panel].get("tabs", ()):
            shown += leaves(tab["layout"])
    # Each panel has its place, and each place a panel.
    assert sorted(shown) == sorted(PANELS)
    assert {name.split("!")[0] for name in PANELS} == KNOWN


def paths():
    return [path for panel in PANELS.values() for path in panel.get("paths", ())]


@pytest.mark.parametrize("path", paths(), ids=lambda path: path["value"])
def test_every_path_leads_to_a_field(path):
    topic, message = re.fullmatch(r"((?:/\w+)+)(.*)", path["value"]).groups()
    store = get_typestore(Stores.ROS2_HUMBLE)
    msgtype = TYPES[topic]
    assert path["timestampMethod"] in ("headerStamp", "receiveTime")
    if path["timestampMethod"] == "headerStamp":
        assert store.fielddefs[msgtype][1][0][0] == "header"
    place = 0
    while place < len(message):
        element = ELEMENT.match(message, place)
        assert element, message[place:]
        name, part, _, key = element.groups()
        fields = dict(store.fielddefs[msgtype][1])
        kind, what = fields[name][0].name, fields[name][1]
        assert (part is not None) == (kind in ("ARRAY", "SEQUENCE")), name
        while kind in ("ARRAY", "SEQUENCE"):
            kind, what = what[0][0].name, what[0][1]
        if key is not None:
            assert key in dict(store.fielddefs[what][1])
        place = element.end()
        msgtype = what
    assert kind == "BASE", path["value"]


def test_every_topic_is_one_of_ours():
    topics = [
        panel["imageMode"]["imageTopic"] for name, panel in PANELS.items() if "Image!" in name
    ]
    topics += PANELS["3D!space"]["topics"]
    topics += [panel["topicToRender"] for panel in PANELS.values() if "topicToRender" in panel]
    assert set(topics) <= set(TYPES)


def test_the_outputs_of_a_replay_are_shown(tmp_path):
    bag = panda_bags.motion(1.0).bag(tmp_path / "bag")
    robot = ["--robot", str(panda_bags.ROBOT)]
    assert (
        main(["replay", str(bag), *robot, "--mode", "safety", "--out", str(tmp_path / "out")]) == 0
    )
    check(tmp_path / "out", {"/command", "/safe_command", "/safety_node/status", "/joint_states"})


def test_a_recording_is_shown(tmp_path):
    """Foxglove reads the messages of an MCAP file by the definitions in it (ros2msg, CDR)."""
    store = get_typestore(Stores.ROS2_HUMBLE)
    with Recording(tmp_path / "bag", "humble", "mcap") as recording:
        for topic, msgtype in TYPES.items():
            recording.add_topic(topic, msgtype)
        word = store.types["std_msgs/msg/String"]("pick up the red cube")
        data = bytes(store.serialize_cdr(word, "std_msgs/msg/String"))
        recording.write("/instruction", 1_700_000_000_000_000_000, data)
    check(tmp_path / "bag", set(TYPES))
    (file,) = (tmp_path / "bag").glob("*.mcap")
    assert file.read_bytes()[:8] == b"\x89MCAP0\r\n"


@pytest.mark.skipif(not shared_bags(), reason="the recorded bags of a real ROS 2 are not here")
def test_bags_of_a_real_ros_have_the_topics():
    for bag in shared_bags():
        with Reader(bag) as reader:
            there = {connection.topic: connection.msgtype for connection in reader.connections}
        assert {topic for topic in there if topic not in TYPES} == set()
        assert all(TYPES[topic] == msgtype for topic, msgtype in there.items())


def check(bag, expected):
    with Reader(bag) as reader:
        there = {connection.topic: connection for connection in reader.connections}
    assert expected <= set(there)
    for topic, connection in there.items():
        assert connection.msgtype == TYPES[topic]
        assert connection.msgdef.format.name == "MSG"
        assert connection.msgdef.data.strip()
