"""Brings the cameras and the joints of one moment together, and says what is wrong with them."""

from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from vla_ros.observation.joints import JointHistory
from vla_ros.types import Array, Frame, ImageArray, JointSample, aged

_FRAMES = 4
"""Frames kept of each camera, among which those of one moment are found."""

_AHEAD_NS = 50_000_000
"""How far a stamp may lie ahead of the clock, for clocks of two machines that are synchronised."""


@dataclass(frozen=True, slots=True)
class AlignerConfig:
    """What counts as fresh, as simultaneous and as frozen.

    Attributes:
        max_frame_age_ns: Greatest age of a camera's newest frame.
        max_joint_age_ns: Greatest age of the newest joint sample, and greatest distance in time
            between a frame and the sample that is taken for it.
        max_skew_ns: Greatest distance in time between the cameras' frames of one moment. Half a
            period of the slowest camera is what cameras without a common trigger need.
        frozen_motion: Motion of a joint in rad during which pixels must have changed.

    """

    max_frame_age_ns: int = 100_000_000
    max_joint_age_ns: int = 100_000_000
    max_skew_ns: int = 20_000_000
    frozen_motion: float = 0.02


@dataclass(frozen=True, slots=True)
class Hold:
    """Why the arm is to hold still.

    Attributes:
        cause: What it is, with the camera's name where it is one: `stale camera front`.
        detail: The figures, which change from moment to moment; may be empty.

    """

    cause: str
    detail: str = ""

    def __str__(self) -> str:
        """Return both, for people."""
        return f"{self.cause}: {self.detail}" if self.detail else self.cause


@dataclass(frozen=True, slots=True)
class Moment:
    """Frames and joints of one moment.

    Attributes:
        stamp_ns: Stamp of the oldest frame.
        images: Image by camera.
        joints: The joints at `stamp_ns`.

    """

    stamp_ns: int
    images: Mapping[str, ImageArray]
    joints: JointSample


@dataclass(slots=True)
class _Camera:
    """The newest frames of one camera, and whether its pixels follow the arm's motion."""

    frames: deque[Frame] = field(default_factory=lambda: deque(maxlen=_FRAMES))
    duplicate: int = 0
    out_of_order: int = 0
    posture: Array | None = None  # of the joints, when the pixels last changed
    motion: float = 0.0  # of a joint since then, in rad

    @property
    def newest(self) -> Frame | None:
        return self.frames[-1] if self.frames else None


