"""Models that onnxruntime.quantization wrote, cut between whole numbers: exact, with gradients, and alone where they must be."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import ModelProto, ValueInfoProto, numpy_helper
from onnxruntime.quantization import QuantFormat, QuantType, quantize_dynamic, quantize_static

import camrt
from camrt.bundle import Bundle, open_bundle
from camrt.errors import ExportError
from camrt.manifest import MANIFEST
from exporters import compile_bundle, export
from tests import graphs
from tests.exporters.helpers import images, operators, split
from tests.exporters.variants import Calibration

QDQ, QOPERATOR = QuantFormat.QDQ, QuantFormat.QOperator
U8, I8, U16, I16 = QuantType.QUInt8, QuantType.QInt8, QuantType.QUInt16, QuantType.QInt16
SCALED = {"overrides": {"scale": 1 / 255}}


# --- networks -------------------------------------------------------------------------------------------------------------
def mixed(opset: int = 17) -> ModelProto:
    """Return a network of every operator that the quantiser has a form of its own for, with side branches."""
    return graphs.parse(
        """
        c = Conv <strides = [2, 2], pads = [1, 1, 1, 1]> (x, w)  r = LeakyRelu <alpha = 0.1> (c)
        a = Conv <pads = [1, 1, 1, 1]> (r, wide)  ar = Relu (a)  b = Conv (r, narrow)  br = Clip (b, low, high)
        k = Concat <axis = 1> (ar, br)
        g = GlobalAveragePool (k)  e = Conv (g, gate)  s = Sigmoid (e)  m = Mul (k, s)
        q = AveragePool <kernel_shape = [2, 2], strides = [2, 2]> (m)  f = Flatten (q)
        h = MatMul (f, fc)  hr = Relu (h)  z = Gemm <transB = 1> (hr, fd, bias)  scores = Softmax <axis = 1> (z)
        """,
        image="N,3,32,32", opset=opset, w=(6, 3, 3, 3), wide=(4, 6, 3, 3), narrow=(4, 6, 1, 1), gate=(8, 8, 1, 1),
        low=np.float32(0), high=np.float32(6), fc=(512, 16), fd=(5, 16), bias=np.linspace(-0.1, 0.1, 5, dtype=np.float32),
    )  # fmt: skip


NETWORKS: dict[str, Callable[[], ModelProto]] = {
    "plain": graphs.classifier,
    "residual": graphs.residual,
    "mixed": mixed,
    "mixed, opset 21": lambda: mixed(opset=21),
}


@dataclass(frozen=True)
class Quantised:
    """A quantised file, its bundle, and what the file's tensor at the cut holds in real numbers."""

    source: ModelProto
    bundle: Bundle

    def at_the_cut(self, x: np.ndarray) -> np.ndarray:
        """Return the source's tensor at the cut, dequantised, image by image."""
        name = self.bundle.manifest.layer.name
        model = ModelProto()
        model.CopyFrom(self.source)
        model.graph.output.append(ValueInfoProto(name=name))
        session = graphs.session(model)
        image = session.get_inputs()[0].name
        found = np.concatenate([session.run([name], {image: one[None]})[0] for one in x])
        if np.issubdtype(found.dtype, np.floating):
            return found
        scale, zero = self._scale_and_zero(name)
        return (found.astype(np.int32) - zero).astype(np.float32) * scale

    def scores(self, x: np.ndarray) -> np.ndarray:
        session = graphs.session(self.source)
        image = session.get_inputs()[0].name
        return np.concatenate([session.run(None, {image: one[None]})[0].reshape(1, -1) for one in x])

    def _scale_and_zero(self, name: str) -> tuple[np.ndarray, np.ndarray]:
        """Return what a tensor of the operators' form is rounded by; the quantiser's names tell."""
        weights = {t.name: numpy_helper.to_array(t) for t in self.source.graph.initializer}
        stem = name.removesuffix("_quantized")
        return weights[f"{stem}_scale"], weights[f"{stem}_zero_point"].astype(np.int32)


def probability(bundle: Bundle, x: np.ndarray) -> np.ndarray:
    """Return what the source gives, by the bundle: its logits, with the activation that was cut off."""
    logits = split(bundle, x)
    if bundle.manifest.activation is None:
        return logits
    assert bundle.manifest.activation == "Softmax"
    e = np.exp(logits - logits.max(axis=1, keepdims=True))
    return e / e.sum(axis=1, keepdims=True)


