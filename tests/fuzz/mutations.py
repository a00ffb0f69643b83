"""Mutations of a model that stays well-formed protobuf: what someone who knows the format would try."""

from __future__ import annotations

from collections.abc import Callable
from random import Random
from typing import Any

import numpy as np
from onnx import AttributeProto, GraphProto, ModelProto, NodeProto, TensorProto, ValueInfoProto, helper, numpy_helper

Mutation = Callable[[ModelProto, Random], None]
MUTATIONS: dict[str, Mutation] = {}
WHOLE = (
    0,
    1,
    -1,
    2,
    3,
    7,
    -2,
    255,
    4096,
    1 << 16,
    1 << 24,
    1 << 31,
    (1 << 31) - 1,
    -(1 << 31),
    1 << 40,
    1 << 62,
    (1 << 63) - 1,
    -(1 << 63),
)
FLOATS = (0.0, -0.0, 1.0, -1.0, 0.5, 1e-45, 1e38, -1e38, float("inf"), float("-inf"), float("nan"))
TEXTS = (
    "",
    "x",
    "scores",
    "\n",
    "a\nb",
    "\0",
    "ä/é",
    "../x",
    "-",
    "camrt/x",
    "features",
    "image",
    "logits",
    "N" * 70_000,
    "%s%n{}",
)
OPERATORS = (
    "Relu", "Conv", "Gemm", "MatMul", "Reshape", "Flatten", "Squeeze", "Unsqueeze", "Shape", "Size", "Gather", "Slice", "Concat",
    "Split", "Transpose", "Pad", "Resize", "Upsample", "Expand", "Tile", "Range", "ConstantOfShape", "OneHot", "NonZero", "Loop", "If",
    "Scan", "Softmax", "Identity", "Cast", "CastLike", "Add", "Mul", "Div", "Pow", "Mod", "BitShift", "MaxPool", "AveragePool", "LpPool",
    "GlobalAveragePool", "MaxUnpool", "ConvTranspose", "BatchNormalization", "LayerNormalization", "GroupNormalization", "LSTM", "GRU",
    "RNN", "TopK", "Einsum", "CumSum", "GatherND", "ScatterND", "ScatterElements", "GatherElements", "DepthToSpace", "SpaceToDepth",
    "QuantizeLinear", "DequantizeLinear", "DynamicQuantizeLinear", "QLinearConv", "ConvInteger", "MatMulInteger", "RoiAlign",
    "NonMaxSuppression", "GridSample", "DFT", "STFT", "HannWindow", "MelWeightMatrix", "EyeLike", "RandomNormal", "RandomUniform",
    "Multinomial", "Bernoulli", "Dropout", "StringNormalizer", "TfIdfVectorizer", "SequenceConstruct", "SequenceAt", "SplitToSequence",
    "ConcatFromSequence", "Optional", "OptionalGetElement", "Where", "Compress", "Unique", "Trilu", "ArgMax", "ReduceSum", "ReduceMean",
    "LRN", "InstanceNormalization", "Constant", "Det", "ImageDecoder", "Attention", "RotaryEmbedding", "Nonsense", "",
)  # fmt: skip
NAMES_OF_ATTRIBUTES = (
    "axis", "axes", "perm", "pads", "strides", "kernel_shape", "dilations", "group", "to", "value", "value_ints", "value_float",
    "value_string", "sparse_value", "body", "then_branch", "else_branch", "keepdims", "transA", "alpha", "epsilon", "mode", "auto_pad",
    "ceil_mode", "blocksize", "size", "num_outputs", "shape", "dtype", "seed", "allowzero", "start", "end", "output_shape",
    "count_include_pad", "equation", "sample_size", "noop_with_empty_axes", "training_mode", "storage_order", "axis", "block_size",
)  # fmt: skip


def mutation(change: Mutation) -> Mutation:
    """Enter a mutation into the table under its name."""
    MUTATIONS[change.__name__] = change
    return change


def mutated(model: ModelProto, random: Random) -> list[str]:
    """Change a model in place by one to four mutations, and return their names."""
    names = random.choices(list(MUTATIONS), k=random.choice((1, 1, 1, 2, 2, 4)))
    for name in names:
        MUTATIONS[name](model, random)
    return names


