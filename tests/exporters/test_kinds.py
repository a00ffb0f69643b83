"""Small networks of every kind, cut where they should be; and what is no convolutional network, refused by name."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest
from onnx import ModelProto, TensorProto
from onnxruntime.quantization import QuantFormat, quantize_static

from camrt.bundle import open_bundle
from camrt.errors import ExportError
from exporters import export
from tests import graphs
from tests.exporters.helpers import assert_reproduces, images, source_scores, split
from tests.exporters.variants import Calibration, bordered, converted

SCALED = {"overrides": {"scale": 1 / 255}}


@dataclass(frozen=True)
class Kind:
    """A network, and where it must be cut.

    Attributes
    ----------
    body : str
        ONNX text.
    weights : dict
    layer : str
    shape : (int, int, int)
        C, h, w.
    image : str
    logits : str
        The tensor that the bundle gives.
    options : dict
        Of the export.
    opset : int
    """

    body: str
    weights: dict[str, Any]
    layer: str
    shape: tuple[int, int, int]
    image: str = "N,3,32,32"
    logits: str = "scores"
    options: dict[str, Any] = field(default_factory=dict)
    opset: int = 17

    def built(self) -> ModelProto:
        return graphs.parse(self.body, image=self.image, opset=self.opset, **self.weights)


BLOCKS = """
    c = Conv <strides = [2, 2], pads = [1, 1, 1, 1]> (x, w)  r = Relu (c)
    d = Conv <strides = [2, 2], pads = [1, 1, 1, 1]> (r, v)  last = Relu (d)
    """
TWO = {"w": (6, 3, 3, 3), "v": (8, 6, 3, 3)}
FIRST, LAST = "<perm = [0, 3, 1, 2]>", "<perm = [0, 2, 3, 1]>"
NORM = {"scale": np.linspace(0.5, 1.5, 8, dtype=np.float32), "shift": np.linspace(-0.1, 0.1, 8, dtype=np.float32)}

KINDS: dict[str, Kind] = {
    "fully convolutional, open size": Kind(
        f"{BLOCKS}  maps = Conv (last, fc)  p = GlobalAveragePool (maps)  scores = Flatten (p)",
        TWO | {"fc": (5, 8, 1, 1)}, "last", (8, 6, 10), image="N,3,H,W", options={"size": (24, 40)},
    ),
    "fully convolutional, open batch and one cell": Kind(
        f"{BLOCKS}  maps = Conv (last, fc)  p = ReduceMean <axes = [2, 3]> (maps)  z = Softmax <axis = 1> (p)  scores = Squeeze (z, axes)",
        TWO | {"fc": (5, 8, 1, 1), "axes": np.array([2, 3])}, "last", (8, 7, 5), image="N,3,H,W", logits="p",
        options={"size": (28, 20)},
    ),
    "LeNet, one channel": Kind(
        """
        c = Conv <pads = [2, 2, 2, 2]> (x, w)  t = Tanh (c)  p = AveragePool <kernel_shape = [2, 2], strides = [2, 2]> (t)
        d = Conv (p, v)  u = Tanh (d)  q = AveragePool <kernel_shape = [2, 2], strides = [2, 2]> (u)  f = Flatten (q)
        g = Gemm <transB = 1> (f, f1)  h = Tanh (g)  scores = Gemm <transB = 1> (h, f2)
        """,
        {"w": (6, 1, 5, 5), "v": (16, 6, 5, 5), "f1": (84, 400), "f2": (10, 84)}, "u", (16, 10, 10), image="N,1,28,28",
    ),
    "not square": Kind(
        f"{BLOCKS}  p = GlobalMaxPool (last)  f = Flatten (p)  scores = MatMul (f, fc)",
        TWO | {"fc": (8, 5)}, "last", (8, 5, 12), image="1,3,20,48",
    ),
    "a mean of axes": Kind(
        f"{BLOCKS}  p = ReduceMean <axes = [-2, -1], keepdims = 0> (last)  scores = MatMul (p, fc)",
        TWO | {"fc": (8, 5)}, "last", (8, 8, 8),
    ),
    "a window as large as the map": Kind(
        f"{BLOCKS}  p = AveragePool <kernel_shape = [8, 8]> (last)  f = Reshape (p, flat)  scores = MatMul (f, fc)",
        TWO | {"fc": (8, 5), "flat": np.array([-1, 8])}, "last", (8, 8, 8),
    ),
    "a mean of one long axis": Kind(
        f"{BLOCKS}  f = Reshape (last, cells)  p = ReduceMean <axes = [2], keepdims = 0> (f)  scores = MatMul (p, fc)",
        TWO | {"fc": (8, 5), "cells": np.array([0, 8, 64])}, "last", (8, 8, 8),
    ),
    "a mean as a product with ones": Kind(
        f"{BLOCKS}  f = Reshape (last, cells)  p = MatMul (f, ones)  s = Squeeze (p, axes)  scores = MatMul (s, fc)",
        TWO | {"fc": (8, 5), "cells": np.array([1, 8, 64]), "ones": np.full((64, 1), 1 / 64, np.float32), "axes": np.array([2])},
        "last", (8, 8, 8), image="1,3,32,32",
    ),
    "flattened, then one linear layer": Kind(
        f"{BLOCKS}  f = Reshape (last, flat)  scores = MatMul (f, fc)",
        TWO | {"fc": (512, 5), "flat": np.array([1, -1])}, "last", (8, 8, 8), image="1,3,32,32",
    ),
    "mean and maximum side by side": Kind(
        f"{BLOCKS}  a = GlobalAveragePool (last)  m = GlobalMaxPool (last)  k = Concat <axis = 1> (a, m)  f = Flatten (k)  scores = MatMul (f, fc)",
        TWO | {"fc": (16, 5)}, "last", (8, 8, 8),
    ),
    "ConvNeXt": Kind(
        f"""
        stem = Conv <strides = [4, 4]> (x, w)
        d = Conv <group = 8, pads = [3, 3, 3, 3]> (stem, depth)  t = Transpose {LAST} (d)
        n = LayerNormalization (t, scale, shift)  e = MatMul (n, wide)  g = Gelu (e)  k = MatMul (g, narrow)  l = Mul (k, gamma)
        u = Transpose {FIRST} (l)  last = Add (stem, u)
        p = GlobalAveragePool (last)  f = Flatten (p)  m = LayerNormalization (f, scale, shift)  scores = MatMul (m, fc)
        """,
        {
            "w": (8, 3, 4, 4), "depth": (8, 1, 7, 7), "wide": (8, 32), "narrow": (32, 8), "fc": (8, 5),
            "gamma": np.full(8, 0.3, np.float32), **NORM,
        },
        "last", (8, 8, 8), opset=20,
    ),
    "ConvNeXt of old exporters": Kind(
        f"""
        stem = Conv <strides = [4, 4]> (x, w)
        d = Conv <group = 8, pads = [3, 3, 3, 3]> (stem, depth)  t = Transpose {LAST} (d)
        mean = ReduceMean <axes = [-1]> (t)  away = Sub (t, mean)  square = Pow (away, two)  var = ReduceMean <axes = [-1]> (square)
        sum = Add (var, epsilon)  std = Sqrt (sum)  unit = Div (away, std)  scaled = Mul (unit, scale)  n = Add (scaled, shift)
        e = MatMul (n, wide)  h = Div (e, root)  i = Erf (h)  j = Add (i, one)  q = Mul (e, j)  g = Mul (q, half)
        k = MatMul (g, narrow)  l = Mul (k, gamma)  u = Transpose {FIRST} (l)  last = Add (stem, u)
        p = ReduceMean <axes = [2, 3], keepdims = 0> (last)  scores = MatMul (p, fc)
        """,
        {
            "w": (8, 3, 4, 4), "depth": (8, 1, 7, 7), "wide": (8, 32), "narrow": (32, 8), "fc": (8, 5),
            "gamma": np.full(8, 0.3, np.float32), **NORM, "two": np.float32(2),
            "epsilon": np.float32(1e-6), "root": np.float32(2**0.5), "one": np.float32(1), "half": np.float32(0.5),
        },
        "last", (8, 8, 8),
    ),
    "squeeze and excitation by linear layers": Kind(
        f"""
        {BLOCKS}  g = GlobalAveragePool (last)  f = Flatten (g)  a = Gemm <transB = 1> (f, down)  b = Relu (a)
        e = Gemm <transB = 1> (b, up)  s = Sigmoid (e)  t = Unsqueeze (s, axes)  gated = Mul (last, t)  sum = Add (gated, last)
        p = GlobalAveragePool (sum)  h = Flatten (p)  scores = MatMul (h, fc)
        """,
        TWO | {"down": (2, 8), "up": (8, 2), "axes": np.array([2, 3]), "fc": (8, 5)}, "sum", (8, 8, 8),
    ),
    "attention over channels and places, as CBAM": Kind(
        f"""
        {BLOCKS}  a = GlobalAveragePool (last)  m = GlobalMaxPool (last)  ad = Conv (a, down)  ar = Relu (ad)  au = Conv (ar, up)
        md = Conv (m, down)  mr = Relu (md)  mu = Conv (mr, up)  cs = Add (au, mu)  cg = Sigmoid (cs)  ch = Mul (last, cg)
        pm = ReduceMax <axes = [1]> (ch)  pa = ReduceMean <axes = [1]> (ch)  pk = Concat <axis = 1> (pm, pa)
        pc = Conv <pads = [3, 3, 3, 3]> (pk, where)  pg = Sigmoid (pc)  out = Mul (ch, pg)
        p = GlobalAveragePool (out)  f = Flatten (p)  scores = MatMul (f, fc)
        """,
        TWO | {"down": (2, 8, 1, 1), "up": (8, 2, 1, 1), "where": (1, 2, 7, 7), "fc": (8, 5)}, "out", (8, 8, 8),
    ),
    "Inception with an auxiliary output": Kind(
        f"""
        {BLOCKS}  a1 = Conv (last, one)  a = Relu (a1)
        b1 = Conv <pads = [0, 3, 0, 3]> (last, across)  b2 = Conv <pads = [3, 0, 3, 0]> (b1, down)  b = Relu (b2)
        q = AveragePool <kernel_shape = [3, 3], pads = [1, 1, 1, 1]> (last)  q1 = Conv (q, one)  e = Relu (q1)
        block = Concat <axis = 1> (a, b, e)
        ap = GlobalAveragePool (last)  af = Flatten (ap)  auxiliary = MatMul (af, fa)
        p = GlobalAveragePool (block)  f = Flatten (p)  scores = MatMul (f, fc)
        """,
        TWO | {"one": (4, 8, 1, 1), "across": (6, 8, 1, 7), "down": (6, 6, 7, 1), "fa": (8, 5), "fc": (14, 5)},
        "block", (14, 8, 8),
    ),
    "spatial pyramid": Kind(
        f"""
        {BLOCKS}  p1 = GlobalMaxPool (last)  p2 = MaxPool <kernel_shape = [4, 4], strides = [4, 4]> (last)
        f1 = Flatten (p1)  f2 = Flatten (p2)  k = Concat <axis = 1> (f1, f2)  scores = MatMul (k, fc)
        """,
        TWO | {"fc": (40, 5)}, "last", (8, 8, 8),
    ),
    "one score": Kind(
        f"{BLOCKS}  p = GlobalAveragePool (last)  f = Flatten (p)  z = MatMul (f, fc)  scores = Sigmoid (z)",
        TWO | {"fc": (8, 1)}, "last", (8, 8, 8), logits="z",
    ),
    "a tree of classes that are two steps away": Kind(
        f"{BLOCKS}  p = GlobalAveragePool (last)  f = Flatten (p)  z = MatMul (f, fc)  h = HardSwish (z)  scores = MatMul (h, fd)",
        TWO | {"fc": (8, 12), "fd": (12, 5)}, "last", (8, 8, 8),
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", KINDS)
def test_every_kind_is_cut_at_its_last_map_and_reproduced(name, cut):
    kind = KINDS[name]
    built = kind.built()
    bundle = cut(built, **kind.options)
    assert (bundle.manifest.layer.name, bundle.manifest.features.shape[1:]) == (kind.layer, kind.shape)
    assert bundle.manifest.gradient_missing is None
    assert_reproduces(bundle, built, kind.logits)


@pytest.mark.parametrize("size", [(16, 16), (64, 16), (33, 57)])
def test_an_open_size_is_the_users(size, cut):
    kind = KINDS["fully convolutional, open size"]
    bundle = cut(kind.built(), size=size)
    assert bundle.manifest.size == size
    assert bundle.manifest.features.shape[1:] == (8, *((side + 3) // 4 for side in size))
    assert_reproduces(bundle, kind.built())


def test_an_open_size_that_nobody_gives_is_asked_for(tmp_path):
    source = graphs.save(KINDS["fully convolutional, open size"].built(), tmp_path / "model.onnx")
    with pytest.raises(ExportError, match=r"The height of the input 'x' is open \(H\)\. Set it: --size"):
        export(source, tmp_path / "bundle", **SCALED)


def test_the_auxiliary_output_is_explained_where_asked_for(cut):
    kind = KINDS["Inception with an auxiliary output"]
    built = graphs.parse(kind.body, image=kind.image, outputs=("scores", "auxiliary"), **kind.weights)
    bundle = cut(built, output="auxiliary")
    assert bundle.manifest.layer.name == "last"
    assert_reproduces(bundle, built, "auxiliary")


# --- SqueezeNet, whose classifier is a convolution ------------------------------------------------------------------------
def squeezenet() -> ModelProto:
    return graphs.parse(
        """
        c = Conv <strides = [2, 2]> (x, w)  r = Relu (c)  q = MaxPool <kernel_shape = [3, 3], strides = [2, 2]> (r)
        s = Conv (q, squeeze)  sr = Relu (s)  a = Conv (sr, one)  ar = Relu (a)  b = Conv <pads = [1, 1, 1, 1]> (sr, three)
        br = Relu (b)  fire = Concat <axis = 1> (ar, br)  drop = Dropout (fire)
        maps = Conv (drop, last, bias)  active = Relu (maps)  p = GlobalAveragePool (active)  scores = Flatten (p)
        """,
        image="N,3,32,32", w=(8, 3, 3, 3), squeeze=(4, 8, 1, 1), one=(6, 4, 1, 1), three=(6, 4, 3, 3), last=(5, 12, 1, 1),
        bias=np.linspace(0, 0.2, 5, dtype=np.float32),
    )  # fmt: skip


HALF = TensorProto.FLOAT16
FLOATS = {
    "float32": squeezenet,
    "float16": lambda: converted(squeezenet(), HALF),
    "float16 inside": lambda: bordered(converted(squeezenet(), HALF), HALF),
}


@pytest.mark.parametrize("name", FLOATS)
def test_a_convolution_as_classifier_is_stepped_back_over_in_every_float(name, cut):
    built = FLOATS[name]()
    bundle = cut(built)
    assert (bundle.manifest.layer.name, bundle.manifest.features.shape[1:]) == ("fire", (12, 7, 7))
    assert "before the class maps" in bundle.manifest.layer.reason
    x = images(bundle)
    source = x.astype(np.float16) if name == "float16" else x
    tolerance = 1e-4 if name == "float32" else 2e-3
    np.testing.assert_allclose(split(bundle, x), source_scores(built, source), rtol=0, atol=tolerance)


@pytest.mark.parametrize("form", [QuantFormat.QDQ, QuantFormat.QOperator], ids=str)
def test_a_quantised_convolution_as_classifier_is_stepped_back_over(form, tmp_path):
    quantize_static(squeezenet(), tmp_path / "model.onnx", Calibration("x", (3, 32, 32)), quant_format=form)
    manifest = export(tmp_path / "model.onnx", tmp_path / "bundle", **SCALED)
    assert manifest.layer.name.startswith("fire")
    assert manifest.features.shape[1:] == (12, 7, 7)
    assert "before the class maps" in manifest.layer.reason
    assert open_bundle(tmp_path / "bundle").manifest == manifest


# --- what is no convolutional network -------------------------------------------------------------------------------------
VISION_TRANSFORMER = """
    patches = Conv <strides = [8, 8]> (x, w)  f = Reshape (patches, cells)  tokens = Transpose <perm = [0, 2, 1]> (f)
    q = MatMul (tokens, wq)  k = MatMul (tokens, wk)  v = MatMul (tokens, wv)  kt = Transpose <perm = [0, 2, 1]> (k)
    [look] qk = MatMul (q, kt)  attention = Softmax <axis = -1> (qk)  seen = MatMul (attention, v)  sum = Add (tokens, seen)
    p = ReduceMean <axes = [1], keepdims = 0> (sum)  scores = MatMul (p, fc)
    """
VIT = {"w": (12, 3, 8, 8), "wq": (12, 12), "wk": (12, 12), "wv": (12, 12), "cells": np.array([-1, 12, 16]), "fc": (12, 5)}
RECURRENT = """
    a = Reshape (x, rows)  t = Transpose <perm = [1, 0, 2]> (a)  [memory] all, h, c = LSTM <hidden_size = 8> (t, wi, wr)
    s = Squeeze (h, zero)  scores = MatMul (s, fc)
    """
LSTM = {"rows": np.array([-1, 96, 32]), "wi": (1, 32, 32), "wr": (1, 32, 8), "zero": np.array([0]), "fc": (8, 5)}
PATCHES_IN_TURN = """
    patches = Conv <strides = [8, 8]> (x, w)  f = Reshape (patches, cells)  t = Transpose <perm = [2, 0, 1]> (f)
    [memory] all, h = GRU <hidden_size = 8> (t, wi, wr)  s = Squeeze (h, zero)  scores = MatMul (s, fc)
    """
GRU = {
    "w": (12, 3, 8, 8),
    "cells": np.array([-1, 12, 16]),
    "wi": (1, 24, 12),
    "wr": (1, 24, 8),
    "zero": np.array([0]),
    "fc": (8, 5),
}
INSIDE = "c = Conv <strides = [2, 2]> (i, w)  r = Relu (c)  p = GlobalAveragePool (r)  f = Flatten (p)  {} = MatMul (f, fc)"
IF = f"""
    m = ReduceMax <keepdims = 0> (x)  i = Identity (x)  yes = Greater (m, zero)
    [choice] scores = If (yes) <
        then_branch = one () => (float[N,5] s) {{ {INSIDE.format("s")} }}, else_branch = other () => (float[N,5] t) {{ {INSIDE.format("t")} }}>
    """
LOOP = f"""
    [again] l = Loop (two, , start) <
        body = turn (int64 n, bool go, float[N,5] before) => (bool on, float[N,5] after)
        {{ i = Identity (x)  {INSIDE.format("z")}  after = Add (before, z)  on = Identity (go) }}>
    scores = Reshape (l, five)
    """
SCAN = f"""
    t = Unsqueeze (x, axis)
    [steps] s = Scan <num_scan_inputs = 1, body = step (float[N,3,32,32] i) => (float[N,5] z) {{ {INSIDE.format("z")} }}> (t)
    scores = Squeeze (s, axis)
    """
CONTROL = {"w": (6, 3, 3, 3), "fc": (6, 5)}

REFUSED: dict[str, tuple[str, dict[str, Any], str]] = {
    "vision transformer": (
        VISION_TRANSFORMER, VIT,
        r"The last map, 'patches' \(4 x 4\), is what MatMul 'look' and others make tokens of: this is a transformer .* camrt explains convolutional networks\.$",
    ),
    "patches read one by one": (PATCHES_IN_TURN, GRU, r"The last map, 'patches' \(4 x 4\), is what GRU 'memory'.*"),
    "rows read one by one": (
        RECURRENT, LSTM, r"No feature map \(N, C, h, w\) separates the image from the scores: LSTM 'memory' is recurrent",
    ),
    "a choice": (IF, CONTROL | {"zero": np.float32(0)}, r"No feature map .*: If 'choice' is control flow"),
    "a loop": (LOOP, CONTROL | {"two": np.array(2), "start": np.zeros((1, 5), np.float32), "five": np.array([-1, 5])}, r"No feature map .*: Loop 'again' is control flow"),
    "a scan": (SCAN, CONTROL | {"axis": np.array([0])}, r"No feature map .*: Scan 'steps' is control flow"),
    "a linear layer alone": ("f = Flatten (x)  scores = MatMul (f, fc)", {"fc": (3072, 5)}, "there is nothing to cluster"),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
def test_what_has_no_maps_is_refused_by_the_operator_that_says_so(name, tmp_path):
    body, weights, message = REFUSED[name]
    built = graphs.parse(body, image="1,3,32,32", **weights)
    graphs.session(built)  # it is a model that runs
    with pytest.raises(ExportError, match=message):
        export(graphs.save(built, tmp_path / "model.onnx"), tmp_path / "bundle", **SCALED)
    assert not (tmp_path / "bundle").exists()


@pytest.mark.parametrize(("body", "weights"), [(VISION_TRANSFORMER, VIT), (PATCHES_IN_TURN, GRU)], ids=["tokens", "recurrent"])
def test_a_network_of_tokens_is_cut_where_the_refusal_says_one_could(body, weights, cut):
    built = graphs.parse(body, image="N,3,32,32", **weights)
    bundle = cut(built, layer="patches")
    assert (bundle.manifest.layer.name, bundle.manifest.features.shape[1:]) == ("patches", (12, 4, 4))
    assert_reproduces(bundle, built)


def test_attention_behind_a_convolutional_network_is_cut_at_its_last_map(cut):
    body = """
        e = Conv <strides = [2, 2], pads = [1, 1, 1, 1]> (x, stem)  r = Relu (e)
        """ + VISION_TRANSFORMER.replace("Conv <strides = [8, 8]> (x, w)", "Conv <strides = [4, 4]> (r, w)")
    built = graphs.parse(body, image="N,3,32,32", **VIT | {"stem": (6, 3, 3, 3), "w": (12, 6, 4, 4)})
    bundle = cut(built)
    assert (bundle.manifest.layer.name, bundle.manifest.features.shape[1:]) == ("patches", (12, 4, 4))
    assert_reproduces(bundle, built)


def test_a_loop_behind_the_maps_only_costs_the_gradient(cut):
    body = f"""
        {BLOCKS}  p = GlobalAveragePool (last)  f = Flatten (p)  z = MatMul (f, fc)
        [again] l = Loop (two, , z) <
            body = turn (int64 n, bool go, float[N,5] a) => (bool on, float[N,5] b) {{ b = Add (a, z)  on = Identity (go) }}>
        scores = Reshape (l, five)
        """
    built = graphs.parse(body, image="N,3,32,32", **TWO, fc=(8, 5), two=np.array(2), five=np.array([-1, 5]))
    bundle = cut(built)
    assert bundle.manifest.layer.name == "last"
    assert "Loop 'again'" in bundle.manifest.gradient_missing
    assert_reproduces(bundle, built)


def test_a_choice_by_the_image_goes_round_every_map(tmp_path):
    body = f"""
        {BLOCKS}  p = GlobalAveragePool (last)  f = Flatten (p)  m = ReduceMax <keepdims = 0> (x)  yes = Greater (m, zero)
        [choice] scores = If (yes) <
            then_branch = one () => (float[N,5] s) {{ s = MatMul (f, fc) }},
            else_branch = other () => (float[N,5] t) {{ t = MatMul (f, fd) }}>
        """
    built = graphs.parse(body, image="N,3,32,32", **TWO, fc=(8, 5), fd=(8, 5), zero=np.float32(0))
    with pytest.raises(ExportError, match="No feature map .*: If 'choice' is control flow"):
        export(graphs.save(built, tmp_path / "model.onnx"), tmp_path / "bundle", **SCALED)
