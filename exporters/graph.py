"""An ONNX graph by tensor name: who writes a tensor, who reads it, what depends on what, which shape it has."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping
from copy import deepcopy
from functools import cached_property
from math import prod

import onnx
from onnx import GraphProto, ModelProto, NodeProto, TensorProto, helper

from camrt.errors import ExportError, one_line
from exporters.inference import infer
from exporters.standard import RULES, Quantised, standard

Shape = tuple[int | str | None, ...]
FLOATS = (TensorProto.FLOAT, TensorProto.DOUBLE, TensorProto.FLOAT16, TensorProto.BFLOAT16)
MAX_SHAPE = 4096  # elements of a constant that shapes may be computed from; larger ones are weights
STANDARD = ("", "ai.onnx")  # the domain of the standard operators has two names
AFFINE = ("Add", "Sub", "Mul", "Div")
QUANTISATION = ("DequantizeLinear", "QuantizeLinear")
SAME_SCALE = (  # whole numbers that come out of these stand for real ones as those that go in
    "MaxPool", "Reshape", "Transpose", "Flatten", "Squeeze", "Unsqueeze", "Identity", "Slice", "Resize", "Relu", "Clip",
)  # fmt: skip
SAME_AXES = {"MaxPool", "Identity", "Relu", "Clip"}  # behind these a scale for each channel is still one for each
LOWEST_IR = 8  # external data, initializers that are no inputs, and every opset from 13 to 17


def node_inputs(node: NodeProto) -> list[str]:
    """Return the tensors a node reads, those that its subgraphs take from outside among them."""
    names = [name for name in node.input if name]
    for body in subgraphs(node):
        inside = {name for inner in body.node for name in inner.output}
        inside |= {value.name for value in (*body.input, *body.initializer)}
        names += [n for inner in body.node for n in node_inputs(inner) if n not in inside]
        names += [value.name for value in body.output if value.name not in inside]
    return names


def describe(node: NodeProto) -> str:
    """Return how messages name a node: "Add 'node_add_3'"."""
    return f"{node.op_type} {(node.name or node.output[0])!r}"


def written(shape: Shape) -> str:
    """Return how messages show a shape: "(N, 3, ?, 224)", a question mark where nothing is known.

    >>> written(("N", 3, None, 224))
    '(N, 3, ?, 224)'
    """
    return f"({', '.join('?' if d is None else str(d) for d in shape)})"


class Graph:
    """A read-only view on a model's graph; make a new one after changing the model.

    Parameters
    ----------
    model : ModelProto
    safe : set of str, optional
        What earlier views on the same model found out for `exporters.inference.infer`, so that it is not done again.
    """

    def __init__(self, model: ModelProto, safe: set[str] | None = None):
        self.model = model
        self.safe = set() if safe is None else safe
        self.proto: GraphProto = model.graph
        self.nodes: list[NodeProto] = list(model.graph.node)
        self.initializers: dict[str, TensorProto] = {t.name: t for t in model.graph.initializer}
        self.inputs = [v for v in model.graph.input if v.name not in self.initializers]
        self.writer = {name: i for i, node in enumerate(self.nodes) for name in node.output if name}
        self.readers: dict[str, list[int]] = defaultdict(list)
        for i, node in enumerate(self.nodes):
            for name in node_inputs(node):
                self.readers[name].append(i)

    def node_of(self, tensor: str) -> NodeProto | None:
        """Return the node that writes a tensor; None for an input or initializer."""
        i = self.writer.get(tensor)
        return None if i is None else self.nodes[i]

    def above(self, tensors: Iterable[str], stop: Iterable[str] = ()) -> set[int]:
        """Return the nodes on which `tensors` depend, not looking beyond the tensors of `stop`."""
        stopped, found, waiting = set(stop), set(), list(tensors)
        while waiting:
            tensor = waiting.pop()
            i = self.writer.get(tensor)
            if i is None or tensor in stopped or i in found:
                continue
            found.add(i)
            waiting.extend(node_inputs(self.nodes[i]))
        return found

    def below(self, tensor: str) -> set[int]:
        """Return the nodes that depend on a tensor."""
        found: set[int] = set()
        waiting = [tensor]
        while waiting:
            for i in self.readers.get(waiting.pop(), ()):
                if i not in found:
                    found.add(i)
                    waiting.extend(self.nodes[i].output)
        return found

    def first_unknown(self, tensors: Iterable[str]) -> NodeProto | None:
        """Return the first node above `tensors` of whose output inference does not know the shape."""
        above = (self.nodes[i] for i in sorted(self.above(tensors)))
        return next((node for node in above if node.output[0] not in self.shapes), None)

    @cached_property
    def types(self) -> dict[str, int]:
        """Return the element type of every tensor of which the file or inference tells it."""
        declared = {value.name: value.type.tensor_type.elem_type for value in (*self.proto.value_info, *self.proto.output)}
        return declared | {name: element for name, (element, _) in self.shapes.items()}

    @cached_property
    def shapes(self) -> dict[str, tuple[int, Shape]]:
        """Return element type and shape of every weight, and of every tensor of which inference knows them."""
        weights: dict[str, tuple[int, Shape]] = {name: (t.data_type, tuple(t.dims)) for name, t in self.initializers.items()}
        return weights | dict(map(_shape, self._inferred))

    @cached_property
    def standard(self) -> Graph:
        """Return the same graph in standard operators, its tensors by the same names."""
        if not any(node.op_type in RULES for node in self.nodes):
            return self
        nodes, constants = standard(self.nodes, self.initializers, opset(self.model))
        proto = helper.make_graph(
            nodes, self.proto.name, self.proto.input, self.proto.output, [*self.initializers.values(), *constants]
        )
        model = helper.make_model(proto, opset_imports=self.model.opset_import, ir_version=self.model.ir_version)
        return Graph(model, self.safe)

    def _outline(self) -> ModelProto:
        """Return what inference needs: standard operators, and of large weights only type and shape."""
        nodes, added = standard(self.nodes, self.initializers, opset(self.model))
        large = {name: t for name, t in self.initializers.items() if prod(t.dims) > MAX_SHAPE}
        inputs = [helper.make_tensor_value_info(name, t.data_type, t.dims) for name, t in large.items()]
        small = [t for name, t in self.initializers.items() if name not in large]
        proto = helper.make_graph(nodes, "outline", [*self.inputs, *inputs], self.proto.output, [*small, *added])
        return helper.make_model(proto, opset_imports=self.model.opset_import, ir_version=fitting_ir(self.model))

    @cached_property
    def _inferred(self) -> list[onnx.ValueInfoProto]:
        outline = self._outline()
        found = _infer(outline, self.safe)
        unknown = any(name not in found for node in self.nodes for name in node.output)
        if unknown and self.proto.value_info:
            outline.graph.value_info.extend(self.proto.value_info)  # what the file says helps where inference ends
            found = _infer(outline, self.safe) | found
        return [value for name, value in found.items() if name not in self.initializers]


def _infer(model: ModelProto, safe: set[str]) -> dict[str, onnx.ValueInfoProto]:
    """Return what inference finds out about tensors: those of which it knows the shape, and outputs' types."""
    try:
        graph = infer(model, safe).graph
    except MemoryError:
        raise ExportError(
            "The model's shapes cannot be inferred: it takes a tensor of very many numbers for a shape. Export it for a "
            "fixed size of the image."
        ) from None
    except Exception as error:  # the C++ inference raises several types of its own
        raise ExportError(
            f"The model's shapes cannot be inferred: {one_line(error)}. Export it again, or look with onnx.checker.check_model "
            "for what contradicts itself."
        ) from None
    values = [v for v in (*graph.value_info, *graph.input, *graph.output) if v.type.HasField("tensor_type")]
    return {v.name: v for v in values if v.type.tensor_type.HasField("shape")}