# --- what to change -------------------------------------------------------------------------------------------------------
def _graphs(model: ModelProto) -> list[GraphProto]:
    """Return the main graph, mostly, and the bodies in it."""
    bodies = [a.g for node in model.graph.node for a in node.attribute if a.type == AttributeProto.GRAPH]
    return [model.graph] * 4 + bodies


def _node(model: ModelProto, random: Random) -> NodeProto:
    nodes = [*random.choice(_graphs(model)).node] or [*model.graph.node] or [model.graph.node.add()]
    nodes += [node for function in model.functions for node in function.node]
    return random.choice(nodes)


def _tensor(model: ModelProto, random: Random) -> TensorProto:
    tensors = [*model.graph.initializer]
    tensors += [a.t for node in model.graph.node for a in node.attribute if a.type == AttributeProto.TENSOR]
    return random.choice(tensors or [model.graph.initializer.add(name="added", data_type=1, dims=[0])])


def _value(model: ModelProto, random: Random) -> ValueInfoProto:
    values = [*model.graph.input, *model.graph.output, *model.graph.value_info]
    return random.choice(values or [model.graph.value_info.add(name="added")])


def _name(model: ModelProto, random: Random) -> str:
    graph = model.graph
    names = [name for node in graph.node for name in (*node.input, *node.output)]
    names += [value.name for value in (*graph.initializer, *graph.input, *graph.output)]
    return random.choice([*names, random.choice(TEXTS)])


def _small(model: ModelProto) -> list[TensorProto]:
    """Return the constants that are shapes, axes and the like."""
    return [t for t in model.graph.initializer if t.data_type == TensorProto.INT64 and len(t.dims) < 2]


def _change_list(values: Any, random: Random, new: Callable[[], Any]) -> None:
    """Change, add, remove or swap entries of a repeated field."""
    old = list(values)
    what = random.choice(("change", "change", "change", "add", "remove", "swap", "repeat", "clear"))
    if what == "add" or not old:
        old.insert(random.randint(0, len(old)), new())
    elif what == "change":
        old[random.randrange(len(old))] = new()
    elif what == "remove":
        del old[random.randrange(len(old))]
    elif what == "swap":
        random.shuffle(old)
    elif what == "repeat":
        old *= random.choice((2, 100))
    else:
        old = []
    del values[:]
    values.extend(old)


# --- nodes ----------------------------------------------------------------------------------------------------------------
@mutation
def remove_node(model: ModelProto, random: Random) -> None:
    graph = random.choice(_graphs(model))
    if graph.node:
        del graph.node[random.randrange(len(graph.node))]


@mutation
def repeat_node(model: ModelProto, random: Random) -> None:
    graph = random.choice(_graphs(model))
    if graph.node:
        graph.node.append(random.choice(graph.node))


@mutation
def reorder_nodes(model: ModelProto, random: Random) -> None:
    graph = random.choice(_graphs(model))
    nodes = [NodeProto.FromString(node.SerializeToString()) for node in graph.node]
    random.shuffle(nodes)
    del graph.node[:]
    graph.node.extend(nodes)


@mutation
def other_operator(model: ModelProto, random: Random) -> None:
    _node(model, random).op_type = random.choice(OPERATORS)


@mutation
def add_node(model: ModelProto, random: Random) -> None:
    """Put an operator between a tensor and its reader, with other tensors as further inputs."""
    reader = _node(model, random)
    if not reader.input:
        return
    i = random.randrange(len(reader.input))
    inputs = [reader.input[i], *(_name(model, random) for _ in range(random.choice((0, 0, 1, 2, 4))))]
    node = helper.make_node(random.choice(OPERATORS), inputs, ["between"])
    reader.input[i] = "between"
    if random.random() < 0.5:
        other_attribute_of(node, random)
    model.graph.node.insert(random.randint(0, len(model.graph.node)), node)


