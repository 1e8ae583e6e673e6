"""The policy's loop without its clock: when to observe, when to infer, what to command."""

from dataclasses import dataclass

import numpy as np

from vla_ros.kinematics import SerialChain, rotation_from_rotvec
from vla_ros.observation.aligner import Aligner, AlignerConfig, Hold, Moment
from vla_ros.observation.observation import Observation, Snapshot
from vla_ros.observation.state import StateError, check_state_names
from vla_ros.policy.bundle import Bundle, BundleError
from vla_ros.policy.motion import MotionError, check_joint_names, from_motion
from vla_ros.policy.normalise import normalise
from vla_ros.policy.policy import Chunk
from vla_ros.policy.prefix import Prefix
from vla_ros.policy.scheduler import MODES, SEAM_RATIO, ChunkScheduler, Remainder
from vla_ros.robot import RobotConfig
from vla_ros.types import Array, Frame, JointSample

STOPPED = Hold("stopped")
NO_INSTRUCTION = Hold("no instruction")
NO_ROBOT = Hold("waiting for robot_description")
NO_MODEL = Hold("waiting for model")
OUT_OF_STEP = Hold("cameras out of step", "no frames of all cameras and joints of one moment")
EXHAUSTED = Hold("chunk exhausted", "the next chunk is late")
HANGING = "model hangs"

INFERENCE_TIMEOUT_S = 5.0
"""An inference that takes longer is given up, unless told otherwise."""


@dataclass(frozen=True, slots=True)
class Plan:
    """Where a chunk that has just started will bring the TCP; worked out when asked for.

    Attributes:
        stamp_ns: Stamp of the observation that the chunk was predicted from.
        period_ns: Time of one action.
        twists: Of the actions still to be executed, shape (m, 6).
        joints: Joint positions from which they start, shape (n,).
        chain: The robot's kinematics.

    """

    stamp_ns: int
    period_ns: int
    twists: Array
    joints: Array
    chain: SerialChain

    @property
    def positions(self) -> Array:
        """Of the TCP in the base frame after each of the actions, m, shape (m, 3)."""
        start, _ = self.chain.pose(self.joints)
        moves = self.twists[:, :3] * (self.period_ns / 1e9)
        return np.cumsum(np.vstack([start, moves]), axis=0)[1:]

    @property
    def rotations(self) -> Array:
        """Of the TCP in the base frame, likewise, shape (m, 3, 3)."""
        _, rotation = self.chain.pose(self.joints)
        rotations = []
        for turn in self.twists[:, 3:] * (self.period_ns / 1e9):
            rotation = rotation_from_rotvec(turn) @ rotation
            rotations.append(rotation)
        return np.array(rotations)


@dataclass(frozen=True, slots=True)
class PolicyStep:
    """What to command now.

    Attributes:
        twist: Velocity of the TCP in the base frame: m/s and rad/s, shape (6,); 0 in a hold.
        gripper: Opening in m, or None to leave it as it is, as in a hold.
        hold: Why the arm holds still, or None if it moves.
        plan: Set if this is the first action of a chunk.

    """

    twist: Array
    gripper: float | None
    hold: Hold | None
    plan: Plan | None