@pytest.fixture(scope="module")
def quantised(tmp_path_factory) -> Callable[..., Quantised]:
    """Return a network of `NETWORKS`, quantised and exported; each is made once."""

    @cache
    def make(name: str, form: QuantFormat, per_channel: bool, activations: QuantType, weights: QuantType) -> Quantised:
        folder = tmp_path_factory.mktemp("quantised")
        quantize_static(
            NETWORKS[name](), folder / "model.onnx", Calibration("x", (3, 32, 32)), quant_format=form,
            per_channel=per_channel, activation_type=activations, weight_type=weights,
        )  # fmt: skip
        export(folder / "model.onnx", folder / "bundle", **SCALED)
        return Quantised(onnx.load(folder / "model.onnx"), open_bundle(folder / "bundle"))

    return make


def cases() -> Iterator[Any]:
    """Yield every way of quantising; the residual network in the slow run alone."""
    for name in ("mixed", "residual"):
        for form in (QDQ, QOPERATOR):
            for per_channel in (False, True):
                for activations, weights in ((U8, I8), (I8, I8), (U8, U8)):
                    case = (name, form, per_channel, activations, weights)
                    usual = name == "mixed" or (not per_channel and (activations, weights) == (U8, I8))
                    yield pytest.param(*case, marks=() if usual else pytest.mark.slow, id=_id(case))
    for case in (
        ("mixed", QDQ, False, U16, I8), ("mixed", QDQ, True, I16, I16),
        ("mixed, opset 21", QDQ, False, I16, I8), ("mixed, opset 21", QDQ, True, U16, I16),
    ):  # fmt: skip
        yield pytest.param(*case, id=_id(case))


def _id(case: tuple[Any, ...]) -> str:
    name, form, per_channel, activations, weights = case
    return f"{name}-{form}-{'channel' if per_channel else 'tensor'}-{activations}-{weights}"


every_way = pytest.mark.parametrize(("name", "form", "per_channel", "activations", "weights"), [*cases()])


# --- static ---------------------------------------------------------------------------------------------------------------
@every_way
def test_the_features_are_the_sources_numbers_and_the_scores_within_one_step(
    quantised, name, form, per_channel, activations, weights
):
    made = quantised(name, form, per_channel, activations, weights)
    manifest, x = made.bundle.manifest, images(made.bundle)
    assert manifest.features.shape[1:] == ((8, 16, 16) if name.startswith("mixed") else (6, 8, 8))
    (features,) = graphs.run(made.bundle.path("head"), {"image": x})
    np.testing.assert_allclose(features, made.at_the_cut(x), rtol=1e-6)
    assert manifest.split.bound.startswith("one output step of the quantised model")
    assert manifest.split.error <= 1.001 * manifest.split.tolerance
    found, expected = probability(made.bundle, x), made.scores(x)
    assert np.abs(found - expected).max() <= 1.001 * manifest.split.tolerance
    assert manifest.gradient_missing is None


@every_way
def test_weights_stay_as_small_as_they_were(quantised, name, form, per_channel, activations, weights):
    made = quantised(name, form, per_channel, activations, weights)
    stored = sum(weight.length for weight in made.bundle.manifest.weights)
    assert stored <= 1.1 * sum(numpy_helper.to_array(t).nbytes for t in made.source.graph.initializer)


@pytest.mark.parametrize("per_channel", [False, True], ids=["tensor", "channel"])
@pytest.mark.parametrize("name", ["plain", "residual", "mixed"])
def test_both_forms_have_the_same_gradient_and_it_is_near_the_floats(quantised, name, per_channel, cut):
    forms = [quantised(name, form, per_channel, U8, I8).bundle for form in (QDQ, QOPERATOR)]
    layer = {"plain": "features", "residual": "t", "mixed": "m"}[name]
    plain = cut(NETWORKS[name](), layer=layer)
    (features,) = graphs.run(forms[0].path("head"), {"image": images(plain)})
    cotangent = np.random.default_rng(5).standard_normal((len(features), plain.manifest.classes), np.float32)
    feeds = {"features": features, "cotangent": cotangent}
    first, second, real = (graphs.run(bundle.path("gradient"), feeds)[0] for bundle in (*forms, plain))
    close = 0.1 if name == "mixed" else 1e-4  # a ReLU behind a number that either form may round to one step or to none
    np.testing.assert_allclose(first, second, rtol=0, atol=close * np.abs(first).max())
    assert (first * real).sum() > 0.97 * np.linalg.norm(first) * np.linalg.norm(real)  # the same direction