def _shape(value: onnx.ValueInfoProto) -> tuple[str, tuple[int, Shape]]:
    tensor = value.type.tensor_type
    dims = (d.dim_value if d.HasField("dim_value") else d.dim_param or None for d in tensor.shape.dim)
    return value.name, (tensor.elem_type, tuple(dims))


def quantiser(graph: Graph, tensor: str) -> Quantised | None:
    """Return how whole numbers stand for real ones in a tensor of a quantised model; None where that is not known."""
    plain = graph.standard
    node, moved = plain.node_of(tensor), set()
    while node is not None and node.op_type in SAME_SCALE:
        moved.add(node.op_type)
        node = plain.node_of(node.input[0])
    if node is None or node.op_type != "QuantizeLinear":
        return None
    scale = plain.initializers.get(node.input[1])
    several = scale is not None and prod(scale.dims) > 1
    if several and (attribute(node, "axis", 1) not in (1, -3) or moved - SAME_AXES):  # not one a channel any more
        return None
    return Quantised(node.input[1], node.input[2] if len(node.input) > 2 else "")


def output_quantiser(graph: Graph, logits: str) -> NodeProto | None:
    """Return the QuantizeLinear that rounds the logits themselves; None for a model in standard operators without one."""
    node = graph.node_of(logits)
    while node is not None and node.op_type in ("DequantizeLinear", "Identity", "Flatten", "Reshape"):
        node = graph.node_of(node.input[0])
    return node if node is not None and node.op_type == "QuantizeLinear" else None


