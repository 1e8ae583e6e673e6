"""Makes small bags of every form, whole and damaged."""

import itertools
import shutil
import sqlite3
from dataclasses import dataclass, field
from pathlib import Path

import cv2
import lz4.frame
import numpy as np
import pytest
import yaml
from backports import zstd
from rosbags.interfaces import (
    Qos,
    QosDurability,
    QosHistory,
    QosLiveliness,
    QosReliability,
    QosTime,
)
from rosbags.rosbag2 import CompressionFormat, CompressionMode, StoragePlugin, Writer
from rosbags.typesys import Stores, get_typestore

MS = 1_000_000
START = 1_700_000_000 * 1000 * MS
TICK = 33 * MS
FOREVER = QosTime(9223372036, 854775807)
LATCHED = Qos(
    QosHistory.KEEP_LAST,
    1,
    QosReliability.RELIABLE,
    QosDurability.TRANSIENT_LOCAL,
    FOREVER,
    FOREVER,
    QosLiveliness.AUTOMATIC,
    FOREVER,
    False,
)
JOINTS = [f"panda_joint{i}" for i in range(1, 8)]


@dataclass(frozen=True)
class Recorded:
    """A message as it goes into a bag."""

    topic: str
    msgtype: str
    received_ns: int
    data: bytes


@dataclass(frozen=True)
class Form:
    """How a bag is stored."""

    storage: str = "mcap"
    compress: str = ""
    """"zstd" or "lz4"."""
    mode: str = ""
    """"file", "message" or (MCAP only) "chunk"."""
    files: int = 1
    definitions: bool = True
    metadata: bool = True
    version: int = 8
    qos: tuple = field(default=(LATCHED,))

    def __str__(self):
        parts = [self.storage, self.compress, self.mode]
        parts.append("" if self.files == 1 else f"{self.files} files")
        parts.append("" if self.definitions else "no definitions")
        parts.append("" if self.metadata else "no metadata")
        return " ".join(part for part in parts if part)


def types(distro="humble"):
    return get_typestore(Stores[f"ROS2_{distro.upper()}"])


def scene(ticks=30, size=(12, 16), *, compressed=False, distro="humble"):
    """Cameras and commands at 30 Hz, joint states at 90 Hz, one instruction."""
    ts = types(distro)
    rng = np.random.default_rng(0)
    t = ts.types
    stamp = t["builtin_interfaces/msg/Time"]
    vector, twist = t["geometry_msgs/msg/Vector3"], t["geometry_msgs/msg/Twist"]

    def header(time_ns, frame):
        sec, nanosec = divmod(time_ns, 1000 * MS)
        return t["std_msgs/msg/Header"](stamp(sec, nanosec), frame)

    def record(topic, time_ns, late_ns, message):
        kind = message.__msgtype__
        return Recorded(topic, kind, time_ns + late_ns, bytes(ts.serialize_cdr(message, kind)))

    messages = [record("/instruction", START, 0, t["std_msgs/msg/String"]("pick up the red cube"))]
    for i in range(ticks):
        now = START + (i + 1) * TICK
        for k in range(3):
            q = np.linspace(0, 1, 7) + i + k / 3
            joints = t["sensor_msgs/msg/JointState"](
                header(now + k * 11 * MS, ""), JOINTS, q, q * 0.1, q * 10
            )
            messages.append(record("/joint_states", now + k * 11 * MS, 300_000, joints))
        pixels = rng.integers(0, 255, (*size, 3), dtype=np.uint8)
        if compressed:
            jpeg = cv2.imencode(".jpg", pixels)[1].ravel()
            image = t["sensor_msgs/msg/CompressedImage"](header(now, "front"), "jpeg", jpeg)
        else:
            image = t["sensor_msgs/msg/Image"](
                header(now, "front"), *size, "rgb8", 0, size[1] * 3, pixels.ravel()
            )
        topic = "/front/image_raw/compressed" if compressed else "/front/image_raw"
        messages.append(record(topic, now, 2 * MS, image))
        command = t["geometry_msgs/msg/TwistStamped"](
            header(now + 5 * MS, "panda_link0"), twist(vector(0.1, i / 100, 0), vector(0, 0, 0.2))
        )
        messages.append(record("/command", now + 5 * MS, 400_000, command))
        opening = t["std_msgs/msg/Float64"](0.08 - i / 1000)
        messages.append(record("/gripper_command", now + 5 * MS, 500_000, opening))
    return sorted(messages, key=lambda m: m.received_ns)


def make_bag(path, messages, form=None, *, distro="humble", per_chunk=60):
    """Write a bag of `messages` (in the order given) as `form` says; return its path."""
    form = form or Form()
    parts = np.array_split(np.arange(len(messages)), form.files)
    for number, rows in enumerate(parts):
        part = path if form.files == 1 else path.with_name(f"{path.name}.part{number}")
        _write(part, [messages[i] for i in rows], form, distro, per_chunk)
    if form.files > 1:
        _merge(path, [path.with_name(f"{path.name}.part{n}") for n in range(form.files)])
    if not form.definitions:
        _drop_definitions(path)
    if form.mode == "file":
        _compress_files(path, form.compress)
    if not form.metadata:
        (path / "metadata.yaml").unlink()
    return path


