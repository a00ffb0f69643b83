"""Clusterings by name: promises that all three keep, and scikit-learn and SciPy as judges of the two that are not ours."""

from __future__ import annotations

import sys

import numpy as np
import pytest
from scipy.cluster.hierarchy import fcluster, linkage
from sklearn.cluster import AgglomerativeClustering, SpectralClustering

from camrt.clustering import CLUSTERINGS, cluster
from camrt.errors import MethodUnavailable
from camrt.kmeans import kmeans

from .test_kmeans import feature_maps, same_partition

BORROWED = [name for name in CLUSTERINGS if name != "kmeans"]
every = pytest.mark.parametrize("clustering", CLUSTERINGS)


def groups(sizes: list[int], scale: float = 1.0, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Return points in groups far apart, mixed up, and every point's group."""
    rng = np.random.default_rng(seed)
    group = rng.permutation(np.repeat(np.arange(len(sizes)), sizes))
    centres = 10 * np.eye(len(sizes), 6)
    return ((centres[group] + rng.normal(0, 0.1, (sum(sizes), 6))) * scale).astype(np.float32), group


# --- all of them ----------------------------------------------------------------------------------------------------------
@every
@pytest.mark.parametrize("sizes", [[30, 20], [9, 8, 7, 6, 5], [50, 1, 1], [4, 4, 4]])
def test_points_far_apart_fall_into_their_groups(clustering, sizes):
    points, group = groups(sizes)
    found = cluster(points, len(sizes), clustering)
    assert same_partition(found.labels, group)
    assert found.centers == pytest.approx(
        np.stack([points[found.labels == k].mean(axis=0) for k in range(len(sizes))]), abs=1e-5
    )
    assert found.inertia == pytest.approx(((points - found.centers[found.labels]) ** 2).sum(), rel=1e-3)


@every
def test_clusters_are_ordered_by_size_then_by_lowest_point(clustering):
    points = np.array([[5.0], [0.0], [0.1], [0.2], [9.0], [5.1], [9.1]], np.float32)
    assert cluster(points, 3, clustering).labels.tolist() == [1, 0, 0, 0, 2, 1, 2]


@every
@pytest.mark.parametrize("clusters", [4, 5, 40])
def test_fewer_distinct_points_give_fewer_clusters(clustering, clusters):
    distinct = feature_maps(5, channels=4)
    found = cluster(np.repeat(distinct, [2, 9, 1, 5], axis=0), clusters, clustering)
    assert found.labels.tolist() == [2] * 2 + [0] * 9 + [3] + [1] * 5
    assert found.centers == pytest.approx(distinct[[1, 3, 0, 2]], abs=1e-6)
    assert found.inertia == pytest.approx(0, abs=1e-6)


@every
@pytest.mark.parametrize("clusters", [1, 3])
def test_points_that_are_all_equal_are_one_cluster(clustering, clusters):
    assert cluster(np.full((20, 9), 3.5, np.float32), clusters, clustering).labels.tolist() == [0] * 20


@every
def test_one_cluster_holds_all_points_and_its_centre_is_their_mean(clustering):
    points = feature_maps(1, channels=50)
    found = cluster(points, 1, clustering)
    assert found.labels.tolist() == [0] * 50
    assert found.centers[0] == pytest.approx(points.mean(axis=0), abs=1e-5)
    assert found.inertia == pytest.approx(((points - points.mean(axis=0)) ** 2).sum(), rel=1e-4)


@every
def test_a_single_point_is_one_cluster(clustering):
    assert cluster(np.ones((1, 4), np.float32), 5, clustering).labels.tolist() == [0]


@every
@pytest.mark.parametrize("count", range(2, 7))
def test_as_many_clusters_are_found_as_were_asked_for(clustering, count):
    points = np.random.default_rng(count).random((count, 3), np.float32)
    for clusters in range(1, count + 1):
        assert set(cluster(points, clusters, clustering).labels) == set(range(clusters))


@every
def test_the_same_seed_gives_the_same_bits(clustering):
    points = feature_maps(6, dead=60)
    a, b = cluster(points, 10, clustering, seed=7), cluster(points.copy(order="F"), 10, clustering, seed=7)
    assert np.array_equal(a.labels, b.labels)
    assert np.array_equal(a.centers, b.centers)


@every
def test_dead_maps_stay_together(clustering):
    points = feature_maps(6, dead=60)
    assert len(set(cluster(points, 10, clustering).labels[~points.any(axis=1)])) == 1


@every
@pytest.mark.parametrize("exponent", [-100, -40, 40, 100])
def test_the_scale_of_the_points_does_not_change_the_labels(clustering, exponent):
    points, _ = groups([9, 8, 7, 6])
    assert np.array_equal(cluster(np.ldexp(points, exponent), 4, clustering).labels, cluster(points, 4, clustering).labels)


@every
def test_one_point_far_from_a_thousand_and_more_is_a_cluster_of_its_own(clustering):
    points = np.random.default_rng(0).normal(0, 0.01, (1600, 2)).astype(np.float32)
    points[7] = 100
    labels = cluster(points, 2, clustering).labels
    assert np.flatnonzero(labels).tolist() == [7]


# --- against judges -------------------------------------------------------------------------------------------------------
def test_kmeans_is_ours():
    points = feature_maps(2)
    ours, named = kmeans(points, 10, seed=3), cluster(points, 10, "kmeans", seed=3)
    assert np.array_equal(named.labels, ours.labels)
    assert (named.inertia, named.iterations) == (ours.inertia, ours.iterations)
    assert np.array_equal(cluster(points, 10, seed=3).labels, ours.labels)


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("clusters", [2, 5, 32])
@pytest.mark.parametrize("dead", [0, 120])
def test_agglomerative_labels_are_those_of_wards_criterion(seed, clusters, dead):
    points = feature_maps(seed, dead=dead)
    found = cluster(points, clusters, "agglomerative").labels
    assert same_partition(found, AgglomerativeClustering(clusters, linkage="ward").fit_predict(points.astype(np.float64)))
    assert same_partition(found, fcluster(linkage(points.astype(np.float64), "ward"), clusters, "maxclust"))


@pytest.mark.parametrize("clusters", [2, 6])
def test_spectral_labels_are_those_of_a_gaussian_similarity_as_wide_as_the_mean_distance(clusters):
    points = feature_maps(4, channels=120).astype(np.float64)
    mean = ((points[:, None] - points) ** 2).sum(axis=2).mean()
    judge = SpectralClustering(clusters, affinity="rbf", gamma=1 / mean, assign_labels="cluster_qr", random_state=0)
    assert same_partition(cluster(points.astype(np.float32), clusters, "spectral").labels, judge.fit_predict(points))


# --- without scikit-learn ---------------------------------------------------------------------------------------------------
@pytest.fixture
def without_scikit_learn(monkeypatch):
    monkeypatch.setitem(sys.modules, "sklearn.cluster", None)


@pytest.mark.parametrize("clustering", BORROWED)
def test_without_scikit_learn_the_message_says_what_to_install(without_scikit_learn, clustering):
    with pytest.raises(MethodUnavailable, match=f"clustering '{clustering}' needs scikit-learn.*pip install scikit-learn"):
        cluster(feature_maps(0, channels=20), 3, clustering)


@pytest.mark.parametrize(("method", "parameters"), [
    ("cluster-cam", {"clustering": "spectral", "clusters": 3}), ("cluster-cam", {"clustering": "agglomerative", "clusters": 3}),
    ("group-cam", {"grouping": "agglomerative", "groups": 3}),
])  # fmt: skip
def test_without_scikit_learn_methods_that_need_it_are_unavailable(without_scikit_learn, tiny, pixels, method, parameters):
    with pytest.raises(MethodUnavailable, match="pip install scikit-learn"):
        tiny.explain(pixels, method=method, **parameters)


def test_without_scikit_learn_k_means_works(without_scikit_learn):
    points, group = groups([9, 5])
    assert same_partition(cluster(points, 2).labels, group)