def test_the_operators_form_keeps_its_operators(quantised):
    bundle = quantised("mixed", QOPERATOR, False, U8, I8).bundle
    head, tail = (operators(onnx.load(bundle.path(part), load_external_data=False)) for part in ("head", "tail"))
    assert {"QLinearConv", "QLinearConcat", "QLinearMul"} <= {*head}
    assert {"QGemm", "QLinearMatMul"} <= {*tail}
    gradient = {*operators(onnx.load(bundle.path("gradient"), load_external_data=False))}
    assert not {name for name in gradient if name.startswith(("QLinear", "QGemm"))}


@pytest.mark.parametrize(("end", "kind"), [("Softmax", "logits"), ("Sigmoid", "sigmoid")])
def test_an_activation_between_whole_numbers_is_cut_off_as_any_other(end, kind, tmp_path):
    built = graphs.classifier(end=end)
    source = tmp_path / "model.onnx"
    quantize_static(built, source, Calibration("x", (3, 32, 32)), quant_format=QOPERATOR)
    assert f"QLinear{end}" in operators(onnx.load(source))
    manifest = export(source, tmp_path / "bundle", **SCALED)
    assert (manifest.activation, manifest.kind) == (end, kind)
    assert manifest.split.tolerance > 1 / 256  # the step of the logits, not that of the probabilities


def test_a_tensor_of_whole_numbers_is_cut_by_name(quantised, tmp_path):
    made = quantised("mixed", QOPERATOR, False, U8, I8)
    source = graphs.save(made.source, tmp_path / "model.onnx")
    for layer, shape in (("c_quantized", (6, 16, 16)), ("k_quantized", (8, 16, 16))):
        export(source, tmp_path / layer, layer=layer, **SCALED)
        found = Quantised(made.source, open_bundle(tmp_path / layer))
        assert found.bundle.manifest.features.shape[1:] == shape
        x = images(found.bundle)
        (features,) = graphs.run(found.bundle.path("head"), {"image": x})
        np.testing.assert_allclose(features, found.at_the_cut(x), rtol=1e-6)


@pytest.mark.parametrize("form", [QDQ, QOPERATOR], ids=str)
def test_quantised_models_are_explained(quantised, form, pixels):
    explainer = camrt.load(quantised("residual", form, False, U8, I8).bundle.folder, providers=["cpu"])
    for method in ("cluster-cam", "hires-cam", "grad-cam", "eigen-cam"):
        explanation = explainer.explain(pixels, top=4, method=method)
        assert explanation.heatmap.shape == (4, 40, 60)
        assert explanation.heatmap.any()


# --- dynamic --------------------------------------------------------------------------------------------------------------
@pytest.fixture(scope="module")
def dynamic(tmp_path_factory) -> Quantised:
    """The plain network with scales that are taken from what comes in."""
    folder = tmp_path_factory.mktemp("dynamic")
    quantize_dynamic(graphs.classifier(), folder / "model.onnx", op_types_to_quantize=["Conv", "MatMul", "Gemm"])
    export(folder / "model.onnx", folder / "bundle", **SCALED)
    return Quantised(onnx.load(folder / "model.onnx"), open_bundle(folder / "bundle"))


def test_one_by_one_is_recorded_with_its_reason(dynamic):
    written = json.loads((dynamic.bundle.folder / MANIFEST).read_text())["one_by_one"]
    assert written == dynamic.bundle.manifest.one_by_one
    assert written.startswith("DynamicQuantizeLinear '")
    assert written.endswith("' takes its scale from the whole batch")


def test_a_static_model_has_nothing_to_record(quantised):
    assert quantised("residual", QDQ, False, U8, I8).bundle.manifest.one_by_one is None


def test_a_dynamic_model_is_cut_exactly(dynamic):
    x = images(dynamic.bundle)
    alone = np.concatenate([split(dynamic.bundle, one[None]) for one in x])
    np.testing.assert_allclose(alone, dynamic.scores(x), rtol=1e-4, atol=1e-4)
    assert dynamic.bundle.manifest.features.shape[1:] == (12, 8, 8)
    assert dynamic.bundle.manifest.split.tolerance == 1e-2


def test_images_in_one_batch_would_change_each_other(dynamic):
    x = images(dynamic.bundle) * np.array([0.1, 1, 5], np.float32)[:, None, None, None]
    alone = np.concatenate([split(dynamic.bundle, one[None]) for one in x])
    assert np.abs(split(dynamic.bundle, x) - alone).max() > 1e-2


