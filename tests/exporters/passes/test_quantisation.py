"""exporters.passes.quantisation: one DequantizeLinear for each quantised tensor; dynamic scales are noted."""

from __future__ import annotations

import numpy as np
import pytest
from onnx import ValueInfoProto

from camrt.errors import ExportError
from exporters.passes import Normal
from exporters.passes.quantisation import one_dequantiser_each
from tests import graphs
from tests.exporters.helpers import CONV, MEAN, W, assert_reproduces, images, logits, normal, operators, source_scores, split

IMAGE = np.random.default_rng(0).standard_normal((1, 3, 16, 16), np.float32)
SCALES = {"scale": np.float32(0.05), "zero": np.uint8(3), "other": np.float32(0.1), "several": np.full(5, 0.05, np.float32)}
QUANTISED = f"{CONV} q = QuantizeLinear (r, scale, zero)"
BEHIND = "s = Add (a, b)  p = GlobalAveragePool (s)  f = Flatten (p)  scores = MatMul (f, fc)"
ONE, TWO = "a = DequantizeLinear (q, scale, zero)", "b = DequantizeLinear (q, scale, zero)"


def built(dequantised: str, **weights: object):
    return graphs.parse(f"{QUANTISED} {dequantised} {BEHIND}", w=W, fc=(5, 4), **SCALES, **weights)


def assert_same(source, found: Normal) -> None:
    np.testing.assert_allclose(logits(found, IMAGE), graphs.run(source, {"x": IMAGE})[0], rtol=1e-5)


def test_the_second_of_two_dequantisers_is_left_out(cut):
    source = built(f"{ONE} {TWO}")
    found = normal(source)
    assert operators(found.model).count("DequantizeLinear") == 1
    assert_same(source, found)
    bundle = cut(source)
    assert (bundle.manifest.layer.name, bundle.manifest.layer.operator) == ("s", "Add")
    assert_reproduces(bundle, source)


def test_a_dequantiser_shared_by_two_readers_stays_one():
    source = built(f"{ONE} b = Relu (a)")
    assert operators(normal(source).model).count("DequantizeLinear") == 1
    assert_same(source, normal(source))


@pytest.mark.parametrize(
    "second",
    [
        "b = DequantizeLinear (q, other, zero)",
        "b = DequantizeLinear (q, scale)",
        "b = DequantizeLinear <axis = 1> (q, several, zeros)",
        "n = Identity (q)  k = MaxPool <kernel_shape = [1, 1]> (n)  b = DequantizeLinear (k, scale, zero)",
    ],
    ids=["scale", "no zero point", "axis", "another tensor"],
)
def test_dequantisers_that_differ_stay(second):
    source = built(f"{ONE} {second}", zeros=np.full(5, 3, np.uint8))
    found = normal(source)
    assert operators(found.model).count("DequantizeLinear") == 2
    assert_same(source, found)


def test_dequantisers_that_differ_in_an_attribute_stay():
    found = Normal(built(f"{ONE.replace('Linear (', 'Linear <axis = 1> (')} {TWO.replace('Linear (', 'Linear <axis = 0> (')}"))
    one_dequantiser_each(found)
    assert operators(found.model).count("DequantizeLinear") == 2


def test_a_chain_that_becomes_equal_is_left_out_too():
    pools = "a1 = DequantizeLinear (q, scale, zero)  b1 = DequantizeLinear (q, scale, zero)"
    again = "qa = QuantizeLinear (a1, scale, zero)  a = DequantizeLinear (qa, scale, zero)  b = Relu (b1)"
    source = built(f"{pools} {again}")
    found = normal(source)
    assert operators(found.model).count("DequantizeLinear") == 2
    assert_same(source, found)


def test_a_dequantiser_that_is_the_output_stays():
    body = f"{MEAN} q = QuantizeLinear (f, scale, zero)  d = DequantizeLinear (q, scale, zero)  scores = DequantizeLinear (q, scale, zero)"
    source = graphs.parse(body, outputs=("d", "scores"), w=W, **SCALES)
    found = Normal(source)
    one_dequantiser_each(found)
    assert [name for node in found.model.graph.node for name in node.output][-2:] == ["d", "scores"]


