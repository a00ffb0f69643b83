"""Which tensors of rank 4 are channels last, (N, h, w, C), so that they are not taken for maps of w channels."""

from __future__ import annotations

from exporters.graph import Graph, attribute, node_inputs

TO_LAST, TO_FIRST = [0, 2, 3, 1], [0, 3, 1, 2]
CHANNELS_FIRST = ("Conv", "ConvTranspose", "MaxPool", "AveragePool", "LpPool", "GlobalAveragePool", "GlobalMaxPool", "LRN")


def channels_last(graph: Graph, image: str) -> set[str]:
    """Return the tensors that a Transpose made channels last, and what is computed from them without another one.

    Parameters
    ----------
    graph : Graph
    image : str
        The input (N, C, H, W).
    """
    last: set[str] = set()
    for i in sorted(graph.below(image)):
        node = graph.nodes[i]
        if node.op_type in CHANNELS_FIRST:
            continue
        before = last.intersection(node_inputs(node))
        if node.op_type == "Transpose":
            perm = attribute(node, "perm")
            if (perm == TO_LAST and not before) or (before and perm != TO_FIRST):
                last.add(node.output[0])
        elif before:
            last.update(name for name in node.output if len(graph.shapes.get(name, (0, ()))[1]) == 4)
    return last
