"""Free the batch dimension: a model made for one image takes N."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from onnx import NodeProto, TensorProto, ValueInfoProto, helper, numpy_helper

from camrt.errors import ExportError
from exporters.graph import Graph, Shape, fresh_names

if TYPE_CHECKING:
    from exporters.passes import Normal


def free_batch(normal: Normal) -> None:
    """Let N images in: the input's first dimension, the 1 that Reshape constants carry for it, and the output (N, L)."""
    model = normal.model
    graph = Graph(model)
    shapes = {name: shape for name, (_, shape) in graph.shapes().items()}
    names = fresh_names(model, "shape")
    dependent = graph.below(normal.image)
    for i, node in enumerate(graph.nodes):
        if node.op_type == "Reshape" and i in dependent:
            _free_reshape(node, graph, shapes, names)
    _flatten_output(normal, shapes)
    model.graph.input[0].type.tensor_type.shape.dim[0].dim_param = "N"
    del model.graph.value_info[:]


def _free_reshape(node: NodeProto, graph: Graph, shapes: dict[str, Shape], names: object) -> None:
    """Write 0, "as the input has it", for a leading 1 that stands for the batch."""
    constant = graph.initializers.get(node.input[1])
    if constant is None:
        return
    target = numpy_helper.to_array(constant).tolist()
    before = shapes.get(node.input[0], ())
    if not target or target[0] != 1 or not before or before[0] != 1:
        return
    changed = numpy_helper.from_array(np.array([0, *target[1:]], np.int64), next(names))  # type: ignore[call-overload]
    graph.proto.initializer.append(changed)
    node.input[1] = changed.name
    kept = [a for a in node.attribute if a.name != "allowzero"]  # with allowzero a 0 would mean an empty dimension
    del node.attribute[:]
    node.attribute.extend(kept)


def _flatten_output(normal: Normal, shapes: dict[str, Shape]) -> None:
    """Make the output (N, L)."""
    graph = normal.model.graph
    shape = shapes.get(normal.logits)
    if shape is None or len(shape) < 2 or not isinstance(shape[1], int) or any(d != 1 for d in shape[2:]):
        found = "unknown" if shape is None else " x ".join(str(d) for d in shape)
        raise ExportError(
            f"The output {normal.logits!r} must be one score per class, (N, L); its shape is {found}. "
            "Choose another output with --output, or export the classifier alone."
        )
    if len(shape) > 2:
        flat = next(fresh_names(normal.model, "logits"))
        graph.node.append(helper.make_node("Flatten", [normal.logits], [flat], axis=1))
        normal.logits = flat
    value: ValueInfoProto = helper.make_tensor_value_info(normal.logits, TensorProto.FLOAT, ["N", shape[1]])
    del graph.output[:]
    graph.output.append(value)
