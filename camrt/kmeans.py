"""K-means on feature maps, in NumPy: greedy k-means++ seeding, then Lloyd's iteration until the labels repeat.

    inertia = Σ_i ‖x_i − c_{label(i)}‖²

Seeding: Arthur & Vassilvitskii, SODA 2007, with the greedy choice among 2 + ⌊ln K⌋ candidates a centre.  An empty cluster
takes the point farthest from its centre.  Everything is deterministic: the random numbers come from one table drawn from
the seed, ties go to the lowest index, clusters are ordered by size, then by their lowest point.  What float32 cannot tell
apart is a tie: quantised and sparse maps tie exactly, and which one wins must not hang on the order of a sum.

Products are done in blocks below the size at which OpenBLAS wakes its threads: its workers spin after a product and take
the cores from ONNX Runtime, which costs far more than they save on matrices this small.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

BLOCK = 1 << 18  # multiply-adds in one product; OpenBLAS stays on one thread up to here
MAX_ITERATIONS = 300
TIE = np.float32(5e-7)  # of ‖x‖² + ‖x − c‖², of a sum of squares: what lies closer is equal
ROUNDING = np.float32(4 * np.finfo(np.float32).eps)  # of a point's own values, when it was scaled
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

    Returns
    -------
    Clustering

    Raises
    ------
    ValueError
        `points` is empty or not two-dimensional, or `clusters` is below 1.

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
    exponent = int(np.frexp(max(points.max(), -points.min()))[1])
    rows, weights, row_of = _merge_dead(_scale(points, -exponent))
    x, mean = _centered(rows)
    squares = np.einsum("cd,cd->c", x[:, :-1], x[:, :-1])
    if init is None:
        negligible = _negligible(rows, squares)
        centers = x[_seed_centers(x, squares, negligible, weights, clusters, seed), :-1]
    else:
        centers = _scale(np.asarray(init, np.float32), -exponent) - mean
    labels, centers, iterations, reseeded = _lloyd(x, squares, weights, centers, max_iterations)
    inertia = math.ldexp(_inertia(x[:, :-1], weights, labels, centers), 2 * exponent)
    labels, centers = by_size(labels[row_of], centers)
    return Clustering(labels, _scale(centers + mean, exponent), inertia, iterations, reseeded)


def elbow(points: np.ndarray, *, seed: int = 0) -> Clustering:
    """Return the clustering at the elbow of the inertia.

    The elbow is the K at which the curve of inertia over log K, both scaled to [0, 1], lies farthest below the straight line
    between its ends (Satopää et al., "Finding a kneedle in a haystack", ICDCSW 2011).

    Parameters
    ----------
    points : ndarray of shape (C, D)
    seed : int, default 0
    """
    tried = [kmeans(points, ELBOW_CLUSTERS[0], seed=seed)]
    for clusters in ELBOW_CLUSTERS[1:]:
        found = kmeans(points, clusters, seed=seed)
        if len(found.centers) <= len(tried[-1].centers):  # there are no more distinct points
            break
        tried.append(found)
    inertia = np.array([t.inertia for t in tried])
    if len(tried) < 3 or inertia[0] <= inertia[-1]:
        return tried[-1]
    x = np.log([len(t.centers) for t in tried])
    x = (x - x[0]) / (x[-1] - x[0])
    y = (inertia - inertia[-1]) / (inertia[0] - inertia[-1])
    return tried[int(np.argmax(1 - x - y))]


def group_means(points: np.ndarray, labels: np.ndarray, clusters: int) -> np.ndarray:
    """Return the mean (K, D) of the points (C, D) in every cluster; zeros for one without points."""
    member = _members(labels, clusters)
    counts = np.maximum(member.sum(axis=1), 1)
    return np.asarray(_product(member, points) / counts[:, None])


def _merge_dead(points: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return distinct rows (R, D), how many points each stands for (R,), and every point's row (C,).

    Only points that are 0 throughout are merged, into the row of the first: channels that are dead after a ReLU, often
    half of them.
    """
    alive = np.einsum("cd,cd->c", points, points) > 0
    dead = np.flatnonzero(~alive)
    if len(dead) < 2:
        return points, np.ones(len(points), np.float32), np.arange(len(points))
    alive[dead[0]] = True
    row_of = np.cumsum(alive) - 1
    row_of[dead] = row_of[dead[0]]
    weights = np.ones(np.count_nonzero(alive), np.float32)
    weights[row_of[dead[0]]] = len(dead)
    return points[alive], weights, row_of


