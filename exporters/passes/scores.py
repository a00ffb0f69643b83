"""Make the scores (N, L) in float32, whatever shape and element type the model gives."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from onnx import NodeProto, TensorProto, helper, numpy_helper

from camrt.errors import ExportError
from exporters.graph import FLOATS, Graph, Shape, describe, fresh_names, quantiser, written

if TYPE_CHECKING:
    from exporters.passes import Normal


def flatten_scores(normal: Normal) -> None:
    """Dequantise, flatten and cast what comes out, where it is not yet one float32 for each class."""
    graph = normal.graph()
    element, shape = graph.types.get(normal.logits, 0), graph.shapes.get(normal.logits, (0, ()))[1]
    long = [d for d in shape[1:] if d != 1]
    if len(shape) < 2 or len(long) > 1 or not all(isinstance(d, int) for d in long):
        raise _not_one_each(normal.logits, shape, graph.first_unknown([normal.logits]))
    if element not in FLOATS:
        _dequantise(normal, graph)
    elif element != TensorProto.FLOAT:
        _end_with(normal, "Cast", to=TensorProto.FLOAT)
    if len(shape) > 2:
        _end_with(normal, "Flatten", axis=1)
    value = helper.make_tensor_value_info(normal.logits, TensorProto.FLOAT, ["N", *(long or [1])])
    del normal.model.graph.output[:]
    normal.model.graph.output.append(value)


def _dequantise(normal: Normal, graph: Graph) -> None:
    """Give whole numbers the scale by which the model rounded its scores."""
    found = quantiser(graph, normal.logits)
    if found is None or found.scale not in graph.initializers:
        raise ExportError(
            f"The output {normal.logits!r} holds {TensorProto.DataType.Name(graph.types.get(normal.logits, 0))}, not scores. "
            "Choose another output with --output."
        )
    zero_point = graph.initializers.get(found.zero_point)
    normal.rounding = (
        float(numpy_helper.to_array(graph.initializers[found.scale]).max()),
        float(numpy_helper.to_array(zero_point).max()) if zero_point is not None else 0.0,
    )
    _end_with(normal, "DequantizeLinear", found.scale, found.zero_point)


def _end_with(normal: Normal, operator: str, *inputs: str, **attributes: Any) -> None:
    name = next(fresh_names(normal.model, "logits"))
    normal.model.graph.node.append(helper.make_node(operator, [normal.logits, *inputs], [name], name=name, **attributes))
    normal.logits = name


def _not_one_each(output: str, shape: Shape, unknown: NodeProto | None) -> ExportError:
    if not shape and unknown is not None:
        return ExportError(
            f"The shape of the output {output!r} cannot be inferred, as that of {describe(unknown)} is unknown. Run "
            "onnxruntime.tools.symbolic_shape_infer on the model first, or check that its operator set knows this operator."
        )
    found = written(shape) if shape else "unknown"
    if len(shape) == 4 and isinstance(shape[1], int):
        advice = (
            "That is one score per class and place, as of a segmentation network, which is not explained. Of a classifier "
            "whose height and width are open, give the size for which it is one place: --size N or --size HxW."
        )
    else:
        advice = "Choose another output with --output, or export the classifier alone."
    return ExportError(f"The output {output!r} must be one score per class, (N, L); its shape is {found}. {advice}")
