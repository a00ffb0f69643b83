"""The same network as others hand it on: in another element type, and what a quantiser is calibrated by."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import onnx
from onnx import ModelProto, TensorProto, helper, numpy_helper
from onnxruntime.quantization import CalibrationDataReader

FLOAT = TensorProto.FLOAT


class Calibration(CalibrationDataReader):
    """Eight batches of noise."""

    def __init__(self, image: str, shape: tuple[int, ...]):
        rng = np.random.default_rng(3)
        self.batches: Iterator[dict[str, np.ndarray]] = iter(
            [{image: rng.standard_normal((1, *shape), np.float32)} for _ in range(8)]
        )

    def get_next(self) -> dict[str, np.ndarray] | None:
        return next(self.batches, None)


def converted(built: ModelProto, element: int) -> ModelProto:
    """Return a float32 model in another element type: image, weights and scores."""
    model = ModelProto()
    model.CopyFrom(built)
    dtype = helper.tensor_dtype_to_np_dtype(element)
    for tensor in model.graph.initializer:
        if tensor.data_type == FLOAT:
            tensor.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(tensor).astype(dtype), tensor.name))
    for value in (*model.graph.input, *model.graph.output):
        value.type.tensor_type.elem_type = element
    return model


def bordered(model: ModelProto, element: int) -> ModelProto:
    """Return the same that takes and gives float32."""
    graph = model.graph
    (image,), (scores,) = graph.input, graph.output
    nodes = [helper.make_node("Cast", [image.name], ["inner"], name="in", to=element)]
    for node in graph.node:
        for names in (node.input, node.output):
            names[:] = [{image.name: "inner", scores.name: "inner scores"}.get(name, name) for name in names]
        nodes.append(node)
    nodes.append(helper.make_node("Cast", ["inner scores"], [scores.name], name="out", to=FLOAT))
    nodes = [onnx.NodeProto.FromString(node.SerializeToString()) for node in nodes]
    del graph.node[:]
    graph.node.extend(nodes)
    for value in (image, scores):
        value.type.tensor_type.elem_type = FLOAT
    return model
