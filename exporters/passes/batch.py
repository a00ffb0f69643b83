"""Free the batch dimension: a model made for a fixed number of images takes N."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from onnx import NodeProto, TensorProto, ValueInfoProto, helper, numpy_helper

from camrt.errors import ExportError
from exporters.emitter import Emitter
from exporters.graph import Graph, Shape, fresh_names

if TYPE_CHECKING:
    from exporters.passes import Normal


def free_batch(normal: Normal) -> None:
    """Let N images in: the input's first dimension, the number that Reshape and Resize carry for it, and the output (N, L)."""
    model = normal.model
    graph = Graph(model)
    shapes = {name: shape for name, (_, shape) in graph.shapes.items()}
    dependent = graph.below(normal.image)
    op = Emitter("free_batch")
    nodes: list[NodeProto] = []
    added = 0
    for i, node in enumerate(graph.nodes):
        free = FREE.get(node.op_type)
        if free is not None and i in dependent and shapes.get(node.input[0], ("",))[:1] == (normal.batch,):
            free(node, graph, op, normal.batch)
        nodes += [*op.nodes[added:], node]
        added = len(op.nodes)
    del model.graph.node[:]
    model.graph.node.extend(nodes)
    model.graph.initializer.extend(op.initializers)
    _flatten_output(normal, shapes)
    model.graph.input[0].type.tensor_type.shape.dim[0].dim_param = "N"
    del model.graph.value_info[:]


def _free_reshape(node: NodeProto, graph: Graph, op: Emitter, batch: int) -> None:
    """Write 0, "as the input has it", for a leading number that stands for the batch."""
    target = _constant(graph, node, 1)
    if target and target[0] == batch:
        node.input[1] = op.constant([0, *target[1:]])
        kept = [a for a in node.attribute if a.name != "allowzero"]  # with allowzero a 0 would mean an empty dimension
        del node.attribute[:]
        node.attribute.extend(kept)


def _free_resize(node: NodeProto, graph: Graph, op: Emitter, batch: int) -> None:
    """Take the batch in the sizes from the input."""
    sizes = _constant(graph, node, 3)
    if sizes and len(sizes) == 4 and sizes[0] == batch:
        images = op.Slice(op.Shape(node.input[0]), op.constant([0]), op.constant([1]))
        node.input[3] = op.Concat(images, op.constant(sizes[1:]), axis=0)


FREE: dict[str, Callable[[NodeProto, Graph, Emitter, int], None]] = {"Reshape": _free_reshape, "Resize": _free_resize}


def _constant(graph: Graph, node: NodeProto, position: int) -> list[int]:
    """Return a constant input of whole numbers; nothing where it is none."""
    tensor = graph.initializers.get(node.input[position]) if len(node.input) > position else None
    return [int(v) for v in numpy_helper.to_array(tensor).ravel()] if tensor is not None else []


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
