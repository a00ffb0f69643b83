from __future__ import annotations

import numpy as np
import pytest

from camrt.errors import ParameterError
from camrt.heatmap import Outcome
from camrt.methods import METHODS
from camrt.methods.cluster_cam import MERGES, cluster_weights
from exporters.fusion.methods import FUSED, _cluster_weights, fused_passes

from .conftest import BUNDLES
from .helpers import assert_same, emitted, every_node, fused

CASES = [
    ("cluster-cam", {}),
    ("cluster-cam", {"clusters": 1}),
    ("cluster-cam", {"clusters": 1, "masking": "image"}),
    ("cluster-cam", {"clusters": 3, "seed": 5, "score": "logit"}),
    ("cluster-cam", {"clusters": 40, "merge": "evidence"}),
    ("cluster-cam", {"clusters": 4, "merge": "evidence", "metric": "cosine"}),
    ("cluster-cam", {"clusters": 4, "merge": "extremes"}),
    ("cluster-cam", {"clusters": 5, "merge": "extremes", "score": "logit", "baseline": "blur"}),
    ("cluster-cam", {"clusters": 4, "baseline": "blur"}),
    ("cluster-cam", {"clusters": 4, "baseline": "blur", "merge": "evidence"}),
    ("cluster-cam", {"clusters": 4, "masking": "image"}),
    ("cluster-cam", {"clusters": 5, "masking": "image", "merge": "extremes", "score": "logit", "baseline": "blur"}),
    ("cluster-cam", {"clusters": 4, "masking": "image", "merge": "evidence", "metric": "cosine"}),
    ("cluster-cam", {"clusters": 4, "masking": "features"}),
    ("cluster-cam", {"clusters": 5, "masking": "features", "merge": "evidence", "score": "logit"}),
    ("cluster-cam", {"clusters": 5, "masking": "features", "merge": "extremes", "metric": "cosine"}),
    ("group-cam", {}),
    ("group-cam", {"groups": 1, "score": "logit"}),
    ("group-cam", {"groups": 5}),
    ("group-cam", {"groups": 5, "variant": "2021-03"}),
    ("group-cam", {"groups": 3, "variant": "2021-03", "denoise": 0, "score": "logit"}),
    ("group-cam", {"groups": 4, "denoise": 0.35}),
    ("group-cam", {"groups": 4, "grouping": "kmeans"}),
    ("group-cam", {"groups": 6, "grouping": "kmeans", "variant": "2021-03", "seed": 3}),
    ("score-cam", {}),
    ("score-cam", {"variant": "pytorch-grad-cam"}),
    ("score-cam", {"variant": "torchcam"}),
    ("hires-cam", {}),
    ("hires-cam", {"raw": True}),
    ("grad-cam", {}),
    ("grad-cam++", {}),
    ("xgrad-cam", {}),
    ("layer-cam", {}),
]
IDS = [" ".join([name, *(f"{key}={value}" for key, value in settings.items())]) for name, settings in CASES]
every_case = pytest.mark.parametrize(("method", "settings"), CASES, ids=IDS)
ALONE = ("classifier", "early, not square", "dead on dark", "one by one")  # that have tests of their own
every_method = pytest.mark.parametrize("method", list(FUSED))


def test_every_fused_method_is_in_the_catalogue_and_in_the_table():
    assert FUSED.keys() <= METHODS.keys()
    assert FUSED.keys() == {name for name, _ in CASES}


def test_the_table_has_every_word_that_a_fused_method_takes():
    refused = {("cluster-cam", "clusters"), ("cluster-cam", "clustering"), ("group-cam", "grouping")}
    for name in FUSED:
        for key, parameter in METHODS[name].parameters.items():
            tried = {parameter.default, *(settings.get(key) for method, settings in CASES if method == name)}
            assert set(parameter.choices) <= tried or (name, key) in refused


# --- against the Python runtime ---------------------------------------------------------------------------------------------
@every_case
def test_one_image_and_its_top_class_equal_the_python_runtimes(both, method, settings):
    one = both("classifier", method, **settings)
    assert one.agree(one.images(seed=1)).targets.shape == (1, 1)


@every_case
def test_three_images_and_several_targets_equal_the_python_runtimes(both, method, settings):
    one = both("classifier", method, **settings)
    found = one.agree(one.images(3), [[-1, 3, -2]])
    assert found.heatmap.shape == (3, 3, 32, 32)
    assert (found.targets[:, 1] == 3).all()


@every_case
def test_an_early_layer_equals_the_python_runtimes(both, method, settings):
    one = both("early, not square", method, **settings)
    one.agree(one.images(2), [[-1, 0]])


@every_method
@pytest.mark.parametrize("name", [name for name in BUNDLES if name not in ALONE])
def test_other_networks_equal_the_python_runtimes(both, name, method):
    one = both(name, method)
    targets = [[-1, 0]] if one.bundle.manifest.classes > 1 else [[0]]
    one.agree(one.images(2), targets)


