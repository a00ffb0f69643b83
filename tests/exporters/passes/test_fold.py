"""exporters.passes.fold: shape arithmetic becomes constants, weights stay as they are."""

from __future__ import annotations

import numpy as np
import pytest
from onnx import numpy_helper

from exporters.passes import Normal
from exporters.passes.fold import fold_shape_arithmetic
from tests import graphs
from tests.exporters.helpers import CONV, W, assert_reproduces, logits, normal, operators

FLATTENING = """
    s = Shape (r)  n = Gather <axis = 0> (s, zero)  u = Unsqueeze (n, axes)  shape = Concat <axis = 0> (u, rest)
    p = Reshape (r, shape)  scores = MatMul (p, fc)
    """


FLATTEN_WEIGHTS = {"w": W, "zero": np.array(0), "axes": np.array([0]), "rest": np.array([-1]), "fc": (5 * 256, 4)}


@pytest.mark.parametrize("image", ["N,3,16,16", "1,3,16,16"])
def test_flattening_by_shape_arithmetic_is_folded(image, cut):
    built = graphs.parse(CONV + FLATTENING, image=image, **FLATTEN_WEIGHTS)
    bundle = cut(built)
    assert bundle.manifest.layer.name == "r"
    assert_reproduces(bundle, built)
    assert operators(normal(built).model) == ["Conv", "Relu", "Reshape", "MatMul"]


def test_shape_arithmetic_that_starts_from_the_image_goes_round_no_layer(cut):
    built = graphs.parse(CONV + FLATTENING.replace("Shape (r)", "Shape (x)"), **FLATTEN_WEIGHTS)
    assert_reproduces(cut(built), built)


def test_shape_arithmetic_of_an_open_size_is_folded(cut):
    built = graphs.parse(CONV + FLATTENING, image="N,3,H,W", **FLATTEN_WEIGHTS)
    assert_reproduces(cut(built, size=(16, 16)), built)


def test_size_is_folded():
    body = f"{CONV} k = Size (r)  f = Cast <to = 1> (k)  m = ReduceSum <keepdims = 0> (r, axes)  scores = Div (m, f)"
    built = graphs.parse(body, w=W, axes=np.array([2, 3]))
    assert operators(normal(built).model) == ["Conv", "Relu", "ReduceSum", "Div"]


def test_dequantised_weights_stay_quantised():
    built = graphs.parse(
        "k = DequantizeLinear (v, scale, zero)  c = Conv (x, k)  p = GlobalAveragePool (c)  scores = Flatten (p)",
        opset=21, v=np.ones((5, 3, 2, 2), np.int8), scale=np.float32(0.05), zero=np.int8(0),
    )  # fmt: skip
    assert "DequantizeLinear" in operators(normal(built).model)


IMAGE = np.random.default_rng(0).standard_normal((1, 3, 16, 16), np.float32)


def assert_same(built, *expected: str) -> None:
    """Hold that these operators are left, and compute the same."""
    found = normal(built)
    assert operators(found.model) == list(expected)
    np.testing.assert_allclose(logits(found, IMAGE), graphs.run(built, {"x": IMAGE})[0], rtol=1e-4, atol=1e-5)


def test_a_shape_that_becomes_known_makes_the_next_one_known():
    # The Reshape hides its shape until its target is folded, then the next Shape can be folded, and so on.
    round_one = "a = Shape (r)  b = Slice (a, zero, two)  c1 = Concat <axis = 0> (b, rest)  d = Reshape (r, c1)"
    round_two = "e = Shape (d)  g = Gather <axis = 0> (e, last)  h = Concat <axis = 0> (one, five, g)  i = Reshape (d, h)"
    round_three = "j = Shape (i)  k = ReduceProd <keepdims = 1> (j)  l = Concat <axis = 0> (one, k)  m = Reshape (i, l)"
    built = graphs.parse(
        f"{CONV} {round_one} {round_two} {round_three} scores = MatMul (m, fc)",
        w=W, fc=(1280, 4), zero=np.array([0]), two=np.array([2]), rest=np.array([16, -1]), last=np.array([3]),
        one=np.array([1]), five=np.array([5 * 16]),
    )  # fmt: skip
    assert_same(built, "Conv", "Relu", "Reshape", "Reshape", "Reshape", "MatMul")


