from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

import camrt
from camrt import Outcome
from camrt.errors import MethodUnavailable, ParameterError, UnknownMethod, UnknownTarget
from camrt.explanation import Category
from camrt.methods import GRADIENTS, METHODS
from tests import graphs

from .conftest import LABELS, SAMPLES

every_method = pytest.mark.parametrize("method", METHODS)
GRADIENT_METHODS = [name for name, method in METHODS.items() if GRADIENTS in method.needs]


def few(method: str) -> dict[str, int]:
    """Return parameters with which a method is quick."""
    return {"masks": 20} if method == "rise" else {}


def export(tmp_path, model, **options) -> camrt.Explainer:
    import exporters

    source = graphs.save(model, tmp_path / "model.onnx")
    exporters.export(source, tmp_path / "bundle", overrides={"scale": 1 / 255}, **options)
    return camrt.load(tmp_path / "bundle", providers=["cpu"])


# --- what comes back ----------------------------------------------------------------------------------------------------
def test_five_lines_explain_a_sample_scene(shapes):
    explanation = shapes.explain(SAMPLES / "heart.png", top=3)
    assert explanation.targets[0].label == "heart"
    assert explanation.heatmap.shape == (3, 384, 384)
    assert explanation.maps.shape == (3, 12, 12)
    assert explanation.network_heatmap.shape == (3, 96, 96)
    assert explanation.heatmap.dtype == np.float32
    assert (explanation.heatmap.min(), explanation.heatmap.max()) == pytest.approx((0, 1), abs=0.02)


def test_the_probabilities_are_those_of_the_uncut_model(tiny, pixels):
    import onnxruntime as ort

    from camrt.image import preprocess_photo

    x, _ = preprocess_photo(pixels, tiny.manifest.preprocess)
    session = ort.InferenceSession(graphs.classifier().SerializeToString(), providers=["CPUExecutionProvider"])
    logits = session.run(None, {"x": x[None]})[0][0]
    expected = np.exp(logits) / np.exp(logits).sum()
    explanation = tiny.explain(pixels, top=5)
    assert [t.index for t in explanation.targets] == np.argsort(-expected).tolist()
    assert [t.probability for t in explanation.targets] == pytest.approx(sorted(expected, reverse=True), abs=1e-5)


def test_several_targets_cost_what_one_costs(tiny, pixels):
    one, all_of_them = tiny.explain(pixels, clusters=6), tiny.explain(pixels, top=5, clusters=6)
    assert one.run.passes == all_of_them.run.passes == 7
    assert one.maps[0] == pytest.approx(all_of_them.maps[0], abs=1e-6)


def test_a_blurred_baseline_costs_one_pass_more(tiny, pixels):
    assert tiny.explain(pixels, baseline="blur", clusters=4).run.passes == 6


def test_a_list_gives_a_list_equal_to_one_by_one(tiny):
    rng = np.random.default_rng(0)
    photos = [rng.integers(0, 256, (20 + 3 * i, 50, 3), np.uint8) for i in range(19)]
    together = tiny.explain(photos, top=2, clusters=5)
    for photo, explanation in zip(photos, together, strict=True):
        alone = tiny.explain(photo, top=2, clusters=5)
        assert [t.index for t in alone.targets] == [t.index for t in explanation.targets]
        assert explanation.heatmap.shape == (2, *photo.shape[:2])
        assert explanation.maps == pytest.approx(alone.maps, abs=1e-4)
    assert tiny.explain([]) == []