@mutation
def other_domain(model: ModelProto, random: Random) -> None:
    _node(model, random).domain = random.choice(("ai.onnx", "com.microsoft", "ai.onnx.ml", "ai.onnx.training", "local", *TEXTS))


@mutation
def other_wiring(model: ModelProto, random: Random) -> None:
    """Rename an input or output of a node: cycles, duplicates, tensors that nobody writes."""
    node = _node(model, random)
    names = random.choice((node.input, node.input, node.output))
    _change_list(names, random, lambda: _name(model, random))


@mutation
def other_node_name(model: ModelProto, random: Random) -> None:
    _node(model, random).name = random.choice(TEXTS)


@mutation
def long_chain(model: ModelProto, random: Random) -> None:
    """Put a chain of thousands of nodes before a node."""
    node = _node(model, random)
    if not node.input:
        return
    count = random.choice((100, 2000))
    names = [node.input[0], *(f"chain{i}" for i in range(count))]
    nodes = [helper.make_node("Identity", [a], [b]) for a, b in zip(names, names[1:], strict=False)]
    rest = [NodeProto.FromString(n.SerializeToString()) for n in model.graph.node]
    del model.graph.node[:]
    model.graph.node.extend([*nodes, *rest] if random.random() < 0.5 else [*rest, *nodes])
    for reader in model.graph.node[count:] if model.graph.node[0].output[0] == "chain0" else ():
        for i, name in enumerate(reader.input):
            reader.input[i] = names[-1] if name == names[0] else name


@mutation
def doubling(model: ModelProto, random: Random) -> None:
    """Concatenate a tensor with itself again and again: 2^n elements from n nodes."""
    node = _node(model, random)
    if not node.input:
        return
    name, count = node.input[0], random.choice((4, 12, 24, 40, 70))
    operator = random.choice(("Concat", "Tile", "Expand"))
    for i in range(count):
        if operator == "Concat":
            new = helper.make_node("Concat", [name, name], [f"double{i}"], axis=random.choice((0, 1, -1)))
        else:
            shape = random.choice([t.name for t in _small(model)] or ["x"])
            new = helper.make_node(operator, [name, shape], [f"double{i}"])
        model.graph.node.insert(i, new)
        name = f"double{i}"
    node.input[0] = name


# --- attributes -----------------------------------------------------------------------------------------------------------
@mutation
def other_attribute(model: ModelProto, random: Random) -> None:
    node = _node(model, random)
    if node.attribute:
        change_attribute(random.choice(node.attribute), random)
    else:
        other_attribute_of(node, random)


@mutation
def new_attribute(model: ModelProto, random: Random) -> None:
    other_attribute_of(_node(model, random), random)


@mutation
def other_numbers(model: ModelProto, random: Random) -> None:
    """Change kernel shapes, strides, pads, axes and permutations within what a user could have meant."""
    nodes = [node for node in model.graph.node if any(a.type == AttributeProto.INTS for a in node.attribute)]
    if nodes:
        found = random.choice([a for a in random.choice(nodes).attribute if a.type == AttributeProto.INTS])
        _change_list(found.ints, random, lambda: random.choice((0, 1, 2, 3, 5, 16, 17, -1, -3, 1000)))


def change_attribute(found: AttributeProto, random: Random) -> None:
    """Give an attribute an extreme value of its own type, or another type, or another name."""
    roll = random.random()
    if roll < 0.15:
        found.type = random.choice(list(AttributeProto.AttributeType.values()))
    elif roll < 0.25:
        found.name = random.choice((*NAMES_OF_ATTRIBUTES, *TEXTS))
    elif found.type == AttributeProto.INT:
        found.i = random.choice(WHOLE)
    elif found.type == AttributeProto.FLOAT:
        found.f = random.choice(FLOATS)
    elif found.type == AttributeProto.STRING:
        found.s = random.choice(
            (b"", b"\xff\xfe", b"SAME_UPPER", b"VALID", b"nearest", b"linear", b"cubic", b"ij,jk->ik", b"A" * 50_000)
        )
    elif found.type == AttributeProto.INTS:
        _change_list(found.ints, random, lambda: random.choice(WHOLE))
    elif found.type == AttributeProto.TENSOR:
        change_tensor(found.t, random)
    else:
        found.Clear()


