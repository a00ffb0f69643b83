"""What a rule of calculus is: its entry in the table, the node it is asked about, and how a broadcast is summed back.

A rule (op, node, g) → one entry per forward input emits the vector-Jacobian product: for y = f(x) and g = ∂L/∂y it returns
∂L/∂x = (∂y/∂x)ᵀ g, None where no gradient flows.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from onnx import NodeProto, TensorProto, helper, numpy_helper

from exporters.emitter import Emitter
from exporters.graph import Graph, Shape, attribute, describe

Gradients = list[str | None]
RULES: dict[str, Rule] = {}
WHOLE = (
    TensorProto.BOOL, TensorProto.INT8, TensorProto.INT16, TensorProto.INT32, TensorProto.INT64,
    TensorProto.UINT8, TensorProto.UINT16, TensorProto.UINT32, TensorProto.UINT64,
)  # fmt: skip


class NoGradient(Exception):
    """The tail has no gradient graph: an operator lacks a rule, or one for its use, or the proof fails; the text says which."""


@dataclass(frozen=True)
class Rule:
    """One line of the table.

    Attributes
    ----------
    emit : callable
        (op, node, g, …) → one gradient per input; one g per output that has one.
    broadcasts : bool
        The gradients have the output's shape, and are summed back over what was broadcast.
    """

    emit: Callable[..., Gradients]
    broadcasts: bool = False


def vjp(*operators: str, broadcasts: bool = False) -> Callable[[Callable[..., Gradients]], Callable[..., Gradients]]:
    """Enter the decorated function into the table."""

    def enter(emit: Callable[..., Gradients]) -> Callable[..., Gradients]:
        for operator in operators:
            RULES[operator] = Rule(emit, broadcasts)
        return emit

    return enter


class Forward:
    """A node of the tail, as its rule sees it: names of its tensors, their shapes, constants and attributes.

    Attributes
    ----------
    inputs : list of str
        "" for an optional input that is not there.
    x, y : str
        The first input and the first output.
    of_logits : bool
        The node is the QuantizeLinear that rounds the logits themselves.
    """

    def __init__(self, graph: Graph, node: NodeProto, of_logits: bool = False):
        self._graph = graph
        self.proto = node
        self.inputs = list(node.input)
        self.x, self.y = node.input[0], node.output[0]
        self.of_logits = of_logits
        self.opset_imports = graph.model.opset_import

    def attribute(self, name: str, default: object = None) -> object:
        return attribute(self.proto, name, default)

    def integer(self, name: str, default: int) -> int:
        return int(str(attribute(self.proto, name, default)))

    def integers(self, name: str, default: Sequence[int] = ()) -> list[int]:
        return [int(v) for v in attribute(self.proto, name, None) or default]

    def number(self, name: str, default: float) -> float:
        return float(str(attribute(self.proto, name, default)))

    def text(self, name: str, default: str) -> str:
        value = attribute(self.proto, name, default)
        return value.decode() if isinstance(value, bytes) else str(value)

    def given(self, position: int) -> str:
        """Return the input at a position; "" where it was left out."""
        return self.inputs[position] if len(self.inputs) > position else ""

    def element_type(self, tensor: str) -> int:
        """Return a tensor's element type; 0 where that is unknown."""
        known = self._graph.initializers.get(tensor)
        return known.data_type if known is not None else self._graph.shapes.get(tensor, (0, ()))[0]

    def dtype(self, tensor: str) -> np.dtype:
        return helper.tensor_dtype_to_np_dtype(self.element_type(tensor))

    def shape(self, tensor: str) -> Shape:
        """Return a tensor's shape, known dimensions as numbers."""
        known = self._graph.initializers.get(tensor)
        if known is not None:
            return tuple(known.dims)
        if tensor not in self._graph.shapes:
            raise self.refuse(f"the shape of {tensor!r} is unknown")
        return self._graph.shapes[tensor][1]

    def rank(self, tensor: str) -> int:
        return len(self.shape(tensor))

    def size(self, tensor: str, axis: int) -> int:
        """Return the length of an axis, which must not depend on the number of images."""
        size = self.shape(tensor)[axis]
        if not isinstance(size, int):
            raise self.refuse(f"the length of axis {axis} of {tensor!r} is not fixed")
        return size

    def spatial(self, tensor: str) -> list[int]:
        """Return the lengths behind batch and channels."""
        return [self.size(tensor, axis) for axis in range(2, self.rank(tensor))]

    def axis(self, name: str, default: int) -> int:
        """Return an attribute that names an axis of x, counted from the front."""
        return self.integer(name, default) % self.rank(self.x)

    def constant(self, position: int) -> np.ndarray | None:
        """Return a constant input; None where it was left out."""
        name = self.given(position)
        if not name:
            return None
        if name not in self._graph.initializers:
            raise self.refuse(f"its input {name!r} is not constant")
        return numpy_helper.to_array(self._graph.initializers[name])

    def whole_numbers(self, position: int) -> list[int]:
        value = self.constant(position)
        return [] if value is None else [int(v) for v in value.ravel()]

    def second_output(self) -> str:
        """Return the node's second output, asked for if it was not."""
        if len(self.proto.output) < 2:
            self.proto.output.append("")
        self.proto.output[1] = self.proto.output[1] or f"{self.y}/second"
        return self.proto.output[1]

    def only(self, dx: str | None) -> Gradients:
        """Return the entries of a rule whose other inputs are settings or weights."""
        return [dx, *(None for _ in self.inputs[1:])]

    def refuse(self, why: str) -> NoGradient:
        return NoGradient(f"{describe(self.proto)}: {why}")


def sum_to(op: Emitter, node: Forward, g: str, found: Shape, wanted: Shape) -> str:
    """Sum a gradient of shape `found` over what was broadcast from shape `wanted`."""
    extra = len(found) - len(wanted)
    if any(
        f not in (w, 1) and isinstance(f, int) and not isinstance(w, int) for f, w in zip(found[extra:], wanted, strict=True)
    ):
        raise node.refuse("whether an input is broadcast depends on the number of images")
    if extra:
        g = op.ReduceSum(g, op.constant(list(range(extra))), keepdims=0)
    stretched = [i for i, (f, w) in enumerate(zip(found[extra:], wanted, strict=True)) if w == 1 and f != 1]
    return op.ReduceSum(g, op.constant(stretched), keepdims=1) if stretched else g


def resized(op: Emitter, like: str, axis: int, *lengths: int) -> str:
    """Return the shape of `like` with one axis replaced by axes of these lengths."""
    before, after = op.Shape(like, start=0, end=axis), op.Shape(like, start=axis + 1)
    return op.Concat(before, op.constant(list(lengths)), after, axis=0)


def scatter(op: Emitter, shape: str, indices: str, g: str, axis: int) -> str:
    """Add g at `indices` to zeros of a shape; in float32 where g is float16, which ONNX Runtime does not add there on a CPU."""
    half = np.dtype(op.dtype) == np.float16
    zeros = op.Expand(op.constant(0, "float32" if half else op.dtype), shape)
    wide = op.Cast(g, to=TensorProto.FLOAT) if half else g
    added = op.ScatterElements(zeros, indices, wide, axis=axis, reduction="add")
    return op.Cast(added, to=TensorProto.FLOAT16) if half else added
