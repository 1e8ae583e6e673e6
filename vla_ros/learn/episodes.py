"""One demonstration: the scripted expert picks up a cube, disturbed now and then, and is recorded.

Noise comes in bursts (DART: Laskey et al. 2017): for a few ticks the robot is commanded something
else than what the expert wants, and the expert recovers. What is recorded is what the expert wants,
so the policy learns to recover but never to err. Some episodes start anywhere, some change the
target half way. The scene's light, colours and cameras vary.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vla_ros.learn.interface import CAMERAS, CHUNK, RATE_HZ, STATE_NAMES
from vla_ros.learn.rig import Rig
from vla_ros.observation.image import fit_image
from vla_ros.observation.state import state_vector
from vla_ros.sim.expert import Expert
from vla_ros.sim.panda import CUBES, MAX_OPENING
from vla_ros.sim.render import project
from vla_ros.sim.task import PickTask, target_for
from vla_ros.types import Array, Command

IMAGE_EVERY = 3
"""Actions between two recorded observations."""

MAX_TICKS = 150
RANDOM_START = 0.35
CHANGED_TARGET = 0.12
VARIED_SCENE = 0.6
OPEN_START = 0.85

_TICK_NS = 1_000_000_000 // RATE_HZ
_OPEN = 0.07
_START_TICKS, _START_DOWN, _START_STRAIGHT = 30, 18, 24
_NEAREST = 0.01


Arrays = dict[str, NDArray[Any]]


@dataclass(frozen=True, slots=True)
class _Burst:
    start: int
    end: int
    twist: Array
    keep: float
    gripper: float | None


def _bursts(rng: np.random.Generator) -> list[_Burst]:
    bursts = []
    for start in rng.integers(0, 65, rng.choice(4, p=[0.2, 0.35, 0.3, 0.15])):
        kind = rng.choice(["position", "yaw", "gripper", "all"], p=[0.55, 0.15, 0.12, 0.18])
        twist = np.zeros(6)
        if kind in ("position", "all"):
            direction = rng.normal(0.0, 1.0, 3) * [1.0, 1.0, 0.6]
            twist[:3] = direction / max(float(np.linalg.norm(direction)), 1e-9)
            twist[:3] *= rng.uniform(0.2, 1.0) * 0.3
        if kind in ("yaw", "all"):
            twist[5] = rng.uniform(-1.2, 1.2)
        gripper = float(rng.integers(2)) * MAX_OPENING if kind == "gripper" else None
        end = int(start + rng.integers(4, 11))
        bursts.append(_Burst(int(start), end, twist, 0.3 if kind != "gripper" else 1.0, gripper))
    return bursts


class SceneVariation:
    """Varies what a simulator's cameras see, and restores it."""

    def __init__(self, rig: Rig) -> None:
        """Remember the scene as it is."""
        model = rig.sim.model
        self._model = model
        self._original = {
            name: getattr(model, name).copy()
            for name in ("light_diffuse", "geom_rgba", "cam_pos", "cam_quat")
        }
        self._ambient = model.vis.headlight.ambient.copy()

    def restore(self) -> None:
        """Undo `vary`."""
        for name, value in self._original.items():
            getattr(self._model, name)[:] = value
        self._model.vis.headlight.ambient[:] = self._ambient

    def vary(self, rng: np.random.Generator) -> None:
        """Change light +-30 %, colours +-10 %, the table's +-20 %, cameras 4 mm and 0.6 degrees."""
        self.restore()
        model = self._model
        model.light_diffuse[:] *= rng.uniform(0.7, 1.3)
        model.vis.headlight.ambient[:] *= rng.uniform(0.7, 1.3)
        spread = np.full((model.ngeom, 1), 0.1)
        spread[model.geom("table").id] = 0.2
        colours = 1.0 + spread * rng.uniform(-1.0, 1.0, (model.ngeom, 3))
        model.geom_rgba[:, :3] = np.clip(model.geom_rgba[:, :3] * colours, 0.0, 1.0)
        model.cam_pos[:] += rng.uniform(-0.004, 0.004, model.cam_pos.shape)
        # A small rotation is a small change of the quaternion's vector part, by half its angle.
        turns = rng.uniform(-1.0, 1.0, model.cam_quat.shape) * np.deg2rad(0.6) / 2.0
        model.cam_quat[:] += turns
        model.cam_quat[:] /= np.linalg.norm(model.cam_quat, axis=1, keepdims=True)


def _command(rig: Rig, twist: Array, gripper: float) -> None:
    rig.desired = Command(rig.now_ns, rig.robot.base_frame, twist, gripper)


