"""Operators that move numbers: the gradient moves back, and is summed where one number went to several places."""

from __future__ import annotations

import numpy as np
from onnx import TensorProto, helper

from camrt.providers import Choice
from camrt.session import open_session
from exporters.emitter import Emitter
from exporters.graph import FLOATS, fitting_ir
from exporters.vjps.rule import WHOLE, Forward, Gradients, resized, scatter, vjp

ENDLESS = 2**31 - 1  # the end that exporters write for "to the end"


# --- the same numbers in another shape --------------------------------------------------------------------------------------
@vjp("Identity", "Dropout")
def identity(op: Emitter, node: Forward, g: str) -> Gradients:
    """dx = g"""
    if node.given(2) and np.any(node.constant(2)):
        raise node.refuse("training_mode; export the model in inference mode")
    return node.only(g)


@vjp("Reshape", "Flatten", "Squeeze", "Unsqueeze")
def reshape(op: Emitter, node: Forward, g: str) -> Gradients:
    """dx = g in the shape of x"""
    return node.only(op.Reshape(g, op.Shape(node.x)))


@vjp("Transpose")
def transpose(op: Emitter, node: Forward, g: str) -> Gradients:
    """dx = g with the axes back in place"""
    perm = node.integers("perm", range(node.rank(node.x) - 1, -1, -1))
    return [op.Transpose(g, perm=[int(i) for i in np.argsort(perm)])]


@vjp("Cast", "CastLike")
def cast(op: Emitter, node: Forward, g: str) -> Gradients:
    """dx = g in the type of x; nothing flows where a real number becomes a whole one"""
    before, after = node.element_type(node.x), node.element_type(node.y)
    if not {before, after} <= {*FLOATS, *WHOLE}:
        raise node.refuse("its element type is unknown, or neither real nor whole")
    if before in WHOLE:  # quantised: its gradient is real
        return node.only(g)
    return node.only(op.CastLike(g, node.x) if after in FLOATS else None)


@vjp("Expand", broadcasts=True)
def expand(op: Emitter, node: Forward, g: str) -> Gradients:
    """dx = Σ g over what was stretched"""
    return [g, None]


@vjp("SpaceToDepth")
def space_to_depth(op: Emitter, node: Forward, g: str) -> Gradients:
    """dx = DepthToSpace(g)"""
    return [op.DepthToSpace(g, blocksize=node.integer("blocksize", 1), mode="DCR")]


