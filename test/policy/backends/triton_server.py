"""Run by test_triton.py: a bundle's graph, run by ONNX Runtime, in a real tritonserver."""

import sys
import time

import numpy as np
import onnxruntime
from pytriton.model_config import ModelConfig, Tensor
from pytriton.triton import Triton, TritonConfig

file, name, grpc_port, http_port, metrics_port = sys.argv[1], sys.argv[2], *map(int, sys.argv[3:])
session = onnxruntime.InferenceSession(file, providers=["CPUExecutionProvider"])
types = {"tensor(float)": np.float32, "tensor(int64)": np.int64}


def infer(requests):
    return [
        dict(
            zip(
                [node.name for node in session.get_outputs()],
                session.run(None, dict(request.data)),
                strict=True,
            )
        )
        for request in requests
    ]


def slow(requests):
    time.sleep(1.0)
    return [{"y": request.data["x"]} for request in requests]


def tensors(nodes):
    return [Tensor(name=n.name, dtype=types[n.type], shape=tuple(n.shape)) for n in nodes]


config = TritonConfig(grpc_port=grpc_port, http_port=http_port, metrics_port=metrics_port)
with Triton(config=config) as triton:
    triton.bind(
        model_name=name,
        infer_func=infer,
        inputs=tensors(session.get_inputs()),
        outputs=tensors(session.get_outputs()),
        config=ModelConfig(batching=False),
    )
    triton.bind(
        model_name="slow",
        infer_func=slow,
        inputs=[Tensor(name="x", dtype=np.float32, shape=(1, 2))],
        outputs=[Tensor(name="y", dtype=np.float32, shape=(1, 2))],
        config=ModelConfig(batching=False),
    )
    triton.run()
    print("ready", flush=True)
    sys.stdin.readline()
