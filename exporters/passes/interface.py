"""Find the one image input and the one output, and fix the image's size for the analysis."""

from __future__ import annotations

from typing import TYPE_CHECKING

from onnx import TensorProto

from camrt.errors import ExportError, did_you_mean
from exporters.graph import Graph

if TYPE_CHECKING:
    from exporters.passes import Normal


def one_image_one_output(normal: Normal) -> None:
    """Settle which input is the image, with a known batch, height and width, and which output is explained."""
    graph = Graph(normal.model)
    if len(graph.inputs) != 1:
        names = ", ".join(v.name for v in graph.inputs) or "none"
        raise ExportError(f"The model must have one input, the image; it has {len(graph.inputs)}: {names}.")
    image = graph.inputs[0]
    tensor = image.type.tensor_type
    if tensor.elem_type != TensorProto.FLOAT:
        found = TensorProto.DataType.Name(tensor.elem_type)
        raise ExportError(f"The input {image.name!r} must be float32, it is {found}. Export the model with float32 input.")
    dims = tensor.shape.dim
    if len(dims) != 4:
        raise ExportError(f"The input {image.name!r} must be an image (N, C, H, W); it has {len(dims)} dimensions.")
    if dims[1].dim_value not in (1, 3):
        last = dims[3].dim_value
        hint = " It looks like channels last (NHWC); export it channels first." if last in (1, 3) else ""
        raise ExportError(f"The input {image.name!r} must have 1 or 3 channels, it has {_dim(dims[1])}.{hint}")
    for dim, axis, asked in zip(dims[2:], ("height", "width"), normal.size or (None, None), strict=True):
        if dim.dim_value and asked and dim.dim_value != asked:
            raise ExportError(f"The input {image.name!r} has {axis} {dim.dim_value}, not {asked}. Leave out --size.")
        if not dim.dim_value and not asked:
            raise ExportError(f"The {axis} of the input {image.name!r} is open ({_dim(dim)}). Set it: --size N or --size HxW.")
        dim.dim_value = dim.dim_value or asked
    normal.batch = dims[0].dim_value or 1
    dims[0].dim_value = normal.batch
    normal.image, normal.size = image.name, (dims[2].dim_value, dims[3].dim_value)
    _choose_output(normal)


def _choose_output(normal: Normal) -> None:
    outputs = normal.model.graph.output
    names = [v.name for v in outputs]
    if normal.output is None and len(names) != 1:
        raise ExportError(f"The model has {len(names)} outputs: {', '.join(names)}. Choose one: --output NAME.")
    chosen = normal.output or names[0]
    if chosen not in names:
        raise ExportError(f"The model has no output {chosen!r}.{did_you_mean(chosen, names)} It has: {', '.join(names)}.")
    value = next(v for v in outputs if v.name == chosen)
    if value.type.WhichOneof("value") not in (None, "tensor_type"):
        raise ExportError(
            f"The output {chosen!r} is a sequence or a map, not a tensor of scores. Choose another: --output NAME."
        )
    del outputs[:]
    outputs.add().CopyFrom(value)
    outputs[0].type.tensor_type.ClearField("shape")  # a fixed batch in it would contradict the inference
    normal.logits = normal.source_output = chosen


def _dim(dim: object) -> str:
    return str(getattr(dim, "dim_value", 0) or getattr(dim, "dim_param", "") or "unknown")
