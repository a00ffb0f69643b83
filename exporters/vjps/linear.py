"""Linear operators: convolutions and matrix products, whose gradients are their transposes."""

from __future__ import annotations

from exporters.emitter import Emitter
from exporters.graph import Shape
from exporters.vjps.rule import Forward, Gradients, sum_to, vjp
from exporters.vjps.windows import windows_of


@vjp("Conv")
def conv(op: Emitter, node: Forward, g: str) -> Gradients:
    """dx = the transposed convolution of g; none for the weights, which are constant in a CNN"""
    weight = node.inputs[1]
    windows = windows_of(node, list(node.spatial(weight)), node.x, node.y)
    return node.only(windows.put_back(op, g, weight, node.integer("group", 1)))


@vjp("ConvTranspose")
def conv_transpose(op: Emitter, node: Forward, g: str) -> Gradients:
    """dx = the convolution of g, which lays one window round every place of x"""
    weight, rank = node.inputs[1], node.rank(node.x) - 2
    kernel = list(node.spatial(weight))
    strides, dilations = node.integers("strides", [1] * rank), node.integers("dilations", [1] * rank)
    before, after = _transposed_pads(node, kernel, strides, dilations)
    pads = [*before, *(max(0, a) for a in after)]
    g = op.Conv(g, weight, kernel_shape=kernel, strides=strides, dilations=dilations, pads=pads, group=node.integer("group", 1))
    if min(after) < 0:  # the output was padded, maybe so far that more windows lie on it than x has places
        g = op.Slice(g, op.constant([0] * rank), op.constant(node.spatial(node.x)), op.constant(list(range(2, rank + 2))))
    return node.only(g)


def _transposed_pads(node: Forward, kernel: list[int], strides: list[int], dilations: list[int]) -> tuple[list[int], list[int]]:
    """Return what a ConvTranspose crops before and behind, also where its output's size says so; negative where it pads."""
    rank = len(kernel)
    auto = node.text("auto_pad", "NOTSET")
    extra = node.integers("output_padding", [0] * rank)
    count, size = node.spatial(node.x), node.spatial(node.y)
    spans = zip(count, strides, kernel, dilations, strict=True)
    whole = [(n - 1) * s + (k - 1) * d + 1 for n, s, k, d in spans]
    if node.integers("output_shape") or auto.startswith("SAME"):
        spare = [max(0, w + e - s) for w, e, s in zip(whole, extra, size, strict=True)]
        before = [n // 2 if auto == "SAME_UPPER" else n - n // 2 for n in spare]
    else:
        before = [0] * rank if auto == "VALID" else node.integers("pads", [0] * 2 * rank)[:rank]
    return before, [w - b - s for w, b, s in zip(whole, before, size, strict=True)]


@vjp("Gemm")
def gemm(op: Emitter, node: Forward, g: str) -> Gradients:
    """da = α g bᵀ, db = α aᵀ g, dc = β g, for y = α a b + β c; a transposed factor has the transposed gradient"""
    a, b = node.inputs[:2]
    ta, tb, alpha = node.integer("transA", 0), node.integer("transB", 0), node.number("alpha", 1.0)
    da = op.Gemm(b, g, transA=tb, transB=1, alpha=alpha) if ta else op.Gemm(g, b, transB=1 - tb, alpha=alpha)
    db = op.Gemm(g, a, transA=1, transB=ta, alpha=alpha) if tb else op.Gemm(a, g, transA=1 - ta, alpha=alpha)
    if not node.given(2):
        return [da, db, *(None for _ in node.inputs[2:])]
    dc = op.Mul(g, op.number(node.number("beta", 1.0)))
    return [da, db, sum_to(op, node, dc, node.shape(node.y), node.shape(node.inputs[2]))]


@vjp("MatMul")
def matmul(op: Emitter, node: Forward, g: str) -> Gradients:
    """da = g bᵀ, db = aᵀ g, over the last two axes; a vector is a matrix of one row (a) or one column (b)"""
    (a, a_shape), (b, b_shape) = ((x, node.shape(x)) for x in node.inputs)
    row, column = len(a_shape) == 1, len(b_shape) == 1
    if row:
        a, a_shape, g = op.Unsqueeze(a, op.constant([0])), (1, *a_shape), op.Unsqueeze(g, op.constant([-1 if column else -2]))
    if column:
        b, b_shape, g = op.Unsqueeze(b, op.constant([1])), (*b_shape, 1), op.Unsqueeze(g, op.constant([-1]))
    stack: Shape = node.shape(node.y)[: node.rank(node.y) - 2 + row + column]
    da = sum_to(op, node, op.MatMul(g, _swapped(op, b, len(b_shape))), (*stack, *a_shape[-2:]), a_shape)
    db = sum_to(op, node, op.MatMul(_swapped(op, a, len(a_shape)), g), (*stack, *b_shape[-2:]), b_shape)
    da = op.Squeeze(da, op.constant([0])) if row else da
    return [da, op.Squeeze(db, op.constant([1])) if column else db]


def _swapped(op: Emitter, matrix: str, rank: int) -> str:
    """Return the transposes of stacked matrices."""
    return op.Transpose(matrix, perm=[*range(rank - 2), rank - 1, rank - 2])