def attribute(node: NodeProto, name: str, default: object = None) -> object:
    """Return a node's attribute as a Python value."""
    for entry in node.attribute:
        if entry.name == name:
            return helper.get_attribute_value(entry)
    return default


def fitting_ir(model: ModelProto) -> int:
    """Return the lowest IR version that a model's operators allow, but no lower than 8: older runtimes refuse newer ones."""
    return max(LOWEST_IR, helper.find_min_ir_version_for(model.opset_import, ignore_unknown=True))


def opset(model: ModelProto) -> int:
    """Return the version of the standard operators that a model uses."""
    return max((o.version for o in model.opset_import if o.domain in STANDARD), default=1)


def keep_output(graph: GraphProto, name: str, element: int) -> None:
    """Make a tensor the only output; without a shape, as a fixed batch in it would contradict the inference."""
    value = onnx.ValueInfoProto(name=name)
    value.type.tensor_type.elem_type = element
    del graph.output[:]
    graph.output.append(value)


def subgraphs(node: NodeProto) -> list[GraphProto]:
    """Return the bodies of a node's branches and loops."""
    return [body for a in node.attribute for body in ([a.g] if a.HasField("g") else a.graphs)]


def all_names(graph: GraphProto) -> set[str]:
    """Return the name of every tensor of a graph, those in branches and loops too."""
    names = {value.name for value in (*graph.initializer, *graph.input, *graph.output)}
    for node in graph.node:
        names |= {*node.input, *node.output} - {""}
        for body in subgraphs(node):
            names |= all_names(body)
    return names


def unused(name: str, taken: Collection[str]) -> str:
    """Return the name, with primes behind it while it is taken."""
    while name in taken:
        name += "'"
    return name


def renamed(node: NodeProto, new: Mapping[str, str]) -> NodeProto:
    """Return a copy of a node with other names for its tensors, those in its branches and loops too."""
    copied = deepcopy(node)
    rename(copied, new)
    return copied


def rename(node: NodeProto, new: Mapping[str, str]) -> None:
    """Give a node's tensors other names, in place."""
    for names in (node.input, node.output):
        for i, name in enumerate(names):
            names[i] = new.get(name, name)
    for body in subgraphs(node):
        for inner in body.node:
            rename(inner, new)
        for value in (*body.input, *body.output, *body.initializer):
            value.name = new.get(value.name, value.name)


def rename_tensors(model: ModelProto, new: Mapping[str, str]) -> None:
    """Give tensors other names in a whole model, in place."""
    graph = model.graph
    for node in graph.node:
        rename(node, new)
    for tensor in (*graph.initializer, *graph.input, *graph.output, *graph.value_info):
        tensor.name = new.get(tensor.name, tensor.name)


def operators(graph: GraphProto) -> set[str]:
    """Return the operators of a graph, those in branches and loops too."""
    found = {node.op_type for node in graph.node}
    return found.union(*(operators(body) for node in graph.node for body in subgraphs(node)))


def fresh_names(model: ModelProto, prefix: str) -> Iterator[str]:
    """Yield tensor names that the model does not use."""
    used = all_names(model.graph)
    number = 0
    while True:
        name = f"{prefix}_{number}"
        number += 1
        if name not in used:
            yield name
