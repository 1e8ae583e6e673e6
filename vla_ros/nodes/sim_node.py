"""sim_node: the simulated Panda on its table, as a robot and its cameras appear in the graph."""

import sys
import time
from array import array
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from typing import Any

import numpy as np
from diagnostic_msgs.msg import DiagnosticStatus
from geometry_msgs.msg import Point, Pose, PoseArray, Quaternion, TwistStamped
from rclpy.node import Node
from sensor_msgs.msg import Image, JointState
from std_msgs.msg import Bool, Float64, String
from std_srvs.srv import Trigger

from vla_ros.nodes._common import (
    CONTROL_QOS,
    LATCHED_QOS,
    SENSOR_QOS,
    Diagnostics,
    Health,
    Percentiles,
    Rate,
    declare,
    now_ns,
    run,
    stamp_from_ns,
)
from vla_ros.sim.panda import (
    ARM_JOINTS,
    BASE_FRAME,
    CAMERAS,
    COMMAND_TIMEOUT_NS,
    GRIPPER_JOINTS,
    PandaSim,
    urdf,
)
from vla_ros.sim.render import SIZE_RANGE, SceneRenderer
from vla_ros.sim.task import PickTask
from vla_ros.types import Array, ImageArray

TASK_HZ = 30.0
DEFAULT_SIZE = (224, 224)
MOST_BEHIND_NS = 100_000_000
"""A longer delay of the physics is not caught up with: simulated time then loses it."""
SLOW = 0.95
"""A real-time factor below this is reported."""
LOG_PERIOD_S = 5.0


