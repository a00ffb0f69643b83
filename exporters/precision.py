"""Write a float32 network in float16: same operators, same names, float32 at its image and its logits.

A node computes in float16 where its operator can and its numbers stay in range; the others stay in float32, with a Cast where
one reads the other.  onnxruntime.transformers.float16 and onnxconverter-common do the same, but write a tensor
twice where two such nodes read it, clip weights beyond the range in silence, and infer shapes of files nobody vouches for.
"""

from __future__ import annotations

from collections.abc import Collection
from copy import deepcopy

import numpy as np
import onnx
from onnx import ModelProto, NodeProto, TensorProto, helper, numpy_helper

from camrt.errors import ExportError
from exporters.graph import FLOATS, QUANTISATION, STANDARD, Graph, all_names, describe, opset, rename, subgraphs, unused
from exporters.passes.quantisation import DYNAMIC

FLOAT, HALF = TensorProto.FLOAT, TensorProto.FLOAT16
LARGEST = float(np.finfo(np.float16).max)  # 65504
SMALLEST = float(np.finfo(np.float16).smallest_subnormal)  # 6e-8
AS_SOURCE, FP16 = "fp32", "fp16"
PRECISIONS = (AS_SOURCE, FP16)
WITHOUT = "Leave out --precision fp16"
KEPT = {  # squares, exponentials and variances leave the range inside the operator, though what goes in and comes out does not
    "BatchNormalization", "GroupNormalization", "InstanceNormalization", "LRN", "LayerNormalization", "LpNormalization",
    "MeanVarianceNormalization", "RMSNormalization",
    "Exp", "LogSoftmax", "Pow", "Softmax",
    "GlobalLpPool", "LpPool", "ReduceL2", "ReduceLogSum", "ReduceLogSumExp", "ReduceSumSquare",
}  # fmt: skip
BOUNDS = {"Clip", "Max", "Min"}  # a constant beyond the range is none to them
SIZES = {"Shape", "Size"}
ELEMENT = {"to", "dtype"}  # attributes that name an element type


def check_float32(graph: Graph) -> None:
    """Refuse a network that does not compute in float32.

    Raises
    ------
    ExportError
        It is quantised, or in float16 already.
    """
    for node in graph.nodes:
        if node.op_type in (*QUANTISATION, *DYNAMIC) or "Integer" in node.op_type or node.op_type.startswith("QLinear"):
            raise ExportError(
                f"--precision fp16 goes with a float32 network, and this one is quantised: {describe(node)}. {WITHOUT}: it is "
                "exported as it is; or export the network that it was made from."
            )
    found = {e for e in graph.types.values() if e in FLOATS} | {t.data_type for t in graph.initializers.values()}
    if HALF in found:
        raise ExportError(f"--precision fp16 has nothing to do: the model computes in float16 already. {WITHOUT}.")
    if other := found & {TensorProto.BFLOAT16, TensorProto.DOUBLE}:
        name = TensorProto.DataType.Name(min(other)).lower()
        raise ExportError(f"--precision fp16 goes with a float32 network, and this one has {name} numbers. {WITHOUT}.")


def to_float16(graph: Graph, image: str, logits: str) -> ModelProto:
    """Return the model in float16.

    Parameters
    ----------
    graph : Graph
        In normal form.
    image, logits : str
        Its input and its output, which stay float32.

    Raises
    ------
    ExportError
        A weight is beyond 65504.
    """
    writer = _Writer(graph, image)
    for i, node in enumerate(graph.nodes):
        writer.write(i, deepcopy(node))
    model = ModelProto()
    model.CopyFrom(graph.model)
    proto = model.graph
    for part in (proto.node, proto.initializer, proto.value_info):
        del part[:]
    writer.give_float32(logits)
    proto.node.extend(writer.nodes)
    proto.initializer.extend(writer.weights.values())
    return model


def float16_tensors(model: ModelProto) -> set[str]:
    """Return the tensors that a model holds in float16, those among them that it computes in float32 and casts."""
    cast = {n.input[0] for n in model.graph.node if n.op_type == "Cast" and n.attribute[0].i == HALF}
    return cast | {name for name, element in Graph(model).types.items() if element == HALF}


