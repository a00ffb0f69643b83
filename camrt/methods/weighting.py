"""A weighted sum of the feature maps, which most class activation maps are."""

from __future__ import annotations

import numpy as np


def weighted_sum(weights: np.ndarray, features: np.ndarray) -> np.ndarray:
    """Return ReLU(Σ_i w_i A_i).  (N, T, C), (N, C, h, w) → (N, T, h, w)."""
    return np.asarray(np.maximum(np.einsum("ntc,nchw->nthw", weights, features), 0), np.float32)
