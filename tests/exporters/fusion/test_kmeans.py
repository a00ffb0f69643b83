from __future__ import annotations

from functools import cache

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import numpy_helper

from camrt.kmeans import kmeans as python_kmeans
from camrt.methods.cluster_cam import ClusterMaps, cluster_maps
from exporters.fusion.arithmetic import BOOL, length
from exporters.fusion.kmeans import _by_size, _lloyd, _ready, kmeans
from tests import graphs

from .helpers import emitted, emitted_model

Points = np.ndarray  # (N, C, D)
ONES = numpy_helper.from_array(np.ones(1, np.int64))


@cache
def compiled(channels: int, cells: int, clusters: int, metric: str = "euclidean", seed: int = 0, opset: int = 17):
    def emit(op, points):
        found = kmeans(op, points, clusters, seed=seed, channels=channels, cells=cells, metric=metric)
        return found.labels, found.maps, found.real

    return graphs.session(emitted_model(emit, {"points": np.zeros((1, channels, cells), np.float32)}, opset))


def in_python(points: Points, clusters: int, metric: str = "euclidean", seed: int = 0) -> ClusterMaps:
    return cluster_maps(points[:, :, None], clusters, metric=metric, seed=seed)


def assert_equal(points: Points, clusters: int, *, metric: str = "euclidean", seed: int = 0, opset: int = 17) -> np.ndarray:
    """Hold that the graph finds the clusters of the Python runtime, and return how many there are in every image."""
    labels, maps, real = compiled(*points.shape[1:], clusters, metric, seed, opset).run(None, {"points": points})
    expected = in_python(points, clusters, metric, seed)
    most = expected.maps.shape[1]
    assert labels.tolist() == expected.labels.tolist()
    assert real[..., 0].sum(axis=1).tolist() == expected.counts.tolist()
    assert (np.diff(real[..., 0].astype(int), axis=1) <= 0).all()  # those that are missing come last
    largest = np.abs(points).max()
    np.testing.assert_allclose(maps[:, :most], expected.maps[:, :, 0], rtol=0, atol=1e-6 * largest)
    assert not maps[:, most:].any()
    return expected.counts


def feature_maps(rng: np.random.Generator, images: int, channels: int, cells: int) -> Points:
    """Return what comes out of a ReLU: each channel fires in some cells, more or less strongly."""
    raw = rng.normal(0.2, 1, (images, channels, cells)) * rng.exponential(1, (images, channels, 1)) - rng.random(
        (images, channels, 1)
    )
    return np.maximum(raw, 0).astype(np.float32)


# --- against the Python runtime ---------------------------------------------------------------------------------------------
SIZES = [(1, 4, 1), (2, 9, 2), (5, 9, 3), (12, 64, 10), (64, 49, 10), (300, 12, 32), (40, 1, 4)]  # channels, cells, clusters


@pytest.mark.parametrize("images", [1, 3])
@pytest.mark.parametrize("metric", ["euclidean", "cosine"])
@pytest.mark.parametrize(("channels", "cells", "clusters"), SIZES)
def test_clusters_equal_the_python_runtimes(rng, channels, cells, clusters, metric, images):
    metric = "euclidean" if cells == 1 else metric  # all points of unit length in one dimension are two
    points = feature_maps(rng, images, channels, cells)
    assert_equal(points, clusters, metric=metric)


@pytest.mark.parametrize("opset", [13, 17, 18, 21])
@pytest.mark.parametrize("metric", ["euclidean", "cosine"])
def test_every_operator_set_gives_the_same(rng, opset, metric):
    points = feature_maps(rng, 2, 64, 16)
    assert_equal(points, 6, metric=metric, opset=opset)


@pytest.mark.parametrize("seed", range(6))
def test_the_same_seed_gives_the_same_clusters(rng, seed):
    points = feature_maps(rng, 3, 64, 16)
    assert_equal(points, 8, seed=seed)


def test_another_seed_gives_other_clusters(rng):
    points = feature_maps(rng, 1, 64, 16)
    found = [compiled(64, 16, 8, seed=seed).run(None, {"points": points})[0].tobytes() for seed in range(6)]
    assert len(set(found)) > 1


def test_signed_points_are_clustered_too(rng):
    points = rng.normal(5, 2, (2, 50, 10)).astype(np.float32)
    assert_equal(points, 7)


@pytest.mark.parametrize("exponent", [25, 12, -12, -25, -37])
@pytest.mark.parametrize("metric", ["euclidean", "cosine"])
def test_the_scale_of_the_points_is_of_no_consequence(rng, exponent, metric):
    points = feature_maps(rng, 3, 64, 16) * np.float32(10.0**exponent)
    assert_equal(points, 6, metric=metric)