@every_method
@pytest.mark.parametrize("versus", [None, "hoist"])
def test_images_and_targets_together_equal_one_by_one(tiny, method, versus):
    rng = np.random.default_rng(1)
    photos = [rng.integers(0, 256, (20 + 3 * i, 50, 3), np.uint8) for i in range(10)]
    options = {"method": method, "versus": versus, **few(method)}
    together = tiny.explain(photos, targets=[3, 0, "crane, hoist" if versus is None else 1], **options)
    for photo, explanation in zip(photos, together, strict=True):
        for target, heat in zip(explanation.targets, explanation.maps, strict=True):
            alone = tiny.explain(photo, target=target.index, **options)
            assert alone.targets == (target,)
            assert heat == pytest.approx(alone.maps[0], abs=1e-5 * float(np.abs(alone.maps).max()))
    assert any(t.outcome is Outcome.OK for explanation in together for t in explanation.targets)


@pytest.mark.parametrize("method", GRADIENT_METHODS)
def test_targets_that_do_not_fit_into_one_call_give_and_cost_what_they_do_together(tiny, tiny_bundle, method):
    photos = list(np.random.default_rng(4).integers(0, 256, (2, 32, 32, 3), np.uint8))
    together = tiny.explain(photos, top=5, method=method)
    apart = camrt.load(tiny_bundle, ["cpu"], max_masked_batch=4).explain(photos, top=5, method=method)
    for one, other in zip(together, apart, strict=True):
        assert one.targets == other.targets
        assert other.maps == pytest.approx(one.maps, abs=1e-5 * float(np.abs(one.maps).max()))
        assert (one.run.passes, one.run.backward_passes) == (other.run.passes, other.run.backward_passes)


def test_a_list_keeps_to_the_masked_batch_too(tiny_bundle, pixels):
    explainer = camrt.load(tiny_bundle, max_masked_batch=1)
    assert [e.run.masked_batch for e in explainer.explain([pixels] * 3)] == [1, 1, 1]


@pytest.mark.parametrize("merge", ["positive", "evidence", "extremes"])
@pytest.mark.parametrize("clusters", [10, "auto"])
def test_images_with_fewer_clusters_are_not_changed_by_their_company(shapes, merge, clusters):
    scenes = [camrt.load_photo(path) for path in sorted(SAMPLES.glob("*.png"))]
    scenes.append(camrt.load_photo(np.full((96, 96, 3), 128, np.uint8)))
    together = shapes.explain(scenes, target="star", merge=merge, clusters=clusters)
    for scene, explanation in zip(scenes, together, strict=True):
        alone = shapes.explain(scene, target="star", merge=merge, clusters=clusters)
        assert explanation.maps == pytest.approx(alone.maps, abs=1e-4)


def test_the_run_says_what_really_ran(tiny, pixels):
    run = tiny.explain(pixels, clusters=3, merge="evidence").run
    assert (run.method, run.passes, run.masked_batch, run.provider) == ("cluster-cam", 4, 3, "cpu")
    assert (run.tail_passes, run.backward_passes) == (9, 0)  # of 12 feature maps 9 are distinct
    assert run.parameters == {
        "clusters": 3, "merge": "evidence", "clustering": "kmeans", "metric": "euclidean", "baseline": "black",
        "score": "probability", "masking": "both", "tail_clusters": 40, "seed": 0,
    }  # fmt: skip
    assert set(run.timings) == {"decode", "preprocess", "forward", "cluster", "masked", "tail", "merge", "total"}
    assert sum(ms for stage, ms in run.timings.items() if stage != "total") <= run.timings["total"]
    assert set(run.versions) == {"camrt", "onnxruntime"}
    assert run.bundle_sha256 == tiny.engine.bundle.sha256


@pytest.mark.parametrize("method", ["cluster-cam", "hires-cam", "ablation-cam"])
def test_threads_give_the_bits_of_serial_runs(shapes, method):
    scenes = [camrt.load_photo(path) for path in sorted(SAMPLES.glob("*.png"))] * (4 if method == "cluster-cam" else 2)
    serial = [shapes.explain(scene, top=2, method=method) for scene in scenes]
    shared = camrt.load("shapes", providers=["cpu"])  # fresh, so that the threads race for its first use too
    with ThreadPoolExecutor(8) as pool:
        threaded = list(pool.map(lambda scene: shared.explain(scene, top=2, method=method), scenes))
    for a, b in zip(serial, threaded, strict=True):
        assert np.array_equal(a.maps, b.maps)
        assert a.targets == b.targets


