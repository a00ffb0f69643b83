"""exporters.proof: a split that does not reproduce the model is refused, and the figures are kept."""

from __future__ import annotations

import importlib
import json

import numpy as np
import pytest
from onnx import helper

from camrt.bundle import open_bundle
from camrt.errors import ExportError
from camrt.preprocess import Preprocess, imagenet, squash
from exporters import parts, proof
from tests import graphs
from tests.exporters.helpers import assert_reproduces, images, normal, source_scores, split

exporting = importlib.import_module("exporters.export")  # the package's own `export` is the function
KINDS = {"noise", "black", "white", "saturated"}


# --- the inputs -----------------------------------------------------------------------------------------------------------
def test_the_inputs_are_noise_and_the_extremes_as_the_network_sees_them():
    found = proof.test_images(imagenet((32, 48)), whole=False)
    assert found.keys() == KINDS
    assert all(x.shape[1:] == (3, 32, 48) and x.dtype == np.float32 for x in found.values())
    np.testing.assert_allclose(found["black"][0, :, 0, 0], [-0.485 / 0.229, -0.456 / 0.224, -0.406 / 0.225], rtol=1e-6)
    np.testing.assert_allclose(found["white"][0, :, 5, 7], [0.515 / 0.229, 0.544 / 0.224, 0.594 / 0.225], rtol=1e-6)
    assert np.unique(found["saturated"][:, 0]).tolist() == [found["black"][0, 0, 0, 0], found["white"][0, 0, 0, 0]]


@pytest.mark.parametrize(
    "preprocess", [squash((8, 8)), imagenet((8, 8)), Preprocess((8, 8), 8, scale=1.0, mean=(104.0, 117.0, 123.0))]
)
def test_noise_is_as_large_as_the_pixels(preprocess):
    found = proof.test_images(preprocess, whole=False)
    assert len(found["noise"]) > 1
    assert 0.1 < found["noise"].std() / (found["white"] - found["black"]).max() < 2


def test_the_inputs_are_the_same_every_time():
    first, second = (proof.test_images(squash((8, 8)), whole=False) for _ in range(2))
    assert all(np.array_equal(first[name], second[name]) for name in KINDS)


def test_one_channel_is_tested_with_one_channel():
    assert proof.test_images(squash((8, 8), 1), whole=False)["noise"].shape[1] == 1


@pytest.mark.parametrize("preprocess", [Preprocess((8, 8), 8, scale=1.0), Preprocess((8, 8), 8, scale=1.0, mean=(128.0,) * 3)])
def test_noise_for_whole_numbers_is_of_random_pixels(preprocess):
    noise = proof.test_images(preprocess, whole=True)["noise"] + np.array(preprocess.mean, np.float32)[:, None, None]
    np.testing.assert_array_equal(noise, np.rint(noise))
    assert (noise.min(), noise.max()) == (0, 255)


# --- the figures ----------------------------------------------------------------------------------------------------------
def test_the_figures_are_stored(tiny_bundle):
    stored = json.loads((tiny_bundle / "bundle.json").read_text())["split"]
    assert stored["tolerance"] == 1e-4
    assert stored["errors"].keys() == KINDS
    assert stored["skipped"] == []
    assert stored["largest_logit"] > 0.1
    assert all(0 <= error <= 1e-4 * max(1, stored["largest_logit"]) for error in stored["errors"].values())
    assert open_bundle(tiny_bundle).manifest.split.error == max(stored["errors"].values())


def test_the_largest_logit_is_that_of_the_source(tiny_bundle):
    images = proof.test_images(squash((32, 32)), whole=False).values()
    expected = max(np.abs(source_scores(graphs.classifier(), x)).max() for x in images)
    assert open_bundle(tiny_bundle).manifest.split.largest_logit == pytest.approx(expected, rel=1e-5)


def test_the_source_is_asked_one_image_at_a_time():
    built = graphs.classifier(image=(1, 3, 32, 32))
    x = np.random.default_rng(0).standard_normal((3, 3, 32, 32), np.float32)
    found = normal(built)
    np.testing.assert_array_equal(proof.onnx_reference(built, found, "scores")(x), source_scores(built, x))
    np.testing.assert_array_equal(proof.onnx_reference(built, found, "flat")(x), source_scores(built, x, "flat"))


