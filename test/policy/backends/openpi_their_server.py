"""Run by test_openpi_client.py with the Python of .venv-openpi: openpi's protocol, its frames.

As openpi's own server does: metadata first; a result or, on an error, the traceback as text and the
connection closed.
"""

import traceback

import numpy as np
from openpi_client import msgpack_numpy
from websockets.sync.server import serve


def handle(connection):
    packer = msgpack_numpy.Packer()
    connection.send(packer.pack({"model": "theirs"}))
    for frame in connection:
        try:
            observation = msgpack_numpy.unpackb(frame)
            image = observation["observation/image"]
            if observation["prompt"] == "fail":
                raise KeyError("no such task")
            actions = np.full((3, 2), float(image.sum()) + float(observation["state"].sum()))
            result = {"actions": actions, "server_timing": {"infer_ms": np.float64(1.0)}}
            connection.send(packer.pack(result))
        except Exception:
            connection.send(traceback.format_exc())
            connection.close(1011, "Internal server error. Traceback included in previous frame.")
            return


with serve(handle, "127.0.0.1", 0, compression=None, max_size=None) as server:
    print(server.socket.getsockname()[1], flush=True)
    server.serve_forever()
