"""exporters.passes.functions: local functions are written out."""

from __future__ import annotations

import numpy as np
import onnx
from onnx import helper

from exporters.passes import Normal
from exporters.passes.functions import inline_functions
from tests import graphs
from tests.exporters.helpers import CONV, W, operators, split


def with_function() -> onnx.ModelProto:
    """A classifier that ends in a function of its own: flatten, gemm, softmax."""
    built = graphs.parse(f"{CONV} p = GlobalAveragePool (r)  scores = local.Classify (p, fc)", w=W, fc=(5, 4))
    body = [
        helper.make_node("Flatten", ["a"], ["flat"]),
        helper.make_node("MatMul", ["flat", "b"], ["z"]),
        helper.make_node("Softmax", ["z"], ["y"], axis=1),
    ]
    built.functions.append(helper.make_function("local", "Classify", ["a", "b"], ["y"], body, [helper.make_opsetid("", 17)]))
    return built


def test_local_functions_are_inlined():
    found = Normal(with_function())
    inline_functions(found)
    assert operators(found.model) == ["Conv", "Relu", "GlobalAveragePool", "Flatten", "MatMul", "Softmax"]
    assert not found.model.functions


def test_a_model_that_ends_inside_a_function_is_cut(cut):
    bundle = cut(with_function())
    assert bundle.manifest.activation == "Softmax"
    x = np.random.default_rng(0).standard_normal((2, 3, 16, 16), np.float32)
    (expected,) = graphs.run(with_function(), {"x": x})
    z = split(bundle, x)
    np.testing.assert_allclose(np.exp(z) / np.exp(z).sum(1, keepdims=True), expected, rtol=1e-4)