# --- refusals -------------------------------------------------------------------------------------------------------------
def nothing_written(folder) -> bool:
    return [path.name for path in folder.iterdir()] == ["model.onnx"]


@pytest.mark.parametrize("shift", [0.01, float("nan")])
def test_a_split_that_does_not_reproduce_the_model_is_refused(shift, cut, monkeypatch, tmp_path):
    write = parts.write_weights

    def spoil_the_last(graph, image, used, path):
        table = write(graph, image, used, path)
        values = np.frombuffer(path.read_bytes(), np.float32).copy()
        values[-1] += shift
        path.write_bytes(values.tobytes())
        return table

    monkeypatch.setattr(parts, "write_weights", spoil_the_last)
    with pytest.raises(ExportError, match=r"does not reproduce the model: on 'noise' images tail\(head\(x\)\) differs by"):
        cut(graphs.classifier())
    assert nothing_written(tmp_path)


def test_a_score_graph_that_does_not_reproduce_the_model_is_refused(cut, monkeypatch, tmp_path):
    score = parts.score

    def with_another_gemm(graph, shapes):
        spoiled = score(graph, shapes)
        (gemm,) = [node for node in spoiled.nodes if node.op_type == "Gemm"]
        gemm.attribute.append(helper.make_attribute("alpha", 1.01))
        return spoiled

    monkeypatch.setattr(parts, "score", with_another_gemm)
    with pytest.raises(ExportError, match="on 'noise' images the score graph differs by"):
        cut(graphs.classifier())
    assert nothing_written(tmp_path)


def test_a_random_model_is_refused(cut, tmp_path):
    body = "c = Conv (x, w)  n = RandomNormalLike (c)  s = Add (c, n)  p = GlobalAveragePool (s)  scores = Flatten (p)"
    with pytest.raises(ExportError, match="RandomNormalLike 'n' is random, so that no cut can be proved"):
        cut(graphs.parse(body, w=(5, 3, 3, 3)))
    assert nothing_written(tmp_path)


def test_a_model_that_mixes_its_batch_is_refused(cut, tmp_path):
    body = "c = Conv (x, w)  m = ReduceMean <axes = [0]> (c)  s = Sub (c, m)  p = GlobalMaxPool (s)  scores = Flatten (p)"
    with pytest.raises(ExportError, match="does not reproduce the model.*depends on the batch"):
        cut(graphs.parse(body, w=(5, 3, 3, 3)), layer="c")
    assert nothing_written(tmp_path)


def test_a_model_that_mixes_only_images_of_unlike_brightness_is_refused(cut, tmp_path):
    body = "c = Conv (x, ones)  m = ReduceMax <keepdims = 1> (c)  b = Max (m, bright)  d = Div (c, b)  p = GlobalMaxPool (d)"
    built = graphs.parse(f"{body}  f = Flatten (p)  scores = MatMul (f, fc)", ones=np.ones((1, 3, 3, 3), np.float32),
                         bright=np.float32(25), fc=(1, 4))  # fmt: skip
    with pytest.raises(ExportError, match="does not reproduce the model.*depends on the batch"):
        cut(built, layer="c")
    assert nothing_written(tmp_path)


def test_a_model_that_makes_more_scores_of_a_batch_is_refused(cut, tmp_path):
    body = """c = Conv <strides = [2, 2]> (x, w)  p = GlobalAveragePool (c)  f = Flatten (p)  k = MatMul (f, kw)
        kernel = Reshape (k, kernels)  one = Reshape (c, maps)  y = Conv (one, kernel)  q = GlobalAveragePool (y)  scores = Flatten (q)"""
    built = graphs.parse(body, image="1,3,16,16", w=(6, 3, 3, 3), kw=(6, 36), kernels=np.array([6, 6, 1, 1]),
                         maps=np.array([1, 6, 7, 7]))  # fmt: skip
    with pytest.raises(ExportError, match="does not reproduce the model|cannot run"):
        cut(built, layer="c")
    assert nothing_written(tmp_path)


def test_a_model_that_onnx_runtime_cannot_run_is_refused_on_one_line(cut, tmp_path):
    body = "c = Conv (x, seven_channels)  p = GlobalAveragePool (c)  scores = Flatten (p)"
    with pytest.raises(ExportError, match="ONNX Runtime .* the source model") as caught:
        cut(graphs.parse(body, seven_channels=(5, 7, 3, 3)))
    assert "\n" not in str(caught.value)
    assert nothing_written(tmp_path)


