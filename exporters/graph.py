"""An ONNX graph by tensor name: who writes a tensor, who reads it, what depends on what, which shape it has."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping
from functools import cached_property

import onnx
from onnx import GraphProto, ModelProto, NodeProto, TensorProto, helper

from camrt.errors import ExportError, one_line

Shape = tuple[int | str | None, ...]
STANDARD = ("", "ai.onnx")  # the domain of the standard operators has two names


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


class Graph:
    """A read-only view on a model's graph; make a new one after changing the model."""

    def __init__(self, model: ModelProto):
        self.model = model
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

    @cached_property
    def shapes(self) -> dict[str, tuple[int, Shape]]:
        """Return element type and shape of every tensor that shape inference knows."""
        try:
            inferred = onnx.shape_inference.infer_shapes(self.model, data_prop=True)
        except Exception as error:  # the C++ inference raises several types of its own
            raise ExportError(f"The model's shapes cannot be inferred: {one_line(error)}.") from None
        values = (*inferred.graph.value_info, *inferred.graph.input, *inferred.graph.output)
        return dict(_shape(value) for value in values if value.type.tensor_type.HasField("shape"))


def _shape(value: onnx.ValueInfoProto) -> tuple[str, tuple[int, Shape]]:
    tensor = value.type.tensor_type
    dims = (d.dim_value if d.HasField("dim_value") else d.dim_param or None for d in tensor.shape.dim)
    return value.name, (tensor.elem_type, tuple(dims))


def output_quantiser(graph: Graph, logits: str) -> NodeProto | None:
    """Return the QuantizeLinear that rounds the logits themselves; None for a model that does not end in one."""
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


LOWEST_IR = 8  # external data, initializers that are no inputs, and every opset from 13 to 17


def fitting_ir(model: ModelProto) -> int:
    """Return the lowest IR version that a model's operators allow, but no lower than 8: older runtimes refuse newer ones."""
    return max(LOWEST_IR, helper.find_min_ir_version_for(model.opset_import, ignore_unknown=True))


def opset(model: ModelProto) -> int:
    """Return the version of the standard operators that a model uses."""
    return max((o.version for o in model.opset_import if o.domain in STANDARD), default=1)


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
    copied = NodeProto()
    copied.CopyFrom(node)
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
