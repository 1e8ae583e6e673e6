"""`vla_ros record` keeps what was published, however it ends."""

import os
import re
import shutil
import signal
import subprocess
import sys
import time
from contextlib import contextmanager
from pathlib import Path

import pytest
import rclpy
import yaml
from make_bags import START, shared_bags, types
from node_process import claim_domain, environment, wait_for
from rclpy.context import Context
from rclpy.node import Node
from rclpy.qos import DurabilityPolicy, QoSProfile, qos_profile_sensor_data
from rosbags.highlevel import AnyReader
from sensor_msgs.msg import JointState
from std_msgs.msg import Float64, String

from vla_ros.cli import main
from vla_ros.replay.bags import open_bag
from vla_ros.replay.message_types import gather_definition
from vla_ros.replay.recording import Recording, RecordingError

LATCHED = QoSProfile(depth=1, durability=DurabilityPolicy.TRANSIENT_LOCAL)


@pytest.fixture(scope="module")
def domain():
    return claim_domain()


@pytest.fixture
def publishers(domain, monkeypatch):
    """A node in this process, that publishes an instruction, and joint states when told to."""
    monkeypatch.setenv("ROS_LOCALHOST_ONLY", "1")
    context = Context()
    rclpy.init(context=context, domain_id=domain)
    node = Node("publishers", context=context)
    node.instruction = node.create_publisher(String, "/instruction", LATCHED)
    node.instruction.publish(String(data="pick up the red cube"))
    # Reliable, so that none is lost on the way that the recorder could be blamed for.
    node.joints = node.create_publisher(JointState, "/joint_states", 100)
    node.create_publisher(Float64, "/force", qos_profile_sensor_data)
    yield node
    node.destroy_node()
    context.try_shutdown()


@contextmanager
def recorder(domain, folder, *arguments):
    log = folder / "record.log"
    with log.open("wb") as out:
        process = subprocess.Popen(
            [sys.executable, "-m", "vla_ros.cli", "record", "-o", folder / "bag", *arguments],
            env=environment(domain),
            stdout=out,
            stderr=subprocess.STDOUT,
        )
    process.log = log
    try:
        yield process
    finally:
        process.kill()
        process.wait()


def publish(node, process, count, begin=0):
    """Publish numbered joint states at 100 Hz, once they are recorded."""
    if not begin:
        wait_for(lambda: "recording /joint_states" in process.log.read_text())
        # A recorder that was killed is still there for others: the count of subscribers is wrong.
        time.sleep(0.5)
    for i in range(begin, begin + count):
        message = JointState(name=["a"], position=[float(i)])
        message.header.stamp.sec = i
        node.joints.publish(message)
        time.sleep(0.01)


def positions(bag):
    return [int(m.position[0]) for _, m in bag.read(["/joint_states"])]


@pytest.mark.realtime
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("storage", ["mcap", "sqlite3"])
def test_a_clean_end(tmp_path, domain, publishers, storage, number):
    with recorder(domain, tmp_path, "-a", "--storage", storage) as process:
        publish(publishers, process, 100)
        time.sleep(0.3)
        process.send_signal(number)
        assert process.wait(20) == 0
    assert re.search(r"100 +/joint_states\n", process.log.read_text())
    with open_bag(tmp_path / "bag") as bag:
        assert positions(bag) == list(range(100))
        # Published before the recorder began.
        assert [m.data for _, m in bag.read(["/instruction"])] == ["pick up the red cube"]
        assert bag.warnings == []
        (qos,) = bag.topics["/instruction"].qos
        assert (qos.durability.name, qos.reliability.name) == ("TRANSIENT_LOCAL", "RELIABLE")
        (qos,) = bag.topics["/force"].qos
        assert (qos.durability.name, qos.reliability.name) == ("VOLATILE", "BEST_EFFORT")


@pytest.mark.realtime
@pytest.mark.parametrize("storage", ["mcap", "sqlite3"])
def test_a_killed_recorder_loses_less_than_a_second(tmp_path, domain, publishers, storage):
    with recorder(domain, tmp_path, "-a", "--storage", storage) as process:
        publish(publishers, process, 200)
        time.sleep(0.9)  # without a message: nothing but its own clock makes it write
        publish(publishers, process, 20, begin=200)
        process.kill()
        process.wait()
    with open_bag(tmp_path / "bag") as bag:
        read = positions(bag)
        assert read == list(range(len(read)))
        assert len(read) >= 200
        assert [m.data for _, m in bag.read(["/instruction"])] == ["pick up the red cube"]
        assert "metadata.yaml is missing" in bag.warnings[0]


