"""Take the branch of an If whose condition is known, as exporters leave behind where Python code asked about a shape."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from onnx import GraphProto, NodeProto, helper, numpy_helper

from exporters.graph import all_names, attribute, rename, unused
from exporters.passes.constants import lift_constants
from exporters.passes.fold import fold_shape_arithmetic

if TYPE_CHECKING:
    from exporters.passes import Normal


def take_branches(normal: Normal) -> None:
    """Put the nodes of the branch that is taken in the place of the If, until no condition is known any more."""
    while _took(normal):
        lift_constants(normal)
        fold_shape_arithmetic(normal)


def _took(normal: Normal) -> bool:
    """Replace every If whose condition is known now; tell whether there was one."""
    graph = normal.graph()
    taken = all_names(normal.model.graph)
    nodes: list[NodeProto] = []
    for node in graph.nodes:
        condition = graph.initializers.get(node.input[0]) if node.op_type == "If" and node.input else None
        if condition is None:
            nodes.append(node)
            continue
        body = attribute(node, "then_branch" if np.all(numpy_helper.to_array(condition)) else "else_branch")
        assert isinstance(body, GraphProto)
        nodes += _in_place(normal, node, body, taken)
    found = len(nodes) != len(graph.nodes) or any(a is not b for a, b in zip(nodes, graph.nodes, strict=True))
    if found:
        del normal.model.graph.node[:]
        normal.model.graph.node.extend(nodes)
    return found


def _in_place(normal: Normal, node: NodeProto, body: GraphProto, taken: set[str]) -> list[NodeProto]:
    """Return the body's nodes, what they call their own by names that nothing else has, and its results by the If's."""
    own = [t.name for t in body.initializer] + [name for inner in body.node for name in inner.output if name]
    new = {}
    for name in own:
        new[name] = unused(name, taken)
        taken.add(new[name])
    for inner in body.node:
        rename(inner, new)
    for tensor in body.initializer:
        tensor.name = new[tensor.name]
        normal.model.graph.initializer.append(tensor)
    results = [
        helper.make_node("Identity", [new.get(value.name, value.name)], [name])
        for value, name in zip(body.output, node.output, strict=False)
        if name
    ]
    return [*body.node, *results]
