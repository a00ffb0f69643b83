"""exporters.standard: ONNX Runtime's own operators, written in standard ones, compute what ONNX Runtime computes."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from onnx import ModelProto, NodeProto, TensorProto, helper, numpy_helper

from camrt.errors import ExportError
from exporters.standard import FUSED, RULES, standard
from tests import graphs

OPSET = 17
RNG = np.random.default_rng(0)
U8, I8 = np.uint8, np.int8
STANDARD = ("QLinearConv", "QLinearMatMul")  # of the quantised ones, these are ONNX's own


def whole(kind: type, *shape: int) -> np.ndarray:
    """Return random whole numbers of all sizes."""
    limits = np.iinfo(kind)
    return RNG.integers(limits.min, limits.max + 1, shape, kind)


def real(*shape: int) -> np.ndarray:
    return RNG.standard_normal(shape, np.float32)


def scales(*values: float) -> np.ndarray:
    """Return one scale, or one for each channel."""
    return np.array(values if len(values) > 1 else values[0], np.float32)


def zeros(kind: type, count: int) -> np.ndarray:
    return np.zeros(count, kind)


X = {"x": whole(U8, 2, 4, 6, 7)}  # with its scale and zero point the first three inputs of most operators
XQ = (scales(0.02), U8(120))
YQ = (scales(0.05), U8(100))
W = whole(I8, 6, 4, 3, 3)
WQ = (scales(0.01), I8(0))
WQ6 = (scales(0.01, 0.02, 0.005, 0.01, 0.03, 0.015), zeros(I8, 6))
BIAS = RNG.integers(-500, 500, 6, np.int32)
A = {"a": whole(U8, 3, 8)}
B = whole(I8, 8, 5)
BQ5 = (scales(0.01, 0.02, 0.005, 0.01, 0.03), zeros(I8, 5))
XF = {"x": real(2, 4, 6, 7)}
WF, BF, ZF = real(6, 4, 3, 3), real(6), real(2, 6, 4, 5)
AF, GF, CF = {"a": real(3, 8)}, real(5, 8), real(5)
GEMM = {"transB": 1, "alpha": 0.5, "beta": 2.0}

Case = tuple[str, dict[str, np.ndarray], tuple[Any, ...], dict[str, Any]]
# operator, fed inputs, constant inputs behind them ("" for one left out), attributes
CASES: dict[str, Case] = {
    "conv": ("QLinearConv", X, (*XQ, W, *WQ, *YQ), {}),
    "conv with a bias": ("QLinearConv", X, (*XQ, W, *WQ, *YQ, BIAS), {"pads": [1, 1, 1, 1]}),
    "conv per channel": ("QLinearConv", X, (*XQ, W, *WQ6, *YQ, BIAS), {"strides": [2, 2]}),
    "conv per channel without bias": ("QLinearConv", X, (*XQ, W, *WQ6, *YQ), {"dilations": [2, 2]}),
    "conv in groups": ("QLinearConv", X, (*XQ, W[:, :2], *WQ6, *YQ, BIAS), {"group": 2, "pads": [0, 1, 2, 1]}),
    "conv, all int8": ("QLinearConv", {"x": whole(I8, 1, 4, 6, 7)}, (scales(0.02), I8(7), W, *WQ, scales(0.05), I8(-9)), {}),
    "conv, all uint8": ("QLinearConv", X, (*XQ, whole(U8, 6, 4, 3, 3), scales(0.01), U8(130), *YQ, BIAS), {}),
    "matmul": ("QLinearMatMul", A, (*XQ, B, *WQ, *YQ), {}),
    "matmul per column": ("QLinearMatMul", A, (*XQ, B, *BQ5, *YQ), {}),
    "matmul in a batch": ("QLinearMatMul", {"a": whole(U8, 2, 3, 8)}, (*XQ, B, *WQ, *YQ), {}),
    "gemm": ("QGemm", A, (*XQ, B, *WQ, BIAS[:5], *YQ), {}),
    "gemm transposed, per column": ("QGemm", A, (*XQ, B.T.copy(), *BQ5, BIAS[:5], *YQ), {"transB": 1}),
    "gemm per column": ("QGemm", A, (*XQ, B, *BQ5, BIAS[:5], *YQ), {}),
    "gemm without a bias": ("QGemm", A, (*XQ, B, *WQ, "", *YQ), {}),
    "gemm that stays float": ("QGemm", A, (*XQ, B.T.copy(), *BQ5, BIAS[:5]), {"transB": 1}),
    "add": ("QLinearAdd", X, (*XQ, whole(U8, 2, 4, 6, 7), scales(0.03), U8(90), *YQ), {}),
    "add, broadcast": ("QLinearAdd", X, (*XQ, whole(U8, 4, 1, 1), scales(0.03), U8(90), *YQ), {}),
    "mul": ("QLinearMul", X, (*XQ, whole(U8, 2, 4, 1, 1), scales(0.01), U8(0), *YQ), {}),
    "mul, int8": ("QLinearMul", {"x": whole(I8, 3, 5)}, (scales(0.02), I8(3), whole(I8, 5), scales(0.1), I8(0), *WQ), {}),
    "global mean": ("QLinearGlobalAveragePool", X, (*XQ, scales(0.01), U8(110)), {}),
    "global mean, channels last": ("QLinearGlobalAveragePool", X, (*XQ, scales(0.01), U8(110)), {"channels_last": 1}),
    "mean of windows": (
        "QLinearAveragePool", X, (*XQ, *YQ), {"kernel_shape": [3, 2], "strides": [2, 2], "pads": [1, 0, 1, 1]},
    ),
    "mean of windows, padding counted": (
        "QLinearAveragePool", X, (*XQ, *YQ), {"kernel_shape": [3, 3], "pads": [1, 1, 1, 1], "count_include_pad": 1},
    ),
    "mean of windows, channels last": (
        "QLinearAveragePool", X, (*XQ, *YQ), {"kernel_shape": [2, 3], "channels_last": 1},
    ),
    "leaky relu": ("QLinearLeakyRelu", X, (*XQ, *YQ), {"alpha": 0.3}),
    "leaky relu by default": ("QLinearLeakyRelu", X, (*XQ, *YQ), {}),
    "sigmoid": ("QLinearSigmoid", X, (*XQ, scales(1 / 256), U8(0)), {}),
    "softmax": ("QLinearSoftmax", {"x": whole(U8, 3, 5)}, (*XQ, scales(1 / 256), U8(0)), {"axis": -1, "opset": 17}),
    "softmax over channels": ("QLinearSoftmax", X, (*XQ, scales(1 / 256), U8(0)), {"axis": 1, "opset": 13}),
    "softmax before opset 13": ("QLinearSoftmax", X, (*XQ, scales(1 / 256), U8(0)), {"axis": 1, "opset": 12}),
    "softmax of rows before opset 13": (
        "QLinearSoftmax", {"x": whole(U8, 3, 5)}, (*XQ, scales(1 / 256), U8(0)), {"axis": -1, "opset": 12},
    ),
    "concat": (
        "QLinearConcat", {}, (*YQ, whole(U8, 2, 3, 4), *XQ, whole(U8, 2, 5, 4), scales(0.03), U8(90)), {"axis": 1},
    ),
    "fused conv": ("FusedConv", XF, (WF,), {"activation": "Relu"}),
    "fused conv with a bias": ("FusedConv", XF, (WF, BF), {"activation": "Sigmoid", "strides": [2, 2]}),
    "fused conv and sum": ("FusedConv", XF, (WF, BF, ZF), {"activation": "Relu"}),
    "fused conv and sum without bias": ("FusedConv", XF, (WF, "", ZF), {}),
    "fused conv, leaky": ("FusedConv", XF, (WF, BF), {"activation": "LeakyRelu", "activation_params": [0.2]}),
    "fused conv, clip": ("FusedConv", XF, (WF, BF), {"activation": "Clip", "activation_params": [-1.0, 2.5]}),
    "fused conv, hard sigmoid": ("FusedConv", XF, (WF, BF), {"activation": "HardSigmoid", "activation_params": [0.25, 0.4]}),
    "fused conv, tanh": ("FusedConv", XF, (WF, BF), {"activation": "Tanh", "group": 1, "pads": [1, 0, 0, 1]}),
    "fused gemm": ("FusedGemm", AF, (GF, CF), {"activation": "Relu", **GEMM}),
    "fused gemm, leaky": ("FusedGemm", AF, (GF, CF), {"activation": "LeakyRelu", "activation_alpha": 0.2, **GEMM}),
    "fused matmul": ("FusedMatMul", AF, (GF.T.copy(),), {"alpha": 0.25}),
    "gelu": ("Gelu", XF, (), {}),
    "gelu of a sum": ("BiasGelu", AF, (real(8),), {}),
    "fast gelu": ("FastGelu", AF, (), {}),
    "fast gelu of a sum": ("FastGelu", AF, (real(8),), {}),
    "quick gelu": ("QuickGelu", XF, (), {}),
    "quick gelu as silu": ("QuickGelu", XF, (), {"alpha": 1.0}),
    "fused gemm, tanh": ("FusedGemm", AF, (GF,), {"activation": "Tanh", "transB": 1}),
}  # fmt: skip
NOT_IN_ONNX_RUNTIME = {"QLinearReduceMean"}  # it has the definition, and no implementation on a CPU


def built(case: Case) -> tuple[NodeProto, dict[str, TensorProto]]:
    """Return a node and its constants."""
    operator, fed, constants, attributes = case
    names = ["" if isinstance(value, str) else f"k{i}" for i, value in enumerate(constants)]
    weights = {
        name: numpy_helper.from_array(np.asarray(value), name) for name, value in zip(names, constants, strict=True) if name
    }
    domain = "" if operator in STANDARD else "com.microsoft"
    return helper.make_node(operator, [*fed, *names], ["y"], name="it", domain=domain, **attributes), weights


def model(nodes: list[NodeProto], weights: list[TensorProto], fed: dict[str, np.ndarray]) -> ModelProto:
    inputs = [helper.make_tensor_value_info(k, helper.np_dtype_to_tensor_dtype(v.dtype), v.shape) for k, v in fed.items()]
    graph = helper.make_graph(nodes, "one", inputs, [helper.make_empty_tensor_value_info("y")], weights)
    opsets = [helper.make_opsetid("", OPSET), helper.make_opsetid("com.microsoft", 1)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=8)


def both(case: Case) -> tuple[np.ndarray, np.ndarray]:
    """Return what ONNX Runtime's operator gives, and what the standard ones do."""
    node, weights = built(case)
    nodes, added = standard([node], weights, OPSET)
    assert {n.domain for n in nodes} == {""}
    assert not {n.op_type for n in nodes} & RULES.keys()
    (theirs,) = graphs.run(model([node], [*weights.values()], case[1]), case[1], "y")
    (ours,) = graphs.run(model(nodes, [*weights.values(), *added], case[1]), case[1], "y")
    assert (ours.dtype, ours.shape) == (theirs.dtype, theirs.shape)
    return theirs, ours


