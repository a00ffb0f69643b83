"""exporters.passes.squeeze: a Squeeze without axes keeps the batch."""

from __future__ import annotations

import numpy as np
import pytest
from onnx import TensorProto, helper

from exporters.passes import Normal
from exporters.passes.squeeze import keep_batch
from tests import graphs
from tests.exporters.helpers import CONV, W, assert_reproduces, normal, operators, shape_of

ENDS = {
    "last": "p = GlobalAveragePool (r)  scores = Squeeze (p)",
    "before a linear layer": "p = GlobalAveragePool (r)  f = Squeeze (p)  u = Unsqueeze (f, first)  k = Squeeze (u)  scores = MatMul (k, fc)",
    "of one channel": "m = ReduceMax <axes = [1]> (r)  s = Squeeze (m)  u = Unsqueeze (s, one)  p = GlobalAveragePool (u)  f = Flatten (p)"
    "  scores = MatMul (f, row)",
    "of nothing": "p = GlobalAveragePool (r)  f = Flatten (p)  scores = Squeeze (f)",
    "twice": "p = GlobalAveragePool (r)  s = Squeeze (p)  scores = Squeeze (s)",
}
WEIGHTS = {"w": W, "fc": (5, 4), "row": (1, 4), "first": np.array([2]), "one": np.array([1])}


@pytest.mark.parametrize("image", ["N,3,16,16", "1,3,16,16"])
@pytest.mark.parametrize("name", ["last", "of nothing", "twice"])
@pytest.mark.parametrize("opset", [11, 12, 13, 17])
def test_the_batch_stays_where_all_other_ones_go(name, image, opset, cut):
    built = graphs.parse(f"{CONV} {ENDS[name]}", image=image, opset=opset, **WEIGHTS)
    bundle = cut(built, layer="r")
    assert bundle.manifest.output.shape == (-1, 5)
    assert_reproduces(bundle, built)


def test_a_squeeze_of_one_channel_keeps_the_batch(cut):
    built = graphs.parse(f"{CONV} {ENDS['of one channel']}", image="2,3,16,16", **WEIGHTS)
    x = np.random.default_rng(0).standard_normal((2, 3, 16, 16), np.float32)
    found = normal(built)
    np.testing.assert_allclose(graphs.run(found.model, {"x": x})[0], graphs.run(built, {"x": x})[0], rtol=1e-5)


def test_a_squeeze_with_axes_stays_as_it_is():
    body = f"{CONV} p = GlobalAveragePool (r)  scores = Squeeze (p, axes)"
    found = normal(graphs.parse(body, w=W, axes=np.array([2, 3])))
    assert operators(found.model)[-1] == "Squeeze"
    assert found.model.graph.node[-1].input[1] == "axes"


def test_the_axes_get_a_name_of_their_own():
    body = f"{CONV} p = GlobalAveragePool (r)  scores = Squeeze (p)"
    built = graphs.parse(body.replace("p =", "t =").replace("(p)", "(t)"), w=W)
    built.graph.node[2].output[0] = built.graph.node[3].input[0] = "scores/axes"
    found = normal(built)
    names = [tensor.name for tensor in found.model.graph.initializer]
    assert len({*names, "scores/axes"}) == len(names) + 1
    x = np.random.default_rng(0).standard_normal((1, 3, 16, 16), np.float32)
    np.testing.assert_allclose(graphs.run(found.model, {"x": x})[0][0], graphs.run(built, {"x": x})[0], rtol=1e-5)


@pytest.mark.parametrize("opset", [12, 17])
def test_shapes_that_the_file_records_without_the_batch_do_no_harm(opset):
    body = f"{CONV} p = GlobalAveragePool (r)  f = Squeeze (p)  scores = Relu (f)"
    built = graphs.parse(body, image="1,3,16,16", outputs=("float[5] scores",), opset=opset, w=W)
    built.graph.value_info.append(helper.make_tensor_value_info("f", TensorProto.FLOAT, [5]))
    built.graph.value_info.append(helper.make_tensor_value_info("r", TensorProto.FLOAT, [1, 5, 16, 16]))
    assert shape_of(normal(built), "scores") == ("N", 5)


def test_shapes_that_only_the_file_knows_are_kept_and_others_change():
    body = f"{CONV} g = com.microsoft.QuickGelu (r)  p = GlobalAveragePool (g)  f = Squeeze (p)  scores = Relu (f)"
    built = graphs.parse(body, image="1,3,16,16", w=W)
    built.graph.value_info.append(helper.make_tensor_value_info("g", TensorProto.FLOAT, [1, 5, 16, 16]))
    built.graph.value_info.append(helper.make_tensor_value_info("f", TensorProto.FLOAT, [5]))
    found = Normal(built, image="x", logits="scores")
    keep_batch(found)
    assert [value.name for value in found.model.graph.value_info] == ["g"]
    assert shape_of(found, "scores") == (1, 5)
