"""Cluster-CAM: cluster the feature maps, mask the image with each cluster's mean, merge by what the network then says.

Z. Feng, H. Ji, M. Daković, X. Cui, M. Zhu, L. Stanković, "Cluster-CAM: Cluster-weighted visual interpretation of CNNs'
decision in image classification", Neural Networks 178, 2024, 106473 (arXiv 2302.01642).

    M_k = mean of A_i over cluster S_k        m_k = N(up(M_k))        s_k = p_c(x ⊙ m_k + b ⊙ (1 − m_k))
    heatmap = N(ReLU(cognition-base − cognition-scissors))

The paper says that the base is forged from the clusters that speak for the class and the scissors from the others; its
authors published no code, so three readings are offered, each a weighted sum Σ w_k m_k:

    positive   w_k = ReLU(s_k − s_0), s_0 the baseline's score: no scissors
    evidence   w_k = s_k − mean_j s_j: base from the positive, scissors from the negative
    extremes   w = 1 for the highest score, −1 for the lowest, 0 between

With masking="features", which is camrt's and not the paper's, a cluster is taken out of the features instead and only the tail
runs: s_k is the loss l_k, how far the score of the class falls without cluster k, and s_0 = 0.

With masking="both", camrt's too, the network is asked from two sides: what the class gains where only a cluster is seen, and
what it loses where all is seen but a cluster of a second, finer clustering into J, which costs passes of the tail alone.
Losses are of log-odds, as a probability next to 1 hardly falls, and clusters without which the class gains are scissors.
Maps have the mean 1, so that a wide one says no more than a narrow one.  A place counts by the geometric mean, where the
class both gains and loses by it, softened by δ, so that the last bit of a zero does not show:

    G = Σ_k w_k / Σ|w| · m_k / mean m_k        L = Σ_j l_j / Σ|l| · m_j / mean m_j
    heatmap from √((ReLU(G) + δ)(ReLU(L) + δ)) − δ
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np

from camrt.clustering import CLUSTERINGS, cluster
from camrt.errors import ParameterError
from camrt.image import normalise
from camrt.kmeans import Clustering, elbow, group_means
from camrt.methods.registry import MASKED_IMAGES, SCORE, SEED, TAIL, Parameter, method

if TYPE_CHECKING:
    from camrt.case import Case

MERGES = ("positive", "evidence", "extremes")
MASKINGS = ("both", "image", "features")
SOFT = 0.1  # δ, of maps whose mean is 1
SPREAD, GOLDEN = 0.01, (5**0.5 - 1) / 2  # of the cells' weights; multiples of the golden ratio fill [0, 1) evenly


@dataclass(frozen=True)
class ClusterMaps:
    """The clusters of the feature maps.

    Attributes
    ----------
    maps : ndarray of shape (N, K, h, w), float32
        Mean feature map of every cluster.  Where an image has fewer clusters than another, its last maps are zero.
    labels : ndarray of shape (N, C), int64
        Every feature map's cluster.
    counts : ndarray of shape (N,), int64
        How many clusters each image has.
    notes : list of list of str
        For each image, what happened on the way: "fewer_clusters", "empty_cluster_reseeded".
    """

    maps: np.ndarray
    labels: np.ndarray
    counts: np.ndarray
    notes: list[list[str]]


def cluster_maps(
    features: np.ndarray,
    clusters: int | str = 10,
    *,
    clustering: str = "kmeans",
    metric: str = "euclidean",
    seed: int = 0,
) -> ClusterMaps:
    """Cluster the feature maps of every image.

    Parameters
    ----------
    features : ndarray of shape (N, C, h, w), float32
    clusters : int or "auto"
        K, or the elbow of the inertia.
    clustering : {"kmeans", "spectral", "agglomerative"}
    metric : {"euclidean", "cosine"}
        "cosine" clusters the maps scaled to unit length, the cells weighted by `cell_weights`: by where they fire, not by
        how strongly.
    seed : int

    Raises
    ------
    ParameterError
        `clusters` is "auto", and the clustering is not K-means.
    MethodUnavailable
        The clustering needs scikit-learn, which is not installed.
    """
    if clusters == "auto" and clustering != "kmeans":
        raise ParameterError(f"clusters='auto' goes with clustering 'kmeans', not with {clustering!r}. Give a number.")
    points = features.reshape(*features.shape[:2], -1)
    found = [_cluster(p, clusters, clustering, metric, seed) for p in points]
    counts = np.array([len(f.centers) for f in found])
    most = int(counts.max())
    maps = np.stack([group_means(p, f.labels, most) for p, f in zip(points, found, strict=True)])
    notes = [
        ["fewer_clusters"] * (clusters != "auto" and len(f.centers) < int(clusters)) + ["empty_cluster_reseeded"] * f.reseeded
        for f in found
    ]
    labels = np.stack([f.labels for f in found])
    return ClusterMaps(maps.reshape(len(features), most, *features.shape[2:]), labels, counts, notes)


def _cluster(points: np.ndarray, clusters: int | str, clustering: str, metric: str, seed: int) -> Clustering:
    if metric == "cosine":  # scaled by its largest value first, as squares of tiny maps underflow
        points = points / np.maximum(np.abs(points).max(axis=1, keepdims=True), np.finfo(np.float32).tiny)
        points = points / np.maximum(np.sqrt(np.einsum("cd,cd->c", points, points))[:, None], 1) * cell_weights(points.shape[1])
    return elbow(points, seed=seed) if clusters == "auto" else cluster(points, int(clusters), clustering, seed=seed)


@lru_cache(maxsize=16)
def cell_weights(cells: int) -> np.ndarray:
    """Return a weight of 1 to 1.01 for every cell (D,), no two alike.

    Maps of unit length that fire in one or two cells lie at equal distances from many centres; which of them wins would hang
    on the last bit, and differ from one machine, or runtime, to the next.
    """
    return np.asarray(1 + SPREAD * np.mod(np.arange(cells) * GOLDEN, 1), np.float32)


def cluster_weights(scores: np.ndarray, baseline: np.ndarray, merge: str, counts: np.ndarray | None = None) -> np.ndarray:
    """Return the clusters' weights.

    Parameters
    ----------
    scores : ndarray of shape (N, K, T)
        s_k of every target.
    baseline : ndarray of shape (N, T)
        s_0 of every target.
    merge : {"positive", "evidence", "extremes"}
    counts : ndarray of shape (N,), int, optional
        How many clusters each image has; the others count nowhere.  By default K.

    Returns
    -------
    ndarray of shape (N, K, T)
        w_k of every target; NaN where one of its scores is not finite.
    """
    counts = np.full(len(scores), scores.shape[1]) if counts is None else counts
    real = np.broadcast_to((np.arange(scores.shape[1]) < counts[:, None])[..., None], scores.shape)
    finite = (np.isfinite(scores) | ~real).all(axis=1, keepdims=True) & np.isfinite(baseline)[:, None]
    with np.errstate(invalid="ignore"):
        if merge == "positive":
            weights = np.maximum(scores - baseline[:, None], 0)
        elif merge == "evidence":
            weights = scores - scores.sum(axis=1, keepdims=True, where=real) / counts[:, None, None]
        else:
            weights = np.zeros_like(scores)
            highest = np.where(real, scores, -np.inf).argmax(axis=1)[:, None]
            lowest = np.where(real, scores, np.inf).argmin(axis=1)[:, None]
            np.put_along_axis(weights, highest, 1, axis=1)
            np.put_along_axis(weights, lowest, np.take_along_axis(weights, lowest, axis=1) - 1, axis=1)
    return np.where(finite, np.where(real, weights, 0), np.nan)


def cluster_cam(
    maps: np.ndarray,
    scores: np.ndarray,
    baseline: np.ndarray,
    size: tuple[int, int],
    merge: str = "positive",
    counts: np.ndarray | None = None,
) -> np.ndarray:
    """Return the signed map Σ_k w_k m_k at feature resolution.

    Parameters
    ----------
    maps : ndarray of shape (N, K, h, w)
        Mean feature map of every cluster.
    scores : ndarray of shape (N, K, T)
        s_k of every target.
    baseline : ndarray of shape (N, T)
        s_0 of every target.
    size : (int, int)
        H and W: the least and greatest values are those of the upsampled maps.
    merge : {"positive", "evidence", "extremes"}
    counts : ndarray of shape (N,), int, optional
        How many clusters each image has; by default K.

    Returns
    -------
    ndarray of shape (N, T, h, w), float32
    """
    weights = cluster_weights(scores, baseline, merge, counts)
    return np.asarray(np.einsum("nkt,nkhw->nthw", weights, normalise(maps, size)), np.float32)


def agreement(gains: np.ndarray, losses: np.ndarray) -> np.ndarray:
    """Return the map of both maskings, √((ReLU(G) + δ)(ReLU(L) + δ)) − δ: 0 where neither speaks for the class.

    Parameters
    ----------
    gains, losses : ndarray of shape (N, T, h, w)
        G and L, as `shared_map` gives them.

    Returns
    -------
    ndarray of shape (N, T, h, w), float32
    """
    both = np.sqrt((np.maximum(gains, 0) + SOFT) * (np.maximum(losses, 0) + SOFT)) - SOFT
    return np.asarray(both, np.float32)


def shared_map(maps: np.ndarray, weights: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Return Σ_k w_k / Σ|w| · m_k / mean m_k.

    Parameters
    ----------
    maps : ndarray of shape (N, K, h, w)
        Mean feature map of every cluster.
    weights : ndarray of shape (N, K, T)
    size : (int, int)
        As in `cluster_cam`.

    Returns
    -------
    ndarray of shape (N, T, h, w)
    """
    masks, total = normalise(maps, size), np.abs(weights).sum(axis=1, keepdims=True)
    mean = masks.mean(axis=(2, 3), keepdims=True)
    shares = weights / np.where(total == 0, 1, total)
    return np.asarray(np.einsum("nkt,nkhw->nthw", shares, masks / np.where(mean > 0, mean, 1)))


