"""exporters.passes.constants: every constant is an initializer, by one name."""

from __future__ import annotations

import numpy as np
from onnx import helper, numpy_helper

from exporters.passes import Normal
from exporters.passes.constants import lift_constants
from tests import graphs
from tests.exporters.helpers import CONV, MEAN, W, assert_refused, logits, normal, operators


def test_constant_nodes_become_initializers():
    built = graphs.parse(
        """
        ratio = Constant <value_float = 0.5> ()  many = Constant <value_floats = [1.0, 2.0]> ()
        one = Constant <value_int = 7> ()  shape = Constant <value_ints = [0, -1]> ()  w = Constant <value = float[1] {3.0}> ()
        scores = Reshape (x, shape)
        """
    )
    found = Normal(built)
    lift_constants(found)
    values = {t.name: numpy_helper.to_array(t) for t in found.model.graph.initializer}
    assert operators(found.model) == ["Reshape"]
    assert {name: (value.dtype.name, value.tolist()) for name, value in values.items()} == {
        "ratio": ("float32", 0.5),
        "many": ("float32", [1.0, 2.0]),
        "one": ("int64", 7),
        "shape": ("int64", [0, -1]),
        "w": ("float32", [3.0]),
    }


def test_a_constant_text_is_refused():
    built = graphs.parse('t = Constant <value_string = "cat"> ()  s = Size (t)  scores = Flatten (x, s)')
    assert_refused(built, "Constant 't' holds text or a sparse tensor")


def test_a_text_that_the_scores_do_not_need_does_no_harm():
    built = graphs.parse(f'{MEAN} scores = Identity (f)  t = Constant <value_string = "cat"> ()', w=W)
    assert operators(normal(built).model) == ["Conv", "Relu", "GlobalAveragePool", "Flatten", "Identity"]


def test_initializers_listed_as_inputs_are_dropped():
    built = graphs.classifier()
    for tensor in built.graph.initializer:
        built.graph.input.append(helper.make_tensor_value_info(tensor.name, tensor.data_type, tensor.dims))
    assert [value.name for value in normal(built).model.graph.input] == ["x"]


IMAGE = np.random.default_rng(0).standard_normal((1, 3, 16, 16), np.float32)


def test_a_chain_of_identities_of_a_weight_becomes_the_weight():
    body = "v = Identity (w)  u = Identity (v)  t = Identity (u)  c = Conv (x, t)  p = GlobalMaxPool (c)  scores = Flatten (p)"
    built = graphs.parse(body, w=W)
    found = normal(built)
    assert operators(found.model) == ["Conv", "GlobalMaxPool", "Flatten"]
    assert [tensor.name for tensor in found.model.graph.initializer] == ["w"]
    np.testing.assert_allclose(logits(found, IMAGE), graphs.run(built, {"x": IMAGE})[0], rtol=1e-5)


def test_a_weight_that_several_layers_share_is_kept_once():
    body = f"v = Identity (q)  {CONV} a = Conv (r, q)  b = Conv (r, v)  s = Sub (a, b)  p = GlobalMaxPool (s)  scores = Flatten (p)"
    built = graphs.parse(body, w=W, q=(4, 5, 3, 3))
    found = normal(built)
    assert sorted(tensor.name for tensor in found.model.graph.initializer) == ["q", "w"]
    np.testing.assert_array_equal(logits(found, IMAGE), np.zeros((1, 4)))


def test_an_identity_of_a_weight_inside_a_branch_reads_the_weight():
    built = graphs.parse(
        f"""
        k = Identity (two)  {MEAN} m = ReduceMax <keepdims = 0> (c)  yes = Greater (m, zero)
        scores = If (yes) <then_branch = a () => (t) {{ t = Mul (f, k) }}, else_branch = b () => (e) {{ e = Div (f, k) }}>
        """,
        w=W, zero=np.float32(0), two=np.float32(2),
    )  # fmt: skip
    found = normal(built)
    assert operators(found.model)[0] == "Conv"
    np.testing.assert_allclose(logits(found, IMAGE), graphs.run(built, {"x": IMAGE})[0], rtol=1e-5)


def test_an_identity_that_is_an_output_stays():
    found = Normal(graphs.parse("scores = Identity (w)", w=W))
    lift_constants(found)
    assert operators(found.model) == ["Identity"]
