"""Let Squeeze keep the batch: without axes it would take away the first dimension of a single image too."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from onnx import numpy_helper

from exporters.graph import all_names, unused

if TYPE_CHECKING:
    from exporters.passes import Normal


def keep_batch(normal: Normal) -> None:
    """Name the axes of each Squeeze that names none: all of length 1 but the first."""
    graph = normal.graph()
    taken = all_names(graph.proto)
    changed: set[str] = set()
    for node in graph.nodes:
        _, shape = graph.shapes.get(node.input[0], (0, ())) if node.op_type == "Squeeze" else (0, ())
        if shape and len(list(filter(None, node.input))) == 1 and all(isinstance(d, int) for d in shape):
            axes = np.array([axis for axis, d in enumerate(shape) if axis > 0 and d == 1], np.int64)
            name = unused(f"{node.output[0]}/axes", taken)
            normal.model.graph.initializer.append(numpy_helper.from_array(axes, name))
            del node.input[1:]
            node.input.append(name)
            changed.update(node.output, *(graph.nodes[i].output for i in graph.below(node.output[0])))
    _forget_shapes(normal, changed)


def _forget_shapes(normal: Normal, tensors: set[str]) -> None:
    """Drop what is recorded of shapes that now have the batch."""
    proto = normal.model.graph
    kept = [value for value in proto.value_info if value.name not in tensors]
    del proto.value_info[:]
    proto.value_info.extend(kept)
    for value in proto.output:
        if value.name in tensors:
            value.type.tensor_type.ClearField("shape")