def other_attribute_of(node: NodeProto, random: Random) -> None:
    name = random.choice(NAMES_OF_ATTRIBUTES)
    value: Any = random.choice(
        (
            random.choice(WHOLE), random.choice(FLOATS), random.choices(WHOLE, k=random.randint(1, 5)), [1, 2, 3], b"text",
            random.choices(FLOATS, k=2), numpy_helper.from_array(np.arange(3), "t"), helper.make_graph([node], "g", [], []),
        )
    )  # fmt: skip
    node.attribute.append(helper.make_attribute(name, value))


# --- tensors --------------------------------------------------------------------------------------------------------------
@mutation
def other_tensor(model: ModelProto, random: Random) -> None:
    change_tensor(_tensor(model, random), random)


def change_tensor(tensor: TensorProto, random: Random) -> None:
    """Change a tensor's dimensions, type, content or name."""
    roll = random.randrange(7)
    if roll == 0:
        _change_list(tensor.dims, random, lambda: random.choice(WHOLE))
    elif roll == 1:
        tensor.data_type = random.choice((*TensorProto.DataType.values(), 99, -1))
    elif roll == 2:
        tensor.raw_data = random.choice(
            (b"", b"\0", tensor.raw_data[:-1], tensor.raw_data * 2, random.randbytes(len(tensor.raw_data)))
        )
    elif roll == 3:
        tensor.name = random.choice(TEXTS)
    elif roll == 4:
        tensor.float_data.extend(random.choices(FLOATS, k=3))
    elif roll == 5:
        tensor.data_type = TensorProto.STRING
        tensor.ClearField("raw_data")
        tensor.string_data.extend([b"cat"] * random.choice((1, 5)))
    else:
        tensor.segment.begin, tensor.segment.end = random.choice(WHOLE), random.choice(WHOLE)


@mutation
def other_shape_constant(model: ModelProto, random: Random) -> None:
    """Change the numbers in a constant that is a shape, axes, repeats or sizes."""
    tensors = _small(model)
    if tensors:
        tensor = random.choice(tensors)
        try:
            values = numpy_helper.to_array(tensor).ravel().tolist()
        except Exception:  # an earlier mutation damaged it
            return
        dims = [*tensor.dims]
        _change_list(values, random, lambda: random.choice(WHOLE))
        tensor.CopyFrom(numpy_helper.from_array(np.array(values, np.int64), tensor.name))
        if not dims and len(values) == 1:
            del tensor.dims[:]


@mutation
def extreme_weights(model: ModelProto, random: Random) -> None:
    for tensor in model.graph.initializer:
        if tensor.data_type == TensorProto.FLOAT and random.random() < 0.5:
            size = len(tensor.raw_data) // 4
            tensor.raw_data = np.full(size, random.choice(FLOATS), np.float32).tobytes()


@mutation
def remove_tensor(model: ModelProto, random: Random) -> None:
    if model.graph.initializer:
        del model.graph.initializer[random.randrange(len(model.graph.initializer))]


@mutation
def repeat_tensor(model: ModelProto, random: Random) -> None:
    if model.graph.initializer:
        model.graph.initializer.append(random.choice(model.graph.initializer))


@mutation
def sparse_tensor(model: ModelProto, random: Random) -> None:
    """Write a weight as a sparse tensor, with indices that may lie outside."""
    tensor = _tensor(model, random)
    sparse = model.graph.sparse_initializer.add()
    sparse.values.CopyFrom(helper.make_tensor(tensor.name, TensorProto.FLOAT, [2], [1.0, 2.0]))
    sparse.indices.CopyFrom(helper.make_tensor("indices", TensorProto.INT64, [2], random.choices(WHOLE, k=2)))
    sparse.dims.extend(tensor.dims if random.random() < 0.5 else random.choices(WHOLE, k=4))
    if random.random() < 0.7 and tensor in list(model.graph.initializer):
        model.graph.initializer.remove(tensor)