@pytest.mark.parametrize("name", CASES)
def test_every_rule_computes_what_onnx_runtime_does(name):
    theirs, ours = both(CASES[name])
    assert np.ptp(theirs.astype(np.float64)) > 0
    if np.issubdtype(theirs.dtype, np.integer):
        steps = np.abs(ours.astype(int) - theirs)
        assert steps.max() <= 1  # a half is rounded up or down
        assert (steps > 0).mean() <= 0.05
    else:
        np.testing.assert_allclose(ours, theirs, rtol=1e-5, atol=1e-5)


def test_every_rule_has_a_case():
    assert {case[0] for case in CASES.values()} | NOT_IN_ONNX_RUNTIME == RULES.keys()
    assert FUSED.keys() <= RULES.keys()


@pytest.mark.parametrize("keepdims", [0, 1])
def test_a_quantised_mean_is_the_rounded_mean(keepdims):
    case: Case = ("QLinearReduceMean", X, (*XQ, scales(0.01), U8(110)), {"axes": [2, 3], "keepdims": keepdims})
    node, weights = built(case)
    nodes, added = standard([node], weights, OPSET)
    (found,) = graphs.run(model(nodes, [*weights.values(), *added], X), X, "y")
    mean = ((X["x"].astype(np.float64) - 120) * 0.02).mean(axis=(2, 3), keepdims=bool(keepdims))
    expected = np.clip(np.rint(mean / 0.01) + 110, 0, 255)
    assert found.shape == expected.shape
    assert np.abs(found - expected).max() <= 1


@pytest.mark.parametrize("name", CASES)
def test_names_stay_so_that_what_is_found_out_holds_for_both(name):
    node, weights = built(CASES[name])
    nodes, _ = standard([node], weights, OPSET)
    assert nodes[-1].name == "it"
    assert list(nodes[-1].output) == ["y"]


@pytest.mark.parametrize("flag", ["transA", "transB", "transBatchA", "transBatchB"])
def test_a_fused_product_of_transposed_tensors_is_refused_by_name(flag):
    node, weights = built(("FusedMatMul", AF, (GF,), {flag: 1}))
    with pytest.raises(ExportError, match="FusedMatMul 'it' transposes .* save it with graph optimisation level basic"):
        standard([node], weights, OPSET)


def test_an_operator_of_the_same_name_in_onnx_stays():
    node = helper.make_node("Gelu", ["x"], ["y"], approximate="tanh")
    assert standard([node], {}, 20) == ([node], [])


def test_other_operators_are_left_as_they_are():
    node = helper.make_node("Relu", ["x"], ["y"])
    assert standard([node], {}, OPSET) == ([node], [])
    quantised, weights = built(CASES["conv"])
    assert standard([quantised], weights, OPSET, FUSED) == ([quantised], [])
