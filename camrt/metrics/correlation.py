"""Rank correlation of heatmaps: do two of them order the pixels alike (Spearman's ρ)?"""

from __future__ import annotations

import numpy as np

from camrt.errors import ParameterError
from camrt.image import is_flat
from camrt.metrics.checks import check_heatmap
from camrt.metrics.optional import scipy


def rank_correlation(a: np.ndarray, b: np.ndarray) -> float:
    """Return Spearman's ρ of two heatmaps' pixels, in [−1, 1]; 0 where one is flat.

    Parameters
    ----------
    a, b : ndarray of shape (H, W)
        Equal values share the mean of their ranks.

    Raises
    ------
    ParameterError
        Their shapes differ, or a value is not finite.
    MethodUnavailable
        SciPy is not installed.
    """
    first = check_heatmap(a)
    return float(_correlations(np.stack([first, check_heatmap(b, first.shape)]))[0, 1])


def agreement(heatmaps: np.ndarray) -> float:
    """Return the mean of Spearman's ρ over all pairs of heatmaps, in [−1, 1]; pairs with a flat one count as 0.

    Parameters
    ----------
    heatmaps : ndarray of shape (n, H, W)
        At least two: those of several methods, seeds or networks for one photo and class.

    Raises
    ------
    ParameterError
        There are fewer than two, or a value is not finite.
    MethodUnavailable
        SciPy is not installed.
    """
    if len(heatmaps) < 2:
        raise ParameterError(f"heatmaps must be two or more to agree, got {len(heatmaps)}. Give them as (n, H, W).")
    first = check_heatmap(heatmaps[0])
    rho = _correlations(np.stack([check_heatmap(m, first.shape) for m in heatmaps]))
    return float(rho[np.triu_indices(len(rho), 1)].mean())


def _correlations(heatmaps: np.ndarray) -> np.ndarray:
    """Return Spearman's ρ (n, n) of every pair."""
    stats = scipy("stats", "Rank correlation")
    flat = is_flat(heatmaps.min(axis=(1, 2)), heatmaps.max(axis=(1, 2)))
    rank = stats.rankdata(heatmaps.reshape(len(heatmaps), -1), axis=1)
    rank -= rank.mean(axis=1, keepdims=True)
    rank[flat] = 0
    size = np.sqrt((rank * rank).sum(axis=1, keepdims=True))
    rank /= np.where(size > 0, size, 1)
    return np.asarray(np.clip(rank @ rank.T, -1, 1))
