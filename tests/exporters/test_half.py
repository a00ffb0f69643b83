"""Networks that compute in float16, wholly, inside, or behind a border of float32: cut where they stand, exact, with gradients."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import onnx
import pytest
from onnx import ModelProto, TensorProto

import camrt
from camrt.bundle import Bundle
from camrt.errors import ExportError
from exporters import export
from tests import graphs
from tests.exporters.helpers import images, operators, source_scores, split
from tests.exporters.variants import bordered, converted

HALF, FLOAT, DOUBLE, BRAIN = TensorProto.FLOAT16, TensorProto.FLOAT, TensorProto.DOUBLE, TensorProto.BFLOAT16


# --- networks -------------------------------------------------------------------------------------------------------------
def inverted_residual() -> ModelProto:
    """Return a MobileNet in small: depthwise convolution, a skip, squeeze and excitation."""
    return graphs.parse(
        """
        c = Conv <strides = [2, 2], pads = [1, 1, 1, 1]> (x, w)  r = Relu (c)
        d = Conv <group = 8, pads = [1, 1, 1, 1]> (r, depth)  e = HardSwish (d)  f = Conv (e, point)  s = Add (r, f)
        m = GlobalAveragePool (s)  k = Conv (m, squeeze)  h = HardSigmoid (k)  gated = Mul (s, h)
        p = ReduceMean <axes = [2, 3], keepdims = 0> (gated)  z = Gemm <transB = 1> (p, fc)  scores = Softmax <axis = 1> (z)
        """,
        image="N,3,32,32", w=(8, 3, 3, 3), depth=(8, 1, 3, 3), point=(8, 8, 1, 1), squeeze=(8, 8, 1, 1), fc=(5, 8),
    )  # fmt: skip


def normalised() -> ModelProto:
    """Return a DenseNet in small, with normalisation that was not folded."""
    return graphs.parse(
        """
        c = Conv <strides = [2, 2], pads = [1, 1, 1, 1]> (x, w)  n = BatchNormalization (c, g4, b4, b4, g4)  r = Relu (n)
        d = Conv <pads = [1, 1, 1, 1]> (r, v)  k = Concat <axis = 1> (c, d)  m = BatchNormalization (k, g8, b8, b8, g8)
        last = Relu (m)  p = AveragePool <kernel_shape = [16, 16]> (last)  f = Flatten (p)  scores = MatMul (f, fc)
        """,
        image="N,3,32,32", w=(4, 3, 3, 3), v=(4, 4, 3, 3), fc=(8, 5),
        **{f"g{n}": np.linspace(0.5, 1.5, n, dtype=np.float32) for n in (4, 8)},
        **{f"b{n}": np.linspace(-0.2, 0.2, n, dtype=np.float32) for n in (4, 8)},
    )  # fmt: skip


NETWORKS: dict[str, tuple[Callable[[], ModelProto], str]] = {
    "plain": (graphs.classifier, "features"),
    "residual": (graphs.residual, "t"),
    "inverted residual": (inverted_residual, "gated"),
    "normalised": (normalised, "last"),
}


def whole(built: ModelProto) -> ModelProto:
    return converted(built, HALF)


def with_border(built: ModelProto) -> ModelProto:
    return bordered(converted(built, HALF), HALF)


FORMS = {"whole": whole, "float32 at the border": with_border}
every_network = pytest.mark.parametrize("name", NETWORKS)
every_form = pytest.mark.parametrize("form", FORMS)


def gradient_of(bundle: Bundle, features: np.ndarray) -> np.ndarray:
    cotangent = np.random.default_rng(2).standard_normal((len(features), bundle.manifest.classes), np.float32)
    return graphs.run(bundle.path("gradient"), {"features": features, "cotangent": cotangent})[0]


def head(bundle: Bundle, x: np.ndarray) -> np.ndarray:
    return graphs.run(bundle.path("head"), {"image": x})[0]


# --- float16 --------------------------------------------------------------------------------------------------------------
@every_network
@every_form
def test_the_cut_lies_in_float16_and_gives_float32(name, form, cut):
    network, layer = NETWORKS[name]
    built = FORMS[form](network())
    bundle = cut(built)
    assert bundle.manifest.layer.name == layer
    last = onnx.load(bundle.path("head"), load_external_data=False).graph.node[-1]
    assert (last.op_type, last.input[0].removesuffix("/camrt"), last.attribute[0].i) == ("Cast", layer, FLOAT)
    x = images(bundle).astype(np.float16)
    expected = source_scores(built, x if form == "whole" else x.astype(np.float32), layer)
    features = head(bundle, x.astype(np.float32))
    assert (expected.dtype, features.dtype) == (np.float16, np.float32)
    np.testing.assert_allclose(features.reshape(len(x), -1), expected, rtol=2e-3, atol=2e-3)


@every_network
@every_form
def test_the_split_reproduces_the_source_within_float16(name, form, cut):
    built = FORMS[form](NETWORKS[name][0]())
    bundle = cut(built)
    assert bundle.manifest.split.tolerance == 2e-3
    assert bundle.manifest.split.error <= 2e-3 * max(1, bundle.manifest.split.largest_logit)
    x = images(bundle).astype(np.float16).astype(np.float32)
    source = x.astype(np.float16) if form == "whole" else x
    expected = source_scores(built, source, "z" if name == "inverted residual" else None)
    np.testing.assert_allclose(split(bundle, x), expected, rtol=0, atol=2e-3 * max(1, np.abs(expected).max()))


@every_network
@every_form
def test_the_gradient_is_there_and_near_that_of_the_float32_network(name, form, cut):
    network, layer = NETWORKS[name]
    half = cut(FORMS[form](network()))
    assert half.manifest.gradient_missing is None
    features = head(half, images(half))
    found = gradient_of(half, features)
    expected = gradient_of(cut(network(), layer=layer, force=True), features)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, expected, rtol=0, atol=5e-3 * np.abs(expected).max())


@every_network
def test_both_forms_are_the_same_network(name, cut):
    first, second = (cut(form(NETWORKS[name][0]()), force=True) for form in FORMS.values())
    x = images(first)
    np.testing.assert_allclose(split(first, x), split(second, x), rtol=0, atol=2e-3)


@pytest.mark.parametrize("layer", ["c16", "r16", "auto"])
def test_float16_inside_alone_is_cut_in_float16(layer, cut):
    built = graphs.parse(
        """
        a = Conv <pads = [1, 1, 1, 1]> (x, w)  b = Relu (a)
        b16 = Cast <to = 10> (b)  c16 = Conv <strides = [2, 2]> (b16, v)  r16 = Relu (c16)  r = Cast <to = 1> (r16)
        p = GlobalAveragePool (r)  f = Flatten (p)  scores = MatMul (f, fc)
        """,
        w=(6, 3, 3, 3), v=np.random.default_rng(0).normal(0, 0.2, (8, 6, 3, 3)).astype(np.float16), fc=(8, 5),
    )  # fmt: skip
    bundle = cut(built, layer=layer)
    assert bundle.manifest.layer.name == ("r" if layer == "auto" else layer)
    x = images(bundle)
    np.testing.assert_allclose(split(bundle, x), source_scores(built, x), rtol=0, atol=2e-3)
    assert bundle.manifest.gradient_missing is None
    assert {weight.dtype for weight in bundle.manifest.weights} == {"float16", "float32"}


def test_float32_weights_of_float16_maps_stay_what_they_are(cut):
    # as converters leave a few operators in float32
    built = graphs.parse(
        """
        h = Cast <to = 10> (x)  c = Conv (h, w)  r = Relu (c)  p = GlobalAveragePool (r)  q = Cast <to = 1> (p)
        f = Flatten (q)  scores = MatMul (f, fc)
        """,
        w=np.random.default_rng(0).normal(0, 0.3, (6, 3, 3, 3)).astype(np.float16), fc=(6, 5),
    )  # fmt: skip
    bundle = cut(built)
    assert bundle.manifest.layer.name == "r"
    x = images(bundle)
    np.testing.assert_allclose(split(bundle, x), source_scores(built, x), rtol=0, atol=2e-3)


@every_form
def test_weights_in_float16_stay_so_and_are_half_as_large(form, cut):
    sizes = {}
    for name, built in (("half", FORMS[form](graphs.classifier())), ("float", graphs.classifier())):
        weights = cut(built, force=True).manifest.weights
        sizes[name] = sum(weight.length for weight in weights)
        assert {weight.dtype for weight in weights} == {"float16" if name == "half" else "float32"}
    assert sizes["half"] * 2 == sizes["float"]


@every_form
def test_photos_are_explained_as_by_the_float32_network(form, cut, pixels):
    found, expected = (
        camrt.load(cut(built, force=True).folder, providers=["cpu"]).explain(pixels, target=2, method="grad-cam")
        for built in (FORMS[form](graphs.classifier()), graphs.classifier())
    )
    assert found.targets[0].outcome == expected.targets[0].outcome
    np.testing.assert_allclose(found.heatmap, expected.heatmap, rtol=0, atol=0.02)


def test_the_graphs_take_and_give_float32_alone(cut):
    bundle = cut(whole(graphs.classifier()))
    for part in ("head", "tail", "score", "gradient"):
        model = onnx.load(bundle.path(part), load_external_data=False)
        found = {value.type.tensor_type.elem_type for value in (*model.graph.input, *model.graph.output)}
        assert found <= {FLOAT, TensorProto.BOOL}
        assert "Cast" in operators(model)


# --- what ONNX Runtime cannot compute -------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("element", "word"), [(BRAIN, "bfloat16"), (DOUBLE, "float64")], ids=["bfloat16", "float64"]
)  # fmt: skip
@pytest.mark.parametrize("border", [False, True], ids=["whole", "float32 at the border"])
def test_numbers_without_operators_are_refused_by_name(element, word, border, tmp_path):
    built = converted(graphs.classifier(), element)
    built = bordered(built, element) if border else built
    with pytest.raises(ExportError, match=rf"{word}.*[Ee]xport .* in float32 or float16"):
        export(graphs.save(built, tmp_path / "model.onnx"), tmp_path / "bundle", overrides={"scale": 1 / 255})
    assert not (tmp_path / "bundle").exists()


@pytest.mark.parametrize(("side", "first", "last"), [
    ("input", "x32 = Cast <to = 1> (x)  c = Conv (x32, w)", "scores = MatMul (f, fc)"),
    ("output", "c = Conv (x, w)", "z = MatMul (f, fc)  scores = Cast <to = 11> (z)"),
])  # fmt: skip
def test_an_image_or_scores_in_float64_are_taken(side, first, last, cut):
    body = f"{first}  r = Relu (c)  p = GlobalAveragePool (r)  f = Flatten (p)  {last}"
    built = graphs.parse(body, w=(6, 3, 3, 3), fc=(6, 5))
    getattr(built.graph, side)[0].type.tensor_type.elem_type = DOUBLE
    bundle = cut(built)
    x = images(bundle)
    expected = source_scores(built, x.astype(np.float64) if side == "input" else x)
    np.testing.assert_allclose(split(bundle, x), expected, rtol=1e-4, atol=1e-4)
