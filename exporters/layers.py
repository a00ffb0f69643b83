"""Where a network can be cut: tensors through which everything between image and scores must pass.

The automatic choice is the last such feature map with h · w > 1, stepping back over class maps and closing poolings.
"""

from __future__ import annotations

import ast
from dataclasses import dataclass, replace

from onnx import NodeProto, TensorProto

from camrt.errors import ExportError, UnknownLayer, did_you_mean
from exporters.graph import AFFINE, FLOATS, QUANTISATION, Graph, describe, node_inputs, quantiser, written
from exporters.layout import channels_last

AUTO = "auto"
POOLS = (
    "MaxPool", "AveragePool", "LpPool", "GlobalAveragePool", "GlobalMaxPool", "ReduceMean", "ReduceMax", "ReduceSum",
    "ReduceLogSumExp", "Resize",
)  # fmt: skip
CLOSING = ("MaxPool", "AveragePool", "LpPool", "Dropout", "Identity", "LRN")  # no features of their own
ACTIVATIONS = (
    "Relu", "LeakyRelu", "PRelu", "Clip", "Elu", "Selu", "Celu", "Sigmoid", "HardSigmoid", "HardSwish", "Tanh", "Softplus",
    "Softsign", "Gelu", "Mish", "ThresholdedRelu",
)  # fmt: skip
SHAPE_ONLY = ("Identity", "Dropout", "Flatten", "Reshape", "Squeeze", "Unsqueeze", "Transpose")
PIXELWISE = {
    *SHAPE_ONLY, *QUANTISATION, *AFFINE, "Cast", "Clip", "Round", "Slice", "Gather", "Split", "Concat", "Pad", "Resize",
}  # fmt: skip
CONTROL = ("If", "Loop", "Scan")
RECURRENT = ("LSTM", "GRU", "RNN")
ATTENTION = ("Attention", "MultiHeadAttention")
SCOPES = "pkg.torch.onnx.name_scopes"  # where torch.onnx.export writes a node's module path
PATCH_EMBEDDING = 1  # convolution before the tokens of a transformer; a network with more has maps of its own
MAX_SCOPES = 10_000  # characters of such a path


@dataclass(frozen=True)
class LayerChoice:
    """One place to cut.

    Attributes
    ----------
    tensor : str
    node : str
        Name of the node that writes it.
    operator : str
    shape : (int, int, int)
        C, h, w.
    stride : (float, float)
        Input pixels per cell, down and across.
    module : str or None
        PyTorch module path.
    reason : str
        Why it was chosen; empty for the others of a list.
    """

    tensor: str
    node: str
    operator: str
    shape: tuple[int, int, int]
    stride: tuple[float, float]
    module: str | None
    reason: str = ""


def module_scopes(node: NodeProto) -> list[str]:
    """Return the PyTorch modules a node belongs to, outermost first."""
    for entry in node.metadata_props:
        if entry.key == SCOPES:
            if len(entry.value) > MAX_SCOPES:
                return []
            try:
                scopes = ast.literal_eval(entry.value)
            except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError):  # what its documentation lists
                return []
            return [s for s in scopes[:-1] if s] if isinstance(scopes, list) and all(isinstance(s, str) for s in scopes) else []
    return []


def separators(graph: Graph, image: str, logits: str) -> list[str]:
    """Return the tensors that alone separate the image from the scores, in order.

    Of a tensor that separates, every other one between image and scores is an ancestor or a descendant.  So in any
    topological order it is, at the moment it is written, the only one still to be read.
    """
    relevant = sorted(graph.above([logits]) & graph.below(image))
    last_reader = {name: i for i in relevant for name in node_inputs(graph.nodes[i])}
    unread, found = {image}, []
    for i in relevant:
        unread |= {name for name in graph.nodes[i].output if name in last_reader}
        unread -= {name for name in node_inputs(graph.nodes[i]) if last_reader[name] == i}
        if len(unread) == 1:
            found += unread
    return list(dict.fromkeys(found))


