"""A bundle as a server of the openpi protocol.

`docs/backends.md` lists the keys. The protocol is that of `openpi_client` 0.1.2
(https://github.com/Physical-Intelligence/openpi), so that its clients can use a bundle.
"""

import http
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
from websockets.exceptions import ConnectionClosed
from websockets.http11 import Request, Response
from websockets.sync.server import Server, ServerConnection, serve

from vla_ros.observation.image import ImageError, fit_image
from vla_ros.observation.observation import Observation, Snapshot
from vla_ros.observation.state import JOINT_PREFIX
from vla_ros.policy.backends.msgpack_numpy import FrameError, pack, unpack
from vla_ros.policy.manifest import Camera, Manifest
from vla_ros.policy.policy import Policy, PolicyError
from vla_ros.types import Array, ImageArray, JointSample

LARGEST_FRAME = 256 * 1024 * 1024
"""Bytes of the largest observation that is read."""

FITTED = "/fitted"
"""After a camera's name: the key of an image that is fitted to the model already."""

_GRIPPER = "gripper.opening"


class ObservationError(ValueError):
    """What a client sent is no observation of this bundle."""


class PolicyServer:
    """Serves one policy to any number of clients; their inferences run one after the other."""

    def __init__(
        self,
        policy: Policy,
        manifest: Manifest,
        *,
        clock: Callable[[], float] = time.perf_counter,
        tell: Callable[[str], None] = lambda _: None,
    ) -> None:
        """Serve `policy`, a policy of `manifest`.

        Args:
            policy: The policy.
            manifest: Its bundle's manifest.
            clock: Time in s, for the timings that clients are told.
            tell: Takes a line for people: who came, who went, what went wrong.

        """
        self._policy = policy
        self._manifest = manifest
        self._clock = clock
        self._tell = tell
        # A thread of its own rather than a lock: on a GPU each new thread would set up libraries
        # anew, and capture CUDA graphs again, while others wait.
        self._inference = ThreadPoolExecutor(1, thread_name_prefix="inference")

    def listen(self, host: str, port: int) -> Server:
        """Return a server whose `serve_forever` serves, until its `shutdown`.

        Raises:
            OSError: If it cannot listen there.

        """
        return serve(
            self._handle,
            host,
            port,
            compression=None,
            max_size=LARGEST_FRAME,
            process_request=_health,
        )

    def _handle(self, connection: ServerConnection) -> None:
        peer = ":".join(map(str, connection.remote_address[:2]))
        self._tell(f"{peer} connected")
        try:
            connection.send(pack(metadata(self._manifest)))
            total_ms: float | None = None
            for frame in connection:
                begin = self._clock()
                connection.send(self._answer(frame, total_ms, peer))
                total_ms = (self._clock() - begin) * 1e3
        except ConnectionClosed:
            pass
        finally:
            self._tell(f"{peer} gone")

    def _answer(self, frame: str | bytes, total_ms: float | None, peer: str) -> str | bytes:
        """Return the result's frame, or text that says why there is none.

        The connection lives on after an error: the next observation may be right.
        """
        try:
            # A text frame is none of msgpack's.
            content = unpack(frame.encode() if isinstance(frame, str) else frame)
            observation = read_observation(content, self._manifest)
            actions, infer_ms = self._inference.submit(self._infer, observation).result()
            timing = {"infer_ms": infer_ms}
            if total_ms is not None:
                timing["prev_total_ms"] = total_ms
            return pack({"actions": actions.astype(np.float32), "server_timing": timing})
        except (FrameError, ObservationError, PolicyError) as err:
            text = f"{type(err).__name__}: {err}"
        except Exception as err:  # noqa: BLE001 - one client's error is not the others'
            text = f"{type(err).__name__}: {' '.join(str(err).split())}"
        self._tell(f"{peer}: {text}")
        return text

    def _infer(self, observation: Observation) -> tuple[Array, float]:
        """Return the actions and the time that they took, ms."""
        begin = self._clock()
        actions = self._policy.predict(observation)
        return actions, (self._clock() - begin) * 1e3


def metadata(manifest: Manifest) -> dict[str, Any]:
    """Return what a server says of itself: names, sizes, units, rate."""
    action = manifest.action
    return {
        "server": "vla_ros",
        "name": manifest.name,
        "cameras": {camera.name: list(camera.size) for camera in manifest.cameras},
        "state": [] if manifest.state is None else list(manifest.state.names),
        "prompt": manifest.instruction is not None,
        "history": manifest.history.steps,
        "action": {
            "type": action.type,
            "frame": action.frame,
            "rotation": action.rotation,
            "reference": action.reference,
            "names": list(action.names),
        },
        "rate_hz": action.rate_hz,
        "chunk": action.chunk,
    }


