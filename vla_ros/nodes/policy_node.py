"""policy_node: from observations and an instruction to commands, with the bundle's model."""

import queue
import sys
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path as FilePath

from diagnostic_msgs.msg import DiagnosticStatus
from geometry_msgs.msg import Point, PoseStamped, Quaternion, TwistStamped, Vector3
from nav_msgs.msg import Path
from rclpy.node import Node
from sensor_msgs.msg import Image, JointState
from std_msgs.msg import Float64, String
from std_srvs.srv import Trigger

from vla_ros.kinematics import KinematicsError, quaternion_from_rotation
from vla_ros.nodes._common import (
    CONTROL_QOS,
    LATCHED_QOS,
    SENSOR_QOS,
    ConfigurationError,
    Diagnostics,
    Health,
    Laps,
    Percentiles,
    Rate,
    choose,
    declare,
    now_ns,
    robot_config,
    run,
    stamp_from_ns,
    stamp_to_ns,
)
from vla_ros.observation.aligner import AlignerConfig, Hold
from vla_ros.observation.image import ImageError, decode_image
from vla_ros.observation.joints import JointError, JointReader
from vla_ros.observation.observation import Observation
from vla_ros.policy.backends import BackendOptions
from vla_ros.policy.bundle import Bundle
from vla_ros.policy.cadence import Cadence
from vla_ros.policy.controller import (
    INFERENCE_TIMEOUT_S,
    NO_INSTRUCTION,
    STOPPED,
    Plan,
    PolicyController,
)
from vla_ros.policy.pace import Pace
from vla_ros.policy.policy import Chunk, Policy, PolicyError
from vla_ros.policy.prefix import Prefix
from vla_ros.policy.scheduler import MODES
from vla_ros.policy.tokens import InstructionError, never_seen
from vla_ros.types import Array, Frame

_EARLY_NS = 300_000
"""Time before a period at which its timer wakes: later, by as much, as the machine pleases."""

_SAME_TIME_NS = 1000
"""Commands less apart than that were made at one time of a clock that stands still."""


_Question = tuple[Observation, Prefix | None]
"""What the model is run on, and what it is to go on with."""


@dataclass(frozen=True, slots=True)
class _Result:
    """What the model made of an observation: a chunk, or why there is none."""

    observation: Observation
    outcome: Chunk | str
    inference_ms: float
    stages_ms: dict[str, float]


class _Worker:
    """Runs the model in a thread, so that commands keep their rate meanwhile."""

    def __init__(self, policy: Policy, notify: Callable[[], None]) -> None:
        """Start the thread; `notify` is called in it whenever there is a result to `collect`."""
        self._policy = policy
        self._notify = notify
        self._observations: queue.SimpleQueue[_Question | None] = queue.SimpleQueue()
        self._results: queue.SimpleQueue[_Result] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._run, name="inference", daemon=True)
        self._thread.start()

    def submit(self, observation: Observation, prefix: Prefix | None) -> None:
        """Have the model run on an observation, to go on with `prefix`."""
        self._observations.put((observation, prefix))

    def collect(self) -> list[_Result]:
        """Return the results that have come since the last call."""
        results = []
        while not self._results.empty():
            results.append(self._results.get())
        return results

    def close(self) -> None:
        """End the thread, after the inference that is running."""
        self._observations.put(None)
        self._thread.join(timeout=5.0)

    def _run(self) -> None:
        while (question := self._observations.get()) is not None:
            self._results.put(_infer(self._policy, *question))
            self._notify()


