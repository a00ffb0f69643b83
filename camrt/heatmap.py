"""From signed maps to heatmaps, in one place for every method: heatmap = N(ReLU(up(map))), and how it came out."""

from __future__ import annotations

from enum import IntEnum

import numpy as np

from camrt.image import FLAT, is_flat, upsample, upsampled_range


class Outcome(IntEnum):
    """How one target's heatmap came out; every one but OK has a heatmap of zeros."""

    OK = 0
    FLAT_MAP = 1  # the features, or the map, are the same everywhere
    NO_POSITIVE_EVIDENCE = 2  # nowhere does the map speak for the class
    NOT_FINITE = 3  # the network or the method gave NaN or infinity

    @property
    def word(self) -> str:
        """Return the name as results write it: "no_positive_evidence"."""
        return self.name.lower()


def heatmap(signed: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Return N(ReLU(up(map))) (…, H, W) in [0, 1] of maps (…, h, w); zeros where flat, not finite or nowhere above 0."""
    up = upsample(signed, size)
    least, high = up.min(axis=(-2, -1), keepdims=True), up.max(axis=(-2, -1), keepdims=True)
    positive, low = np.maximum(up, 0), np.maximum(least, 0)
    with np.errstate(invalid="ignore"):
        span = high - low
        usable = np.isfinite(span) & ~is_flat(low, high) & ~_is_nowhere_positive(least, high)
    with np.errstate(invalid="ignore"):
        return np.where(usable, (positive - low) / np.where(usable, span, 1), 0).astype(np.float32)


def outcomes(signed: np.ndarray, features: np.ndarray, finite: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Return the outcome (N, T), int64, of every target.

    Parameters
    ----------
    signed : ndarray of shape (N, T, h, w)
    features : ndarray of shape (N, C, h, w)
    finite : ndarray of shape (N,), bool
        The network itself was finite.
    size : (int, int)
        H and W.
    """
    ends = upsampled_range(np.nan_to_num(signed, nan=0, posinf=0, neginf=0), size)
    low, high = (end[..., 0, 0] for end in ends)
    failed = ~(np.isfinite(signed).all(axis=(-2, -1)) & finite[:, None])
    flat_features = (features == features[..., :1, :1]).all(axis=(1, 2, 3))[:, None]
    nowhere = _is_nowhere_positive(low, high)
    conditions = (failed, (flat_features & nowhere) | (is_flat(np.maximum(low, 0), high) & ~nowhere), nowhere)
    codes = (Outcome.NOT_FINITE, Outcome.FLAT_MAP, Outcome.NO_POSITIVE_EVIDENCE)
    return np.select([np.broadcast_to(c, high.shape) for c in conditions], [int(c) for c in codes], int(Outcome.OK))


def _is_nowhere_positive(low: np.ndarray, high: np.ndarray) -> np.ndarray:
    """Tell whether maps with these least and greatest values are positive nowhere, but for what rounding left of 0."""
    return np.asarray(high <= FLAT * np.maximum(-low, 0))
