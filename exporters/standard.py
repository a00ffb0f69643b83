"""Write ONNX Runtime's own operators in standard ones: fused ones in parts, quantised ones with float32 between.

The tensors keep their names, so that what is found out about the rewritten nodes, shapes and gradients, holds for the others.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from onnx import NodeProto, TensorProto, helper, numpy_helper

from camrt.errors import ExportError
from exporters.emitter import Emitter

PREFIX = "camrt/standard"
IN_BOTH = ("Gelu",)  # ONNX has an operator of that name too, which stays
Weights = Mapping[str, TensorProto]


@dataclass(frozen=True)
class Quantised:
    """Scale and zero point of a tensor, by name; the zero point may be empty."""

    scale: str
    zero_point: str


def standard(
    nodes: Iterable[NodeProto],
    weights: Weights,
    opset: int,
    rules: Mapping[str, Rule] | None = None,
    prefix: str = PREFIX,
) -> tuple[list[NodeProto], list[TensorProto]]:
    """Return nodes without the operators of `rules`, by default all that are known, and the constants that this adds.

    What is added is called by the prefix; a model that keeps it, and is rewritten again, needs another one the second time.
    """
    op = Emitter(prefix, opset=opset)
    written = 0
    found: list[NodeProto] = []
    for node in nodes:
        rule = (RULES if rules is None else rules).get(node.op_type)
        if rule is None or (node.op_type in IN_BOTH and node.domain != "com.microsoft"):
            found.append(node)
            continue
        result, quantised = rule(op, node, weights)
        if quantised is not None:
            result = op.QuantizeLinear(result, quantised.scale, quantised.zero_point)
        last = op.nodes[-1]
        last.name, last.output[0] = node.name, node.output[0]
        last.metadata_props.extend(node.metadata_props)
        found += op.nodes[written:]
        written = len(op.nodes)
    return found, op.initializers


# --- rules: emitter, node, weights → the float result, and how it is quantised ----------------------------------------------
Rule = Callable[[Emitter, NodeProto, Weights], tuple[str, Quantised | None]]


def _real(op: Emitter, weights: Weights, x: str, scale: str, zero_point: str = "", axis: int = 1) -> str:
    """Return a quantised tensor in float32; a scale of several numbers goes along `axis`."""
    along = {"axis": axis} if _several(weights, scale) else {}
    return op.DequantizeLinear(x, scale, zero_point, **along)


def _several(weights: Weights, scale: str) -> bool:
    tensor = weights.get(scale)
    return tensor is not None and np.prod(tensor.dims, dtype=int) > 1


def _attributes(node: NodeProto, *left_out: str) -> dict[str, Any]:
    return {a.name: helper.get_attribute_value(a) for a in node.attribute if a.name not in left_out}


def _input(node: NodeProto, position: int) -> str:
    return node.input[position] if position < len(node.input) else ""


def _conv(op: Emitter, node: NodeProto, weights: Weights) -> tuple[str, Quantised | None]:
    x, x_scale, x_zero, w, w_scale, w_zero, y_scale, y_zero = node.input[:8]
    inputs = [_real(op, weights, x, x_scale, x_zero), _real(op, weights, w, w_scale, w_zero, axis=0)]
    if bias := _input(node, 8):
        inputs.append(_bias(op, weights, bias, x_scale, w_scale))
    return op.Conv(*inputs, **_attributes(node)), Quantised(y_scale, y_zero)


def _bias(op: Emitter, weights: Weights, bias: str, x_scale: str, w_scale: str) -> str:
    """Return an int32 bias, whose scale is the product of the others, in float32."""
    scales = [numpy_helper.to_array(weights[name]).reshape(-1) for name in (x_scale, w_scale)]
    product = scales[0] * scales[1]
    if product.size == 1:
        return op.DequantizeLinear(bias, op.constant(product[0], "float32"))
    return op.DequantizeLinear(bias, op.constant(product, "float32"), axis=0)


def _matmul(op: Emitter, node: NodeProto, weights: Weights) -> tuple[str, Quantised | None]:
    a, a_scale, a_zero, b, b_scale, b_zero, y_scale, y_zero = node.input[:8]
    product = op.MatMul(_real(op, weights, a, a_scale, a_zero, axis=0), _real(op, weights, b, b_scale, b_zero))
    return product, Quantised(y_scale, y_zero)


def _gemm(op: Emitter, node: NodeProto, weights: Weights) -> tuple[str, Quantised | None]:
    a, a_scale, a_zero, b, b_scale, b_zero = node.input[:6]
    axis = 0 if _attributes(node).get("transB", 0) else 1
    inputs = [_real(op, weights, a, a_scale, a_zero), _real(op, weights, b, b_scale, b_zero, axis=axis)]
    if bias := _input(node, 6):
        inputs.append(_bias(op, weights, bias, a_scale, b_scale))
    scale = _input(node, 7)  # without one the result stays in float32
    return op.Gemm(*inputs, **_attributes(node)), Quantised(scale, _input(node, 8)) if scale else None


def _two(operator: str) -> Rule:
    """Return the rule of an operator on a, a's scale and zero point, b, b's, y's."""

    def rule(op: Emitter, node: NodeProto, weights: Weights) -> tuple[str, Quantised | None]:
        a, a_scale, a_zero, b, b_scale, b_zero, y_scale = node.input[:7]
        real = getattr(op, operator)(_real(op, weights, a, a_scale, a_zero), _real(op, weights, b, b_scale, b_zero))
        return real, Quantised(y_scale, _input(node, 7))

    return rule