def list_layers(graph: Graph, image: str, logits: str) -> list[LayerChoice]:
    """Return where one can cut, best first: the automatic choice, then the others from the last to the first."""
    shapes = graph.shapes
    size = shapes[image][1][2:]
    cuts, last, first = list[LayerChoice](), channels_last(graph, image), _first_that_computes(graph, image, logits)
    for tensor in separators(graph, image, logits):
        element, shape = shapes.get(tensor, (0, ()))
        if shape and sum(d != 1 for d in shape[1:]) < 2:
            break  # one number a channel: what looks like a map behind it is that vector in another shape
        node = graph.node_of(tensor)
        if node is None or graph.writer[tensor] < first or tensor in last or not _is_real(graph, tensor, element):
            continue
        if len(shape) != 4 or not all(isinstance(d, int) for d in shape[1:]):
            continue
        channels, height, width = (int(d) for d in shape[1:] if isinstance(d, int))
        if height * width > 1 and not _rearranged((height, width), cuts):
            stride = tuple(int(s) / d for s, d in zip(size, (height, width), strict=True) if isinstance(s, int))
            scopes = module_scopes(node)
            cuts.append(
                LayerChoice(
                    tensor, node.name or tensor, node.op_type, (channels, height, width), (stride[0], stride[1]),
                    scopes[-1] if scopes else None,
                )
            )  # fmt: skip
    if not cuts:
        raise _nothing_to_cut(graph, image, logits)
    position, reason = _automatic(graph, image, logits, cuts, int(shapes[logits][1][1] or 0))
    best = cuts.pop(position)
    return [replace(best, reason=reason), *reversed(cuts)]


def _rearranged(cells: tuple[int, int], cuts: list[LayerChoice]) -> bool:
    """Tell whether as many cells as an earlier map's stand in other rows: a Reshape made them so, and they are no places."""
    return any(cut.shape[1] * cut.shape[2] == cells[0] * cells[1] and cut.shape[1:] != cells for cut in cuts)


def _is_real(graph: Graph, tensor: str, element: int) -> bool:
    """Tell whether a tensor holds real numbers, or whole ones that stand for them and are read as such."""
    if element in FLOATS:
        return True
    readers = {graph.nodes[i].op_type for i in graph.readers[tensor]}
    return readers != {"DequantizeLinear"} and quantiser(graph, tensor) is not None


def _nothing_to_cut(graph: Graph, image: str, logits: str) -> ExportError:
    shapes = graph.shapes
    cuts = separators(graph, image, logits)
    kinds = {element for t in cuts for element, shape in [shapes.get(t, (0, ()))] if len(shape) == 4}
    other = sorted(TensorProto.DataType.Name(kind) for kind in kinds - {0, *FLOATS})
    if other:
        return ExportError(
            f"The feature maps are {', '.join(other)}; a cut needs real numbers. Export the model in float32, or quantise it "
            "with QuantizeLinear and DequantizeLinear (QDQ)."
        )
    between = [graph.nodes[i] for i in sorted(graph.above([logits]) & graph.below(image))]
    for operators, what in (
        (CONTROL, "is control flow; what happens inside cannot be cut. Export the model without it"),
        (RECURRENT, "is recurrent: there are no feature maps in space. camrt explains convolutional networks"),
        (ATTENTION, "attends to tokens: there are no feature maps in space. camrt explains convolutional networks"),
    ):
        found = next((node for node in between if node.op_type in operators), None)
        if found is not None:
            return ExportError(f"No feature map (N, C, h, w) separates the image from the scores: {describe(found)} {what}.")
    unknown = graph.first_unknown([logits])
    if unknown is not None:
        return ExportError(
            "No feature map (N, C, h, w) is known to separate the image from the scores: the shape of what "
            f"{describe(unknown)} gives cannot be inferred. Run onnxruntime.tools.symbolic_shape_infer on the model first."
        )
    return ExportError(
        "No feature map (N, C, h, w) with h x w > 1 separates the image from the scores, so there is nothing to cluster. "
        "Is this an image classifier?"
    )