def _go_anywhere(rig: Rig, rng: np.random.Generator) -> None:
    """Bring the hand to a random place and yaw, over the cubes, in one second."""
    goal = rng.uniform([0.34, -0.26, 0.03], [0.66, 0.26, 0.28])
    spin = rng.uniform(-1.0, 1.0)
    opening = MAX_OPENING if rng.random() < OPEN_START else 0.0
    for tick in range(_START_TICKS):
        position, _ = rig.sim.tcp_pose()
        above = goal.copy()
        if tick < _START_DOWN:
            above[2] = max(goal[2], 0.12)
        velocity = 8.0 * (above - position)
        velocity *= min(1.0, 0.28 / max(float(np.linalg.norm(velocity)), 1e-9))
        turn = spin if tick < _START_STRAIGHT else 0.0
        _command(rig, np.r_[velocity, 0.0, 0.0, turn], opening)
        rig.advance_to(rig.now_ns + _TICK_NS)


def _observe(rig: Rig) -> Arrays:
    """Return images and state, exactly as the policy is given them at run time."""
    joints = rig.joints()
    position, rotation = rig.chain.pose(joints.position)
    observation: Arrays = {
        name: fit_image(rig.sim.render(name), spec) for name, spec in CAMERAS.items()
    }
    observation["state"] = state_vector(
        STATE_NAMES, joints, position, rotation, joint_names=rig.robot.joints
    )
    return observation


def _hints(rig: Rig, colour: str) -> Arrays:
    """Return where the cube is: in the tool frame and in the images."""
    cube, cube_rotation = rig.sim.cube_pose(colour)
    position, rotation = rig.sim.tcp_pose()
    local = rotation.T @ cube_rotation
    axis = int(np.argmin(np.abs(local[2, :])))
    yaw = np.arctan2(local[1, axis], local[0, axis])
    hints: Arrays = {
        "target": np.r_[10.0 * rotation.T @ (cube - position), np.sin(4 * yaw), np.cos(4 * yaw)]
    }
    for name, spec in CAMERAS.items():
        place, depth = project(rig.sim.model, rig.sim.data.qpos, name, cube)
        top, left, bottom, right = spec.crop
        column = (place[0] - left) / (right - left) * spec.size[1]
        row = (place[1] - top) / (bottom - top) * spec.size[0]
        hints[f"{name}_point"] = np.array([column, row])
        inside = depth > _NEAREST and 0 <= column < spec.size[1] and 0 <= row < spec.size[0]
        hints[f"{name}_seen"] = np.array(float(inside))
    return hints


def _chunk(
    wanted: Array, disturbed: NDArray[np.bool_], tick: int, rotation: Array
) -> tuple[Array, Array]:
    """Return the actions (16, 7) from `tick` on, in the observation's tool frame, and their mask.

    After the end of the episode the arm rests. After the next disturbance has begun, actions answer
    to something that the observation cannot know, so they are masked.
    """
    ticks = np.arange(tick, tick + CHUNK)
    over = ticks >= len(wanted)
    rows = wanted[np.minimum(ticks, len(wanted) - 1)]
    actions = np.empty((CHUNK, 7))
    actions[:, :3] = rows[:, :3] @ rotation / RATE_HZ
    actions[:, 3:6] = rows[:, 3:6] @ rotation / RATE_HZ
    actions[:, 6] = rows[:, 6] / MAX_OPENING
    actions[over, :6] = 0.0
    mask = np.ones(CHUNK)
    later = np.flatnonzero(disturbed[tick : tick + CHUNK])
    if later.size:
        mask[later[0] + 1 :] = 0.0
    return actions, mask


@dataclass(frozen=True, slots=True)
class _Script:
    """What is drawn for an episode beforehand.

    Attributes:
        bursts: When the robot is commanded something else than what the expert wants.
        change_at: Action before which another cube is asked for, or None.
        lead_ns: Time from an observation to the action that answers it.
        first: The first action that is observed for.
        rest: Actions recorded after success.

    """

    bursts: list[_Burst]
    change_at: int | None
    lead_ns: int
    first: int
    rest: int


def _script(rng: np.random.Generator) -> _Script:
    return _Script(
        bursts=_bursts(rng),
        change_at=int(rng.integers(5, 40)) if rng.random() < CHANGED_TARGET else None,
        lead_ns=int(rng.integers(0, _TICK_NS)),
        first=int(rng.integers(IMAGE_EVERY)),
        rest=int(rng.choice([10, 40], p=[0.85, 0.15])),
    )


@dataclass(frozen=True, slots=True)
class _Sample:
    """An observation before action `tick`, with the tool's rotation and the colour asked for."""

    tick: int
    rotation: Array
    colour: str
    arrays: Arrays


