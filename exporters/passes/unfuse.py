"""Take apart what ONNX Runtime fused in a file that it saved, so that every step can be cut and has a gradient."""

from __future__ import annotations

from typing import TYPE_CHECKING

from exporters.graph import opset
from exporters.standard import FUSED, standard

if TYPE_CHECKING:
    from exporters.passes import Normal

PREFIX = "camrt/unfused"


def unfuse(normal: Normal) -> None:
    """Write FusedConv, QuickGelu and their like as their parts; ONNX Runtime fuses them again when it opens a session."""
    graph = normal.graph()
    nodes, constants = standard(graph.nodes, graph.initializers, opset(normal.model), FUSED, PREFIX)
    del normal.model.graph.node[:]
    normal.model.graph.node.extend(nodes)
    normal.model.graph.initializer.extend(constants)
