"""Free the batch dimension: a model made for a fixed number of images takes N."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from onnx import NodeProto, helper, numpy_helper

from exporters.emitter import Emitter
from exporters.graph import Graph, fresh_names

if TYPE_CHECKING:
    from exporters.passes import Normal


def free_batch(normal: Normal) -> None:
    """Let N images in: the input's first dimension, and the number that Reshape and Resize carry for it."""
    model = normal.model
    graph = normal.graph()
    dependent = graph.below(normal.image)
    op = Emitter(next(fresh_names(model, "free_batch")))
    nodes: list[NodeProto] = []
    added = 0
    for i, node in enumerate(graph.nodes):
        free = FREE.get(node.op_type)
        if free is not None and i in dependent:
            free(node, graph, op, normal.batch)
        nodes += [*op.nodes[added:], node]
        added = len(op.nodes)
    del model.graph.node[:]
    model.graph.node.extend(nodes)
    model.graph.initializer.extend(op.initializers)
    model.graph.input[0].type.tensor_type.shape.dim[0].dim_param = "N"
    del model.graph.value_info[:]


def _free_reshape(node: NodeProto, graph: Graph, op: Emitter, batch: int) -> None:
    """Leave the first dimension open, which carries the batch, alone or times windows; the others are those of one image."""
    target = _constant(graph, node, 1)
    _, shape = graph.shapes.get(node.output[0], (0, ()))
    if not target or not all(isinstance(d, int) for d in shape):
        return
    if len(shape) == 1 and batch == 1 and (gathers := _gathers(graph, node.output[0])):
        node.input[1] = op.constant([0, -1])
        for gather in gathers:
            _free_gather(gather, graph, op)
    elif 0 not in shape:
        node.input[1] = op.constant([-1, *shape[1:]])


def _gathers(graph: Graph, tensor: str) -> list[NodeProto]:
    """Return the nodes that pick from the numbers of one image by constant places, if nothing else reads them."""
    readers = [graph.nodes[i] for i in graph.readers[tensor]]
    picks = all(
        node.op_type == "Gather" and (places := graph.initializers.get(node.input[1])) is not None and places.dims[:1] == [1]
        for node in readers
    )
    return readers if picks else []


def _free_gather(node: NodeProto, graph: Graph, op: Emitter) -> None:
    """Pick from every image what was picked from one; torch.export writes as_strided so."""
    places = numpy_helper.to_array(graph.initializers[node.input[1]])[0]
    node.input[1] = op.constant(places)
    del node.attribute[:]
    node.attribute.append(helper.make_attribute("axis", 1))


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
