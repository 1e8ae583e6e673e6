"""The peers' ends of bench/peers.py, in their own environment: `peers_roles.py ROLE FOLDER ...`.

Everything runs as its makers publish it, but for three things: the robot is a fake one, whose
cameras and joints answer at once; the model is run by ONNX Runtime with one thread in every system,
so that each does the same work; and what is needed to time it is noted down.
"""

import asyncio
import json
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np

SIZE, CHUNK, REPLAN, RATE_HZ = 128, 20, 10, 30
CAMERAS = ("front", "wrist")
DOF = 7
LEROBOT_PORT, OPENPI_PORT = 18811, 18812
INSTRUCTION = "pick up the red cube"


def main() -> None:
    """Run one role."""
    role, folder, *rest = sys.argv[1:]
    roles = {
        "make": make,
        "lerobot-server": lerobot_server,
        "lerobot-client": lerobot_client,
        "openpi-server": openpi_server,
        "openpi-client": openpi_client,
    }
    roles[role](Path(folder), *(float(word) for word in rest))


class Log:
    """Lines of JSON in a file, written as they come: the process may be killed."""

    def __init__(self, file: Path) -> None:
        """Begin an empty file."""
        self._file = file.open("w", encoding="utf-8", buffering=1)

    def __call__(self, *values: object) -> None:
        """Write a line."""
        self._file.write(json.dumps(values) + "\n")


class Arm:
    """Two cameras of 640x480 and seven joints, which move so that no observation is another's."""

    def __init__(self) -> None:
        """Draw the pictures."""
        noise = np.random.default_rng(0)
        self.images = {c: noise.integers(0, 256, (480, 640, 3), np.uint8) for c in CAMERAS}

    @staticmethod
    def joints() -> list[float]:
        """Return where they are now, in LeRobot's range of -100 to 100."""
        return [50.0 * float(np.sin(time.time() + index)) for index in range(DOF)]


def open_model(folder: Path) -> Any:
    """Return the session in which every peer runs the model."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    file = str(folder / "policy.onnx")
    return onnxruntime.InferenceSession(file, options, providers=["CPUExecutionProvider"])


def install_shim() -> None:
    """Give lerobot what it imports of torchvision, which has no build beside the CPU's torch."""
    from vla_ros.export.lerobot import torchvision_shim

    torchvision_shim.install()