@pytest.mark.realtime
def test_some_topics(tmp_path, domain, publishers):
    with recorder(domain, tmp_path, "joint_states", "/nobody", "/later") as process:
        publish(publishers, process, 20)
        later = publishers.create_publisher(Float64, "/later", 10)
        wait_for(lambda: "recording /later" in process.log.read_text())
        time.sleep(0.5)
        later.publish(Float64(data=2.0))
        time.sleep(0.3)
        process.send_signal(signal.SIGINT)
        assert process.wait(20) == 0
    assert "nobody published /nobody" in process.log.read_text()
    with open_bag(tmp_path / "bag") as bag:
        assert {name: t.count for name, t in bag.topics.items()} == {
            "/joint_states": 20,
            "/later": 1,
        }


@pytest.mark.realtime
def test_a_publisher_that_offers_less_comes_later(tmp_path, domain, publishers):
    """A camera driver that is started again with sensor QoS, say."""
    with recorder(domain, tmp_path, "/joint_states") as process:
        publish(publishers, process, 20)
        publishers.destroy_publisher(publishers.joints)
        publishers.joints = publishers.create_publisher(
            JointState, "/joint_states", qos_profile_sensor_data
        )
        time.sleep(1.5)
        publish(publishers, process, 50, begin=100)
        time.sleep(0.5)
        process.send_signal(signal.SIGINT)
        assert process.wait(20) == 0
    with open_bag(tmp_path / "bag") as bag:
        read = positions(bag)
        assert read[:20] == list(range(20))
        assert len(read) > 40


@pytest.mark.realtime
def test_nothing_to_record(tmp_path, domain):
    with recorder(domain, tmp_path, "/nobody") as process:
        wait_for(lambda: "Ctrl-C ends it" in process.log.read_text())
        process.send_signal(signal.SIGTERM)
        assert process.wait(20) == 1
    with open_bag(tmp_path / "bag") as bag:
        assert bag.warnings == ["the bag holds no messages"]


def test_mistakes(tmp_path, capsys):
    assert main(["record"]) == main(["record", "-a", "/x"]) == 1
    assert capsys.readouterr().err.count("name the topics to record, or say -a for all") == 2
    assert main(["record", "-a", "-o", str(tmp_path)]) == 1
    assert "exists already" in capsys.readouterr().err


def test_a_distribution_without_definitions(tmp_path):
    with pytest.raises(RecordingError, match="'noetic', but message definitions are known for"):
        Recording(tmp_path / "bag", "noetic")
    assert not (tmp_path / "bag").exists()


@pytest.mark.parametrize("storage", ["mcap", "sqlite3"])
def test_a_types_own_definition(tmp_path, storage):
    """A robot's own messages are recorded with the definitions of their packages."""
    share = tmp_path / "share"
    texts = {
        "my_msgs/msg/Grip": "# a comment\nstd_msgs/Header header\nFinger[2] fingers\nint32 A=1\n",
        "my_msgs/msg/Finger": "float64 width 0.1\nstring<=5 name\ngeometry_msgs/Point[<=3] tips\n",
        "std_msgs/msg/Header": "builtin_interfaces/Time stamp\nstring frame_id\n",
        "builtin_interfaces/msg/Time": "int32 sec\nuint32 nanosec\n",
        "geometry_msgs/msg/Point": "float64 x\nfloat64 y\nfloat64 z\n",
    }
    for name, text in texts.items():
        file = share / f"{name}.msg"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
    definition = gather_definition("my_msgs/msg/Grip", lambda package: share / package)
    assert definition.startswith(texts["my_msgs/msg/Grip"])
    assert set(re.findall(r"MSG: (\S+)", definition)) == {
        "my_msgs/Finger",
        "std_msgs/Header",
        "builtin_interfaces/Time",
        "geometry_msgs/Point",
    }
    assert gather_definition("my_msgs/msg/Absent", lambda package: share / package) == ""
    assert gather_definition("absent/msg/Grip", lambda _: None) == ""

    data = b"\0\1\0\0" + bytes(4 + 4) + (1).to_bytes(4, "little") + bytes(1 + 3)
    data += (bytes(8) + (1).to_bytes(4, "little") + bytes(4) + bytes(4) + bytes(4)) * 2
    with Recording(tmp_path / "bag", "humble", storage) as recording:
        assert not recording.knows("my_msgs/msg/Grip")
        recording.learn("my_msgs/msg/Grip", definition)
        with pytest.raises(ValueError, match="the definition of my_msgs/msg/Bad cannot be used"):
            recording.learn("my_msgs/msg/Bad", "float64[[ x")
        recording.add_topic("/grip", "my_msgs/msg/Grip")
        recording.write("/grip", START, data[:-4])
    with open_bag(tmp_path / "bag") as bag:
        ((_, grip),) = bag.read()
        assert len(grip.fingers) == 2
        assert bag.ros_distro == "humble"


