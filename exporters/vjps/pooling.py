"""Pooling: the gradient of a window goes to its maximum, the first of several, or to all its members in shares."""

from __future__ import annotations

import math

import numpy as np

from exporters.emitter import Emitter
from exporters.vjps.rule import Forward, Gradients, scatter, vjp
from exporters.vjps.windows import Windows, border_end, windows_of


@vjp("GlobalAveragePool")
def global_average_pool(op: Emitter, node: Forward, g: str) -> Gradients:
    """dx = g / (h · w), spread"""
    return [op.Expand(op.Div(g, op.number(math.prod(node.spatial(node.x)))), op.Shape(node.x))]


@vjp("AveragePool")
def average_pool(op: Emitter, node: Forward, g: str) -> Gradients:
    """dx = Σ of g / (members of the window) over the windows round x"""
    windows = windows_of(node, node.integers("kernel_shape"), node.x, node.y)
    border = border_end(node, windows) if node.integer("count_include_pad", 0) else None
    share = op.Div(g, op.constant(windows.members(border)[None, None], op.dtype))
    return [_to_all(op, windows, share, node)]


@vjp("GlobalMaxPool")
def global_max_pool(op: Emitter, node: Forward, g: str) -> Gradients:
    """dx = g at the first maximum, 0 elsewhere"""
    _, indices = op.several("MaxPool", 2, node.x, kernel_shape=node.spatial(node.x))
    return [_to_one(op, node, indices, g)]


@vjp("MaxPool")
def max_pool(op: Emitter, node: Forward, g: str) -> Gradients:
    """dx = Σ of g over the windows whose first maximum x is"""
    if node.integer("storage_order", 0):
        raise node.refuse("storage_order 1")
    windows_of(node, node.integers("kernel_shape"), node.x, node.y)  # refuses what it cannot place
    return [_to_one(op, node, node.second_output(), g)]


@vjp("GlobalLpPool")
def global_lp_pool(op: Emitter, node: Forward, g: str) -> Gradients:
    """dx = (|x| / y)^(p−1) · sign x · g, 0 where y = 0"""
    p, zero, empty = node.integer("p", 2), op.number(0), op.Equal(node.y, op.number(0))
    part = op.Pow(op.Div(op.Abs(node.x), op.Where(empty, op.number(1), node.y)), op.number(p - 1))
    return [op.Where(empty, zero, op.Mul(op.Mul(part, op.Sign(node.x)), g))]


@vjp("LpPool")
def lp_pool(op: Emitter, node: Forward, g: str) -> Gradients:
    """dx = |x|^(p−1) · sign x · Σ of g / y^(p−1) over the windows round x, 0 where y = 0"""
    windows = windows_of(node, node.integers("kernel_shape"), node.x, node.y)
    p, zero, one = node.integer("p", 2), op.number(0), op.number(1)
    empty = op.Equal(node.y, zero)
    bottom = op.Pow(op.Where(empty, one, node.y), op.number(p - 1))
    spread = _to_all(op, windows, op.Where(empty, zero, op.Div(g, bottom)), node)
    return [op.Mul(op.Mul(op.Pow(op.Abs(node.x), op.number(p - 1)), op.Sign(node.x)), spread)]


def _to_one(op: Emitter, node: Forward, indices: str, g: str) -> str:
    """Add g to the places, counted through the whole of x, that `indices` names."""
    flat = op.constant([-1])
    added = scatter(op, op.Reshape(op.Size(node.x), flat), op.Reshape(indices, flat), op.Reshape(g, flat), axis=0)
    return op.Reshape(added, op.Shape(node.x))


def _to_all(op: Emitter, windows: Windows, g: str, node: Forward) -> str:
    """Add g of every window to all its members; channel after channel, as one kernel of ones serves them all."""
    planes = op.Reshape(g, op.constant([-1, 1, *windows.count]))
    ones = op.constant(np.ones((1, 1, *windows.kernel)), op.dtype)
    return op.Reshape(windows.put_back(op, planes, ones), op.Shape(node.x))
