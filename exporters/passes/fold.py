"""Fold shape arithmetic: with a known batch and size, every shape is a constant.

Converters write flattening as Shape → Gather → Concat → Reshape, taking the batch from the image itself; that path would go
round every layer at which one could cut.  Weights are left as they are, quantised ones too.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import onnx
from onnx import NodeProto, helper, numpy_helper
from onnx.reference import ReferenceEvaluator

from exporters.graph import Graph

if TYPE_CHECKING:
    from exporters.passes import Normal

MAX_ELEMENTS = 4096  # a shape is small; larger constants are weights
KEPT = ("DequantizeLinear", "QuantizeLinear")


def fold_shape_arithmetic(normal: Normal) -> None:
    """Replace Shape and Size of tensors of known shape, and what is computed from constants alone, by constants."""
    graph = normal.model.graph
    known = {name: shape for name, (_, shape) in Graph(normal.model).shapes.items()}
    constants = {t.name: numpy_helper.to_array(t) for t in graph.initializer if np.prod(t.dims, dtype=int) <= MAX_ELEMENTS}
    kept: list[NodeProto] = []
    for node in graph.node:
        values = _evaluate(node, known, constants, normal.model)
        if values is None:
            kept.append(node)
            continue
        for name, value in zip(node.output, values, strict=True):
            if name:
                constants[name] = value
                graph.initializer.append(numpy_helper.from_array(value, name))
    del graph.node[:]
    graph.node.extend(kept)


def _evaluate(
    node: NodeProto, known: dict[str, tuple[int | str | None, ...]], constants: dict[str, np.ndarray], model: onnx.ModelProto
) -> list[np.ndarray] | None:
    """Return the values of a node's outputs, None where they depend on the image or are weights."""
    if node.op_type in ("Shape", "Size") and all(isinstance(d, int) for d in known.get(node.input[0], (None,))):
        shape = known[node.input[0]]
        feed = {node.input[0]: np.zeros([int(d) for d in shape if isinstance(d, int)], np.bool_)}
    elif node.op_type in KEPT or not node.input or any(name and name not in constants for name in node.input):
        return None
    elif any(a.type in (onnx.AttributeProto.GRAPH, onnx.AttributeProto.GRAPHS) for a in node.attribute):
        return None
    else:
        feed = {name: constants[name] for name in node.input if name}
    inputs = [
        helper.make_tensor_value_info(name, helper.np_dtype_to_tensor_dtype(value.dtype), value.shape)
        for name, value in feed.items()
    ]
    outputs = [onnx.ValueInfoProto(name=name) for name in node.output if name]
    single = helper.make_model(
        helper.make_graph([node], "fold", inputs, outputs), opset_imports=model.opset_import, ir_version=model.ir_version
    )
    try:
        values = ReferenceEvaluator(single).run(None, feed)
    except Exception:  # an operator that the reference lacks stays in the graph
        return None
    arrays = iter([np.asarray(v) for v in values])
    folded = [next(arrays) if name else np.zeros(0) for name in node.output]
    return folded if all(v.size <= MAX_ELEMENTS for v in folded) else None