@pytest.mark.parametrize("method", ["cluster-cam", "group-cam", "grad-cam++"])
def test_the_built_in_bundle_equals_the_python_runtimes(both, method):
    one = both("shapes", method)
    one.agree(one.images(2), [[-1, -2]])


# --- targets ----------------------------------------------------------------------------------------------------------------
@every_method
def test_every_image_may_have_targets_of_its_own(both, method):
    one = both("classifier", method)
    found = one.agree(one.images(3), [[0, 1], [4, 2], [-1, 3]])
    assert found.targets[:2].tolist() == [[0, 1], [4, 2]]


@every_method
def test_one_row_of_targets_is_for_every_image(both, method):
    one = both("classifier", method)
    x = one.images(2)
    for a, b in zip(one.graph(x, [[2, -1]]).signed, one.graph(x, [[2, -1], [2, -1]]).signed, strict=True):
        assert a.tolist() == b.tolist()


@every_method
def test_each_of_several_targets_has_the_map_it_has_alone(both, method):
    one = both("classifier", method)
    x, targets = one.images(2), [4, 0, -1]
    together = one.graph(x, [targets]).heatmap
    for i, target in enumerate(targets):
        np.testing.assert_allclose(together[:, i], one.graph(x, [[target]]).heatmap[:, 0], atol=1e-5)


def test_negative_targets_are_ranks(both):
    one = both("classifier", "grad-cam")
    x = one.images(3)
    found = one.graph(x, [[-1, -2, -3, -4, -5]])
    assert found.targets.tolist() == np.argsort(-found.logits, axis=1).tolist()


def test_without_a_target_the_most_probable_class_is_explained(both):
    one = both("classifier", "grad-cam")
    found = one.graph(one.images(3))
    assert found.targets[:, 0].tolist() == found.logits.argmax(axis=1).tolist()


@pytest.mark.parametrize("method", ["cluster-cam", "hires-cam"])
def test_the_top_classes_of_a_photo_equal_what_explain_says(both, method):
    one = both("shapes", method)
    photo = np.random.default_rng(3).integers(0, 256, (96, 96, 3), np.uint8)
    expected = one.explainer.explain(photo, top=3, method=method)
    x = (photo.transpose(2, 0, 1)[None] / 255 - 0.5) / 0.5
    found = one.graph(x.astype(np.float32), [[-1, -2, -3]])
    assert found.targets[0].tolist() == [target.index for target in expected.targets]
    assert found.outcomes[0].tolist() == [target.outcome for target in expected.targets]
    np.testing.assert_allclose(found.heatmap[0], expected.network_heatmap, atol=1e-4)


# --- batches and chunks -------------------------------------------------------------------------------------------------------
@every_case
def test_a_batch_equals_its_images_one_by_one(both, method, settings):
    one = both("classifier", method, **settings)
    x = one.images(3, seed=2)
    together = one.graph(x, [[-1, 2]])
    for i in range(3):
        alone = one.graph(x[i : i + 1], [[-1, 2]])
        assert alone.targets[0].tolist() == together.targets[i].tolist()
        np.testing.assert_allclose(together.heatmap[i], alone.heatmap[0], atol=2e-5)


@pytest.mark.parametrize("chunk", [1, 2, 3, 7])
@pytest.mark.parametrize(("method", "settings"), [
    ("cluster-cam", {"clusters": 6}),
    ("cluster-cam", {"clusters": 5, "baseline": "blur"}),
    ("cluster-cam", {"clusters": 5, "masking": "image"}),
    ("cluster-cam", {"clusters": 5, "masking": "features"}),
    ("group-cam", {"groups": 4}),
    ("score-cam", {}),
])  # fmt: skip
def test_masked_images_in_chunks_give_what_they_give_at_once(both, method, settings, chunk):
    small, large = both("classifier", method, {"max_masked_batch": chunk}, **settings), both("classifier", method, **settings)
    for count in (1, 3):
        x = small.images(count)
        a, b = small.graph(x, [[-1, 1]]), large.graph(x, [[-1, 1]])
        np.testing.assert_allclose(a.signed, b.signed, rtol=1e-4, atol=1e-6)
        assert a.outcomes.tolist() == b.outcomes.tolist()


@pytest.mark.parametrize(("masking", "tails"), [("both", 4), ("image", 1), ("features", 1)])  # 12 maps for 4 masks
def test_a_tail_that_takes_its_scale_from_the_batch_sees_one_at_a_time(both, masking, tails):
    one = both("one by one", "cluster-cam", {"max_masked_batch": 1}, clusters=4, masking=masking)
    assert one.bundle.manifest.one_by_one
    model, _ = fused(one.bundle, max_masked_batch=1, clusters=4, masking=masking)
    assert sum(node.op_type == "DynamicQuantizeLinear" for node in every_node(model)) == tails
    one.agree(one.images(1), [[-1, 2]])