def client_manifest(manifest: Manifest) -> dict[str, Any]:
    """Return the manifest of the bundle that a robot uses with the server of `manifest`.

    It has the same cameras, state and actions, but sends them as they are: pixels, SI units, words.
    """
    content = manifest.model_dump(mode="json", exclude={"files"})
    moments = [] if manifest.history.steps == 1 else [manifest.history.steps]
    inputs: dict[str, Any] = {}
    for camera, said in zip(manifest.cameras, content["cameras"], strict=True):
        # policy_node has images that camera_node has fitted: fitting them again would crop twice.
        key = camera.name + FITTED
        said |= {"input": key, "layout": "nhwc", "type": "uint8"}
        for plain in ("scale", "mean", "std"):
            del said[plain]
        inputs[key] = {"shape": [1, *moments, *camera.size, 3], "type": "uint8"}
    if manifest.state is not None:
        names = content["state"]["names"]
        content["state"] = {"names": names, "normalisation": {"type": "identity"}}
        inputs["state"] = [1, *moments, len(names)]
    if manifest.instruction is not None:
        content["instruction"] = {"tokenizer": None, "input": "prompt"}
        inputs["prompt"] = {"shape": [1], "type": "string"}
    action = content["action"]
    action |= {"normalisation": {"type": "identity"}, "size": None}
    outputs = {"actions": [1, manifest.action.chunk, len(manifest.action.names)]}
    content["graphs"] = [
        {"name": "policy", "backend": "openpi", "inputs": inputs, "outputs": outputs}
    ]
    content["decoder"] = {"type": "direct"}
    return content


def read_observation(content: object, manifest: Manifest) -> Observation:
    """Return the observation that a client sent.

    Args:
        content: A dict: each camera's image under its name, or as the model sees it under
            `<name>/fitted`, `state` or `joints`, `prompt`, perhaps
            `stamp_ns`; with a history, images and state have an axis of moments first.
        manifest: What it must hold.

    Raises:
        ObservationError: Naming the key that is wrong.

    """
    if not isinstance(content, dict):
        msg = f"an observation is a dict, not {type(content).__name__}"
        raise ObservationError(msg)
    steps = manifest.history.steps
    images = {c.name: _images(content, c, steps) for c in manifest.cameras}
    states = _states(content, manifest)
    stamp = content.get("stamp_ns", 0)
    if not isinstance(stamp, int | np.integer):
        msg = f"stamp_ns is {type(stamp).__name__}, not an integer"
        raise ObservationError(msg)
    prompt = content.get("prompt", "")
    if not isinstance(prompt, str):
        msg = f"prompt is {type(prompt).__name__}, not text"
        raise ObservationError(msg)
    if manifest.instruction is not None and "prompt" not in content:
        msg = f"there is no 'prompt': the model takes an instruction; found: {_keys(content)}"
        raise ObservationError(msg)
    names = () if manifest.state is None else manifest.state.names
    joint_names = tuple(n.removeprefix(JOINT_PREFIX) for n in names if n.startswith(JOINT_PREFIX))
    moments = []
    for step in range(steps):
        known = dict(zip(names, states[step].tolist(), strict=True))
        position, rotation = _pose(known)
        joints = np.array([known[JOINT_PREFIX + name] for name in joint_names], np.float64)
        moments.append(
            Snapshot(
                stamp_ns=int(stamp),
                images={name: stack[step] for name, stack in images.items()},
                joints=JointSample(
                    int(stamp), joints, np.zeros(len(joints)), None, known.get(_GRIPPER)
                ),
                tcp_position=position,
                tcp_rotation=rotation,
            )
        )
    newest = moments[-1]
    return Observation(
        stamp_ns=newest.stamp_ns,
        images=newest.images,
        joints=newest.joints,
        joint_names=joint_names,
        tcp_position=newest.tcp_position,
        tcp_rotation=newest.tcp_rotation,
        instruction=prompt,
        history=tuple(moments[:-1]),
    )


