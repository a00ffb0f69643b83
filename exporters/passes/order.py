"""Bring the nodes into an order in which each stands behind what it reads, which every later step relies on."""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING

from onnx import NodeProto

from camrt.errors import ExportError
from exporters.graph import describe, node_inputs

if TYPE_CHECKING:
    from exporters.passes import Normal


def order_nodes(normal: Normal) -> None:
    """Sort the nodes where a file has them in another order; refuse circles, and tensors with two writers."""
    graph = normal.model.graph
    writer = _writers(graph.node, {value.name for value in (*graph.input, *graph.initializer)})
    reads = [{writer[name] for name in node_inputs(node) if name in writer} for node in graph.node]
    if all(max(before, default=-1) < i for i, before in enumerate(reads)):
        return
    readers: dict[int, list[int]] = {}
    for i, before in enumerate(reads):
        for j in before:
            readers.setdefault(j, []).append(i)
    ready = deque(i for i, before in enumerate(reads) if not before)
    order: list[int] = []
    while ready:
        order.append(i := ready.popleft())
        for j in readers.get(i, ()):
            reads[j].discard(i)
            if not reads[j]:
                ready.append(j)
    if len(order) < len(reads):
        stuck = next(i for i, before in enumerate(reads) if before)
        raise ExportError(
            f"{describe(graph.node[stuck])} depends on its own result. The file is damaged; export the model again."
        )
    nodes = [graph.node[i] for i in order]
    del graph.node[:]
    graph.node.extend(nodes)


def _writers(nodes: list[NodeProto], given: set[str]) -> dict[str, int]:
    """Return which node writes each tensor."""
    writer: dict[str, int] = {}
    for i, node in enumerate(nodes):
        for name in filter(None, node.output):
            if name in writer or name in given:
                raise ExportError(
                    f"The tensor {name!r} is written twice, the second time by {describe(node)}. The file is damaged; export "
                    "the model again."
                )
            writer[name] = i
    return writer