# --- targets --------------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(("target", "index"), [
    (3, 3), (np.int64(3), 3), ("dog", 3), ("DOG", 3), ("honeybee", 1), ("bee, honeybee", 1), ("2", 2), ("hoist", 4), (" ant ", 0),
])  # fmt: skip
def test_a_target_is_an_index_or_a_label(tiny, pixels, target, index):
    assert [t.index for t in tiny.explain(pixels, target=target).targets] == [index]
    assert tiny.explain(pixels, target=target).targets[0].label == LABELS[index]


def test_targets_keep_their_order(tiny, pixels):
    assert [t.index for t in tiny.explain(pixels, targets=["dog", 0, 4]).targets] == [3, 0, 4]


@pytest.mark.parametrize(("target", "text"), [
    ("dgo", "no class 'dgo'.*Did you mean 'dog'"),
    ("crane", r"name of 2 classes: 2 \(crane\), 4 \(crane, hoist\)"),
    (5, r"classes 0…4, got 5"),
    (-1, r"classes 0…4, got -1"),
    ("-1", r"classes 0…4, got -1"),
    (10**30, "classes 0…4"),
    ("9" * 5000, "no class"),
    ("--5", "no class '--5'"),
    (True, "got True"),
    (1.5, "class index or a label"),
    ("", "no class ''"),
])  # fmt: skip
def test_a_target_that_is_not_there_is_refused(tiny, pixels, target, text):
    with pytest.raises(UnknownTarget, match=text):
        tiny.explain(pixels, target=target)


@pytest.mark.parametrize(("asked", "text"), [
    ({"target": 1, "top": 2}, "one of target, targets and top"),
    ({"targets": []}, "list of classes"),
    ({"targets": "dog"}, "use target"),
    ({"top": 0}, "from 1 to 5, got 0"),
    ({"top": 6}, "from 1 to 5, got 6"),
    ({"top": True}, "got True"),
    ({"top": 1.0}, r"got 1\.0"),
])  # fmt: skip
def test_a_question_that_contradicts_itself_is_refused(tiny, pixels, asked, text):
    with pytest.raises(ParameterError, match=text):
        tiny.explain(pixels, **asked)


def test_without_labels_a_name_is_refused_and_a_number_taken(tmp_path, pixels):
    explainer = export(tmp_path, graphs.classifier())
    assert explainer.explain(pixels, target="3").targets[0].label == "3"
    with pytest.raises(UnknownTarget, match="has no labels; give an index"):
        explainer.explain(pixels, target="dog")


def test_an_unknown_method_or_parameter_is_refused_before_any_work(tiny):
    with pytest.raises(UnknownMethod):
        tiny.explain("missing.png", method="grad-kam")
    with pytest.raises(ParameterError, match="'cluster'"):
        tiny.explain("missing.png", cluster=3)


# --- one class against another ------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(("versus", "index"), [("ant", 0), (0, 0), ("honeybee", 1), ("4", 4), (np.int64(2), 2)])
def test_versus_is_an_index_or_a_label(tiny, pixels, versus, index):
    (target,) = tiny.explain(pixels, target="dog", versus=versus).targets
    assert target.versus == Category(index, LABELS[index])
    assert target.title == f"dog versus {LABELS[index].split(',')[0]}"


def test_without_versus_the_title_is_the_name(tiny, pixels):
    (target,) = tiny.explain(pixels, target="honeybee").targets
    assert (target.versus, target.title) == (None, "bee")


def test_versus_goes_with_every_way_to_ask_for_targets(tiny, pixels):
    first = tiny.explain(pixels).targets[0].index
    other = (first + 1) % 5
    for asked in ({}, {"top": 1}, {"targets": [first]}, {"target": first}):
        (target,) = tiny.explain(pixels, versus=other, **asked).targets
        assert (target.index, target.versus.index) == (first, other)


