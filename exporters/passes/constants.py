"""Make every constant an initializer, by one name and not among the inputs."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from onnx import NodeProto, TensorProto, numpy_helper

from camrt.errors import ExportError
from exporters.graph import STANDARD, attribute, describe, fitting_ir, rename

if TYPE_CHECKING:
    from exporters.passes import Normal


def lift_constants(normal: Normal) -> None:
    """Turn Constant nodes into initializers, drop initializers from the list of inputs, and their copies by Identity."""
    graph = normal.model.graph
    kept = []
    same: dict[str, str] = {}  # what an Identity calls by another name
    names = {t.name for t in graph.initializer}
    results = {value.name for value in graph.output}
    for node in graph.node:
        if node.op_type == "Constant" and node.domain in STANDARD:
            tensor = _value(node)
            tensor.name = node.output[0]
            graph.initializer.append(tensor)
            names.add(tensor.name)
        elif node.op_type == "Identity" and node.input[0] in names | same.keys() and node.output[0] not in results:
            same[node.output[0]] = same.get(node.input[0], node.input[0])
        else:
            kept.append(node)
    for node in kept:
        rename(node, same)
    normal.model.ir_version = fitting_ir(normal.model)  # up to version 3 an initializer had to be an input
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
    raise ExportError(
        f"{describe(node)} holds text or a sparse tensor, which no image classifier needs. Export the model without it."
    )
