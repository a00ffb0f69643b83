"""Shape inference of models that nobody vouches for: without the two inputs that end the process, in bounded memory.

onnx's inference of Slice asserts that a dimension is not negative, and not 0 where the step is: an aborted process otherwise.
So a Slice is shown to it only after the shape of what it cuts was inferred without it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager

import onnx
from onnx import ModelProto, NodeProto

from exporters.memory import bounded_memory

HIDDEN = "Slice/hidden"  # an operator that onnx does not know, and passes over


def infer(model: ModelProto, safe: set[str]) -> ModelProto:
    """Return a model with the shapes that onnx infers; what is cut out of impossible shapes stays unknown.

    `safe` names the tensors that are cut out of what is known to be possible, and is added to.
    """
    with _hidden([*inner_slices(model), *impossible_slices(model, safe)]):
        return _infer(model)


def impossible_slices(model: ModelProto, safe: set[str]) -> list[NodeProto]:
    """Return the Slices that cut a tensor with a dimension below 1."""
    nodes = list(model.graph.node)
    waiting = [i for i, node in enumerate(nodes) if node.op_type == "Slice" and node.input and node.output[0] not in safe]
    impossible: list[NodeProto] = []
    inner = list(inner_slices(model)) if waiting else []
    while waiting:
        with _hidden([*inner, *impossible, *(nodes[i] for i in waiting)]):
            shapes = _dimensions(_infer(model))
        ready = _behind_no_other(nodes, set(waiting))
        for node in (nodes[i] for i in ready):
            known = shapes.get(node.input[0])
            if known and None not in known and min(known) >= 1:
                safe.add(node.output[0])
            elif min((d for d in known or () if d is not None), default=1) < 1:
                impossible.append(node)
        waiting = [i for i in waiting if i not in ready]
    return impossible


def _behind_no_other(nodes: list[NodeProto], waiting: set[int]) -> set[int]:
    """Return the nodes of `waiting` that depend on no other one of them."""
    unknown: set[str] = set()
    ready: set[int] = set()
    for i, node in enumerate(nodes):
        if i in waiting and not unknown.intersection(node.input):
            ready.add(i)
        if i in waiting or unknown.intersection(node.input):
            unknown.update(node.output)
    return ready


def _infer(model: ModelProto) -> ModelProto:
    with bounded_memory(model.ByteSize()):  # a tensor of a billion numbers may be taken as a shape
        return onnx.shape_inference.infer_shapes(model, data_prop=True)


def _dimensions(model: ModelProto) -> dict[str, list[int | None]]:
    """Return the dimensions of every tensor, None for those that are open."""
    graph = model.graph
    values = (*graph.value_info, *graph.input, *graph.output)
    found: dict[str, list[int | None]] = {
        v.name: [d.dim_value if d.HasField("dim_value") else None for d in v.type.tensor_type.shape.dim] for v in values
    }
    return found | {tensor.name: list(tensor.dims) for tensor in graph.initializer}


def inner_slices(model: ModelProto) -> Iterator[NodeProto]:
    """Yield the Slices in branches and loops, whose tensors have no recorded shape."""
    waiting = [(node, False) for node in model.graph.node]
    while waiting:
        node, inside = waiting.pop()
        if inside and node.op_type == "Slice":
            yield node
        waiting += [(n, True) for a in node.attribute for body in ([a.g] if a.HasField("g") else a.graphs) for n in body.node]


@contextmanager
def _hidden(nodes: Iterable[NodeProto]) -> Iterator[None]:
    """Let nodes pass for an unknown operator for a while."""
    changed = list(nodes)
    for node in changed:
        node.op_type = HIDDEN
    try:
        yield
    finally:
        for node in changed:
            node.op_type = "Slice"
