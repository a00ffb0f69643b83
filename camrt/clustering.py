"""Cluster points by name: our own K-means, or scikit-learn's spectral and agglomerative clustering."""

from __future__ import annotations

from typing import Any

import numpy as np

from camrt.errors import MethodUnavailable
from camrt.kmeans import Clustering, by_size, group_means, kmeans

CLUSTERINGS = ("kmeans", "spectral", "agglomerative")
FARTHEST = 700.0  # d² / mean d²; exp(−700) is not yet 0, which would cut the graph into parts


def cluster(points: np.ndarray, clusters: int, clustering: str = "kmeans", *, seed: int = 0) -> Clustering:
    """Group points.

    Parameters
    ----------
    points : ndarray of shape (C, D), float32
    clusters : int
        K; fewer distinct points than that give fewer clusters.
    clustering : {"kmeans", "spectral", "agglomerative"}
        "spectral" cuts the graph of similarities exp(−d² / mean d²), "agglomerative" merges by Ward's criterion; both need
        scikit-learn and time that grows with C³ and C².
    seed : int, default 0
        Unused by "agglomerative".

    Raises
    ------
    MethodUnavailable
        scikit-learn is not installed.
    """
    if clustering == "kmeans":
        return kmeans(points, clusters, seed=seed)
    points = np.ascontiguousarray(points)  # BLAS sums in another order where they lie otherwise
    distinct, row_of = np.unique(points, axis=0, return_inverse=True)
    found = min(clusters, len(distinct))
    if found == 1:
        labels = np.zeros(len(points), int)
    elif found == len(distinct):
        labels = row_of.ravel()
    else:
        labels = (_spectral if clustering == "spectral" else _agglomerative)(points.astype(np.float64), found, seed)
    labels, centers = by_size(labels, group_means(points, labels, found))
    inertia = float(((points.astype(np.float64) - centers[labels]) ** 2).sum())
    return Clustering(labels, centers, inertia, iterations=0, reseeded=False)


def _spectral(points: np.ndarray, clusters: int, seed: int) -> np.ndarray:
    sklearn_cluster = _scikit_learn("spectral")
    squares = np.einsum("cd,cd->c", points, points)
    distances = np.maximum(squares[:, None] + squares - 2 * points @ points.T, 0)
    affinity = np.exp(-np.minimum(distances / distances.mean(), FARTHEST))
    model = sklearn_cluster.SpectralClustering(clusters, affinity="precomputed", assign_labels="cluster_qr", random_state=seed)
    return np.asarray(model.fit_predict(affinity))


def _agglomerative(points: np.ndarray, clusters: int, _: int) -> np.ndarray:
    return np.asarray(_scikit_learn("agglomerative").AgglomerativeClustering(clusters, linkage="ward").fit_predict(points))


def _scikit_learn(clustering: str) -> Any:
    """Import the module when it is first needed."""
    try:
        import sklearn.cluster
    except ImportError as error:
        raise MethodUnavailable(
            f"clustering {clustering!r} needs scikit-learn ({error}): pip install scikit-learn, or take clustering 'kmeans'."
        ) from None
    return sklearn.cluster
