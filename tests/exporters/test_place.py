"""exporters.place: features that do not lie as the image does are refused, and those that do never are."""

from __future__ import annotations

import re

import numpy as np
import pytest

from camrt.errors import ExportError
from exporters.layers import find_layer
from exporters.place import check_place
from tests import graphs
from tests.exporters.helpers import view

END = "p = GlobalAveragePool (m)  f = Flatten (p)  scores = MatMul (f, fc)"
WEIGHTS = {"w": (6, 3, 3, 3), "fc": (6, 4)}
CONSTANTS = {
    "first": np.array([-1]), "beyond": np.array([-99]), "back": np.array([-1]), "rows": np.array([2]), "columns": np.array([3]),
    "rank3": np.array([0, 6, 64]), "places": np.array([0, 8, 8, 6]), "maps": np.array([0, 6, 8, 8]), "one_row": np.array([0, 6, 1, 64]),
    "wide": np.array([0, 6, 4, 16]), "space": np.array([2, 3]),
}  # fmt: skip


def built(
    chain: str, *, conv: str = "c = Conv <pads = [1, 1, 1, 1], strides = [2, 2]> (x, w)", end: str = END, **options: object
):
    """Return a classifier whose maps (N, 6, 8, 8) go through a chain of nodes from c to m."""
    used = {name: value for name, value in CONSTANTS.items() if re.search(rf"\b{name}\b", chain + end)}
    return graphs.parse(f"{conv}  {chain}  {end}", **WEIGHTS, **used, **options)


# --- measured on the features -------------------------------------------------------------------------------------------------
OTHERWISE = {
    "turned": ("m = Transpose <perm = [0, 1, 3, 2]> (c)", "their rows are the image's columns"),
    "columns mirrored": ("m = Slice (c, first, beyond, columns, back)", "their columns are mirrored"),
    "rows mirrored": ("m = Slice (c, first, beyond, rows, back)", "their rows are mirrored"),
}


@pytest.mark.parametrize(("chain", "how"), OTHERWISE.values(), ids=OTHERWISE)
@pytest.mark.parametrize("image", ["N,3,16,16", "N,3,16,24"])
@pytest.mark.parametrize("element", ["float", "uint8"])
def test_features_that_lie_otherwise_are_refused(chain, how, image, element, cut, tmp_path):
    cast = "" if element == "float" else "y = Cast <to = 1> (x)  "
    conv = f"{cast}c = Conv <pads = [1, 1, 1, 1], strides = [2, 2]> ({'y' if cast else 'x'}, w)"
    with pytest.raises(
        ExportError, match=f"'m' (do not lie as the image does: {how}|holds the cells of an earlier map in other rows)"
    ):
        cut(built(chain, conv=conv, image=image, element=element), layer="m")
    assert [path.name for path in tmp_path.iterdir()] == ["model.onnx"]


def test_an_image_turned_before_the_network_is_seen_in_every_map(cut):
    turned = "t = Transpose <perm = [0, 3, 2, 1]> (x)  c = Conv <pads = [1, 1, 1, 1], strides = [2, 2]> (t, w)"
    with pytest.raises(ExportError, match="rows are the image's columns"):
        cut(built("m = Relu (c)", conv=turned, image="N,16,16,3"))


def test_tokens_that_a_reshape_made_channels_last_are_no_map(cut):
    tokens = "q = Reshape (c, rank3)  t = Transpose <perm = [0, 2, 1]> (q)  u = Reshape (t, places)  m = Relu (u)"
    end = "f = Flatten (m)  scores = MatMul (f, fc)"
    weights = WEIGHTS | {"fc": (384, 4), "rank3": CONSTANTS["rank3"], "places": CONSTANTS["places"]}
    conv = "c = Conv <pads = [1, 1, 1, 1], strides = [2, 2]> (x, w)"
    with pytest.raises(ExportError, match="do not lie as the image does"):
        cut(graphs.parse(f"{conv}  {tokens}  {end}", **weights))


AS_THE_IMAGE = {
    "behind an activation": "m = Relu (c)",
    "turned and turned back": "t = Transpose <perm = [0, 1, 3, 2]> (c)  r = Relu (t)  m = Transpose <perm = [0, 1, 3, 2]> (r)",
    "behind attention among all places": (
        "q = Reshape (c, rank3)  t = Transpose <perm = [0, 2, 1]> (q)  a = MatMul (t, q)  s = Softmax (a)  b = MatMul (q, s)"
        "  m = Reshape (b, maps)"
    ),
    "weighted by the whole": "g = GlobalAveragePool (c)  s = Sigmoid (g)  m = Mul (c, s)",
}


@pytest.mark.parametrize("chain", AS_THE_IMAGE.values(), ids=AS_THE_IMAGE)
def test_features_that_lie_as_the_image_are_taken(chain, cut):
    assert cut(built(chain), layer="m").manifest.layer.name == "m"


def test_features_that_nothing_moves_tell_nothing():
    check_place(lambda x: np.ones((len(x), 2, 4, 4), np.float32), np.zeros((2, 3, 16, 16), np.float32), "m")
    check_place(lambda x: np.full((len(x), 2, 4, 4), np.inf, np.float32), np.zeros((2, 3, 16, 16), np.float32), "m")


def test_an_image_smaller_than_the_grid_tells_nothing():
    check_place(lambda x: x.transpose(0, 1, 3, 2), np.random.default_rng(0).random((2, 3, 3, 3), np.float32), "m")


# --- seen in the shapes -------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("shape", ["one_row", "wide"])
def test_cells_in_other_rows_are_no_map(shape):
    end = "p = ReduceMean <axes = [2, 3], keepdims = 0> (m)  scores = MatMul (p, fc)"
    graph, image, logits = view(built(f"r = Relu (c)  q = Reshape (r, {shape})  m = Abs (q)", end=end))
    assert find_layer(graph, image, logits, "auto", "model").tensor == "r"
    with pytest.raises(ExportError, match="'m' holds the cells of an earlier map in other rows"):
        find_layer(graph, image, logits, "m", "model")
