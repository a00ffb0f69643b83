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
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from camrt.image import normalise
from camrt.kmeans import Clustering, elbow, group_means, kmeans
from camrt.methods.registry import Parameter, method

if TYPE_CHECKING:
    from camrt.case import Case

MERGES = ("positive", "evidence", "extremes")


def cluster_maps(
    features: np.ndarray, clusters: int | str = 10, *, metric: str = "euclidean", seed: int = 0
) -> tuple[np.ndarray, np.ndarray, list[list[str]]]:
    """Return the mean feature map of every cluster.

    Parameters
    ----------
    features : ndarray of shape (N, C, h, w), float32
    clusters : int or "auto"
        K, or the elbow of the inertia.
    metric : {"euclidean", "cosine"}
        "cosine" clusters the maps scaled to unit length: by where they fire, not by how strongly.
    seed : int

    Returns
    -------
    maps : ndarray of shape (N, K, h, w), float32
        Where an image has fewer clusters than another, its last maps are zero.
    counts : ndarray of shape (N,), int64
        How many clusters each image has.
    notes : list of list of str
        For each image, what happened on the way: "fewer_clusters", "empty_cluster_reseeded".
    """
    points = features.reshape(*features.shape[:2], -1)
    found = [_cluster(p, clusters, metric, seed) for p in points]
    counts = np.array([len(f.centers) for f in found])
    most = int(counts.max())
    maps = np.stack([group_means(p, f.labels, most) for p, f in zip(points, found, strict=True)])
    notes = [
        ["fewer_clusters"] * (clusters != "auto" and len(f.centers) < int(clusters)) + ["empty_cluster_reseeded"] * f.reseeded
        for f in found
    ]
    return maps.reshape(len(features), most, *features.shape[2:]), counts, notes


def _cluster(points: np.ndarray, clusters: int | str, metric: str, seed: int) -> Clustering:
    if metric == "cosine":  # scaled by its largest value first, as squares of tiny maps underflow
        points = points / np.maximum(np.abs(points).max(axis=1, keepdims=True), np.finfo(np.float32).tiny)
        points = points / np.maximum(np.sqrt(np.einsum("cd,cd->c", points, points))[:, None], 1)
    return elbow(points, seed=seed) if clusters == "auto" else kmeans(points, int(clusters), seed=seed)


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


@method(
    "cluster-cam",
    needs="masked images",
    passes="1 + K (blur: 2 + K)",
    citation="Feng et al., Neural Networks 178, 2024, 106473 (arXiv 2302.01642)",
    parameters={
        "clusters": Parameter(
            10, "K, how many masked images; auto takes the elbow of the inertia", ("auto",), least=1, most=4096
        ),
        "merge": Parameter("positive", "how the clusters' maps are weighted by their scores", MERGES),
        "metric": Parameter("euclidean", "distance between feature maps", ("euclidean", "cosine")),
        "baseline": Parameter("black", "what shows where the mask is 0", ("black", "blur")),
        "score": Parameter("probability", "what the masked images are judged by", ("probability", "logit")),
        "masking": Parameter("image", "what the clusters mask", ("image",)),
        "seed": Parameter(0, "of the clustering", least=0),
    },
)
def run(
    case: Case, *, clusters: int | str, merge: str, metric: str, baseline: str, score: str, masking: str, seed: int
) -> np.ndarray:
    """Return the signed maps (N, T, h, w) of a case."""
    with case.stage("cluster"):
        maps, counts, notes = cluster_maps(case.features, clusters, metric=metric, seed=seed)
    case.note(notes)
    scores, blank = case.masked_scores(maps, baseline=baseline, score=score)
    with case.stage("merge"):
        return cluster_cam(maps, scores, blank, case.size, merge, counts)
