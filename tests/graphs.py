"""Tiny ONNX classifiers, built in a few lines, whose behaviour is known by hand."""

from __future__ import annotations

import numpy as np
import onnx
import onnxruntime
from onnx import ModelProto, NodeProto, TensorProto, helper, numpy_helper, parser

from exporters.limits import all_nodes

Node = tuple  # (operator, inputs, outputs, attributes)


def model(
    nodes: list[NodeProto],
    weights: dict[str, np.ndarray],
    *,
    image: tuple = ("N", 3, 32, 32),
    output: str = "scores",
    opset: int = 17,
    outputs: tuple[str, ...] = (),
) -> ModelProto:
    """Return a model with input `x` and the outputs named."""
    graph = helper.make_graph(
        nodes,
        "tiny",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, image)],
        [
            onnx.ValueInfoProto(name=name, type=helper.make_tensor_type_proto(TensorProto.FLOAT, None))
            for name in outputs or (output,)
        ],
        [numpy_helper.from_array(value, name) for name, value in weights.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)


def classifier(
    classes: int = 5,
    channels: int = 12,
    *,
    end: str | None = None,
    image: tuple = ("N", 3, 32, 32),
    opset: int = 17,
    seed: int = 0,
) -> ModelProto:
    """Return x → conv s2 → relu → conv s2 → relu `features` → global mean → gemm `logits` [→ end] `scores`.

    Features are (N, channels, 8, 8).
    """
    rng = np.random.default_rng(seed)
    weights = {
        "w1": rng.normal(0, 0.3, (8, image[1], 3, 3)).astype(np.float32),
        "w2": rng.normal(0, 0.2, (channels, 8, 3, 3)).astype(np.float32),
        "b2": rng.normal(0, 0.1, channels).astype(np.float32),
        "w3": rng.normal(0, 1.5, (channels, classes)).astype(np.float32),
        "b3": rng.normal(0, 0.1, classes).astype(np.float32),
    }
    logits = "logits" if end else "scores"
    nodes = [
        helper.make_node("Conv", ["x", "w1"], ["c1"], name="conv1", kernel_shape=[3, 3], strides=[2, 2], pads=[1, 1, 1, 1]),
        helper.make_node("Relu", ["c1"], ["r1"], name="relu1"),
        helper.make_node(
            "Conv", ["r1", "w2", "b2"], ["c2"], name="conv2", kernel_shape=[3, 3], strides=[2, 2], pads=[1, 1, 1, 1]
        ),
        helper.make_node("Relu", ["c2"], ["features"], name="relu2"),
        helper.make_node("GlobalAveragePool", ["features"], ["pooled"], name="pool"),
        helper.make_node("Flatten", ["pooled"], ["flat"], name="flatten"),
        helper.make_node("Gemm", ["flat", "w3", "b3"], [logits], name="fc"),
    ]
    if end:
        nodes.append(helper.make_node(end, [logits], ["scores"], name="end"))
    return model(nodes, weights, image=image, opset=opset)


def residual() -> ModelProto:
    """Return a classifier with a skip: x → conv `c` → relu `r`; r → conv `d`; add(r, d) `s` → relu `t` → mean → gemm."""
    rng = np.random.default_rng(1)
    weights = {
        "w1": rng.normal(0, 0.3, (6, 3, 3, 3)).astype(np.float32),
        "w2": rng.normal(0, 0.2, (6, 6, 3, 3)).astype(np.float32),
        "w3": rng.normal(0, 1.0, (6, 4)).astype(np.float32),
        "b3": np.zeros(4, np.float32),
    }
    nodes = [
        helper.make_node("Conv", ["x", "w1"], ["c"], name="conv1", kernel_shape=[3, 3], strides=[4, 4], pads=[1, 1, 1, 1]),
        helper.make_node("Relu", ["c"], ["r"], name="relu1"),
        helper.make_node("Conv", ["r", "w2"], ["d"], name="conv2", kernel_shape=[3, 3], pads=[1, 1, 1, 1]),
        helper.make_node("Add", ["r", "d"], ["s"], name="add"),
        helper.make_node("Relu", ["s"], ["t"], name="relu2"),
        helper.make_node("GlobalAveragePool", ["t"], ["p"], name="pool"),
        helper.make_node("Flatten", ["p"], ["f"], name="flatten"),
        helper.make_node("Gemm", ["f", "w3", "b3"], ["scores"], name="fc"),
    ]
    return model(nodes, weights)


def save(built: ModelProto, path: object) -> str:
    """Write a model and return its path as text."""
    onnx.save(built, str(path))
    return str(path)


def parse(
    body: str,
    *,
    image: str = "N,3,16,16",
    element: str = "float",
    outputs: tuple[str, ...] = ("scores",),
    opset: int = 17,
    seed: int = 0,
    **weights: object,
) -> ModelProto:
    """Return a model from ONNX text: the nodes of a graph with input `x`; a weight given as a shape is random, He-scaled.

    An output without a type is of float32; operators of any domain may be used.

    parse('[conv] c = Conv (x, w)  r = Relu (c) ...', w=(6, 3, 3, 3), shape=np.array([0, -1]))
    """
    rng = np.random.default_rng(seed)
    graph = parser.parse_graph(f"tiny ({element}[{image}] x) => ({', '.join(outputs)}) {{ {body} }}")
    for value in graph.output:
        if value.type.WhichOneof("value") in (None, "tensor_type") and not value.type.tensor_type.elem_type:
            value.type.tensor_type.elem_type = TensorProto.FLOAT
    for name, value in weights.items():
        if isinstance(value, tuple):
            value = rng.normal(0, (2 / max(1, np.prod(value[1:]))) ** 0.5, value).astype(np.float32)
        graph.initializer.append(numpy_helper.from_array(np.asarray(value), name))
    built = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)
    domains = sorted({node.domain for node in all_nodes(graph.node)} - {"", "ai.onnx"})
    built.opset_import.extend(helper.make_opsetid(domain, 1) for domain in domains)
    return built


def session(built: object) -> onnxruntime.InferenceSession:
    """Open a model, given as proto or by path, on one thread."""
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    options.intra_op_num_threads = 1
    source = built.SerializeToString() if isinstance(built, ModelProto) else str(built)
    return onnxruntime.InferenceSession(source, options, providers=["CPUExecutionProvider"])


def run(built: object, feeds: dict[str, np.ndarray], *outputs: str) -> list[np.ndarray]:
    """Return the outputs of a model, given as proto or by path."""
    return session(built).run(list(outputs) or None, feeds)
