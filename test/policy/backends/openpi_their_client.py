"""Run by test_openpi_client.py with the Python of .venv-openpi: the real openpi-client."""

import json
import sys

import numpy as np
from openpi_client.action_chunk_broker import ActionChunkBroker
from openpi_client.websocket_client_policy import WebsocketClientPolicy

port, observation_file = int(sys.argv[1]), sys.argv[2]
policy = WebsocketClientPolicy("127.0.0.1", port)
observation = dict(np.load(observation_file))
observation["prompt"] = str(observation["prompt"])

result = policy.infer(observation)
errors = []
for bad in ({}, {**observation, "state": np.zeros(3, np.float32)}):
    try:
        policy.infer(bad)
    except RuntimeError as err:
        errors.append(str(err))
again = policy.infer(observation)

broker = ActionChunkBroker(policy, action_horizon=len(result["actions"]))
steps = [broker.infer(observation) for _ in range(len(result["actions"]) + 1)]

print(
    json.dumps(
        {
            "numpy": np.__version__,
            "metadata": policy.get_server_metadata(),
            "actions": result["actions"].tolist(),
            "again": again["actions"].tolist(),
            "timing": sorted(again["server_timing"]),
            "errors": errors,
            "broker": [step["actions"].tolist() for step in steps],
        }
    )
)