def _images(content: Mapping[Any, Any], camera: Camera, steps: int) -> list[ImageArray]:
    """Return a camera's images of each moment, as the model sees them."""
    fitted = camera.name + FITTED
    key = fitted if fitted in content else camera.name
    if content.get(key) is None:
        msg = f"there is no image {camera.name!r}: each camera's is sent under its name"
        raise ObservationError(msg)
    form = "(height, width, 3)" if steps == 1 else f"({steps}, height, width, 3)"
    image = np.asarray(content[key])
    stack = image[None] if steps == 1 else image
    if image.dtype != np.uint8 or stack.shape[3:] != (3,) or not image.size:
        msg = f"{key!r} is {image.dtype} {list(image.shape)}, not uint8 {form}"
        raise ObservationError(msg)
    if len(stack) != steps:
        msg = f"{key!r} has {len(stack)} moments, not {steps}"
        raise ObservationError(msg)
    if key == fitted:
        if stack.shape[1:3] != tuple(camera.size):
            found, size = list(stack.shape[1:3]), list(camera.size)
            msg = f"{key!r} is {found} pixels (height, width), not {size}"
            raise ObservationError(msg)
        return list(stack)
    try:
        return [fit_image(one, camera.image) for one in stack]
    except ImageError as err:
        msg = f"{key!r}: {err}"
        raise ObservationError(msg) from err


def _states(content: Mapping[Any, Any], manifest: Manifest) -> Array:
    """Return the state of each moment, in the manifest's order, shape (steps, n)."""
    steps = manifest.history.steps
    if manifest.state is None:
        return np.zeros((steps, 0))
    names = manifest.state.names
    if "state" not in content and "joints" in content:
        return np.tile(_state_of_joints(content["joints"], names), (steps, 1))
    if "state" not in content:
        msg = f"there is no 'state': {len(names)} numbers, {', '.join(names)}"
        raise ObservationError(msg)
    state = np.asarray(content["state"])
    if state.dtype.kind not in "fiu":
        msg = f"state is of {state.dtype}, not of numbers"
        raise ObservationError(msg)
    expected = (len(names),) if steps == 1 else (steps, len(names))
    if state.shape != expected:
        msg = f"state has the shape {list(state.shape)}, not {list(expected)}: {', '.join(names)}"
        raise ObservationError(msg)
    if not np.isfinite(state).all():
        msg = f"state is not finite: {names[int(np.argwhere(~np.isfinite(state))[0][-1])]}"
        raise ObservationError(msg)
    return state.astype(np.float64).reshape(steps, len(names))


def _state_of_joints(joints: object, names: tuple[str, ...]) -> Array:
    """Return the state that a dict of joints, and the `gripper`, gives."""
    if not isinstance(joints, dict):
        msg = f"joints is {type(joints).__name__}, not a dict of angles by joint"
        raise ObservationError(msg)
    values = []
    for name in names:
        key = "gripper" if name == _GRIPPER else name.removeprefix(JOINT_PREFIX)
        if name != _GRIPPER and not name.startswith(JOINT_PREFIX):
            msg = f"the model takes {name!r}, which joints do not tell: send 'state'"
            raise ObservationError(msg)
        value = joints.get(key)
        if isinstance(value, bool) or not isinstance(value, int | float | np.number):
            msg = f"joints.{key} is missing or no number; found: {_keys(joints)}"
            raise ObservationError(msg)
        values.append(float(value))
    state = np.array(values)
    if not np.isfinite(state).all():
        msg = f"joints are not finite: {names[int(np.argmin(np.isfinite(state)))]}"
        raise ObservationError(msg)
    return state


def _pose(state: Mapping[str, float]) -> tuple[Array, Array]:
    """Return the TCP's position and rotation, as far as the state tells them.

    The numbers are handed on as they came: a rotation is not made orthogonal.
    """
    position = np.array([state.get(f"tcp.position.{axis}", 0.0) for axis in "xyz"])
    rotation = np.eye(3)
    for row in range(3):
        for column in range(2):
            name = f"tcp.rotation.r{row + 1}{column + 1}"
            rotation[row, column] = state.get(name, rotation[row, column])
    rotation[:, 2] = np.cross(rotation[:, 0], rotation[:, 1])
    return position, rotation


def _keys(content: Mapping[Any, Any]) -> str:
    return ", ".join(f"{key!r:.40}" for key in list(content)[:20]) or "nothing"


def _health(connection: ServerConnection, request: Request) -> Response | None:
    if request.path == "/healthz":
        return connection.respond(http.HTTPStatus.OK, "OK\n")
    return None
