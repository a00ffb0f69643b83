"""Cut a normal model at a tensor: head, tail, and the score graph that masks images and runs the whole model on them."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import astuple, dataclass

from onnx import ModelProto, NodeProto, TensorProto, ValueInfoProto, helper

from camrt.errors import ExportError
from camrt.image import FLAT
from camrt.manifest import Weight
from exporters.emitter import Emitter
from exporters.graph import (
    FLOATS,
    STANDARD,
    Graph,
    all_names,
    fitting_ir,
    node_inputs,
    opset,
    quantiser,
    rename_tensors,
    renamed,
    unused,
)
from exporters.weights import external

IMAGE, FEATURES, LOGITS = "image", "features", "logits"
BASELINE, MAPS, UP_ROWS, UP_COLUMNS, NORMALISE = "baseline", "maps", "up_rows", "up_columns", "normalise"
COTANGENT, GRADIENTS = "cotangent", "gradients"
PREFIX = "camrt"  # of every tensor that the score and gradient graphs add


@dataclass(frozen=True)
class Shapes:
    """The bundle's tensor shapes: image (channels, H, W), features (C, h, w), number of classes."""

    image: tuple[int, int, int]
    features: tuple[int, int, int]
    classes: int


@dataclass(frozen=True)
class Cut:
    """A graph of the bundle before its weights have a place: nodes, added constants, interface, the least opset it needs.

    `inside` holds tensors whose shape is told because it cannot be inferred.
    """

    nodes: list[NodeProto]
    constants: list[TensorProto]
    inputs: list[ValueInfoProto]
    outputs: list[ValueInfoProto]
    least_opset: int = 0
    inside: tuple[ValueInfoProto, ...] = ()

    def has(self, operator: str) -> bool:
        """Tell whether a node of that operator is in the graph."""
        return any(node.op_type == operator for node in self.nodes)

    def reads(self, graph: Graph) -> set[str]:
        """Return the model's initializers that this graph reads."""
        return {name for node in self.nodes for name in node_inputs(node)} & graph.initializers.keys()


def rename_interface(model: ModelProto, image: str, features: str, logits: str) -> None:
    """Call the three tensors image, features and logits everywhere, and whatever else has such a name something else."""
    roles = {image: IMAGE, features: FEATURES, logits: LOGITS}
    taken = {IMAGE, FEATURES, LOGITS, BASELINE, MAPS, UP_ROWS, UP_COLUMNS, NORMALISE, COTANGENT, GRADIENTS}
    graph = model.graph
    names = all_names(graph)
    new = {name: unused(f"{name}/{PREFIX}", names) for name in names if name in taken or name.startswith(f"{PREFIX}/")} | roles
    rename_tensors(model, new)


def bridge(model: ModelProto, tensor: str) -> str:
    """Return the features in float32, for a tensor of another type: behind it one node there and one back, both exact.

    They are Casts, or DequantizeLinear and QuantizeLinear.  Of float64 the features keep what float32 holds.
    """
    graph = Graph(model)
    element = graph.types[tensor]
    if element == TensorProto.FLOAT:
        return tensor
    scale = None if element in FLOATS else quantiser(graph, tensor)
    names = all_names(model.graph)
    features, back = (unused(f"{tensor}/{word}", names) for word in ("float32", "back"))
    readers = set(graph.readers[tensor])
    nodes: list[NodeProto] = []
    for i, node in enumerate(graph.nodes):
        nodes.append(renamed(node, {tensor: back}) if i in readers else node)
        if tensor in node.output:
            if scale is not None:
                nodes.append(helper.make_node("DequantizeLinear", [tensor, *astuple(scale)], [features], name=features))
                nodes.append(helper.make_node("QuantizeLinear", [features, *astuple(scale)], [back], name=back))
            else:
                nodes.append(helper.make_node("Cast", [tensor], [features], name=features, to=TensorProto.FLOAT))
                nodes.append(helper.make_node("Cast", [features], [back], name=back, to=element))
    del model.graph.node[:]
    model.graph.node.extend(nodes)
    return features


def head(graph: Graph, shapes: Shapes) -> Cut:
    """Return image (N, 3, H, W) → features (N, C, h, w)."""
    above = graph.above([FEATURES])
    nodes = [graph.nodes[i] for i in sorted(above)]
    return _checked(graph, Cut(nodes, [], [value(IMAGE, "N", *shapes.image)], [value(FEATURES, "N", *shapes.features)]))


def tail(graph: Graph, shapes: Shapes) -> Cut:
    """Return features (N, C, h, w) → logits (N, L)."""
    above = graph.above([LOGITS], stop=[FEATURES])
    nodes = [graph.nodes[i] for i in sorted(above)]
    return _checked(graph, Cut(nodes, [], [value(FEATURES, "N", *shapes.features)], [value(LOGITS, "N", shapes.classes)]))