@vjp("DepthToSpace")
def depth_to_space(op: Emitter, node: Forward, g: str) -> Gradients:
    """dx = SpaceToDepth(g); in mode CRD the block's axes go behind the channels instead of before them"""
    block = node.integer("blocksize", 1)
    if node.text("mode", "DCR") == "DCR":
        return [op.SpaceToDepth(g, blocksize=block)]
    channels, height, width = (node.size(node.x, axis) for axis in (1, 2, 3))
    blocks = op.Reshape(g, op.constant([-1, channels // block**2, height, block, width, block]))
    return [op.Reshape(op.Transpose(blocks, perm=[0, 1, 3, 5, 2, 4]), op.Shape(node.x))]


# --- parts ------------------------------------------------------------------------------------------------------------------
@vjp("Concat")
def concat(op: Emitter, node: Forward, g: str) -> Gradients:
    """dxᵢ = its part of g"""
    axis = node.axis("axis", 0)
    ends = np.cumsum([node.size(x, axis) for x in node.inputs]).tolist()
    at = op.constant([axis])
    return [op.Slice(g, op.constant([a]), op.constant([b]), at) for a, b in zip([0, *ends], ends, strict=False)]


@vjp("Split")
def split(op: Emitter, node: Forward, *gs: str | None) -> Gradients:
    """dx = the parts' gradients side by side, 0 for a part that nobody reads"""
    names = node.proto.output[: len(gs)]
    parts = [g or op.Expand(op.number(0), op.Shape(name)) for g, name in zip(gs, names, strict=True)]
    return node.only(op.Concat(*parts, axis=node.axis("axis", 0)))


@vjp("Slice")
def slice_(op: Emitter, node: Forward, g: str) -> Gradients:
    """dx = g at the places it was taken from, 0 elsewhere"""
    starts, ends = node.whole_numbers(1), node.whole_numbers(2)
    rank = node.rank(node.x)
    axes = [axis % rank for axis in node.whole_numbers(3) or range(len(starts))]
    steps = node.whole_numbers(4) or [1] * len(starts)
    for axis, start, end, step in zip(axes, starts, ends, steps, strict=True):
        if start == 0 and end >= ENDLESS and step == 1:
            continue  # the whole axis, maybe the batch's
        size = node.size(node.x, axis)
        g = _put_back(op, g, np.arange(size)[start:end:step], axis, size, rank)
    return node.only(g)


@vjp("Gather")
def gather(op: Emitter, node: Forward, g: str) -> Gradients:
    """dx = Σ of g over the places that took it"""
    axis, indices = node.axis("axis", 0), node.constant(1)
    size = node.size(node.x, axis)
    positions = np.ravel(indices) % size
    flat = op.Reshape(g, resized(op, node.x, axis, len(positions)))
    return [_put_back(op, flat, positions, axis, size, node.rank(node.x)), None]


@vjp("Pad")
def pad(op: Emitter, node: Forward, g: str) -> Gradients:
    """dx = g without the border (constant), or with the border's gradient where its values came from (reflect, edge, wrap)"""
    pads, rank = node.whole_numbers(1), node.rank(node.x)
    axes = [axis % rank for axis in node.whole_numbers(3) or range(rank)]
    width = {axis: (pads[i], pads[i + len(axes)]) for i, axis in enumerate(axes)}
    before, after = ([width.get(axis, (0, 0))[side] for axis in range(rank)] for side in (0, 1))
    mode = node.text("mode", "constant")
    if mode == "constant":
        g = op.Pad(g, op.constant([-n for n in before + after]))
    else:
        if min(before + after) < 0:
            raise node.refuse(f"negative pads in mode {mode}")
        for axis, ends in enumerate(zip(before, after, strict=True)):
            if any(ends):
                size = node.size(node.x, axis)
                g = _put_back(op, g, np.pad(np.arange(size), ends, mode), axis, size, rank)  # type: ignore[call-overload]
    return node.only(g)


@vjp("Tile")
def tile(op: Emitter, node: Forward, g: str) -> Gradients:
    """dx = Σ of g over the copies"""
    for axis, copies in enumerate(node.whole_numbers(1)):
        if copies > 1:
            apart = op.Reshape(g, resized(op, g, axis, copies, node.size(node.x, axis)))
            g = op.ReduceSum(apart, op.constant([axis]), keepdims=0)
    return [g, None]


def _put_back(op: Emitter, g: str, positions: np.ndarray, axis: int, size: int, rank: int) -> str:
    """Return the adjoint of taking `positions` along an axis of length `size`."""
    start = int(positions[0]) if len(positions) else 0
    if np.array_equal(positions, np.arange(start, start + len(positions))):
        pads = np.zeros((2, rank), int)
        pads[:, axis] = start, size - start - len(positions)
        return op.Pad(g, op.constant(pads.ravel())) if pads.any() else g
    along = op.constant(positions.reshape([-1 if i == axis else 1 for i in range(rank)]))
    return scatter(op, resized(op, g, axis, size), op.Expand(along, op.Shape(g)), g, axis=axis)


# --- interpolation ----------------------------------------------------------------------------------------------------------
@vjp("Resize")
def resize(op: Emitter, node: Forward, g: str) -> Gradients:
    """dx = M_hᵀ g M_w, for y = M_h x M_wᵀ: every way of interpolating is a matrix along each axis"""
    if node.rank(node.x) != 4 or node.shape(node.x)[1] != node.shape(node.y)[1]:
        raise node.refuse("only the height and width of (N, C, h, w) may be resized")
    if node.text("coordinate_transformation_mode", "half_pixel") == "tf_crop_and_resize":
        raise node.refuse("coordinate_transformation_mode tf_crop_and_resize")
    if node.text("keep_aspect_ratio_policy", "stretch") != "stretch":
        raise node.refuse("a keep_aspect_ratio_policy other than stretch")
    if node.spatial(node.x) == node.spatial(node.y):
        return node.only(g)  # ONNX Runtime copies an image that keeps its size, whatever the scales
    height, width = (_interpolation(node, axis) for axis in (2, 3))
    if width is not None:
        g = op.MatMul(g, op.constant(width, op.dtype))
    if height is not None:
        g = op.MatMul(op.constant(height.T, op.dtype), g)
    return node.only(g)


def _interpolation(node: Forward, axis: int) -> np.ndarray | None:
    """Return the matrix (out, n) that a Resize applies along an axis; None for the identity.

    It is read off the operator itself, which resizes the n unit vectors; their width grows too, or they might only be copied.
    """
    n, out = node.size(node.x, axis), node.size(node.y, axis)
    scale = _scale(node, axis)
    if out == n and scale in (None, 1.0):
        return None
    single = helper.make_node("Resize", ["x", "", "scales"] if scale is not None else ["x", "", "", "sizes"], ["y"])
    single.attribute.extend(a for a in node.proto.attribute if a.name != "axes")
    model = helper.make_model(
        helper.make_graph(
            [single],
            "units",
            [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, n, n, 1])],
            [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
            [
                helper.make_tensor("scales", TensorProto.FLOAT, [4], [1, 1, scale, 2])
                if scale is not None
                else helper.make_tensor("sizes", TensorProto.INT64, [4], [1, n, out, 2])
            ],
        ),
        opset_imports=node.opset_imports,
    )
    model.ir_version = fitting_ir(model)
    session, _ = open_session(model.SerializeToString(), Choice(("cpu",), explicit=True), name="a Resize")
    units = np.eye(n, dtype=np.float32)[None, :, :, None]
    return np.asarray(session.run(None, {"x": units})[0])[0, :, :, 0].T


def _scale(node: Forward, axis: int) -> float | None:
    """Return the scale of an axis; None where sizes are given instead."""
    scales = node.constant(2)
    if scales is None or not scales.size:
        return None
    axes = node.integers("axes", range(node.rank(node.x)))
    return float(scales[axes.index(axis)]) if axis in axes else 1.0