@pytest.mark.parametrize(("method", "parameters"), [
    ("hires-cam", {"raw": True}), ("recipro-cam", {}), ("rise", {"masks": 20}),
    ("cluster-cam", {"merge": "evidence", "masking": "image"}),
])  # fmt: skip
def test_versus_gives_the_difference_of_two_maps_where_maps_are_linear_in_the_scores(tiny, pixels, method, parameters):
    options = {"method": method, **parameters}
    dog, ant = tiny.explain(pixels, targets=["dog", "ant"], **options).maps
    against = tiny.explain(pixels, target="dog", versus="ant", **options)
    assert against.maps[0] == pytest.approx(dog - ant, abs=1e-5 * float(np.abs(dog).max()))


def test_versus_leaves_the_probability_alone(tiny, pixels):
    plain, against = (tiny.explain(pixels, target="dog", versus=v).targets[0] for v in (None, "ant"))
    assert against.probability == plain.probability


@pytest.mark.parametrize("asked", [{"target": "dog"}, {"target": 3}, {"targets": ["ant", "dog"]}, {"targets": [0, 3]}])
def test_a_class_against_itself_is_refused(tiny, asked):
    with pytest.raises(ParameterError, match="versus must be another class than the target, got 'dog' for both"):
        tiny.explain("missing.png", versus="dog", **asked)


@pytest.mark.parametrize(("versus", "text"), [
    ("dgo", "no class 'dgo'.*Did you mean 'dog'"), ("crane", "name of 2 classes"), (5, "classes 0…4, got 5"), (True, "got True"),
    (1.5, "class index or a label"), ("", "no class ''"),
])  # fmt: skip
def test_a_class_that_is_not_there_is_refused_as_versus_too(tiny, versus, text):
    with pytest.raises(UnknownTarget, match=text):
        tiny.explain("missing.png", target="dog", versus=versus)


# --- what a bundle lacks --------------------------------------------------------------------------------------------------
@pytest.fixture(scope="module")
def no_gradient(tmp_path_factory) -> camrt.Explainer:
    """A network that ends in CumSum, for which there is no gradient rule."""
    body = """
        c = Conv <strides = [2, 2], pads = [1, 1, 1, 1]> (x, w)  [last_relu] r = Relu (c)
        p = GlobalAveragePool (r)  f = Flatten (p)  z = Gemm (f, fc)  [running_sum] scores = CumSum (z, axis)
        """
    built = graphs.parse(body, image="N,3,32,32", w=(12, 3, 3, 3), fc=(12, 5), axis=np.array(1))
    return export(tmp_path_factory.mktemp("no_gradient"), built, name="sums")


@pytest.mark.parametrize("method", GRADIENT_METHODS)
def test_without_gradients_the_message_says_why_and_what_else_there_is(no_gradient, method):
    with pytest.raises(MethodUnavailable) as caught:
        no_gradient.explain("missing.png", method=method)
    text = str(caught.value)
    assert text.startswith(f"{method} needs gradients, and the bundle 'sums', cut at 'r', has none: ")
    assert "CumSum" in text
    assert "running_sum" in text
    others = text.partition("take a method without gradients: ")[2].rstrip(".").split(", ")
    assert others == [name for name in METHODS if name not in GRADIENT_METHODS]


@pytest.mark.parametrize("method", [name for name in METHODS if name not in GRADIENT_METHODS])
def test_without_gradients_every_other_method_works(no_gradient, method):
    photo = np.random.default_rng(0).integers(0, 256, (32, 32, 3), np.uint8)
    explanation = no_gradient.explain(photo, top=5, method=method, **few(method))
    assert any(t.outcome is Outcome.OK for t in explanation.targets)
    assert explanation.run.backward_passes == 0