def score(graph: Graph, shapes: Shapes) -> Cut:
    """Return image, baseline (N, 3, H, W), maps (N, K, rows, columns), … → logits (N, K, L), features (N · K, C, h, w).

    Upsample the maps, which may have any size, scale each to [0, 1] where `normalise` is true, blend image and baseline with
    it, then run the whole model on the N · K masked images.  Upsampling is a product with the matrices `up_rows` (k, H, rows)
    and `up_columns` (k, columns, W), k being 1 or K: several times as fast as the operator Resize, and any interpolation,
    shift or crop is one of them.
    """
    op = Emitter(PREFIX, opset=opset(graph.model))
    channels, height, width = shapes.image
    batch = op.Slice(op.Shape(MAPS), op.constant([0]), op.constant([2]))
    up = op.MatMul(op.MatMul(UP_ROWS, MAPS), UP_COLUMNS)
    low, high = op.reduce("ReduceMin", up, 2, 3), op.reduce("ReduceMax", up, 2, 3)
    span = op.Sub(high, low)
    zero, one, flat = (op.constant(value, "float32") for value in (0, 1, FLAT))
    varies = op.Greater(span, op.Mul(op.Max(op.Abs(low), op.Abs(high)), flat))
    gain = op.Where(varies, op.Div(one, op.Where(varies, span, one)), zero)  # 0 for a flat map
    offset, gain = op.Where(NORMALISE, low, zero), op.Where(NORMALISE, gain, one)
    masks = op.Unsqueeze(op.Mul(op.Sub(up, offset), gain), op.constant([2]))  # (N, K, 1, H, W)
    axis = op.constant([1])
    difference = op.Unsqueeze(op.Sub(IMAGE, BASELINE), axis)  # (N, 1, 3, H, W)
    blended = op.Add(op.Unsqueeze(BASELINE, axis), op.Mul(difference, masks))
    masked = op.Reshape(blended, op.constant([-1, channels, height, width]))
    before, each = len(op.nodes), f"{PREFIX}/logits"
    op.name(op.Reshape(each, op.Concat(batch, op.constant([shapes.classes]), axis=0)), LOGITS)
    after = op.nodes[before:]
    model_nodes = [renamed(node, {IMAGE: masked, LOGITS: each}) for node in graph.nodes]
    inputs = [
        value(IMAGE, "N", *shapes.image),
        value(BASELINE, "N", *shapes.image),
        value(MAPS, "N", "K", "rows", "columns"),
        value(UP_ROWS, "own or one", height, "rows"),
        value(UP_COLUMNS, "own or one", "columns", width),
        helper.make_tensor_value_info(NORMALISE, TensorProto.BOOL, []),
    ]
    nodes = [*op.nodes[:before], *model_nodes, *after]
    outputs = [value(LOGITS, "N", "K", shapes.classes), value(FEATURES, "masked", *shapes.features)]
    # Behind the Reshape the batch has no name of its own; without one ONNX Runtime does not see that two tensors are of one
    # size, and copies each shortcut of a residual network instead of adding in place.
    return Cut(nodes, op.initializers, inputs, outputs, inside=(value(masked, "masked", *shapes.image),))


def to_model(cut: Cut, graph: Graph, weights: Iterable[Weight]) -> ModelProto:
    """Return a graph of the bundle as a model whose weights lie in weights.bin."""
    placed = {weight.name: weight for weight in weights}
    read = cut.reads(graph)
    initializers = [
        external(tensor, placed[name]) if name in placed else tensor
        for name, tensor in graph.initializers.items()
        if name in read
    ]
    proto = helper.make_graph(cut.nodes, "camrt", cut.inputs, cut.outputs, [*initializers, *cut.constants])
    proto.value_info.extend(cut.inside)
    for node in proto.node:
        del node.metadata_props[:]
    model = helper.make_model(proto, producer_name="camrt", opset_imports=graph.model.opset_import)
    for entry in model.opset_import:
        if entry.domain in STANDARD:
            entry.version = max(entry.version, cut.least_opset)
    model.ir_version = fitting_ir(model)
    return model


def _checked(graph: Graph, cut: Cut) -> Cut:
    """Refuse a part that reads what neither it nor its interface provides."""
    provided = {name for node in cut.nodes for name in node.output} | {v.name for v in cut.inputs} | graph.initializers.keys()
    missing = sorted({name for node in cut.nodes for name in node_inputs(node)} - provided)
    if missing:
        raise ExportError(
            f"The part {cut.inputs[0].name} → {cut.outputs[0].name} lacks {', '.join(missing)}. Choose another layer."
        )
    return cut


def value(name: str, *shape: int | str) -> ValueInfoProto:
    """Return a float32 input or output of that shape, a free dimension as text."""
    return helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)
