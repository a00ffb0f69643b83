"""Cluster-CAM against its formula, written here in torch, step by step."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch.nn import functional

from camrt.errors import ParameterError, UnknownMethod
from camrt.image import preprocess_photo
from camrt.kmeans import kmeans
from camrt.methods import METHODS, cluster_cam, cluster_maps, get_method
from camrt.methods.cluster_cam import MERGES, cluster_weights

SIZE = (32, 32)


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
    explanation = tiny.explain(pixels, target=3, clusters=6, merge=merge, score=score, baseline=baseline)
    x, _ = preprocess_photo(pixels, tiny.manifest.preprocess)
    expected = reference(tiny, x, 3, 6, merge, score, baseline)
    found = up(torch.from_numpy(explanation.maps))[0].numpy()
    assert found == pytest.approx(expected, abs=1e-4 * float(np.abs(expected).max()))


@pytest.mark.parametrize("merge", MERGES)
def test_the_heatmap_equals_the_formula_on_the_built_in_bundle(shapes, merge):
    pixels = np.random.default_rng(0).integers(0, 256, (96, 96, 3), np.uint8)
    explanation = shapes.explain(pixels, target=2, merge=merge)
    x, _ = preprocess_photo(pixels, shapes.manifest.preprocess)
    expected = np.maximum(reference(shapes, x, 2, 10, merge, "probability", "black"), 0)
    span = np.ptp(expected)
    expected = (expected - expected.min()) / span if span > 0 else np.zeros_like(expected)
    assert explanation.network_heatmap[0] == pytest.approx(expected, abs=1e-4)


def test_the_maps_are_the_means_of_their_clusters():
    features = np.random.default_rng(0).random((2, 40, 5, 6), np.float32)
    maps, _, notes = cluster_maps(features, 4)
    assert maps.shape == (2, 4, 5, 6)
    assert notes == [[], []]
    for image, found in zip(features, maps, strict=True):
        labels = kmeans(image.reshape(40, -1), 4).labels
        expected = np.stack([image[labels == k].mean(axis=0) for k in range(4)])
        assert found == pytest.approx(expected, abs=1e-6)


def test_images_are_clustered_independently():
    features = np.random.default_rng(1).random((3, 30, 4, 4), np.float32)
    together, _, _ = cluster_maps(features, 5)
    alone = np.concatenate([cluster_maps(f[None], 5)[0] for f in features])
    assert np.array_equal(together, alone)


def test_fewer_distinct_maps_than_clusters_are_noted_and_padded_with_zeros():
    features = np.random.default_rng(2).random((2, 12, 3, 3), np.float32)
    features[1, 3:] = features[1, 0]
    maps, _, notes = cluster_maps(features, 6)
    assert maps.shape[1] == 6
    assert notes == [[], ["fewer_clusters"]]
    assert not maps[1, 3:].any()
    assert maps[1, :3].any(axis=(1, 2)).all()


def test_more_clusters_than_channels_give_one_a_channel():
    features = np.random.default_rng(3).random((1, 4, 3, 3), np.float32)
    maps, _, notes = cluster_maps(features, 10)
    assert sorted(map(bytes, maps[0])) == sorted(map(bytes, features[0]))
    assert notes == [["fewer_clusters"]]


def test_cosine_clusters_by_place_not_by_strength():
    places = np.eye(9, dtype=np.float32).reshape(9, 3, 3)[[0, 4]]
    features = np.concatenate([places * s for s in (0.1, 1, 50)])[None]
    maps, _, _ = cluster_maps(features, 2, metric="cosine")
    assert (maps[0] > 0).sum(axis=(1, 2)).tolist() == [1, 1]
    by_strength, _, _ = cluster_maps(features, 2, metric="euclidean")
    assert (by_strength[0] > 0).sum(axis=(1, 2)).max() == 2


def test_auto_takes_the_elbow():
    rng = np.random.default_rng(4)
    centres = rng.normal(0, 30, (4, 1, 5, 5))
    features = (centres + rng.normal(0, 0.3, (4, 20, 5, 5))).reshape(1, 80, 5, 5).astype(np.float32)
    assert cluster_maps(features, "auto")[0].shape[1] == 4


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


# --- the catalogue ------------------------------------------------------------------------------------------------------
def test_every_method_says_what_it_costs_and_where_it_is_from():
    for name, method in METHODS.items():
        assert method.name == name
        assert "arXiv" in method.citation
        assert method.passes
        assert method.needs


def test_an_unknown_method_is_refused_with_the_nearest():
    with pytest.raises(UnknownMethod, match="Did you mean 'cluster-cam'"):
        get_method("cluster-cm")


@pytest.mark.parametrize(("given", "text"), [
    ({"cluster": 3}, "no parameter 'cluster'.*Did you mean 'clusters'"),
    ({"clusters": 0}, "whole number from 1 to 4096 or auto, got 0"),
    ({"clusters": 2.5}, "got 2.5"),
    ({"clusters": "many"}, "got 'many'"),
    ({"clusters": True}, "got True"),
    ({"clusters": None}, "got None"),
    ({"clusters": float("nan")}, "got nan"),
    ({"merge": "evidense"}, "Did you mean 'evidence'"),
    ({"seed": -1}, "from 0 to"),
])  # fmt: skip
def test_parameters_outside_what_is_allowed_are_refused(given, text):
    with pytest.raises(ParameterError, match=text):
        METHODS["cluster-cam"].settings(given)


def test_text_that_is_a_number_counts_as_one():
    settings = METHODS["cluster-cam"].settings({"clusters": "32", "seed": np.int64(5)})
    assert (settings["clusters"], settings["seed"], settings["merge"]) == (32, 5, "positive")
