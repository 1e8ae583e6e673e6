"""Promise: in float16 a bundle is off by what float16 rounds, no more."""

import numpy as np
import onnx
import onnxruntime
from onnx import TensorProto, helper

from vla_ros.export import precision


def test_in_float16_an_angle_of_many_turns_keeps_its_digits(tmp_path):
    nodes = [
        helper.make_node("Mul", ["time", "speed"], ["angle"], name="angle"),
        helper.make_node("Add", ["angle", "offset"], ["later"], name="later"),
        helper.make_node("Sin", ["later"], ["sine"], name="sine"),
        helper.make_node("Mul", ["sine", "speed"], ["out"], name="out"),
    ]
    graph = helper.make_graph(
        nodes,
        "turns",
        [helper.make_tensor_value_info("time", TensorProto.FLOAT, [1])],
        [helper.make_tensor_value_info("out", TensorProto.FLOAT, [1])],
        [
            helper.make_tensor("speed", TensorProto.FLOAT, [1], [1500.0]),
            helper.make_tensor("offset", TensorProto.FLOAT, [1], [0.3]),
        ],
    )
    opset = [helper.make_opsetid("", 17)]
    model = helper.make_model(graph, opset_imports=opset, ir_version=8)
    onnx.save(model, tmp_path / "single.onnx")
    precision._to_fp16(tmp_path / "single.onnx", tmp_path / "half.onnx")
    sessions = [onnxruntime.InferenceSession(tmp_path / f"{n}.onnx") for n in ("single", "half")]
    for time in np.linspace(0.1, 1.0, 10, dtype=np.float32):
        single, half = (s.run(None, {"time": time[None]})[0] for s in sessions)
        assert abs(half - single) <= 1500.0 * 2e-3
