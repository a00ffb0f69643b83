"""What a file may ask for: a hostile one names sizes that no image classifier has, and is refused before anything follows."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from math import prod

import numpy as np
import onnx
from onnx import AttributeProto, GraphProto, ModelProto, NodeProto, TensorProto, ValueInfoProto, helper, numpy_helper

from camrt.errors import ExportError
from exporters.graph import MAX_SHAPE, STANDARD, Graph, all_names, describe, node_inputs, opset, subgraphs, written

MAX_NODES = 20_000  # with every function written out; the largest published CNNs have some thousands
MAX_NESTING = 24  # of functions in functions
MAX_ELEMENTS = 1 << 27  # of one tensor: 512 MB of float32, 32 maps of 2048 x 2048
MAX_TURNS = 10_000  # of loops within loops together
GROWING = {  # operators, and the first of the inputs that say how large the result is
    "ConstantOfShape": 0, "Expand": 1, "Tile": 1, "Range": 0, "Resize": 2, "Upsample": 1, "Pad": 1, "OneHot": 1,
}  # fmt: skip
MAX_NAME = 4096  # characters
MAX_BYTES = (2 << 30) - 1  # of a file, and of all weights beside it; protobuf's limit for what is worked on in memory
BITS = {  # NumPy has a byte for each; the newer ones have no name in older versions of onnx
    TensorProto.DataType.Value(name): bits
    for name, bits in {"INT4": 4, "UINT4": 4, "FLOAT4E2M1": 4, "INT2": 2, "UINT2": 2, "FLOAT6E2M3": 6, "FLOAT6E3M2": 6}.items()
    if name in TensorProto.DataType.keys()
}
CONTROL = re.compile(r"[\x00-\x1f\x7f]")

Key = tuple[str, str, str]


def check_source(model: ModelProto) -> None:
    """Refuse, right after reading, what would lead later steps into endless work, and drop what contradicts itself.

    Raises
    ------
    ExportError
        A name, a constant or the functions are beyond the limits, or a constant is not what it says.
    """
    check_names(model)
    check_tensors(model)
    check_attributes(model)
    check_functions(model)
    forget_impossible_shapes(model)


def check_names(model: ModelProto) -> None:
    """Refuse names that cannot stand in a message: endless ones, and those with line breaks and other control characters.

    Raises
    ------
    ExportError
        There is such a name.
    """
    names = all_names(model.graph)
    nodes = [*all_nodes(model.graph.node), *(node for f in model.functions for node in all_nodes(f.node))]
    names.update(text for node in nodes for text in (node.name, node.op_type, node.domain, *node.input, *node.output))
    names.update(value.name for value in model.graph.value_info)
    dims = [dim for value in (*model.graph.input, *model.graph.output) for dim in value.type.tensor_type.shape.dim]
    names.update(dim.dim_param for dim in dims)
    for name in names:
        if not isinstance(name, str) or len(name) > MAX_NAME or CONTROL.search(name):  # protobuf leaves broken UTF-8 as bytes
            raise ExportError(
                f"The model has a name of {len(name):,} characters, {name[:40]!r}; up to {MAX_NAME:,} are allowed, in UTF-8 "
                "and without control characters. Rename it, or export the model again."
            )


def check_tensors(model: ModelProto) -> None:
    """Refuse constants whose content does not fit their type and dimensions, and sparse ones.

    Raises
    ------
    ExportError
        There is such a constant.
    """
    for tensor in all_tensors(model):
        try:
            fits = tensor.data_type == TensorProto.STRING or _fits(tensor)
        except Exception:  # an unknown type, or too few values
            fits = False
        if not fits:
            raise ExportError(
                f"The constant {tensor.name!r} does not hold what its type and its shape {list(tensor.dims)} say. The file is "
                "damaged; export the model again."
            )
    if any(graph.sparse_initializer for graph in all_graphs(model.graph)):
        raise ExportError("The model has sparse weights. Export it with dense ones.")


def _fits(tensor: TensorProto) -> bool:
    if min(tensor.dims, default=0) < 0 or prod(tensor.dims) > MAX_BYTES:
        return False
    if not tensor.HasField("raw_data"):
        return numpy_helper.to_array(tensor).shape == tuple(tensor.dims)
    return len(tensor.raw_data) == bytes_of(tensor)


def bytes_of(tensor: TensorProto) -> int:
    """Return how many bytes a tensor of this type and shape takes."""
    bits: int = BITS.get(tensor.data_type) or 8 * helper.tensor_dtype_to_np_dtype(tensor.data_type).itemsize
    return int(-(-prod(tensor.dims) * bits // 8))


def check_attributes(model: ModelProto) -> None:
    """Refuse attributes of another type than their operator has, which native code reads without looking.

    Raises
    ------
    ExportError
        There is such an attribute.
    """
    version = min(max(1, opset(model)), onnx.defs.onnx_opset_version())
    for node in all_nodes(model.graph.node):
        if node.domain not in STANDARD or not onnx.defs.has(node.op_type, version, ""):
            continue
        known = onnx.defs.get_schema(node.op_type, version, "").attributes
        for entry in node.attribute:
            if entry.name in known and not entry.ref_attr_name and known[entry.name].type.value != entry.type:
                found = AttributeProto.AttributeType.Name(entry.type)
                raise ExportError(
                    f"The attribute {entry.name!r} of {describe(node)} is {found}, where opset {version} has "
                    f"{known[entry.name].type.name}. The file is damaged; export the model again."
                )


def forget_impossible_shapes(model: ModelProto) -> None:
    """Take recorded dimensions below 0 as unknown, and forget tensors recorded with more elements than allowed."""
    for graph in all_graphs(model.graph):
        for value in (*graph.input, *graph.output, *graph.value_info):
            for dim in value.type.tensor_type.shape.dim if value.type.HasField("tensor_type") else ():
                if dim.dim_value < 0:
                    dim.Clear()
        possible = [value for value in graph.value_info if _elements(value) <= MAX_ELEMENTS]
        if len(possible) < len(graph.value_info):
            del graph.value_info[:]
            graph.value_info.extend(possible)


def _elements(value: ValueInfoProto) -> int:
    return prod(dim.dim_value for dim in value.type.tensor_type.shape.dim if dim.HasField("dim_value"))


def check_functions(model: ModelProto) -> None:
    """Refuse functions that call themselves, and those that come to too many nodes when they are written out.

    Raises
    ------
    ExportError
        Writing them out would not end, or fill the memory.
    """
    functions = {(f.domain, f.name, f.overload): f.node for f in model.functions}
    sizes: dict[Key, int] = {}

    def size(nodes: Iterable[NodeProto], calling: tuple[Key, ...]) -> int:
        total = 0
        for node in all_nodes(nodes):
            key = (node.domain, node.op_type, node.overload)
            if key in calling or len(calling) > MAX_NESTING:
                raise ExportError(
                    f"The function {key[1]!r} calls itself, or functions call each other more than {MAX_NESTING} deep; they "
                    "cannot be written out. Export the model without local functions."
                )
            if key in functions and key not in sizes:
                sizes[key] = size(functions[key], (*calling, key))
            total += sizes.get(key, 1)
            if total > MAX_NODES:
                raise ExportError(
                    f"The model has more than {MAX_NODES:,} operators when its functions are written out. Export it without "
                    "local functions, or simplify it."
                )
        return total

    size(model.graph.node, ())


def check_sizes(graph: Graph) -> None:
    """Refuse tensors that no machine has memory for.

    Raises
    ------
    ExportError
        A tensor has more elements than allowed, or a negative number.
    """
    for name, (_, shape) in graph.shapes.items():
        numbers = [d for d in shape if isinstance(d, int)]
        if min(numbers, default=0) < 0 or prod(numbers) > MAX_ELEMENTS:
            raise ExportError(
                f"The tensor {name!r} would have the shape {written(shape)}; up to {MAX_ELEMENTS:,} elements are allowed. "
                "Export the model for smaller images."
            )


def is_small(node: NodeProto, values: Mapping[str, np.ndarray], model: ModelProto) -> bool:
    """Tell whether what a node makes of these constants has few elements: a Range, for one, may ask for any number."""
    constants = [numpy_helper.from_array(value, name) for name, value in values.items()]
    outputs = [ValueInfoProto(name=name) for name in node.output if name]
    graph = helper.make_graph([node], "one", [], outputs, constants)
    single = helper.make_model(graph, opset_imports=model.opset_import, ir_version=max(4, model.ir_version))
    try:
        shapes = Graph(single).shapes
    except ExportError:
        return False
    for value in outputs:
        numbers = [d for d in shapes.get(value.name, (0, (None,)))[1] if isinstance(d, int)]
        known = value.name in shapes and len(numbers) == len(shapes[value.name][1])
        if prod(numbers) > MAX_SHAPE or (not known and node.op_type in GROWING):
            return False
    return True


def check_growth(graph: Graph, image: str) -> None:
    """Refuse operators whose result may have any size, as the image's values decide it.

    Raises
    ------
    ExportError
        There is one.
    """
    pixels = _from_values(graph, image)
    for node in graph.nodes:
        first = GROWING.get(node.op_type)
        if first is not None and pixels.intersection(node.input[first:]):
            raise ExportError(
                f"The size of what {describe(node)} makes depends on the image's content, so that it may be of any size. "
                "Export the model without it."
            )


def _from_values(graph: Graph, image: str) -> set[str]:
    """Return the tensors that depend on the image's values, and not on its shape alone."""
    found = {image}
    for node in graph.nodes:
        if node.op_type not in ("Shape", "Size") and found.intersection(node_inputs(node)):
            found.update(node.output)
    return found - {""}


