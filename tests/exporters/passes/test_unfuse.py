"""exporters.passes.unfuse: what ONNX Runtime fused is taken apart, and computes the same as the fused node."""

from __future__ import annotations

import numpy as np
import pytest

from exporters.passes import Normal
from exporters.passes.unfuse import unfuse
from tests import graphs
from tests.exporters.helpers import assert_reproduces, logits, normal, operators

IMAGE = np.random.default_rng(0).standard_normal((1, 3, 16, 16), np.float32)
PADS = "pads = [1, 1, 1, 1]"
BEHIND = "p = GlobalMaxPool (y)  f = Flatten (p)  scores = MatMul (f, fc)"
WEIGHTS = {"w": (5, 3, 3, 3), "b": np.linspace(-1, 1, 5).astype(np.float32), "fc": (5, 4)}
ACTIVATIONS = {  # as ONNX Runtime writes them
    "Relu": 'activation = "Relu"',
    "Sigmoid": 'activation = "Sigmoid"',
    "Tanh": 'activation = "Tanh"',
    "LeakyRelu": 'activation = "LeakyRelu", activation_params = [0.3]',
    "Clip": 'activation = "Clip", activation_params = [-0.25, 0.75]',
    "HardSigmoid": 'activation = "HardSigmoid", activation_params = [0.3, 0.4]',
}


def assert_unfused(built, *expected: str) -> None:
    found = normal(built)
    assert operators(found.model)[: len(expected)] == list(expected)
    assert not {"FusedConv", "FusedGemm"} & set(operators(found.model))
    scores = graphs.run(built, {"x": IMAGE})[0]
    assert np.ptp(scores) > 0.01
    np.testing.assert_allclose(logits(found, IMAGE), scores, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize("inputs", ["x, w", "x, w, b"])
def test_a_fused_convolution_becomes_its_parts(activation, inputs):
    body = f"y = com.microsoft.FusedConv <{PADS}, {ACTIVATIONS[activation]}> ({inputs}) {BEHIND}"
    assert_unfused(graphs.parse(body, **WEIGHTS), "Conv", activation)


@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize("bias", ["b", ""])
def test_a_fused_convolution_with_a_skip_becomes_its_parts(activation, bias):
    body = (
        f"z = Conv <{PADS}> (x, v)  y = com.microsoft.FusedConv <{PADS}, {ACTIVATIONS[activation]}> (x, w, {bias}, z) {BEHIND}"
    )
    assert_unfused(graphs.parse(body, v=(5, 3, 3, 3), **WEIGHTS), "Conv", "Conv", "Add", activation)


def test_strides_and_groups_are_kept():
    activation = ACTIVATIONS["Relu"]
    body = f"y = com.microsoft.FusedConv <group = 3, strides = [2, 2], dilations = [2, 2], {activation}> (x, w) {BEHIND}"
    built = graphs.parse(body, w=(6, 1, 3, 3), fc=(6, 4))
    assert_unfused(built, "Conv", "Relu")


GEMM = {  # of FusedGemm: attributes of their own
    "Relu": 'activation = "Relu"',
    "Sigmoid": 'activation = "Sigmoid"',
    "Tanh": 'activation = "Tanh"',
    "LeakyRelu": 'activation = "LeakyRelu", activation_alpha = 0.3',
}


@pytest.mark.parametrize("activation", GEMM)
def test_a_fused_gemm_becomes_its_parts(activation):
    body = f"c = Conv <{PADS}> (x, w)  p = GlobalMaxPool (c)  f = Flatten (p)"
    gemm = f"g = com.microsoft.FusedGemm <alpha = 0.5, transB = 1, {GEMM[activation]}> (f, k, b)  scores = MatMul (g, fc)"
    built = graphs.parse(f"{body} {gemm}", k=(5, 5), **WEIGHTS)
    assert_unfused(built, "Conv", "GlobalMaxPool", "Flatten", "Gemm", activation)


def test_a_fused_network_is_cut_at_its_parts_and_has_a_gradient(cut):
    first = f"y1 = com.microsoft.FusedConv <{PADS}, {ACTIVATIONS['Relu']}> (x, w, b)"
    second = f"[own] y = com.microsoft.FusedConv <{PADS}, {ACTIVATIONS['Relu']}> (y1, v, , y1)"
    built = graphs.parse(f"{first}  {second} {BEHIND}", v=(5, 5, 3, 3), **WEIGHTS)
    bundle = cut(built)
    assert (bundle.manifest.layer.name, bundle.manifest.layer.operator) == ("y", "Relu")
    assert bundle.manifest.gradient_missing is None
    assert_reproduces(bundle, built)


def test_a_model_without_fused_operators_stays_as_it_is():
    found = Normal(graphs.classifier())
    unfuse(found)
    assert found.model == graphs.classifier()


def test_parts_and_quantised_operators_have_names_of_their_own():
    quantised = {"scale": np.float32(0.05), "zero": np.uint8(100), "times": np.full((5, 1, 1), 120, np.uint8)}
    body = f"""
        c = Conv <{PADS}> (x, w)  g = com.microsoft.Gelu (c)  h = com.microsoft.Gelu (g)
        q = QuantizeLinear (h, scale, zero)  m = com.microsoft.QLinearMul (q, scale, zero, times, scale, zero, scale, zero)
        n = com.microsoft.QLinearMul (m, scale, zero, times, scale, zero, scale, zero)  y = DequantizeLinear (n, scale, zero)
        {BEHIND}
    """
    plain = normal(graphs.parse(body, w=(5, 3, 3, 3), fc=(5, 4), **quantised)).graph().standard
    written = [name for node in plain.nodes for name in node.output] + [tensor.name for tensor in plain.proto.initializer]
    assert len(written) == len(set(written))