@method(
    "cluster-cam",
    needs=(MASKED_IMAGES, TAIL),
    passes="1 + K + J of the tail (baseline=blur: one more; masking=image: 1 + K; masking=features: 1 + K of the tail)",
    citation="Feng et al., Neural Networks 178, 2024, 106473 (arXiv 2302.01642)",
    parameters={
        "clusters": Parameter(
            10, "K, how many masked images; auto, for kmeans, takes the elbow of the inertia", ("auto",), least=1, most=4096
        ),
        "merge": Parameter("positive", "how the clusters' maps are weighted by their scores", MERGES),
        "clustering": Parameter("kmeans", "how the feature maps are grouped; all but kmeans need scikit-learn", CLUSTERINGS),
        "metric": Parameter("euclidean", "distance between feature maps", ("euclidean", "cosine")),
        "baseline": Parameter("black", "what shows where an image's mask is 0", ("black", "blur")),
        "score": SCORE,
        "masking": Parameter(
            "both", "mask the image with the clusters, as the paper does, take them out of the features, or both", MASKINGS
        ),
        "tail_clusters": Parameter(
            40, "J, of masking=both: into how many clusters the features are cut that are taken out of them", least=1, most=4096
        ),
        "seed": SEED,
    },
)
def run(
    case: Case,
    *,
    clusters: int | str,
    merge: str,
    clustering: str,
    metric: str,
    baseline: str,
    score: str,
    masking: str,
    tail_clusters: int,
    seed: int,
) -> np.ndarray:
    """Return the signed maps (N, T, h, w) of a case."""
    if masking == "features" and baseline != "black":
        raise ParameterError(
            f"baseline={baseline!r} goes with masking='both' or 'image'; masking='features' masks none. Leave out one."
        )
    with case.stage("cluster"):
        found = cluster_maps(case.features, clusters, clustering=clustering, metric=metric, seed=seed)
    case.note(found.notes)
    if masking == "features":
        losses = _losses(case, found, score)
        return cluster_cam(found.maps, losses, np.zeros_like(losses[:, 0]), case.size, merge, found.counts)
    count = found.maps.shape[1]
    scores, blank = case.masked_scores(lambda start, stop: found.maps[:, start:stop], count, baseline=baseline, score=score)
    if masking == "image":
        return cluster_cam(found.maps, scores, blank, case.size, merge, found.counts)
    gains = shared_map(found.maps, cluster_weights(scores, blank, merge, found.counts), case.size)
    with case.stage("cluster"):
        finer = cluster_maps(case.features, tail_clusters, clustering=clustering, metric=metric, seed=seed)
    losses = _losses(case, finer, "log-odds" if score == "probability" else score)
    return agreement(gains, shared_map(finer.maps, losses, case.size))


def _losses(case: Case, found: ClusterMaps, score: str) -> np.ndarray:
    """Return l_k of every target (N, K, T): how far its score falls without each cluster's features."""
    clusters_of, count = found.labels[:, None], found.maps.shape[1]

    def without(start: int, stop: int) -> np.ndarray:
        kept = np.asarray(clusters_of != np.arange(start, stop)[:, None], np.float32)
        return case.features[:, None] * kept[..., None, None]

    return np.asarray(case.scores(case.logits[:, None], score) - case.edited_scores(without, count, score=score))
