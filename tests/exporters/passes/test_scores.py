"""exporters.passes.scores: the scores become (N, L) in float32."""

from __future__ import annotations

import re

import numpy as np
import pytest

from tests import graphs
from tests.exporters.helpers import CONV, MEAN, W, assert_refused, assert_reproduces, logits, normal, operators

IMAGE = np.random.default_rng(0).standard_normal((1, 3, 16, 16), np.float32)
PLACES = "That is one score per class and place, as of a segmentation network, which is not explained. Of a classifier whose height and width are open, give the size"
OTHER = "Choose another output with --output, or export the classifier alone"


@pytest.mark.parametrize(
    ("end", "shape", "advice"),
    [
        ("scores = Identity (r)", "(1, 5, 16, 16)", PLACES),
        ("s = Slice (r, begin, end)  scores = Identity (s)", "(1, 5, 16, 15)", PLACES),
        ("scores = ReduceMean <axes = [0, 2, 3], keepdims = 0> (r)", "(5)", OTHER),
        ("scores = ReduceMean <axes = [2], keepdims = 0> (r)", "(1, 5, 16)", OTHER),
        ("scores = Unsqueeze (r, last)", "(1, 5, 16, 16, 1)", OTHER),
    ],
)
def test_an_output_that_is_not_one_score_per_class_is_refused(end, shape, advice):
    message = rf"must be one score per class, \(N, L\); its shape is {re.escape(shape)}\. {advice}"
    weights = {"last": np.array([4]), "begin": np.array([0, 0, 0, 0]), "end": np.array([1, 5, 16, 15])}
    assert_refused(graphs.parse(f"{CONV} {end}", w=W, **weights), message)


@pytest.mark.parametrize("end", ["scores = Identity (p)", "scores = Conv (p, v)"])
def test_scores_of_one_cell_are_flattened(end, cut):
    built = graphs.parse(f"{CONV} p = GlobalAveragePool (r)  {end}", w=W, v=(5, 5, 1, 1))
    bundle = cut(built)
    assert bundle.manifest.output.shape == (-1, 5)
    assert_reproduces(bundle, built)


LONG = {  # what makes of f (N, 5) the shape
    "N,5": "scores = Identity (f)",
    "N,5,1": "scores = Unsqueeze (f, two)",
    "N,1,5": "scores = Unsqueeze (f, one)",
    "N,5,1,1": "scores = Unsqueeze (f, both)",
    "N,1,1,5": "scores = Unsqueeze (f, before)",
    "N,1,5,1": "u = Unsqueeze (f, one)  v = Unsqueeze (u, three)  scores = Identity (v)",
    "N,5,1,1,1": "u = Unsqueeze (f, both)  v = Unsqueeze (u, two)  scores = Identity (v)",
}
AXES = {
    "one": np.array([1]),
    "two": np.array([2]),
    "three": np.array([3]),
    "both": np.array([2, 3]),
    "before": np.array([1, 2]),
}


@pytest.mark.parametrize("shape", LONG)
@pytest.mark.parametrize("image", ["N,3,16,16", "1,3,16,16"])
def test_scores_of_any_shape_with_one_long_axis_are_flattened(shape, image, cut):
    built = graphs.parse(f"{MEAN} {LONG[shape]}", image=image, w=W, **AXES)
    assert graphs.run(built, {"x": IMAGE})[0].shape == tuple(map(int, shape.replace("N", "1").split(",")))
    bundle = cut(built, layer="r")
    assert bundle.manifest.output.shape == (-1, 5)
    assert_reproduces(bundle, built)


@pytest.mark.parametrize("end", ["scores = Identity (s)", "scores = Unsqueeze (s, last)"])
def test_a_single_score_is_a_class_of_its_own(end, cut):
    built = graphs.parse(f"{MEAN} s = MatMul (f, fc)  {end}", w=W, fc=(5, 1), last=np.array([2]))
    bundle = cut(built, layer="r")
    assert bundle.manifest.output.shape == (-1, 1)
    assert_reproduces(bundle, built)


@pytest.mark.parametrize(
    ("element", "zero"), [("uint8", np.uint8(100)), ("int8", np.int8(-3)), ("uint8", None)], ids=["uint8", "int8", "no zero"]
)
@pytest.mark.parametrize("moved", [False, True])
def test_whole_scores_get_the_scale_by_which_they_were_rounded(element, zero, moved, cut):
    zeros = {"zero": zero} if zero is not None else {}
    given = "f, scale, zero" if zeros else "f, scale"
    end = f"q = QuantizeLinear ({given})  scores = Unsqueeze (q, two)" if moved else f"scores = QuantizeLinear ({given})"
    shape = "N,5,1" if moved else "N,5"
    built = graphs.parse(
        f"{MEAN} {end}", outputs=(f"{element}[{shape}] scores",), w=W, scale=np.float32(0.02), two=np.array([2]), **zeros
    )
    found = normal(built)
    assert found.rounding == (pytest.approx(0.02), float(zero or 0))
    whole = graphs.run(built, {"x": IMAGE})[0].reshape(1, 5).astype(np.float32)
    assert len(np.unique(whole)) > 1
    np.testing.assert_allclose(logits(found, IMAGE), (whole - float(zero or 0)) * 0.02, atol=0.0201 / 2)
    assert logits(found, IMAGE).dtype == np.float32
    assert cut(built, layer="r").manifest.split.error <= 0.0201


@pytest.mark.parametrize(("to", "element", "tolerance"), [(10, "float16", 1e-3), (11, "double", 1e-6)])
def test_scores_of_another_float_are_cast(to, element, tolerance, cut):
    built = graphs.parse(f"{MEAN} z = MatMul (f, fc)  h = Cast <to = {to}> (z)  scores = Mul (h, h)",
                         outputs=(f"{element}[N,5] scores",), w=W, fc=(5, 5))  # fmt: skip
    found = normal(built)
    assert operators(found.model)[-1] == "Cast"
    (scores,) = graphs.run(found.model, {"x": IMAGE}, found.logits)
    assert scores.dtype == np.float32
    np.testing.assert_allclose(scores, graphs.run(built, {"x": IMAGE})[0].astype(np.float32), rtol=tolerance)
    assert cut(built, layer="r").manifest.classes == 5


def test_whole_numbers_that_are_no_scores_are_refused():
    body = f"{MEAN} n = Neg (f)  g = Greater (f, n)  scores = Cast <to = 6> (g)"
    built = graphs.parse(body, outputs=("int32[N,5] scores",), w=W)
    assert_refused(built, "The output 'g' holds BOOL, not scores. Choose another output with --output")


def test_a_shape_that_cannot_be_inferred_is_told_with_the_node_that_hides_it():
    built = graphs.parse(f"{MEAN} [own] g = com.microsoft.Trilu (f)  scores = Relu (g)", w=W)
    assert_refused(built, "The shape of the output 'scores' cannot be inferred, as that of Trilu 'own' is unknown")


def test_a_squeeze_without_axes_keeps_the_batch(cut):
    built = graphs.parse(f"{CONV} p = GlobalAveragePool (r)  scores = Squeeze (p)", w=W)
    bundle = cut(built)
    assert bundle.manifest.output.shape == (-1, 5)
    assert_reproduces(bundle, built)
