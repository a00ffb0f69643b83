"""weights.bin: every weight once, as ONNX external data that all graphs of the bundle share."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
from onnx import TensorProto, numpy_helper

from camrt.manifest import WEIGHTS, Weight
from exporters.graph import Graph, node_inputs

ALIGNMENT = 64  # bytes; a cache line, and enough for every element type when the file is mapped
DTYPES = {
    TensorProto.FLOAT: "float32",
    TensorProto.FLOAT16: "float16",
    TensorProto.BFLOAT16: "bfloat16",
    TensorProto.DOUBLE: "float64",
    TensorProto.INT8: "int8",
    TensorProto.UINT8: "uint8",
    TensorProto.INT32: "int32",
}  # int64 tensors are shapes and axes, which ONNX Runtime must see in the graph


def weights_of(graph: Graph) -> dict[str, TensorProto]:
    """Return the tensors that go into weights.bin: all with a dimension, but for those that decide a shape."""
    deciding = {name for node in graph.nodes if node.op_type in ("Resize", "Upsample") for name in node.input[1:]}
    return {
        name: tensor
        for name, tensor in graph.initializers.items()
        if tensor.data_type in DTYPES and len(tensor.dims) > 0 and name not in deciding
    }


def write_weights(graph: Graph, image: str, used: Mapping[str, set[str]], path: Path) -> tuple[Weight, ...]:
    """Write the weights of a graph and return their table.

    Parameters
    ----------
    graph : Graph
        The whole model.
    image : str
        The input from which depths are counted.
    used : mapping of str to set of str
        For each graph of the bundle, the initializers that it reads.
    path : Path
        weights.bin.
    """
    depths = _depths(graph, image)
    table: list[Weight] = []
    with path.open("wb") as file:
        for name, tensor in weights_of(graph).items():
            file.write(b"\0" * (-file.tell() % ALIGNMENT))
            data = _raw(tensor)
            readers = tuple(g for g, names in used.items() if name in names)
            shape, dtype = tuple(tensor.dims), DTYPES[TensorProto.DataType.ValueType(tensor.data_type)]
            table.append(Weight(name, dtype, shape, file.tell(), len(data), depths.get(name, 0), readers))
            file.write(data)
    return tuple(table)


def external(tensor: TensorProto, weight: Weight) -> TensorProto:
    """Return the tensor as a reference into weights.bin."""
    reference = TensorProto(name=tensor.name, data_type=tensor.data_type, dims=tensor.dims)
    reference.data_location = TensorProto.EXTERNAL
    for key, value in (("location", WEIGHTS), ("offset", weight.offset), ("length", weight.length)):
        reference.external_data.add(key=key, value=str(value))
    return reference


def _raw(tensor: TensorProto) -> bytes:
    if tensor.HasField("raw_data"):
        return bytes(tensor.raw_data)
    return np.ascontiguousarray(numpy_helper.to_array(tensor)).tobytes()


def _depths(graph: Graph, image: str) -> dict[str, int]:
    """Return for each initializer how many operators on the image's way come before its first use."""
    depth_of = {image: 0}
    first: dict[str, int] = {}
    waiting: dict[str, list[str]] = {}  # a weight read by a node off the image's way counts where that node's output is read
    for node in graph.nodes:
        inputs = node_inputs(node)
        depth = max((depth_of[name] for name in inputs if name in depth_of), default=None)
        weights = [name for name in inputs if name in graph.initializers]
        weights += [w for name in inputs for w in waiting.get(name, ())]
        if depth is None:
            waiting.update({name: list(dict.fromkeys(weights)) for name in node.output})
            continue
        depth_of.update({name: depth + 1 for name in node.output})
        for name in weights:
            first[name] = min(first.get(name, depth), depth)
    return first