# --- interface ------------------------------------------------------------------------------------------------------------
@mutation
def other_value(model: ModelProto, random: Random) -> None:
    """Change the type, shape or name of an input, an output, or a recorded tensor in between."""
    value = _value(model, random)
    roll = random.randrange(6)
    if roll == 0:
        value.name = _name(model, random)
    elif roll == 1:
        value.type.tensor_type.elem_type = random.choice((*TensorProto.DataType.values(), 99, -1))
    elif roll == 2:
        value.ClearField("type")
    elif roll == 3:
        value.type.sequence_type.elem_type.tensor_type.elem_type = TensorProto.FLOAT
    else:
        _change_shape(value, random)


def _change_shape(value: ValueInfoProto, random: Random) -> None:
    dims = value.type.tensor_type.shape.dim
    if not dims or random.random() < 0.2:
        dims.add(dim_value=random.choice(WHOLE))
        return
    dim = random.choice(dims)
    roll = random.random()
    if roll < 0.6:
        dim.dim_value = random.choice((*WHOLE, 8, 17, 64))
    elif roll < 0.8:
        dim.dim_param = random.choice(TEXTS)
    elif roll < 0.9:
        dim.Clear()
    else:
        del dims[-1]


@mutation
def image_size(model: ModelProto, random: Random) -> None:
    if model.graph.input:
        dims = model.graph.input[0].type.tensor_type.shape.dim
        for dim in dims[2:]:
            dim.dim_value = random.choice((1, 2, 5, 16, 33, 64, 500, 4096, 1 << 16, 1 << 20, 1 << 31, 1 << 62))


@mutation
def batch_size(model: ModelProto, random: Random) -> None:
    if model.graph.input:
        dims = model.graph.input[0].type.tensor_type.shape.dim
        if dims:
            dims[0].dim_value = random.choice((0, 1, 2, 5, 64, 1000, 1 << 20, 1 << 31, -1))


@mutation
def recorded_shape(model: ModelProto, random: Random) -> None:
    """Record a shape for a tensor that contradicts what it has."""
    value = helper.make_tensor_value_info(
        _name(model, random), random.choice((1, 7, 10)), random.choices(WHOLE, k=random.randint(0, 5))
    )
    model.graph.value_info.append(value)


@mutation
def other_interface(model: ModelProto, random: Random) -> None:
    """Remove, repeat or add inputs and outputs."""
    values = random.choice((model.graph.input, model.graph.output))
    if values and random.random() < 0.5:
        del values[random.randrange(len(values))]
    elif values and random.random() < 0.5:
        values.append(random.choice(values))
    else:
        values.append(helper.make_tensor_value_info(_name(model, random), TensorProto.FLOAT, None))


@mutation
def rename_everywhere(model: ModelProto, random: Random) -> None:
    old, new = _name(model, random), random.choice((*TEXTS, _name(model, random)))
    graph = model.graph
    for node in graph.node:
        for names in (node.input, node.output):
            for i, name in enumerate(names):
                names[i] = new if name == old else name
    for value in (*graph.initializer, *graph.input, *graph.output):
        value.name = new if value.name == old else value.name


# --- versions, functions, nesting -----------------------------------------------------------------------------------------
@mutation
def other_opset(model: ModelProto, random: Random) -> None:
    if model.opset_import and random.random() < 0.8:
        versions = (0, -1, 1, 2, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 18, 19, 21, 22, 24, 26, 99, 10**9, 1 << 62, -(1 << 63))
        random.choice(model.opset_import).version = random.choice(versions)
    else:
        domain = random.choice(("", "ai.onnx", "local", "com.microsoft", *TEXTS))
        model.opset_import.append(helper.make_opsetid(domain, random.choice((1, 9, 13, 10**9))))


@mutation
def no_opset(model: ModelProto, random: Random) -> None:
    del model.opset_import[:]


@mutation
def other_ir_version(model: ModelProto, random: Random) -> None:
    model.ir_version = random.choice((*range(15), -1, 99, 10**9, 1 << 62, -(1 << 63)))