class _Writer:
    """Writes one node after the other, each tensor in the precisions that its readers want."""

    def __init__(self, graph: Graph, image: str):
        self.graph = graph
        self.names = all_names(graph.proto)
        self.nodes: list[NodeProto] = []
        self.weights = {name: tensor for name, tensor in graph.initializers.items() if tensor.data_type != FLOAT}
        self._element = {image: FLOAT}  # of every float tensor, by the name it has in the source
        self._cast: dict[tuple[str, int], str] = {}
        self._opset = opset(graph.model)
        self._sizes = _size_arithmetic(graph, image)

    def write(self, i: int, node: NodeProto) -> None:
        """Write a node in float16 where it can be, and in float32 elsewhere."""
        schema = self._schema(node)
        half = (
            schema is not None
            and i not in self._sizes
            and node.op_type not in KEPT
            and "tensor(float16)" in _types(schema.outputs, 0)
        )
        if not half:
            outside = {name for body in subgraphs(node) for name in self.graph.readers if name in all_names(body)}
            rename(node, {name: self._as(name, FLOAT, node) for name in {*node.input, *outside}})
        else:
            assert schema is not None
            for k, name in enumerate(node.input):
                wanted = HALF if "tensor(float16)" in _types(schema.inputs, k) else FLOAT
                node.input[k] = self._as(name, wanted, node)
            _retype(node)
        self.nodes.append(node)
        for name in filter(None, node.output):
            if self._is_float(name, node):
                self._element[name] = HALF if half else FLOAT

    def give_float32(self, logits: str) -> None:
        """Let the output keep its name and be float32."""
        if self._element[logits] == HALF:
            inner = unused(f"{logits}/float16", self.names)
            for node in self.nodes:
                rename(node, {logits: inner})
            self.nodes.append(helper.make_node("Cast", [inner], [logits], to=FLOAT))

    def _as(self, name: str, element: int, node: NodeProto) -> str:
        """Return the name of a tensor in a precision; other tensors than floats stay what they are."""
        tensor = self.graph.initializers.get(name)
        if tensor is not None and tensor.data_type == FLOAT:
            return self._weight(tensor, element, node)
        if self._element.get(name, element) == element:
            return name
        if (name, element) not in self._cast:
            cast = unused(f"{name}/{'float16' if element == HALF else 'float32'}", self.names)
            self.names.add(cast)
            self.nodes.append(helper.make_node("Cast", [name], [cast], to=element))
            self._cast[name, element] = cast
        return self._cast[name, element]

    def _weight(self, tensor: TensorProto, element: int, node: NodeProto) -> str:
        """Return the name of a weight in a precision; one that is read in both is there twice."""
        if (tensor.name, element) not in self._cast:
            kept = tensor if element == FLOAT else _rounded(tensor, node)
            name = tensor.name if tensor.name not in self.weights else unused(f"{tensor.name}/other", self.names)
            self.names.add(name)
            self.weights[name] = TensorProto()
            self.weights[name].CopyFrom(kept)
            self.weights[name].name = name
            self._cast[tensor.name, element] = name
        return self._cast[tensor.name, element]

    def _is_float(self, name: str, node: NodeProto) -> bool:
        element = self.graph.types.get(name)
        if not element:
            raise ExportError(
                f"The element type of {name!r}, which {describe(node)} writes, is unknown, so that the network cannot be "
                f"written in float16. {WITHOUT}."
            )
        return element == FLOAT

    def _schema(self, node: NodeProto) -> onnx.defs.OpSchema | None:
        """Return an operator's definition; None for one of another domain, and for branches and loops."""
        if node.domain not in STANDARD or subgraphs(node):
            return None
        return onnx.defs.get_schema(node.op_type, self._opset, "")


def _types(parameters: Collection[onnx.defs.OpSchema.FormalParameter], k: int) -> set[str]:
    """Return the types that an operator's k-th input or output may have; the last one may stand for any number."""
    return set(list(parameters)[min(k, len(parameters) - 1)].types) if parameters else set()


def _size_arithmetic(graph: Graph, image: str) -> set[int]:
    """Return the nodes that compute with sizes, not with pixels: float16 knows no whole numbers beyond 2048."""
    measures = [i for i, node in enumerate(graph.nodes) if node.op_type in SIZES]
    pixels, sizes = {image}, set()
    for name in (output for i in measures for output in graph.nodes[i].output):
        sizes |= graph.below(name)
    carried: set[int] = set()
    for i, node in enumerate(graph.nodes):
        if node.op_type not in SIZES and pixels.intersection(node.input):
            carried.add(i)
            pixels.update(node.output)
    return sizes - carried


def _rounded(tensor: TensorProto, node: NodeProto) -> TensorProto:
    """Return a weight in float16; a small constant does not become 0, which something may be divided by."""
    values = numpy_helper.to_array(tensor)
    finite = np.isfinite(values)
    with np.errstate(over="ignore", under="ignore"):
        half = values.astype(np.float16)
    if node.op_type in BOUNDS and values.size == 1:
        half = np.where(finite, np.clip(values, -LARGEST, LARGEST), values).astype(np.float16)
    elif (lost := finite & ~np.isfinite(half)).any():
        raise ExportError(
            f"--precision fp16 cannot hold the weight {tensor.name!r} of {describe(node)}: it has "
            f"{np.abs(values[lost]).max():.4g}, and float16 ends at {LARGEST:g}. {WITHOUT}."
        )
    if values.size == 1:
        half = np.where((half == 0) & (values != 0), np.copysign(np.float16(SMALLEST), half), half)
    return numpy_helper.from_array(np.asarray(half, np.float16), tensor.name)


def _retype(node: NodeProto) -> None:
    """Let an attribute that names float32, or holds such numbers, say float16."""
    if node.op_type == "ConstantOfShape" and not node.attribute:
        node.attribute.append(helper.make_attribute("value", numpy_helper.from_array(np.zeros(1, np.float16))))
    for a in node.attribute:
        if a.name in ELEMENT and a.i == FLOAT:
            a.i = HALF
        elif a.t.data_type == FLOAT:
            a.t.CopyFrom(_rounded(a.t, node))
