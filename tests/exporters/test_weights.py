"""exporters.weights: weights.bin and the table that describes it."""

from __future__ import annotations

import itertools

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from camrt.bundle import open_bundle
from exporters.graph import Graph
from exporters.weights import weights_of, write_weights
from tests import graphs
from tests.exporters.helpers import assert_reproduces


def test_every_weight_lies_in_the_file_once(tiny_bundle):
    table = open_bundle(tiny_bundle).manifest.weights
    data = (tiny_bundle / "weights.bin").read_bytes()
    assert [weight.name for weight in table] == ["w1", "w2", "b2", "w3", "b3"]
    for weight, tensor in zip(table, graphs.classifier().graph.initializer, strict=True):
        assert (weight.name, weight.shape, weight.dtype) == (tensor.name, tuple(tensor.dims), "float32")
        assert data[weight.offset : weight.offset + weight.length] == tensor.raw_data


def test_offsets_are_aligned_and_nothing_overlaps(tiny_bundle):
    table = open_bundle(tiny_bundle).manifest.weights
    assert all(weight.offset % 64 == 0 for weight in table)
    assert all(a.offset + a.length <= b.offset < a.offset + a.length + 64 for a, b in itertools.pairwise(table))
    assert (tiny_bundle / "weights.bin").stat().st_size == table[-1].offset + table[-1].length


def test_the_graphs_hold_no_weights_of_their_own(tiny_bundle):
    for part in ("head", "tail", "gradient", "score"):
        stored = onnx.load(tiny_bundle / f"{part}.onnx", load_external_data=False).graph.initializer
        inside = [tensor for tensor in stored if tensor.data_location != TensorProto.EXTERNAL]
        assert all(tensor.data_type == TensorProto.INT64 or not tensor.dims for tensor in inside)
        assert all(len(tensor.raw_data) <= 32 for tensor in stored)


def test_a_weight_lists_the_graphs_that_read_it(tiny_bundle):
    readers = {weight.name: weight.graphs for weight in open_bundle(tiny_bundle).manifest.weights}
    head, tail = ("head", "score"), ("tail", "score")
    assert readers == {"w1": head, "w2": head, "b2": head, "w3": (*tail, "gradient"), "b3": tail}


def test_the_table_says_what_the_graphs_refer_to(tiny_bundle):
    table = open_bundle(tiny_bundle).manifest.weights
    for part in ("head", "tail", "gradient", "score"):
        stored = onnx.load(tiny_bundle / f"{part}.onnx", load_external_data=False).graph.initializer
        places = {t.name: {e.key: e.value for e in t.external_data} for t in stored if t.data_location == TensorProto.EXTERNAL}
        read = [weight for weight in table if part in weight.graphs]
        assert places == {w.name: {"location": "weights.bin", "offset": str(w.offset), "length": str(w.length)} for w in read}


def test_depth_grows_along_the_network(tiny_bundle):
    depths = {weight.name: weight.depth for weight in open_bundle(tiny_bundle).manifest.weights}
    assert depths == {"w1": 0, "w2": 2, "b2": 2, "w3": 6, "b3": 6}


def test_depth_does_not_depend_on_the_order_in_the_file(cut):
    built = graphs.classifier()
    weights = sorted(built.graph.initializer, key=lambda tensor: tensor.name, reverse=True)
    del built.graph.initializer[:]
    built.graph.initializer.extend(weights)
    assert {w.name: w.depth for w in cut(built).manifest.weights} == {"w1": 0, "w2": 2, "b2": 2, "w3": 6, "b3": 6}


def test_a_weight_behind_another_operator_counts_where_it_is_used(cut):
    built = graphs.parse(
        """
        c1 = Conv (x, w)  k = DequantizeLinear (v, scale, zero)  r = Relu (c1)  c2 = Conv (r, k)
        p = GlobalAveragePool (c2)  scores = Flatten (p)
        """,
        w=(4, 3, 3, 3),
        v=np.ones((5, 4, 3, 3), np.int8), scale=np.full(5, 0.05, np.float32), zero=np.zeros(5, np.int8),
    )  # fmt: skip
    built.graph.node[1].attribute.append(helper.make_attribute("axis", 0))
    bundle = cut(built)
    assert {weight.name: weight.depth for weight in bundle.manifest.weights} == {"w": 0, "v": 2, "scale": 2, "zero": 2}
    assert_reproduces(bundle, built)


