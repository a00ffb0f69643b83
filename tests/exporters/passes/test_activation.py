"""exporters.passes.activation: a closing activation over the classes is cut off, others stay."""

from __future__ import annotations

import numpy as np
import pytest

from tests import graphs
from tests.exporters.helpers import CONV, MEAN, W, assert_reproduces, logits, normal, operators, source_scores, split

INVERSE = {
    "Softmax": lambda z: np.exp(z) / np.exp(z).sum(1, keepdims=True),
    "LogSoftmax": lambda z: z - np.log(np.exp(z).sum(1, keepdims=True)),
    "Sigmoid": lambda z: 1 / (1 + np.exp(-z)),
}


@pytest.mark.parametrize("operator", INVERSE)
@pytest.mark.parametrize("opset", [9, 11, 12, 13, 17])
def test_a_closing_activation_is_cut_off_and_recorded(operator, opset, cut):
    built = graphs.classifier(end=operator, opset=opset)
    bundle = cut(built)
    assert bundle.manifest.activation == operator
    assert bundle.manifest.kind == ("sigmoid" if operator == "Sigmoid" else "logits")
    x = np.random.default_rng(0).standard_normal((2, 3, 32, 32), np.float32)
    (expected,) = graphs.run(built, {"x": x})
    np.testing.assert_allclose(INVERSE[operator](split(bundle, x).astype(float)), expected, rtol=1e-3, atol=1e-6)


@pytest.mark.parametrize(
    "end",
    [
        "s = Softmax <axis = 1> (p)  scores = Flatten (s)",
        "s = Softmax <axis = -3> (p)  scores = Reshape (s, flat)",
        "s = Softmax (f)  scores = Reshape (s, flat)",
        "s = Softmax (f)  i = Identity (s)  u = Unsqueeze (i, last)  scores = Squeeze (u, last)",
        "s = Softmax (f)  scores = Dropout (s)",
        "scores = Softmax <axis = 1> (p)",
    ],
)
def test_an_activation_before_a_change_of_shape_is_cut_off(end, cut):
    built = graphs.parse(f"{MEAN} {end}", w=W, flat=np.array([1, -1]), last=np.array([2]), image="1,3,16,16")
    bundle = cut(built)
    assert bundle.manifest.activation == "Softmax"
    assert_reproduces(bundle, built, "f")


@pytest.mark.parametrize("opset", [9, 11])
def test_a_softmax_over_all_that_is_not_the_batch_is_cut_off(opset, cut):
    # before opset 13, axis 1 means "this axis and all after it"
    built = graphs.parse(f"{MEAN} s = Softmax (p)  scores = Flatten (s)", w=W, opset=opset)
    bundle = cut(built)
    assert bundle.manifest.activation == "Softmax"
    assert_reproduces(bundle, built, "f")


@pytest.mark.parametrize(
    ("end", "activation"),
    [
        ("s = Softmax <axis = 1> (r)  scores = Flatten (s)", "Softmax over classes at every cell"),
        ("s = Softmax <axis = 2> (r)  p = GlobalAveragePool (s)  scores = Flatten (p)", "Softmax over rows"),
        ("p = GlobalAveragePool (r)  s = Softmax <axis = -1> (p)  scores = Flatten (s)", "Softmax over one value"),
        ("s = Sigmoid (r)  p = GlobalAveragePool (s)  scores = Flatten (p)", "a gate before the pooling"),
        ("p = GlobalAveragePool (r)  f = Flatten (p)  scores = Softmax <axis = 0> (f)", "Softmax over the batch"),
    ],
)
def test_an_activation_that_does_not_run_over_the_classes_stays(end, activation):
    found = normal(graphs.parse(f"{CONV} {end}", w=W))
    assert found.activation is None, activation
    assert {"Softmax", "Sigmoid"} & set(operators(found.model))