class SimNode(Node):
    """Steps the physics in real time, takes commands, and publishes what a robot would.

    Everything runs on the executor's thread except rendering, which has a thread of its own and
    works on copies of the positions: pictures delay neither physics nor joint states.
    """

    def __init__(self) -> None:
        """Declare the parameters, load the scene and render each camera once.

        Raises:
            ValueError: If a camera is unknown.
            OSError: If this machine cannot render.

        """
        super().__init__("sim_node")
        self._seed = declare(
            self, "seed", 0, "Seed of the scene: where the cubes lie", limits=(0, 2**31 - 1)
        )
        names = declare(self, "cameras", list(CAMERAS), "Cameras to render: front, wrist, side")
        joint_state_hz = declare(
            self, "joint_state_rate_hz", 100.0, "Rate of joint_states in Hz", limits=(1.0, 500.0)
        )
        self._sim = PandaSim(dict.fromkeys(names, DEFAULT_SIZE))
        self._sim.reset(self._seed)
        self._task = PickTask(self._sim, "")
        self._instruction = ""
        self._pace = _Pace()
        self._joint_rate = Rate()
        self._command_rate = Rate()

        self._joint_states = self.create_publisher(JointState, "joint_states", CONTROL_QOS)
        self._success = self.create_publisher(Bool, "task/success", CONTROL_QOS)
        self._objects = self.create_publisher(PoseArray, "task/objects", CONTROL_QOS)
        self._description = self.create_publisher(String, "robot_description", LATCHED_QOS)
        self._description.publish(String(data=urdf()))

        self._render_thread = ThreadPoolExecutor(1, thread_name_prefix="render")
        self._cameras = [_Camera(self, name, self._sim, self._render_thread) for name in names]
        for camera in self._cameras:
            camera.warm_up(self._sim.data.qpos.copy())
        self._pace.start(self._sim.time_ns)

        self.create_subscription(TwistStamped, "safe_command", self._on_command, CONTROL_QOS)
        self.create_subscription(Float64, "safe_gripper_command", self._on_gripper, CONTROL_QOS)
        self.create_subscription(String, "instruction", self._on_instruction, LATCHED_QOS)
        self.create_service(Trigger, "~/reset_task", self._on_reset)
        self.create_timer(1.0 / joint_state_hz, self._publish_joints)
        self.create_timer(1.0 / TASK_HZ, self._publish_task)
        for camera in self._cameras:
            self.create_timer(1.0 / camera.rate_hz, partial(self._expose, camera))
        self._diagnostics = Diagnostics(self, self._health)
        pictures = ", ".join(f"{c.name} {c.width}x{c.height}" for c in self._cameras)
        self.get_logger().info(f"simulating the Panda: seed {self._seed}, cameras {pictures}")

    def close(self) -> None:
        """End the render thread and free its GL contexts."""
        for camera in self._cameras:
            self._render_thread.submit(camera.renderer.close)
        self._render_thread.shutdown()
        self._sim.close()

    def _advance(self) -> None:
        """Let the physics catch up with real time."""
        lost_ns = self._pace.catch_up(self._sim)
        if lost_ns:
            self.get_logger().warning(
                f"slower than real time: lost {lost_ns / 1e6:.0f} ms of simulated time",
                throttle_duration_sec=LOG_PERIOD_S,
            )

    def _on_command(self, message: Any) -> None:  # noqa: ANN401
        frame = message.header.frame_id
        linear, angular = message.twist.linear, message.twist.angular
        twist = np.array([linear.x, linear.y, linear.z, angular.x, angular.y, angular.z])
        # The command counts from now on, not from the physics' last step.
        self._advance()
        if frame != BASE_FRAME:
            self._refuse("safe_command", f"its frame is {frame!r}, not {BASE_FRAME!r}")
            return
        try:
            self._sim.set_twist(twist)
        except ValueError as err:
            self._refuse("safe_command", str(err))
            return
        self._command_rate.add(now_ns(self))

    def _on_gripper(self, message: Any) -> None:  # noqa: ANN401
        try:
            self._sim.set_gripper(message.data)
        except ValueError as err:
            self._refuse("safe_gripper_command", str(err))

    def _refuse(self, topic: str, reason: str) -> None:
        self.get_logger().error(
            f"refused a message on {topic}: {reason}", throttle_duration_sec=LOG_PERIOD_S
        )

    def _on_instruction(self, message: Any) -> None:  # noqa: ANN401
        if message.data != self._instruction:
            self._instruction = message.data
            self._task.set_instruction(message.data)

    def _on_reset(self, _: Any, response: Any) -> Any:  # noqa: ANN401
        self._seed += 1
        self._sim.reset(self._seed)
        self._task.set_instruction(self._instruction)
        self._pace.start(self._sim.time_ns)
        response.success = True
        response.message = f"seed {self._seed}"
        self.get_logger().info(f"reset to seed {self._seed}")
        return response

    def _publish_joints(self) -> None:
        self._advance()
        time_ns = now_ns(self)
        self._joint_rate.add(time_ns)
        sample = self._sim.joint_sample(time_ns)
        fingers, finger_speeds, finger_efforts = self._sim.finger_sample()
        effort = np.zeros(7) if sample.effort is None else sample.effort
        message = JointState()
        message.header.stamp = stamp_from_ns(time_ns)
        message.header.frame_id = BASE_FRAME
        message.name = [*ARM_JOINTS, *GRIPPER_JOINTS]
        message.position = [*sample.position.tolist(), *fingers.tolist()]
        message.velocity = [*sample.velocity.tolist(), *finger_speeds.tolist()]
        message.effort = [*effort.tolist(), *finger_efforts.tolist()]
        self._joint_states.publish(message)

    def _publish_task(self) -> None:
        self._advance()
        before = self._task.success
        self._task.update()
        if self._task.success and not before:
            self.get_logger().info(f"task done: the {self._task.target} cube is lifted")
        self._success.publish(Bool(data=self._task.success))
        objects = PoseArray()
        objects.header.stamp = stamp_from_ns(now_ns(self))
        objects.header.frame_id = BASE_FRAME
        objects.poses = [_pose(values) for values in self._sim.cube_poses().tolist()]
        self._objects.publish(objects)

    def _expose(self, camera: "_Camera") -> None:
        self._advance()
        camera.expose(self._sim.data.qpos.copy(), now_ns(self))

    def _health(self, time_ns: int) -> Health:
        factor = self._pace.real_time_factor()
        values: dict[str, object] = {
            "real_time_factor": f"{factor:.3f}",
            "lost ms": f"{self._pace.lost_ns / 1e6:.0f}",
            "joint_states rate Hz": f"{self._joint_rate.rate_hz(time_ns):.1f}",
            "safe_command rate Hz": f"{self._command_rate.rate_hz(time_ns):.1f}",
            "seed": self._seed,
            "instruction": self._instruction,
            "target": self._task.target or "none",
            "success": self._task.success,
            "wrong cube lifted": self._task.wrong_lifted,
        }
        for camera in self._cameras:
            values |= camera.values(time_ns)
        if factor < SLOW:
            text = f"simulates at {factor:.2f} of real time"
            return Health(DiagnosticStatus.WARN, text, values)
        age_ms = self._command_rate.age_ms(time_ns)
        if age_ms is None or age_ms > COMMAND_TIMEOUT_NS / 1e6:
            since = "" if age_ms is None else f" for {age_ms / 1e3:.2f} s"
            return Health(DiagnosticStatus.WARN, f"halted: no safe_command{since}", values)
        return Health(DiagnosticStatus.OK, "simulates in real time", values)


