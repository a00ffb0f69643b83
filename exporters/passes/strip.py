"""Leave out what no session needs: dead nodes and weights, comments.

Module paths are metadata too, and wanted: the layers are listed before the graphs are written, which is where they go.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from exporters.graph import Graph, node_inputs

if TYPE_CHECKING:
    from exporters.passes import Normal


def strip(normal: Normal) -> None:
    """Keep only what the output depends on."""
    graph = Graph(normal.model)
    alive = graph.above([normal.logits])
    nodes = [node for i, node in enumerate(graph.nodes) if i in alive]
    used = {name for node in nodes for name in node_inputs(node)}
    weights = [tensor for name, tensor in graph.initializers.items() if name in used]
    proto = normal.model.graph
    del proto.node[:], proto.initializer[:]
    proto.node.extend(nodes)
    proto.initializer.extend(weights)
    proto.doc_string = ""
    for node in proto.node:
        node.doc_string = ""
