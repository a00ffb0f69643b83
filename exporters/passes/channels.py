"""Keep feature maps channels first: Transposes to channels last move down until they meet their inverse, and vanish.

Models from TensorFlow and Keras hold maps as (N, h, w, C), with Transposes round every operator that wants (N, C, h, w), or
only at the border.  A Transpose moves towards the scores through every operator that has a rule, and stays above the others.
"""

from __future__ import annotations

from collections.abc import Sequence
from copy import deepcopy
from typing import TYPE_CHECKING

from onnx import NodeProto, helper

from exporters.graph import STANDARD, attribute
from exporters.transposes import RULES, Crossing, Perm, Stays, Views, identity

if TYPE_CHECKING:
    from exporters.passes import Normal


def channels_first(normal: Normal) -> None:
    """Move Transposes to channels last down; an operator above them writes its maps channels first, under the same name.

    Outputs, and what branches and loops take from outside, keep their layout.
    """
    proto = normal.model.graph
    if not any(_is_transpose(node) for node in proto.node):
        return
    graph = normal.graph()
    views = Views(graph)
    for node in graph.nodes:
        _write(node, views)
    known = [value for value in proto.value_info if value.name not in views.of]
    del proto.node[:], proto.value_info[:]
    proto.node.extend(views.nodes)
    proto.value_info.extend(known)
    proto.initializer.extend(views.constants.values())


def _is_transpose(node: NodeProto) -> bool:
    return node.op_type == "Transpose" and node.domain in STANDARD


def _write(node: NodeProto, views: Views) -> None:
    """Write a node above the Transposes of its inputs, or below them; a Transpose only leaves a note."""
    order = _order(node, views) if _is_transpose(node) else None
    if order is not None:
        views.note(node, order)
    elif any(name in views.of for name in node.input):
        if not _write_above(node, views):
            _write_below(node, views)
    else:
        views.nodes.append(node)


def _order(node: NodeProto, views: Views) -> Perm | None:
    """Return a Transpose's permutation, which reverses the axes where none is given; None where their number is unknown."""
    given = attribute(node, "perm")
    if isinstance(given, list):
        return tuple(given)
    rank = views.rank(node.input[0])
    return None if rank is None else identity(rank)[::-1]


def _write_below(node: NodeProto, views: Views) -> None:
    """Write a node that reads its inputs as they were."""
    moved = deepcopy(node)
    moved.input[:] = [views.written(name) for name in node.input]
    views.nodes.append(moved)


def _write_above(node: NodeProto, views: Views) -> bool:
    """Write a node that reads what the Transposes read, and note the Transposes behind it; tell whether it can be done."""
    rule = RULES.get(node.op_type) if node.domain in STANDARD else None
    if rule is None:
        return False
    data = node.input if rule.joins else node.input[:1]
    perm = _common(data, views)
    if perm is None:
        return False
    crossing = Crossing(node, perm, views.shapes, views.weights)
    try:
        after = rule.cross(crossing)
    except Stays:
        return False
    moved = deepcopy(node)
    moved.input[:] = [views.lifted(name, perm) for name in data] + [views.written(name) for name in node.input[len(data) :]]
    for position, values in crossing.constants.items():
        moved.input.extend([""] * (position + 1 - len(moved.input)))
        moved.input[position] = views.constant(values, moved.input[position] or node.output[0])
    kept = [a for a in node.attribute if a.name not in crossing.attributes]
    del moved.attribute[:]
    moved.attribute.extend([*kept, *(helper.make_attribute(*pair) for pair in crossing.attributes.items())])
    moved.output[:] = [views.replace(name, after) for name in node.output]
    views.nodes.append(moved)
    for name in node.output:
        views.keep(name)
    return True


def _common(names: Sequence[str], views: Views) -> Perm | None:
    """Return the permutation of the Transposes that can move through a node; None where none can or should.

    One that is written for another reader anyway saves nothing, so the node stays below if its other inputs would cost one.
    """
    perms = [views.of[name][1] for name in names if name in views.of and _to_channels_last(views.of[name][1])]
    if not perms:
        return None
    perm = perms[0]
    if not all(views.can_lift(name, len(perm)) for name in names):
        return None
    saves = any(views.costs(views.of[name]) for name in names if name in views.of)
    full = [name for name in names if name not in views.weights and views.rank(name) == len(perm)]
    adds = any(views.costs(views.above(name, perm)) for name in full)
    return perm if saves or not adds else None


def _to_channels_last(perm: Perm) -> bool:
    """Tell whether a Transpose takes maps (N, C, h, w) to (N, h, w, C)."""
    return len(perm) > 3 and perm == (0, *range(2, len(perm)), 1)
