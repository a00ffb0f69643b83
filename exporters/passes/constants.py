"""Make every constant an initializer, listed once and not among the inputs."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from onnx import NodeProto, TensorProto, numpy_helper

from camrt.errors import ExportError
from exporters.graph import STANDARD, attribute, describe, fitting_ir

if TYPE_CHECKING:
    from exporters.passes import Normal


def lift_constants(normal: Normal) -> None:
    """Turn Constant nodes into initializers and drop initializers from the list of inputs."""
    graph = normal.model.graph
    kept = []
    for node in graph.node:
        if node.op_type == "Constant" and node.domain in STANDARD:
            tensor = _value(node)
            tensor.name = node.output[0]
            graph.initializer.append(tensor)
        else:
            kept.append(node)
    normal.model.ir_version = fitting_ir(normal.model)  # up to version 3 an initializer had to be an input
    names = {t.name for t in graph.initializer}
    inputs = [value for value in graph.input if value.name not in names]
    del graph.node[:], graph.input[:]
    graph.node.extend(kept)
    graph.input.extend(inputs)


def _value(node: NodeProto) -> TensorProto:
    tensor = attribute(node, "value")
    if isinstance(tensor, TensorProto):
        return tensor
    for name, dtype in (
        ("value_float", np.float32),
        ("value_floats", np.float32),
        ("value_int", np.int64),
        ("value_ints", np.int64),
    ):
        plain = attribute(node, name)
        if plain is not None:
            return numpy_helper.from_array(np.array(plain, dtype))
    raise ExportError(f"{describe(node)} holds text or a sparse tensor, which no image classifier needs.")