def test_a_weight_that_two_layers_share_is_stored_once(cut):
    body = "c = Conv <pads = [1, 1, 1, 1]> (x, w)  r = Relu (c)  d = Conv (r, w)  p = GlobalMaxPool (d)  scores = Flatten (p)"
    built = graphs.parse(body, w=(3, 3, 3, 3))
    bundle = cut(built, layer="r")
    (weight,) = bundle.manifest.weights
    assert (weight.graphs, weight.depth) == (("head", "tail", "score", "gradient"), 0)
    assert_reproduces(bundle, built)


@pytest.mark.parametrize("dtype", ["float32", "float16", "float64", "int8", "uint8", "int32"])
def test_every_element_type_is_written_as_it_is(dtype, tmp_path):
    value = np.arange(-3, 4).astype(dtype) if dtype != "uint8" else np.arange(7, dtype="uint8")
    built = graphs.parse("a = Relu (x)  scores = Flatten (a)", w=value)
    (weight,) = write_weights(Graph(built), "x", {"head": set()}, tmp_path / "weights.bin")
    assert (weight.dtype, weight.shape, weight.graphs) == (dtype, (7,), ())
    assert (tmp_path / "weights.bin").read_bytes() == value.tobytes()


@pytest.mark.parametrize("kind", ["FLOAT", "FLOAT16", "BFLOAT16", "DOUBLE", "INT8", "INT32"])
def test_values_that_are_not_stored_raw_are_written_the_same(kind, tmp_path):
    element = TensorProto.DataType.Value(kind)
    tensor = helper.make_tensor("w", element, [4], [1, -2, 3, 0])
    assert not tensor.raw_data
    built = graphs.parse("a = Relu (x)  scores = Flatten (a)")
    built.graph.initializer.append(tensor)
    write_weights(Graph(built), "x", {}, tmp_path / "weights.bin")
    written = TensorProto(data_type=element, dims=[4], raw_data=(tmp_path / "weights.bin").read_bytes())
    assert numpy_helper.to_array(written).astype(float).tolist() == [1, -2, 3, 0]


@pytest.mark.parametrize(
    ("value", "external"),
    [
        (np.ones(3, np.float32), True),
        (np.ones((2, 2), np.int8), True),
        (np.float32(1), False),
        (np.array([1, -1]), False),
        (np.ones(2, np.bool_), False),
    ],
)
def test_shapes_and_numbers_stay_in_the_graph(value, external):
    built = graphs.model([], {"t": np.asarray(value)})
    assert ("t" in weights_of(Graph(built))) is external


UPSAMPLED = (
    "c = Conv <pads = [1, 1, 1, 1]> (x, w)  r = Relu (c)  {}  p = GlobalMaxPool (u)  f = Flatten (p)  scores = MatMul (f, fc)"
)


@pytest.mark.parametrize(
    "resize",
    [
        'u = Resize <mode = "nearest"> (r, , scales)',
        'u = Resize <mode = "linear"> (r, empty, scales)',
        "u = Pad (r, pads, half)",
        "u = Clip (r, , half)",
    ],
)
def test_numbers_that_decide_a_shape_reach_onnx_runtime(resize, cut):
    scales, empty = np.array([1, 1, 2, 2], np.float32), np.zeros(0, np.float32)
    numbers = {"scales": scales, "empty": empty, "half": np.float32(0.5), "pads": np.array([0, 0, 1, 1] * 2)}
    built = graphs.parse(UPSAMPLED.format(resize), w=(5, 3, 3, 3), fc=(5, 4), **numbers)
    for layer in ("r", "u"):
        assert_reproduces(cut(built, layer=layer, force=True), built)