def _one(operator: str) -> Rule:
    """Return the rule of an operator on x, x's scale and zero point, y's."""

    def rule(op: Emitter, node: NodeProto, weights: Weights) -> tuple[str, Quantised | None]:
        x, x_scale, x_zero, y_scale = node.input[:4]
        real = _real(op, weights, x, x_scale, x_zero)
        last = _attributes(node).get("channels_last", 0)
        real = op.Transpose(real, perm=[0, 3, 1, 2]) if last else real
        real = getattr(op, operator)(real, **_attributes(node, "channels_last"))
        return op.Transpose(real, perm=[0, 2, 3, 1]) if last else real, Quantised(y_scale, _input(node, 4))

    return rule


def _softmax(op: Emitter, node: NodeProto, weights: Weights) -> tuple[str, Quantised | None]:
    """Softmax as of the `opset` that the node names: before 13 over everything from the axis on."""
    x, x_scale, x_zero, y_scale, y_zero = (_input(node, i) for i in range(5))
    given = _attributes(node)
    axis, real = given.get("axis", -1), _real(op, weights, x, x_scale, x_zero)
    if given["opset"] >= 13:
        return op.Softmax(real, axis=axis), Quantised(y_scale, y_zero)
    flat = op.Softmax(op.Flatten(real, axis=axis), axis=1)
    return op.Reshape(flat, op.Shape(real)), Quantised(y_scale, y_zero)


def _mean(op: Emitter, node: NodeProto, weights: Weights) -> tuple[str, Quantised | None]:
    x, x_scale, x_zero, y_scale, y_zero = (_input(node, i) for i in range(5))
    given = _attributes(node)
    real = _real(op, weights, x, x_scale, x_zero)
    real = op.reduce("ReduceMean", real, *given["axes"], keepdims=bool(given.get("keepdims", 1)))
    return real, Quantised(y_scale, y_zero)


def _concat(op: Emitter, node: NodeProto, weights: Weights) -> tuple[str, Quantised | None]:
    y_scale, y_zero, *rest = node.input
    parts = [_real(op, weights, *rest[i : i + 3]) for i in range(0, len(rest), 3)]
    return op.Concat(*parts, **_attributes(node)), Quantised(y_scale, y_zero)


def _fused_conv(op: Emitter, node: NodeProto, weights: Weights) -> tuple[str, Quantised | None]:
    """Y = activation(Conv(x, w, b) + z)"""
    x, w, b, z = (_input(node, i) for i in range(4))
    y = op.Conv(x, w, *filter(None, [b]), **_attributes(node, "activation", "activation_params"))
    return _activated(op, node, op.Add(y, z) if z else y), None


