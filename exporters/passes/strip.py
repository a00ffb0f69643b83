"""Leave out what no session needs: dead nodes and weights, comments.

Module paths are metadata too, and wanted: the layers are listed before the graphs are written, which is where they go.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from exporters.graph import node_inputs

if TYPE_CHECKING:
    from exporters.passes import Normal


def strip(normal: Normal) -> None:
    """Keep only what the output depends on."""
    graph = normal.graph()
    alive = graph.above([normal.logits])
    nodes = [node for i, node in enumerate(graph.nodes) if i in alive]
    used = {name for node in nodes for name in node_inputs(node)}
    weights = [tensor for name, tensor in graph.initializers.items() if name in used]
    proto = normal.model.graph
    if len(nodes) < len(proto.node):
        del proto.node[:]
        proto.node.extend(nodes)
    if len(weights) < len(proto.initializer):  # else they, which may be many megabytes, are not copied
        del proto.initializer[:]
        proto.initializer.extend(weights)
    proto.doc_string = ""
    for node in proto.node:
        node.doc_string = ""