class _Inline:
    """Runs the model at once, and has its result take a fixed time of the node's clock.

    For simulated time, which stands still meanwhile: the node does the same on every machine.
    """

    def __init__(
        self, policy: Policy, notify: Callable[[], None], node: Node, latency_s: float
    ) -> None:
        """`notify` is called whenever there is a result to `collect`."""
        self._policy = policy
        self._notify = notify
        self._results: list[_Result] = []
        self._timer = node.create_timer(latency_s, self._arrive) if latency_s > 0.0 else None
        if self._timer is not None:
            self._timer.cancel()

    def submit(self, observation: Observation, prefix: Prefix | None) -> None:
        """Run the model on an observation; there is one at a time."""
        self._results.append(_infer(self._policy, observation, prefix))
        if self._timer is None:
            self._notify()
        else:
            self._timer.reset()

    def collect(self) -> list[_Result]:
        """Return the results that have come since the last call."""
        results, self._results = self._results, []
        return results

    def close(self) -> None:
        """Do nothing: there is no thread."""

    def _arrive(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._notify()


def _infer(policy: Policy, observation: Observation, prefix: Prefix | None) -> _Result:
    begin = time.perf_counter()
    outcome: Chunk | str
    stages: dict[str, float] = {}
    try:
        outcome = policy.infer(observation, prefix, lap=Laps(stages.__setitem__))
    except PolicyError as err:
        outcome = str(err)
    except Exception as err:  # noqa: BLE001 - a thread that died would tell nobody
        outcome = f"{type(err).__name__}: {err}"
    return _Result(observation, outcome, (time.perf_counter() - begin) * 1e3, stages)


class PolicyNode(Node):
    """Publishes `command` and `gripper_command` at the bundle's rate, and zero while it holds."""

    def __init__(self) -> None:
        """Declare the parameters, load the model and subscribe.

        Raises:
            ValueError: If the bundle or the robot's parameters cannot be used.

        """
        super().__init__("policy_node")
        bundle = Bundle.load(declare(self, "bundle", "", "Folder of the policy bundle"))
        robot = robot_config(self)
        timeout_s = declare(
            self,
            "inference_timeout",
            INFERENCE_TIMEOUT_S,
            "An inference that takes longer, here or on a server, is given up, s",
            limits=(0.01, 600.0),
        )
        latency_s = declare(
            self,
            "simulated_latency",
            -1.0,
            "Time that a chunk takes, s, of a clock that stands still while the model runs, as in "
            "a replay in lockstep; -1: the model runs beside, and takes what it takes",
            limits=(-1.0, 10.0),
        )
        autostart = declare(self, "autostart", True, "Act at once, not only after ~/start")
        self._controller = PolicyController(
            bundle,
            robot,
            None,
            replan_actions=declare(
                self,
                "replan_actions",
                4,
                "Actions executed before replanning at the latest; 0: as late as will do",
                limits=(0, 1000),
            ),
            chunk_mode=choose(self, "chunk_mode", MODES, "How a chunk takes over"),
            inference_timeout_s=timeout_s,
            sensing=self._sensing(),
            running=autostart,
        )
        self._policy = Policy(bundle, self._backend_options(timeout_s))

        self._robot = robot
        self._sizes = {c.name: (*c.size, 3) for c in bundle.manifest.cameras}
        self._reader = JointReader(robot)
        self._description = ""
        self._cause = ""
        self._hold: Hold | None = None
        self._last_tick_ns = 0
        self._rejected: dict[str, str] = {}
        self._rates = {name: Rate() for name in ("command", "chunk", "joint_states", *self._sizes)}
        self._cadence = Cadence(bundle.manifest.action.rate_hz)
        self._inference_ms = Percentiles()
        self._latency_ms = Percentiles()

        self._command = self.create_publisher(TwistStamped, "command", CONTROL_QOS)
        self._gripper = self.create_publisher(Float64, "gripper_command", CONTROL_QOS)
        self._chunk = self.create_publisher(Path, "policy/chunk", CONTROL_QOS)
        self._diagnostics = Diagnostics(self, self._health)

        self._worker: _Worker | _Inline
        if latency_s < 0.0:
            self._arrival = self.create_guard_condition(self._on_results)
            self._worker = _Worker(self._policy, self._arrival.trigger)
        else:
            self._worker = _Inline(self._policy, self._on_results, self, latency_s)
        for name in self._sizes:
            receive = partial(self._on_image, camera=name)
            self.create_subscription(Image, f"observation/{name}", receive, SENSOR_QOS)
        self.create_subscription(JointState, "joint_states", self._on_joints, SENSOR_QOS)
        self.create_subscription(String, "instruction", self._on_instruction, LATCHED_QOS)
        self.create_subscription(
            String, "robot_description", self._on_robot_description, LATCHED_QOS
        )
        self.create_service(Trigger, "~/start", self._on_start)
        self.create_service(Trigger, "~/stop", self._on_stop)
        self._period_ns = bundle.period_ns
        even = declare(
            self,
            "even_periods",
            False,
            "Never begin a period with its chunk, up to a twelfth early or late, but all evenly",
        )
        # In lockstep time stands still meanwhile, and a replay of the bag ticks as the timer does.
        self._pace = Pace(self._period_ns, even=even) if latency_s < 0.0 else None
        self._due_ns = 0
        self._timer = self.create_timer(self._period_ns / 1e9, self._on_timer)
        self.get_logger().info(
            f"bundle {bundle.manifest.name!r} ({bundle.path}): cameras "
            f"{', '.join(bundle.camera_names)}, chunks of {bundle.manifest.action.chunk} at "
            f"{bundle.manifest.action.rate_hz:g} Hz; robot {robot.name!r}"
        )

    def close(self) -> None:
        """End the inference thread."""
        self._worker.close()

    def _backend_options(self, timeout_s: float) -> BackendOptions:
        cache_dir = declare(
            self, "engine_cache", "", "Folder where TensorRT keeps its engines; empty: nowhere"
        )
        precision = declare(
            self, "precision", "", "fp16: TensorRT computes in half precision; empty: the graph's"
        )
        if precision not in {"", "fp16"}:
            msg = f"the parameter 'precision' is {precision!r}: leave it empty, or set fp16"
            raise ConfigurationError(msg)
        return BackendOptions(
            provider=declare(
                self, "provider", "cpu", "What runs graphs here: cpu, cuda or tensorrt"
            ),
            threads=declare(self, "threads", 1, "Threads of an inference", limits=(1, 64)),
            precision="fp16" if precision else None,
            server=declare(
                self, "server", "", "Of models on a server (openpi, Triton): host:port, or a URL"
            ),
            timeout_s=timeout_s,
            cache_dir=FilePath(cache_dir).expanduser() if cache_dir else None,
            cuda_graph=declare(
                self, "cuda_graph", False, "Replay an inference on CUDA as one launch"
            ),
            trust_code=declare(
                self, "trust_code", False, "Run a torch file that is machine code (AOTInductor)"
            ),
        )

    def _sensing(self) -> AlignerConfig:
        default = AlignerConfig()

        def seconds(name: str, default_ns: int, what: str) -> int:
            value = declare(self, name, default_ns / 1e9, what, limits=(0.001, 10.0))
            return round(1e9 * float(value))

        return AlignerConfig(
            max_frame_age_ns=seconds(
                "max_frame_age", default.max_frame_age_ns, "Greatest age of a frame, s"
            ),
            max_joint_age_ns=seconds(
                "max_joint_age", default.max_joint_age_ns, "Greatest age of the joint states, s"
            ),
            max_skew_ns=seconds(
                "max_skew", default.max_skew_ns, "Greatest time between the cameras' frames, s"
            ),
            frozen_motion=declare(
                self,
                "frozen_motion",
                default.frozen_motion,
                "Motion of a joint during which a camera's pixels must change, rad",
                limits=(0.001, 1.0),
            ),
        )

    def _on_image(self, message: Image, camera: str) -> None:
        try:
            image = decode_image(message)
        except ImageError as err:
            self._reject(f"observation/{camera}", str(err))
            return
        if image.shape != self._sizes[camera]:
            reason = f"the image is {image.shape[:2]}, but the bundle's {self._sizes[camera][:2]}"
            self._reject(f"observation/{camera}", f"{reason} (height, width): run camera_node")
            return
        frame = Frame(camera, stamp_to_ns(message.header.stamp), image)
        if self._controller.add_frame(frame):
            self._rates[camera].add(now_ns(self))
            self._infer_if_due()

    def _on_joints(self, message: JointState) -> None:
        try:
            sample = self._reader.read(
                stamp_to_ns(message.header.stamp),
                message.name,
                message.position,
                message.velocity,
                message.effort,
            )
        except JointError as err:
            self._reject("joint_states", str(err))
            return
        if sample is not None and self._controller.add_joints(sample):
            self._rates["joint_states"].add(now_ns(self))

    def _on_instruction(self, message: String) -> None:
        instruction = message.data.strip()
        if instruction == self._controller.instruction:
            return
        self._controller.set_instruction(instruction)
        if instruction:
            self.get_logger().info(f"instruction: {instruction!r}")
            self._warn_of_words(instruction)
        else:
            self.get_logger().info("instruction is empty: hold still")
        self._tick_now()
        self._infer_if_due()

    def _warn_of_words(self, instruction: str) -> None:
        try:
            unknown = self._policy.unknown_words(instruction)
        except InstructionError as err:
            self.get_logger().error(f"instruction cannot be followed: {err}")
            return
        if unknown:
            self.get_logger().warning(never_seen(unknown))

    def _on_robot_description(self, message: String) -> None:
        if message.data == self._description:
            return
        try:
            chain = self._robot.chain(message.data)
        except KinematicsError as err:
            raise ConfigurationError(str(err)) from err
        self._description = message.data
        self._policy.set_chain(chain)
        self._controller.set_chain(chain)

    def _on_start(self, _: Trigger.Request, response: Trigger.Response) -> Trigger.Response:
        self._controller.start()
        response.success, response.message = True, "started"
        self.get_logger().info("started")
        self._infer_if_due()
        return response

    def _on_stop(self, _: Trigger.Request, response: Trigger.Response) -> Trigger.Response:
        self._controller.stop()
        response.success, response.message = True, "stopped: holding still until ~/start"
        self.get_logger().info(response.message)
        self._tick_now()
        return response

    def _infer_if_due(self) -> None:
        observation = self._controller.due_observation(now_ns(self))
        if observation is not None:
            if self._pace is not None:
                self._pace.asked(now_ns(self))
            self._worker.submit(observation, self._controller.prefix)

    def _on_results(self) -> None:
        for result in self._worker.collect():
            self._inference_ms.add(result.inference_ms)
            for stage, ms in result.stages_ms.items():
                self._cadence.add(stage, ms)
            begins = self._pace is not None and self._pace.arrived(now_ns(self))
            if isinstance(result.outcome, str):
                self._controller.fail(result.observation, result.outcome)
            elif self._controller.accept(result.outcome, now_ns(self)):
                self._tick_now()
            elif begins:
                self._tick_in_turn()
            elif self._pace is None and now_ns(self) - self._last_tick_ns < self._period_ns // 4:
                # Just too late for the last tick, it would wait for a whole period, and so would
                # every result of cameras at the same rate. Ticks move to just after results.
                self._timer.reset()

    def _tick_now(self) -> None:
        """Tick without waiting for the timer, which goes on a period later."""
        if self._pace is None:
            self._timer.reset()
        else:
            self._wait_until(self._pace.begin(now_ns(self)))
        self._tick()

    def _on_timer(self) -> None:
        early_ns = self._due_ns - now_ns(self)
        if 0 < early_ns <= _EARLY_NS:
            # For so short a time no sleep is exact.
            end_ns = time.monotonic_ns() + early_ns
            while time.monotonic_ns() < end_ns:
                pass
        until_ns = None if self._pace is None else self._pace.hold(now_ns(self))
        if until_ns is None:
            self._tick_in_turn()
        else:
            self._wait_until(until_ns)

    def _tick_in_turn(self) -> None:
        time_ns = now_ns(self)
        self._tick()
        if self._pace is not None:
            self._wait_until(self._pace.next(time_ns))

    def _wait_until(self, due_ns: int) -> None:
        """Have the timer call next at a time of the node's clock."""
        self._due_ns = due_ns
        self._timer.timer_period_ns = max(due_ns - now_ns(self) - _EARLY_NS, 1)
        self._timer.reset()

    def _tick(self) -> None:
        time_ns = now_ns(self)
        if 0 <= self._last_tick_ns - time_ns < _SAME_TIME_NS:
            # Simulated time may stand still, and the filter wants newer stamps.
            time_ns = self._last_tick_ns + 1
        lap = Laps(self._cadence.add)
        step = self._controller.tick(time_ns)
        lap("schedule")
        self._last_tick_ns = time_ns
        self._rates["command"].add(time_ns)
        command = TwistStamped()
        command.header.stamp = stamp_from_ns(time_ns)
        command.header.frame_id = self._robot.base_frame
        command.twist.linear = _vector(step.twist[:3])
        command.twist.angular = _vector(step.twist[3:])
        self._command.publish(command)
        if step.gripper is not None:
            self._gripper.publish(Float64(data=step.gripper))
        lap("publish")
        if step.hold in _ASKED_FOR:
            self._cadence.pause()
        else:
            self._cadence.command(time_ns)
        if step.plan is not None:
            self._rates["chunk"].add(time_ns)
            self._latency_ms.add((time_ns - step.plan.stamp_ns) / 1e6)
            self._chunk.publish(self._path(step.plan, time_ns))
        self._note(step.hold)

    def _path(self, plan: Plan, time_ns: int) -> Path:
        """Return the plan as a message; its first pose is due with the command of `time_ns`."""
        path = Path()
        path.header.stamp = stamp_from_ns(plan.stamp_ns)
        path.header.frame_id = self._robot.base_frame
        period_ns = plan.period_ns / self._controller.pace
        for index, (position, rotation) in enumerate(
            zip(plan.positions, plan.rotations, strict=True)
        ):
            pose = PoseStamped()
            pose.header.stamp = stamp_from_ns(time_ns + round(index * period_ns))
            pose.header.frame_id = self._robot.base_frame
            x, y, z = (float(v) for v in position)
            pose.pose.position = Point(x=x, y=y, z=z)
            x, y, z, w = (float(v) for v in quaternion_from_rotation(rotation))
            pose.pose.orientation = Quaternion(x=x, y=y, z=z, w=w)
            path.poses.append(pose)
        return path

    def _note(self, hold: Hold | None) -> None:
        """Log and report a change between moving and the causes of holding still."""
        self._hold = hold
        cause = "" if hold is None else hold.cause
        if cause == self._cause:
            return
        self._cause = cause
        if hold is None:
            self.get_logger().info(f"acting on {self._controller.instruction!r}")
        elif hold in _ASKED_FOR:
            self.get_logger().info(f"holding still: {hold}")
        else:
            self.get_logger().warning(f"holding still: {hold}")
        self._diagnostics.publish()

    def _reject(self, topic: str, reason: str) -> None:
        self._rejected[topic] = reason
        self.get_logger().error(f"{topic}: message dropped: {reason}", throttle_duration_sec=5.0)

    def _health(self, time_ns: int) -> Health:
        hold = self._hold
        level = DiagnosticStatus.OK
        if hold is not None and hold not in _ASKED_FOR:
            failed = hold.cause.startswith(("stale", "frozen", "model"))
            level = DiagnosticStatus.ERROR if failed else DiagnosticStatus.WARN
        values: dict[str, object] = {
            "state": "acting" if hold is None else "holding",
            "hold": hold or "",
            "instruction": self._controller.instruction,
            "pace": f"{self._controller.pace:.2f}",
        }
        for name, age in self._controller.aligner.ages_ms(time_ns).items():
            values[f"{name} age ms"] = f"{age:.1f}"
        for name, rate in self._rates.items():
            values[f"{name} rate Hz"] = f"{rate.rate_hz(time_ns):.1f}"
        values |= self._inference_ms.report("inference ms")
        values |= self._latency_ms.report("image to command ms")
        values |= self._cadence.report().values()
        values |= self._controller.aligner.counts()
        values |= {f"{topic} last error": reason for topic, reason in self._rejected.items()}
        message = "acting" if hold is None else f"holding still: {hold}"
        return Health(level, message, values)


_ASKED_FOR = (STOPPED, NO_INSTRUCTION)
"""Causes to hold still that are no fault."""


def _vector(values: Array) -> Vector3:
    x, y, z = (float(v) for v in values)
    return Vector3(x=x, y=y, z=z)


def main(args: Sequence[str] | None = None) -> int:
    """Run the node; return the exit code."""
    return run(PolicyNode, "policy_node", args)


if __name__ == "__main__":
    sys.exit(main())