def _fused_gemm(op: Emitter, node: NodeProto, weights: Weights) -> tuple[str, Quantised | None]:
    own = ("activation", "activation_alpha", "activation_beta", "activation_gamma")
    return _activated(op, node, op.Gemm(*node.input, **_attributes(node, *own))), None


def _fused_matmul(op: Emitter, node: NodeProto, weights: Weights) -> tuple[str, Quantised | None]:
    given = _attributes(node)
    if any(given.get(name, 0) for name in ("transA", "transB", "transBatchA", "transBatchB")):
        raise ExportError(
            f"FusedMatMul {(node.name or node.output[0])!r} transposes what it multiplies, which is not taken apart. Give the "
            "model from before ONNX Runtime optimised it, or save it with graph optimisation level basic."
        )
    return op.Mul(op.MatMul(*node.input), op.number(given.get("alpha", 1.0))), None


def _gelu(op: Emitter, node: NodeProto, weights: Weights) -> tuple[str, Quantised | None]:
    """Y = x · (1 + erf(x / √2)) / 2, of the sum where there are two inputs."""
    x = _sum(op, node)
    return op.Mul(op.Mul(x, op.number(0.5)), op.Add(op.Erf(op.Mul(x, op.number(0.5**0.5))), op.number(1))), None


def _fast_gelu(op: Emitter, node: NodeProto, weights: Weights) -> tuple[str, Quantised | None]:
    """Y = x · (1 + tanh(√(2 / π) · (x + 0.044715 x³))) / 2, of the sum where there are two inputs."""
    x = _sum(op, node)
    root = np.sqrt(2 / np.pi)
    factor = op.Add(op.Mul(op.Mul(x, x), op.number(0.044715 * root)), op.number(root))
    return op.Mul(op.Mul(x, op.number(0.5)), op.Add(op.Tanh(op.Mul(x, factor)), op.number(1))), None


def _quick_gelu(op: Emitter, node: NodeProto, weights: Weights) -> tuple[str, Quantised | None]:
    """Y = x · sigmoid(alpha · x); with alpha = 1 this is SiLU."""
    x = node.input[0]
    return op.Mul(x, op.Sigmoid(op.Mul(x, op.number(_attributes(node).get("alpha", 1.702))))), None


def _sum(op: Emitter, node: NodeProto) -> str:
    return op.Add(*node.input) if _input(node, 1) else node.input[0]


def _activated(op: Emitter, node: NodeProto, y: str) -> str:
    given = _attributes(node)
    operator = given.get("activation", b"").decode()
    alpha, beta = given.get("activation_alpha", 0.0), given.get("activation_beta", 0.0)
    first, second = (*given.get("activation_params", ()), alpha, beta)[:2]
    match operator:
        case "":
            return y
        case "Clip":
            return op.Clip(y, op.number(first), op.number(second))
        case "LeakyRelu":
            return op.LeakyRelu(y, alpha=first)
        case "HardSigmoid":
            return op.HardSigmoid(y, alpha=first, beta=second)
        case _:
            return str(getattr(op, operator)(y))


FUSED: dict[str, Rule] = {
    "FusedConv": _fused_conv,
    "FusedGemm": _fused_gemm,
    "FusedMatMul": _fused_matmul,
    "Gelu": _gelu,
    "BiasGelu": _gelu,
    "FastGelu": _fast_gelu,
    "QuickGelu": _quick_gelu,
}
RULES: dict[str, Rule] = FUSED | {
    "QLinearConv": _conv,
    "QLinearMatMul": _matmul,
    "QGemm": _gemm,
    "QLinearAdd": _two("Add"),
    "QLinearMul": _two("Mul"),
    "QLinearGlobalAveragePool": _one("GlobalAveragePool"),
    "QLinearAveragePool": _one("AveragePool"),
    "QLinearLeakyRelu": _one("LeakyRelu"),
    "QLinearSigmoid": _one("Sigmoid"),
    "QLinearSoftmax": _softmax,
    "QLinearReduceMean": _mean,
    "QLinearConcat": _concat,
}
