"""A replay's outputs as a bag, on the topics on which the live nodes publish them."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from vla_ros.replay.recording import Recording, typestore
from vla_ros.replay.result import Commands, Joints, ReplayResult, Ticks
from vla_ros.types import Array

DISTRO = "humble"
SECOND_NS = 1_000_000_000
_STATUS = "diagnostic_msgs/msg/DiagnosticArray"
_TWIST = "geometry_msgs/msg/TwistStamped"
_NUMBER = "std_msgs/msg/Float64"
_TEXT = "std_msgs/msg/String"
_JOINTS = "sensor_msgs/msg/JointState"

Row = tuple[int, int, str, Any]


def write_bag(result: ReplayResult, path: Path) -> None:
    """Write commands, the filter's output and its word on each step, and the joint states.

    Such a bag (MCAP, with message definitions) is complete enough to be judged, to be replayed in
    mode `safety`, and to be looked at in Foxglove.

    Args:
        result: The run.
        path: Folder to make; it must not exist.

    Raises:
        OSError: If the folder exists or cannot be made.

    """
    if path.exists():
        msg = f"{path} exists already: name a folder to make with --out"
        raise FileExistsError(msg)
    writer = _Writer()
    rows: list[Row] = []
    rows.append((result.start_ns, 0, "/robot_description", writer.text(result.urdf)))
    rows += [
        (told.stamp_ns, 1, "/instruction", writer.text(told.text)) for told in result.instructions
    ]
    rows += writer.joints(result.joints, result)
    rows += writer.commands(result.commands, result.robot.base_frame, "/command", 3)
    if result.ticks is not None:
        ticks = result.ticks
        sent = Commands(ticks.stamp_ns, ticks.safe, ticks.gripper)
        rows += writer.commands(sent, result.robot.base_frame, "/safe_command", 5)
        rows += writer.statuses(ticks)
    rows.sort(key=lambda row: row[:2])
    with Recording(path, DISTRO, "mcap") as recording:
        topics: dict[str, str] = {}
        for time_ns, _, topic, (msgtype, data) in rows:
            if topic not in topics:
                topics[topic] = msgtype
                recording.add_topic(topic, msgtype)
            recording.write(topic, time_ns, data)


class _Writer:
    """Makes messages of the definitions of `DISTRO`."""

    def __init__(self) -> None:
        self._store = typestore(DISTRO)
        self._types = self._store.types

    def _data(self, msgtype: str, **values: Any) -> tuple[str, bytes]:  # noqa: ANN401
        message = self._types[msgtype](**values)
        return msgtype, bytes(self._store.serialize_cdr(message, msgtype))

    def _header(self, stamp_ns: int, frame_id: str = "") -> Any:  # noqa: ANN401
        sec, nanosec = divmod(stamp_ns, SECOND_NS)
        stamp = self._types["builtin_interfaces/msg/Time"](sec=sec, nanosec=nanosec)
        return self._types["std_msgs/msg/Header"](stamp=stamp, frame_id=frame_id)

    def text(self, text: str) -> tuple[str, bytes]:
        return self._data(_TEXT, data=text)

    def commands(self, commands: Commands, frame: str, topic: str, rank: int) -> Iterator[Row]:
        """Yield each command, and its opening where there is one, as the nodes send them."""
        vector = self._types["geometry_msgs/msg/Vector3"]
        grips = topic.replace("command", "gripper_command")
        for stamp, row, opening in zip(
            commands.stamp_ns.tolist(),
            commands.twist.tolist(),
            commands.gripper.tolist(),
            strict=True,
        ):
            twist = self._types["geometry_msgs/msg/Twist"](
                linear=vector(*row[:3]), angular=vector(*row[3:])
            )
            yield (
                stamp,
                rank,
                topic,
                self._data(_TWIST, header=self._header(stamp, frame), twist=twist),
            )
            if not np.isnan(opening):
                yield stamp, rank + 1, grips, self._data(_NUMBER, data=opening)

    def joints(self, joints: Joints, result: ReplayResult) -> Iterator[Row]:
        names = [*result.robot.joints, *result.robot.gripper_joints]
        fingers = len(result.robot.gripper_joints)
        for i, stamp in enumerate(joints.stamp_ns.tolist()):
            share = joints.gripper[i] / fingers if fingers else 0.0
            yield (
                stamp,
                2,
                "/joint_states",
                self._data(
                    _JOINTS,
                    header=self._header(stamp),
                    name=names,
                    position=_padded(joints.position[i], fingers, share),
                    velocity=_padded(joints.velocity[i], fingers, 0.0),
                    effort=np.zeros(0)
                    if np.isnan(joints.effort[i]).any()
                    else _padded(joints.effort[i], fingers, 0.0),
                ),
            )

    def statuses(self, ticks: Ticks) -> Iterator[Row]:
        pair = self._types["diagnostic_msgs/msg/KeyValue"]
        status = self._types["diagnostic_msgs/msg/DiagnosticStatus"]
        amounts = dict(ticks.acting)
        for i, stamp in enumerate(ticks.stamp_ns.tolist()):
            acting = {n: float(a[i]) for n, a in amounts.items() if a[i] != 0.0}
            used = int(ticks.command_stamp_ns[i])
            values = {
                "state": ticks.state[i],
                "acting": ",".join(acting),
                "amounts": ",".join(f"{amount:.6g}" for amount in acting.values()),
                "command_stamp_ns": "" if used < 0 else str(used),
            }
            report = status(
                level=0 if ticks.state[i] == "RUNNING" and not ticks.reason[i] else 1,
                name="safety_node",
                message=ticks.reason[i] or "following commands",
                hardware_id="",
                values=[pair(key=key, value=value) for key, value in values.items()],
            )
            data = self._data(_STATUS, header=self._header(stamp), status=[report])
            yield stamp, 7, "/safety_node/status", data


def _padded(values: Array, count: int, value: float) -> Array:
    return np.concatenate([values, np.full(count, value)])
