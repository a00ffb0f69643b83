"""Cut off a trailing Softmax, LogSoftmax or Sigmoid, so that scores start from logits."""

from __future__ import annotations

from typing import TYPE_CHECKING

from onnx import NodeProto, TensorProto, ValueInfoProto

from exporters.graph import Graph, attribute

if TYPE_CHECKING:
    from exporters.passes import Normal

FINAL_ACTIVATIONS = ("Softmax", "LogSoftmax", "Sigmoid")
SHAPE_ONLY = ("Identity", "Dropout", "Flatten", "Reshape", "Squeeze", "Unsqueeze")


def cut_activation(normal: Normal) -> None:
    """Make the input of the last activation over the classes the output, where one stands at the end."""
    graph = Graph(normal.model)
    tensor = normal.logits
    node = graph.node_of(tensor)
    while node is not None and node.op_type in SHAPE_ONLY:
        tensor = node.input[0]
        node = graph.node_of(tensor)
    if node is None or node.op_type not in FINAL_ACTIVATIONS or not _over_classes(node, graph):
        normal.raw_logits = normal.logits
        return
    normal.activation = node.op_type
    normal.logits = normal.raw_logits = node.input[0]
    del normal.model.graph.output[:]
    value = ValueInfoProto(name=normal.logits)
    value.type.tensor_type.elem_type = TensorProto.FLOAT
    normal.model.graph.output.append(value)


def _over_classes(node: NodeProto, graph: Graph) -> bool:
    """Tell whether the activation runs over all classes: axis 1, of a tensor with one value per class."""
    _, shape = graph.shapes.get(node.input[0], (0, ()))
    if len(shape) < 2 or any(d != 1 for d in shape[2:]):
        return False
    if node.op_type == "Sigmoid":
        return True
    axis = attribute(node, "axis", -1)
    return isinstance(axis, int) and axis % len(shape) == 1