def test_the_engine_runs_one_image_at_a_time(dynamic):
    explainer = camrt.load(dynamic.bundle.folder, providers=["cpu"])
    assert explainer.engine.max_masked_batch == 1
    assert camrt.load(dynamic.bundle.folder, providers=["cpu"], max_masked_batch=16).engine.max_masked_batch == 1


@pytest.mark.parametrize("method", ["cluster-cam", "eigen-cam", "ablation-cam", "recipro-cam", "score-cam"])
def test_a_list_is_explained_as_its_images_alone(dynamic, method):
    explainer = camrt.load(dynamic.bundle.folder, providers=["cpu"])
    rng = np.random.default_rng(0)
    photos = [rng.integers(0, top, (32, 32, 3), np.uint8) for top in (20, 120, 256)]
    together = explainer.explain(photos, top=2, method=method)
    for photo, explanation in zip(photos, together, strict=True):
        alone = explainer.explain(photo, top=2, method=method)
        assert explanation.targets == alone.targets
        np.testing.assert_array_equal(explanation.maps, alone.maps)


def test_a_dynamic_model_says_which_operator_has_no_gradient(dynamic):
    assert dynamic.bundle.manifest.gradient_missing.startswith("no gradient rule for MatMulInteger '")


def test_a_dynamic_model_is_compiled_for_one_image_at_a_time(dynamic, tmp_path):
    file = compile_bundle(dynamic.bundle.folder, tmp_path / "explain.onnx", clusters=3).path
    image = onnx.load(file).graph.input[0]
    assert (image.name, image.type.tensor_type.shape.dim[0].dim_value) == ("image", 1)


def test_a_bundle_from_before_the_key_opens_as_one_of_any_batch(tiny_bundle, tmp_path):
    folder = Path(shutil.copytree(tiny_bundle, tmp_path / "bundle"))
    values = json.loads((folder / MANIFEST).read_text())
    assert values.pop("one_by_one") is None
    (folder / MANIFEST).write_text(json.dumps(values))
    assert open_bundle(folder).manifest.one_by_one is None
    assert camrt.load(folder, providers=["cpu"]).engine.max_masked_batch > 1


# --- what has no real numbers ---------------------------------------------------------------------------------------------
def test_whole_numbers_without_a_scale_are_refused_by_name(tmp_path):
    built = graphs.parse(
        """
        q, s, zp = DynamicQuantizeLinear (x)  c = ConvInteger (q, w, zp)  p = Abs (c)  m = MaxPool <kernel_shape = [14, 14]> (p)
        f = Flatten (m)  scores = Cast <to = 1> (f)
        """,
        w=np.ones((5, 3, 3, 3), np.uint8),
    )  # fmt: skip
    del built.graph.output[:]
    built.graph.output.append(onnx.helper.make_tensor_value_info("scores", onnx.TensorProto.FLOAT, ["N", 5]))
    with pytest.raises(ExportError, match=r"The feature maps are .*INT.*; a cut needs real numbers"):
        export(graphs.save(built, tmp_path / "model.onnx"), tmp_path / "bundle", **SCALED)


# --- real models ----------------------------------------------------------------------------------------------------------
@pytest.mark.real
@pytest.mark.parametrize("form", [QDQ, QOPERATOR], ids=str)
@pytest.mark.parametrize("name", ["mobilenet_v2_tv", "squeezenet11_gluon"])
def test_real_models_are_quantised_and_cut_exactly(name, form, real, tmp_path):
    source = real / "models" / f"{name}.onnx"
    image = onnx.load(source).graph.input[0].name
    quantize_static(source, tmp_path / "model.onnx", Calibration(image, (3, 224, 224)), quant_format=form)
    export(tmp_path / "model.onnx", tmp_path / "bundle", preprocess=source.with_suffix(".json"))
    made = Quantised(onnx.load(tmp_path / "model.onnx"), open_bundle(tmp_path / "bundle"))
    x = images(made.bundle, 1)
    (features,) = graphs.run(made.bundle.path("head"), {"image": x})
    np.testing.assert_allclose(features, made.at_the_cut(x), rtol=1e-6)
    assert made.bundle.manifest.split.error <= 1.001 * made.bundle.manifest.split.tolerance
    assert made.bundle.manifest.gradient_missing is None