class _Pace:
    """Keeps simulated time with the machine's monotonic clock."""

    def __init__(self) -> None:
        self.lost_ns = 0
        self._offset_ns = 0
        self._window = (time.monotonic_ns(), 0)
        self._simulated_ns = 0

    def start(self, sim_ns: int) -> None:
        """Let simulated time `sim_ns` be now."""
        self._offset_ns = time.monotonic_ns() - sim_ns

    def catch_up(self, sim: PandaSim) -> int:
        """Simulate until now; return the time in ns that was too long to catch up with."""
        due_ns = time.monotonic_ns() - self._offset_ns
        lost_ns = max(0, due_ns - sim.time_ns - MOST_BEHIND_NS)
        self._offset_ns += lost_ns
        self.lost_ns += lost_ns
        before_ns = sim.time_ns
        sim.advance_to(due_ns - lost_ns)
        self._simulated_ns += sim.time_ns - before_ns
        return lost_ns

    def real_time_factor(self) -> float:
        """Return simulated by real time since the last call."""
        real_ns, simulated_ns = self._window
        self._window = (time.monotonic_ns(), self._simulated_ns)
        return (self._simulated_ns - simulated_ns) / max(self._window[0] - real_ns, 1)


class _Camera:
    """One camera: its parameters, publisher and counts. Renders on the given thread."""

    def __init__(self, node: Node, name: str, sim: PandaSim, thread: ThreadPoolExecutor) -> None:
        height, width = CAMERAS.get(name, DEFAULT_SIZE)
        self.name = name
        self.width = declare(
            node, f"{name}.width", width, "Columns of the picture", limits=SIZE_RANGE
        )
        self.height = declare(
            node, f"{name}.height", height, "Rows of the picture", limits=SIZE_RANGE
        )
        self.rate_hz = declare(
            node, f"{name}.rate_hz", 30.0, "Pictures a second", limits=(0.1, 120.0)
        )
        self._frame = declare(
            node, f"{name}.frame_id", f"{name}_optical_frame", "frame_id of the pictures"
        )
        self.renderer = SceneRenderer(sim.model)
        self._node = node
        self._thread = thread
        self._publisher = node.create_publisher(Image, f"{name}/image_raw", SENSOR_QOS)
        self._pending: Future[tuple[int, int]] | None = None
        self._published = Rate()
        self._delay_ms = Percentiles()
        self._skipped = 0

    def warm_up(self, qpos: Array) -> None:
        """Make the GL context, which takes a second, and render once.

        Raises:
            OSError: If this machine cannot render.

        """
        self._thread.submit(self._render, qpos).result()

    def expose(self, qpos: Array, stamp_ns: int) -> None:
        """Take a picture of the scene at `qpos`, unless the last one is still being rendered."""
        if self._pending is not None:
            if not self._pending.done():
                self._skipped += 1
                return
            stamp_before_ns, published_ns = self._pending.result()
            self._published.add(published_ns)
            self._delay_ms.add((published_ns - stamp_before_ns) / 1e6)
        self._pending = self._thread.submit(self._render_and_publish, qpos, stamp_ns)

    def values(self, time_ns: int) -> dict[str, object]:
        """Return the camera's figures."""
        return {
            f"{self.name} rate Hz": f"{self._published.rate_hz(time_ns):.1f}",
            f"{self.name} skipped": self._skipped,
            **self._delay_ms.report(f"{self.name} exposure to publish ms"),
        }

    def _render(self, qpos: Array) -> ImageArray:
        return self.renderer.render(qpos, self.name, self.height, self.width)

    def _render_and_publish(self, qpos: Array, stamp_ns: int) -> tuple[int, int]:
        image = self._render(qpos)
        message = Image()
        message.header.stamp = stamp_from_ns(stamp_ns)
        message.header.frame_id = self._frame
        message.height, message.width = self.height, self.width
        message.encoding = "rgb8"
        message.step = 3 * self.width
        message.data = array("B", image.tobytes())
        self._publisher.publish(message)
        return stamp_ns, now_ns(self._node)


def _pose(values: Sequence[float]) -> Pose:
    """Return x, y, z and quaternion x, y, z, w as a message."""
    x, y, z, qx, qy, qz, qw = values
    return Pose(position=Point(x=x, y=y, z=z), orientation=Quaternion(x=qx, y=qy, z=qz, w=qw))


def main(args: Sequence[str] | None = None) -> int:
    """Run the node until SIGINT or SIGTERM."""
    return run(SimNode, "sim_node", args)


if __name__ == "__main__":
    sys.exit(main())
