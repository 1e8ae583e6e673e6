"""Makes small bags of a Panda at rest that is told what to do."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pinocchio
from make_bags import MS, START, Recorded, make_bag, types
from panda_arm import HOME

from vla_ros.paths import share
from vla_ros.replay.common import packaged_urdf
from vla_ros.robot import RobotConfig

ROBOT = share() / "config" / "robots" / "panda.yaml"
JOINTS = [f"panda_joint{i}" for i in range(1, 8)]
FINGERS = ["panda_finger_joint1", "panda_finger_joint2"]
PERIOD = 33_333_333


class Arm:
    """A Panda that does as it is told at once, and measures what it then would."""

    def __init__(self):
        urdf = packaged_urdf(RobotConfig.load(ROBOT), Path("none"))
        self._chain = RobotConfig.load(ROBOT).chain(urdf)
        self._model = pinocchio.buildModelFromXML(urdf)
        self._data = self._model.createData()
        ids = [self._model.getJointId(name) for name in JOINTS]
        self._q = [self._model.joints[i].idx_q for i in ids]
        self._v = [self._model.joints[i].idx_v for i in ids]
        self.position = np.array(HOME)
        self.velocity = np.zeros(7)

    def move(self, twist, seconds):
        """Follow a twist of the TCP for a time."""
        twist = np.array([*twist, *[0.0] * (6 - len(twist))])
        self.velocity = np.linalg.pinv(self._chain.jacobian(self.position)) @ twist
        self.position = self.position + seconds * self.velocity

    @property
    def weight(self):
        """The efforts that hold the arm where it is, Nm."""
        posture = pinocchio.neutral(self._model)
        posture[self._q] = self.position
        return pinocchio.computeGeneralizedGravity(self._model, self._data, posture)[self._v]


WEIGHT = Arm().weight


@dataclass
class Maker:
    """Messages in the making; `messages` are sorted by reception when a bag is made."""

    messages: list[Recorded]

    def __init__(self):
        self.messages = []
        self._store = types()
        self._t = self._store.types

    def header(self, stamp_ns, frame=""):
        sec, nanosec = divmod(int(stamp_ns), 1000 * MS)
        stamp = self._t["builtin_interfaces/msg/Time"](sec, nanosec)
        return self._t["std_msgs/msg/Header"](stamp, frame)

    def add(self, topic, received_ns, message):
        kind = message.__msgtype__
        data = bytes(self._store.serialize_cdr(message, kind))
        self.messages.append(Recorded(topic, kind, int(received_ns), data))

    def text(self, topic, at_ns, text):
        self.add(topic, at_ns, self._t["std_msgs/msg/String"](text))

    def flag(self, topic, at_ns, value):
        self.add(topic, at_ns, self._t["std_msgs/msg/Bool"](value))

    def joints(self, stamp_ns, position=HOME, late_ns=100_000, names=None, arm=None):
        """The measured joints of an arm; of one at rest at HOME without."""
        velocity, effort = np.zeros(7), WEIGHT
        if arm is not None:
            position, velocity, effort = arm.position, arm.velocity, arm.weight
        message = self._t["sensor_msgs/msg/JointState"](
            self.header(stamp_ns),
            [*JOINTS, *FINGERS] if names is None else names,
            np.array([*position, 0.02, 0.02]),
            np.array([*velocity, 0.0, 0.0]),
            np.array([*effort, 0.0, 0.0]),
        )
        self.add("/joint_states", stamp_ns + late_ns, message)

    def command(self, stamp_ns, twist, late_ns=200_000, frame="panda_link0", topic="/command"):
        vector = self._t["geometry_msgs/msg/Vector3"]
        twist = [*map(float, twist), *[0.0] * (6 - len(twist))]
        content = self._t["geometry_msgs/msg/Twist"](vector(*twist[:3]), vector(*twist[3:]))
        message = self._t["geometry_msgs/msg/TwistStamped"](self.header(stamp_ns, frame), content)
        self.add(topic, stamp_ns + late_ns, message)

    def chunk(self, observed_ns, started_ns, actions=16):
        """Tell of a chunk that was started."""
        poses = [
            self._t["geometry_msgs/msg/PoseStamped"](
                self.header(started_ns + i * PERIOD),
                self._t["geometry_msgs/msg/Pose"](
                    self._t["geometry_msgs/msg/Point"](0.0, 0.0, 0.0),
                    self._t["geometry_msgs/msg/Quaternion"](0.0, 0.0, 0.0, 1.0),
                ),
            )
            for i in range(actions)
        ]
        message = self._t["nav_msgs/msg/Path"](self.header(observed_ns), poses)
        self.add("/policy/chunk", started_ns, message)

    def gripper(self, at_ns, opening, topic="/gripper_command"):
        self.add(topic, at_ns, self._t["std_msgs/msg/Float64"](float(opening)))

    def image(self, camera, stamp_ns, shade=100, late_ns=2 * MS, size=(128, 128)):
        pixels = np.full((*size, 3), shade, np.uint8)
        pixels[::7, :, shade % 3] = 255
        message = self._t["sensor_msgs/msg/Image"](
            self.header(stamp_ns, camera), *size, "rgb8", 0, 3 * size[1], pixels.ravel()
        )
        self.add(f"/{camera}/image_raw", stamp_ns + late_ns, message)

    def bag(self, path, form=None):
        """Write all messages as a bag."""
        ordered = sorted(self.messages, key=lambda m: m.received_ns)
        return make_bag(Path(path), ordered, form)


def ramp(i, speed, rise=0.02):
    """A speed that grows slowly enough for a 30 Hz command to be within the bounds as it is."""
    return min(speed, rise * i)


def motion(seconds=1.0, speed=0.1, *, cameras=False, instruction="pick up the red cube"):
    """An arm that is told to move along y, and does: joints at 100 Hz, commands at 30 Hz."""
    maker = Maker()
    if instruction is not None:
        maker.text("/instruction", START, instruction)
    arm = Arm()
    for i in range(round(seconds * 100)):
        maker.joints(START + i * 10 * MS, arm=arm)
        arm.move((0.0, min(0.3, ramp(max(0.0, (i - 1) * 0.3), speed)), 0.0), 0.01)
    for i in range(round(seconds * 30)):
        at = START + 10 * MS + i * PERIOD
        maker.command(at, (0.0, ramp(i, speed), 0.0))
        maker.gripper(at + 300_000, 0.04)
        if cameras:
            maker.image("front", at, shade=i % 200)
            maker.image("wrist", at + MS, shade=(i + 50) % 200)
    return maker