@pytest.mark.parametrize("storage", ["mcap", "sqlite3"])
def test_what_real_tools_read(tmp_path, storage):
    """The form that rosbag2 writes itself, compared with one of its own bags where there is one."""
    store = types()
    kind = "std_msgs/msg/Float64"
    data = bytes(store.serialize_cdr(store.types[kind](1.0), kind))
    with Recording(tmp_path / "bag", "humble", storage) as recording:
        recording.add_topic("/x", kind)
        for i in range(10):
            recording.write("/x", START + i, data)
    info = yaml.safe_load((tmp_path / "bag" / "metadata.yaml").read_text())
    info = info["rosbag2_bagfile_information"]
    suffix = {"mcap": "mcap", "sqlite3": "db3"}[storage]
    assert info["relative_file_paths"] == [f"bag_0.{suffix}"]
    assert (tmp_path / "bag" / f"bag_0.{suffix}").is_file()
    assert (info["version"], info["storage_identifier"], info["message_count"]) == (8, storage, 10)
    assert isinstance(info["topics_with_message_count"][0]["topic_metadata"], dict)
    for bag in shared_bags():
        real = yaml.safe_load((bag / "metadata.yaml").read_text())["rosbag2_bagfile_information"]
        assert set(real) <= set(info)
        real_topic = real["topics_with_message_count"][0]["topic_metadata"]
        assert set(real_topic) <= set(info["topics_with_message_count"][0]["topic_metadata"])
    with AnyReader([tmp_path / "bag"]) as reader:
        assert reader.message_count == 10


@pytest.mark.skipif(not shutil.which("ros2"), reason="no ROS 2 is sourced")
@pytest.mark.parametrize("storage", ["mcap", "sqlite3"])
@pytest.mark.parametrize("finished", [True, False])
def test_ros2_bag_reads_it(tmp_path, storage, finished):
    kind = "std_msgs/msg/Float64"
    store = types()
    data = bytes(store.serialize_cdr(store.types[kind](1.0), kind))
    recording = Recording(tmp_path / "bag", "humble", storage)
    recording.add_topic("/x", kind)
    for i in range(10):
        recording.write("/x", START + i, data)
    recording.commit()
    bag = tmp_path / "bag"
    if finished:
        recording.close()
    else:
        bag = Path(shutil.copytree(bag, tmp_path / "killed"))
        recording.close()
        command = ["ros2", "bag", "reindex", "-s", storage, bag]
        reindexed = subprocess.run(command, capture_output=True, text=True, check=False)
        if "invalid choice" in reindexed.stderr:
            pytest.skip(f"this ROS 2 has no plugin for {storage}")
    told = subprocess.run(["ros2", "bag", "info", bag], capture_output=True, text=True, check=False)
    if "No storage could be initialized" in told.stderr + told.stdout:
        pytest.skip(f"this ROS 2 has no plugin for {storage}")
    assert "Topic: /x | Type: std_msgs/msg/Float64 | Count: 10" in told.stdout


@pytest.mark.parametrize("storage", ["mcap", "sqlite3"])
def test_a_full_disk(tmp_path, storage):
    store = types()
    kind = "std_msgs/msg/String"
    data = bytes(store.serialize_cdr(store.types[kind]("x" * 1000), kind))
    recording = Recording(tmp_path / "bag", "humble", storage)
    recording.add_topic("/x", kind)

    def fill():
        for i in range(2000):
            recording.write("/x", START + i * 1_000_000, data)

    with Path("/dev/full").open("wb", buffering=0) as full:
        if storage == "sqlite3":
            recording._writer.storage.conn.execute("PRAGMA max_page_count = 30")
        else:
            recording._writer.storage._file._file = full
        with pytest.raises(RecordingError, match=r"cannot be written: .*(disk is full|No space)"):
            fill()


def test_a_recording_is_not_written_over(tmp_path):
    Recording(tmp_path / "bag", "humble", "mcap").close()
    with pytest.raises(RecordingError, match="exists already"):
        Recording(tmp_path / "bag", "humble", "mcap")
    shutil.rmtree(tmp_path / "bag")
    (tmp_path / "bag").write_text("")
    with pytest.raises(RecordingError, match="bag exists already"):
        Recording(tmp_path / "bag", "humble", "mcap")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_folder_that_may_not_be_written(tmp_path):
    tmp_path.chmod(0o500)
    with pytest.raises(RecordingError, match="Permission denied"):
        Recording(Path(tmp_path) / "bag", "humble", "mcap")
