"""Group-CAM: groups of Â_i = mean_hw(g_i) · A_i mask the image over its blurred self."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import numpy as np
import pytest
import torch
from torch import Tensor

from camrt.clustering import cluster
from camrt.methods import group_maps
from tests.methods.judge import Judge, N, blurred, check, masked, up

Grouping = Callable[[Judge, Tensor, Tensor, Tensor], list[Tensor]]  # judge, x, classes, Â (C, h, w) → groups of Â


def chunks(groups: int) -> Grouping:
    return lambda judge, x, classes, weighted: list(weighted.chunk(min(groups, len(weighted))))


def clusters(groups: int, clustering: str, seed: int = 0) -> Grouping:
    def group(judge: Judge, x: Tensor, classes: Tensor, weighted: Tensor) -> list[Tensor]:
        rows = judge.engine_gradients(x, classes).mean(axis=(1, 2))[:, None, None] * judge.engine_features(x)
        labels = cluster(rows.reshape(len(rows), -1), min(groups, len(rows)), clustering, seed=seed).labels
        return [weighted[labels == j] for j in range(labels.max() + 1)]

    return group


def reference(
    judge: Judge,
    x: Tensor,
    classes: Tensor,
    grouping: Grouping,
    denoise: float = 0,
    variant: str = "2021-08",
    score: str = "probability",
) -> Tensor:
    """The map as large as the image, Σ_j ReLU(s_j) · up(M_j) or Σ_j s_j · m_j."""
    weighted = judge.gradients(x, classes).mean(dim=(1, 2), keepdim=True) * judge.features(x)
    maps = torch.stack([group.sum(dim=0).relu() for group in grouping(judge, x, classes, weighted)])
    if denoise:
        floor = maps.flatten(1).quantile(denoise, dim=1)[:, None, None]
        maps = torch.where(maps > floor, maps, 0)
    masks, blur = N(up(maps)), blurred(x)
    logits, blank = judge.logits(masked(x, masks, blur)), judge.logits(blur)
    scores = logits - blank if score == "logit" else judge.probabilities(logits) - judge.probabilities(blank)
    if variant == "2021-08":
        return torch.einsum("k,khw->hw", (scores @ classes).relu(), up(maps))
    return torch.einsum("k,khw->hw", scores @ classes, masks)


@pytest.mark.parametrize("groups", [32, 10, 6, 1])  # of 40 and of 20 channels: fewer, divided evenly and not
def test_with_chunks_the_map_equals_the_formula(judge, groups):
    check(judge, "group-cam", partial(reference, grouping=chunks(groups)), whole=True, groups=groups)


@pytest.mark.parametrize("clustering", ["kmeans", "agglomerative"])
def test_with_clusters_of_the_weighted_maps_the_map_equals_the_formula(judge, clustering):
    formula = partial(reference, grouping=clusters(8, clustering, seed=5))
    check(judge, "group-cam", formula, whole=True, groups=8, grouping=clustering, seed=5)


def test_by_logits_the_map_equals_the_formula(judge):
    check(judge, "group-cam", partial(reference, grouping=chunks(8), score="logit"), whole=True, groups=8, score="logit")


@pytest.mark.parametrize("variant", ["2021-08", "2021-03"])
def test_denoised_the_map_equals_the_formula(judge, variant):
    formula = partial(reference, grouping=chunks(8), denoise=0.25, variant=variant)
    check(judge, "group-cam", formula, whole=True, groups=8, denoise=0.25, variant=variant)


@pytest.mark.parametrize(("parameters", "denoise"), [({}, 0.7), ({"denoise": 0}, 0)], ids=["auto", "none"])
def test_the_map_of_march_equals_the_formula_and_is_denoised_unless_told_otherwise(judge, parameters, denoise):
    formula = partial(reference, grouping=chunks(8), denoise=denoise, variant="2021-03")
    check(judge, "group-cam", formula, whole=True, groups=8, variant="2021-03", **parameters)


def test_a_probability_is_a_sigmoid_where_the_bundle_says_so(yes_no):
    check(yes_no, "group-cam", partial(reference, grouping=chunks(10)), whole=True, groups=10)


def test_every_channel_is_in_one_group():
    random = np.random.default_rng(0)
    features, gradients = random.random((1, 13, 3, 4), np.float32), random.random((1, 2, 13, 3, 4), np.float32)
    whole = gradients.mean(axis=(3, 4))[..., None, None] * features[:, None]
    for grouping in ("chunks", "kmeans", "agglomerative"):
        maps = group_maps(features, gradients, 5, grouping=grouping)
        assert maps.shape == (1, 2, 5, 3, 4)
        assert maps.sum(axis=2) == pytest.approx(whole.sum(axis=2), rel=1e-5)  # nothing is negative here