# --- what goes wrong ------------------------------------------------------------------------------------------------------------
@every_method
@pytest.mark.parametrize("value", [np.nan, np.inf, 3e38])
def test_an_image_on_which_the_network_is_not_finite_has_zeros_and_leaves_the_others_alone(both, method, value):
    one = both("classifier", method)
    x = one.images(3)
    x[1, :, 4:20] = value
    found = one.graph(x, [[0, 1]])
    assert (found.outcomes[1] == Outcome.NOT_FINITE).all()
    assert not found.heatmap[1].any()
    assert_same(_row(found, [0, 2]), one.python(x[[0, 2]], found.targets[[0, 2]]))


def _row(answer, rows):
    return type(answer)(**{name: value[rows] for name, value in vars(answer).items()})


@pytest.mark.parametrize(("settings", "finite"), [
    ({"clusters": 3}, False),
    ({"clusters": 3, "masking": "image"}, False),
    ({"clusters": 3, "masking": "image", "baseline": "blur"}, True),
    ({"clusters": 3, "masking": "image", "merge": "evidence"}, False),
    ({"clusters": 3, "masking": "image", "merge": "extremes", "score": "logit"}, False),
])  # fmt: skip
def test_a_baseline_on_which_the_network_is_not_finite_is_told(both, settings, finite):
    one = both("dead on dark", **settings)
    found = one.agree(one.images(2))
    assert ((found.outcomes != Outcome.NOT_FINITE) == finite).all()


@pytest.mark.parametrize("settings", [{"score": "logit"}, {"merge": "evidence"}, {"merge": "extremes"}])
def test_features_on_which_the_tail_is_not_finite_without_a_cluster_are_told(both, settings):
    one = both("dead on dark", clusters=3, baseline="blur", **settings)
    found = one.agree(one.images(2), [[0, 1, 2, 3]])
    assert (found.outcomes == Outcome.NOT_FINITE).all()


@pytest.mark.parametrize("clusters", [4, 6, 9])
@pytest.mark.parametrize("settings", [
    {}, {"merge": "evidence"}, {"merge": "extremes"}, {"merge": "extremes", "score": "logit"},
    {"merge": "evidence", "masking": "features"}, {"merge": "extremes", "baseline": "blur"}, {"masking": "image"},
])  # fmt: skip
def test_clusters_that_are_missing_count_nowhere(both, clusters, settings):
    one = both("twins", clusters=clusters, **settings)
    found = one.agree(one.images(3), [[0, 1, 2, 3, 4]])
    assert Outcome.OK in found.outcomes


@pytest.mark.parametrize("merge", MERGES)
def test_weights_of_clusters_are_the_runtimes_and_not_finite_where_a_score_is_not(merge, rng):
    scores, blank = rng.random((5, 4, 3), np.float32), rng.random((5, 1, 3), np.float32)
    scores[1, 2, 0], scores[2, 0, 1], blank[3, 0, 2] = np.nan, np.inf, np.nan
    scores[4, 2:] = 7
    counts = np.array([4, 4, 4, 4, 2])
    real = (np.arange(4) < counts[:, None])[..., None]
    feeds = {"scores": scores, "blank": blank, "real": real}
    (found,) = emitted(lambda op, s, b, r: _cluster_weights(op, s, b, merge, r, 4), feeds)
    with np.errstate(invalid="ignore"):
        expected = cluster_weights(scores, blank[:, 0], merge, counts)
    fine = np.isfinite(expected)
    assert (np.isfinite(found) == fine).all()
    np.testing.assert_allclose(found[fine], expected[fine], atol=1e-6)


def test_an_image_without_features_is_flat(both):
    one = both("residual")
    found = one.agree(one.images(2) * np.array([0, 1], np.float32).reshape(2, 1, 1, 1))
    assert found.outcomes[0, 0] == Outcome.FLAT_MAP


# --- parameters -----------------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(("method", "settings", "message"), [
    ("cluster-cam", {"clusters": "auto"}, "clusters='auto' cannot be compiled: .* Give a number"),
    ("cluster-cam", {"clustering": "spectral"}, "clustering='spectral' cannot be compiled into one graph, only 'kmeans'"),
    ("cluster-cam", {"clustering": "agglomerative"}, "clustering='agglomerative' cannot be compiled"),
    ("group-cam", {"grouping": "agglomerative"}, "only 'chunks' or 'kmeans'. Change the parameter"),
])  # fmt: skip
def test_parameters_that_cannot_be_one_graph_are_refused(both, method, settings, message):
    with pytest.raises(ParameterError, match=message):
        _ = both("classifier", method, **settings).session


@pytest.mark.parametrize(("method", "settings", "passes"), [
    ("cluster-cam", {"clusters": 10}, 11),
    ("cluster-cam", {"clusters": 99}, 13),
    ("group-cam", {"groups": 4}, 5),
    ("score-cam", {}, 13),
    ("grad-cam", {}, 1),
])  # fmt: skip
def test_passes_are_those_of_what_is_masked(method, settings, passes):
    assert fused_passes(method, settings, channels=12) == passes