# --- what the outputs are -------------------------------------------------------------------------------------------------
NET = "c = Conv (x, w)  p = GlobalAveragePool (c)  f = Flatten (p)  z = MatMul (f, fc)"
KIND_OF = {  # how a model ends without an operator that says what its outputs are
    "a sigmoid by hand": ("n = Neg (z)  e = Exp (n)  o = Add (e, one)  scores = Div (one, o)", "scores"),
    "two heads of sigmoids": ("a, b = Split <axis = 1> (z)  s = Sigmoid (a)  t = Sigmoid (b)  scores = Concat <axis = 1> (s, t)", "scores"),
    "a clipped sigmoid": ("s = Sigmoid (z)  scores = Clip (s, nought, one)", "scores"),
    "two heads of a softmax": ("a, b = Split <axis = 1> (z)  s = Softmax (a)  t = Softmax (b)  scores = Concat <axis = 1> (s, t)", "scores"),
    "a clipped softmax": ("s = Softmax (z)  scores = Clip (s, nought, one)", "probabilities"),
    "nothing": ("scores = Identity (z)", "logits"),
    "more than one": ("e = Exp (z)  scores = Add (e, one)", "logits"),
    "percent": ("s = Softmax (z)  scores = Mul (s, hundred)", "scores"),
    "one number": ("scores = ReduceSum (z, classes)", "scores"),
}  # fmt: skip


@pytest.mark.parametrize(("end", "kind"), KIND_OF.values(), ids=KIND_OF)
def test_what_outputs_are_is_seen_in_their_numbers(end, kind, cut):
    used = {name: np.float32(v) for name, v in (("one", 1), ("nought", 1e-7), ("hundred", 100)) if name in end}
    used |= {"classes": np.array([1])} if "classes" in end else {}
    assert cut(graphs.parse(f"{NET}  {end}", w=(5, 3, 3, 3), fc=(5, 4), **used)).manifest.kind == kind


def test_a_sum_of_one_on_noise_alone_is_no_distribution():
    answers = {"noise": (np.zeros((3, 1)), np.eye(3, 4)), "white": (np.zeros((1, 1)), np.full((1, 4), 0.9))}
    assert proof.output_kind(answers, None) == "scores"
    answers["white"] = np.zeros((1, 1)), np.full((1, 4), np.nan)
    assert proof.output_kind(answers, None) == "probabilities"


# --- not finite -----------------------------------------------------------------------------------------------------------
# features / max(features): 0/0 where the image is black
FRAGILE = """
    c = Conv (x, w)  r = Relu (c)  m = GlobalMaxPool (r)  n = ReduceMax <axes = [1], keepdims = 1> (m)  d = Div (m, n)
    f = Flatten (d)  scores = MatMul (f, fc)
    """


def test_inputs_on_which_the_source_is_not_finite_are_skipped_and_recorded(cut):
    built = graphs.parse(FRAGILE, w=(5, 3, 3, 3), fc=(5, 4))
    bundle = cut(built)
    assert bundle.manifest.split.skipped == ("black",)
    assert bundle.manifest.split.errors.keys() == KINDS - {"black"}
    assert np.isfinite(split(bundle, images(bundle))).all()
    assert_reproduces(bundle, built)


def test_a_source_that_is_never_finite_is_refused(cut, tmp_path):
    built = graphs.classifier()
    built.graph.initializer[-1].raw_data = np.full(5, np.nan, np.float32).tobytes()
    with pytest.raises(ExportError, match=r"NaN or infinity on every test input \(noise, black, white, saturated\)"):
        cut(built)
    assert nothing_written(tmp_path)


# --- quantised models -----------------------------------------------------------------------------------------------------
STEP = 0.05


