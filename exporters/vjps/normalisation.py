"""Normalisations; scale and bias are constants of a CNN and get no gradient."""

from __future__ import annotations

import math

from exporters.emitter import Emitter
from exporters.vjps.rule import Forward, Gradients, vjp


@vjp("BatchNormalization")
def batch_normalization(op: Emitter, node: Forward, g: str) -> Gradients:
    """dx = g · scale / √(var + ε), with the stored statistics"""
    if node.integer("training_mode", 0):
        raise node.refuse("training_mode 1; export the model in inference mode")
    scale, variance = node.inputs[1], node.inputs[4]
    gain = op.Div(scale, op.Sqrt(op.Add(variance, op.number(node.number("epsilon", 1e-5)))))
    return node.only(op.Mul(g, _over_channels(op, gain, node.rank(node.x))))


@vjp("InstanceNormalization")
def instance_normalization(op: Emitter, node: Forward, g: str) -> Gradients:
    """`_normalised` over each channel of each image"""
    rank, count = node.rank(node.x), math.prod(node.spatial(node.x))
    scaled = op.Mul(g, _over_channels(op, node.inputs[1], rank))
    return node.only(_normalised(op, node.x, scaled, list(range(2, rank)), count, node.number("epsilon", 1e-5)))


@vjp("GroupNormalization")
def group_normalization(op: Emitter, node: Forward, g: str) -> Gradients:
    """`_normalised` over each group of channels; the scale is one per group up to opset 20, one per channel from 21"""
    groups, scale = node.integer("num_groups", 1), node.inputs[1]
    count = node.size(node.x, 1) * math.prod(node.spatial(node.x)) // groups
    apart = op.constant([0, groups, -1])
    if node.size(scale, 0) == node.size(node.x, 1):
        scaled = op.Reshape(op.Mul(g, _over_channels(op, scale, node.rank(node.x))), apart)
    else:
        scaled = op.Mul(op.Reshape(g, apart), _over_channels(op, scale, 3))
    dx = _normalised(op, op.Reshape(node.x, apart), scaled, [2], count, node.number("epsilon", 1e-5))
    return node.only(op.Reshape(dx, op.Shape(node.x)))


@vjp("LayerNormalization")
def layer_normalization(op: Emitter, node: Forward, g: str) -> Gradients:
    """`_normalised` over the last axes"""
    axes = list(range(node.axis("axis", -1), node.rank(node.x)))
    count = math.prod(node.size(node.x, axis) for axis in axes)
    dx = _normalised(op, node.x, op.Mul(g, node.inputs[1]), axes, count, node.number("epsilon", 1e-5))
    return node.only(dx)


@vjp("LRN")
def lrn(op: Emitter, node: Forward, g: str) -> Gradients:
    """dx = g s^−β − 2αβ/n · x · Σ g x s^(−β−1) over the windows round x, for y = x s^−β, s = k + α/n · Σ x² over the window"""
    size, alpha, beta = node.integer("size", 1), node.number("alpha", 1e-4), node.number("beta", 0.75)
    before, after = (size - 1) // 2, size // 2
    squares = _over_neighbours(op, op.Mul(node.x, node.x), size, before, after, node)
    s = op.Add(op.number(node.number("bias", 1.0)), op.Mul(op.number(alpha), squares))
    decayed = op.Pow(s, op.number(-beta))
    spread = _over_neighbours(op, op.Div(op.Mul(op.Mul(g, node.x), decayed), s), size, after, before, node)
    return [op.Sub(op.Mul(g, decayed), op.Mul(op.number(2 * alpha * beta), op.Mul(node.x, spread)))]


def _over_channels(op: Emitter, vector: str, rank: int) -> str:
    """Return a vector (C,) as (C, 1, …), to stand against (N, C, …)."""
    return op.Reshape(vector, op.constant([-1] + [1] * (rank - 2)))


def _normalised(op: Emitter, x: str, g: str, axes: list[int], count: int, epsilon: float) -> str:
    """dx = (g − mean g − x̂ · mean(g x̂)) / σ, for x̂ = (x − mean x) / σ, σ = √(var x + ε), over axes of `count` values"""

    def mean(tensor: str) -> str:
        return op.Div(op.ReduceSum(tensor, op.constant(axes)), op.number(count))

    centred = op.Sub(x, mean(x))
    sigma = op.Sqrt(op.Add(mean(op.Mul(centred, centred)), op.number(epsilon)))
    normal = op.Div(centred, sigma)
    projected = op.Mul(normal, mean(op.Mul(g, normal)))
    return op.Div(op.Sub(op.Sub(g, mean(g)), projected), sigma)


def _over_neighbours(op: Emitter, tensor: str, size: int, before: int, after: int, node: Forward) -> str:
    """Return the mean over `size` neighbouring channels, those that are not there counted as 0."""
    plane = op.Reshape(op.Unsqueeze(tensor, op.constant([1])), op.constant([0, 1, node.size(node.x, 1), -1]))
    means = op.AveragePool(plane, kernel_shape=[size, 1], pads=[before, 0, after, 0], count_include_pad=1)
    return op.Reshape(means, op.Shape(node.x))
