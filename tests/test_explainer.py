from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

import camrt
from camrt import Outcome
from camrt.errors import ParameterError, UnknownMethod, UnknownTarget
from tests import graphs

from .conftest import LABELS, SAMPLES


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
    assert run.parameters == {
        "clusters": 3, "merge": "evidence", "metric": "euclidean", "baseline": "black", "score": "probability",
        "masking": "image", "seed": 0,
    }  # fmt: skip
    assert set(run.timings) == {"decode", "preprocess", "forward", "cluster", "masked", "merge", "total"}
    assert sum(ms for stage, ms in run.timings.items() if stage != "total") <= run.timings["total"]
    assert set(run.versions) == {"camrt", "onnxruntime"}
    assert run.bundle_sha256 == tiny.engine.bundle.sha256


def test_threads_give_the_bits_of_serial_runs(tiny_bundle, shapes):
    scenes = [camrt.load_photo(path) for path in sorted(SAMPLES.glob("*.png"))] * 4
    serial = [shapes.explain(scene, top=2) for scene in scenes]
    shared = camrt.load("shapes", providers=["cpu"])  # fresh, so that the threads race for its first use too
    with ThreadPoolExecutor(8) as pool:
        threaded = list(pool.map(lambda scene: shared.explain(scene, top=2), scenes))
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


# --- degenerate networks ------------------------------------------------------------------------------------------------
def set_weights(model, name: str, value) -> None:
    from onnx import numpy_helper

    tensor = next(t for t in model.graph.initializer if t.name == name)
    tensor.CopyFrom(numpy_helper.from_array(np.full(tuple(tensor.dims), value, np.float32), name))


def test_a_flat_feature_map_is_an_outcome(tmp_path, pixels):
    model = graphs.classifier()
    set_weights(model, "w2", 0)
    explanation = export(tmp_path, model).explain(pixels)
    assert explanation.targets[0].outcome is Outcome.FLAT_MAP
    assert not explanation.heatmap.any()


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


def test_an_image_without_contrast_is_explained_or_typed(tiny):
    for level in (0, 255):
        explanation = tiny.explain(np.full((32, 32, 3), level, np.uint8), top=5)
        for target, heatmap in zip(explanation.targets, explanation.heatmap, strict=True):
            assert heatmap.any() == (target.outcome is Outcome.OK)


def test_a_sigmoid_head_scores_by_sigmoid(tmp_path, pixels):
    explainer = export(tmp_path, graphs.classifier(end="Sigmoid"))
    assert (explainer.manifest.kind, explainer.manifest.activation) == ("sigmoid", "Sigmoid")
    probabilities = [t.probability for t in explainer.explain(pixels, targets=range(5)).targets]
    (tmp_path / "plain").mkdir()
    logits = export(tmp_path / "plain", graphs.classifier()).explain(pixels, targets=range(5))
    assert sum(probabilities) != pytest.approx(1)
    order = np.argsort(probabilities)
    assert order.tolist() == np.argsort([t.probability for t in logits.targets]).tolist()