def test_images_of_very_different_scale_do_not_disturb_each_other(rng):
    scales = np.array([1e25, 1, 1e-25], np.float32).reshape(3, 1, 1)
    points = feature_maps(rng, 3, 64, 16) * scales
    assert_equal(points, 6)


# --- how many there are ---------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("metric", ["euclidean", "cosine"])
def test_one_cluster_holds_all(metric):
    points = feature_maps(np.random.default_rng(0), 2, 20, 9)
    assert assert_equal(points, 1, metric=metric).tolist() == [1, 1]


def test_more_clusters_than_points_give_every_point_its_own():
    points = np.random.default_rng(0).normal(0, 1, (2, 5, 9)).astype(np.float32)
    assert assert_equal(points, 40).tolist() == [5, 5]


@pytest.mark.parametrize("metric", ["euclidean", "cosine"])
@pytest.mark.parametrize("value", [0.0, 3.5, -2.0, 1e30])
def test_points_that_are_all_equal_are_one_cluster(value, metric):
    assert assert_equal(np.full((2, 20, 9), value, np.float32), 5, metric=metric).tolist() == [1, 1]


@pytest.mark.parametrize("distinct", [2, 4, 6])
def test_fewer_distinct_points_give_fewer_clusters(distinct):
    rng = np.random.default_rng(0)
    points = rng.normal(0, 1, (2, distinct, 9)).astype(np.float32)[:, rng.permutation(60) % distinct]
    assert assert_equal(points, 8).tolist() == [distinct] * 2


def test_an_image_with_few_distinct_points_waits_for_the_others(rng):
    points = feature_maps(rng, 3, 60, 9)
    points[1] = points[1, :3].repeat(20, axis=0)
    points[2] = points[2, 0]
    assert assert_equal(points, 8).tolist() == [8, 3, 1]


# --- dead points ------------------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("metric", ["euclidean", "cosine"])
@pytest.mark.parametrize("dead", [1, 2, 50, 63])
def test_dead_points_fall_into_one_cluster(rng, dead, metric):
    points = feature_maps(rng, 3, 64, 16)
    points[:, rng.permutation(64)[:dead]] = 0
    assert_equal(points, 6, metric=metric)
    labels = compiled(64, 16, 6, metric).run(None, {"points": points})[0]
    assert all(len(set(row[~p.any(axis=1)])) == 1 for row, p in zip(labels, points, strict=True))


@pytest.mark.parametrize("which", [[0], [1], [0, 2], [0, 1, 2]])
def test_dead_images_beside_others_are_one_cluster(rng, which):
    points = feature_maps(rng, 3, 64, 16)
    points[which] = 0
    assert assert_equal(points, 6).tolist() == [1 if i in which else 6 for i in range(3)]


def test_the_first_centre_counts_every_dead_point():
    points = np.zeros((1, 40, 3), np.float32)
    points[0, 30:] = np.random.default_rng(0).normal(0, 1, (10, 3))
    for seed in range(8):
        assert_equal(points, 2, seed=seed)


@pytest.mark.parametrize("seed", range(8))
def test_every_centre_counts_every_dead_point(rng, seed):
    points = feature_maps(rng, 2, 60, 9)
    points[:, 5:30] = 0
    assert_equal(points, 4, seed=seed)


@pytest.mark.parametrize("distinct", [2, 5])
@pytest.mark.parametrize("offset", [0, 30])
@pytest.mark.parametrize("seed", range(4))
def test_points_that_differ_in_their_last_bits_count_as_one(distinct, offset, seed):
    rng = np.random.default_rng(seed)
    points = (rng.normal(0, 1, (2, distinct, 49)) + offset)[:, rng.permutation(60) % distinct]
    points = (points * (1 + 2.0**-23 * rng.integers(-1, 2, points.shape))).astype(np.float32)
    assert assert_equal(points, 8, seed=seed).tolist() == [distinct] * 2


# --- clusters that run empty --------------------------------------------------------------------------------------------------------
def from_centers(points: Points, centers: np.ndarray) -> np.ndarray:
    """Return the labels (N, C) that the graph's iteration ends with, from centres (N, K, D) instead of its own seeds."""
    channels, cells = points.shape[1:]
    count = centers.shape[1]

    def emit(op, points, centers):
        ready = _ready(op, points, cells)
        mean = op.Sub(points, ready.x)  # points of at most 1 are not scaled
        given = op.Sub(centers, op.Gather(mean, op.constant([0]), axis=1))
        real = op.Cast(op.ConstantOfShape(op.Concat(length(op, points, 0), op.constant([count]), axis=0), value=ONES), to=BOOL)
        return _by_size(op, points, ready, _lloyd(op, ready, given, real, count), count, channels).labels

    return emitted(emit, {"points": points, "centers": centers})[0]