def check_loops(graph: Graph) -> None:
    """Refuse loops whose number of turns is not known, or too large.

    Raises
    ------
    ExportError
        There is one.
    """

    def check(nodes: Iterable[NodeProto], before: int) -> None:
        for node in nodes:
            turns = before * (_turns(node, graph) if node.op_type == "Loop" else 1)
            if turns > MAX_TURNS:
                raise ExportError(
                    f"{describe(node)} may make more than {MAX_TURNS:,} turns, or does not say how many. Export the model with "
                    "the loop unrolled."
                )
            for body in subgraphs(node):
                check(body.node, turns)

    check(graph.nodes, 1)


def _turns(loop: NodeProto, graph: Graph) -> int:
    tensor = graph.initializers.get(loop.input[0]) if loop.input else None
    if tensor is None or prod(tensor.dims) != 1:
        return MAX_TURNS + 1
    return max(1, int(numpy_helper.to_array(tensor).item()))


def all_nodes(nodes: Iterable[NodeProto]) -> Iterator[NodeProto]:
    """Yield nodes, and those in their branches and loops."""
    waiting = list(nodes)
    while waiting:
        node = waiting.pop()
        yield node
        waiting.extend(inner for body in subgraphs(node) for inner in body.node)


def all_tensors(model: ModelProto) -> Iterator[TensorProto]:
    """Yield every constant: weights, and those in the attributes of nodes."""
    for graph in all_graphs(model.graph):
        yield from graph.initializer
    nodes = [*all_nodes(model.graph.node), *(node for f in model.functions for node in all_nodes(f.node))]
    for node in nodes:
        for a in node.attribute:
            yield from ([a.t] if a.HasField("t") else [])
            yield from a.tensors


def all_graphs(graph: GraphProto) -> Iterator[GraphProto]:
    """Yield a graph, and the bodies in it."""
    yield graph
    for node in all_nodes(graph.node):
        yield from subgraphs(node)
