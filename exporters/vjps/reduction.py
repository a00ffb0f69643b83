"""Reductions: the gradient of one number goes to all the numbers it was made of."""

from __future__ import annotations

import math

from exporters.emitter import Emitter
from exporters.vjps.rule import Forward, Gradients, vjp


def _axes(node: Forward) -> list[int]:
    """Return the axes that a node reduces, given as attribute or as input."""
    rank = node.rank(node.x)
    axes = node.integers("axes") or node.whole_numbers(1)
    if not axes and node.integer("noop_with_empty_axes", 0):
        return []
    return [axis % rank for axis in axes or range(rank)]


def _kept(op: Emitter, node: Forward, tensor: str) -> str:
    """Return a tensor of y's shape with the reduced axes kept as 1."""
    axes = _axes(node)
    return tensor if node.integer("keepdims", 1) or not axes else op.Unsqueeze(tensor, op.constant(sorted(axes)))


@vjp("ReduceSum")
def reduce_sum(op: Emitter, node: Forward, g: str) -> Gradients:
    """dx = g, spread"""
    return node.only(op.Expand(_kept(op, node, g), op.Shape(node.x)))


@vjp("ReduceMean")
def reduce_mean(op: Emitter, node: Forward, g: str) -> Gradients:
    """dx = g / n, spread"""
    count = math.prod(node.size(node.x, axis) for axis in _axes(node))
    return node.only(op.Expand(op.Div(_kept(op, node, g), op.number(count)), op.Shape(node.x)))


@vjp("ReduceMax", "ReduceMin")
def reduce_extreme(op: Emitter, node: Forward, g: str) -> Gradients:
    """dx = g / (number of values that reach y) where x = y, else 0"""
    axes = _axes(node)
    reached = op.CastLike(op.Equal(node.x, _kept(op, node, node.y)), g)
    share = _kept(op, node, g)
    if axes:
        share = op.Div(share, op.ReduceSum(reached, op.constant(axes), keepdims=1))
    return node.only(op.Mul(share, reached))


@vjp("ReduceL1")
def reduce_l1(op: Emitter, node: Forward, g: str) -> Gradients:
    """dx = g · sign x"""
    return node.only(op.Mul(_kept(op, node, g), op.Sign(node.x)))


@vjp("ReduceL2")
def reduce_l2(op: Emitter, node: Forward, g: str) -> Gradients:
    """dx = g · x / y, 0 where y = 0"""
    y, zero = _kept(op, node, node.y), op.number(0)
    empty = op.Equal(y, zero)
    return node.only(op.Mul(node.x, op.Where(empty, zero, op.Div(_kept(op, node, g), op.Where(empty, op.number(1), y)))))


@vjp("ReduceSumSquare")
def reduce_sum_square(op: Emitter, node: Forward, g: str) -> Gradients:
    """dx = 2 g x"""
    return node.only(op.Mul(op.Mul(op.number(2), _kept(op, node, g)), node.x))


@vjp("ReduceLogSumExp")
def reduce_log_sum_exp(op: Emitter, node: Forward, g: str) -> Gradients:
    """dx = g · exp(x − y)"""
    return node.only(op.Mul(_kept(op, node, g), op.Exp(op.Sub(node.x, _kept(op, node, node.y)))))