def make(folder: Path) -> None:
    """Save an ACT with random weights as a checkpoint of lerobot, and its graph as ONNX."""
    import torch

    install_shim()
    from lerobot.configs.types import FeatureType, PolicyFeature
    from lerobot.policies.act.configuration_act import ACTConfig
    from lerobot.policies.act.modeling_act import ACTPolicy
    from lerobot.policies.factory import make_pre_post_processors

    images = {f"observation.images.{c}": (3, SIZE, SIZE) for c in CAMERAS}
    config = ACTConfig(
        input_features={
            "observation.state": PolicyFeature(FeatureType.STATE, (DOF,)),
            **{name: PolicyFeature(FeatureType.VISUAL, shape) for name, shape in images.items()},
        },
        output_features={"action": PolicyFeature(FeatureType.ACTION, (DOF,))},
        pretrained_backbone_weights=None,
        device="cpu",
        chunk_size=CHUNK,
        n_action_steps=CHUNK,
    )
    torch.manual_seed(0)
    policy = ACTPolicy(config).eval()
    policy.save_pretrained(folder / "checkpoint")
    spread = {"mean": torch.zeros(DOF), "std": torch.ones(DOF)}
    picture = {"mean": torch.full((3, 1, 1), 0.5), "std": torch.full((3, 1, 1), 0.25)}
    stats = {"observation.state": spread, "action": spread, **dict.fromkeys(images, picture)}
    for part in make_pre_post_processors(config, dataset_stats=stats):
        part.save_pretrained(folder / "checkpoint")

    class Graph(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.model = policy.model

        def forward(self, state: Any, front: Any, wrist: Any) -> Any:
            batch = {"observation.state": state, "observation.images": [front, wrist]}
            return self.model(batch)[0]

    example = (torch.zeros(1, DOF), *(torch.zeros(1, 3, SIZE, SIZE) for _ in CAMERAS))
    torch.onnx.export(
        Graph().eval(),
        example,
        str(folder / "policy.onnx"),
        input_names=["state", *CAMERAS],
        output_names=["actions"],
        dynamo=True,
        external_data=False,
    )


def lerobot_server(folder: Path) -> None:
    """Run lerobot's policy server."""
    install_shim()
    import torch
    from lerobot.async_inference import policy_server as module
    from lerobot.async_inference.configs import PolicyServerConfig

    torch.set_num_threads(1)
    log, session = Log(folder / "lerobot_server.jsonl"), open_model(folder)

    class Server(module.PolicyServer):
        def _predict_action_chunk(self, observation_t: Any) -> Any:
            self.stamp = observation_t.get_timestamp()
            return super()._predict_action_chunk(observation_t)

        def _get_action_chunk(self, observation: Any) -> Any:
            inputs = {"state": observation["observation.state"].numpy()}
            inputs |= {c: observation[f"observation.images.{c}"].numpy() for c in CAMERAS}
            began = time.perf_counter()
            actions = session.run(None, inputs)[0]
            log(self.stamp, (time.perf_counter() - began) * 1e3)
            return torch.from_numpy(actions)[:, : self.actions_per_chunk, :]

    module.PolicyServer = Server
    # By default the server sleeps until 1 / 30 s have passed: without that it is at its best.
    config = PolicyServerConfig(host="127.0.0.1", port=LEROBOT_PORT, inference_latency=0.0)
    module.serve.__wrapped__(config)


def lerobot_client(folder: Path, seconds: float) -> None:
    """Run lerobot's client with its control loop."""
    install_shim()
    import threading
    from dataclasses import dataclass

    import torch
    from lerobot.async_inference import robot_client as module
    from lerobot.async_inference.configs import RobotClientConfig
    from lerobot.robots import RobotConfig

    torch.set_num_threads(1)
    log = Log(folder / "lerobot_client.jsonl")
    arm = Arm()
    names = [f"joint_{index}.pos" for index in range(DOF)]

    @RobotConfig.register_subclass("bench")
    @dataclass(kw_only=True)
    class BenchConfig(RobotConfig):
        pass

    class Robot:
        name = robot_type = "bench"
        observation_features = dict.fromkeys(names, float) | dict.fromkeys(CAMERAS, (480, 640, 3))
        action_features = dict.fromkeys(names, float)

        def connect(self) -> None:
            pass

        def disconnect(self) -> None:
            pass

        def get_observation(self) -> dict[str, Any]:
            return dict(zip(names, arm.joints(), strict=True)) | arm.images

        def send_action(self, action: dict[str, float]) -> dict[str, float]:
            log("command", time.time())
            return action

    class Client(module.RobotClient):
        def _aggregate_action_queues(self, incoming_actions: Any, *rest: Any) -> None:
            super()._aggregate_action_queues(incoming_actions, *rest)
            log("chunk", incoming_actions[0].get_timestamp(), time.time())

    module.make_robot_from_config = lambda _config: Robot()
    client = Client(
        RobotClientConfig(
            robot=BenchConfig(),
            policy_type="act",
            pretrained_name_or_path=str(folder / "checkpoint"),
            actions_per_chunk=CHUNK,
            chunk_size_threshold=1.0 - REPLAN / CHUNK,
            fps=RATE_HZ,
            task=INSTRUCTION,
            server_address=f"127.0.0.1:{LEROBOT_PORT}",
        )
    )
    if not client.start():
        sys.exit("lerobot's server did not answer")
    threading.Thread(target=client.receive_actions, daemon=True).start()
    threading.Timer(seconds, client.shutdown_event.set).start()
    client.control_loop(task=INSTRUCTION)


def openpi_server(folder: Path) -> None:
    """Serve the model by openpi's protocol, with the calls of openpi's own server.

    That one (`openpi.serving.websocket_policy_server`) is not on PyPI; it does no more than this.
    """
    from openpi_client import msgpack_numpy
    from websockets.asyncio.server import serve

    session = open_model(folder)

    def infer(observation: dict[str, Any]) -> dict[str, Any]:
        inputs = {"state": observation["state"][None].astype(np.float32)}
        for camera in CAMERAS:
            pixels = observation[camera].astype(np.float32) / 255.0
            inputs[camera] = ((pixels - 0.5) / 0.25).transpose(2, 0, 1)[None]
        began = time.perf_counter()
        actions = session.run(None, inputs)[0]
        return {"actions": actions[0], "model_ms": (time.perf_counter() - began) * 1e3}

    async def handle(websocket: Any) -> None:
        packer = msgpack_numpy.Packer()
        await websocket.send(packer.pack({}))
        async for frame in websocket:
            await websocket.send(packer.pack(infer(msgpack_numpy.unpackb(frame))))

    async def run() -> None:
        async with serve(handle, "127.0.0.1", OPENPI_PORT, compression=None, max_size=None) as it:
            await it.serve_forever()

    asyncio.run(run())


def openpi_client(folder: Path, seconds: float) -> None:
    """Run openpi's runtime: an environment, and an agent with the chunk broker."""
    from openpi_client import image_tools
    from openpi_client.action_chunk_broker import ActionChunkBroker
    from openpi_client.runtime.agents.policy_agent import PolicyAgent
    from openpi_client.runtime.environment import Environment
    from openpi_client.runtime.runtime import Runtime
    from openpi_client.websocket_client_policy import WebsocketClientPolicy

    log = Log(folder / "openpi_client.jsonl")
    arm = Arm()

    class Bench(Environment):
        taken = 0.0

        def reset(self) -> None:
            pass

        def is_episode_complete(self) -> bool:
            return False

        def get_observation(self) -> dict[str, Any]:
            self.taken = time.time()
            # As openpi's examples do: resized before they are sent.
            small = {
                camera: image_tools.resize_with_pad(image, SIZE, SIZE)
                for camera, image in arm.images.items()
            }
            return small | {"state": np.array(arm.joints()), "prompt": INSTRUCTION}

        def apply_action(self, action: dict[str, Any]) -> None:
            assert action["actions"].shape == (DOF,)
            log("command", time.time())

    class Policy(WebsocketClientPolicy):
        def infer(self, obs: dict[str, Any]) -> dict[str, Any]:
            result = super().infer(obs)
            log("chunk", environment.taken, time.time(), result["model_ms"])
            return result

    environment = Bench()
    for _ in range(100):
        try:
            policy = Policy("127.0.0.1", OPENPI_PORT)
            break
        except OSError:
            time.sleep(0.1)
    else:
        sys.exit("the openpi server did not answer")
    Runtime(
        environment,
        PolicyAgent(ActionChunkBroker(policy, REPLAN)),
        subscribers=[],
        max_hz=RATE_HZ,
        max_episode_steps=round(seconds * RATE_HZ),
    ).run()


if __name__ == "__main__":
    main()