def test_all_sessions_of_a_bundle_without_gradients_can_be_opened(no_gradient):
    no_gradient.engine.sessions.open_all()
    assert "gradient.onnx" not in no_gradient.manifest.files


@pytest.mark.parametrize(("raw", "signed"), [(True, True), ("true", True), (False, False), ("False", False)])
def test_a_switch_is_true_or_false(tiny, pixels, raw, signed):
    explanation = tiny.explain(pixels, top=5, method="hires-cam", raw=raw)
    assert explanation.run.parameters == {"raw": signed}
    assert (explanation.maps < 0).any() == signed


@pytest.mark.parametrize("raw", [1, 0, "yes", None])
def test_a_switch_is_no_number_and_no_other_word(tiny, pixels, raw):
    with pytest.raises(ParameterError, match=f"raw must be true or false, got {raw!r}"):
        tiny.explain(pixels, method="hires-cam", raw=raw)


# --- degenerate networks ------------------------------------------------------------------------------------------------
def set_weights(model, name: str, value) -> None:
    from onnx import numpy_helper

    tensor = next(t for t in model.graph.initializer if t.name == name)
    tensor.CopyFrom(numpy_helper.from_array(np.full(tuple(tensor.dims), value, np.float32), name))


@every_method
def test_a_flat_feature_map_is_an_outcome(tmp_path, pixels, method):
    model = graphs.classifier()
    set_weights(model, "w2", 0)
    explanation = export(tmp_path, model).explain(pixels, top=5, method=method, **few(method))
    for target, heatmap in zip(explanation.targets, explanation.heatmap, strict=True):
        assert heatmap.any() == (target.outcome is Outcome.OK)
        assert target.outcome is Outcome.FLAT_MAP or method == "rise"  # which looks at no features


def test_nan_out_of_the_model_is_an_outcome_never_a_nan_heatmap(tmp_path):
    model = graphs.classifier(end="Log")  # NaN for a negative score, which bright images give
    set_weights(model, "w3", -0.5)
    set_weights(model, "b3", 0.6)
    explainer = export(tmp_path, model)
    outcomes = set()
    for level in (0, 60, 255):
        explanation = explainer.explain(np.full((32, 32, 3), level, np.uint8), top=5)
        assert np.isfinite(explanation.heatmap).all()
        outcomes |= {t.outcome for t in explanation.targets}
        assert len(explanation.targets) == 5
    assert outcomes > {Outcome.NOT_FINITE}  # the dark images are finite


DARK, BRIGHT = np.random.default_rng(2).integers(0, 200, (32, 32, 3), np.uint8), np.full((32, 32, 3), 255, np.uint8)
FRAGILE = {
    "w": np.abs(np.random.default_rng(3).normal(0, 0.3, (12, 3, 3, 3))).astype(np.float32), "fc": (12, 5),
    "b": np.full(5, 0.1, np.float32),
}  # fmt: skip


@pytest.fixture(scope="module")
def head_that_fails(tmp_path_factory) -> camrt.Explainer:
    """A network whose features are NaN for a bright image."""
    body = """
        mean = ReduceMean <axes = [1, 2, 3]> (x)  room = Sub (most, mean)  gain = Sqrt (room)
        c = Conv <strides = [2, 2], pads = [1, 1, 1, 1]> (x, w)  q = Mul (c, gain)  r = Relu (q)
        p = GlobalAveragePool (r)  f = Flatten (p)  scores = Gemm (f, fc, b)
        """
    built = graphs.parse(body, image="N,3,32,32", most=np.float32(0.7), **FRAGILE)
    return export(tmp_path_factory.mktemp("head"), built)


