"""Walk the tail backwards: from its graph, the graph of its vector-Jacobian product.

(features (N, C, h, w), cotangent (N, L)) → gradients (N, C, h, w) = (∂logits/∂features)ᵀ cotangent, reverse mode, with one
rule of `exporters.vjps` for every operator.  A node's gradient is the sum of what its readers send back.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Sequence
from copy import deepcopy

from onnx import NodeProto, TensorProto

from camrt.errors import one_line
from exporters.emitter import Emitter
from exporters.graph import FLOATS, STANDARD, Graph, describe, node_inputs, output_quantiser
from exporters.split import COTANGENT, FEATURES, GRADIENTS, LOGITS, PREFIX, Cut, Shapes, value
from exporters.vjps import RULES, STOPS, WHOLE, Forward, Gradients, NoGradient, Rule, sum_to

LEAST_OPSET = 16  # ScatterElements that adds; no operator with a rule changed what it computes between 13 and 16


def gradient(graph: Graph, shapes: Shapes) -> Cut:
    """Return features, cotangent → gradients.

    Raises
    ------
    NoGradient
        An operator between the features and the logits has no rule, or none for the way it is used.
    """
    whole, graph = graph, graph.standard
    op = Emitter(PREFIX)
    above = sorted(graph.above([LOGITS], stop=[FEATURES]))
    nodes = {i: deepcopy(graph.nodes[i]) for i in above}
    between = graph.below(FEATURES) & nodes.keys()
    carried = _carried(graph, between)
    _check_rules(graph, between, carried)
    last_quantiser = output_quantiser(graph, LOGITS)
    sent: dict[str, list[str]] = defaultdict(list, {LOGITS: [COTANGENT]})
    for i in sorted(between, reverse=True):
        gs = [_sum(op, sent[name]) for name in graph.nodes[i].output]
        if any(gs):
            forward = Forward(graph, nodes[i], of_logits=graph.nodes[i] is last_quantiser)
            for name, g in _backward(op, forward, gs, carried):
                sent[name].append(g)
    arrived = _sum(op, sent[FEATURES])
    if arrived is None:
        raise NoGradient(f"no gradient reaches the features: {_last_stop(graph, between)} lets none through")
    op.name(op.Identity(arrived), GRADIENTS)
    inputs = [value(FEATURES, "N", *shapes.features), value(COTANGENT, "N", shapes.classes)]
    added = [tensor for name, tensor in graph.initializers.items() if name not in whole.initializers]
    needed, constants = _needed([*nodes.values(), *op.nodes], [*op.initializers, *added])
    return Cut(needed, constants, inputs, [value(GRADIENTS, "N", *shapes.features)], LEAST_OPSET)


def _carried(graph: Graph, nodes: Collection[int]) -> set[str]:
    """Return the tensors that change smoothly with the features: those that do not lie behind `STOPS` alone."""
    carried = {FEATURES}
    for i in sorted(nodes):
        node = graph.nodes[i]
        stops = node.op_type in STOPS and node.domain in STANDARD
        if not stops and carried.intersection(node_inputs(node)):
            carried.update(filter(None, node.output))
    return carried


def _check_rules(graph: Graph, nodes: Collection[int], carried: Collection[str]) -> None:
    """Refuse the last operator without a rule by name, before the nodes behind it miss the shapes that it leaves unknown."""
    reached = {LOGITS}
    for i in sorted(nodes, reverse=True):
        node = graph.nodes[i]
        if reached.intersection(carried, node.output):
            if node.op_type not in RULES or node.domain not in STANDARD:
                raise NoGradient(f"no gradient rule for {describe(node)}")
            reached.update(node.input)


def _backward(op: Emitter, node: Forward, gs: Sequence[str | None], carried: Collection[str]) -> list[tuple[str, str]]:
    """Return, for every input that depends on the features, its name and what the node sends back to it."""
    operator = node.proto.op_type
    if operator in STOPS:
        return []
    rule = RULES.get(operator)
    if rule is None:  # reached through what a branch or loop reads from outside
        raise node.refuse("no gradient rule")
    # A node between whole numbers, inside a quantised stretch, computes in the type of the nodes behind it.
    op.dtype = next((node.dtype(name) for name in (node.y, node.x) if node.element_type(name) in FLOATS), op.dtype)
    try:
        entries = _entries(op, rule, node, gs)
    except NoGradient:
        raise
    except Exception as error:  # whatever an attribute outside the operator's definition leads to
        raise node.refuse(f"its gradient cannot be derived ({type(error).__name__}: {one_line(error)})") from error
    if len(entries) != len(node.inputs):
        raise node.refuse(f"{len(entries)} gradients for {len(node.inputs)} inputs")
    for name, entry in zip(node.inputs, entries, strict=True):
        if entry is None and name in carried and node.element_type(name) not in WHOLE and operator not in ("Cast", "CastLike"):
            raise node.refuse(f"no gradient rule for its input {name!r}, which depends on the features")
    flows = [(name, entry) for name, entry in zip(node.inputs, entries, strict=True) if entry is not None and name in carried]
    if rule.broadcasts:
        shape = node.shape(node.y)
        return [(name, sum_to(op, node, g, shape, node.shape(name))) for name, g in flows]
    return flows


def _entries(op: Emitter, rule: Rule, node: Forward, gs: Sequence[str | None]) -> Gradients:
    """Ask the rule; all outputs but the first count only for Split."""
    if node.proto.op_type == "Split":
        return rule.emit(op, node, *gs)
    if any(gs[1:]):
        raise node.refuse("a gradient through its second output")
    return rule.emit(op, node, gs[0])


def _sum(op: Emitter, gs: list[str]) -> str | None:
    if len(gs) < 2:
        return gs[0] if gs else None
    return op.Sum(*gs)


def _needed(nodes: list[NodeProto], constants: list[TensorProto]) -> tuple[list[NodeProto], list[TensorProto]]:
    """Leave out the nodes and constants on which the gradients do not depend."""
    wanted, kept = {GRADIENTS}, []
    for node in reversed(nodes):
        if wanted.intersection(node.output):
            kept.append(node)
            wanted.update(node_inputs(node))
    return kept[::-1], [tensor for tensor in constants if tensor.name in wanted]


def _last_stop(graph: Graph, nodes: Collection[int]) -> str:
    """Name the last node that stops a gradient."""
    found = [describe(graph.nodes[i]) for i in sorted(nodes) if graph.nodes[i].op_type in STOPS]
    return found[-1] if found else "the tail"
