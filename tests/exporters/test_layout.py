"""exporters.layout: which tensors of rank 4 are channels last, and that none of them is taken for a map."""

from __future__ import annotations

import numpy as np
import pytest
from onnx import ModelProto

from camrt.errors import ExportError
from exporters.graph import Graph
from exporters.layers import find_layer, list_layers
from exporters.layout import channels_last
from tests import graphs
from tests.exporters.helpers import assert_reproduces, view

LAST, FIRST = "<perm = [0, 2, 3, 1]>", "<perm = [0, 3, 1, 2]>"
CONV = "c = Conv <pads = [1, 1, 1, 1]> (x, w)"
END = "p = GlobalAveragePool (m)  scores = Flatten (p)"

CASES: dict[str, tuple[str, set[str]]] = {
    "no transpose": (f"{CONV}  m = Relu (c)  {END}", set()),
    "there and back": (f"{CONV}  t = Transpose {LAST} (c)  m = Transpose {FIRST} (t)  {END}", {"t"}),
    "what is computed between": (
        f"{CONV}  t = Transpose {LAST} (c)  r = Relu (t)  s = Add (r, t)  m = Transpose {FIRST} (s)  {END}",
        {"t", "r", "s"},
    ),
    "both outputs": (
        f"{CONV}  t = Transpose {LAST} (c)  a, b = Split <axis = 3> (t, halves)  s = Mul (a, b)  m = Transpose {FIRST} (s)  {END}",
        {"t", "a", "b", "s"},
    ),
    "a constant first": (f"{CONV}  t = Transpose {LAST} (c)  s = Sub (one, t)  m = Transpose {FIRST} (s)  {END}", {"t", "s"}),
    "rows and columns change places": (f"{CONV}  m = Transpose <perm = [0, 1, 3, 2]> (c)  {END}", set()),
    "and of one that is last": (
        f"{CONV}  t = Transpose {LAST} (c)  u = Transpose <perm = [0, 2, 1, 3]> (t)  m = Transpose {FIRST} (u)  {END}",
        {"t", "u"},
    ),
    "without a permutation": (f"{CONV}  m = Transpose (c)  n = Transpose (m)  {END}", set()),
    "no rank of four": (f"{CONV}  t = Transpose {LAST} (c)  m = ReduceMean <axes = [1, 2], keepdims = 0> (t)  scores = Flatten (m)", {"t"}),
    "an operator on maps": (f"t = Transpose {LAST} (x)  m = Conv (t, v)  {END}", {"t"}),
    "beside the image": (f"k = Transpose {LAST} (w)  l = Transpose {FIRST} (k)  m = Conv (x, l)  {END}", set()),
}  # fmt: skip


def model(name: str) -> ModelProto:
    return graphs.parse(
        CASES[name][0], image="N,3,16,16", w=(6, 3, 3, 3), v=(6, 16, 3, 3), halves=np.array([3, 3]), one=np.float32(1)
    )


@pytest.mark.parametrize("name", CASES)
def test_a_tensor_is_channels_last_behind_a_transpose_until_the_next(name):
    assert channels_last(Graph(model(name)), "x") == CASES[name][1]


# LayerNormalization over the channels keeps its Transposes, as there is no such operator for channels first
NORMALISED = f"""
    {CONV}  t = Transpose {LAST} (c)  [norm] n = LayerNormalization (t, scale, shift)  [wide] e = MatMul (n, wide)  g = Relu (e)
    d = MatMul (g, narrow)  u = Transpose {FIRST} (d)  m = Add (c, u)  p = GlobalAveragePool (m)  f = Flatten (p)
    scores = MatMul (f, fc)
    """
WEIGHTS = {
    "w": (6, 3, 3, 3), "scale": np.linspace(0.5, 1.5, 6, dtype=np.float32), "shift": np.zeros(6, np.float32),
    "wide": (6, 24), "narrow": (24, 6), "fc": (6, 5),
}  # fmt: skip


def test_no_tensor_that_is_channels_last_is_listed():
    listed = [layer.tensor for layer in list_layers(*view(graphs.parse(NORMALISED, **WEIGHTS)))]
    assert listed == ["m", "c"]


@pytest.mark.parametrize(("name", "shape"), [("n", "(N, 16, 16, 6)"), ("wide", "(N, 16, 16, 24)"), ("g", "(N, 16, 16, 24)")])
def test_one_that_is_asked_for_is_refused_as_such(name, shape):
    body = NORMALISED.replace("m = Add (c, u)", "m = Relu (u)")  # nothing goes round it
    with pytest.raises(ExportError) as caught:
        find_layer(*view(graphs.parse(body, **WEIGHTS)), name, "tiny.onnx")
    assert f"is channels last, {shape}; a cut needs (N, C, h, w). Choose a tensor behind a Transpose." in str(caught.value)


def test_the_network_round_them_is_cut_and_reproduced(cut):
    built = graphs.parse(NORMALISED, **WEIGHTS)
    bundle = cut(built)
    assert (bundle.manifest.layer.name, bundle.manifest.features.shape[1:]) == ("m", (6, 16, 16))
    assert bundle.manifest.gradient_missing is None
    assert_reproduces(bundle, built)
