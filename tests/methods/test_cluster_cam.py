"""Cluster-CAM: clusters of the feature maps mask the image, or are taken out of the features, and the network judges."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache, partial

import numpy as np
import pytest
import torch
from torch import Tensor

from camrt.clustering import cluster
from tests.methods.judge import Judge, N, blurred, check, masked, up


@cache
def clustered(judge: Judge, x: Tensor, clusters: int, clustering: str) -> tuple[np.ndarray, Tensor]:
    """Every map's cluster, and the masks N(up(M_k))."""
    points = judge.engine_features(x)
    labels = cluster(points.reshape(len(points), -1), clusters, clustering).labels
    features = judge.features(x)
    return labels, N(up(torch.stack([features[labels == k].mean(dim=0) for k in range(clusters)])))


def merged(scores: Tensor, floor: Tensor | float, masks: Tensor, merge: str) -> Tensor:
    """base − scissors of the three readings."""
    if merge == "extremes":
        return masks[scores.argmax()] - masks[scores.argmin()]
    weights = (scores - floor).relu() if merge == "positive" else scores - scores.mean()
    base, scissors = (torch.einsum("k,khw->hw", part.relu(), masks) for part in (weights, -weights))
    return base - scissors


def judged(judge: Judge, score: str) -> Callable[[Tensor], Tensor]:
    return judge.probabilities if score == "probability" else lambda logits: logits


def image_masking(
    judge: Judge, x: Tensor, classes: Tensor, clusters: int, merge: str = "positive", clustering: str = "kmeans",
    score: str = "probability", baseline: str = "black",
) -> Tensor:  # fmt: skip
    """s_k = score of the masked image, s_0 of the baseline; the map as large as the image."""
    _, masks = clustered(judge, x, clusters, clustering)
    blank = blurred(x) if baseline == "blur" else torch.zeros_like(x)
    value = judged(judge, score)
    scores, floor = (value(judge.logits(images)) @ classes for images in (masked(x, masks, blank), blank))
    return merged(scores, floor[0], masks, merge)


def feature_masking(
    judge: Judge, x: Tensor, classes: Tensor, clusters: int, merge: str = "positive", clustering: str = "kmeans",
    score: str = "probability",
) -> Tensor:  # fmt: skip
    """s_k = how far the score falls when cluster k is taken out of the features, one tail pass each; s_0 = 0."""
    labels, masks = clustered(judge, x, clusters, clustering)
    value = judged(judge, score)
    whole = value(judge.logits(x))[0] @ classes
    falls = []
    for k in range(clusters):
        kept = torch.tensor(labels != k, dtype=torch.float64)[:, None, None]
        falls.append(whole - value(judge.edited(x, kept))[0] @ classes)
    return merged(torch.stack(falls), 0.0, masks, merge)


def both_maskings(
    judge: Judge, x: Tensor, classes: Tensor, clusters: int, merge: str = "positive", clustering: str = "kmeans",
    score: str = "probability", baseline: str = "black", tail_clusters: int = 40,
) -> Tensor:  # fmt: skip
    """√((ReLU(G) + δ)(ReLU(L) + δ)) − δ: by what the class gains where only a cluster is seen, and loses in log-odds where all is but a finer one."""
    _, masks = clustered(judge, x, clusters, clustering)
    labels, _ = clustered(judge, x, tail_clusters, clustering)
    blank = blurred(x) if baseline == "blur" else torch.zeros_like(x)
    value = judged(judge, score)
    scores, floor = (value(judge.logits(images)) @ classes for images in (masked(x, masks, blank), blank))
    if merge == "extremes":
        gains = torch.zeros_like(scores)
        gains[scores.argmax()] += 1
        gains[scores.argmin()] -= 1
    else:
        gains = (scores - floor[0]).relu() if merge == "positive" else scores - scores.mean()

    def odds(logits: Tensor) -> Tensor:
        return (torch.logit(judge.probabilities(logits)) if score == "probability" else logits)[0] @ classes

    kept = [torch.tensor(labels != k, dtype=torch.float64)[:, None, None] for k in range(tail_clusters)]
    losses = torch.stack([odds(judge.logits(x)) - odds(judge.edited(x, k)) for k in kept])
    g, l = (shared(judge, x, side, clustering) for side in (gains, losses))  # noqa: E741
    return ((g.relu() + 0.1) * (l.relu() + 0.1)).sqrt() - 0.1


