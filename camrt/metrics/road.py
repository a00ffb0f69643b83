"""ROAD, remove and debias: the score after pixels were removed without a trace (Rong et al., ICML 2022, arXiv 2202.00449).

A removed pixel becomes the weighted mean of its neighbours, and noise on top:

    Σ_j w_ij (x_i − x_j) = 0,    w = 1/6 beside, above and below, 1/12 across the corners

over the neighbours that exist, so that at the border the other weights count for more.  All removed pixels of an image are
solved for together, the channels on one factorisation.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from camrt.errors import ParameterError
from camrt.metrics.checks import check_image, check_region
from camrt.metrics.curve import Curve, Score, ranks, scores_of
from camrt.metrics.optional import scipy

PERCENTILES = (10, 20, 30, 40, 50, 60, 70, 80, 90)
NOISE = 0.01  # σ; of pixels in [0, 1] in the paper's experiments
NEIGHBOURS = {
    (row, column): 1 / 6 if 0 in (row, column) else 1 / 12
    for row in (-1, 0, 1) for column in (-1, 0, 1) if (row, column) != (0, 0)
}  # fmt: skip
KEPT, OUTSIDE = -1, -2  # where a removed pixel has its number

Entries = tuple[np.ndarray, np.ndarray, np.ndarray]  # rows, columns and weights


def impute(x: np.ndarray, removed: np.ndarray, *, noise: float | np.ndarray = NOISE, seed: int = 0) -> np.ndarray:
    """Return an image (C, H, W), float32, with the removed pixels imputed; the others are as they were.

    Parameters
    ----------
    x : ndarray of shape (C, H, W), float32
        Preprocessed.
    removed : ndarray of shape (H, W), bool
        Not all: then nothing is left to tell what they were.
    noise : float or ndarray of shape (C,), default 0.01
        σ of the Gaussian noise on removed pixels, in units of x; one for each channel or one for all.  The authors' own
        experiments add 0.01 to pixels in [0, 1], before mean and standard deviation: that is
        0.01 · 255 · camrt.image.pixel_gain(preprocess)[0].
    seed : int, default 0

    Raises
    ------
    ParameterError
        `removed` is of another shape, or not bool, or every pixel is removed.
    MethodUnavailable
        SciPy is not installed.
    """
    x = check_image(x)
    removed = check_region(removed, x.shape[1:])
    if removed.all():
        raise ParameterError(f"All {removed.size} pixels are removed, none is left to impute from. Keep at least one.")
    out = x.copy()
    if removed.any():
        found = _solve(x.astype(np.float64), removed)  # (n, C)
        sigma = np.broadcast_to(np.asarray(noise, np.float64), len(x))
        out[:, removed] = (found + np.random.default_rng(seed).standard_normal(found.shape) * sigma).T
    return out


def _solve(x: np.ndarray, removed: np.ndarray) -> np.ndarray:
    """Return what the n removed pixels become, (n, C)."""
    entries, right = _equations(x, removed)
    row, column, weights = map(np.concatenate, zip(*entries, strict=True))
    matrix = scipy("sparse", "ROAD").csc_matrix((weights, (row, column)), shape=(len(right), len(right)))
    # The matrix is symmetric and positive definite, and needs no pivoting: with it, this order fills up on scattered pixels.
    factor = scipy("sparse.linalg", "ROAD").splu(
        matrix, permc_spec="MMD_AT_PLUS_A", diag_pivot_thresh=0.0, options={"SymmetricMode": True}
    )
    return np.asarray(factor.solve(right))


def _equations(x: np.ndarray, removed: np.ndarray) -> tuple[list[Entries], np.ndarray]:
    """Return the entries of the matrix (n, n) and the right side (n, C): an equation for each removed pixel."""
    number = np.where(removed, np.cumsum(removed).reshape(removed.shape) - 1, KEPT)
    number = np.pad(number, 1, constant_values=OUTSIDE)
    values = np.pad(x, ((0, 0), (1, 1), (1, 1)))
    places = np.argwhere(removed) + 1
    total = np.zeros(len(places))
    right = np.zeros((len(places), len(x)))
    entries: list[Entries] = []
    for step, weight in NEIGHBOURS.items():
        rows, columns = (places + step).T
        neighbour = number[rows, columns]
        total += weight * (neighbour != OUTSIDE)
        kept, unknown = neighbour == KEPT, np.flatnonzero(neighbour >= 0)
        right[kept] += weight * values[:, rows[kept], columns[kept]].T
        entries.append((unknown, neighbour[unknown], np.full(len(unknown), -weight)))
    entries.append((np.arange(len(places)), np.arange(len(places)), total))
    return entries, right


def road(
    x: np.ndarray,
    heatmap: np.ndarray,
    score: Score,
    percentiles: Sequence[float] = PERCENTILES,
    *,
    noise: float | np.ndarray = NOISE,
    seed: int = 0,
) -> Curve:
    """Return the score after the hottest pixels were removed; its mean is the figure, and a small one is good.

    Parameters
    ----------
    x : ndarray of shape (C, H, W), float32
        Preprocessed.
    heatmap : ndarray of shape (H, W)
        Only the order of its values counts; equal ones go in the order of rows.
    score : callable
        (n, C, H, W) → (n,), n at most 16.
    percentiles : sequence of float, default 10, 20, …, 90
        Percent of the pixels that are removed, at least 0 and below 100; most relevant first.
    noise : float or ndarray of shape (C,), default 0.01
        As in `impute`.
    seed : int, default 0

    Returns
    -------
    Curve
        Its fractions are percentiles / 100.

    Raises
    ------
    ParameterError
        A shape is wrong, the heatmap is not finite, or a percentile is outside of [0, 100).
    MethodUnavailable
        SciPy is not installed.
    """
    x = check_image(x)
    rank = ranks(heatmap, x.shape[1:])
    percent = np.asarray(percentiles, np.float64)
    if percent.ndim != 1 or not percent.size or not ((percent >= 0) & (percent < 100)).all():
        raise ParameterError(f"percentiles must be at least 0 and below 100, got {percentiles}. ROAD's own are 10, 20, …, 90.")

    def images() -> Iterator[np.ndarray]:
        for count in np.floor(rank.size * percent / 100):
            yield impute(x, rank < count, noise=noise, seed=seed)

    return Curve(percent / 100, scores_of(images(), score))
