"""A graph that is written anew with Transposes left out: what each tensor of the source is a Transpose of.

A view (tensor, perm) stands for Transpose(tensor, perm).  It is written when somebody reads it, and only once.
"""

from __future__ import annotations

from copy import deepcopy
from typing import Any

import numpy as np
from onnx import NodeProto, TensorProto, helper, numpy_helper

from exporters.graph import Graph, Shape, all_names, node_inputs, subgraphs, unused

Perm = tuple[int, ...]  # axis j of a Transpose's output is axis perm[j] of its input
View = tuple[str, Perm]


def identity(rank: int) -> Perm:
    """Return the permutation that changes nothing."""
    return tuple(range(rank))


def inverse(perm: Perm) -> Perm:
    """Return the permutation that undoes another."""
    return tuple(perm.index(axis) for axis in range(len(perm)))


def composed(first: Perm, second: Perm) -> Perm:
    """Return the permutation of two Transposes, one after the other."""
    return tuple(first[axis] for axis in second)


class Views:
    """The graph as it is written.

    Attributes
    ----------
    weights : dict
        The source's initializers.
    shapes : dict
        Of the source's tensors, as far as they are known.
    fixed : set of str
        Tensors that keep their layout: outputs, and what branches and loops take from outside.
    of : dict
        The views that the source's tensors have become; one that is not there is written under its name as it was.
    nodes, constants : list and dict
        What is written, and the constants added.
    """

    def __init__(self, graph: Graph):
        self.weights = graph.initializers
        self.shapes: dict[str, Shape] = {name: shape for name, (_, shape) in graph.shapes.items()}
        self.shapes |= {name: tuple(tensor.dims) for name, tensor in self.weights.items()}
        self.fixed = {value.name for value in graph.proto.output}
        self.fixed |= {name for node in graph.nodes if subgraphs(node) for name in node_inputs(node)}
        self.of: dict[str, View] = {}
        self.nodes: list[NodeProto] = []
        self.constants: dict[tuple[object, ...], TensorProto] = {}
        self._transposes: dict[View, NodeProto] = {}
        self._written: dict[tuple[object, ...], str] = {}
        self._names = all_names(graph.proto)

    def rank(self, name: str) -> int | None:
        """Return how many axes a tensor of the source has; None where that is unknown."""
        if name in self.of:
            return len(self.of[name][1])
        return len(self.shapes[name]) if name in self.shapes else None

    def note(self, node: NodeProto, perm: Perm) -> None:
        """Let the output of a Transpose of the source be a view."""
        stored, before = self.of.get(node.input[0], (node.input[0], identity(len(perm))))
        view = self.of[node.output[0]] = stored, composed(before, perm)
        self._transposes.setdefault(view, node)
        self.keep(node.output[0])

    def replace(self, name: str, perm: Perm) -> str:
        """Let a tensor be a view of what is written in its place, and return the name of that: its own, unless it is fixed."""
        if not name or perm == identity(len(perm)):
            return name
        stored = self._fresh(name) if name in self.fixed else name
        self.of[name] = stored, perm
        return stored

    def keep(self, name: str) -> None:
        """Write a tensor that is fixed."""
        if name in self.fixed and name in self.of:
            copy = self._copy(self.of[name], name)
            if copy != name:
                self.nodes.append(helper.make_node("Identity", [copy], [name]))

    def written(self, name: str) -> str:
        """Return what holds a tensor of the source as it was."""
        return self._copy(self.of[name]) if name in self.of else name

    # --- what stands above a Transpose --------------------------------------------------------------------------------------
    def can_lift(self, name: str, rank: int) -> bool:
        """Tell whether a tensor that broadcasts to `rank` axes can be brought above a Transpose of so many."""
        own = self.rank(name)
        if name in self.weights:
            return own is not None and own <= rank and self.weights[name].data_type < TensorProto.BFLOAT16  # NumPy knows those
        return own in (0, 1, rank)

    def lifted(self, name: str, perm: Perm) -> str:
        """Return what broadcasts above a Transpose as a tensor of the source does below it."""
        if name in self.weights:
            return self._lifted_weight(name, perm)
        if self.rank(name) == len(perm):
            return self._copy(self.above(name, perm))
        return self._lifted_vector(name, perm) if self.rank(name) else self.written(name)

    def above(self, name: str, perm: Perm) -> View:
        """Return the view that a tensor of full rank is above a Transpose."""
        stored, before = self.of.get(name, (name, identity(len(perm))))
        return stored, composed(before, inverse(perm))

    def costs(self, view: View) -> bool:
        """Tell whether a view takes a Transpose that is not written yet."""
        return view[1] != identity(len(view[1])) and view not in self._written

    def _lifted_weight(self, name: str, perm: Perm) -> str:
        values = numpy_helper.to_array(self.weights[name])
        if values.size == 1:
            return name
        key = name, perm
        if key not in self.constants:
            full = values.reshape((1,) * (len(perm) - values.ndim) + values.shape)
            self.constants[key] = numpy_helper.from_array(
                np.ascontiguousarray(full.transpose(inverse(perm))), self._fresh(name)
            )
        return self.constants[key].name

    def _lifted_vector(self, name: str, perm: Perm) -> str:
        """Put axes of length 1 round the only one, which lies along the Transpose's last."""
        key = "Unsqueeze", name, perm
        if key not in self._written:
            axes = self.constant(np.array([axis for axis in range(len(perm)) if axis != perm[-1]], np.int64), name)
            self._written[key] = self._add("Unsqueeze", [self.written(name), axes], self._fresh(name))
        return self._written[key]

    # --- writing --------------------------------------------------------------------------------------------------------------
    def constant(self, values: np.ndarray, beside: str) -> str:
        """Return the name of a constant, after the tensor beside it; the same values are stored once."""
        key = values.dtype.str, values.shape, values.tobytes()
        if key not in self.constants:
            self.constants[key] = numpy_helper.from_array(values, self._fresh(beside))
        return self.constants[key].name

    def _copy(self, view: View, name: str = "") -> str:
        """Return the tensor that a view stands for."""
        stored, perm = view
        if perm == identity(len(perm)):
            return stored
        if view not in self._written:
            self._written[view] = self._transpose(view, name)
        return self._written[view]

    def _transpose(self, view: View, name: str) -> str:
        """Write a view: by the Transpose of the source that gave it, where there is one."""
        stored, perm = view
        node = self._transposes.get(view)
        if node is None:
            return self._add("Transpose", [stored], name or self._fresh(stored), perm=perm)
        moved = deepcopy(node)
        del moved.attribute[:]
        moved.attribute.append(helper.make_attribute("perm", perm))
        moved.input[0], moved.output[0] = stored, name or node.output[0]
        self.nodes.append(moved)
        return name or node.output[0]

    def _add(self, operator: str, inputs: list[str], output: str, **attributes: Any) -> str:
        self.nodes.append(helper.make_node(operator, inputs, [output], **attributes))
        return output

    def _fresh(self, name: str) -> str:
        fresh = unused(f"{name}/transposed", self._names)
        self._names.add(fresh)
        return fresh