class Aligner:
    """Collects frames and joint samples, and gives the newest moment that all cameras show.

    Frames may come late, twice or in the wrong order: what is not newer than the newest of its
    camera is counted and dropped.
    """

    def __init__(
        self,
        cameras: Sequence[str],
        config: AlignerConfig | None = None,
        *,
        earlier: int = 0,
        period_ns: int = 0,
    ) -> None:
        """Collect for `cameras`.

        Args:
            cameras: Their names.
            config: What counts as fresh, as simultaneous and as frozen.
            earlier: How many moments before the newest `history` is to give.
            period_ns: Time from one of them to the next.

        """
        self._cameras = {name: _Camera() for name in cameras}
        self._config = config or AlignerConfig()
        self._joints = JointHistory()
        self._earlier, self._period_ns = earlier, period_ns
        self._moments: deque[Moment] = deque()  # of the time that `history` looks back, in order

    @property
    def joints(self) -> JointSample | None:
        """The newest joint sample."""
        return self._joints.newest

    def add_frame(self, frame: Frame) -> bool:
        """Take a frame; return whether it was newer than its camera's newest.

        Raises:
            KeyError: If the camera is unknown.

        """
        camera = self._cameras[frame.camera]
        last = camera.newest
        if last is not None and frame.stamp_ns <= last.stamp_ns:
            if frame.stamp_ns == last.stamp_ns:
                camera.duplicate += 1
            else:
                camera.out_of_order += 1
            return False
        joints = self._joints.at(frame.stamp_ns, self._config.max_joint_age_ns)
        posture = None if joints is None else joints.position
        same = last is not None and np.array_equal(frame.image, last.image)
        if not same or camera.posture is None:
            camera.posture, camera.motion = posture, 0.0
        elif posture is not None:
            camera.motion = float(np.abs(posture - camera.posture).max())
        camera.frames.append(frame)
        if self._earlier:
            self._remember()
        return True

    def add_joints(self, sample: JointSample) -> bool:
        """Take a joint sample; return whether it was newer than the newest."""
        return self._joints.add(sample)

    def counts(self) -> dict[str, int]:
        """Return how many frames of each camera were dropped, and why."""
        return {
            f"{name} {why} frames": count
            for name, camera in self._cameras.items()
            for why, count in (
                ("duplicate", camera.duplicate),
                ("out-of-order", camera.out_of_order),
            )
        }

    def ages_ms(self, now_ns: int) -> dict[str, float]:
        """Return the age of each camera's newest frame and of the joints, where there are any."""
        stamps = {name: c.newest.stamp_ns for name, c in self._cameras.items() if c.newest}
        if self._joints.newest is not None:
            stamps["joint_states"] = self._joints.newest.stamp_ns
        return {name: (now_ns - stamp) / 1e6 for name, stamp in stamps.items()}

    def fault(self, now_ns: int) -> Hold | None:
        """Return what keeps the arm from being moved by what the sensors show, if anything does.

        Data stamped ahead of the clock is forgotten here: after the clock was set back, as by a
        simulation that starts again, nothing would be newer than it.
        """
        faults = list(self._faults(now_ns))
        return faults[0] if faults else None

    def _faults(self, now_ns: int) -> Iterator[Hold]:
        limit_ns = self._config.max_joint_age_ns
        joints = self._joints.newest
        if joints is None:
            yield Hold("waiting for joint states")
        elif joints.stamp_ns - now_ns > _AHEAD_NS:
            self._joints.clear()
            self._moments.clear()
            yield Hold("joint states ahead of the clock", _lead(joints.stamp_ns, now_ns))
        elif now_ns - joints.stamp_ns > limit_ns:
            yield Hold("stale joint states", _age(joints.stamp_ns, now_ns, limit_ns))
        for name, camera in self._cameras.items():
            yield from self._camera_faults(name, camera, now_ns)

    def _camera_faults(self, name: str, camera: _Camera, now_ns: int) -> Iterator[Hold]:
        limit_ns = self._config.max_frame_age_ns
        newest = camera.newest
        if newest is None:
            yield Hold(f"waiting for camera {name}")
        elif newest.stamp_ns - now_ns > _AHEAD_NS:
            camera.frames.clear()
            self._moments.clear()
            yield Hold(f"camera {name} ahead of the clock", _lead(newest.stamp_ns, now_ns))
        elif now_ns - newest.stamp_ns > limit_ns:
            yield Hold(f"stale camera {name}", _age(newest.stamp_ns, now_ns, limit_ns))
        elif camera.motion > self._config.frozen_motion:
            detail = f"the pixels stayed the same while a joint moved {camera.motion:.3f} rad"
            yield Hold(f"frozen camera {name}", detail)

    def moment(self) -> Moment | None:
        """Return the newest moment, or None if there is none within the skew allowed.

        That of the camera whose newest frame is the oldest, with the nearest frame of each other.
        """
        frames = self._together()
        if not frames:
            return None
        stamp_ns = min([frame.stamp_ns for frame in frames])
        joints = self._joints.at(stamp_ns, self._config.max_joint_age_ns)
        if joints is None:
            return None
        return Moment(stamp_ns, {frame.camera: frame.image for frame in frames}, joints)

    def moment_ns(self) -> int:
        """Return the stamp of the newest moment, -1 if there is none."""
        stamps = [frame.stamp_ns for frame in self._together()]
        if not stamps or not self._joints.knows(min(stamps), self._config.max_joint_age_ns):
            return -1
        return min(stamps)

    def history(self, newest: Moment) -> tuple[Moment, ...]:
        """Return the moments before `newest` that the model is to see as well, oldest first.

        Of each time that lies a whole number of periods back, the moment that is nearest to it.
        Where none is known from that long ago, as at the start or after a gap, that is the oldest
        after it, and at last `newest` itself: as in training, where an episode's first
        observations are repeated.

        Args:
            newest: What `moment` returned.

        """
        known = [m for m in self._moments if m.stamp_ns < newest.stamp_ns] + [newest]
        times = [newest.stamp_ns - k * self._period_ns for k in range(self._earlier, 0, -1)]
        return tuple(min(known, key=lambda m: abs(m.stamp_ns - time_ns)) for time_ns in times)

    def _remember(self) -> None:
        """Keep the newest moment, and forget what `history` will not come back to."""
        moment = self.moment()
        if moment is None or (self._moments and moment.stamp_ns <= self._moments[-1].stamp_ns):
            return
        self._moments.append(moment)
        oldest_ns = moment.stamp_ns - self._earlier * self._period_ns
        # One from before that time may be the nearest to it.
        while len(self._moments) > 1 and self._moments[1].stamp_ns <= oldest_ns:
            self._moments.popleft()

    def _together(self) -> list[Frame]:
        """Return each camera's frame of the newest moment, none without one within the skew."""
        newest = [camera.frames[-1] for camera in self._cameras.values() if camera.frames]
        if len(newest) < len(self._cameras):
            return []
        time_ns = min([frame.stamp_ns for frame in newest])
        frames = [
            # Mostly it is the newest itself.
            last
            if last.stamp_ns == time_ns
            else min(camera.frames, key=lambda frame: abs(frame.stamp_ns - time_ns))
            for camera, last in zip(self._cameras.values(), newest, strict=True)
        ]
        stamps = [frame.stamp_ns for frame in frames]
        return [] if max(stamps) - min(stamps) > self._config.max_skew_ns else frames


def _age(stamp_ns: int, now_ns: int, limit_ns: int) -> str:
    age_ns = now_ns - stamp_ns
    return aged(age_ns, f"{age_ns / 1e6:.0f} ms old, limit {limit_ns / 1e6:.0f} ms")


def _lead(stamp_ns: int, now_ns: int) -> str:
    return f"{(stamp_ns - now_ns) / 1e6:.0f} ms: synchronise the clocks"