class PolicyController:
    """Turns frames, joint samples, an instruction and chunks into commands, without a clock.

    Its owner brings the data, runs the model on what `due_observation` returns and brings the chunk
    back with `accept` (or `fail`), while `tick` gives the command of every period. The node does
    that with messages, a timer and a thread; evaluation with simulated time.

    Whatever breaks the motion off (an empty or a new instruction, data that are stale, a stop)
    drops the chunk at once, and the result of an inference that is still running is not taken.
    """

    def __init__(
        self,
        bundle: Bundle,
        robot: RobotConfig,
        chain: SerialChain | None,
        *,
        replan_actions: int = 4,
        chunk_mode: str = MODES[0],
        inference_timeout_s: float = INFERENCE_TIMEOUT_S,
        sensing: AlignerConfig | None = None,
        running: bool = True,
    ) -> None:
        """Start holding still.

        Args:
            bundle: What the model needs and gives.
            robot: The robot.
            chain: Its kinematics, or None to hold until `set_chain`.
            replan_actions: Actions of a chunk after which the next is predicted, or earlier where
                the model would be late else; 0: as late as will do.
            chunk_mode: How a chunk takes over from the one before it, see `ChunkScheduler`.
            inference_timeout_s: An inference that takes longer ends the motion, and its result is
                dropped when it comes.
            sensing: What counts as fresh, simultaneous and frozen.
            running: Whether to act at once, or only after `start`.

        Raises:
            BundleError: If the bundle does not fit the robot, or `replan_actions` not the bundle.
            ValueError: If there is no such `chunk_mode`.

        """
        action = bundle.manifest.action
        try:
            names = () if bundle.manifest.state is None else bundle.manifest.state.names
            check_state_names(names, robot.joints, gripper=bool(robot.gripper_joints))
            check_joint_names(action, robot.joints)
        except (StateError, MotionError) as err:
            msg = f"the bundle {bundle.path} does not fit the robot {robot.name!r}: {err}"
            raise BundleError(msg) from err
        if not 0 <= replan_actions <= action.chunk:
            msg = (
                f"replan_actions is {replan_actions}, but must be 1 to {action.chunk}, the "
                f"actions in a chunk of the bundle {bundle.path}, or 0 for as late as will do"
            )
            raise BundleError(msg)
        if chunk_mode not in MODES:
            msg = f"chunk_mode is {chunk_mode!r}, but must be one of {', '.join(MODES)}"
            raise ValueError(msg)
        self._robot = robot
        self._chain = chain
        self._running = running
        self._period_ns = bundle.period_ns
        self._action = action
        self._scheduler = ChunkScheduler(replan_actions, mode=chunk_mode, seam_ratio=SEAM_RATIO)
        self._rests = chunk_mode == "synchronous"
        self._timeout_ns = round(1e9 * inference_timeout_s)
        self._instruction = ""
        self._epoch = 0
        self._asked_ns: int | None = None  # when the inference that is running began
        self._given_up = False  # it takes too long: what comes of it is dropped
        self._prefix: Prefix | None = None
        self._arrived: Chunk | None = None
        self._observed_ns = -1  # the newest observation of this epoch
        self._shown_ns = -1  # the newest moment
        self._completes = False  # whether the last frame made it the newest
        self._failure: Hold | None = None
        self._moved = False
        history = bundle.manifest.history
        self.aligner = Aligner(
            bundle.camera_names,
            sensing,
            earlier=history.steps - 1,
            period_ns=round(1e9 * (history.period_s or 0.0)),
        )

    @property
    def instruction(self) -> str:
        """What it is told to do; empty to hold still."""
        return self._instruction

    @property
    def pace(self) -> float:
        """How fast actions are executed: 1, or less where the model takes too long for that."""
        return self._scheduler.pace

    @property
    def prefix(self) -> Prefix | None:
        """What the model is to go on with from the observation that was due last, if anything."""
        return self._prefix

    @property
    def robot(self) -> RobotConfig:
        """The robot."""
        return self._robot

    def add_frame(self, frame: Frame) -> bool:
        """Take a camera's frame; return False if it is late, a duplicate or out of order."""
        newer = self.aligner.add_frame(frame)
        shown_ns = self.aligner.moment_ns()
        self._completes = shown_ns != self._shown_ns
        self._shown_ns = shown_ns
        return newer

    def add_joints(self, sample: JointSample) -> bool:
        """Take a joint sample; return False if it is late."""
        return self.aligner.add_joints(sample)

    def set_chain(self, chain: SerialChain) -> None:
        """Take the robot's kinematics."""
        self._chain = chain
        self._break_off()

    def set_instruction(self, instruction: str) -> None:
        """Do something else from now on, or nothing if the instruction is empty or blank."""
        instruction = instruction.strip()
        if instruction != self._instruction:
            self._instruction = instruction
            self._failure = None
            self._break_off()

    def start(self) -> None:
        """Act, after `stop` or if it was built not to."""
        self._running = True

    def stop(self) -> None:
        """Hold still until `start`."""
        self._running = False
        self._break_off()

    def due_observation(self, now_ns: int) -> Observation | None:
        """Return what the model is to be run on now, if anything.

        That is when `replan_actions` of the chunk have been executed, or there is none, and all
        cameras show a moment that no observation was made of before. Call it when a frame has come:
        while the arm moves, only the frame that completes a moment makes it due, for then the
        observation is as young as can be.
        """
        waiting = self._asked_ns is not None or self._arrived is not None
        if waiting or not self._scheduler.wants_chunk:
            return None
        if not (self._completes or self._scheduler.empty):
            return None
        if self._chain is None or self._obstacle(now_ns) is not None:
            return None
        moment = self.aligner.moment()
        since_ns = max(self._observed_ns + 1, self._scheduler.rests_at_ns)
        if moment is None or moment.stamp_ns < since_ns:
            return None
        self._observed_ns = moment.stamp_ns
        self._asked_ns = now_ns
        self._given_up = False
        observation = self._observation(moment, self._chain)
        left = self._scheduler.ask(moment.stamp_ns, now_ns)
        self._prefix = None if left is None else self._to_go_on_with(left, observation)
        return observation

    def accept(self, chunk: Chunk, now_ns: int) -> bool:
        """Take the model's result; `tick` starts it.

        Returns:
            Whether the arm holds still for lack of it, so that it should start at once. False also
            if it is for what has been broken off meanwhile or was given up, and is dropped.

        """
        self._asked_ns = None
        if chunk.epoch != self._epoch or self._given_up:
            return False
        self._scheduler.answer(now_ns)
        self._failure = None
        self._arrived = chunk
        return self._scheduler.empty and self._obstacle(now_ns) is None

    def fail(self, observation: Observation, message: str) -> None:
        """Take the news that the model gave nothing usable for an observation: hold until it does.

        Args:
            observation: What it was run on.
            message: What went wrong.

        """
        self._asked_ns = None
        if observation.epoch == self._epoch:
            self._failure = Hold("model failed", message)
            self._scheduler.clear()

    def tick(self, now_ns: int) -> PolicyStep:
        """Return the command of the period that begins now."""
        hold = self._obstacle(now_ns)
        if hold is not None:
            self._break_off()
            return PolicyStep(np.zeros(6), None, hold, None)
        if self._asked_ns is not None and now_ns - self._asked_ns > self._timeout_ns:
            self._give_up()
        plan = None
        if self._arrived is not None:
            if self._scheduler.start(self._arrived):
                plan = self._plan(self._arrived)
            self._arrived = None
        action = self._scheduler.take(now_ns)
        if action is None:
            return PolicyStep(np.zeros(6), None, self._wait(), None)
        self._moved = True
        return PolicyStep(action.twist, action.gripper, None, plan)

    def _obstacle(self, now_ns: int) -> Hold | None:
        """Return what forbids motion whatever the model says."""
        if not self._running:
            return STOPPED
        if not self._instruction:
            return NO_INSTRUCTION
        if self._chain is None:
            return NO_ROBOT
        return self.aligner.fault(now_ns)

    def _wait(self) -> Hold:
        """Return why there is no action, though nothing forbids one."""
        if self._failure is not None:
            return self._failure
        if self._moved and not self._rests:
            return EXHAUSTED
        if self._asked_ns is None and self.aligner.moment_ns() < 0:
            return OUT_OF_STEP
        return NO_MODEL

    def _give_up(self) -> None:
        """Stop waiting for an inference; until it is back there cannot be another one."""
        self._given_up = True
        reason = f"an inference takes longer than inference_timeout, {self._timeout_ns / 1e9:g} s"
        self._failure = Hold(HANGING, reason)
        self._scheduler.clear()

    def _to_go_on_with(self, left: Remainder, observation: Observation) -> Prefix:
        """Return what is left of the chunk as the model would say it from an observation."""
        actions = from_motion(left.motion, self._action, observation)
        return Prefix(normalise(actions, self._action.normalisation), left.frozen, left.weights)

    def _break_off(self) -> None:
        """Drop the chunk, and the result of an inference that is running."""
        self._epoch += 1
        self._scheduler.clear()
        self._arrived = None
        self._moved = False
        self._observed_ns = -1

    def _observation(self, moment: Moment, chain: SerialChain) -> Observation:
        position, rotation = chain.pose(moment.joints.position)
        history = [
            Snapshot(m.stamp_ns, m.images, m.joints, *chain.pose(m.joints.position))
            for m in self.aligner.history(moment)
        ]
        return Observation(
            stamp_ns=moment.stamp_ns,
            images=moment.images,
            joints=moment.joints,
            joint_names=self._robot.joints,
            tcp_position=position,
            tcp_rotation=rotation,
            instruction=self._instruction,
            epoch=self._epoch,
            history=tuple(history),
        )

    def _plan(self, chunk: Chunk) -> Plan | None:
        """Return where the scheduler's chunk leads from where the TCP is now."""
        joints = self.aligner.joints
        if joints is None or self._chain is None:
            return None
        return Plan(
            chunk.stamp_ns,
            self._period_ns,
            self._scheduler.remaining(),
            joints.position,
            self._chain,
        )