def quantised(*, scales_as_constants: bool = False, end: str = "scores = DequantizeLinear (zq, zs, z0)"):
    """Return x → conv → relu → MaxPool → mean → gemm → scores with QuantizeLinear, DequantizeLinear around all."""
    rng = np.random.default_rng(0)
    numbers = {"xs": np.float32(1 / 64), "x0": np.uint8(128), "cs": np.float32(1 / 40), "c0": np.uint8(0)}
    constants = ""
    if scales_as_constants:
        constants = f"zs = Constant <value = float {{{STEP}}}> ()  z0 = Constant <value = int8 {{3}}> ()"
    else:
        numbers |= {"zs": np.float32(STEP), "z0": np.int8(3)}
    return graphs.parse(
        f"""
        {constants}
        xq = QuantizeLinear (x, xs, x0)  xd = DequantizeLinear (xq, xs, x0)
        wd = DequantizeLinear <axis = 0> (w, ws, w0)
        c = Conv (xd, wd)  r = Relu (c)
        rq = QuantizeLinear (r, cs, c0)  rd = DequantizeLinear (rq, cs, c0)
        m = MaxPool <kernel_shape = [2, 2], strides = [2, 2]> (rd)
        mq = QuantizeLinear (m, cs, c0)  md = DequantizeLinear (mq, cs, c0)
        p = GlobalAveragePool (md)  pq = QuantizeLinear (p, cs, c0)  pd = DequantizeLinear (pq, cs, c0)
        f = Flatten (pd)  fd = DequantizeLinear <axis = 0> (fc, fs, f0)
        z = Gemm (f, fd)  zq = QuantizeLinear (z, zs, z0)  {end}
        """,
        w=rng.integers(-127, 127, (6, 3, 3, 3), np.int8), ws=np.full(6, 1 / 200, np.float32), w0=np.zeros(6, np.int8),
        fc=rng.integers(-127, 127, (6, 5), np.int8), fs=np.full(6, 1 / 50, np.float32), f0=np.zeros(6, np.int8),
        **numbers,
    )  # fmt: skip


@pytest.mark.parametrize("scales_as_constants", [False, True])
def test_a_quantised_model_is_cut_before_its_closing_pool_within_one_step(scales_as_constants, cut):
    built = quantised(scales_as_constants=scales_as_constants)
    bundle = cut(built)
    assert (bundle.manifest.layer.name, bundle.manifest.layer.operator) == ("rd", "DequantizeLinear")
    assert bundle.manifest.features.shape == (-1, 6, 14, 14)
    assert bundle.manifest.split.tolerance == pytest.approx(STEP)
    assert "one output step" in bundle.manifest.split.bound
    x = images(bundle)
    assert np.abs(split(bundle, x) - source_scores(built, x)).max() <= STEP * 1.001


def test_a_quantised_model_with_a_softmax_is_judged_by_the_step_of_its_logits(cut):
    built = quantised(end="zd = DequantizeLinear (zq, zs, z0)  scores = Softmax (zd)")
    bundle = cut(built)
    assert bundle.manifest.activation == "Softmax"
    assert bundle.manifest.split.tolerance == pytest.approx(STEP)


def test_quantised_weights_stay_small(cut):
    stored = {weight.name: weight.dtype for weight in cut(quantised()).manifest.weights}
    assert stored["w"] == stored["fc"] == "int8"
    assert "wd" not in stored


def test_a_quantised_model_is_not_cut_between_integers(cut):
    with pytest.raises(ExportError, match="'rq' holds UINT8; a cut needs real numbers"):
        cut(quantised(), layer="rq")


def test_a_quantised_split_that_is_more_than_a_step_away_is_refused(cut, monkeypatch):
    real = exporting.onnx_reference
    monkeypatch.setattr(exporting, "onnx_reference", lambda *source: lambda x: real(*source)(x) + np.float32(1.5 * STEP))
    with pytest.raises(ExportError, match="one output step"):
        cut(quantised())


def test_a_float_model_is_not_given_a_step(tiny_bundle):
    assert open_bundle(tiny_bundle).manifest.split.bound == "tolerance · max(1, max|z|)"


def test_an_output_that_is_not_explained_need_not_even_run(cut):
    body = (
        "c = Conv <pads = [1, 1, 1, 1]> (x, w)  p = GlobalAveragePool (c)  scores = Flatten (p)  "
        "wide = Concat <axis = 1> (c, c)  other = Add (wide, c)"  # 10 channels and 5
    )
    built = graphs.parse(body, outputs=("scores", "other"), w=(5, 3, 3, 3))
    assert_reproduces(cut(built, output="scores"), graphs.parse(body.split("  wide")[0], w=(5, 3, 3, 3)))
