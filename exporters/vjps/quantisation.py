"""Quantisation: rounding has slope 0 almost everywhere, so its gradient is passed straight through.

The straight-through estimator (Bengio, Léonard, Courville, arXiv 1308.3432), as PyTorch's fake quantisation has it: slope 1
within the range of the quantised type, 0 where the value was clipped, which is where an int8 model keeps its ReLU.  The logits
themselves are explained as they were before they were rounded and clipped, or a saturated top class would have no gradient.
"""

from __future__ import annotations

import numpy as np

from exporters.emitter import Emitter
from exporters.vjps.rule import WHOLE, Forward, Gradients, vjp


@vjp("QuantizeLinear")
def quantize_linear(op: Emitter, node: Forward, g: str) -> Gradients:
    """dx = g / scale where the rounded value is within the type's range, else 0, for y = clip(round(x / scale) + zero)"""
    if node.element_type(node.y) not in WHOLE:
        raise node.refuse("quantisation to another type than a whole number of 8 or more bits")
    scale, zero = (_along_axis(op, node, name) for name in (node.inputs[1], node.given(2)))
    if node.of_logits:
        return node.only(op.Div(g, scale))
    steps = op.Round(op.Div(node.x, scale))
    steps = op.Add(steps, op.CastLike(zero, node.x)) if zero else steps
    limits = np.iinfo(node.dtype(node.y))
    inside = op.And(op.GreaterOrEqual(steps, op.number(limits.min)), op.LessOrEqual(steps, op.number(limits.max)))
    return node.only(op.Where(inside, op.Div(g, scale), op.number(0)))


@vjp("DequantizeLinear")
def dequantize_linear(op: Emitter, node: Forward, g: str) -> Gradients:
    """dx = g · scale, for y = (x − zero) · scale"""
    return node.only(op.Mul(g, _along_axis(op, node, node.inputs[1])))


def _along_axis(op: Emitter, node: Forward, name: str) -> str:
    """Return a scale or zero point, one per slice of the axis, so that it stands against x; "" stays ""."""
    if not name or node.rank(name) == 0:
        return name
    if node.rank(name) > 1:
        raise node.refuse("blocked quantisation")
    axis = node.axis("axis", 1)
    return op.Reshape(name, op.constant([-1] + [1] * (node.rank(node.x) - axis - 1)))
