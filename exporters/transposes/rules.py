"""Operators that a Transpose can move through: everything that treats the axes alike, or names the ones it means."""

from __future__ import annotations

import numpy as np

from exporters.transposes.rule import Crossing, Stays, crosses
from exporters.transposes.views import Perm, identity


# --- number by number -------------------------------------------------------------------------------------------------------
@crosses(
    "Abs", "Acos", "Acosh", "Asin", "Asinh", "Atan", "Atanh", "BitwiseNot", "Cast", "CastLike", "Ceil", "Celu", "Clip", "Cos",
    "Cosh", "Elu", "Erf", "Exp", "Floor", "Gelu", "HardSigmoid", "HardSwish", "Identity", "IsInf", "IsNaN", "LeakyRelu", "Log",
    "Mish", "Neg", "Not", "Reciprocal", "Relu", "Round", "Selu", "Shrink", "Sigmoid", "Sign", "Sin", "Sinh", "Softplus",
    "Softsign", "Sqrt", "Swish", "Tan", "Tanh", "ThresholdedRelu",
)  # fmt: skip
@crosses(
    "Add", "And", "BitShift", "BitwiseAnd", "BitwiseOr", "BitwiseXor", "Div", "Equal", "Greater", "GreaterOrEqual", "Less",
    "LessOrEqual", "Max", "Mean", "Min", "Mod", "Mul", "Or", "PRelu", "Pow", "Sub", "Sum", "Where", "Xor",
    joins=True,
)  # fmt: skip
def elementwise(node: Crossing) -> Perm:
    """Nothing changes but the layout."""
    return node.perm


@crosses("Dropout")
def dropout(node: Crossing) -> Perm:
    """The same, unless it is random."""
    if node.constant(2).any():
        raise Stays
    return node.perm


@crosses("QuantizeLinear", "DequantizeLinear")
def quantise(node: Crossing) -> Perm:
    """One scale for all, or one for each place along an axis."""
    if node.integer("block_size", 0):
        raise Stays
    if len(node.shape(1)) == 1:
        node.attributes["axis"] = node.perm[node.axis()]
    return node.perm


# --- along axes -------------------------------------------------------------------------------------------------------------
@crosses("Softmax", "LogSoftmax", "Hardmax", "LpNormalization", "Split")
@crosses("Concat", joins=True)
def along(node: Crossing) -> Perm:
    """The axis is called by its other number."""
    node.attributes["axis"] = node.perm[node.axis()]
    return node.perm


@crosses(
    "ReduceL1", "ReduceL2", "ReduceLogSum", "ReduceLogSumExp", "ReduceMax", "ReduceMean", "ReduceMin", "ReduceProd",
    "ReduceSum", "ReduceSumSquare",
)  # fmt: skip
def reduce(node: Crossing) -> Perm:
    """Axes are an attribute or, in later opsets, an input; none given means all, or none where that is asked for."""
    axes = [axis % node.rank for axis in node.integers("axes")]
    if axes:
        node.attributes["axes"] = sorted(node.moved(axes))
    elif axes := node.axes(1):
        node.constants[1] = np.array(sorted(node.moved(axes)), np.int64)
    elif node.integer("noop_with_empty_axes", 0):
        return node.perm
    return node.perm if node.integer("keepdims", 1) else node.without(axes or range(node.rank))


@crosses("ArgMax", "ArgMin")
def position(node: Crossing) -> Perm:
    """The axis is called by its other number, and kept or not."""
    node.attributes["axis"] = node.perm[node.axis()]
    return node.perm if node.integer("keepdims", 1) else node.without([node.axis()])


@crosses("Gather")
def gather(node: Crossing) -> Perm:
    """A list of indices keeps the axis, a single one drops it."""
    dims = len(node.shape(1))
    if dims > 1:
        raise Stays
    node.attributes["axis"] = node.perm[node.axis()]
    return node.perm if dims else node.without([node.axis()])


@crosses("Slice")
def slice_(node: Crossing) -> Perm:
    """Axes not given are the first ones."""
    starts = node.constant(1)
    axes = node.axes(3) or range(len(starts))
    node.constants[3] = np.array(node.moved(axes), starts.dtype)
    return node.perm


@crosses("Pad")
def pad(node: Crossing) -> Perm:
    """Borders of the axes given, or of all."""
    if axes := node.axes(3):
        node.constants[3] = np.array(node.moved(axes), np.int64)
    else:
        node.permute(1)
    return node.perm


@crosses("Resize")
def resize(node: Crossing) -> Perm:
    """Region, scales and sizes of the axes given, or of all."""
    if axes := node.integers("axes"):
        node.attributes["axes"] = node.moved(axes)
    else:
        for each in (1, 2, 3):
            node.permute(each)
    return node.perm


@crosses("Tile")
def tile(node: Crossing) -> Perm:
    """Copies along every axis."""
    node.permute(1)
    return node.perm


@crosses("Expand")
def expand(node: Crossing) -> Perm:
    """A shorter shape counts from the end; a longer one would add axes."""
    shape = node.constant(1)
    if len(shape) > node.rank:
        raise Stays
    node.constants[1] = np.concatenate([np.ones(node.rank - len(shape), np.int64), shape])[list(node.inverse)]
    return node.perm


# --- the same numbers in another shape --------------------------------------------------------------------------------------
@crosses("Squeeze")
def squeeze(node: Crossing) -> Perm:
    """Axes not given are all of length 1."""
    axes = node.axes(1)
    if axes:
        node.constants[1] = np.array(sorted(node.moved(axes)), np.int64)
    elif not all(isinstance(length, int) for length in node.shape(0)):
        raise Stays
    return node.without(axes or [axis for axis, length in enumerate(node.shape(0)) if length == 1])


@crosses("Unsqueeze")
def unsqueeze(node: Crossing) -> Perm:
    """The new axes have the same number in both layouts."""
    added = node.constant(1).ravel()
    rank = node.rank + len(added)
    new = {int(axis) % rank for axis in added}
    old = [axis for axis in range(rank) if axis not in new]
    after = {axis: old[node.perm[i]] for i, axis in enumerate(old)}
    return tuple(after.get(axis, axis) for axis in range(rank))


@crosses("Flatten")
def flatten(node: Crossing) -> Perm:
    """Cut behind the same long axis."""
    end = node.integer("axis", 1)
    before = [node.perm[axis] for axis in node.long() if axis < (end + node.rank if end < 0 else end)]
    node.attributes["axis"] = before[-1] + 1 if before else 0
    return identity(2)


@crosses("Reshape")
def reshape(node: Crossing) -> Perm:
    """A 0 in the new shape, "as the input has it", means another axis now and becomes a number."""
    node.long()
    target, shape = node.constant(1).tolist(), node.shape(0)
    moved = [i for i, length in enumerate(target) if length == 0 and node.perm[i] != i]
    if moved and not node.integer("allowzero", 0):
        if not all(i and isinstance(shape[i], int) for i in moved):
            raise Stays
        node.constants[1] = np.array([shape[i] if i in moved else length for i, length in enumerate(target)], np.int64)
    return identity(len(target))
