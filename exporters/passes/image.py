"""Find the one image input, and make it (N, C, H, W) in float32, whatever layout and element type the model takes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from onnx import TensorProto, ValueInfoProto, helper

from camrt.errors import ExportError
from exporters.border import Border
from exporters.emitter import Emitter
from exporters.graph import FLOATS, Graph, all_names, attribute, unused
from exporters.layout import TO_LAST

if TYPE_CHECKING:
    from exporters.passes import Normal

PIXEL_INPUTS = (
    TensorProto.UINT8, TensorProto.INT8, TensorProto.UINT16, TensorProto.INT16, TensorProto.INT32,
)  # fmt: skip
CHANNELS = (1, 3)
MOVES = (  # that put numbers elsewhere and compute nothing
    "Transpose", "Identity", "Squeeze", "Unsqueeze", "Reshape", "Slice", "Gather", "Concat", "Split",
)  # fmt: skip


def find_image(normal: Normal) -> None:
    """Settle which input is the image, fix batch, height and width for the analysis, and put what the model takes behind it."""
    graph = normal.graph()
    source = _the_image(graph)
    tensor = source.type.tensor_type
    last = _channels_last(source)
    n, *rest = tensor.shape.dim
    c, h, w = (rest[i] for i in ((2, 0, 1) if last else (0, 1, 2)))
    for dim, axis, asked in zip((h, w), ("height", "width"), normal.size or (None, None), strict=True):
        if dim.dim_value > 0 and asked and dim.dim_value != asked:
            raise ExportError(f"The input {source.name!r} has {axis} {dim.dim_value}, not {asked}. Leave out --size.")
        if dim.dim_value <= 0 and not asked:
            raise ExportError(f"The {axis} of the input {source.name!r} is open ({_dim(dim)}). Set it: --size N or --size HxW.")
        dim.dim_value = dim.dim_value or asked
    normal.batch = n.dim_value or 1
    n.dim_value = normal.batch
    normal.size = (h.dim_value, w.dim_value)
    normal.image = normal.source_input = source.name
    normal.border = Border(last, np.dtype(helper.tensor_dtype_to_np_dtype(tensor.elem_type)))
    if last or tensor.elem_type != TensorProto.FLOAT:
        _put_image_before(normal, source, [normal.batch, c.dim_value, *normal.size])


def _the_image(graph: Graph) -> ValueInfoProto:
    """Return the only input that the scores depend on, once it is certain that it can be an image."""
    read = [v for v in graph.inputs if graph.readers[v.name]]
    if len(read) != 1:
        names = ", ".join(f"{v.name} {_describe(v)}" for v in read) or "none"
        raise ExportError(
            f"The model must have one input, the image; it has {len(read)}: {names}. Give every other one a value as an "
            "initializer, or export the part that sees the image alone."
        )
    (image,) = read
    if image.type.WhichOneof("value") != "tensor_type":
        raise ExportError(
            f"The input {image.name!r} is {image.type.WhichOneof('value')}, not an image. Export the part that sees the image "
            "alone."
        )
    tensor = image.type.tensor_type
    if len(tensor.shape.dim) != 4:
        raise ExportError(
            f"The input {image.name!r} must be an image (N, C, H, W) or (N, H, W, C); it is {_describe(image)}, "
            f"{len(tensor.shape.dim)} dimensions. Text, tables, sound and video are not explained."
        )
    if tensor.elem_type == TensorProto.BFLOAT16:
        raise ExportError(
            f"The input {image.name!r} is bfloat16, in which ONNX Runtime computes no convolution on a CPU, so that nothing "
            "could be proved. Export the model in float32 or float16."
        )
    if tensor.elem_type not in (*FLOATS, *PIXEL_INPUTS):
        found = TensorProto.DataType.Name(tensor.elem_type)
        raise ExportError(
            f"The input {image.name!r} is {found}; an image is float32, float16, float64, or whole numbers of at most 32 bits. "
            "Export the model with such an input."
        )
    return image


def _channels_last(image: ValueInfoProto) -> bool:
    """Tell where the channels are: at the end where only the last dimension can be 1 or 3."""
    dims = [d.dim_value for d in image.type.tensor_type.shape.dim]
    if dims[1] in CHANNELS:
        return False
    if dims[3] in CHANNELS:
        return True
    raise ExportError(
        f"The input {image.name!r} must have 1 or 3 channels, at the second place or the last; it is {_describe(image)}."
        + (" Fix the open dimensions in the file first." if 0 in (dims[1], dims[3]) else "")
    )


def _put_image_before(normal: Normal, source: ValueInfoProto, shape: list[int]) -> None:
    """Make the model's own input a tensor that is computed from the image in normal form."""
    proto = normal.model.graph
    graph = normal.graph()
    taken = all_names(proto)
    normal.image = unused(f"{source.name}/image", taken)
    element = source.type.tensor_type.elem_type
    op = Emitter(unused("find_image", taken))
    tensor = normal.image
    if normal.border.channels_last:
        tensor = op.Transpose(tensor, perm=TO_LAST)
    if element in FLOATS and element != TensorProto.FLOAT:
        tensor = op.Cast(tensor, to=element)
    elif element != TensorProto.FLOAT and not _becomes_float(graph, source.name):
        limits = np.iinfo(normal.border.dtype)
        if limits.bits < 32:
            tensor = op.Clip(tensor, *(op.constant(v, "float32") for v in (limits.min, limits.max)))
        tensor = op.Cast(op.Round(tensor), to=element)
    op.name(op.Identity(tensor), source.name)
    inputs = [helper.make_tensor_value_info(normal.image, TensorProto.FLOAT, shape)]
    nodes = [*op.nodes, *proto.node]
    del proto.input[:], proto.node[:], proto.value_info[:]
    proto.input.extend(inputs)
    proto.node.extend(nodes)
    proto.initializer.extend(op.initializers)


def _becomes_float(graph: Graph, tensor: str) -> bool:
    """Tell whether whole numbers are only moved before they are cast to float32: then nothing rounds them."""
    if any(value.name == tensor for value in graph.proto.output):
        return False
    for i in graph.readers[tensor]:
        node = graph.nodes[i]
        if node.op_type == "Cast" and attribute(node, "to") == TensorProto.FLOAT:
            continue
        if node.op_type not in MOVES or not all(_becomes_float(graph, name) for name in node.output):
            return False
    return True


def _describe(value: ValueInfoProto) -> str:
    tensor = value.type.tensor_type
    return f"({', '.join(map(_dim, tensor.shape.dim))}) {TensorProto.DataType.Name(tensor.elem_type).lower()}"


def _dim(dim: Any) -> str:
    return str(dim.dim_value or dim.dim_param or "?")