def shared(judge: Judge, x: Tensor, weights: Tensor, clustering: str) -> Tensor:
    """Σ_k w_k / Σ|w| · m_k / mean m_k, at feature resolution: what is multiplied there is no sum of upsampled maps."""
    labels, masks = clustered(judge, x, len(weights), clustering)
    points = torch.from_numpy(judge.engine_features(x)).double()
    cells = torch.stack([points[labels == k].mean(dim=0) for k in range(len(weights))])
    low, high = masks_range(cells, masks.shape[1:])
    spread = torch.where(high > low, high - low, 1)
    small = (cells - low) / spread
    mean = small.mean(dim=(1, 2), keepdim=True)
    return torch.einsum("k,khw->hw", weights / (weights.abs().sum() or 1), small / torch.where(mean > 0, mean, 1))


def masks_range(cells: Tensor, size: tuple[int, ...]) -> tuple[Tensor, Tensor]:
    """Return the least and greatest value of every map, upsampled."""
    high_resolution = torch.nn.functional.interpolate(cells[None], size=tuple(size), mode="bilinear")[0]
    return high_resolution.amin(dim=(1, 2), keepdim=True), high_resolution.amax(dim=(1, 2), keepdim=True)


MERGES = ["positive", "evidence", "extremes"]


@pytest.mark.parametrize("merge", MERGES)
@pytest.mark.parametrize("score", ["probability", "logit"])
def test_masking_both_the_map_equals_the_formula(judge, merge, score):
    formula = partial(both_maskings, clusters=7, tail_clusters=12, merge=merge, score=score)
    check(judge, "cluster-cam", formula, clusters=7, tail_clusters=12, merge=merge, score=score)


@pytest.mark.parametrize("options", [{"baseline": "blur"}, {"clustering": "agglomerative"}])
def test_masking_both_with_other_options_the_map_equals_the_formula(late, options):
    formula = partial(both_maskings, clusters=6, tail_clusters=9, **options)
    check(late, "cluster-cam", formula, clusters=6, tail_clusters=9, **options)


@pytest.mark.parametrize("merge", MERGES)
@pytest.mark.parametrize("score", ["probability", "logit"])
def test_the_map_equals_the_formula(judge, merge, score):
    formula = partial(image_masking, clusters=7, merge=merge, score=score)
    check(judge, "cluster-cam", formula, whole=True, clusters=7, masking="image", merge=merge, score=score)


@pytest.mark.parametrize("merge", MERGES)
def test_over_a_blurred_baseline_the_map_equals_the_formula(late, merge):
    formula = partial(image_masking, clusters=7, merge=merge, baseline="blur")
    check(late, "cluster-cam", formula, whole=True, clusters=7, masking="image", merge=merge, baseline="blur")


@pytest.mark.parametrize("clustering", ["spectral", "agglomerative"])
def test_with_other_clusterings_the_map_equals_the_formula(judge, clustering):
    formula = partial(image_masking, clusters=6, clustering=clustering)
    check(judge, "cluster-cam", formula, whole=True, clusters=6, masking="image", clustering=clustering)


@pytest.mark.parametrize("merge", MERGES)
@pytest.mark.parametrize("score", ["probability", "logit"])
def test_masking_the_features_the_map_equals_the_formula(judge, merge, score):
    formula = partial(feature_masking, clusters=7, merge=merge, score=score)
    check(judge, "cluster-cam", formula, whole=True, clusters=7, masking="features", merge=merge, score=score)


@pytest.mark.parametrize("clustering", ["spectral", "agglomerative"])
def test_masking_the_features_of_other_clusterings_the_map_equals_the_formula(late, clustering):
    formula = partial(feature_masking, clusters=6, clustering=clustering)
    check(late, "cluster-cam", formula, whole=True, clusters=6, masking="features", clustering=clustering)


@pytest.mark.parametrize("masking", ["image", "features"])
def test_a_probability_is_a_sigmoid_where_the_bundle_says_so(yes_no, masking):
    formula = partial(image_masking if masking == "image" else feature_masking, clusters=7, merge="evidence")
    check(yes_no, "cluster-cam", formula, whole=True, clusters=7, merge="evidence", masking=masking)
