"""exporters.layers: where a network can be cut, which place is best, and why another one is none."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from onnx import helper

from camrt.errors import ExportError, UnknownLayer
from exporters.graph import Graph
from exporters.layers import find_layer, list_layers, module_scopes, separators
from tests import graphs
from tests.exporters.helpers import images, source_scores, split, view

HEADS = {"w": (6, 3, 3, 3), "v": (5, 6, 1, 1), "fc": (5, 6), "one": np.array([1, -1])}


def automatic(body: str, **weights: object):
    return list_layers(*view(graphs.parse(body, **weights)))[0]


# --- the automatic choice -------------------------------------------------------------------------------------------------
def test_the_last_map_that_alone_separates_is_chosen():
    layer = list_layers(*view(graphs.classifier()))[0]
    assert (layer.tensor, layer.node, layer.operator) == ("features", "relu2", "Relu")
    assert (layer.shape, layer.stride) == ((12, 8, 8), (4.0, 4.0))
    assert layer.reason == "the last map, 8 x 8, that alone separates the image from the scores"


def test_the_others_follow_from_the_last_to_the_first():
    assert [layer.tensor for layer in list_layers(*view(graphs.classifier()))] == ["features", "c2", "r1", "c1"]


def test_what_a_skip_goes_round_is_not_listed():
    assert [layer.tensor for layer in list_layers(*view(graphs.residual()))] == ["t", "s", "r", "c"]


def test_class_maps_are_stepped_back_over():
    # SqueezeNet: fire → dropout → conv of L channels → relu → mean → softmax
    layer = automatic(
        """
        c = Conv (x, w)  fire = Relu (c)  drop = Dropout (fire)
        maps = Conv (drop, v)  active = Relu (maps)
        p = GlobalAveragePool (active)  f = Flatten (p)  scores = Softmax <axis = 1> (f)
        """,
        **HEADS,
    )
    assert layer.tensor == "fire"
    assert layer.reason.endswith("before the class maps 'maps', 'active' and the closing Dropout 'drop'")


@pytest.mark.parametrize(
    "pool",
    [
        "s = ReduceSum <keepdims = 0> (maps, space)  scores = Div (s, cells)",
        "scores = ReduceLogSumExp <axes = [2, 3], keepdims = 0> (maps)",
        'u = Resize <mode = "linear"> (maps, , twice)  p = GlobalAveragePool (u)  scores = Flatten (p)',
    ],
    ids=["a sum over the cells", "a soft maximum", "enlarged maps"],
)
def test_class_maps_are_stepped_back_over_however_they_are_pooled(pool):
    constants = {"space": np.array([2, 3]), "cells": np.float32(196), "twice": np.array([1, 1, 2, 2], np.float32)}
    used = {name: value for name, value in constants.items() if name in pool}
    layer = automatic(f"c = Conv (x, w)  r = Relu (c)  maps = Conv (r, v)  {pool}", w=HEADS["w"], v=HEADS["v"], **used)
    assert layer.tensor == "r"


def test_as_many_channels_as_classes_before_a_linear_layer_are_features():
    body = "c = Conv (x, w)  r = Relu (c)  p = GlobalAveragePool (r)  f = Flatten (p)  scores = MatMul (f, m)"
    layer = automatic(body, w=(5, 3, 3, 3), m=(5, 5))
    assert layer.tensor == "r"


def test_a_map_whose_cells_are_the_classes_is_no_class_map():
    body = "c = Conv <strides = [4, 4]> (x, w)  r = Relu (c)  d = Conv (r, v)  s = Relu (d)  scores = Flatten (s)"
    assert automatic(body, w=(6, 3, 4, 4), v=(3, 6, 3, 3)).tensor == "s"


@pytest.mark.parametrize(
    "closing",
    [
        "end = MaxPool <kernel_shape = [2, 2], strides = [2, 2]> (r)",
        "end = AveragePool <kernel_shape = [2, 2], strides = [2, 2]> (r)",
        "end = LpPool <kernel_shape = [2, 2], strides = [2, 2]> (r)",
        "end = Dropout (r)",
        "end = Identity (r)",
        "end = LRN <size = 3> (r)",
        "d = Dropout (r)  i = Identity (d)  end = MaxPool <kernel_shape = [3, 3]> (i)",
    ],
)
def test_a_closing_operator_is_stepped_back_over(closing):
    # VGG: conv → relu → pool → flatten → gemm
    body = f"c = Conv (x, w)  r = Relu (c)  {closing}  f = Flatten (end)  l = ReduceMean <axes = [1]> (f)  scores = Mul (l, m)"
    layer = automatic(body, w=(6, 3, 3, 3), m=(1, 5))
    assert layer.tensor == "r"
    assert "before the closing " in layer.reason
    assert "'end'" in layer.reason


def test_where_all_is_class_maps_and_pooling_the_last_map_is_chosen():
    layer = automatic("c = Conv (x, v)  r = Relu (c)  p = GlobalAveragePool (r)  scores = Flatten (p)", v=(5, 3, 1, 1))
    assert layer.tensor == "r"
    assert "all are class maps" in layer.reason


def test_a_dense_block_is_cut_after_its_last_concatenation():
    layer = automatic(
        """
        c0 = Conv <pads = [1, 1, 1, 1]> (x, w)
        r0 = Relu (c0)  c1 = Conv <pads = [1, 1, 1, 1]> (r0, w1)
        k1 = Concat <axis = 1> (c0, c1)  r1 = Relu (k1)  c2 = Conv <pads = [1, 1, 1, 1]> (r1, w2)
        k2 = Concat <axis = 1> (c0, c1, c2)  n = BatchNormalization (k2, g, b, g, g)  last = Relu (n)
        p = GlobalAveragePool (last)  f = Flatten (p)  scores = Gemm <transB = 1> (f, fc)
        """,
        w=(4, 3, 3, 3), w1=(4, 4, 3, 3), w2=(4, 8, 3, 3), g=np.ones(12, np.float32), b=np.zeros(12, np.float32), fc=(5, 12),
    )  # fmt: skip
    assert (layer.tensor, layer.shape) == ("last", (12, 16, 16))


def test_a_squeeze_and_excite_gate_is_not_cut_through():
    body = """
        c = Conv (x, w)  g = GlobalAveragePool (c)  e = Conv (g, gate)  s = Sigmoid (e)  m = Mul (c, s)
        p = GlobalAveragePool (m)  f = Flatten (p)  scores = Gemm <transB = 1> (f, fc)
        """
    assert [layer.tensor for layer in list_layers(*view(graphs.parse(body, **HEADS, gate=(6, 6, 1, 1))))] == ["m", "c"]


def test_the_stride_is_told_for_both_directions():
    layer = automatic("c = Conv <strides = [2, 4]> (x, w)  p = GlobalAveragePool (c)  scores = Flatten (p)", w=(5, 3, 2, 4))
    assert (layer.shape[1:], layer.stride) == ((8, 4), (2.0, 4.0))


def test_a_network_without_a_map_has_nothing_to_cluster():
    with pytest.raises(ExportError, match="nothing to cluster"):
        list_layers(*view(graphs.parse("f = Flatten (x)  scores = MatMul (f, m)", m=(768, 5))))


def test_separators_come_in_the_order_of_the_network():
    graph, image, logits = view(graphs.residual())
    assert separators(graph, image, logits) == ["c", "r", "s", "t", "p", "f"]


def test_separators_do_not_depend_on_the_order_of_parallel_branches():
    body = "c = Conv (x, w)  {}  s = Add (a, b)  p = GlobalAveragePool (s)  scores = Flatten (p)"
    a, b = "a1 = Relu (c)  a = Abs (a1)", "b = Tanh (c)"
    found = [separators(*view(graphs.parse(body.format(order), w=(5, 3, 3, 3)))) for order in (f"{a} {b}", f"{b} {a}")]
    assert found == [["c", "s", "p"]] * 2


@given(st.lists(st.tuples(st.sets(st.integers(0, 99), max_size=3), st.booleans()), min_size=1, max_size=12))
def test_separators_are_the_tensors_without_which_no_path_is_left(choices):
    tensors, nodes = ["x"], []
    for i, (picks, two) in enumerate(choices):
        outputs = [f"t{i}", f"u{i}"] if two else [f"t{i}"]
        nodes.append(helper.make_node("Sum", sorted({tensors[pick % len(tensors)] for pick in picks}), outputs))
        tensors += outputs
    nodes[-1].output[0] = "scores"
    graph = Graph(helper.make_model(helper.make_graph(nodes, "random", [], [])))
    assert set(separators(graph, "x", "scores")) == without_which_no_path_is_left(nodes)


def without_which_no_path_is_left(nodes) -> set[str]:
    edges = {(a, b) for node in nodes for a in node.input for b in node.output}
    names = {name for edge in edges for name in edge}

    def reached(start: str, removed: str = "") -> set[str]:
        found, waiting = {start}, [start]
        while waiting:
            tensor = waiting.pop()
            new = {b for a, b in edges if a == tensor} - found - {removed}
            found |= new
            waiting += new
        return found

    between = {name for name in names if name in reached("x") and "scores" in reached(name)} - {"x", "scores"}
    return {name for name in between if "scores" not in reached("x", removed=name)}


# --- by name --------------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(("name", "tensor"), [("auto", "features"), ("r1", "r1"), ("relu1", "r1"), ("conv1", "c1")])
def test_a_layer_is_found_by_tensor_or_node(name, tensor):
    layer = find_layer(*view(graphs.classifier()), name, "tiny.onnx")
    assert layer.tensor == tensor
    assert layer.reason == "asked for by name" or name == "auto"


def test_a_layer_is_found_by_the_path_of_its_module():
    built = graphs.classifier()
    for node, scopes in zip(built.graph.node, ["stem.0", "stem.1", "body.0", "body.1", "pool", "pool", "fc"], strict=True):
        scope = ["", scopes.split(".")[0], scopes, node.name]
        node.metadata_props.add(key="pkg.torch.onnx.name_scopes", value=repr(scope))
    graph = view(built)
    assert find_layer(*graph, "stem", "m").tensor == "r1"
    assert find_layer(*graph, "body.0", "m").tensor == "c2"
    assert find_layer(*graph, "auto", "m").module == "body.1"


@pytest.mark.parametrize("value", ["", "['a', 'b'", "7", "[1, 2]", "__import__('os')", "[]"])
def test_scopes_that_torch_did_not_write_are_no_scopes(value):
    node = graphs.classifier().graph.node[0]
    node.metadata_props.add(key="pkg.torch.onnx.name_scopes", value=value)
    assert module_scopes(node) == []


@pytest.mark.parametrize(("name", "nearest"), [("feature", "features"), ("relu_2", "relu2"), ("FC", "fc")])
def test_an_unknown_layer_gets_a_suggestion(name, nearest):
    with pytest.raises(UnknownLayer, match=f"has no layer '{name}'. Did you mean '{nearest}'.*camrt layers tiny.onnx"):
        find_layer(*view(graphs.classifier()), name, "tiny.onnx")


def test_an_unknown_layer_like_nothing_else_gets_none():
    with pytest.raises(UnknownLayer, match=r"has no layer 'zzzz'\. Run 'camrt layers tiny.onnx' to list the 4 places"):
        find_layer(*view(graphs.classifier()), "zzzz", "tiny.onnx")


def refusal(built, name: str) -> str:
    with pytest.raises(ExportError) as caught:
        find_layer(*view(built), name, "tiny.onnx")
    assert not isinstance(caught.value, UnknownLayer)
    return str(caught.value)


@pytest.mark.parametrize("name", ["d", "conv2"])
def test_a_skip_round_the_layer_is_named(name):
    message = refusal(graphs.residual(), name)
    assert message.startswith("Layer 'd'" if name == "d" else "Layer 'conv2' (tensor 'd')")
    assert "'r' goes round it into Add 'add'" in message
    assert "Choose the tensor after the paths meet, 's'." in message


def test_a_skip_from_the_image_itself_is_named():
    body = "c = Conv (x, v)  [join] s = Add (c, x)  p = GlobalAveragePool (s)  scores = Flatten (p)"
    assert "'x' goes round it into Add 'join'" in refusal(graphs.parse(body, v=(3, 3, 1, 1)), "c")


def test_a_parallel_branch_is_named():
    body = "c = Conv (x, v)  a = Relu (c)  b = Tanh (c)  [join] s = Add (a, b)  p = GlobalAveragePool (s)  scores = Flatten (p)"
    built = graphs.parse(body, v=(5, 3, 1, 1))
    assert "'b' goes round it into Add 'join'" in refusal(built, "a")
    assert "'a' goes round it into Add 'join'" in refusal(built, "b")


def test_the_tensor_that_a_refusal_offers_can_be_cut():
    built = graphs.parse(
        """
        c0 = Conv <pads = [1, 1, 1, 1]> (x, w)
        c1 = Conv <pads = [1, 1, 1, 1]> (c0, w1)  k1 = Concat <axis = 1> (c0, c1)
        c2 = Conv <pads = [1, 1, 1, 1]> (k1, w2)  k2 = Concat <axis = 1> (c0, c1, c2)
        p = GlobalAveragePool (k2)  scores = Flatten (p)
        """,
        w=(2, 3, 3, 3), w1=(2, 2, 3, 3), w2=(2, 4, 3, 3),
    )  # fmt: skip
    assert "the paths meet, 'k2'" in refusal(built, "c1")


def test_where_the_paths_meet_behind_the_maps_no_later_tensor_is_offered():
    built = graphs.parse(
        """
        c = Conv (x, v)  a = Relu (c)  b = Tanh (c)  pa = GlobalAveragePool (a)  pb = GlobalAveragePool (b)
        [join] s = Add (pa, pb)  scores = Flatten (s)
        """,
        v=(5, 3, 1, 1),
    )
    assert "No later feature map separates them; choose an earlier layer" in refusal(built, "a")


def test_a_layer_that_is_no_map_is_refused_with_its_shape():
    message = refusal(graphs.classifier(), "flatten")
    assert message.startswith("Layer 'flatten' (tensor 'flat') is not a feature map (N, C, h, w): its shape is (N, 12).")


def test_a_map_of_one_cell_is_refused():
    assert "'pooled' has one cell" in refusal(graphs.classifier(), "pooled")


def test_an_integer_tensor_is_refused():
    built = graphs.parse(
        """
        c = Conv (x, v)  q = QuantizeLinear (c, scale, zero)  [deq] d = DequantizeLinear (q, scale, zero)
        p = GlobalAveragePool (d)  scores = Flatten (p)
        """,
        v=(5, 3, 1, 1), scale=np.float32(0.05), zero=np.uint8(128),
    )  # fmt: skip
    assert "'q' holds UINT8; a cut needs real numbers" in refusal(built, "q")


def test_a_tensor_beside_the_path_is_refused():
    built = graphs.parse(
        "k = DequantizeLinear (v, scale, zero)  c = Conv (x, k)  p = GlobalAveragePool (c)  scores = Flatten (p)",
        v=np.ones((5, 3, 2, 2), np.int8), scale=np.float32(0.05), zero=np.int8(0),
    )  # fmt: skip
    assert "'k' does not lie between the image and the scores" in refusal(built, "k")


def test_a_one_by_two_map_can_be_cut():
    body = (
        "p = AveragePool <kernel_shape = [16, 8], strides = [16, 8]> (x)  r = Relu (p)  f = Flatten (r)  scores = Gemm (f, m)"
    )
    assert find_layer(*view(graphs.parse(body, m=(6, 5))), "r", "m").shape == (3, 1, 2)


def test_half_precision_inside_is_cut(cut):
    built = graphs.parse(
        "y = Cast <to = 10> (x)  c = Conv (y, w)  p = GlobalAveragePool (c)  f = Flatten (p)  scores = Cast <to = 1> (f)",
        w=np.random.default_rng(0).normal(0, 0.2, (5, 3, 3, 3)).astype(np.float16),
    )
    bundle = cut(built, layer="c")
    assert bundle.manifest.split.tolerance == 2e-3
    x = images(bundle)
    np.testing.assert_allclose(split(bundle, x), source_scores(built, x), rtol=2e-3, atol=2e-3)
