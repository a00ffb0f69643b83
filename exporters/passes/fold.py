"""Fold shape arithmetic: with a known batch and size, every shape is a constant.

Converters write flattening as Shape → Gather → Concat → Reshape, taking the batch from the image itself; that path would go
round every layer at which one could cut.  Weights are left as they are, quantised ones too.
"""

from __future__ import annotations

from math import prod
from typing import TYPE_CHECKING

import numpy as np
import onnx
from onnx import NodeProto, helper, numpy_helper
from onnx.reference import ReferenceEvaluator

from exporters.graph import MAX_SHAPE, QUANTISATION, Shape
from exporters.limits import is_small

if TYPE_CHECKING:
    from exporters.passes import Normal


def fold_shape_arithmetic(normal: Normal) -> None:
    """Replace Shape and Size of tensors of known shape, and what is computed from constants alone, by constants.

    A shape that becomes known makes others known.
    """
    while _fold_once(normal):
        pass


def _fold_once(normal: Normal) -> bool:
    """Tell whether a node was replaced."""
    graph = normal.model.graph
    known = {name: shape for name, (_, shape) in normal.graph().shapes.items()}
    constants = {t.name: numpy_helper.to_array(t) for t in graph.initializer if prod(t.dims) <= MAX_SHAPE}
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
    replaced = len(kept) < len(graph.node)
    del graph.node[:]
    graph.node.extend(kept)
    return replaced


def _evaluate(
    node: NodeProto, known: dict[str, Shape], constants: dict[str, np.ndarray], model: onnx.ModelProto
) -> list[np.ndarray] | None:
    """Return the values of a node's outputs, None where they depend on the image or are weights."""
    if node.op_type in ("Shape", "Size") and all(isinstance(d, int) for d in known.get(node.input[0], (None,))):
        shape = known[node.input[0]]
        feed = {node.input[0]: np.zeros([int(d) for d in shape if isinstance(d, int)], np.bool_)}
    elif node.op_type in QUANTISATION or not node.input or any(name and name not in constants for name in node.input):
        return None
    elif any(a.type in (onnx.AttributeProto.GRAPH, onnx.AttributeProto.GRAPHS) for a in node.attribute):
        return None
    else:
        feed = {name: constants[name] for name in node.input if name}
        if not is_small(node, feed, model):
            return None
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
    return folded if all(v.size <= MAX_SHAPE for v in folded) else None
