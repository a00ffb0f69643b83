"""Cut off a trailing Softmax, LogSoftmax or Sigmoid, so that scores start from logits."""

from __future__ import annotations

from typing import TYPE_CHECKING

from onnx import NodeProto, TensorProto

from exporters.graph import Graph, attribute, keep_output

if TYPE_CHECKING:
    from exporters.passes import Normal

FINAL_ACTIVATIONS = {name: name for name in ("Softmax", "LogSoftmax", "Sigmoid")}
FINAL_ACTIVATIONS |= {"QLinearSoftmax": "Softmax", "QLinearSigmoid": "Sigmoid"}  # ONNX Runtime's, between whole numbers
ROUND_IT = ("Identity", "Dropout", "Cast", "Flatten", "Reshape", "Squeeze", "Unsqueeze", "QuantizeLinear", "DequantizeLinear")


def cut_activation(normal: Normal) -> None:
    """Make the input of the last activation over the classes the output, where one stands at the end."""
    graph = normal.graph()
    node, normal.logits = activation_before(graph, normal.logits)
    if node is not None:
        normal.activation = FINAL_ACTIVATIONS[node.op_type]
        keep_output(normal.model.graph, normal.logits, graph.types.get(normal.logits, TensorProto.FLOAT))
    normal.raw_logits = normal.logits


def activation_before(graph: Graph, scores: str) -> tuple[NodeProto | None, str]:
    """Return the activation over the classes that makes the scores and what goes into it; None and the scores without one.

    What only changes shape or type lies round it, also the rounding of a quantised model.
    """
    node = graph.node_of(scores)
    while node is not None and (node.op_type in ROUND_IT or _turns_an_image(node)):
        node = graph.node_of(node.input[0])
    if node is None or node.op_type not in FINAL_ACTIVATIONS or not _over_classes(node, graph):
        return None, scores
    return node, node.input[0]


def _turns_an_image(node: NodeProto) -> bool:
    """Tell whether a Transpose leaves the batch in its place: of scores with one long axis it changes the shape alone."""
    perm = attribute(node, "perm")
    return node.op_type == "Transpose" and isinstance(perm, list) and perm[:1] == [0]


def _over_classes(node: NodeProto, graph: Graph) -> bool:
    """Tell whether the activation runs over all classes, the one axis beside the batch that is not 1."""
    _, shape = graph.shapes.get(node.input[0], (0, ()))
    long = [axis for axis, d in enumerate(shape) if axis > 0 and d != 1]
    if len(shape) < 2 or len(long) > 1:
        return False
    if FINAL_ACTIVATIONS[node.op_type] == "Sigmoid":
        return True
    axis = attribute(node, "axis", -1)
    return isinstance(axis, int) and (axis % len(shape) in long if long else len(shape) == 2)
