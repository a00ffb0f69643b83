"""What several modules emit: conditions over tensors, and batches of images as rows."""

from __future__ import annotations

import numpy as np
from onnx import TensorProto

from exporters.emitter import Emitter

BOOL, FLOAT, DOUBLE, INT64 = TensorProto.BOOL, TensorProto.FLOAT, TensorProto.DOUBLE, TensorProto.INT64


def any_of(op: Emitter, condition: str) -> str:
    """Return a bool scalar: the condition holds somewhere."""
    return op.Greater(op.ReduceMax(op.Cast(condition, to=FLOAT), keepdims=0), op.number(0))


def any_in(op: Emitter, condition: str, *axes: int, keepdims: bool = True) -> str:
    """Return where the condition holds somewhere along the axes."""
    return op.Greater(op.reduce("ReduceMax", op.Cast(condition, to=FLOAT), *axes, keepdims=keepdims), op.number(0))


def all_of(op: Emitter, condition: str) -> str:
    """Return a bool scalar: the condition holds everywhere."""
    return op.Greater(op.ReduceMin(op.Cast(condition, to=FLOAT), keepdims=0), op.number(0))


def differ(op: Emitter, a: str, b: str) -> str:
    """Return (N, 1) bool: where two tensors (N, C) are not the same."""
    return op.Less(op.reduce("ReduceMin", op.Cast(op.Equal(a, b), to=FLOAT), 1), op.number(1))


def first_of(op: Emitter, condition: str, axis: int, keepdims: bool) -> str:
    """Return the first index along an axis where the condition holds."""
    return op.ArgMax(op.Cast(condition, to=FLOAT), axis=axis, keepdims=int(keepdims))


def cut_last(op: Emitter, tensor: str, axis: int) -> list[str]:
    """Return a tensor without the last slice of an axis, and that slice."""
    start, last, end = (op.constant([at]) for at in (0, -1, np.iinfo(np.int64).max))
    return [op.Slice(tensor, start, last, op.constant([axis])), op.Slice(tensor, last, end, op.constant([axis]))]


def finite_in(op: Emitter, tensor: str, *axes: int, keepdims: bool = True) -> str:
    """Return where nothing along the axes is NaN or infinite: 0 times those is NaN."""
    zeros = op.reduce("ReduceSum", op.Mul(tensor, op.number(0)), *axes, keepdims=keepdims)
    return op.Equal(zeros, op.number(0))


def unsqueeze(op: Emitter, tensor: str, *axes: int) -> str:
    """Return the tensor with axes of length 1."""
    return op.Unsqueeze(tensor, op.constant(list(axes)))


def length(op: Emitter, tensor: str, axis: int) -> str:
    """Return the length of an axis, int64 of shape (1,)."""
    return op.Slice(op.Shape(tensor), op.constant([axis]), op.constant([axis + 1]))


def scalar(op: Emitter, one: str) -> str:
    """Return a tensor of one number as a scalar."""
    return op.Squeeze(one)


def reshape(op: Emitter, tensor: str, *shape: int | str) -> str:
    """Return the tensor in a shape whose lengths are numbers or names of int64 tensors of shape (1,)."""
    if all(isinstance(d, int) for d in shape):
        return op.Reshape(tensor, op.constant(list(shape)))
    return op.Reshape(tensor, shape_of(op, *shape))


def shape_of(op: Emitter, *shape: int | str) -> str:
    """Return lengths, numbers or names, as one int64 tensor."""
    return op.Concat(*(d if isinstance(d, str) else op.constant([d]) for d in shape), axis=0)


def relu(op: Emitter, tensor: str) -> str:
    """Return max(x, 0), NaN where x is NaN: the operator Relu does not promise that."""
    return op.Where(op.Less(tensor, op.number(0)), op.number(0), tensor)
