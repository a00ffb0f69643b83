"""What a device computes that rounds every tensor to float16, as a float32 graph: for proofs on a CPU.

ONNX Runtime computes float16 on the CPU by float32 kernels and takes away the Casts between them, so that only the weights
are rounded there.  Here a pair of Casts behind every operator, which it leaves alone, does what a GPU is expected to do: sums
in float32, results in float16.
"""

from __future__ import annotations

import numpy as np
from onnx import ModelProto, NodeProto, TensorProto, helper, numpy_helper

from exporters.graph import Graph

FLOAT, HALF = TensorProto.FLOAT, TensorProto.FLOAT16


def rounding_each(model: ModelProto) -> ModelProto:
    """Return a model of float16 tensors as one of float32 that rounds each of them; its weights must be loaded."""
    types = Graph(model).types
    half = {name for name, element in types.items() if element == HALF}
    result = ModelProto()
    result.CopyFrom(model)
    graph = result.graph
    for tensor in graph.initializer:
        if tensor.data_type == HALF:
            tensor.CopyFrom(_wide(tensor))
    nodes: list[NodeProto] = []
    for node in graph.node:
        nodes += _rounding(node, half)
    del graph.node[:], graph.value_info[:]
    graph.node.extend(nodes)
    return result


def _rounding(node: NodeProto, half: set[str]) -> list[NodeProto]:
    """Return a node in float32 and, behind each of its outputs that was float16, two Casts that round it."""
    wide = NodeProto()
    wide.CopyFrom(node)
    for a in wide.attribute:
        if a.name in ("to", "dtype") and a.i == HALF:
            a.i = FLOAT
        elif a.t.data_type == HALF:
            a.t.CopyFrom(_wide(a.t))
    after: list[NodeProto] = []
    for i, name in enumerate(node.output):
        if name in half:
            wide.output[i], rounded = f"{name}/exact", f"{name}/rounded"
            after.append(helper.make_node("Cast", [wide.output[i]], [rounded], to=HALF))
            after.append(helper.make_node("Cast", [rounded], [name], to=FLOAT))
    return [wide, *after]


def _wide(tensor: TensorProto) -> TensorProto:
    return numpy_helper.from_array(numpy_helper.to_array(tensor).astype(np.float32), tensor.name)