def check_no_tokens(graph: Graph, layer: LayerChoice, image: str, logits: str) -> None:
    """Refuse to take for the last map what a network of tokens or a recurrent one starts from."""
    if sum(graph.nodes[i].op_type == "Conv" for i in graph.above([layer.tensor])) > PATCH_EMBEDDING:
        return
    varying = graph.below(image)
    for i in sorted(graph.below(layer.tensor) & graph.above([logits])):
        node = graph.nodes[i]
        products = node.op_type == "MatMul" and all(graph.writer.get(name) in varying for name in node.input[:2])
        if products or node.op_type in (*RECURRENT, *ATTENTION):
            height, width = layer.shape[1:]
            raise ExportError(
                f"The last map, {layer.tensor!r} ({height} x {width}), is what {describe(node)} and others make tokens of: "
                "this is a transformer or a recurrent network, whose scores come from no feature maps. camrt explains "
                "convolutional networks."
            )


def _automatic(graph: Graph, image: str, logits: str, cuts: list[LayerChoice], classes: int) -> tuple[int, str]:
    """Return the position of the automatic choice and why it is that one."""
    skipped: list[str] = []
    class_maps: list[str] = []
    graph = graph.standard
    last = _last_that_computes(graph, image, logits)
    for position in range(len(cuts) - 1, -1, -1):
        cut = cuts[position]
        if cut.shape[0] == classes and graph.writer[cut.tensor] >= last:
            class_maps.append(repr(cut.tensor))
            continue
        node = _behind_quantisation(graph, cut.tensor)
        if node is not None and node.op_type in CLOSING:
            skipped.append(f"the closing {describe(node)}")
            continue
        height, width = cut.shape[1:]
        if class_maps:
            skipped.append(f"the class maps {', '.join(reversed(class_maps))}")
        reason = f"the last map, {height} x {width}, that alone separates the image from the scores"
        return position, reason + (f", before {' and '.join(reversed(skipped))}" if skipped else "")
    return len(cuts) - 1, "the last map that alone separates the image from the scores; all are class maps or poolings"


def _first_that_computes(graph: Graph, image: str, logits: str) -> int:
    """Return the position of the first node between image and scores that does more than move, scale or round the pixels."""
    between = sorted(graph.below(image) & graph.above([logits]))
    return next((i for i in between if graph.nodes[i].op_type not in PIXELWISE), 0)


def _last_that_computes(graph: Graph, image: str, logits: str) -> int:
    """Return the position of the last node between image and scores that is more than activation, pooling or change of shape.

    What follows it keeps the maps apart; their type may change, and each may be scaled and shifted.
    """
    allowed = {*POOLS, *ACTIVATIONS, *SHAPE_ONLY, *QUANTISATION, "Cast"}
    between = sorted(graph.below(image) & graph.above([logits]), reverse=True)
    for i in between:
        node = graph.nodes[i]
        constants = sum(name in graph.initializers for name in node.input)
        if node.op_type not in allowed and not (node.op_type in AFFINE and constants == 1):
            return i
    return -1


def _behind_quantisation(graph: Graph, tensor: str) -> NodeProto | None:
    """Return the node that computes a tensor, looking through QuantizeLinear and DequantizeLinear."""
    node = graph.node_of(tensor)
    while node is not None and node.op_type in QUANTISATION:
        node = graph.node_of(node.input[0])
    return node