class _Recording:
    """An episode in progress."""

    def __init__(self, rig: Rig, colour: str, script: _Script, rng: np.random.Generator) -> None:
        self.done: int | None = None
        """The action at which the cube counted as lifted."""
        self._rig, self._script, self._rng = rig, script, rng
        self._start_ns = rig.now_ns + _TICK_NS
        self._samples: list[_Sample] = []
        self._wanted: list[Array] = []
        self._disturbed: list[bool] = []
        self._ask_for(colour)
        self._task = PickTask(rig.sim, colour)

    @property
    def over(self) -> bool:
        """Whether there is nothing more to record."""
        tick = len(self._wanted) - 1
        lifted = self.done is not None and tick >= self.done + self._script.rest
        return lifted or len(self._wanted) == MAX_TICKS

    def _ask_for(self, colour: str) -> None:
        self._colour, self._expert = colour, Expert(self._rig.sim, colour)

    def act(self) -> None:
        """Observe, where it is due, and carry out the next action."""
        tick, rig, script = len(self._wanted), self._rig, self._script
        at_ns = self._start_ns + tick * 1_000_000_000 // RATE_HZ
        if tick == script.change_at:
            self._change_target()
        if tick % IMAGE_EVERY == script.first:
            rig.advance_to(at_ns - script.lead_ns)
            rotation = rig.sim.tcp_pose()[1]
            arrays = _observe(rig) | _hints(rig, self._colour)
            self._samples.append(_Sample(tick, rotation, self._colour, arrays))
        rig.advance_to(at_ns)
        twist, gripper = self._expert.command()
        self._wanted.append(np.r_[twist, gripper])
        self._disturbed.append(False)
        for burst in script.bursts:
            if burst.start <= tick < burst.end:
                self._disturbed[-1] = True
                twist = twist * burst.keep + burst.twist
                gripper = gripper if burst.gripper is None else burst.gripper
                # Not into the table: what breaks there cannot be learnt from.
                height = rig.sim.tcp_pose()[0][2]
                twist[2] = max(twist[2], (0.012 - height) * 8.0)
        _command(rig, twist, gripper)
        self._task.update()
        if self.done is None and self._task.success:
            self.done = tick

    def _change_target(self) -> None:
        """Ask for another cube, unless the hand holds one, which it would drop."""
        opening = self._rig.joints().gripper
        if self.done is not None or opening is None or opening <= _OPEN:
            return
        self._ask_for(CUBES[(CUBES.index(self._colour) + int(self._rng.integers(1, 3))) % 3])
        self._task.set_instruction(self._colour)
        # What was observed before answers to the other instruction.
        self._disturbed[-1] = True

    def arrays(self, seed: int) -> Arrays:
        """Return everything recorded, with `seed` as the episode's number."""
        rows: dict[str, list[NDArray[Any]]] = {}
        wanted, disturbed = np.array(self._wanted), np.array(self._disturbed)
        for sample in self._samples:
            actions, mask = _chunk(wanted, disturbed, sample.tick, sample.rotation)
            extra: Arrays = {
                "actions": actions,
                "mask": mask,
                "colour": np.array(CUBES.index(sample.colour)),
                "episode": np.array(seed),
            }
            for name, value in (sample.arrays | extra).items():
                kept = value.astype(np.float32) if value.dtype == np.float64 else value
                rows.setdefault(name, []).append(kept)
        return {name: np.stack(values) for name, values in rows.items()}


def record(rig: Rig, variation: SceneVariation, seed: int) -> Arrays | None:
    """Let the expert do the episode of `seed`; return it, or None if the cube was not lifted.

    Observations are taken up to one action period before the action that answers them, a time that
    is drawn once an episode: at run time the cameras' ticks and the policy's fall like that too.

    Returns:
        Arrays by name, the first axis over the n observations: `front` and `wrist` uint8
        (n, h, w, 3); `state` (n, 17); `actions` (n, 16, 7) m, rad and gripper fraction, in the tool
        frame of the observation; `mask` (n, 16) 1 where the action is to be learnt; `target` (n, 5)
        position of the cube in the tool frame (times 10), sin and cos of 4 x its yaw; `front_point`
        and `wrist_point` (n, 2) column and row of the cube in the images; `front_seen` and
        `wrist_seen` (n,); `colour` (n,) index into CUBES; `episode` (n,) the seed.

    """
    rng = np.random.default_rng([seed, 7])
    if rng.random() < VARIED_SCENE:
        variation.vary(rng)
    else:
        variation.restore()
    rig.reset(seed)
    if rng.random() < RANDOM_START:
        _go_anywhere(rig, rng)
    recording = _Recording(rig, target_for(seed), _script(rng), rng)
    while not recording.over:
        recording.act()
    return None if recording.done is None else recording.arrays(seed)
