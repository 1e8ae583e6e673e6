"""A small bag to play to nodes, and what nodes made of it as a bag."""

import math
from pathlib import Path

import numpy as np
import pinocchio
from panda_arm import HOME
from rosbags.interfaces import (
    Qos,
    QosDurability,
    QosHistory,
    QosLiveliness,
    QosReliability,
    QosTime,
)
from rosbags.rosbag2 import StoragePlugin, Writer
from rosbags.typesys import Stores, get_typestore

from vla_ros.replay.bags import open_bag
from vla_ros.sim.panda import urdf

MS = 1_000_000
START = 1_700_000_000_123_456_789
FINGERS = (0.02, 0.02)
NAMES = [f"panda_joint{i}" for i in range(1, 8)] + [f"panda_finger_joint{i}" for i in (1, 2)]
FOREVER = QosTime(9223372036, 854775807)
STORE = get_typestore(Stores.ROS2_HUMBLE)


def offer(*, reliable=True, latched=False, depth=10):
    return Qos(
        QosHistory.KEEP_LAST,
        depth,
        QosReliability.RELIABLE if reliable else QosReliability.BEST_EFFORT,
        QosDurability.TRANSIENT_LOCAL if latched else QosDurability.VOLATILE,
        FOREVER,
        FOREVER,
        QosLiveliness.AUTOMATIC,
        FOREVER,
        False,
    )


OFFERS = {
    "/joint_states": (offer(reliable=False),),
    "/front/image_raw": (offer(reliable=False, depth=5),),
    "/wrist/image_raw": (offer(reliable=False, depth=5),),
    "/status_latched": (offer(latched=True, depth=3),),
    "/mixed": (offer(), offer(reliable=False)),
    "/unknown_offer": (),
}
"""What publishers offered; the others are reliable and volatile, as in many real bags."""


def cdr(msgtype, *fields):
    return bytes(STORE.serialize_cdr(STORE.types[msgtype](*fields), msgtype))


def text(value):
    return cdr("std_msgs/msg/String", value)


def header(time_ns, frame=""):
    stamp = STORE.types["builtin_interfaces/msg/Time"](*divmod(time_ns, 1000 * MS))
    return STORE.types["std_msgs/msg/Header"](stamp, frame)


def twist(time_ns, values):
    vector = STORE.types["geometry_msgs/msg/Vector3"]
    body = STORE.types["geometry_msgs/msg/Twist"](vector(*values[:3]), vector(*values[3:]))
    return cdr("geometry_msgs/msg/TwistStamped", header(time_ns, "panda_link0"), body)


def at_rest():
    """Return positions, velocities and efforts of the arm at rest: it bears its own weight."""
    model = pinocchio.buildModelFromXML(urdf())
    position = np.array([*HOME, *FINGERS])
    weight = pinocchio.computeGeneralizedGravity(model, model.createData(), position)
    return position, np.zeros(len(NAMES)), weight


def joints(time_ns, values):
    return cdr("sensor_msgs/msg/JointState", header(time_ns), NAMES, *values)


def image(time_ns, camera, pixels):
    height, width, _ = pixels.shape
    fields = (header(time_ns, camera), height, width, "rgb8", 0, 3 * width, pixels.ravel())
    return cdr("sensor_msgs/msg/Image", *fields)


def run_of_an_arm(seconds=1.5, *, cameras=False, seed=0):
    """Return an arm at rest and commands that ask for more and more: (topic, type, time, data).

    Joint states at 100 Hz and commands at 30 Hz, cameras likewise, with the jitter of a recorder.
    """
    rng = np.random.default_rng(seed)
    messages = [("/instruction", "std_msgs/msg/String", START, text("pick up the red cube"))]

    def add(topic, msgtype, stamp_ns, data, late_ns=0):
        received_ns = stamp_ns + late_ns + int(rng.integers(100_000, 2_000_000))
        messages.append((topic, msgtype, received_ns, data))

    if cameras:
        add("/instruction", "std_msgs/msg/String", START + 700 * MS, text("pick up the green cube"))
    values = at_rest()
    for tick in range(int(100 * seconds)):
        now = START + tick * 10 * MS
        add("/joint_states", "sensor_msgs/msg/JointState", now, joints(now, values))
    for tick in range(int(30 * seconds)):
        now = START + 5 * MS + round(tick * 1000 * MS / 30)
        speed = 0.6 * tick / (30 * seconds)
        values = (speed, 0.1 * math.sin(tick), -speed / 2, 0.0, speed, 0.5)
        add("/command", "geometry_msgs/msg/TwistStamped", now, twist(now, values))
        opening = cdr("std_msgs/msg/Float64", 0.04 + 0.03 * math.sin(tick / 10))
        add("/gripper_command", "std_msgs/msg/Float64", now, opening)
        if cameras:
            for camera, size in (("front", 160), ("wrist", 96)):
                pixels = rng.integers(0, 256, (size, size, 3), np.uint8)
                picture = image(now, camera, pixels)
                add(f"/{camera}/image_raw", "sensor_msgs/msg/Image", now, picture, 3 * MS)
    return sorted(messages, key=lambda message: message[2])


def write_bag(path: Path, messages) -> Path:
    """Write messages (topic, type, time of reception, data), in their order."""
    writer = Writer(path, version=8, storage_plugin=StoragePlugin.MCAP)
    with writer:
        connections = {}
        for topic, msgtype, received_ns, data in messages:
            if topic not in connections:
                connections[topic] = writer.add_connection(
                    topic,
                    msgtype,
                    typestore=STORE,
                    offered_qos_profiles=OFFERS.get(topic, (offer(),)),
                )
            writer.write(connections[topic], received_ns, data)
    return path


def with_outputs(path: Path, bag: Path, outputs, left_out=()) -> Path:
    """Write a bag's messages, less some topics, beside what nodes published: (topic, message)."""
    with open_bag(bag) as opened:
        messages = [
            (m.topic, m.msgtype, m.received_ns, m.data)
            for m in opened.messages(set(opened.topics) - set(left_out))
        ]
    for topic, message in outputs:
        linear, angular = message.twist.linear, message.twist.angular
        stamp_ns = message.header.stamp.sec * 1000 * MS + message.header.stamp.nanosec
        values = (linear.x, linear.y, linear.z, angular.x, angular.y, angular.z)
        data = twist(stamp_ns, values)
        messages.append((topic, "geometry_msgs/msg/TwistStamped", stamp_ns, data))
    return write_bag(path, sorted(messages, key=lambda message: message[2]))


def shared_bags():
    """Return bags recorded by a real ROS 2, where they lie beside the repository."""
    folder = Path(__file__).resolve().parents[2] / "shared" / "bags"
    return sorted(p.parent for p in folder.glob("*/metadata.yaml"))