def test_a_softmax_inside_is_not_cut_off(cut):
    built = graphs.parse(f"{MEAN} s = Softmax (f)  scores = MatMul (s, fc)", w=W, fc=(5, 4))
    bundle = cut(built)
    assert bundle.manifest.activation is None
    assert_reproduces(bundle, built)


IMAGE = np.random.default_rng(0).standard_normal((1, 3, 16, 16), np.float32)
ROUND_IT = {  # nodes behind the logits z (N, 5), the declared output
    "quantised": ("s = Softmax (f)  q = QuantizeLinear (s, scale, zero)  scores = DequantizeLinear (q, scale, zero)", "scores"),
    "whole": ("s = Softmax (f)  scores = QuantizeLinear (s, scale, zero)", "uint8[N,5] scores"),
    "whole and flattened": ("s = Softmax <axis = 1> (p)  q = QuantizeLinear (s, scale, zero)  scores = Flatten (q)", "uint8[N,5] scores"),
    "channels at the end": ("t = Transpose <perm = [0, 2, 3, 1]> (p)  scores = Softmax <axis = -1> (t)", "scores"),
    "channels at the end, flat": ("t = Reshape (p, last)  s = Softmax <axis = 3> (t)  scores = Squeeze (s, axes)", "scores"),
    "turned": ("s = Softmax <axis = 1> (p)  scores = Transpose <perm = [0, 3, 2, 1]> (s)", "scores"),
    "half": ("s = Softmax (f)  scores = Cast <to = 10> (s)", "float16[N,5] scores"),
    "half and back": ("s = Softmax (f)  h = Cast <to = 10> (s)  scores = Cast <to = 1> (h)", "scores"),
    "one dropout": ("s = Softmax (f)  scores = Dropout (s)", "scores"),
}  # fmt: skip


@pytest.mark.parametrize(("end", "declared"), ROUND_IT.values(), ids=ROUND_IT)
def test_what_rounds_or_moves_a_softmax_is_cut_off_with_it(end, declared, cut):
    built = graphs.parse(
        f"{MEAN} {end}", outputs=(declared,), w=W, last=np.array([-1, 1, 1, 5]), axes=np.array([1, 2]),
        scale=np.float32(1 / 256), zero=np.uint8(0),
    )  # fmt: skip
    found = normal(built)
    assert found.activation == "Softmax"
    assert not {"Softmax", "QuantizeLinear"} & set(operators(found.model))
    np.testing.assert_allclose(logits(found, IMAGE), source_scores(built, IMAGE, "f"), rtol=1e-5)
    bundle = cut(built, layer="r")
    assert bundle.manifest.activation == "Softmax"
    assert_reproduces(bundle, built, "f")


def test_a_softmax_in_float16_is_cut_off_and_its_logits_become_float32():
    body = f"{MEAN} h = Cast <to = 10> (f)  scores = Softmax (h)"
    built = graphs.parse(body, outputs=("float16[N,5] scores",), w=W)
    found = normal(built)
    assert found.activation == "Softmax"
    assert logits(found, IMAGE).dtype == np.float32
    np.testing.assert_allclose(logits(found, IMAGE), source_scores(built, IMAGE, "f"), rtol=1e-3)


@pytest.mark.parametrize("name", ["Relu", "Tanh", "HardSigmoid"])
def test_other_activations_at_the_end_stay(name):
    found = normal(graphs.parse(f"{MEAN} scores = {name} (f)", w=W))
    assert (found.activation, operators(found.model)[-1]) == (None, name)


def test_only_the_last_of_two_softmaxes_is_cut_off():
    found = normal(graphs.parse(f"{MEAN} s = Softmax (f)  scores = Softmax (s)", w=W))
    assert operators(found.model).count("Softmax") == 1


def test_a_softmax_before_the_classes_change_places_with_the_batch_stays():
    found = normal(graphs.parse(f"{MEAN} s = Softmax (f)  scores = Transpose <perm = [1, 0]> (s)", w=W))
    assert found.activation is None
    assert "Softmax" in operators(found.model)