@pytest.fixture(scope="module")
def tail_that_fails(tmp_path_factory) -> camrt.Explainer:
    """A network whose scores are NaN for a bright image; its features are not."""
    body = """
        c = Conv <strides = [2, 2], pads = [1, 1, 1, 1]> (x, w)  r = Relu (c)  p = GlobalAveragePool (r)  f = Flatten (p)
        z = Gemm (f, fc, b)  mean = ReduceMean <axes = [1]> (f)  room = Sub (most, mean)  gain = Sqrt (room)
        scores = Mul (z, gain)
        """
    built = graphs.parse(body, image="N,3,32,32", most=np.float32(4), **FRAGILE)
    return export(tmp_path_factory.mktemp("tail"), built)


def test_the_fragile_networks_fail_in_the_part_they_should(head_that_fails, tail_that_fails):
    bright = np.ones((1, 3, 32, 32), np.float32)
    head, tail = head_that_fails.engine, tail_that_fails.engine
    assert np.isnan(head.features(head.put(bright)).numpy()).all()
    features = tail.features(tail.put(bright))
    assert np.isfinite(features.numpy()).all()
    assert np.isnan(tail.logits(features)).all()


@every_method
@pytest.mark.parametrize("versus", [None, 4])
@pytest.mark.parametrize("part", ["head", "tail"])
def test_an_image_on_which_the_network_fails_is_an_outcome_and_leaves_the_others_alone(request, method, versus, part):
    explainer = request.getfixturevalue(f"{part}_that_fails")
    options = {"targets": [0, 1], "method": method, "versus": versus, **few(method)}
    if method == "cam" and part == "tail":
        with pytest.raises(MethodUnavailable, match="cam needs a tail of global average pooling and one linear layer"):
            explainer.explain(DARK, **options)
        return
    for failed in (explainer.explain(BRIGHT, **options), *explainer.explain([BRIGHT, BRIGHT], **options)):
        assert [t.outcome for t in failed.targets] == [Outcome.NOT_FINITE] * 2
        assert not failed.heatmap.any()
    first, failed, last = explainer.explain([DARK, BRIGHT, DARK], **options)
    assert [t.outcome for t in failed.targets] == [Outcome.NOT_FINITE] * 2
    assert not failed.heatmap.any()
    alone = explainer.explain(DARK, **options)
    assert all(t.outcome is not Outcome.NOT_FINITE for t in alone.targets)
    for fine in (first, last):
        assert fine.targets == alone.targets
        assert fine.maps == pytest.approx(alone.maps, abs=1e-5 * float(np.abs(alone.maps).max()))


@pytest.fixture(scope="module")
def steep(tmp_path_factory) -> camrt.Explainer:
    """A network whose gradient is infinite on black images: it ends in the square root of the pooled features."""
    body = """
        c = Conv <strides = [2, 2], pads = [1, 1, 1, 1]> (x, w)  r = Relu (c)  p = GlobalAveragePool (r)  root = Sqrt (p)
        f = Flatten (root)  scores = Gemm (f, fc, b)
        """
    built = graphs.parse(body, image="N,3,32,32", w=(12, 3, 3, 3), fc=(12, 5), b=np.full(5, 0.1, np.float32))
    return export(tmp_path_factory.mktemp("steep"), built, layer="r")


@pytest.mark.parametrize(("method", "parameters"), [
    *((name, {}) for name in GRADIENT_METHODS), ("group-cam", {"grouping": "kmeans"}), ("group-cam", {"variant": "2021-03"}),
])  # fmt: skip
def test_a_gradient_that_is_not_finite_is_an_outcome(steep, method, parameters):
    fine, failed = steep.explain([DARK, 0 * DARK], targets=[0, 1], method=method, **parameters)
    assert [t.outcome for t in failed.targets] == [Outcome.NOT_FINITE] * 2
    assert not failed.heatmap.any()
    assert all(t.outcome is not Outcome.NOT_FINITE for t in fine.targets)


