"""Where a session's nodes run: what the provider took, and what it left to the CPU."""

from __future__ import annotations

import warnings
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from camrt.providers import CUDA_FAMILY, SHORT
from camrt.runtime import Session

_SHAPE = {"Shape", "Size"}
# ONNX Runtime leaves these on the CPU on purpose where they compute with shapes: whole numbers that the CPU has at hand.
# CUDA has a kernel of its own for each where it computes with maps, so one that it left behind a Shape is of shapes.
_OF_SHAPES = _SHAPE | {
    "Add", "And", "Cast", "Ceil", "Concat", "Constant", "ConstantOfShape", "Div", "Equal", "Expand", "Flatten", "Floor",
    "Gather", "Greater", "GreaterOrEqual", "Identity", "Less", "LessOrEqual", "Max", "Min", "Mod", "Mul", "Neg", "NonZero",
    "Not", "Or", "Range", "ReduceMax", "ReduceMin", "ReduceProd", "ReduceSum", "Reshape", "Slice", "Split", "Squeeze", "Sub",
    "Transpose", "Unsqueeze", "Where",
}  # fmt: skip


@dataclass(frozen=True)
class Placement:
    """Where the nodes of a graph run.

    Attributes
    ----------
    nodes : mapping of str to int
        How many each provider took: {"cuda": 40, "cpu": 3}.
    on_cpu : mapping of str to int
        How many of each operator the CPU computes: {"Shape": 1, "Gather": 2}.
    """

    nodes: Mapping[str, int]
    on_cpu: Mapping[str, int]

    def strays(self, provider: str) -> dict[str, int]:
        """Return the operators that the CPU computes although they are no arithmetic with shapes."""
        behind_a_shape = provider in CUDA_FAMILY and not _SHAPE.isdisjoint(self.on_cpu)
        excused = _OF_SHAPES if behind_a_shape else _SHAPE
        return {operator: count for operator, count in self.on_cpu.items() if operator not in excused}

    def to_json(self) -> dict[str, Any]:
        """Return what explanation.json says of a graph."""
        return {"nodes": dict(self.nodes), "on_cpu": dict(self.on_cpu)}


def place(session: Session) -> Placement | None:
    """Return where a session's nodes run; None where this ONNX Runtime does not tell."""
    if not hasattr(session, "get_provider_graph_assignment_info"):  # before 1.24
        return None
    pairs = [(part.ep_name, node.op_type) for part in session.get_provider_graph_assignment_info() for node in part.get_nodes()]
    nodes = Counter(SHORT.get(provider, provider) for provider, _ in pairs)
    on_cpu = Counter(operator for provider, operator in pairs if SHORT.get(provider) == "cpu")
    return Placement(dict(nodes.most_common()), dict(on_cpu.most_common()))


class Placements(dict[str, Placement | None]):
    """Where the nodes of the graphs run that were opened so far; empty on the CPU, where there is nothing to tell."""

    def __init__(self) -> None:
        self._told: set[str] = set()

    def add(self, graph: str, provider: str, session: Session) -> None:
        """Note where a graph's nodes run, and warn of operators on the CPU that were not told yet."""
        if provider == "cpu" and not self:
            return
        self[graph] = placement = place(session)
        if placement is None or provider == "cpu":  # that this one fell back was told
            return
        strays = placement.strays(provider)
        if not strays.keys() <= self._told:
            self._told |= strays.keys()
            warnings.warn(_told(graph, provider, placement, strays), RuntimeWarning, stacklevel=6)


def _told(graph: str, provider: str, placement: Placement, strays: Mapping[str, int]) -> str:
    total = sum(placement.nodes.values())
    listed = ", ".join(f"{operator} × {count}" for operator, count in list(strays.items())[:8]) + ", …" * (len(strays) > 8)
    if placement.nodes.get("cpu") == total:
        return f"Provider {provider!r} took none of the {total} nodes of {graph}.onnx: the CPU computes them ({listed})."
    return f"Provider {provider!r} left {sum(strays.values())} of the {total} nodes of {graph}.onnx to the CPU: {listed}."