@mutation
def recursive_function(model: ModelProto, random: Random) -> None:
    """Let a local function call itself, directly or through another."""
    if "local" not in {entry.domain for entry in model.opset_import}:
        model.opset_import.append(helper.make_opsetid("local", 1))
    imports = [helper.make_opsetid("", 17), helper.make_opsetid("local", 1)]
    loop = random.choice((("A", "A"), ("A", "B")))
    for name, called in ((loop[0], loop[1]), (loop[1], loop[0])):
        body = [helper.make_node(called, ["a"], ["b"], domain="local")]
        model.functions.append(helper.make_function("local", name, ["a"], ["b"], body, imports))
    node = _node(model, random)
    if node.input:
        model.graph.node.insert(0, helper.make_node("A", [node.input[0]], ["recursive"], domain="local"))
        node.input[0] = "recursive"


@mutation
def exploding_functions(model: ModelProto, random: Random) -> None:
    """Let functions call the next one twice: 2^n nodes when they are inlined."""
    if "local" not in {entry.domain for entry in model.opset_import}:
        model.opset_import.append(helper.make_opsetid("local", 1))
    imports = [helper.make_opsetid("", 17), helper.make_opsetid("local", 1)]
    depth = random.choice((3, 8, 30))
    for i in range(depth):
        operator, domain = (f"F{i + 1}", "local") if i < depth - 1 else ("Relu", "")
        body = [helper.make_node(operator, [a], [b], domain=domain) for a, b in (("a", "m"), ("m", "b"))]
        model.functions.append(helper.make_function("local", f"F{i}", ["a"], ["b"], body, imports))
    node = _node(model, random)
    if node.input:
        model.graph.node.insert(0, helper.make_node("F0", [node.input[0]], ["exploded"], domain="local"))
        node.input[0] = "exploded"


@mutation
def nested_bodies(model: ModelProto, random: Random) -> None:
    """Put a branch within a branch within a branch."""
    node = _node(model, random)
    if not node.input:
        return
    read, inner = node.input[0], helper.make_node("Identity", [node.input[0]], ["deep"])
    condition = random.choice(["x", *(t.name for t in model.graph.initializer)])
    for _ in range(random.choice((1, 5, 20, 30))):
        out = helper.make_tensor_value_info("deep", TensorProto.FLOAT, None)
        body = helper.make_graph([inner], "g", [], [out])
        inner = helper.make_node(
            "If",
            [condition],
            ["deep"],
            then_branch=body,
            else_branch=body
            if random.random() < 0.02
            else helper.make_graph([helper.make_node("Identity", [read], ["deep"])], "h", [], [out]),
        )
    model.graph.node.insert(0, inner)
    node.input[0] = "deep"


@mutation
def texts(model: ModelProto, random: Random) -> None:
    text = random.choice((*TEXTS, "x" * 3_000_000))
    field = random.choice(("producer_name", "producer_version", "domain", "doc_string"))
    setattr(model, field, text)
    model.metadata_props.add(key=random.choice(TEXTS), value=text[:100_000])
    node = _node(model, random)
    node.metadata_props.add(
        key="pkg.torch.onnx.name_scopes",
        value=random.choice(("[" * 5000, "['a', 'b']", "{'a': [", "(" * 200, "9" * 9000, text)),
    )


@mutation
def quantisation_annotation(model: ModelProto, random: Random) -> None:
    annotation = model.graph.quantization_annotation.add(tensor_name=_name(model, random))
    annotation.quant_parameter_tensor_names.add(key="SCALE_TENSOR", value=_name(model, random))


@mutation
def turns_without_end(model: ModelProto, random: Random) -> None:
    """Let a Loop run a huge number of turns, or a Range have as many elements."""
    for node in model.graph.node:
        if node.op_type in ("Loop", "Range"):
            for tensor in model.graph.initializer:
                if tensor.name in node.input and tensor.data_type in (TensorProto.INT64, TensorProto.FLOAT) and not tensor.dims:
                    dtype = helper.tensor_dtype_to_np_dtype(tensor.data_type)
                    tensor.CopyFrom(numpy_helper.from_array(np.array(random.choice((10**6, 10**12)), dtype), tensor.name))
                    return