def _centered(points: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the points around their mean with a column of ones (C, D + 1), and that mean (D,).

    With the column a product with (−2 c, ‖c‖²) is ‖x − c‖² − ‖x‖² at once, and a sum of rows ends in their count.
    """
    x = np.empty((len(points), points.shape[1] + 1), np.float32)
    mean = points.mean(axis=0)
    np.subtract(points, mean, out=x[:, :-1])
    x[:, -1] = 1
    return x, mean


# --- seeding --------------------------------------------------------------------------------------------------------
def _seed_centers(
    x: np.ndarray, squares: np.ndarray, negligible: np.ndarray, weights: np.ndarray, clusters: int, seed: int
) -> list[int]:
    """Return the indices of K points chosen by greedy k-means++; fewer when no point is away from them all."""
    table = uniforms(clusters, seed)[: len(x)]
    chosen = [int(np.searchsorted(np.cumsum(weights, dtype=np.float64), table[0, 0] * weights.sum(), side="right"))]
    nearest = _squared_distances(x, squares, negligible, chosen)[0]
    for row in table[1:]:
        cumulative = np.cumsum(nearest * weights, dtype=np.float64)
        if cumulative[-1] <= 0:
            break
        candidates = np.searchsorted(cumulative, row * cumulative[-1], side="right")
        np.minimum(candidates, len(x) - 1, out=candidates)
        improved = _squared_distances(x, squares, negligible, candidates)
        np.minimum(improved, nearest, out=improved)
        potential = np.einsum("tc,c->t", improved, weights, dtype=np.float64)
        best = int((potential <= potential.min() * (1 + TIE)).argmax())
        chosen.append(int(candidates[best]))
        nearest = improved[best]
    return chosen


@lru_cache(maxsize=16)
def uniforms(clusters: int, seed: int) -> np.ndarray:
    """Return the table (K, 2 + ⌊ln K⌋) of random numbers that seeds every image alike."""
    return np.random.default_rng(seed).random((clusters, 2 + int(math.log(clusters))))


def _negligible(rows: np.ndarray, squares: np.ndarray) -> np.ndarray:
    """Return what float32 cannot tell from 0 as half of a squared distance (R,), of rows and their squares around the mean."""
    return np.asarray(squares * product_error(rows.shape[1]) + np.einsum("cd,cd->c", rows, rows) * ROUNDING**2)


def product_error(terms: int) -> np.float32:
    """Return the error of a product of so many terms over its size: it grows like their root."""
    return np.float32(max(8.0, math.sqrt(terms)) * np.finfo(np.float32).eps)


def _squared_distances(
    x: np.ndarray, squares: np.ndarray, negligible: np.ndarray, chosen: list[int] | np.ndarray
) -> np.ndarray:
    """Return ‖x_i − x_j‖² (len(chosen), C); 0 where it is negligible."""
    distances = _product(_homogeneous(x[chosen, :-1], squares[chosen]), x.T)
    distances += squares
    distances[distances <= negligible + negligible[chosen, None]] = 0
    return distances


def _homogeneous(centers: np.ndarray, squares: np.ndarray) -> np.ndarray:
    """Return the rows (−2 c, ‖c‖²)."""
    rows = np.empty((len(centers), centers.shape[1] + 1), np.float32)
    np.multiply(centers, -2, out=rows[:, :-1])
    rows[:, -1] = squares
    return rows


# --- Lloyd ----------------------------------------------------------------------------------------------------------
def _lloyd(
    x: np.ndarray, squares: np.ndarray, weights: np.ndarray, centers: np.ndarray, max_iterations: int
) -> tuple[np.ndarray, np.ndarray, int, bool]:
    clusters, reseeded = len(centers), False
    labels = assigned = np.full(len(x), -1)
    sums = np.zeros((clusters, x.shape[1]), np.float64)
    for iteration in range(1, max_iterations + 1):  # noqa: B007, it is returned
        scores = _product(_homogeneous(centers, np.einsum("kd,kd->k", centers, centers)), x.T)  # (K, C)
        nearest = scores.min(axis=0)  # ‖x − c‖² − ‖x‖²
        previous, labels = labels, (scores <= nearest + TIE * (2 * squares + nearest)).argmax(axis=0)
        if np.array_equal(previous, labels):
            break
        before, assigned = assigned, labels
        empty = np.flatnonzero(np.bincount(labels, minlength=clusters) == 0)
        if len(empty):
            reseeded = True
            distances = squares + nearest
            assigned = labels.copy()
            assigned[np.argsort(-distances, kind="stable")[: len(empty)]] = empty
        # Only what moved changes the sums; late iterations move a handful of points.
        moved = np.flatnonzero(assigned != before)
        if not len(moved):
            break
        change = _members(assigned[moved], clusters) - _members(before[moved], clusters)
        sums += _product(change * weights[moved], x[moved])
        centers = (sums[:, :-1] / np.maximum(sums[:, -1:], 1)).astype(np.float32)
    return labels, centers, iteration, reseeded


def _members(labels: np.ndarray, clusters: int) -> np.ndarray:
    """Return (K, C) float32: 1 where the point is in the cluster; label −1 is in none."""
    return np.asarray(labels == np.arange(clusters)[:, None], np.float32)


def by_size(labels: np.ndarray, centers: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Number the clusters by size, then by lowest point; drop those that ended empty."""
    counts = np.bincount(labels, minlength=len(centers))
    first = np.full(len(centers), len(labels))
    np.minimum.at(first, labels, np.arange(len(labels)))
    order = np.lexsort((first, -counts))[: np.count_nonzero(counts)]
    rank = np.empty(len(centers), int)
    rank[order] = np.arange(len(order))
    return rank[labels], centers[order]


def _inertia(x: np.ndarray, weights: np.ndarray, labels: np.ndarray, centers: np.ndarray) -> float:
    difference = x - centers[labels]
    return float((np.einsum("cd,cd->c", difference, difference) * weights).sum(dtype=np.float64))


# --- arithmetic -----------------------------------------------------------------------------------------------------
def _product(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Return a @ b in blocks of at most BLOCK multiply-adds; (m, k) times (k, n)."""
    m, k = a.shape
    n = b.shape[1]
    depth = min(k, max(1, BLOCK // (min(m, 8) * n)))
    rows = max(1, BLOCK // (depth * n))
    out = np.empty((m, n), np.float32)
    for top in range(0, m, rows):
        block = slice(top, top + rows)
        np.matmul(a[block, :depth], b[:depth], out=out[block])
        for start in range(depth, k, depth):
            out[block] += a[block, start : start + depth] @ b[start : start + depth]
    return out


def _scale(a: np.ndarray, exponent: int) -> np.ndarray:
    """Return a · 2^exponent, exactly; in two factors, as one alone may overflow."""
    half = exponent // 2
    return np.asarray(a * np.float32(2.0**half) * np.float32(2.0 ** (exponent - half)))
