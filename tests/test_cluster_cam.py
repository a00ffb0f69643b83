"""Cluster-CAM against its formula, written here in torch, step by step."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch.nn import functional

from camrt.clustering import CLUSTERINGS, cluster
from camrt.errors import ParameterError
from camrt.image import preprocess_photo
from camrt.kmeans import kmeans
from camrt.methods import cluster_cam, cluster_maps
from camrt.methods.cluster_cam import MERGES, cluster_weights
from tests import graphs

from .conftest import SAMPLES

SIZE = (32, 32)
TWO_PLACES = np.concatenate([np.eye(9, dtype=np.float32).reshape(1, 9, 3, 3)[:, [0, 4]] * s for s in (0.1, 1, 50)], axis=1)


def up(maps: torch.Tensor, size: tuple[int, int] = SIZE) -> torch.Tensor:
    return functional.interpolate(maps[None], size=size, mode="bilinear", align_corners=False)[0]


def scaled(maps: torch.Tensor) -> torch.Tensor:
    low, high = maps.amin(dim=(-2, -1), keepdim=True), maps.amax(dim=(-2, -1), keepdim=True)
    return (maps - low) / (high - low)


def reference(explainer, x: np.ndarray, target: int, clusters: int, merge: str, score: str, baseline: str) -> np.ndarray:
    """The five steps of the method on one image, at full resolution: the merged map (H, W) before ReLU and N."""
    engine = explainer.engine
    features = torch.from_numpy(engine.features(engine.put(x[None])).numpy()[0])
    labels = torch.from_numpy(kmeans(features.flatten(1).numpy(), clusters).labels)
    maps = torch.stack([features[labels == k].mean(dim=0) for k in range(int(labels.max()) + 1)])
    masks = scaled(up(maps, x.shape[1:]))
    image, blank = torch.from_numpy(x), torch.zeros(x.shape)
    if baseline == "blur":
        axis = torch.arange(51, dtype=torch.float64) - 25
        kernel = torch.exp(-(axis**2) / (2 * 50.0**2))
        kernel = (kernel[:, None] * kernel[None] / kernel.sum() ** 2).float()
        padded = torch.from_numpy(np.pad(x, ((0, 0), (25, 25), (25, 25)), mode="reflect"))
        blank = functional.conv2d(padded[:, None], kernel[None, None])[:, 0]

    def judge(images: torch.Tensor) -> torch.Tensor:
        logits = torch.from_numpy(engine.logits(engine.features(engine.put(images.numpy()))))
        return (logits.softmax(dim=1) if score == "probability" else logits)[:, target]

    scores = judge(torch.stack([image * m + blank * (1 - m) for m in masks]))
    if merge == "positive":
        weights = functional.relu(scores - judge(blank[None]))
    elif merge == "evidence":
        weights = scores - scores.mean()
    else:
        weights = torch.zeros(len(scores))
        weights[scores.argmax()] += 1
        weights[scores.argmin()] -= 1
    return (weights[:, None, None] * masks).sum(dim=0).numpy()


@pytest.mark.parametrize("merge", MERGES)
@pytest.mark.parametrize("score", ["probability", "logit"])
@pytest.mark.parametrize("baseline", ["black", "blur"])
def test_the_map_equals_the_formula(tiny, pixels, merge, score, baseline):
    explanation = tiny.explain(pixels, target=3, clusters=6, masking="image", merge=merge, score=score, baseline=baseline)
    x, _ = preprocess_photo(pixels, tiny.manifest.preprocess)
    expected = reference(tiny, x, 3, 6, merge, score, baseline)
    found = up(torch.from_numpy(explanation.maps))[0].numpy()
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-4 * float(np.abs(expected).max()))


@pytest.mark.parametrize("merge", MERGES)
def test_the_heatmap_equals_the_formula_on_the_built_in_bundle(shapes, merge):
    pixels = np.random.default_rng(0).integers(0, 256, (96, 96, 3), np.uint8)
    explanation = shapes.explain(pixels, target=2, masking="image", merge=merge)
    x, _ = preprocess_photo(pixels, shapes.manifest.preprocess)
    expected = np.maximum(reference(shapes, x, 2, 10, merge, "probability", "black"), 0)
    span = np.ptp(expected)
    expected = (expected - expected.min()) / span if span > 0 else np.zeros_like(expected)
    np.testing.assert_allclose(explanation.network_heatmap[0], expected, rtol=0, atol=1e-4)


# --- clusters taken out of the features -----------------------------------------------------------------------------------
@pytest.mark.parametrize("merge", MERGES)
@pytest.mark.parametrize(("score", "clustering"), [("probability", "kmeans"), ("logit", "agglomerative")])
def test_masking_the_features_scores_what_the_tail_says_without_each_cluster(shapes, merge, score, clustering):
    explanation = shapes.explain(
        SAMPLES / "star_ring.png",
        target="ring",
        clusters=5,
        masking="features",
        merge=merge,
        score=score,
        clustering=clustering,
    )
    assert (explanation.run.passes, explanation.run.tail_passes, explanation.run.masked_batch) == (1, 5, 0)
    x, _ = preprocess_photo(explanation.photo.pixels, shapes.manifest.preprocess)
    folder = shapes.engine.bundle.folder
    (features,) = graphs.run(folder / "head.onnx", {"image": x[None]})
    labels = cluster(features.reshape(80, -1), 5, clustering).labels

    def judge(values: np.ndarray) -> float:
        logits = torch.from_numpy(graphs.run(folder / "tail.onnx", {"features": values})[0])[0]
        return float((logits.softmax(dim=0) if score == "probability" else logits)[shapes.manifest.labels.index("ring")])

    falls = []
    for k in range(5):
        without = features.copy()
        without[:, labels == k] = 0
        falls.append(judge(features) - judge(without))
    weights = {
        "positive": np.maximum(falls, 0),
        "evidence": np.array(falls) - np.mean(falls),
        "extremes": np.eye(5)[np.argmax(falls)] - np.eye(5)[np.argmin(falls)],
    }[merge]
    means = np.stack([features[0, labels == k].mean(axis=0) for k in range(5)])
    expected = np.tensordot(weights, scaled(up(torch.from_numpy(means), x.shape[1:])).numpy(), 1)
    found = up(torch.from_numpy(explanation.maps), x.shape[1:])[0].numpy()
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-4 * float(np.abs(expected).max()))


# --- clusters -------------------------------------------------------------------------------------------------------------
def test_the_maps_are_the_means_of_their_clusters():
    features = np.random.default_rng(0).random((2, 40, 5, 6), np.float32)
    found = cluster_maps(features, 4)
    assert found.maps.shape == (2, 4, 5, 6)
    assert found.counts.tolist() == [4, 4]
    assert found.notes == [[], []]
    for image, maps, mine in zip(features, found.maps, found.labels, strict=True):
        labels = kmeans(image.reshape(40, -1), 4).labels
        assert np.array_equal(mine, labels)
        expected = np.stack([image[labels == k].mean(axis=0) for k in range(4)])
        assert maps == pytest.approx(expected, abs=1e-6)


def test_images_are_clustered_independently():
    features = np.random.default_rng(1).random((3, 30, 4, 4), np.float32)
    together = cluster_maps(features, 5)
    alone = [cluster_maps(f[None], 5) for f in features]
    assert np.array_equal(together.maps, np.concatenate([a.maps for a in alone]))
    assert np.array_equal(together.labels, np.concatenate([a.labels for a in alone]))


@pytest.mark.parametrize("clustering", CLUSTERINGS)
def test_fewer_distinct_maps_than_clusters_are_noted_and_padded_with_zeros(clustering):
    features = np.random.default_rng(2).random((2, 12, 3, 3), np.float32)
    features[1, 3:] = features[1, 0]
    found = cluster_maps(features, 6, clustering=clustering)
    assert found.maps.shape[1] == 6
    assert found.counts.tolist() == [6, 3]
    assert found.notes == [[], ["fewer_clusters"]]
    assert not found.maps[1, 3:].any()
    assert found.maps[1, :3].any(axis=(1, 2)).all()


@pytest.mark.parametrize("clustering", CLUSTERINGS)
def test_more_clusters_than_channels_give_one_a_channel(clustering):
    features = np.random.default_rng(3).random((1, 4, 3, 3), np.float32)
    found = cluster_maps(features, 10, clustering=clustering)
    assert sorted(map(bytes, found.maps[0])) == sorted(map(bytes, features[0]))
    assert found.notes == [["fewer_clusters"]]


@pytest.mark.parametrize("clustering", CLUSTERINGS)
def test_cosine_clusters_by_place_not_by_strength(clustering):
    by_place = cluster_maps(TWO_PLACES, 2, clustering=clustering, metric="cosine").maps
    assert (by_place[0] > 0).sum(axis=(1, 2)).tolist() == [1, 1]


@pytest.mark.parametrize("clustering", ["kmeans", "agglomerative"])
def test_euclidean_clusters_by_strength_too(clustering):
    by_strength = cluster_maps(TWO_PLACES, 2, clustering=clustering, metric="euclidean").maps
    assert (by_strength[0] > 0).sum(axis=(1, 2)).max() == 2


def test_auto_takes_the_elbow():
    rng = np.random.default_rng(4)
    centres = rng.normal(0, 30, (4, 1, 5, 5))
    features = (centres + rng.normal(0, 0.3, (4, 20, 5, 5))).reshape(1, 80, 5, 5).astype(np.float32)
    assert cluster_maps(features, "auto").maps.shape[1] == 4


@pytest.mark.parametrize("clustering", ["spectral", "agglomerative"])
def test_auto_goes_with_k_means_alone(tiny, pixels, clustering):
    with pytest.raises(ParameterError, match=f"clusters='auto' goes with clustering 'kmeans', not with '{clustering}'"):
        cluster_maps(np.ones((1, 3, 2, 2), np.float32), "auto", clustering=clustering)
    with pytest.raises(ParameterError, match="Give a number"):
        tiny.explain(pixels, clusters="auto", clustering=clustering)


def test_weights_by_hand():
    scores, floor = np.array([[[0.1], [0.7], [0.4]]], np.float32), np.array([[0.2]], np.float32)
    assert cluster_weights(scores, floor, "positive")[0, :, 0] == pytest.approx([0, 0.5, 0.2])
    assert cluster_weights(scores, floor, "evidence")[0, :, 0] == pytest.approx([-0.3, 0.3, 0.0], abs=1e-6)
    assert cluster_weights(scores, floor, "extremes")[0, :, 0].tolist() == [-1, 1, 0]


def test_extremes_of_a_single_cluster_cancel():
    assert cluster_weights(np.ones((1, 1, 1)), np.zeros((1, 1)), "extremes").tolist() == [[[0]]]


def test_a_map_takes_its_least_and_greatest_from_the_upsampled_map():
    maps = np.random.default_rng(5).random((1, 3, 7, 7), np.float32)
    signed = cluster_cam(maps, np.array([[[1.0], [0.0], [0.0]]]), np.zeros((1, 1)), SIZE)
    full = up(torch.from_numpy(signed[0]))
    assert (float(full.min()), float(full.max())) == pytest.approx((0, 1), abs=1e-5)


@pytest.mark.parametrize("merge", MERGES)
@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_a_score_that_is_not_finite_makes_the_weights_nan(merge, value):
    weights = cluster_weights(np.array([[[0.1, 0.2], [value, 0.3]]]), np.zeros((1, 2)), merge)
    assert np.isnan(weights[0, :, 0]).all()
    assert np.isfinite(weights[0, :, 1]).all()


def test_a_baseline_without_masked_images_is_refused(tiny, pixels):
    with pytest.raises(ParameterError, match="masking='features' masks none"):
        tiny.explain(pixels, masking="features", baseline="blur")
