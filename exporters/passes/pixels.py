"""Take what the model does to its pixels first, scaling and mean, out of the graph into the bundle's preprocessing.

So a model with its preprocessing inside is explained as one without: a mask of zero shows the mean colour.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
from onnx import NodeProto, numpy_helper

from exporters.graph import AFFINE, FLOATS, Graph, attribute, rename

if TYPE_CHECKING:
    from exporters.passes import Normal

PASSED = ("Identity", "Resize", "Upsample")  # an average of pixels is scaled and shifted as the pixels are
PICKS = ("Gather", "Slice")


def lift_pixel_scaling(normal: Normal) -> None:
    """Remove the leading Add, Sub, Mul and Div by constants per channel, and note them in `normal.border`."""
    graph = normal.graph()
    channels = graph.shapes[normal.image][1][1]
    assert isinstance(channels, int)
    gain, offset, order = np.ones(channels), np.zeros(channels), np.arange(channels)  # which of the image's channels is where
    removed: dict[str, str] = {}
    tensor = normal.image
    while (node := _only_reader(graph, tensor)) is not None:
        if node.op_type in AFFINE:
            found = _affine(graph, node, tensor, channels)
            if found is None:
                break
            factor, shift = (values[np.argsort(order)] for values in found)
            gain, offset = gain * factor, offset * factor + shift
            removed[node.output[0]] = removed.get(tensor, tensor)
        elif node.op_type == "Cast" and attribute(node, "to") in FLOATS:
            if attribute(node, "to") == graph.types.get(tensor):
                removed[node.output[0]] = removed.get(tensor, tensor)
        elif node.op_type in PICKS and (picked := _picked(graph, node, tensor, channels)) is not None:
            order = order[picked]
        elif node.op_type not in PASSED or not _averages(node, tensor):
            break
        tensor = node.output[0]
    if not removed and node is not None:
        normal.border = replace(normal.border, reach=_reach(graph, node))
    if not (removed and np.all(gain > 0) and np.isfinite([*gain, *offset]).all()):
        return
    _remove(normal, removed)
    if np.any(gain != 1) or np.any(offset != 0):
        normal.border = replace(normal.border, gain=tuple(map(float, gain)), offset=tuple(map(float, offset)))


def _only_reader(graph: Graph, tensor: str) -> NodeProto | None:
    readers = graph.readers[tensor]
    return graph.nodes[readers[0]] if len(readers) == 1 and tensor not in {v.name for v in graph.proto.output} else None


def _affine(graph: Graph, node: NodeProto, tensor: str, channels: int) -> tuple[np.ndarray, np.ndarray] | None:
    """Return gain and offset per channel; None where the constant differs from place to place, or the image is divided by."""
    first = node.input[0] == tensor
    constant = graph.initializers.get(node.input[1] if first else node.input[0])
    if constant is None or constant.data_type not in FLOATS or not (first or node.op_type in ("Add", "Mul")):
        return None
    value = numpy_helper.to_array(constant).astype(np.float64)
    if value.size not in (1, channels) or value.ndim > 4 or (value.size > 1 and value.shape[-3:] != (channels, 1, 1)):
        return None
    value, one, none = np.broadcast_to(value.reshape(-1), (channels,)), np.ones(channels), np.zeros(channels)
    match node.op_type:
        case "Add":
            return one, value
        case "Sub":
            return one, -value
        case "Mul":
            return value, none
        case _:
            return 1 / np.where(value == 0, np.nan, value), none


def _picked(graph: Graph, node: NodeProto, tensor: str, channels: int) -> np.ndarray | None:
    """Return the order of the channels behind a node that changes nothing else, or crops; None for any other."""
    if node.input[0] != tensor or not all(name in graph.initializers for name in node.input[1:]):
        return None
    first, *others = (numpy_helper.to_array(graph.initializers[name]) for name in node.input[1:])
    found = np.arange(channels)
    if node.op_type == "Gather":
        found = found[first] if attribute(node, "axis", 0) in (1, -3) else found[:0]
    else:
        left_out = [np.arange(len(first)), np.ones_like(first)]  # axes and steps
        ends, axes, steps = others + left_out[len(others) - 1 :]
        for start, end, axis, step in zip(first, ends, axes, steps, strict=True):
            if axis % 4 < 2:
                found = found[start:end:step] if axis % 4 == 1 else found[:0]
    return found if sorted(found.ravel()) == list(range(channels)) and found.ndim == 1 else None


def _averages(node: NodeProto, tensor: str) -> bool:
    """Tell whether a node gives weighted means of what it reads, so that it may change places with scale and mean."""
    if node.op_type == "Identity":
        return True
    outside = attribute(node, "coordinate_transformation_mode", b"half_pixel")
    return node.input[0] == tensor and outside != b"tf_crop_and_resize"


def _reach(graph: Graph, node: NodeProto) -> float:
    """Return the largest number that a Clip lets through, or a QuantizeLinear tells apart; 0 of other nodes."""
    bounds = [numpy_helper.to_array(graph.initializers[name]) for name in node.input[1:] if name in graph.initializers]
    if len(bounds) != 2 or any(bound.size != 1 for bound in bounds):
        return 0.0
    first, second = (bound.item() for bound in bounds)
    if node.op_type == "QuantizeLinear" and bounds[1].dtype in (np.uint8, np.int8):
        limits = np.iinfo(bounds[1].dtype)
        return float(max(limits.max - second, second - limits.min) * first)
    return float(second) if node.op_type == "Clip" and np.isfinite(second) else 0.0


def _remove(normal: Normal, removed: dict[str, str]) -> None:
    """Leave nodes out, and let what reads their output read what they read."""
    proto = normal.model.graph
    kept = [node for node in proto.node if node.output[0] not in removed]
    for node in kept:
        rename(node, removed)
    del proto.node[:], proto.value_info[:]
    proto.node.extend(kept)
