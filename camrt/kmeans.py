"""K-means on feature maps, in NumPy: greedy k-means++ seeding, then Lloyd's iteration until the labels repeat.

    inertia = Σ_i ‖x_i − c_{label(i)}‖²

Seeding: Arthur & Vassilvitskii, SODA 2007, with the greedy choice among 2 + ⌊ln K⌋ candidates a centre.  An empty cluster
takes the point farthest from its centre.  Everything is deterministic: the random numbers come from one table drawn from
the seed, ties go to the lowest index, clusters are ordered by size, then by their lowest point.

Products are done in blocks below the size at which OpenBLAS wakes its threads: its workers spin after a product and take
the cores from ONNX Runtime, which costs far more than they save on matrices this small.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

BLOCK = 1 << 18  # multiply-adds in one product; OpenBLAS stays on one thread up to here
MAX_ITERATIONS = 300
ELBOW_CLUSTERS = (2, 3, 4, 6, 8, 12, 16, 24, 32)  # what clusters="auto" chooses from


@dataclass(frozen=True)
class Clustering:
    """How C points fall into K clusters.

    Attributes
    ----------
    labels : ndarray of shape (C,), int64
    centers : ndarray of shape (K, D), float32
    inertia : float
    iterations : int
    reseeded : bool
        A cluster ran empty on the way and took the farthest point.
    """

    labels: np.ndarray
    centers: np.ndarray
    inertia: float
    iterations: int
    reseeded: bool

    def __repr__(self) -> str:
        return f"Clustering({len(self.labels)} points, {len(self.centers)} clusters, inertia {self.inertia:.6g})"


def kmeans(
    points: np.ndarray,
    clusters: int,
    *,
    seed: int = 0,
    init: np.ndarray | None = None,
    max_iterations: int = MAX_ITERATIONS,
) -> Clustering:
    """Return the K-means clustering of `points`.

    Parameters
    ----------
    points : ndarray of shape (C, D)
        Finite.  Computed in float32.
    clusters : int
        K, at least 1.  Fewer distinct points than that give fewer clusters.
    seed : int, default 0
        Of the table of uniforms for the seeding; unused with `init`.
    init : ndarray of shape (K, D), optional
        Initial centres instead of k-means++.
    max_iterations : int, default 300
        Bound on the assignments; the iteration stops earlier, when the labels repeat.

    Examples
    --------
    >>> kmeans(np.array([[0.0], [0.1], [5.0]]), 2).labels
    array([0, 0, 1])
    """
    points = np.ascontiguousarray(points, np.float32)
    if points.ndim != 2 or not points.size:
        raise ValueError(f"points must be a non-empty (C, D) array, got shape {points.shape}.")
    if clusters < 1:
        raise ValueError(f"clusters must be at least 1, got {clusters}.")
    # Scaled by a power of two, which is exact, squares cannot overflow; around the mean they cancel less.
    exponent = int(np.frexp(np.abs(points).max())[1])
    x = np.ldexp(points, -exponent)
    mean = x.mean(axis=0)
    x -= mean
    squares = np.einsum("cd,cd->c", x, x)
    if init is None:
        chosen = _seed_centers(x, squares, min(clusters, count_distinct(points)), seed)
        centers = x[chosen]
    else:
        centers = np.ldexp(np.asarray(init, np.float32), -exponent) - mean
    labels, centers, iterations, reseeded = _lloyd(x, squares, centers, max_iterations)
    labels, centers = _order(labels, centers)
    inertia = math.ldexp(_inertia(x, labels, centers), 2 * exponent)
    return Clustering(labels, np.ldexp(centers + mean, exponent), inertia, iterations, reseeded)


def elbow(points: np.ndarray, *, seed: int = 0) -> Clustering:
    """Return the clustering at the elbow of the inertia.

    The elbow is the K at which the curve of inertia over log K, both scaled to [0, 1], lies farthest below the straight line
    between its ends (Satopää et al., "Finding a kneedle in a haystack", ICDCSW 2011).
    """
    limit = min(ELBOW_CLUSTERS[-1], count_distinct(points))
    tried = [kmeans(points, k, seed=seed) for k in ELBOW_CLUSTERS if k <= limit] or [kmeans(points, limit, seed=seed)]
    inertia = np.array([t.inertia for t in tried])
    if len(tried) < 3 or inertia[0] <= inertia[-1]:
        return tried[-1]
    x = np.log([len(t.centers) for t in tried])
    x = (x - x[0]) / max(x[-1] - x[0], 1e-12)
    y = (inertia - inertia[-1]) / (inertia[0] - inertia[-1])
    return tried[int(np.argmax(1 - x - y))]


def count_distinct(points: np.ndarray) -> int:
    """Return how many different rows there are (0.0 and −0.0 are one), by an exact 64-bit hash of each row."""
    bits = np.ascontiguousarray(points.astype(np.float32, copy=False) + np.float32(0)).view(np.uint32).astype(np.uint64)
    odd = np.random.default_rng(1).integers(0, 1 << 63, bits.shape[1], np.uint64) * np.uint64(2) + np.uint64(1)
    mixed = bits * np.uint64(0x9E3779B97F4A7C15)
    mixed ^= mixed >> np.uint64(29)
    return len(np.unique(np.einsum("cd,d->c", mixed, odd)))


def group_means(points: np.ndarray, labels: np.ndarray, clusters: int) -> np.ndarray:
    """Return the mean (K, D) of the points (C, D) in every cluster; labels outside 0…K−1 count nowhere."""
    member = (labels[None, :] == np.arange(clusters)[:, None]).astype(np.float32)
    counts = np.maximum(member.sum(axis=1), 1)
    return _product(member, points) / counts[:, None]


# --- seeding --------------------------------------------------------------------------------------------------------
def _seed_centers(x: np.ndarray, squares: np.ndarray, clusters: int, seed: int) -> list[int]:
    """Return the indices of up to K points chosen by greedy k-means++; fewer when no point is away from them all."""
    uniforms = np.random.default_rng(seed).random((clusters, 2 + int(math.log(clusters))))
    chosen = [min(int(uniforms[0, 0] * len(x)), len(x) - 1)]
    nearest = _squared_distances(x, squares, chosen)[:, 0]
    for row in uniforms[1:]:
        cumulative = np.cumsum(nearest, dtype=np.float64)
        if cumulative[-1] <= 0:
            break
        candidates = np.searchsorted(cumulative, row * cumulative[-1], side="right")
        candidates = np.minimum(candidates, len(x) - 1)
        improved = np.minimum(_squared_distances(x, squares, candidates), nearest[:, None])
        best = int(np.argmin(improved.sum(axis=0, dtype=np.float64)))
        chosen.append(int(candidates[best]))
        nearest = improved[:, best]
    return chosen


def _squared_distances(x: np.ndarray, squares: np.ndarray, chosen: list[int] | np.ndarray) -> np.ndarray:
    """Return ‖x_i − x_j‖² (C, len(chosen)); 0 where it is below what float32 can tell from 0."""
    sums = squares[:, None] + squares[chosen]
    distances = sums - 2 * _product(x, x[chosen].T)
    distances[distances <= sums * (4 * np.finfo(np.float32).eps)] = 0
    return distances


# --- Lloyd ----------------------------------------------------------------------------------------------------------
def _lloyd(
    x: np.ndarray, squares: np.ndarray, centers: np.ndarray, max_iterations: int
) -> tuple[np.ndarray, np.ndarray, int, bool]:
    clusters = len(centers)
    labels, reseeded = np.full(len(x), -1), False
    for iteration in range(1, max_iterations + 1):
        # ‖x‖² is the same for every centre, so the nearest one is told by ‖c‖² − 2 x·c.
        scores = np.einsum("kd,kd->k", centers, centers) - 2 * _product(x, centers.T)
        previous, labels = labels, scores.argmin(axis=1)
        if np.array_equal(previous, labels):
            break
        assigned = labels
        empty = np.flatnonzero(np.bincount(labels, minlength=clusters) == 0)
        if len(empty):
            reseeded = True
            distances = squares + scores[np.arange(len(x)), labels]
            farthest = np.argsort(-distances, kind="stable")[: len(empty)]
            assigned = labels.copy()
            assigned[farthest] = empty
        centers = group_means(x, assigned, clusters)
    return labels, centers, iteration, reseeded


def _order(labels: np.ndarray, centers: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Number the clusters by size, then by lowest point; drop those that ended empty."""
    counts = np.bincount(labels, minlength=len(centers))
    first = np.full(len(centers), len(labels))
    np.minimum.at(first, labels, np.arange(len(labels)))
    order = np.lexsort((first, -counts))[: np.count_nonzero(counts)]
    rank = np.empty(len(centers), int)
    rank[order] = np.arange(len(order))
    return rank[labels], centers[order]


def _inertia(x: np.ndarray, labels: np.ndarray, centers: np.ndarray) -> float:
    difference = x - centers[labels]
    return float(np.einsum("cd,cd->c", difference, difference).sum(dtype=np.float64))


# --- arithmetic -----------------------------------------------------------------------------------------------------
def _product(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Return a @ b in blocks of at most BLOCK multiply-adds; (m, k) times (k, n)."""
    m, k = a.shape
    n = b.shape[1]
    depth = min(k, max(1, BLOCK // (8 * n)))
    rows = max(1, BLOCK // (depth * n))
    out = np.empty((m, n), np.float32)
    for top in range(0, m, rows):
        block = slice(top, top + rows)
        np.matmul(a[block, :depth], b[:depth], out=out[block])
        for start in range(depth, k, depth):
            out[block] += a[block, start : start + depth] @ b[start : start + depth]
    return out

