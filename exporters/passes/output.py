"""Find the scores: the output asked for, or the tensor that all outputs are made from, before any decision is taken."""

from __future__ import annotations

from typing import TYPE_CHECKING

from onnx import NodeProto

from camrt.errors import ExportError, did_you_mean
from exporters.graph import FLOATS, Graph, attribute, keep_output, written
from exporters.passes.activation import activation_before
from exporters.standard import FUSED, RULES

if TYPE_CHECKING:
    from exporters.passes import Normal

DECISIONS = (
    "ArgMax", "ArgMin", "TopK", "OneHot", "Hardmax", "ZipMap", "LabelEncoder", "ArrayFeatureExtractor", "Binarizer",
    "Greater", "GreaterOrEqual", "Less", "LessOrEqual",
)  # fmt: skip
AFTER_DECISIONS = ("Cast", "Identity", "Squeeze", "Unsqueeze", "Flatten", "Reshape", "Gather", "Not")  # of what is no float
QUANTISERS = {"QuantizeLinear", *RULES} - FUSED.keys()  # they round scores, which is no decision


def find_scores(normal: Normal) -> None:
    """Settle which tensor is explained, and make it the only output."""
    graph = normal.graph()
    outputs = [value.name for value in graph.proto.output]
    if normal.output is not None and normal.output not in outputs:
        raise ExportError(
            f"The model has no output {normal.output!r}.{did_you_mean(normal.output, outputs)} It has: {_listed(graph)}."
        )
    asked = outputs if normal.output is None else [normal.output]
    found = {name: _before_decisions(graph, name) for name in asked}
    logits = {name: activation_before(graph, scores)[1] for name, scores in found.items()}
    if len(set(logits.values())) != 1:
        asked = [name for name in asked if _may_be_scores(graph, found[name])]
        if len({logits[name] for name in asked}) != 1:
            advice = "Choose one: --output NAME." if asked else "None is one score per class, (N, L): is this a classifier?"
            raise ExportError(f"The model has {len(outputs)} outputs: {_listed(graph)}. {advice}")
    # Of logits and their Softmax the Softmax is taken: it is cut off, and tells what the logits are.
    chosen = max(asked, key=lambda name: found[name] != logits[name])
    normal.logits = normal.source_output = found[chosen]
    _refuse_sequence(graph, chosen, normal.logits)
    normal.names = _class_names(graph, normal.logits)
    keep_output(normal.model.graph, normal.logits, graph.types.get(normal.logits, 0))


def _may_be_scores(graph: Graph, tensor: str) -> bool:
    """Tell whether a tensor may hold one score per class: its shape is unknown, or has one long axis beside the batch."""
    _, shape = graph.shapes.get(tensor, (0, ()))
    return not shape or sum(d != 1 for d in shape[1:]) == 1


def _before_decisions(graph: Graph, tensor: str) -> str:
    """Go back from labels, indices, and the best of the scores to the scores themselves."""
    node = graph.node_of(tensor)
    while node is not None and node.op_type not in QUANTISERS:
        if not _decides(graph, node, tensor):
            break
        before = _only_varying(graph, node)
        if before is None:
            break
        tensor, node = before, graph.node_of(before)
    return tensor


def _decides(graph: Graph, node: NodeProto, tensor: str) -> bool:
    """Tell whether a node chooses from scores, takes the best of all, or writes in another form what was chosen."""
    if node.op_type == "ReduceMax":
        return len(graph.shapes.get(node.input[0], (0, ()))[1]) == 2
    after = node.op_type in AFTER_DECISIONS and graph.types.get(tensor, FLOATS[0]) not in (0, *FLOATS)
    return after or node.op_type in DECISIONS


def _only_varying(graph: Graph, node: NodeProto) -> str | None:
    """Return the node's one input that is no constant."""
    names = list(dict.fromkeys(name for name in node.input if name and not _is_constant(graph, name)))
    return names[0] if len(names) == 1 else None


def _is_constant(graph: Graph, name: str) -> bool:
    node = graph.node_of(name)
    return name in graph.initializers or (node is not None and node.op_type == "Constant")


def _class_names(graph: Graph, scores: str) -> tuple[str, ...]:
    """Return what a ZipMap of the scores calls the classes."""
    for i in graph.below(scores):
        names = attribute(graph.nodes[i], "classlabels_strings") if graph.nodes[i].op_type == "ZipMap" else None
        if isinstance(names, list):
            return tuple(name.decode("utf-8", "replace") for name in names)
    return ()


def _refuse_sequence(graph: Graph, output: str, scores: str) -> None:
    value = next(v for v in graph.proto.output if v.name == output)
    if scores == output and value.type.WhichOneof("value") not in (None, "tensor_type"):
        raise ExportError(
            f"The output {output!r} is a sequence or a map, not a tensor of scores. Choose another: --output NAME."
        )


def _listed(graph: Graph) -> str:
    shapes = {value.name: graph.shapes.get(value.name, (0, ()))[1] for value in graph.proto.output}
    return ", ".join(f"{name} {written(shape)}" if shape else name for name, shape in shapes.items())