@pytest.fixture(scope="module")
def afraid_of_the_dark(tmp_path_factory) -> camrt.Explainer:
    """A network that is finite on an image and NaN on what is just darker, or has just less in its features."""
    body = """
        c = Conv <strides = [2, 2], pads = [1, 1, 1, 1]> (x, w)  r = Relu (c)  p = GlobalAveragePool (r)  f = Flatten (p)
        z = Gemm (f, fc, b)  mean = ReduceMean <axes = [1]> (f)  room = Sub (mean, least)  gain = Sqrt (room)
        scores = Mul (z, gain)
        """
    built = graphs.parse(body, image="N,3,32,32", least=np.float32(0), **FRAGILE)
    x = (DARK.transpose(2, 0, 1)[None] / 255).astype(np.float32)
    built.graph.output.add(name="mean")
    least = graphs.run(built, {"x": x}, "mean")[0].item() * np.float32(0.99)
    del built.graph.output[1:]
    set_weights(built, "least", least)
    return export(tmp_path_factory.mktemp("dark"), built, layer="r")


@pytest.mark.parametrize(("method", "parameters"), [
    ("cluster-cam", {}), ("cluster-cam", {"merge": "evidence", "score": "logit"}), ("cluster-cam", {"merge": "extremes"}),
    ("cluster-cam", {"masking": "features"}), ("cluster-cam", {"masking": "image"}), ("score-cam", {}),
    ("score-cam", {"variant": "pytorch-grad-cam"}),
    ("score-cam", {"variant": "torchcam"}), ("rise", {"masks": 20}), ("ablation-cam", {}), ("recipro-cam", {}),
])  # fmt: skip
@pytest.mark.parametrize("versus", [None, 4])
def test_a_masked_image_on_which_the_network_fails_is_an_outcome(afraid_of_the_dark, method, parameters, versus):
    explanation = afraid_of_the_dark.explain(DARK, targets=[0, 1], method=method, versus=versus, **parameters)
    assert np.isfinite([t.probability for t in explanation.targets]).all()
    assert [t.outcome for t in explanation.targets] == [Outcome.NOT_FINITE] * 2
    assert not explanation.heatmap.any()


def test_cam_is_unavailable_without_a_warning_behind_a_tail_that_is_infinite_on_features_of_zeros(tmp_path):
    body = """
        c = Conv <strides = [2, 2], pads = [1, 1, 1, 1]> (x, w)  r = Relu (c)  p = GlobalAveragePool (r)
        f = Flatten (p)  z = Gemm (f, fc)  scores = Reciprocal (z)
        """
    explainer = export(tmp_path, graphs.parse(body, image="N,3,32,32", w=(12, 3, 3, 3), fc=(12, 5)))
    with pytest.raises(MethodUnavailable, match="cam needs a tail of global average pooling and one linear layer"):
        explainer.explain(DARK, method="cam")


@every_method
def test_an_image_without_contrast_is_explained_or_typed(tiny, method):
    images = [np.full((32, 32, 3), level, np.uint8) for level in (0, 128, 255)]
    for explanation in tiny.explain(images, top=5, method=method, **few(method)):
        assert np.isfinite(explanation.heatmap).all()
        for target, heatmap in zip(explanation.targets, explanation.heatmap, strict=True):
            assert heatmap.any() == (target.outcome is Outcome.OK)
            assert target.outcome is not Outcome.NOT_FINITE


def test_a_sigmoid_head_scores_by_sigmoid(tmp_path, pixels):
    explainer = export(tmp_path, graphs.classifier(end="Sigmoid"))
    assert (explainer.manifest.kind, explainer.manifest.activation) == ("sigmoid", "Sigmoid")
    probabilities = [t.probability for t in explainer.explain(pixels, targets=range(5)).targets]
    (tmp_path / "plain").mkdir()
    logits = export(tmp_path / "plain", graphs.classifier()).explain(pixels, targets=range(5))
    assert sum(probabilities) != pytest.approx(1)
    order = np.argsort(probabilities)
    assert order.tolist() == np.argsort([t.probability for t in logits.targets]).tolist()