def storage_files(path):
    """The files of a bag but its metadata."""
    return sorted(p for p in path.iterdir() if p.name != "metadata.yaml")


def edit_metadata(path, change):
    """Apply a function to the metadata of a bag."""
    file = path / "metadata.yaml"
    document = yaml.safe_load(file.read_text())
    change(document["rosbag2_bagfile_information"])
    file.write_text(yaml.safe_dump(document))


def _write(path, messages, form, distro, per_chunk):
    plugin = StoragePlugin[form.storage.upper()]
    writer = Writer(path, version=form.version, storage_plugin=plugin)
    if form.mode == "chunk":
        writer.set_compression(CompressionMode.STORAGE, CompressionFormat.ZSTD)
    store = types(distro)
    pack = {"zstd": zstd.compress, "lz4": lz4.frame.compress}.get(form.compress)
    with writer:
        if form.mode == "chunk" and form.compress == "lz4":
            writer.storage.compression, writer.storage.compressor = "lz4", pack
        connections = {}
        for count, m in enumerate(messages):
            if m.topic not in connections:
                connections[m.topic] = writer.add_connection(
                    m.topic, m.msgtype, typestore=store, offered_qos_profiles=form.qos
                )
            data = pack(m.data) if form.mode == "message" else m.data
            writer.write(connections[m.topic], m.received_ns, data)
            if form.storage == "mcap" and count % per_chunk == per_chunk - 1:
                writer.storage.close_chunk()
    # As ros2 bag names it.
    (file,) = storage_files(path)
    file.rename(file.with_name(f"{path.name}_0{file.suffix}"))

    def describe(info):
        info["relative_file_paths"] = [f"{path.name}_0{file.suffix}"]
        info["files"][0]["path"] = f"{path.name}_0{file.suffix}"
        info["ros_distro"] = distro
        if form.mode == "message":
            info["compression_mode"], info["compression_format"] = "MESSAGE", form.compress
        else:
            info["compression_mode"] = info["compression_format"] = ""

    edit_metadata(path, describe)


def _merge(path, parts):
    """Make one bag of several, as ros2 bag does when it splits."""
    path.mkdir()
    infos = []
    for number, part in enumerate(parts):
        (file,) = storage_files(part)
        name = f"{path.name}_{number}{file.suffix}"
        shutil.move(file, path / name)
        info = yaml.safe_load((part / "metadata.yaml").read_text())
        infos.append(info["rosbag2_bagfile_information"])
        infos[-1]["files"][0]["path"] = name
        shutil.rmtree(part)
    merged = infos[0]
    topics = {}
    for entry in itertools.chain(*(i["topics_with_message_count"] for i in infos)):
        name = entry["topic_metadata"]["name"]
        if name in topics:
            topics[name]["message_count"] += entry["message_count"]
        else:
            topics[name] = entry
    ends = [
        i["starting_time"]["nanoseconds_since_epoch"] + i["duration"]["nanoseconds"] for i in infos
    ]
    start = min(i["starting_time"]["nanoseconds_since_epoch"] for i in infos)
    merged["topics_with_message_count"] = list(topics.values())
    merged["message_count"] = sum(i["message_count"] for i in infos)
    merged["starting_time"]["nanoseconds_since_epoch"] = start
    merged["duration"]["nanoseconds"] = max(ends) - start
    merged["files"] = [i["files"][0] for i in infos]
    merged["relative_file_paths"] = [f["path"] for f in merged["files"]]
    (path / "metadata.yaml").write_text(yaml.safe_dump({"rosbag2_bagfile_information": merged}))


def _drop_definitions(path):
    """Leave a bag as Humble writes it: definitions neither in the file nor hashed."""
    for file in storage_files(path):
        if file.suffix == ".db3":
            database = sqlite3.connect(file)
            database.executescript(
                "DROP TABLE message_definitions;"
                "ALTER TABLE topics DROP COLUMN type_description_hash;"
                "UPDATE schema SET schema_version = 3;"
            )
            database.close()
        else:
            msg = "MCAP always has definitions"
            raise ValueError(msg)

    def forget(info):
        for entry in info["topics_with_message_count"]:
            entry["topic_metadata"].pop("type_description_hash")

    edit_metadata(path, forget)


def _compress_files(path, compress):
    for file in storage_files(path):
        packed = file.with_name(f"{file.name}.{compress}")
        pack = zstd.compress if compress == "zstd" else lz4.frame.compress
        packed.write_bytes(pack(file.read_bytes()))
        file.unlink()

    def describe(info):
        info["compression_mode"], info["compression_format"] = "FILE", compress
        info["relative_file_paths"] = [f"{n}.{compress}" for n in info["relative_file_paths"]]

    edit_metadata(path, describe)


def shared_bags() -> list[Path]:
    """Bags recorded by a real ROS 2, where they lie beside the repository."""
    folder = Path(__file__).resolve().parents[3] / "shared" / "bags"
    return sorted(p.parent for p in folder.glob("*/metadata.yaml"))


ABSENT = pytest.mark.skip(reason="no ../shared/bags beside the repository")
REAL_BAGS = shared_bags() or [pytest.param(Path("none"), marks=ABSENT)]
"""For tests with a parameter for the bag."""
