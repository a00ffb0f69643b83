"""scikit-learn judges K-means; the rest are promises of its docstring."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from sklearn.cluster import KMeans

from camrt.kmeans import BLOCK, _product, elbow, group_means, kmeans


def feature_maps(seed: int, channels: int = 300, cells: int = 49, dead: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    maps = np.maximum(rng.normal(0.2, 1, (channels, cells)) + rng.normal(0, 2, (channels, 1)), 0).astype(np.float32)
    maps[rng.choice(channels, dead, replace=False)] = 0
    return maps


def same_partition(a: np.ndarray, b: np.ndarray) -> bool:
    pairs = set(zip(a.tolist(), b.tolist(), strict=True))
    return len(pairs) == len(set(a.tolist())) == len(set(b.tolist()))


@pytest.mark.parametrize("seed", range(8))
@pytest.mark.parametrize("clusters", [2, 5, 10, 32])
@pytest.mark.parametrize("dead", [0, 120])
def test_labels_equal_scikit_learns_from_the_same_centres(seed, clusters, dead):
    points = feature_maps(seed, dead=dead)
    init = points[np.random.default_rng(seed).choice(np.flatnonzero(points.any(axis=1)), clusters, replace=False)]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        judge = KMeans(clusters, init=init, n_init=1, tol=0, algorithm="lloyd", max_iter=300).fit(points)
    found = kmeans(points, clusters, init=init)
    assert same_partition(found.labels, judge.labels_)
    assert found.inertia == pytest.approx(judge.inertia_, rel=1e-5)


@pytest.mark.parametrize("clusters", [5, 10, 32])
def test_mean_inertia_over_20_seeds_is_within_one_percent_of_scikit_learns(clusters):
    points = feature_maps(3)
    ours = np.mean([kmeans(points, clusters, seed=s).inertia for s in range(20)])
    theirs = np.mean([KMeans(clusters, n_init=1, random_state=s, tol=0).fit(points).inertia_ for s in range(20)])
    assert ours <= theirs * 1.01


def test_inertia_never_rises_with_more_iterations():
    points = feature_maps(4)
    init = points[:8]
    inertia = [kmeans(points, 8, init=init, max_iterations=i).inertia for i in range(1, 25)]
    assert all(later <= earlier * (1 + 1e-6) for earlier, later in zip(inertia, inertia[1:], strict=False))


def test_four_points_by_hand():
    found = kmeans(np.array([[0.0, 0.0], [0.0, 1.0], [9.0, 0.0], [9.0, 1.0]]), 2)
    assert found.labels.tolist() == [0, 0, 1, 1]
    assert found.centers.tolist() == [[0.0, 0.5], [9.0, 0.5]]
    assert found.inertia == pytest.approx(1.0)


def test_clusters_are_ordered_by_size_then_by_lowest_point():
    points = np.array([[5.0], [0.0], [0.1], [0.2], [9.0], [5.1], [9.1]])
    assert kmeans(points, 3).labels.tolist() == [1, 0, 0, 0, 2, 1, 2]


def test_an_empty_cluster_takes_the_farthest_point():
    points = np.array([[0.0], [1.0], [2.0], [10.0]])
    found = kmeans(points, 2, init=np.array([[1.0], [1000.0]]))
    assert found.reseeded
    assert found.labels.tolist() == [0, 0, 0, 1]


def test_fewer_distinct_points_give_fewer_clusters():
    points = np.repeat(feature_maps(5, channels=4), 30, axis=0)
    found = kmeans(points, 10)
    assert len(found.centers) == 4
    assert found.inertia == pytest.approx(0, abs=1e-6)


@pytest.mark.parametrize("value", [0.0, 3.5, -2e30])
def test_points_that_are_all_equal_give_one_cluster(value):
    found = kmeans(np.full((20, 9), value), 5)
    assert found.labels.tolist() == [0] * 20
    assert found.centers[0] == pytest.approx(np.full(9, value), rel=1e-6)


def test_the_same_seed_gives_the_same_bits():
    points = feature_maps(6)
    a, b = kmeans(points, 10, seed=7), kmeans(points.copy(order="F"), 10, seed=7)
    assert np.array_equal(a.labels, b.labels)
    assert np.array_equal(a.centers, b.centers)


def test_another_seed_may_give_another_clustering():
    points = feature_maps(6)
    assert len({kmeans(points, 10, seed=s).inertia for s in range(10)}) > 1


@pytest.mark.parametrize("exponent", [-120, -40, 0, 40, 60])
def test_the_scale_of_the_maps_does_not_change_the_labels(exponent):
    points = feature_maps(7, dead=40)
    scaled = np.ldexp(points, exponent)
    assert np.array_equal(kmeans(points, 6).labels, kmeans(scaled, 6).labels)
    assert np.isfinite(kmeans(scaled, 6).centers).all()


@settings(max_examples=60, deadline=None)
@given(
    hnp.arrays(np.float32, hnp.array_shapes(min_dims=2, max_dims=2, min_side=1, max_side=24),
               elements=st.floats(-100, 100, width=32)),
    st.integers(1, 30),
)  # fmt: skip
def test_every_point_lies_nearest_to_the_mean_of_its_cluster(points, clusters):
    found = kmeans(points, clusters)
    assert found.labels.shape == (len(points),)
    assert set(found.labels) == set(range(len(found.centers)))
    assert len(found.centers) <= min(clusters, len(np.unique(points + 0, axis=0)))
    distances = ((points[:, None].astype(float) - found.centers[None].astype(float)) ** 2).sum(axis=2)
    own = distances[np.arange(len(points)), found.labels]
    assert (own <= distances.min(axis=1) + 1e-3 * (1 + np.abs(points).max() ** 2)).all()


def test_the_elbow_finds_well_separated_groups():
    rng = np.random.default_rng(0)
    points = np.repeat(rng.normal(0, 50, (6, 20)), 40, axis=0) + rng.normal(0, 0.5, (240, 20))
    assert len(elbow(points).centers) == 6


def test_the_elbow_of_two_distinct_points_is_two():
    assert len(elbow(np.array([[0.0], [1.0], [0.0]])).centers) == 2


def test_group_means_of_an_absent_cluster_are_zero():
    means = group_means(np.array([[1.0, 3.0], [3.0, 5.0]], np.float32), np.array([0, 0]), 2)
    assert means.tolist() == [[2.0, 4.0], [0.0, 0.0]]


@pytest.mark.parametrize(
    ("m", "k", "n"), [(4, 49, 1280), (1280, 49, 10), (10, 1280, 50), (3, 12544, 64), (600, 3136, 32), (1, 1, 1)]
)
def test_products_in_blocks_equal_the_whole_product(m, k, n):
    rng = np.random.default_rng(0)
    a, b = rng.normal(size=(m, k)).astype(np.float32), rng.normal(size=(k, n)).astype(np.float32)
    assert _product(a, b) == pytest.approx(a.astype(float) @ b.astype(float), rel=1e-4, abs=1e-3)


def test_no_product_is_large_enough_to_wake_blas_threads(monkeypatch):
    sizes = []
    real = np.matmul
    monkeypatch.setattr(
        np, "matmul", lambda a, b, out: sizes.append(a.shape[0] * a.shape[1] * b.shape[1]) or real(a, b, out=out)
    )
    kmeans(feature_maps(8, channels=500, cells=3136), 10)
    assert sizes
    assert max(sizes) <= BLOCK


@pytest.mark.parametrize("points", [np.zeros((0, 4)), np.zeros((4, 0)), np.zeros(4), np.zeros((2, 2, 2))])
def test_points_of_another_shape_are_refused(points):
    with pytest.raises(ValueError, match="non-empty"):
        kmeans(points, 2)


def test_no_clusters_are_refused():
    with pytest.raises(ValueError, match="at least 1"):
        kmeans(np.zeros((2, 2)), 0)
