"""What it takes to move an operator above a Transpose: its entry in the table, and the node that its rule is asked about.

operator(Transpose(x)) = Transpose(operator'(x)): a rule (node) → permutation turns the operator into operator', and returns
the permutation of the Transpose behind it; or raises Stays.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from onnx import NodeProto, TensorProto, numpy_helper

from exporters.graph import Shape, attribute
from exporters.transposes.views import Perm, inverse

DEFAULT_AXIS = {"Split": 0, "ArgMax": 0, "ArgMin": 0, "Gather": 0, "QuantizeLinear": 1, "DequantizeLinear": 1}  # else -1
RULES: dict[str, Rule] = {}


class Stays(Exception):
    """The Transpose stays above this node: its operator has a rule, but not for such a use."""


@dataclass(frozen=True)
class Rule:
    """One line of the table.

    Attributes
    ----------
    cross : callable
        The node → the permutation behind it; raises Stays.
    joins : bool
        Every input is data, and they broadcast or lie side by side; otherwise only the first one is data.
    """

    cross: Callable[[Crossing], Perm]
    joins: bool = False


def crosses(*operators: str, joins: bool = False) -> Callable[[Callable[[Crossing], Perm]], Callable[[Crossing], Perm]]:
    """Enter the decorated function into the table."""

    def enter(cross: Callable[[Crossing], Perm]) -> Callable[[Crossing], Perm]:
        RULES.update(dict.fromkeys(operators, Rule(cross, joins)))
        return cross

    return enter


class Crossing:
    """A node below a Transpose, as its rule sees it: its axes and shapes are those before the move.

    Attributes
    ----------
    operator : str
    perm, inverse : Perm
        Of the Transpose, and of the one that undoes it.
    rank : int
        Axes of the Transpose.
    attributes : dict
        New values of attributes.
    constants : dict of arrays
        New constants, by position among the inputs.
    """

    def __init__(self, node: NodeProto, perm: Perm, shapes: Mapping[str, Shape], weights: Mapping[str, TensorProto]):
        self.operator, self.perm, self.inverse, self.rank = node.op_type, perm, inverse(perm), len(perm)
        self.attributes: dict[str, object] = {}
        self.constants: dict[int, np.ndarray] = {}
        self._node, self._shapes, self._weights = node, shapes, weights

    def integer(self, name: str, default: int) -> int:
        """Return an attribute that is a whole number."""
        return int(str(attribute(self._node, name, default)))

    def integers(self, name: str) -> list[int]:
        """Return an attribute that is a list of whole numbers; an empty one where it was left out."""
        values = attribute(self._node, name)
        return values if isinstance(values, list) else []

    def axis(self) -> int:
        """Return the attribute that names an axis, counted from the front."""
        return self.integer("axis", DEFAULT_AXIS.get(self.operator, -1)) % self.rank

    def given(self, position: int) -> str:
        """Return the input at a position; "" where it was left out."""
        return self._node.input[position] if len(self._node.input) > position else ""

    def shape(self, position: int) -> Shape:
        """Return the shape of an input; where it is unknown the Transpose stays."""
        if self.given(position) not in self._shapes:
            raise Stays
        return self._shapes[self.given(position)]

    def constant(self, position: int) -> np.ndarray:
        """Return a constant input; an empty one where it was left out.  Where it is no constant the Transpose stays."""
        name = self.given(position)
        if name and name not in self._weights:
            raise Stays
        return numpy_helper.to_array(self._weights[name]) if name else np.zeros(0, np.int64)

    def axes(self, position: int) -> list[int]:
        """Return a constant input that lists axes, counted from the front."""
        return [int(axis) % self.rank for axis in self.constant(position).ravel()]

    def moved(self, axes: Iterable[int]) -> list[int]:
        """Return where axes are above the Transpose."""
        return [self.perm[axis] for axis in axes]

    def without(self, axes: Sequence[int]) -> Perm:
        """Return the permutation of the axes that remain."""
        kept = self.moved(axis for axis in range(self.rank) if axis not in axes)
        return tuple(sorted(kept).index(axis) for axis in kept)

    def permute(self, position: int) -> None:
        """Reorder a constant that holds one number, or one at either end, for every axis."""
        values = self.constant(position)
        if values.size:
            self.constants[position] = values.reshape(-1, self.rank)[:, self.inverse].ravel()

    def long(self) -> list[int]:
        """Return the axes that are not of length 1, in both layouts alike, so that the numbers lie in memory as before.

        The first axis counts as long: it may be the batch, which is freed later.
        """
        where = [
            (axis, self.perm[axis]) for axis, length in enumerate(self.shape(0)) if length != 1 or 0 in (axis, self.perm[axis])
        ]
        if where != sorted(where, key=lambda pair: pair[1]):
            raise Stays
        return [axis for axis, _ in where]
