"""K-means on feature maps as a graph: the algorithm of `camrt.kmeans`, step for step, for every image at once.

Points that are 0 throughout count as one, with their number as its weight; the others of them weigh 0.  Where an image has
fewer distinct points than K, the centres that are missing lie nowhere.  An image whose labels repeat waits for the others.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from onnx import numpy_helper

from camrt.kmeans import MAX_ITERATIONS, ROUNDING, TIE, product_error, uniforms
from camrt.methods.cluster_cam import cell_weights
from exporters.emitter import Emitter
from exporters.fusion.arithmetic import BOOL, DOUBLE, FLOAT, INT64, all_of, any_of, cut_last, differ, first_of, unsqueeze

NOWHERE = 1e30  # added to the distance from a centre that is missing; points are scaled to at most 1
TINY = float(np.finfo(np.float32).tiny)
MAX_EXPONENT = 126  # 2^126 and 2^-126 are float32


@dataclass(frozen=True)
class Clusters:
    """Names of the tensors that hold the clustering of C points in every image.

    Attributes
    ----------
    labels : str
        (N, C) int64, clusters numbered by falling size.
    maps : str
        (N, K, D) float32, the mean of every cluster's points; zeros for one that has none.
    real : str
        (N, K, 1) bool: the cluster has points.
    """

    labels: str
    maps: str
    real: str


@dataclass(frozen=True)
class Points:
    """Points made ready: scaled, around their mean, the dead ones merged.

    Attributes
    ----------
    x, with_ones : str
        (N, C, D), and (N, C, D + 1) with a column of ones, so that a sum of rows ends in their count.
    squares : str
        (N, C), ‖x_i‖².
    negligible : str
        (N, C), what float32 cannot tell from 0 in a squared distance from the point.
    weights : str
        (N, C), how many points each stands for.
    dead, first_dead : str
        (N, C) bool: the point is 0 throughout; and is the first of those.
    """

    x: str
    with_ones: str
    squares: str
    negligible: str
    weights: str
    dead: str
    first_dead: str


def kmeans(
    op: Emitter, points: str, clusters: int, *, seed: int, channels: int, cells: int, metric: str = "euclidean"
) -> Clusters:
    """Emit the K-means clustering of points (N, C, D), C = channels, D = cells."""
    count = min(clusters, channels)
    ready = _ready(op, _unit(op, points, cells) if metric == "cosine" else points, cells)
    centers, real = _seeds(op, ready, uniforms(clusters, seed)[:count], channels)
    return _by_size(op, points, ready, _lloyd(op, ready, centers, real, count), count, channels)


def _unit(op: Emitter, points: str, cells: int) -> str:
    """Scale every point to unit length, by its largest value first, as squares of tiny maps underflow; weight the cells."""
    points = op.Div(points, op.Max(op.reduce("ReduceMax", op.Abs(points), 2), op.number(TINY)))
    length = op.Sqrt(op.reduce("ReduceSum", op.Mul(points, points), 2))
    return op.Mul(op.Div(points, op.Max(length, op.number(1))), op.constant(cell_weights(cells), "float32"))


def _ready(op: Emitter, points: str, cells: int) -> Points:
    # Scaled by a power of two, which is exact, squares cannot overflow; around the mean they cancel less.
    largest = op.Max(op.reduce("ReduceMax", op.Abs(points), 1, 2), op.number(TINY))
    exponent = op.Ceil(op.Div(op.Log(largest), op.number(math.log(2))))
    exponent = op.Max(op.Min(exponent, op.number(MAX_EXPONENT)), op.number(-MAX_EXPONENT))
    x = op.Mul(points, op.Pow(op.number(2), op.Neg(exponent)))
    own = op.reduce("ReduceSum", op.Mul(x, x), 2, keepdims=False)
    dead = op.Not(op.Greater(own, op.number(0)))
    ones = op.Cast(dead, to=FLOAT)
    first_dead = op.And(dead, op.Equal(op.CumSum(ones, op.constant(1)), op.number(1)))
    of_dead = op.Where(first_dead, op.reduce("ReduceSum", ones, 1), op.number(0))
    weights = op.Where(dead, of_dead, op.number(1))
    rows = op.reduce("ReduceSum", op.Cast(op.Greater(weights, op.number(0)), to=FLOAT), 1)
    mean = op.Div(op.reduce("ReduceSum", x, 1), unsqueeze(op, rows, 2))  # dead points add nothing
    x = op.Sub(x, mean)
    squares = op.reduce("ReduceSum", op.Mul(x, x), 2, keepdims=False)
    negligible = op.Add(op.Mul(squares, op.number(product_error(cells))), op.Mul(own, op.number(ROUNDING**2)))
    with_ones = op.Pad(x, op.constant([0, 0, 0, 0, 0, 1]), op.number(1))
    return Points(x, with_ones, squares, negligible, weights, dead, first_dead)


# --- seeding --------------------------------------------------------------------------------------------------------
def _seeds(op: Emitter, points: Points, table: np.ndarray, channels: int) -> tuple[str, str]:
    """Choose centres by greedy k-means++: (N, K, D), and (N, K) bool: there was a point away from the others."""
    weights = op.Cast(points.weights, to=DOUBLE)
    rows = op.constant(table, "float64")
    # (x, ‖x‖², 1) · (−2x, 1, ‖x‖²) is a squared distance.
    squares = unsqueeze(op, points.squares, 2)
    one = op.Add(op.Mul(squares, op.number(0)), op.number(1))
    ours = op.Concat(points.x, squares, one, axis=2)
    theirs = op.Transpose(op.Concat(op.Mul(points.x, op.number(-2)), one, squares, axis=2), perm=[0, 2, 1])
    weight, negligible = (unsqueeze(op, tensor, 1) for tensor in (points.weights, points.negligible))

    def drawn(op: Emitter, cumulative: str, targets: str) -> str:
        """Return for every target (N, t) the first point (N, t) whose cumulative weight (N, C) lies above it."""
        passed = op.Cast(op.LessOrEqual(unsqueeze(op, cumulative, 1), unsqueeze(op, targets, 2)), to=FLOAT)
        index = op.Cast(op.reduce("ReduceSum", passed, 2, keepdims=False), to=INT64)
        return op.Min(index, op.constant(channels - 1))

    def distances(op: Emitter, chosen: str) -> str:
        """Return ‖x_i − x_j‖² (N, t, C) of the chosen points (N, t, 1); 0 where it is negligible."""
        found = op.MatMul(op.GatherND(ours, chosen, batch_dims=1), theirs)
        slack = op.GatherND(unsqueeze(op, points.negligible, 2), chosen, batch_dims=1)
        return op.Where(op.Greater(found, op.Add(negligible, slack)), found, op.number(0))

    def turn(op: Emitter, number: str, state: list[str]) -> tuple[None, list[str]]:
        nearest, chosen, real = state  # (N, C), (N, k), (N, k)
        cumulative = op.CumSum(op.Mul(op.Cast(nearest, to=DOUBLE), weights), op.constant(1))
        total = op.Gather(cumulative, op.constant([-1]), axis=1)
        row = op.Gather(rows, op.Add(number, op.constant(1)), axis=0)
        candidates = drawn(op, cumulative, op.Mul(total, row))
        improved = op.Min(distances(op, unsqueeze(op, candidates, 2)), unsqueeze(op, nearest, 1))
        potential = op.reduce("ReduceSum", op.Mul(improved, weight), 2, keepdims=False)
        best = first_of(
            op, op.LessOrEqual(potential, op.Mul(op.reduce("ReduceMin", potential, 1), op.number(1 + TIE))), 1, True
        )
        chosen = op.Concat(chosen, op.GatherElements(candidates, best, axis=1), axis=1)
        real = op.Concat(real, op.Greater(total, op.constant(0, "float64")), axis=1)
        return None, [op.GatherND(improved, best, batch_dims=1), chosen, real]

    first = drawn(op, op.CumSum(weights, op.constant(1)), op.constant([[table[0, 0] * channels]], "float64"))
    nearest = op.Squeeze(distances(op, unsqueeze(op, first, 2)), op.constant([1]))
    state = [nearest, first, op.GreaterOrEqual(first, op.constant(0))]
    if len(table) > 1:
        state = op.loop(op.constant(len(table) - 1), state, [FLOAT, INT64, BOOL], turn)
    return op.GatherND(points.x, unsqueeze(op, state[1], 2), batch_dims=1), state[2]


# --- Lloyd ----------------------------------------------------------------------------------------------------------
def _lloyd(op: Emitter, points: Points, centers: str, real: str, count: int) -> str:
    """Assign and update until the labels (N, C) repeat."""
    minus_twice = op.Mul(op.Transpose(points.x, perm=[0, 2, 1]), op.number(-2))
    twice_squares = op.Mul(unsqueeze(op, points.squares, 1), op.number(2))
    missing = op.Not(unsqueeze(op, real, 2))
    penalty = op.Where(missing, op.number(NOWHERE), op.number(0))
    weights = unsqueeze(op, points.weights, 1)
    ids = op.constant(np.arange(count)[:, None])

    def sums(op: Emitter, labels: str) -> list[str]:
        """Return for every cluster the sum of its points (N, K, D), and their number (N, K, 1)."""
        inside = op.Where(op.Equal(unsqueeze(op, labels, 1), ids), weights, op.number(0))
        total = op.MatMul(inside, points.with_ones)
        return cut_last(op, total, 2)

    def turn(op: Emitter, _: str, state: list[str]) -> tuple[str, list[str]]:
        centers, labels, assigned, active = state
        norms = op.reduce("ReduceSum", op.Mul(centers, centers), 2)  # (N, K, 1)
        scores = op.Add(op.MatMul(centers, minus_twice), op.Add(norms, penalty))  # (N, K, C)
        nearest = op.reduce("ReduceMin", scores, 1)
        slack = op.Mul(op.Add(twice_squares, nearest), op.number(TIE))
        closest = first_of(op, op.LessOrEqual(scores, op.Add(nearest, slack)), 1, False)
        found = op.Where(active, closest, labels)
        total, sizes = sums(op, found)
        filled = op.Or(op.Greater(sizes, op.number(0)), missing)

        def reseeded(op: Emitter) -> list[str]:
            empty = op.Squeeze(op.Not(filled), op.constant([2]))
            given = _reseed(op, points, op.Squeeze(nearest, op.constant([1])), found, empty, count)
            return [given, *sums(op, given)]

        given, total, sizes = op.branch(
            all_of(op, filled), [INT64, FLOAT, FLOAT], lambda op: [found, total, sizes], reseeded
        )  # fmt: skip
        goes_on = op.And(active, op.And(differ(op, found, labels), differ(op, given, assigned)))
        centers = op.Where(unsqueeze(op, goes_on, 2), op.Div(total, op.Max(sizes, op.number(1))), centers)
        return any_of(op, goes_on), [centers, found, given, goes_on]

    nowhere = op.ConstantOfShape(op.Shape(points.squares), value=numpy_helper.from_array(np.array([-1])))
    active = op.Less(op.Gather(nowhere, op.constant([0]), axis=1), op.constant(0))
    state = op.loop(op.constant(MAX_ITERATIONS), [centers, nowhere, nowhere, active], [FLOAT, INT64, INT64, BOOL], turn)
    return state[1]


def _reseed(op: Emitter, points: Points, nearest: str, labels: str, empty: str, count: int) -> str:
    """Give each empty cluster, in order, the next of the points that are farthest from their centres: labels (N, C)."""
    distances = op.Add(points.squares, nearest)
    counted = op.Greater(points.weights, op.number(0))
    distances = op.Where(counted, distances, op.number(-np.inf))
    _, farthest = op.several("TopK", 2, distances, op.constant([count]), axis=1)
    rank = op.Add(op.Where(empty, op.constant(0), op.constant(count)), op.constant(np.arange(count)))
    _, empty_first = op.several("TopK", 2, rank, op.constant([count]), axis=1, largest=0)
    how_many = op.reduce("ReduceSum", op.Cast(empty, to=INT64), 1)
    taken = op.Less(op.constant(np.arange(count)), how_many)
    new = op.Where(taken, empty_first, op.GatherElements(labels, farthest, axis=1))
    return op.ScatterElements(labels, farthest, new, axis=1)


def _by_size(op: Emitter, points: str, ready: Points, labels: str, count: int, channels: int) -> Clusters:
    """Number the clusters by size, then by lowest point."""
    of_dead = op.reduce("ReduceSum", op.Where(ready.first_dead, labels, op.constant(0)), 1)
    labels = unsqueeze(op, op.Where(ready.dead, of_dead, labels), 1)
    inside = op.Equal(labels, op.constant(np.arange(count)[:, None]))
    sizes = op.reduce("ReduceSum", op.Cast(inside, to=INT64), 2, keepdims=False)
    lowest = op.reduce(
        "ReduceMin", op.Where(inside, op.constant(np.arange(channels)), op.constant(channels)), 2, keepdims=False
    )
    key = op.Sub(op.Mul(sizes, op.constant(channels + 1)), lowest)
    _, order = op.several("TopK", 2, key, op.constant([count]), axis=1)
    member = op.Cast(op.Equal(labels, unsqueeze(op, order, 2)), to=FLOAT)  # (N, K, C)
    sizes = op.reduce("ReduceSum", member, 2)
    maps = op.Div(op.MatMul(member, points), op.Max(sizes, op.number(1)))
    return Clusters(op.ArgMax(member, axis=1, keepdims=0), maps, op.Greater(sizes, op.number(0)))