# --- by name ----------------------------------------------------------------------------------------------------------
def find_layer(graph: Graph, image: str, logits: str, name: str, source: str) -> LayerChoice:
    """Return the place to cut that a user names: "auto", a tensor, a node, or a PyTorch module path (its output).

    Raises
    ------
    UnknownLayer
        There is none of that name; the nearest is suggested.
    ExportError
        It is not a feature map, or something goes round it.
    """
    layers = list_layers(graph, image, logits)
    if name == AUTO:
        check_no_tokens(graph, layers[0], image, logits)
        return layers[0]
    tensor = _resolve(graph, name)
    if tensor is None:
        known = [t for layer in layers for t in (layer.tensor, layer.node, layer.module) if t]
        everything = known + [n for node in graph.nodes for n in (*node.output, node.name, *module_scopes(node)) if n]
        raise UnknownLayer(
            f"{source} has no layer {name!r}.{did_you_mean(name, dict.fromkeys(everything))} "
            f"Run 'camrt layers {source}' to list the {len(layers)} places where it can be cut."
        )
    for layer in layers:
        if layer.tensor == tensor:
            return replace(layer, reason="asked for by name")
    raise _refusal(graph, image, logits, name, tensor, layers)


def _resolve(graph: Graph, name: str) -> str | None:
    """Return the tensor that a tensor, node or module name means."""
    if name in graph.writer:
        return name
    named = [node for node in graph.nodes if node.name == name]
    inside = [node for node in graph.nodes if name in module_scopes(node)]
    nodes = named or inside
    return nodes[-1].output[0] if nodes else None


def _after_the_paths_meet(layers: list[LayerChoice], graph: Graph, below: set[int]) -> str:
    later = [layer.tensor for layer in layers if graph.writer[layer.tensor] in below]
    first = min(later, key=graph.writer.__getitem__, default=None)
    if first is None:
        return "No later feature map separates them; choose an earlier layer."
    return f"Choose the tensor after the paths meet, {first!r}."


def _refusal(graph: Graph, image: str, logits: str, name: str, tensor: str, layers: list[LayerChoice]) -> ExportError:
    """Say why a tensor that exists is no place to cut."""
    element, shape = graph.shapes.get(tensor, (0, ()))
    what = f"Layer {name!r}" if name == tensor else f"Layer {name!r} (tensor {tensor!r})"
    if element and not _is_real(graph, tensor, element):
        return ExportError(
            f"{what} holds {TensorProto.DataType.Name(element)}; a cut needs real numbers. Take a neighbouring tensor."
        )
    if len(shape) != 4:
        return ExportError(f"{what} is not a feature map (N, C, h, w): its shape is {written(shape)}. Choose an earlier layer.")
    if tensor in channels_last(graph, image):
        return ExportError(
            f"{what} is channels last, {written(shape)}; a cut needs (N, C, h, w). Choose a tensor behind a Transpose."
        )
    if shape[2] == shape[3] == 1:
        return ExportError(f"{what} has one cell, {written(shape)}, so there is nowhere to look. Choose an earlier layer.")
    if _rearranged((int(shape[2] or 0), int(shape[3] or 0)), layers):
        return ExportError(
            f"{what} holds the cells of an earlier map in other rows, {written(shape)}. Choose an earlier layer."
        )
    below, relevant = graph.below(tensor), graph.above([logits]) & graph.below(image)
    if graph.writer[tensor] not in relevant:
        return ExportError(f"{what} does not lie between the image and the scores. Choose another layer.")
    writer = graph.writer[tensor]
    ancestors_or_beside = relevant - below
    for i in sorted(below & relevant):
        for bypass in node_inputs(graph.nodes[i]):
            j = graph.writer.get(bypass)
            if bypass == image or (j is not None and j != writer and j in ancestors_or_beside):
                return ExportError(
                    f"{what} does not separate the image from the scores: {bypass!r} goes round it into "
                    f"{describe(graph.nodes[i])}. {_after_the_paths_meet(layers, graph, below)}"
                )
    return ExportError(f"{what} does not separate the image from the scores. Choose another layer.")