@pytest.mark.parametrize("dtype", ["UINT8", "INT8"])
def test_whole_maps_are_cut_where_dequantisers_are_not_their_only_readers(dtype, cut):
    whole = np.uint8 if dtype == "UINT8" else np.int8
    body = f"{CONV} q = QuantizeLinear (r, scale, zero)  m = MaxPool <kernel_shape = [2, 2], strides = [2, 2]> (q)"
    end = "d = DequantizeLinear (m, scale, zero)  p = GlobalAveragePool (d)  f = Flatten (p)  scores = MatMul (f, fc)"
    source = graphs.parse(f"{body} {end}", w=W, fc=(5, 4), scale=np.float32(0.05), zero=whole(3))
    bundle = cut(source, layer="q")
    assert bundle.manifest.features.shape == (-1, 5, 16, 16)
    assert_reproduces(bundle, source)


DYNAMIC = "y, ys, y0 = DynamicQuantizeLinear (f)  d = DequantizeLinear (y, ys, y0)  scores = MatMul (d, fc)"


def test_a_scale_from_the_batch_lets_images_go_one_by_one(cut):
    source = graphs.parse(f"{MEAN} [own] {DYNAMIC}", w=W, fc=(5, 4))
    assert normal(source).one_by_one == "DynamicQuantizeLinear 'own' takes its scale from the whole batch"
    bundle = cut(source)
    assert bundle.manifest.one_by_one == "DynamicQuantizeLinear 'own' takes its scale from the whole batch"
    x = images(bundle)
    together = np.concatenate([split(bundle, one[None]) for one in x])
    np.testing.assert_allclose(together, source_scores(source, x), rtol=1e-2, atol=1e-2)


def test_the_first_of_several_dynamic_scales_is_named():
    body = f"{CONV} [first] q, qs, q0 = DynamicQuantizeLinear (r)  e = DequantizeLinear (q, qs, q0)  p = GlobalAveragePool (e)  f = Flatten (p)"
    source = graphs.parse(f"{body} [second] {DYNAMIC}", w=W, fc=(5, 4))
    assert normal(source).one_by_one.startswith("DynamicQuantizeLinear 'first'")


def test_a_static_scale_needs_no_single_images():
    assert normal(built(f"{ONE} {TWO}")).one_by_one is None


def test_a_branch_reads_the_dequantiser_that_is_left():
    branches = "<then_branch = t () => (float[N,5,16,16] u) { u = Neg (b) }, else_branch = e () => (float[N,5,16,16] v) { v = Abs (b) }>"
    behind = f"m = ReduceMax <keepdims = 0> (a)  yes = Greater (m, scale)  k = If (yes) {branches}  s = Add (a, k)"
    source = graphs.parse(
        f"{QUANTISED} {ONE} {TWO} {behind} p = GlobalAveragePool (s)  f = Flatten (p)  scores = MatMul (f, fc)",
        w=W, fc=(5, 4), **SCALES,
    )  # fmt: skip
    found = normal(source)
    assert operators(found.model).count("DequantizeLinear") == 1
    assert_same(source, found)


@pytest.mark.parametrize(("axis", "between"), [(1, "MaxPool <kernel_shape = [1, 1]>"), (3, "MaxPool <kernel_shape = [1, 1]>"),
                                               (1, "Transpose <perm = [0, 2, 1, 3]>")])  # fmt: skip
def test_whole_numbers_are_cut_only_where_it_is_known_what_they_stand_for(axis, between, cut):
    built = graphs.parse(
        f"""c = Conv <pads = [1, 1, 1, 1], strides = [2, 2]> (x, w)  r = Relu (c)  q = QuantizeLinear <axis = {axis}> (r, scale, zero)
        m = {between} (q)
        k = MaxPool <kernel_shape = [1, 1]> (m)  d = DequantizeLinear <axis = {2 if "Transpose" in between else axis}> (k, scale, zero)
        p = GlobalAveragePool (d)  f = Flatten (p)  scores = MatMul (f, fc)""",
        w=(8, 3, 3, 3), fc=(8, 4), scale=np.geomspace(0.01, 0.5, 8).astype(np.float32), zero=np.zeros(8, np.uint8),
    )  # fmt: skip
    if (axis, "Transpose" in between) != (1, False):
        with pytest.raises(ExportError, match="'m' holds UINT8; a cut needs real numbers"):
            cut(built, layer="m")
        return
    bundle, x = cut(built, layer="m"), np.random.default_rng(0).standard_normal((1, 3, 16, 16), np.float32)
    (features,) = graphs.run(bundle.path("head"), {"image": x})
    built.graph.output.append(ValueInfoProto(name="d"))
    np.testing.assert_allclose(features, graphs.run(built, {"x": x}, "d")[0], rtol=1e-6)
