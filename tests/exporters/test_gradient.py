"""exporters.gradient: the walk back through a tail, judged by PyTorch on the same few operations."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import ModelProto

from exporters import export
from exporters.gradient import gradient
from exporters.graph import Graph, opset
from exporters.split import Shapes, rename_interface, to_model
from exporters.vjps import NoGradient
from tests import graphs
from tests.exporters.helpers import operators

torch = pytest.importorskip("torch")
from torch.nn import functional as F  # noqa: E402

SHAPES = Shapes((3, 16, 16), (6, 8, 8), 5)
STEM = "[stem] f = Conv <strides = [2, 2], pads = [1, 1, 1, 1]> (x, stem)"
PLAIN = "r = Relu (f)  p = GlobalAveragePool (r)  v = Flatten (p)  [fc] scores = Gemm (v, fc, b)"
WEIGHTS = {"fc": (6, 5), "b": (5,)}
OPSETS = (13, 14, 15, 16, 17, 18, 19, 20, 21, 22, 23, 24)


@dataclass(frozen=True)
class Tail:
    """The operators behind f, the output of a convolution, up to the scores."""

    body: str
    weights: dict[str, object]
    opset: int = 17

    @property
    def model(self) -> ModelProto:
        """x → f → scores."""
        return graphs.parse(f"{STEM} {self.body}", opset=self.opset, stem=(6, 3, 3, 3), **self.weights)

    def derived(self) -> ModelProto:
        """Return features, cotangent → gradients."""
        built = self.model
        rename_interface(built, "x", "f", "scores")
        graph = Graph(built)
        return to_model(gradient(graph, SHAPES), graph, ())

    def agrees_with(self, function: Callable[..., torch.Tensor], images: int = 2, tolerance: float = 1e-4) -> None:
        """Hold that the gradients are those of a function (features, weights by name) → (N, L) in PyTorch."""
        weights = {t.name: torch.from_numpy(onnx.numpy_helper.to_array(t).copy()) for t in self.model.graph.initializer}
        features, cotangent = batch(images)
        leaf = torch.from_numpy(features).requires_grad_()
        logits = function(leaf, weights)
        (expected,) = torch.autograd.grad(logits, leaf, torch.from_numpy(cotangent))
        found = gradients(self.derived(), features, cotangent)
        assert np.abs(found - expected.numpy()).max() <= tolerance * expected.abs().max()


def batch(images: int) -> tuple[np.ndarray, np.ndarray]:
    """Return random features and cotangents."""
    rng = np.random.default_rng(images)
    return rng.standard_normal((images, *SHAPES.features), np.float32), rng.standard_normal(
        (images, SHAPES.classes), np.float32
    )


def gradients(model: ModelProto, features: np.ndarray, cotangent: np.ndarray) -> np.ndarray:
    (found,) = graphs.run(model, {"features": features, "cotangent": cotangent})
    assert found.shape == features.shape
    return found


def pooled(x: torch.Tensor, weights: dict[str, torch.Tensor]) -> torch.Tensor:
    return x.mean((2, 3)) @ weights["fc"] + weights["b"]


END = "p = GlobalAveragePool (y)  v = Flatten (p)  scores = Gemm (v, fc, b)"


# --- what flows where -----------------------------------------------------------------------------------------------------
def test_a_tensor_read_by_several_nodes_gets_the_sum():
    tail = Tail(f"a = Relu (f)  b1 = Sigmoid (f)  c = Mul (a, b1)  d = Sub (c, f)  y = Add (d, a)  {END}", WEIGHTS)
    tail.agrees_with(lambda x, w: pooled(F.relu(x) * x.sigmoid() - x + F.relu(x), w))
    assert operators(tail.derived()).count("Sum") == 2  # f has three readers, a two


def test_a_tensor_read_twice_by_one_node_gets_both():
    Tail(f"y = Mul (f, f)  {END}", WEIGHTS).agrees_with(lambda x, w: pooled(x * x, w))


def test_a_skip_past_a_convolution():
    tail = Tail(f"r = Relu (f)  c = Conv <pads = [1, 1, 1, 1]> (r, w)  y = Add (c, r)  {END}", WEIGHTS | {"w": (6, 6, 3, 3)})
    tail.agrees_with(lambda x, w: pooled(F.conv2d(F.relu(x), w["w"], padding=1) + F.relu(x), w))


def test_squeeze_and_excitation():
    gate = "s = GlobalAveragePool (f)  a = Conv (s, down)  r = Relu (a)  c = Conv (r, up)  g = Sigmoid (c)"
    tail = Tail(f"{gate}  y = Mul (f, g)  {END}", WEIGHTS | {"down": (2, 6, 1, 1), "up": (6, 2, 1, 1)})

    def squeeze_and_excitation(x, w):
        narrow = F.relu(F.conv2d(x.mean((2, 3), keepdim=True), w["down"]))
        return pooled(x * F.conv2d(narrow, w["up"]).sigmoid(), w)

    tail.agrees_with(squeeze_and_excitation)


ATTENTION = """
    flat = Reshape (f, tokens)  t = Transpose <perm = [0, 2, 1]> (flat)
    n = LayerNormalization (t, scale)
    all = MatMul (n, qkv)  parts = Reshape (all, heads)  one = Transpose <perm = [2, 0, 3, 1, 4]> (parts)
    q1, k1, v1 = Split <axis = 0> (one)
    q = Squeeze (q1, first)  k = Squeeze (k1, first)  u = Squeeze (v1, first)
    kt = Transpose <perm = [0, 1, 3, 2]> (k)  products = MatMul (q, kt)  scaled = Mul (products, half)
    a = Softmax <axis = -1> (scaled)  seen = MatMul (a, u)
    back = Transpose <perm = [0, 2, 1, 3]> (seen)  joined = Reshape (back, shape)
    y = Add (t, joined)  m = ReduceMean <axes = [1], keepdims = 0> (y)  scores = MatMul (m, fc)
    """


def test_attention():
    shapes = {"tokens": [0, 6, 64], "heads": [0, 64, 3, 2, 3], "shape": [0, 64, 6], "first": [0]}
    weights = {"scale": np.linspace(0.5, 2, 6, dtype=np.float32), "qkv": (6, 18), "fc": (6, 5), "half": np.float32(0.5)}
    tail = Tail(ATTENTION, weights | {name: np.array(shape) for name, shape in shapes.items()})

    def attention(x, w):
        t = x.flatten(2).transpose(1, 2)
        q, k, v = (F.layer_norm(t, (6,), w["scale"]) @ w["qkv"]).reshape(-1, 64, 3, 2, 3).permute(2, 0, 3, 1, 4)
        seen = (q @ k.transpose(2, 3) / 2).softmax(-1) @ v
        return (t + seen.transpose(1, 2).reshape(-1, 64, 6)).mean(1) @ w["fc"]

    tail.agrees_with(attention)


def test_a_part_in_float16():
    half = "h = Cast <to = 10> (f)  c = Conv (h, w)  r = Relu (c)  s = Cast <to = 1> (r)"
    weights = WEIGHTS | {"w": np.random.default_rng(0).standard_normal((6, 6, 1, 1)).astype(np.float16)}
    tail = Tail(f"{half}  {END.replace('(y)', '(s)')}", weights)
    tail.agrees_with(lambda x, w: pooled(F.relu(F.conv2d(x, w["w"].float())), w), tolerance=1e-2)


def test_a_dropout_mask_is_no_way_for_a_gradient():
    tail = Tail(f"d, mask = Dropout (f)  y = Where (mask, d, zero)  {END}", WEIGHTS | {"zero": np.float32(0)})
    tail.agrees_with(pooled)


def test_what_the_features_only_choose_gets_no_gradient():
    choice = "i = ArgMax <axis = 1> (f)  h = Cast <to = 1> (i)  s = Sign (f)  c = Round (h)  t = Add (s, c)"
    Tail(f"{choice}  y = Mul (f, t)  {END}", WEIGHTS).agrees_with(lambda x, w: pooled(x * (x.sign() + x.argmax(1, True)), w))


def test_a_saturated_logit_has_the_gradient_that_it_had_before_it_was_rounded_and_clipped():
    quantised = {"s": np.float32(1e-3), "z": np.int8(0)}  # logits of size 1 lie far beyond 0.127
    rounded = f"{PLAIN.replace('scores', 'l')}  q = QuantizeLinear (l, s, z)  scores = DequantizeLinear (q, s, z)"
    Tail(rounded, WEIGHTS | quantised).agrees_with(lambda x, w: pooled(F.relu(x), w))


def test_a_value_clipped_inside_the_tail_has_none():
    quantised = {"s": np.float32(1e-3), "z": np.uint8(0)}  # from 0 to 0.255: a ReLU and a bound
    clipped = f"q = QuantizeLinear (f, s, z)  y = DequantizeLinear (q, s, z)  {END}"
    Tail(clipped, WEIGHTS | quantised).agrees_with(
        lambda x, w: pooled(torch.fake_quantize_per_tensor_affine(x, 1e-3, 0, 0, 255), w)
    )


def test_a_node_without_a_rule_does_not_matter_where_no_gradient_arrives():
    tail = Tail(f"c = CumSum (f, one)  s = Sign (c)  y = Mul (f, s)  {END}", WEIGHTS | {"one": np.array(1)})
    tail.agrees_with(lambda x, w: pooled(x * x.cumsum(1).sign(), w))


# --- what the graph is ----------------------------------------------------------------------------------------------------
@pytest.fixture(scope="module")
def linear() -> ModelProto:
    """The gradient graph of a tail in which every kind of rule takes part."""
    body = """
        n = BatchNormalization (f, one, one, one, one)  r = Relu (n)  m = MaxPool <kernel_shape = [3, 3], strides = [2, 2]> (r)
        c = Conv <strides = [2, 2], pads = [1, 1, 1, 1]> (m, w)  s = Sigmoid (c)  y = AveragePool <kernel_shape = [2, 2]> (s)
        """
    return Tail(f"{body} {END}", WEIGHTS | {"w": (6, 6, 3, 3), "one": np.ones(6, np.float32)}).derived()


@given(st.integers(0, 2**32 - 1), st.floats(-100, 100, width=32))
@settings(max_examples=20, deadline=None)
def test_gradients_are_linear_in_the_cotangent(linear, seed, factor):
    features, one = batch(2)
    other = np.random.default_rng(seed).standard_normal(one.shape, np.float32)
    first, second = (gradients(linear, features, u) for u in (one, other))
    np.testing.assert_array_equal(gradients(linear, features, -one), -first)
    both = gradients(linear, features, one + np.float32(factor) * other)
    np.testing.assert_allclose(both, first + factor * second, rtol=1e-4, atol=1e-5 * max(1, abs(factor)))


@given(st.integers(1, 5))
@settings(max_examples=5, deadline=None)
def test_a_batch_is_its_images_one_by_one(linear, images):
    features, cotangent = batch(images)
    together = gradients(linear, features, cotangent)
    apart = [gradients(linear, features[i : i + 1], cotangent[i : i + 1]) for i in range(images)]
    np.testing.assert_allclose(together, np.concatenate(apart), rtol=1e-5, atol=1e-6)


def test_the_interface_is_what_the_design_says(linear):
    shapes = {
        v.name: [d.dim_param or d.dim_value for d in v.type.tensor_type.shape.dim]
        for v in (*linear.graph.input, *linear.graph.output)
    }
    assert shapes == {"features": ["N", 6, 8, 8], "cotangent": ["N", 5], "gradients": ["N", 6, 8, 8]}


def test_forward_nodes_that_no_rule_asks_for_are_left_out():
    found = Tail(PLAIN.replace("scores", "z") + "  scores = Add (z, b)", WEIGHTS).derived()
    names = [node.name for node in found.graph.node]
    assert not {"stem", "fc"}.intersection(names)
    assert {t.name for t in found.graph.initializer} >= {"fc"}
    assert "b" not in {t.name for t in found.graph.initializer}


def test_a_constant_occurs_once(linear):
    values = [(t.data_type, tuple(t.dims), t.raw_data) for t in linear.graph.initializer if t.name.startswith("camrt/")]
    assert len(values) == len(set(values)) > 5


@pytest.mark.parametrize("version", OPSETS)
def test_a_tail_of_any_opset_has_a_gradient_that_runs(version):
    mean = "ReduceMean <axes = [2, 3]> (r)" if version < 18 else "ReduceMean (r, axes)"
    body = f"""
        r = Relu (f)  s = Softmax <axis = 1> (r)  p = {mean}  q = Mul (s, p)
        t = Slice (q, low, high, axis)  v = Flatten (t)  scores = Gemm (v, fc, b)
        """
    weights = {"fc": (3 * 64, 5), "b": (5,), "low": np.array([0]), "high": np.array([3]), "axis": np.array([1])}
    tail = Tail(body, weights | {"axes": np.array([2, 3])}, version)

    def function(x, w):
        r = x.relu()
        return (r.softmax(1) * r.mean((2, 3), keepdim=True))[:, :3].flatten(1) @ w["fc"] + w["b"]

    tail.agrees_with(function)
    found = tail.derived()
    onnx.checker.check_model(found, full_check=True)
    assert opset(found) == max(version, 16)  # the first in which ScatterElements adds
    assert found.ir_version <= 13  # what ONNX Runtime 1.31 loads


# --- what is refused ------------------------------------------------------------------------------------------------------
BRANCH = """
    [branch] y = If (yes) <
        then_branch = a () => (float[N, 6, 8, 8] p) { p = Relu (f) },
        else_branch = b () => (float[N, 6, 8, 8] q) { q = Neg (f) }
    >
    """
LOOP = """
    [loop] y = Loop (two, , f) <
        body = a (int64 i, bool c, float[N, 6, 8, 8] p) => (bool d, float[N, 6, 8, 8] q) { d = Identity (c) q = Relu (p) }
    >
    """
ASKED = "m = ReduceMax <keepdims = 0> (f)  yes = Cast <to = 9> (m)"
CONSTANTS = {"one": np.array(1), "two": np.array(2), "yes": np.array(True), "l": np.ones(8, np.float32)}


def constants_of(body: str) -> dict[str, np.ndarray]:
    """Return the constants that a body does not compute itself."""
    return {name: value for name, value in CONSTANTS.items() if f"{name} = " not in body}


REFUSED = {  # by name: body, message
    "CumSum": (f"[sum] y = CumSum (f, one)  {END}", "no gradient rule for CumSum 'sum'"),
    "Det": ("[det] d = Det (f)  scores = Gemm (d, fc, b)", "no gradient rule for Det 'det'"),
    "If": (f"{BRANCH} {END}", "no gradient rule for If 'branch'"),
    "If of the image": (f"{ASKED} {BRANCH} {END}", "no gradient rule for If 'branch'"),
    "Loop": (f"{LOOP} {END}", "no gradient rule for Loop 'loop'"),
    "ArgMax alone": (
        "p = GlobalAveragePool (f)  [best] i = ArgMax <axis = 1, keepdims = 0> (p)  h = Cast <to = 1> (i)"
        "  v = Flatten (h)  scores = Gemm (v, row, b)",
        "no gradient reaches the features: ArgMax 'best' lets none through",
    ),
    "Sign alone": (
        f"[sign] y = Sign (f)  {END}",
        "no gradient reaches the features: Sign 'sign' lets none through",
    ),
    "Sign at the end": (
        f"{PLAIN.replace('scores', 'l')}  [sign] scores = Sign (l)",
        "no gradient reaches the features: Sign 'sign' lets none through",
    ),
    "a second output": (
        f"[norm] n, m = LayerNormalization (f, l)  y = Mul (n, m)  {END}",
        "LayerNormalization 'norm': a gradient through its second output",
    ),
    "weights that depend on the features": (
        "s = ReduceMean <axes = [0]> (f)  [own] y = Conv (s, s)  v = Flatten (y)  scores = Gemm (v, row, b)",
        "Conv 'own': no gradient rule for its input 's', which depends on the features",
    ),
}


@pytest.mark.parametrize(("body", "message"), REFUSED.values(), ids=REFUSED)
def test_a_tail_without_a_gradient_is_refused_by_name(body, message):
    with pytest.raises(NoGradient) as caught:
        Tail(body, WEIGHTS | constants_of(body) | {"row": (1, 5)}).derived()
    assert str(caught.value) == message


def test_an_operator_of_another_domain_is_refused_by_name():
    built = Tail(f"{PLAIN.replace('scores', 'z')}  [own] scores = com.microsoft.Inverse (z)", WEIGHTS).model
    rename_interface(built, "x", "f", "scores")
    with pytest.raises(NoGradient, match="no gradient rule for Inverse 'own'"):
        gradient(Graph(built), SHAPES)


@pytest.mark.parametrize("name", ["CumSum", "Det", "If of the image", "Loop", "Sign alone"])
def test_a_bundle_without_a_gradient_says_why(name, tmp_path):
    body, message = REFUSED[name]
    source = graphs.save(Tail(body, WEIGHTS | constants_of(body)).model, tmp_path / "model.onnx")
    manifest = export(source, tmp_path / "bundle", layer="stem", overrides={"scale": 1 / 255})
    assert manifest.gradient_missing == message
    assert json.loads((tmp_path / "bundle" / "bundle.json").read_text())["gradient"]["missing"] == message
    assert not (tmp_path / "bundle" / "gradient.onnx").exists()


def test_a_bundle_with_a_gradient_holds_its_graph_and_no_weight_twice(tmp_path):
    tail = Tail(PLAIN, WEIGHTS)
    source = graphs.save(tail.model, tmp_path / "model.onnx")
    manifest = export(source, tmp_path / "bundle", layer="stem", overrides={"scale": 1 / 255})
    assert manifest.gradient_missing is None
    features, cotangent = batch(3)
    path = tmp_path / "bundle" / "gradient.onnx"
    np.testing.assert_array_equal(gradients(path, features, cotangent), gradients(tail.derived(), features, cotangent))
    stored = {t.name: t for t in onnx.load(path, load_external_data=False).graph.initializer}
    assert stored["fc"].data_location == onnx.TensorProto.EXTERNAL