def unit_maps(rng: np.random.Generator, images: int, channels: int = 40, cells: int = 6) -> Points:
    """Return points whose largest value is 1."""
    points = feature_maps(rng, images, channels, cells)
    return points / points.max(axis=(1, 2), keepdims=True)


@pytest.mark.parametrize("empty", [[4], [0], [1, 2], [0, 3, 4], [1, 2, 3, 4]])
@pytest.mark.parametrize("images", [1, 3])
def test_empty_clusters_take_the_farthest_points(images, empty):
    rng = np.random.default_rng(len(empty))
    points = unit_maps(rng, images)
    centers = points[:, [3, 9, 17, 25, 33]].copy()
    centers[:, empty] = 50 + 10 * rng.random((images, len(empty), 6), np.float32)  # nearer to no point than the others
    expected = [python_kmeans(p, 5, init=c) for p, c in zip(points, centers, strict=True)]
    assert all(found.reseeded for found in expected)
    assert from_centers(points, centers).tolist() == [found.labels.tolist() for found in expected]


def test_an_image_that_needs_no_reseeding_is_left_alone_beside_one_that_does():
    points = unit_maps(np.random.default_rng(8), 3)
    centers = points[:, [3, 9, 17, 25, 33]].copy()
    centers[1, 2] = 50
    expected = [python_kmeans(p, 5, init=c) for p, c in zip(points, centers, strict=True)]
    assert [found.reseeded for found in expected] == [False, True, False]
    assert from_centers(points, centers).tolist() == [found.labels.tolist() for found in expected]


@pytest.mark.parametrize("seed", range(4))
def test_of_the_dead_points_only_one_is_taken(seed):
    rng = np.random.default_rng(seed)
    points = rng.uniform(0.5, 1, (2, 40, 6)).astype(np.float32)
    points[:, 0] = 1
    points[:, 10:30] = 0
    centers = points[:, [3, 9, 35, 38]].copy()
    centers[:, 1:] += 50  # the dead points are the farthest from the one that is left
    expected = [python_kmeans(p, 4, init=c) for p, c in zip(points, centers, strict=True)]
    assert all(found.reseeded for found in expected)
    assert from_centers(points, centers).tolist() == [found.labels.tolist() for found in expected]


# --- properties -----------------------------------------------------------------------------------------------------------------------
@settings(max_examples=60, deadline=None, derandomize=True)
@given(
    seed=st.integers(0, 2**31), shape=st.sampled_from([(1, 6, 4), (2, 24, 9), (3, 60, 16)]), clusters=st.sampled_from([2, 5, 9])
)
def test_random_points_fall_into_the_python_runtimes_clusters(seed, shape, clusters):
    points = feature_maps(np.random.default_rng(seed), *shape)
    assert_equal(points, clusters)


@settings(max_examples=30, deadline=None, derandomize=True)
@given(seed=st.integers(0, 2**31))
def test_a_batch_is_clustered_as_its_images_are_one_by_one(seed):
    points = feature_maps(np.random.default_rng(seed), 3, 60, 16)
    graph = compiled(60, 16, 7)
    together = graph.run(None, {"points": points})
    for i in range(3):
        alone = graph.run(None, {"points": points[i : i + 1]})
        assert together[0][i].tolist() == alone[0][0].tolist()
        np.testing.assert_allclose(together[1][i], alone[1][0], rtol=1e-5, atol=1e-6)


# --- ties -----------------------------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("seed", range(12))
@pytest.mark.parametrize(("channels", "clusters"), [(64, 10), (200, 24)])
def test_whole_numbers_whose_distances_tie_fall_into_the_same_clusters(seed, channels, clusters):
    rng = np.random.default_rng(seed)
    levels = np.maximum(np.round(rng.normal(-1, rng.choice([1, 4, 20]), (1, channels, 49))), 0)
    assert_equal((levels * 0.0235).astype(np.float32), clusters)


def test_of_two_candidates_that_lower_the_inertia_alike_the_first_is_chosen():
    points = feature_maps(np.random.default_rng(467), 1, 64, 49)  # 42 and 33 are each other's nearest, and no third point's
    assert_equal(points, 5)
