"""Becomes `model.py` of a Triton repository, in place of the onnxruntime backend."""

from pathlib import Path

import onnxruntime
import triton_python_backend_utils as triton


class TritonPythonModel:
    def initialize(self, _):
        file = Path(__file__).with_name("model.onnx")
        self.session = onnxruntime.InferenceSession(str(file), providers=["CPUExecutionProvider"])
        self.outputs = [node.name for node in self.session.get_outputs()]

    def execute(self, requests):
        responses = []
        for request in requests:
            inputs = {tensor.name(): tensor.as_numpy() for tensor in request.inputs()}
            values = self.session.run(self.outputs, inputs)
            tensors = [triton.Tensor(n, v) for n, v in zip(self.outputs, values, strict=True)]
            responses.append(triton.InferenceResponse(output_tensors=tensors))
        return responses