def test_a_size_computed_from_the_image_is_folded_through_a_resize(cut):
    body = f"""{CONV} s = Shape (x)  hw = Slice (s, two, four)  half = Div (hw, twos)  sizes = Concat <axis = 0> (nc, half)
        u = Resize <mode = "linear"> (r, , , sizes)  t = Shape (u)  k = Slice (t, two, four)  e = ReduceProd <keepdims = 0> (k)
        f = Cast <to = 1> (e)  p = ReduceSum <keepdims = 0> (u, two_three)  scores = Div (p, f)"""
    constants = {"two": [2], "four": [4], "twos": [2, 2], "nc": [1, 5], "two_three": [2, 3]}
    built = graphs.parse(body, image="1,3,16,16", w=W, **{name: np.array(value) for name, value in constants.items()})
    left = ["Conv", "Relu", "Shape", "Slice", "Concat", "Resize", "ReduceSum", "Div"]  # the Shape is that of the batch
    assert operators(normal(built).model) == left
    assert_reproduces(cut(built), built)


@pytest.mark.parametrize(
    ("arithmetic", "values"),
    [
        ("n = Add (one, one)  k = Mul (n, five)", [10]),
        ("n = ConstantOfShape <value = int64[1] {7}> (one)  k = Neg (n)", [-7]),
        ("n = Cast <to = 1> (five)  m = Sqrt (n)  o = Floor (m)  k = Cast <to = 7> (o)", [2]),
        ("a, b = Split <axis = 0> (pair)  k = Sub (b, a)", [3]),
        ("y = Equal (one, five)  k = Where (y, one, five)", [5]),
        ("k = Range (zero, five_scalar, one_scalar)", [0, 1, 2, 3, 4]),
    ],
)
def test_arithmetic_of_constants_is_worked_out(arithmetic, values):
    constants = {"one": [1], "five": [5], "pair": [4, 7], "zero": 0, "five_scalar": 5, "one_scalar": 1}
    built = graphs.parse(f"{arithmetic} scores = Tile (x, k)", **{name: np.array(value) for name, value in constants.items()})
    found = Normal(built)
    fold_shape_arithmetic(found)
    assert operators(found.model) == ["Tile"]
    folded = {t.name: numpy_helper.to_array(t) for t in found.model.graph.initializer}
    assert folded["k"].dtype == np.int64
    assert folded["k"].tolist() == values


@pytest.mark.parametrize("elements", [4096, 4100])
def test_only_small_results_are_stored(elements):
    found = Normal(graphs.parse("k = Expand (one, size)  scores = Add (x, k)", one=np.float32(1), size=np.array([elements])))
    fold_shape_arithmetic(found)
    assert operators(found.model) == (["Add"] if elements == 4096 else ["Expand", "Add"])


@pytest.mark.parametrize("elements", [4096, 4100])
def test_what_is_computed_from_large_weights_stays(elements):
    found = Normal(graphs.parse("k = ReduceMax (many)  scores = Add (x, k)", many=np.ones(elements, np.float32)))
    fold_shape_arithmetic(found)
    assert operators(found.model) == (["Add"] if elements == 4096 else ["ReduceMax", "Add"])


def test_the_shape_of_an_open_dimension_stays():
    found = Normal(graphs.parse("s = Shape (x)  scores = Cast <to = 1> (s)", image="N,3,H,W"))
    fold_shape_arithmetic(found)
    assert operators(found.model) == ["Shape", "Cast"]


def test_a_quantised_constant_stays_quantised():
    body = "q = QuantizeLinear (k, scale, zero)  d = DequantizeLinear (q, scale, zero)  scores = Add (x, d)"
    found = Normal(graphs.parse(body, k=np.float32(3), scale=np.float32(0.1), zero=np.uint8(0)))
    fold_shape_arithmetic(found)
    assert operators(found.model) == ["QuantizeLinear", "DequantizeLinear", "Add"]


def test_several_outputs_of_a_constant_are_folded_where_some_have_no_name():
    found = Normal(graphs.parse("v, i = TopK (k, one)  scores = Add (x, v)",
                                k=np.array([3, 1, 2], np.float32), one=np.array([1])))  # fmt: skip
    found.model.graph.node[0].output[1] = ""
    fold_shape_arithmetic(found)
    assert operators(found.model) == ["Add"]
    assert "" not in {t.name for t in found.model.graph.initializer}
