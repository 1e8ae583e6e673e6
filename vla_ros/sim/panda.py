"""The Panda on its table: physics at 500 Hz, a velocity interface, two cameras, three cubes."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType

import numpy as np

from vla_ros.kinematics import quaternion_from_rotation
from vla_ros.sim.follower import TwistFollower
from vla_ros.sim.mujoco_gl import mujoco
from vla_ros.sim.render import SceneRenderer, check_camera, check_size
from vla_ros.types import Array, ImageArray, JointSample

ASSETS = Path(__file__).parent / "assets" / "panda"
BASE_FRAME = "panda_link0"
ARM_JOINTS = tuple(f"panda_joint{i}" for i in range(1, 8))
GRIPPER_JOINTS = ("panda_finger_joint1", "panda_finger_joint2")
CUBES = ("red", "green", "blue")
CAMERAS = {"front": (160, 160), "wrist": (96, 96)}
MAX_OPENING = 0.08
COMMAND_TIMEOUT_NS = 200_000_000
STEP_NS = 2_000_000
# Physics steps for one step of the velocity interface: 100 Hz.
STEPS_PER_COMMAND = 5
HOME = np.array([0.0, 0.15, 0.0, -2.2, 0.0, 2.35, 0.785])
# Seen from the front camera: where cubes lie, in m.
_CUBE_AREA = ((0.38, -0.22), (0.62, 0.22))
_CUBE_SPACING = 0.075
_CUBE_REST_Z = 0.0205
_ARM_JITTER = 0.02


def urdf() -> str:
    """Return the URDF of the simulated robot: links `panda_link0` to `panda_hand_tcp`, inertias."""
    return (ASSETS / "panda.urdf").read_text(encoding="utf-8")


class PandaSim:
    """The simulated robot and its scene, in simulated time, which only `advance` moves.

    Two uses must not meet in one object: a simulation runs (`reset`, `advance`), or a recorded one
    is shown (`set_state`, `render`).

    Attributes:
        model: MuJoCo's model. Lights, colours and cameras may be changed in it; `render` shows it.
        data: MuJoCo's state.
        joint_names: Names of the arm's joints, in the order of the joint vectors.
        cameras: Size (height, width) of each camera's pictures.

    """

    joint_names = ARM_JOINTS

    def __init__(self, cameras: Mapping[str, tuple[int, int]] | None = None) -> None:
        """Load the scene, reset to seed 0.

        Args:
            cameras: (height, width) of each camera to render; by default CAMERAS, `front` 160x160
                and `wrist` 96x96.

        Raises:
            ValueError: If a camera is unknown (there are `front`, `wrist` and `side`) or its size
                out of range.

        """
        self.model = mujoco.MjModel.from_xml_path(str(ASSETS / "scene.xml"))
        self.data = mujoco.MjData(self.model)
        self.cameras = dict(CAMERAS if cameras is None else cameras)
        for camera, (height, width) in self.cameras.items():
            check_camera(self.model, camera)
            check_size(height, width)
        self._renderer = SceneRenderer(self.model)
        self._follower = TwistFollower(self.model, "tcp", HOME)
        self._tcp = self.model.site("tcp").id
        self._start_position: Array = np.zeros(7)
        self._start_velocity: Array = np.zeros(7)
        self._cube_at = {c: int(self.model.joint(f"cube_{c}").qposadr[0]) for c in CUBES}
        # The servos' force is gain * (ctrl - position) - damping * speed; the joints add their own.
        self._gain = self.model.actuator_gainprm[:7, 0].copy()
        damping = -self.model.actuator_biasprm[:7, 2] + self.model.dof_damping[:7]
        self._speed_lead = damping / self._gain
        self._inertia_force = np.zeros(self.model.nv)
        self._acceleration = np.zeros(self.model.nv)
        self.reset(0)

    def __enter__(self) -> "PandaSim":  # noqa: PYI034 - typing.Self needs Python 3.11
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    @property
    def time_ns(self) -> int:
        """Simulated time since the reset, in ns."""
        return self._steps * STEP_NS

    def reset(self, seed: int) -> None:
        """Put the arm near HOME, gripper open, and the cubes at random poses, drawn from `seed`."""
        rng = np.random.default_rng(seed)
        data = self.data
        mujoco.mj_resetData(self.model, data)
        data.qpos[:7] = HOME + rng.normal(0.0, _ARM_JITTER, 7)
        data.qpos[7:9] = MAX_OPENING / 2.0
        places: list[Array] = []
        while len(places) < len(CUBES):
            place = rng.uniform(*_CUBE_AREA)
            if all(np.linalg.norm(place - other) > _CUBE_SPACING for other in places):
                places.append(place)
        for colour, place in zip(CUBES, places, strict=True):
            yaw = rng.uniform(-np.pi, np.pi)
            at = self._cube_at[colour]
            data.qpos[at : at + 3] = [*place, _CUBE_REST_Z]
            data.qpos[at + 3 : at + 7] = [np.cos(yaw / 2.0), 0.0, 0.0, np.sin(yaw / 2.0)]
        self._follower.reset(data.qpos[:7])
        self._steps = 0
        self._due_ns = 0
        self._start_velocity = np.zeros(7)
        self._start_position = data.qpos[:7].copy()
        self._twist: Array = np.zeros(6)
        self._joint_velocity: Array | None = None
        self._commanded_ns = -COMMAND_TIMEOUT_NS
        self.set_gripper(MAX_OPENING)
        data.ctrl[:7] = data.qpos[:7]
        # The cubes settle on the table.
        mujoco.mj_step(self.model, data, 50)
        data.time = 0.0
        mujoco.mj_kinematics(self.model, data)

    def set_twist(self, twist: Array) -> None:
        """Command a velocity of the TCP, for the next 0.2 s of simulated time; then the arm halts.

        The velocity interface takes it over at its next step (100 Hz).

        Args:
            twist: Linear (m/s) and angular (rad/s) velocity in the base frame, shape (6,).

        Raises:
            ValueError: If it is not six finite numbers.

        """
        self._twist = _finite(twist, 6, "a twist")
        self._joint_velocity = None
        self._commanded_ns = self.time_ns

    def set_joint_velocity(self, velocity: Array) -> None:
        """Command the joints' speeds instead, in rad/s, shape (7,); the same holds.

        Raises:
            ValueError: If it is not seven finite numbers.

        """
        self._joint_velocity = _finite(velocity, 7, "a joint velocity")
        self._commanded_ns = self.time_ns

    def set_gripper(self, opening: float) -> None:
        """Command the opening between the fingers in m; it is clipped to 0 to 0.08.

        Raises:
            ValueError: If it is not finite.

        """
        if not np.isfinite(opening):
            msg = f"a gripper opening is a finite number of metres, not {opening!r}"
            raise ValueError(msg)
        self._opening = float(np.clip(opening, 0.0, MAX_OPENING))
        # The hand's actuator takes 0 (closed) to 255 (open), as Menagerie's does.
        self.data.ctrl[7] = 255.0 * self._opening / MAX_OPENING

    def advance(self, seconds: float) -> None:
        """Simulate `seconds` more. What is left of a physics step is carried to the next call."""
        self.advance_to(self._due_ns + round(seconds * 1e9))

    def advance_to(self, time_ns: int) -> None:
        """Simulate until `time_ns` of simulated time, by whole physics steps that end by then."""
        self._due_ns = max(time_ns, self._due_ns)
        while (self._steps + 1) * STEP_NS <= self._due_ns:
            phase = self._steps % STEPS_PER_COMMAND
            if phase == 0:
                self._command_joints()
            self._drive_servos(phase * STEP_NS * 1e-9)
            mujoco.mj_step(self.model, self.data)
            self._steps += 1
        # mj_step leaves the poses of its beginning behind.
        mujoco.mj_kinematics(self.model, self.data)

    def joint_sample(self, stamp_ns: int) -> JointSample:
        """Return the measured joints, stamped `stamp_ns`.

        The effort is that of the motors, gravity's share included, as a Panda's is.
        """
        data = self.data
        return JointSample(
            stamp_ns=stamp_ns,
            position=data.qpos[:7].copy(),
            velocity=data.qvel[:7].copy(),
            effort=data.qfrc_actuator[:7].copy(),
            gripper=float(data.qpos[7] + data.qpos[8]),
            gripper_effort=float(data.qfrc_actuator[7:9].min()),
        )

    def finger_sample(self) -> tuple[Array, Array, Array]:
        """Return position (m), velocity (m/s) and effort (N) of the fingers, shape (2,) each."""
        data = self.data
        return data.qpos[7:9].copy(), data.qvel[7:9].copy(), data.qfrc_actuator[7:9].copy()

    def tcp_pose(self) -> tuple[Array, Array]:
        """Return the TCP's position (3,) in m and rotation (3, 3) in the base frame."""
        rotation = self.data.site_xmat[self._tcp].reshape(3, 3).copy()
        return self.data.site_xpos[self._tcp].copy(), rotation

    def cube_pose(self, colour: str) -> tuple[Array, Array]:
        """Return the centre (3,) in m and rotation (3, 3) in the base frame of one cube."""
        body = self.data.body(f"cube_{colour}")
        return body.xpos.copy(), body.xmat.reshape(3, 3).copy()

    def cube_poses(self) -> Array:
        """Return x, y, z and quaternion x, y, z, w of each cube as in CUBES, shape (3, 7)."""
        poses = [self.cube_pose(colour) for colour in CUBES]
        return np.array([np.concatenate([p, quaternion_from_rotation(r)]) for p, r in poses])

    def put_cubes(self, places: Sequence[Sequence[float]]) -> None:
        """Put the cubes, in the order of CUBES, with their centres at `places`, in m, at rest."""
        for colour, place in zip(CUBES, places, strict=True):
            at = self._cube_at[colour]
            self.data.qpos[at : at + 3] = place
            speed_at = int(self.model.joint(f"cube_{colour}").dofadr[0])
            self.data.qvel[speed_at : speed_at + 6] = 0.0
        mujoco.mj_kinematics(self.model, self.data)

    def render(self, camera: str) -> ImageArray:
        """Return what `camera` sees now, RGB uint8 (height, width, 3), as policies see it.

        Raises:
            KeyError: If the camera is not among `cameras`.
            vla_ros.sim.mujoco_gl.RenderError: If the machine has no GL.

        """
        height, width = self.cameras[camera]
        return self._renderer.render(self.data.qpos, camera, height, width)

    def render_pretty(self, camera: str, height: int, width: int) -> ImageArray:
        """Return a picture for people, with shadows and smooth edges, RGB uint8 (height, width, 3).

        Args:
            camera: `side`, `front` or `wrist`.
            height: Rows.
            width: Columns.

        Raises:
            ValueError: If the camera is unknown or the size out of range.
            vla_ros.sim.mujoco_gl.RenderError: If the machine has no GL.

        """
        return self._renderer.render(self.data.qpos, camera, height, width, pretty=True)

    def set_state(self, joint_positions: Array, gripper: float, cube_poses: Array) -> None:
        """Show a recorded state, without physics.

        Args:
            joint_positions: Of the arm in rad, shape (7,).
            gripper: Opening in m.
            cube_poses: As `cube_poses` returns them, shape (3, 7).

        """
        data = self.data
        data.qpos[:7] = joint_positions
        data.qpos[7:9] = gripper / 2.0
        for colour, pose in zip(CUBES, cube_poses, strict=True):
            at = self._cube_at[colour]
            data.qpos[at : at + 3] = pose[:3]
            data.qpos[at + 3 : at + 7] = pose[[6, 3, 4, 5]]
        data.qvel[:] = 0.0
        mujoco.mj_kinematics(self.model, data)

    def close(self) -> None:
        """Free the GL contexts."""
        self._renderer.close()

    def _command_joints(self) -> None:
        """Let the velocity interface plan its next 10 ms."""
        fresh = self.time_ns - self._commanded_ns < COMMAND_TIMEOUT_NS
        self._start_position = self._follower.position
        self._start_velocity = self._follower.velocity
        period = STEPS_PER_COMMAND * STEP_NS * 1e-9
        if self._joint_velocity is not None:
            self._follower.step_joints(self._joint_velocity * fresh, period)
        else:
            self._follower.step(self._twist * fresh, period)
        self._acceleration[:7] = (self._follower.velocity - self._start_velocity) / period

    def _drive_servos(self, elapsed: float) -> None:
        """Set the position servos for the step that begins `elapsed` s into the plan.

        A servo alone follows with a first-order lag of damping / gain, about 80 ms. Adding what
        damping and inertia will take, as forces turned into positions by the gain, cancels it. The
        damping acts on the speed at the step's end (MuJoCo's integrator is implicit in it), the
        gain on the position at its beginning.
        """
        acceleration = self._acceleration[:7]
        mean_velocity = self._start_velocity + 0.5 * elapsed * acceleration
        position = self._start_position + elapsed * mean_velocity
        velocity = self._start_velocity + (elapsed + STEP_NS * 1e-9) * acceleration
        mujoco.mj_mulM(self.model, self.data, self._inertia_force, self._acceleration)
        lead = self._speed_lead * velocity + self._inertia_force[:7] / self._gain
        self.data.ctrl[:7] = position + lead


def _finite(values: Array, size: int, what: str) -> Array:
    array = np.array(values, dtype=np.float64)
    if array.shape != (size,) or not np.isfinite(array).all():
        msg = f"{what} is {size} finite numbers, not {values!r}"
        raise ValueError(msg)
    return array
